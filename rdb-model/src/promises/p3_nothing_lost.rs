//! Promise 3: Every write that a member acknowledged is in the state of every later era, unless the switch between went on without
//! that member. Within an era: a strong replica that has applied the whole log has every acknowledged strong write, and a node
//! has every eventual one that it acknowledged itself.

use crate::state::{Ids, State};
use rdb_core::switch::Mode;

pub(super) fn holds(state: &State) -> bool {
    let counted = state.acknowledged().without(state.left_behind());
    (0..state.nodes.len()).all(|node| must_have(state, node, counted).without(state.visible(node)).is_empty())
}

fn must_have(state: &State, node: usize, counted: Ids) -> Ids {
    let at = &state.nodes[node];
    let has_all = at.applied == state.log.len();
    let is_due = |id: &u8| {
        let write = state.write(*id);
        let is_same_era = write.era == at.region.era();
        let is_own = usize::from(write.node) == node;
        write.era < at.region.era()
            || is_same_era
                && (write.mode == Mode::Strong && has_all || write.mode == Mode::Eventual && is_own)
    };
    counted.iter().filter(is_due).collect()
}

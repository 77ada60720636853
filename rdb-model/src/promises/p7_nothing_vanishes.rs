//! Promise 7: What a client read at a member before the flip does not vanish after it, nor at the same node in between.

use crate::state::{Ids, NODES, State};

pub(super) fn holds(state: &State) -> bool {
    let left_behind = state.left_behind();
    (0..NODES).all(|reader| {
        let shown = state.nodes[reader].shown.without(left_behind);
        (0..NODES).all(|node| due(state, shown, reader, node).without(state.visible(node)).is_empty())
    })
}

/// What `node` must have of all that was shown at `reader`.
fn due(state: &State, shown: Ids, reader: usize, node: usize) -> Ids {
    let era = state.nodes[node].region.era();
    let is_due = |id: &u8| state.write(*id).era < era || reader == node && state.write(*id).era == era;
    shown.iter().filter(is_due).collect()
}

//! Promise 8: What a switch has gone on without is kept apart: the excluded node that acknowledged it still has it in its log or in
//! its quarantine, and no later era holds it. (That a dead member blocks a switch without `--exclude` is promise 3: the base
//! would lack what it alone has.)

use crate::state::{Ids, State};

pub(super) fn holds(state: &State) -> bool {
    let left_behind = state.left_behind();
    let kept = left_behind.iter().filter(|id| state.write(*id).acknowledged.is_some()).all(|id| {
        let node = &state.nodes[usize::from(state.write(id).node)];
        node.appended().with(node.quarantine).contains(id)
    });
    let merged = |id: &u8| state.nodes.iter().any(|node| node.base.contains(*id));
    kept && left_behind.iter().filter(merged).collect::<Ids>().is_empty()
}

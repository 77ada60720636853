//! The checker that needs no versions: a search for an order, after Wing and Gong, with Lowe's memory of what was tried.
//! Slow, but simple enough to judge the fast one by.

use super::{Action, Expect, Operation, Value, Version};
use std::collections::HashSet;

type State = Option<(Value, Version)>;

/// Whether some order of the operations is legal. Those in doubt may be left out.
pub(super) fn is_linearizable(history: &[Operation]) -> bool {
    let mut tried = HashSet::new();
    search(history, 0, None, &mut tried)
}

fn search(history: &[Operation], done: u64, state: State, tried: &mut HashSet<(u64, State)>) -> bool {
    let open = |number: usize| done & (1 << number) == 0;
    let unfinished = (0..history.len()).filter(|number| open(*number) && history[*number].ret.is_some());
    // Whatever is next must have been called before any of the others returned.
    let Some(horizon) = unfinished.clone().filter_map(|number| history[number].ret).min() else {
        return true;
    };
    if !tried.insert((done, state)) {
        return false;
    }
    (0..history.len()).filter(|number| open(*number) && history[*number].call < horizon).any(|number| {
        let after = step(&history[number].action, state, number);
        after.is_some_and(|after| search(history, done | 1 << number, after, tried))
    })
}

/// The state after `action`, if it is legal in `state`. Versions of writes are taken as they were told.
fn step(action: &Action, state: State, number: usize) -> Option<State> {
    let meets = |expect: &Expect| match expect {
        Expect::Absent => state.is_none(),
        Expect::Value(value) => state.is_some_and(|(found, _)| found == *value),
        Expect::Version(version) => state.is_some_and(|(_, found)| found == *version),
    };
    // A write in doubt has a version that nobody knows: one that no other has.
    let unknown = Version { node: 1_000 + number as u64, ..Version::default() };
    match action {
        Action::Write { value, version } => Some(value.map(|value| (value, version.unwrap_or(unknown)))),
        Action::Swap { expect, value, version } => {
            meets(expect).then(|| value.map(|value| (value, version.unwrap_or(unknown))))
        }
        Action::Read { found } => {
            let same = match (found, state) {
                (Some((value, _)), Some((held, _))) => *value == held,
                (found, held) => found.is_none() && held.is_none(),
            };
            same.then_some(state)
        }
        Action::Refused { expect, .. } => (!meets(expect)).then_some(state),
    }
}

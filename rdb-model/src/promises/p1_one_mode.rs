//! Promise 1: One mode per namespace and era; epochs only grow, also when a switch is called off; no node's answer carries an older
//! epoch than one that it gave before.

use super::{Answered, Promise};
use crate::state::State;
use rdb_core::ids::Era;
use rdb_core::switch::{Descriptor, Mode};

/// Eras take turns, so the era alone tells the mode.
fn mode_of(state: &State, era: Era) -> Mode {
    let first = state.catalog[0].mode;
    if (era.0 - state.catalog[0].era.0).is_multiple_of(2) { first } else { first.other() }
}

pub(super) fn look(state: &mut State, answer: Answered) {
    if answer.epoch < state.nodes[answer.node].told {
        state.broken.note(Promise::OneMode);
    } else {
        state.node_mut(answer.node).told = answer.epoch;
    }
}

pub(super) fn holds(state: &State) -> bool {
    let nodes = state.nodes.iter().all(|node| node.region.mode() == mode_of(state, node.region.era()));
    !state.broken.has(Promise::OneMode) && nodes && answers_agree(state) && catalog_grows(state)
}

/// Answers of one epoch are of one era, and so of one mode.
fn answers_agree(state: &State) -> bool {
    let answers = state.writes.iter().filter_map(|write| Some((write.acknowledged?, write)));
    answers.clone().all(|(epoch, write)| {
        let is_apart = |other: &Descriptor| other.epoch == epoch && other.era != write.era;
        let catalog = !state.catalog.iter().any(|descriptor| is_apart(descriptor));
        let others = answers.clone().all(|(other, at)| other != epoch || at.era == write.era);
        write.mode == mode_of(state, write.era) && catalog && others
    })
}

/// Whoever hears two descriptors can tell which is newer; an epoch has one mode and one era.
fn catalog_grows(state: &State) -> bool {
    state.catalog.windows(2).all(|pair| {
        let (before, after) = (&pair[0], &pair[1]);
        let one_mode = before.epoch != after.epoch || (before.era, before.mode) == (after.era, after.mode);
        let next = after.era.0 == before.era.0 + u32::from(before.mode != after.mode);
        before.position() < after.position() && one_mode && next
    })
}

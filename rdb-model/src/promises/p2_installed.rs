//! Promise 2: A node acknowledges only in the mode that it has durably installed: what it would find on its disk if it crashed now
//! gives it the same era, mode and epoch.

use super::{Answered, Promise};
use crate::state::State;
use rdb_core::ids::Epoch;
use rdb_core::switch::{Control, Mode};

pub(super) fn look(state: &mut State, answer: Answered, mode: Mode) {
    let node = &state.nodes[answer.node];
    let of_era = node.controls.iter().filter(|control| control.era() == node.region.era());
    let control = of_era.map(epoch_of).max().unwrap_or_default();
    let durable = (node.region.era(), node.region.mode(), node.region.epoch().max(control));
    if durable != (answer.era, mode, answer.epoch) {
        state.broken.note(Promise::DurablyInstalled);
    }
}

fn epoch_of(control: &Control) -> Epoch {
    match control {
        Control::Open { epoch, .. } => *epoch,
        Control::Seal(seal) => seal.epoch,
    }
}

pub(super) fn holds(state: &State) -> bool {
    !state.broken.has(Promise::DurablyInstalled)
}

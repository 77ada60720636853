//! Losses that are certain: rounds over what all members have said, and then a walk over the notes of lost writes.
//!
//! A round needs the word of every member, and ends when all have what any of them had when it began. So while a member is
//! away at most the round that was under way ends, and nothing else becomes certain.

use super::{Replica, ReplicaError, Tools};
use rdb_core::eventual::conflicts::{Settling, lost_of_era};
use rdb_core::eventual::vector::Vector;
use rdb_core::ids::Era;

/// Notes looked at in one step: a millisecond or two.
const NOTES_PER_STEP_MAX: usize = 512;

/// What is known of losses that are certain.
#[derive(Debug, Default)]
pub(super) struct Losses {
    rounds: Settling,
    /// What became of a write that this has is certain. Forgotten at a restart, and found out again.
    pub(super) settled: Vector,
    walk: Option<Walk>,
}

/// A walk over the notes of lost writes.
#[derive(Debug)]
struct Walk {
    /// What was certain when it began.
    settled: Vector,
    /// Where it goes on.
    next: Vec<u8>,
}

impl Replica {
    /// Looks whether a round has ended, and begins a walk if there are losses that may have become certain by it.
    pub(super) fn look_at_losses(&mut self) {
        let (state, shown) = (self.machine.state(), self.machine.shown());
        let era = state.era;
        let reports: Option<Vec<_>> = self
            .peers
            .reports()
            .map(|(_, report, _)| report.filter(|report| report.era == era))
            .map(|report| report.map(|report| (&report.shown, &report.applied)))
            .collect();
        let Some(mut members) = reports else { return };
        let applied = self.claimed();
        members.push((shown, &applied));
        let Some(settled) = self.upkeep.losses.rounds.look(members.into_iter()) else { return };
        let losses = &mut self.upkeep.losses;
        if losses.walk.is_none() && state.settled < state.lost {
            losses.walk = Some(Walk { settled: settled.clone(), next: lost_of_era(era) });
        }
        losses.settled = settled;
    }

    /// Settles some of the losses that are certain. Whether there is more to be done.
    pub(super) fn settle_some(&mut self, tools: &Tools) -> Result<bool, ReplicaError> {
        let Some(Walk { settled, next }) = self.upkeep.losses.walk.take() else { return Ok(false) };
        let end = lost_of_era(Era(self.machine.state().era.0 + 1));
        let notes = self.data.some_notes(&next, &end, NOTES_PER_STEP_MAX)?;
        let last = notes.last().filter(|_| notes.len() == NOTES_PER_STEP_MAX).map(|(key, _)| key);
        // The first key behind the last one.
        let next = last.map(|last| [&last[..], &[0]].concat());
        let changes = self.machine.settle(&settled, notes, &self.data)?;
        if !changes.notes.is_empty() {
            self.write(&changes, tools)?;
        }
        self.upkeep.losses.walk = next.map(|next| Walk { settled, next });
        Ok(self.upkeep.losses.walk.is_some())
    }
}

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
    /// What became of a write that this has is certain, is noted so, and that is flushed. Forgotten at a restart, and found
    /// out again.
    pub(super) certain: Vector,
    /// What will be certain with the flush of this number.
    unflushed: Option<(Vector, u64)>,
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

impl Losses {
    /// All that is settled is noted so.
    fn noted(&mut self, settled: Vector, tools: &Tools) {
        // What waits already would wait for ever, if it were replaced by what came later.
        self.unflushed.get_or_insert_with(|| (settled, tools.data.next_flush()));
    }

    fn look_at_flushes(&mut self, tools: &Tools) {
        let flushed = tools.data.flushed();
        if let Some((certain, _)) = self.unflushed.take_if(|(_, number)| *number <= flushed) {
            self.certain = certain;
        }
    }

    /// Has flushed soon what is settled and is not certain for want of that.
    pub(super) fn want_flush(&self, tools: &Tools) {
        if let Some((_, number)) = &self.unflushed {
            tools.data.want_flush(*number);
        }
    }
}

impl Replica {
    /// Looks whether a round has ended, and begins a walk if there are losses that may have become certain by it.
    pub(super) fn look_at_losses(&mut self, tools: &Tools) {
        self.upkeep.losses.look_at_flushes(tools);
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
        if losses.walk.is_some() {
            return;
        }
        if state.settled < state.lost {
            losses.walk = Some(Walk { settled, next: lost_of_era(era) });
        } else {
            losses.noted(settled, tools);
        }
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
        match next {
            Some(next) => self.upkeep.losses.walk = Some(Walk { settled, next }),
            None => self.upkeep.losses.noted(settled, tools),
        }
        Ok(self.upkeep.losses.walk.is_some())
    }
}

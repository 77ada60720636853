//! Losses that are certain: rounds over what all members have said, and then a walk over the notes of lost writes.
//!
//! A round needs the word of every member, and ends when all have what any of them had when it began. So while a member is
//! away at most the round that was under way ends, and nothing else becomes certain.

use super::{Replica, ReplicaError, Tools};
use rdb_core::eventual::conflicts::{Settling, lost_of_era};
use rdb_core::eventual::vector::Vector;
use rdb_core::ids::{Era, NodeId};
use std::collections::BTreeMap;

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
    /// What is certain at the others, as they say.
    others_certain: BTreeMap<NodeId, Vector>,
    /// A vector that was settled here, and all that anybody had applied then: once that is certain everywhere, the notes of losses
    /// within the first are of no use to anybody any more.
    forgetting: Option<(Vector, Vector)>,
    /// Whether no note was settled, or came settled, since `forgetting` was last set. A start does not know.
    nothing_new: bool,
}

/// A walk over the notes of lost writes.
#[derive(Debug)]
struct Walk {
    /// What was certain when it began.
    settled: Vector,
    /// Up to where losses are forgotten that are settled everywhere.
    forget: Option<Vector>,
    /// Where it goes on.
    next: Vec<u8>,
}

impl Losses {
    /// All that is settled is noted so.
    fn noted(&mut self, settled: Vector, tools: &Tools) {
        // What waits already would wait for ever, if it were replaced by what came later.
        self.unflushed.get_or_insert_with(|| (settled, tools.data.next_flush()));
    }

    /// Whether more has become certain.
    fn look_at_flushes(&mut self, tools: &Tools) -> bool {
        let flushed = tools.data.flushed();
        let Some((certain, _)) = self.unflushed.take_if(|(_, number)| *number <= flushed) else {
            return false;
        };
        let more = certain != self.certain;
        self.certain = certain;
        more
    }

    /// Up to where losses can be forgotten: they are certain at all of `others`, and here.
    fn forgettable(&mut self, others: impl Iterator<Item = NodeId>) -> Option<Vector> {
        let (_, all) = self.forgetting.as_ref()?;
        let is_certain = |certain: Option<&Vector>| certain.is_some_and(|certain| certain.covers(all));
        let everywhere = is_certain(Some(&self.certain))
            && others.map(|node| self.others_certain.get(&node)).all(is_certain);
        self.forgetting.take_if(|_| everywhere).map(|(settled, _)| settled)
    }

    /// There may be notes that are settled and that no walk has seen so.
    pub(super) fn look_for_settled(&mut self) {
        self.nothing_new = false;
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
        if self.upkeep.losses.look_at_flushes(tools) {
            self.tell_again();
        }
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
        let forget = losses.forgettable(self.told.keys().copied());
        let looks_for_settled = !losses.nothing_new && losses.forgetting.is_none();
        if state.settled < state.lost || forget.is_some() || looks_for_settled {
            losses.walk = Some(Walk { settled, forget, next: lost_of_era(era) });
        } else {
            losses.noted(settled, tools);
        }
    }

    /// A member says up to where all is certain there.
    pub(super) fn hear_certain(&mut self, node: NodeId, certain: &Vector) {
        if self.upkeep.losses.others_certain.get(&node) != Some(certain) {
            self.upkeep.losses.others_certain.insert(node, certain.clone());
        }
    }

    /// All losses within `settled` are noted as settled: they are forgotten when they are so everywhere.
    fn forget_later(&mut self, settled: &Vector) {
        let losses = &mut self.upkeep.losses;
        if losses.nothing_new || losses.forgetting.is_some() {
            return;
        }
        losses.nothing_new = true;
        let mut all = self.machine.state().applied.clone();
        let era = self.logs.era();
        let reports = self.peers.reports().filter_map(|(_, report, _)| report);
        reports.filter(|report| report.era == era).for_each(|report| all.merge(&report.applied));
        self.upkeep.losses.forgetting = Some((settled.clone(), all));
    }

    /// Settles some of the losses that are certain. Whether there is more to be done.
    pub(super) fn settle_some(&mut self, tools: &Tools) -> Result<bool, ReplicaError> {
        let Some(Walk { settled, forget, next }) = self.upkeep.losses.walk.take() else { return Ok(false) };
        let end = lost_of_era(Era(self.machine.state().era.0 + 1));
        let notes = self.data.some_notes(&next, &end, NOTES_PER_STEP_MAX)?;
        let last = notes.last().filter(|_| notes.len() == NOTES_PER_STEP_MAX).map(|(key, _)| key);
        // The first key behind the last one.
        let next = last.map(|last| [&last[..], &[0]].concat());
        // What is settled in this very step is forgotten in a later walk.
        let forgotten = forget.as_ref().map(|forget| self.machine.forget_settled(forget, &notes, &self.data));
        let settles = self.machine.settle(&settled, notes, &self.data)?;
        if !settles.notes.is_empty() {
            self.upkeep.losses.look_for_settled();
        }
        for changes in [forgotten.transpose()?.unwrap_or_default(), settles] {
            if !changes.notes.is_empty() {
                self.write(&changes, tools)?;
            }
        }
        match next {
            Some(next) => self.upkeep.losses.walk = Some(Walk { settled, forget, next }),
            None => {
                self.forget_later(&settled);
                self.upkeep.losses.noted(settled, tools);
            }
        }
        Ok(self.upkeep.losses.walk.is_some())
    }
}

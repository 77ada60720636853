//! Tombstones that nobody needs any more.
//!
//! The member with the lowest number says up to which stamp tombstones go: not past the convergence frontier, so that every
//! member has all of them, and not younger than the grace period. It says so in its reports. Each member purges up to there
//! once all that it had applied when it heard of it is *settled*: then no write is under way any more whose writer did not
//! know of one of those deletions.
//!
//! The walk takes the records a few at a time. Its first step already says that tombstones up to there are purged: a writer
//! that finds a key empty, because this walk has passed it, must say that it knew of the deletion. Until the walk's end there
//! may be some yet; after a restart, too, where the walk goes on.

use super::upkeep::Moment;
use super::{Replica, ReplicaError, Stamps, Tools};
use rdb_core::eventual::lag::{self, SILENCE_MS_MAX};
use rdb_core::eventual::machine::Error as MachineError;
use rdb_core::eventual::run::Run;
use rdb_core::eventual::vector::Vector;
use rdb_core::ids::NodeId;
use rdb_core::range::KeyRange;
use rdb_core::record;
use rdb_core::scan::Direction;
use rdb_core::version::Hlc;
use rdb_storage::Length;

/// Records looked at in one step: a few milliseconds at most.
const RECORDS_PER_STEP_MAX: usize = 1024;
/// The same in bytes.
const BYTES_PER_STEP_MAX: usize = 1 << 20;
/// Between two decisions, however short the grace period is: each leads to a walk over all records.
const DECISION_INTERVAL_MS_MIN: u64 = 1000;

/// What is known of a region's tombstones.
#[derive(Debug, Default)]
pub(super) struct Tombstones {
    /// No tombstone is stamped below this; `None` if there is none.
    oldest: Option<Hlc>,
    /// Up to where they are to go, and what was applied here when that was heard.
    due: Option<(Hlc, Vector)>,
    walk: Option<Walk>,
    frontier: Hlc,
    /// When the next decision is due, for the member that decides.
    decides_at_ms: u64,
    /// How many were purged since the start.
    pub(super) purged: u64,
}

/// A walk over the records.
#[derive(Debug)]
struct Walk {
    to: Hlc,
    /// Where it goes on; `None` before its first step.
    next: Option<Vec<u8>>,
    /// The oldest tombstone that stays, or has come since it began.
    oldest: Option<Hlc>,
}

impl Tombstones {
    /// Of a region that was opened: its oldest tombstone, up to where it had begun to purge, and what is applied.
    pub(super) fn of(oldest: Option<Hlc>, purged: Hlc, applied: &Vector) -> Self {
        // What a restart has cut short goes on.
        Self { oldest, due: Some((purged, applied.clone())), ..Self::default() }
    }

    /// There is a tombstone of this stamp.
    pub(super) fn saw(&mut self, stamp: Hlc) {
        let older = |oldest: Option<Hlc>| Some(oldest.map_or(stamp, |oldest| oldest.min(stamp)));
        self.oldest = older(self.oldest);
        if let Some(walk) = &mut self.walk {
            walk.oldest = older(walk.oldest);
        }
    }

    /// These runs were applied.
    pub(super) fn saw_runs(&mut self, runs: &[Run]) {
        let entries = runs.iter().flat_map(|run| &run.entries);
        entries.filter(|entry| entry.value.is_none()).for_each(|entry| self.saw(entry.hlc));
    }

    /// A member says that all purge up to `to`.
    fn hear(&mut self, to: Hlc, applied: &Vector) {
        if self.due.as_ref().is_none_or(|(due, _)| *due < to) {
            self.due = Some((to, applied.clone()));
        }
    }
}

impl Replica {
    /// Whether anything may be purged now: every member is there, and none is to get a copy of the records.
    fn may_purge(&self, now_ms: u64) -> bool {
        let era = self.logs.era();
        let is_there = |(_, report, heard_ms): (NodeId, Option<&rdb_core::eventual::peers::Report>, u64)| {
            report.is_some_and(|report| report.era == era)
                && now_ms.saturating_sub(heard_ms) <= SILENCE_MS_MAX
        };
        self.peers.reports().all(is_there) && self.peers.need_full_sync().is_empty()
    }

    /// Whether this member says how far all purge.
    fn decides(&self) -> bool {
        self.told.keys().all(|other| self.logs.me().node < *other)
    }

    /// Up to where all are to purge, to be told to the others; 0 is nowhere.
    pub(super) fn purges_to(&self) -> Hlc {
        let due = self.upkeep.tombstones.due.as_ref().filter(|_| self.decides());
        due.map_or(Hlc(0), |(to, _)| *to)
    }

    /// A member says that all are to purge up to `to`.
    pub(super) fn hear_purge(&mut self, to: Hlc) {
        self.upkeep.tombstones.hear(to, &self.machine.state().applied);
    }

    /// Whether there is a tombstone whose time has come, so that others wait for this node's promise.
    pub(super) fn has_old_tombstones(&self, moment: &Moment, tools: &Tools) -> bool {
        let before_ms = moment.physical_ms.saturating_sub(tools.limits.tombstone_grace_ms);
        let oldest = self.upkeep.tombstones.oldest;
        oldest.is_some_and(|oldest| oldest.millis() <= before_ms) && self.may_purge(moment.now_ms)
    }

    /// Decides how far to purge, where that is this member's part, and begins to where it can.
    pub(super) fn look_at_tombstones(&mut self, moment: &Moment, tools: &Tools) -> Result<(), ReplicaError> {
        if !self.may_purge(moment.now_ms) {
            return Ok(());
        }
        self.decide(moment, tools);
        let (settled, state) = (&self.upkeep.losses.settled, self.machine.state());
        let tombstones = &mut self.upkeep.tombstones;
        let Some((to, _)) = tombstones.due.as_ref().filter(|(_, applied)| settled.covers(applied)) else {
            return Ok(());
        };
        let to = (*to).max(state.purged);
        if tombstones.oldest.is_some_and(|oldest| oldest <= to) {
            if tombstones.walk.is_none() {
                tombstones.walk = Some(Walk { to, next: None, oldest: None });
            }
        } else if state.purged < to {
            let changes = self.machine.purge(to, settled, &[], &self.data)?;
            self.write(&changes, tools)?;
        }
        Ok(())
    }

    fn decide(&mut self, moment: &Moment, tools: &Tools) {
        let grace_ms = tools.limits.tombstone_grace_ms;
        if !self.decides() || moment.now_ms < self.upkeep.tombstones.decides_at_ms {
            return;
        }
        let mine = self.report(moment.passed);
        let peers = self.peers.reports().map(|(_, report, _)| report);
        let told = lag::frontier(mine.era, std::iter::once(Some(&mine)).chain(peers), &Stamps(&self.stamps));
        let tombstones = &mut self.upkeep.tombstones;
        tombstones.frontier = tombstones.frontier.max(told.unwrap_or_default());
        let old = Hlc::from_millis(moment.physical_ms.saturating_sub(grace_ms));
        let to = tombstones.frontier.min(old);
        if tombstones.oldest.is_some_and(|oldest| oldest <= to) {
            tombstones.decides_at_ms = moment.now_ms + grace_ms.max(DECISION_INTERVAL_MS_MIN);
            tombstones.hear(to, &mine.applied);
            self.tell_again();
        }
    }

    /// Purges some tombstones. Whether there is more to be done.
    pub(super) fn purge_some(&mut self, now_ms: u64, tools: &Tools) -> Result<bool, ReplicaError> {
        if self.upkeep.tombstones.walk.is_none() || !self.may_purge(now_ms) {
            return Ok(false);
        }
        let Some(mut walk) = self.upkeep.tombstones.walk.take() else { return Ok(false) };
        let is_first = walk.next.is_none();
        let (found, next) = self.find_tombstones(&mut walk, tools)?;
        if is_first || !found.is_empty() {
            match self.machine.purge(walk.to, &self.upkeep.losses.settled, &found, &self.data) {
                Ok(changes) => self.write(&changes, tools)?,
                Err(error @ MachineError::NotPurgeable { .. }) => {
                    // Nothing was purged, and it is looked at again.
                    tracing::error!(region = %self.region, %error, "a tombstone stays");
                    return Ok(false);
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.upkeep.tombstones.purged += found.len() as u64;
        match next {
            Some(_) => self.upkeep.tombstones.walk = Some(Walk { next, ..walk }),
            None => self.upkeep.tombstones.oldest = walk.oldest,
        }
        Ok(self.upkeep.tombstones.walk.is_some())
    }

    /// The tombstones among the next records, and where to go on; nowhere, where that were all.
    #[allow(clippy::type_complexity, reason = "keys with their records, as the machine takes them")]
    fn find_tombstones(
        &self,
        walk: &mut Walk,
        tools: &Tools,
    ) -> Result<(Vec<(Vec<u8>, Vec<u8>)>, Option<Vec<u8>>), ReplicaError> {
        let range = KeyRange { from: walk.next.take().unwrap_or_default(), to: Vec::new() };
        let frozen = tools.data.freeze();
        let mut records = frozen.walk(self.namespace, &range, Direction::Forward, Length::Long);
        let (mut found, mut count, mut bytes) = (Vec::new(), 0, 0);
        while let Some((key, stored)) = records.record()? {
            if RECORDS_PER_STEP_MAX <= count || BYTES_PER_STEP_MAX <= bytes {
                return Ok((found, Some(key.to_vec())));
            }
            (count, bytes) = (count + 1, bytes + key.len() + stored.len());
            let record = record::decode(stored)?;
            if record.value.is_none() {
                if record.version.hlc <= walk.to {
                    found.push((key.to_vec(), stored.to_vec()));
                } else {
                    let stamp = record.version.hlc;
                    walk.oldest = Some(walk.oldest.map_or(stamp, |oldest| oldest.min(stamp)));
                }
            }
            records.step();
        }
        Ok((found, None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_during_a_walk_is_not_forgotten_at_its_end() {
        let mut tombstones = Tombstones::of(None, Hlc(0), &Vector::default());
        tombstones.saw(Hlc(8));
        tombstones.saw(Hlc(7));
        assert_eq!(tombstones.oldest, Some(Hlc(7)));
        tombstones.walk = Some(Walk { to: Hlc(7), next: None, oldest: None });
        tombstones.saw(Hlc(9));
        assert_eq!(tombstones.walk.unwrap().oldest, Some(Hlc(9)));
    }

    #[test]
    fn the_furthest_place_that_was_heard_counts_with_what_was_applied_then() {
        let origin = rdb_core::eventual::vector::Origin {
            node: NodeId(1),
            incarnation: rdb_core::ids::Incarnation(1),
        };
        let applied = |seq| [(origin, seq)].into_iter().collect::<Vector>();
        let mut tombstones = Tombstones::of(None, Hlc(5), &applied(1));
        tombstones.hear(Hlc(4), &applied(2));
        assert_eq!(tombstones.due, Some((Hlc(5), applied(1))));
        tombstones.hear(Hlc(6), &applied(3));
        tombstones.hear(Hlc(6), &applied(4));
        assert_eq!(tombstones.due, Some((Hlc(6), applied(3))));
    }
}

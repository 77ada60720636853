//! Tombstones that nobody needs any more.
//!
//! The member with the lowest number proposes up to which stamp tombstones go: not past the convergence frontier, so that
//! every member has all of them, and not younger than the grace period. It says so in its reports. Each member is *ready*, and
//! says so, once all that it had applied when it heard of it is certain: then no write is under way any more whose writer did
//! not know of one of those deletions, and no start will apply one again. All purge up to where all are ready.
//!
//! The walk takes the records a few at a time. Its first step already says that tombstones up to there are purged: a writer
//! that finds a key empty, because this walk has passed it, must say that it knew of the deletion. Until the walk's end there
//! may be some yet; after a restart, too, so each start walks once.

use super::upkeep::Moment;
use super::{Replica, ReplicaError, Tools};
use fail::fail_point;
use rdb_core::eventual::lag::{self, SILENCE_MS_MAX};
use rdb_core::eventual::machine::Error as MachineError;
use rdb_core::eventual::peers::Report;
use rdb_core::eventual::run::Run;
use rdb_core::eventual::vector::Vector;
use rdb_core::ids::NodeId;
use rdb_core::range::KeyRange;
use rdb_core::record;
use rdb_core::scan::Direction;
use rdb_core::version::Hlc;
use rdb_storage::Length;
use std::collections::BTreeMap;

/// Records looked at in one step: a few milliseconds at most.
const RECORDS_PER_STEP_MAX: usize = 1024;
/// The same in bytes.
const BYTES_PER_STEP_MAX: usize = 1 << 20;
/// Between two decisions, however short the grace period is: each leads to a walk over all records.
const DECISION_INTERVAL_MS_MIN: u64 = 1000;

/// Keys with their records, as they are stored.
type Records = Vec<(Vec<u8>, Vec<u8>)>;

/// What is known of a region's tombstones.
#[derive(Debug, Default)]
pub(super) struct Tombstones {
    /// No tombstone is stamped below this; `None` if there is none.
    oldest: Option<Hlc>,
    /// Up to where they are to go, and what was applied here when that was heard.
    due: Option<(Hlc, Vector)>,
    /// Up to where this member is ready.
    ready: Hlc,
    /// Up to where each other one is.
    others_ready: BTreeMap<NodeId, Hlc>,
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
    /// Of a region that was opened: up to where it had begun to purge, and what is applied. A walk finds out what there is.
    pub(super) fn unknown(purged: Hlc, applied: &Vector) -> Self {
        let due = Some((purged, applied.clone()));
        Self { oldest: Some(Hlc(0)), due, ..Self::default() }
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

    /// A member proposes that all purge up to `to`.
    fn hear(&mut self, to: Hlc, applied: &Vector) {
        // One after the other: to wait for what came later would be to wait for ever.
        if self.ready < to && self.due.is_none() {
            self.due = Some((to, applied.clone()));
        }
    }

    /// So much is certain.
    fn get_ready(&mut self, certain: &Vector) {
        if let Some((to, _)) = self.due.take_if(|(_, applied)| certain.covers(applied)) {
            self.ready = self.ready.max(to);
        }
    }

    /// Whether all tombstones up to `purged` are gone. Until a walk's end some are not, and which ones differs between members.
    pub(super) fn are_gone_to(&self, purged: Hlc) -> bool {
        purged == Hlc(0) || self.walk.is_none() && self.oldest.is_none_or(|oldest| purged < oldest)
    }

    /// Up to where all of `others` and this member are ready.
    fn agreed(&self, others: impl Iterator<Item = NodeId>) -> Hlc {
        let ready = |node| self.others_ready.get(&node).copied().unwrap_or_default();
        others.map(ready).fold(self.ready, Hlc::min)
    }
}

impl Replica {
    /// Whether anything may be purged now: the mode is not being switched, every member is there, and none is to take a
    /// copy, this one included.
    fn may_purge(&self, now_ms: u64) -> bool {
        if self.upkeep.is_switching || self.copying.is_under_way() {
            return false;
        }
        let era = self.logs.era();
        let is_there = |(_, report, heard_ms): (NodeId, Option<&Report>, u64)| {
            report.is_some_and(|report| report.era == era)
                && now_ms.saturating_sub(heard_ms) <= SILENCE_MS_MAX
        };
        self.peers.reports().all(is_there) && self.peers.need_copy(&self.logs).is_empty()
    }

    /// Whether this member says how far all purge.
    fn decides(&self) -> bool {
        self.told.keys().all(|other| self.logs.me().node < *other)
    }

    /// Up to where all are to purge, as this member proposes; 0 is nowhere.
    pub(super) fn purges_to(&self) -> Hlc {
        let tombstones = &self.upkeep.tombstones;
        let due = tombstones.due.as_ref().map_or(tombstones.ready, |(to, _)| *to);
        if self.decides() { due } else { Hlc(0) }
    }

    /// Up to where this member is ready for all to purge.
    pub(super) fn purge_ready(&self) -> Hlc {
        self.upkeep.tombstones.ready
    }

    /// A member proposes that all purge up to `to`, and is ready up to `ready`.
    pub(super) fn hear_purge(&mut self, node: NodeId, to: Hlc, ready: Hlc) {
        let applied = &self.machine.state().applied;
        let tombstones = &mut self.upkeep.tombstones;
        tombstones.hear(to, applied);
        tombstones.others_ready.insert(node, ready);
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
        let ready = self.upkeep.tombstones.ready;
        self.upkeep.tombstones.get_ready(&self.upkeep.losses.certain);
        if self.upkeep.tombstones.due.is_some() {
            self.upkeep.losses.want_flush(tools);
        } else if ready < self.upkeep.tombstones.ready {
            self.tell_again();
        }
        let (purged, tombstones) = (self.machine.state().purged, &mut self.upkeep.tombstones);
        let to = tombstones.agreed(self.told.keys().copied()).max(purged);
        // After a restart, this node must find out first what is certain.
        if tombstones.due.is_some() && tombstones.ready < to {
            return Ok(());
        }
        if tombstones.oldest.is_some_and(|oldest| oldest <= to) {
            tombstones.walk.get_or_insert(Walk { to, next: None, oldest: None });
        } else if purged < to {
            let changes = self.machine.purge(to, &self.upkeep.losses.certain, &[], &self.data)?;
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
        let told = lag::frontier(mine.era, std::iter::once(Some(&mine)).chain(peers), &self.stamps);
        let tombstones = &mut self.upkeep.tombstones;
        tombstones.frontier = tombstones.frontier.max(told.unwrap_or_default());
        let old = Hlc::from_millis(moment.physical_ms.saturating_sub(grace_ms));
        let to = tombstones.frontier.min(old);
        if tombstones.ready < to && tombstones.oldest.is_some_and(|oldest| oldest <= to) {
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
            match self.machine.purge(walk.to, &self.upkeep.losses.certain, &found, &self.data) {
                Ok(changes) => {
                    if !found.is_empty() {
                        fail_point!("tombstones-before-purge");
                    }
                    self.write(&changes, tools)?;
                }
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
    fn find_tombstones(
        &self,
        walk: &mut Walk,
        tools: &Tools,
    ) -> Result<(Records, Option<Vec<u8>>), ReplicaError> {
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
    use rdb_core::eventual::vector::Origin;
    use rdb_core::ids::Incarnation;

    fn applied(seq: u64) -> Vector {
        let origin = Origin { node: NodeId(1), incarnation: Incarnation(1) };
        [(origin, seq)].into_iter().collect()
    }

    #[test]
    fn what_comes_during_a_walk_is_not_forgotten_at_its_end() {
        let mut tombstones = Tombstones::default();
        tombstones.saw(Hlc(8));
        tombstones.saw(Hlc(7));
        assert_eq!(tombstones.oldest, Some(Hlc(7)));
        tombstones.walk = Some(Walk { to: Hlc(7), next: None, oldest: None });
        tombstones.saw(Hlc(9));
        assert_eq!(tombstones.walk.unwrap().oldest, Some(Hlc(9)));
    }

    /// Two members that are at different places of their walks hold different tombstones, and neither is damaged.
    #[test]
    fn what_is_being_purged_is_not_gone_before_the_walks_end() {
        let mut tombstones = Tombstones::unknown(Hlc(5), &applied(1));
        assert!(!tombstones.are_gone_to(Hlc(5)), "it is not known yet what there is");
        assert!(tombstones.are_gone_to(Hlc(0)), "nothing was purged anywhere");
        tombstones.oldest = Some(Hlc(6));
        assert!(tombstones.are_gone_to(Hlc(5)));
        tombstones.walk = Some(Walk { to: Hlc(5), next: None, oldest: None });
        assert!(!tombstones.are_gone_to(Hlc(5)));
    }

    #[test]
    fn all_purge_up_to_where_all_are_ready() {
        let others = || [NodeId(2), NodeId(3)].into_iter();
        let mut tombstones = Tombstones::unknown(Hlc(5), &applied(1));
        tombstones.get_ready(&applied(0));
        assert_eq!(tombstones.ready, Hlc(0), "a restart finds out first what is certain");
        tombstones.get_ready(&applied(1));
        assert_eq!(tombstones.ready, Hlc(5));
        tombstones.hear(Hlc(7), &applied(3));
        tombstones.hear(Hlc(8), &applied(4));
        tombstones.get_ready(&applied(2));
        assert_eq!(tombstones.ready, Hlc(5));
        tombstones.get_ready(&applied(3));
        assert_eq!(tombstones.ready, Hlc(7), "the first proposal is not put off by the second");
        tombstones.others_ready.insert(NodeId(2), Hlc(9));
        assert_eq!(tombstones.agreed(others()), Hlc(0), "node 3 has not said anything");
        tombstones.others_ready.insert(NodeId(3), Hlc(6));
        assert_eq!(tombstones.agreed(others()), Hlc(6));
        tombstones.others_ready.insert(NodeId(3), Hlc(8));
        assert_eq!(tombstones.agreed(others()), Hlc(7));
    }
}

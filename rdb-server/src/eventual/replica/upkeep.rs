//! What is done for a region now and then, a little at a time, so that its writes do not wait for it.

use super::purging::Tombstones;
use super::settling::Losses;
use super::{Replica, ReplicaError, Tools};
use crate::eventual::keeping::Keeping;
use rdb_core::version::Hlc;
use std::time::Duration;

/// How much a region keeps.
#[derive(Debug, Clone, Copy)]
pub(in crate::eventual) struct Limits {
    /// For how long deletions are remembered at least.
    pub(in crate::eventual) tombstone_grace_ms: u64,
    /// Bytes of writes that are kept for members that lack them.
    pub(in crate::eventual) log_bytes_max: u64,
    /// Between two comparisons with a member.
    pub(in crate::eventual) compare_interval: Duration,
}

/// When something is looked at.
#[derive(Debug, Clone, Copy)]
pub(in crate::eventual) struct Moment {
    /// By the monotonic clock.
    pub(in crate::eventual) now_ms: u64,
    /// The physical part of the hybrid clock.
    pub(in crate::eventual) physical_ms: u64,
    /// Whether that is not known to be off from those of a majority.
    pub(in crate::eventual) is_trusted: bool,
    /// What the clock has passed for good.
    pub(in crate::eventual) passed: Hlc,
}

/// What there is to be looked after.
#[derive(Debug, Default)]
pub(super) struct Upkeep {
    pub(super) losses: Losses,
    pub(super) tombstones: Tombstones,
    pub(in crate::eventual) keeping: Keeping,
    /// Whether the namespace's mode is being switched.
    pub(super) is_switching: bool,
}

impl Replica {
    /// Looks what there is to be done. Called once a second.
    pub(in crate::eventual) fn look_after(
        &mut self,
        moment: &Moment,
        is_switching: bool,
        tools: &Tools,
    ) -> Result<(), ReplicaError> {
        self.upkeep.is_switching = is_switching;
        self.upkeep.keeping.look(Some(moment.physical_ms).filter(|_| moment.is_trusted));
        self.look_at_losses(tools);
        self.look_at_tombstones(moment, tools)
    }

    /// Does a little of it. Whether there is more.
    pub(in crate::eventual) fn work(&mut self, now_ms: u64, tools: &Tools) -> Result<bool, ReplicaError> {
        let merges = self.merge_some(tools)?;
        let settles = self.settle_some(tools)?;
        let purges = self.purge_some(now_ms, tools)?;
        let forgets = self.upkeep.keeping.work(self.era(), &self.data)?;
        if forgets {
            // What is not listed any more has no other use once it is settled everywhere.
            self.upkeep.losses.look_for_settled();
        }
        Ok(merges || settles || purges || forgets)
    }

    /// Whether other members wait for a promise of this one that is newer than the last.
    pub(in crate::eventual) fn owes_promise(&self, moment: &Moment, tools: &Tools) -> bool {
        self.has_old_tombstones(moment, tools)
    }

    /// All members are told with the next tick where this one stands, though nothing of it may have changed.
    pub(in crate::eventual) fn tell_again(&mut self) {
        self.told.values_mut().for_each(|told| told.report = None);
    }

    pub(super) fn show_upkeep(&self) {
        let certain = self.machine.state().lost_for_certain();
        self.shown.show_upkeep(certain, self.upkeep.tombstones.purged);
        self.shown.show_kept(self.upkeep.keeping.shown());
    }
}

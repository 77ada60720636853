//! What the thread does now and then, besides what is asked of it: a little in each tick, so that nobody waits for it.

use super::{Driver, Gatekeeper, Mode, OriginWrite, note_alive, post, post_then, stamp};
use crate::clocks::millis;
use crate::eventual::keeping::{forget_bare, forget_old};
use crate::eventual::replica::{Moment, ReplicaError, SYNC_INTERVAL};
use rdb_core::eventual::conflicts::all_lost;
use rdb_core::ids::{Era, NamespaceId, RegionId};
use std::time::{Duration, Instant};

/// In each tick, at most: less than half of one.
const WORK_PER_TICK_MAX: Duration = Duration::from_millis(4);

/// What is noted of losses in a region's eras before the one that its data is in: it is gone through once.
#[derive(Debug)]
pub(super) struct Bygone {
    namespace: NamespaceId,
    era: Era,
    /// Where to go on.
    next: Vec<u8>,
}

impl Driver {
    fn moment(&self) -> Moment {
        let now_ms = millis(self.started.elapsed());
        let passed = self.clock.passed().min(self.mark_synced);
        let is_trusted = self.guard.refuses().is_none();
        Moment { now_ms, physical_ms: self.clock.physical_ms(now_ms), is_trusted, passed }
    }

    /// Looks what there is to be done for each region.
    pub(super) fn look_after(&mut self) -> Result<(), ReplicaError> {
        let moment = self.moment();
        let mut owes = None;
        for (region, replica) in &mut self.replicas {
            let is_settled =
                |gate: &Gatekeeper| gate.is_open() && gate.heard().is_none_or(|heard| !heard.is_switching());
            let is_switching = !self.gates.get(region).is_some_and(is_settled);
            // The last tick that did so may be as long ago as a member may be silent.
            note_alive(&self.health, replica, moment.now_ms);
            replica.look_after(&moment, is_switching, &self.tools)?;
            if replica.owes_promise(&moment, &self.tools) {
                replica.tell_again();
                owes = Some(*region);
            }
        }
        if let Some(region) = owes {
            self.move_clock(region, moment.now_ms);
        }
        self.forget_in_strong(&moment)
    }

    /// What was lost in a namespace that is strong by now goes when its time is over.
    fn forget_in_strong(&self, moment: &Moment) -> Result<(), ReplicaError> {
        let keeping = self.keeps.iter().filter(|(_, (_, seconds))| 0 < *seconds);
        for (region, (namespace, seconds)) in keeping.filter(|_| moment.is_trusted) {
            let is_strong = |gate: &Gatekeeper| gate.mode().mode() == Mode::Strong;
            if self.gates.get(region).is_some_and(is_strong) {
                let data = self.tools.data.region(*region, *namespace);
                forget_old(&data, *seconds, moment.physical_ms)?;
            }
        }
        Ok(())
    }

    /// Lets the clock pass the present moment for good, though nothing is written: what this node promises rests on that.
    fn move_clock(&mut self, region: RegionId, now_ms: u64) {
        stamp(&mut self.clock, &mut self.mark, now_ms);
        let Some(replica) = self.replicas.get_mut(&region) else { return };
        if let Some(mark) = self.mark.take() {
            replica.hand_out_nothing();
            let era = replica.era();
            let write = OriginWrite { era, stamps_below: Some(mark), sync: true, ..OriginWrite::default() };
            post(&self.log, &self.eventual, region, write, None);
        }
    }

    /// Does some of it, for one region after the other.
    pub(super) fn work(&mut self) -> Result<(), ReplicaError> {
        let (began, now_ms) = (Instant::now(), millis(self.started.elapsed()));
        let behind = self.replicas.range(self.works_at..).map(|(region, _)| *region);
        let before = self.replicas.range(..self.works_at).map(|(region, _)| *region);
        let turns: Vec<RegionId> = behind.chain(before).collect();
        for region in turns {
            if WORK_PER_TICK_MAX <= began.elapsed() {
                self.works_at = region;
                break;
            }
            if let Some(replica) = self.replicas.get_mut(&region) {
                let was_merging = replica.is_merging();
                let more = replica.work(now_ms, &self.tools)?;
                self.restless.extend(more.then_some(region));
                // The gate waits for that to seal, and a snapshot to replace the region.
                self.moved.extend((was_merging && !replica.is_merging()).then_some(region));
            }
        }
        if began.elapsed() < WORK_PER_TICK_MAX {
            self.forget_bygone()?;
        }
        Ok(())
    }

    /// A region's data is in `era`: what was noted before goes, by and by. A crash that takes the data back brings that back, too.
    pub(in crate::eventual) fn forget_before(&mut self, era: Era, region: RegionId, namespace: NamespaceId) {
        if Era(1) < era {
            self.bygone.insert(region, Bygone { namespace, era, next: all_lost().0 });
        }
    }

    /// Removes some of that, of one region.
    fn forget_bygone(&mut self) -> Result<(), ReplicaError> {
        let Some(mut first) = self.bygone.first_entry() else { return Ok(()) };
        let Bygone { namespace, era, next } = first.get();
        let data = self.tools.data.region(*first.key(), *namespace);
        match forget_bare(&data, *era, next)? {
            Some(next) => first.get_mut().next = next,
            None => drop(first.remove()),
        }
        Ok(())
    }

    /// Whether all that is acknowledged and not synced is to be synced now, of all regions at once: then they are touched.
    pub(super) fn sync_is_due(&mut self, now: Instant) -> bool {
        let is_due = self.next_sync.take_if(|at| *at <= now).is_some();
        if is_due {
            self.touched.append(&mut self.unsynced);
        }
        is_due
    }

    /// Hands out a region whose writes are acknowledged before they are synced. What is to be synced now, if anything.
    pub(super) fn hand_out_first(
        &mut self,
        region: RegionId,
        now: Instant,
        is_due: bool,
    ) -> Result<Option<OriginWrite>, ReplicaError> {
        let Some(replica) = self.replicas.get_mut(&region) else { return Ok(None) };
        if !replica.acknowledges_later()
            && !self.log.is_crowded()
            && let Some(write) = replica.acknowledge_first(&self.tools)?
        {
            post_then(&self.log, region, write, || ());
        }
        // A gate is sealed when nothing is under way any more.
        let is_open = self.gates.get(&region).is_some_and(Gatekeeper::is_open);
        let syncs = is_due || !is_open || replica.hurries_sync();
        let write = if syncs { replica.sync_out() } else { None };
        if replica.waits_for_sync() || replica.has_accepted() {
            self.unsynced.insert(region);
            self.next_sync.get_or_insert(now + SYNC_INTERVAL);
        }
        Ok(write)
    }
}

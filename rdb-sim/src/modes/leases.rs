//! Reads by lease, as a node's edge serves them: what a round of reads confirmed holds for a while, by the node's monotonic clock.

use super::node::{Input, Process, Reading};
use super::planted::{Shortcut, takes};
use super::world::World;
use crate::clients::{Caller, NOBODY};
use crate::invariants::Violation;
use rdb_core::ids::{Era, NodeId};
use rdb_core::raft::Standing;

impl Process {
    /// For how much longer this node may serve reads by itself.
    fn lease_left_ms(&self, now_ms: u64) -> Option<u64> {
        let status = self.group.status();
        let leads_in = self.group.is_leader().then_some(status.term);
        let standing = Standing { leads_in, commit: status.commit, applied: status.applied };
        self.lease.until(standing)?.checked_sub(now_ms).filter(|left_ms| 0 < *left_ms)
    }

    /// A round of reads was confirmed.
    fn round_confirmed(&mut self, reading: &Reading, length_ms: u64) {
        if self.group.is_leader() {
            let term = self.group.status().term;
            self.lease.confirmed(term, reading.began_ms + length_ms);
        }
    }
}

impl World {
    /// How long a round holds: less than an election timeout, by more than clocks and ticks are off.
    pub(super) fn lease_ms(&self) -> Option<u64> {
        let ticks = self.options.raft.election_ticks as u64 - 2;
        self.options.raft.leases.then_some(self.options.tick * ticks * 8 / 10 / 1_000)
    }

    /// A round of reads was confirmed, of which this is one.
    pub(super) fn round_confirmed(&mut self, id: NodeId, reading: &Reading) {
        let Some(length_ms) = self.lease_ms() else { return };
        if let Some(process) = self.process_mut(id) {
            process.round_confirmed(reading, length_ms);
        }
    }

    /// The clock by which a node holds leases.
    fn lease_clock_ms(&self, id: NodeId) -> u64 {
        let node = self.node(id);
        if takes(Shortcut::LeaseByWallClock) {
            node.wall.now_ms(self.now)
        } else {
            node.monotonic_ms(self.now)
        }
    }

    /// A linearizable read: by lease if that was asked for and there is one, else by a round.
    pub(super) fn read(
        &mut self,
        id: NodeId,
        caller: Caller,
        key: &[u8],
        by_lease: bool,
    ) -> Result<(), Violation> {
        let (acknowledged, now_ms) = (self.truth.acknowledged(), self.lease_clock_ms(id));
        let Some(process) = self.process(id) else { return Ok(()) };
        let era = process.region.era();
        let left_ms = process.lease_left_ms(now_ms).filter(|_| by_lease);
        let reading = Reading { caller, key: key.to_vec(), era, acknowledged, began_ms: now_ms };
        let Some((left_ms, length_ms)) = left_ms.zip(self.lease_ms()) else {
            self.input(id, Input::Read(reading));
            return Ok(());
        };
        self.totals.lease_reads += 1;
        if left_ms < length_ms / 2 {
            self.ask_for_round(id, era);
        }
        self.answer_read(id, &reading)
    }

    /// A round of reads for nobody but the lease.
    fn ask_for_round(&mut self, id: NodeId, era: Era) {
        let caller = Caller { client: NOBODY, attempt: 0 };
        let began_ms = self.lease_clock_ms(id);
        self.input(id, Input::Read(Reading { caller, key: Vec::new(), era, acknowledged: 0, began_ms }));
    }
}

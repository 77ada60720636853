//! Reads by lease, as a node's edge keeps them: what a round of reads confirmed holds for a while, by the node's monotonic clock.
//!
//! A lease ends before its time where another node may lead or the mode change sooner: at a hand-over, and when its holder
//! proposes a marker, since others may apply that first.

use super::node::{Input, Process, Reading};
use super::planted::{Shortcut, takes};
use super::world::World;
use crate::clients::{Caller, NOBODY};
use crate::invariants::Violation;
use rdb_core::ids::{NodeId, Term};
use rdb_core::switch::planted::{Wrong, wrong};

/// What rounds of reads have told the node that leads.
#[derive(Debug, Default)]
pub(super) struct Lease {
    /// Until then, in milliseconds of this node's monotonic clock, nobody else leads, if this node still leads in this term.
    until: Option<(Term, u64)>,
    /// In this term the leadership is handed over: there is no lease any more.
    handed_over: Term,
    /// In this term a marker was proposed: there is none either, until the region is strong again.
    marked: Term,
}

impl Lease {
    /// A round of reads that began at `began_ms` or later was confirmed in a term in which this node leads.
    fn confirmed(&mut self, term: Term, began_ms: u64, length_ms: u64) {
        if term == self.handed_over || term == self.marked {
            return;
        }
        let until_ms = began_ms + length_ms;
        if self.until.is_none_or(|(of, before_ms)| of != term || before_ms < until_ms) {
            self.until = Some((term, until_ms));
        }
    }

    /// The leadership of this term is about to be handed over.
    pub(super) fn hands_over(&mut self, term: Term) {
        if !takes(Shortcut::LeaseOutlivesHandOver) {
            self.handed_over = term;
            self.until = None;
        }
    }

    /// A marker is about to be proposed in this term.
    pub(super) fn marks(&mut self, term: Term) {
        if !wrong(Wrong::LeaseKept) {
            self.marked = term;
            self.until = None;
        }
    }

    /// The region is strong again: all that others may have acknowledged before this replica was there is in its data by now.
    pub(super) fn is_strong(&mut self) {
        self.marked = 0;
        if takes(Shortcut::StrongForgetsHandOver) {
            self.handed_over = 0;
        }
    }
}

impl Process {
    /// For how much longer this node surely leads, if its data has all that is committed. What it has not applied yet, a reader at
    /// another node may have seen there: a read by lease must not go back behind that.
    fn lease_left_ms(&self, now_ms: u64) -> Option<u64> {
        let (term, until_ms) = self.lease.until?;
        let status = self.group.status();
        let leads = self.group.is_leader() && status.term == term;
        let has_all = status.commit <= status.applied || takes(Shortcut::LeaseBeforeApplied);
        until_ms.checked_sub(now_ms).filter(|left_ms| 0 < *left_ms && leads && has_all)
    }

    /// A round of reads was confirmed.
    fn round_confirmed(&mut self, reading: &Reading, length_ms: u64) {
        if self.group.is_leader() {
            let term = self.group.status().term;
            self.lease.confirmed(term, reading.began_ms, length_ms);
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

    /// A linearizable read: by lease if that was asked for and there is one, else by a round.
    pub(super) fn read(
        &mut self,
        id: NodeId,
        caller: Caller,
        key: &[u8],
        by_lease: bool,
    ) -> Result<(), Violation> {
        let (acknowledged, now_ms) = (self.truth.acknowledged(), self.node(id).monotonic_ms(self.now));
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
            let caller = Caller { client: NOBODY, attempt: 0 };
            self.input(id, Input::Read(Reading { caller, ..reading.clone() }));
        }
        self.answer_read(id, &reading)
    }
}

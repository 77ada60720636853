//! The life of a world: a storm; then a quorum that must make progress; then everything works and must converge.

use super::World;
use super::node::{Lives, Replica};
use crate::event::Event;
use crate::floor::{EASES_AFTER, EASES_MAX};
use crate::invariants::{Violation, acknowledged_writes_are_there, history_is_linearizable, holds};
use crate::options::{Micros, Options};
use crate::totals::Totals;
use rand::RngExt as _;
use rdb_core::ids::{NodeId, RegionId};
use std::collections::BTreeSet;

/// Election timeouts within which a healed quorum must write and read.
const PROGRESS_TIMEOUTS: u64 = 20;
/// Election timeouts within which all replicas must be equal once everything works and nobody writes.
const CONVERGENCE_TIMEOUTS: u64 = 40;

impl World {
    /// Lives through all phases.
    pub(crate) fn live(&mut self) -> Result<(), Violation> {
        self.boot_all()?;
        self.run_until(self.options.storm, |_| false)?;
        self.reaches_its_floor()?;
        self.heal_a_quorum()?;
        self.makes_progress()?;
        self.heal_everything()?;
        self.converges()?;
        self.judge()
    }

    /// The storm goes on until there was enough of everything, where that is asked for.
    fn reaches_its_floor(&mut self) -> Result<(), Violation> {
        let Some(floor) = self.options.floor else { return Ok(()) };
        let is_reached = move |world: &World| {
            let totals = world.totals();
            floor.is_reached(totals.operations(), totals.faults(), totals.crashes)
        };
        for _ in 0..EASES_MAX {
            if !is_reached(self) {
                self.run_until(self.now + EASES_AFTER, is_reached)?;
                self.options.ease();
            }
        }
        holds("a storm reaches its floor", is_reached(self), || format!("{floor:?}: {}", self.totals()))
    }

    fn patience_of_elections(&self, count: u64) -> Micros {
        let election = 2 * self.options.raft.election_ticks as u64 * self.options.tick;
        // A slow world needs longer for each step of an election.
        let slowness = self.options.sync.1 + self.options.apply.1 + self.options.network.delay.1;
        count * (election + 10 * slowness)
    }

    /// How long a member that has to catch up takes where each append holds one entry that is read from the disk before.
    fn patience_of_small_appends(&self) -> Micros {
        let Options { raft, network, fetch, sync, .. } = &self.options;
        if 1_000 < raft.append_bytes_max {
            return 0;
        }
        self.invariants.applied.longest() * (2 * network.delay.1 + fetch.1 + sync.1)
    }

    /// How long it takes to bring members that were left behind back, when nothing fails any more.
    fn patience_of_snapshots(&self) -> Micros {
        let snapshots = &self.options.snapshots;
        if snapshots.absence_max.is_none() {
            return 0;
        }
        // One that was under way when the faults ended is given up first; the next may be of a leader that steps down.
        let taking_in = snapshots.replace.1 + self.options.apply.1 + 4 * self.options.sync.1;
        3 * (snapshots.give_up.1 + snapshots.read.1 + snapshots.travel.1 + taking_in)
    }

    /// Faults end, but for what is broken outside a random quorum: nodes that stay dark, cut off in any direction, or
    /// with a log disk that hangs while all else about them works.
    fn heal_a_quorum(&mut self) -> Result<(), Violation> {
        if self.rng.random_bool(0.4) {
            self.power_cut();
        }
        let mut ids = self.ids();
        let quorum = self.rng.random_range(ids.len() / 2 + 1..=ids.len());
        let mut outside = BTreeSet::new();
        while quorum < ids.len() {
            outside.insert(ids.swap_remove(self.rng.random_range(0..ids.len())));
        }
        let dark: BTreeSet<NodeId> = outside.iter().copied().filter(|_| self.rng.random_bool(0.4)).collect();
        self.network.repair();
        for id in &dark {
            self.crash(*id);
        }
        let mut hanging = BTreeSet::new();
        for id in outside.difference(&dark) {
            if self.rng.random_bool(0.4) {
                hanging.insert(*id);
                continue;
            }
            for other in self.ids() {
                if self.rng.random_bool(0.5) {
                    self.cut(*id, other);
                }
                if self.rng.random_bool(0.5) {
                    self.cut(other, *id);
                }
            }
        }
        self.calm = Some(dark);
        for id in self.ids() {
            self.node_mut(id).stalled_until = if hanging.contains(&id) { Micros::MAX } else { 0 };
            self.restart(id)?;
        }
        Ok(())
    }

    fn makes_progress(&mut self) -> Result<(), Violation> {
        self.progress.clear();
        // Where namespaces come and go, one may have to be created first.
        let rounds = if self.options.lifetimes.is_some() { 3 } else { 1 };
        let limit = rounds * self.patience_of_elections(PROGRESS_TIMEOUTS)
            + rounds * self.patience_of_snapshots()
            + rounds * 12 * self.options.patience;
        self.run_until(self.now + limit, World::has_progressed)?;
        holds("a quorum makes progress", self.has_progressed(), || {
            let (progress, gardener) = (&self.progress, &self.gardener);
            let statuses = self.statuses();
            format!("writes and reads by region within {limit} µs: {progress:?}; {gardener:?}; {statuses:?}")
        })
    }

    /// Whether each region that is to be there has answered a write and a read.
    fn has_progressed(&self) -> bool {
        let regions = self.open_regions();
        let answered = |region| self.progress.get(region).is_some_and(|(w, r)| 0 < *w && 0 < *r);
        !regions.is_empty() && regions.iter().all(answered)
    }

    fn heal_everything(&mut self) -> Result<(), Violation> {
        self.network.repair();
        self.calm = Some(BTreeSet::new());
        for id in self.ids() {
            let node = self.node_mut(id);
            let hung = std::mem::take(&mut node.stalled_until) == Micros::MAX;
            let incarnation = node.incarnation;
            if hung {
                self.queue.push(self.now, Event::Synced { node: id, incarnation });
            }
            self.restart(id)?;
        }
        Ok(())
    }

    /// Clients fall silent; whatever is under way ends, and all replicas become equal.
    fn converges(&mut self) -> Result<(), Violation> {
        self.clients_rest = true;
        let settle = self.now + self.options.patience + self.options.network.straggler_delay.1;
        self.run_until(settle, |_| false)?;
        for slot in 0..self.clients.pool.len() {
            self.clients.end(slot, crate::clients::Outcome::InDoubt, &mut self.rng);
        }
        let limit = self.now
            + self.patience_of_elections(CONVERGENCE_TIMEOUTS)
            + self.patience_of_snapshots()
            + self.patience_of_small_appends()
            + self.patience_of_deletions();
        self.run_until(limit, World::is_converged)?;
        holds("replicas converge", self.is_converged(), || {
            format!("{:?}; {:?}", self.statuses(), self.lives_of_all())
        })?;
        self.holds_exactly_the_catalog()
    }

    fn is_converged(&self) -> bool {
        self.nodes.iter().all(|node| {
            let Some(process) = &node.process else { return false };
            let mut replicas = process.replicas.iter();
            let is_final = |(region, replica): (&RegionId, &Replica)| {
                self.invariants.applied.is_final(*region, &replica.machine)
            };
            replicas.all(is_final) && process.lives.as_ref().is_none_or(Lives::are_settled)
        }) && self.holds_exactly_the_catalog().is_ok()
    }

    fn statuses(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for node in &self.nodes {
            let replicas = node.process.iter().flat_map(|process| &process.replicas);
            lines.extend(replicas.map(|(region, replica)| {
                format!("node {} region {region}: {:?}", node.id, replica.group.status())
            }));
        }
        lines
    }

    /// What the clients saw, against what was executed.
    fn judge(&mut self) -> Result<(), Violation> {
        let history = &self.clients.history;
        acknowledged_writes_are_there(history, &self.invariants.once, &self.invariants.applied)?;
        self.totals.checked = history_is_linearizable(history, &self.invariants.once)?;
        let Totals { writes, reads, .. } = self.totals;
        holds("a world is not idle", 0 < writes && 0 < reads, || {
            "no write or no read was ever answered".into()
        })
    }

    /// Runs until `end`, or until `done` says so; it is asked between events, now and then.
    fn run_until(&mut self, end: Micros, done: impl Fn(&World) -> bool) -> Result<(), Violation> {
        let mut events = 0_u64;
        while let Some((at, event)) = self.queue.pop_before(end) {
            self.now = at;
            self.totals.events += 1;
            self.trace.record(at, &event);
            self.happen(event)?;
            events += 1;
            if events.is_multiple_of(16) && done(self) {
                return Ok(());
            }
        }
        self.now = end;
        Ok(())
    }

    fn happen(&mut self, event: Event) -> Result<(), Violation> {
        let Some(event) = self.postpone(event) else { return Ok(()) };
        match event {
            Event::Deliver { to, region, message } => self.delivered(to, region, message),
            Event::Turn { node, incarnation } => self.turn(node, incarnation)?,
            Event::Tick { node, incarnation } => self.tick(node, incarnation),
            Event::Synced { node, incarnation } => self.synced(node, incarnation)?,
            Event::Applied { node, incarnation, region } => self.applied(node, incarnation, region)?,
            Event::Fetched { node, incarnation, region, fetch } => {
                self.fetched(node, incarnation, region, fetch);
            }
            Event::Request { node, request } => self.request(node, *request),
            Event::Reply { client, attempt, reply } => self.replied(client, attempt, reply)?,
            Event::Impatient { client, attempt } => self.impatient(client, attempt),
            Event::Wake { client, attempt } => self.wake(client, attempt),
            Event::Flush { node, incarnation } => self.flush(node, incarnation),
            Event::Shorten { node, incarnation } => self.shorten(node, incarnation),
            Event::SnapshotRead { node, incarnation, number, wanted } => {
                self.snapshot_read(node, incarnation, number, *wanted)?;
            }
            Event::SnapshotLook { node, incarnation, number } => {
                self.snapshot_look(node, incarnation, number);
            }
            Event::SnapshotCame { parcel } => self.snapshot_came(parcel),
            Event::SnapshotOutcome { sender, taken } => self.snapshot_outcome(sender, taken),
            Event::Install { node, incarnation, region, step } => {
                self.install(node, incarnation, region, step)?;
            }
            Event::End { node, incarnation, region, step } => {
                self.go_on_ending(node, incarnation, region, step)?;
            }
            Event::Garden { attempt } => self.garden(attempt),
            Event::Crash { node, incarnation, all } => self.aimed_crash(node, incarnation, all),
            Event::Fault(fault) => self.strike(fault),
            Event::Isolate { leader, deaf, length } => self.isolate(leader, deaf, true, length),
            Event::Heal { from, to, cut } => self.heal(from, to, cut),
            Event::Restart { node } => self.restart(node)?,
            Event::Resume { node, incarnation } => self.resume(node, incarnation),
        }
        Ok(())
    }
}

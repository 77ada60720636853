//! What goes wrong, and how it is repaired.

use super::World;
use super::node::Input;
use crate::event::{Event, Fault};
use crate::invariants::Violation;
use crate::options::{Micros, Span};
use rand::RngExt as _;
use rdb_core::ids::{NodeId, RegionId};

impl World {
    /// How often a kind of fault strikes here, on average.
    fn rate(&self, fault: Fault) -> Option<Micros> {
        let faults = &self.options.faults;
        match fault {
            Fault::Crash => faults.crash,
            Fault::PowerCut => faults.power_cut,
            Fault::Partition => faults.partition,
            Fault::IsolateLeader => faults.isolate_leader,
            Fault::CongestLeader => self.options.congestion.rate,
            Fault::OneWay => faults.one_way,
            Fault::Pause => faults.pause,
            Fault::Stall => faults.stall,
            Fault::ClockStep => faults.clock_step,
            Fault::Transfer => faults.transfer,
        }
    }

    pub(super) fn fault_later(&mut self, fault: Fault) {
        if let Some(mean) = self.rate(fault) {
            let at = self.now + self.rng.random_range(mean / 4..mean * 7 / 4);
            self.queue.push(at, Event::Fault(fault));
        }
    }

    pub(super) fn strike(&mut self, fault: Fault) {
        if self.calm.is_some() {
            return;
        }
        self.fault_later(fault);
        let victim = NodeId(self.rng.random_range(1..=self.options.nodes));
        match fault {
            Fault::Crash => self.crash_and_restart(victim),
            Fault::PowerCut => self.power_cut(),
            Fault::Partition => self.partition(),
            Fault::IsolateLeader => self.isolate_leader(),
            Fault::CongestLeader => self.congest_leader(),
            Fault::OneWay => {
                let other = NodeId(self.rng.random_range(1..=self.options.nodes));
                self.cut_for_a_while(&[(victim, other)]);
            }
            Fault::Pause => self.pause(victim),
            Fault::Stall => {
                let length = self.draw(self.options.faults.stall_length);
                self.node_mut(victim).stalled_until = self.now + length;
                self.totals.stalls += 1;
            }
            Fault::ClockStep => {
                let step = i64::try_from(self.options.clocks.step_ms).unwrap_or(0);
                let step = self.rng.random_range(-step..=step);
                self.node_mut(victim).wall.offset_ms += step;
            }
            Fault::Transfer => self.transfer(victim),
        }
    }

    pub(super) fn draw(&mut self, span: Span) -> Micros {
        self.rng.random_range(span.0..span.1)
    }

    /// A node loses its power: what was not synced or flushed is gone, but for what happened to reach the disk.
    pub(super) fn crash(&mut self, id: NodeId) {
        let place = Self::place(id);
        let node = &mut self.nodes[place];
        if node.process.take().is_none() {
            return;
        }
        self.totals.crashes += 1;
        node.stalled_until = 0;
        node.log.crash(&mut self.rng);
        node.data.crash();
    }

    /// Chance alone seldom strikes in the short time in which a snapshot is sent or taken in.
    pub(super) fn aim_at(&mut self, node: NodeId, duration: Micros) {
        self.aim_with(self.options.snapshots.crash, node, duration);
    }

    /// The same, with this chance.
    pub(super) fn aim_with(&mut self, chance: f64, node: NodeId, duration: Micros) {
        if self.calm.is_some() || !self.rng.random_bool(chance) {
            return;
        }
        let at = self.now + self.rng.random_range(0..duration);
        let incarnation = self.node(node).incarnation;
        let all = self.rng.random_bool(0.2);
        self.queue.push(at, Event::Crash { node, incarnation, all });
    }

    pub(super) fn aimed_crash(&mut self, id: NodeId, incarnation: u64, all: bool) {
        if self.calm.is_some() || self.node_mut(id).running(incarnation).is_none() {
            return;
        }
        if all { self.power_cut() } else { self.crash_and_restart(id) }
    }

    fn crash_and_restart(&mut self, id: NodeId) {
        if self.node(id).process.is_none() {
            return;
        }
        self.crash(id);
        let dark = self.draw(self.options.faults.restart);
        self.queue.push(self.now + dark, Event::Restart { node: id });
    }

    pub(super) fn power_cut(&mut self) {
        self.totals.power_cuts += 1;
        for id in self.ids() {
            self.crash_and_restart(id);
        }
    }

    pub(super) fn restart(&mut self, id: NodeId) -> Result<(), Violation> {
        if self.node(id).process.is_some() || self.stays_down(id) {
            return Ok(());
        }
        self.boot(id)
    }

    /// Two halves that do not hear each other.
    fn partition(&mut self) {
        let side: Vec<bool> = self.ids().iter().map(|_| self.rng.random_bool(0.5)).collect();
        let mut cut = Vec::new();
        for (from, one) in self.ids().into_iter().zip(&side) {
            cut.extend(
                self.ids()
                    .into_iter()
                    .zip(&side)
                    .filter(|(_, other)| *other != one)
                    .map(|(to, _)| (from, to)),
            );
        }
        self.cut_for_a_while(&cut);
    }

    /// A leader that nobody hears, or that hears nobody, or both.
    fn isolate_leader(&mut self) {
        let Some((leader, _)) = self.a_leader() else { return };
        let kind = self.rng.random_range(0..3);
        let length = self.draw(self.options.faults.heal);
        self.isolate(leader, kind != 1, kind != 0, length);
    }

    /// The links to a leader fill up, and then nobody hears it: it hears for a while yet what the others said when they
    /// followed it, while these have elected another one.
    fn congest_leader(&mut self) {
        let Some((leader, _)) = self.a_leader() else { return };
        let election = self.options.raft.election_ticks as u64 * self.options.tick;
        let cut_at = self.now + self.draw((election, 6 * election));
        let length = self.draw((election, 6 * election));
        for other in self.ids() {
            self.network.congest(other, leader, self.now, cut_at + length);
        }
        let deaf = self.rng.random_bool(0.5);
        self.queue.push(cut_at, Event::Isolate { leader, deaf, length });
    }

    pub(super) fn isolate(&mut self, leader: NodeId, deaf: bool, mute: bool, length: Micros) {
        if self.calm.is_some() {
            return;
        }
        let mut cut = Vec::new();
        for other in self.ids() {
            if mute {
                cut.push((leader, other));
            }
            if deaf {
                cut.push((other, leader));
            }
        }
        self.cut_for(&cut, length);
    }

    fn cut_for_a_while(&mut self, directions: &[(NodeId, NodeId)]) {
        let length = self.draw(self.options.faults.heal);
        self.cut_for(directions, length);
    }

    fn cut_for(&mut self, directions: &[(NodeId, NodeId)], length: Micros) {
        self.totals.cuts += 1;
        for (from, to) in directions.iter().filter(|(from, to)| from != to) {
            let cut = self.cut(*from, *to);
            self.queue.push(self.now + length, Event::Heal { from: *from, to: *to, cut });
        }
    }

    fn pause(&mut self, id: NodeId) {
        let length = self.draw(self.options.faults.pause_length);
        let node = self.node_mut(id);
        let incarnation = node.incarnation;
        let Some(process) = node.process.as_mut().filter(|process| process.stopped.is_none()) else { return };
        process.stopped = Some(Vec::new());
        self.totals.pauses += 1;
        self.queue.push(self.now + length, Event::Resume { node: id, incarnation });
    }

    /// A stopped process goes on, with all that came for it meanwhile. Missed ticks stay missed.
    pub(super) fn resume(&mut self, id: NodeId, incarnation: u64) {
        let Some(process) = self.node_mut(id).running(incarnation) else { return };
        for event in process.stopped.take().unwrap_or_default() {
            self.queue.push(self.now, event);
        }
    }

    fn transfer(&mut self, to: NodeId) {
        if let Some((leader, region)) = self.a_leader().filter(|(leader, _)| *leader != to) {
            self.totals.transfers += 1;
            self.input(leader, Input::Transfer(region, to));
        }
    }

    /// One of those that believe to lead a region.
    fn a_leader(&mut self) -> Option<(NodeId, RegionId)> {
        let mut leaders = Vec::new();
        for node in &self.nodes {
            let replicas = node.process.iter().flat_map(|process| &process.replicas);
            let led = replicas.filter(|(_, replica)| replica.group.is_leader());
            leaders.extend(led.map(|(region, _)| (node.id, *region)));
        }
        if leaders.is_empty() {
            return None;
        }
        let place = self.rng.random_range(0..leaders.len());
        Some(leaders[place])
    }
}

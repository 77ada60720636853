//! What goes wrong, and how it is repaired.

use super::event::Event;
use super::node::Input;
use super::world::World;
use crate::event::Fault;
use crate::invariants::Violation;
use crate::options::{Micros, Span};
use rand::RngExt as _;
use rdb_core::ids::NodeId;

impl World {
    /// How often a kind of fault strikes here, on average.
    fn rate(&self, fault: Fault) -> Option<Micros> {
        let faults = &self.options.faults;
        match fault {
            Fault::Crash => faults.crash,
            Fault::PowerCut => faults.power_cut,
            Fault::Partition => faults.partition,
            Fault::IsolateLeader => faults.isolate_leader,
            Fault::CongestLeader => None,
            Fault::OneWay => faults.one_way,
            Fault::Pause => faults.pause,
            Fault::Stall => faults.stall,
            Fault::ClockStep => faults.clock_step,
            Fault::Transfer => faults.transfer,
        }
    }

    pub(super) fn fault_later(&mut self, fault: Fault) {
        if let Some(mean) = self.rate(fault) {
            self.later((mean / 4, mean * 7 / 4), Event::Fault(fault));
        }
    }

    pub(super) fn strike(&mut self, fault: Fault) {
        if self.calm {
            return;
        }
        self.fault_later(fault);
        let victim = NodeId(self.rng.random_range(1..=self.options.nodes));
        match fault {
            Fault::Crash => self.crash_and_restart(victim),
            Fault::PowerCut => self.power_cut(),
            Fault::Partition => self.partition(),
            Fault::IsolateLeader | Fault::CongestLeader => self.isolate_leader(),
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
                self.totals.clock_steps += 1;
            }
            Fault::Transfer => {
                if let Some(leader) = self.a_leader().filter(|leader| *leader != victim) {
                    self.input(leader, Input::Transfer(victim));
                    // One that does not hear who follows it, and goes on by what it was once told.
                    if self.rng.random_bool(0.5) {
                        self.deafen(leader);
                    }
                }
            }
        }
    }

    /// A node loses its power: what was not synced or flushed is gone, but for what happened to reach the disk.
    pub(super) fn crash(&mut self, id: NodeId) {
        let place = self.ids().iter().position(|other| *other == id).unwrap_or_default();
        let node = &mut self.nodes[place];
        let Some(process) = node.process.take() else { return };
        let is_noted = process.eventual.is_some_and(|eventual| eventual.copying.is_noted());
        self.totals.crashes_copying += u64::from(is_noted);
        node.stalled_until = 0;
        node.raft.crash(&mut self.rng);
        node.origins.crash(&mut self.rng);
        node.data.crash();
        self.undo_unsynced(id);
        self.totals.crashes += 1;
        self.totals.crashes_switching += u64::from(self.descriptor().is_switching());
    }

    /// Chance alone seldom strikes between two steps of a switch.
    pub(super) fn aim_at(&mut self, node: NodeId, duration: Micros) {
        self.aim_with(self.options.aim, node, duration);
    }

    /// The same, with this chance.
    pub(super) fn aim_with(&mut self, chance: f64, node: NodeId, duration: Micros) {
        if self.calm || !self.rng.random_bool(chance) {
            return;
        }
        let incarnation = self.node(node).incarnation;
        let all = self.rng.random_bool(0.2);
        self.later((0, duration), Event::Crash { node, incarnation, all });
    }

    pub(super) fn aimed_crash(&mut self, id: NodeId, incarnation: u64, all: bool) {
        if self.calm || self.node_mut(id).running(incarnation).is_none() {
            return;
        }
        if all { self.power_cut() } else { self.crash_and_restart(id) }
    }

    fn crash_and_restart(&mut self, id: NodeId) {
        if self.process(id).is_none() {
            return;
        }
        self.crash(id);
        self.later(self.options.faults.restart, Event::Restart { node: id });
    }

    pub(super) fn power_cut(&mut self) {
        self.totals.power_cuts += 1;
        for id in self.ids() {
            self.crash_and_restart(id);
        }
    }

    pub(super) fn restart(&mut self, id: NodeId) -> Result<(), Violation> {
        if self.process(id).is_some() { Ok(()) } else { self.boot(id) }
    }

    /// Two halves that do not hear each other.
    fn partition(&mut self) {
        let ids = self.ids();
        let side: Vec<bool> = ids.iter().map(|_| self.rng.random_bool(0.5)).collect();
        let sides: Vec<_> = ids.into_iter().zip(side).collect();
        let apart = |(from, one): &(NodeId, bool)| {
            let (from, one) = (*from, *one);
            sides.iter().filter(move |(_, other)| *other != one).map(move |(to, _)| (from, *to))
        };
        let cut: Vec<_> = sides.iter().flat_map(apart).collect();
        self.cut_for_a_while(&cut);
    }

    /// A leader that nobody hears, or that hears nobody, or both.
    fn isolate_leader(&mut self) {
        let Some(leader) = self.a_leader() else { return };
        let kind = self.rng.random_range(0..3);
        let others = self.ids().into_iter().filter(|other| *other != leader);
        let mut cut = Vec::new();
        for other in others {
            if kind != 0 {
                cut.push((leader, other));
            }
            if kind != 1 {
                cut.push((other, leader));
            }
        }
        self.cut_for_a_while(&cut);
    }

    fn deafen(&mut self, leader: NodeId) {
        let others = self.ids().into_iter().filter(|other| *other != leader);
        let cut: Vec<_> = others.map(|other| (other, leader)).collect();
        self.cut_for_a_while(&cut);
    }

    fn cut_for_a_while(&mut self, directions: &[(NodeId, NodeId)]) {
        let length: Span = self.options.faults.heal;
        let length = self.draw(length);
        self.totals.cuts += 1;
        for (from, to) in directions.iter().filter(|(from, to)| from != to) {
            let cut = self.network.cut(*from, *to);
            self.queue.push(self.now + length, Event::Heal { from: *from, to: *to, cut });
        }
    }

    fn pause(&mut self, id: NodeId) {
        let length = self.draw(self.options.faults.pause_length);
        let incarnation = self.node(id).incarnation;
        let process = self.process_mut(id).filter(|process| process.stopped.is_none());
        let Some(process) = process else { return };
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

    /// One of those that believe to lead the region.
    pub(super) fn a_leader(&mut self) -> Option<NodeId> {
        let leads = |node: &&super::node::Node| node.process.as_ref().is_some_and(|p| p.group.is_leader());
        let leaders: Vec<NodeId> = self.nodes.iter().filter(leads).map(|node| node.id).collect();
        if leaders.is_empty() {
            return None;
        }
        let place = self.rng.random_range(0..leaders.len());
        leaders.get(place).copied()
    }
}

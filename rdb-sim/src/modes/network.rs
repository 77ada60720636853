//! The links between nodes, each direction for itself: cut, lossy, slow, and out of order where the seed says so.

use super::event::{Event, Parcel};
use super::node::Input;
use super::world::World;
use crate::invariants::Violation;
use crate::options::Micros;
use rand::RngExt as _;
use rdb_core::ids::NodeId;
use rdb_core::raft::Message;
use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub(super) struct Network {
    /// Directions that are cut, each with the number of the cut that did it.
    cuts: BTreeMap<(NodeId, NodeId), u64>,
    cut_number: u64,
    /// When the last message of a direction arrives, where order is kept.
    last: BTreeMap<(NodeId, NodeId), Micros>,
}

impl Network {
    pub(super) fn cut(&mut self, from: NodeId, to: NodeId) -> u64 {
        self.cut_number += 1;
        self.cuts.insert((from, to), self.cut_number);
        self.cut_number
    }

    /// Heals a direction, unless it was cut again.
    pub(super) fn heal(&mut self, from: NodeId, to: NodeId, cut: u64) {
        if self.cuts.get(&(from, to)) == Some(&cut) {
            self.cuts.remove(&(from, to));
        }
    }

    pub(super) fn repair(&mut self) {
        self.cuts.clear();
        self.last.clear();
    }
}

impl World {
    /// Whether what `from` sends now can reach `to`.
    pub(super) fn reaches(&self, from: NodeId, to: NodeId) -> bool {
        !self.network.cuts.contains_key(&(from, to)) && self.process(to).is_some()
    }

    /// Whether two nodes hear each other.
    pub(super) fn are_connected(&self, one: NodeId, other: NodeId) -> bool {
        one == other || self.reaches(one, other) && self.reaches(other, one)
    }

    /// Whether a node is on the side of the majority, where the catalog is.
    pub(super) fn hears_a_majority(&self, id: NodeId) -> bool {
        let heard = self.nodes.iter().filter(|node| self.are_connected(id, node.id)).count();
        self.process(id).is_some() && self.nodes.len() < 2 * heard
    }

    pub(super) fn send_raft(&mut self, from: NodeId, messages: Vec<Message>) {
        for message in messages {
            self.send(from, NodeId(message.to), Parcel::Raft(Box::new(message)));
        }
    }

    pub(super) fn send(&mut self, from: NodeId, to: NodeId, parcel: Parcel) {
        self.totals.messages += 1;
        let network = &self.options.network;
        let (loss, duplicate, notices) = (network.loss, network.duplicate, network.notices_loss);
        let dead = !self.reaches(from, to);
        if dead || !self.calm && self.rng.random_bool(loss) {
            if dead && matches!(parcel, Parcel::Raft(_)) && self.rng.random_bool(notices) {
                self.input(from, Input::Unreachable(to));
            }
            return;
        }
        if !self.calm && self.rng.random_bool(duplicate) {
            self.deliver_later(from, to, parcel.clone());
        }
        self.deliver_later(from, to, parcel);
    }

    fn deliver_later(&mut self, from: NodeId, to: NodeId, parcel: Parcel) {
        let network = &self.options.network;
        let straggles = !self.calm && self.rng.random_bool(network.straggler);
        let (least, most) = if straggles { network.straggler_delay } else { network.delay };
        let mut at = self.now + self.rng.random_range(least..most);
        if network.ordered {
            let last = self.network.last.entry((from, to)).or_default();
            at = at.max(*last);
            *last = at;
        }
        self.queue.push(at, Event::Deliver { from, to, parcel });
    }

    pub(super) fn delivered(&mut self, from: NodeId, to: NodeId, parcel: Parcel) -> Result<(), Violation> {
        let now_ms = self.node(to).monotonic_ms(self.now);
        self.truth.heard.insert((to, from), self.now);
        let Some(process) = self.process_mut(to) else { return Ok(()) };
        if let Some(eventual) = &mut process.eventual {
            eventual.peers.alive(from, now_ms);
        }
        match parcel {
            Parcel::Raft(message) => self.input(to, Input::Message(message)),
            Parcel::Run(bytes) => self.receive(from, to, &bytes)?,
            Parcel::Refused => {
                if let Some(eventual) = &mut process.eventual {
                    eventual.peers.send_again(from);
                }
            }
            Parcel::Has(report) => {
                if let Some(eventual) = &mut process.eventual {
                    eventual.hears(from, &report, now_ms);
                }
            }
            Parcel::Switch(reports, era) => process.hear_reports(from, reports, era),
            Parcel::Taken(sender, taken) => self.snapshot_outcome(sender, taken),
            Parcel::Snapshot(snapshot) => self.snapshot_came(from, to, snapshot),
            Parcel::GivenUp(era, theirs) => self.is_given_up(to, from, era, &theirs),
            Parcel::WantsPage(era, name, page) => self.give_page(to, from, (era, name, page))?,
            Parcel::Page(sent) => self.page_came(to, from, &sent),
        }
        Ok(())
    }
}

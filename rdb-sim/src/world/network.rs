//! The links between nodes, each direction for itself: cut, lossy, slow, and out of order where the seed says so.

use super::World;
use super::node::Input;
use crate::event::Event;
use crate::invariants::{Violation, promise_is_kept};
use crate::options::Micros;
use rand::RngExt as _;
use rdb_core::ids::{NodeId, RegionId};
use rdb_core::raft::Message;
use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub(crate) struct Network {
    /// Directions that are cut, each with the number of the cut that did it.
    pub(crate) cuts: BTreeMap<(NodeId, NodeId), u64>,
    pub(crate) cut_number: u64,
    /// Directions that fill up: since when, and until when.
    congested: BTreeMap<(NodeId, NodeId), (Micros, Micros)>,
    /// When the last message of a direction arrives, where order is kept.
    last: BTreeMap<(NodeId, NodeId), Micros>,
}

/// No message takes longer than this because of congestion: senders would give up the connection.
const CONGESTION_MAX: Micros = 2_000_000;

impl Network {
    /// All links are whole and empty, as new connections are.
    pub(super) fn repair(&mut self) {
        self.cuts.clear();
        self.congested.clear();
        self.last.clear();
    }

    pub(super) fn congest(&mut self, from: NodeId, to: NodeId, since: Micros, until: Micros) {
        self.congested.insert((from, to), (since, until));
    }

    /// How much longer a message takes that leaves now.
    fn congestion(&self, from: NodeId, to: NodeId, now: Micros, growth: f64) -> Micros {
        let Some((since, _)) = self.congested.get(&(from, to)).filter(|(_, until)| now < *until) else {
            return 0;
        };
        #[allow(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "bounded"
        )]
        let grown = ((now - since) as f64 * growth) as Micros;
        grown.min(CONGESTION_MAX)
    }
}

impl World {
    /// Messages leave a node.
    pub(super) fn send(
        &mut self,
        from: NodeId,
        region: RegionId,
        messages: Vec<Message>,
    ) -> Result<(), Violation> {
        for message in messages {
            // Where the region has ended meanwhile, the promise was kept until then.
            if let Some(synced) = self.node(from).log.synced(region) {
                promise_is_kept(region, &message, synced)?;
            }
            self.invariants.one_vote.leaves(region, &message)?;
            self.totals.messages += 1;
            self.send_one(from, region, message);
        }
        Ok(())
    }

    fn send_one(&mut self, from: NodeId, region: RegionId, message: Message) {
        let to = NodeId(message.to);
        let (loss, duplicate, notices) = {
            let network = &self.options.network;
            (network.loss, network.duplicate, network.notices_loss)
        };
        let dead = self.network.cuts.contains_key(&(from, to)) || self.node(to).process.is_none();
        if dead || self.calm.is_none() && self.rng.random_bool(loss) {
            if dead && self.rng.random_bool(notices) {
                self.input(from, Input::Unreachable(region, to));
            }
            return;
        }
        if self.calm.is_none() && self.rng.random_bool(duplicate) {
            self.deliver_later(from, to, region, message.clone());
        }
        self.deliver_later(from, to, region, message);
    }

    fn deliver_later(&mut self, from: NodeId, to: NodeId, region: RegionId, message: Message) {
        let network = &self.options.network;
        let straggles = self.calm.is_none() && self.rng.random_bool(network.straggler);
        let (least, most) = if straggles { network.straggler_delay } else { network.delay };
        let congestion = self.network.congestion(from, to, self.now, self.options.congestion.growth);
        let mut at = self.now + self.rng.random_range(least..most) + congestion;
        if network.ordered {
            let last = self.network.last.entry((from, to)).or_default();
            at = at.max(*last);
            *last = at;
        }
        self.queue.push(at, Event::Deliver { to, region, message: Box::new(message) });
    }

    /// A message reaches a node.
    pub(super) fn delivered(&mut self, to: NodeId, region: RegionId, message: Box<Message>) {
        let (now, from) = (self.now, NodeId(message.from));
        if let Some(process) = &mut self.node_mut(to).process {
            process.heard.insert(from, now);
        }
        self.input(to, Input::Message(region, message));
    }

    /// Cuts one direction; returns the number of the cut, for its healing.
    pub(super) fn cut(&mut self, from: NodeId, to: NodeId) -> u64 {
        self.network.cut_number += 1;
        self.network.cuts.insert((from, to), self.network.cut_number);
        self.network.cut_number
    }

    /// Heals a direction, unless it was cut again.
    pub(super) fn heal(&mut self, from: NodeId, to: NodeId, cut: u64) {
        if self.network.cuts.get(&(from, to)) == Some(&cut) {
            self.network.cuts.remove(&(from, to));
        }
    }
}

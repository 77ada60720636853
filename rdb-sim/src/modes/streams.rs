//! What travels between nodes in eventual mode: runs, refusals, and what each node has.

use super::event::Parcel;
use super::eventual::{Eventual, broken};
use super::node::Process;
use super::planted::{Shortcut, takes};
use super::world::World;
use crate::invariants::Violation;
use rand::RngExt as _;
use rdb_core::eventual::origin_log::Refusal;
use rdb_core::eventual::peers::{Push, Report};
use rdb_core::eventual::run::{Run, join};
use rdb_core::ids::NodeId;
use rdb_core::switch::stream::{self, Offer};
use rdb_core::switch::{Progress, Vector};
use std::collections::BTreeSet;
use std::rc::Rc;

/// Messages of runs to a peer in one tick.
const PUSHES_PER_TICK_MAX: usize = 8;
/// After so long without progress, what was sent to a peer counts as lost.
const STANDSTILL_MS: u64 = 500;

impl World {
    /// Sends to every peer what it lacks, as far as there is room on the way.
    pub(super) fn push(&mut self, id: NodeId) -> Result<(), Violation> {
        let now_ms = self.node(id).monotonic_ms(self.now);
        let heard: BTreeSet<NodeId> =
            self.ids().into_iter().filter(|other| self.are_connected(id, *other)).collect();
        if let Some(eventual) = self.process_mut(id).and_then(|process| process.eventual.as_mut()) {
            eventual.send_again_where_nothing_moves(now_ms);
        }
        for to in heard.iter().copied().filter(|to| *to != id) {
            for _ in 0..PUSHES_PER_TICK_MAX {
                let bytes_max = self.options.message_bytes;
                let eventual = self.process_mut(id).and_then(|process| process.eventual.as_mut());
                let Some(eventual) = eventual else { return Ok(()) };
                let next = eventual.peers.next_push(to, &eventual.logs, now_ms, |node| heard.contains(&node));
                let Some(Push { origin, after }) = next else { break };
                let (runs, bytes) = eventual.find_runs(Push { origin, after }, bytes_max);
                let Some(run) = join(runs) else {
                    return Err(broken(id, format!("{origin:?} behind {after} is to be sent and not there")));
                };
                eventual.peers.pushed(to, run.origin, run.last(), bytes);
                self.totals.runs_forwarded += u64::from(run.origin.node != id);
                self.send(id, to, Parcel::Run(Rc::new(run.encode())));
            }
        }
        Ok(())
    }

    /// Tells the others what this node has, when that is new, and now and then again: it may have been lost.
    pub(super) fn tell(&mut self, id: NodeId) {
        let Some(report) = self.report(id) else { return };
        let again = self.rng.random_bool(0.1);
        let eventual = self.process_mut(id).and_then(|process| process.eventual.as_mut());
        let Some(eventual) = eventual else { return };
        if eventual.told.as_ref() == Some(&report) && !again {
            return;
        }
        eventual.told = Some(report.clone());
        for to in self.ids().into_iter().filter(|to| *to != id) {
            self.send(id, to, Parcel::Has(Box::new(report.clone())));
        }
    }

    /// A run has come.
    pub(super) fn receive(&mut self, from: NodeId, to: NodeId, bytes: &[u8]) -> Result<(), Violation> {
        let run = Run::decode(bytes).map_err(|error| broken(to, error))?;
        self.has_not_left_early(&run)?;
        let Some(process) = self.process_mut(to) else { return Ok(()) };
        match process.take_in(run) {
            Ok(Some(run)) => self.log_received(to, run),
            Ok(None) => {}
            Err(fenced) => {
                self.totals.runs_refused += 1;
                self.totals.runs_fenced += u64::from(fenced);
                self.send(to, from, Parcel::Refused);
            }
        }
        Ok(())
    }
}

impl Process {
    /// What of a run is to be logged; an error if none of it may be, and whether a fence is why.
    fn take_in(&self, run: Run) -> Result<Option<Run>, bool> {
        let Some(eventual) = self.eventual.as_ref().filter(|_| self.installing.is_none()) else {
            return Err(false);
        };
        if eventual.copying.is_noted() {
            return Err(false);
        }
        let appended = eventual.logs.logged_vector();
        let run = match eventual.logs.receive(run.clone()) {
            Ok(None) => return Ok(None),
            Ok(Some(run)) => run,
            Err(Refusal::Missing { logged, .. }) if takes(Shortcut::SkipsGaps) => {
                Run { after: logged, ..run }
            }
            Err(_) => return Err(false),
        };
        let (era, origin) = (run.era, run.origin);
        let is_taken = |seq: u64| {
            let mut before: Vector = appended.clone();
            before.raise(origin, seq - 1);
            stream::receive(&self.peer, &self.region, &before, Offer { era, origin, seq })
        };
        // A run is taken in as one or not at all: of what it leaves out, its last write may be all that is known.
        match is_taken(appended.get(origin) + 1).and(is_taken(run.last())) {
            Ok(()) => Ok(Some(run)),
            Err(refused) => Err(refused == stream::Refused::Fenced),
        }
    }
}

impl Eventual {
    /// A peer says what it has.
    pub(super) fn hears(&mut self, from: NodeId, report: &Report, now_ms: u64) {
        self.peers.heard(from, report, now_ms);
        let (stood, since_ms) = self.stood.entry(from).or_insert((Vector::default(), now_ms));
        if !stood.covers(&report.synced) {
            (*stood, *since_ms) = (report.synced.clone(), now_ms);
        }
    }

    /// What was sent to a peer that is heard, and lacks something, and comes not forward, counts as lost.
    fn send_again_where_nothing_moves(&mut self, now_ms: u64) {
        let synced = self.logs.synced_vector();
        for (node, (stood, since_ms)) in &mut self.stood {
            if stood.covers(&synced) {
                *since_ms = now_ms;
            } else if *since_ms + STANDSTILL_MS < now_ms {
                *since_ms = now_ms;
                self.peers.send_again(*node);
            }
        }
    }

    pub(super) fn progress(&self) -> Progress {
        Progress { appended: self.logs.logged_vector(), synced: self.logs.synced_vector() }
    }

    /// Synced runs of an origin, from the one that has the write behind `after` on.
    fn find_runs(&self, Push { origin, after }: Push, bytes_max: usize) -> (Vec<Run>, usize) {
        let sendable = match takes(Shortcut::PushesUnsynced) {
            true => u64::MAX,
            false => stream::sendable(&self.progress()).get(origin),
        };
        let (mut runs, mut bytes) = (Vec::new(), 0);
        for ((_, last), (_, encoded)) in self.kept.range((origin, after + 1)..=(origin, u64::MAX)) {
            if sendable < *last || 0 < bytes && bytes_max < bytes + encoded.len() {
                break;
            }
            bytes += encoded.len();
            runs.extend(Run::decode(encoded).ok());
        }
        (runs, bytes)
    }
}

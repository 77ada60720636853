//! Snapshots: how a leader sends its data, and how a follower takes it in, step by step, so that a crash can come between
//! any two of them.
//!
//! The sender's story: wanted, read, on its way, told what became of it, or given up. The receiver's: come (its files are
//! synced), noted in the log (synced), the data replaced (at once, and durable), the log begun anew (synced).

use super::World;
use super::node::{Input, Installing, Job, Outgoing, Replica, Report};
use super::turn::honest;
use crate::clients::Reply;
use crate::disks::log::Batch;
use crate::event::{Event, InstallStep};
use crate::invariants::{Violation, holds};
use crate::machine::Machine;
use crate::options::{Options, Span};
use crate::snapshot::{Parcel, Sender};
use rand::RngExt as _;
use rdb_core::ids::{NodeId, RegionId};
use rdb_core::raft::{Failure, LogWrite, SendSnapshot, SnapshotPlace, snapshot_message};
use rdb_pd::Catalog;
use std::sync::Arc;

/// Between looks whether a snapshot is still wanted.
const LOOK: Span = (5_000, 100_000);

/// How far apart those are that come together.
const TOGETHER: Span = (0, 200);

/// Planted: a snapshot brings records, and nothing of which writes were applied.
const WITHOUT_SESSIONS: bool = cfg!(feature = "bug-snapshot-without-sessions");
/// Planted: the log begins anew first, and no note tells of the data that is to follow.
const LOG_FIRST: bool = cfg!(feature = "bug-snapshot-log-first");

impl World {
    /// A group wants a snapshot sent.
    pub(super) fn send_snapshot(&mut self, id: NodeId, region: RegionId, wanted: SendSnapshot) {
        self.totals.snapshots_wanted += 1;
        self.snapshots += 1;
        let number = self.snapshots;
        let until = self.now + self.draw(self.options.snapshots.give_up);
        let read_at = self.now + self.draw(self.options.snapshots.read);
        let outgoing = Outgoing { region, peer: wanted.to, term: wanted.message.term, until };
        self.replica_mut(id, region).sending.insert(wanted.to, wanted.index);
        let node = self.node_mut(id);
        let incarnation = node.incarnation;
        if let Some(process) = &mut node.process {
            process.outgoing.insert(number, outgoing);
        }
        let wanted = Box::new(wanted);
        self.queue.push(read_at, Event::SnapshotRead { node: id, incarnation, number, wanted });
        self.look_later(id, incarnation, number);
        self.aim_at(id, self.options.snapshots.read.1 + self.options.snapshots.travel.1);
    }

    fn look_later(&mut self, node: NodeId, incarnation: u64, number: u64) {
        let at = self.now + self.draw(LOOK);
        self.queue.push(at, Event::SnapshotLook { node, incarnation, number });
    }

    /// A snapshot that takes too long is given up, and so is one whose sender no longer leads.
    pub(super) fn snapshot_look(&mut self, id: NodeId, incarnation: u64, number: u64) {
        let now = self.now;
        let Some(process) = self.node_mut(id).running(incarnation) else { return };
        let Some(outgoing) = process.outgoing.get(&number) else { return };
        let leads = process
            .replicas
            .get(&outgoing.region)
            .is_some_and(|replica| replica.group.is_leader() && replica.group.status().term == outgoing.term);
        let wanted = leads && now < outgoing.until;
        if wanted {
            return self.look_later(id, incarnation, number);
        }
        self.snapshot_outcome(Sender { node: id, incarnation, number }, false);
    }

    /// The data is read as it is by now, which may be further than what was asked for.
    pub(super) fn snapshot_read(
        &mut self,
        id: NodeId,
        incarnation: u64,
        number: u64,
        wanted: SendSnapshot,
    ) -> Result<(), Violation> {
        let Some(process) = self.node_mut(id).running(incarnation) else { return Ok(()) };
        // Given up before it began.
        let Some(region) = process.outgoing.get(&number).map(|outgoing| outgoing.region) else {
            return Ok(());
        };
        if !self.has_replica(id, region) {
            self.snapshot_outcome(Sender { node: id, incarnation, number }, false);
            return Ok(());
        }
        let data = self.node(id).data.of(region).clone();
        let state = data.state().map_err(|what| Violation { invariant: "records can be read", what })?;
        holds("a snapshot reflects what was asked for", wanted.index <= state.applied, || {
            format!("region {region} node {id}: {} was asked for, {} is here", wanted.index, state.applied)
        })?;
        let place = SnapshotPlace { index: state.applied, term: state.applied_term };
        let (to, message) = (wanted.to, snapshot_message(wanted.message, place));
        let sender = Sender { node: id, incarnation, number };
        let parcel = Parcel { sender, to, region, message, data };
        if self.calm.is_none() && self.rng.random_bool(self.options.snapshots.duplicate) {
            self.parcel_later(parcel.clone());
        }
        self.parcel_later(parcel);
        Ok(())
    }

    fn parcel_later(&mut self, parcel: Parcel) {
        let mut at = self.now + self.draw(self.options.snapshots.travel);
        if self.calm.is_none() {
            if self.rng.random_bool(self.options.snapshots.late) {
                at += self.draw(self.options.snapshots.give_up)
                    + self.draw(self.options.network.straggler_delay);
            }
            // Those that come together come in any order.
            at = at.next_multiple_of(self.options.snapshots.bursts) + self.draw(TOGETHER);
        }
        self.queue.push(at, Event::SnapshotCame { parcel: Box::new(parcel) });
    }

    /// A snapshot has come, unless its way was broken.
    pub(super) fn snapshot_came(&mut self, parcel: Box<Parcel>) {
        let Sender { node: from, .. } = parcel.sender;
        let to = parcel.to;
        let broken = self.network.cuts.contains_key(&(from, to)) || self.node(to).process.is_none();
        if broken || self.calm.is_none() && self.rng.random_bool(self.options.snapshots.loss) {
            // Some senders notice at once, the others when they have waited long enough.
            if self.rng.random_bool(self.options.network.notices_loss) {
                self.snapshot_outcome(parcel.sender, false);
            }
            return;
        }
        self.input(to, Input::Snapshot(parcel));
    }

    /// The receiver `from` answers the sender of a snapshot, who may never hear of it.
    pub(super) fn snapshot_outcome_later(&mut self, from: NodeId, sender: Sender, taken: bool) {
        let cut = self.network.cuts.contains_key(&(from, sender.node));
        if cut || self.calm.is_none() && self.rng.random_bool(self.options.snapshots.loss) {
            return;
        }
        let at = self.now + self.draw(self.options.network.delay);
        self.queue.push(at, Event::SnapshotOutcome { sender, taken });
    }

    /// The sender knows, or believes to know, what became of its snapshot. Only the first word counts.
    pub(super) fn snapshot_outcome(&mut self, sender: Sender, taken: bool) {
        let Sender { node, incarnation, number } = sender;
        let Some(process) = self.node_mut(node).running(incarnation) else { return };
        let Some(Outgoing { region, peer, .. }) = process.outgoing.remove(&number) else { return };
        self.input(node, Input::SnapshotSent(region, peer, taken));
    }

    /// A group has accepted a snapshot: first the applier must let go of the data.
    pub(super) fn begin_install(
        &mut self,
        id: NodeId,
        region: RegionId,
        write: LogWrite,
    ) -> Result<(), Violation> {
        let replica = self.replica_mut(id, region);
        let arrived = replica.arrived.take();
        let place = arrived.as_ref().and_then(|arrived| arrived.data.state().ok());
        let place = place.map(|state| SnapshotPlace { index: state.applied, term: state.applied_term });
        holds("a snapshot is taken in with its data", place == write.snapshot && place.is_some(), || {
            format!(
                "region {region} node {id}: the log begins after {:?}, the data is of {place:?}",
                write.snapshot
            )
        })?;
        let Some(Parcel { sender, data, .. }) = arrived.map(|arrived| *arrived) else { return Ok(()) };
        let number = write.number;
        replica.installing =
            Some(Installing { sender, number, data: Some(data), write: Some(write), machine: None });
        self.install_later(id, region, InstallStep::Release, self.options.apply);
        let Options { apply, sync, snapshots, .. } = &self.options;
        self.aim_at(id, apply.1 + 2 * sync.1 + snapshots.replace.1);
        Ok(())
    }

    fn install_later(&mut self, id: NodeId, region: RegionId, step: InstallStep, after: Span) {
        let at = self.now + self.draw(after);
        let incarnation = self.node(id).incarnation;
        self.queue.push(at, Event::Install { node: id, incarnation, region, step });
    }

    /// The note is synced.
    pub(super) fn replace_later(&mut self, id: NodeId, region: RegionId) {
        self.install_later(id, region, InstallStep::Replace, self.options.snapshots.replace);
    }

    pub(super) fn install(
        &mut self,
        id: NodeId,
        incarnation: u64,
        region: RegionId,
        step: InstallStep,
    ) -> Result<(), Violation> {
        if self.node_mut(id).running(incarnation).is_none() || !self.has_replica(id, region) {
            return Ok(());
        }
        match step {
            InstallStep::Release => self.release(id, region),
            InstallStep::Replace => self.replace(id, region)?,
        }
        self.start_sync(id);
        Ok(())
    }

    /// The applier lets go: what it had not applied it never will. Then the note goes to the log.
    fn release(&mut self, id: NodeId, region: RegionId) {
        let replica = self.replica_mut(id, region);
        let dropped: Vec<_> = replica.tasks.drain(..).flat_map(|task| task.waiters).collect();
        for (caller, _) in dropped.into_iter().flat_map(|(_, callers)| callers) {
            self.reply(caller, Reply::Failed(Failure::LeaderLost));
        }
        if LOG_FIRST {
            return self.begin_log_anew(id, region, Report::Noted);
        }
        let write = self.replica_mut(id, region).installing.as_ref().and_then(|now| now.write.as_ref());
        let Some(batch) = write.map(|write| Batch::of_note(region, write)) else { return };
        let note = Job { region, batch, sync: true, report: Report::Noted, then_send: Vec::new() };
        if let Some(process) = &mut self.node_mut(id).process {
            process.writer.waiting.push(note);
        }
    }

    /// The data is replaced, and the log is to follow.
    fn replace(&mut self, id: NodeId, region: RegionId) -> Result<(), Violation> {
        let unreadable = |what| Violation { invariant: "a snapshot can be read", what };
        let Some(installing) = self.replica_mut(id, region).installing.as_mut() else { return Ok(()) };
        let (number, Some(data)) = (installing.number, installing.data.take()) else { return Ok(()) };
        let data = if WITHOUT_SESSIONS { data.without_sessions() } else { data };
        let machine = Box::new(Machine::load(region, &data).map_err(unreadable)?);
        self.node_mut(id).data.replace(region, data);
        if let Some(catalog) = machine.catalog().cloned() {
            self.see_catalog(id, &Arc::new(catalog));
        }
        self.invariants.applied.is_whole(region, id, self.node(id).data.of(region))?;
        self.totals.snapshots += 1;
        // The loop hears of it before it hears that the log has followed.
        self.input(id, Input::Replaced(region, number, machine));
        if LOG_FIRST {
            self.input(id, Input::Persisted(region, number));
        } else {
            self.begin_log_anew(id, region, Report::Persisted(number));
        }
        Ok(())
    }

    fn begin_log_anew(&mut self, id: NodeId, region: RegionId, report: Report) {
        let installing = self.replica_mut(id, region).installing.as_mut();
        if let Some(write) = installing.and_then(|now| now.write.take()) {
            self.hand_to_writer(id, region, write, report);
        }
    }
}

/// A snapshot has come to the raft loop. Returns those that are of no use by that, and that they are not taken.
pub(super) fn snapshot_arrived(
    replica: &mut Replica,
    parcel: Box<Parcel>,
) -> Result<Option<(Sender, bool)>, Violation> {
    let stepped = replica.group.step_snapshot(parcel.message.clone());
    let useless = match stepped {
        // The next effects say whether it is wanted.
        Ok(()) => replica.arrived.replace(parcel),
        Err(_) => Some(parcel),
    };
    honest(stepped)?;
    Ok(useless.map(|useless| (useless.sender, false)))
}

/// The data is a snapshot's by now, and this is its machine.
pub(super) fn data_replaced(replica: &mut Replica, number: u64, machine: Box<Machine>) {
    if let Some(installing) = replica.installing.as_mut().filter(|now| now.number == number) {
        installing.machine = Some(machine);
    }
}

/// A log write is done. If it has followed a snapshot, the replica goes on from there, and its sender is told.
pub(super) fn finish_install(
    replica: &mut Replica,
    number: u64,
    catalog: &mut Option<Arc<Catalog>>,
) -> Result<Option<(Sender, bool)>, Violation> {
    let Some(done) = replica.installing.take_if(|now| now.number == number) else { return Ok(None) };
    let Installing { sender, machine: Some(machine), .. } = done else {
        return Err(Violation {
            invariant: "the log follows the data",
            what: format!("region {}: it has begun anew before", replica.group.region()),
        });
    };
    replica.machine = *machine;
    if replica.machine.state().closed {
        replica.group.close();
    }
    if let Some(taken_in) = replica.machine.catalog() {
        *catalog = Some(Arc::new(taken_in.clone()));
    }
    replica.group.installed();
    let (applied, first) = (replica.machine.state().applied, replica.group.first_index());
    holds("the log follows the data", first == applied + 1, || {
        format!("region {}: the data is of {applied}, the log begins at {first}", replica.group.region())
    })?;
    Ok(Some((sender, true)))
}

//! Snapshots of the region, which Raft asks for: for a replica that a switch went on without, and for one whose entries are dropped.
//!
//! The sender's story: wanted, read, on its way, told what became of it, or given up. The receiver's: come, accepted by its group,
//! what the cluster went on without set aside (synced), noted in the log (synced), the data replaced (at once, and durable), the
//! log begun anew (synced). From when the tail is read until then nothing else changes the region.

use super::clients::Reply;
use super::data::Stored;
use super::event::{Event, Parcel};
use super::eventual::{Eventual, broken};
use super::node::{After, Input, Job, Process, Then};
use super::origins::Op;
use super::planted::{Shortcut, takes};
use super::world::{LOG, World};
use crate::disks::log::Batch;
use crate::invariants::{Violation, holds};
use crate::snapshot::Sender;
use rand::RngExt as _;
use rdb_core::apply;
use rdb_core::eventual::run::Run;
use rdb_core::ids::{NodeId, Term};
use rdb_core::raft::{LogWrite, Message, SendSnapshot, SnapshotPlace, snapshot_message};
use rdb_core::record;
use rdb_core::sessions::Sessions;
use rdb_core::switch::Region;
use rdb_core::switch::quarantine::{self, Tail};
use std::rc::Rc;

/// A replica's data of one moment.
#[derive(Debug)]
pub(super) struct Snapshot {
    sender: Sender,
    /// What stands for it in Raft.
    message: Message,
    place: SnapshotPlace,
    pub(super) region: Region,
    data: Stored,
}

/// A snapshot that a node sends.
#[derive(Debug)]
pub(super) struct Outgoing {
    to: NodeId,
    /// It is wanted while this node leads in this term.
    term: Term,
}

/// A snapshot that a node takes in.
pub(super) struct Installing {
    snapshot: Rc<Snapshot>,
    number: u64,
    /// The write that begins the log anew; gone once it is handed over.
    write: Option<LogWrite>,
}

impl World {
    /// A group wants a snapshot sent.
    pub(super) fn send_snapshot(&mut self, id: NodeId, wanted: SendSnapshot) {
        self.snapshots += 1;
        let (number, node, incarnation) = (self.snapshots, id, self.node(id).incarnation);
        let Some(process) = self.process_mut(id) else { return };
        process.sending.insert(wanted.to, wanted.index);
        process.outgoing.insert(number, Outgoing { to: wanted.to, term: wanted.message.term });
        let wanted = Box::new(wanted);
        self.later(self.options.snapshots.read, Event::SnapshotRead { node, incarnation, number, wanted });
        self.later(self.options.snapshots.give_up, Event::SnapshotGivenUp { node, incarnation, number });
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
        if !process.outgoing.contains_key(&number) {
            return Ok(());
        }
        // Half a copy is ahead of what the data says that it reflects, and a power cut may take back what is not synced.
        let is_unfit = |eventual: &Eventual| {
            eventual.machine.is_copying()
                || !eventual.logs.synced_vector().covers(&eventual.machine.state().applied)
        };
        if process.eventual.as_ref().is_some_and(is_unfit) {
            return Ok(());
        }
        let region = process.region.clone();
        let data = self.node(id).data.current.clone();
        let state = data.strong().map_err(|error| broken(id, error))?;
        holds("a snapshot reflects what was asked for", wanted.index <= state.applied, || {
            format!("node {id}: {} was asked for, {} is here", wanted.index, state.applied)
        })?;
        let place = SnapshotPlace { index: state.applied, term: state.applied_term };
        let (to, message) = (wanted.to, snapshot_message(wanted.message, place));
        let sender = Sender { node: id, incarnation, number };
        let snapshot = Rc::new(Snapshot { sender, message, place, region, data });
        let options = &self.options.snapshots;
        let (late, duplicate) = (options.late, options.duplicate);
        let again = !self.calm && self.rng.random_bool(duplicate);
        for _ in 0..=u8::from(again) {
            let mut at = self.now + self.draw(self.options.snapshots.travel);
            if !self.calm && self.rng.random_bool(late) {
                at += self.draw(self.options.snapshots.give_up)
                    + self.draw(self.options.network.straggler_delay);
            }
            let parcel = Parcel::Snapshot(Rc::clone(&snapshot));
            self.queue.push(at, Event::Deliver { from: id, to, parcel });
        }
        Ok(())
    }

    /// A snapshot has come, unless its way was broken.
    pub(super) fn snapshot_came(&mut self, from: NodeId, to: NodeId, snapshot: Rc<Snapshot>) {
        let is_lost = !self.calm && self.rng.random_bool(self.options.snapshots.loss);
        if self.reaches(from, to) && !is_lost {
            self.input(to, Input::Snapshot(snapshot));
        }
    }

    /// Tells the sender of a snapshot what became of it. It may never hear of it.
    pub(super) fn tell_sender(&mut self, id: NodeId, snapshot: &Snapshot, taken: bool) {
        self.send(id, snapshot.sender.node, Parcel::Taken(snapshot.sender, taken));
    }

    /// The sender knows, or believes to know, what became of its snapshot. Only the first word counts.
    pub(super) fn snapshot_outcome(&mut self, sender: Sender, taken: bool) {
        let Sender { node, incarnation, number } = sender;
        let Some(process) = self.node_mut(node).running(incarnation) else { return };
        if let Some(Outgoing { to, term }) = process.outgoing.remove(&number) {
            self.input(node, Input::SnapshotSent(to, term, taken));
        }
    }

    /// A group has accepted a snapshot. The applier lets go: what it had not applied it never will. What the cluster went on
    /// without is set aside before anything is replaced.
    pub(super) fn begin_install(&mut self, id: NodeId, write: LogWrite) -> Result<(), Violation> {
        let Some(process) = self.process_mut(id) else { return Ok(()) };
        let Some(snapshot) = process.arrived.take() else {
            return Err(broken(id, format!("there is no data for {:?}", write.snapshot)));
        };
        holds("a snapshot is taken in with its data", write.snapshot == Some(snapshot.place), || {
            format!(
                "node {id}: the log begins after {:?}, the data is of {:?}",
                write.snapshot, snapshot.place
            )
        })?;
        self.end_copy(id)?;
        let tails = self.tails(id, &snapshot.region);
        let mut tail = self.tail_of_logs(id, &tails)?;
        let from_copies = self.tail_of_copies(id, &tails)?;
        self.totals.quarantined_from_copies += from_copies.len() as u64;
        tail.extend(from_copies);
        self.truth.all_is_set_aside(self.node(id), &snapshot.region, &tail)?;
        self.totals.quarantined += tail.len() as u64;
        self.leave(id);
        let number = write.number;
        if let Some(process) = self.process_mut(id) {
            process.installing = Some(Installing { snapshot, number, write: Some(write) });
        }
        let ops = vec![Op::Quarantine(tail)];
        if takes(Shortcut::SetsAsideLate) {
            self.note_snapshot(id);
            if let Some(process) = self.process_mut(id) {
                process.set_aside_late = ops;
            }
        } else {
            self.write_later(id, Job::Origins { ops, then: Then::SetAside });
        }
        let duration = 3 * self.options.sync.1 + self.options.snapshots.replace.1;
        self.aim_with(self.options.snapshots.crash, id, duration);
        Ok(())
    }

    /// Nobody is served by what is about to be replaced.
    fn leave(&mut self, id: NodeId) {
        let Some(process) = self.process_mut(id) else { return };
        process.committed.clear();
        let waiters = std::mem::take(&mut process.waiters).into_values().flatten();
        let mut callers: Vec<_> = waiters.map(|(asked, _)| asked.caller).collect();
        let left = process.eventual.take();
        let waiters = left.into_iter().flat_map(|left| left.to_merge).filter_map(|merge| merge.waiter);
        callers.extend(waiters.map(|waiter| waiter.caller));
        callers.into_iter().for_each(|caller| self.reply(caller, Reply::InDoubt));
    }

    /// What the cluster has gone on without and this node has, synced or not.
    fn tails(&self, id: NodeId, offered: &Region) -> Vec<Tail> {
        let Some(process) = self.process(id) else { return Vec::new() };
        let Some(eventual) = &process.eventual else { return Vec::new() };
        quarantine::tails(&process.region, &eventual.logs.logged_vector(), offered)
    }

    /// The writes, by their numbers, that are in its logs.
    fn tail_of_logs(&self, id: NodeId, tails: &[Tail]) -> Result<Vec<u64>, Violation> {
        let Some(process) = self.process(id) else { return Ok(Vec::new()) };
        let Some(eventual) = &process.eventual else { return Ok(Vec::new()) };
        let mut elements = Vec::new();
        for tail in tails {
            for (_, bytes) in
                eventual.kept.range((tail.origin, 0)..=(tail.origin, u64::MAX)).map(|(_, run)| run)
            {
                let run = Run::decode(bytes).map_err(|error| broken(id, error))?;
                let beyond = run.entries.iter().filter(|entry| tail.after < entry.seq);
                elements.extend(beyond.filter_map(|entry| super::clients::element_of(&entry.key)));
            }
        }
        Ok(elements)
    }

    /// Those of them that a copy has brought: they are in no log here, and each has an element among the records.
    fn tail_of_copies(&self, id: NodeId, tails: &[Tail]) -> Result<Vec<u64>, Violation> {
        let Some(process) = self.process(id) else { return Ok(Vec::new()) };
        let Some(Eventual { logs, .. }) = &process.eventual else { return Ok(Vec::new()) };
        let unlogged = quarantine::unlogged(tails, &logs.dropped_vector());
        let mut elements = Vec::new();
        for (key, stored) in &self.node(id).data.current.records {
            let record = record::decode(stored).map_err(|error| broken(id, error))?;
            let is_of_era = record.version.era == process.region.era();
            if is_of_era && record.id.is_some_and(|id| quarantine::are_in(&unlogged, id)) {
                elements.extend(super::clients::element_of(key));
            }
        }
        Ok(elements)
    }

    /// What had to be set aside is synced: the log is to tell of the data that follows.
    pub(super) fn note_snapshot(&mut self, id: NodeId) {
        let Some(process) = self.process(id) else { return };
        let write = process.installing.as_ref().and_then(|installing| installing.write.as_ref());
        let Some(batch) = write.map(|write| Batch::of_note(LOG, write)) else { return };
        self.write_later(id, Job::Raft { batch, after: After::Noted, then_send: Vec::new() });
    }

    /// The note is synced.
    pub(super) fn replace_later(&mut self, id: NodeId) {
        let (node, incarnation) = (id, self.node(id).incarnation);
        self.later(self.options.snapshots.replace, Event::Replace { node, incarnation });
    }

    /// The data is replaced, and the log is to follow.
    pub(super) fn replace(&mut self, id: NodeId, incarnation: u64) {
        let node = self.node_mut(id);
        let Some(process) = node.process.as_mut().filter(|_| node.incarnation == incarnation) else { return };
        let Some(installing) = &mut process.installing else { return };
        let Some(mut write) = installing.write.take() else { return };
        node.data.replace(installing.snapshot.data.clone());
        let after = After::Persisted(write.number);
        let batch = Batch::of_write(LOG, &mut write);
        self.write_later(id, Job::Raft { batch, after, then_send: write.then_send });
    }

    /// The log has followed: the region goes on from there.
    pub(super) fn installed(&mut self, id: NodeId, installed: Installed) -> Result<(), Violation> {
        let Installed { snapshot, from } = installed;
        self.totals.snapshots += 1;
        let over = snapshot.region.era().0 - from.era().0;
        self.totals.snapshots_over_eras += u64::from(1 < over);
        if over != 0 {
            self.entered(id)?;
        }
        if let Some(process) = self.process_mut(id).filter(|process| !process.set_aside_late.is_empty()) {
            let ops = std::mem::take(&mut process.set_aside_late);
            self.write_later(id, Job::Origins { ops, then: Then::Nothing });
        }
        self.tell_sender(id, &snapshot, true);
        self.start_apply(id);
        Ok(())
    }
}

/// A snapshot that is taken in, and the mode that the region was in before.
pub(super) struct Installed {
    pub(super) snapshot: Rc<Snapshot>,
    pub(super) from: Region,
}

impl Process {
    /// A snapshot has come to the raft loop. Gives back the one that is of no use.
    pub(super) fn snapshot_arrived(&mut self, snapshot: Rc<Snapshot>) -> Option<Rc<Snapshot>> {
        // A node that starts with old data has the logs of a later era, with writes in them that it alone may have: first it
        // must find that era again.
        if !self.is_back() || !self.mode.takes(&snapshot.region) {
            return Some(snapshot);
        }
        match self.group.step_snapshot(snapshot.message.clone()) {
            // The next effects say whether it is wanted.
            Ok(()) => self.arrived.replace(snapshot),
            Err(_) => Some(snapshot),
        }
    }

    /// A log write is done. If it has followed a snapshot, the replica is that by now.
    pub(super) fn finish_install(&mut self, number: u64) -> Option<Installed> {
        let Installing { snapshot, .. } = self.installing.take_if(|now| now.number == number)?;
        let state = snapshot.data.strong().ok()?;
        let from = std::mem::replace(&mut self.region, snapshot.region.clone());
        self.strong = apply::Machine::new(LOG, state, Sessions::default()).in_mode(snapshot.region.clone());
        self.clock.saw(state.highest);
        self.replace = false;
        self.group.let_lead(true);
        self.group.installed();
        if snapshot.region != self.mode {
            self.enter(snapshot.region.clone());
        }
        Some(Installed { snapshot, from })
    }

    /// This replica will never apply what comes next: it leaves the lead to others, and asks for a snapshot.
    pub(super) fn wants_replacement(&mut self) {
        self.replace = true;
        self.group.let_lead(false);
        let status = self.group.status();
        let ready = |(node, confirmed, active): &&(NodeId, u64, bool)| {
            *node != self.peer.node() && *active && status.last <= *confirmed + HAND_OVER_LAG_MAX
        };
        let ready: Vec<NodeId> = status.members.iter().filter(ready).map(|(node, ..)| *node).collect();
        // One that was left out too would not take it: each time it is another one's turn.
        self.hand_overs += 1;
        if self.group.is_leader()
            && let Some(successor) = ready.get(self.hand_overs % ready.len().max(1))
        {
            self.lease.hands_over(status.term);
            self.group.transfer_leader(*successor);
        }
        self.group.request_snapshot();
    }

    /// What became of a snapshot that this node has sent.
    pub(super) fn snapshot_sent(&mut self, to: NodeId, term: Term, taken: bool) {
        self.sending.remove(&to);
        if self.group.status().term == term {
            self.group.snapshot_sent(to, taken);
        }
    }
}

/// Entries that a successor may lack when the leadership is handed to it.
const HAND_OVER_LAG_MAX: u64 = 64;

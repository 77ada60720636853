//! The region's log on one node: its group's turns, the puts and markers in it, and how a marker puts the region into another
//! era.

use super::clients::Reply;
use super::data::Batch as Data;
use super::event::Event;
use super::node::{Input, Job, Process, Reading, Task, Then};
use super::origins::Op;
use super::planted::{Shortcut, takes};
use super::truth::Answered;
use super::world::{LOG, World, place};
use crate::clients::{Caller, NOBODY};
use crate::disks::log::Batch;
use crate::invariants::{Violation, holds};
use rand::RngExt as _;
use rdb_core::apply;
use rdb_core::apply::{Answer, Committed};
use rdb_core::command::{Encoded, Payload, Stamp, begin_keys};
use rdb_core::eventual::buckets::Buckets;
use rdb_core::eventual::machine::{Machine, State};
use rdb_core::ids::{Era, NodeId, RegionId};
use rdb_core::raft::{Apply, Effects, Failure, LogWrite};
use rdb_core::sessions::Sessions;
use rdb_core::switch::service::read_stands;
use rdb_core::switch::{Marker, Mode, Verdict};
use rdb_core::version::Hlc;
use std::rc::Rc;

/// What an entry of the region's log stands for.
#[derive(Debug, Clone)]
pub(super) enum Proposal {
    Marker(Rc<Marker>),
    Put(Rc<Put>),
}

#[derive(Debug)]
pub(super) struct Put {
    /// The era that whoever proposed it was in.
    pub(super) era: Era,
    pub(super) hlc: Hlc,
    pub(super) node: NodeId,
    pub(super) command: Encoded,
    /// Which of the clients' operations.
    pub(super) op: u64,
}

impl World {
    /// Tells a node's raft loop of something, and wakes it.
    pub(super) fn input(&mut self, id: NodeId, input: Input) {
        let incarnation = self.node(id).incarnation;
        let Some(process) = self.process_mut(id) else { return };
        process.inbox.push_back(input);
        if !std::mem::replace(&mut process.turn_due, true) {
            self.later(self.options.turn, Event::Turn { node: id, incarnation });
        }
    }

    pub(super) fn propose(&mut self, id: NodeId, proposal: Proposal, caller: Caller) {
        let number = self.proposals.len() as u64;
        self.proposals.push(proposal);
        let commands = Encoded { bytes: number.to_be_bytes().to_vec(), count: 1, ..Encoded::default() };
        self.input(id, Input::Propose(commands, caller));
    }

    pub(super) fn turn(&mut self, id: NodeId, incarnation: u64) -> Result<(), Violation> {
        let Some(process) = self.node_mut(id).running(incarnation) else { return Ok(()) };
        process.turn_due = false;
        for (caller, failure) in process.listen() {
            self.fail(caller, failure);
        }
        while let Some(effects) = self.process_mut(id).and_then(|p| p.group.take_effects(Hlc(0))) {
            self.handle(id, effects)?;
        }
        Ok(())
    }

    /// Does what the group wants, in the order of its fields.
    fn handle(&mut self, id: NodeId, effects: Effects<Caller, Reading>) -> Result<(), Violation> {
        let Effects { send, write, apply, reads, fetch, snapshots, failed_writes, failed_reads } = effects;
        self.send_raft(id, send);
        if let Some(mut write) = write {
            let batch = Batch::of_write(LOG, &mut write);
            let LogWrite { number, then_send, .. } = write;
            self.write_later(id, Job::Raft { batch, number, then_send });
        }
        if let Some(Apply { entries, waiters }) = apply {
            let mut waiters = waiters.into_iter().peekable();
            for entry in entries {
                let of_entry = waiters.next_if(|(index, _)| *index == entry.index);
                let waiters = of_entry.into_iter().flat_map(|(_, callers)| callers);
                let waiters = waiters.map(|(caller, _)| caller).collect();
                if let Some(process) = self.process_mut(id) {
                    process.tasks.push_back(Task { entry, waiters });
                }
            }
            self.start_apply(id);
        }
        for reading in reads {
            self.answer_read(id, &reading)?;
        }
        for fetch in fetch {
            let (node, incarnation) = (id, self.node(id).incarnation);
            self.later(self.options.fetch, Event::Fetched { node, incarnation, fetch: Box::new(fetch) });
        }
        holds("no log is cut here", snapshots.is_empty(), || {
            format!("node {id} wants to send {snapshots:?}")
        })?;
        for (caller, failure) in failed_writes {
            self.fail(caller, failure);
        }
        for (reading, failure) in failed_reads {
            self.fail(reading.caller, failure);
        }
        Ok(())
    }

    /// Tells a caller that its write or read failed, and whether it may have happened.
    fn fail(&mut self, caller: Caller, failure: Failure) {
        let reply = match failure {
            Failure::LeaderLost => Reply::InDoubt,
            Failure::NotLeader { leader } => Reply::NotDone { leader },
            _ => Reply::NotDone { leader: None },
        };
        self.reply(caller, reply);
    }

    fn answer_read(&mut self, id: NodeId, reading: &Reading) -> Result<(), Violation> {
        let Some(process) = self.process(id) else { return Ok(()) };
        // What it waited for may have been the marker.
        if !process.answers() || !read_stands(&process.region, reading.era) {
            self.totals.reads_refused += 1;
            self.reply(reading.caller, Reply::NotDone { leader: None });
            return Ok(());
        }
        let (epoch, era, mode) = (process.peer.epoch(), process.region.era(), process.region.mode());
        self.truth.answers(&self.nodes[place(id)], Answered { epoch, era, mode: Mode::Strong })?;
        self.truth.strong_read(&self.nodes[place(id)], reading, (era, mode))?;
        let found = self.node(id).data.current.read(&reading.key);
        self.totals.strong_reads += 1;
        self.reply(reading.caller, Reply::Found { found, era });
        Ok(())
    }

    /// The applier takes up work, unless it is busy, or has come to a marker that this replica cannot apply yet, or never.
    pub(super) fn start_apply(&mut self, id: NodeId) {
        let incarnation = self.node(id).incarnation;
        if self.is_stuck(id) {
            return;
        }
        let Some(process) = self.process_mut(id) else { return };
        if process.tasks.is_empty() || process.installing || std::mem::replace(&mut process.applying, true) {
            return;
        }
        self.later(self.options.apply, Event::Applied { node: id, incarnation });
    }

    pub(super) fn applied(&mut self, id: NodeId, incarnation: u64) -> Result<(), Violation> {
        let Some(process) = self.node_mut(id).running(incarnation) else { return Ok(()) };
        process.applying = false;
        if process.installing || process.tasks.is_empty() {
            return Ok(());
        }
        let waiting = process.tasks.len();
        for _ in 0..self.rng.random_range(1..=waiting) {
            if !self.apply_next(id)? {
                break;
            }
        }
        let index = self.process(id).map_or(0, |process| process.strong.state().applied);
        self.input(id, Input::Applied(index));
        self.start_apply(id);
        Ok(())
    }

    fn proposal(&self, entry: &Committed) -> Option<Proposal> {
        match Payload::decode(&entry.data) {
            Ok(Payload::Catalog(number)) => {
                let number = u64::from_be_bytes(number.try_into().ok()?);
                self.proposals.get(usize::try_from(number).ok()?).cloned()
            }
            _ => None,
        }
    }

    /// What the marker that this replica has come to does to it; `None` if it has come to something else.
    pub(super) fn verdict(&self, id: NodeId) -> Option<Verdict> {
        let process = self.process(id)?;
        let Some(Proposal::Marker(marker)) = self.proposal(&process.tasks.front()?.entry) else {
            return None;
        };
        let synced = process.eventual.as_ref().map(|eventual| eventual.logs.synced_vector());
        Some(process.region.judge(id, &marker, &synced.unwrap_or_default()))
    }

    fn is_stuck(&self, id: NodeId) -> bool {
        matches!(self.verdict(id), Some(Verdict::Await | Verdict::Replace))
    }

    /// Applies the next entry; `false` if that cannot be done.
    fn apply_next(&mut self, id: NodeId) -> Result<bool, Violation> {
        let verdict = self.verdict(id);
        if matches!(verdict, Some(Verdict::Await | Verdict::Replace)) {
            return Ok(false);
        }
        let Some(Task { entry, waiters }) = self.process_mut(id).and_then(|p| p.tasks.pop_front()) else {
            return Ok(false);
        };
        match self.proposal(&entry) {
            Some(Proposal::Put(put)) => self.apply_put(id, &entry, &put, &waiters)?,
            Some(Proposal::Marker(marker)) if verdict != Some(Verdict::Ignore) => {
                self.enter(id, &entry, &marker)?;
            }
            Some(Proposal::Marker(_)) | None => drop(self.feed(id, &entry, Vec::new())?),
        }
        Ok(true)
    }

    /// Gives an entry to the state machine, with these commands in it, and writes what comes of it.
    fn feed(&mut self, id: NodeId, entry: &Committed, data: Vec<u8>) -> Result<Option<Answer>, Violation> {
        let applied = self.run_machine(id, entry, data)?;
        let Some(apply::Applied { changes, answers }) = applied else { return Ok(None) };
        self.node_mut(id).data.write(changes.into());
        Ok(answers.into_iter().flatten().next())
    }

    fn run_machine(
        &mut self,
        id: NodeId,
        entry: &Committed,
        data: Vec<u8>,
    ) -> Result<Option<apply::Applied>, Violation> {
        let node = self.node_mut(id);
        let Some(process) = &mut node.process else { return Ok(None) };
        let entry = Committed { index: entry.index, term: entry.term, data };
        let applied = process.strong.apply(&[entry], &node.data.current);
        let cannot = |what| Violation { invariant: "every entry can be applied", what };
        applied.map(Some).map_err(|error| cannot(error.to_string()))
    }

    fn apply_put(
        &mut self,
        id: NodeId,
        entry: &Committed,
        put: &Put,
        waiters: &[Caller],
    ) -> Result<(), Violation> {
        let Some(process) = self.process(id) else { return Ok(()) };
        let (era, admitted) = (process.region.era(), process.region.admits(put.era));
        let mut data = Vec::new();
        if admitted {
            data = begin_keys(Stamp { era, hlc: put.hlc, node: put.node });
            data.extend_from_slice(&put.command.bytes);
        }
        let answer = self.feed(id, entry, data)?;
        self.truth.put_applied(id, entry.index, put, answer.as_ref())?;
        let reply = match answer {
            Some(Answer::Done(version)) => {
                self.totals.strong_writes += waiters.len() as u64;
                Reply::Done { version, seen: None }
            }
            Some(Answer::Mismatch { version, found }) => Reply::Mismatch { version, found, era },
            _ => Reply::NotDone { leader: None },
        };
        for caller in waiters.iter().filter(|caller| caller.client != NOBODY) {
            if let Reply::Done { .. } = &reply {
                let epoch = self.process(id).map(|process| process.peer.epoch()).unwrap_or_default();
                self.truth.answers(&self.nodes[place(id)], Answered { epoch, era, mode: Mode::Strong })?;
                self.truth.acknowledge(put.op)?;
            }
            self.reply(*caller, reply.clone());
        }
        Ok(())
    }

    /// The marker puts the region into the next era.
    fn enter(&mut self, id: NodeId, entry: &Committed, marker: &Marker) -> Result<(), Violation> {
        // All that is synced is within the cut, and belongs to the base.
        self.merge_all(id)?;
        self.truth.marker_applied(marker, entry.index)?;
        // Its mode, and that the marker is applied, are written at once: a start must not find one without the other.
        if takes(Shortcut::WritesModeApart) {
            self.feed(id, entry, Vec::new())?;
        } else {
            self.run_machine(id, entry, Vec::new())?;
        }
        let node = self.node_mut(id);
        let Some(process) = &mut node.process else { return Ok(()) };
        let before = node.data.current.eventual().ok().flatten();
        let stamped = before.as_ref().map(|state| state.highest).unwrap_or_default();
        process.region.enter(marker);
        let state = *process.strong.state();
        let highest = state.highest.max(stamped);
        let state = apply::State { era: marker.era, highest, ..state };
        let machine = apply::Machine::new(RegionId::FIRST_USER, state, Sessions::default());
        process.strong = machine.in_mode(process.region.clone());
        process.clock.saw(highest);
        let begun = (marker.mode == Mode::Eventual).then(|| begin_era(before, marker.era, highest));
        let batch = Data {
            strong: Some(state.encode()),
            region: Some(process.region.encode()),
            eventual: begun.map(|state| state.encode()),
            ..Data::default()
        };
        node.data.write(batch);
        self.truth.begins_with_the_base(&self.nodes[place(id)], marker.era)?;
        self.entered(id)
    }

    /// The region is in another era, by a marker or a snapshot: what belonged to the one before is over.
    pub(super) fn entered(&mut self, id: NodeId) -> Result<(), Violation> {
        let node = self.node_mut(id);
        let Some(process) = &mut node.process else { return Ok(()) };
        let (era, index) = (process.region.era(), process.strong.state().applied);
        let left = process.eventual.take();
        process.peer.era_changed(&process.region);
        let waiters = left.into_iter().flat_map(|left| left.to_merge).filter_map(|merge| merge.waiter);
        for waiter in waiters {
            self.reply(waiter.caller, Reply::InDoubt);
        }
        self.open_eventual(id)?;
        self.truth.entered(&self.nodes[place(id)], era)?;
        self.totals.eras_entered += 1;
        let ops = vec![Op::Note(era, index)];
        self.write_later(id, Job::Origins { ops, then: Then::Note(era) });
        self.aim_at(id, 2 * self.options.sync.1 + self.options.apply.1);
        self.review(id);
        Ok(())
    }
}

/// What an eventual era begins with.
fn begin_era(before: Option<State>, era: Era, highest: Hlc) -> State {
    let before = before.unwrap_or_else(|| State::begin(Era(0), Hlc(0)));
    let mut machine = Machine::new(before, Buckets::default(), false);
    machine.begin_era(era, highest, Buckets::default());
    machine.state().clone()
}

impl Process {
    /// Gives all that came in to the group. Returns the writes and reads that it refused at once.
    fn listen(&mut self) -> Vec<(Caller, Failure)> {
        let mut refused = Vec::new();
        for input in std::mem::take(&mut self.inbox) {
            let group = &mut self.group;
            match input {
                // Whatever is refused here is out of date: the other kind of world looks at that closely.
                Input::Message(message) => drop(group.step(*message)),
                Input::Tick => group.tick(),
                Input::Persisted(number) => group.persisted(number),
                Input::Applied(index) => group.applied(index),
                Input::Fetched(fetch, entries) => group.fetched(fetch.low, entries, fetch.context),
                Input::Propose(commands, caller) => refused.extend(group.propose(commands, caller).err()),
                Input::Read(reading) => {
                    refused.extend(group.read(reading).err().map(|(reading, why)| (reading.caller, why)));
                }
                Input::Unreachable(peer) => group.unreachable(peer),
                Input::Transfer(peer) => group.transfer_leader(peer),
            }
        }
        refused
    }
}

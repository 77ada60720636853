//! A cluster whose every step is a command: groups, and around them disks and a network in which nothing moves by itself.

mod show;

use rdb_core::apply::{Answer, Changes, Machine, State, View};
use rdb_core::command::{Command, Encoded, Operation, Write};
use rdb_core::ids::{Index, NodeId, RegionId};
use rdb_core::raft::disk::{self, Terms};
use rdb_core::raft::{
    Apply, Boot, Effects, Entry, Group, HardState, LogRead, LogWrite, Message, Options, Role, SendSnapshot,
    SnapshotPlace, snapshot_message,
};
use rdb_core::sessions::Sessions;
use rdb_core::version::Hlc;
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::rc::Rc;

const REGION: RegionId = RegionId::FIRST_USER;

type Puppet = Group<Reader, String, String>;

#[derive(Default)]
pub(crate) struct Cluster {
    nodes: BTreeMap<u64, Node>,
    network: VecDeque<Message>,
    /// Snapshots that leaders were asked for, each with the leader.
    snapshots: VecDeque<(u64, SendSnapshot)>,
    /// Whether those that start from now on stand for leases.
    pub(crate) leases: bool,
    /// What the present command has to say.
    pub(crate) lines: Vec<String>,
}

#[derive(Default)]
struct Node {
    members: Vec<NodeId>,
    starts: u64,
    log: Rc<RefCell<Files>>,
    data: Data,
    /// The note of a snapshot that replaces the data: the write that is to follow it.
    note: Option<LogWrite>,
    process: Option<Process>,
}

struct Process {
    group: Puppet,
    machine: Machine,
    /// Writes that the log writer has not finished.
    writes: VecDeque<LogWrite>,
    applies: VecDeque<Apply<String>>,
    /// A snapshot's data that has come.
    came: Option<Data>,
}

/// What is synced.
#[derive(Default)]
struct Files {
    entries: BTreeMap<Index, Vec<u8>>,
    hard_state: Option<Vec<u8>>,
    terms: Option<Vec<u8>>,
}

#[derive(Default, Clone)]
struct Data {
    records: BTreeMap<Vec<u8>, Vec<u8>>,
    state: Option<Vec<u8>>,
}

pub(crate) struct Reader(Rc<RefCell<Files>>);

impl LogRead for Reader {
    fn read(&self, low: Index, high: Index, _: u64) -> Result<Vec<Entry>, String> {
        let files = self.0.borrow();
        files
            .entries
            .range(low..high)
            .map(|(i, e)| disk::decode_entry(*i, e).map_err(|e| e.to_string()))
            .collect()
    }
}

impl View for Data {
    type Error = Infallible;
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Infallible> {
        Ok(self.records.get(key).cloned())
    }
}

impl Data {
    fn state(&self) -> State {
        self.state.as_deref().map_or(State::default(), |bytes| State::decode(bytes).unwrap())
    }

    fn write(&mut self, changes: Changes) {
        self.records.retain(|key, _| !changes.removed.iter().any(|range| range.contains(key)));
        for (key, record) in changes.records {
            match record {
                Some(record) => drop(self.records.insert(key, record)),
                None => drop(self.records.remove(&key)),
            }
        }
        self.state = Some(changes.state);
    }
}

impl Files {
    fn write(&mut self, write: &LogWrite) {
        if write.snapshot.is_some() {
            self.entries.clear();
        }
        if let Some((from, to)) = write.remove_stale {
            self.entries.retain(|index, _| !(from..to).contains(index));
        }
        self.entries.extend(write.entries.iter().cloned());
        self.hard_state = write.hard_state.clone().or(self.hard_state.take());
        self.terms = write.terms.clone().or(self.terms.take());
    }
}

impl Cluster {
    fn say(&mut self, line: impl Into<String>) {
        self.lines.push(line.into());
    }

    pub(crate) fn found(&mut self, nodes: u64) {
        let members: Vec<_> = (1..=nodes).map(NodeId).collect();
        for id in 1..=nodes {
            self.nodes.insert(id, Node { members: members.clone(), ..Node::default() });
            self.restart(id).unwrap();
        }
        self.lines.clear();
    }

    pub(crate) fn restart(&mut self, id: u64) -> Result<(), String> {
        let node = self.nodes.get_mut(&id).ok_or("no such node")?;
        node.starts += 1;
        // The data is the snapshot's or not; the log follows it.
        if let Some(note) = node.note.take()
            && note.snapshot.is_some_and(|place| place.index == node.data.state().applied)
        {
            node.log.borrow_mut().write(&note);
        }
        let files = node.log.borrow();
        let terms = files.terms.as_deref().map_or(Terms::default(), |bytes| Terms::decode(bytes).unwrap());
        let state = node.data.state();
        let boot = Boot {
            region: REGION,
            node: NodeId(id),
            members: node.members.clone(),
            hard_state: files
                .hard_state
                .as_deref()
                .map_or(HardState::default(), |bytes| disk::decode_hard_state(bytes).unwrap()),
            last: files.entries.last_key_value().map_or(terms.first_index() - 1, |(index, _)| *index),
            terms,
            applied: state.applied,
            incarnation: node.starts,
            seed: 1,
        };
        drop(files);
        let line = format!(
            "n{id} starts with term {}, commit {}, last {}, applied {}",
            boot.hard_state.term, boot.hard_state.commit, boot.last, boot.applied
        );
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let leases = self.leases;
        let options = Options { sleep_after_ticks: Some(6), leases, ..Options::default() };
        let group = Group::new(options, boot, Reader(Rc::clone(&node.log)), &logger);
        let machine = Machine::new(REGION, state, Sessions::default());
        let mut group = group.map_err(|error| error.to_string())?;
        if state.closed {
            group.close();
        }
        node.process =
            Some(Process { group, machine, writes: VecDeque::new(), applies: VecDeque::new(), came: None });
        self.say(line);
        self.turn(id, |_, _| ());
        Ok(())
    }

    pub(crate) fn crash(&mut self, id: u64) {
        let process = self.node(id).process.take();
        let lost = process.map_or(0, |process| process.writes.len());
        self.say(format!("n{id} is gone, and {lost} log writes with it"));
    }

    fn node(&mut self, id: u64) -> &mut Node {
        self.nodes.get_mut(&id).expect("no such node")
    }

    fn process(&mut self, id: u64) -> &mut Process {
        self.node(id).process.as_mut().expect("the node is down")
    }

    /// One turn: verbs, then all effects.
    pub(crate) fn turn(&mut self, id: u64, verbs: impl FnOnce(&mut Puppet, &mut Vec<String>)) {
        let mut said = Vec::new();
        verbs(&mut self.process(id).group, &mut said);
        self.lines.append(&mut said);
        while !self.process(id).group.is_installing() {
            let Some(effects) = self.process(id).group.take_effects(Hlc::from_millis(1)) else { break };
            self.handle(id, effects);
        }
    }

    fn handle(&mut self, id: u64, effects: Effects<String, String>) {
        let Effects { send, write, apply, reads, fetch: _, snapshots, failed_writes, failed_reads } = effects;
        self.send(send);
        if let Some(write) = write {
            self.say(format!("n{id} writes {}", show::write(&write)));
            self.process(id).writes.push_back(write);
        }
        if let Some(apply) = apply {
            let entries = show::committed(&apply.entries);
            self.say(format!("n{id} has committed {entries}"));
            self.process(id).applies.push_back(apply);
        }
        for snapshot in snapshots {
            self.say(format!("n{id} is to send n{} a snapshot from {} on", snapshot.to, snapshot.index));
            self.snapshots.push_back((id, snapshot));
        }
        for read in reads {
            self.say(format!("n{id} serves read {read}"));
        }
        for (name, failure) in failed_writes.into_iter().chain(failed_reads) {
            self.say(format!("n{id} gives up {name}: {}", show::failure(failure)));
        }
    }

    fn send(&mut self, messages: Vec<Message>) {
        for message in messages {
            self.say(show::message(&message));
            self.network.push_back(message);
        }
    }

    pub(crate) fn propose(&mut self, id: u64, writes: &[(String, String)]) {
        let mut encoded = Encoded::default();
        for (key, value) in writes {
            let write = Write { key: key.as_bytes(), value: Some(value.as_bytes()) };
            encoded.push(&Command { request: None, operation: Operation::Write(write) });
        }
        let name: Vec<_> = writes.iter().map(|(key, value)| format!("{key}={value}")).collect();
        self.turn(id, |group, said| {
            if let Err((name, failure)) = group.propose(encoded, name.join(" ")) {
                said.push(format!("n{id} refuses {name}: {}", show::failure(failure)));
            }
        });
    }

    pub(crate) fn read(&mut self, id: u64, name: &str) {
        self.turn(id, |group, said| {
            if let Err((name, failure)) = group.read(name.to_owned()) {
                said.push(format!("n{id} refuses read {name}: {}", show::failure(failure)));
            }
        });
    }

    pub(crate) fn tick(&mut self, id: u64, count: u64) {
        for _ in 0..count {
            self.turn(id, |group, _| group.tick());
        }
    }

    pub(crate) fn sync(&mut self, id: u64, count: usize) {
        let mut finished = Vec::new();
        for _ in 0..count {
            let Some(write) = self.process(id).writes.pop_front() else { break };
            if write.snapshot.is_some() && self.node(id).note.take().is_none() {
                self.process(id).writes.push_front(write);
                self.say(format!("n{id} cannot write its log before its data is replaced"));
                break;
            }
            self.node(id).log.borrow_mut().write(&write);
            finished.push(write);
        }
        for write in finished {
            let number = write.number;
            self.say(format!("n{id} has synced write {number}"));
            // First the report, then the messages; what the report makes possible comes with the next turn.
            self.process(id).group.persisted(number);
            if write.snapshot.is_some() {
                let state = self.node(id).data.state();
                let process = self.process(id);
                process.machine = Machine::new(REGION, state, Sessions::default());
                process.applies.clear();
                if state.closed {
                    process.group.close();
                }
                process.group.installed();
            }
            self.send(write.then_send);
        }
        self.turn(id, |_, _| ());
    }

    pub(crate) fn apply(&mut self, id: u64) {
        while let Some(Apply { entries, waiters }) = self.process(id).applies.pop_front() {
            let Node { data, process: Some(process), .. } = self.node(id) else { return };
            let applied = process.machine.apply(&entries, data).unwrap();
            data.write(applied.changes);
            let last = entries.last().map_or(0, |entry| entry.index);
            let closed = process.machine.state().closed;
            self.say(format!("n{id} applies up to {last}"));
            for (index, callers) in waiters {
                let place = entries.iter().position(|entry| entry.index == index).unwrap();
                let mut answers = applied.answers[place].iter();
                for (name, count) in callers {
                    let done = answers.by_ref().take(count).all(|answer| matches!(answer, Answer::Done(_)));
                    self.say(format!("n{id} answers {name}: {}", if done { "done" } else { "not done" }));
                }
            }
            self.turn(id, |group, _| {
                if closed {
                    group.close();
                }
                group.applied(last);
            });
        }
    }

    pub(crate) fn close(&mut self, id: u64) {
        self.turn(id, |group, said| {
            if !group.needs_closing() {
                said.push(format!("n{id} is not to close the region"));
            }
            group.propose_close();
        });
    }

    /// The leader may sleep, and these followers hear of it.
    pub(crate) fn sleep(&mut self, id: u64, followers: &[u64]) {
        let Some(sleep) = self.process(id).group.fall_asleep() else {
            return self.say(format!("n{id} does not sleep"));
        };
        self.say(format!("n{id} sleeps in term {} with last {}", sleep.term, sleep.last));
        for follower in followers {
            let group = &mut self.process(*follower).group;
            group.fall_asleep_with(NodeId(id), sleep);
            let too = if group.is_asleep() { "sleeps too" } else { "does not sleep" };
            self.say(format!("n{follower} {too}"));
        }
    }

    /// The log's writer drops entries, as if the data were durable.
    pub(crate) fn truncate(&mut self, id: u64, index: Index) {
        let Some((index, terms)) = self.process(id).group.truncate(index) else {
            return self.say(format!("n{id} has nothing to drop"));
        };
        let mut files = self.node(id).log.borrow_mut();
        files.entries.retain(|entry, _| index < *entry);
        files.terms = Some(terms);
    }

    /// The snapshot that `from` was asked to send arrives at `to`, with the data as it is now.
    pub(crate) fn snapshot(&mut self, from: u64, to: u64) -> Result<(), String> {
        let place = self.snapshots.iter().position(|(leader, wanted)| (*leader, wanted.to.0) == (from, to));
        let (_, wanted) = place.and_then(|place| self.snapshots.remove(place)).ok_or("none is wanted")?;
        let data = self.node(from).data.clone();
        let (index, term) = (data.state().applied, data.state().applied_term);
        assert!(wanted.index <= index, "the data is behind what raft-rs was told");
        let message = snapshot_message(wanted.message, SnapshotPlace { index, term });
        self.say(format!("n{to} has a snapshot of {index}@{term}"));
        self.process(to).came = Some(data);
        self.turn(to, |group, said| {
            if let Err(rejected) = group.step_snapshot(message) {
                said.push(format!("n{to} drops it: {rejected}"));
            }
        });
        Ok(())
    }

    /// The data is replaced by the snapshot's, after a note of it.
    pub(crate) fn install(&mut self, id: u64) -> Result<(), String> {
        let process = self.process(id);
        let write = process.writes.iter().find(|write| write.snapshot.is_some());
        let write = write.ok_or("no snapshot is being taken in")?;
        let note = LogWrite {
            entries: write.entries.clone(),
            hard_state: write.hard_state.clone(),
            terms: write.terms.clone(),
            snapshot: write.snapshot,
            ..LogWrite::default()
        };
        let came = process.came.take().ok_or("no snapshot has come")?;
        let node = self.node(id);
        node.note = Some(note);
        node.data = came;
        Ok(())
    }

    pub(crate) fn report(&mut self, id: u64, peer: u64, outcome: &str) {
        self.turn(id, |group, _| group.snapshot_sent(NodeId(peer), outcome == "taken"));
    }

    fn take_messages(&mut self, from: Option<u64>, to: Option<u64>) -> Vec<Message> {
        let matches = |message: &Message| {
            from.is_none_or(|from| from == message.from) && to.is_none_or(|to| to == message.to)
        };
        let (taken, left) = std::mem::take(&mut self.network).into_iter().partition(matches);
        self.network = left;
        Vec::from(taken)
    }

    pub(crate) fn deliver(&mut self, from: Option<u64>, to: Option<u64>) {
        let mut by_receiver: BTreeMap<u64, Vec<Message>> = BTreeMap::new();
        for message in self.take_messages(from, to) {
            by_receiver.entry(message.to).or_default().push(message);
        }
        for (to, messages) in by_receiver {
            if self.node(to).process.is_none() {
                self.say(format!("n{to} is down: {} messages are lost", messages.len()));
                continue;
            }
            self.turn(to, |group, said| {
                for message in messages {
                    let from = message.from;
                    if let Err(rejected) = group.step(message) {
                        said.push(format!("n{to} drops a message of n{from}: {rejected}"));
                    }
                }
            });
        }
    }

    pub(crate) fn drop_messages(&mut self, from: Option<u64>, to: Option<u64>) {
        let dropped = self.take_messages(from, to).len();
        self.say(format!("{dropped} messages are lost"));
    }

    /// Delivers, syncs and applies until nothing is left to do, and says nothing.
    pub(crate) fn settle(&mut self) {
        let said = std::mem::take(&mut self.lines);
        while !self.is_quiet() {
            self.deliver(None, None);
            let up: Vec<u64> =
                self.nodes.iter().filter(|(_, node)| node.process.is_some()).map(|(id, _)| *id).collect();
            for id in up {
                self.sync(id, usize::MAX);
                self.apply(id);
            }
        }
        self.lines = said;
    }

    fn is_quiet(&self) -> bool {
        let mut processes = self.nodes.values().filter_map(|node| node.process.as_ref());
        self.network.is_empty()
            && processes.all(|process| process.writes.is_empty() && process.applies.is_empty())
    }

    pub(crate) fn elect(&mut self, id: u64) {
        self.turn(id, |group, _| group.campaign());
        self.settle();
        self.lines.clear();
        self.status();
    }

    pub(crate) fn status(&mut self) {
        let lines: Vec<_> = self.nodes.iter().map(|(id, node)| status_of(*id, node)).collect();
        self.lines.extend(lines);
    }
}

fn status_of(id: u64, node: &Node) -> String {
    let Some(process) = &node.process else { return format!("n{id} down") };
    let status = process.group.status();
    let role = match status.role {
        Role::Leader => "leads".to_owned(),
        Role::Follower => {
            status.leader.map_or("follows nobody".into(), |leader| format!("follows n{leader}"))
        }
        Role::Candidate | Role::PreCandidate => "stands for election".to_owned(),
    };
    format!(
        "n{id} {role} in term {}, last {}, commit {}, applied {}",
        status.term, status.last, status.commit, status.applied
    )
}

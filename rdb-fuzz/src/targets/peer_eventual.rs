//! Eventual mode's part of what peers send: runs, reports and the pages of copies, taken in by the core as a node does, between
//! writes of its own. Two other members are heard, and whatever they say, this one goes on.

use crate::memory::Memory;
use crate::parts::{Parts, part, sealed, unsealed};
use rdb_core::codec::{Corrupt, Reader};
use rdb_core::command::Write;
use rdb_core::eventual::buckets::{Buckets, Digest};
use rdb_core::eventual::copy::{self, Copied, Note, Page};
use rdb_core::eventual::machine::{Error, Machine, State};
use rdb_core::eventual::origin_log::{Held, OriginLogs};
use rdb_core::eventual::peers::{Peers, Report};
use rdb_core::eventual::run::{Entry, Replaced, Run};
use rdb_core::eventual::stamps::Stamps;
use rdb_core::eventual::vector::{Origin, Vector, WriteId};
use rdb_core::ids::{Era, Incarnation, NodeId};
use rdb_core::record::Record;
use rdb_core::version::{Hlc, Version};
use std::convert::Infallible;

/// Past so many steps an input says nothing new.
const STEPS_MAX: usize = 64;
const ERA: Era = Era(1);
const ME: Origin = Origin { node: NodeId(1), incarnation: Incarnation(1) };
const OTHERS: [NodeId; 2] = [NodeId(2), NodeId(3)];

pub(super) fn run(input: &[u8]) -> bool {
    let mut parts = Parts::of(input);
    let mut node = Node::begin();
    let mut accepted = false;
    for step in 0..STEPS_MAX {
        if parts.is_empty() {
            break;
        }
        node.now_ms = node.now_ms.saturating_add(100 * step as u64);
        accepted |= node.step(&mut parts);
    }
    accepted
}

struct Node {
    machine: Machine,
    logs: OriginLogs,
    peers: Peers,
    stamps: Stamps,
    data: Memory,
    now_ms: u64,
    /// Of a copy of which pages are being merged.
    copy: Option<Note>,
}

impl Node {
    fn begin() -> Self {
        let logs = OriginLogs::begin(ERA, ME);
        Self {
            machine: Machine::new(State::begin(ERA, Hlc(0)), Buckets::default(), true),
            peers: Peers::new(OTHERS, 0),
            stamps: Stamps::of(&logs),
            logs,
            data: Memory::default(),
            now_ms: 0,
            copy: None,
        }
    }

    fn step(&mut self, parts: &mut Parts<'_>) -> bool {
        let from = OTHERS[usize::from(parts.number() % 2)];
        match parts.number() % 9 {
            0 | 1 => Run::decode(&sealed(parts.part())).is_ok_and(|run| self.receive(run)),
            2 => self.report(from, parts.part()).is_ok(),
            3 => self.begin_copy(parts.part()),
            4 | 5 => Page::decode(&sealed(parts.part())).is_ok_and(|page| self.copy_page(&page)),
            6 => Digest::decode(parts.part()).is_ok_and(|digest| {
                let _ = self.machine.digest().compare(&digest);
                true
            }),
            7 => {
                self.write(parts.part());
                false
            }
            _ => {
                self.look_around(from, u64::from(parts.number()));
                false
            }
        }
    }

    /// A run of another node: logged, synced and applied at once.
    fn receive(&mut self, run: Run) -> bool {
        // While pages are merged, runs are not taken in.
        if self.copy.is_some() {
            return false;
        }
        let Ok(Some(run)) = self.logs.receive(run) else { return false };
        self.take(&run)
    }

    fn take(&mut self, run: &Run) -> bool {
        self.logs.log(&Held::of(run, run.encode().len()));
        self.logs.synced(run.origin, run.last());
        self.stamps.add(run);
        let changes = self.machine.apply(std::slice::from_ref(run), &self.data);
        let changes = changes.unwrap_or_else(|error| panic!("a run that was logged is not applied: {error}"));
        self.data.write_eventual(changes);
        true
    }

    fn report(&mut self, from: NodeId, bytes: &[u8]) -> Result<(), Corrupt> {
        let mut reader = Reader::new("a report", bytes);
        let report = Report {
            era: Era(reader.varint32()?),
            synced: Vector::read(&mut reader)?,
            applied: Vector::read(&mut reader)?,
            shown: Vector::read(&mut reader)?,
            promise: Hlc(reader.varint()?),
        };
        let _ = (self.machine.state().applied.lacks(&report.applied), report.synced.compare(&report.applied));
        self.peers.heard(from, &report, self.now_ms);
        Ok(())
    }

    /// The note of a copy, if that is of use.
    fn begin_copy(&mut self, bytes: &[u8]) -> bool {
        let Ok(note) = Note::decode(bytes) else { return false };
        let is_of_use = copy::is_of_use(&note.vector, &self.logs.logged_vector(), ME);
        // How many pages there are is this node's own count.
        let few = (1..=STEPS_MAX as u64).contains(&note.pages);
        if self.copy.is_some() || note.era != ERA || !is_of_use || !few {
            return false;
        }
        self.copy = Some(note);
        true
    }

    /// A page is merged, or the copy is refused.
    fn copy_page(&mut self, page: &Page) -> bool {
        let Some(note) = &self.copy else { return false };
        let merged = self.machine.copy_page(note, page, &self.data);
        let Ok(changes) = merged else {
            // The machine is spent, and the node stops.
            *self = Self::begin();
            return false;
        };
        self.data.write_eventual(changes);
        if !self.machine.is_copying() {
            for (origin, seq) in self.logs.copied(&note.vector) {
                self.stamps.skip(origin, seq);
            }
            self.copy = None;
        }
        true
    }

    /// A write of this node's own.
    fn write(&mut self, key: &[u8]) {
        let write = Write { key, value: Some(b"mine") };
        let stamp = Hlc::from_millis(self.now_ms);
        let made: Result<Run, Error<Infallible>> =
            self.machine.write(stamp, ME, self.logs.written(), &[write], &self.data);
        if let Ok(run) = made {
            self.take(&run);
        }
    }

    /// What a node does now and then with what it knows of the others.
    fn look_around(&mut self, to: NodeId, some: u64) {
        if let Some(push) = self.peers.next_push(to, &self.logs, self.now_ms, |_| some.is_multiple_of(2)) {
            self.peers.pushed(to, push.origin, self.logs.synced_vector().get(push.origin), 100);
        }
        let stable = self.peers.stable(&self.logs);
        let _ = (self.peers.need_copy(&self.logs), self.peers.take_back(some << 8, &self.logs));
        let _ = self.peers.keep_below(some << 4, &self.logs);
        let applied = self.machine.state().applied.clone();
        self.logs.truncate(&self.peers.stable_for_truncation(&self.logs), &applied);
        self.stamps.forget(&self.peers.applied_everywhere(&applied, ERA));
        if self.copy.is_none() {
            let notes = self.data.all_notes().into_iter().filter(|(key, _)| is_lost(key)).collect();
            if let Ok(changes) = self.machine.settle(&stable, notes, &self.data) {
                self.data.write_eventual(changes);
            }
        }
    }
}

fn is_lost(note: &[u8]) -> bool {
    rdb_core::eventual::conflicts::parse_lost_key(note).is_ok()
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let step = |kind: u8, bytes: &[u8]| [&[0, kind][..], &part(bytes)].concat();
    let first = step(0, &unsealed(run_of(0, Replaced::Nothing(Hlc(0))).encode()));
    let replaced = Replaced::Write(WriteId { origin: peer(), seq: 1 });
    let second = step(0, &unsealed(run_of(1, replaced).encode()));
    let (own, around) = (step(7, b"key"), vec![0, 8, 3]);
    let (said, digest) = (step(2, &report()), step(6, &digest()));
    let noted =
        step(3, &Note { from: NodeId(2), era: ERA, pages: 2, highest: Hlc(9), vector: vector() }.encode());
    let pages = pages().map(|page| step(4, &unsealed(page.encode())));
    vec![
        first.clone(),
        [&own[..], &first, &second].concat(),
        [&first[..], &said, &around, &own, &around].concat(),
        [&digest[..], &own].concat(),
        [&own[..], &noted, &pages[0], &pages[1], &own, &around].concat(),
    ]
}

fn peer() -> Origin {
    Origin { node: NodeId(2), incarnation: Incarnation(1) }
}

fn vector() -> Vector {
    Vector::from_iter([(peer(), 2)])
}

fn run_of(after: u64, replaced: Replaced) -> Run {
    let (key, value, seq) = (b"key".to_vec(), Some(b"value".to_vec()), after + 1);
    let entry = Entry { seq, hlc: Hlc(7 + after), key, value, replaced, since: seq };
    Run { era: ERA, origin: peer(), after, entries: vec![entry] }
}

fn report() -> Vec<u8> {
    let mut out = vec![1];
    (0..3).for_each(|_| vector().put(&mut out));
    out.push(9);
    out
}

fn digest() -> Vec<u8> {
    Digest { era: ERA, vector: vector(), purged: Hlc(0), buckets: Buckets::default() }.encode()
}

fn pages() -> [Page; 2] {
    let version = Version { era: ERA, hlc: Hlc(8), node: NodeId(2) };
    let id = Some(WriteId { origin: peer(), seq: 2 });
    let record = Record { version, id, value: Some(b"value") }.encode();
    [
        Page::Records(vec![Copied::record(b"key", &record)]),
        Page::Awaited(vec![WriteId { origin: peer(), seq: 1 }]),
    ]
}

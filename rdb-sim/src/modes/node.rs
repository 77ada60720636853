//! One node: what survives a crash, and what does not.

use super::copies::Open;
use super::data::DataDisk;
use super::event::Event;
use super::eventual::Eventual;
use super::origins::{Op, OriginDisk};
use super::snapshots::Snapshot;
use crate::clients::Caller;
use crate::disks::log::{Batch, LogDisk, Reader};
use crate::options::Micros;
use crate::world::Wall;
use rdb_core::apply::{self, Committed};
use rdb_core::command::Encoded;
use rdb_core::eventual::copy::Note;
use rdb_core::eventual::hlc::DurableClock;
use rdb_core::eventual::run::Run;
use rdb_core::hlc::Clock;
use rdb_core::ids::{Epoch, Era, Index, NodeId};
use rdb_core::raft::{Entry, Fetch, Group, Message};
use rdb_core::switch::{Control, Mode, Peer, Region, Report, Vector};
use rdb_core::version::Hlc;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

pub(super) struct Node {
    pub(super) id: NodeId,
    /// Starts so far.
    pub(super) incarnation: u64,
    pub(super) raft: LogDisk,
    pub(super) origins: OriginDisk,
    pub(super) data: DataDisk,
    pub(super) wall: Wall,
    /// Up to where, in which era, it has settled and flushed all there is: it has no objection to purges up to there.
    pub(super) purgeable: (Era, Hlc),
    /// Until when the log disk hangs.
    pub(super) stalled_until: Micros,
    /// What runs; `None` without power.
    pub(super) process: Option<Process>,
}

/// What a crash ends.
pub(super) struct Process {
    pub(super) group: Group<Reader, Caller, Reading>,
    /// The state machine of the region's log.
    pub(super) strong: apply::Machine,
    pub(super) region: Region,
    pub(super) peer: Peer,
    /// While the region is eventual.
    pub(super) eventual: Option<Eventual>,
    /// Stamps puts.
    pub(super) clock: Clock,
    /// Stamps eventual writes.
    pub(super) durable: DurableClock,
    pub(super) mark_synced: Hlc,
    pub(super) inbox: VecDeque<Input>,
    pub(super) turn_due: bool,
    /// Entries of the region's log that are committed, with who waits for them.
    pub(super) tasks: VecDeque<Task>,
    pub(super) applying: bool,
    pub(super) writer: Writer,
    /// What it has heard as the controller that it may be: reports, and of each node the era of its region.
    pub(super) reports: Vec<Report>,
    pub(super) eras: BTreeMap<NodeId, Era>,
    /// The era that it may answer in: the note of it is synced.
    pub(super) noted: Era,
    /// Before this entry is applied again, it does not answer: it was further once.
    pub(super) replay_to: Index,
    /// A snapshot that is being taken in. Meanwhile nothing else changes the region.
    pub(super) installing: bool,
    /// Copies that it gives, by who takes them.
    pub(super) gives: BTreeMap<NodeId, Open>,
    /// What waits for a stopped process to go on; `None` while it runs.
    pub(super) stopped: Option<Vec<Event>>,
}

/// What a node's raft loop hears of.
pub(super) enum Input {
    Message(Box<Message>),
    Tick,
    Persisted(u64),
    Applied(Index),
    Fetched(Box<Fetch>, Vec<Entry>),
    Propose(Encoded, Caller),
    Read(Reading),
    Unreachable(NodeId),
    Transfer(NodeId),
}

/// A linearizable read that waits for its index.
#[derive(Debug, Clone)]
pub(super) struct Reading {
    pub(super) caller: Caller,
    pub(super) key: Vec<u8>,
    /// The region's era when it began.
    pub(super) era: Era,
    /// How many writes were acknowledged by then.
    pub(super) acknowledged: usize,
}

/// A committed entry.
pub(super) struct Task {
    pub(super) entry: Committed,
    pub(super) waiters: Vec<Caller>,
}

/// The log writer: one sync at a time, for both logs; what comes meanwhile gathers for the next.
#[derive(Default)]
pub(super) struct Writer {
    pub(super) waiting: Vec<Job>,
    pub(super) syncing: Vec<Job>,
}

pub(super) enum Job {
    /// A write of the region's group.
    Raft { batch: Batch, number: u64, then_send: Vec<Message> },
    /// Something in the eventual part.
    Origins { ops: Vec<Op>, then: Then },
}

/// What follows the sync of a write to the eventual part.
pub(super) enum Then {
    Nothing,
    /// A run may be merged.
    Merge(Merge),
    Control(Control),
    Mark(Hlc),
    Note(Era),
    Replace(Rc<Snapshot>),
    /// A copy is complete.
    Copied(Rc<Note>),
}

/// A run on its way to the records, and who waits for it.
#[derive(Clone)]
pub(super) struct Merge {
    pub(super) run: Rc<Run>,
    pub(super) waiter: Option<Waiter>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Waiter {
    pub(super) caller: Caller,
    /// The node's epoch when it accepted the write.
    pub(super) epoch: Epoch,
    /// The write's number.
    pub(super) op: u64,
}

impl Node {
    /// The process that was started as `incarnation`, if it still has power.
    pub(super) fn running(&mut self, incarnation: u64) -> Option<&mut Process> {
        self.process.as_mut().filter(|_| self.incarnation == incarnation)
    }

    /// Its monotonic clock. It drifts like the wall clock, and no step moves it.
    pub(super) fn monotonic_ms(&self, now: Micros) -> u64 {
        Wall { offset_ms: 0, ..self.wall }.now_ms(now)
    }
}

impl Process {
    /// Whether a start has found again what this node had applied when it last entered an era.
    pub(super) fn is_back(&self) -> bool {
        self.replay_to <= self.strong.state().applied
    }

    /// Whether it may answer anybody: its region is where it was before the last crash, and that survives the next one.
    pub(super) fn answers(&self) -> bool {
        self.is_back() && self.region.era() <= self.noted
    }

    /// Whether a seal has to wait: eventual writes are under way that are not answered yet, or a copy that counts is not merged.
    pub(super) fn is_answering(&self) -> bool {
        self.eventual.as_ref().is_some_and(|eventual| 0 < eventual.unanswered || eventual.copying.is_noted())
    }

    /// The last entry that was handed out to be applied.
    pub(super) fn delivered(&self) -> Index {
        self.strong.state().applied + self.tasks.len() as u64
    }

    /// What it shows of the eventual era: which one, and up to which vector.
    pub(super) fn shown(&self) -> Option<(Era, Vector)> {
        let eventual = self.eventual.as_ref().filter(|_| self.region.mode() == Mode::Eventual)?;
        Some((self.region.era(), eventual.machine.state().applied.clone()))
    }
}

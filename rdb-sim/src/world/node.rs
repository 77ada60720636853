//! One node: what survives a crash, and what does not.

use crate::clients::{Caller, Reading};
use crate::disks::data::{DataDisk, Stored};
use crate::disks::log::{Batch, LogDisk, Reader};
use crate::event::Event;
use crate::machine::Machine;
use crate::options::Micros;
use crate::snapshot::{Parcel, Sender};
use rdb_core::command::Encoded;
use rdb_core::hlc::Clock;
use rdb_core::ids::{Index, NamespaceId, NodeId, RegionId, Term};
use rdb_core::raft::{Apply, Entry, Fetch, Group, LogWrite, Message};
use rdb_pd::Catalog;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// A node.
pub(crate) struct Node {
    pub(crate) id: NodeId,
    /// Starts so far.
    pub(crate) incarnation: u64,
    pub(crate) log: LogDisk,
    pub(crate) data: DataDisk,
    pub(crate) wall: Wall,
    /// Until when the log disk hangs.
    pub(crate) stalled_until: Micros,
    /// What runs; `None` without power.
    pub(crate) process: Option<Process>,
}

/// What a crash ends.
pub(crate) struct Process {
    pub(crate) node: NodeId,
    pub(crate) replicas: BTreeMap<RegionId, Replica>,
    pub(crate) clock: Clock,
    /// What came in since the last turn.
    pub(crate) inbox: VecDeque<Input>,
    /// Whether a turn is coming.
    pub(crate) turn_due: bool,
    pub(crate) writer: Writer,
    /// Snapshots that this node sends, by number.
    pub(crate) outgoing: BTreeMap<u64, Outgoing>,
    /// When each other node was last heard.
    pub(crate) heard: BTreeMap<NodeId, Micros>,
    /// What waits for a stopped process to go on; `None` while it runs.
    pub(crate) stopped: Option<Vec<Event>>,
    /// Where regions come and go.
    pub(crate) lives: Option<Lives>,
}

/// What a node knows of regions that come and go.
#[derive(Default)]
pub(crate) struct Lives {
    /// The catalog as the applier has left it: requests are looked up here.
    pub(crate) applied: Arc<Catalog>,
    /// As the raft loop has last heard of it.
    pub(crate) catalog: Arc<Catalog>,
    /// Regions whose log is being made.
    pub(crate) creating: BTreeSet<RegionId>,
    /// Logs that the start has found and nobody uses.
    pub(crate) stored: BTreeSet<RegionId>,
    /// Regions that have ended, until their data is destroyed.
    pub(crate) ending: BTreeMap<RegionId, Ending>,
    /// Who waits until a namespace is gone.
    pub(crate) waiting: Vec<(NamespaceId, Caller)>,
}

/// A region that has ended: what was committed before is applied yet.
pub(crate) struct Ending {
    pub(crate) machine: Machine,
    pub(crate) tasks: VecDeque<Apply<Caller>>,
}

/// What a node's raft loop hears of.
pub(crate) enum Input {
    Message(RegionId, Box<Message>),
    Tick,
    Persisted(RegionId, u64),
    /// Entries up to this one are applied, and whether the region is closed by then.
    Applied(RegionId, Index, bool),
    /// The catalog has changed.
    Catalog(Arc<Catalog>),
    /// A region's log is made.
    Created(RegionId),
    Fetched(RegionId, Box<Fetch>, Vec<Entry>),
    Propose(RegionId, Encoded, Caller),
    Read(RegionId, Reading),
    Unreachable(RegionId, NodeId),
    Transfer(RegionId, NodeId),
    Shorten(RegionId),
    /// A snapshot has come.
    Snapshot(Box<Parcel>),
    /// The region's data is a snapshot's by now, and this is its machine; the log write of that number follows.
    Replaced(RegionId, u64, Box<Machine>),
    /// What became of the snapshot for that node.
    SnapshotSent(RegionId, NodeId, bool),
}

/// A snapshot that this node sends.
pub(crate) struct Outgoing {
    pub(crate) region: RegionId,
    pub(crate) peer: NodeId,
    /// It is wanted while this node leads in this term.
    pub(crate) term: Term,
    /// When it is given up.
    pub(crate) until: Micros,
}

/// A snapshot that is being taken in.
pub(crate) struct Installing {
    pub(crate) sender: Sender,
    pub(crate) number: u64,
    /// What the data will be; gone once it is.
    pub(crate) data: Option<Stored>,
    /// The write that starts the log anew; gone once it is handed over.
    pub(crate) write: Option<LogWrite>,
    /// The machine of the new data, once the raft loop has heard of it.
    pub(crate) machine: Option<Box<Machine>>,
}

/// One region here.
pub(crate) struct Replica {
    pub(crate) group: Group<Reader, Caller, Reading>,
    pub(crate) machine: Machine,
    pub(crate) tasks: VecDeque<Apply<Caller>>,
    pub(crate) applying: bool,
    /// The terms of the newest entries handed out to be written, for the check of log matching.
    pub(crate) terms: BTreeMap<Index, Term>,
    /// Snapshots that are being sent, and from where on their receivers will need the log.
    pub(crate) sending: BTreeMap<NodeId, Index>,
    /// A snapshot that has come, until the group says whether it wants it.
    pub(crate) arrived: Option<Box<Parcel>>,
    pub(crate) installing: Option<Installing>,
}

/// The log writer: one sync at a time; what comes meanwhile gathers for the next.
#[derive(Default)]
pub(crate) struct Writer {
    pub(crate) waiting: Vec<Job>,
    pub(crate) syncing: Vec<Job>,
}

/// What the log writer does for one region.
pub(crate) struct Job {
    pub(crate) region: RegionId,
    pub(crate) batch: Batch,
    pub(crate) sync: bool,
    pub(crate) report: Report,
    pub(crate) then_send: Vec<Message>,
}

/// What a log write is followed by, once it is on disk.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Report {
    /// The group hears that its write of this number is done.
    Persisted(u64),
    /// Nobody asked: the log was shortened.
    Shortened,
    /// The note of a snapshot: the data may be replaced.
    Noted,
    /// A region is made, or is gone.
    Made,
    Destroyed,
}

/// A wall clock: wrong, and wrong by more every day.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wall {
    pub(crate) offset_ms: i64,
    pub(crate) drift_ppm: i64,
}

/// Where wall clocks start: far enough from zero for any step back.
const EPOCH_MS: i64 = 1_700_000_000_000;

impl Wall {
    pub(crate) fn now_ms(self, now: Micros) -> u64 {
        let now = i64::try_from(now).unwrap_or(i64::MAX / 2);
        let drifted = now + now / 1_000_000 * self.drift_ppm;
        u64::try_from(EPOCH_MS + self.offset_ms + drifted / 1_000).unwrap_or(0)
    }
}

impl Node {
    /// The process that was started as `incarnation`, if it still has power.
    pub(crate) fn running(&mut self, incarnation: u64) -> Option<&mut Process> {
        self.process.as_mut().filter(|_| self.incarnation == incarnation)
    }
}

impl Process {
    /// The machine of a region that is here, or has ended and is not destroyed yet.
    pub(crate) fn machine_mut(&mut self, region: RegionId) -> Option<&mut Machine> {
        if let Some(replica) = self.replicas.get_mut(&region) {
            return Some(&mut replica.machine);
        }
        let ending = self.lives.as_mut()?.ending.get_mut(&region)?;
        Some(&mut ending.machine)
    }
}

impl Lives {
    /// Whether nothing is under way.
    pub(crate) fn are_settled(&self) -> bool {
        let idle = self.creating.is_empty() && self.stored.is_empty() && self.ending.is_empty();
        idle && self.applied == self.catalog && self.catalog.deleting().next().is_none()
    }
}

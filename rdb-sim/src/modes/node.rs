//! One node: what survives a crash, and what does not.

use super::copies::Open;
use super::data::DataDisk;
use super::event::Event;
use super::eventual::Eventual;
use super::origins::{Op, OriginDisk};
use super::planted::{Shortcut, takes};
use super::snapshots::{Installed, Installing, Outgoing, Snapshot};
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
use rdb_core::ids::{Epoch, Era, Index, NodeId, Term};
use rdb_core::raft::{Entry, Failure, Fetch, Group, Lease, Message};
use rdb_core::switch::{Control, Marker, Mode, Peer, Region, Report, Vector};
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
    pub(super) group: Group<Reader, Asked, Reading>,
    /// The region's mode, as the raft loop has heard of it from the applier.
    pub(super) mode: Region,
    /// By the node's monotonic clock, in milliseconds.
    pub(super) lease: Lease<u64>,
    /// The state machine of the region's log.
    pub(super) strong: apply::Machine,
    /// The region's mode, as the applier has it.
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
    /// Entries of the region's log that are committed and not applied.
    pub(super) committed: VecDeque<Committed>,
    /// Who waits for which of them, each with the number of its commands.
    pub(super) waiters: BTreeMap<Index, Vec<(Asked, usize)>>,
    pub(super) applying: bool,
    pub(super) writer: Writer,
    /// What it has heard as the controller that it may be: reports, and of each node the era of its region.
    pub(super) reports: Vec<Report>,
    pub(super) eras: BTreeMap<NodeId, Era>,
    /// The era that it may answer in: the note of it is synced.
    pub(super) noted: Era,
    /// Before this entry is applied again, it does not answer: it was further once.
    pub(super) replay_to: Index,
    /// Snapshots that it sends, by number, and from where on their receivers will need the log.
    pub(super) outgoing: BTreeMap<u64, Outgoing>,
    pub(super) sending: BTreeMap<NodeId, Index>,
    /// A snapshot that has come, until the group says whether it wants it.
    pub(super) arrived: Option<Rc<Snapshot>>,
    /// A snapshot that is being taken in. Meanwhile nothing else changes the region.
    pub(super) installing: Option<Installing>,
    /// Copies that it gives, by who takes them.
    pub(super) gives: BTreeMap<NodeId, Open>,
    /// Whether the region's next era began without this node, so that it waits for a snapshot.
    pub(super) replace: bool,
    /// How often it has handed the lead over since it started.
    pub(super) hand_overs: usize,
    /// What is set aside too late, where that is planted.
    pub(super) set_aside_late: Vec<Op>,
    /// What waits for a stopped process to go on; `None` while it runs.
    pub(super) stopped: Option<Vec<Event>>,
}

/// What a node's raft loop hears of.
pub(super) enum Input {
    Message(Box<Message>),
    Tick,
    Persisted(u64),
    Applied(Index),
    /// The applier has put the region into another era.
    Entered(Region),
    Fetched(Box<Fetch>, Vec<Entry>),
    Propose(Encoded, Asked),
    Read(Reading),
    Unreachable(NodeId),
    Transfer(NodeId),
    /// The logs may be shortened.
    Shorten,
    /// The next era began without this node.
    Replace,
    Snapshot(Rc<Snapshot>),
    /// What became of the snapshot for a node, which was sent in this term.
    SnapshotSent(NodeId, Term, bool),
}

/// What came of a turn's inputs.
#[derive(Default)]
pub(super) struct Heard {
    /// Writes and reads that the group refused at once.
    pub(super) refused: Vec<(Caller, Failure)>,
    /// Snapshots that are of no use.
    pub(super) useless: Vec<Rc<Snapshot>>,
    pub(super) installed: Vec<Installed>,
    /// Whether this is the time to shorten the log.
    pub(super) shortens: bool,
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
    /// When that was, by the node's monotonic clock.
    pub(super) began_ms: u64,
}

/// Who waits for a write of the region's log, and the era in which it was asked for: it is done in that one or not at all.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub(super) caller: Caller,
    pub(super) era: Era,
}

/// The log writer: one sync at a time, for both logs; what comes meanwhile gathers for the next.
#[derive(Default)]
pub(super) struct Writer {
    pub(super) waiting: Vec<Job>,
    pub(super) syncing: Vec<Job>,
}

pub(super) enum Job {
    /// A write of the region's group.
    Raft { batch: Batch, after: After, then_send: Vec<Message> },
    /// Something in the eventual part.
    Origins { ops: Vec<Op>, then: Then },
}

/// What follows the sync of a write to the region's log.
#[derive(Debug, Clone, Copy)]
pub(super) enum After {
    /// The group hears that its write of this number is done.
    Persisted(u64),
    /// Nobody asked: the log was shortened.
    Shortened,
    /// The note of a snapshot: the data may be replaced.
    Noted,
}

/// What follows the sync of a write to the eventual part.
pub(super) enum Then {
    Nothing,
    /// A run may be merged.
    Merge(Merge),
    Control(Control),
    Mark(Hlc),
    Note(Era),
    /// What the cluster went on without is set aside.
    SetAside,
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

impl Writer {
    /// Writes of the region's group that are not on disk yet.
    pub(super) fn raft_writes(&self) -> usize {
        let all = self.waiting.iter().chain(&self.syncing);
        all.filter(|job| matches!(job, Job::Raft { after: After::Persisted(_), .. })).count()
    }
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
    /// Gives all that came in to the group.
    pub(super) fn listen(&mut self) -> Heard {
        let mut heard = Heard::default();
        for input in std::mem::take(&mut self.inbox) {
            let group = &mut self.group;
            match input {
                // Whatever is refused here is out of date: the other kind of world looks at that closely.
                Input::Message(message) => drop(group.step(*message)),
                Input::Tick => group.tick(),
                Input::Persisted(number) => {
                    group.persisted(number);
                    heard.installed.extend(self.finish_install(number));
                }
                Input::Applied(index) => group.applied(index),
                Input::Entered(region) => self.enter(region),
                Input::Fetched(fetch, entries) => group.fetched(fetch.low, entries, fetch.context),
                Input::Propose(commands, asked) => heard.refused.extend(self.propose(commands, asked)),
                Input::Read(reading) => {
                    let refused = group.read(reading).err();
                    heard.refused.extend(refused.map(|(reading, why)| (reading.caller, why)));
                }
                Input::Unreachable(peer) => group.unreachable(peer),
                Input::Transfer(peer) => {
                    self.lease.hands_over(group.status().term);
                    group.transfer_leader(peer);
                }
                Input::Shorten => heard.shortens = true,
                Input::Replace => self.wants_replacement(),
                Input::Snapshot(snapshot) => heard.useless.extend(self.snapshot_arrived(snapshot)),
                Input::SnapshotSent(to, term, taken) => self.snapshot_sent(to, term, taken),
            }
        }
        heard
    }

    /// The region is in another era, as far as the raft loop is concerned.
    pub(super) fn enter(&mut self, region: Region) {
        self.group.enter(region.era());
        if region.mode() == Mode::Strong {
            self.lease.is_strong();
        }
        self.mode = region;
    }

    /// A write that was on its way here when the mode changed is of another era than its caller's.
    fn propose(&mut self, commands: Encoded, asked: Asked) -> Option<(Caller, Failure)> {
        if self.mode.mode() == Mode::Eventual || self.mode.era() != asked.era {
            return Some((asked.caller, Failure::ModeChanged));
        }
        self.group.propose(commands, asked).err().map(|(asked, why)| (asked.caller, why))
    }

    /// The marker that this node is to put into the region's log now: it leads, the catalog wants the region in the next era, and
    /// it has not done so yet.
    pub(super) fn due_marker(&self) -> Option<Marker> {
        let marker = Marker::due(self.peer.heard()?)?;
        (marker.era.0 == self.mode.era().0 + 1 && self.group.needs_marker()).then_some(marker)
    }

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
        let waits =
            |eventual: &Eventual| 0 < eventual.unanswered + eventual.unsynced || eventual.copying.is_noted();
        self.eventual.as_ref().is_some_and(waits)
    }

    /// Whether it shows all that it has answered.
    pub(super) fn shows_answered(&self) -> bool {
        let is_shown = |eventual: &Eventual| {
            eventual.answered <= eventual.machine.state().applied.get(eventual.logs.me())
        };
        takes(Shortcut::ReadsTooSoon) || self.eventual.as_ref().is_none_or(is_shown)
    }

    /// What it shows of the eventual era: which one, and up to which vector.
    pub(super) fn shown(&self) -> Option<(Era, Vector)> {
        let eventual = self.eventual.as_ref().filter(|_| self.region.mode() == Mode::Eventual)?;
        Some((self.region.era(), eventual.machine.state().applied.clone()))
    }
}

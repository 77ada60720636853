//! One region in eventual mode: its logs, its records, what is on its way to the disk, and what the other members lack.

mod applying;
mod comparing;
mod copying;
mod leaving;
mod periodic;
mod purging;
mod settling;
mod upkeep;

pub(super) use periodic::SYNC_INTERVAL;
pub(super) use upkeep::{Limits, Moment};

use super::Eventual;
use super::copy::Fetcher;
use super::hashes::{self, HashError};
use super::keeping::Keeping;
use super::recent::Recent;
use super::view::Shown;
use super::waiting::{Acks, Prompt};
use super::wire::{self, Besides, Said};
use crate::budget::Share;
use crate::transport::Transport;
use crate::waiter::WriteWaiter;
use applying::Applying;
use bytes::Bytes;
use comparing::Comparing;
use copying::Copying;
use fail::fail_point;
use leaving::Leaving;
use periodic::Unsynced;
use purging::Tombstones;
use rdb_core::apply::Answer;
use rdb_core::codec::Corrupt;
use rdb_core::command::{Commands, Encoded, Operation, Write};
use rdb_core::eventual::buckets::Buckets;
use rdb_core::eventual::lag::{self, Lag, Now};
use rdb_core::eventual::machine::{Changes, Error as MachineError, Machine, State};
use rdb_core::eventual::origin_log::{Fence, Held, OriginLogs, Refusal};
use rdb_core::eventual::peers::{Peers, Push, Report};
use rdb_core::eventual::run::{Run, RunMax, join_up_to};
use rdb_core::eventual::stamps::Stamps;
use rdb_core::eventual::vector::{Origin, Seq, Vector, WriteId};
use rdb_core::ids::{Era, NamespaceId, NodeId, RegionId};
use rdb_core::switch::Progress;
use rdb_core::version::{Hlc, Version};
use rdb_pd::{Durability, Settings};
use rdb_storage::{Data, LogWriterHandle, OriginLogs as StoredLogs, OriginWrite, RegionData};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use upkeep::Upkeep;

/// Bytes of runs that are read or sent at a time.
const PUSH_BYTES: usize = 256 << 10;
/// Between two pushes of this node's writes, where nobody waits for them: each costs its receivers a sync, and many writes share
/// one. What comes after a while of nothing leaves at once.
const PUSH_INTERVAL: Duration = Duration::from_millis(10);
/// So much is not held back for that long: what comes in one push is a burst at its receivers.
const PUSH_AT_BYTES: usize = 256 << 10;
/// Writes that become one run, unless a single request has more. While the disk stalls, all that the callers of a namespace may have on
/// its way gathers, and a run that is longer than a message reaches nobody.
const RUN_MAX: RunMax = RunMax { bytes: 1 << 20, writes: applying::OWN_WRITES_PER_STEP };
/// What a node's regions may take together to remember which write lies under which key.
const HEADS_BYTES: usize = 64 << 20;
/// The same to keep runs that were synced lately, for nodes that follow closely. One that lags further is sent what is read.
const RECENT_BYTES: usize = 64 << 20;
/// And one region alone.
const RECENT_BYTES_OF_REGION: usize = 4 << 20;
/// Bytes of runs that a start applies at a time.
const REPLAY_BYTES: usize = 4 << 20;
/// Log writes of a region that may be under way: one is synced while the next gathers what comes. With more of them each is short,
/// and so are the runs that come of them, for every member.
pub(super) const WRITES_UNDER_WAY_MAX: usize = 2;
/// Between two times that a peer is asked to send again.
const ASK_INTERVAL: Duration = Duration::from_millis(200);
/// After so long without progress, what was sent to a peer that is heard counts as lost.
const STANDSTILL_MS: u64 = 2000;

/// Why a region cannot go on. The node must stop: its records would differ from the others'.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReplicaError {
    /// The disk could not be read or written, or holds what was never written.
    #[error(transparent)]
    Storage(#[from] rdb_storage::Error),
    /// A run, a record or a command is damaged.
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
    /// A run could not be applied.
    #[error(transparent)]
    Machine(#[from] MachineError<rdb_storage::Error>),
    /// The records could not be hashed.
    #[error(transparent)]
    Hash(#[from] HashError),
    /// Writes are missing.
    #[error(transparent)]
    Hole(#[from] rdb_core::eventual::origin_log::Hole),
    /// A page of a copy that is complete is missing.
    #[error(
        "page {page} of the copy that was put aside is not there; do not start the node with this directory; the others have its data"
    )]
    NoPage {
        /// Which one, from 0.
        page: u64,
    },
    /// A request reached this thread that the API had to refuse.
    #[error("a request reached an eventual region that it does not serve: {0}")]
    Misplaced(&'static str),
}

/// What the thread reads the disk and reaches the others by.
pub(super) struct Tools {
    pub(super) data: Data,
    pub(super) logs: StoredLogs,
    pub(super) log: LogWriterHandle,
    pub(super) transport: Transport,
    pub(super) fetcher: Fetcher,
    pub(super) me: Origin,
    pub(super) limits: Limits,
}

/// Writes that a turn has accepted.
#[derive(Default)]
struct Accepted {
    runs: Vec<Run>,
    waiters: Vec<Waiting>,
}

/// A caller, what it is to be told, and the last of its writes.
type Waiting = (WriteWaiter, Vec<Answer>, WriteId);

/// What one log write holds.
struct UnderWay {
    runs: Vec<(Run, Bytes)>,
    waiters: Vec<Waiting>,
    /// Who waits for this node to have them.
    asking: BTreeSet<NodeId>,
    _shares: Vec<Share>,
}

/// What this node has told a peer, and how the peer gets on.
struct Told {
    report: Option<Report>,
    /// Whether the peer is to answer the next report.
    asks: bool,
    /// What the peer had synced when it last moved, and when that was.
    stood: (Vector, u64),
    /// When it was last asked to send again.
    asked: Instant,
}

impl Default for Told {
    fn default() -> Self {
        Self { report: None, asks: false, stood: (Vector::default(), 0), asked: Instant::now() }
    }
}

/// One region.
pub(super) struct Replica {
    region: RegionId,
    namespace: NamespaceId,
    machine: Machine,
    /// Whether the machine's hashes are those of all records by now.
    hashed: bool,
    logs: OriginLogs,
    peers: Peers,
    told: BTreeMap<NodeId, Told>,
    data: RegionData,
    recent: Recent,
    /// The stamps of runs that not every peer is known to have applied.
    stamps: Stamps,
    accepted: Accepted,
    received: Vec<(Run, Bytes)>,
    shares: Vec<Share>,
    under_way: VecDeque<UnderWay>,
    /// What is synced and not applied yet, in order. Besides what callers write, what members send and what is told of it, nothing goes
    /// on while there is any.
    applying: VecDeque<Applying>,
    unsynced: Unsynced,
    /// Whether the first log write under way is the note that the region is in this era.
    enters: bool,
    prompt: Prompt,
    pushed_at: Instant,
    /// The last of this node's own writes that was sent to anybody.
    pushed: Seq,
    /// Bytes of its own writes that were synced since something was last sent.
    unpushed_bytes: usize,
    upkeep: Upkeep,
    copying: Copying,
    comparing: Comparing,
    leaving: Leaving,
    shown: Arc<Shown>,
}

impl Replica {
    /// The region as it is on disk. What was synced and not applied is applied.
    pub(super) fn open(
        (region, namespace, settings): (RegionId, NamespaceId, Settings),
        era: Era,
        others: Vec<NodeId>,
        now_ms: u64,
        (tools, eventual): (&Tools, &Eventual),
    ) -> Result<Self, ReplicaError> {
        let state = tools.data.load_eventual(region)?;
        let state = state.filter(|state| state.era == era).unwrap_or_else(|| State::begin(era, Hlc(0)));
        let data = tools.data.region(region, namespace);
        periodic::rescue((region, era), &state.applied, &data, tools)?;
        let stored = tools.logs.load(region, era)?;
        let copying = Copying::open(region, &state, tools)?;
        let copied = copying.vector();
        let held = stored.runs.iter().copied();
        let logs = OriginLogs::restore_behind(era, tools.me, &state.applied, &copied, held)?;
        let mut stamps = Stamps::of(&logs);
        for (held, hlc) in stored.runs.iter().zip(stored.stamps) {
            stamps.add_first(held.origin, held.last, hlc);
        }
        let buckets = hashes::begin(&tools.data, (region, namespace), era, eventual)?;
        let tombstones = Tombstones::unknown(state.purged, &state.applied);
        let keeping = Keeping::new(settings.keep_lost_seconds);
        let keeps_lost = keeping.keeps();
        let upkeep = Upkeep { tombstones, keeping, ..Upkeep::default() };
        let is_periodic = settings.durability == Durability::Periodic;
        let mut replica = Self {
            region,
            namespace,
            hashed: buckets.is_some(),
            machine: Machine::new(state, buckets.unwrap_or_default(), keeps_lost).periodic(is_periodic),
            logs,
            told: others.iter().map(|node| (*node, Told::default())).collect(),
            peers: Peers::new(others, now_ms),
            data,
            recent: Recent::default(),
            stamps,
            accepted: Accepted::default(),
            received: Vec::new(),
            shares: Vec::new(),
            under_way: VecDeque::new(),
            applying: VecDeque::new(),
            unsynced: Unsynced::of(settings.durability),
            enters: false,
            prompt: Prompt::default(),
            pushed_at: Instant::now(),
            pushed: 0,
            unpushed_bytes: 0,
            upkeep,
            copying,
            comparing: Comparing::default(),
            leaving: Leaving::default(),
            shown: Shown::of(era),
        };
        replica.merge_all(tools)?;
        replica.replay(tools)?;
        replica.show_applied();
        replica.shown.ends().tell(tools.me.node, tools.me.incarnation, &replica.logs.synced_vector());
        Ok(replica)
    }

    fn replay(&mut self, tools: &Tools) -> Result<(), ReplicaError> {
        let synced = self.logs.synced_vector();
        let behind: Vec<_> = self.machine.state().applied.behind(&synced).collect();
        for (origin, mut have, to) in behind {
            while have < to {
                let found = tools.logs.runs(self.region, self.logs.era(), origin, have, REPLAY_BYTES)?;
                let runs = found.iter().map(|run| Run::decode(run)).collect::<Result<Vec<_>, _>>()?;
                self.apply(&runs, tools)?;
                have = self.machine.state().applied.get(origin);
            }
        }
        Ok(())
    }

    /// The other members.
    pub(super) fn others(&self) -> Vec<NodeId> {
        self.told.keys().copied().collect()
    }

    /// The hashes of what was stored when this was opened.
    pub(super) fn add_hashes(&mut self, era: Era, stored: &Buckets) {
        if era == self.logs.era() && !self.hashed {
            self.machine.add_buckets(stored);
            self.hashed = true;
        }
    }

    /// Which era's writes it takes.
    pub(super) fn era(&self) -> Era {
        self.logs.era()
    }

    /// Whether writes of this node's callers are under way, or wait to be.
    pub(super) fn is_answering(&self) -> bool {
        !self.accepted.waiters.is_empty()
            || self.has_unsynced()
            || self.is_applying()
            || self.under_way.iter().any(|under_way| !under_way.waiters.is_empty())
    }

    /// Whether nothing of it is on its way to the disk.
    pub(super) fn is_quiet(&self) -> bool {
        self.under_way.is_empty()
            && !self.is_applying()
            && self.accepted.waiters.is_empty()
            && self.received.is_empty()
            && !self.has_unsynced()
    }

    /// Whether writes of one of these nodes are on their way to the disk. Those that are synced are applied before anybody asks.
    pub(super) fn takes_in_from(&self, nodes: &BTreeSet<NodeId>) -> bool {
        let under_way = self.under_way.iter().flat_map(|under_way| &under_way.runs);
        self.received.iter().chain(under_way).any(|(run, _)| nodes.contains(&run.origin.node))
    }

    /// How far this node is with the era's writes.
    pub(super) fn progress(&self) -> Progress {
        Progress { appended: self.logs.logged_vector(), synced: self.logs.synced_vector() }
    }

    /// A hash of what a reader can see, at what is applied; `None` while it is yet to be read.
    pub(super) fn digest(&self) -> Option<u64> {
        let live = self.machine.buckets().live().to_be_bytes();
        let is_whole = self.hashed && !self.machine.is_copying();
        is_whole.then(|| xxhash_rust::xxh3::xxh3_64(&live))
    }

    /// Puts up fences before the writes of those that a switch goes on without, or moves them, or takes them down.
    pub(super) fn fence(&mut self, excluded: &BTreeSet<NodeId>, cut: Option<&Vector>) {
        self.logs.take_fences_down();
        for node in excluded {
            let fence = cut.map_or(Fence::Shut, |cut| Fence::UpTo(cut.clone()));
            self.logs.fence(*node, fence);
        }
    }

    /// Whether writes wait for those that are under way.
    pub(super) fn has_more(&self) -> bool {
        !self.accepted.waiters.is_empty() || !self.received.is_empty()
    }

    /// What everyone else sees of it.
    pub(super) fn shown(&self) -> Arc<Shown> {
        self.shown.clone()
    }

    /// The highest stamp of its writes.
    pub(super) fn highest(&self) -> Hlc {
        self.machine.state().highest
    }

    /// Accepts the commands of one request, each stamped by `stamp`; they leave with the turn's others.
    pub(super) fn accept(
        &mut self,
        commands: &Encoded,
        waiter: WriteWaiter,
        mut stamp: impl FnMut() -> Hlc,
    ) -> Result<(), ReplicaError> {
        let mut answers = Vec::with_capacity(commands.count);
        for command in Commands::new(&commands.bytes) {
            let operation = command?.operation;
            let writes = match &operation {
                Operation::Write(write) => std::slice::from_ref(write),
                Operation::Batch(writes) => &writes[..],
                _ => {
                    return Err(ReplicaError::Misplaced("it is neither a put, a delete nor a batch of them"));
                }
            };
            answers.push(Answer::Done(self.make(stamp(), writes)?));
        }
        let last = WriteId { origin: self.logs.me(), seq: self.accepted_up_to() };
        if waiter.terms().acks != Acks::One {
            self.prompt.awaited = last.seq;
        }
        self.accepted.waiters.push((waiter, answers, last));
        Ok(())
    }

    fn make(&mut self, stamp: Hlc, writes: &[Write<'_>]) -> Result<Version, ReplicaError> {
        let me = self.logs.me();
        let after = self.accepted_up_to();
        let run = self.machine.write(stamp, me, after, writes, &self.data)?;
        let hlc = run.entries.first().map_or(stamp, |entry| entry.hlc);
        if !run.entries.is_empty() {
            self.accepted.runs.push(run);
        }
        Ok(Version { era: self.logs.era(), hlc, node: me.node })
    }

    /// The last of this node's own writes.
    fn accepted_up_to(&self) -> Seq {
        self.accepted.runs.last().map_or_else(|| self.logs.written(), Run::last)
    }

    /// Takes in runs of other nodes. Those that do not fit are dropped: their sender goes on from what this node reports.
    pub(super) fn receive(&mut self, from: NodeId, runs: Vec<(Run, Bytes)>, awaited: bool, share: Share) {
        fail_point!("runs-received");
        // What they send is sent again.
        if self.copying.takes_no_runs() {
            return;
        }
        let (mut taken, mut missing) = (false, false);
        for (run, bytes) in runs {
            let after = run.after;
            match self.logs.receive(run) {
                Ok(None) => {}
                Ok(Some(run)) => {
                    // As its writer made it, if all of it is new.
                    let bytes = if run.after == after { bytes } else { Bytes::from(run.encode()) };
                    self.logs.log(&Held::of(&run, bytes.len()));
                    if awaited {
                        self.prompt.asking.insert(run.origin.node);
                    }
                    self.received.push((run, bytes));
                    taken = true;
                }
                // A message was lost before this one, or it comes late.
                Err(refusal @ (Refusal::Missing { .. } | Refusal::Era { .. })) => {
                    missing |= matches!(refusal, Refusal::Missing { .. });
                    tracing::debug!(region = %self.region, %refusal, "a run was not taken");
                }
                Err(refusal) => tracing::error!(region = %self.region, %refusal, "a run was not taken"),
            }
        }
        if taken {
            self.shares.push(share);
        }
        // It goes on from what this node says that it has, and need not wait until it finds that nothing moves.
        if let Some(told) =
            self.told.get_mut(&from).filter(|told| missing && told.asked.elapsed() > ASK_INTERVAL)
        {
            *told = Told { report: None, asks: true, asked: Instant::now(), ..std::mem::take(told) };
        }
    }

    /// The highest stamp among what was taken in and is not handed out yet.
    pub(super) fn received_highest(&self) -> Option<Hlc> {
        self.received.iter().flat_map(|(run, _)| run.entries.iter().map(|entry| entry.hlc)).max()
    }

    /// What the turn wants written to the log, if anything, and if there is not too much under way.
    pub(super) fn hand_out(&mut self) -> Option<OriginWrite> {
        if WRITES_UNDER_WAY_MAX <= self.under_way.len()
            || applying::WRITES_TO_APPLY_MAX <= self.applying.len()
        {
            return None;
        }
        let Accepted { runs: own, waiters } = std::mem::take(&mut self.accepted);
        // Its own come first: they are answered, and readers may wait for them.
        let mut runs = Vec::new();
        for run in join_up_to(own, RUN_MAX) {
            let bytes = Bytes::from(run.encode());
            self.logs.log(&Held::of(&run, bytes.len()));
            runs.push((run, bytes));
        }
        runs.append(&mut self.received);
        if runs.is_empty() && waiters.is_empty() {
            return None;
        }
        let stored = runs.iter().map(|(run, bytes)| (run.origin, run.last(), bytes.clone())).collect();
        let shares = std::mem::take(&mut self.shares);
        let asking = std::mem::take(&mut self.prompt.asking);
        self.under_way.push_back(UnderWay { runs, waiters, asking, _shares: shares });
        Some(OriginWrite { era: self.logs.era(), runs: stored, sync: true, ..OriginWrite::default() })
    }

    #[cfg(test)]
    pub(super) fn logs_bytes(&self) -> u64 {
        self.logs.bytes()
    }

    /// How many messages of callers wait for what is on its way to the disk.
    pub(super) fn callers_under_way(&self) -> usize {
        self.under_way.iter().map(|under_way| under_way.waiters.len()).sum()
    }

    /// Takes note of a log write that holds nothing but the clock's mark, or drops runs.
    pub(super) fn hand_out_nothing(&mut self) {
        let (runs, waiters, asking) = (Vec::new(), Vec::new(), BTreeSet::new());
        self.under_way.push_back(UnderWay { runs, waiters, asking, _shares: Vec::new() });
    }

    /// Takes note of the log write that holds the note of this era: it is the first, and the era's first answer comes behind it.
    pub(super) fn enter(&mut self) {
        self.enters = true;
        self.hand_out_nothing();
    }

    fn apply(&mut self, runs: &[Run], tools: &Tools) -> Result<(), ReplicaError> {
        let changes = self.machine.apply(runs, &self.data)?;
        self.upkeep.tombstones.saw_runs(runs);
        self.write(&changes, tools)?;
        self.show_applied();
        Ok(())
    }

    fn write(&mut self, changes: &Changes, tools: &Tools) -> Result<(), ReplicaError> {
        self.upkeep.keeping.saw(&changes.notes)?;
        let applied = (self.logs.era(), &self.machine.state().applied);
        Ok(tools.data.apply_eventual(self.region, self.namespace, changes, applied)?)
    }

    fn show_applied(&self) {
        let state = self.machine.state();
        self.shown.progress().applied(state.era, self.logs.me(), &state.applied);
    }

    fn show_acked(&self) {
        let (era, me) = (self.logs.era(), self.logs.me());
        let applied = |report: Option<&Report>| {
            report.filter(|report| report.era == era).map_or(0, |report| report.applied.get(me))
        };
        let others = self.peers.reports().map(|(node, report, _)| (node, applied(report)));
        self.shown.progress().acked(era, me, self.claimed_own(), others);
    }

    /// Reports that are waited for, by node.
    pub(super) fn prompt_reports(
        &mut self,
        passed: Hlc,
    ) -> Vec<(NodeId, rdb_proto::internal::v1::OriginReport)> {
        let due = std::mem::take(&mut self.prompt.due);
        if due.is_empty() {
            return Vec::new();
        }
        let (report, besides) = (self.report(passed), self.besides());
        let mut reports = Vec::with_capacity(due.len());
        for node in due {
            let Some(told) = self.told.get_mut(&node) else { continue };
            told.report = Some(report.clone());
            let (me, copy) = (self.logs.me(), self.copying.gives_up(node));
            reports.push((node, wire::report_to_wire((self.region, me), &report, false, &besides, copy)));
        }
        reports
    }

    /// Takes note of what a peer says.
    pub(super) fn heard(&mut self, node: NodeId, said: &Said, now_ms: u64) {
        let Said { report, ask, besides, copy, .. } = said;
        let is_first = !self.peers.has_told(node, self.logs.era());
        self.peers.heard(node, report, now_ms);
        if is_first {
            // Until the next upkeep it would be told that the logs have all that it lacks.
            self.look_who_needs_a_copy();
        }
        if report.era == self.logs.era() {
            self.shown.ends().tell(node, said.incarnation, &report.synced);
            self.hear_purge(node, besides.purge_to, besides.purge_ready);
            self.hear_certain(node, &besides.certain);
            self.copying.hear(node, *copy, &report.synced);
        }
        self.show_acked();
        let Some(told) = self.told.get_mut(&node) else { return };
        if *ask {
            told.report = None;
            // What it says that it has is what it has: the rest was lost on its way.
            self.peers.send_again(node);
        }
        // That it goes on with its own writes says nothing of what it is sent.
        if told.stood.0.behind(&report.synced).any(|(origin, ..)| origin.node != node) {
            told.stood = (report.synced.clone(), now_ms);
        }
    }

    /// What was sent to `node` may be lost, and it may have forgotten what this node told.
    pub(super) fn lost(&mut self, node: NodeId) {
        self.peers.send_again(node);
        if let Some(told) = self.told.get_mut(&node) {
            told.report = None;
        }
    }

    /// Sends to every peer what it lacks, as far as there is room on the way.
    pub(super) fn push(
        &mut self,
        tools: &Tools,
        (now, now_ms): (Instant, u64),
        hears: impl Fn(NodeId) -> bool,
    ) -> Result<(), ReplicaError> {
        let nodes: Vec<NodeId> = self.told.keys().copied().filter(|node| hears(*node)).collect();
        for node in nodes {
            while let Some(Push { origin, after }) = self.peers.next_push(node, &self.logs, now_ms, &hears) {
                let runs = self.find_runs(origin, after, tools)?;
                let Some((last, _)) = runs.last() else { break };
                let (last, bytes) = (*last, runs.iter().map(|(_, run)| run.len()).sum());
                let runs = runs.into_iter().map(|(_, run)| run).collect();
                fail_point!("runs-before-push");
                let awaited = origin == tools.me && after < self.prompt.awaited;
                if !tools.transport.send_runs(node, self.region, runs, awaited) {
                    break;
                }
                self.peers.pushed(node, origin, last, bytes);
                self.pushed_at = now;
                self.unpushed_bytes = 0;
                if origin == tools.me {
                    self.pushed = self.pushed.max(last);
                }
            }
        }
        Ok(())
    }

    /// When what there is should be sent to the others.
    pub(super) fn push_due(&self) -> Instant {
        let fills = PUSH_AT_BYTES <= self.unpushed_bytes;
        if fills { self.pushed_at } else { self.pushed_at + PUSH_INTERVAL }
    }

    /// Its part of what all regions may take, so many of them: to remember which write lies under which key, and what was synced lately.
    pub(super) fn share_memory(&mut self, regions: usize) {
        self.machine.set_heads_bytes_max(HEADS_BYTES / regions);
        self.recent.set_bytes_max((RECENT_BYTES / regions).min(RECENT_BYTES_OF_REGION));
    }

    /// Whether a caller waits for other members to have a write that was not sent yet.
    pub(super) fn awaits_others(&self) -> bool {
        self.pushed < self.prompt.awaited
    }

    /// Synced runs of an origin, from the one that has the write behind `after` on.
    fn find_runs(
        &self,
        origin: Origin,
        after: Seq,
        tools: &Tools,
    ) -> Result<Vec<(Seq, Bytes)>, ReplicaError> {
        if let Some(runs) = self.recent.runs(origin, after, PUSH_BYTES) {
            return Ok(runs);
        }
        let synced = self.logs.synced_vector().get(origin);
        let found = tools.logs.runs(self.region, self.logs.era(), origin, after, PUSH_BYTES)?;
        let mut runs = Vec::with_capacity(found.len());
        for bytes in found {
            let last = Run::decode(&bytes)?.last();
            // What is written and not synced may be lost yet, and must not be anywhere else.
            if synced < last {
                break;
            }
            runs.push((last, Bytes::from(bytes)));
        }
        Ok(runs)
    }

    /// Looks after everything that no event does. Returns the reports that are to be sent, by node.
    pub(super) fn tick(
        &mut self,
        now_ms: u64,
        physical_ms: u64,
        passed: Hlc,
        hears: impl Fn(NodeId) -> bool,
    ) -> Vec<(NodeId, rdb_proto::internal::v1::OriginReport)> {
        let report = self.report(passed);
        let besides = self.besides();
        let mut due = Vec::new();
        let mut stuck = Vec::new();
        let known: BTreeMap<NodeId, Option<Vector>> = self
            .peers
            .reports()
            .map(|(node, known, _)| {
                (node, known.filter(|known| known.era == report.era).map(|known| known.synced.clone()))
            })
            .collect();
        for (node, told) in &mut self.told {
            if !hears(*node) {
                told.report = None;
                continue;
            }
            let known = known.get(node).and_then(Option::as_ref);
            let changed =
                |before: &Report| (&before.synced, &before.applied) != (&report.synced, &report.applied);
            if told.report.as_ref().is_none_or(changed) {
                told.report = Some(report.clone());
                // Who knows nothing of the peer can send it nothing; what it said may have been lost.
                let ask = known.is_none() || told.asks;
                let (me, copy) = (self.logs.me(), self.copying.gives_up(*node));
                due.push((*node, wire::report_to_wire((self.region, me), &report, ask, &besides, copy)));
                told.asks = false;
            }
            let lacks = known.is_none_or(|known| !known.covers(&report.synced));
            if !lacks {
                told.stood.1 = now_ms;
            } else if STANDSTILL_MS < now_ms.saturating_sub(told.stood.1) {
                told.stood.1 = now_ms;
                stuck.push(*node);
            }
        }
        for node in stuck {
            self.lost(node);
            self.told.entry(node).or_default().asks = true;
        }
        self.machine.look_at_clock(Hlc::from_millis(physical_ms));
        self.show(now_ms, physical_ms);
        due
    }

    /// Whether nothing goes on: all that this node has is everywhere, and who is heard has been told so. Only the silence of those
    /// who are not heard grows, and [`Shown::lag`] grows with it.
    pub(super) fn rests(&self, hears: impl Fn(NodeId) -> bool) -> bool {
        let is_told = |(node, told): (&NodeId, &Told)| told.report.is_some() || !hears(*node);
        let rests = self.is_quiet() && self.stamps.is_empty() && self.told.iter().all(is_told);
        self.shown.show_rest(rests);
        rests
    }

    /// Something goes on: what is shown of it is old before long.
    pub(super) fn moves(&self) {
        self.shown.moves();
    }

    fn report(&self, passed: Hlc) -> Report {
        Report {
            era: self.logs.era(),
            synced: self.logs.synced_vector(),
            applied: self.claimed(),
            shown: self.machine.shown().clone(),
            promise: self.machine.promise(passed),
        }
    }

    fn besides(&self) -> Besides {
        let certain = self.upkeep.losses.certain.clone();
        Besides { purge_to: self.purges_to(), purge_ready: self.purge_ready(), certain }
    }

    fn show(&mut self, now_ms: u64, physical_ms: u64) {
        let synced = self.logs.synced_vector();
        let era = self.logs.era();
        // What is synced here and not applied is in no report of this node's: the frontier is yet to be told from its stamp.
        self.stamps.forget(&self.peers.applied_everywhere(&self.claimed(), era));
        let now = Now { era, synced: &synced, monotonic_ms: now_ms, physical_ms };
        let lag = lag::lag(now, self.peers.reports(), &self.stamps);
        // How old that is which is in no log any more is forgotten.
        let lag = Lag { known: lag.known && !self.copying.gives_anybody_up(), ..lag };
        // What is acknowledged and not synced is on no other node.
        let unsynced_ms = self.oldest_unsynced().map_or(0, |hlc| physical_ms.saturating_sub(hlc.millis()));
        let lag = Lag { at_least_ms: lag.at_least_ms.max(unsynced_ms), ..lag };
        let covers = |report: Option<&Report>| {
            let has_synced = report.is_some_and(|report| report.era == era && report.applied.covers(&synced));
            has_synced && !self.has_own_unsynced()
        };
        let behind = self.peers.reports().filter(|(_, report, _)| !covers(*report)).count() as u64;
        let lost = self.machine.state().lost + self.machine.state().earlier;
        self.shown.show(lag, lost, self.logs.bytes(), behind);
        self.show_upkeep();
    }

    /// Nodes that are heard have nothing to say while nothing happens.
    pub(super) fn alive(&mut self, node: NodeId, now_ms: u64) {
        self.peers.alive(node, now_ms);
    }

    /// Which runs can be dropped from the log: all members have them, and the data has flushed them.
    /// Nobody is given up while a switch holds writes back: those who take part are to reach one cut.
    pub(super) fn truncate(&mut self, is_open: bool, tools: &Tools) -> Option<OriginWrite> {
        if is_open {
            self.give_up(tools);
        }
        self.look_who_needs_a_copy();
        let stable = self.peers.stable_for_truncation(&self.logs);
        let durable = tools.data.durable_vector(self.region, self.logs.era());
        let drop = self.logs.truncate(&stable, &durable);
        if drop.is_empty() {
            return None;
        }
        if self.logs.bytes() == 0 {
            self.recent.clear();
        }
        fail_point!("origin-log-before-drop");
        Some(OriginWrite { era: self.logs.era(), drop, ..OriginWrite::default() })
    }
}

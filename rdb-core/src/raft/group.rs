//! The driver of one Raft group: verbs in, [`Effects`] out. The only owner of its raft-rs `RawNode`.

use super::disk::{self, Terms};
use super::effects::{Apply, Effects, Failure, LogWrite, SendSnapshot, Sleep, SnapshotPlace};
use super::log::{Log, LogRead};
use super::options::Options;
use super::proposals::Proposals;
use super::reads::Reads;
use super::validate::{self, Rejected};
use crate::apply::Committed;
use crate::command::{self, Encoded, Stamp};
use crate::coverage::{Branch, reached};
use crate::ids::{Era, Index, NodeId, RegionId, Term};
use crate::switch::Marker;
use crate::version::Hlc;
use raft::{
    Config, GetEntriesContext, INVALID_ID, RawNode, ReadOnlyOption, Ready, SnapshotStatus, StateRole,
};
use raft_proto::eraftpb::{ConfState, Entry, EntryType, HardState, Message, MessageType};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use std::collections::VecDeque;

/// raft-rs never stands for election by itself: this group does, so that its timeouts come from the seed.
const NEVER_TICKS: usize = usize::MAX - 1;

/// How raft-rs marks the votes that a leader's chosen successor asks for.
const CAMPAIGN_TRANSFER: &[u8] = b"CampaignTransfer";
/// A follower's round of reads that has no answer after so many heartbeats' time is asked for anew.
const READ_ANSWER_HEARTBEATS: u64 = 3;
/// Entries read for a follower that lags, at least: one by one it would never catch up.
const FETCH_BYTES_MIN: u64 = 64 << 10;

/// What a group starts from: what its log and its applied state hold.
#[derive(Debug, Clone)]
pub struct Boot {
    /// Which region.
    pub region: RegionId,
    /// Which replica of it.
    pub node: NodeId,
    /// All replicas, this one included.
    pub members: Vec<NodeId>,
    /// The stored hard state; the default where none was stored.
    pub hard_state: HardState,
    /// The stored table of terms.
    pub terms: Terms,
    /// The index of the last stored entry; that of the last one dropped where there is none.
    pub last: Index,
    /// The last entry that the stored data reflects.
    pub applied: Index,
    /// Grows at every start of the node: read contexts of this start differ from those of all others.
    pub incarnation: u64,
    /// For election timeouts.
    pub seed: u64,
}

impl Boot {
    /// Of a replica that has nothing stored yet, in the first start of its node.
    pub fn fresh(region: RegionId, node: NodeId, members: Vec<NodeId>) -> Self {
        Self {
            region,
            node,
            members,
            hard_state: HardState::default(),
            terms: Terms::default(),
            last: 0,
            applied: 0,
            incarnation: 1,
            seed: 1,
        }
    }
}

/// Why a group cannot start: its files contradict each other.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BootError {
    /// The data lost what the log no longer has.
    #[error(
        "region {region}: the data reflects the log up to {applied}, but the log begins at {first}: \
         the entries between are lost"
    )]
    DataBehindLog {
        /// Which region.
        region: RegionId,
        /// Where the data stands.
        applied: Index,
        /// Where the log begins.
        first: Index,
    },
    /// The log lost what the data reflects or the hard state knows to be committed.
    #[error("region {region}: entries up to {known} were synced once, but the log ends at {last}")]
    LogBehind {
        /// Which region.
        region: RegionId,
        /// How far the log must reach.
        known: Index,
        /// How far it reaches.
        last: Index,
    },
    /// raft-rs would not start.
    #[error("region {region}: {message}")]
    Raft {
        /// Which region.
        region: RegionId,
        /// What it said.
        message: String,
    },
}

/// Waiters, and why each gets no answer.
type Failed<T> = Vec<(T, Failure)>;

/// How a group is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Leader, follower or candidate.
    pub role: StateRole,
    /// The current term.
    pub term: Term,
    /// Who leads, if that is known.
    pub leader: Option<NodeId>,
    /// The last entry known to be committed.
    pub commit: Index,
    /// The last entry applied here.
    pub applied: Index,
    /// The last entry here.
    pub last: Index,
    /// On the leader: per member, the last entry that it confirmed and whether it was heard from lately.
    pub members: Vec<(NodeId, Index, bool)>,
}

/// A log write handed out and not yet reported.
#[derive(Debug)]
struct Writing {
    number: u64,
    /// When it was handed out.
    tick: u64,
    /// Its entries' first and last index.
    entries: Option<(Index, Index)>,
}

/// One replica of one region's Raft group. `W` waits for writes, `R` for reads; what they are is the caller's affair.
pub struct Group<L: LogRead, W, R> {
    region: RegionId,
    node: NodeId,
    era: Era,
    options: Options,
    raw: RawNode<Log<L>>,
    rng: ChaCha8Rng,
    /// Ticks after which this replica stands for election.
    election_timeout: usize,
    /// Term, role and leader as last seen: a change means that raft-rs has reset its timer.
    seen: (Term, StateRole, u64),
    ticks: u64,
    proposals: Proposals<W>,
    /// Ticks since this replica stopped leading, while writes wait that may be committed yet.
    doubt_ticks: usize,
    reads: Reads<R>,
    /// Log writes handed out and not yet reported.
    writing: VecDeque<Writing>,
    /// The last entry of writes that are on disk, and that raft-rs was not told of: see [`Group::persisted`].
    unreported_last: Index,
    /// The term and vote that were last handed out to be stored.
    stored_vote: (Term, u64),
    /// Whether the commit index is to be stored with the next write. It is never stored alone: it can be found again.
    commit_unsaved: bool,
    /// The last committed entry handed out.
    delivered: Index,
    /// The snapshot that is being taken in, until the data is the snapshot's.
    installing: Option<SnapshotPlace>,
    /// Whether this replica sleeps: see [`Group::fall_asleep`].
    asleep: bool,
    /// Ticks since something last happened to this group.
    idle_ticks: u64,
    /// The term in which this replica has put the closing entry into its log.
    closing_in: Option<Term>,
    /// The term in which this replica has put the marker to the next era into its log.
    marked: Option<Term>,
    /// Whether this replica must not lead: see [`Group::let_lead`].
    barred: bool,
    /// Whether the applied state is a closed region's: see [`Group::close`].
    closed: bool,
    failed_writes: Failed<W>,
    failed_reads: Failed<R>,
}

impl<L: LogRead, W, R> Group<L, W, R> {
    /// Starts a replica from what is stored.
    ///
    /// # Errors
    /// What is stored contradicts itself: data was lost. The node must not take part.
    pub fn new(options: Options, boot: Boot, disk: L, logger: &slog::Logger) -> Result<Self, BootError> {
        let Boot { region, node, members, mut hard_state, terms, last, applied, incarnation, seed } = boot;
        let first = terms.first_index();
        if applied + 1 < first {
            return Err(BootError::DataBehindLog { region, applied, first });
        }
        if hard_state.commit < applied {
            reached(Branch::RaftStartRaisesCommit);
        }
        // What is applied was committed, whether or not the commit index was stored: raft-rs 0.7.0 panics on an
        // applied index past it (raft-rs#392), and it is stored only along with something else.
        hard_state.commit = hard_state.commit.max(applied).max(first - 1);
        if last < hard_state.commit {
            return Err(BootError::LogBehind { region, known: hard_state.commit, last });
        }
        let conf_state =
            ConfState { voters: members.iter().map(|member| member.0).collect(), ..ConfState::default() };
        let config = config(&options, node, applied);
        let fetch_bytes_max = (4 * options.append_bytes_max).max(FETCH_BYTES_MIN);
        let log = Log::new(disk, hard_state, conf_state, terms, last, fetch_bytes_max);
        let logger = logger.new(slog::o!("region" => region.0));
        let raw = RawNode::new(&config, log, &logger)
            .map_err(|error| BootError::Raft { region, message: error.to_string() })?;
        let mut group = Self {
            region,
            node,
            era: Era(1),
            options,
            seen: (0, StateRole::Follower, INVALID_ID),
            raw,
            rng: ChaCha8Rng::seed_from_u64(seed ^ region.0.rotate_left(32) ^ node.0),
            election_timeout: 0,
            ticks: 0,
            proposals: Proposals::default(),
            doubt_ticks: 0,
            reads: Reads::new(node, incarnation),
            writing: VecDeque::new(),
            unreported_last: 0,
            stored_vote: (0, INVALID_ID),
            commit_unsaved: false,
            delivered: applied,
            installing: None,
            asleep: false,
            idle_ticks: 0,
            closing_in: None,
            marked: None,
            barred: false,
            closed: false,
            failed_writes: Vec::new(),
            failed_reads: Vec::new(),
        };
        group.stored_vote = (group.raw.raft.term, group.raw.raft.vote);
        group.raw.mut_store().applied(applied);
        group.draw_election_timeout();
        Ok(group)
    }

    /// Which region.
    pub fn region(&self) -> RegionId {
        self.region
    }

    /// A tick of time has passed. It passes a sleeping replica by.
    pub fn tick(&mut self) {
        if self.asleep {
            return;
        }
        self.ticks += 1;
        self.idle_ticks += 1;
        self.raw.mut_store().tick();
        self.raw.tick();
        self.stand_for_election();
        self.yield_on_stalled_disk();
        self.give_up_on_doubtful();
        self.observe();
    }

    fn stand_for_election(&mut self) {
        let raft = &mut self.raw.raft;
        if raft.state == StateRole::Leader || raft.election_elapsed < self.election_timeout {
            return;
        }
        raft.election_elapsed = 0;
        self.draw_election_timeout();
        self.campaign();
    }

    /// A leader that cannot write its log for an election timeout is no use, even while its heartbeats are in time.
    fn yield_on_stalled_disk(&mut self) {
        let Some(oldest) = self.writing.front() else { return };
        let stalled = self.options.election_ticks as u64 <= self.ticks - oldest.tick;
        // A group of one has nobody to yield to, and raft-rs wants all written before it elects itself again.
        if stalled && self.is_leader() && !self.raw.raft.prs().is_singleton() {
            let term = self.raw.raft.term;
            self.raw.raft.become_follower(term, INVALID_ID);
        }
    }

    /// A deposed leader's entries may wait for ever where no new leader is found; their callers should not.
    fn give_up_on_doubtful(&mut self) {
        let leading = self.is_leader().then_some(self.raw.raft.term);
        if !self.proposals.has_older(leading) {
            self.doubt_ticks = 0;
            return;
        }
        self.doubt_ticks += 1;
        if 2 * self.options.election_ticks <= self.doubt_ticks {
            reached(Branch::RaftDoubtfulWritesGivenUp);
            let doubtful = self.proposals.drain_older(leading).map(|waiter| (waiter, Failure::LeaderLost));
            self.failed_writes.extend(doubtful);
        }
    }

    /// Whether this replica may lead. One that will never apply what is committed must not: it could serve nothing, and only a
    /// leader's snapshot helps it. If it leads, somebody else is to be handed the leadership.
    pub fn let_lead(&mut self, may_lead: bool) {
        self.barred = !may_lead;
    }

    /// Stands for election now, as the first leader of a new region does.
    pub fn campaign(&mut self) {
        if self.barred {
            return;
        }
        // While a snapshot is taken in, raft-rs would look for changes of membership in entries that are gone, and panic.
        if self.has_snapshot() {
            return;
        }
        self.asleep = false;
        // raft-rs refuses only where a membership change is pending, and there are none.
        let _ = self.raw.campaign();
        self.observe();
    }

    /// A message has come from another node.
    ///
    /// # Errors
    /// It is dropped: no correct peer sends it, or it is overtaken.
    pub fn step(&mut self, message: Message) -> Result<(), Rejected> {
        validate::validate(&self.raw, &message)?;
        // See `campaign`.
        if (self.has_snapshot() || self.barred) && message.msg_type == MessageType::MsgTimeoutNow as i32 {
            return Err(Rejected::Stale);
        }
        if self.may_break_lease(&message) {
            reached(Branch::RaftVoteKeepsLease);
            return Err(Rejected::Stale);
        }
        self.stir(&message);
        let stepped = self.raw.step(message).map_err(|error| Rejected::Raft(error.to_string()));
        self.observe();
        stepped
    }

    /// A leader and its followers that have nothing to do need not tell each other so, over and over: a thousand idle groups
    /// would keep a node busy. The leader falls asleep when all members have, and know to be committed, all that it has;
    /// what it returns must go to every follower, whose [`Group::fall_asleep_with`] then stops its clock. Whatever else
    /// happens to a sleeping replica wakes it: a message, a write, a read. Somebody must watch the nodes instead, ask for this
    /// only while all members are heard, and call [`Group::wake`] on the followers of a node that has fallen silent or has
    /// started anew.
    ///
    /// A sleeping leader promises nothing: a read wakes it and asks for a round, and its lease has run out. A sleeping
    /// follower votes for nobody before it is woken, which is what its leader may rely on.
    pub fn fall_asleep(&mut self) -> Option<Sleep> {
        let raft = &self.raw.raft;
        let log = &raft.raft_log;
        let last = log.last_index();
        let settled = log.committed == last && log.persisted == last && log.applied == last;
        let idle = self.options.sleep_after_ticks.is_some_and(|ticks| ticks <= self.idle_ticks);
        let alike = |id: u64, progress: &raft::Progress| {
            id == raft.id || progress.matched == last && progress.committed_index == last
        };
        let sleeps = !self.asleep
            && idle
            && settled
            && self.is_leader()
            && raft.lead_transferee.is_none()
            && self.reads.len() == 0
            && self.writing.is_empty()
            && self.proposals.is_empty()
            // A heartbeat that left after the word of this sleep would wake the followers, and nobody else.
            && !self.raw.has_ready()
            && raft.prs().iter().all(|(id, progress)| alike(*id, progress));
        if !sleeps {
            return None;
        }
        self.asleep = true;
        Some(Sleep { term: raft.term, last })
    }

    /// The leader `from` has fallen asleep with this term and log. Sleeps too if that is also what this replica has; else it
    /// will find its leader silent, and wake it.
    pub fn fall_asleep_with(&mut self, from: NodeId, sleep: Sleep) {
        let raft = &self.raw.raft;
        let log = &raft.raft_log;
        let same = raft.term == sleep.term
            && raft.state == StateRole::Follower
            && raft.leader_id == from.0
            && log.last_index() == sleep.last
            && log.committed == sleep.last
            && self.reads.len() == 0
            && self.writing.is_empty()
            && self.installing.is_none();
        self.asleep = same;
    }

    /// Goes on. If the node that leads this replica is silent, or has started anew, the replica stands for election sooner
    /// than it would by itself, at a moment that is drawn: the silence has lasted for a while.
    pub fn wake(&mut self, leader_is_gone: bool) {
        if !self.asleep {
            return;
        }
        self.asleep = false;
        self.idle_ticks = 0;
        if leader_is_gone {
            self.raw.raft.election_elapsed = self.options.election_ticks;
        }
    }

    /// Whether this replica sleeps.
    pub fn is_asleep(&self) -> bool {
        self.asleep
    }

    /// A message wakes, but for the last answer to a heartbeat, which a leader may fall asleep before. Heartbeats and their
    /// answers are not what a group is busy with.
    fn stir(&mut self, message: &Message) {
        let routine = message.context.is_empty();
        let is = |kind: MessageType| message.msg_type == kind as i32;
        if routine && is(MessageType::MsgHeartbeatResponse) {
            return;
        }
        self.asleep = false;
        if !(routine && is(MessageType::MsgHeartbeat)) {
            self.idle_ticks = 0;
        }
    }

    /// Before this start the replica may have promised a leader not to vote for another one for an election timeout.
    fn may_break_lease(&self, message: &Message) -> bool {
        let vote = message.msg_type == MessageType::MsgRequestVote as i32
            || message.msg_type == MessageType::MsgRequestPreVote as i32;
        self.options.leases
            && vote
            && message.context != CAMPAIGN_TRANSFER
            && self.ticks < self.options.election_ticks as u64
            && self.raw.raft.raft_log.last_index() != 0
    }

    /// A snapshot has come from the leader, with the message that stands for it. If the next effects hold a write with a
    /// [`LogWrite::snapshot`] its data is wanted. If not, this replica is already further, or has another leader by now.
    ///
    /// # Errors
    /// It is dropped: no correct peer sends it, or another snapshot is being taken in.
    pub fn step_snapshot(&mut self, message: Message) -> Result<(), Rejected> {
        validate::validate_snapshot(&self.raw, &message)?;
        // Also one of this turn: raft-rs may keep that and pass over this one, and this one's data would be taken for its.
        if self.has_snapshot() {
            return Err(Rejected::Stale);
        }
        let stepped = self.raw.step(message).map_err(|error| Rejected::Raft(error.to_string()));
        self.observe();
        stepped
    }

    /// Whether a snapshot was accepted, in this turn or an earlier one, and is not yet taken in.
    fn has_snapshot(&self) -> bool {
        self.installing.is_some() || self.raw.snap().is_some()
    }

    /// This replica must not apply what comes next, and needs the data as it is behind that: it asks its leader for a snapshot. To
    /// be called again and again until one is taken in, since the leader may change, or not be there.
    pub fn request_snapshot(&mut self) {
        if !self.has_snapshot() {
            self.busy();
            // Refused where there is no leader, or one has been asked already.
            let _ = self.raw.request_snapshot();
        }
    }

    /// What became of a [`super::SendSnapshot`]: whether `peer` has taken it in. Must follow each, also after a time-out:
    /// until then `peer` gets nothing else.
    pub fn snapshot_sent(&mut self, peer: NodeId, taken: bool) {
        let status = if taken { SnapshotStatus::Finish } else { SnapshotStatus::Failure };
        if !taken {
            self.raw.mut_store().no_snapshots_for(self.options.election_ticks as u64);
        }
        self.raw.report_snapshot(peer.0, status);
    }

    /// Messages to `peer` were lost, so that what was sent optimistically must be asked about again.
    pub fn unreachable(&mut self, peer: NodeId) {
        self.raw.report_unreachable(peer.0);
    }

    /// Hands the leadership to `peer`, if this replica leads. Proposals are refused until that is done or given up.
    pub fn transfer_leader(&mut self, peer: NodeId) {
        if self.is_leader() {
            self.busy();
            self.raw.transfer_leader(peer.0);
        }
    }

    /// Something is asked of this replica.
    fn busy(&mut self) {
        self.asleep = false;
        self.idle_ticks = 0;
    }

    /// Queues commands for the next entry.
    ///
    /// # Errors
    /// They are certainly not done, and the waiter comes back.
    pub fn propose(&mut self, commands: Encoded, waiter: W) -> Result<(), (W, Failure)> {
        if self.closed {
            return Err((waiter, Failure::Closed));
        }
        if !self.is_leader() {
            return Err((waiter, self.not_leader()));
        }
        self.busy();
        let queued = self.proposals.queue(commands, waiter, self.options.queue_bytes_max);
        queued.map_err(|waiter| (waiter, Failure::Busy))
    }

    /// Lets all members drop their logs up to `index`, by an entry of its own. Nothing happens on a follower.
    pub fn propose_truncation(&mut self, index: Index) {
        if self.is_leader() {
            self.busy();
            // Dropped proposals are made again: the caller looks at the log's length from time to time.
            let _ = self.raw.propose(Vec::new(), command::truncate(index));
        }
    }

    /// Whether this replica, whose region's namespace is being deleted, is to close the region: it leads, and has not put the
    /// closing entry into its log yet. What an earlier leader has put there may be lost.
    pub fn needs_closing(&self) -> bool {
        self.is_leader() && !self.closed && self.closing_in != Some(self.raw.raft.term)
    }

    /// Closes the region by an entry of its own: no command behind it is executed. It may be refused for now, as while the
    /// leadership is handed over; [`Group::needs_closing`] says so. A lease of the leader's must be void by now: others may
    /// have applied the entry, and act on it, before the leader has.
    pub fn propose_close(&mut self) {
        if !self.needs_closing() {
            return;
        }
        self.busy();
        let before = self.raw.raft.raft_log.last_index();
        let proposed = self.raw.propose(Vec::new(), command::close());
        if proposed.is_ok() && before < self.raw.raft.raft_log.last_index() {
            self.closing_in = Some(self.raw.raft.term);
        }
    }

    /// The state machine has applied the entry that closes the region, or was closed when this replica started. To be called
    /// before the [`Group::applied`] or [`Group::installed`] that covers the entry: a read whose index is behind it must not
    /// be released. From then on nothing is proposed here and no read is served, also none that waits already.
    pub fn close(&mut self) {
        self.closed = true;
    }

    /// Ends this replica of a region that is gone, and gives back who waits. What was proposed behind the closing entry will
    /// never be executed. Where this replica has not come to that entry, nobody will tell it what became of its proposals.
    pub fn end(mut self) -> (Failed<W>, Failed<R>) {
        let under_way = if self.closed { Failure::Closed } else { Failure::LeaderLost };
        let queued = self.proposals.drain_queue().map(|waiter| (waiter, Failure::Closed));
        self.failed_writes.extend(queued);
        let proposed = self.proposals.drain_to(Index::MAX).map(|waiter| (waiter, under_way));
        self.failed_writes.extend(proposed);
        self.failed_reads.extend(self.reads.drain().into_iter().map(|waiter| (waiter, Failure::Closed)));
        (self.failed_writes, self.failed_reads)
    }

    /// The state machine has put the region into `era`: what is proposed from now on is of that one. To be called before the
    /// [`Group::applied`] that covers the marker.
    pub fn enter(&mut self, era: Era) {
        self.era = era;
        self.marked = None;
        // Asked for in an era that is over, and never proposed: it would be done in this one.
        let queued = self.proposals.drain_queue().map(|waiter| (waiter, Failure::ModeChanged));
        self.failed_writes.extend(queued);
    }

    /// Whether this replica is to put the marker to the next era into its log: it leads, and has not done so yet. What an
    /// earlier leader has put there may be lost.
    pub fn needs_marker(&self) -> bool {
        self.is_leader() && !self.closed && self.marked != Some(self.raw.raft.term)
    }

    /// Proposes the marker to the next era. It may be refused for now; [`Group::needs_marker`] says so. A lease of the
    /// leader's must be void by now: others may apply the marker before the leader does.
    pub fn propose_marker(&mut self, marker: &Marker) {
        if !self.needs_marker() {
            return;
        }
        self.busy();
        let before = self.raw.raft.raft_log.last_index();
        let proposed = self.raw.propose(Vec::new(), command::marker(marker));
        if proposed.is_ok() && before < self.raw.raft.raft_log.last_index() {
            self.marked = Some(self.raw.raft.term);
        }
    }

    /// Whether [`Group::close`] was called.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Waits for the moment when the applied state holds all that was committed before this call. A follower asks its leader
    /// what that is.
    ///
    /// # Errors
    /// This replica cannot tell; the waiter comes back.
    pub fn read(&mut self, waiter: R) -> Result<(), (R, Failure)> {
        if self.closed {
            return Err((waiter, Failure::Closed));
        }
        if self.leader().is_none() {
            return Err((waiter, self.not_leader()));
        }
        self.busy();
        if self.options.reads_max <= self.reads.len() {
            return Err((waiter, Failure::Busy));
        }
        #[cfg(feature = "bug-read-without-round")]
        if self.is_leader() {
            self.reads.at_once(waiter, self.raw.raft.raft_log.committed);
            return Ok(());
        }
        self.reads.wait(waiter);
        Ok(())
    }

    /// The log write of this number, and so all before it, is on disk.
    pub fn persisted(&mut self, number: u64) {
        let mut last = self.unreported_last;
        while let Some(written) = self.writing.pop_front_if(|writing| writing.number <= number) {
            last = written.entries.map_or(last, |(_, written)| written);
        }
        // Entries that a later write under way replaces, and one after it brings back, are not on disk for good: raft-rs
        // would take the old report for the new entries, which look the same to it. The later write's report covers both.
        let replaced = |writing: &Writing| writing.entries.is_some_and(|(first, _)| first <= last);
        if self.writing.iter().any(replaced) {
            reached(Branch::RaftPersistHeldBack);
            self.unreported_last = last;
        } else {
            self.unreported_last = 0;
            self.raw.on_persist_ready(number);
        }
        self.observe();
    }

    /// Whether reads wait here: for a round, or for entries to be applied.
    pub fn has_reads(&self) -> bool {
        0 < self.reads.len()
    }

    /// Entries up to `index` are applied.
    pub fn applied(&mut self, index: Index) {
        if self.raw.raft.raft_log.applied < index {
            self.raw.advance_apply_to(index);
            self.raw.mut_store().applied(index);
        }
    }

    /// The snapshot is taken in: the data is the snapshot's, and the write that held it is on disk and reported.
    pub fn installed(&mut self) {
        if let Some(place) = self.installing.take() {
            self.applied(place.index);
        }
    }

    /// Whether a snapshot is being taken in: from the effects that hold it until [`Group::installed`].
    pub fn is_installing(&self) -> bool {
        self.installing.is_some()
    }

    /// Entries that a [`super::Fetch`] asked for.
    pub fn fetched(&mut self, low: Index, entries: Vec<Entry>, context: GetEntriesContext) {
        self.raw.mut_store().fetched(low, entries);
        self.raw.on_entries_fetched(context);
    }

    /// Drops the log up to `index`, which must be flushed, or as far as this group knows it to be applied. Returns how far
    /// that is, and the table of terms to store when the entries are removed from disk; `None` if there is nothing to drop.
    pub fn truncate(&mut self, index: Index) -> Option<(Index, Vec<u8>)> {
        let index = index.min(self.raw.raft.raft_log.applied);
        if index < self.raw.store().terms().first_index() {
            return None;
        }
        self.raw.mut_store().drop_to(index);
        Some((index, self.raw.store().terms().encode()))
    }

    /// The last entry that every member has confirmed; `None` on a follower.
    pub fn confirmed_by_all(&self) -> Option<Index> {
        let matched = self.raw.raft.prs().iter().map(|(_, progress)| progress.matched).min();
        matched.filter(|_| self.is_leader())
    }

    /// Bytes of the log, roughly; what was there before this start does not count.
    pub fn log_bytes(&self) -> u64 {
        self.raw.store().bytes()
    }

    /// The first index that the log may still hold.
    pub fn first_index(&self) -> Index {
        self.raw.store().terms().first_index()
    }

    /// Whether this replica believes that it leads.
    pub fn is_leader(&self) -> bool {
        self.raw.raft.state == StateRole::Leader
    }

    /// Who leads, if that is known.
    pub fn leader(&self) -> Option<NodeId> {
        Some(self.raw.raft.leader_id).filter(|leader| *leader != INVALID_ID).map(NodeId)
    }

    /// The last entry known to be committed.
    pub fn commit(&self) -> Index {
        self.raw.raft.raft_log.committed
    }

    /// How the group is doing.
    pub fn status(&self) -> Status {
        let raft = &self.raw.raft;
        let mut members: Vec<_> = raft
            .prs()
            .iter()
            .map(|(id, progress)| (NodeId(*id), progress.matched, progress.recent_active || *id == raft.id))
            .collect();
        members.sort_unstable();
        Status {
            role: raft.state,
            term: raft.term,
            leader: self.leader(),
            commit: raft.raft_log.committed,
            applied: raft.raft_log.applied,
            last: raft.raft_log.last_index(),
            members,
        }
    }

    /// What must be done now; `None` if nothing. To be called until then after every batch of verbs. `stamp` is the
    /// node's clock, for the entry that may be made.
    pub fn take_effects(&mut self, stamp: Hlc) -> Option<Effects<W, R>> {
        self.propose_queued(stamp);
        self.start_read_round();
        let mut effects = Effects::default();
        // A turn that writes nothing to disk needs no report, and what it makes possible follows at once.
        while effects.write.is_none() && self.raw.has_ready() {
            self.take_ready(&mut effects);
        }
        let ready = self.reads.ready(self.raw.raft.raft_log.applied);
        if self.closed {
            if !ready.is_empty() {
                reached(Branch::RaftReadsOfClosed);
            }
            self.failed_reads.extend(ready.into_iter().map(|waiter| (waiter, Failure::Closed)));
        } else {
            effects.reads = ready;
        }
        effects.fetch = self.raw.mut_store().take_wanted();
        effects.failed_writes.append(&mut self.failed_writes);
        effects.failed_reads.append(&mut self.failed_reads);
        (!effects.is_empty()).then_some(effects)
    }

    /// Writes and reads that will get no answer from the state machine. They also come with the effects; this is for an
    /// owner that can take no effects now.
    pub fn take_failures(&mut self) -> (Failed<W>, Failed<R>) {
        (std::mem::take(&mut self.failed_writes), std::mem::take(&mut self.failed_reads))
    }

    fn take_ready(&mut self, effects: &mut Effects<W, R>) {
        let mut ready = self.raw.ready();
        self.send(ready.take_messages(), effects);
        for state in ready.take_read_states() {
            self.reads.confirmed(&state.request_ctx, state.index);
        }
        self.deliver(ready.take_committed_entries(), effects);
        let snapshot = self.restart_after_snapshot(&ready);
        let write = self.log_write(&mut ready, snapshot);
        let number = write.number;
        self.raw.advance_append_async(ready);
        if write.is_empty() && self.writing.is_empty() {
            effects.send.extend(write.then_send);
            self.raw.on_persist_ready(number);
        } else {
            let entries = write.entries.first().zip(write.entries.last());
            let entries = entries.map(|((first, _), (last, _))| (*first, *last));
            self.writing.push_back(Writing { number, tick: self.ticks, entries });
            effects.write = Some(self.planted(write, effects));
        }
        let needless = self.raw.raft.raft_log.persisted.min(self.delivered);
        let tail_bytes_max = self.options.tail_bytes_max;
        self.raw.mut_store().shrink_tail(needless, tail_bytes_max);
        self.observe();
    }

    /// Two bugs that the simulator must catch; see `docs/reliability.md`.
    #[cfg_attr(
        not(all(feature = "bug-ack-before-sync", feature = "bug-append-answer-before-sync")),
        allow(unused_mut, unused_variables, clippy::unused_self)
    )]
    fn planted(&mut self, mut write: LogWrite, effects: &mut Effects<W, R>) -> LogWrite {
        #[cfg(feature = "bug-ack-before-sync")]
        self.raw.on_persist_ready(write.number);
        #[cfg(feature = "bug-append-answer-before-sync")]
        effects.send.append(&mut write.then_send);
        write
    }

    /// Messages go as they are; snapshots are much longer than messages, and go another way.
    fn send(&mut self, messages: Vec<Message>, effects: &mut Effects<W, R>) {
        for message in messages {
            if message.msg_type == MessageType::MsgSnapshot as i32 {
                let index = message.get_snapshot().get_metadata().index;
                effects.snapshots.push(SendSnapshot { to: NodeId(message.to), index, message });
            } else {
                effects.send.push(message);
            }
        }
    }

    /// raft-rs has accepted a snapshot: the log begins anew after it.
    fn restart_after_snapshot(&mut self, ready: &Ready) -> Option<SnapshotPlace> {
        let metadata = ready.snapshot().get_metadata();
        let place = SnapshotPlace { index: metadata.index, term: metadata.term };
        if place.index == 0 {
            return None;
        }
        self.raw.mut_store().restart_after(place);
        self.delivered = place.index;
        self.installing = Some(place);
        self.commit_unsaved = true;
        // Their entries may be among those that the snapshot reflects, or not: nobody will ever tell.
        let covered = self.proposals.drain_to(place.index).map(|waiter| (waiter, Failure::LeaderLost));
        self.failed_writes.extend(covered);
        Some(place)
    }

    /// One write of all that the ready asks to store. A commit index alone waits for company: it need not be stored.
    fn log_write(&mut self, ready: &mut Ready, snapshot: Option<SnapshotPlace>) -> LogWrite {
        let entries = ready.take_entries();
        let encoded: Vec<_> = entries.iter().map(|entry| (entry.index, disk::encode_entry(entry))).collect();
        let store = self.raw.mut_store();
        let (terms_changed, remove_stale) = store.append(entries);
        let terms = (terms_changed || snapshot.is_some()).then(|| store.terms().encode());
        self.commit_unsaved |= ready.hs().is_some();
        let store_state = self.commit_unsaved && ready.must_sync();
        let hard_state = store_state.then(|| disk::encode_hard_state(&self.raw.raft.hard_state()));
        self.commit_unsaved &= !store_state;
        let vote = (self.raw.raft.term, self.raw.raft.vote);
        let mut then_send = ready.take_persisted_messages();
        // Of a leader that stepped down in the same turn: nobody would report what became of it.
        then_send.retain(|message| message.msg_type != MessageType::MsgSnapshot as i32);
        LogWrite {
            number: ready.number(),
            vote_changed: std::mem::replace(&mut self.stored_vote, vote) != vote,
            entries: encoded,
            remove_stale,
            hard_state,
            terms,
            snapshot,
            sync: ready.must_sync(),
            then_send,
        }
    }

    fn deliver(&mut self, entries: Vec<Entry>, effects: &mut Effects<W, R>) {
        let Some(last) = entries.last() else { return };
        self.delivered = last.index;
        let apply = effects.apply.get_or_insert_with(|| Apply { entries: Vec::new(), waiters: Vec::new() });
        for entry in entries {
            assert_eq!(entry.entry_type, EntryType::EntryNormal as i32, "membership is fixed");
            if let Some(waiters) = self.proposals.committed(entry.index, entry.term, &mut self.failed_writes)
            {
                apply.waiters.push((entry.index, waiters));
            }
            apply.entries.push(Committed { index: entry.index, term: entry.term, data: entry.data });
        }
    }

    /// Makes entries of the queued commands, while there is room for more on their way.
    fn propose_queued(&mut self, stamp: Hlc) {
        while self.is_leader()
            && self.proposals.has_queued()
            && self.proposals.in_flight(self.raw.raft.term) < self.options.entries_in_flight_max
        {
            let stamp = Stamp { era: self.era, hlc: stamp, node: self.node };
            let mut entry = self.begin_entry(stamp);
            let waiters = self.proposals.fill(&mut entry, self.options.entry_bytes_max);
            let before = self.raw.raft.raft_log.last_index();
            let proposed = self.raw.propose(Vec::new(), entry);
            let index = self.raw.raft.raft_log.last_index();
            if proposed.is_err() || index != before + 1 {
                // Handing over, or too much is uncommitted: raft-rs took nothing in.
                self.failed_writes.extend(waiters.into_iter().map(|(waiter, _)| (waiter, Failure::Busy)));
                return;
            }
            self.proposals.proposed(index, self.raw.raft.term, waiters);
        }
    }

    fn begin_entry(&self, stamp: Stamp) -> Vec<u8> {
        if self.region == RegionId::META { command::begin_catalog() } else { command::begin_keys(stamp) }
    }

    /// Starts a round for the reads that wait. A new leader's rounds wait for its first entry to be committed: until
    /// then raft-rs drops them without a word, since it cannot know what earlier leaders committed.
    fn start_read_round(&mut self) {
        if !self.is_leader() {
            return self.ask_for_read_round();
        }
        if !self.raw.raft.commit_to_current_term() {
            if 0 < self.reads.len() {
                reached(Branch::RaftReadsWaitForFirstEntry);
            }
            return;
        }
        let Some(context) = self.reads.next_context(self.raw.raft.term) else { return };
        let before = self.raw.raft.pending_read_count() + self.raw.raft.ready_read_count();
        self.raw.read_index(context.clone());
        let after = self.raw.raft.pending_read_count() + self.raw.raft.ready_read_count();
        if before < after {
            self.reads.started(context, self.ticks);
        }
    }

    /// On a follower: the leader starts the round.
    fn ask_for_read_round(&mut self) {
        if self.leader().is_none_or(|leader| leader == self.node) || self.installing.is_some() {
            return;
        }
        let patience = READ_ANSWER_HEARTBEATS * self.options.heartbeat_ticks as u64;
        self.reads.begin_anew((self.ticks + 1).saturating_sub(patience));
        if let Some(context) = self.reads.next_context(self.raw.raft.term) {
            self.raw.read_index(context.clone());
            self.reads.started(context, self.ticks);
        }
    }

    /// Looks whether raft-rs changed its role. Timeouts are drawn anew where raft-rs reset its timer, and what only a
    /// leader can finish is given back.
    fn observe(&mut self) {
        let raft = &self.raw.raft;
        let now = (raft.term, raft.state, raft.leader_id);
        if now == self.seen {
            return;
        }
        let led =
            self.seen.1 == StateRole::Leader && (raft.state != StateRole::Leader || raft.term != self.seen.0);
        self.seen = now;
        self.draw_election_timeout();
        let failure = self.not_leader();
        if led {
            self.failed_writes.extend(self.proposals.drain_queue().map(|waiter| (waiter, failure)));
        }
        if 0 < self.reads.len() {
            reached(Branch::RaftLeaderChangeDropsReads);
        }
        // Rounds are of one leader and its term; a read may always be asked again.
        self.failed_reads.extend(self.reads.drain().into_iter().map(|waiter| (waiter, failure)));
    }

    fn not_leader(&self) -> Failure {
        Failure::NotLeader { leader: self.leader().filter(|leader| *leader != self.node) }
    }

    fn draw_election_timeout(&mut self) {
        let least = self.options.election_ticks;
        self.election_timeout = self.rng.random_range(least..2 * least);
    }
}

impl<W, R> Effects<W, R> {
    fn is_empty(&self) -> bool {
        self.send.is_empty()
            && self.write.is_none()
            && self.apply.is_none()
            && self.reads.is_empty()
            && self.fetch.is_empty()
            && self.snapshots.is_empty()
            && self.failed_writes.is_empty()
            && self.failed_reads.is_empty()
    }
}

/// The one place where raft-rs is configured; every option is passed.
fn config(options: &Options, node: NodeId, applied: Index) -> Config {
    Config {
        id: node.0,
        applied,
        election_tick: options.election_ticks,
        heartbeat_tick: options.heartbeat_ticks,
        min_election_tick: NEVER_TICKS,
        max_election_tick: NEVER_TICKS + 1,
        max_size_per_msg: options.append_bytes_max,
        max_inflight_msgs: options.appends_in_flight_max,
        check_quorum: true,
        pre_vote: true,
        // Not LeaseBased: it has no clock and serves stale reads after a pause (etcd-io/raft#166).
        read_only_option: ReadOnlyOption::Safe,
        skip_bcast_commit: !options.eager_commits,
        // raft-rs 0.7.0 merges entries into an empty append without looking at its index (`is_continuous_ents`), so after
        // a rejection in the same turn it sends "index 23, entries from 23 on", which no follower can read rightly.
        batch_append: false,
        priority: 0,
        max_uncommitted_size: options.uncommitted_bytes_max,
        max_committed_size_per_ready: options.apply_bytes_max,
    }
}

impl<L: LogRead, W, R> std::fmt::Debug for Group<L, W, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Group")
            .field("region", &self.region)
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}

//! What a group wants done. The outside does it, in the order of the fields, and reports back.

use crate::apply::Committed;
use crate::ids::{Index, NodeId, Term};
use raft::GetEntriesContext;
use raft_proto::eraftpb::Message;

/// All that one turn of a group asks for. `W` waits for writes, `R` for reads.
#[derive(Debug)]
pub struct Effects<W, R> {
    /// Messages that may leave at once.
    pub send: Vec<Message>,
    /// What to write to the log. Writes of a group are done in the order they are handed out.
    pub write: Option<LogWrite>,
    /// Committed entries to apply, in order.
    pub apply: Option<Apply<W>>,
    /// Reads that may now be served from the applied state.
    pub reads: Vec<R>,
    /// Entries to read from the log for a follower that lags, away from the raft loop.
    pub fetch: Vec<Fetch>,
    /// Followers that need entries which the log no longer has. Each is to get the data instead.
    pub snapshots: Vec<SendSnapshot>,
    /// Writes that are certainly not applied, or whose fate cannot be told.
    pub failed_writes: Vec<(W, Failure)>,
    /// Reads that cannot be served here now. A read has no effect, so it may always be tried again.
    pub failed_reads: Vec<(R, Failure)>,
}

impl<W, R> Default for Effects<W, R> {
    fn default() -> Self {
        Self {
            send: Vec::new(),
            write: None,
            apply: None,
            reads: Vec::new(),
            fetch: Vec::new(),
            snapshots: Vec::new(),
            failed_writes: Vec::new(),
            failed_reads: Vec::new(),
        }
    }
}

/// Why a write or read got no answer from the state machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// This node does not lead. Not done.
    NotLeader {
        /// Who does, if that is known.
        leader: Option<NodeId>,
    },
    /// The group's queue is full, or its leader is handing over. Not done; try again later.
    Busy,
    /// Another leader's entry stands where this write was proposed. Not done, and never will be.
    Superseded,
    /// Leadership was lost while the entry was on its way. It may be committed yet: in doubt.
    LeaderLost,
    /// The region is closed, since its namespace is being deleted. Not done.
    Closed,
    /// The region changes between strong and eventual, and this is no longer, or not yet, the way to it. Not done; try again.
    ModeChanged,
}

/// One write to the log: all of it in one batch, before the next one of the same group.
///
/// A write that carries a [`LogWrite::snapshot`] is preceded by an exchange of the data and starts the log anew: see there.
///
/// When the batch is on disk (synced, if `sync` is set), the writer reports `persisted(number)` to the group's owner
/// and only then sends `then_send`: an answer to these messages must find the report already there.
#[derive(Debug, Default)]
pub struct LogWrite {
    /// For the report.
    pub number: u64,
    /// Entries to store, as [`super::disk::encode_entry`] has them.
    pub entries: Vec<(Index, Vec<u8>)>,
    /// Entries to remove: a range `[from, to)` above the new last entry, left by a leader that was overruled.
    pub remove_stale: Option<(Index, Index)>,
    /// The new hard state, encoded.
    pub hard_state: Option<Vec<u8>>,
    /// The new table of terms, encoded.
    pub terms: Option<Vec<u8>>,
    /// The snapshot that this replica has taken in. Before this write the data must be replaced by the snapshot's, all of
    /// it or, after a crash, nothing; in this write all older entries of the log go. A crash between the two must find
    /// a note of it on disk, and finish the write.
    pub snapshot: Option<SnapshotPlace>,
    /// Whether the vote or the term changed: a lost vote is a second vote.
    pub vote_changed: bool,
    /// Whether the batch must be synced before the report.
    pub sync: bool,
    /// Messages that promise what this write makes true.
    pub then_send: Vec<Message>,
}

impl LogWrite {
    /// Whether nothing goes to disk. Such a write still waits its turn: its messages stand behind earlier writes.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
            && self.remove_stale.is_none()
            && self.hard_state.is_none()
            && self.terms.is_none()
    }
}

/// With what a leader has fallen asleep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sleep {
    /// Its term.
    pub term: Term,
    /// Its last entry, which all members have and know to be committed.
    pub last: Index,
}

/// Where in the log a snapshot of the data stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotPlace {
    /// The last entry that it reflects.
    pub index: Index,
    /// That entry's term.
    pub term: Term,
}

/// A snapshot to send. The data is read while it is sent, so it may reflect more than was asked for: what goes with it
/// is what [`snapshot_message`](super::snapshot_message) makes of `message` and of the place where the data really stands.
#[derive(Debug, Clone)]
pub struct SendSnapshot {
    /// Who needs it.
    pub to: NodeId,
    /// The data must reflect at least this entry. The log from here on stays until the outcome is reported.
    pub index: Index,
    /// raft-rs's message, without data.
    pub message: Message,
}

/// Committed entries, and who waits for which.
#[derive(Debug)]
pub struct Apply<W> {
    /// In order, without gaps.
    pub entries: Vec<Committed>,
    /// By entry: the proposals that it was made of, in order, each with the number of its commands.
    pub waiters: Vec<(Index, Vec<(W, usize)>)>,
}

impl<W> Default for Apply<W> {
    fn default() -> Self {
        Self { entries: Vec::new(), waiters: Vec::new() }
    }
}

/// Entries that the leader needs from disk, for a follower behind the tail that is kept in memory.
#[derive(Debug)]
pub struct Fetch {
    /// The first index wanted.
    pub low: Index,
    /// The index after the last one wanted.
    pub high: Index,
    /// Enough is enough: about this many bytes; at least one entry.
    pub bytes_max: u64,
    /// Goes back with the entries.
    pub context: GetEntriesContext,
}

/// The message that goes with a snapshot whose data stands at `place`, at or after the place for which it was asked.
pub fn snapshot_message(mut message: Message, place: SnapshotPlace) -> Message {
    let metadata = message.mut_snapshot().mut_metadata();
    metadata.index = place.index;
    metadata.term = place.term;
    message
}

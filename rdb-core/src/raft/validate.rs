//! What a peer's message must be before it is stepped.
//!
//! raft-rs trusts its peers: a message that no correct peer sends makes it panic, or corrupts what it knows. A message
//! refused here is dropped, which Raft copes with as with any lost message. The checks fall in two groups: those on
//! the message alone, and those against this node's log, which also catch a peer whose disk went back in time.

use super::effects::SnapshotPlace;
use super::log::{Log, LogRead};
use crate::coverage::{Branch, reached};
use crate::ids::{Index, NodeId, Term};
use raft::{INVALID_INDEX, ProgressState, RawNode};
use raft_proto::eraftpb::{EntryType, Message, MessageType};
use std::collections::BTreeSet;

/// What names a round of reads: see `reads.rs`.
const CONTEXT_BYTES: usize = 32;
/// An election each microsecond for nine years. Past it a term comes from damage, and counting on would overflow.
const TERM_MAX: Term = 1 << 48;

/// Why a peer's message was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// Numbers that no message type or entry type has, or a type that does not travel between nodes.
    #[error("its type {0} is not one that nodes send each other")]
    Type(i32),
    /// It is not for this node, or not from a member.
    #[error("it goes from node {from} to node {to}, which is not a way in this group")]
    Route {
        /// The sender it names.
        from: NodeId,
        /// The receiver it names.
        to: NodeId,
    },
    /// A field contradicts another one of the same message.
    #[error("it contradicts itself: {0}")]
    Contradiction(&'static str),
    /// It contradicts what this node knows to be committed or synced. One of the two nodes has lost data.
    #[error(
        "it contradicts this node's log: {what} (its index {index}, ours {ours}); one of the two nodes lost data"
    )]
    Log {
        /// What does not fit.
        what: &'static str,
        /// The index in the message.
        index: Index,
        /// The index here.
        ours: Index,
    },
    /// True once, but overtaken by a later message.
    #[error("it is stale")]
    Stale,
    /// raft-rs refused it.
    #[error("{0}")]
    Raft(String),
}

/// Looks at a message from another node.
pub(super) fn validate<L: LogRead>(raw: &RawNode<Log<L>>, message: &Message) -> Result<(), Rejected> {
    let kind = MessageType::from_i32(message.msg_type).ok_or(Rejected::Type(message.msg_type))?;
    if message.snapshot.is_some() {
        return Err(Rejected::Contradiction("it carries a snapshot"));
    }
    every(raw, message)?;
    match kind {
        MessageType::MsgAppend => append(raw, message),
        MessageType::MsgAppendResponse => append_response(raw, message),
        MessageType::MsgHeartbeat => heartbeat(raw, message),
        MessageType::MsgTimeoutNow => timeout_now(raw, message),
        MessageType::MsgReadIndex => read_index(raw, message),
        MessageType::MsgReadIndexResp => read_index_response(raw, message),
        MessageType::MsgHeartbeatResponse
        | MessageType::MsgRequestVote
        | MessageType::MsgRequestVoteResponse
        | MessageType::MsgRequestPreVote
        | MessageType::MsgRequestPreVoteResponse => no_entries(message),
        // Writes are not forwarded by raft-rs; snapshots come on a way of their own; the rest is local.
        _ => Err(Rejected::Type(message.msg_type)),
    }
}

/// Looks at the message that stands for a snapshot, whose data has come.
pub(super) fn validate_snapshot<L: LogRead>(
    raw: &RawNode<Log<L>>,
    message: &Message,
) -> Result<SnapshotPlace, Rejected> {
    if message.msg_type != MessageType::MsgSnapshot as i32 {
        return Err(Rejected::Type(message.msg_type));
    }
    every(raw, message)?;
    no_entries(message)?;
    let metadata = message.get_snapshot().get_metadata();
    let place = SnapshotPlace { index: metadata.index, term: metadata.term };
    if place.index == 0 || place.index == Index::MAX || !(1..=TERM_MAX).contains(&place.term) {
        return Err(Rejected::Contradiction("its snapshot stands nowhere in a log"));
    }
    // A leader that was deposed between asking for the data and reading it: the data is of its successor's term.
    if message.term < place.term {
        return Err(Rejected::Stale);
    }
    let voters: BTreeSet<u64> = metadata.get_conf_state().voters.iter().copied().collect();
    if voters != raw.raft.prs().conf().voters().ids().iter().collect() {
        return Err(Rejected::Contradiction("its snapshot is of a group with other members"));
    }
    let log = &raw.raft.raft_log;
    let known = log.first_index() <= place.index && place.index <= log.committed;
    if known && raw.raft.term <= message.term && !log.match_term(place.index, place.term) {
        return Err(Rejected::Log {
            what: "a snapshot differs from what is committed",
            index: place.index,
            ours: log.committed,
        });
    }
    Ok(place)
}

/// What holds for every message.
fn every<L: LogRead>(raw: &RawNode<Log<L>>, message: &Message) -> Result<(), Rejected> {
    route(raw, message)?;
    // Only whoever refuses entries for the sake of a snapshot asks for one. An index that no leader reaches keeps nobody waiting
    // but who asks.
    let refuses = message.msg_type == MessageType::MsgAppendResponse as i32 && message.reject;
    if message.request_snapshot != INVALID_INDEX && !refuses {
        return Err(Rejected::Contradiction("it asks for a snapshot with what is no refusal"));
    }
    // A question for the leader is of no term: raft-rs takes it as if it came from this node itself.
    let asks = message.msg_type == MessageType::MsgReadIndex as i32;
    if (message.term == 0) != asks {
        return Err(Rejected::Contradiction("it has no term, or one that it should not have"));
    }
    if TERM_MAX < message.term {
        return Err(Rejected::Contradiction("a term that no cluster lives to see"));
    }
    Ok(())
}

/// A follower asks where a read may be served. Only a leader can tell: raft-rs would pass the question on.
fn read_index<L: LogRead>(raw: &RawNode<Log<L>>, message: &Message) -> Result<(), Rejected> {
    one_context(message)?;
    if raw.raft.state == raft::StateRole::Leader { Ok(()) } else { Err(Rejected::Stale) }
}

/// The leader's answer, which names no index that this follower could take for more than what is to be applied.
fn read_index_response<L: LogRead>(raw: &RawNode<Log<L>>, message: &Message) -> Result<(), Rejected> {
    one_context(message)?;
    let follows = raw.raft.state == raft::StateRole::Follower
        && message.term == raw.raft.term
        && message.from == raw.raft.leader_id;
    if follows { Ok(()) } else { Err(Rejected::Stale) }
}

/// The context of a round of reads: raft-rs looks at it without asking whether it is there.
fn one_context(message: &Message) -> Result<(), Rejected> {
    match &message.entries[..] {
        [entry] if entry.data.len() == CONTEXT_BYTES => Ok(()),
        _ => Err(Rejected::Contradiction("it is not about one round of reads")),
    }
}

fn route<L: LogRead>(raw: &RawNode<Log<L>>, message: &Message) -> Result<(), Rejected> {
    let known = message.to == raw.raft.id
        && message.from != raw.raft.id
        && raw.raft.prs().get(message.from).is_some();
    let (from, to) = (NodeId(message.from), NodeId(message.to));
    if known { Ok(()) } else { Err(Rejected::Route { from, to }) }
}

fn no_entries(message: &Message) -> Result<(), Rejected> {
    if message.entries.is_empty() { Ok(()) } else { Err(Rejected::Contradiction("it carries entries")) }
}

/// Entries that follow each other, with terms that never go back, none of which contradicts what is committed here.
fn append<L: LogRead>(raw: &RawNode<Log<L>>, message: &Message) -> Result<(), Rejected> {
    let log = &raw.raft.raft_log;
    let (mut index, mut term): (Index, Term) = (message.index, message.log_term);
    if message.term < term {
        return Err(Rejected::Contradiction("entries of a later term than its own"));
    }
    // raft-rs gives entries that do not exist the term 0: an append that names it would match past the log's end.
    if (index == 0) != (term == 0) {
        return Err(Rejected::Contradiction("an entry of no term"));
    }
    for entry in &message.entries {
        if EntryType::from_i32(entry.entry_type) != Some(EntryType::EntryNormal) {
            return Err(Rejected::Type(entry.entry_type));
        }
        let term_fits = (term.max(1)..=message.term).contains(&entry.term);
        if Some(entry.index) != index.checked_add(1) || !term_fits {
            return Err(Rejected::Contradiction("its entries do not follow each other"));
        }
        (index, term) = (entry.index, entry.term);
        let committed = entry.index <= log.committed && log.first_index() <= entry.index;
        if committed && !log.match_term(entry.index, entry.term) && raw.raft.term <= message.term {
            return Err(Rejected::Log {
                what: "an entry differs from a committed one",
                index: entry.index,
                ours: log.committed,
            });
        }
    }
    if index == Index::MAX {
        return Err(Rejected::Contradiction("an index out of range"));
    }
    Ok(())
}

/// An answer to an append cannot confirm what was never sent, nor reject what the same peer confirmed before.
fn append_response<L: LogRead>(raw: &RawNode<Log<L>>, message: &Message) -> Result<(), Rejected> {
    no_entries(message)?;
    if message.term != raw.raft.term || raw.raft.state != raft::StateRole::Leader {
        return Ok(()); // raft-rs only looks at its term
    }
    let last = raw.raft.raft_log.last_index();
    if last < message.index {
        return Err(Rejected::Log {
            what: "confirms entries that do not exist",
            index: message.index,
            ours: last,
        });
    }
    if !message.reject {
        return Ok(());
    }
    // Names what is committed there and not what it refuses; raft-rs does not move back for it.
    if message.request_snapshot != INVALID_INDEX {
        return Ok(());
    }
    if message.index < message.reject_hint {
        return Err(Rejected::Contradiction("its hint lies past what it rejects"));
    }
    let Some(progress) = raw.raft.prs().get(message.from) else { return Err(Rejected::Stale) };
    // raft-rs 0.7.0 lets a stale rejection pull `next` to or below `matched` while it probes (raft-rs#555). What a
    // follower has once confirmed it cannot truthfully reject: such a message is late, or its disk went back.
    let stale = message.index <= progress.matched || message.reject_hint < progress.matched;
    if progress.state != ProgressState::Replicate && stale {
        reached(Branch::RaftStaleRejection);
        return Err(Rejected::Stale);
    }
    Ok(())
}

/// A leader never tells a follower to commit past what the follower confirmed.
fn heartbeat<L: LogRead>(raw: &RawNode<Log<L>>, message: &Message) -> Result<(), Rejected> {
    no_entries(message)?;
    let last = raw.raft.raft_log.last_index();
    if raw.raft.term <= message.term && last < message.commit {
        return Err(Rejected::Log {
            what: "commits entries that are not here",
            index: message.commit,
            ours: last,
        });
    }
    Ok(())
}

/// Only the leader whom this node follows may ask it to stand for election at once.
fn timeout_now<L: LogRead>(raw: &RawNode<Log<L>>, message: &Message) -> Result<(), Rejected> {
    no_entries(message)?;
    let expected = message.term == raw.raft.term && message.from == raw.raft.leader_id;
    if expected { Ok(()) } else { Err(Rejected::Stale) }
}

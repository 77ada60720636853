//! A message never promises what its sender could still forget: votes and confirmed entries are synced before the
//! message leaves. Where the disk already tells of a later term, the promise was overtaken in one and the same write: a
//! later leader overruled the entry, or the vote no longer counts. That is as if the message had been long on its way.

use super::{Violation, holds};
use crate::disks::log::Files;
use rdb_core::ids::RegionId;
use rdb_core::raft::{Message, MessageType};

/// `message` leaves a node whose disk, after a power cut at this moment, would hold `synced`.
pub(crate) fn promise_is_kept(region: RegionId, message: &Message, synced: &Files) -> Result<(), Violation> {
    let promised = match message.msg_type() {
        MessageType::MsgAppendResponse if !message.reject => message.index <= synced.last(),
        MessageType::MsgRequestVoteResponse if !message.reject => {
            let state = synced.hard_state();
            (message.term, message.to) == (state.term, state.vote)
        }
        MessageType::MsgRequestVote => message.term == synced.hard_state().term,
        _ => true,
    };
    let kept = promised || message.term < synced.hard_state().term;
    holds("promises are synced first", kept, || {
        format!(
            "region {region}: node {} sends {:?} term {} index {} before it is on its disk",
            message.from,
            message.msg_type(),
            message.term,
            message.index
        )
    })
}

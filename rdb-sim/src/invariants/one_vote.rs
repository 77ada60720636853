//! A vote that has left a node is never given again to somebody else in the same term, whatever the node forgot in a
//! crash, and the node's term never goes back (Ongaro, "Consensus", section 3.8).

use super::{Violation, holds};
use rdb_core::ids::{NodeId, RegionId, Term};
use rdb_core::raft::{HardState, Message, MessageType};
use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub(crate) struct OneVote {
    votes: BTreeMap<(RegionId, NodeId, Term), NodeId>,
    /// The highest term that each replica has told anybody.
    terms: BTreeMap<(RegionId, NodeId), Term>,
}

impl OneVote {
    /// A message leaves its sender.
    pub(crate) fn leaves(&mut self, region: RegionId, message: &Message) -> Result<(), Violation> {
        let voter = NodeId(message.from);
        let candidate = match message.msg_type() {
            // Before a vote nothing is promised, and its term is one that may never begin.
            MessageType::MsgRequestPreVote | MessageType::MsgRequestPreVoteResponse => return Ok(()),
            MessageType::MsgRequestVote => Some(voter),
            MessageType::MsgRequestVoteResponse if !message.reject => Some(NodeId(message.to)),
            _ => None,
        };
        let told = self.terms.entry((region, voter)).or_default();
        *told = message.term.max(*told);
        let Some(candidate) = candidate else { return Ok(()) };
        let first = *self.votes.entry((region, voter, message.term)).or_insert(candidate);
        holds("one vote in a term", first == candidate, || {
            format!("region {region} term {}: node {voter} voted for {first} and {candidate}", message.term)
        })
    }

    /// A replica starts from what it stored.
    pub(crate) fn starts(&self, region: RegionId, node: NodeId, stored: &HardState) -> Result<(), Violation> {
        let told = self.terms.get(&(region, node)).copied().unwrap_or_default();
        holds("terms never go back", told <= stored.term, || {
            format!("region {region} node {node}: spoke in term {told}, starts in term {}", stored.term)
        })?;
        let vote = self.votes.get(&(region, node, stored.term));
        let kept = vote.is_none_or(|vote| vote.0 == stored.vote);
        holds("votes survive a crash", kept, || {
            format!(
                "region {region} node {node} term {}: voted for {vote:?}, knows {}",
                stored.term, stored.vote
            )
        })
    }
}

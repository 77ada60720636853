//! Linearizable reads: Raft's ReadIndex in rounds.
//!
//! A read joins the round that starts after it arrived, never one under way: that one may have fixed its index before
//! a write that the reader has seen was committed (tikv#7971). Each round has a context of its own that is never used
//! again: raft-rs would answer a known context with the index of its first use (etcd#20418).
//!
//! A follower asks its leader for the round. Question and answer may be lost, and a new leader drops what it is asked before
//! its first entry is committed; so a follower's round that is not answered in time is given up, and its reads join the
//! next one, under another context.

use crate::coverage::{Branch, reached};
use crate::ids::{Index, NodeId, Term};
use std::collections::VecDeque;

/// Rounds under way. More would cost heartbeats and save no waiting; while two run, reads gather for the next.
const ROUNDS_MAX: usize = 2;

#[derive(Debug)]
struct Round<R> {
    context: Vec<u8>,
    reads: Vec<R>,
    /// What the leader found committed, once a majority has confirmed that it leads.
    index: Option<Index>,
    /// When it began.
    tick: u64,
}

/// The reads of one group.
#[derive(Debug)]
pub(super) struct Reads<R> {
    waiting: Vec<R>,
    rounds: VecDeque<Round<R>>,
    /// Node and start of the process: contexts differ from those of any other.
    nonce: (NodeId, u64),
    counter: u64,
}

impl<R> Reads<R> {
    pub(super) fn new(node: NodeId, incarnation: u64) -> Self {
        Self { waiting: Vec::new(), rounds: VecDeque::new(), nonce: (node, incarnation), counter: 0 }
    }

    pub(super) fn wait(&mut self, read: R) {
        self.waiting.push(read);
    }

    /// A leader serves a read by what it knows to be committed, and asks nobody whether it still leads.
    #[cfg(feature = "bug-read-without-round")]
    pub(super) fn at_once(&mut self, read: R, committed: Index) {
        self.rounds.push_back(Round {
            context: Vec::new(),
            reads: vec![read],
            index: Some(committed),
            tick: 0,
        });
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len() + self.rounds.iter().map(|round| round.reads.len()).sum::<usize>()
    }

    /// A new context, if reads wait and a round may start.
    pub(super) fn next_context(&mut self, term: Term) -> Option<Vec<u8>> {
        let under_way = self.rounds.iter().filter(|round| round.index.is_none()).count();
        if self.waiting.is_empty() || ROUNDS_MAX <= under_way {
            return None;
        }
        self.counter += 1;
        let parts = [self.nonce.0.0, self.nonce.1, term, self.counter];
        Some(parts.iter().flat_map(|part| part.to_be_bytes()).collect())
    }

    /// The round of `context` has started with all that wait.
    pub(super) fn started(&mut self, context: Vec<u8>, tick: u64) {
        self.rounds.push_back(Round { context, reads: std::mem::take(&mut self.waiting), index: None, tick });
    }

    /// Gives up the rounds that began before `tick` and have no answer. Their reads wait for the next one, which begins
    /// later than they came, as it must.
    pub(super) fn begin_anew(&mut self, tick: u64) {
        while let Some(round) = self.rounds.pop_front_if(|round| round.index.is_none() && round.tick < tick) {
            reached(Branch::RaftReadRoundAnew);
            self.waiting.extend(round.reads);
            if cfg!(feature = "bug-read-context-reused") {
                // The next round is called by the same name.
                self.counter -= 1;
            }
        }
    }

    /// raft-rs has answered. Contexts that are not known are of a round that was given up.
    pub(super) fn confirmed(&mut self, context: &[u8], index: Index) {
        // raft-rs answers a round and all before it; an earlier one whose answer was lost gains the later index.
        let Some(place) = self.rounds.iter().position(|round| round.context == context) else { return };
        for round in self.rounds.range_mut(..=place) {
            round.index.get_or_insert(index);
        }
    }

    /// The reads whose index is applied.
    pub(super) fn ready(&mut self, applied: Index) -> Vec<R> {
        let mut ready = Vec::new();
        while let Some(round) =
            self.rounds.pop_front_if(|round| round.index.is_some_and(|index| index <= applied))
        {
            ready.extend(round.reads);
        }
        ready
    }

    /// Gives back all reads; rounds under way are forgotten.
    pub(super) fn drain(&mut self) -> Vec<R> {
        let mut reads: Vec<R> = self.rounds.drain(..).flat_map(|round| round.reads).collect();
        reads.append(&mut self.waiting);
        reads
    }
}

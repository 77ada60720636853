//! Writes on their way: those that wait for an entry, and those whose entry waits to be committed.
//!
//! A waiter is answered by the position of its entry, (index, term): if another term is committed at that index the
//! write is certainly lost, and nothing else tells so. Losing the leadership alone tells nothing.

use super::effects::Failure;
use crate::command::Encoded;
use crate::coverage::{Branch, reached};
use crate::ids::{Index, Term};
use std::collections::{BTreeMap, VecDeque};

/// Commands of one caller, which become part of one entry.
#[derive(Debug)]
struct Queued<W> {
    commands: Encoded,
    waiter: W,
}

/// All writes of one group that have no answer yet.
#[derive(Debug)]
pub(super) struct Proposals<W> {
    queue: VecDeque<Queued<W>>,
    queue_bytes: usize,
    /// The callers of each entry under way. There can be two at one index: one of an earlier term in which this node
    /// led, whose fate is open, and one of this term.
    pending: BTreeMap<(Index, Term), Vec<(W, usize)>>,
}

impl<W> Default for Proposals<W> {
    fn default() -> Self {
        Self { queue: VecDeque::new(), queue_bytes: 0, pending: BTreeMap::new() }
    }
}

impl<W> Proposals<W> {
    /// Queues commands, unless that exceeds `bytes_max`: then the waiter comes back.
    pub(super) fn queue(&mut self, commands: Encoded, waiter: W, bytes_max: usize) -> Result<(), W> {
        if bytes_max < self.queue_bytes + commands.bytes.len() {
            return Err(waiter);
        }
        self.queue_bytes += commands.bytes.len();
        self.queue.push_back(Queued { commands, waiter });
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.pending.is_empty()
    }

    pub(super) fn has_queued(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Entries proposed in `term` and not yet committed. Those of earlier terms do not count: they may wait for an
    /// index that only new entries reach.
    pub(super) fn in_flight(&self, term: Term) -> usize {
        self.pending.keys().filter(|(_, proposed)| *proposed == term).count()
    }

    /// Whether an entry of another term than `term` is under way.
    pub(super) fn has_older(&self, term: Option<Term>) -> bool {
        self.pending.keys().any(|(_, proposed)| Some(*proposed) != term)
    }

    /// Appends queued commands to `entry` until it holds `bytes_max`; at least one caller's. Returns their waiters.
    pub(super) fn fill(&mut self, entry: &mut Vec<u8>, bytes_max: usize) -> Vec<(W, usize)> {
        let mut waiters = Vec::new();
        let mut bytes = 0;
        while let Some(next) = self.queue.front() {
            bytes += next.commands.bytes.len();
            if bytes_max < bytes && !waiters.is_empty() {
                break;
            }
            let Some(Queued { commands, waiter }) = self.queue.pop_front() else { break };
            self.queue_bytes -= commands.bytes.len();
            entry.extend_from_slice(&commands.bytes);
            waiters.push((waiter, commands.count));
        }
        waiters
    }

    /// The callers now wait for this position of the log.
    pub(super) fn proposed(&mut self, index: Index, term: Term, waiters: Vec<(W, usize)>) {
        self.pending.insert((index, term), waiters);
    }

    /// An entry is committed. Gives its callers, and collects in `lost` those whose place it or an earlier one took.
    pub(super) fn committed(
        &mut self,
        index: Index,
        term: Term,
        lost: &mut Vec<(W, Failure)>,
    ) -> Option<Vec<(W, usize)>> {
        let mut mine = None;
        while let Some(first) = self.pending.first_entry().filter(|first| first.key().0 <= index) {
            let place = *first.key();
            let waiters = first.remove();
            if place == (index, term) {
                mine = Some(waiters);
            } else {
                reached(Branch::RaftWriteSuperseded);
                lost.extend(waiters.into_iter().map(|(waiter, _)| (waiter, Failure::Superseded)));
            }
        }
        mine
    }

    /// Gives back all that were never proposed.
    pub(super) fn drain_queue(&mut self) -> impl Iterator<Item = W> + '_ {
        self.queue_bytes = 0;
        self.queue.drain(..).map(|queued| queued.waiter)
    }

    /// Gives back all whose place is at `index` or before it: what stands there is no longer told entry by entry.
    pub(super) fn drain_to(&mut self, index: Index) -> impl Iterator<Item = W> + '_ {
        let covered = self.pending.extract_if(.., move |(place, _), _| *place <= index);
        covered.flat_map(|(_, waiters)| waiters).map(|(waiter, _)| waiter)
    }

    /// Gives back all whose entries are under way since another term than `term`, and may be committed yet.
    pub(super) fn drain_older(&mut self, term: Option<Term>) -> impl Iterator<Item = W> + '_ {
        let older = self.pending.extract_if(.., move |(_, proposed), _| Some(*proposed) != term);
        older.flat_map(|(_, waiters)| waiters).map(|(waiter, _)| waiter)
    }
}

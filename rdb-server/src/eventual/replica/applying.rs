//! What is synced is answered and applied, in steps. Between two of them the thread takes what has come meanwhile: those who were
//! answered first come with their next writes, which go to the disk while the rest is applied.

use super::{Replica, ReplicaError, Tools, UnderWay, Waiting};
use crate::budget::Share;
use crate::eventual::waiting::Acks;
use crate::waiter::Answers;
use fail::fail_point;
use rdb_core::eventual::run::Run;
use rdb_core::eventual::vector::{Origin, Seq};
use rdb_core::ids::NodeId;
use std::collections::{BTreeSet, VecDeque};

/// Writes of this node's own that are answered and applied at a time: so long may a reader have to wait.
pub(super) const OWN_WRITES_PER_STEP: usize = 128;
/// Writes of other nodes that are applied at a time, or one run. There may be many, and nobody here waits for them.
const OTHERS_WRITES_PER_STEP: usize = 32;
/// Bytes that are answered and applied at a time, or one run: what they take is free for other requests from their answers on.
const BYTES_PER_STEP: usize = 1 << 20;
/// Log writes of a region that are synced and not applied yet, before no more are handed out.
pub(super) const WRITES_TO_APPLY_MAX: usize = 2;

/// What one log write held, from its sync on.
pub(super) struct Applying {
    /// What is yet to be applied, this node's own first, and how long each is.
    runs: VecDeque<(Run, usize)>,
    /// Who is to be answered right before the last of his writes is applied.
    waiters: VecDeque<Waiting>,
    /// Who waits for other members, and does so from when all of this node's own is applied.
    later: Vec<Waiting>,
    /// Who waits for this node to have it.
    asking: BTreeSet<NodeId>,
    _shares: Vec<Share>,
}

impl Applying {
    /// Some runs of this node's, or of others.
    fn next_step(&mut self, me: Origin) -> Vec<Run> {
        let is_own = self.has_own(me);
        let most = if is_own { OWN_WRITES_PER_STEP } else { OTHERS_WRITES_PER_STEP };
        let (mut writes, mut bytes) = (0, 0);
        let fits = |(run, len): &&(Run, usize)| {
            let is_first = writes == 0;
            writes += run.entries.len();
            bytes += len;
            is_first || writes <= most && bytes <= BYTES_PER_STEP && is_own == (run.origin == me)
        };
        let count = self.runs.iter().take_while(fits).count();
        self.runs.drain(..count).map(|(run, _)| run).collect()
    }

    fn has_own(&self, me: Origin) -> bool {
        self.runs.front().is_some_and(|(run, _)| run.origin == me)
    }

    /// Those whose last write is not behind `up_to`, but for those who wait for other members.
    fn answer(&mut self, up_to: Seq) {
        while let Some((waiter, answers, last)) = self.waiters.pop_front_if(|(.., last)| last.seq <= up_to) {
            if waiter.terms().acks == Acks::One {
                waiter.answer(Ok(Answers::Eventual(answers, last)));
            } else {
                self.later.push((waiter, answers, last));
            }
        }
    }
}

impl Replica {
    /// The oldest log write is synced: it is applied next, and the first step done.
    pub(in crate::eventual) fn synced(&mut self, tools: &Tools) -> Result<(), ReplicaError> {
        fail_point!("origin-synced");
        self.enters = false;
        let Some(UnderWay { runs, waiters, asking, _shares }) = self.under_way.pop_front() else {
            return Ok(());
        };
        let mut synced = VecDeque::with_capacity(runs.len());
        for (run, bytes) in runs {
            self.logs.synced(run.origin, run.last());
            self.stamps.add(&run);
            self.unpushed_bytes += if run.origin == self.logs.me() { bytes.len() } else { 0 };
            let len = bytes.len();
            self.recent.add(run.origin, run.after, run.last(), bytes);
            synced.push_back((run, len));
        }
        self.tell_synced(synced.iter().map(|(run, _)| run))?;
        let (runs, waiters) = (synced, waiters.into());
        self.applying.push_back(Applying { runs, waiters, later: Vec::new(), asking, _shares });
        // Where writes are acknowledged before they are synced, what comes next is applied at once.
        if self.is_periodic() { self.finish_applying(tools) } else { self.apply_step(tools) }
    }

    /// Whether anything is synced and not applied yet.
    pub(in crate::eventual) fn is_applying(&self) -> bool {
        !self.applying.is_empty()
    }

    /// Whether it is to be applied without a pause: somebody waits for it, here or at another node, or for what comes behind it.
    pub(in crate::eventual) fn hurries_to_apply(&self) -> bool {
        let me = self.logs.me();
        let is_awaited = |applying: &Applying| {
            !applying.asking.is_empty() || !applying.waiters.is_empty() || applying.has_own(me)
        };
        // A session may have seen what is yet to be applied.
        self.shown.progress().is_followed()
            || WRITES_TO_APPLY_MAX <= self.applying.len()
            || self.applying.iter().any(is_awaited)
    }

    /// Applies some of it.
    ///
    /// Before that those are answered whose writes these are. The writes are durable, and whoever asks for them waits until they are
    /// applied: [`Progress::answered_first`].
    ///
    /// [`Progress::answered_first`]: crate::eventual::waiting::Progress::answered_first
    pub(in crate::eventual) fn apply_step(&mut self, tools: &Tools) -> Result<(), ReplicaError> {
        let (me, progress) = (self.logs.me(), self.shown.clone());
        let Some(first) = self.applying.front_mut() else { return Ok(()) };
        let step = first.next_step(me);
        if let Some(own) = step.iter().rfind(|run| run.origin == me) {
            progress.progress().answers(own.last());
            first.answer(own.last());
            // Who sends the answers may have been woken behind this thread, on a processor that it would keep.
            std::thread::yield_now();
            fail_point!("origin-answered");
        }
        let (has_own, is_last) = (first.has_own(me), first.runs.is_empty());
        if !step.is_empty() {
            self.apply(&step, tools)?;
            fail_point!("origin-applied");
        }
        if !has_own {
            self.answer_later();
        }
        if is_last {
            let asking = self.applying.pop_front().map(|done| done.asking);
            self.prompt.due.extend(asking.into_iter().flatten());
        }
        Ok(())
    }

    /// Applies all of it.
    pub(in crate::eventual) fn finish_applying(&mut self, tools: &Tools) -> Result<(), ReplicaError> {
        while self.is_applying() {
            self.apply_step(tools)?;
        }
        Ok(())
    }

    /// All that this node wrote is applied: who waits for other members, or wrote nothing, goes on from here.
    fn answer_later(&mut self) {
        self.show_acked();
        let Some(first) = self.applying.front_mut() else { return };
        for (waiter, answers, last) in first.later.drain(..).chain(first.waiters.drain(..)) {
            waiter.answer(Ok(Answers::Eventual(answers, last)));
        }
    }
}

//! What callers wait for besides the sync of their write: that other members have it too, or that this node shows what a
//! session has seen, or what it has answered itself. The thread says how far things are, in a few cells; who waits looks there, and
//! asks the thread nothing.
//!
//! A write is answered once this node has synced it, and applied next: the caller's next request comes in the meantime. Whoever reads
//! here waits until all is shown that was answered before. Whoever wants more acknowledgements waits from the moment when it is applied:
//! so a write that does not get them in time is known to be here, and its caller can be told so. The others report what they have
//! every few milliseconds; for writes that are awaited, they report at once.

use rdb_core::eventual::hlc::{DurableClock, OffFromMajority, TooFarAhead};
use rdb_core::eventual::session::{Seen, SessionToken};
use rdb_core::eventual::vector::{Origin, Seq, Vector, WriteId};
use rdb_core::ids::{Era, NodeId};
use rdb_core::version::Version;
use std::cmp;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::watch;

/// How many members must have a write before it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Acks {
    /// This one.
    #[default]
    One,
    /// A majority, this one among them.
    Quorum,
    /// All.
    All,
}

/// What a write asks for besides being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Terms {
    pub(crate) acks: Acks,
    /// The highest version that its writer has seen: it must get a higher one.
    pub(crate) seen: Option<Version>,
    /// The era that it was asked in, and is done in if it is done: its answer names that era's epoch. A node that starts goes
    /// through many eras while callers wait.
    pub(crate) asked_in: Option<Era>,
}

/// Why the terms of a write cannot be met. Nothing was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unmet {
    /// The version that the writer has seen is from the future.
    Ahead(TooFarAhead),
    /// The writer has seen a later era than this node.
    LaterEra { seen: Era, here: Era },
    /// This node's clock is not to be trusted.
    ClockOff(OffFromMajority),
}

impl Terms {
    /// Of a write that asks for nothing more.
    pub(crate) fn in_era(era: Era) -> Self {
        Self { asked_in: Some(era), ..Self::default() }
    }

    /// Whether the write may be done in this era.
    pub(crate) fn are_of(&self, era: Era) -> bool {
        self.asked_in.is_none_or(|asked_in| asked_in == era)
    }

    /// Lifts the clock above what the writer has seen.
    pub(super) fn meet(&self, era: Era, clock: &mut DurableClock, now_ms: u64) -> Result<(), Unmet> {
        let Some(seen) = self.seen else { return Ok(()) };
        match seen.era.cmp(&era) {
            // Every version of this era is higher.
            cmp::Ordering::Less => Ok(()),
            cmp::Ordering::Equal => clock.shown(seen.hlc, now_ms).map_err(Unmet::Ahead),
            cmp::Ordering::Greater => Err(Unmet::LaterEra { seen: seen.era, here: era }),
        }
    }
}

/// What this node shows of a region.
#[derive(Debug, Clone, Default)]
pub(crate) struct Applied {
    pub(crate) era: Era,
    pub(crate) vector: Vector,
}

impl Applied {
    /// Whether that is what the token says, or more.
    pub(crate) fn shows(&self, token: &SessionToken) -> bool {
        token.seen_at(self.era, &self.vector) == Seen::Satisfied
    }
}

/// Up to which of this node's own writes the members have applied them, and so synced.
#[derive(Debug, Clone, Default)]
pub(crate) struct Acked {
    era: Era,
    me: Option<Origin>,
    here: Seq,
    /// Of the others, as they have said.
    others: Vec<(NodeId, Seq)>,
}

impl Acked {
    /// Whether so many members have a write of this node.
    pub(crate) fn has(&self, era: Era, write: WriteId, acks: Acks) -> bool {
        // In a later era all members have what was acknowledged in an earlier one, but that is not for this to say.
        let known = self.era == era && self.me == Some(write.origin) && write.seq <= self.here;
        let members = self.others.len() + 1;
        let having = 1 + self.others.iter().filter(|(_, seq)| write.seq <= *seq).count();
        known
            && match acks {
                Acks::One => true,
                Acks::Quorum => members / 2 < having,
                Acks::All => having == members,
            }
    }

    /// Who is not known to have a write, ascending; and how many members there are.
    pub(crate) fn lacking(&self, write: WriteId) -> (Vec<NodeId>, usize) {
        let lacking = self.others.iter().filter(|(_, seq)| *seq < write.seq);
        (lacking.map(|(node, _)| *node).collect(), self.others.len() + 1)
    }

    fn set(&mut self, now: &Acked) -> bool {
        let changed =
            (self.era, self.me, self.here) != (now.era, now.me, now.here) || self.others != now.others;
        if changed {
            self.clone_from(now);
        }
        changed
    }
}

/// The cells of a region in one era.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    applied: watch::Sender<Applied>,
    acked: watch::Sender<Acked>,
    /// The last of this node's own writes that is applied, and the last that was answered.
    applied_own: AtomicU64,
    answered_own: AtomicU64,
}

impl Progress {
    /// The thread has applied so much, and of the writes of this node, `me`, all up to there.
    pub(super) fn applied(&self, era: Era, me: Origin, vector: &Vector) {
        self.applied.send_modify(|applied| {
            applied.era = era;
            applied.vector.clone_from(vector);
        });
        self.applied_own.store(vector.get(me), Ordering::Release);
    }

    /// The thread is about to answer this node's writes up to there: whoever asks for them from now on must find them.
    pub(super) fn answers(&self, up_to: Seq) {
        self.answered_own.fetch_max(up_to, Ordering::AcqRel);
    }

    /// The last of this node's own writes that was answered, if it is not applied yet: who reads now waits for it.
    pub(crate) fn answered_first(&self) -> Option<(Era, Seq)> {
        let answered = self.answered_own.load(Ordering::Acquire);
        let is_shown = answered <= self.applied_own.load(Ordering::Acquire);
        (!is_shown).then(|| (self.applied.borrow().era, answered))
    }

    /// The thread knows that the members have so many of this node's writes.
    pub(super) fn acked(&self, era: Era, me: Origin, here: Seq, others: impl Iterator<Item = (NodeId, Seq)>) {
        let now = Acked { era, me: Some(me), here, others: others.collect() };
        self.acked.send_if_modified(|acked| acked.set(&now));
    }

    /// For who waits until this node shows something.
    pub(crate) fn follow_applied(&self) -> watch::Receiver<Applied> {
        self.applied.subscribe()
    }

    /// Whether anybody waits until this node shows something.
    pub(super) fn is_followed(&self) -> bool {
        self.applied.receiver_count() != 0
    }

    /// For who waits until others have a write.
    pub(crate) fn follow_acked(&self) -> watch::Receiver<Acked> {
        self.acked.subscribe()
    }

    /// Whether this node shows what the token says.
    pub(crate) fn shows(&self, token: &SessionToken) -> bool {
        self.applied.borrow().shows(token)
    }
}

/// Which reports cannot wait for the next tick.
#[derive(Debug, Default)]
pub(super) struct Prompt {
    /// Writers wait until others have this node's writes up to here.
    pub(super) awaited: Seq,
    /// Who waits for runs that were taken in and are not handed to the log writer yet.
    pub(super) asking: BTreeSet<NodeId>,
    /// Who waits for runs that are applied now.
    pub(super) due: BTreeSet<NodeId>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdb_core::eventual::hlc::Start;
    use rdb_core::ids::Incarnation;
    use rdb_core::version::Hlc;

    const ME: Origin = Origin { node: NodeId(1), incarnation: Incarnation(4) };
    const ERA: Era = Era(3);

    fn acked(others: &[(u64, Seq)]) -> Acked {
        let progress = Progress::default();
        let others = others.iter().map(|(node, seq)| (NodeId(*node), *seq));
        progress.acked(ERA, ME, 10, others);
        progress.follow_acked().borrow().clone()
    }

    fn write(seq: Seq) -> WriteId {
        WriteId { origin: ME, seq }
    }

    #[test]
    fn terms_are_of_the_era_that_was_asked_in() {
        assert!(Terms::in_era(Era(3)).are_of(Era(3)));
        assert!(!Terms::in_era(Era(3)).are_of(Era(5)));
        assert!(Terms::default().are_of(Era(5)));
    }

    #[test]
    fn a_write_is_acknowledged_by_as_many_as_have_it() {
        let acked = acked(&[(2, 9), (3, 7)]);
        let has = |seq| [Acks::One, Acks::Quorum, Acks::All].map(|acks| acked.has(ERA, write(seq), acks));
        assert_eq!(has(7), [true, true, true]);
        assert_eq!(has(9), [true, true, false]);
        assert_eq!(has(10), [true, false, false]);
        assert_eq!(has(11), [false; 3], "not even here");
        assert_eq!(acked.lacking(write(9)), (vec![NodeId(3)], 3));
        assert!(!acked.has(Era(2), write(7), Acks::One), "of another era");
        let before = WriteId { origin: Origin { incarnation: Incarnation(3), ..ME }, seq: 1 };
        assert!(!acked.has(ERA, before, Acks::One), "of an earlier start");
    }

    #[test]
    fn a_majority_is_more_than_half() {
        let five = acked(&[(2, 10), (3, 5), (4, 5), (5, 0)]);
        assert!(!five.has(ERA, write(10), Acks::Quorum) && five.has(ERA, write(5), Acks::Quorum));
        let alone = acked(&[]);
        assert!(alone.has(ERA, write(10), Acks::Quorum) && alone.has(ERA, write(10), Acks::All));
    }

    #[test]
    fn a_writer_gets_a_version_above_what_it_has_seen_or_none() {
        let hour_ms = 3_600_000;
        let mut clock = DurableClock::start(Start { wall_ms: hour_ms, monotonic_ms: 0, mark: Hlc(0) });
        clock.persisted(Hlc::from_millis(2 * hour_ms));
        let mut meet = |era, ahead_ms| {
            let seen = Version { era: Era(era), hlc: Hlc::from_millis(hour_ms + ahead_ms), node: NodeId(9) };
            let terms = Terms { seen: Some(seen), ..Terms::default() };
            terms.meet(ERA, &mut clock, 0).map(|()| seen.hlc < clock.stamp(0).unwrap())
        };
        assert_eq!(meet(3, 400), Ok(true));
        assert_eq!(meet(3, 901), Err(Unmet::Ahead(TooFarAhead { ahead_ms: 901 })));
        assert_eq!(meet(2, 5000), Ok(false), "its era is over, so its stamp does not matter");
        assert_eq!(meet(4, 0), Err(Unmet::LaterEra { seen: Era(4), here: ERA }));
    }
}

//! The origin logs of one region on one node: which writes of which origin it has logged and synced, which runs it may
//! take, and what it may drop.
//!
//! The runs themselves lie on disk, under the region, the origin and the run's last place. This is what must be known
//! of them without reading. A run is logged when it has been handed to the log writer, and synced when the log writer
//! says so; only then may it be applied, or sent on.

use super::run::Run;
use super::vector::{Origin, Seq, Vector};
use crate::coverage::{Branch, reached};
use crate::ids::{Era, NodeId};
use std::collections::{BTreeMap, VecDeque};

/// How far apart the places are whose bytes are remembered. At the default cap of 2 GiB those are 32,768.
const MARK_BYTES: u64 = 64 << 10;

/// Which of a node's writes may still be taken in. A switch of mode that leaves a node out puts one up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fence {
    /// None.
    Shut,
    /// Those that this vector has.
    UpTo(Vector),
}

/// Why a run is not taken. The logs and their vectors are as before.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// This region is not in eventual mode, or no longer.
    #[error(
        "this node's region takes no runs: it is not in eventual mode; the run of era {found} was not taken"
    )]
    NotEventual {
        /// The run's era.
        found: Era,
    },
    /// One of the two has yet to come into the other's era.
    #[error("the run is of era {found}, this node's region is in era {expected}; it was not taken")]
    Era {
        /// The run's.
        found: Era,
        /// The region's.
        expected: Era,
    },
    /// Writes between what is here and the run are missing. The sender goes on from what is here.
    #[error(
        "the run of {origin:?} begins after its write {after}, but {logged} is the last one here; send from there"
    )]
    Missing {
        /// Whose run.
        origin: Origin,
        /// Where it begins.
        after: Seq,
        /// What is here.
        logged: Seq,
    },
    /// A switch has left the node out that wrote it.
    #[error(
        "writes of {origin:?} up to {last} are not taken: the switch that is under way has left its node out"
    )]
    Fenced {
        /// Whose run.
        origin: Origin,
        /// Its last write.
        last: Seq,
    },
    /// This node's own log has not got what another node says that it wrote.
    #[error(
        "another node has writes of this one up to {last}, of its present start {origin:?}, but it has written {logged}; they \
         were not taken; two nodes have one identity, or a run was forged"
    )]
    NeverWritten {
        /// This node.
        origin: Origin,
        /// The run's last write.
        last: Seq,
        /// What this node has written.
        logged: Seq,
    },
}

/// Synced writes are missing: the log was truncated further than the data was flushed, or has lost something. The node
/// must not go on with this region.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "writes of {origin:?} from {from} to {to} are neither in the log nor in the data; do not start the node with this directory; \
     the other nodes have what it was given"
)]
pub struct Hole {
    /// Whose writes.
    pub origin: Origin,
    /// The first that is missing.
    pub from: Seq,
    /// The last.
    pub to: Seq,
}

/// What is on disk of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Whose.
    pub origin: Origin,
    /// The place before its first write.
    pub after: Seq,
    /// The place of its last.
    pub last: Seq,
    /// Its encoded size.
    pub bytes: u64,
}

impl Held {
    /// Of a run that was encoded in `bytes`.
    pub fn of(run: &Run, bytes: usize) -> Self {
        Self { origin: run.origin, after: run.after, last: run.last(), bytes: bytes as u64 }
    }
}

/// One origin's log.
#[derive(Debug, Default)]
struct Log {
    /// Runs that end here or before were dropped.
    dropped: Seq,
    logged: Seq,
    synced: Seq,
    /// All bytes ever logged.
    bytes_logged: u64,
    /// All bytes dropped, to within a mark.
    bytes_dropped: u64,
    /// Places, and the bytes logged up to each.
    marks: VecDeque<(Seq, u64)>,
}

impl Log {
    fn log(&mut self, held: &Held) {
        self.logged = held.last;
        self.bytes_logged += held.bytes;
        if self.marks.back().map_or(self.bytes_dropped, |(_, bytes)| *bytes) + MARK_BYTES <= self.bytes_logged
        {
            self.marks.push_back((held.last, self.bytes_logged));
        }
    }

    fn drop_to(&mut self, seq: Seq) {
        self.dropped = seq;
        while let Some((_, bytes)) = self.marks.pop_front_if(|(at, _)| *at <= seq) {
            self.bytes_dropped = bytes;
        }
        if seq == self.logged {
            self.bytes_dropped = self.bytes_logged;
        }
    }

    /// The writes up to `seq` have come otherwise: the log goes on behind them.
    fn skip_to(&mut self, seq: Seq) {
        (self.logged, self.synced) = (seq, seq);
        self.drop_to(seq);
    }

    /// The bytes of the runs behind `seq`: at least those, and less than a mark more.
    fn bytes_after(&self, seq: Seq) -> u64 {
        if self.logged <= seq {
            return 0;
        }
        let below = self.marks.partition_point(|(at, _)| *at <= seq);
        let dropped = below.checked_sub(1).map_or(self.bytes_dropped, |mark| self.marks[mark].1);
        self.bytes_logged - dropped
    }
}

/// A region's origin logs in one era.
#[derive(Debug)]
pub struct OriginLogs {
    era: Era,
    me: Origin,
    /// Whether the region is in eventual mode.
    open: bool,
    logs: BTreeMap<Origin, Log>,
    fences: BTreeMap<NodeId, Fence>,
}

impl OriginLogs {
    /// New, empty logs for an era that begins.
    pub fn begin(era: Era, me: Origin) -> Self {
        Self { era, me, open: true, logs: BTreeMap::new(), fences: BTreeMap::new() }
    }

    /// The logs as a start finds them: `applied` is what the data has, and `runs` are those on disk, of each origin in
    /// order. What is behind `applied` is to be applied again.
    ///
    /// # Errors
    /// There is a hole between the two, or in the log.
    pub fn restore(
        era: Era,
        me: Origin,
        applied: &Vector,
        runs: impl IntoIterator<Item = Held>,
    ) -> Result<Self, Hole> {
        Self::restore_behind(era, me, applied, &Vector::default(), runs)
    }

    /// The same at a node that has put a copy aside, complete, of all up to `copied`: what lies within it need not be in the
    /// logs. It is to be merged before what is in the logs is applied.
    ///
    /// # Errors
    /// As there.
    pub fn restore_behind(
        era: Era,
        me: Origin,
        applied: &Vector,
        copied: &Vector,
        runs: impl IntoIterator<Item = Held>,
    ) -> Result<Self, Hole> {
        let mut logs = Self::begin(era, me);
        let hole = |origin, have: Seq, to| Err(Hole { origin, from: have + 1, to });
        for held in runs {
            let (origin, after) = (held.origin, held.after);
            let first = Log { dropped: after, logged: after, ..Log::default() };
            let before = logs.logs.get(&origin).map(|log| log.logged);
            let have = before.unwrap_or(applied.get(origin)).max(copied.get(origin));
            if have < after {
                return hole(origin, have, after);
            }
            let log = logs.logs.entry(origin).or_insert(first);
            if log.logged < after {
                reached(Branch::EventualCopyFillsGap);
                log.skip_to(after);
            }
            log.log(&held);
            log.synced = log.logged;
        }
        for (origin, seq) in applied.iter() {
            // Where there is no run, all of them were dropped.
            let dropped = Log { dropped: seq, logged: seq, synced: seq, ..Log::default() };
            let logged = logs.logs.entry(origin).or_insert(dropped).logged;
            if logged < seq && copied.get(origin) < seq {
                return hole(origin, logged, seq);
            }
        }
        logs.copied(copied);
        Ok(logs)
    }

    /// A copy has brought all up to `vector`: the logs of those origins that were not so far go on behind it. Those origins, and
    /// from where; runs that end there or before are to be dropped.
    pub fn copied(&mut self, vector: &Vector) -> Vec<(Origin, Seq)> {
        let mut skipped = Vec::new();
        for (origin, seq) in vector.iter() {
            let log = self.logs.entry(origin).or_default();
            if log.logged < seq {
                log.skip_to(seq);
                skipped.push((origin, seq));
            }
        }
        skipped
    }

    /// Which era's writes these are.
    pub fn era(&self) -> Era {
        self.era
    }

    /// This node, as one who writes.
    pub fn me(&self) -> Origin {
        self.me
    }

    /// The last place that this node has given to a write.
    pub fn written(&self) -> Seq {
        self.logs.get(&self.me).map_or(0, |log| log.logged)
    }

    /// What is new in a run that another node sent, to be logged; `None` if it is all here.
    ///
    /// # Errors
    /// It must not be taken in.
    pub fn receive(&self, run: Run) -> Result<Option<Run>, Refusal> {
        let (origin, after, last) = (run.origin, run.after, run.last());
        if !self.open {
            return Err(Refusal::NotEventual { found: run.era });
        }
        if run.era != self.era {
            reached(Branch::EventualRunOfOtherEra);
            return Err(Refusal::Era { found: run.era, expected: self.era });
        }
        let logged = self.logs.get(&origin).map_or(0, |log| log.logged);
        if last <= logged {
            return Ok(None);
        }
        if origin == self.me {
            return Err(Refusal::NeverWritten { origin, last, logged });
        }
        if logged < after {
            reached(Branch::EventualRunAfterGap);
            return Err(Refusal::Missing { origin, after, logged });
        }
        if after < logged {
            reached(Branch::EventualRunHalfKnown);
        }
        match self.fences.get(&origin.node) {
            Some(Fence::Shut) => Err(Refusal::Fenced { origin, last }),
            Some(Fence::UpTo(cut)) if cut.get(origin) < last => Err(Refusal::Fenced { origin, last }),
            _ => Ok(Some(run.without(logged))),
        }
    }

    /// Takes note that a run was handed to the log writer: one of this node's own, or what [`Self::receive`] gave.
    ///
    /// # Panics
    /// It does not follow: its origin's log would have a hole.
    pub fn log(&mut self, held: &Held) {
        let log = self.logs.entry(held.origin).or_default();
        assert_eq!(log.logged, held.after, "an origin's runs are logged in order, each once");
        log.log(held);
    }

    /// Takes note that an origin's runs up to `last` are synced.
    pub fn synced(&mut self, origin: Origin, last: Seq) {
        let log = self.logs.entry(origin).or_default();
        log.synced = log.synced.max(last.min(log.logged));
    }

    /// What is synced here. This is what a seal reports, what peers are told, and what may be sent to them.
    pub fn synced_vector(&self) -> Vector {
        self.logs.iter().map(|(origin, log)| (*origin, log.synced)).collect()
    }

    /// What is logged here, synced or not.
    pub fn logged_vector(&self) -> Vector {
        self.logs.iter().map(|(origin, log)| (*origin, log.logged)).collect()
    }

    /// Up to where runs are no longer in the logs, of all origins.
    pub fn dropped_vector(&self) -> Vector {
        self.logs
            .iter()
            .filter(|(_, log)| log.dropped != 0)
            .map(|(origin, log)| (*origin, log.dropped))
            .collect()
    }

    /// Runs that end here or before are no longer in the log.
    pub fn dropped(&self, origin: Origin) -> Seq {
        self.logs.get(&origin).map_or(0, |log| log.dropped)
    }

    /// Up to where runs may be dropped now, of each origin of which there is something to drop: what all members have
    /// synced, or a copy will bring, and the data has flushed. The caller drops the runs that end there or before.
    pub fn truncate(&mut self, stable: &Vector, flushed: &Vector) -> Vec<(Origin, Seq)> {
        let mut dropped = Vec::new();
        for (origin, log) in &mut self.logs {
            let to = stable.get(*origin).min(flushed.get(*origin)).min(log.synced);
            if log.dropped < to {
                log.drop_to(to);
                dropped.push((*origin, to));
            }
        }
        dropped
    }

    /// The bytes of the runs that a node would need that has `vector`, to within 64 KiB for each origin.
    pub fn bytes_after(&self, vector: &Vector) -> u64 {
        self.logs.iter().map(|(origin, log)| log.bytes_after(vector.get(*origin))).sum()
    }

    /// The bytes of all runs that are kept.
    pub fn bytes(&self) -> u64 {
        self.logs.values().map(|log| log.bytes_logged - log.bytes_dropped).sum()
    }

    /// Puts up a fence before a node's writes, or moves the one that is there.
    pub fn fence(&mut self, node: NodeId, fence: Fence) {
        self.fences.insert(node, fence);
    }

    /// Takes all fences down: the switch was aborted.
    pub fn take_fences_down(&mut self) {
        self.fences.clear();
    }

    /// What this node has synced beyond a cut, with the places before the first and of the last: what a node that a
    /// switch left out puts into quarantine.
    pub fn beyond(&self, cut: &Vector) -> Vec<(Origin, Seq, Seq)> {
        cut.behind(&self.synced_vector()).collect()
    }

    /// The era has ended: nothing is taken in any more, until another one begins with new logs.
    pub fn close(&mut self) {
        self.open = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eventual::run::tests::put;
    use crate::eventual::run::{Replaced, join};
    use crate::eventual::vector::tests::origin;
    use crate::version::Hlc;
    use proptest::prelude::*;

    const ERA: Era = Era(3);

    fn run(of: Origin, after: Seq, last: Seq) -> Run {
        let entries = (after + 1..=last).map(|seq| put(seq, b"k", Replaced::Nothing(Hlc(0)))).collect();
        Run { era: ERA, origin: of, after, entries }
    }

    fn logs_with(of: Origin, last: Seq) -> OriginLogs {
        let mut logs = OriginLogs::begin(ERA, origin(1, 1));
        logs.log(&Held { origin: of, after: 0, last, bytes: 10 });
        logs.synced(of, last);
        logs
    }

    #[test]
    fn a_run_is_taken_if_it_is_of_this_era_follows_and_no_fence_stands_before_it() {
        let two = origin(2, 1);
        let mut logs = logs_with(two, 5);
        let vector = logs.logged_vector();
        assert_eq!(logs.receive(run(two, 5, 7)).unwrap(), Some(run(two, 5, 7)));
        assert_eq!(logs.receive(run(two, 3, 7)).unwrap(), Some(run(two, 5, 7)), "only what is new");
        assert_eq!(logs.receive(run(two, 0, 5)).unwrap(), None, "it came twice");
        assert!(matches!(logs.receive(run(two, 6, 7)), Err(Refusal::Missing { logged: 5, .. })));
        assert!(matches!(logs.receive(run(origin(2, 2), 1, 2)), Err(Refusal::Missing { logged: 0, .. })));
        for era in [Era(2), Era(4)] {
            assert!(matches!(logs.receive(Run { era, ..run(two, 5, 7) }), Err(Refusal::Era { .. })));
        }
        assert!(matches!(logs.receive(run(origin(1, 1), 0, 1)), Err(Refusal::NeverWritten { .. })));
        assert!(
            logs.receive(run(origin(1, 0), 0, 1)).is_ok(),
            "of an earlier start, that lost its log's end"
        );

        logs.fence(NodeId(2), Fence::Shut);
        assert!(matches!(logs.receive(run(two, 5, 6)), Err(Refusal::Fenced { .. })));
        assert!(matches!(logs.receive(run(origin(2, 9), 0, 6)), Err(Refusal::Fenced { .. })));
        assert!(logs.receive(run(origin(3, 1), 0, 6)).is_ok());
        logs.fence(NodeId(2), Fence::UpTo([(two, 6)].into_iter().collect()));
        assert!(logs.receive(run(two, 5, 6)).is_ok());
        assert!(matches!(logs.receive(run(two, 5, 7)), Err(Refusal::Fenced { .. })));
        logs.take_fences_down();
        assert!(logs.receive(run(two, 5, 7)).is_ok());
        logs.close();
        assert!(matches!(logs.receive(run(two, 5, 7)), Err(Refusal::NotEventual { .. })));
        assert_eq!(logs.logged_vector(), vector, "what is refused leaves no trace");
    }

    #[test]
    fn nothing_is_dropped_that_a_member_or_the_data_may_need() {
        let (one, two) = (origin(1, 1), origin(2, 1));
        let mut logs = logs_with(two, 9);
        logs.log(&Held { origin: one, after: 0, last: 4, bytes: 10 });
        let vector = |a, b| [(one, a), (two, b)].into_iter().collect::<Vector>();
        assert_eq!(
            logs.truncate(&vector(4, 3), &vector(4, 9)),
            [(two, 3)],
            "node 1's runs are not synced yet"
        );
        logs.synced(one, 4);
        assert_eq!(logs.truncate(&vector(4, 9), &vector(2, 3)), [(one, 2)]);
        assert_eq!(logs.truncate(&vector(4, 9), &vector(4, 9)), [(one, 4), (two, 9)]);
        assert_eq!(logs.bytes(), 0);
        assert_eq!((logs.dropped(one), logs.written()), (4, 4));
    }

    #[test]
    fn a_log_goes_on_behind_a_copy_and_a_start_finds_no_hole_in_what_it_has_brought() {
        let (one, two, three) = (origin(1, 1), origin(2, 1), origin(3, 1));
        let mut logs = logs_with(two, 5);
        let vector: Vector = [(two, 9), (three, 4)].into_iter().collect();
        assert_eq!(logs.copied(&vector), [(two, 9), (three, 4)]);
        assert_eq!(logs.copied(&vector), [], "it is there");
        assert_eq!((logs.synced_vector(), logs.bytes()), (vector.clone(), 0));
        assert_eq!(logs.dropped(two), 9, "nobody is served from before it");
        assert_eq!(logs.receive(run(two, 7, 11)).unwrap(), Some(run(two, 9, 11)));
        let held = |after, last| Held { origin: two, after, last, bytes: 10 };
        let applied = [(two, 3)].into_iter().collect();
        let runs = [held(2, 5), held(9, 11)];
        let restore = |copied: &Vector| OriginLogs::restore_behind(ERA, one, &applied, copied, runs);
        let logs = restore(&vector).unwrap();
        assert_eq!(logs.synced_vector(), [(two, 11), (three, 4)].into_iter().collect());
        assert_eq!((logs.dropped(two), logs.dropped(three)), (9, 4));
        assert_eq!(restore(&Vector::default()).unwrap_err(), Hole { origin: two, from: 6, to: 9 });
    }

    #[test]
    fn a_start_finds_what_was_there_and_a_hole_is_an_error() {
        let two = origin(2, 1);
        let held = |after, last| Held { origin: two, after, last, bytes: 10 };
        let applied = |seq| [(two, seq), (origin(3, 1), 8)].into_iter().collect::<Vector>();
        let restore =
            |seq, runs: &[Held]| OriginLogs::restore(ERA, origin(1, 2), &applied(seq), runs.iter().copied());
        let logs = restore(4, &[held(2, 5), held(5, 6)]).unwrap();
        assert_eq!(logs.synced_vector(), [(two, 6), (origin(3, 1), 8)].into_iter().collect());
        assert_eq!((logs.dropped(two), logs.written()), (2, 0));
        let hole = |from, to| Hole { origin: two, from, to };
        assert_eq!(restore(1, &[held(2, 5)]).unwrap_err(), hole(2, 2));
        assert_eq!(restore(4, &[held(2, 5), held(7, 9)]).unwrap_err(), hole(6, 7));
        assert_eq!(restore(7, &[held(2, 5)]).unwrap_err(), hole(6, 7));
    }

    #[test]
    fn a_node_that_was_left_out_finds_what_lies_beyond_the_cut() {
        let logs = logs_with(origin(2, 1), 9);
        let cut = [(origin(2, 1), 4), (origin(3, 1), 7)].into_iter().collect();
        assert_eq!(logs.beyond(&cut), [(origin(2, 1), 4, 9)]);
    }

    proptest! {
        /// Against the sizes of all runs, added up.
        #[test]
        fn bytes_are_counted_to_within_a_mark(
            sizes in prop::collection::vec(1u64..200_000, 1..40), stable in 0u64..40, at in 0u64..40,
        ) {
            let two = origin(2, 1);
            let mut logs = OriginLogs::begin(ERA, origin(1, 1));
            for (after, bytes) in (0..).zip(&sizes) {
                logs.log(&Held { origin: two, after, last: after + 1, bytes: *bytes });
                logs.synced(two, after + 1);
            }
            let vector = |seq| [(two, seq)].into_iter().collect::<Vector>();
            logs.truncate(&vector(stable), &vector(99));
            let truth = |seq: u64| sizes.iter().skip(usize::try_from(seq).unwrap()).sum::<u64>();
            let kept = truth(stable);
            prop_assert!(kept <= logs.bytes() && (logs.bytes() < kept + MARK_BYTES), "{} {kept}", logs.bytes());
            let (after, at) = (logs.bytes_after(&vector(at)), at.max(stable));
            prop_assert!(truth(at) <= after && after < truth(at) + MARK_BYTES, "{after} {}", truth(at));
        }

        /// However a log is cut into runs, and whichever of them come twice or overlap, what is taken is each write once.
        #[test]
        fn runs_that_overlap_are_taken_once(cuts in prop::collection::vec((0u64..9, 1u64..9), 1..30)) {
            let two = origin(2, 1);
            let mut logs = OriginLogs::begin(ERA, origin(1, 1));
            let mut taken = Vec::new();
            for (after, len) in cuts {
                if let Ok(Some(new)) = logs.receive(run(two, after, after + len)) {
                    logs.log(&Held::of(&new, 1));
                    taken.push(new);
                }
            }
            let last = logs.logged_vector().get(two);
            prop_assert_eq!(join(taken).map_or(0, |all| all.entries.len() as u64), last);
        }
    }
}

//! The stamps of the runs that a node has and that some member may lack: for the lag and the frontier, which must not be told from
//! what is not known.
//!
//! While a member is away those are any number of runs. So they are remembered the more coarsely the older they are: neighbours
//! are merged into one that counts as old as the older of them. What is told of it is then a little too old, and never too young.

use super::lag::Writes;
use super::origin_log::OriginLogs;
use super::run::Run;
use super::vector::{Origin, Seq, Vector};
use crate::ids::NodeId;
use crate::version::Hlc;
use std::collections::{BTreeMap, VecDeque};

/// After so many runs the older ones are merged: soon enough to take little memory, and so seldom that it costs nothing.
const FRESH_MAX: usize = 4096;

/// Merged runs are told older than they are by at most their age over this, and a millisecond.
const AGE_PER_ERROR: u64 = 32;

/// The stamps of runs: a run is as old as its first write.
///
/// However many are added, it has at most 4096 entries that were added since it last merged, 2164 more for each node that wrote,
/// and 2 for each start of one: ages are milliseconds of 48 bits, and of any three neighbours that were not merged the first is
/// older than the third by more than one part in 32. An entry takes 16 bytes, and as much again where room is spare: in a
/// region of five nodes less than 500 KiB in all.
#[derive(Debug, Default)]
pub struct Stamps {
    /// Of each origin of which there are any.
    by_origin: BTreeMap<Origin, Runs>,
    /// How many were added since the older ones were merged.
    fresh: usize,
    /// Nothing is known of the writes up to here: their runs had left the log before this node looked, or never were in it.
    unknown: Vector,
}

impl Stamps {
    /// Of logs as they are found. Their runs are yet to be added.
    pub fn of(logs: &OriginLogs) -> Self {
        Self { unknown: logs.dropped_vector(), ..Self::default() }
    }

    /// Takes note of a run that is here.
    pub fn add(&mut self, run: &Run) {
        if let Some(first) = run.entries.first() {
            self.add_first(run.origin, run.last(), first.hlc);
        }
    }

    /// The same of a run that ends at `last` and whose first write has the stamp `hlc`.
    pub fn add_first(&mut self, origin: Origin, last: Seq, hlc: Hlc) {
        self.by_origin.entry(origin).or_default().add(last, hlc);
        self.fresh += 1;
        if self.fresh == FRESH_MAX {
            self.merge_older();
        }
    }

    /// The writes of `origin` up to `seq` have come in another way than by runs.
    pub fn skip(&mut self, origin: Origin, seq: Seq) {
        self.unknown.raise(origin, seq);
    }

    /// Forgets what all members have applied. Merged runs go together, once all of them are everywhere.
    pub fn forget(&mut self, everywhere: &Vector) {
        self.by_origin.retain(|origin, runs| {
            runs.forget(everywhere.get(*origin));
            !runs.0.is_empty()
        });
    }

    /// Whether all that was added was forgotten.
    pub fn is_empty(&self) -> bool {
        self.by_origin.is_empty()
    }

    /// Ages count from the latest run of the same node, in whichever of its starts: a start that is over gets no later ones, and what
    /// other nodes say may be by a wrong clock.
    fn merge_older(&mut self) {
        self.fresh = 0;
        let mut later: Option<(NodeId, Hlc)> = None;
        for (origin, runs) in self.by_origin.iter_mut().rev() {
            let of_node = later.filter(|(node, _)| *node == origin.node).map(|(_, hlc)| hlc);
            let Some(latest) = runs.last().max(of_node) else { continue };
            runs.merge_older(latest);
            later = Some((origin.node, latest));
        }
    }
}

impl Writes for Stamps {
    fn unknown_to(&self, origin: Origin) -> Seq {
        self.unknown.get(origin)
    }

    fn stamp_after(&self, origin: Origin, after: Seq) -> Option<Hlc> {
        self.by_origin.get(&origin)?.after(after)
    }

    fn last_stamp(&self, origin: Origin) -> Option<Hlc> {
        self.by_origin.get(&origin)?.last()
    }
}

/// Those of one origin: the place of a run's last write, and the run's stamp. Both ascend.
#[derive(Debug, Default)]
struct Runs(VecDeque<(Seq, Hlc)>);

impl Runs {
    fn add(&mut self, mut last: Seq, mut hlc: Hlc) {
        // An origin's places and stamps never go back. What would is merged, so that those here ascend whatever a node sends.
        while let Some(run) = self.0.pop_back_if(|run| last <= run.0 || hlc <= run.1) {
            (last, hlc) = (last.max(run.0), hlc.min(run.1));
        }
        self.0.push_back((last, hlc));
    }

    /// Forgets those that end at `seq` or before.
    fn forget(&mut self, seq: Seq) {
        while self.0.pop_front_if(|(last, _)| *last <= seq).is_some() {}
    }

    fn after(&self, seq: Seq) -> Option<Hlc> {
        let at = self.0.partition_point(|(last, _)| *last <= seq);
        self.0.get(at).map(|(_, hlc)| *hlc)
    }

    fn last(&self) -> Option<Hlc> {
        self.0.back().map(|(_, hlc)| *hlc)
    }

    /// Merges each with the one before it, where all that lies between that one and the next is about as old, as seen from
    /// `latest`. The last one stays as it is.
    fn merge_older(&mut self, latest: Hlc) {
        let mut merged: Vec<(Seq, Hlc)> = Vec::new();
        for next in self.0.drain(..) {
            if let [.., before, run] = &mut merged[..]
                && is_as_old(before.1, next.1, latest)
            {
                before.0 = run.0;
                merged.pop();
            }
            merged.push(next);
        }
        self.0 = merged.into();
    }
}

/// Whether all from `from` on and before `to` may count as old as `from`.
fn is_as_old(from: Hlc, to: Hlc, latest: Hlc) -> bool {
    let error_ms = to.millis() - from.millis();
    error_ms * AGE_PER_ERROR <= latest.millis() - to.millis()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eventual::lag::{Lag, Now, frontier, lag};
    use crate::eventual::peers::Report;
    use crate::eventual::vector::tests::origin;
    use crate::ids::Era;
    use proptest::prelude::*;

    const ERA: Era = Era(1);

    /// What one node's runs take when they are merged, whatever their stamps; and each of its starts.
    const MERGED_MAX: usize = 2164;
    const MERGED_PER_START_MAX: usize = 2;

    fn report(seq: Seq) -> Report {
        let vector: Vector = [(origin(1, 1), seq)].into_iter().filter(|(_, seq)| *seq != 0).collect();
        report_of(vector, Hlc::from_millis(900))
    }

    fn report_of(vector: Vector, promise: Hlc) -> Report {
        Report { era: ERA, synced: vector.clone(), applied: vector.clone(), shown: vector, promise }
    }

    fn entries(stamps: &Stamps) -> usize {
        stamps.by_origin.values().map(|runs| runs.0.len()).sum()
    }

    /// All runs, each by itself.
    #[derive(Default)]
    struct Exact(BTreeMap<(Origin, Seq), Hlc>);

    impl Exact {
        fn last(&self, origin: Origin) -> Seq {
            let runs = self.0.range((origin, 0)..=(origin, Seq::MAX));
            runs.map(|((_, last), _)| *last).next_back().unwrap_or(0)
        }
    }

    impl Writes for Exact {
        fn unknown_to(&self, _: Origin) -> Seq {
            0
        }

        fn stamp_after(&self, origin: Origin, after: Seq) -> Option<Hlc> {
            self.0.range((origin, after + 1)..=(origin, Seq::MAX)).next().map(|(_, hlc)| *hlc)
        }

        fn last_stamp(&self, origin: Origin) -> Option<Hlc> {
            self.0.range((origin, 0)..=(origin, Seq::MAX)).next_back().map(|(_, hlc)| *hlc)
        }
    }

    /// What a node with all of `exact` tells, by `writes`, when its peers have so much.
    fn tell(exact: &Exact, peers: &[Vector; 2], now_ms: u64, writes: &impl Writes) -> (Lag, Option<Hlc>) {
        let synced: Vector = exact.0.keys().copied().collect();
        let promise = Hlc::from_millis(now_ms + 1);
        let reports = peers.clone().map(|has| report_of(has, promise));
        let now = Now { era: ERA, synced: &synced, monotonic_ms: 0, physical_ms: now_ms };
        let heard = [(NodeId(2), Some(&reports[0]), 0), (NodeId(3), Some(&reports[1]), 0)];
        let mine = report_of(synced.clone(), promise);
        let members = [Some(&mine), Some(&reports[0]), Some(&reports[1])];
        (lag(now, heard, writes), frontier(ERA, members.into_iter(), writes))
    }

    #[derive(Debug, Clone)]
    enum Step {
        /// An origin writes so many runs, each so long after the one before.
        Write {
            origin: u64,
            runs: u64,
            every_ms: u64,
        },
        /// A peer applies so many hundredths of what it lacks of an origin.
        Apply {
            peer: usize,
            origin: u64,
            percent: u64,
        },
        /// A peer has a write of an origin that this node has not.
        Overtake {
            peer: usize,
            origin: u64,
        },
        Merge,
    }

    /// Two starts of a node, and another node.
    fn origin_of(number: u64) -> Origin {
        [origin(1, 1), origin(1, 2), origin(2, 1)][usize::try_from(number).unwrap()]
    }

    fn step() -> impl Strategy<Value = Step> {
        let every_ms = (0u32..14).prop_flat_map(|bits| 0..=1u64 << bits);
        prop_oneof![
            4 => (0u64..3, 1u64..40, every_ms)
                .prop_map(|(origin, runs, every_ms)| Step::Write { origin, runs, every_ms }),
            2 => (0usize..2, 0u64..3, 0u64..=100)
                .prop_map(|(peer, origin, percent)| Step::Apply { peer, origin, percent }),
            1 => (0usize..2, 0u64..3).prop_map(|(peer, origin)| Step::Overtake { peer, origin }),
            2 => Just(Step::Merge),
        ]
    }

    /// A member came into the era by a snapshot of its tenth write, and has the runs behind it. Another one has nothing yet: what
    /// it lacks first is older than any stamp that is known here.
    #[test]
    fn nothing_is_told_from_what_is_not_known() {
        let mut stamps = Stamps::default();
        stamps.skip(origin(1, 1), 10);
        stamps.add_first(origin(1, 1), 12, Hlc::from_millis(500));
        let (mine, behind, near) = (report(12), report(0), report(10));
        let tell = |other: &Report| frontier(ERA, [Some(&mine), Some(other)].into_iter(), &stamps);
        assert_eq!(tell(&behind), None);
        assert_eq!(tell(&near), Some(Hlc(Hlc::from_millis(500).0 - 1)));
        let now = Now { era: ERA, synced: &mine.synced, monotonic_ms: 0, physical_ms: 700 };
        let tell = |other: &Report| {
            let lag = lag(now, [(NodeId(2), Some(other), 0)], &stamps);
            (lag.at_least_ms, lag.known)
        };
        assert_eq!(tell(&behind), (200, false), "it is more");
        assert_eq!(tell(&near), (200, true));
    }

    #[test]
    fn what_is_everywhere_is_forgotten() {
        let mut stamps = Stamps::default();
        for (last, ms) in [(3, 100), (7, 200)] {
            stamps.add_first(origin(1, 1), last, Hlc::from_millis(ms));
        }
        assert_eq!(stamps.stamp_after(origin(1, 1), 3), Some(Hlc::from_millis(200)));
        stamps.forget(&report(3).applied);
        assert_eq!(stamps.stamp_after(origin(1, 1), 0), Some(Hlc::from_millis(200)));
        stamps.forget(&report(7).applied);
        assert!(stamps.is_empty());
    }

    #[test]
    fn what_is_everywhere_is_forgotten_up_to_there_of_each_origin() {
        let (one, two) = (origin(1, 1), origin(2, 1));
        let mut stamps = Stamps::default();
        for seq in 1..=9 {
            stamps.add_first(one, seq, Hlc::from_millis(seq));
            stamps.add_first(two, seq, Hlc::from_millis(seq));
        }
        stamps.forget(&[(one, 4), (two, 9)].into_iter().collect());
        assert_eq!(stamps.by_origin.keys().collect::<Vec<_>>(), [&one], "nothing is kept of who has nothing");
        assert_eq!(stamps.by_origin[&one].0.front(), Some(&(5, Hlc::from_millis(5))));
        stamps.forget(&Vector::default());
        assert_eq!(entries(&stamps), 5);
    }

    #[test]
    fn merged_runs_are_kept_until_all_of_them_are_everywhere() {
        let one = origin(1, 1);
        let mut stamps = Stamps::default();
        for (last, ms) in [(3, 100), (7, 101), (8, 102), (9, 1000)] {
            stamps.add_first(one, last, Hlc::from_millis(ms));
        }
        stamps.merge_older();
        assert_eq!(
            stamps.by_origin[&one].0,
            [(7, 100), (8, 102), (9, 1000)].map(|(last, ms)| (last, Hlc::from_millis(ms)))
        );
        stamps.forget(&report(6).applied);
        assert_eq!(stamps.stamp_after(one, 6), Some(Hlc::from_millis(100)));
        stamps.forget(&report(7).applied);
        assert_eq!(stamps.stamp_after(one, 6), Some(Hlc::from_millis(102)));
        stamps.forget(&report(9).applied);
        assert!(stamps.is_empty());
    }

    #[test]
    fn a_member_that_is_away_for_a_million_runs_costs_little_and_no_run_is_told_much_too_old() {
        let one = origin(1, 1);
        let mut stamps = Stamps::default();
        for seq in 1..=1_000_000 {
            stamps.add_first(one, seq, Hlc::from_millis(seq));
            stamps.forget(&Vector::default());
            assert!(entries(&stamps) <= FRESH_MAX + MERGED_MAX + MERGED_PER_START_MAX);
        }
        for has in (0..1_000_000).step_by(99) {
            let (age_ms, told) = (1_000_000 - (has + 1), stamps.stamp_after(one, has).unwrap());
            let told_ms = 1_000_000 - told.millis();
            assert!(
                age_ms <= told_ms && told_ms <= age_ms + age_ms / AGE_PER_ERROR,
                "{told_ms} for {age_ms}"
            );
        }
    }

    /// The worst that there is: ages up to the largest, each older than the next by the same part.
    #[test]
    fn what_merged_runs_take_does_not_depend_on_their_stamps() {
        const LARGEST_MS: u64 = (1 << 48) - 1;
        for part in [4, 32, 63, 64, 65, 100, 1000] {
            let older = |age_ms: &u64| Some(age_ms + (age_ms / part).max(1));
            let mut ages: Vec<u64> =
                std::iter::successors(Some(0), older).take_while(|age| *age <= LARGEST_MS).collect();
            ages.reverse();
            let mut runs = Runs::default();
            for (age_ms, last) in ages.into_iter().zip(1..) {
                runs.add(last, Hlc::from_millis(LARGEST_MS - age_ms));
            }
            runs.merge_older(Hlc::from_millis(LARGEST_MS));
            let entries = runs.0.len();
            assert!(entries <= MERGED_MAX + MERGED_PER_START_MAX, "{entries} by one part in {part}");
        }
    }

    #[test]
    fn a_node_that_starts_often_costs_little_more_than_one_that_stays() {
        let mut stamps = Stamps::default();
        for start in 1..=1_000 {
            for seq in 1..=1_000 {
                stamps.add_first(origin(1, start), seq, Hlc::from_millis(1_000 * start + seq));
            }
        }
        assert!(
            entries(&stamps) <= FRESH_MAX + MERGED_MAX + 1_000 * MERGED_PER_START_MAX,
            "{}",
            entries(&stamps)
        );
        assert_eq!(stamps.last_stamp(origin(1, 7)), Some(Hlc::from_millis(8_000)));
    }

    /// A node that breaks the rules, so that the bound holds all the same.
    #[test]
    fn a_stamp_that_goes_back_makes_what_came_before_it_older() {
        let one = origin(1, 1);
        let mut stamps = Stamps::default();
        for (last, ms) in [(1, 100), (2, 200), (3, 300), (4, 150)] {
            stamps.add_first(one, last, Hlc::from_millis(ms));
        }
        assert_eq!(stamps.stamp_after(one, 0), Some(Hlc::from_millis(100)));
        assert_eq!(stamps.stamp_after(one, 1), Some(Hlc::from_millis(150)));
        stamps.add_first(one, 4, Hlc::from_millis(400));
        assert_eq!(entries(&stamps), 2);
    }

    proptest! {
        #[test]
        fn what_is_merged_is_told_too_old_by_little_and_never_too_young(
            steps in prop::collection::vec(step(), 1..60),
        ) {
            let (mut stamps, mut exact) = (Stamps::default(), Exact::default());
            let (mut peers, mut now_ms) = ([Vector::default(), Vector::default()], 1_000);
            for step in steps {
                match step {
                    Step::Write { origin, runs, every_ms } => {
                        let origin = origin_of(origin);
                        for _ in 0..runs {
                            now_ms += every_ms;
                            let last = exact.last(origin) + 3;
                            // Those of a millisecond differ.
                            let hlc = Hlc(Hlc::from_millis(now_ms).0 + last);
                            stamps.add_first(origin, last, hlc);
                            exact.0.insert((origin, last), hlc);
                        }
                    }
                    Step::Apply { peer, origin, percent } => {
                        let origin = origin_of(origin);
                        let has = peers[peer].get(origin);
                        let lacks = exact.last(origin).saturating_sub(has);
                        peers[peer].raise(origin, has + lacks * percent / 100);
                    }
                    Step::Overtake { peer, origin } => {
                        let origin = origin_of(origin);
                        peers[peer].raise(origin, exact.last(origin) + 1);
                    }
                    Step::Merge => stamps.merge_older(),
                }
                let synced: Vector = exact.0.keys().copied().collect();
                stamps.forget(&Vector::common([&synced, &peers[0], &peers[1]]));
                let truth = tell(&exact, &peers, now_ms, &exact);
                let told = tell(&exact, &peers, now_ms, &stamps);
                let (lag_ms, told_ms) = (truth.0.at_least_ms, told.0.at_least_ms);
                prop_assert!(lag_ms <= told_ms, "{lag_ms} is told as {told_ms}");
                prop_assert!(told_ms <= lag_ms + lag_ms / AGE_PER_ERROR + 1, "{lag_ms} is told as {told_ms}");
                prop_assert_eq!(truth.0.known, told.0.known);
                prop_assert!(told.1 <= truth.1, "{:?} is told as {:?}", truth.1, told.1);
            }
        }
    }
}

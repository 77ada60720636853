//! The clock of a node that acknowledges writes by itself: what it gives out, it never gives out again, not even after
//! a crash with the wall clock set back.
//!
//! Its physical part is the wall clock at the start, carried on by the monotonic clock: steps of the wall clock are
//! reported and not followed. Before a reading is used, a *mark* above it is on disk, and a start begins above the mark.
//! No clock is read here: the caller passes in what its clocks show.

use crate::coverage::{Branch, reached};
use crate::hlc::Clock;
use crate::ids::NodeId;
use crate::version::Hlc;
use std::collections::BTreeMap;

/// How far ahead of the clock a mark is put. It is short of [`CLIENT_AHEAD_MS_MAX`], so that the first versions after a
/// restart, which lie above the mark, are not refused by the other nodes when a client shows them.
pub const MARK_AHEAD_MS: u64 = 200;

/// How far ahead of this node's clock a version may be that a client shows.
pub const CLIENT_AHEAD_MS_MAX: u64 = 500;

/// How far a node's clock may be off from those of a majority before it stops taking writes.
pub const MAJORITY_OFFSET_MS_MAX: u64 = 10_000;

/// How far the wall clock may leave the clock that was carried on before it is reported.
pub const WALL_STEP_MS_MAX: u64 = 500;

/// What a start knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start {
    /// Unix time by the wall clock.
    pub wall_ms: u64,
    /// The monotonic clock at that same moment.
    pub monotonic_ms: u64,
    /// The highest mark that was persisted, and no lower than any version in the node's logs and data.
    pub mark: Hlc,
}

/// Why there is no reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoStamp {
    /// The mark is used up. Nothing was given out.
    #[error("the clock's mark is used up: persist {0:?} first, then ask again")]
    PersistFirst(Hlc),
    /// There is no higher reading.
    #[error(
        "the clock's readings are used up, so nothing was written: this node was shown a version of the end of time, \
         which no node gives out; look for what wrote it"
    )]
    Exhausted,
}

/// A version that a client showed is too far in the future. Nothing was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the version that the request shows is {ahead_ms} ms ahead of this node's clock, more than the {CLIENT_AHEAD_MS_MAX} ms \
     allowed; nothing was written; compare the clocks of this node and of the node that gave the version out, then try again"
)]
pub struct TooFarAhead {
    /// How far.
    pub ahead_ms: u64,
}

/// The clock.
#[derive(Debug)]
pub struct DurableClock {
    /// The wall clock less the monotonic clock, as of the start.
    wall_ms: u64,
    monotonic_ms: u64,
    clock: Clock,
    /// Readings up to here may be given out: a start would begin above it.
    mark: Hlc,
    /// The highest mark asked for.
    asked: Hlc,
}

impl DurableClock {
    /// A clock whose readings all lie above the mark. Before it gives one out, the first new mark must be persisted.
    pub fn start(start: Start) -> Self {
        let Start { wall_ms, monotonic_ms, mark } = start;
        Self { wall_ms, monotonic_ms, clock: Clock::above(mark), mark, asked: mark }
    }

    /// The physical part: Unix time as of the start, carried on.
    pub fn physical_ms(&self, monotonic_ms: u64) -> u64 {
        self.wall_ms.saturating_add(monotonic_ms.saturating_sub(self.monotonic_ms))
    }

    /// How far the wall clock was stepped since the start, in milliseconds, if it is worth a report. The clock does not
    /// follow: a step back would repeat readings' times, and one forward would make every other node's writes lose.
    pub fn wall_step_ms(&self, wall_ms: u64, monotonic_ms: u64) -> Option<i64> {
        let carried = self.physical_ms(monotonic_ms);
        let step = i64::try_from(i128::from(wall_ms) - i128::from(carried)).ok()?;
        (WALL_STEP_MS_MAX < step.unsigned_abs()).then_some(step)
    }

    /// The mark to persist now, if the present one will soon be used up. Asked for once; the caller persists it and
    /// calls [`Self::persisted`].
    pub fn mark_to_persist(&mut self, monotonic_ms: u64) -> Option<Hlc> {
        let next = self.clock.next(self.physical_ms(monotonic_ms));
        if self.asked.millis() >= next.millis().saturating_add(MARK_AHEAD_MS / 2) {
            return None;
        }
        self.asked = self.asked.max(ahead_of(next));
        Some(self.asked)
    }

    /// Takes note that a start would begin above `mark`.
    pub fn persisted(&mut self, mark: Hlc) {
        self.mark = self.mark.max(mark);
        self.asked = self.asked.max(mark);
    }

    /// A reading above all that this node has given out, also before a restart, or seen.
    ///
    /// # Errors
    /// Nothing was given out, and the error says what to do first.
    pub fn stamp(&mut self, monotonic_ms: u64) -> Result<Hlc, NoStamp> {
        let physical_ms = self.physical_ms(monotonic_ms);
        let next = self.clock.next(physical_ms);
        if next <= self.clock.highest() {
            return Err(NoStamp::Exhausted);
        }
        if self.mark < next {
            reached(Branch::ClockMarkUsedUp);
            self.asked = self.asked.max(ahead_of(next));
            return Err(NoStamp::PersistFirst(self.asked));
        }
        if Hlc::from_millis(physical_ms) < next {
            reached(Branch::ClockByCounter);
        }
        Ok(self.clock.stamp(physical_ms))
    }

    /// Takes note of a version that another node acknowledged: later readings lie above it. It is taken as it is,
    /// whatever it says, since it was acknowledged. The answer is how far it lies ahead of this node's clock where that
    /// is more than a client may show: for an alarm.
    pub fn saw(&mut self, version: Hlc, monotonic_ms: u64) -> Option<u64> {
        self.clock.saw(version);
        let ahead_ms = version.millis().saturating_sub(self.physical_ms(monotonic_ms));
        let is_far_ahead = CLIENT_AHEAD_MS_MAX < ahead_ms;
        if is_far_ahead {
            reached(Branch::ClockSawFarAhead);
        }
        is_far_ahead.then_some(ahead_ms)
    }

    /// Takes note of the highest version that a client has seen, before its write is stamped, so that one client's later
    /// write wins through whichever node. What this node's clock has passed anyway does no harm, whenever it is from.
    ///
    /// # Errors
    /// It is too far ahead of this node's clock, and the clock has not moved.
    pub fn shown(&mut self, version: Hlc, monotonic_ms: u64) -> Result<(), TooFarAhead> {
        let ahead_ms = version.millis().saturating_sub(self.physical_ms(monotonic_ms));
        if CLIENT_AHEAD_MS_MAX < ahead_ms && self.clock.highest() < version {
            reached(Branch::ClockShownTooFar);
            return Err(TooFarAhead { ahead_ms });
        }
        self.clock.saw(version);
        Ok(())
    }

    /// A reading that this node has passed for good: every later one lies above it, also after a restart. What a client
    /// or another node has shown may be higher, and is forgotten by a crash before the next mark.
    pub fn passed(&self) -> Hlc {
        self.clock.highest().min(self.mark)
    }

    /// The highest reading given out or seen: until the process ends, every later one lies above it.
    pub fn highest(&self) -> Hlc {
        self.clock.highest()
    }
}

fn ahead_of(reading: Hlc) -> Hlc {
    Hlc(reading.0.saturating_add(MARK_AHEAD_MS << 16))
}

/// This node's clock differs from those of a majority: until that is mended it takes no writes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "this node's clock is {} s or more off from those of a majority, so it takes no eventual writes: {}; nothing was written",
    MAJORITY_OFFSET_MS_MAX / 1000,
    in_words(.ahead_ms)
)]
pub struct OffFromMajority {
    /// The nodes whose clocks differ so much, ascending, and by how many milliseconds each is ahead of this one; negative:
    /// behind.
    pub ahead_ms: Vec<(NodeId, i64)>,
}

fn in_words(ahead_ms: &[(NodeId, i64)]) -> String {
    let each = ahead_ms.iter().map(|(node, ahead_ms)| {
        let side = if *ahead_ms < 0 { "behind" } else { "ahead of" };
        let tenths = ahead_ms.unsigned_abs() / 100;
        format!("node {node}'s is {}.{} s {side} it", tenths / 10, tenths % 10)
    });
    each.collect::<Vec<_>>().join(", ")
}

/// Compares this node's clock with what it has measured of the others': by how many milliseconds each is ahead of it.
/// Physical clocks, not hybrid ones: those run after the fastest of them. Nodes that were not measured speak for nobody,
/// since a node that is cut off goes on taking writes.
///
/// # Errors
/// It differs from those of a majority.
pub fn trust(ahead_ms: &BTreeMap<NodeId, i64>, members: usize) -> Result<(), OffFromMajority> {
    let is_off = |ahead_ms: i64| MAJORITY_OFFSET_MS_MAX <= ahead_ms.unsigned_abs();
    let off = ahead_ms.iter().map(|(node, ahead_ms)| (*node, *ahead_ms));
    let ahead_ms: Vec<_> = off.filter(|(_, ahead_ms)| is_off(*ahead_ms)).collect();
    if members / 2 < ahead_ms.len() { Err(OffFromMajority { ahead_ms }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOUR_MS: u64 = 3_600_000;

    #[derive(Debug, Clone)]
    enum Step {
        /// The monotonic clock goes on, and a write wants a stamp.
        Stamp { after_ms: u64 },
        /// What was asked for reaches the disk.
        Persist,
        /// Another node's version arrives, that far from the physical clock.
        Saw { offset_ms: i64 },
        /// The process ends, and starts with another wall clock. Only persisted marks are left.
        Restart { wall_ms: u64 },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0u64..150).prop_map(|after_ms| Step::Stamp { after_ms }),
            3 => Just(Step::Persist),
            1 => (-1000i64..5000).prop_map(|offset_ms| Step::Saw { offset_ms }),
            1 => (HOUR_MS..3 * HOUR_MS).prop_map(|wall_ms| Step::Restart { wall_ms }),
        ]
    }

    proptest! {
        /// The disk is modelled by one number, the mark, which alone outlives a restart.
        #[test]
        fn no_reading_comes_twice_or_goes_back_whatever_the_wall_clock_does(
            steps in prop::collection::vec(step(), 1..80),
        ) {
            let mut monotonic_ms = 77;
            let mut disk = Hlc::default();
            let mut clock = DurableClock::start(Start { wall_ms: 2 * HOUR_MS, monotonic_ms, mark: disk });
            let (mut last, mut wanted) = (Hlc::default(), None);
            for step in steps {
                match step {
                    Step::Stamp { after_ms } => {
                        monotonic_ms += after_ms;
                        wanted = clock.mark_to_persist(monotonic_ms).or(wanted);
                        match clock.stamp(monotonic_ms) {
                            Ok(stamp) => {
                                prop_assert!(last < stamp, "{last:?} then {stamp:?}");
                                prop_assert!(stamp <= disk, "{stamp:?} was not covered by {disk:?}");
                                prop_assert!(clock.physical_ms(monotonic_ms) <= stamp.millis());
                                last = stamp;
                            }
                            Err(NoStamp::PersistFirst(mark)) => wanted = Some(mark),
                            Err(NoStamp::Exhausted) => prop_assert!(false, "far from the end of time"),
                        }
                    }
                    Step::Persist => {
                        if let Some(mark) = wanted.take() {
                            disk = mark;
                            clock.persisted(mark);
                        }
                    }
                    Step::Saw { offset_ms } => {
                        let seen = Hlc::from_millis(clock.physical_ms(monotonic_ms).saturating_add_signed(offset_ms));
                        let alarm = clock.saw(seen, monotonic_ms);
                        prop_assert_eq!(alarm.is_some(), 500 < offset_ms);
                        prop_assert!(seen <= clock.highest());
                    }
                    Step::Restart { wall_ms } => {
                        monotonic_ms = 5;
                        wanted = None;
                        clock = DurableClock::start(Start { wall_ms, monotonic_ms, mark: disk });
                        prop_assert!(clock.stamp(monotonic_ms).is_err(), "a new mark comes first");
                    }
                }
            }
        }

        /// So that a write never waits for a mark while the disk keeps up.
        #[test]
        fn a_mark_that_is_persisted_when_asked_for_covers_the_next_writes(gaps in prop::collection::vec(0u64..90, 1..50)) {
            let mut monotonic_ms = 0;
            let mut clock = DurableClock::start(Start { wall_ms: HOUR_MS, monotonic_ms, mark: Hlc(0) });
            for gap in gaps {
                if let Some(mark) = clock.mark_to_persist(monotonic_ms) {
                    prop_assert!(mark.millis() - clock.physical_ms(monotonic_ms) <= MARK_AHEAD_MS + 1);
                    prop_assert_eq!(clock.mark_to_persist(monotonic_ms), None, "it is asked for once");
                    clock.persisted(mark);
                }
                monotonic_ms += gap;
                prop_assert!(clock.stamp(monotonic_ms).is_ok());
            }
        }
    }

    fn running() -> DurableClock {
        let mut clock = DurableClock::start(Start { wall_ms: HOUR_MS, monotonic_ms: 1000, mark: Hlc(0) });
        clock.persisted(Hlc::from_millis(2 * HOUR_MS));
        clock
    }

    #[test]
    fn the_monotonic_clock_is_followed_and_steps_of_the_wall_clock_are_reported() {
        let mut clock = running();
        assert_eq!(clock.stamp(1300).unwrap(), Hlc::from_millis(HOUR_MS + 300));
        assert_eq!(clock.wall_step_ms(HOUR_MS + 800, 1300), None);
        assert_eq!(clock.wall_step_ms(HOUR_MS + 801, 1300), Some(501));
        assert_eq!(clock.wall_step_ms(300, 1300), Some(-3_600_000));
        assert_eq!(clock.stamp(1301).unwrap(), Hlc::from_millis(HOUR_MS + 301));
    }

    #[test]
    fn a_client_that_shows_the_future_is_refused_and_one_that_shows_the_past_wins_over_it() {
        let mut clock = running();
        let ahead = |ms| Hlc::from_millis(HOUR_MS + ms);
        assert_eq!(clock.shown(ahead(501), 1000), Err(TooFarAhead { ahead_ms: 501 }));
        assert_eq!(clock.stamp(1000).unwrap(), ahead(0), "what was refused has left no trace");
        clock.shown(ahead(500), 1000).unwrap();
        assert!(ahead(500) < clock.stamp(1000).unwrap());
        // Another node acknowledged it, so this clock is there already: to refuse its client would protect nothing.
        assert_eq!(clock.saw(ahead(4000), 1000), Some(4000));
        clock.shown(ahead(4000), 1000).unwrap();
        assert!(ahead(4000) < clock.stamp(1000).unwrap());
        assert!(clock.shown(ahead(4001), 1000).is_err());
    }

    #[test]
    fn the_end_of_time_is_an_error_and_not_a_reading_given_out_twice() {
        let mut clock = running();
        clock.saw(Hlc(u64::MAX), 1000);
        clock.persisted(Hlc(u64::MAX));
        assert_eq!(clock.stamp(1000), Err(NoStamp::Exhausted));
    }

    #[test]
    fn a_clock_is_not_trusted_when_a_majority_differs_by_ten_seconds() {
        let check = |ahead: &[i64], members| {
            let ahead = (2..).map(NodeId).zip(ahead.iter().copied()).collect();
            trust(&ahead, members).err().map(|off| off.ahead_ms.len())
        };
        assert_eq!(check(&[], 1), None);
        assert_eq!(check(&[10_000, -12_000], 3), Some(2));
        assert_eq!(check(&[9_999, 12_000], 3), None, "one of them is the one that is off");
        assert_eq!(check(&[12_000], 3), None, "one measurement is no majority");
        assert_eq!(check(&[-11_000, -11_000, 20, 30], 5), None);
        assert_eq!(check(&[-11_000, -12_000, -13_000, 30], 5), Some(3));
    }

    #[test]
    fn who_is_off_says_from_whom_and_by_how_much() {
        let ahead = [(NodeId(2), 3_600_050), (NodeId(3), -10_000), (NodeId(4), 20)].into();
        let text = trust(&ahead, 3).unwrap_err().to_string();
        assert!(
            text.contains("node 2's is 3600.0 s ahead of it, node 3's is 10.0 s behind it; nothing"),
            "{text}"
        );
    }
}

//! This node's physical clock, and how the other members' clocks differ from it.
//!
//! A ping says when it left, and the pong that answers it brings that back, with the peer's clock: so the sender knows how old
//! what it reads can be at most, whatever the way is like. Half of the round trip is the most by which it is wrong.

use parking_lot::Mutex;
use rdb_core::eventual::hlc::{OffFromMajority, trust};
use rdb_core::ids::NodeId;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A measurement speaks for its node for so long: several pongs may be late, and a node that is gone soon says nothing.
const AGE_MAX: Duration = Duration::from_secs(2);
/// An answer that took longer says too little.
const ROUND_TRIP_MAX: Duration = Duration::from_secs(2);

/// The machine's wall clock, or one that differs from it, for tests.
#[derive(Debug, Clone, Copy, Default)]
pub struct WallClock {
    ahead_ms: i64,
}

impl WallClock {
    /// One that is so far ahead of the machine's; negative: behind.
    pub fn ahead_by_ms(ahead_ms: i64) -> Self {
        Self { ahead_ms }
    }

    /// Unix time.
    pub(crate) fn now_ms(self) -> u64 {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        millis(wall).saturating_add_signed(self.ahead_ms)
    }
}

/// What is known of the members' clocks. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Clocks(Arc<Inner>);

struct Inner {
    wall: WallClock,
    started: Instant,
    /// The wall clock when this started.
    wall_ms: u64,
    others: BTreeMap<NodeId, Mutex<Option<Measured>>>,
    /// Goes up with each measurement, before anyone can see it.
    measurements: AtomicU64,
}

/// How a node's clock differs.
#[derive(Debug, Clone, Copy)]
struct Measured {
    ahead_ms: i64,
    /// By so much it may be wrong.
    error_ms: u64,
    at: Instant,
}

impl Clocks {
    /// Starts this node's physical clock by the wall clock.
    pub(crate) fn start(wall: WallClock, others: impl Iterator<Item = NodeId>) -> Self {
        let others = others.map(|node| (node, Mutex::default())).collect();
        Self(Arc::new(Inner {
            wall,
            started: Instant::now(),
            wall_ms: wall.now_ms(),
            others,
            measurements: AtomicU64::new(0),
        }))
    }

    /// When the physical clock was started, and what it showed then.
    pub(crate) fn started(&self) -> (Instant, u64) {
        (self.0.started, self.0.wall_ms)
    }

    /// The wall clock, which may be stepped while the physical clock goes on.
    pub(crate) fn wall_ms(&self) -> u64 {
        self.0.wall.now_ms()
    }

    /// The physical clock: the wall clock at the start, carried on by the monotonic clock.
    pub(crate) fn physical_ms(&self) -> u64 {
        self.0.wall_ms.saturating_add(millis(self.0.started.elapsed()))
    }

    /// A moment, for [`Self::answered`]; never 0.
    pub(crate) fn moment_micros(&self) -> u64 {
        micros(self.0.started.elapsed()).max(1)
    }

    /// An answer of `node` has come to what left at the moment `sent_micros`. The peer kept it for `held_micros`, and its clock
    /// showed `clock_ms` when the answer left.
    pub(crate) fn answered(&self, node: NodeId, (sent_micros, held_micros): (u64, u64), clock_ms: u64) {
        let physical_ms = self.physical_ms();
        self.measure(node, (sent_micros, held_micros, self.moment_micros()), (clock_ms, physical_ms));
    }

    fn measure(&self, node: NodeId, (sent, held, now): (u64, u64, u64), (clock_ms, physical_ms): (u64, u64)) {
        // Older software does not say; and what was said of another connection is passed over.
        let round_trip = now.checked_sub(sent).and_then(|took| took.checked_sub(held));
        let Some(round_trip) = round_trip.filter(|_| sent != 0 && clock_ms != 0) else { return };
        let round_trip = Duration::from_micros(round_trip);
        if ROUND_TRIP_MAX < round_trip {
            return;
        }
        let half_ms = millis(round_trip / 2);
        let theirs_now_ms = clock_ms.saturating_add(half_ms);
        let ahead_ms = i64::try_from(i128::from(theirs_now_ms) - i128::from(physical_ms));
        let ahead_ms = ahead_ms.unwrap_or(if physical_ms < theirs_now_ms { i64::MAX } else { i64::MIN });
        if let Some(measured) = self.0.others.get(&node) {
            let mut measured = measured.lock();
            *measured = Some(Measured { ahead_ms, error_ms: half_ms, at: Instant::now() });
            self.0.measurements.fetch_add(1, Ordering::Release);
        }
    }

    /// How often a clock was measured. Where it has not gone up, [`Self::trust`] says what it said, but for what is too old by now.
    pub(crate) fn measurements(&self) -> u64 {
        self.0.measurements.load(Ordering::Acquire)
    }

    /// By how much each node's clock is ahead of this one's, of those that were measured of late.
    pub(crate) fn ahead_ms(&self) -> BTreeMap<NodeId, i64> {
        self.measured().map(|(node, measured)| (node, measured.ahead_ms)).collect()
    }

    /// Whether this node may trust its clock. A clock is never taken for off because of the way's length alone.
    ///
    /// # Errors
    /// It differs from those of a majority.
    pub(crate) fn trust(&self) -> Result<(), OffFromMajority> {
        let least = |measured: Measured| {
            let least_ms = measured.ahead_ms.unsigned_abs().saturating_sub(measured.error_ms);
            i64::try_from(least_ms).unwrap_or(i64::MAX) * measured.ahead_ms.signum()
        };
        let ahead_ms = self.measured().map(|(node, measured)| (node, least(measured))).collect();
        trust(&ahead_ms, self.0.others.len() + 1)
    }

    fn measured(&self) -> impl Iterator<Item = (NodeId, Measured)> + '_ {
        let measured = self.0.others.iter().map(|(node, measured)| (*node, *measured.lock()));
        measured.filter_map(|(node, measured)| {
            Some((node, measured.filter(|measured| measured.at.elapsed() <= AGE_MAX)?))
        })
    }
}

/// In whole milliseconds.
pub(crate) fn millis(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}

fn micros(length: Duration) -> u64 {
    u64::try_from(length.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_US: u64 = 1_000_000;
    const HERE_MS: u64 = 1_000_000;

    fn clocks() -> Clocks {
        Clocks::start(WallClock::default(), [NodeId(2), NodeId(3)].into_iter())
    }

    #[test]
    fn half_of_the_way_there_and_back_is_not_taken_for_a_difference() {
        let clocks = clocks();
        // Sent at 1 s, kept for 2 s, back at 4 s: its clock was read half a second ago.
        clocks.measure(NodeId(2), (SECOND_US, 2 * SECOND_US, 4 * SECOND_US), (HERE_MS - 500, HERE_MS));
        clocks.measure(NodeId(3), (SECOND_US, 0, SECOND_US + 2000), (HERE_MS - 7001, HERE_MS));
        assert_eq!(clocks.ahead_ms(), [(NodeId(2), 0), (NodeId(3), -7000)].into());
    }

    #[test]
    fn what_says_too_little_is_passed_over() {
        let clocks = clocks();
        let measure = |times, clock_ms| clocks.measure(NodeId(2), times, (clock_ms, HERE_MS));
        measure((0, 0, SECOND_US), HERE_MS);
        measure((SECOND_US, 0, 2 * SECOND_US), 0);
        measure((2 * SECOND_US, 0, SECOND_US), HERE_MS);
        measure((SECOND_US, 2 * SECOND_US, 2 * SECOND_US), HERE_MS);
        measure((SECOND_US, 0, 4 * SECOND_US), HERE_MS);
        assert!(clocks.ahead_ms().is_empty(), "{:?}", clocks.ahead_ms());
        clocks.measure(NodeId(9), (SECOND_US, 0, SECOND_US), (HERE_MS, HERE_MS));
        assert!(clocks.ahead_ms().is_empty(), "a stranger");
    }

    /// A majority must be off for certain, and must have been measured of late.
    #[test]
    fn a_majority_that_is_off_for_certain_counts_and_a_slow_answer_does_not_make_one() {
        let clocks = clocks();
        let quick = (SECOND_US, 0, SECOND_US + 2000);
        clocks.measure(NodeId(2), quick, (HERE_MS + 10_100, HERE_MS));
        assert_eq!(clocks.trust(), Ok(()), "one of three");
        clocks.measure(NodeId(3), (SECOND_US, 0, 2 * SECOND_US), (HERE_MS + 9_700, HERE_MS));
        assert_eq!(clocks.ahead_ms()[&NodeId(3)], 10_200);
        assert_eq!(clocks.trust(), Ok(()), "it may be 500 ms less");
        clocks.measure(NodeId(3), quick, (HERE_MS + 10_200, HERE_MS));
        let off = clocks.trust().unwrap_err();
        assert_eq!(off.ahead_ms, [(NodeId(2), 10_100), (NodeId(3), 10_200)]);
        clocks.0.others[&NodeId(3)].lock().as_mut().unwrap().at -= 2 * AGE_MAX;
        assert_eq!(clocks.trust(), Ok(()), "node 3 is not heard any more");
    }

    #[test]
    fn a_clock_that_is_given_differs_from_the_machines() {
        let clocks = Clocks::start(WallClock::ahead_by_ms(-3_600_000), std::iter::empty());
        assert!(clocks.physical_ms() + 3_000_000 < WallClock::default().now_ms());
        assert!(clocks.physical_ms().abs_diff(clocks.wall_ms()) < 60_000);
    }
}

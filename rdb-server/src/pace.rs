//! Whether this node's disk is slow to sync the log, judged from what the log writer counts.
//!
//! A leader applies, and answers, what its own disk has: a write takes up to two of its syncs, however fast the others are. So one
//! whose disk is slow had better not lead. A single long sync says little, as the process may have stood still; a disk is slow when most of the
//! time that went into syncs of late went into long ones.

use rdb_storage::{LATENCY_BOUNDS_MICROS, Latency};
use std::collections::VecDeque;

/// A sync that takes longer than this is a long one. It is a bound of the histogram.
const LONG_MICROS: u64 = 100_000;
/// Looks that are judged together: three seconds of four a second.
const LOOKS: usize = 12;
/// After these many looks without a finding a disk counts as quick again, so that leaderships do not go to and fro.
const LOOKS_UNTIL_QUICK: usize = 40;
/// So many long syncs make a disk slow,
const LONG_MIN: u64 = 3;
/// and these many do where they have taken a second: there may be no time for more.
const VERY_LONG_MIN: u64 = 2;

/// What the looks of the last seconds have found.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    totals: VecDeque<Latency>,
    slow_ms: u32,
    looks_since: usize,
}

impl Pace {
    /// Takes in what was counted up to now. Returns how long a long sync takes, in milliseconds; 0: the disk is quick.
    pub(crate) fn look(&mut self, totals: Latency) -> u32 {
        let before = if self.totals.len() == LOOKS { self.totals.pop_front() } else { None };
        let oldest = before.as_ref().or(self.totals.front());
        let found = oldest.and_then(|oldest| slow_ms(oldest, &totals));
        self.totals.push_back(totals);
        self.looks_since += 1;
        if let Some(found) = found {
            (self.slow_ms, self.looks_since) = (found, 0);
        } else if LOOKS_UNTIL_QUICK <= self.looks_since {
            self.slow_ms = 0;
        }
        self.slow_ms
    }
}

/// How long the long syncs between two looks have taken each, if the disk was slow then.
fn slow_ms(from: &Latency, to: &Latency) -> Option<u32> {
    let counts = to.buckets.iter().zip(&from.buckets).map(|(to, from)| to.saturating_sub(*from));
    let bounds = LATENCY_BOUNDS_MICROS.iter().map(|bound| Some(*bound)).chain([None]);
    let (mut short_micros, mut long) = (0, 0);
    for (count, bound) in counts.zip(bounds) {
        match bound {
            // At most: the rest of the time went into long ones at least.
            Some(bound) if bound <= LONG_MICROS => short_micros += count * bound,
            _ => long += count,
        }
    }
    let all_micros = to.sum_micros.saturating_sub(from.sum_micros);
    let long_micros = all_micros.saturating_sub(short_micros);
    let enough = LONG_MIN <= long || (VERY_LONG_MIN <= long && 1_000_000 <= long_micros);
    (enough && all_micros < 2 * long_micros)
        .then(|| u32::try_from(long_micros / long / 1_000).unwrap_or(u32::MAX).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Adds `count` syncs that took so long each.
    fn sync(totals: &mut Latency, count: u64, micros: u64) {
        totals.count += count;
        totals.sum_micros += count * micros;
        totals.buckets[LATENCY_BOUNDS_MICROS.partition_point(|bound| *bound < micros)] += count;
    }

    fn nothing() -> Latency {
        Latency { count: 0, sum_micros: 0, max_micros: 0, buckets: [0; LATENCY_BOUNDS_MICROS.len() + 1] }
    }

    #[test]
    fn the_border_is_a_bound_of_the_histogram() {
        assert!(LATENCY_BOUNDS_MICROS.contains(&LONG_MICROS));
    }

    #[test]
    fn a_disk_that_gets_slow_under_load_is_seen_within_two_seconds_and_forgotten_in_time() {
        let (mut pace, mut totals) = (Pace::default(), nothing());
        for _ in 0..20 {
            sync(&mut totals, 200, 900);
            assert_eq!(pace.look(totals.clone()), 0);
        }
        let mut found = Vec::new();
        for _ in 0..40 {
            sync(&mut totals, 2, 120_000);
            found.push(pace.look(totals.clone()));
        }
        assert_eq!(found.last(), Some(&120));
        assert!(0 < found[11], "after three seconds, since the load before was as large: {found:?}");
        let quick = (0..).take_while(|_| 0 < pace.look(totals.clone())).count();
        assert!((LOOKS_UNTIL_QUICK..LOOKS_UNTIL_QUICK + LOOKS).contains(&quick), "{quick}");
    }

    #[test]
    fn syncs_of_a_second_are_seen_though_there_are_few() {
        let (mut pace, mut totals) = (Pace::default(), nothing());
        pace.look(totals.clone());
        sync(&mut totals, 1, 1_200_000);
        assert_eq!(pace.look(totals.clone()), 0, "one says little: the process may have stood still");
        sync(&mut totals, 1, 1_100_000);
        assert_eq!(pace.look(totals.clone()), 1_150);
    }

    #[test]
    fn long_syncs_among_many_short_ones_do_not_count() {
        let (mut pace, mut totals) = (Pace::default(), nothing());
        for round in 0..100 {
            sync(&mut totals, 100, 2_400);
            sync(&mut totals, u64::from(round % 4 == 0), 150_000);
            assert_eq!(pace.look(totals.clone()), 0);
        }
    }
}

//! Whether this node's disk is slow to sync the log, judged from what the log writer counts.
//!
//! A leader applies, and answers, what its own disk has: a write takes up to two of its syncs, however fast the others are. So one
//! whose disk is slow had better not lead. A moment says little, as any disk has bad ones: a disk is slow when long syncs have taken most of
//! the time for a while.

use rdb_storage::{LATENCY_BOUNDS_MICROS, Latency};
use std::collections::VecDeque;
use std::time::Duration;

/// A sync that takes longer than this is a long one. It is a bound of the histogram.
const LONG_MICROS: u64 = 100_000;
/// Looks that are judged together: three seconds of four a second.
const LOOKS: usize = 12;
/// So many of them must have found long syncs,
const SLOW_MIN: usize = 3;
/// from the first of them that found long syncs to the last, at least: a second and a half.
const SPAN_MIN: usize = 6;
/// Of three looks that found anything, so many must have found long syncs.
const SLOW_OF_THREE: usize = 2;
/// After so many looks without a finding a disk counts as quick again, so that leaderships do not go to and fro.
const LOOKS_UNTIL_QUICK: usize = 40;

/// What one look has found since the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Nothing,
    Quick,
    /// Most of the time went into syncs of this many milliseconds.
    Slow(u32),
}

/// What the looks of the last seconds have found.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    before: Option<Latency>,
    found: VecDeque<Found>,
    slow_ms: u32,
    looks_since: usize,
}

impl Pace {
    /// Takes in what was counted up to now, and for how long a sync is under way. Returns how long a long sync takes, in
    /// milliseconds; 0: the disk is quick.
    pub(crate) fn look(&mut self, totals: Latency, under_way: Duration) -> u32 {
        let found = self.before.as_ref().map_or(Found::Nothing, |before| found(before, &totals, under_way));
        self.before = Some(totals);
        if self.found.len() == LOOKS {
            self.found.pop_front();
        }
        self.found.push_back(found);
        self.looks_since = self.looks_since.saturating_add(1);
        if let Some(slow_ms) = self.judge() {
            (self.slow_ms, self.looks_since) = (slow_ms, 0);
        } else if LOOKS_UNTIL_QUICK <= self.looks_since {
            self.slow_ms = 0;
        }
        self.slow_ms
    }

    /// What the longest of the long syncs took, if they have gone on for a while.
    fn judge(&self) -> Option<u32> {
        let slow = |found: &Found| matches!(found, Found::Slow(_));
        let (first, last) = (self.found.iter().position(slow)?, self.found.iter().rposition(slow)?);
        let count = self.found.iter().filter(|found| slow(found)).count();
        let told = self.found.iter().filter(|found| **found != Found::Nothing).count();
        let slow_ms = self.found.iter().filter_map(|found| match found {
            Found::Slow(ms) => Some(*ms),
            Found::Quick | Found::Nothing => None,
        });
        (SLOW_MIN <= count && SPAN_MIN <= last - first && SLOW_OF_THREE * told <= 3 * count)
            .then(|| slow_ms.max())
            .flatten()
    }
}

fn found(before: &Latency, now: &Latency, under_way: Duration) -> Found {
    let under_way_micros = u64::try_from(under_way.as_micros()).unwrap_or(u64::MAX);
    if LONG_MICROS < under_way_micros {
        return Found::Slow(millis(under_way_micros));
    }
    let counts = now.buckets.iter().zip(&before.buckets).map(|(now, before)| now.saturating_sub(*before));
    let bounds = LATENCY_BOUNDS_MICROS.iter().map(|bound| Some(*bound)).chain([None]);
    let (mut short, mut short_micros, mut long) = (0, 0, 0);
    for (count, bound) in counts.zip(bounds) {
        match bound {
            // At most: the rest of the time went into long ones at least.
            Some(bound) if bound <= LONG_MICROS => {
                short += count;
                short_micros += count * bound;
            }
            _ => long += count,
        }
    }
    let all_micros = now.sum_micros.saturating_sub(before.sum_micros);
    let long_micros = all_micros.saturating_sub(short_micros);
    match (short, long) {
        (0, 0) => Found::Nothing,
        (_, 1..) if all_micros < 2 * long_micros => Found::Slow(millis(long_micros / long)),
        _ => Found::Quick,
    }
}

fn millis(micros: u64) -> u32 {
    u32::try_from(micros / 1_000).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk that is looked at four times a second.
    struct Looked {
        pace: Pace,
        totals: Latency,
    }

    impl Looked {
        fn new() -> Self {
            let totals = Latency { count: 0, sum_micros: 0, max_micros: 0, buckets: Default::default() };
            let mut looked = Self { pace: Pace::default(), totals };
            looked.look(&[]);
            looked
        }

        /// Since the last look so many syncs took so many microseconds each.
        fn look(&mut self, syncs: &[(u64, u64)]) -> u32 {
            for (count, micros) in syncs {
                self.totals.count += count;
                self.totals.sum_micros += count * micros;
                self.totals.buckets[LATENCY_BOUNDS_MICROS.partition_point(|bound| bound < micros)] += count;
            }
            self.pace.look(self.totals.clone(), Duration::ZERO)
        }

        fn look_during(&mut self, under_way: Duration) -> u32 {
            self.pace.look(self.totals.clone(), under_way)
        }
    }

    #[test]
    fn the_border_is_a_bound_of_the_histogram() {
        assert!(LATENCY_BOUNDS_MICROS.contains(&LONG_MICROS));
    }

    #[test]
    fn a_disk_that_gets_slow_under_load_is_seen_after_two_seconds_and_forgotten_in_time() {
        let mut disk = Looked::new();
        for _ in 0..20 {
            assert_eq!(disk.look(&[(200, 900)]), 0);
        }
        let found: Vec<u32> = (0..40).map(|_| disk.look(&[(2, 120_000)])).collect();
        assert_eq!(found.iter().position(|ms| *ms != 0), Some(7), "{found:?}");
        assert_eq!(found.last(), Some(&120));
        let slow_for = (0..).take_while(|_| 0 < disk.look(&[(200, 900)])).count();
        assert!((LOOKS_UNTIL_QUICK..LOOKS_UNTIL_QUICK + LOOKS).contains(&slow_for), "{slow_for}");
    }

    #[test]
    fn a_bad_moment_does_not_count() {
        let mut disk = Looked::new();
        for round in 0..200 {
            // A third of a second in four seconds: of an idle disk, of one under load, and of one that stands still for a second.
            let bad = round % 16 == 0;
            let slow_ms = match round / 64 {
                0 => disk.look(if bad { &[(3, 110_000)] } else { &[] }),
                1 => disk.look(if bad { &[(2, 150_000)] } else { &[(200, 1_000)] }),
                _ if round % 16 < 4 => disk.look_during(Duration::from_millis(250 * (round % 16 + 1))),
                _ => disk.look(&[]),
            };
            assert_eq!(slow_ms, 0, "round {round}");
        }
    }

    #[test]
    fn long_syncs_among_many_short_ones_do_not_count() {
        let mut disk = Looked::new();
        for round in 0..100 {
            assert_eq!(disk.look(&[(100, 2_400), (u64::from(round % 4 == 0), 150_000)]), 0);
        }
    }

    #[test]
    fn few_writes_to_a_slow_disk_show_it_and_so_do_syncs_that_do_not_end() {
        let mut disk = Looked::new();
        let found: Vec<u32> =
            (0..20).map(|round| disk.look(if round % 4 == 0 { &[(1, 300_000)] } else { &[] })).collect();
        assert_eq!(found.last(), Some(&300));
        let mut disk = Looked::new();
        let found: Vec<u32> =
            (1..12).map(|look| disk.look_during(Duration::from_millis(250 * look))).collect();
        assert!(found[5] == 0 && 0 < found[6], "{found:?}");
    }
}

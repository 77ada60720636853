//! Chance, from the run's seed.

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use std::ops::Range;
use std::time::Duration;

/// One stream of chance. Every user has its own, so that what one draws changes nothing for the others.
pub(crate) struct Dice(ChaCha8Rng);

impl Dice {
    /// The stream of this number.
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream);
        Self(rng)
    }

    /// True as often as `of` in a hundred.
    pub(crate) fn percent(&mut self, of: u32) -> bool {
        self.0.random_range(0..100) < of
    }

    /// One of them.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0.random_range(0..end.max(1))
    }

    /// One of these.
    pub(crate) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    /// A time within these milliseconds.
    pub(crate) fn millis(&mut self, range: Range<u64>) -> Duration {
        Duration::from_millis(self.0.random_range(range))
    }

    /// A time within these milliseconds, as often between 100 and 200 as between 1,000 and 2,000.
    pub(crate) fn millis_of_any_size(&mut self, range: Range<u64>) -> Duration {
        let mut top = range.start;
        while top < range.end && self.percent(75) {
            top *= 2;
        }
        self.millis(top.min(range.end / 2)..(2 * top).min(range.end))
    }
}

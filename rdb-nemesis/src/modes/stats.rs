//! What many times are together.

use std::time::Duration;

/// Times in order.
#[derive(Debug, Clone, Default)]
pub(super) struct Times(Vec<Duration>);

impl Times {
    /// Of these, in whatever order.
    pub(super) fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self(times)
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// The smallest that is no less than so many percent of all; of none it is no time at all.
    pub(super) fn percentile(&self, percent: usize) -> Duration {
        let rank = (self.0.len() * percent).div_ceil(100).max(1);
        self.0.get(rank - 1).copied().unwrap_or_default()
    }

    /// The middle one.
    pub(super) fn median(&self) -> Duration {
        self.percentile(50)
    }

    /// The longest.
    pub(super) fn longest(&self) -> Duration {
        self.percentile(100)
    }
}

/// A time in milliseconds, as figures have it.
pub(super) fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_times_that_were_measured() {
        let times = Times::of((1..=200).rev().map(Duration::from_millis).collect());
        assert_eq!(times.median(), Duration::from_millis(100));
        assert_eq!(times.percentile(99), Duration::from_millis(198));
        assert_eq!(times.longest(), Duration::from_millis(200));
        // Of few, the last percent is the longest, not the one before it.
        let few = Times::of((1..=20).map(Duration::from_millis).collect());
        assert_eq!((few.percentile(99), few.count()), (Duration::from_millis(20), 20));
        assert_eq!(Times::default().longest(), Duration::ZERO);
    }
}

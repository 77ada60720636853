//! A node's hybrid logical clock: readings that never repeat and never go back, whatever the wall clock does.
//!
//! After Kulkarni et al., "Logical Physical Clocks" (2014): the physical part follows the clock that is passed in, the
//! counter orders what happens within one millisecond and carries on while the clock stands still or steps back.

use crate::version::Hlc;

/// The clock. Owns the highest reading given out or seen.
#[derive(Debug, Default)]
pub struct Clock {
    highest: Hlc,
}

impl Clock {
    /// A clock whose readings all lie above `floor`.
    pub fn above(floor: Hlc) -> Self {
        Self { highest: floor }
    }

    /// A reading above all earlier ones, at `now_ms` of Unix time or later.
    pub fn stamp(&mut self, now_ms: u64) -> Hlc {
        self.highest = self.next(now_ms);
        self.highest
    }

    /// What [`Self::stamp`] would give out.
    pub fn next(&self, now_ms: u64) -> Hlc {
        Hlc::from_millis(now_ms).max(self.highest.next())
    }

    /// The highest reading given out or seen.
    pub fn highest(&self) -> Hlc {
        self.highest
    }

    /// Takes note of a reading that another node gave out: later stamps lie above it.
    pub fn saw(&mut self, other: Hlc) {
        self.highest = self.highest.max(other);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_grow_while_the_wall_clock_steps_back() {
        let mut clock = Clock::above(Hlc::from_millis(500));
        let stamps: Vec<Hlc> = [1000, 1000, 999, 1, 1001].iter().map(|ms| clock.stamp(*ms)).collect();
        assert!(stamps.windows(2).all(|pair| pair[0] < pair[1]), "{stamps:?}");
        assert_eq!(stamps[4], Hlc::from_millis(1001));
    }

    #[test]
    fn the_counter_carries_into_the_milliseconds() {
        let mut clock = Clock::above(Hlc((7 << 16) | 0xffff));
        assert_eq!(clock.stamp(7), Hlc(8 << 16));
    }
}

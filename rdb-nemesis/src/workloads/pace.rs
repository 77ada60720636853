//! A steady load: so many turns a second for all clients together, whoever is ready to take one.

use parking_lot::Mutex;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// Turns that clients share.
pub(crate) struct Pace {
    interval: Duration,
    /// When the next turn is. Turns that nobody took are not made up for.
    next: Mutex<Instant>,
}

impl Pace {
    /// So many turns a second.
    pub(crate) fn new(turns_per_second: u32) -> Self {
        let interval = Duration::from_secs(1) / turns_per_second.max(1);
        Self { interval, next: Mutex::new(Instant::now()) }
    }

    /// Waits for the next turn that nobody has.
    pub(super) async fn turn(&self) {
        let at = self.take();
        sleep_until(at).await;
    }

    fn take(&self) -> Instant {
        let mut next = self.next.lock();
        let at = Instant::now().max(*next);
        *next = at + self.interval;
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn turns_are_an_interval_apart() {
        let pace = Pace::new(100);
        let began = Instant::now();
        for _ in 0..20 {
            pace.turn().await;
        }
        assert!(Duration::from_millis(190) <= began.elapsed());
    }
}

//! What the thread shows of a region: numbers that are read without asking it.

use super::ends::Ends;
use super::waiting::Progress;
use crate::clocks::millis;
use parking_lot::Mutex;
use rdb_core::eventual::lag::Lag;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// One region as it was when the thread last looked at it. The numbers are each right, not all of one moment.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    /// And when it was that.
    lag: Mutex<Option<(Lag, Instant)>>,
    lost: AtomicU64,
    log_bytes: AtomicU64,
    behind: AtomicU64,
    lost_for_certain: AtomicU64,
    purged: AtomicU64,
    given_up: AtomicU64,
    divergent: AtomicU64,
    repaired: AtomicU64,
    kept_bytes: AtomicU64,
    crowded_out: AtomicU64,
    progress: Progress,
    ends: Ends,
}

impl Shown {
    pub(super) fn show(&self, lag: Lag, lost: u64, log_bytes: u64, behind: u64) {
        *self.lag.lock() = Some((lag, Instant::now()));
        self.lost.store(lost, Ordering::Relaxed);
        self.log_bytes.store(log_bytes, Ordering::Relaxed);
        self.behind.store(behind, Ordering::Relaxed);
    }

    pub(super) fn show_upkeep(&self, lost_for_certain: u64, purged: u64) {
        self.lost_for_certain.store(lost_for_certain, Ordering::Relaxed);
        self.purged.store(purged, Ordering::Relaxed);
    }

    pub(super) fn show_given_up(&self, given_up: u64) {
        self.given_up.store(given_up, Ordering::Relaxed);
    }

    pub(super) fn show_comparison(&self, divergent: u64, repaired: u64) {
        self.divergent.store(divergent, Ordering::Relaxed);
        self.repaired.store(repaired, Ordering::Relaxed);
    }

    pub(super) fn show_kept(&self, (bytes, crowded_out): (u64, u64)) {
        self.kept_bytes.store(bytes, Ordering::Relaxed);
        self.crowded_out.store(crowded_out, Ordering::Relaxed);
    }

    /// Starts of nodes that are over.
    pub(crate) fn ends(&self) -> &Ends {
        &self.ends
    }

    /// How far things are, for who waits for them.
    pub(crate) fn progress(&self) -> &Progress {
        &self.progress
    }

    /// The age of the oldest write of this node's that a peer has not applied; at least so much, if it is not known.
    pub(crate) fn lag_ms(&self) -> u64 {
        match *self.lag.lock() {
            Some((lag, _)) if lag.known => lag.at_least_ms,
            // A region at rest is looked at once a second, and the silence of a peer has grown since: had it said anything, the
            // region would not be at rest.
            Some((lag, at)) => lag.at_least_ms.saturating_add(millis(at.elapsed())),
            None => 0,
        }
    }

    /// Whether all peers were heard of late, so that the lag is known.
    pub(crate) fn lag_known(&self) -> bool {
        self.lag.lock().is_some_and(|(lag, _)| lag.known)
    }

    /// Writes that lost against a concurrent one, by what this node has applied.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Those of them of which that is certain: it only grows, and comes to the same on every member.
    pub(crate) fn lost_for_certain(&self) -> u64 {
        self.lost_for_certain.load(Ordering::Relaxed)
    }

    /// Tombstones that were purged since the start.
    pub(crate) fn purged(&self) -> u64 {
        self.purged.load(Ordering::Relaxed)
    }

    /// Members that cannot be served from the logs any more, and have to take a copy.
    pub(crate) fn given_up(&self) -> u64 {
        self.given_up.load(Ordering::Relaxed)
    }

    /// Buckets in which another member that has the same writes held other records, when it was last looked at.
    pub(crate) fn divergent(&self) -> u64 {
        self.divergent.load(Ordering::Relaxed)
    }

    /// Records that were taken over from other members for that since the start.
    pub(crate) fn repaired(&self) -> u64 {
        self.repaired.load(Ordering::Relaxed)
    }

    /// Bytes of lost writes that are kept.
    pub(crate) fn kept_bytes(&self) -> u64 {
        self.kept_bytes.load(Ordering::Relaxed)
    }

    /// Lost writes that had to go before their time since the start.
    pub(crate) fn crowded_out(&self) -> u64 {
        self.crowded_out.load(Ordering::Relaxed)
    }

    /// Bytes of writes that are kept for members that lack them, or until they are flushed.
    pub(crate) fn log_bytes(&self) -> u64 {
        self.log_bytes.load(Ordering::Relaxed)
    }

    /// Peers that lack a write which this node has.
    pub(crate) fn behind(&self) -> u64 {
        self.behind.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_lag_that_is_not_known_grows_while_nobody_looks() {
        let shown = Shown::default();
        let look = |known| {
            shown.show(Lag { at_least_ms: 1000, known, furthest: None }, 0, 0, 0);
            // A while goes by.
            let mut lag = shown.lag.lock();
            lag.iter_mut().for_each(|(_, at)| *at -= Duration::from_millis(20));
        };
        look(false);
        assert!(1020 <= shown.lag_ms());
        look(true);
        assert_eq!(shown.lag_ms(), 1000);
    }
}

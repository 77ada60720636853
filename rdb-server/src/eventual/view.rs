//! What the thread shows of a region: numbers that are read without asking it.

use super::ends::Ends;
use super::waiting::Progress;
use crate::clocks::millis;
use parking_lot::Mutex;
use rdb_core::eventual::lag::Lag;
use rdb_core::ids::Era;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The thread looks at a region again within so long, also on a busy machine, or it waits for the disk.
const LOOKS_WITHIN: Duration = Duration::from_millis(250);
/// The same where nothing goes on.
const LOOKS_WITHIN_AT_REST: Duration = Duration::from_millis(2500);

/// One region as it was when the thread last looked at it. The numbers are each right, not all of one moment.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    /// The era whose records these are. A start goes through others first, and they lack what was written in this one.
    era: Era,
    /// And when it was that.
    lag: Mutex<Option<(Lag, Instant)>>,
    /// Whether nothing has gone on since.
    rests: AtomicBool,
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
    /// Of a region in this era, of which nothing is known yet.
    pub(super) fn of(era: Era) -> Arc<Self> {
        Arc::new(Self { era, ..Self::default() })
    }

    /// Of which era the region's records are.
    pub(crate) fn era(&self) -> Era {
        self.era
    }

    pub(super) fn show(&self, lag: Lag, lost: u64, log_bytes: u64, behind: u64) {
        *self.lag.lock() = Some((lag, Instant::now()));
        self.lost.store(lost, Ordering::Relaxed);
        self.log_bytes.store(log_bytes, Ordering::Relaxed);
        self.behind.store(behind, Ordering::Relaxed);
    }

    pub(super) fn show_rest(&self, rests: bool) {
        self.rests.store(rests, Ordering::Relaxed);
    }

    /// Something begins to go on, or goes on. Where nothing did, the lag is still what it was, as of now.
    pub(super) fn moves(&self) {
        let mut lag = self.lag.lock();
        let within = self.looks_within();
        if self.rests.swap(false, Ordering::Relaxed)
            && let Some((_, at)) = lag.as_mut().filter(|(lag, at)| lag.known && at.elapsed() <= within)
        {
            *at = Instant::now();
        }
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

    /// The age of the oldest write of this node's that a peer has not applied; at least so much, if that is not known.
    ///
    /// It is not known, and grows, from when the thread has not looked for longer than it should take: it waits for the disk, and what
    /// was acknowledged just before may be on no other node. A region at rest is looked at once a second; had a silent peer said
    /// anything since, it would not be at rest.
    pub(crate) fn lag(&self) -> Lag {
        let Some((lag, at)) = *self.lag.lock() else { return Lag::default() };
        let (age, within) = (at.elapsed(), self.looks_within());
        if lag.known && age <= within {
            return lag;
        }
        Lag { at_least_ms: lag.at_least_ms.saturating_add(millis(age)), known: false, ..lag }
    }

    /// The same as the thread itself tells it: it looks again before long, however long its turn has taken.
    pub(super) fn lag_of_the_look(&self) -> Lag {
        let looked = self.lag.lock().map(|(lag, _)| lag).unwrap_or_default();
        Lag { known: looked.known, ..self.lag() }
    }

    fn looks_within(&self) -> Duration {
        if self.rests.load(Ordering::Relaxed) { LOOKS_WITHIN_AT_REST } else { LOOKS_WITHIN }
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

    /// The lag that is told a while after one was found.
    fn told(known: bool, rests: bool, after_ms: u64) -> (u64, bool) {
        let shown = Shown::default();
        shown.show(Lag { at_least_ms: 1000, known, furthest: None }, 0, 0, 0);
        shown.show_rest(rests);
        shown.lag.lock().iter_mut().for_each(|(_, at)| *at -= Duration::from_millis(after_ms));
        let lag = shown.lag();
        (lag.at_least_ms, lag.known)
    }

    #[test]
    fn a_lag_that_is_not_known_grows_while_nobody_looks() {
        for rests in [false, true] {
            let (lag_ms, known) = told(false, rests, 20);
            assert!(1020 <= lag_ms && !known);
        }
        assert_eq!(Shown::default().lag(), Lag::default(), "nobody has looked yet");
    }

    #[test]
    fn a_lag_that_was_known_at_rest_is_known_as_something_begins_to_go_on() {
        let shown = Shown::default();
        let looked = |known| {
            shown.show(Lag { at_least_ms: 7, known, furthest: None }, 0, 0, 0);
            shown.show_rest(true);
            shown.lag.lock().iter_mut().for_each(|(_, at)| *at -= Duration::from_secs(1));
            shown.moves();
            shown.lag()
        };
        assert_eq!(looked(true), Lag { at_least_ms: 7, known: true, furthest: None });
        assert!(1007 <= looked(false).at_least_ms, "a silence goes on");
    }

    #[test]
    fn the_thread_knows_a_lag_however_long_its_turn_takes() {
        let shown = Shown::default();
        shown.show(Lag { at_least_ms: 7, known: true, furthest: None }, 0, 0, 0);
        shown.lag.lock().iter_mut().for_each(|(_, at)| *at -= Duration::from_millis(400));
        let (told, others) = (shown.lag_of_the_look(), shown.lag());
        assert!(told.known && 407 <= told.at_least_ms && !others.known);
    }

    #[test]
    fn a_lag_is_not_known_any_more_where_it_should_have_been_looked_at_since() {
        assert_eq!(told(true, false, 20), (1000, true));
        assert_eq!(told(true, true, 1500), (1000, true));
        for (rests, after_ms) in [(false, 400), (true, 3000)] {
            let (lag_ms, known) = told(true, rests, after_ms);
            assert!(1000 + after_ms <= lag_ms && !known, "{rests} {after_ms}");
        }
    }
}

//! What is counted while the callers run.

use super::target::Failed;
use hdrhistogram::Histogram;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Latencies are kept from one microsecond to two minutes, to three digits.
const LATENCY_MAX_US: u64 = 120_000_000;
const DIGITS: u8 = 3;
/// Messages of failures that are shown; the rest are counted.
const SHOWN_MAX: usize = 5;

pub(super) struct Measure {
    pub(super) reads: Kind,
    pub(super) writes: Kind,
    /// Records that scans have brought. A scan that came to its end is one of `reads`.
    pub(super) scanned: AtomicU64,
    /// Reads that missed an acknowledged write, or found what nobody wrote. Each of them is a defect.
    pub(super) wrong_reads: AtomicU64,
    /// The first failures' messages.
    pub(super) messages: Mutex<Vec<String>>,
    /// What the first wrong reads found. Apart from the failures, which may be many and would crowd them out.
    pub(super) wrong: Mutex<Vec<String>>,
}

/// One kind of operation.
pub(super) struct Kind {
    latency_us: Mutex<Option<Histogram<u64>>>,
    pub(super) not_done: AtomicU64,
    pub(super) in_doubt: AtomicU64,
}

/// Latencies in microseconds.
#[derive(Debug, Clone, Copy, Default, serde::Serialize)]
pub(super) struct Latency {
    pub(super) count: u64,
    pub(super) mean_us: u64,
    pub(super) p50_us: u64,
    pub(super) p95_us: u64,
    pub(super) p99_us: u64,
    pub(super) max_us: u64,
}

impl Measure {
    pub(super) fn new() -> Self {
        let kind = || Kind {
            latency_us: Mutex::new(Histogram::new_with_bounds(1, LATENCY_MAX_US, DIGITS).ok()),
            not_done: AtomicU64::new(0),
            in_doubt: AtomicU64::new(0),
        };
        Self {
            reads: kind(),
            writes: kind(),
            scanned: AtomicU64::new(0),
            wrong_reads: AtomicU64::new(0),
            messages: Mutex::default(),
            wrong: Mutex::default(),
        }
    }

    pub(super) fn failed(&self, kind: &Kind, failed: &Failed) {
        let counter = if failed.in_doubt { &kind.in_doubt } else { &kind.not_done };
        counter.fetch_add(1, Ordering::Relaxed);
        note(&self.messages, &failed.message);
    }

    pub(super) fn wrong(&self, what: &str) {
        self.wrong_reads.fetch_add(1, Ordering::Relaxed);
        note(&self.wrong, what);
    }
}

/// Keeps the first few.
fn note(messages: &Mutex<Vec<String>>, message: &str) {
    if let Ok(mut messages) = messages.lock()
        && messages.len() < SHOWN_MAX
    {
        messages.push(message.into());
    }
}

impl Kind {
    pub(super) fn record(&self, latency: Duration) {
        if let Ok(mut histogram) = self.latency_us.lock()
            && let Some(histogram) = histogram.as_mut()
        {
            histogram.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX).max(1));
        }
    }

    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a mean of microseconds")]
    pub(super) fn latency(&self) -> Latency {
        let histogram = self.latency_us.lock().ok();
        let Some(histogram) = histogram.as_ref().and_then(|histogram| histogram.as_ref()) else {
            return Latency::default();
        };
        Latency {
            count: histogram.len(),
            mean_us: histogram.mean() as u64,
            p50_us: histogram.value_at_quantile(0.5),
            p95_us: histogram.value_at_quantile(0.95),
            p99_us: histogram.value_at_quantile(0.99),
            max_us: histogram.max(),
        }
    }
}

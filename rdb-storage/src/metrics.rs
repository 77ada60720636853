//! What the log writer counts. Read at any time from any thread; the node turns it into metrics.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Upper bounds of the latency buckets, in microseconds. One more bucket takes what is longer than all.
pub const LATENCY_BOUNDS_MICROS: [u64; 14] =
    [50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000];

const BUCKETS: usize = LATENCY_BOUNDS_MICROS.len() + 1;

/// How long something took, as a histogram.
#[derive(Debug, Default)]
pub struct LatencyHistogram {
    count: AtomicU64,
    sum_micros: AtomicU64,
    max_micros: AtomicU64,
    buckets: [AtomicU64; BUCKETS],
}

/// What a histogram held at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Latency {
    /// How many times.
    pub count: u64,
    /// How long altogether.
    pub sum_micros: u64,
    /// The longest.
    pub max_micros: u64,
    /// How many in each bucket of [`LATENCY_BOUNDS_MICROS`], not cumulative; the last took longer than all bounds.
    pub buckets: [u64; BUCKETS],
}

impl LatencyHistogram {
    pub(crate) fn observe(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = LATENCY_BOUNDS_MICROS.partition_point(|bound| *bound < micros);
        self.count.fetch_add(1, Ordering::Relaxed);
        self.sum_micros.fetch_add(micros, Ordering::Relaxed);
        self.max_micros.fetch_max(micros, Ordering::Relaxed);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
    }

    /// What it holds now. Counts that are made meanwhile may be in one number and not yet in another.
    pub fn read(&self) -> Latency {
        Latency {
            count: self.count.load(Ordering::Relaxed),
            sum_micros: self.sum_micros.load(Ordering::Relaxed),
            max_micros: self.max_micros.load(Ordering::Relaxed),
            buckets: std::array::from_fn(|bucket| self.buckets[bucket].load(Ordering::Relaxed)),
        }
    }
}

/// The log writer's counts since the start.
#[derive(Debug, Default)]
pub struct LogMetrics {
    pub(crate) batches: AtomicU64,
    pub(crate) commands: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) synced_position: AtomicU64,
    pub(crate) sync: LatencyHistogram,
    /// When the batch that is written now was handed to the disk, in microseconds of [`EPOCH`]; 0: none is.
    began_micros: AtomicU64,
}

/// Any moment before all that is measured.
static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

fn now_micros() -> u64 {
    u64::try_from(EPOCH.elapsed().as_micros()).unwrap_or(u64::MAX).saturating_add(1)
}

impl LogMetrics {
    /// Batches written.
    pub fn batches(&self) -> u64 {
        self.batches.load(Ordering::Relaxed)
    }

    /// Commands taken from the queue. Divided by the batches: how many share one.
    pub fn commands(&self) -> u64 {
        self.commands.load(Ordering::Relaxed)
    }

    /// Bytes written, keys and all.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn begin_batch(&self) {
        self.began_micros.store(now_micros(), Ordering::Relaxed);
    }

    pub(crate) fn end_batch(&self) {
        self.began_micros.store(0, Ordering::Relaxed);
    }

    /// For how long a batch is being written by now, its sync included; nothing where none is.
    pub fn under_way(&self) -> Duration {
        match self.began_micros.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            began => Duration::from_micros(now_micros().saturating_sub(began)),
        }
    }

    /// Synced batches: how long from handing one to RocksDB until it was on disk.
    pub fn sync(&self) -> &LatencyHistogram {
        &self.sync
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_the_bucket_below_it() {
        let histogram = LatencyHistogram::default();
        for micros in [0, 50, 51, 1_000_000, 1_000_001] {
            histogram.observe(Duration::from_micros(micros));
        }
        let latency = histogram.read();
        assert_eq!((latency.count, latency.sum_micros, latency.max_micros), (5, 2_000_102, 1_000_001));
        assert_eq!(latency.buckets, [2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1]);
    }
}

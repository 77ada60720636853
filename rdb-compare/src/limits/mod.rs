//! What the machine allows: measured in this process, in the same run as what is held against it.

mod calls;
mod rocks;
mod syncs;

use anyhow::Result;
use serde::Serialize;
use std::path::Path;
use std::time::Duration;

pub(crate) use rocks::iterated_per_second;

/// Of each of them.
const DURATION: Duration = Duration::from_secs(5);
/// Records and their sizes, as the rows have them: those of puts and gets, and that of scans.
const RECORDS: u64 = 100_000;
const RECORDS_SCANNED: u64 = 1_000_000;
const KEY_BYTES: usize = 16;
const VALUE_BYTES: usize = 256;

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Limits {
    pub(crate) processors: f64,
    /// 4 KiB written over others and synced, one after the other.
    pub(crate) syncs_per_second: f64,
    pub(crate) sync_p50_us: f64,
    /// RocksDB on one thread, its background work on others: puts in batches of 64, without a log; and with one that is synced for each
    /// batch.
    pub(crate) puts_per_second: f64,
    pub(crate) synced_puts_per_second: f64,
    /// Of keys chosen at random, by as many threads as there are processors.
    pub(crate) gets_per_second: f64,
    /// A million records from end to end, on one thread.
    pub(crate) iterated_per_second: f64,
    /// gRPC between two threads of this process: calls that do nothing, by 64 callers; and operations in messages of 64.
    pub(crate) calls_per_second: f64,
    pub(crate) streamed_per_second: f64,
}

impl Limits {
    pub(crate) fn measure(folder: &Path) -> Result<Self> {
        let syncs = syncs::measure(folder)?;
        let rocks = rocks::measure(folder)?;
        let calls = calls::measure()?;
        let processors = std::thread::available_parallelism()?.get();
        Ok(Self {
            processors: f64::from(u32::try_from(processors)?),
            syncs_per_second: syncs.per_second,
            sync_p50_us: syncs.p50_us,
            puts_per_second: rocks.puts_per_second,
            synced_puts_per_second: rocks.synced_puts_per_second,
            gets_per_second: rocks.gets_per_second,
            iterated_per_second: rocks.iterated_per_second,
            calls_per_second: calls.calls_per_second,
            streamed_per_second: calls.streamed_per_second,
        })
    }
}

/// How often a second something happened that was done so often in this time.
#[allow(clippy::cast_precision_loss, reason = "a rate")]
fn rate(count: u64, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}

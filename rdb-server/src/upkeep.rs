//! What needs a disk and must not keep the raft loop waiting: reading entries for followers that lag, flushing the
//! data so that logs can be dropped, and looking at how full the disk is. One thread each.

use crate::mailbox::{Event, Mailbox};
use crossbeam_channel::{Receiver, Sender};
use rdb_core::ids::{RegionId, Term};
use rdb_core::raft::Fetch;
use rdb_storage::{Data, Engine, LogStore};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Bytes of applied data after which it is flushed: what a restart has to apply again at most.
const UNFLUSHED_BYTES_MAX: u64 = 48 << 20;
/// After this long it is flushed in any case, so that logs do not wait for traffic.
const FLUSH_INTERVAL: Duration = Duration::from_secs(60);
/// Between looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// Asks for entries to be read.
#[derive(Clone)]
pub(crate) struct Fetcher(Sender<Wanted>);

/// Entries that a leader wants, and its term.
pub(crate) type Wanted = (RegionId, Term, Fetch);

impl Fetcher {
    pub(crate) fn new() -> (Self, Receiver<Wanted>) {
        let (sender, receiver) = crossbeam_channel::unbounded();
        (Self(sender), receiver)
    }

    /// Each group has at most one fetch under way per first index, so the queue is bounded by its followers.
    pub(crate) fn fetch(&self, region: RegionId, term: Term, fetch: Fetch) {
        drop(self.0.send((region, term, fetch)));
    }
}

/// Reads entries until nobody asks any more.
pub(crate) fn run_fetches(fetches: &Receiver<Wanted>, logs: &LogStore, mailbox: &Mailbox) {
    while let Ok((region, term, Fetch { low, high, bytes_max, context })) = fetches.recv() {
        let entries = logs.region(region).entries(low, high, bytes_max).map_err(|error| error.to_string());
        mailbox.post(Event::Fetched { region, term, low, entries, context });
    }
}

/// Whether writes must be refused because the disk is nearly full.
#[derive(Debug, Clone, Default)]
pub(crate) struct DiskFull(Arc<Disk>);

#[derive(Debug, Default)]
struct Disk {
    full: AtomicBool,
    available_bytes: AtomicU64,
}

impl DiskFull {
    pub(crate) fn is_full(&self) -> bool {
        self.0.full.load(Ordering::Relaxed)
    }

    /// As of the last look; 0 before the first.
    pub(crate) fn available_bytes(&self) -> u64 {
        self.0.available_bytes.load(Ordering::Relaxed)
    }
}

/// Flushes data and watches the disk, until `stop` is set.
pub(crate) fn run_flushes(
    engine: &Engine,
    data: &Data,
    mailbox: &Mailbox,
    disk_full: &DiskFull,
    disk_reserve_bytes: u64,
    stop: &AtomicBool,
) {
    let mut flushed = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        std::thread::sleep(LOOK_INTERVAL);
        look_at_disk(engine, disk_full, disk_reserve_bytes);
        let due = UNFLUSHED_BYTES_MAX < data.unflushed_bytes() || FLUSH_INTERVAL < flushed.elapsed();
        if !due {
            continue;
        }
        flushed = Instant::now();
        match data.flush() {
            Ok(()) => mailbox.post(Event::Flushed),
            Err(error) => crate::node::die(&format!("the data cannot be flushed: {error}")),
        }
    }
}

/// Writes resume only when half as much again is free, so that they do not flap at the border.
fn look_at_disk(engine: &Engine, disk_full: &DiskFull, reserve: u64) {
    let Ok(space) = engine.disk_space() else { return };
    disk_full.0.available_bytes.store(space.available_bytes, Ordering::Relaxed);
    let was_full = disk_full.is_full();
    let enough = if was_full { reserve + reserve / 2 } else { reserve };
    let full = space.available_bytes < enough;
    if full != was_full {
        tracing::warn!(full, available_bytes = space.available_bytes, reserve, "disk space");
        disk_full.0.full.store(full, Ordering::Relaxed);
    }
}

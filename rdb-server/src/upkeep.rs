//! What needs a disk and must not keep the raft loop waiting: reading entries for followers that lag, flushing the
//! data so that logs can be dropped, and removing what was dropped. One thread each.

use crate::budget::Budget;
use crate::disk::{Disk, Room};
use crate::mailbox::{Event, Mailbox};
use crate::shared::Shared;
use crossbeam_channel::{Receiver, Sender};
use rdb_core::ids::{RegionId, Term};
use rdb_core::raft::Fetch;
use rdb_storage::{DroppedLogs, LogStore, Removal};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Bytes of applied data after which it is flushed: what a restart has to apply again at most.
const UNFLUSHED_BYTES_MAX: u64 = 48 << 20;
/// The same where the disk is nearly full.
const UNFLUSHED_BYTES_FULL: u64 = 4 << 20;
/// After this long it is flushed in any case, so that logs do not wait for traffic.
const FLUSH_INTERVAL: Duration = Duration::from_secs(60);
/// Between two steps of a removal: about twenty megabytes a second, and more where more waits.
const REMOVAL_INTERVAL: Duration = Duration::from_millis(50);
/// Entries that were read and that the raft loop has not taken in yet.
const FETCHED_BYTES_MAX: usize = 32 << 20;
/// Between looks whether it has.
const FETCH_PAUSE: Duration = Duration::from_millis(1);
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
    let budget = Budget::new(FETCHED_BYTES_MAX);
    while let Ok((region, term, Fetch { low, high, bytes_max, context })) = fetches.recv() {
        let entries = logs.region(region).entries(low, high, bytes_max).map_err(|error| error.to_string());
        let bytes = entries.iter().flatten().map(|entry| entry.data.len()).sum();
        let share = budget.charge(bytes);
        mailbox.post(Event::Fetched { region, term, low, entries, share, context });
        while budget.is_exceeded() {
            std::thread::sleep(FETCH_PAUSE);
        }
    }
}

/// Flushes data until `stop` is set.
pub(crate) fn run_flushes(shared: &Shared, stop: &AtomicBool) {
    let mut flushed = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        std::thread::sleep(LOOK_INTERVAL);
        // Where there is little room, memory must not hold more than there is room for.
        let little = shared.disk.room() != Room::Enough;
        let unflushed_bytes_max = if little { UNFLUSHED_BYTES_FULL } else { UNFLUSHED_BYTES_MAX };
        let unflushed_bytes = shared.data.unflushed_bytes();
        let is_due = unflushed_bytes_max < unflushed_bytes || FLUSH_INTERVAL < flushed.elapsed();
        if !is_due && !shared.data.flush_is_wanted() {
            continue;
        }
        flushed = Instant::now();
        match shared.data.flush() {
            Ok(()) => shared.mailbox.post(Event::Flushed),
            Err(error) => crate::node::die(&format!("the data cannot be flushed: {error}")),
        }
    }
}

/// Removes the write-ahead logs that are no longer needed, a little at a time, until `stop` is set.
pub(crate) fn run_removals(dropped: &DroppedLogs, disk: &Disk, stop: &AtomicBool) {
    let mut told = false;
    while !stop.load(Ordering::Relaxed) {
        let how = if disk.room() == Room::Enough { Removal::Step } else { Removal::Everything };
        let pause = match dropped.remove(how) {
            Ok(0) => LOOK_INTERVAL,
            Ok(_) => REMOVAL_INTERVAL,
            Err(error) => {
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!(%error, "logs that are no longer needed stay on the disk");
                }
                LOOK_INTERVAL
            }
        };
        std::thread::sleep(pause);
    }
}

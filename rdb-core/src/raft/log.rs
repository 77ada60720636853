//! The log as raft-rs sees it: a tail in memory, the table of terms, and the disk behind them.
//!
//! raft-rs asks for entries from within its own functions, so an answer must not wait for a disk. Terms never do: the
//! table knows them all. Entries are in the tail as long as they are not synced, not applied, or a follower is likely
//! to want them. A follower further behind is served by a [`Fetch`]: raft-rs is told "not now", the entries are read
//! away from the loop and come back through [`Log::fetched`]. Only a restart reads here, for what is not yet applied.

use super::disk::Terms;
use super::effects::{Fetch, SnapshotPlace};
use crate::coverage::{Branch, reached};
use crate::ids::{Index, Term};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};
use raft_proto::eraftpb::{ConfState, Entry, HardState, Snapshot};
use std::cell::RefCell;
use std::collections::VecDeque;

/// Reads entries that are on disk.
pub trait LogRead {
    /// The entries `[low, high)`, all of which were written and none removed: as many from the front as fit
    /// `bytes_max`, and at least one.
    ///
    /// # Errors
    /// The disk failed or the bytes are damaged: the text says what and where.
    fn read(&self, low: Index, high: Index, bytes_max: u64) -> Result<Vec<Entry>, String>;
}

/// Chunks of fetched entries that are kept at a time: one for each of two followers that catch up.
const CHUNKS_MAX: usize = 2;
/// How exactly the log's length is known.
const MARK_BYTES: u64 = 256 << 10;
/// Ticks after which a chunk that nobody wants is dropped.
const CHUNK_TICKS_MAX: u32 = 50;

#[derive(Debug)]
struct Chunk {
    entries: Vec<Entry>,
    idle_ticks: u32,
}

/// One group's log.
#[derive(Debug)]
pub(super) struct Log<L> {
    disk: L,
    boot: RaftState,
    terms: Terms,
    last: Index,
    /// The newest entries, up to `last` without a gap.
    tail: VecDeque<Entry>,
    tail_bytes: usize,
    chunks: RefCell<VecDeque<Chunk>>,
    wanted: RefCell<Vec<Fetch>>,
    /// First indices of fetches under way, so that none is asked for twice.
    fetching: RefCell<Vec<Index>>,
    fetch_bytes_max: u64,
    /// Bytes of entries since the start, and how many they were before some of the entries: to tell the log's length.
    bytes: u64,
    marks: VecDeque<(Index, u64)>,
    /// What a snapshot of the data reflects at least, and from which tick on one may be taken.
    snapshot: SnapshotSource,
    ticks: u64,
}

#[derive(Debug, Default)]
struct SnapshotSource {
    applied: Index,
    not_before_tick: u64,
}

impl<L: LogRead> Log<L> {
    pub(super) fn new(
        disk: L,
        hard_state: HardState,
        conf_state: ConfState,
        terms: Terms,
        last: Index,
        fetch_bytes_max: u64,
    ) -> Self {
        Self {
            disk,
            boot: RaftState { hard_state, conf_state },
            terms,
            last,
            tail: VecDeque::new(),
            tail_bytes: 0,
            chunks: RefCell::default(),
            wanted: RefCell::default(),
            fetching: RefCell::default(),
            fetch_bytes_max,
            bytes: 0,
            marks: VecDeque::new(),
            snapshot: SnapshotSource::default(),
            ticks: 0,
        }
    }

    /// Bytes of the entries that the log holds, roughly; those from before this start do not count.
    pub(super) fn bytes(&self) -> u64 {
        self.marks.front().map_or(0, |(_, before)| self.bytes - before)
    }

    fn count(&mut self, index: Index, bytes: u64) {
        if self.marks.back().is_none_or(|(_, before)| before + MARK_BYTES <= self.bytes) {
            self.marks.push_back((index, self.bytes));
        }
        self.bytes += bytes;
    }

    pub(super) fn terms(&self) -> &Terms {
        &self.terms
    }

    fn tail_first(&self) -> Index {
        self.last + 1 - self.tail.len() as Index
    }

    /// Takes entries that raft-rs has decided on, before they are on disk. Returns whether the table of terms changed,
    /// and the range of overruled entries that the disk still has beyond the new last one.
    pub(super) fn append(&mut self, entries: Vec<Entry>) -> (bool, Option<(Index, Index)>) {
        let Some(first) = entries.first().map(|entry| entry.index) else { return (false, None) };
        assert!(first <= self.last + 1, "entry {first} does not follow the last entry {}", self.last);
        assert!(self.terms.first_index() <= first, "entry {first} was dropped from the log before");
        let old_last = self.last;
        let mut terms_changed = false;
        if first <= old_last {
            reached(Branch::RaftEntriesOverruled);
            terms_changed = self.terms.cut_from(first);
            while self.tail.back().is_some_and(|entry| first <= entry.index) {
                self.tail_bytes -= self.tail.pop_back().map_or(0, |entry| size(&entry));
            }
            self.chunks.get_mut().clear();
            self.last = first - 1;
        }
        for entry in entries {
            assert_eq!(entry.index, self.last + 1, "entries follow each other");
            terms_changed |= self.terms.push(entry.index, entry.term);
            self.last = entry.index;
            self.tail_bytes += size(&entry);
            self.count(entry.index, size(&entry) as u64);
            self.tail.push_back(entry);
        }
        (terms_changed, (self.last < old_last).then_some((self.last + 1, old_last + 1)))
    }

    /// Drops entries up to `needless` from memory, the oldest first, until the tail fits `bytes_max`.
    pub(super) fn shrink_tail(&mut self, needless: Index, bytes_max: usize) {
        while bytes_max < self.tail_bytes && self.tail.front().is_some_and(|entry| entry.index <= needless) {
            self.tail_bytes -= self.tail.pop_front().map_or(0, |entry| size(&entry));
        }
    }

    /// Forgets entries up to `index`, which the disk is about to drop.
    pub(super) fn drop_to(&mut self, index: Index) {
        self.terms.drop_to(index);
        // The first mark stands at or before the first entry.
        while self.marks.get(1).is_some_and(|(marked, _)| *marked <= index + 1) {
            self.marks.pop_front();
        }
        while self.tail.front().is_some_and(|entry| entry.index <= index) {
            self.tail_bytes -= self.tail.pop_front().map_or(0, |entry| size(&entry));
        }
    }

    /// Starts anew after a snapshot: nothing that was here before counts any longer.
    pub(super) fn restart_after(&mut self, place: SnapshotPlace) {
        self.terms = Terms::after(place.index, place.term);
        self.last = place.index;
        self.tail.clear();
        self.tail_bytes = 0;
        self.marks.clear();
        self.chunks.get_mut().clear();
        self.wanted.get_mut().clear();
        self.fetching.get_mut().clear();
    }

    /// The data reflects the entries up to `index`.
    pub(super) fn applied(&mut self, index: Index) {
        self.snapshot.applied = self.snapshot.applied.max(index);
    }

    /// Sends no snapshot for so many ticks: the last one came to nothing.
    pub(super) fn no_snapshots_for(&mut self, ticks: u64) {
        self.snapshot.not_before_tick = self.ticks + ticks;
    }

    pub(super) fn take_wanted(&mut self) -> Vec<Fetch> {
        std::mem::take(self.wanted.get_mut())
    }

    /// Takes entries that a [`Fetch`] read. They are dropped if the log was cut in the meantime.
    pub(super) fn fetched(&mut self, low: Index, entries: Vec<Entry>) {
        self.fetching.get_mut().retain(|under_way| *under_way != low);
        let fits = entries.iter().all(|entry| self.terms.term(entry.index) == Some(entry.term))
            && entries.last().is_some_and(|entry| entry.index <= self.last);
        if !fits {
            reached(Branch::RaftFetchOutdated);
            return;
        }
        let chunks = self.chunks.get_mut();
        while CHUNKS_MAX <= chunks.len() {
            chunks.pop_front();
        }
        chunks.push_back(Chunk { entries, idle_ticks: 0 });
    }

    pub(super) fn tick(&mut self) {
        self.ticks += 1;
        for chunk in self.chunks.get_mut() {
            chunk.idle_ticks += 1;
        }
        self.chunks.get_mut().retain(|chunk| chunk.idle_ticks < CHUNK_TICKS_MAX);
    }

    fn tail_entries(&self, low: Index, high: Index, bytes_max: Option<u64>) -> Vec<Entry> {
        let first = self.tail_first();
        let range = index(low - first)..index(high - first);
        limit(self.tail.range(range), bytes_max)
    }

    fn chunk_entries(&self, low: Index, high: Index, bytes_max: Option<u64>) -> Option<Vec<Entry>> {
        let mut chunks = self.chunks.borrow_mut();
        let chunk = chunks.iter_mut().find(|chunk| {
            chunk.entries.first().is_some_and(|first| first.index <= low)
                && chunk.entries.last().is_some_and(|last| low <= last.index)
        })?;
        chunk.idle_ticks = 0;
        let wanted = chunk.entries.iter().filter(|entry| (low..high).contains(&entry.index));
        Some(limit(wanted, bytes_max))
    }

    /// Remembers that `[low, high)` is wanted. A chunk is larger than one message, so that a follower far behind does
    /// not wait for a disk read with each.
    fn want(&self, low: Index, high: Index, context: GetEntriesContext) {
        let mut fetching = self.fetching.borrow_mut();
        if fetching.contains(&low) {
            return;
        }
        fetching.push(low);
        self.wanted.borrow_mut().push(Fetch { low, high, bytes_max: self.fetch_bytes_max, context });
    }
}

fn size(entry: &Entry) -> usize {
    entry.data.len() + size_of::<Entry>()
}

fn index(offset: u64) -> usize {
    usize::try_from(offset).expect("an offset into the tail fits memory")
}

/// As many entries from the front as fit, and at least one.
fn limit<'a>(entries: impl Iterator<Item = &'a Entry>, bytes_max: Option<u64>) -> Vec<Entry> {
    let bytes_max = bytes_max.unwrap_or(u64::MAX);
    let mut taken = Vec::new();
    let mut bytes = 0;
    for entry in entries {
        // Counted as raft-rs counts: it cuts what it gets again, by the encoded size.
        bytes += encoded_size(entry);
        if bytes_max < bytes && !taken.is_empty() {
            break;
        }
        taken.push(entry.clone());
    }
    taken
}

fn encoded_size(entry: &Entry) -> u64 {
    entry.data.len() as u64 + 24
}

impl<L: LogRead> Storage for Log<L> {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(self.boot.clone())
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        let max_size = max_size.into();
        if low < self.terms.first_index() {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        if self.last + 1 < high {
            return Err(raft::Error::Store(StorageError::Unavailable));
        }
        if self.tail_first() <= low {
            return Ok(self.tail_entries(low, high, max_size));
        }
        if let Some(entries) = self.chunk_entries(low, high, max_size) {
            return Ok(entries);
        }
        let high = high.min(self.tail_first());
        if context.can_async() {
            self.want(low, high, context);
            return Err(raft::Error::Store(StorageError::LogTemporarilyUnavailable));
        }
        self.disk
            .read(low, high, max_size.unwrap_or(u64::MAX))
            .map_err(|error| raft::Error::Store(StorageError::Other(error.into())))
    }

    fn term(&self, index: u64) -> raft::Result<Term> {
        if index + 1 < self.terms.first_index() {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        if self.last < index {
            return Err(raft::Error::Store(StorageError::Unavailable));
        }
        self.terms.term(index).ok_or(raft::Error::Store(StorageError::Unavailable))
    }

    fn first_index(&self) -> raft::Result<Index> {
        Ok(self.terms.first_index())
    }

    fn last_index(&self) -> raft::Result<Index> {
        Ok(self.last)
    }

    /// Only where the snapshot will stand: the data is read when it is sent, and never comes by here.
    fn snapshot(&self, request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        let SnapshotSource { applied, not_before_tick } = self.snapshot;
        let term = self.terms.term(applied).filter(|_| applied != 0 && request_index <= applied);
        let Some(term) = term.filter(|_| not_before_tick <= self.ticks) else {
            return Err(raft::Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        };
        let mut snapshot = Snapshot::default();
        let metadata = snapshot.mut_metadata();
        metadata.set_conf_state(self.boot.conf_state.clone());
        metadata.index = applied;
        metadata.term = term;
        Ok(snapshot)
    }
}

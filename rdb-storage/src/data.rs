//! The data: records, and per region its applied state and its clients' sessions.
//!
//! There is no write-ahead log here, since the Raft logs are one. So after a crash the data is what it was at some
//! earlier moment: that of the last batch in the last flush. All that a region applies goes into one batch, so its
//! records, its sessions and the index that they reflect are of one moment, and replaying the Raft log from that index
//! brings everything back. For that the log must still have the entries: it is truncated only up to what a completed
//! flush holds.

use crate::error::{Error, Result};
use crate::keys;
use crate::rocks::Databases;
use rdb_core::apply::{Changes, State, View};
use rdb_core::eventual::machine as eventual;
use rdb_core::eventual::vector::Vector;
use rdb_core::ids::{Era, Index, NamespaceId, RegionId};
use rdb_core::sessions::Sessions;
use rdb_core::switch::Region;
use rocksdb::{ErrorKind, FlushOptions, IteratorMode, ReadOptions, ReadTier, WriteBatch};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Where a region stands.
#[derive(Debug, Clone, Copy, Default)]
struct Position {
    /// What its records reflect.
    applied: Index,
    /// What they are sure to reflect after a crash.
    durable: Index,
    /// How far its state allows its log to be truncated.
    truncate_to: Index,
}

/// Where a region's eventual mode stands.
#[derive(Debug, Clone, Default)]
struct EventualPosition {
    /// Of which era the writes are that the two vectors count.
    era: Era,
    /// What its records reflect.
    applied: Vector,
    /// What they are sure to reflect after a crash.
    durable: Vector,
}

/// The data database. Cheap to clone; every clone is the same.
#[derive(Clone)]
pub struct Data {
    databases: Arc<Databases>,
    /// Of each region that was loaded or applied to since the start.
    positions: Arc<Mutex<BTreeMap<RegionId, Position>>>,
    /// The same of its writes in eventual mode.
    eventual: Arc<Mutex<BTreeMap<RegionId, EventualPosition>>>,
    /// Bytes written since the last flush that was asked for.
    unflushed_bytes: Arc<AtomicU64>,
    flushes: Arc<Flushes>,
    /// For reads that do without the disk.
    in_memory: Arc<ReadOptions>,
}

/// Tables on the disk have to be read to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotInMemory;

/// What is known without the disk.
pub type InMemory<T> = std::result::Result<T, NotInMemory>;

/// The encoded records of several keys, in their order.
pub type Records = Vec<Option<Vec<u8>>>;

/// From memtables and the block cache alone.
fn in_memory() -> ReadOptions {
    let mut options = ReadOptions::default();
    options.set_read_tier(ReadTier::BlockCache);
    options
}

/// Flushes since the start, by their numbers.
#[derive(Debug, Default)]
struct Flushes {
    /// The last that has begun.
    begun: AtomicU64,
    /// The last that is done.
    done: AtomicU64,
    /// Somebody waits for this one.
    wanted: AtomicU64,
}

impl Data {
    pub(crate) fn new(databases: Arc<Databases>) -> Self {
        Self {
            databases,
            positions: Arc::default(),
            eventual: Arc::default(),
            unflushed_bytes: Arc::default(),
            flushes: Arc::default(),
            in_memory: Arc::new(in_memory()),
        }
    }

    /// What a region's state machine reads.
    pub fn region(&self, region: RegionId, namespace: NamespaceId) -> RegionData {
        RegionData { data: self.clone(), region, namespace }
    }

    /// The state and the sessions of a region as they are stored; `None` if nothing was ever applied to it.
    ///
    /// Called at start, before anything is applied: what is found came from disk, so it is durable.
    ///
    /// # Errors
    /// They cannot be read. The node must not start.
    pub fn load(&self, region: RegionId) -> Result<Option<(State, Sessions)>> {
        let stored = self.databases.data.get(keys::region_state(region));
        let stored = stored.map_err(Error::rocks("read a region's state from the data"))?;
        let sessions = self.load_sessions(region)?;
        let Some(bytes) = stored else {
            if sessions.is_empty() {
                return Ok(None);
            }
            return Err(Error::damaged_region(
                region,
                "the data has its clients' sessions but not its state",
            ));
        };
        let state = State::decode(&bytes).map_err(Error::corrupt_region(region))?;
        let durable =
            Position { applied: state.applied, durable: state.applied, truncate_to: state.truncate_to };
        // A second call finds what was applied meanwhile, which is not durable.
        self.positions().entry(region).or_insert(durable);
        Ok(Some((state, sessions)))
    }

    fn load_sessions(&self, region: RegionId) -> Result<Sessions> {
        let mut options = ReadOptions::default();
        options.set_iterate_range(keys::sessions(region));
        let mut sessions = Sessions::default();
        for item in self.databases.data.iterator_opt(IteratorMode::Start, options) {
            let (key, value) = item.map_err(Error::rocks("read a region's sessions from the data"))?;
            let client = keys::parse_session(&key).ok_or_else(|| {
                Error::damaged_region(region, format!("the data has the unknown key {key:02x?}"))
            })?;
            sessions.load(client, &value).map_err(Error::corrupt_region(region))?;
        }
        Ok(sessions)
    }

    /// The encoded record of a key, if there is one.
    ///
    /// # Errors
    /// The disk could not be read.
    pub fn get(&self, namespace: NamespaceId, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.databases.data.get(keys::record(namespace, key)).map_err(Error::rocks("read a record"))
    }

    /// The same, if no disk has to be read to tell; otherwise `Err(NotInMemory)` within.
    ///
    /// # Errors
    /// What is in memory is damaged.
    pub fn get_in_memory(&self, namespace: NamespaceId, key: &[u8]) -> Result<InMemory<Option<Vec<u8>>>> {
        match self.databases.data.get_opt(keys::record(namespace, key), &self.in_memory) {
            Ok(record) => Ok(Ok(record)),
            Err(error) if error.kind() == ErrorKind::Incomplete => Ok(Err(NotInMemory)),
            Err(error) => Err(Error::rocks("read a record")(error)),
        }
    }

    /// The encoded records of several keys, in their order, all of one moment; `None` once they are more than `bytes_max`
    /// bytes.
    ///
    /// # Errors
    /// The disk could not be read.
    pub fn multi_get<K: AsRef<[u8]>>(
        &self,
        namespace: NamespaceId,
        keys: &[K],
        bytes_max: usize,
    ) -> Result<Option<Records>> {
        self.some(namespace, keys, bytes_max, ReadOptions::default)
    }

    /// The same, if no disk has to be read to tell; otherwise `Err(NotInMemory)` within.
    ///
    /// # Errors
    /// What is in memory is damaged.
    pub fn multi_get_in_memory<K: AsRef<[u8]>>(
        &self,
        namespace: NamespaceId,
        keys: &[K],
        bytes_max: usize,
    ) -> Result<InMemory<Option<Records>>> {
        match self.some(namespace, keys, bytes_max, in_memory) {
            Err(Error::Rocks { source, .. }) if source.kind() == ErrorKind::Incomplete => {
                Ok(Err(NotInMemory))
            }
            read => read.map(Ok),
        }
    }

    fn some<K: AsRef<[u8]>>(
        &self,
        namespace: NamespaceId,
        keys: &[K],
        bytes_max: usize,
        options: fn() -> ReadOptions,
    ) -> Result<Option<Records>> {
        // One at a time: what is read after the limit would be read in vain, and could be much.
        let moment = self.databases.data.snapshot();
        let (mut records, mut bytes) = (Vec::with_capacity(keys.len()), 0);
        for key in keys {
            let found = moment.get_opt(keys::record(namespace, key.as_ref()), options());
            let record = found.map_err(Error::rocks("read records"))?;
            bytes += record.as_ref().map_or(0, Vec::len);
            if bytes_max < bytes {
                return Ok(None);
            }
            records.push(record);
        }
        Ok(Some(records))
    }

    /// All keys and encoded records of a namespace, in order. For the catalog, which is small.
    ///
    /// # Errors
    /// The disk could not be read, or holds a key that is none.
    pub fn records(&self, namespace: NamespaceId) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let range = keys::records(namespace);
        let prefix = range.start.len();
        let mut options = ReadOptions::default();
        options.set_iterate_range(range);
        let mut records = Vec::new();
        for item in self.databases.data.iterator_opt(IteratorMode::Start, options) {
            let (key, record) = item.map_err(Error::rocks("read a namespace's records"))?;
            records.push((key[prefix..].to_vec(), record.into_vec()));
        }
        Ok(records)
    }

    /// Writes what applying entries to a region has changed: all of it or, after a crash, nothing.
    ///
    /// Of one region's changes, each call follows the one before; regions do not wait for each other.
    ///
    /// A range that is removed becomes a tombstone of RocksDB, which costs the same for many keys as for none. So nobody
    /// learns how many keys there were; to count them would be to read them.
    ///
    /// # Errors
    /// It could not be written, or the state in it cannot be read. The node must stop.
    pub fn apply(&self, region: RegionId, namespace: NamespaceId, changes: &Changes) -> Result<()> {
        let state = State::decode(&changes.state).map_err(Error::corrupt_region(region))?;
        let mut batch = batch_for(&changes.records);
        batch.put(keys::region_state(region), &changes.state);
        // PLANTED BUG: what the state says is applied may be lost, if a flush comes in between.
        #[cfg(feature = "bug-state-in-own-batch")]
        self.write(std::mem::take(&mut batch))?;
        for (client, session) in &changes.sessions {
            put(&mut batch, &keys::session(region, *client), session.as_deref());
        }
        // Within the batch these come first: a record in such a range was written after it.
        for range in &changes.removed {
            let keys = keys::record_range(namespace, range);
            batch.delete_range(&keys.start, &keys.end);
        }
        for (key, record) in &changes.records {
            put(&mut batch, &keys::record(namespace, key), record.as_deref());
        }
        if let Some(entered) = &changes.entered {
            batch.put(keys::region_mode(region), &entered.mode);
            if let Some(eventual) = &entered.eventual {
                batch.put(keys::eventual_state(region), eventual);
                // Before the write: what is flushed of the era before says nothing of this one.
                let position = EventualPosition { era: state.era, ..EventualPosition::default() };
                self.eventual_positions().insert(region, position);
            }
        }
        self.write(batch)?;
        // Noted after the write, so that a flush which sees the note has the write.
        self.note_position(region, &state, false);
        Ok(())
    }

    /// What was known of a region's eventual mode is of data that was replaced.
    pub(crate) fn forget_eventual(&self, region: RegionId) {
        self.eventual_positions().remove(&region);
    }

    /// A region's mode as it is stored; `None` where it has never switched.
    ///
    /// # Errors
    /// It cannot be read. The region must not start.
    pub fn load_mode(&self, region: RegionId) -> Result<Option<Region>> {
        let stored = self.databases.data.get(keys::region_mode(region));
        let stored = stored.map_err(Error::rocks("read a region's mode from the data"))?;
        stored.map(|bytes| Region::decode(&bytes).map_err(Error::corrupt_region(region))).transpose()
    }

    /// Takes note of where a region stands; `durable` if a crash cannot take it back.
    pub(crate) fn note_position(&self, region: RegionId, state: &State, durable: bool) {
        let mut positions = self.positions();
        let position = positions.entry(region).or_default();
        position.applied = state.applied;
        position.truncate_to = state.truncate_to;
        if durable {
            position.durable = position.durable.max(state.applied);
        }
    }

    pub(crate) fn databases(&self) -> &Databases {
        &self.databases
    }

    fn write(&self, batch: WriteBatch) -> Result<()> {
        self.unflushed_bytes.fetch_add(batch.size_in_bytes() as u64, Ordering::Relaxed);
        self.databases.data.write_without_wal(batch).map_err(Error::rocks("write to the data"))
    }

    /// Makes all that is applied durable. Takes as long as the disk needs.
    ///
    /// # Errors
    /// It could not be written. The node must stop.
    pub fn flush(&self) -> Result<()> {
        // Before anything of it: whoever has written earlier finds in it what he has written.
        let number = self.flushes.begun.fetch_add(1, Ordering::AcqRel) + 1;
        self.unflushed_bytes.store(0, Ordering::Relaxed);
        let before: Vec<_> = self.positions().iter().map(|(region, at)| (*region, at.applied)).collect();
        let eventual: Vec<_> = self
            .eventual_positions()
            .iter()
            .map(|(region, at)| (*region, (at.era, at.applied.clone())))
            .collect();
        let mut options = FlushOptions::default();
        options.set_wait(true);
        self.databases.data.flush_opt(&options).map_err(Error::rocks("flush the data"))?;
        let mut positions = self.positions();
        for (region, applied) in before {
            // A region that was destroyed meanwhile is no longer there.
            if let Some(position) = positions.get_mut(&region) {
                position.durable = position.durable.max(applied);
            }
        }
        drop(positions);
        let mut positions = self.eventual_positions();
        for (region, (era, applied)) in eventual {
            // Of an era that ended while this was written nothing follows for the next one.
            if let Some(position) = positions.get_mut(&region).filter(|position| position.era == era) {
                position.durable = applied;
            }
        }
        self.flushes.done.fetch_max(number, Ordering::AcqRel);
        Ok(())
    }

    /// The number of the flush that makes durable all that is written by now: the next one.
    pub fn next_flush(&self) -> u64 {
        self.flushes.begun.load(Ordering::Acquire) + 1
    }

    /// The number of the last flush that is done.
    pub fn flushed(&self) -> u64 {
        self.flushes.done.load(Ordering::Acquire)
    }

    /// Asks for a flush soon, of this number or later.
    pub fn want_flush(&self, number: u64) {
        self.flushes.wanted.fetch_max(number, Ordering::AcqRel);
    }

    /// Whether somebody waits for a flush that has not begun.
    pub fn flush_is_wanted(&self) -> bool {
        self.flushes.begun.load(Ordering::Acquire) < self.flushes.wanted.load(Ordering::Acquire)
    }

    /// The entry up to which a region's data is sure to be there after a crash. RocksDB also flushes by itself, so the
    /// data may in fact be further.
    pub fn durable(&self, region: RegionId) -> Index {
        self.positions().get(&region).map_or(0, |position| position.durable)
    }

    /// The entry up to which a region's log may be truncated: no further than its state allows, and never past what
    /// the data would have after a crash.
    pub fn truncation_target(&self, region: RegionId) -> Index {
        let position = self.positions().get(&region).copied().unwrap_or_default();
        // PLANTED BUG: entries go that a restart needs.
        rdb_core::raft::truncation_target(position.truncate_to, position.durable)
    }

    /// The regions and the namespaces of which the data has anything. Skips from one to the next, so it costs little.
    ///
    /// # Errors
    /// The disk could not be read, or holds a key that is none.
    pub fn present(&self) -> Result<(Vec<RegionId>, Vec<NamespaceId>)> {
        let mut keys = self.databases.data.raw_iterator();
        let (mut regions, mut namespaces) = (Vec::new(), Vec::new());
        keys.seek(keys::region(RegionId(0)).start);
        while let Some(key) = keys.key() {
            let unknown = || Error::Damaged {
                what: "the data database".into(),
                problem: format!("it has the unknown key {key:02x?}"),
            };
            match keys::parse_owner(key).ok_or_else(unknown)? {
                keys::Owner::Region(region) => {
                    regions.push(region);
                    keys.seek(keys::region(region).end);
                }
                keys::Owner::Namespace(namespace) => {
                    namespaces.push(namespace);
                    keys.seek(keys::records(namespace).end);
                }
            }
        }
        keys.status().map_err(Error::rocks("look for the data's regions"))?;
        Ok((regions, namespaces))
    }

    /// Removes all that the data has of some regions, and the records of their namespaces, for good: it is flushed, once for
    /// all of them, and so is the catalog that no longer names them. The logs go after that: see
    /// [`LogWriterHandle::destroy_region`](crate::LogWriterHandle::destroy_region).
    ///
    /// # Errors
    /// It could not be written. The node must stop.
    pub fn destroy(&self, gone: &[(RegionId, NamespaceId)]) -> Result<()> {
        for (region, namespace) in gone {
            self.remove(&[keys::region(*region), keys::records(*namespace)])?;
            self.positions().remove(region);
            self.eventual_positions().remove(region);
        }
        self.flush()
    }

    /// Removes what a [`Data::destroy`] that was cut short has left of a region.
    ///
    /// # Errors
    /// As there.
    pub fn destroy_region(&self, region: RegionId) -> Result<()> {
        self.remove(&[keys::region(region)])
    }

    /// Removes what a [`Data::destroy`] that was cut short has left of a namespace.
    ///
    /// # Errors
    /// As there.
    pub fn destroy_records(&self, namespace: NamespaceId) -> Result<()> {
        self.remove(&[keys::records(namespace)])
    }

    fn remove(&self, ranges: &[std::ops::Range<Vec<u8>>]) -> Result<()> {
        let mut batch = WriteBatch::default();
        for range in ranges {
            batch.delete_range(&range.start, &range.end);
        }
        self.write(batch)
    }

    /// Bytes that were applied since the last flush that was asked for. When it grows, flush, and truncate the logs.
    ///
    /// RocksDB flushes full memtables by itself, so a restart has less to apply again than this; but it does not say so,
    /// and only what is known to be durable lets a log be truncated.
    pub fn unflushed_bytes(&self) -> u64 {
        self.unflushed_bytes.load(Ordering::Relaxed)
    }

    /// Flushes, so that the next start has nothing to apply again. The database itself is closed when the last handle
    /// is dropped.
    ///
    /// # Errors
    /// It could not be written.
    pub fn close(self) -> Result<()> {
        self.flush()
    }

    /// The state of a region's eventual mode as it is now; `None` if nothing was ever applied to it in that mode.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn eventual_state(&self, region: RegionId) -> Result<Option<eventual::State>> {
        let stored = self.databases.data.get(keys::eventual_state(region));
        let stored = stored.map_err(Error::rocks("read a region's eventual state from the data"))?;
        let decode = |bytes: Vec<u8>| eventual::State::decode(&bytes);
        stored.map(decode).transpose().map_err(Error::corrupt_region(region))
    }

    /// The same, for whoever alone will apply to it and has not begun: what is found is durable, unless this process has put the
    /// region into its era, and nothing else was applied since.
    ///
    /// # Errors
    /// It cannot be read. The region must not start.
    pub fn load_eventual(&self, region: RegionId) -> Result<Option<eventual::State>> {
        let state = self.eventual_state(region)?;
        if let Some(state) = &state {
            let (applied, durable) = (state.applied.clone(), state.applied.clone());
            let durable = EventualPosition { era: state.era, applied, durable };
            self.eventual_positions().entry(region).or_insert(durable);
        }
        Ok(state)
    }

    /// Writes what applying writes to a region in eventual mode has changed: all of it or, after a crash, nothing. `applied` is
    /// what its records then reflect.
    ///
    /// # Errors
    /// It could not be written. The node must stop.
    pub fn apply_eventual(
        &self,
        region: RegionId,
        namespace: NamespaceId,
        changes: &eventual::Changes,
        (era, applied): (Era, &Vector),
    ) -> Result<()> {
        let mut batch = batch_for(&changes.records);
        batch.put(keys::eventual_state(region), &changes.state);
        for (key, note) in &changes.notes {
            put(&mut batch, &keys::note(region, key), note.as_deref());
        }
        for (key, record) in &changes.records {
            put(&mut batch, &keys::record(namespace, key), record.as_deref());
        }
        self.write(batch)?;
        // Noted after the write, so that a flush which sees the note has the write.
        let mut positions = self.eventual_positions();
        let position = positions
            .entry(region)
            .or_insert_with(|| EventualPosition { era, ..EventualPosition::default() });
        if position.era == era {
            position.applied.clone_from(applied);
        }
        Ok(())
    }

    /// Changes notes alone, of what nothing else rests on: a crash may undo it.
    fn change_notes(&self, region: RegionId, notes: &[(Vec<u8>, Option<Vec<u8>>)]) -> Result<()> {
        let mut batch = WriteBatch::default();
        for (key, note) in notes {
            put(&mut batch, &keys::note(region, key), note.as_deref());
        }
        self.write(batch)
    }

    /// Which writes of a region's eventual era its data is sure to have after a crash. The origins' logs may be truncated up to
    /// there.
    pub fn durable_vector(&self, region: RegionId, era: Era) -> Vector {
        let positions = self.eventual_positions();
        positions.get(&region).filter(|at| at.era == era).map(|at| at.durable.clone()).unwrap_or_default()
    }

    fn note(&self, region: RegionId, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.databases.data.get(keys::note(region, key)).map_err(Error::rocks("read a note"))
    }

    fn notes(&self, region: RegionId, from: &[u8], to: &[u8]) -> Result<eventual::Notes> {
        self.some_notes(region, from, to, usize::MAX)
    }

    /// As [`Data::notes`], but no more than `count_max`.
    fn some_notes(
        &self,
        region: RegionId,
        from: &[u8],
        to: &[u8],
        count_max: usize,
    ) -> Result<eventual::Notes> {
        let range = keys::note(region, from)..keys::note(region, to);
        let prefix = keys::note(region, &[]).len();
        let mut options = ReadOptions::default();
        options.set_iterate_range(range);
        let mut notes = Vec::new();
        for item in self.databases.data.iterator_opt(IteratorMode::Start, options).take(count_max) {
            let (key, note) = item.map_err(Error::rocks("read notes"))?;
            notes.push((key[prefix..].to_vec(), note.into_vec()));
        }
        Ok(notes)
    }

    fn eventual_positions(&self) -> MutexGuard<'_, BTreeMap<RegionId, EventualPosition>> {
        self.eventual.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A panic while the lock was held left positions that are too low at worst.
    fn positions(&self) -> MutexGuard<'_, BTreeMap<RegionId, Position>> {
        self.positions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// With room for these records, so that it need not grow.
fn batch_for(records: &[(Vec<u8>, Option<Vec<u8>>)]) -> WriteBatch {
    const BESIDES: usize = 32;
    let bytes = records
        .iter()
        .map(|(key, record)| key.len() + record.as_ref().map_or(0, Vec::len) + BESIDES)
        .sum::<usize>();
    WriteBatch::with_capacity_bytes(bytes + 512)
}

fn put(batch: &mut WriteBatch, key: &[u8], value: Option<&[u8]>) {
    match value {
        Some(value) => batch.put(key, value),
        None => batch.delete(key),
    }
}

/// One region's records, as its state machine reads them.
#[derive(Clone)]
pub struct RegionData {
    data: Data,
    region: RegionId,
    namespace: NamespaceId,
}

impl RegionData {
    /// See [`Data::apply`].
    ///
    /// # Errors
    /// As there.
    pub fn apply(&self, changes: &Changes) -> Result<()> {
        self.data.apply(self.region, self.namespace, changes)
    }

    /// The first notes of eventual mode from `from` on, up to, and without, `to`; no more than `count_max`.
    ///
    /// # Errors
    /// The disk could not be read.
    pub fn some_notes(&self, from: &[u8], to: &[u8], count_max: usize) -> Result<eventual::Notes> {
        self.data.some_notes(self.region, from, to, count_max)
    }

    /// Changes notes alone, of what nothing else rests on: a crash may undo it. `None` removes.
    ///
    /// # Errors
    /// They could not be written. The node must stop.
    pub fn change_notes(&self, notes: &[(Vec<u8>, Option<Vec<u8>>)]) -> Result<()> {
        self.data.change_notes(self.region, notes)
    }
}

impl View for RegionData {
    type Error = Error;

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.data.get(self.namespace, key)
    }
}

impl eventual::View for RegionData {
    fn note(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.data.note(self.region, key)
    }

    fn notes(&self, from: &[u8], to: &[u8]) -> Result<eventual::Notes> {
        self.data.notes(self.region, from, to)
    }
}

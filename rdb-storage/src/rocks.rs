//! The two RocksDB instances and every option that is not left to RocksDB.
//!
//! # When the log is opened after a crash
//!
//! `TolerateCorruptedTailRecords` drops a record that the end of a write-ahead log cut short: that is what a power cut
//! leaves of a batch whose sync had not returned, so nobody was promised anything. A record that is whole but fails its
//! checksum makes RocksDB refuse to open. RocksDB's default, point-in-time recovery, would instead open with all that
//! comes before the damage and drop the rest without a word: synced votes and entries, too. What is left to guard
//! against is a log that lost synced records from its very end, or as a whole: a cut looks the same wherever it is, and
//! so does a damaged length. That is what the watermark is for (see `watermark.rs`). An earlier write-ahead log that is
//! missing, or shorter than when it was closed, is noticed by its size in the manifest
//! (`track_and_verify_wals_in_manifest`), unless a crash left zeroes behind its end (see `log_ahead.rs`): then by the gap
//! in the positions of what follows. Recycled log files would put old records behind the end, so there are none.
//! Two kinds of damage RocksDB overlooks: `wal.rs` looks for them first.
//!
//! # When the data is opened after a crash
//!
//! It has no write-ahead log. All keys are in one column family, so a batch is in one memtable as a whole, and memtables
//! are flushed in order: what is found is the state after some batch, with nothing missing before it.

use crate::directory::{self, DATA, LOG, Lock};
use crate::error::{Error, Result};
use crate::keys;
use rocksdb::{
    BlockBasedOptions, BoundColumnFamily, Cache, ColumnFamilyDescriptor, DB, DBCompressionType,
    DBRecoveryMode, Options,
};
use std::path::Path;
use std::sync::Arc;

const MIB: usize = 1 << 20;

/// A full memtable of the data is flushed. Each flush disturbs the log's syncs, however short it is: so few of them, and
/// still a restart replays little.
const DATA_MEMTABLE_BYTES: usize = 64 * MIB;
/// A full memtable of the log is flushed. Entries that are truncated before that never reach a table file: it holds several
/// times what a log keeps while all members are there.
const LOG_MEMTABLE_BYTES: usize = 128 * MIB;
/// Past this all of the log's memtables are flushed, so that no old write-ahead log stays.
const LOG_WAL_BYTES_MAX: u64 = 256 * MIB as u64;
/// Level-0 files before they are compacted; then before writers are slowed and stopped.
const LEVEL0_FILES: [i32; 3] = [10, 20, 36];
/// RocksDB's own log, per database: so many files of so many bytes.
const INFO_LOG_FILES: usize = 4;
const INFO_LOG_BYTES_MAX: usize = 8 * MIB;
/// Bits per key: about one false positive in a hundred.
const BLOOM_BITS: f64 = 10.0;
/// Table files are written past the page cache where the file system allows it, in such portions: a sync of the log that
/// comes in between waits for one of them. Through the page cache, a journal's commit writes all that is there first.
const DIRECT_WRITE_BYTES: u64 = 128 << 10;
/// Elsewhere they are handed to the disk in such portions, so that a flush does not end in one long sync.
const BYTES_PER_SYNC: u64 = MIB as u64;
/// Write-ahead logs that are no longer needed are put aside, and removed by `dropped_logs.rs`. This is for ever: RocksDB
/// itself removes none.
const DROPPED_LOG_SECONDS: u64 = 100 * 365 * 24 * 3600;

/// What a node can be told about its databases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineOptions {
    /// Blocks of the data that are kept in memory, uncompressed.
    pub block_cache_bytes: usize,
    /// Data that is not flushed, at most: what a restart applies again. Writers wait where it is reached.
    pub unflushed_bytes_max: usize,
    /// Threads that flush and compact, per database.
    pub background_jobs: i32,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self { block_cache_bytes: 256 * MIB, unflushed_bytes_max: 128 * MIB, background_jobs: 2 }
    }
}

/// Both databases and the lock of their directory, which goes last.
pub(crate) struct Databases {
    pub(crate) log: DB,
    pub(crate) data: DB,
    pub(crate) _lock: Lock,
}

impl Databases {
    /// A column family of the log database.
    pub(crate) fn log_family(&self, name: &'static str) -> Result<Arc<BoundColumnFamily<'_>>> {
        self.log.cf_handle(name).ok_or_else(|| Error::Damaged {
            what: "the log database".into(),
            problem: format!("it has no column family '{name}'"),
        })
    }
}

/// Opens the log database of the data directory `path`, which must be there.
pub(crate) fn open_existing_log(path: &Path, options: &EngineOptions) -> Result<DB> {
    let path = path.join(LOG);
    if !directory::has_database(&path) {
        return Err(Error::LogMissing(path));
    }
    open_log(&path, options, false)
}

/// Opens the data database of the data directory `path`, which must be there.
pub(crate) fn open_existing_data(path: &Path, options: &EngineOptions) -> Result<DB> {
    let path = path.join(DATA);
    if directory::has_database(&path) {
        open_data(&path, options, false)
    } else {
        Err(Error::DataMissing(path))
    }
}

/// Opens or makes a log database.
pub(crate) fn open_log(path: &Path, options: &EngineOptions, create: bool) -> Result<DB> {
    let mut db = common(path, options, create);
    db.set_wal_ttl_seconds(DROPPED_LOG_SECONDS);
    db.set_wal_recovery_mode(if cfg!(feature = "bug-wal-point-in-time") {
        DBRecoveryMode::PointInTime
    } else {
        DBRecoveryMode::TolerateCorruptedTailRecords
    });
    db.set_recycle_log_file_num(0);
    db.set_track_and_verify_wals_in_manifest(true);
    db.set_manual_wal_flush(false);
    db.set_max_total_wal_size(LOG_WAL_BYTES_MAX);
    // All families are flushed together: the small ones never fill up by themselves and would keep every write-ahead
    // log alive, and the position never falls behind the entries that it counts.
    db.set_atomic_flush(true);
    let mut family = Options::default();
    family.set_write_buffer_size(LOG_MEMTABLE_BYTES);
    family.set_max_write_buffer_number(4);
    // What comes to a table file here is soon dropped again: to compress it, in flushes alone, was 7 % of all work of a loaded machine.
    family.set_compression_type(DBCompressionType::None);
    let opened = "open the log database (if it is damaged, do not delete anything: replace the node)";
    let mut names = vec![rocksdb::DEFAULT_COLUMN_FAMILY_NAME, keys::RAFT_LOG, keys::RAFT_STATE];
    // A log from before eventual mode has no such families, and may have them made. The others it has, or is damaged.
    let present = if create { Vec::new() } else { DB::list_cf(&db, path).map_err(Error::rocks(opened))? };
    let (there, missing): (Vec<_>, Vec<_>) = [keys::ORIGIN_LOG, keys::ORIGIN_STATE]
        .into_iter()
        .partition(|name| create || present.iter().any(|present| present == name));
    names.extend(there);
    let families = names.into_iter().map(|name| ColumnFamilyDescriptor::new(name, family.clone()));
    let log = DB::open_cf_descriptors(&db, path, families).map_err(Error::rocks(opened))?;
    for name in missing {
        log.create_cf(name, &family).map_err(Error::rocks("add a column family to the log database"))?;
    }
    Ok(log)
}

/// Opens or makes a data database.
pub(crate) fn open_data(path: &Path, options: &EngineOptions, create: bool) -> Result<DB> {
    let memtables = (options.unflushed_bytes_max / DATA_MEMTABLE_BYTES).max(2);
    let mut db = common(path, options, create);
    db.set_db_write_buffer_size(options.unflushed_bytes_max);
    let mut family = Options::default();
    family.set_write_buffer_size(DATA_MEMTABLE_BYTES);
    family.set_max_write_buffer_number(i32::try_from(memtables).unwrap_or(i32::MAX));
    let [compact, slow, stop] = LEVEL0_FILES;
    family.set_level_zero_file_num_compaction_trigger(compact);
    family.set_level_zero_slowdown_writes_trigger(slow);
    family.set_level_zero_stop_writes_trigger(stop);
    let mut table = data_table(&mut family);
    table.set_block_cache(&Cache::new_lru_cache(options.block_cache_bytes));
    // What is flushed is rewritten by the first compaction, and less of it: to compress it is half of the work of a flush. The level
    // that is compacted into is rewritten each time, too, and has 256 MiB at most: all there is of little data, a part of much.
    let [none, lz4] = [DBCompressionType::None, DBCompressionType::Lz4];
    family.set_compression_per_level(&[none, none, lz4]);
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    family.set_block_based_table_factory(&table);
    let families = [ColumnFamilyDescriptor::new(rocksdb::DEFAULT_COLUMN_FAMILY_NAME, family)];
    DB::open_cf_descriptors(&db, path, families).map_err(Error::rocks(
        "open the data database (if it is damaged, do not delete anything: replace the node)",
    ))
}

/// For table files that are written apart, for the data database to take in.
pub(crate) fn table_file_options() -> Options {
    let mut options = Options::default();
    options.set_bytes_per_sync(BYTES_PER_SYNC);
    let table = data_table(&mut options);
    options.set_block_based_table_factory(&table);
    options
}

/// How the data's table files look.
fn data_table(family: &mut Options) -> BlockBasedOptions {
    family.set_compression_type(DBCompressionType::Lz4);
    let mut table = BlockBasedOptions::default();
    table.set_bloom_filter(BLOOM_BITS, false);
    table
}

/// What both databases share.
fn common(path: &Path, options: &EngineOptions, create: bool) -> Options {
    let mut db = Options::default();
    db.create_if_missing(create);
    db.create_missing_column_families(create);
    db.set_paranoid_checks(true);
    // fdatasync: it makes the file's length durable too, which is all that a write-ahead log needs.
    db.set_use_fsync(false);
    db.set_max_background_jobs(options.background_jobs);
    if path.parent().is_some_and(directory::takes_direct_io) {
        db.set_use_direct_io_for_flush_and_compaction(true);
        db.set_writable_file_max_buffer_size(DIRECT_WRITE_BYTES);
    }
    db.set_bytes_per_sync(BYTES_PER_SYNC);
    db.set_keep_log_file_num(INFO_LOG_FILES);
    db.set_max_log_file_size(INFO_LOG_BYTES_MAX);
    db
}

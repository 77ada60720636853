//! What RocksDB does on one thread, with the settings that matter as a node has them for its data.

use super::{DURATION, KEY_BYTES, RECORDS, RECORDS_SCANNED, VALUE_BYTES, rate};
use anyhow::{Result, anyhow, ensure};
use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};
use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, IteratorMode, Options, WriteBatch, WriteOptions,
};
use std::path::Path;
use std::time::{Duration, Instant};

const MIB: usize = 1 << 20;
const BATCH: u64 = 64;

pub(super) struct Rocks {
    pub(super) puts_per_second: f64,
    pub(super) synced_puts_per_second: f64,
    pub(super) gets_per_second: f64,
    pub(super) iterated_per_second: f64,
}

pub(super) fn measure(folder: &Path) -> Result<Rocks> {
    let iterated_per_second = iterated_per_second(folder)?;
    with_records(folder, RECORDS, |db| {
        let mut random = StdRng::seed_from_u64(1);
        Ok(Rocks {
            iterated_per_second,
            gets_per_second: gets(db)?,
            puts_per_second: puts(db, &mut random, &without_log())?,
            synced_puts_per_second: puts(db, &mut random, &synced())?,
        })
    })
}

/// Records that RocksDB's own iterator passes in a second.
pub(crate) fn iterated_per_second(folder: &Path) -> Result<f64> {
    with_records(folder, RECORDS_SCANNED, iterate)
}

fn with_records<T>(folder: &Path, records: u64, act: impl FnOnce(&DB) -> Result<T>) -> Result<T> {
    let path = folder.join("rocks");
    let db = DB::open(&options(), &path)?;
    load(&db, records)?;
    let done = act(&db)?;
    drop(db);
    DB::destroy(&Options::default(), &path)?;
    Ok(done)
}

fn options() -> Options {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(&Cache::new_lru_cache(256 * MIB));
    blocks.set_bloom_filter(10.0, false);
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_write_buffer_size(64 * MIB);
    options.set_level_zero_file_num_compaction_trigger(10);
    let [none, lz4] = [DBCompressionType::None, DBCompressionType::Lz4];
    options.set_compression_per_level(&[none, none, lz4]);
    options.set_max_background_jobs(2);
    options.set_block_based_table_factory(&blocks);
    options
}

fn without_log() -> WriteOptions {
    let mut options = WriteOptions::default();
    options.disable_wal(true);
    options
}

fn synced() -> WriteOptions {
    let mut options = WriteOptions::default();
    options.set_sync(true);
    options
}

fn key(number: u64) -> [u8; KEY_BYTES] {
    let mut key = [b'k'; KEY_BYTES];
    key[8..].copy_from_slice(&number.to_be_bytes());
    key
}

/// Values that hardly compress, as those of the rows.
fn value(random: &mut StdRng) -> [u8; VALUE_BYTES] {
    let mut value = [0; VALUE_BYTES];
    random.fill_bytes(&mut value);
    value
}

fn load(db: &DB, records: u64) -> Result<()> {
    let mut random = StdRng::seed_from_u64(0);
    for from in (0..records).step_by(1000) {
        let mut batch = WriteBatch::default();
        (from..from + 1000).for_each(|number| batch.put(key(number), value(&mut random)));
        db.write_opt(batch, &without_log())?;
    }
    db.flush()?;
    db.compact_range::<&[u8], &[u8]>(None, None);
    Ok(())
}

fn puts(db: &DB, random: &mut StdRng, options: &WriteOptions) -> Result<f64> {
    timed(BATCH, || {
        let value = value(random);
        let mut batch = WriteBatch::default();
        (0..BATCH).for_each(|_| batch.put(key(random.random_range(0..RECORDS)), value));
        Ok(db.write_opt(batch, options)?)
    })
}

/// By all processors.
fn gets(db: &DB) -> Result<f64> {
    let threads = std::thread::available_parallelism()?.get() as u64;
    std::thread::scope(|scope| {
        let running: Vec<_> =
            (0..threads).map(|thread| scope.spawn(move || gets_of_thread(db, thread))).collect();
        let rates =
            running.into_iter().map(|thread| thread.join().map_err(|_| anyhow!("a thread has panicked"))?);
        rates.sum()
    })
}

fn gets_of_thread(db: &DB, thread: u64) -> Result<f64> {
    let mut random = StdRng::seed_from_u64(thread);
    timed(1, || {
        let found = db.get_pinned(key(random.random_range(0..RECORDS)))?;
        ensure!(found.is_some_and(|value| value.len() == VALUE_BYTES), "RocksDB has lost a record");
        Ok(())
    })
}

fn iterate(db: &DB) -> Result<f64> {
    timed(RECORDS_SCANNED, || {
        let mut count = 0;
        for record in db.iterator(IteratorMode::Start) {
            record?;
            count += 1;
        }
        ensure!(count == RECORDS_SCANNED, "RocksDB iterates over {count} of {RECORDS_SCANNED} records");
        Ok(())
    })
}

/// Does it again and again, and tells how many of `each` that makes a second.
fn timed(each: u64, mut act: impl FnMut() -> Result<()>) -> Result<f64> {
    let (began, mut count, mut took) = (Instant::now(), 0, Duration::ZERO);
    while took < DURATION {
        act()?;
        count += each;
        took = began.elapsed();
    }
    Ok(rate(count, took))
}

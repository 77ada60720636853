//! Scans: many records in their order, all of one moment.
//!
//! A [`Frozen`] keeps RocksDB from dropping what has been overwritten or removed since. That costs disk while it lasts,
//! and hardly any memory. A [`Walk`] also holds on to what it reads from, memtables that have long been flushed among it.
//! So whoever must wait for somebody in the middle of a walk ends it, and begins another one on the same frozen data.

use crate::data::Data;
use crate::error::{Error, Result};
use crate::keys;
use rdb_core::ids::NamespaceId;
use rdb_core::range::KeyRange;
use rdb_core::scan::Direction;
use rocksdb::{DB, DBRawIteratorWithThreadMode, ReadOptions, SnapshotWithThreadMode};

/// What a long walk reads ahead of itself in each table file: RocksDB would begin with less and work up to it.
const READAHEAD_BYTES: usize = 256 << 10;

/// How much is going to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// Little: what is read is worth keeping in memory.
    Short,
    /// Much, and once: it must not drive out what is read often.
    Long,
}

/// All data as it was when this was made. What is written meanwhile does not show.
pub struct Frozen<'d>(pub(crate) SnapshotWithThreadMode<'d, DB>);

/// A way over the records of a range, one after the other.
pub struct Walk<'m> {
    records: DBRawIteratorWithThreadMode<'m, DB>,
    direction: Direction,
    /// Bytes of the databases' keys before the users'.
    prefix: usize,
}

impl Data {
    /// The data as it is now.
    pub fn freeze(&self) -> Frozen<'_> {
        Frozen(self.databases().data.snapshot())
    }
}

impl Frozen<'_> {
    /// Begins at the first record of the range, or at the last one where the direction is reverse.
    pub fn walk(
        &self,
        namespace: NamespaceId,
        range: &KeyRange,
        direction: Direction,
        length: Length,
    ) -> Walk<'_> {
        let mut options = ReadOptions::default();
        options.set_iterate_range(keys::record_range(namespace, range));
        if length == Length::Long {
            options.fill_cache(false);
            options.set_readahead_size(READAHEAD_BYTES);
        }
        let mut records = self.0.raw_iterator_opt(options);
        match direction {
            Direction::Forward => records.seek_to_first(),
            Direction::Reverse => records.seek_to_last(),
        }
        Walk { records, direction, prefix: keys::record(namespace, &[]).len() }
    }
}

impl Walk<'_> {
    /// The key and the encoded record where it stands; `None` at the end of the range.
    ///
    /// # Errors
    /// The disk could not be read.
    pub fn record(&self) -> Result<Option<(&[u8], &[u8])>> {
        match self.records.item() {
            Some((key, record)) => Ok(Some((&key[self.prefix..], record))),
            None => self.records.status().map(|()| None).map_err(Error::rocks("scan records")),
        }
    }

    /// Goes on to the next one.
    pub fn step(&mut self) {
        match self.direction {
            Direction::Forward => self.records.next(),
            Direction::Reverse => self.records.prev(),
        }
    }
}

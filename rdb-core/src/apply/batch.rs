//! What is being applied: reads see the batch's own writes and range deletes.

use super::{Error, View};
use crate::command::Write;
use crate::coverage::{Branch, reached};
use crate::range::{self, KeyRange, KeyRanges};
use crate::record;
use crate::version::Version;
use std::collections::{BTreeMap, BTreeSet};

pub(super) type Found = (Version, Option<Vec<u8>>);

/// What the compares and gets of one entry may read, in bytes of values; a command that begins before it is reached may
/// exceed it. Commands are small and values large: without this, one entry could take any node's time and, for its answers,
/// any node's memory.
///
/// All replicas must draw this line alike: a change of it is a change of the format of entries.
pub const ENTRY_READ_BYTES_MAX: usize = 32 << 20;

type Key = Vec<u8>;
type Record = Option<Vec<u8>>;

pub(super) struct Batch<'v, V> {
    view: &'v V,
    /// Removed before anything in `records` is written.
    removed: KeyRanges,
    records: Records,
    /// What the commands of the present entry have read so far.
    read_bytes: usize,
    pub(super) sessions: BTreeSet<u64>,
}

/// Most batches only write, and then a list is enough. The first command that reads or removes a range sorts it.
enum Records {
    Listed(Vec<(Key, Record)>),
    Sorted(BTreeMap<Key, Record>),
}

impl<'v, V: View> Batch<'v, V> {
    pub(super) fn new(view: &'v V) -> Self {
        let records = Records::Listed(Vec::new());
        Self { view, removed: KeyRanges::default(), records, read_bytes: 0, sessions: BTreeSet::new() }
    }

    /// The commands of another entry follow.
    pub(super) fn begin_entry(&mut self) {
        self.read_bytes = 0;
    }

    /// Whether the commands of this entry have read as much as they may.
    pub(super) fn is_spent(&self) -> bool {
        ENTRY_READ_BYTES_MAX <= self.read_bytes
    }

    /// Takes note that a command has read so much.
    pub(super) fn spend(&mut self, bytes: usize) {
        self.read_bytes += bytes;
    }

    pub(super) fn write(&mut self, write: &Write<'_>, version: Version) {
        let record = write.value.map(|value| record::encode(version, Some(value)));
        match &mut self.records {
            Records::Listed(records) => records.push((write.key.to_vec(), record)),
            Records::Sorted(records) => drop(records.insert(write.key.to_vec(), record)),
        }
    }

    /// Removes what is stored in the range, and what this batch has written there.
    pub(super) fn remove_range(&mut self, from: &[u8], to: &[u8]) {
        if range::is_empty(from, to) {
            return;
        }
        let records = self.sorted();
        if to.is_empty() {
            records.split_off(from);
        } else {
            records.extract_if(from.to_vec()..to.to_vec(), |_, _| true).for_each(drop);
        }
        self.removed.add(from, to);
    }

    pub(super) fn get(&mut self, key: &[u8]) -> Result<Option<Found>, Error<V::Error>> {
        let found = self.find(key)?;
        self.spend(found.as_ref().and_then(|(_, value)| value.as_ref()).map_or(0, Vec::len));
        Ok(found)
    }

    fn find(&mut self, key: &[u8]) -> Result<Option<Found>, Error<V::Error>> {
        // A deletion that is remembered from an eventual era is none here: members forget it in their own time.
        let decode = |bytes: &[u8]| {
            let record = record::decode(bytes).map_err(|source| Error::Corrupt { index: 0, source })?;
            if record.value.is_none() {
                reached(Branch::ApplyFindsTombstone);
            }
            Ok(record.value.map(|value| (record.version, Some(value.to_vec()))))
        };
        if let Some(record) = self.sorted().get(key) {
            return Ok(record.as_deref().map(decode).transpose()?.flatten());
        }
        if self.removed.contains(key) {
            return Ok(None);
        }
        Ok(self.view.get(key).map_err(Error::View)?.as_deref().map(decode).transpose()?.flatten())
    }

    fn sorted(&mut self) -> &mut BTreeMap<Key, Record> {
        if let Records::Listed(records) = &mut self.records {
            let mut sorted = BTreeMap::new();
            // In order: of one key's records the last one stays.
            sorted.extend(std::mem::take(records));
            self.records = Records::Sorted(sorted);
        }
        match &mut self.records {
            Records::Sorted(records) => records,
            Records::Listed(_) => unreachable!("it was sorted above"),
        }
    }

    /// What is to be written: see [`super::Changes`].
    pub(super) fn finish(self) -> (Vec<KeyRange>, Vec<(Key, Record)>, BTreeSet<u64>) {
        let records = match self.records {
            Records::Listed(records) => records,
            Records::Sorted(records) => records.into_iter().collect(),
        };
        (self.removed.into_vec(), records, self.sessions)
    }
}

//! One region's part of frozen data: its records, its notes and its state in eventual mode, all of one moment.

use crate::error::{Error, Result};
use crate::keys;
use crate::scan::{Frozen, Length, Walk};
use rdb_core::apply::View;
use rdb_core::eventual::machine as eventual;
use rdb_core::ids::{NamespaceId, RegionId};
use rdb_core::range::KeyRange;
use rdb_core::scan::Direction;
use rocksdb::{IteratorMode, ReadOptions};

/// What a region had at the moment at which the data was frozen.
pub struct FrozenRegion<'f, 'd> {
    frozen: &'f Frozen<'d>,
    region: RegionId,
    namespace: NamespaceId,
}

impl<'d> Frozen<'d> {
    /// One region's part.
    pub fn region(&self, region: RegionId, namespace: NamespaceId) -> FrozenRegion<'_, 'd> {
        FrozenRegion { frozen: self, region, namespace }
    }
}

impl<'f> FrozenRegion<'f, '_> {
    /// Its state in eventual mode; `None` if nothing was ever applied to it in that mode.
    ///
    /// # Errors
    /// It could not be read, or is damaged.
    pub fn state(&self) -> Result<Option<eventual::State>> {
        let stored = self.frozen.0.get(keys::eventual_state(self.region));
        let stored = stored.map_err(Error::rocks("read a region's eventual state from the data"))?;
        let decode = |bytes: Vec<u8>| eventual::State::decode(&bytes);
        stored.map(decode).transpose().map_err(Error::corrupt_region(self.region))
    }

    /// The first notes from `from` on, up to, and without, `to`; no more than `count_max`.
    ///
    /// # Errors
    /// The disk could not be read.
    pub fn some_notes(&self, from: &[u8], to: &[u8], count_max: usize) -> Result<eventual::Notes> {
        let mut count = 0;
        self.read_notes(from, to, |_, _| {
            count += 1;
            count < count_max
        })
    }

    /// Notes until `goes_on` says of one that it is the last.
    fn read_notes(
        &self,
        from: &[u8],
        to: &[u8],
        mut goes_on: impl FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<eventual::Notes> {
        let prefix = keys::note(self.region, &[]).len();
        let mut options = ReadOptions::default();
        options.set_iterate_range(keys::note(self.region, from)..keys::note(self.region, to));
        let mut notes = Vec::new();
        for item in self.frozen.0.iterator_opt(IteratorMode::Start, options) {
            let (key, note) = item.map_err(Error::rocks("read notes"))?;
            let is_last = !goes_on(&key[prefix..], &note);
            notes.push((key[prefix..].to_vec(), note.into_vec()));
            if is_last {
                break;
            }
        }
        Ok(notes)
    }

    /// Its records from a key on, in order.
    pub fn walk_from(&self, from: &[u8]) -> Walk<'f> {
        let range = KeyRange { from: from.to_vec(), to: Vec::new() };
        self.frozen.walk(self.namespace, &range, Direction::Forward, Length::Long)
    }
}

impl View for FrozenRegion<'_, '_> {
    type Error = Error;

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.frozen.0.get(keys::record(self.namespace, key)).map_err(Error::rocks("read a record"))
    }
}

impl eventual::View for FrozenRegion<'_, '_> {
    fn note(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.frozen.0.get(keys::note(self.region, key)).map_err(Error::rocks("read a note"))
    }

    fn notes(&self, from: &[u8], to: &[u8]) -> Result<eventual::Notes> {
        self.some_notes(from, to, usize::MAX)
    }

    fn first_notes(&self, from: &[u8], to: &[u8], bytes_max: usize) -> Result<eventual::Notes> {
        let mut bytes = 0;
        self.read_notes(from, to, |key, note| {
            bytes += key.len() + note.len();
            bytes < bytes_max
        })
    }
}

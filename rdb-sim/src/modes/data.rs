//! A node's data disk: records of both modes, the notes of lost writes, and the region's states, in one family.
//!
//! There is no log for it: a crash loses what was not flushed, and a flush may end between any two batches. A snapshot replaces
//! all of it at once and for good.

use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;
use rdb_core::apply;
use rdb_core::codec::Corrupt;
use rdb_core::eventual::buckets::{Buckets, counted};
use rdb_core::eventual::machine::{self, Notes};
use rdb_core::ids::Era;
use rdb_core::record;
use rdb_core::switch::{Mode, Region};
use rdb_core::version::Version;
use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;

type Pairs = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// What is there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) records: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(super) notes: BTreeMap<Vec<u8>, Vec<u8>>,
    /// What the last eventual era knew of itself.
    eventual: Vec<u8>,
    /// Where the region's log is applied.
    strong: Vec<u8>,
    /// Its mode, as its log has it.
    region: Vec<u8>,
}

/// What is written at once.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) records: Pairs,
    pub(super) notes: Pairs,
    pub(super) eventual: Option<Vec<u8>>,
    pub(super) strong: Option<Vec<u8>>,
    pub(super) region: Option<Vec<u8>>,
}

impl From<machine::Changes> for Batch {
    fn from(changes: machine::Changes) -> Self {
        let machine::Changes { records, notes, state } = changes;
        Self { records, notes, eventual: Some(state), ..Self::default() }
    }
}

impl From<apply::Changes> for Batch {
    fn from(changes: apply::Changes) -> Self {
        let apply::Changes { records, state, entered, .. } = changes;
        let (region, eventual) = entered.map(|entered| (entered.mode, entered.eventual)).unzip();
        Self { records, strong: Some(state), region, eventual: eventual.flatten(), ..Self::default() }
    }
}

#[derive(Debug, Default)]
pub(super) struct DataDisk {
    pub(super) current: Stored,
    pub(super) flushed: Stored,
    unflushed: VecDeque<Batch>,
}

impl DataDisk {
    pub(super) fn write(&mut self, batch: Batch) {
        self.current.write(&batch);
        self.unflushed.push_back(batch);
    }

    /// Brings a part of what is in memory to safety, the oldest first.
    pub(super) fn flush(&mut self, rng: &mut ChaCha8Rng) {
        let count = rng.random_range(0..=self.unflushed.len());
        for batch in self.unflushed.drain(..count) {
            self.flushed.write(&batch);
        }
    }

    /// The power fails.
    pub(super) fn crash(&mut self) {
        self.unflushed.clear();
        self.current = self.flushed.clone();
    }

    pub(super) fn replace(&mut self, stored: Stored) {
        self.unflushed.clear();
        self.flushed = stored.clone();
        self.current = stored;
    }
}

impl Stored {
    fn write(&mut self, batch: &Batch) {
        put(&mut self.records, &batch.records);
        put(&mut self.notes, &batch.notes);
        let states = [
            (&mut self.eventual, &batch.eventual),
            (&mut self.strong, &batch.strong),
            (&mut self.region, &batch.region),
        ];
        for (state, new) in states {
            if let Some(new) = new {
                state.clone_from(new);
            }
        }
    }

    /// The region's mode; as it was made, where nothing is stored.
    pub(super) fn region(&self, start: Mode) -> Result<Region, Corrupt> {
        if self.region.is_empty() { Ok(Region::new(start)) } else { Region::decode(&self.region) }
    }

    /// Where the region's log is applied.
    pub(super) fn strong(&self) -> Result<apply::State, Corrupt> {
        if self.strong.is_empty() {
            return Ok(apply::State::default());
        }
        apply::State::decode(&self.strong)
    }

    /// What the last eventual era knew of itself, if there was one.
    pub(super) fn eventual(&self) -> Result<Option<machine::State>, Corrupt> {
        if self.eventual.is_empty() {
            return Ok(None);
        }
        machine::State::decode(&self.eventual).map(Some)
    }

    /// What it knew, if it is this era.
    pub(super) fn eventual_of(&self, era: Era) -> Option<machine::State> {
        self.eventual().ok().flatten().filter(|state| state.era == era)
    }

    /// What a reader finds under a key: its version and the number that is its value. A deletion is nothing.
    pub(super) fn read(&self, key: &[u8]) -> Option<(Version, u64)> {
        found_in(self.records.get(key)?)
    }

    /// All that readers find.
    pub(super) fn living(&self) -> impl Iterator<Item = (&Vec<u8>, (Version, u64))> {
        self.records.iter().filter_map(|(key, stored)| Some((key, found_in(stored)?)))
    }

    /// Whether readers find the same in both.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        // They are nearly always the same to the last byte, which is soon seen.
        self.records == other.records || self.living().eq(other.living())
    }

    pub(super) fn buckets(&self, era: Era) -> Buckets {
        let mut buckets = Buckets::default();
        for (key, stored) in &self.records {
            if let Ok(record) = record::decode(stored) {
                buckets.change(key, None, counted(&record, era));
            }
        }
        buckets
    }
}

/// The version and the number that a record is for readers; `None` for a deletion.
fn found_in(stored: &[u8]) -> Option<(Version, u64)> {
    let record = record::decode(stored).ok()?;
    Some((record.version, number_of(record.value?)))
}

fn put(map: &mut BTreeMap<Vec<u8>, Vec<u8>>, changes: &Pairs) {
    for (key, value) in changes {
        match value {
            Some(value) => drop(map.insert(key.clone(), value.clone())),
            None => drop(map.remove(key)),
        }
    }
}

/// The number that a value is.
pub(super) fn number_of(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(0, |number| u64::from_be_bytes(*number))
}

/// What both modes read.
impl apply::View for Stored {
    type Error = Infallible;

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Infallible> {
        Ok(self.records.get(key).cloned())
    }
}

impl machine::View for Stored {
    fn note(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Infallible> {
        Ok(self.notes.get(key).cloned())
    }

    fn notes(&self, from: &[u8], to: &[u8]) -> Result<Notes, Infallible> {
        let range = self.notes.range(from.to_vec()..to.to_vec());
        Ok(range.map(|(key, note)| (key.clone(), note.clone())).collect())
    }
}

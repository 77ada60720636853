//! A node's data disk: applied batches in memory, and what a flush has brought to safety.
//!
//! There is no log for the data: a crash loses all that was not flushed, and the Raft log brings it back. A flush may
//! end between any two batches, so whatever must stay together must be one batch. A snapshot replaces all that there is of a
//! region at once: what was in memory is gone with what was on disk, and the new data is there for good.
//!
//! All regions share one disk. Where regions come and go, a flush brings to safety what was written first, of whatever
//! region, as one database does: that a region was destroyed and that the catalog no longer names it must not part. Elsewhere
//! each region is flushed for itself, which asks more of them: they must not rely on each other.

use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;
use rdb_core::apply::{Changes, State, View};
use rdb_core::ids::{Index, RegionId};
use rdb_core::record;
use rdb_core::sessions::Sessions;
use rdb_core::version::Version;
use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// Records, sessions and the region's state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) records: BTreeMap<Vec<u8>, Vec<u8>>,
    sessions: BTreeMap<u64, Vec<u8>>,
    state: Vec<u8>,
    /// Of all records and sessions, whatever their order.
    digest: u64,
}

/// What was written of one region.
#[derive(Debug)]
enum Change {
    Batch(Changes),
    /// All that there was is gone.
    Destroyed,
}

/// The data of one node.
#[derive(Debug)]
pub(crate) struct DataDisk {
    current: Regions,
    flushed: Regions,
    unflushed: VecDeque<(RegionId, Change)>,
    /// Whether a flush takes what comes first of all regions, and not of each.
    in_order: bool,
}

type Regions = BTreeMap<RegionId, Stored>;

/// A region of which there is nothing.
static NOTHING: Stored =
    Stored { records: BTreeMap::new(), sessions: BTreeMap::new(), state: Vec::new(), digest: 0 };

impl DataDisk {
    /// A disk on which these regions are always there; without any, regions come and go.
    pub(crate) fn new(regions: &[RegionId]) -> Self {
        let empty: Regions = regions.iter().map(|region| (*region, Stored::default())).collect();
        let in_order = regions.is_empty();
        Self { current: empty.clone(), flushed: empty, unflushed: VecDeque::new(), in_order }
    }

    /// Writes what was applied.
    pub(crate) fn write(&mut self, region: RegionId, changes: Changes) {
        for batch in batches(changes) {
            self.unflushed.push_back((region, Change::Batch(batch)));
            if let Some((_, change)) = self.unflushed.back() {
                write(&mut self.current, region, change);
            }
        }
    }

    /// Removes all that there is of a region.
    pub(crate) fn destroy(&mut self, region: RegionId) {
        self.current.remove(&region);
        self.unflushed.push_back((region, Change::Destroyed));
    }

    /// Brings a part of what is in memory to safety, the oldest first.
    pub(crate) fn flush(&mut self, rng: &mut ChaCha8Rng) {
        if self.in_order {
            let count = rng.random_range(0..=self.unflushed.len());
            return self.flush_first(count);
        }
        let regions: Vec<RegionId> = self.current.keys().copied().collect();
        for region in regions {
            let waiting = self.unflushed.iter().filter(|(of, _)| *of == region).count();
            let mut count = rng.random_range(0..=waiting);
            for (of, change) in std::mem::take(&mut self.unflushed) {
                if of == region && 0 < count {
                    count -= 1;
                    write(&mut self.flushed, region, &change);
                } else {
                    self.unflushed.push_back((of, change));
                }
            }
        }
    }

    /// Brings all to safety.
    pub(crate) fn flush_all(&mut self) {
        self.flush_first(self.unflushed.len());
    }

    fn flush_first(&mut self, count: usize) {
        for (region, change) in self.unflushed.drain(..count) {
            write(&mut self.flushed, region, &change);
        }
    }

    /// The power fails.
    pub(crate) fn crash(&mut self) {
        self.unflushed.clear();
        self.current = self.flushed.clone();
    }

    /// Everything here of a region goes, in memory and on disk, and `stored` takes its place: all of it at once, and for good.
    pub(crate) fn replace(&mut self, region: RegionId, stored: Stored) {
        if self.in_order {
            self.flush_all();
        }
        self.unflushed.retain(|(of, _)| *of != region);
        self.flushed.insert(region, stored.clone());
        self.current.insert(region, stored);
    }

    /// The last entry of a region that a crash would not lose.
    pub(crate) fn durable_applied(&self, region: RegionId) -> Index {
        self.flushed.get(&region).and_then(|stored| stored.state().ok()).map_or(0, |state| state.applied)
    }

    /// What there is of a region.
    pub(crate) fn of(&self, region: RegionId) -> &Stored {
        self.current.get(&region).unwrap_or(&NOTHING)
    }

    /// The regions of which there is anything.
    pub(crate) fn present(&self) -> impl Iterator<Item = RegionId> {
        self.current.keys().copied()
    }
}

fn write(regions: &mut Regions, region: RegionId, change: &Change) {
    match change {
        Change::Batch(changes) => regions.entry(region).or_default().write(changes),
        Change::Destroyed => drop(regions.remove(&region)),
    }
}

#[cfg(not(feature = "bug-state-in-own-batch"))]
fn batches(changes: Changes) -> [Changes; 1] {
    [changes]
}

/// A bug that the simulator must catch: a flush can come between the applied position and what was applied.
#[cfg(feature = "bug-state-in-own-batch")]
fn batches(mut changes: Changes) -> [Changes; 2] {
    let state = Changes { state: std::mem::take(&mut changes.state), ..Changes::default() };
    [state, changes]
}

impl Stored {
    pub(crate) fn write(&mut self, changes: &Changes) {
        for (key, old) in
            self.records.extract_if(.., |key, _| changes.removed.iter().any(|range| range.contains(key)))
        {
            self.digest ^= hash(&key, Some(&old));
        }
        for (key, record) in &changes.records {
            let old = match record {
                Some(record) => self.records.insert(key.clone(), record.clone()),
                None => self.records.remove(key),
            };
            self.digest ^= hash(key, old.as_deref()) ^ hash(key, record.as_deref());
        }
        for (client, session) in &changes.sessions {
            let old = match session {
                Some(session) => self.sessions.insert(*client, session.clone()),
                None => self.sessions.remove(client),
            };
            let key = client.to_be_bytes();
            self.digest ^= hash(&key, old.as_deref()) ^ hash(&key, session.as_deref());
        }
        if !changes.state.is_empty() {
            self.state.clone_from(&changes.state);
        }
    }

    /// The region's state, as it was stored.
    pub(crate) fn state(&self) -> Result<State, String> {
        if self.state.is_empty() {
            return Ok(State::default());
        }
        State::decode(&self.state).map_err(|error| error.to_string())
    }

    /// The same, as if nobody had ever named a write.
    pub(crate) fn without_sessions(mut self) -> Self {
        self.sessions.clear();
        self.digest = self.digest_anew() ^ xxh3_64(&self.state);
        self
    }

    /// The sessions, as they were stored.
    pub(crate) fn sessions(&self) -> Result<Sessions, String> {
        let mut sessions = Sessions::default();
        for (client, bytes) in &self.sessions {
            sessions.load(*client, bytes).map_err(|error| error.to_string())?;
        }
        Ok(sessions)
    }

    /// What a reader of `key` sees.
    pub(crate) fn read(&self, key: &[u8]) -> Result<Option<(Version, Vec<u8>)>, String> {
        let Some(bytes) = self.records.get(key) else { return Ok(None) };
        let record = record::decode(bytes).map_err(|error| error.to_string())?;
        Ok(record.value.map(|value| (record.version, value.to_vec())))
    }

    /// A hash of everything here.
    pub(crate) fn digest(&self) -> u64 {
        self.digest ^ xxh3_64(&self.state)
    }

    /// The same hash, from what is here now and not from what was written.
    pub(crate) fn digest_anew(&self) -> u64 {
        let records = self.records.iter().map(|(key, record)| hash(key, Some(record)));
        let sessions = self.sessions.iter().map(|(client, bytes)| hash(&client.to_be_bytes(), Some(bytes)));
        records.chain(sessions).fold(xxh3_64(&self.state), |digest, one| digest ^ one)
    }
}

fn hash(key: &[u8], value: Option<&[u8]>) -> u64 {
    value.map_or(0, |value| xxh3_64_with_seed(value, xxh3_64(key)))
}

impl View for Stored {
    type Error = Infallible;

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Infallible> {
        Ok(self.records.get(key).cloned())
    }
}

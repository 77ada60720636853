//! A node's data disk for one region: applied batches in memory, and what a flush has brought to safety.
//!
//! There is no log for the data: a crash loses all that was not flushed, and the Raft log brings it back. A flush may
//! end between any two batches, so whatever must stay together must be one batch. A snapshot replaces all of it at once:
//! what was in memory is gone with what was on disk, and the new data is there for good.

use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;
use rdb_core::apply::{Changes, State, View};
use rdb_core::ids::Index;
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

/// One region's data on one node.
#[derive(Debug, Default)]
pub(crate) struct DataDisk {
    current: Stored,
    flushed: Stored,
    unflushed: VecDeque<Changes>,
}

impl DataDisk {
    /// Writes what was applied.
    pub(crate) fn write(&mut self, changes: Changes) {
        for batch in batches(changes) {
            self.current.write(&batch);
            self.unflushed.push_back(batch);
        }
    }

    /// Brings a part of what is in memory to safety, the oldest first.
    pub(crate) fn flush(&mut self, rng: &mut ChaCha8Rng) {
        let count = rng.random_range(0..=self.unflushed.len());
        for batch in self.unflushed.drain(..count) {
            self.flushed.write(&batch);
        }
    }

    /// The power fails.
    pub(crate) fn crash(&mut self) {
        self.unflushed.clear();
        self.current = self.flushed.clone();
    }

    /// Everything here goes, in memory and on disk, and `stored` takes its place: all of it at once, and for good.
    pub(crate) fn replace(&mut self, stored: Stored) {
        self.unflushed.clear();
        self.flushed = stored.clone();
        self.current = stored;
    }

    /// The last entry that a crash would not lose.
    pub(crate) fn durable_applied(&self) -> Index {
        self.flushed.state().map_or(0, |state| state.applied)
    }

    pub(crate) fn current(&self) -> &Stored {
        &self.current
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

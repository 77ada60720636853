//! Reading the log: what a restart begins from, and entries.

use crate::error::{Error, Result};
use crate::keys::{self, RAFT_LOG, RAFT_STATE, RaftState};
use crate::rocks::Databases;
use rdb_core::ids::{Index, NodeId, RegionId};
use rdb_core::raft::disk::{self, Terms};
use rdb_core::raft::{Boot, Entry, LogRead};
use rocksdb::{DB, DBRawIteratorWithThreadMode, Direction, IteratorMode, ReadOptions};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// All regions' logs, for reading. Cheap to clone.
#[derive(Clone)]
pub struct LogStore {
    databases: Arc<Databases>,
    node: NodeId,
    incarnation: u64,
}

/// What the log holds of one region, found consistent.
#[derive(Debug, Clone)]
pub struct StoredLog {
    /// Without what the log does not know: the applied index and the seed.
    boot: Boot,
}

impl StoredLog {
    /// Which region.
    pub fn region(&self) -> RegionId {
        self.boot.region
    }

    /// Its voters.
    pub fn members(&self) -> &[NodeId] {
        &self.boot.members
    }

    /// The terms of its entries, and where the log begins.
    pub fn terms(&self) -> &Terms {
        &self.boot.terms
    }

    /// The index of the last entry; that of the last one dropped where there is none.
    pub fn last(&self) -> Index {
        self.boot.last
    }

    /// What its group starts from, with the index up to which the data reflects it.
    pub fn into_boot(self, applied: Index, seed: u64) -> Boot {
        Boot { applied, seed, ..self.boot }
    }
}

/// What `raft_state` has of one region, encoded.
#[derive(Default)]
struct States {
    by_kind: BTreeMap<u8, Vec<u8>>,
}

impl States {
    fn get<T>(
        &self,
        kind: RaftState,
        decode: impl Fn(&[u8]) -> std::result::Result<T, rdb_core::codec::Corrupt>,
    ) -> std::result::Result<Option<T>, rdb_core::codec::Corrupt> {
        self.by_kind.get(&(kind as u8)).map(|bytes| decode(bytes)).transpose()
    }
}

impl LogStore {
    pub(crate) fn new(databases: Arc<Databases>, node: NodeId, incarnation: u64) -> Self {
        Self { databases, node, incarnation }
    }

    /// One region's entries, for its group.
    pub fn region(&self, region: RegionId) -> RegionLog {
        RegionLog { databases: self.databases.clone(), region }
    }

    /// All regions that the log knows, in order, each checked: its table of terms begins and ends where its entries do,
    /// the first and the last entry can be read, and the hard state is not ahead of them.
    ///
    /// # Errors
    /// The log could not be read or contradicts itself. The node must not start.
    pub fn regions(&self) -> Result<Vec<StoredLog>> {
        let states = self.states()?;
        self.refuse_unknown_entries(&states)?;
        states.iter().map(|(region, states)| self.stored(*region, states)).collect()
    }

    fn states(&self) -> Result<BTreeMap<RegionId, States>> {
        let family = self.databases.log_family(RAFT_STATE)?;
        let mut found = BTreeMap::<RegionId, States>::new();
        for item in self.databases.log.iterator_cf(&family, IteratorMode::Start) {
            let (key, value) = item.map_err(Error::rocks("read the regions' states from the log"))?;
            let (region, kind) = keys::parse_raft_state(&key).ok_or_else(|| Error::Damaged {
                what: "the log's column family 'raft_state'".into(),
                problem: format!("it has the unknown key {key:02x?}"),
            })?;
            found.entry(region).or_default().by_kind.insert(kind as u8, value.into_vec());
        }
        Ok(found)
    }

    /// Entries whose region is gone: a region is removed as a whole, so its state was lost. Skips from region to region.
    fn refuse_unknown_entries(&self, states: &BTreeMap<RegionId, States>) -> Result<()> {
        let family = self.databases.log_family(RAFT_LOG)?;
        let mut entries = self.databases.log.raw_iterator_cf(&family);
        entries.seek_to_first();
        while let Some(key) = entries.key() {
            let (region, _) = parse_entry(key)?;
            if !states.contains_key(&region) {
                return Err(Error::damaged_region(region, "the log has its entries but not its state"));
            }
            entries.seek(keys::entries(region).end);
        }
        entries.status().map_err(Error::rocks("read entries from the log"))
    }

    fn stored(&self, region: RegionId, states: &States) -> Result<StoredLog> {
        let corrupt = Error::corrupt_region(region);
        let damaged = |problem: String| Err(Error::damaged_region(region, problem));
        let Some(members) = states.get(RaftState::Members, disk::decode_members).map_err(&corrupt)? else {
            return damaged("the log has its state but not its members".into());
        };
        let terms = states.get(RaftState::Terms, Terms::decode).map_err(&corrupt)?.unwrap_or_default();
        let hard_state = states.get(RaftState::HardState, disk::decode_hard_state).map_err(&corrupt)?;
        let hard_state = hard_state.unwrap_or_default();
        let last = self.check_entries(region, &terms)?;
        if last < hard_state.commit {
            return damaged(format!(
                "entries up to {} were committed, but its log ends at {last}",
                hard_state.commit
            ));
        }
        let last_term = terms.term(last).unwrap_or_default();
        if hard_state.term < last_term {
            return damaged(format!(
                "it is in term {}, but entry {last} has term {last_term}",
                hard_state.term
            ));
        }
        let (node, incarnation) = (self.node, self.incarnation);
        let boot = Boot { region, node, members, hard_state, terms, last, applied: 0, incarnation, seed: 0 };
        Ok(StoredLog { boot })
    }

    /// Holds the first and the last entry against the table of terms. Returns the last one's index.
    fn check_entries(&self, region: RegionId, terms: &Terms) -> Result<Index> {
        let damaged = |problem: String| Err(Error::damaged_region(region, problem));
        let (first, last) = self.ends(region)?;
        let dropped = terms.first_index() - 1;
        if let Some(first) = &first
            && first.index != terms.first_index()
        {
            return damaged(format!(
                "its log begins at {}, but is to begin at {}",
                first.index,
                terms.first_index()
            ));
        }
        for entry in first.iter().chain(&last) {
            if terms.term(entry.index) != Some(entry.term) {
                return damaged(format!(
                    "entry {} has another term than its table of terms says",
                    entry.index
                ));
            }
        }
        let last = last.map_or(dropped, |entry| entry.index);
        // A table whose log is dropped as a whole keeps the run that the next entry would continue.
        let end = if last == dropped { last + 2 } else { last + 1 };
        if terms.clone().cut_from(end) {
            return damaged(format!("its table of terms goes on, but its log ends at {last}"));
        }
        Ok(last)
    }

    /// The first and the last entry of a region.
    fn ends(&self, region: RegionId) -> Result<(Option<Entry>, Option<Entry>)> {
        let family = self.databases.log_family(RAFT_LOG)?;
        let mut entries = self.databases.log.raw_iterator_cf_opt(&family, within(keys::entries(region)));
        entries.seek_to_first();
        let first = decode(&entries)?;
        entries.seek_to_last();
        let last = decode(&entries)?;
        Ok((first, last))
    }
}

/// One region's entries.
#[derive(Clone)]
pub struct RegionLog {
    databases: Arc<Databases>,
    region: RegionId,
}

impl RegionLog {
    /// The entries `[low, high)`: as many from the front as fit `bytes_max`, and at least one.
    ///
    /// # Errors
    /// One of them is missing or cannot be read.
    pub fn entries(&self, low: Index, high: Index, bytes_max: u64) -> Result<Vec<Entry>> {
        let family = self.databases.log_family(RAFT_LOG)?;
        let (from, to) = (keys::entry(self.region, low), keys::entry(self.region, high));
        let mode = IteratorMode::From(&from, Direction::Forward);
        let found = self.databases.log.iterator_cf_opt(&family, within(from.to_vec()..to.to_vec()), mode);
        let (mut entries, mut bytes) = (Vec::new(), 0u64);
        for (item, index) in found.zip(low..high) {
            let (key, value) = item.map_err(Error::rocks("read entries from the log"))?;
            if parse_entry(&key)?.1 != index {
                break;
            }
            bytes = bytes.saturating_add(value.len() as u64);
            if !entries.is_empty() && bytes_max < bytes {
                return Ok(entries);
            }
            entries.push(disk::decode_entry(index, &value).map_err(Error::corrupt_region(self.region))?);
        }
        let next = low + entries.len() as Index;
        if next < high {
            return Err(Error::damaged_region(self.region, format!("entry {next} is missing from its log")));
        }
        Ok(entries)
    }
}

impl LogRead for RegionLog {
    fn read(&self, low: Index, high: Index, bytes_max: u64) -> std::result::Result<Vec<Entry>, String> {
        self.entries(low, high, bytes_max).map_err(|error| error.to_string())
    }
}

/// Reads within `keys` only: an iterator does not wander through what was deleted beyond them.
fn within(keys: Range<Vec<u8>>) -> ReadOptions {
    let mut options = ReadOptions::default();
    options.set_iterate_range(keys);
    options.set_verify_checksums(true);
    // Entries are read once, by a restart or for a follower that lags: they must not drive out what is read often.
    options.fill_cache(false);
    options
}

fn parse_entry(key: &[u8]) -> Result<(RegionId, Index)> {
    keys::parse_entry(key).ok_or_else(|| Error::Damaged {
        what: "the log's column family 'raft_log'".into(),
        problem: format!("it has the unknown key {key:02x?}"),
    })
}

/// The entry that `entries` stands at.
fn decode(entries: &DBRawIteratorWithThreadMode<'_, DB>) -> Result<Option<Entry>> {
    let Some((key, value)) = entries.item() else {
        entries.status().map_err(Error::rocks("read entries from the log"))?;
        return Ok(None);
    };
    let (region, index) = parse_entry(key)?;
    disk::decode_entry(index, value).map(Some).map_err(Error::corrupt_region(region))
}

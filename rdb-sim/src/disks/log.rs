//! A node's log disk: written is what a process reads back, synced is what a power cut leaves.
//!
//! A crash keeps what is synced and, of what was only written, a prefix of random length: a write-ahead log is replayed
//! up to its first torn batch, and a batch that is torn counts as absent.
//!
//! Before a snapshot replaces the data, a note of it is synced here; after that one batch begins the log anew and drops the
//! note. A start that finds a note finishes that if the data is the snapshot's, and forgets the note if it is not.
//!
//! Regions come and go by batches too: one that was made is there once that is synced, one that was destroyed is gone.

use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;
use rdb_core::ids::{Index, RegionId, Term};
use rdb_core::raft::disk::{self, Terms};
use rdb_core::raft::{Entry, HardState, LogRead, LogWrite, SnapshotPlace};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// One region's part of the log, as it lies on disk.
#[derive(Debug, Clone, Default)]
pub(crate) struct Files {
    entries: BTreeMap<Index, Vec<u8>>,
    hard_state: Option<Vec<u8>>,
    terms: Option<Vec<u8>>,
    note: Option<Note>,
}

/// The note of a snapshot that is about to replace the data: where it stands, and the hard state of the write that
/// follows it.
#[derive(Debug, Clone)]
struct Note {
    place: SnapshotPlace,
    hard_state: Vec<u8>,
}

/// One batch of one region.
#[derive(Debug, Clone, Default)]
pub(crate) struct Batch {
    region: RegionId,
    /// Whether all that was there before goes, and the note with it: the log begins anew after a snapshot.
    anew: bool,
    entries: Vec<(Index, Vec<u8>)>,
    remove: Option<(Index, Index)>,
    hard_state: Option<Vec<u8>>,
    terms: Option<Vec<u8>>,
    note: Option<Note>,
    /// Whether the region begins or ends with this.
    life: Option<Life>,
}

/// What becomes of a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Made,
    Destroyed,
}

impl Batch {
    /// What a group asked to write.
    pub(crate) fn of_write(region: RegionId, write: &mut LogWrite) -> Self {
        Self {
            region,
            anew: write.snapshot.is_some(),
            entries: std::mem::take(&mut write.entries),
            remove: write.remove_stale,
            hard_state: write.hard_state.take(),
            terms: write.terms.take(),
            note: None,
            life: None,
        }
    }

    /// The note of the snapshot that `write` follows.
    pub(crate) fn of_note(region: RegionId, write: &LogWrite) -> Self {
        let hard_state = write.hard_state.clone().unwrap_or_default();
        let note = write.snapshot.map(|place| Note { place, hard_state });
        Self { region, note, ..Self::default() }
    }

    /// The making of a region.
    pub(crate) fn of_creation(region: RegionId) -> Self {
        Self { region, life: Some(Life::Made), ..Self::default() }
    }

    /// The end of a region.
    pub(crate) fn of_destruction(region: RegionId) -> Self {
        Self { region, life: Some(Life::Destroyed), ..Self::default() }
    }

    /// The removal of all entries below `first`.
    pub(crate) fn of_truncation(region: RegionId, first: Index, terms: Vec<u8>) -> Self {
        Self { region, remove: Some((0, first)), terms: Some(terms), ..Self::default() }
    }
}

/// The log disk of one node.
#[derive(Debug)]
pub(crate) struct LogDisk {
    written: BTreeMap<RegionId, Rc<RefCell<Files>>>,
    synced: BTreeMap<RegionId, Files>,
    unsynced: Vec<Batch>,
    /// Regions whose end is synced.
    destroyed: BTreeSet<RegionId>,
}

/// What a start finds of one region.
pub(crate) struct Found {
    pub(crate) hard_state: HardState,
    pub(crate) terms: Terms,
    pub(crate) last: Index,
}

impl LogDisk {
    pub(crate) fn new(regions: &[RegionId]) -> Self {
        Self {
            written: regions.iter().map(|region| (*region, Rc::default())).collect(),
            synced: regions.iter().map(|region| (*region, Files::default())).collect(),
            unsynced: Vec::new(),
            destroyed: BTreeSet::new(),
        }
    }

    /// Writes a batch into the page cache.
    pub(crate) fn write(&mut self, batch: Batch) {
        match batch.life {
            // Whoever still reads the old files finds nothing in them.
            Some(Life::Destroyed) => {
                if let Some(files) = self.written.remove(&batch.region) {
                    *files.borrow_mut() = Files::default();
                }
            }
            Some(Life::Made) => drop(self.written.entry(batch.region).or_default()),
            // What comes behind the end of its region is of no use.
            None => {
                if let Some(files) = self.written.get(&batch.region) {
                    files.borrow_mut().write(&batch);
                }
            }
        }
        self.unsynced.push(batch);
    }

    /// All that was written survives from now on.
    pub(crate) fn sync(&mut self) {
        let unsynced = self.unsynced.len();
        self.keep(unsynced);
    }

    /// The power fails.
    pub(crate) fn crash(&mut self, rng: &mut ChaCha8Rng) {
        let kept = rng.random_range(0..=self.unsynced.len());
        self.keep(kept);
        self.unsynced.clear();
        self.written.retain(|region, _| self.synced.contains_key(region));
        for (region, files) in &self.synced {
            self.written.insert(*region, Rc::new(RefCell::new(files.clone())));
        }
    }

    fn keep(&mut self, batches: usize) {
        for batch in self.unsynced.drain(..batches) {
            match batch.life {
                Some(Life::Made) => drop(self.synced.entry(batch.region).or_default()),
                Some(Life::Destroyed) => {
                    self.synced.remove(&batch.region);
                    self.destroyed.insert(batch.region);
                }
                None => {
                    if let Some(files) = self.synced.get_mut(&batch.region) {
                        files.write(&batch);
                    }
                }
            }
        }
    }

    /// Finishes or forgets what a crash has interrupted, as a start does before anything else: if the data has taken
    /// in the snapshot of a note, the log follows. Returns whether there was a note.
    pub(crate) fn settle(&mut self, region: RegionId, applied: Index) -> Result<bool, String> {
        let note = self.synced(region).and_then(|files| files.note.clone());
        let Some(Note { place, hard_state }) = note else { return Ok(false) };
        let mut batch = Batch { region, ..Batch::default() };
        if place.index <= applied {
            let state = disk::decode_hard_state(&hard_state).map_err(|error| error.to_string())?;
            batch.anew = true;
            batch.hard_state = Some(disk::encode_hard_state(&HardState { commit: place.index, ..state }));
            batch.terms = Some(Terms::after(place.index, place.term).encode());
        }
        self.write(batch);
        self.sync();
        self.forget_note(region);
        Ok(true)
    }

    fn forget_note(&mut self, region: RegionId) {
        self.written[&region].borrow_mut().note = None;
        if let Some(files) = self.synced.get_mut(&region) {
            files.note = None;
        }
    }

    /// What a start finds.
    pub(crate) fn boot(&self, region: RegionId) -> Result<Found, String> {
        self.written[&region].borrow().boot()
    }

    /// For reading entries later.
    pub(crate) fn reader(&self, region: RegionId) -> Reader {
        Reader(self.written.get(&region).map(Rc::clone).unwrap_or_default())
    }

    /// What a power cut would leave of a region now, if it is there at all.
    pub(crate) fn synced(&self, region: RegionId) -> Option<&Files> {
        self.synced.get(&region)
    }

    /// Whether the region was here and never comes back.
    pub(crate) fn has_destroyed(&self, region: RegionId) -> bool {
        self.destroyed.contains(&region)
    }

    /// The regions that are here.
    pub(crate) fn regions(&self) -> Vec<RegionId> {
        self.written.keys().copied().collect()
    }
}

impl Files {
    fn write(&mut self, batch: &Batch) {
        if batch.anew {
            self.entries.clear();
            self.note = None;
        }
        self.note = batch.note.clone().or(self.note.take());
        if let Some((from, to)) = batch.remove {
            // Nearly always at one of the ends, and short.
            let gone: Vec<Index> = self.entries.range(from..to).map(|(index, _)| *index).collect();
            gone.iter().for_each(|index| drop(self.entries.remove(index)));
        }
        for (index, entry) in &batch.entries {
            self.entries.insert(*index, entry.clone());
        }
        self.hard_state = batch.hard_state.clone().or(self.hard_state.take());
        self.terms = batch.terms.clone().or(self.terms.take());
    }

    pub(crate) fn terms(&self) -> Terms {
        let decoded = self.terms.as_deref().map(Terms::decode);
        decoded.transpose().ok().flatten().unwrap_or_default()
    }

    pub(crate) fn hard_state(&self) -> HardState {
        let decoded = self.hard_state.as_deref().map(disk::decode_hard_state);
        decoded.transpose().ok().flatten().unwrap_or_default()
    }

    pub(crate) fn last(&self) -> Index {
        self.entries.last_key_value().map_or_else(|| self.terms().first_index() - 1, |(index, _)| *index)
    }

    /// The term of an entry that is here; `None` where it is not.
    pub(crate) fn term(&self, index: Index) -> Option<Term> {
        disk::decode_entry(index, self.entries.get(&index)?).ok().map(|entry| entry.term)
    }

    fn boot(&self) -> Result<Found, String> {
        let terms = self.terms.as_deref().map_or(Ok(Terms::default()), Terms::decode);
        let terms = terms.map_err(|error| error.to_string())?;
        let hard_state = self.hard_state.as_deref().map_or(Ok(HardState::default()), disk::decode_hard_state);
        let last = self.last();
        let expected = terms.first_index()..=last;
        if !self.entries.keys().copied().eq(expected.clone()) {
            return Err(format!("entries {expected:?} expected, found {:?}", self.entries.keys()));
        }
        for (index, bytes) in &self.entries {
            let term = disk::decode_entry(*index, bytes).map_err(|error| error.to_string())?.term;
            if terms.term(*index) != Some(term) {
                return Err(format!(
                    "entry {index} has term {term}, the table says {:?}",
                    terms.term(*index)
                ));
            }
        }
        Ok(Found { hard_state: hard_state.map_err(|error| error.to_string())?, terms, last })
    }
}

/// A group's access to its entries on disk.
#[derive(Debug)]
pub(crate) struct Reader(Rc<RefCell<Files>>);

impl LogRead for Reader {
    fn read(&self, low: Index, high: Index, bytes_max: u64) -> Result<Vec<Entry>, String> {
        let files = self.0.borrow();
        let mut entries = Vec::new();
        let mut bytes = 0;
        for (index, encoded) in files.entries.range(low..high) {
            bytes += encoded.len() as u64;
            if bytes_max < bytes && !entries.is_empty() {
                break;
            }
            entries.push(disk::decode_entry(*index, encoded).map_err(|error| error.to_string())?);
        }
        match entries.first() {
            Some(first) if first.index == low => Ok(entries),
            _ => Err(format!("entry {low} is not on disk")),
        }
    }
}

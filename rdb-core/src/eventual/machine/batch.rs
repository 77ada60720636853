//! What is being applied: reads see what the batch itself has written.

use super::{Changes, Error, Notes, State, View};
use crate::eventual::conflicts::{self, Lost};
use crate::eventual::heads::{Head, Heads};
use crate::ids::Era;
use crate::record::Record;
use crate::version::Hlc;
use indexmap::IndexMap;
use std::collections::BTreeMap;
use std::ops::Bound;

/// Keys and what was written under them.
type Written = BTreeMap<Vec<u8>, Option<Vec<u8>>>;
/// The same, in the order in which they were first written.
type Records = IndexMap<Vec<u8>, Option<Vec<u8>>, ahash::RandomState>;

/// Where a batch has so many records they are put in order: who writes them next finds one's place from where the last one went.
const SORTED_FROM: usize = 128;

pub(super) struct Batch<'v, V> {
    view: &'v V,
    records: Records,
    notes: Written,
    /// They are the machine's, which has them back at the end. If it comes to no end they are forgotten: they may be ahead of
    /// what is stored.
    heads: Heads,
}

impl<'v, V: View> Batch<'v, V> {
    pub(super) fn new(view: &'v V, heads: &mut Heads) -> Self {
        let heads = heads.lend();
        Self { view, records: Records::default(), notes: Written::new(), heads }
    }

    /// Which write lies under the key.
    pub(super) fn head(&mut self, key: &[u8]) -> Result<Option<Head>, Error<V::Error>> {
        let (records, view) = (&self.records, self.view);
        self.heads.find(key, || record(records, view, key))
    }

    pub(super) fn record(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error<V::Error>> {
        record(&self.records, self.view, key)
    }

    pub(super) fn put_record(&mut self, key: &[u8], record: &Record<'_>) {
        self.heads.put(key, Some(Head::of(record)));
        self.records.insert(key.to_vec(), Some(record.encode()));
    }

    pub(super) fn remove_record(&mut self, key: &[u8]) {
        self.heads.put(key, None);
        self.records.insert(key.to_vec(), None);
    }

    /// Puts a note where there is none. How many were put.
    pub(super) fn put_note(&mut self, key: Vec<u8>, note: Vec<u8>) -> Result<u64, Error<V::Error>> {
        if self.note(&key)?.is_some() {
            return Ok(0);
        }
        if let Some(kept) = conflicts::kept_key(&key, &note)? {
            self.set_note(kept, Some(conflicts::kept()));
        }
        self.set_note(key, Some(note));
        Ok(1)
    }

    /// Removes a note if there is one. How many were removed.
    pub(super) fn remove_note(&mut self, key: &[u8]) -> Result<u64, Error<V::Error>> {
        let Some(note) = self.note(key)? else { return Ok(0) };
        self.drop_note(key.to_vec(), &note)?;
        Ok(1)
    }

    /// Removes the notes from `from` up to, and without, `to`. How many were removed.
    pub(super) fn remove_notes(&mut self, from: &[u8], to: &[u8]) -> Result<u64, Error<V::Error>> {
        let notes = self.notes(from, to)?;
        let count = notes.len() as u64;
        for (key, note) in notes {
            self.drop_note(key, &note)?;
        }
        Ok(count)
    }

    /// Removes the notes of a key's lost deletions that are stamped up to `purged` and not settled. How many were removed.
    pub(super) fn remove_lost_tombstones(
        &mut self,
        era: Era,
        key: &[u8],
        purged: Hlc,
    ) -> Result<u64, Error<V::Error>> {
        let (from, to) = conflicts::lost_of_key_range(era, key);
        let mut count = 0;
        for (key, note) in self.notes(&from, &to)? {
            let lost = Lost::decode(&note)?;
            if lost.tombstone && !lost.settled && lost.hlc <= purged {
                self.drop_note(key, &note)?;
                count += 1;
            }
        }
        Ok(count)
    }

    pub(super) fn set_note(&mut self, key: Vec<u8>, note: Option<Vec<u8>>) {
        self.notes.insert(key, note);
    }

    /// Removes a note, and what it is found by if it is kept.
    pub(super) fn drop_note(&mut self, key: Vec<u8>, note: &[u8]) -> Result<(), Error<V::Error>> {
        if let Some(kept) = conflicts::kept_key(&key, note)? {
            self.set_note(kept, None);
        }
        self.set_note(key, None);
        Ok(())
    }

    pub(super) fn note(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error<V::Error>> {
        match self.notes.get(key) {
            Some(note) => Ok(note.clone()),
            None => self.view.note(key).map_err(Error::View),
        }
    }

    pub(super) fn notes(&self, from: &[u8], to: &[u8]) -> Result<Notes, Error<V::Error>> {
        // Between places that a peer has named there may be nothing.
        if to <= from {
            return Ok(Notes::new());
        }
        let mut notes: BTreeMap<_, _> = self.view.notes(from, to).map_err(Error::View)?.into_iter().collect();
        for (key, note) in self.notes.range::<[u8], _>((Bound::Included(from), Bound::Excluded(to))) {
            match note {
                Some(note) => notes.insert(key.clone(), note.clone()),
                None => notes.remove(key),
            };
        }
        Ok(notes.into_iter().collect())
    }

    /// The notes alone.
    pub(super) fn into_notes(self) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
        self.notes.into_iter().collect()
    }

    pub(super) fn finish(mut self, state: &State, heads: &mut Heads) -> Changes {
        *heads = self.heads;
        if SORTED_FROM <= self.records.len() {
            self.records.sort_unstable_keys();
        }
        let (records, notes) = (self.records.into_iter().collect(), self.notes.into_iter().collect());
        Changes { records, notes, state: state.encode() }
    }
}

/// What is under a key: as the batch has written it, or as it was before.
fn record<V: View>(written: &Records, view: &V, key: &[u8]) -> Result<Option<Vec<u8>>, Error<V::Error>> {
    match written.get(key) {
        Some(record) => Ok(record.clone()),
        None => view.get(key).map_err(Error::View),
    }
}

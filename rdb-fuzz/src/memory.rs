//! A region's data in memory, for state machines.

use rdb_core::apply;
use rdb_core::eventual::machine::{self, Notes};
use std::collections::BTreeMap;
use std::convert::Infallible;

/// Records and notes.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    records: BTreeMap<Vec<u8>, Vec<u8>>,
    notes: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Memory {
    /// Writes what a strong region's machine has made. Its state must be one.
    pub(crate) fn write(&mut self, changes: apply::Changes) {
        assert!(apply::State::decode(&changes.state).is_ok(), "a state is written that cannot be read");
        for range in &changes.removed {
            self.records.retain(|key, _| !range.contains(key));
        }
        put(&mut self.records, changes.records);
    }

    /// The same of an eventual region's.
    pub(crate) fn write_eventual(&mut self, changes: machine::Changes) {
        assert!(machine::State::decode(&changes.state).is_ok(), "a state is written that cannot be read");
        put(&mut self.records, changes.records);
        put(&mut self.notes, changes.notes);
    }

    /// All notes.
    pub(crate) fn all_notes(&self) -> Notes {
        self.notes.iter().map(|(key, note)| (key.clone(), note.clone())).collect()
    }
}

fn put(to: &mut BTreeMap<Vec<u8>, Vec<u8>>, changes: Vec<(Vec<u8>, Option<Vec<u8>>)>) {
    for (key, value) in changes {
        match value {
            Some(value) => to.insert(key, value),
            None => to.remove(&key),
        };
    }
}

impl apply::View for Memory {
    type Error = Infallible;

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Infallible> {
        Ok(self.records.get(key).cloned())
    }
}

impl machine::View for Memory {
    fn note(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Infallible> {
        Ok(self.notes.get(key).cloned())
    }

    fn notes(&self, from: &[u8], to: &[u8]) -> Result<Notes, Infallible> {
        let notes = self.notes.iter().filter(|(key, _)| from <= &key[..] && &key[..] < to);
        Ok(notes.map(|(key, note)| (key.clone(), note.clone())).collect())
    }
}

//! How a group's log and state look on disk. Where they lie is for `rdb-storage` to say.
//!
//! ```text
//! entry        byte 0 format, byte 1 type (0 normal), 8 bytes term, then the data
//! hard state   byte 0 format, varint term, varint vote, varint commit
//! terms        byte 0 format, varint index and varint term of the last entry dropped, then for each run of entries
//!              with one term: varint first index, varint term
//! members      byte 0 format, then varint node ids of the voters, ascending
//! ```
//! The table of terms answers `term(index)` without reading entries; it changes only when a term begins or the log is
//! cut, in the same batch as the entries.

use crate::codec::{Corrupt, Reader, put_varint};
use crate::ids::{Index, NodeId, Term};
use raft_proto::eraftpb::{Entry, EntryType, HardState};

const FORMAT: u8 = 1;

fn open<'a>(what: &'static str, bytes: &'a [u8]) -> Result<Reader<'a>, Corrupt> {
    let mut reader = Reader::new(what, bytes);
    match reader.u8()? {
        FORMAT => Ok(reader),
        _ => Err(reader.corrupt("its format is not known to this version of FlareDB")),
    }
}

/// An entry without its index, which is its key.
pub fn encode_entry(entry: &Entry) -> Vec<u8> {
    let mut out = Vec::with_capacity(10 + entry.data.len());
    out.push(FORMAT);
    out.push(0);
    out.extend_from_slice(&entry.term.to_be_bytes());
    out.extend_from_slice(&entry.data);
    out
}

/// Reads an entry.
///
/// # Errors
/// The bytes are damaged, or a later FlareDB wrote them.
pub fn decode_entry(index: Index, bytes: &[u8]) -> Result<Entry, Corrupt> {
    let mut reader = open("a log entry on disk", bytes)?;
    if reader.u8()? != 0 {
        return Err(reader.corrupt("its type is not known to this version of FlareDB"));
    }
    let mut entry = Entry { index, term: reader.u64()?, ..Entry::default() };
    entry.set_entry_type(EntryType::EntryNormal);
    entry.data = reader.rest().to_vec();
    Ok(entry)
}

/// The hard state: what a node must never forget between two votes.
pub fn encode_hard_state(state: &HardState) -> Vec<u8> {
    let mut out = vec![FORMAT];
    put_varint(&mut out, state.term);
    put_varint(&mut out, state.vote);
    put_varint(&mut out, state.commit);
    out
}

/// Reads a hard state.
///
/// # Errors
/// The bytes are damaged, or a later FlareDB wrote them.
pub fn decode_hard_state(bytes: &[u8]) -> Result<HardState, Corrupt> {
    let mut reader = open("a hard state", bytes)?;
    let state = HardState { term: reader.varint()?, vote: reader.varint()?, commit: reader.varint()? };
    reader.finish()?;
    Ok(state)
}

/// The voters of a group, as the region was created.
pub fn encode_members(members: &[NodeId]) -> Vec<u8> {
    let mut out = vec![FORMAT];
    members.iter().for_each(|node| put_varint(&mut out, node.0));
    out
}

/// Reads the voters.
///
/// # Errors
/// The bytes are damaged, or a later FlareDB wrote them.
pub fn decode_members(bytes: &[u8]) -> Result<Vec<NodeId>, Corrupt> {
    let mut reader = open("a region's members", bytes)?;
    let mut members = Vec::new();
    while !reader.is_empty() {
        members.push(NodeId(reader.varint()?));
    }
    Ok(members)
}

/// The terms of all entries, as runs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Terms {
    /// Index and term of the last entry that was dropped from the front; zeroes if none was.
    dropped: (Index, Term),
    /// First index and term of each run, both ascending.
    runs: Vec<(Index, Term)>,
}

impl Terms {
    /// The first index that the log may hold.
    pub fn first_index(&self) -> Index {
        self.dropped.0 + 1
    }

    /// The term of `index`, which the caller knows to be no later than the last entry.
    pub fn term(&self, index: Index) -> Option<Term> {
        if index == self.dropped.0 {
            return Some(self.dropped.1);
        }
        let run = self.runs.partition_point(|(first, _)| *first <= index).checked_sub(1)?;
        (self.dropped.0 < index).then(|| self.runs[run].1)
    }

    /// The terms of a log that is empty and goes on after the entry `index`.
    pub fn after(index: Index, term: Term) -> Self {
        Self { dropped: (index, term), runs: Vec::new() }
    }

    /// Takes note of an entry after all others. Returns whether a run began.
    pub fn push(&mut self, index: Index, term: Term) -> bool {
        let begins = self.runs.last().is_none_or(|(_, last)| *last != term);
        if begins {
            // A run whose entries were all dropped is still there, empty.
            self.runs.pop_if(|(first, _)| *first == index);
            self.runs.push((index, term));
        }
        begins
    }

    /// Forgets `index` and all after it. Returns whether a run ended.
    pub fn cut_from(&mut self, index: Index) -> bool {
        let kept = self.runs.partition_point(|(first, _)| *first < index);
        let cut = kept < self.runs.len();
        self.runs.truncate(kept);
        cut
    }

    /// Forgets all up to `index`, whose term stays known.
    pub fn drop_to(&mut self, index: Index) {
        let Some(term) = self.term(index).filter(|_| self.dropped.0 < index) else { return };
        self.dropped = (index, term);
        let run = self.runs.partition_point(|(first, _)| *first <= index + 1).saturating_sub(1);
        self.runs.drain(..run);
        if let Some(first) = self.runs.first_mut() {
            first.0 = first.0.max(index + 1);
        }
    }

    /// As it goes to disk.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![FORMAT];
        for (index, term) in std::iter::once(&self.dropped).chain(&self.runs) {
            put_varint(&mut out, *index);
            put_varint(&mut out, *term);
        }
        out
    }

    /// As it comes from disk.
    ///
    /// # Errors
    /// The bytes are damaged, or a later FlareDB wrote them.
    pub fn decode(bytes: &[u8]) -> Result<Self, Corrupt> {
        let mut reader = open("a table of terms", bytes)?;
        let mut terms = Terms { dropped: (reader.varint()?, reader.varint()?), runs: Vec::new() };
        while !reader.is_empty() {
            let run = (reader.varint()?, reader.varint()?);
            let last = terms.runs.last().copied().unwrap_or(terms.dropped);
            if run.0 <= last.0 && last.0 != 0 || run.1 < last.1 {
                return Err(reader.corrupt("its runs are out of order"));
            }
            terms.runs.push(run);
        }
        // The next index must be one, too.
        if terms.runs.last().unwrap_or(&terms.dropped).0 == Index::MAX {
            return Err(reader.corrupt("an index is out of range"));
        }
        Ok(terms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone)]
    enum Step {
        Push { terms_later: u64, count: u64 },
        Cut { from_end: usize },
        Drop { from_start: usize },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..3u64, 1..5u64).prop_map(|(terms_later, count)| Step::Push { terms_later, count }),
            (0..6usize).prop_map(|from_end| Step::Cut { from_end }),
            (0..6usize).prop_map(|from_start| Step::Drop { from_start }),
        ]
    }

    proptest! {
        /// The table against a plain list of terms.
        #[test]
        fn terms_are_those_of_a_plain_list(steps in prop::collection::vec(step(), 0..40)) {
            let mut table = Terms::default();
            let mut plain: Vec<(Index, Term)> = vec![(0, 0)];
            for step in steps {
                let (last, term) = plain[plain.len() - 1];
                match step {
                    Step::Push { terms_later, count } => for index in last + 1..=last + count {
                        table.push(index, (term + terms_later).max(1));
                        plain.push((index, (term + terms_later).max(1)));
                    },
                    Step::Cut { from_end } => {
                        let keep = plain.len().saturating_sub(from_end).max(1);
                        table.cut_from(plain[keep - 1].0 + 1);
                        plain.truncate(keep);
                    }
                    Step::Drop { from_start } => {
                        let at = from_start.min(plain.len() - 1);
                        table.drop_to(plain[at].0);
                        plain.drain(..at);
                    }
                }
                for (index, term) in &plain {
                    prop_assert_eq!(table.term(*index), Some(*term), "index {} of {:?}", index, table);
                }
                prop_assert_eq!(table.first_index(), plain[0].0 + 1);
                prop_assert_eq!(Terms::decode(&table.encode()).unwrap(), table.clone());
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = (Terms::decode(&bytes), decode_entry(1, &bytes), decode_hard_state(&bytes), decode_members(&bytes));
        }
    }

    #[test]
    fn entries_and_states_come_back() {
        let mut entry = Entry { index: 7, term: 3, data: b"data".to_vec(), ..Entry::default() };
        entry.set_entry_type(EntryType::EntryNormal);
        assert_eq!(decode_entry(7, &encode_entry(&entry)).unwrap(), entry);
        let state = HardState { term: 9, vote: 2, commit: 300 };
        assert_eq!(decode_hard_state(&encode_hard_state(&state)).unwrap(), state);
        let members = vec![NodeId(1), NodeId(2), NodeId(900)];
        assert_eq!(decode_members(&encode_members(&members)).unwrap(), members);
    }
}

//! A copy of a member's part of an era, for one that was given up: what it lacks is in nobody's log any more.
//!
//! A log has a cap. What is kept for a member that stays away beyond it goes, and when the member is back it takes a *copy*
//! from whoever has dropped what it lacks: all records of the era as they are at one vector, with what is noted of lost
//! writes. It has writes of its own, so a copy is merged, and does not replace.
//!
//! A copy comes in pages. The receiver puts them aside, beside its logs, until it has all of them; nothing of them is shown,
//! or counts as synced. Then it notes that they are complete ([`Note`]), and from the sync of that note on a copy is like a run that
//! was logged: it will be applied, whatever happens. Page by page [`super::machine::Machine::copy_page`] merges them, and with the last
//! one the vector is raised to the sender's. A copy that is cut off before it is complete leaves no trace; so a switch of mode that
//! leaves its sender out finds nothing of what that alone has written.
//!
//! While pages are merged, runs of other members are not taken in; this node's own writes go on.
//!
//! ```text
//! note     byte 0 format, now 1; varint era, from, pages; 8 bytes highest stamp; vector
//! page     byte 0 format, now 1; byte kind; varint count; entries; 8 bytes checksum of all before
//!          kind 1  awaited writes: node, incarnation, seq
//!          kind 2  keys, ascending: key; record; varint count of lost writes, then of each: node, incarnation, seq; the note
//! ```
//! Keys, records and notes carry their length in front.

use super::conflicts;
use super::machine::{Error, State, View};
use super::vector::{Origin, Seq, Vector, WriteId, put_write_id, read_write_id};
use crate::codec::{Corrupt, Reader, put_bytes, put_varint};
use crate::ids::{Era, Incarnation, NodeId};
use crate::record;
use crate::version::Hlc;
use xxhash_rust::xxh3::xxh3_64;

const FORMAT: u8 = 1;
const CHECKSUM_BYTES: usize = 8;

const AWAITED: u8 = 1;
const RECORDS: u8 = 2;

/// Where pages are put aside: in the log of an origin that no node is, each at its number, from 1.
pub const ASIDE: Origin = Origin { node: NodeId(0), incarnation: Incarnation(0) };

/// And there the note, behind all of them. It belongs to its era like they do: a start whose data was last flushed in it finds them,
/// though another era has come since.
pub const NOTE_PLACE: Seq = Seq::MAX - 1;

/// A key of the sender's, its record, and what is noted of the lost writes of the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    /// Which key.
    pub key: Vec<u8>,
    /// Its record, as it is stored.
    pub record: Vec<u8>,
    /// Lost writes, and their notes as they are stored.
    pub lost: Vec<(WriteId, Vec<u8>)>,
}

impl Copied {
    /// About as many bytes as it takes in a page.
    pub fn bytes(&self) -> usize {
        let lost: usize = self.lost.iter().map(|(_, note)| note.len() + 16).sum();
        self.key.len() + self.record.len() + lost + 16
    }
}

/// A part of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Page {
    /// Writes that the sender has not got, and knows to be replaced.
    Awaited(Vec<WriteId>),
    /// Some of its keys.
    Records(Vec<Copied>),
}

impl Page {
    /// As it is sent and put aside.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![FORMAT];
        match self {
            Page::Awaited(ids) => {
                out.push(AWAITED);
                put_varint(&mut out, ids.len() as u64);
                ids.iter().for_each(|id| put_write_id(&mut out, *id));
            }
            Page::Records(records) => {
                out.push(RECORDS);
                put_varint(&mut out, records.len() as u64);
                for copied in records {
                    put_bytes(&mut out, &copied.key);
                    put_bytes(&mut out, &copied.record);
                    put_varint(&mut out, copied.lost.len() as u64);
                    for (id, note) in &copied.lost {
                        put_write_id(&mut out, *id);
                        put_bytes(&mut out, note);
                    }
                }
            }
        }
        let checksum = xxh3_64(&out);
        out.extend_from_slice(&checksum.to_be_bytes());
        out
    }

    /// Reads a page.
    ///
    /// # Errors
    /// The bytes are damaged, or a later FlareDB wrote them.
    pub fn decode(bytes: &[u8]) -> Result<Self, Corrupt> {
        let mut reader = Reader::new("a page of a copy", whole(bytes)?);
        if reader.u8()? != FORMAT {
            return Err(reader.corrupt("its format is not known to this version of FlareDB"));
        }
        let kind = reader.u8()?;
        let count = reader.varint()?;
        let page = match kind {
            AWAITED => {
                Page::Awaited((0..count).map(|_| read_write_id(&mut reader)).collect::<Result<_, _>>()?)
            }
            RECORDS => Page::Records((0..count).map(|_| read_copied(&mut reader)).collect::<Result<_, _>>()?),
            _ => return Err(reader.corrupt("its kind is not known to this version of FlareDB")),
        };
        reader.finish()?;
        Ok(page)
    }
}

fn read_copied(reader: &mut Reader<'_>) -> Result<Copied, Corrupt> {
    let (key, record) = (reader.bytes()?.to_vec(), reader.bytes()?.to_vec());
    let count = reader.varint()?;
    let lost = (0..count).map(|_| Ok((read_write_id(reader)?, reader.bytes()?.to_vec())));
    Ok(Copied { key, record, lost: lost.collect::<Result<_, Corrupt>>()? })
}

/// What comes before the checksum, if that is right.
fn whole(bytes: &[u8]) -> Result<&[u8], Corrupt> {
    let reader = Reader::new("a page of a copy", bytes);
    match bytes.len().checked_sub(CHECKSUM_BYTES).map(|at| bytes.split_at(at)) {
        Some((rest, checksum)) if xxh3_64(rest).to_be_bytes() == *checksum => Ok(rest),
        Some(_) => Err(reader.corrupt("its checksum is wrong")),
        None => Err(reader.corrupt("it ends too early")),
    }
}

/// That a copy is complete, and what it is a copy of. Once this is synced, the copy counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// Whose part it is.
    pub from: NodeId,
    /// Of which era.
    pub era: Era,
    /// How many there are; one at least.
    pub pages: u64,
    /// The highest stamp that the sender had applied.
    pub highest: Hlc,
    /// What the sender had applied.
    pub vector: Vector,
}

impl Note {
    /// Of `pages` pages from a member that stood at `state`.
    pub fn of(from: NodeId, state: &State, pages: u64) -> Self {
        let State { era, highest, applied, .. } = state.clone();
        Self { from, era, pages, highest, vector: applied }
    }

    /// As it is stored.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![FORMAT];
        let numbers = [u64::from(self.era.0), self.from.0, self.pages];
        numbers.iter().for_each(|number| put_varint(&mut out, *number));
        out.extend_from_slice(&self.highest.0.to_be_bytes());
        self.vector.put(&mut out);
        out
    }

    /// Reads one.
    ///
    /// # Errors
    /// The bytes are damaged, or a later FlareDB wrote them.
    pub fn decode(bytes: &[u8]) -> Result<Self, Corrupt> {
        let mut reader = Reader::new("the note of a copy", bytes);
        if reader.u8()? != FORMAT {
            return Err(reader.corrupt("its format is not known to this version of FlareDB"));
        }
        let note = Self {
            era: Era(reader.varint32()?),
            from: NodeId(reader.varint()?),
            pages: reader.varint()?,
            highest: Hlc(reader.u64()?),
            vector: Vector::read(&mut reader)?,
        };
        reader.finish()?;
        Ok(note)
    }
}

/// Whether a copy of a member that stands at `offered` can be taken in by one that has logged `logged`, as `me`: it must bring
/// something, and nothing that only this node could have written.
pub fn is_of_use(offered: &Vector, logged: &Vector, me: Origin) -> bool {
    offered.get(me) <= logged.get(me) && !logged.covers(offered)
}

/// Whether a member that has said that it cannot serve this one from its logs still has something that this one lacks.
pub fn is_needed(theirs: &Vector, mine: &Vector) -> bool {
    !mine.covers(theirs)
}

/// A key for a copy, as it is stored in `view`; `None` where its record is of an earlier era: all members began with those.
/// `any_lost`: whether there are notes of lost writes at all.
///
/// # Errors
/// The record or a note is damaged, or could not be read.
pub fn copied<V: View>(
    era: Era,
    (key, stored): (&[u8], &[u8]),
    any_lost: bool,
    view: &V,
) -> Result<Option<Copied>, Error<V::Error>> {
    if record::decode(stored)?.version.era != era {
        return Ok(None);
    }
    let mut lost = Vec::new();
    if any_lost {
        let (from, to) = conflicts::lost_of_key_range(era, key);
        for (note_key, note) in view.notes(&from, &to).map_err(Error::View)? {
            let (_, _, id) = conflicts::parse_lost_key(&note_key)?;
            lost.push((id, note));
        }
    }
    Ok(Some(Copied { key: key.to_vec(), record: stored.to_vec(), lost }))
}

/// The awaited writes of an era among these notes.
///
/// # Errors
/// A note's key is damaged.
pub fn awaited(notes: &[(Vec<u8>, Vec<u8>)]) -> Result<Page, Corrupt> {
    let ids = notes.iter().map(|(key, _)| conflicts::parse_awaited_key(key).map(|(_, id)| id));
    Ok(Page::Awaited(ids.collect::<Result<_, _>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eventual::vector::tests::{origin, vectors};
    use proptest::prelude::*;

    prop_compose! {
        fn ids()(node in 1u64..4, incarnation in 1u64..3, seq in 1u64..300) -> WriteId {
            WriteId { origin: origin(node, incarnation), seq }
        }
    }

    fn pages() -> impl Strategy<Value = Page> {
        let lost = prop::collection::vec((ids(), any::<Vec<u8>>()), 0..3);
        let copied = (any::<Vec<u8>>(), any::<Vec<u8>>(), lost).prop_map(|(key, record, lost)| Copied {
            key,
            record,
            lost,
        });
        prop_oneof![
            prop::collection::vec(ids(), 0..5).prop_map(Page::Awaited),
            prop::collection::vec(copied, 0..4).prop_map(Page::Records),
        ]
    }

    proptest! {
        #[test]
        fn pages_come_back_and_damage_is_noticed(page in pages(), at: prop::sample::Index, flip in 1u8..) {
            let mut bytes = page.encode();
            prop_assert_eq!(Page::decode(&bytes).unwrap(), page);
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            prop_assert!(Page::decode(&bytes).is_err());
        }

        #[test]
        fn notes_come_back(vector in vectors(), pages: u64, highest: u64) {
            let (from, era) = (NodeId(2), Era(3));
            let note = Note { from, era, pages, highest: Hlc(highest), vector };
            prop_assert_eq!(Note::decode(&note.encode()).unwrap(), note);
        }

        #[test]
        fn any_bytes_are_read_or_refused(mut bytes: Vec<u8>) {
            let _ = (Page::decode(&bytes), Note::decode(&bytes));
            bytes.insert(0, FORMAT);
            let checksum = xxh3_64(&bytes);
            bytes.extend_from_slice(&checksum.to_be_bytes());
            if let Ok(page) = Page::decode(&bytes) {
                prop_assert_eq!(Page::decode(&page.encode()).unwrap(), page);
            }
        }
    }

    #[test]
    fn a_copy_must_bring_something_and_nothing_that_only_this_node_could_have() {
        let (me, two) = (origin(1, 3), origin(2, 1));
        let vector = |one, other| [(me, one), (two, other)].into_iter().collect::<Vector>();
        assert!(is_of_use(&vector(0, 7), &vector(4, 6), me));
        assert!(is_of_use(&vector(4, 7), &vector(4, 6), me));
        assert!(!is_of_use(&vector(4, 6), &vector(4, 6), me), "it brings nothing");
        assert!(!is_of_use(&vector(5, 7), &vector(4, 6), me), "two nodes have one identity");
        assert!(is_needed(&vector(0, 7), &vector(4, 6)) && !is_needed(&vector(4, 6), &vector(4, 7)));
    }
}

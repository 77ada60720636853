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
//! A key that is written everywhere while a member is away has any number of lost writes. They come in the order of their names, in as
//! many *parts* as it takes, and each part says which names it tells of: so a part is merged by itself, between two writes of this node
//! or behind a crash, and all of them together come to what one page would.
//!
//! ```text
//! note     byte 0 format, now 1; varint era, from, pages; 8 bytes highest stamp; vector
//! page     byte 0 format, now 2; byte kind; varint count; entries; 8 bytes checksum of all before
//!          kind 1  awaited writes: node, incarnation, seq
//!          kind 2  parts of keys, ascending: byte flags: 1 more parts of the key follow | 2 it is not the first one; key;
//!                  record, or flag 2: which write that is, and the last lost one of the part before: node, incarnation, seq;
//!                  varint count of lost writes, then of each: node, incarnation, seq; the note
//! ```
//! Keys, records and notes carry their length in front. Pages of format 1 had all of a key in one part; they are not read.

use super::conflicts::{self, Lost};
use super::machine::{Error, State, View};
use super::vector::{Origin, Seq, Vector, WriteId, put_write_id, read_write_id};
use crate::codec::{Corrupt, Reader, put_bytes, put_varint};
use crate::ids::{Era, Incarnation, NodeId};
use crate::record;
use crate::version::Hlc;
use xxhash_rust::xxh3::xxh3_64;

const NOTE_FORMAT: u8 = 1;
const PAGE_FORMAT: u8 = 2;
const CHECKSUM_BYTES: usize = 8;

const AWAITED: u8 = 1;
const RECORDS: u8 = 2;

const MORE: u8 = 1;
const REST: u8 = 2;

/// Where pages are put aside: in the log of an origin that no node is, each at its number, from 1.
pub const ASIDE: Origin = Origin { node: NodeId(0), incarnation: Incarnation(0) };

/// And there the note, behind all of them. It belongs to its era like they do: a start whose data was last flushed in it finds them,
/// though another era has come since.
pub const NOTE_PLACE: Seq = Seq::MAX - 1;

/// A key of the sender's: its record, and what is noted of some of the lost writes of the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    /// Which key.
    pub key: Vec<u8>,
    /// Which part of it.
    pub part: Part,
    /// Lost writes, ascending, and their notes as they are stored.
    pub lost: Vec<(WriteId, Vec<u8>)>,
    /// Whether more of them follow, in another part.
    pub more: bool,
}

/// Which part of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// The first one, with the key's record as it is stored.
    First(Vec<u8>),
    /// Another one.
    Rest {
        /// Which write the record is.
        record: WriteId,
        /// The last lost write of the part before.
        after: WriteId,
    },
}

impl Copied {
    /// A key and its record, where nothing is asked about lost writes.
    pub fn record(key: &[u8], stored: &[u8]) -> Self {
        Self { key: key.to_vec(), part: Part::First(stored.to_vec()), lost: Vec::new(), more: false }
    }

    /// About as many bytes as it takes in a page.
    pub fn bytes(&self) -> usize {
        let lost: usize = self.lost.iter().map(|(_, note)| note.len() + 16).sum();
        let record = match &self.part {
            Part::First(record) => record.len(),
            Part::Rest { .. } => 32,
        };
        self.key.len() + record + lost + 16
    }

    /// Behind which lost write the next part goes on, if there is one.
    pub fn goes_on_after(&self) -> Option<WriteId> {
        self.lost.last().filter(|_| self.more).map(|(last, _)| *last)
    }

    /// Between which notes' keys those lie that this part tells of: of the others the sender says nothing here.
    pub(super) fn tells_of(&self, era: Era) -> (Vec<u8>, Vec<u8>) {
        let behind = |id| [&conflicts::lost_key(era, &self.key, id)[..], &[0]].concat();
        let (from, to) = conflicts::lost_of_key_range(era, &self.key);
        let from = match self.part {
            Part::First(_) => from,
            Part::Rest { after, .. } => behind(after),
        };
        (from, self.goes_on_after().map_or(to, behind))
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
        let mut out = vec![PAGE_FORMAT];
        match self {
            Page::Awaited(ids) => {
                out.push(AWAITED);
                put_varint(&mut out, ids.len() as u64);
                ids.iter().for_each(|id| put_write_id(&mut out, *id));
            }
            Page::Records(records) => {
                out.push(RECORDS);
                put_varint(&mut out, records.len() as u64);
                records.iter().for_each(|copied| put_copied(&mut out, copied));
            }
        }
        let checksum = xxh3_64(&out);
        out.extend_from_slice(&checksum.to_be_bytes());
        out
    }

    /// Reads a page. One whose records or notes cannot be read is none: once a copy is noted, nothing of it can be left out.
    ///
    /// # Errors
    /// The bytes are damaged, or a later FlareDB wrote them.
    pub fn decode(bytes: &[u8]) -> Result<Self, Corrupt> {
        let mut reader = Reader::new("a page of a copy", whole(bytes)?);
        if reader.u8()? != PAGE_FORMAT {
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

fn put_copied(out: &mut Vec<u8>, copied: &Copied) {
    let more = if copied.more { MORE } else { 0 };
    match &copied.part {
        Part::First(record) => {
            out.push(more);
            put_bytes(out, &copied.key);
            put_bytes(out, record);
        }
        Part::Rest { record, after } => {
            out.push(more | REST);
            put_bytes(out, &copied.key);
            put_write_id(out, *record);
            put_write_id(out, *after);
        }
    }
    put_varint(out, copied.lost.len() as u64);
    for (id, note) in &copied.lost {
        put_write_id(out, *id);
        put_bytes(out, note);
    }
}

fn read_copied(reader: &mut Reader<'_>) -> Result<Copied, Corrupt> {
    let flags = reader.u8()?;
    if flags & !(MORE | REST) != 0 {
        return Err(reader.corrupt("it has flags not known to this version of FlareDB"));
    }
    let key = reader.bytes()?.to_vec();
    let part = match flags & REST {
        0 => Part::First(read_record(reader)?.to_vec()),
        _ => Part::Rest { record: read_write_id(reader)?, after: read_write_id(reader)? },
    };
    let count = reader.varint()?;
    let lost = (0..count).map(|_| Ok((read_write_id(reader)?, read_lost(reader)?.to_vec())));
    let lost: Vec<(WriteId, Vec<u8>)> = lost.collect::<Result<_, Corrupt>>()?;
    let after = if let Part::Rest { after, .. } = part { Some(after) } else { None };
    let told: Vec<WriteId> = after.into_iter().chain(lost.iter().map(|(id, _)| *id)).collect();
    if !told.is_sorted_by(|one, next| one < next) {
        return Err(reader.corrupt("its lost writes are not in order"));
    }
    Ok(Copied { key, part, lost, more: flags & MORE != 0 })
}

fn read_record<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], Corrupt> {
    let bytes = reader.bytes()?;
    record::decode(bytes).map(|_| bytes)
}

fn read_lost<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], Corrupt> {
    let bytes = reader.bytes()?;
    Lost::decode(bytes).map(|_| bytes)
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
        let mut out = vec![NOTE_FORMAT];
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
        if reader.u8()? != NOTE_FORMAT {
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

/// A part of a key for a copy, as it is stored in `view`: the first one, or the one that goes on behind the lost write `after`; `None`
/// where its record is of an earlier era: all members began with those. It has as many notes of lost writes as it takes to come to
/// `bytes_max`, so more by one at most. `any_lost`: whether there are such notes at all.
///
/// # Errors
/// The record or a note is damaged, or could not be read.
pub fn copied<V: View>(
    era: Era,
    (key, stored): (&[u8], &[u8]),
    after: Option<WriteId>,
    (any_lost, bytes_max): (bool, usize),
    view: &V,
) -> Result<Option<Copied>, Error<V::Error>> {
    let record = record::decode(stored)?;
    if record.version.era != era {
        return Ok(None);
    }
    let part = match (after, record.id) {
        (Some(after), Some(record)) => Part::Rest { record, after },
        _ => Part::First(stored.to_vec()),
    };
    let mut copied = Copied { key: key.to_vec(), part, lost: Vec::new(), more: false };
    if any_lost {
        let (from, to) = copied.tells_of(era);
        let notes = view.first_notes(&from, &to, bytes_max).map_err(Error::View)?;
        copied.more = bytes_max <= notes.iter().map(|(key, note)| key.len() + note.len()).sum();
        for (note_key, note) in notes {
            let (_, _, id) = conflicts::parse_lost_key(&note_key)?;
            copied.lost.push((id, note));
        }
    }
    Ok(Some(copied))
}

/// All parts of a key, as [`copied`] gives them one after the other.
///
/// # Errors
/// The record or a note is damaged, or could not be read.
pub fn parts<V: View>(
    era: Era,
    record: (&[u8], &[u8]),
    max: (bool, usize),
    view: &V,
) -> Result<Vec<Copied>, Error<V::Error>> {
    let (mut parts, mut after) = (Vec::new(), None);
    while let Some(part) = copied(era, record, after, max, view)? {
        after = part.goes_on_after();
        parts.push(part);
        if after.is_none() {
            break;
        }
    }
    Ok(parts)
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
    use crate::record::Record;
    use crate::version::Version;
    use proptest::prelude::*;

    prop_compose! {
        fn ids()(node in 1u64..4, incarnation in 1u64..3, seq in 1u64..300) -> WriteId {
            WriteId { origin: origin(node, incarnation), seq }
        }
    }

    prop_compose! {
        fn records()(id in ids(), hlc: u64, value: Option<Vec<u8>>) -> Vec<u8> {
            let version = Version { era: Era(2), hlc: Hlc(hlc), node: id.origin.node };
            Record { version, id: Some(id), value: value.as_deref() }.encode()
        }
    }

    prop_compose! {
        fn lost()(hlc: u64, by in ids(), tombstone: bool, kept: Option<Vec<u8>>) -> Vec<u8> {
            Lost { hlc: Hlc(hlc), tombstone, kept, by, settled: false, listed: None }.encode()
        }
    }

    fn pages() -> impl Strategy<Value = Page> {
        let lost = prop::collection::btree_map(ids(), lost(), 0..3);
        let part = prop_oneof![
            records().prop_map(Part::First),
            ids().prop_map(|record| Part::Rest { record, after: WriteId { origin: origin(0, 0), seq: 0 } }),
        ];
        let copied = (any::<Vec<u8>>(), part, lost, any::<bool>());
        let copied = copied.prop_map(|(key, part, lost, more)| {
            let lost = lost.into_iter().collect();
            Copied { key, part, lost, more }
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
            bytes.insert(0, PAGE_FORMAT);
            let checksum = xxh3_64(&bytes);
            bytes.extend_from_slice(&checksum.to_be_bytes());
            if let Ok(page) = Page::decode(&bytes) {
                prop_assert_eq!(Page::decode(&page.encode()).unwrap(), page);
            }
        }
    }

    #[test]
    fn a_page_whose_records_or_notes_cannot_be_read_is_none() {
        let id = WriteId { origin: origin(1, 1), seq: 3 };
        let version = Version { era: Era(2), hlc: Hlc(7), node: NodeId(1) };
        let record = Record { version, id: Some(id), value: None }.encode();
        let lost = Lost { hlc: Hlc(3), tombstone: true, kept: None, by: id, settled: false, listed: None };
        let is_read = |record: &[u8], note: &[u8]| {
            let copied = Copied { lost: vec![(id, note.to_vec())], ..Copied::record(b"key", record) };
            Page::decode(&Page::Records(vec![copied]).encode()).is_ok()
        };
        assert!(is_read(&record, &lost.encode()));
        assert!(!is_read(b"no record", &lost.encode()));
        assert!(!is_read(&record, b"no note"));
    }

    #[test]
    fn a_page_whose_lost_writes_are_not_in_order_is_none() {
        let id = |seq| WriteId { origin: origin(1, 1), seq };
        let lost = Lost { hlc: Hlc(3), tombstone: true, kept: None, by: id(9), settled: false, listed: None };
        let is_read = |after: u64, seqs: &[u64]| {
            let part = Part::Rest { record: id(9), after: id(after) };
            let lost = seqs.iter().map(|seq| (id(*seq), lost.encode())).collect();
            let copied = Copied { key: b"key".to_vec(), part, lost, more: true };
            Page::decode(&Page::Records(vec![copied]).encode()).is_ok()
        };
        assert!(is_read(2, &[3, 4]) && is_read(2, &[]));
        assert!(!is_read(3, &[3, 4]) && !is_read(2, &[4, 3]) && !is_read(2, &[3, 3]));
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

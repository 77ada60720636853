//! Lost writes, as they are noted beside the records. What "lost" means is said in [`super::merge`].
//!
//! ```text
//! key, lost      byte 1, 4 bytes era, user key with its length, 8 bytes node, 8 bytes incarnation, 8 bytes seq
//! value, lost    byte 0 format, now 1; byte flags: 1 tombstone | 2 the value follows | 4 settled | 8 listed; 8 bytes hlc;
//!                node, incarnation and seq of what displaced it; flag 8: 8 bytes hlc when it was noted, 8 bytes hlc of what
//!                displaced it; flag 2: the value
//! key, kept      byte 3, 8 bytes hlc when it was noted, 4 bytes how long the note and its key are, the key of the note
//! value, kept    byte 0 format, now 1
//! key, awaited   byte 2, 4 bytes era, 8 bytes node, 8 bytes incarnation, 8 bytes seq
//! value, awaited byte 0 format, now 1
//! ```
//! *Awaited* is a write that was replaced before it arrived here: when it does, it is not lost. There are such only while one
//! origin's log runs ahead of another's. *Kept* notes are those that a namespace lists; so they are found by their age.

use super::vector::{Origin, Seq, Vector, WriteId, put_write_id, read_write_id};
use crate::codec::{Corrupt, Reader, put_bytes};
use crate::ids::{Era, Incarnation, NodeId};
use crate::version::Hlc;

const FORMAT: u8 = 1;
const LOST: u8 = 1;
const AWAITED: u8 = 2;
const KEPT: u8 = 3;

const TOMBSTONE: u8 = 1;
const VALUE: u8 = 2;
const SETTLED: u8 = 4;
const LISTED: u8 = 8;

/// A write that was lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// When it was accepted.
    pub hlc: Hlc,
    /// Whether it was a deletion.
    pub tombstone: bool,
    /// Its value, where the namespace asks to keep it.
    pub kept: Option<Vec<u8>>,
    /// Which write displaced it here.
    pub by: WriteId,
    /// Whether it is certain by now that nobody replaced it.
    pub settled: bool,
    /// Where the namespace asks to keep it, and its time is not over.
    pub listed: Option<Listed>,
}

/// What else is noted of a lost write that is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listed {
    /// When it was noted here: from then on it is kept.
    pub noted: Hlc,
    /// The stamp of what displaced it.
    pub by_hlc: Hlc,
}

impl Lost {
    /// As it is stored.
    pub fn encode(&self) -> Vec<u8> {
        let flag = |set, flag| if set { flag } else { 0 };
        let flags = flag(self.tombstone, TOMBSTONE)
            | flag(self.kept.is_some(), VALUE)
            | flag(self.settled, SETTLED)
            | flag(self.listed.is_some(), LISTED);
        let mut out = vec![FORMAT, flags];
        out.extend_from_slice(&self.hlc.0.to_be_bytes());
        put_write_id(&mut out, self.by);
        if let Some(Listed { noted, by_hlc }) = self.listed {
            out.extend_from_slice(&noted.0.to_be_bytes());
            out.extend_from_slice(&by_hlc.0.to_be_bytes());
        }
        out.extend_from_slice(self.kept.as_deref().unwrap_or_default());
        out
    }

    /// Reads one.
    ///
    /// # Errors
    /// The bytes are damaged, or a later FlareDB wrote them.
    pub fn decode(bytes: &[u8]) -> Result<Self, Corrupt> {
        let mut reader = Reader::new("the note of a lost write", bytes);
        if reader.u8()? != FORMAT {
            return Err(reader.corrupt("its format is not known to this version of FlareDB"));
        }
        let flags = reader.u8()?;
        if flags & !(TOMBSTONE | VALUE | SETTLED | LISTED) != 0 {
            return Err(reader.corrupt("it has flags not known to this version of FlareDB"));
        }
        let (hlc, by) = (Hlc(reader.u64()?), read_write_id(&mut reader)?);
        let listed = match flags & LISTED {
            0 => None,
            _ => Some(Listed { noted: Hlc(reader.u64()?), by_hlc: Hlc(reader.u64()?) }),
        };
        let kept = if flags & VALUE == 0 {
            reader.finish()?;
            None
        } else {
            Some(reader.rest().to_vec())
        };
        Ok(Self { hlc, tombstone: flags & TOMBSTONE != 0, kept, by, settled: flags & SETTLED != 0, listed })
    }

    /// Whether nobody can have replaced it, if all members have applied what `settled` has of all that they had
    /// written when they had applied it: see [`Settling`].
    pub(super) fn is_settled_at(&self, id: WriteId, settled: &Vector) -> bool {
        settled.has(id) && settled.has(self.by)
    }
}

/// The note's key of a lost write.
pub fn lost_key(era: Era, key: &[u8], id: WriteId) -> Vec<u8> {
    let mut out = lost_of_key(era, key);
    put_fixed(&mut out, id);
    out
}

/// Reads the key of a lost write's note.
///
/// # Errors
/// The bytes are damaged.
pub fn parse_lost_key(note: &[u8]) -> Result<(Era, Vec<u8>, WriteId), Corrupt> {
    let mut reader = Reader::new("the key of a lost write's note", note);
    if reader.u8()? != LOST {
        return Err(reader.corrupt("it is another note's"));
    }
    let mut era = [0; 4];
    era.copy_from_slice(reader.take(4)?);
    let key = reader.bytes()?.to_vec();
    let origin = Origin { node: NodeId(reader.u64()?), incarnation: Incarnation(reader.u64()?) };
    let id = WriteId { origin, seq: reader.u64()? };
    reader.finish()?;
    Ok((Era(u32::from_be_bytes(era)), key, id))
}

/// What the keys of notes of lost writes lie between, of all eras.
pub fn all_lost() -> (Vec<u8>, Vec<u8>) {
    (vec![LOST], vec![LOST + 1])
}

/// By which a note is found that is kept, if the note of this key is one.
pub(super) fn kept_key(key: &[u8], note: &[u8]) -> Result<Option<Vec<u8>>, Corrupt> {
    if key.first() != Some(&LOST) {
        return Ok(None);
    }
    let Some(Listed { noted, .. }) = Lost::decode(note)?.listed else { return Ok(None) };
    let bytes = u32::try_from(key.len() + note.len()).unwrap_or(u32::MAX);
    let mut out = vec![KEPT];
    out.extend_from_slice(&noted.0.to_be_bytes());
    out.extend_from_slice(&bytes.to_be_bytes());
    out.extend_from_slice(key);
    Ok(Some(out))
}

/// What is told by the key by which a kept note is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept<'a> {
    /// When it was noted here.
    pub noted: Hlc,
    /// How long the note and its key are.
    pub bytes: u32,
    /// The note's key.
    pub note: &'a [u8],
}

impl<'a> Kept<'a> {
    /// Reads such a key; `None`: it is another note's.
    ///
    /// # Errors
    /// The bytes are damaged.
    pub fn parse(key: &'a [u8]) -> Result<Option<Self>, Corrupt> {
        if key.first() != Some(&KEPT) {
            return Ok(None);
        }
        let mut reader = Reader::new("the key of a kept note", &key[1..]);
        let noted = Hlc(reader.u64()?);
        let mut bytes = [0; 4];
        bytes.copy_from_slice(reader.take(4)?);
        Ok(Some(Self { noted, bytes: u32::from_be_bytes(bytes), note: reader.rest() }))
    }
}

/// What the keys of kept notes lie between: the oldest first.
pub fn all_kept() -> (Vec<u8>, Vec<u8>) {
    (vec![KEPT], vec![KEPT + 1])
}

/// What the notes' keys of all of an era's lost writes begin with.
pub fn lost_of_era(era: Era) -> Vec<u8> {
    [&[LOST][..], &era.0.to_be_bytes()].concat()
}

/// What the notes' keys of a key's lost writes begin with.
pub(super) fn lost_of_key(era: Era, key: &[u8]) -> Vec<u8> {
    let mut out = lost_of_era(era);
    put_bytes(&mut out, key);
    out
}

/// Between which notes' keys those of a key's lost writes lie.
pub(super) fn lost_of_key_range(era: Era, key: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let from = lost_of_key(era, key);
    // Numbers follow in the keys, and not all of their bytes are ones.
    let to = [&from[..], &[0xff; 24]].concat();
    (from, to)
}

/// What the notes' keys of all of an era's awaited writes begin with.
pub fn awaited_of_era(era: Era) -> Vec<u8> {
    [&[AWAITED][..], &era.0.to_be_bytes()].concat()
}

/// Reads the key of an awaited write's note.
///
/// # Errors
/// The bytes are damaged.
pub(super) fn parse_awaited_key(note: &[u8]) -> Result<(Era, WriteId), Corrupt> {
    let mut reader = Reader::new("the key of an awaited write's note", note);
    if reader.u8()? != AWAITED {
        return Err(reader.corrupt("it is another note's"));
    }
    let mut era = [0; 4];
    era.copy_from_slice(reader.take(4)?);
    let origin = Origin { node: NodeId(reader.u64()?), incarnation: Incarnation(reader.u64()?) };
    let id = WriteId { origin, seq: reader.u64()? };
    reader.finish()?;
    Ok((Era(u32::from_be_bytes(era)), id))
}

/// The note's key of an awaited write.
pub(super) fn awaited_key(era: Era, id: WriteId) -> Vec<u8> {
    let mut out = awaited_of_era(era);
    put_fixed(&mut out, id);
    out
}

/// An awaited write's value.
pub(super) fn awaited() -> Vec<u8> {
    vec![FORMAT]
}

/// The value of what a kept note is found by.
pub(super) fn kept() -> Vec<u8> {
    vec![FORMAT]
}

/// Fixed widths, so that the keys of one origin's writes sort as their places in its log.
fn put_fixed(out: &mut Vec<u8>, id: WriteId) {
    let WriteId { origin: Origin { node, incarnation }, seq } = id;
    [node.0, incarnation.0, seq].iter().for_each(|number| out.extend_from_slice(&number.to_be_bytes()));
}

/// The first note's key behind those of `origin`'s writes up to `last`, and that of the write after `after`.
pub(super) fn between(
    key: impl Fn(WriteId) -> Vec<u8>,
    origin: Origin,
    after: Seq,
    last: Seq,
) -> (Vec<u8>, Vec<u8>) {
    let at = |seq: Seq| key(WriteId { origin, seq });
    (at(after.saturating_add(1)), at(last.saturating_add(1)))
}

/// Finds out which losses are certain.
///
/// A lost write is found again only by a write of a node that showed it. Once all members have applied both the lost one
/// and what displaced it, none of them shows it any more. What they had written by then may still be under way; once
/// all have that, too, nothing more can come.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settling {
    /// What all members showed to their writers when this round began, and all that any of them had applied then.
    round: Option<(Vector, Vector)>,
}

impl Settling {
    /// Looks at what the members, all of them, have last said: what each showed to the writers of all that it had not
    /// applied then ([`super::machine::Machine::shown`]), and what it had applied. The answer is the vector up to which
    /// losses are settled, when a round has ended.
    pub fn look<'a>(
        &mut self,
        members: impl Iterator<Item = (&'a Vector, &'a Vector)> + Clone,
    ) -> Option<Vector> {
        let applied = members.clone().map(|(_, applied)| applied);
        let stable = Vector::common(applied.clone());
        if self.round.as_ref().is_some_and(|(_, all)| !stable.covers(all)) {
            return None;
        }
        let mut all = Vector::default();
        applied.for_each(|vector| all.merge(vector));
        let ended = self.round.replace((Vector::common(members.map(|(shown, _)| shown)), all));
        ended.map(|(settled, _)| settled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eventual::vector::tests::origin;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn notes_come_back(
            era: u32, hlc: u64, seq: u64, key: Vec<u8>, tombstone: bool, kept: Option<Vec<u8>>, settled: bool,
            listed: Option<(u64, u64)>,
        ) {
            let id = WriteId { origin: origin(3, 4), seq };
            let listed = listed.map(|(noted, by)| Listed { noted: Hlc(noted), by_hlc: Hlc(by) });
            let lost = Lost { hlc: Hlc(hlc), tombstone, kept, by: id, settled, listed };
            let note = lost_key(Era(era), &key, id);
            let found = kept_key(&note, &lost.encode()).unwrap();
            let kept = found.as_deref().map(|found| Kept::parse(found).unwrap().unwrap());
            let bytes = u32::try_from(note.len() + lost.encode().len()).unwrap();
            let expected = listed.map(|Listed { noted, .. }| Kept { noted, bytes, note: &note });
            prop_assert_eq!(kept, expected);
            prop_assert_eq!(Lost::decode(&lost.encode()).unwrap(), lost);
            prop_assert!(note.starts_with(&lost_of_era(Era(era))));
            prop_assert_eq!(parse_lost_key(&note).unwrap(), (Era(era), key, id));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = (Lost::decode(&bytes), parse_lost_key(&bytes), Kept::parse(&bytes));
        }
    }

    #[test]
    fn a_loss_is_settled_when_all_have_what_was_written_before_all_knew_of_it() {
        let vector = |one, two| [(origin(1, 1), one), (origin(2, 1), two)].into_iter().collect::<Vector>();
        let mut settling = Settling::default();
        let mut look = |a: Vector, b: Vector| settling.look([(&a, &a), (&b, &b)].into_iter());
        assert_eq!(look(vector(3, 1), vector(2, 5)), None, "it begins");
        assert_eq!(
            look(vector(3, 4), vector(3, 5)),
            None,
            "what node 2 had written then is missing at node 1"
        );
        assert_eq!(look(vector(4, 5), vector(3, 6)), Some(vector(2, 1)));
        assert_eq!(look(vector(4, 6), vector(4, 6)), Some(vector(3, 5)));
    }
}

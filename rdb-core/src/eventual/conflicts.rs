//! Lost writes, as they are noted beside the records. What "lost" means is said in [`super::merge`].
//!
//! ```text
//! key, lost      byte 1, 4 bytes era, user key with its length, 8 bytes node, 8 bytes incarnation, 8 bytes seq
//! value, lost    byte 0 format, now 1; byte flags: 1 tombstone | 2 the value follows | 4 settled; 8 bytes hlc;
//!                node, incarnation and seq of what displaced it; flag 2: the value
//! key, awaited   byte 2, 4 bytes era, 8 bytes node, 8 bytes incarnation, 8 bytes seq
//! value, awaited byte 0 format, now 1
//! ```
//! *Awaited* is a write that was replaced before it arrived here: when it does, it is not lost. There are such only while one
//! origin's log runs ahead of another's.

use super::vector::{Origin, Seq, Vector, WriteId, put_write_id, read_write_id};
use crate::codec::{Corrupt, Reader, put_bytes};
use crate::ids::{Era, Incarnation, NodeId};
use crate::version::Hlc;

const FORMAT: u8 = 1;
const LOST: u8 = 1;
const AWAITED: u8 = 2;

const TOMBSTONE: u8 = 1;
const KEPT: u8 = 2;
const SETTLED: u8 = 4;

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
}

impl Lost {
    /// As it is stored.
    pub fn encode(&self) -> Vec<u8> {
        let flag = |set, flag| if set { flag } else { 0 };
        let flags =
            flag(self.tombstone, TOMBSTONE) | flag(self.kept.is_some(), KEPT) | flag(self.settled, SETTLED);
        let mut out = vec![FORMAT, flags];
        out.extend_from_slice(&self.hlc.0.to_be_bytes());
        put_write_id(&mut out, self.by);
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
        if flags & !(TOMBSTONE | KEPT | SETTLED) != 0 {
            return Err(reader.corrupt("it has flags not known to this version of FlareDB"));
        }
        let (hlc, by) = (Hlc(reader.u64()?), read_write_id(&mut reader)?);
        let kept = if flags & KEPT == 0 {
            reader.finish()?;
            None
        } else {
            Some(reader.rest().to_vec())
        };
        Ok(Self { hlc, tombstone: flags & TOMBSTONE != 0, kept, by, settled: flags & SETTLED != 0 })
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
        ) {
            let id = WriteId { origin: origin(3, 4), seq };
            let lost = Lost { hlc: Hlc(hlc), tombstone, kept, by: id, settled };
            prop_assert_eq!(Lost::decode(&lost.encode()).unwrap(), lost);
            let note = lost_key(Era(era), &key, id);
            prop_assert!(note.starts_with(&lost_of_era(Era(era))));
            prop_assert_eq!(parse_lost_key(&note).unwrap(), (Era(era), key, id));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = (Lost::decode(&bytes), parse_lost_key(&bytes));
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

//! Who wrote what, and who has seen what: origins, the names of writes, and version vectors.
//!
//! ```text
//! vector   byte 0 format, now 1; varint count of nodes, then of each, ascending: varint node,
//!          varint count of incarnations, then of each, ascending: varint incarnation, varint seq (never 0)
//! ```
//! A vector belongs to one era of one region: the next era's logs are new and count from 1 again.

use crate::codec::{Corrupt, Reader, put_varint};
use crate::ids::{Incarnation, NodeId};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;

const FORMAT: u8 = 1;

/// The place of a write in its origin's log. The first write has 1.
pub type Seq = u64;

/// One life of a node, as one who accepts writes. A node that lost the unsynced end of its log counts on as another
/// origin, so no two writes ever share a name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// Which node.
    pub node: NodeId,
    /// Which of its starts.
    pub incarnation: Incarnation,
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.node, self.incarnation)
    }
}

/// The name of a write within its era.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriteId {
    /// Who accepted it.
    pub origin: Origin,
    /// Where it stands in the origin's log.
    pub seq: Seq,
}

impl fmt::Debug for WriteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}:{}", self.origin, self.seq)
    }
}

/// Of each origin, up to which write. An origin that is not in it stands at 0.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Vector(BTreeMap<Origin, Seq>);

impl fmt::Debug for Vector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(&self.0).finish()
    }
}

impl FromIterator<(Origin, Seq)> for Vector {
    fn from_iter<I: IntoIterator<Item = (Origin, Seq)>>(items: I) -> Self {
        let mut vector = Self::default();
        items.into_iter().for_each(|(origin, seq)| vector.raise(origin, seq));
        vector
    }
}

impl Vector {
    /// Where it stands with `origin`.
    pub fn get(&self, origin: Origin) -> Seq {
        self.0.get(&origin).copied().unwrap_or(0)
    }

    /// Whether it has `write`.
    pub fn has(&self, write: WriteId) -> bool {
        write.seq <= self.get(write.origin)
    }

    /// Lifts `origin` to `seq`; one that stands higher stays.
    pub fn raise(&mut self, origin: Origin, seq: Seq) {
        if self.get(origin) < seq {
            self.0.insert(origin, seq);
        }
    }

    /// Lifts every origin to where `other` has it: afterwards it has what either had.
    pub fn merge(&mut self, other: &Vector) {
        other.iter().for_each(|(origin, seq)| self.raise(origin, seq));
    }

    /// Whether it has all that `other` has.
    pub fn covers(&self, other: &Vector) -> bool {
        other.iter().all(|(origin, seq)| seq <= self.get(origin))
    }

    /// Which of the two has more; `None` if each has something that the other has not.
    pub fn compare(&self, other: &Vector) -> Option<Ordering> {
        match (self.covers(other), other.covers(self)) {
            (true, true) => Some(Ordering::Equal),
            (true, false) => Some(Ordering::Greater),
            (false, true) => Some(Ordering::Less),
            (false, false) => None,
        }
    }

    /// What all of them have: what is *stable*, if they are those of all members. Of nobody, nothing.
    pub fn common<'a>(vectors: impl IntoIterator<Item = &'a Vector>) -> Vector {
        let mut vectors = vectors.into_iter();
        let Some(first) = vectors.next() else { return Vector::default() };
        vectors.fold(first.clone(), |common, vector| {
            common.iter().map(|(origin, seq)| (origin, seq.min(vector.get(origin)))).collect()
        })
    }

    /// Those origins with which it stands lower than `other` does, with both places, ascending.
    pub fn behind<'a>(&'a self, other: &'a Vector) -> impl Iterator<Item = (Origin, Seq, Seq)> + 'a {
        other
            .iter()
            .map(|(origin, seq)| (origin, self.get(origin), seq))
            .filter(|(_, have, want)| have < want)
    }

    /// How many writes it lacks that `other` has. A peer may claim to have any number of them: so it says no more than it can.
    pub fn lacks(&self, other: &Vector) -> u64 {
        self.behind(other).map(|(_, have, want)| want - have).fold(0, u64::saturating_add)
    }

    /// All origins that do not stand at 0, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (Origin, Seq)> + '_ {
        self.0.iter().map(|(origin, seq)| (*origin, *seq))
    }

    /// Whether it has nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Appends it as bytes.
    pub fn put(&self, out: &mut Vec<u8>) {
        let mut nodes: BTreeMap<NodeId, Vec<(Incarnation, Seq)>> = BTreeMap::new();
        for (origin, seq) in self.iter() {
            nodes.entry(origin.node).or_default().push((origin.incarnation, seq));
        }
        out.push(FORMAT);
        put_varint(out, nodes.len() as u64);
        for (node, incarnations) in nodes {
            put_varint(out, node.0);
            put_varint(out, incarnations.len() as u64);
            for (incarnation, seq) in incarnations {
                put_varint(out, incarnation.0);
                put_varint(out, seq);
            }
        }
    }

    /// Reads what [`Self::put`] wrote. There is one way to write a vector, and no other is read.
    ///
    /// # Errors
    /// The bytes are damaged, or a later FlareDB wrote them.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, Corrupt> {
        if reader.u8()? != FORMAT {
            return Err(reader.corrupt("its vector's format is not known to this version of FlareDB"));
        }
        let mut vector = BTreeMap::new();
        for _ in 0..reader.varint()? {
            let node = NodeId(reader.varint()?);
            let incarnations = reader.varint()?;
            let comes_twice =
                vector.last_key_value().is_some_and(|(last, _): (&Origin, _)| node <= last.node);
            if comes_twice || incarnations == 0 {
                return Err(reader.corrupt("its vector names a node twice, or without an origin"));
            }
            for _ in 0..incarnations {
                let origin = Origin { node, incarnation: Incarnation(reader.varint()?) };
                let seq = reader.varint()?;
                if seq == 0 || vector.last_key_value().is_some_and(|(last, _)| origin <= *last) {
                    return Err(reader.corrupt("its vector is not in order"));
                }
                vector.insert(origin, seq);
            }
        }
        Ok(Self(vector))
    }
}

/// Appends an origin.
pub(super) fn put_origin(out: &mut Vec<u8>, origin: Origin) {
    put_varint(out, origin.node.0);
    put_varint(out, origin.incarnation.0);
}

/// Reads what [`put_origin`] wrote.
pub(super) fn read_origin(reader: &mut Reader<'_>) -> Result<Origin, Corrupt> {
    Ok(Origin { node: NodeId(reader.varint()?), incarnation: Incarnation(reader.varint()?) })
}

/// Appends the name of a write.
pub(super) fn put_write_id(out: &mut Vec<u8>, write: WriteId) {
    put_origin(out, write.origin);
    put_varint(out, write.seq);
}

/// Reads what [`put_write_id`] wrote.
pub(super) fn read_write_id(reader: &mut Reader<'_>) -> Result<WriteId, Corrupt> {
    Ok(WriteId { origin: read_origin(reader)?, seq: reader.varint()? })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(in crate::eventual) fn origin(node: u64, incarnation: u64) -> Origin {
        Origin { node: NodeId(node), incarnation: Incarnation(incarnation) }
    }

    prop_compose! {
        pub(in crate::eventual) fn vectors()(
            items in prop::collection::vec(((1u64..4, 1u64..3), 0u64..4), 0..6),
        ) -> Vector {
            items.into_iter().map(|((node, incarnation), seq)| (origin(node, incarnation), seq)).collect()
        }
    }

    /// The truth that a vector stands for: the set of writes that it has.
    fn writes(vector: &Vector) -> std::collections::BTreeSet<WriteId> {
        vector.iter().flat_map(|(origin, last)| (1..=last).map(move |seq| WriteId { origin, seq })).collect()
    }

    fn encode(vector: &Vector) -> Vec<u8> {
        let mut out = Vec::new();
        vector.put(&mut out);
        out
    }

    proptest! {
        #[test]
        fn vectors_are_compared_and_joined_as_the_sets_that_they_stand_for(a in vectors(), b in vectors(), c in vectors()) {
            let (in_a, in_b, in_c) = (writes(&a), writes(&b), writes(&c));
            prop_assert_eq!(a.covers(&b), in_b.is_subset(&in_a));
            let expected = match (in_b.is_subset(&in_a), in_a.is_subset(&in_b)) {
                (true, true) => Some(Ordering::Equal),
                (true, false) => Some(Ordering::Greater),
                (false, true) => Some(Ordering::Less),
                (false, false) => None,
            };
            prop_assert_eq!(a.compare(&b), expected);
            let mut merged = a.clone();
            merged.merge(&b);
            prop_assert_eq!(writes(&merged), &in_a | &in_b);
            prop_assert_eq!(writes(&Vector::common([&a, &b, &c])), &(&in_a & &in_b) & &in_c);
            prop_assert_eq!(a.lacks(&b), (&in_b - &in_a).len() as u64);
            prop_assert!(in_a.iter().all(|write| a.has(*write)));
            prop_assert!((&in_b - &in_a).iter().all(|write| !a.has(*write)));
        }

        #[test]
        fn vectors_come_back(vector in vectors()) {
            let bytes = encode(&vector);
            let mut reader = Reader::new("test", &bytes);
            prop_assert_eq!(Vector::read(&mut reader).unwrap(), vector);
            reader.finish().unwrap();
        }

        /// So equal vectors are equal bytes, and none can hide a write that is not there.
        #[test]
        fn there_is_one_way_to_write_a_vector(bytes in prop::collection::vec(0u8..4, 0..12)) {
            let bytes = [&[FORMAT], &bytes[..]].concat();
            let mut reader = Reader::new("test", &bytes);
            if let Ok(vector) = Vector::read(&mut reader) {
                let read = bytes.len() - reader.rest().len();
                prop_assert_eq!(encode(&vector), &bytes[..read]);
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = Vector::read(&mut Reader::new("test", &bytes));
        }
    }

    #[test]
    fn of_nobody_nothing_is_stable() {
        assert_eq!(Vector::common([]), Vector::default());
        let known: Vector = [(origin(1, 1), 7)].into_iter().collect();
        assert_eq!(Vector::common([&known, &Vector::default()]), Vector::default());
        assert_eq!(Vector::common([&known]), known);
    }

    #[test]
    fn a_later_incarnation_is_another_origin() {
        let known: Vector = [(origin(1, 2), 7)].into_iter().collect();
        assert!(!known.has(WriteId { origin: origin(1, 1), seq: 1 }));
    }
}

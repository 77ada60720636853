//! What a node has set aside: writes that it had accepted, or taken in, in an eventual era that the cluster ended without it. They
//! stay in their origins' logs, or were put beside those; this says which they are.
//!
//! ```text
//! how many, then for each: era, node, incarnation, the place before the first write, the place of the last
//! ```

use rdb_core::codec::{Corrupt, Reader, put_varint};
use rdb_core::eventual::vector::{Origin, Seq};
use rdb_core::ids::{Era, Incarnation, NodeId};
use rdb_core::switch::quarantine::{FROM_RECORDS, Tail};
use std::collections::BTreeMap;

/// Of each era and origin, the places that are set aside: behind the first and up to the second. Of [`FROM_RECORDS`] they are the
/// numbers of those writes of the others that are in no other log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Quarantine(BTreeMap<(Era, Origin), (Seq, Seq)>);

impl Quarantine {
    /// Sets aside what `tails` name of an era, and of it so much out of the records; once more changes nothing.
    pub(super) fn add(&mut self, era: Era, tails: &[Tail], from_records: u64) {
        for Tail { origin, after, last } in tails {
            self.0.insert((era, *origin), (*after, *last));
        }
        if from_records != 0 {
            self.0.insert((era, FROM_RECORDS), (0, from_records));
        }
    }

    /// How many writes. Those that were found among the records are some of the others.
    pub(crate) fn writes(&self) -> u64 {
        let others = self.0.iter().filter(|((_, origin), _)| *origin != FROM_RECORDS);
        others.map(|(_, (after, last))| last - after).fold(0, u64::saturating_add)
    }

    /// Of each era and origin, the place before the first write and that of the last one, in order.
    pub(super) fn ranges(&self) -> impl Iterator<Item = (Era, Origin, Seq, Seq)> {
        self.0.iter().map(|((era, origin), (after, last))| (*era, *origin, *after, *last))
    }

    /// The eras of which there is something.
    pub(super) fn eras(&self) -> Vec<Era> {
        let mut eras: Vec<_> = self.0.keys().map(|(era, _)| *era).collect();
        eras.dedup();
        eras
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_varint(&mut out, self.0.len() as u64);
        for ((era, origin), (after, last)) in &self.0 {
            for number in [u64::from(era.0), origin.node.0, origin.incarnation.0, *after, *last] {
                put_varint(&mut out, number);
            }
        }
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Corrupt> {
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        let mut reader = Reader::new("a region's quarantine", bytes);
        let mut all = BTreeMap::new();
        for _ in 0..reader.varint()? {
            let era = Era(reader.varint32()?);
            let node = NodeId(reader.varint()?);
            let origin = Origin { node, incarnation: Incarnation(reader.varint()?) };
            let (after, last) = (reader.varint()?, reader.varint()?);
            if last <= after {
                return Err(reader.corrupt("it sets aside nothing"));
            }
            all.insert((era, origin), (after, last));
        }
        reader.finish()?;
        Ok(Self(all))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_aside_is_counted_once_and_comes_back() {
        let origin = |node| Origin { node: NodeId(node), incarnation: Incarnation(7) };
        let mut quarantine = Quarantine::default();
        assert_eq!(Quarantine::decode(&[]).unwrap(), quarantine);
        let tails =
            [Tail { origin: origin(2), after: 10, last: 15 }, Tail { origin: origin(1), after: 0, last: 1 }];
        for _ in 0..2 {
            quarantine.add(Era(3), &tails, 2);
        }
        quarantine.add(Era(5), &tails[..1], 0);
        assert_eq!((quarantine.writes(), quarantine.eras()), (11, vec![Era(3), Era(5)]));
        assert_eq!(quarantine.ranges().next(), Some((Era(3), FROM_RECORDS, 0, 2)));
        let bytes = quarantine.encode();
        assert_eq!(Quarantine::decode(&bytes).unwrap(), quarantine);
        for length in 1..bytes.len() {
            assert!(Quarantine::decode(&bytes[..length]).is_err());
        }
        // A copy may have brought anything.
        let huge = [1, 2].map(|node| Tail { origin: origin(node), after: 0, last: Seq::MAX });
        quarantine.add(Era(6), &huge, 0);
        assert_eq!(quarantine.writes(), u64::MAX);
    }
}

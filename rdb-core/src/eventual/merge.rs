//! The merge: which of two records of a key stays, the same on every node and in whatever order they come; and whether
//! the other one was *replaced*, by a writer who had it in front of him, or *lost*.
//!
//! # What "lost" means, exactly
//!
//! A write is lost if it is not the one that stays and nobody replaced it: no write names it as what its node showed
//! under the key when it was accepted. The writes of a key form a tree, each below the one that it replaced. Its leaves
//! are the last word of somebody; one of them stays, and the others are lost.
//!
//! So the lost writes are a function of the *set* of writes that a node has applied. Two nodes at one version vector
//! have lost the same, in whatever order the writes came, and each write counts once. It may also be *found* again: one
//! that lost here to a write from elsewhere may yet turn out to have been replaced where it was accepted, when that
//! node's next write arrives. Once all members have seen both it and what displaced it, and all that they wrote until
//! then has arrived, no such write can come any more, and the loss is settled.
//!
//! To compare the winner's version vector with the loser as they meet would be simpler, and is not the same: what it
//! counts depends on who meets whom, and so on the order in which writes arrive. A test below shows such an order. It
//! would also need the vector of every stored record for ever. The vector is used where all of it is at hand: at the
//! origin, when it accepts a write. Of what the vector has, the node shows the greatest, and the entry names that.

use super::run::{Entry, Replaced};
use super::vector::Origin;
use crate::coverage::{Branch, reached};
use crate::ids::Era;
use crate::record::Record;
use std::cmp::Ordering;

/// The order of records of one key; the greatest stays. No two writes share a version and a place in a log, so they are
/// never equal unless they are the same write. If a disk made them so, their contents decide, lest nodes differ.
pub fn order(a: &Record<'_>, b: &Record<'_>) -> Ordering {
    // A bug that the simulator must catch: of two writes of one moment, the one stays that came first.
    #[cfg(feature = "bug-merge-ignores-node")]
    if (a.version.era, a.version.hlc) == (b.version.era, b.version.hlc) && a.id != b.id {
        return Ordering::Greater;
    }
    let (of_a, of_b) = (a.version, b.version);
    if (of_a.era, of_a.hlc) == (of_b.era, of_b.hlc) && of_a.node != of_b.node {
        reached(Branch::EventualTieByNode);
    }
    (a.version, a.id, a.value).cmp(&(b.version, b.id, b.value))
}

/// What comes of two records of one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Merged<'a> {
    /// The one that stays.
    pub stays: Record<'a>,
    /// The other one; `None` if both were the same.
    pub goes: Option<Record<'a>>,
}

/// Merges two records of one key.
pub fn merge<'a>(a: Record<'a>, b: Record<'a>) -> Merged<'a> {
    match order(&a, &b) {
        Ordering::Equal => Merged { stays: a, goes: None },
        Ordering::Greater => Merged { stays: a, goes: Some(b) },
        Ordering::Less => Merged { stays: b, goes: Some(a) },
    }
}

/// Whether the writer of `entry`, or of one that was left out for it, had `other`, a record of the same key, in front
/// of him.
pub fn replaced(entry: &Entry, era: Era, origin: Origin, other: &Record<'_>) -> bool {
    let Some(id) = other.id.filter(|_| other.version.era == era) else {
        // What the era began with was in front of everybody: a switch of mode ends with one base on all members.
        return true;
    };
    let left_out = id.origin == origin && entry.since <= id.seq && id.seq < entry.seq;
    left_out
        || match entry.replaced {
            Replaced::Write(write) => write == id,
            Replaced::Nothing(purged) => {
                let was_purged = other.value.is_none() && other.version.hlc <= purged;
                if was_purged {
                    reached(Branch::EventualReplacesPurged);
                }
                was_purged
            }
        }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eventual::vector::tests::origin;
    use crate::eventual::vector::{Vector, WriteId};
    use crate::ids::NodeId;
    use crate::version::{Hlc, Version};
    use proptest::prelude::*;

    #[derive(Debug, Clone)]
    struct Owned(Version, Option<WriteId>, Option<Vec<u8>>);

    impl Owned {
        fn record(&self) -> Record<'_> {
            Record { version: self.0, id: self.1, value: self.2.as_deref() }
        }
    }

    prop_compose! {
        /// Few of everything, so that eras, stamps and nodes coincide; and values, deletions and strong writes all occur.
        fn records()(
            (era, hlc, node) in (1u32..4, 0u64..3, 1u64..4),
            place in prop::option::of((1u64..3, 1u64..3)),
            value in prop::option::of(prop::collection::vec(0u8..2, 0..2)),
        ) -> Owned {
            let id = place.map(|(incarnation, seq)| WriteId { origin: origin(node, incarnation), seq });
            Owned(Version { era: Era(era), hlc: Hlc(hlc), node: NodeId(node) }, id, value)
        }
    }

    proptest! {
        #[test]
        fn merging_is_commutative_associative_and_idempotent(a in records(), b in records(), c in records()) {
            let (a, b, c) = (a.record(), b.record(), c.record());
            let stays = |x, y| merge(x, y).stays;
            prop_assert_eq!(merge(a, b), merge(b, a));
            prop_assert_eq!(stays(stays(a, b), c), stays(a, stays(b, c)));
            prop_assert_eq!(merge(a, a), Merged { stays: a, goes: None });
            prop_assert_eq!(stays(stays(a, b), b), stays(a, b));
        }

        #[test]
        fn a_later_era_beats_any_time_and_a_later_time_any_node(a in records(), b in records()) {
            let (a, b) = (a.record(), b.record());
            let key = |record: &Record<'_>| (record.version.era, record.version.hlc, record.version.node);
            if key(&b) < key(&a) {
                prop_assert_eq!(merge(a, b).stays, a);
            }
        }
    }

    /// Node 1 writes 10 and then 30 over it. Node 2 writes 20, and knows of neither. One of the three was lost: 20, the
    /// last word of node 2. Compared pair by pair as they arrive, by what the winner's node had applied, there are two
    /// in one order and one in another.
    #[test]
    fn to_compare_vectors_as_records_meet_would_count_by_the_order_of_arrival() {
        let write = |node, seq, hlc| Record {
            version: Version { era: Era(1), hlc: Hlc(hlc), node: NodeId(node) },
            id: Some(WriteId { origin: origin(node, 1), seq }),
            value: Some(b""),
        };
        let seen = |seq: u64| -> Vector { [(origin(1, 1), seq)].into_iter().collect() };
        let first = (write(1, 1, 10), seen(0));
        let other = (write(2, 1, 20), Vector::default());
        let second = (write(1, 2, 30), seen(1));
        let count = |arrivals: [&(Record<'static>, Vector); 3]| {
            let (mut stored, mut lost) = (arrivals[0], 0);
            for arrival in &arrivals[1..] {
                let (stays, goes) = if order(&stored.0, &arrival.0).is_lt() {
                    (*arrival, stored)
                } else {
                    (stored, *arrival)
                };
                lost += u32::from(goes.0.id.is_some_and(|id| !stays.1.has(id)));
                stored = stays;
            }
            lost
        };
        assert_eq!(count([&first, &second, &other]), 1);
        assert_eq!(count([&first, &other, &second]), 2);
    }

    #[test]
    fn what_an_era_began_with_is_never_lost() {
        let entry = crate::eventual::run::tests::put(1, b"k", Replaced::Nothing(Hlc(0)));
        let earlier = |era, id| Record {
            version: Version { era: Era(era), hlc: Hlc(u64::MAX), node: NodeId(9) },
            id,
            value: Some(b"base"),
        };
        let id = Some(WriteId { origin: origin(9, 1), seq: 4 });
        assert!(replaced(&entry, Era(3), origin(1, 1), &earlier(2, None)));
        assert!(replaced(&entry, Era(3), origin(1, 1), &earlier(1, id)));
        assert!(!replaced(&entry, Era(3), origin(1, 1), &earlier(3, id)));
    }
}

//! Runs that were synced lately, encoded, so that what is sent to nodes that follow closely need not be read from disk.

use bytes::Bytes;
use rdb_core::eventual::vector::{Origin, Seq};
use std::collections::{BTreeMap, VecDeque};

#[derive(Debug)]
struct Kept {
    after: Seq,
    bytes: Bytes,
}

/// The latest runs of a region.
#[derive(Debug, Default)]
pub(super) struct Recent {
    by_last: BTreeMap<(Origin, Seq), Kept>,
    /// In the order in which they came.
    order: VecDeque<(Origin, Seq)>,
    bytes: usize,
    bytes_max: usize,
}

impl Recent {
    /// Keeps so many bytes from now on.
    pub(super) fn set_bytes_max(&mut self, bytes_max: usize) {
        self.bytes_max = bytes_max;
        self.make_room();
    }

    pub(super) fn add(&mut self, origin: Origin, after: Seq, last: Seq, bytes: Bytes) {
        self.bytes += bytes.len();
        self.by_last.insert((origin, last), Kept { after, bytes });
        self.order.push_back((origin, last));
        self.make_room();
    }

    fn make_room(&mut self) {
        while self.bytes_max < self.bytes
            && let Some(oldest) = self.order.pop_front()
        {
            self.bytes -= self.by_last.remove(&oldest).map_or(0, |kept| kept.bytes.len());
        }
    }

    /// The runs of `origin` from the one that has the write behind `after` on, as many from the front as fit `bytes_max`, and at
    /// least one; with the place of the last write of each. `None` if that one is not here any more.
    pub(super) fn runs(&self, origin: Origin, after: Seq, bytes_max: usize) -> Option<Vec<(Seq, Bytes)>> {
        let kept = self.by_last.range((origin, after + 1)..=(origin, Seq::MAX));
        let (mut runs, mut bytes) = (Vec::new(), 0);
        for ((_, last), kept) in kept {
            if runs.is_empty() && after < kept.after {
                return None;
            }
            bytes += kept.bytes.len();
            if !runs.is_empty() && bytes_max < bytes {
                break;
            }
            runs.push((*last, kept.bytes.clone()));
        }
        (!runs.is_empty()).then_some(runs)
    }

    /// Forgets all: everybody has it.
    pub(super) fn clear(&mut self) {
        *self = Self { bytes_max: self.bytes_max, ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdb_core::ids::{Incarnation, NodeId};

    fn origin(node: u64) -> Origin {
        Origin { node: NodeId(node), incarnation: Incarnation(1) }
    }

    fn recent(bytes_max: usize) -> Recent {
        Recent { bytes_max, ..Recent::default() }
    }

    fn found(recent: &Recent, after: Seq, bytes_max: usize) -> Option<Vec<Seq>> {
        recent.runs(origin(1), after, bytes_max).map(|runs| runs.into_iter().map(|(last, _)| last).collect())
    }

    #[test]
    fn runs_are_found_from_the_one_that_has_what_is_lacking() {
        let mut recent = recent(10_000);
        let mut before = 10;
        for last in [14, 15, 20] {
            recent.add(origin(1), before, last, Bytes::from_static(&[0; 100]));
            recent.add(origin(2), before, last, Bytes::from_static(&[0; 100]));
            before = last;
        }
        assert_eq!(found(&recent, 10, 1000), Some(vec![14, 15, 20]));
        assert_eq!(found(&recent, 12, 1000), Some(vec![14, 15, 20]));
        assert_eq!(found(&recent, 14, 100), Some(vec![15]));
        assert_eq!(found(&recent, 14, 0), Some(vec![15]), "at least one");
        assert_eq!(found(&recent, 9, 1000), None, "that is to be read from disk");
        assert_eq!(found(&recent, 20, 1000), None, "nothing is behind it");
    }

    #[test]
    fn the_oldest_go_first() {
        let mut recent = recent(400);
        let quarter = Bytes::from(vec![0; 100]);
        (0..6).for_each(|after| recent.add(origin(1), after, after + 1, quarter.clone()));
        assert_eq!(found(&recent, 1, usize::MAX), None);
        assert_eq!(found(&recent, 2, usize::MAX), Some(vec![3, 4, 5, 6]));
        recent.set_bytes_max(200);
        assert_eq!(found(&recent, 3, usize::MAX), None);
        assert_eq!(found(&recent, 4, usize::MAX), Some(vec![5, 6]));
        recent.clear();
        assert_eq!((found(&recent, 4, usize::MAX), recent.bytes), (None, 0));
        recent.add(origin(1), 6, 7, quarter);
        assert_eq!(found(&recent, 6, usize::MAX), Some(vec![7]));
    }
}

//! How far origin logs are known: one number per origin.

use crate::ids::NodeId;

/// Who numbers writes in eventual mode: a node between two unclean ends. A sequence number is never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// The node that accepted the writes.
    pub node: NodeId,
    /// Which of the node's lives.
    pub incarnation: u64,
}

/// For each origin, the last write that is there with all before it. An origin that is not named is at 0.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Vector(
    /// By origin; none is at 0, so that equal vectors are equal bytes. A handful: a list is faster than a tree.
    Vec<(Origin, u64)>,
);

impl Vector {
    /// The last write of `origin`.
    pub fn get(&self, origin: Origin) -> u64 {
        self.find(origin).map_or(0, |at| self.0[at].1)
    }

    /// Moves `origin` on to `seq`; never back.
    pub fn advance(&mut self, origin: Origin, seq: u64) {
        match self.find(origin) {
            Ok(at) => self.0[at].1 = self.0[at].1.max(seq),
            Err(at) if seq > 0 => self.0.insert(at, (origin, seq)),
            Err(_) => {}
        }
    }

    fn find(&self, origin: Origin) -> Result<usize, usize> {
        self.0.binary_search_by_key(&origin, |(origin, _)| *origin)
    }

    /// Whether all that `other` names is here.
    pub fn covers(&self, other: &Vector) -> bool {
        other.iter().all(|(origin, seq)| seq <= self.get(origin))
    }

    /// All origins that have written, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Origin, u64)> + '_ {
        self.0.iter().copied()
    }
}

impl FromIterator<(Origin, u64)> for Vector {
    fn from_iter<I: IntoIterator<Item = (Origin, u64)>>(pairs: I) -> Self {
        let mut vector = Vector::default();
        pairs.into_iter().for_each(|(origin, seq)| vector.advance(origin, seq));
        vector
    }
}

/// How far a node is with the origin logs of its region's era.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Progress {
    /// What it has appended.
    pub appended: Vector,
    /// What of it would survive a power cut.
    pub synced: Vector,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_only_grow_and_name_no_zeroes() {
        let origin = |node| Origin { node: NodeId(node), incarnation: 1 };
        let mut vector = Vector::default();
        vector.advance(origin(2), 3);
        vector.advance(origin(1), 0);
        vector.advance(origin(2), 2);
        assert_eq!(vector, Vector::from_iter([(origin(2), 3)]));
        assert_eq!((vector.get(origin(2)), vector.get(origin(1))), (3, 0));
        assert!(vector.covers(&Vector::default()) && vector.covers(&vector));
        assert!(!vector.covers(&Vector::from_iter([(origin(1), 1)])));
    }
}

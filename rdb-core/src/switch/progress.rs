//! How far a node is with the origin logs of its region's era.

use crate::eventual::vector::Vector;

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
    use crate::eventual::vector::Origin;
    use crate::ids::{Incarnation, NodeId};

    #[test]
    fn vectors_only_grow_and_name_no_zeroes() {
        let origin = |node| Origin { node: NodeId(node), incarnation: Incarnation(1) };
        let mut vector = Vector::default();
        vector.raise(origin(2), 3);
        vector.raise(origin(1), 0);
        vector.raise(origin(2), 2);
        assert_eq!(vector, Vector::from_iter([(origin(2), 3)]));
        assert_eq!((vector.get(origin(2)), vector.get(origin(1))), (3, 0));
        assert!(vector.covers(&Vector::default()) && vector.covers(&vector));
        assert!(!vector.covers(&Vector::from_iter([(origin(1), 1)])));
    }
}

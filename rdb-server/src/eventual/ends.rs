//! Starts of nodes that are over, and how far they came: what a session has seen beyond that was lost, and no node will ever show it.
//!
//! That happens where writes are acknowledged before they are synced, and the power is cut. A node that starts again counts on as
//! another origin, and has all that is left of its earlier ones: nothing leaves a node before it is synced. So its first word in a
//! start says where the earlier ones end.

use parking_lot::Mutex;
use rdb_core::eventual::session::SessionToken;
use rdb_core::eventual::vector::{Origin, Seq, Vector};
use rdb_core::ids::{Incarnation, NodeId};
use std::collections::BTreeMap;

/// Of one region in one era. Told by the thread, and read by whoever waits.
#[derive(Debug, Default)]
pub(crate) struct Ends(Mutex<BTreeMap<NodeId, Started>>);

/// What a node's last start has found.
#[derive(Debug)]
struct Started {
    incarnation: Incarnation,
    /// Of its earlier starts.
    ends: BTreeMap<Incarnation, Seq>,
}

impl Ends {
    /// `node` runs in this incarnation, and has synced so much.
    pub(super) fn tell(&self, node: NodeId, incarnation: Incarnation, synced: &Vector) {
        let mut all = self.0.lock();
        if all.get(&node).is_some_and(|known| incarnation <= known.incarnation) {
            return;
        }
        let earlier =
            synced.iter().filter(|(origin, _)| origin.node == node && origin.incarnation < incarnation);
        let ends = earlier.map(|(origin, seq)| (origin.incarnation, seq)).collect();
        all.insert(node, Started { incarnation, ends });
    }

    /// Of which nodes a session has seen writes that are lost, and how many of each.
    pub(crate) fn lost(&self, token: &SessionToken) -> Vec<(NodeId, u64)> {
        let all = self.0.lock();
        let end = |origin: Origin| {
            let started = all.get(&origin.node).filter(|started| origin.incarnation < started.incarnation)?;
            Some(started.ends.get(&origin.incarnation).copied().unwrap_or_default())
        };
        let beyond = |(origin, seq): (Origin, Seq)| {
            let lost = seq.saturating_sub(end(origin)?);
            (0 < lost).then_some((origin.node, lost))
        };
        token.vector.iter().filter_map(beyond).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdb_core::ids::{Era, NamespaceId};

    fn vector(seen: &[(u64, u64, Seq)]) -> Vector {
        let origin = |node, incarnation| Origin { node: NodeId(node), incarnation: Incarnation(incarnation) };
        seen.iter().map(|(node, incarnation, seq)| (origin(*node, *incarnation), *seq)).collect()
    }

    #[test]
    fn what_is_beyond_the_end_of_an_earlier_start_is_lost_and_nothing_else() {
        let ends = Ends::default();
        let lost = |seen: &[(u64, u64, Seq)]| {
            ends.lost(&SessionToken { namespace: NamespaceId(1), era: Era(1), vector: vector(seen) })
        };
        assert!(lost(&[(2, 3, 100)]).is_empty(), "nothing is known of node 2");
        ends.tell(NodeId(2), Incarnation(4), &vector(&[(2, 3, 7), (2, 4, 1), (1, 1, 5)]));
        assert!(lost(&[(2, 3, 7), (2, 4, 100), (1, 1, 100), (2, 5, 1)]).is_empty(), "that may come yet");
        assert_eq!(
            lost(&[(2, 3, 9), (2, 2, 4)]),
            [(NodeId(2), 4), (NodeId(2), 2)],
            "of the second nothing is left"
        );
        // What was said by an earlier process comes late.
        ends.tell(NodeId(2), Incarnation(3), &vector(&[(2, 2, 4)]));
        assert_eq!(lost(&[(2, 2, 4)]), [(NodeId(2), 4)]);
    }
}

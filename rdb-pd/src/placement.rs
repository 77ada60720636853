//! Where things go. Every rule is a function of the catalog, so that all nodes come to the same answer.

use crate::catalog::Catalog;
use rdb_core::ids::NodeId;

/// The member that should lead a new region: the one that should lead the fewest, the lowest id among equals.
pub(crate) fn preferred_leader(catalog: &Catalog, members: &[NodeId]) -> Option<NodeId> {
    let led =
        |node: NodeId| catalog.namespaces().filter(|namespace| namespace.preferred_leader == node).count();
    members.iter().copied().min_by_key(|node| (led(*node), *node))
}

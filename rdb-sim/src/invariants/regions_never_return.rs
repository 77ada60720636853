//! The id of a region is given once; a node that has ended a region never starts it again, whatever it forgot in a crash; and
//! in the end every node holds exactly the regions that the catalog names.

use super::{Violation, holds};
use rdb_core::ids::{NodeId, RegionId};
use std::collections::BTreeSet;

#[derive(Debug, Default)]
pub(crate) struct RegionsNeverReturn {
    given: BTreeSet<RegionId>,
    /// Whose log a node has destroyed for good.
    destroyed: BTreeSet<(RegionId, NodeId)>,
}

impl RegionsNeverReturn {
    /// The catalog has given this id.
    pub(crate) fn given(&mut self, region: RegionId) -> Result<(), Violation> {
        let new = self.given.insert(region);
        holds("regions never return", new, || format!("region {region} was given twice"))
    }

    /// A node's log of the region is gone, and that is synced.
    pub(crate) fn destroyed(&mut self, region: RegionId, node: NodeId) {
        self.destroyed.insert((region, node));
    }

    /// A node starts a replica.
    pub(crate) fn starts(&self, region: RegionId, node: NodeId) -> Result<(), Violation> {
        let gone = self.destroyed.contains(&(region, node));
        holds("regions never return", !gone, || {
            format!("region {region} node {node}: it was destroyed, and starts again")
        })
    }
}

/// At the end `node` has these replicas, logs and data.
pub(crate) fn holds_the_catalogs_regions(
    node: NodeId,
    named: &BTreeSet<RegionId>,
    replicas: &BTreeSet<RegionId>,
    logs: &BTreeSet<RegionId>,
    data: &BTreeSet<RegionId>,
) -> Result<(), Violation> {
    // A region to which nothing was ever applied has no data.
    let exact = replicas == named && logs == named && data.is_subset(named);
    holds("nodes hold the catalog's regions", exact, || {
        format!("node {node}: named {named:?}, replicas {replicas:?}, logs {logs:?}, data {data:?}")
    })
}

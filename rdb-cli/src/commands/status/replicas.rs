//! Whether each node has of the data what it should have: a replica of every region, with all in it that is committed, and the
//! catalog, which tells it what regions there are.

use super::quorum::Group;
use super::survey::Survey;
use rdb_client::{ClusterStatus, NamespaceStatus, RegionStatus};
use std::collections::BTreeSet;

/// What a node lacks, by the names of namespaces.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Lacks {
    /// Its catalog does not have them yet.
    pub(super) unknown: Vec<String>,
    /// It knows that it should hold them, and does not.
    pub(super) absent: Vec<String>,
    /// It has a replica in which nothing of what is committed has been applied.
    pub(super) empty: Vec<String>,
}

/// How one node's replica of a region is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Replica {
    /// With data in it, or nothing to be had yet.
    There,
    Empty,
    Absent,
    Unknown,
}

impl Survey {
    /// What the node lacks; `None`: it did not answer, so that nobody knows.
    pub(super) fn lacks(&self, node: u64) -> Option<Lacks> {
        let own = self.own(node)?;
        let mut lacks = Lacks::default();
        for (namespace, region) in self.regions_of(node) {
            let names = match self.replica(own, namespace, region) {
                Replica::There => continue,
                Replica::Empty => &mut lacks.empty,
                Replica::Absent => &mut lacks.absent,
                Replica::Unknown => &mut lacks.unknown,
            };
            names.push(namespace.name.clone());
        }
        Some(lacks)
    }

    /// Entries that the node has yet to apply of what is committed, and in which namespace it is worst; `None` for the
    /// catalog.
    pub(super) fn behind(&self, node: u64) -> Option<(u64, Option<&str>)> {
        let own = self.own(node)?;
        let lags = self.regions_of(node).map(|(namespace, region)| {
            let applied = match self.replica(own, namespace, region) {
                Replica::Absent | Replica::Unknown => 0,
                Replica::There | Replica::Empty => {
                    find(own, region.id).map_or(region.commit_index, |view| view.applied_index)
                }
            };
            (region.commit_index.saturating_sub(applied), Some(namespace.name.as_str()))
        });
        let catalog = self.behind_in_catalog(node).unwrap_or_default();
        // Of two that are as far behind, the namespace.
        std::iter::once((catalog, None))
            .chain(lags)
            .max_by_key(|(entries, place)| (*entries, place.is_some()))
    }

    /// The same in the catalog alone; `None`: the node does not say.
    pub(super) fn behind_in_catalog(&self, node: u64) -> Option<u64> {
        let applied = self.own(node)?.catalog.as_ref()?.applied_index;
        Some(self.cluster.catalog.as_ref()?.commit_index.saturating_sub(applied))
    }

    /// The Raft groups, those that are alike once, with the nodes among `up` that have a replica.
    pub(super) fn groups(&self, up: &BTreeSet<u64>) -> BTreeSet<Group> {
        let catalog = Group { members: self.cluster.nodes.len(), holders: up.clone() };
        let regions = self.regions().map(|(namespace, region)| {
            let holds = |node: &&u64| {
                let replica = self.own(**node).map(|own| self.replica(own, namespace, region));
                region.members.contains(node) && replica == Some(Replica::There)
            };
            Group { members: region.members.len(), holders: up.iter().filter(holds).copied().collect() }
        });
        std::iter::once(catalog).chain(regions).collect()
    }

    /// All regions but those that are being deleted, which each node drops when it comes to it.
    fn regions(&self) -> impl Iterator<Item = (&NamespaceStatus, &RegionStatus)> {
        let namespaces = self.cluster.namespaces.iter().filter(|namespace| !namespace.deleting);
        namespaces.flat_map(|namespace| namespace.regions.iter().map(move |region| (namespace, region)))
    }

    /// Those that the node should hold.
    fn regions_of(&self, node: u64) -> impl Iterator<Item = (&NamespaceStatus, &RegionStatus)> {
        self.regions().filter(move |(_, region)| region.members.contains(&node))
    }

    fn replica(&self, own: &ClusterStatus, namespace: &NamespaceStatus, region: &RegionStatus) -> Replica {
        let known = own.namespaces.iter().find(|known| known.id == namespace.id);
        let applied = |status: &ClusterStatus| status.catalog.as_ref().map(|catalog| catalog.applied_index);
        match (known, find(own, region.id)) {
            (Some(known), _) if known.deleting => Replica::There,
            (_, Some(view)) if view.absent => Replica::Absent,
            (_, Some(view)) if view.applied_index == 0 && 0 < region.commit_index => Replica::Empty,
            (_, Some(_)) => Replica::There,
            // Else it knows more than the others: that the namespace is gone.
            (_, None) if applied(own) < applied(&self.cluster) => Replica::Unknown,
            (_, None) => Replica::There,
        }
    }
}

/// A region, as this answer has it.
pub(super) fn find(answer: &ClusterStatus, region: u64) -> Option<&RegionStatus> {
    answer.namespaces.iter().flat_map(|namespace| &namespace.regions).find(|view| view.id == region)
}

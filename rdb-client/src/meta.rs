//! What the cluster and its namespaces are and how they are doing.

use crate::settings::Durability;
use crate::values::Mode;
use rdb_proto::v1;

/// The cluster, as the answering node sees it.
#[derive(Debug, Clone)]
pub struct ClusterStatus {
    /// Of the cluster, given when it was made.
    pub cluster_id: String,
    /// The node that answered.
    pub answered_by: u64,
    /// Of the answering node's software.
    pub version: String,
    /// The node that leads the meta group; 0: none is known.
    pub meta_leader: u64,
    /// Whether the answering node refuses writes for want of room on its disk.
    pub disk_full: bool,
    /// Free bytes on the answering node's disk; 0: it does not say.
    pub disk_available_bytes: u64,
    /// Whether the answering node takes no eventual writes, since its clock is off from those of a majority.
    pub clock_untrusted: bool,
    /// The meta group, which holds the catalog; `None`: the answering node does not say.
    pub catalog: Option<RegionStatus>,
    /// All nodes, by id.
    pub nodes: Vec<NodeStatus>,
    /// All namespaces, by name.
    pub namespaces: Vec<NamespaceStatus>,
}

/// One node.
#[derive(Debug, Clone)]
pub struct NodeStatus {
    /// Its number.
    pub id: u64,
    /// Where clients reach it.
    pub client_address: String,
    /// Where the other nodes reach it.
    pub peer_address: String,
    /// As the answering node sees it.
    pub reachable: bool,
    /// Milliseconds since the answering node last heard from it.
    pub silence_ms: u64,
    /// As the answering node knows it.
    pub regions_led: u64,
    /// By how many milliseconds its clock is ahead of the answering node's; negative: behind; `None`: not measured of late, or
    /// the same node.
    pub clock_ahead_ms: Option<i64>,
    /// Milliseconds that a sync of its log takes of late, where its disk is slow; 0: it is not, or does not say. As the answering node
    /// knows it.
    pub slow_sync_ms: u32,
}

/// One namespace.
#[derive(Debug, Clone)]
pub struct NamespaceStatus {
    /// Its name.
    pub name: String,
    /// Its number, never used twice.
    pub id: u32,
    /// How it keeps its replicas.
    pub mode: Mode,
    /// Grows whenever who may write changes.
    pub epoch: u64,
    /// How many switches of mode it has completed, plus one.
    pub era: u32,
    /// Its key ranges.
    pub regions: Vec<RegionStatus>,
    /// The node that should lead it; 0: the answering node does not say.
    pub preferred_leader: u64,
    /// For how many seconds the values of lost eventual writes are kept; 0: they are not.
    pub keep_lost_seconds: u64,
    /// When its eventual writes are acknowledged.
    pub durability: Durability,
    /// Whether it is being deleted: it takes no requests any more, and its name is not free yet.
    pub deleting: bool,
}

/// One replicated key range of a namespace, or the catalog's, as the answering node knows it.
#[derive(Debug, Clone)]
pub struct RegionStatus {
    /// Its number.
    pub id: u64,
    /// The node that leads it; 0: none is known.
    pub leader: u64,
    /// Its Raft term.
    pub term: u64,
    /// The last log entry known to be on a majority.
    pub commit_index: u64,
    /// The last log entry applied.
    pub applied_index: u64,
    /// The nodes that hold it.
    pub members: Vec<u64>,
    /// Whether the answering node has no replica of it, or not yet: its indexes are then 0.
    pub absent: bool,
}

impl From<v1::StatusResponse> for ClusterStatus {
    fn from(status: v1::StatusResponse) -> Self {
        let mut nodes: Vec<NodeStatus> = status.nodes.into_iter().map(NodeStatus::from).collect();
        nodes.sort_by_key(|node| node.id);
        let mut namespaces: Vec<NamespaceStatus> =
            status.namespaces.into_iter().map(NamespaceStatus::from).collect();
        namespaces.sort_by(|a, b| a.name.cmp(&b.name));
        Self {
            cluster_id: status.cluster_id,
            answered_by: status.header.map_or(0, |header| header.node),
            version: status.version,
            meta_leader: status.meta_leader,
            disk_full: status.disk_full,
            disk_available_bytes: status.disk_available_bytes,
            clock_untrusted: status.clock_untrusted,
            catalog: status.catalog.map(RegionStatus::from),
            nodes,
            namespaces,
        }
    }
}

impl From<v1::Node> for NodeStatus {
    fn from(node: v1::Node) -> Self {
        Self {
            id: node.id,
            client_address: node.client_address,
            peer_address: node.peer_address,
            reachable: node.reachable,
            silence_ms: node.silence_ms,
            regions_led: node.regions_led,
            clock_ahead_ms: node.clock_ahead_ms,
            slow_sync_ms: node.slow_sync_ms,
        }
    }
}

impl From<v1::Namespace> for NamespaceStatus {
    fn from(namespace: v1::Namespace) -> Self {
        Self {
            mode: namespace.mode().into(),
            durability: namespace.durability().into(),
            keep_lost_seconds: namespace.keep_lost_seconds,
            preferred_leader: namespace.preferred_leader,
            deleting: namespace.deleting,
            name: namespace.name,
            id: namespace.id,
            epoch: namespace.epoch,
            era: namespace.era,
            regions: namespace.regions.into_iter().map(RegionStatus::from).collect(),
        }
    }
}

impl From<v1::Region> for RegionStatus {
    fn from(region: v1::Region) -> Self {
        Self {
            id: region.id,
            leader: region.leader,
            term: region.term,
            commit_index: region.commit_index,
            applied_index: region.applied_index,
            members: region.members,
            absent: region.absent,
        }
    }
}

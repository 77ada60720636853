//! A snapshot between two nodes: the data of one moment, and whom to tell what became of it.

use crate::disks::data::Stored;
use rdb_core::ids::{NodeId, RegionId};
use rdb_core::raft::Message;

/// Whoever sent a snapshot. A node that has started anew since knows nothing of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sender {
    pub(crate) node: NodeId,
    pub(crate) incarnation: u64,
    /// Tells the snapshots of a world apart.
    pub(crate) number: u64,
}

/// A snapshot on its way.
#[derive(Debug, Clone)]
pub(crate) struct Parcel {
    pub(crate) sender: Sender,
    pub(crate) to: NodeId,
    pub(crate) region: RegionId,
    /// The message that stands for it.
    pub(crate) message: Message,
    pub(crate) data: Stored,
}

//! One region's replica on this node: its group, and what the raft loop must remember about it between turns.

use crate::regions::RegionView;
use crate::waiter::{ReadWaiter, WriteWaiter};
use rdb_core::ids::{Index, NodeId};
use rdb_core::raft::{Group, Role};
use rdb_storage::RegionLog;
use std::sync::Arc;

/// Ticks between attempts of the preferred leader to lead a region that never had a leader.
const FIRST_CAMPAIGN_TICKS: u64 = 3;

/// A replica.
pub(crate) struct Peer {
    pub(crate) group: Group<RegionLog, WriteWaiter, ReadWaiter>,
    pub(crate) view: Arc<RegionView>,
    /// Log writes handed out and not yet reported.
    pub(crate) writes_in_flight: usize,
    /// Committed bytes handed to the applier and not yet applied, by the last index of each task.
    pub(crate) applying: std::collections::VecDeque<(Index, usize)>,
    pub(crate) applying_bytes: usize,
    /// The log may be dropped up to here once the data is durable up to there.
    pub(crate) truncate_to: Index,
    /// Whether this node is the one that should lead the region.
    pub(crate) preferred: bool,
    ticks: u64,
}

impl Peer {
    pub(crate) fn new(
        group: Group<RegionLog, WriteWaiter, ReadWaiter>,
        view: Arc<RegionView>,
        truncate_to: Index,
        preferred: bool,
    ) -> Self {
        Self {
            group,
            view,
            writes_in_flight: 0,
            applying: std::collections::VecDeque::new(),
            applying_bytes: 0,
            truncate_to,
            preferred,
            ticks: 0,
        }
    }

    /// A tick of time has passed. A new region need not wait for an election timeout: the member that should lead it
    /// stands at once, and again while the others have not made the region yet and drop its messages.
    pub(crate) fn tick(&mut self) {
        self.group.tick();
        let status = self.group.status();
        // A candidate's votes may be on their way, slowly, from slow disks: standing anew would throw them away.
        let never_led = status.role == Role::Follower && status.leader.is_none() && status.last == 0;
        if self.preferred && never_led && self.ticks.is_multiple_of(FIRST_CAMPAIGN_TICKS) {
            self.group.campaign();
        }
        self.ticks += 1;
    }

    /// Entries up to `index` are applied.
    pub(crate) fn applied(&mut self, index: Index) {
        while let Some((_, bytes)) = self.applying.pop_front_if(|(last, _)| *last <= index) {
            self.applying_bytes -= bytes;
        }
        self.group.applied(index);
    }

    /// The member to which the leadership is best handed: heard from lately, and the furthest along.
    pub(crate) fn successor(&self, this: NodeId) -> Option<NodeId> {
        let status = self.group.status();
        let others = status.members.iter().filter(|(node, _, active)| *node != this && *active);
        others.max_by_key(|(_, matched, _)| *matched).map(|(node, ..)| *node)
    }

    /// Shows everyone else where the region stands.
    pub(crate) fn publish(&self) {
        self.view.publish(&self.group.status(), self.group.first_index());
    }
}

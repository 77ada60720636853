//! What the raft loop shows of its regions to everyone else: numbers that are read without asking it.

use arc_swap::ArcSwap;
use rdb_core::ids::{Index, NodeId, RegionId};
use rdb_core::raft::{Role, Status};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// One region as it was at the end of the loop's last turn with it. The numbers are each right, not all of one moment.
#[derive(Debug, Default)]
pub(crate) struct RegionView {
    leader: AtomicU64,
    leads: AtomicBool,
    term: AtomicU64,
    commit: AtomicU64,
    applied: AtomicU64,
    last: AtomicU64,
    first: AtomicU64,
    voters_active: AtomicU64,
}

impl RegionView {
    /// The raft loop publishes.
    pub(crate) fn publish(&self, status: &Status, first: Index) {
        self.leader.store(status.leader.map_or(0, |leader| leader.0), Ordering::Relaxed);
        self.leads.store(status.role == Role::Leader, Ordering::Relaxed);
        self.term.store(status.term, Ordering::Relaxed);
        self.commit.store(status.commit, Ordering::Relaxed);
        self.applied.store(status.applied, Ordering::Relaxed);
        self.last.store(status.last, Ordering::Relaxed);
        self.first.store(first, Ordering::Relaxed);
        let active = status.members.iter().filter(|(_, _, active)| *active).count();
        self.voters_active.store(active as u64, Ordering::Relaxed);
    }

    /// Who leads, as far as is known here.
    pub(crate) fn leader(&self) -> Option<NodeId> {
        Some(self.leader.load(Ordering::Relaxed)).filter(|leader| *leader != 0).map(NodeId)
    }

    /// Whether this node leads.
    pub(crate) fn leads(&self) -> bool {
        self.leads.load(Ordering::Relaxed)
    }

    pub(crate) fn term(&self) -> u64 {
        self.term.load(Ordering::Relaxed)
    }

    pub(crate) fn commit(&self) -> Index {
        self.commit.load(Ordering::Relaxed)
    }

    pub(crate) fn applied(&self) -> Index {
        self.applied.load(Ordering::Relaxed)
    }

    /// Entries in the log.
    pub(crate) fn log_entries(&self) -> u64 {
        (self.last.load(Ordering::Relaxed) + 1).saturating_sub(self.first.load(Ordering::Relaxed))
    }

    /// On the leader: voters heard from lately, itself included.
    pub(crate) fn voters_active(&self) -> u64 {
        self.voters_active.load(Ordering::Relaxed)
    }
}

/// All regions of this node.
#[derive(Debug, Clone, Default)]
pub(crate) struct Regions(Arc<ArcSwap<BTreeMap<RegionId, Arc<RegionView>>>>);

impl Regions {
    /// One region, if this node holds it.
    pub(crate) fn get(&self, region: RegionId) -> Option<Arc<RegionView>> {
        self.0.load().get(&region).cloned()
    }

    /// All of them.
    pub(crate) fn all(&self) -> Arc<BTreeMap<RegionId, Arc<RegionView>>> {
        self.0.load_full()
    }

    /// Adds a region; only the raft loop does.
    pub(crate) fn insert(&self, region: RegionId) -> Arc<RegionView> {
        let view = Arc::new(RegionView::default());
        let mut all = BTreeMap::clone(&self.0.load());
        all.insert(region, view.clone());
        self.0.store(Arc::new(all));
        view
    }

    /// Removes a region; only the raft loop does.
    pub(crate) fn remove(&self, region: RegionId) {
        let mut all = BTreeMap::clone(&self.0.load());
        all.remove(&region);
        self.0.store(Arc::new(all));
    }
}

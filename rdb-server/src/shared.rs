//! What the threads of a node share, besides channels.

use crate::api::{Lookups, Scans};
use crate::budget::Budget;
use crate::clocks::Clocks;
use crate::config::Config;
use crate::connections::Doors;
use crate::disk::Disk;
use crate::eventual::Eventual;
use crate::eventual::records::Finders;
use crate::mailbox::Mailbox;
use crate::metrics::Metrics;
use crate::regions::Regions;
use crate::switch::{Alarm, History, Standings};
use crate::transport::Peers;
use arc_swap::ArcSwap;
use rdb_pd::Catalog;
use rdb_storage::{Data, Identity, OriginLogs};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The catalog as this node has applied it.
#[derive(Clone, Default)]
pub(crate) struct CatalogCell(Arc<Versioned>);

struct Versioned {
    catalog: ArcSwap<Catalog>,
    changes: AtomicU64,
    /// Rung at each change.
    alarm: Option<Alarm>,
}

impl Default for Versioned {
    fn default() -> Self {
        Self { catalog: ArcSwap::default(), changes: AtomicU64::new(1), alarm: None }
    }
}

impl CatalogCell {
    /// One whose changes ring `alarm`.
    pub(crate) fn ringing(alarm: Alarm) -> Self {
        Self(Arc::new(Versioned { alarm: Some(alarm), ..Versioned::default() }))
    }

    pub(crate) fn load(&self) -> Arc<Catalog> {
        self.0.catalog.load_full()
    }

    pub(crate) fn store(&self, catalog: Arc<Catalog>) {
        self.0.catalog.store(catalog);
        self.0.changes.fetch_add(1, Ordering::Release);
        if let Some(alarm) = &self.0.alarm {
            alarm.ring();
        }
    }

    /// A number from 1 that is another one after each change. Who reads it first and the catalog then misses none.
    pub(crate) fn changes(&self) -> u64 {
        self.0.changes.load(Ordering::Acquire)
    }
}

/// Whether the node is about to stop, and takes no more requests.
#[derive(Clone, Default)]
pub(crate) struct Stopping(Arc<AtomicBool>);

impl Stopping {
    pub(crate) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// What every request handler needs.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) config: Arc<Config>,
    pub(crate) identity: Arc<Identity>,
    pub(crate) mailbox: Mailbox,
    pub(crate) eventual: Eventual,
    /// How each node's part of each region stands, as it was last heard.
    pub(crate) standings: Standings,
    /// What this node has seen of switches of mode.
    pub(crate) switches: History,
    pub(crate) catalog: CatalogCell,
    pub(crate) regions: Regions,
    pub(crate) data: Data,
    /// The logs of eventual mode.
    pub(crate) logs: OriginLogs,
    /// The node's memory for requests; each region's view has the part of its namespace.
    pub(crate) budget: Budget,
    /// The memory for messages that are not whole yet.
    pub(crate) arriving: Budget,
    pub(crate) scans: Scans,
    pub(crate) lookups: Lookups,
    /// Who is connected.
    pub(crate) doors: Doors,
    pub(crate) disk: Disk,
    pub(crate) peers: Peers,
    /// How the members' clocks differ from this node's.
    pub(crate) clocks: Clocks,
    pub(crate) finders: Finders,
    pub(crate) stopping: Stopping,
    pub(crate) metrics: Arc<Metrics>,
}

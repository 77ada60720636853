//! What the threads of a node share, besides channels.

use crate::api::Scans;
use crate::budget::Budget;
use crate::config::Config;
use crate::mailbox::Mailbox;
use crate::metrics::Metrics;
use crate::regions::Regions;
use crate::transport::Peers;
use crate::upkeep::DiskFull;
use arc_swap::ArcSwap;
use rdb_pd::Catalog;
use rdb_storage::{Data, Identity};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The catalog as this node has applied it.
#[derive(Clone, Default)]
pub(crate) struct CatalogCell(Arc<ArcSwap<Catalog>>);

impl CatalogCell {
    pub(crate) fn load(&self) -> Arc<Catalog> {
        self.0.load_full()
    }

    pub(crate) fn store(&self, catalog: Arc<Catalog>) {
        self.0.store(catalog);
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
    pub(crate) catalog: CatalogCell,
    pub(crate) regions: Regions,
    pub(crate) data: Data,
    pub(crate) budget: Budget,
    pub(crate) scans: Scans,
    pub(crate) disk_full: DiskFull,
    pub(crate) peers: Peers,
    pub(crate) stopping: Stopping,
    pub(crate) metrics: Arc<Metrics>,
}

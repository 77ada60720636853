//! A node's data, in a folder that goes with it.

use anyhow::Result;
use rdb_core::apply::Changes;
use rdb_core::ids::{NamespaceId, NodeId, RegionId};
use rdb_storage::{Data, Engine, EngineOptions, Expected, RegionData};
use tempfile::TempDir;

const NAMESPACE: NamespaceId = NamespaceId(1);

pub(super) struct Stored {
    data: Data,
    _engine: Engine,
    // Goes last.
    _folder: TempDir,
}

impl Stored {
    pub(super) fn open() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("flaredb-guard-").tempdir()?;
        let expected = Expected { cluster_id: "guard".to_owned(), node_id: NodeId(1) };
        let engine = Engine::open(&folder.path().join("node"), &expected, &EngineOptions::default())?;
        Ok(Self { data: engine.data(), _engine: engine, _folder: folder })
    }

    /// What a region's machine reads.
    pub(super) fn region(&self, region: RegionId) -> RegionData {
        self.data.region(region, NAMESPACE)
    }

    pub(super) fn apply(&self, region: RegionId, changes: &Changes) -> Result<()> {
        Ok(self.data.apply(region, NAMESPACE, changes)?)
    }

    pub(super) fn flush(&self) -> Result<()> {
        Ok(self.data.flush()?)
    }

    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.data.get(NAMESPACE, key)?)
    }
}

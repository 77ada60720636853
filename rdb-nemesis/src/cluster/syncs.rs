//! Nodes' syncs and writes, each node's of which can be made slow, short, or fail, while it runs.

use super::preload::Preload;
use anyhow::Result;
use std::path::Path;
use std::time::Duration;

const SOURCE: &str = include_str!("../../../scripts/tools/badsync.c");
const FILE_VARIABLE: &str = "BADSYNC_FILE";
/// The place of what the library counts.
const MET: usize = 4;

/// One node's syncs.
#[derive(Debug, Clone)]
pub(crate) struct Syncs(Preload);

impl Syncs {
    /// Those of these nodes, which are as they should be.
    ///
    /// # Errors
    /// The library cannot be built.
    pub(crate) fn of(folder: &Path, nodes: &[u64]) -> Result<Vec<(u64, Self)>> {
        let library = Preload::build(folder, "badsync", SOURCE)?;
        let mut all = Vec::new();
        for node in nodes {
            let file = folder.join(format!("node-{node}.syncs"));
            let syncs = Self(Preload::new(&library, file, FILE_VARIABLE));
            syncs.0.write(&[0; MET + 1])?;
            all.push((*node, syncs));
        }
        Ok(all)
    }

    /// What a node lives by.
    pub(super) fn preload(&self) -> &Preload {
        &self.0
    }

    /// Each takes so much longer from now on.
    pub(super) fn slow_down(&self, by: Duration) -> Result<()> {
        self.0.write(&[i64::try_from(by.as_nanos())?, 0, 0, 0])
    }

    /// So many fail from now on.
    pub(super) fn fail(&self, count: i64) -> Result<()> {
        self.0.write(&[0, count, 0, 0])
    }

    /// So many writes to the log fail from now on, and then so many are short.
    pub(super) fn fail_writes(&self, count: i64, short: i64) -> Result<()> {
        self.0.write(&[0, 0, count, short])
    }

    /// They are as they should be.
    pub(super) fn mend(&self) -> Result<()> {
        self.0.write(&[0; MET])
    }

    /// How many were slow or short, or failed, so far.
    pub(super) fn met(&self) -> Result<i64> {
        self.0.read(MET)
    }
}

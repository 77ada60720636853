//! Nothing of a namespace is acknowledged or read, at whichever node, by an operation that began after the closing entry of
//! its region was known to be committed, or after the catalog let the namespace go. Deletions are acknowledged later than
//! both. An operation that began before may still succeed: it took place before.

use super::{Violation, holds};
use rdb_core::ids::RegionId;
use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub(crate) struct DeletionsAreFinal {
    /// The last moment at which an operation could begin that succeeds.
    over: BTreeMap<RegionId, u64>,
}

impl DeletionsAreFinal {
    /// A region is closed, or its namespace gone, for the first time on any node.
    pub(crate) fn is_over(&mut self, region: RegionId, moment: u64) {
        self.over.entry(region).or_insert(moment);
    }

    /// An operation that was called at `called` has succeeded.
    pub(crate) fn succeeded(&self, region: RegionId, called: u64) -> Result<(), Violation> {
        let over = self.over.get(&region).copied();
        holds("deletions are final", over.is_none_or(|over| called <= over), || {
            format!("region {region}: an operation called at {called} has succeeded, it was over at {over:?}")
        })
    }
}

//! The versions of a key grow along the log, whichever node stamped them and whatever its clock did.

use super::{Violation, holds};
use rdb_core::apply::Changes;
use rdb_core::ids::{Index, RegionId};
use rdb_core::record;
use rdb_core::version::Version;
use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub(crate) struct VersionsGrow {
    latest: BTreeMap<(RegionId, Vec<u8>), Version>,
}

impl VersionsGrow {
    /// An entry changed records.
    pub(crate) fn changed(
        &mut self,
        region: RegionId,
        index: Index,
        changes: &Changes,
    ) -> Result<(), Violation> {
        for (key, record) in &changes.records {
            let Some(Ok(record)) = record.as_deref().map(record::decode) else { continue };
            let before = self.latest.insert((region, key.clone()), record.version);
            holds("versions grow", before < Some(record.version), || {
                format!("region {region} entry {index}: {:?} follows {before:?}", record.version)
            })?;
        }
        Ok(())
    }
}

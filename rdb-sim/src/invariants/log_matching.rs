//! Log matching: entries with one index and term are one entry, and so are all before them (Ongaro, "Consensus",
//! figure 3.2). Each entry is compared together with the term of the one before it; the rest follows by induction.

use super::{Violation, holds};
use rdb_core::ids::{Index, RegionId, Term};
use std::collections::BTreeMap;
use xxhash_rust::xxh3::xxh3_64;

#[derive(Debug, Default)]
pub(crate) struct LogMatching {
    entries: BTreeMap<(RegionId, Index, Term), (u64, Term)>,
}

impl LogMatching {
    /// A replica takes an entry into its log, after one of term `before`.
    pub(crate) fn appended(
        &mut self,
        region: RegionId,
        index: Index,
        term: Term,
        before: Term,
        encoded: &[u8],
    ) -> Result<(), Violation> {
        let entry = (xxh3_64(encoded), before);
        let known = *self.entries.entry((region, index, term)).or_insert(entry);
        holds("log matching", known == entry, || {
            format!(
                "region {region}: two entries {index} of term {term}, or two predecessors: {known:?} {entry:?}"
            )
        })
    }
}

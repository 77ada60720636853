//! What one replica knows to be committed stands at its index on every replica, for ever (Ongaro, "Consensus",
//! "state machine safety", figure 3.2).

use super::{Violation, holds};
use rdb_core::apply::Committed;
use rdb_core::ids::{NodeId, RegionId, Term};
use std::collections::BTreeMap;
use xxhash_rust::xxh3::xxh3_64;

#[derive(Debug, Default)]
pub(crate) struct CommittedForEver {
    logs: BTreeMap<RegionId, Vec<(Term, u64)>>,
}

impl CommittedForEver {
    /// A replica is about to apply `entry`. Returns whether it is the first to do so.
    pub(crate) fn delivered(
        &mut self,
        region: RegionId,
        node: NodeId,
        entry: &Committed,
    ) -> Result<bool, Violation> {
        let log = self.logs.entry(region).or_default();
        let seen = (entry.term, xxh3_64(&entry.data));
        let place = usize::try_from(entry.index - 1).unwrap_or(usize::MAX);
        holds("committed entries have no gaps", place <= log.len(), || {
            format!("region {region} node {node}: entry {} follows {}", entry.index, log.len())
        })?;
        if place == log.len() {
            log.push(seen);
            return Ok(true);
        }
        holds("committed for ever", log[place] == seen, || {
            format!(
                "region {region} node {node}: entry {} has term {}, it was committed with term {}",
                entry.index, entry.term, log[place].0
            )
        })?;
        Ok(false)
    }
}

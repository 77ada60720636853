//! Election safety: at most one leader in each term of a group (Ongaro, "Consensus", figure 3.2).

use super::{Violation, holds};
use rdb_core::ids::{NodeId, RegionId, Term};
use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub(crate) struct OneLeader {
    leaders: BTreeMap<(RegionId, Term), NodeId>,
}

impl OneLeader {
    /// A node believes that it leads.
    pub(crate) fn leads(&mut self, region: RegionId, term: Term, node: NodeId) -> Result<(), Violation> {
        let known = *self.leaders.entry((region, term)).or_insert(node);
        holds("one leader in a term", known == node, || {
            format!("region {region} term {term}: nodes {known} and {node} both led")
        })
    }

    /// Elections won.
    pub(crate) fn elections(&self) -> u64 {
        self.leaders.len() as u64
    }
}

//! Every write that is stamped up to a frontier that somebody has told is on every node, and none comes after; and no node gives
//! out a stamp again that it has acknowledged, whatever its clock did while it was down.

use crate::invariants::{Violation, holds};
use crate::modes::node::Node;
use crate::modes::truth::{Truth, Written};
use rdb_core::eventual::vector::Vector;
use rdb_core::ids::Era;
use rdb_core::version::Hlc;

impl Truth {
    pub(in crate::modes) fn stamp_is_new(&self, written: &Written) -> Result<(), Violation> {
        let version = written.version;
        let frontier = self.frontier.get(&version.era).copied().unwrap_or_default();
        holds("the frontier is everywhere", frontier < version.hlc, || {
            format!("{written:?} comes after all up to {frontier:?} was said to be everywhere")
        })?;
        let given = self.stamps.get(&version.node).copied().unwrap_or_default();
        holds("stamps grow", given < version.hlc, || format!("{written:?} after {given:?}"))
    }

    /// A node tells a frontier.
    pub(in crate::modes) fn frontier_told(
        &mut self,
        era: Era,
        told: Hlc,
        nodes: &[Node],
    ) -> Result<(), Violation> {
        let known = self.frontier.entry(era).or_default();
        *known = told.max(*known);
        let of_era = nodes.iter().flat_map(|node| &node.process).flat_map(|process| &process.eventual);
        let of_era: Vec<_> = of_era.filter(|eventual| eventual.logs.era() == era).collect();
        let mut somewhere = Vector::default();
        of_era.iter().for_each(|eventual| somewhere.merge(&eventual.logs.synced_vector()));
        let below = |written: &&Written| written.version.era == era && written.version.hlc <= told;
        for written in self.writes.values().filter(below) {
            let Some(id) = written.id.filter(|id| somewhere.has(*id)) else { continue };
            let everywhere = of_era.iter().all(|eventual| eventual.machine.state().applied.has(id));
            holds("the frontier is everywhere", everywhere, || {
                format!("{written:?} is not, and {told:?} was told")
            })?;
        }
        Ok(())
    }
}

//! What a switch went on without is kept apart: in the excluded node's logs or quarantine, and in no later era.

use crate::invariants::{Violation, holds};
use crate::modes::data::Stored;
use crate::modes::node::Node;
use crate::modes::truth::Truth;
use rdb_core::eventual::vector::WriteId;
use rdb_core::ids::Era;
use rdb_core::switch::Region;

impl Truth {
    /// Looks at one node, whose region is in `era`.
    pub(in crate::modes) fn left_behind_is_kept(&self, node: &Node, era: Era) -> Result<(), Violation> {
        for (op, written) in self.writes.iter().filter(|(_, written)| written.version.era < era) {
            if !self.is_left_behind(*op) {
                continue;
            }
            let is_merged = has_element(&node.data.current, *op);
            holds("what is left behind is merged nowhere", !is_merged, || {
                format!("operation {op}, {written:?}, is in era {era} of node {}", node.id)
            })?;
            let Some(WriteId { origin, .. }) = written.id.filter(|_| written.acknowledged) else { continue };
            let is_kept = origin.node != node.id || node.origins.synced().quarantine.contains(op);
            holds("what is left behind is kept", is_kept, || {
                format!("operation {op}, {written:?}, is not in the quarantine of node {}", node.id)
            })?;
        }
        Ok(())
    }

    /// Looks at a node whose replica is about to be replaced by one of `offered`: whatever a switch left behind, and had reached this
    /// node, is among what it sets aside, whoever accepted it and however it came.
    pub(in crate::modes) fn all_is_set_aside(
        &self,
        node: &Node,
        offered: &Region,
        set_aside: &[u64],
    ) -> Result<(), Violation> {
        let Some(process) = &node.process else { return Ok(()) };
        let Some(eventual) = &process.eventual else { return Ok(()) };
        let (era, has) = (process.region.era(), eventual.logs.logged_vector());
        if offered.era() <= era {
            return Ok(());
        }
        for (op, written) in self.writes.iter().filter(|(_, written)| written.version.era == era) {
            let is_here = written.acknowledged && written.id.is_some_and(|id| has.has(id));
            if is_here && self.is_left_behind(*op) && !self.undone.contains(op) {
                holds(
                    "what is left behind is set aside where it has come to",
                    set_aside.contains(op),
                    || format!("operation {op}, {written:?}, at node {}", node.id),
                )?;
            }
        }
        Ok(())
    }
}

/// Whether the element of an operation is there.
pub(super) fn has_element(data: &Stored, op: u64) -> bool {
    data.read(format!("e{op}").as_bytes()).is_some()
}

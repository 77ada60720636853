//! What a switch went on without is kept apart: in the excluded node's logs or quarantine, and in no later era.

use crate::invariants::{Violation, holds};
use crate::modes::data::Stored;
use crate::modes::node::Node;
use crate::modes::truth::Truth;
use rdb_core::eventual::vector::WriteId;
use rdb_core::ids::Era;

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
}

/// Whether the element of an operation is there.
pub(super) fn has_element(data: &Stored, op: u64) -> bool {
    data.read(format!("e{op}").as_bytes()).is_some()
}

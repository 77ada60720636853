//! A session read shows all that its client has seen or written, through whichever node and in whichever era.

use super::left_behind_is_kept::has_element;
use crate::invariants::{Violation, holds};
use crate::modes::clients::element_of;
use crate::modes::node::Node;
use crate::modes::truth::Truth;
use rdb_core::ids::Era;
use std::collections::BTreeSet;

impl Truth {
    /// A node serves a session read.
    pub(in crate::modes) fn session_read(
        &self,
        node: &Node,
        era: Era,
        seen: &BTreeSet<u64>,
    ) -> Result<(), Violation> {
        // What is lost a client is told of, once.
        for op in seen.difference(&self.undone) {
            let Some(written) = self.writes.get(op) else { continue };
            let is_shown = !written.writes.iter().any(|(key, _)| element_of(key).is_some())
                || has_element(&node.data.current, *op)
                || self.is_left_behind(*op);
            holds("sessions see what they saw", is_shown, || {
                format!("node {} serves one in era {era} without operation {op}, {written:?}", node.id)
            })?;
        }
        Ok(())
    }
}

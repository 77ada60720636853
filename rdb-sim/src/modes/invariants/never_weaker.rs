//! What only a strong namespace can do is done in a strong era; and a linearizable read misses nothing that was acknowledged
//! before it began, in whichever mode.

use super::left_behind_is_kept::has_element;
use crate::invariants::{Violation, holds};
use crate::modes::clients::element_of;
use crate::modes::node::{Node, Reading};
use crate::modes::truth::Truth;
use rdb_core::ids::Era;
use rdb_core::switch::Mode;

impl Truth {
    /// A node answers a linearizable read.
    pub(in crate::modes) fn strong_read(
        &self,
        node: &Node,
        reading: &Reading,
        (era, mode): (Era, Mode),
    ) -> Result<(), Violation> {
        holds("never silently weaker", mode == Mode::Strong && era == reading.era, || {
            format!("node {} answers {reading:?} in era {era}", node.id)
        })?;
        let acknowledged = self.acknowledged[..reading.acknowledged].iter();
        for op in acknowledged.filter(|op| !self.undone.contains(op)) {
            let Some(written) = self.writes.get(op) else { continue };
            let is_seen = !written.writes.iter().any(|(key, _)| element_of(key).is_some())
                || has_element(&node.data.current, *op)
                || self.is_left_behind(*op);
            holds("never silently weaker", is_seen, || {
                format!("node {} answers {reading:?} without operation {op}, {written:?}", node.id)
            })?;
        }
        Ok(())
    }
}

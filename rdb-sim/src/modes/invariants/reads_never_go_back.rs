//! What a node has shown to a local reader of an eventual era it shows ever after, over crashes too, and every later era holds it,
//! unless the switch went on without whoever wrote it. It shows all that it has answered.

use crate::invariants::{Violation, holds};
use crate::modes::node::Node;
use crate::modes::truth::Truth;
use rdb_core::eventual::vector::{Origin, Vector};
use rdb_core::ids::{Era, Incarnation, NodeId};

impl Truth {
    /// A node shows something to a local reader.
    pub(in crate::modes) fn shows(&mut self, node: &Node) -> Result<(), Violation> {
        let Some(process) = &node.process else { return Ok(()) };
        let Some((era, vector)) = process.shown() else { return Ok(()) };
        if let Some((before, shown)) = self.shown.get(&node.id) {
            let goes_on = *before < era || *before == era && vector.covers(shown);
            holds("reads never go back", goes_on, || {
                format!("node {} shows era {era} up to {vector:?} after {before} up to {shown:?}", node.id)
            })?;
        }
        self.shown_is_kept(node.id, era, &vector)?;
        let origin = Origin { node: node.id, incarnation: Incarnation(node.incarnation) };
        let answered = self.answered.get(&(era, origin)).copied().unwrap_or_default();
        holds("a node shows what it has answered", answered <= vector.get(origin), || {
            format!(
                "node {} has answered {answered} of its writes of era {era}, and shows {vector:?}",
                node.id
            )
        })?;
        self.shown.insert(node.id, (era, vector));
        Ok(())
    }

    /// Whether the era after holds what was shown.
    pub(in crate::modes) fn shown_is_kept(
        &self,
        node: NodeId,
        era: Era,
        shown: &Vector,
    ) -> Result<(), Violation> {
        let Some((marker, _)) = self.markers.get(&Era(era.0 + 1)) else { return Ok(()) };
        let boundary = &marker.boundary;
        let is_out = boundary.excluded.contains(&node);
        let lost = boundary
            .cut
            .behind(shown)
            .find(|(origin, ..)| !is_out || !boundary.excluded.contains(&origin.node));
        holds("what was read does not vanish", lost.is_none(), || {
            format!("node {node} has shown {shown:?} of era {era}, and {marker:?} has not {lost:?}")
        })
    }
}

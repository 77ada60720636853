//! No acknowledged write is lost: it is in the base of every later era, unless the switch went on without its node.

use super::left_behind_is_kept::has_element;
use crate::invariants::{Violation, holds};
use crate::modes::clients::{Outcome, Recorded, element_of};
use crate::modes::node::Node;
use crate::modes::truth::Truth;
use rdb_core::ids::Era;

impl Truth {
    /// Looks at one operation, when it is acknowledged and when its era ends.
    pub(in crate::modes) fn is_not_lost(&self, op: u64) -> Result<(), Violation> {
        let Some(written) = self.writes.get(&op).filter(|written| written.acknowledged) else {
            return Ok(());
        };
        let Some(id) = written.id else { return Ok(()) };
        let Some((marker, _)) = self.markers.get(&Era(written.version.era.0 + 1)) else { return Ok(()) };
        let is_kept = marker.boundary.cut.has(id) || self.is_left_behind(op);
        holds("nothing acknowledged is lost", is_kept, || {
            format!("operation {op}, {written:?}, is beyond the cut of {marker:?}")
        })
    }

    /// Looks at one node, whose region is in `era`.
    pub(in crate::modes) fn elements_are_there(&self, node: &Node, era: Era) -> Result<(), Violation> {
        for op in self.acknowledged.iter().filter(|op| !self.undone.contains(op)) {
            let Some(written) = self.writes.get(op).filter(|written| written.version.era < era) else {
                continue;
            };
            let has_element = !written.writes.iter().any(|(key, _)| element_of(key).is_some())
                || has_element(&node.data.current, *op)
                || self.is_left_behind(*op);
            holds("nothing acknowledged is lost", has_element, || {
                format!("operation {op}, {written:?}, is not in era {era} of node {}", node.id)
            })?;
        }
        Ok(())
    }

    /// What clients were told not to be done has not happened.
    pub(in crate::modes) fn not_done_is_not_done(&self, history: &[Recorded]) -> Result<(), Violation> {
        for recorded in history {
            let happened = self.writes.get(&recorded.op);
            let is_honest = !matches!(recorded.outcome, Outcome::NotDone) || happened.is_none();
            holds("not done is not done", is_honest, || format!("{recorded:?}, but {happened:?}"))?;
        }
        Ok(())
    }
}

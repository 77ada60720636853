//! Every replica begins an era with the same records, and with exactly those that the writes before come to: a later era wins
//! whatever clocks say; within a strong one the log's order, within an eventual one the greatest stamp. What was deleted stays so.

use crate::invariants::{Violation, holds};
use crate::modes::node::Node;
use crate::modes::truth::{Truth, difference, found_at};
use rdb_core::eventual::vector::Vector;
use rdb_core::ids::{Era, Index};
use rdb_core::switch::{Marker, Mode};

impl Truth {
    /// A replica comes to a marker that takes effect.
    pub(in crate::modes) fn marker_applied(
        &mut self,
        marker: &Marker,
        index: Index,
    ) -> Result<(), Violation> {
        let known = self.markers.entry(marker.era).or_insert_with(|| (marker.clone(), index)).clone();
        holds("one marker for each era", known == (marker.clone(), index), || {
            format!("{marker:?} at {index}, elsewhere {known:?}")
        })?;
        let before = Era(marker.era.0 - 1);
        let ops = self.writes.iter().filter(|(_, written)| written.version.era == before);
        let ops: Vec<u64> = ops.map(|(op, _)| *op).collect();
        ops.into_iter().try_for_each(|op| self.is_not_lost(op))?;
        if marker.mode == Mode::Strong {
            self.shown
                .iter()
                .try_for_each(|(node, (era, vector))| self.shown_is_kept(*node, *era, vector))?;
        }
        Ok(())
    }

    /// A replica has entered an era by its marker.
    pub(in crate::modes) fn begins_with_the_base(&mut self, node: &Node, era: Era) -> Result<(), Violation> {
        if !self.bases.contains_key(&era) {
            self.bases.insert(era, self.expected(era, &Vector::default()));
        }
        let (base, found) = (&self.bases[&era], found_at(node));
        holds("one base", *base == found, || {
            format!("node {} begins era {era}: {}", node.id, difference(base, &found))
        })
    }

    /// A replica has entered an era, by its marker or a snapshot.
    pub(in crate::modes) fn entered(&mut self, node: &Node, era: Era) -> Result<(), Violation> {
        self.elements_are_there(node, era)?;
        self.left_behind_is_kept(node, era)
    }
}

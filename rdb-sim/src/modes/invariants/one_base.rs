//! Every replica begins an era with the same records, and with exactly those that the writes before come to: a later era wins
//! whatever clocks say; within a strong one the log's order, within an eventual one the greatest stamp. What was deleted stays so.

use crate::invariants::{Violation, holds};
use crate::modes::node::Node;
use crate::modes::truth::{Truth, difference, found_at};
use crate::modes::world::World;
use rdb_core::eventual::vector::Vector;
use rdb_core::ids::{Era, Index};
use rdb_core::switch::{Marker, Mode};

impl World {
    /// Something strong is about to be answered in this era for the first time: all who take part must have synced all that its
    /// base holds, whether they have come to the marker or not.
    pub(in crate::modes) fn all_hold_the_base(&self, era: Era) -> Result<(), Violation> {
        let Some((Marker { boundary, .. }, _)) = self.truth.markers.get(&era) else { return Ok(()) };
        for node in self.nodes.iter().filter(|node| !boundary.excluded.contains(&node.id)) {
            let (is_there, synced) = has_synced(node, self.options.start, era);
            holds("all hold the base", is_there || synced.covers(&boundary.cut), || {
                format!("era {era} is served, and node {} has synced {synced:?} of {boundary:?}", node.id)
            })?;
        }
        Ok(())
    }
}

/// Whether a crash would leave a node in `era` or behind it; and what it would leave of the era before.
fn has_synced(node: &Node, start: Mode, era: Era) -> (bool, Vector) {
    let before = Era(era.0 - 1);
    let flushed = &node.data.flushed;
    let is_there = flushed.region(start).is_ok_and(|region| era <= region.era());
    let mut synced = flushed.eventual_of(before).map(|state| state.applied).unwrap_or_default();
    for (held, _) in node.origins.synced().runs_of(before) {
        synced.raise(held.origin, held.last);
    }
    // A copy that is complete will be merged, whatever happens.
    if let Some(copied) = node.origins.synced().copied(before) {
        synced.merge(&copied.vector);
    }
    (is_there, synced)
}

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

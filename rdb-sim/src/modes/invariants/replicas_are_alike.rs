//! Replicas at one place hold the same: in an eventual era at one vector, with the same lost writes; in a strong one at one entry
//! of the log. In the end all are at one place, which is what all writes come to.

use crate::invariants::{Violation, holds};
use crate::modes::node::{Node, Process};
use crate::modes::truth::{difference, found_at};
use crate::modes::world::World;
use rdb_core::eventual::buckets::Comparison;
use rdb_core::eventual::machine::State;
use rdb_core::ids::{Era, NodeId};

impl World {
    /// Compares a node with all others that are where it is.
    pub(in crate::modes) fn look_at_others(&mut self, id: NodeId) -> Result<(), Violation> {
        let mut compared = 0;
        let node = self.node(id);
        let has_its_own = |process: &&Process| process.installing.is_none();
        let Some(process) = node.process.as_ref().filter(has_its_own) else { return Ok(()) };
        for other in self.nodes.iter().filter(|other| other.id != id) {
            let Some(theirs) = other.process.as_ref().filter(has_its_own) else { continue };
            if process.region.era() != theirs.region.era() {
                continue;
            }
            compared += u64::from(compare((node, process), (other, theirs))?);
        }
        self.totals.compared += compared;
        Ok(())
    }

    /// When all is quiet.
    pub(in crate::modes) fn all_are_what_was_written(&self) -> Result<(), Violation> {
        for node in &self.nodes {
            let Some(process) = &node.process else { continue };
            let era = process.region.era();
            let now = process.shown().map(|(_, vector)| vector).unwrap_or_default();
            let (expected, found) = (self.truth.expected(Era(era.0 + 1), &now), found_at(node));
            holds("replicas hold what was written", expected == found, || {
                format!("node {} in era {era}: {}", node.id, difference(&expected, &found))
            })?;
            self.truth.elements_are_there(node, Era(era.0 + 1))?;
            self.truth.left_behind_is_kept(node, era)?;
        }
        Ok(())
    }
}

/// Whether the two were at one place.
fn compare(one: (&Node, &Process), other: (&Node, &Process)) -> Result<bool, Violation> {
    let alike = |is: bool, what: &str| {
        holds("replicas are alike", is, || {
            let found = difference(&found_at(one.0), &found_at(other.0));
            format!("nodes {} and {} in era {}: {what}; {found}", one.0.id, other.0.id, one.1.region.era())
        })
    };
    match (&one.1.eventual, &other.1.eventual) {
        (Some(mine), Some(theirs)) => {
            let (a, b) = (mine.machine.state(), theirs.machine.state());
            // Half a copy is ahead of its node's vector.
            if a.applied != b.applied || mine.machine.is_copying() || theirs.machine.is_copying() {
                return Ok(false);
            }
            let counts = |state: &State| (state.earlier, state.lost, state.awaited);
            let what = format!("lost earlier, now, and awaited: {:?} and {:?}", counts(a), counts(b));
            alike(counts(a) == counts(b), &what)?;
            let compared = mine.machine.digest().compare(&theirs.machine.digest());
            alike(!matches!(compared, Comparison::Different(_)), "hashes differ")?;
        }
        (None, None) if one.1.strong.state().applied == other.1.strong.state().applied => {}
        _ => return Ok(false),
    }
    alike(one.0.data.current.is_like(&other.0.data.current), "records differ")?;
    Ok(true)
}

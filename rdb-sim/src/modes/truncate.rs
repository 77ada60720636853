//! How the region's log grows shorter: while it is strong a leader lets all drop what nobody is likely to need; each replica drops
//! what it has brought to safety.
//!
//! Not in an eventual era, in which the log is short: a snapshot for who lacks its beginning would replace writes that only its
//! receiver has.

use super::node::{After, Job};
use super::world::{LOG, World};
use crate::disks::log::Batch;
use crate::world::{droppable, truncation};
use rdb_core::ids::NodeId;
use rdb_core::raft::truncation_target;
use rdb_core::switch::Mode;

impl World {
    /// A turn at which the log may be shortened.
    pub(super) fn shorten(&mut self, id: NodeId) {
        self.propose_truncation(id);
        self.drop_entries(id);
    }

    fn propose_truncation(&mut self, id: NodeId) {
        let (limits, now) = (&self.options.snapshots, self.now);
        let silence = |node: NodeId| match node == id {
            true => Some(0),
            false => self.truth.heard.get(&(id, node)).map(|heard| now - heard),
        };
        let Some(process) = self.process(id) else { return };
        if !process.group.is_leader() || process.mode.mode() == Mode::Eventual {
            return;
        }
        let (group, sending) = (&process.group, process.sending.values().copied());
        let droppable = droppable(&group.status(), group.log_bytes(), limits, sending, silence);
        let target = truncation(droppable, process.strong.state().truncate_to, limits);
        if let Some((target, process)) = target.zip(self.process_mut(id)) {
            process.group.propose_truncation(target);
        }
    }

    fn drop_entries(&mut self, id: NodeId) {
        let node = self.node_mut(id);
        let (Ok(state), Ok(durable)) = (node.data.current.strong(), node.data.flushed.strong()) else {
            return;
        };
        let Some(process) = &mut node.process else { return };
        let target = truncation_target(state.truncate_to, durable.applied);
        let Some((dropped, terms)) = process.group.truncate(target) else { return };
        let batch = Batch::of_truncation(LOG, dropped + 1, terms);
        self.write_later(id, Job::Raft { batch, after: After::Shortened, then_send: Vec::new() });
    }
}

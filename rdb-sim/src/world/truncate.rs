//! How logs grow shorter: a leader lets all drop what nobody is likely to need, each replica what it has brought to safety.

use super::node::{Job, Replica, Report};
use crate::disks::data::DataDisk;
use crate::disks::log::Batch;
use crate::options::{Micros, Snapshots};
use rdb_core::ids::{Index, NodeId};
use rdb_core::raft::truncation_target;

/// A member that answers may catch up from a log so many times as long as one that does not.
const LOG_BYTES_FACTOR_ACTIVE: u64 = 4;

/// A leader lets everyone drop what nobody is likely to need.
pub(super) fn propose_truncation(
    replica: &mut Replica,
    limits: &Snapshots,
    silence: impl Fn(NodeId) -> Option<Micros>,
) {
    if !replica.group.is_leader() {
        return;
    }
    let target = droppable(replica, limits, silence).saturating_sub(limits.keep_entries);
    // Not for a handful, as each costs an entry, nor for that entry alone: it would go on for ever.
    let handful = (limits.keep_entries / 4).max(1);
    if replica.machine.state().truncate_to + handful < target {
        replica.group.propose_truncation(target);
    }
}

/// What all members have confirmed, unless that is too far back for one that is away. Never past what the receiver of a
/// snapshot will need. As a node has it.
fn droppable(replica: &Replica, limits: &Snapshots, silence: impl Fn(NodeId) -> Option<Micros>) -> Index {
    let status = replica.group.status();
    let bytes = replica.group.log_bytes();
    let needed = status.members.iter().filter_map(|(node, confirmed, active)| {
        let too_long = |absence_max| silence(*node).is_none_or(|silence| absence_max < silence);
        let away = limits.absence_max.is_some_and(too_long);
        let factor = if *active { LOG_BYTES_FACTOR_ACTIVE } else { 1 };
        let bytes_max = limits.log_bytes_max.saturating_mul(factor);
        let kept_for = !away && bytes <= bytes_max || *confirmed == status.applied;
        kept_for.then_some(*confirmed)
    });
    let needed = needed.chain(replica.sending.values().copied());
    needed.min().unwrap_or(status.applied).min(status.applied)
}

/// Drops what the region's state allows and this replica has brought to safety.
pub(super) fn shorten(replica: &mut Replica, data: &DataDisk) -> Option<Job> {
    let group = &mut replica.group;
    let region = group.region();
    let state = data.of(region).state().ok()?;
    let target = truncation_target(state.truncate_to, data.durable_applied(region));
    let (dropped, terms) = group.truncate(target)?;
    let batch = Batch::of_truncation(region, dropped + 1, terms);
    Some(Job { region, batch, sync: false, report: Report::Shortened, then_send: Vec::new() })
}

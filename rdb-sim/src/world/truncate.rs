//! How logs grow shorter: a leader lets all drop what nobody is likely to need, each replica what it has brought to safety.

use super::node::{Job, Replica, Report};
use crate::disks::data::DataDisk;
use crate::disks::log::Batch;
use crate::options::{Micros, Snapshots};
use rdb_core::ids::{Index, NodeId};
use rdb_core::raft::{Status, truncation_target};

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
    let (group, sending) = (&replica.group, replica.sending.values().copied());
    let droppable = droppable(&group.status(), group.log_bytes(), limits, sending, silence);
    if let Some(target) = truncation(droppable, replica.machine.state().truncate_to, limits) {
        replica.group.propose_truncation(target);
    }
}

/// What all members have confirmed, unless that is too far back for one that is away. Never past what the receivers of snapshots
/// will need, which is `sending`. As a node has it.
pub(crate) fn droppable(
    status: &Status,
    log_bytes: u64,
    limits: &Snapshots,
    sending: impl Iterator<Item = Index>,
    silence: impl Fn(NodeId) -> Option<Micros>,
) -> Index {
    let needed = status.members.iter().filter_map(|(node, confirmed, active)| {
        let too_long = |absence_max| silence(*node).is_none_or(|silence| absence_max < silence);
        let away = limits.absence_max.is_some_and(too_long);
        let factor = if *active { LOG_BYTES_FACTOR_ACTIVE } else { 1 };
        let bytes_max = limits.log_bytes_max.saturating_mul(factor);
        let kept_for = !away && log_bytes <= bytes_max || *confirmed == status.applied;
        kept_for.then_some(*confirmed)
    });
    needed.chain(sending).min().unwrap_or(status.applied).min(status.applied)
}

/// Up to where everyone may drop the log, but for what is kept in any case, if that is worth an entry.
pub(crate) fn truncation(droppable: Index, truncate_to: Index, limits: &Snapshots) -> Option<Index> {
    let target = droppable.saturating_sub(limits.keep_entries);
    // Not for a handful, as each costs an entry, nor for that entry alone: it would go on for ever.
    let handful = (limits.keep_entries / 4).max(1);
    (truncate_to + handful < target).then_some(target)
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

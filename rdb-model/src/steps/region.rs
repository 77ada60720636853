//! The region's log: proposals, commits, applying, snapshots.

use super::clients;
use crate::action::Action;
use crate::configuration::Configuration;
use crate::promises::{Answered, Promise, note_answer};
use crate::state::{Entry, Ids, NODES, Node, OriginLog, Proposal, Shared, State};
use rdb_core::ids::{Epoch, Era};
use rdb_core::switch::planted::{Wrong, wrong};
use rdb_core::switch::{Marker, Mode, Verdict, quarantine, stream};
use rdb_core::version::Version;
use std::sync::Arc;

pub(super) fn offer(configuration: &Configuration, state: &State, actions: &mut Vec<Action>) {
    for node in configuration.leaders {
        if due(configuration, state, *node).is_some() {
            actions.push(Action::ProposeMarker(*node));
        }
    }
    for (index, proposal) in state.proposals.iter().enumerate() {
        if state.is_connected(proposal.by) {
            actions.push(Action::Commit(index));
        }
    }
    for node in (0..NODES).filter(|node| state.is_connected(*node)) {
        if may_apply(state, node) {
            actions.push(Action::Apply(node));
        }
        for to in (0..NODES).filter(|to| *to != node && configuration.snapshots && state.is_connected(*to)) {
            if may_replace(state, node, to) {
                actions.push(Action::Snapshot { from: node, to });
            }
        }
    }
}

/// The marker that a leader sees to be due. It may lead by an old descriptor, and may have proposed the same before.
fn due(configuration: &Configuration, state: &State, node: usize) -> Option<Marker> {
    let at = &state.nodes[node];
    let marker = at.peer.heard().and_then(|heard| Marker::due(heard))?;
    let is_same = |entry: &Entry| matches!(entry, Entry::Marker(other) if **other == marker);
    let committed = state.log.iter().filter(|entry| is_same(entry)).count();
    let proposed = state.proposals.iter().filter(|proposal| is_same(&proposal.entry)).count();
    let is_new = at.region.era() < marker.era && proposed == 0;
    (is_new && committed < configuration.marker_copies).then_some(marker)
}

pub(super) fn propose_marker(state: &mut State, node: usize) {
    let at = state.node_mut(node);
    let Some(marker) = at.peer.heard().and_then(|heard| Marker::due(heard)) else { return };
    at.proposed = Some(marker.era);
    propose(state, Entry::Marker(Shared::new(marker)), node);
}

pub(super) fn propose(state: &mut State, entry: Entry, by: usize) {
    state.proposals.push(Proposal { entry, by });
    state.proposals.sort();
}

pub(super) fn commit(state: &mut State, index: usize) {
    let proposal = state.proposals.remove(index);
    Arc::make_mut(&mut state.log).push(proposal.entry);
}

fn judge(node: &Node, marker: &Marker) -> Verdict {
    node.region.judge(node.peer.node(), marker, &node.progress().synced)
}

fn may_apply(state: &State, node: usize) -> bool {
    let at = &state.nodes[node];
    match state.log.get(at.applied) {
        None => false,
        Some(Entry::Put { .. }) => true,
        Some(Entry::Marker(marker)) => !matches!(judge(at, marker), Verdict::Await | Verdict::Replace),
    }
}

pub(super) fn apply(configuration: &Configuration, state: &mut State, node: usize) {
    let entry = state.log[state.nodes[node].applied].clone();
    state.node_mut(node).applied += 1;
    match entry {
        Entry::Marker(marker) => apply_marker(state, node, &marker, configuration.unflushed),
        Entry::Put { era, epoch, id } => apply_put(state, node, era, epoch, id),
    }
}

fn apply_marker(state: &mut State, node: usize, marker: &Marker, keeps: bool) {
    let at = state.node_mut(node);
    match judge(at, marker) {
        Verdict::Ignore | Verdict::Await | Verdict::Replace => return,
        Verdict::ToStrong => {
            // An excluded node that applies it all the same takes all that it has for the base.
            let cut = &marker.boundary.cut;
            let is_excluded = marker.boundary.excluded.contains(&at.peer.node());
            let held = if is_excluded { at.appended() } else { at.held(cut) };
            at.base = at.base.with(held);
        }
        Verdict::ToEventual => {}
    }
    let era = at.region.era();
    at.region.enter(marker);
    at.change_logs(era, keeps);
    at.peer.era_changed(&at.region);
    clients::release(state, node);
}

fn apply_put(state: &mut State, node: usize, era: Era, epoch: Epoch, id: u8) {
    let at = &state.nodes[node];
    let by_epoch = at.region.mode() == Mode::Strong && at.peer.epoch() <= epoch;
    let admitted = if wrong(Wrong::PutByEpoch) { by_epoch } else { at.region.admits(era) };
    if admitted {
        stamp_put(state, node, id);
        let at = state.node_mut(node);
        at.base = at.base.with(Ids::one(id));
    }
    if state.nodes[node].waiting.contains(id) {
        let at = state.node_mut(node);
        at.waiting = at.waiting.without(Ids::one(id));
        let (epoch, era) = (at.peer.epoch(), at.region.era());
        if admitted {
            note_answer(state, Answered { node, epoch, era, id: Some(id) });
        }
    }
}

/// Every replica gives a put the same version, above all that the region holds: the leader's clock may be behind the last
/// leader's.
fn stamp_put(state: &mut State, node: usize, id: u8) {
    let base = state.nodes[node].base;
    let highest = base.iter().filter(|other| *other != id).map(|id| state.write(id).version.hlc).max();
    let put = *state.write(id);
    let floor = highest.unwrap_or_default().next();
    let hlc = if wrong(Wrong::StampsBelowRegion) { put.version.hlc } else { put.version.hlc.max(floor) };
    let version = Version { hlc, ..put.version };
    if put.place != 0 && put.version != version {
        state.broken.note(Promise::OneBase);
    }
    let places = state.writes.iter().map(|write| write.place).max().unwrap_or(0);
    let put = state.write_mut(id);
    put.version = version;
    if put.place == 0 {
        put.place = places + 1;
    }
}

fn may_replace(state: &State, from: usize, to: usize) -> bool {
    let (sender, receiver) = (&state.nodes[from], &state.nodes[to]);
    let is_ahead = receiver.applied < sender.applied;
    // Within an era, one entry more is not worth a snapshot of its own.
    let is_worth = receiver.region.era() < sender.region.era()
        || receiver.region.mode() == Mode::Eventual
        || receiver.applied + 1 < sender.applied;
    let brings = is_ahead || wrong(Wrong::SnapshotWithinEra) && sender.progress() != receiver.progress();
    receiver.region.takes(&sender.region) && brings && is_worth
}

pub(super) fn snapshot(state: &mut State, from: usize, to: usize) {
    let sender = Arc::clone(&state.nodes[from]);
    let writes = Arc::clone(&state.writes);
    let receiver = state.node_mut(to);
    for tail in quarantine::tails(&receiver.region, &receiver.progress().appended, &sender.region) {
        let beyond = receiver.log(tail.origin).into_iter().flat_map(|log| &log.ids);
        let beyond = beyond.skip(usize::try_from(tail.after).unwrap_or(usize::MAX)).copied().collect();
        receiver.quarantine = receiver.quarantine.with(beyond);
    }
    let upto = stream::snapshotable(&sender.progress()).clone();
    let part = |log: &OriginLog, len: u64| {
        let ids = log.ids[..usize::try_from(len).unwrap_or(usize::MAX).min(log.ids.len())].to_vec();
        OriginLog { synced: ids.len(), ids }
    };
    let logs = sender.logs.iter().map(|(origin, log)| (*origin, part(log, upto.get(*origin))));
    receiver.logs = logs.filter(|(_, log)| !log.ids.is_empty()).collect();
    receiver.base = sender.base;
    receiver.applied = sender.applied;
    // What the snapshot passes over is not applied here: whoever waits for it is told to be in doubt.
    let puts = receiver.waiting.iter().filter(|id| writes[usize::from(*id)].origin.is_none()).collect();
    receiver.waiting = receiver.waiting.without(puts);
    let is_new_era = receiver.region.era() != sender.region.era();
    receiver.region = sender.region.clone();
    if is_new_era {
        receiver.peer.era_changed(&receiver.region);
        clients::release(state, to);
    }
}

//! Origin logs: syncs, and what travels between nodes.

use crate::action::Action;
use crate::configuration::Configuration;
use crate::state::{Delivery, Ids, NODES, State};
use rdb_core::switch::stream::{self, Offer};
use rdb_core::switch::{Mode, Origin, Progress};

pub(super) fn offer(_: &Configuration, state: &State, actions: &mut Vec<Action>) {
    for node in 0..NODES {
        if !state.nodes[node].is_all_synced() {
            actions.push(Action::Sync(node));
        }
    }
    if state.late_delivery.is_none() && state.nodes.iter().all(|node| node.logs.is_empty()) {
        return;
    }
    let progress: [Progress; NODES] = std::array::from_fn(|node| state.nodes[node].progress());
    let is_taken = |delivery: &Delivery| is_taken(state, &progress[delivery.to], delivery);
    if state.late_delivery.as_ref().is_some_and(is_taken) {
        actions.push(Action::ArriveLate);
    }
    for (from, sent) in progress.iter().enumerate() {
        for to in (0..NODES).filter(|to| *to != from && state.are_connected(from, *to)) {
            for (origin, _) in &state.nodes[from].logs {
                let Some(delivery) = next(state, sent, from, to, *origin) else { continue };
                if is_taken(&delivery) {
                    actions.push(Action::Push { from, to, origin: *origin });
                }
                let is_own = origin.node == state.nodes[from].peer.node();
                if state.budget.late_deliveries > 0 && state.late_delivery.is_none() && is_own {
                    actions.push(Action::Delay { from, to, origin: *origin });
                }
            }
        }
    }
}

/// What a node would send next of an origin's log: what follows on the other one's vector, as far as that is of this era.
fn next(state: &State, progress: &Progress, from: usize, to: usize, origin: Origin) -> Option<Delivery> {
    let (sender, receiver) = (&state.nodes[from], &state.nodes[to]);
    if sender.region.mode() != Mode::Eventual {
        return None;
    }
    let era = sender.region.era();
    let is_same_era = receiver.region.era() == era;
    let has = receiver.log(origin).map_or(0, |log| log.ids.len());
    let at = if is_same_era { has } else { 0 };
    let id = *sender.log(origin)?.ids.get(at)?;
    let seq = at as u64 + 1;
    let is_sendable = seq <= stream::sendable(progress).get(origin);
    is_sendable.then_some(Delivery { from, to, era, origin, seq, id })
}

fn is_taken(state: &State, progress: &Progress, delivery: &Delivery) -> bool {
    let Delivery { from, to, era, origin, seq, id } = *delivery;
    let receiver = &state.nodes[to];
    let offer = Offer { era, origin, seq };
    let is_new = receiver.region.era() == era || !receiver.base.contains(id);
    is_new
        && state.are_connected(from, to)
        && stream::receive(&receiver.peer, &receiver.region, &progress.appended, offer).is_ok()
}

pub(super) fn push(state: &mut State, from: usize, to: usize, origin: Origin) {
    let progress = state.nodes[from].progress();
    if let Some(delivery) = next(state, &progress, from, to, origin) {
        deliver(state, delivery);
    }
}

pub(super) fn delay(state: &mut State, from: usize, to: usize, origin: Origin) {
    state.budget.late_deliveries -= 1;
    state.late_delivery = next(state, &state.nodes[from].progress(), from, to, origin);
}

pub(super) fn arrive(state: &mut State) {
    if let Some(delivery) = state.late_delivery.take() {
        deliver(state, delivery);
    }
}

fn deliver(state: &mut State, delivery: Delivery) {
    let Delivery { to, era, origin, id, .. } = delivery;
    let receiver = state.node_mut(to);
    if receiver.region.era() == era && receiver.region.mode() == Mode::Eventual {
        receiver.log_mut(origin).ids.push(id);
    } else {
        // Only a wrong variant takes it in: it is merged with whatever the region holds.
        receiver.base = receiver.base.with(Ids::one(id));
    }
}

/// Everything that is appended survives from now on: writes and control records, which lie in one log.
pub(super) fn sync(state: &mut State, node: usize) {
    if state.nodes[node].is_all_synced() {
        return;
    }
    let at = state.node_mut(node);
    for (_, log) in &mut at.logs {
        log.synced = log.ids.len();
    }
    if let Some(control) = at.peer.writing().cloned() {
        at.peer.synced(&control);
        at.controls.push(control);
    }
}

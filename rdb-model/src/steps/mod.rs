//! What each action needs and does, by where it happens.

mod catalog;
mod clients;
mod faults;
mod region;
mod streams;

use crate::action::Action;
use crate::configuration::{Configuration, Pace};
use crate::state::{NODES, State};
use std::sync::Arc;

/// Names what can happen now. The order is always the same, and a fair one: see `settle`.
pub(crate) fn offer(configuration: &Configuration, state: &State, actions: &mut Vec<Action>) {
    faults::offer(configuration, state, actions);
    streams::offer(configuration, state, actions);
    clients::offer(configuration, state, actions);
    catalog::offer(configuration, state, actions);
    region::offer(configuration, state, actions);
}

/// Lets it happen, and what follows at once.
pub(crate) fn take(configuration: &Configuration, state: &mut State, action: &Action) {
    let before = state.clone();
    happen(configuration, state, action);
    // A node that nothing has happened to does nothing new.
    let is_touched = |node: &usize| !Arc::ptr_eq(&before.nodes[*node], &state.nodes[*node]);
    let touched: Vec<usize> = (0..NODES).filter(is_touched).collect();
    for node in touched {
        review(state, node);
        if configuration.pace == Pace::Coarse {
            follow_up(state, node);
        }
        let shows = state.nodes[node].shows();
        if state.nodes[node].visible != shows {
            state.node_mut(node).visible = shows;
        }
    }
    if configuration.pace == Pace::Coarse && state.isolated != before.isolated {
        for node in 0..NODES {
            catalog::report(state, node);
        }
    }
}

fn happen(configuration: &Configuration, state: &mut State, action: &Action) {
    match action {
        Action::Write(node) => clients::write(configuration, state, *node),
        Action::Answer(node) => clients::answer(state, *node),
        Action::LocalRead(node) => clients::read_locally(state, *node),
        Action::StrongWrite(node) => clients::write_strongly(configuration, state, *node),
        Action::StrongOnly(node) => clients::ask_strongly(configuration, state, *node),
        Action::BeginRead(node) => clients::begin_read(state, *node),
        Action::EndRead(node) => clients::end_read(state, *node),
        Action::Sync(node) => streams::sync(state, *node),
        Action::Push { from, to, origin } => streams::push(state, *from, *to, *origin),
        Action::Delay { from, to, origin } => streams::delay(state, *from, *to, *origin),
        Action::ArriveLate => streams::arrive(state),
        Action::Begin => catalog::begin(configuration, state),
        Action::Step => catalog::step(state),
        Action::Abort => catalog::abort(state),
        Action::DelayStep => catalog::delay(state),
        Action::ArriveStep => catalog::arrive(state),
        Action::Hear(node, index) => catalog::hear(state, *node, *index),
        Action::Report(node) => catalog::report(state, *node),
        Action::ProposeMarker(node) => region::propose_marker(state, *node),
        Action::Commit(index) => region::commit(state, *index),
        Action::Apply(node) => region::apply(configuration, state, *node),
        Action::Snapshot { from, to } => region::snapshot(state, *from, *to),
        Action::Crash(node) => faults::crash(configuration, state, *node),
        Action::Isolate(node) => faults::isolate(state, *node),
        Action::Heal => state.isolated = None,
        Action::Wait(node) => faults::wait(state, *node),
    }
}

/// Looks at a node's descriptor again, as it does after whatever has happened to it.
fn review(state: &mut State, node: usize) {
    let at = &state.nodes[node];
    let mut peer = at.peer.clone();
    peer.review(&at.region, !at.waiting.is_empty());
    if peer != at.peer {
        state.node_mut(node).peer = peer;
    }
}

/// What a node does at once where its own steps are not told apart. It ends: each turn syncs a record or answers a client.
fn follow_up(state: &mut State, node: usize) {
    loop {
        streams::sync(state, node);
        clients::answer(state, node);
        review(state, node);
        if state.nodes[node].is_all_synced() {
            break;
        }
    }
    catalog::report(state, node);
}

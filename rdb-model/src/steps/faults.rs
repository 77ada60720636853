//! What goes wrong.

use crate::action::Action;
use crate::configuration::Configuration;
use crate::state::{Ids, NODES, Node, State};
use rdb_core::switch::{Gate, Peer, Region};

pub(super) fn offer(configuration: &Configuration, state: &State, actions: &mut Vec<Action>) {
    if state.isolated.is_some() {
        actions.push(Action::Heal);
    } else if state.budget.partitions > 0 {
        actions.extend(configuration.isolated.iter().map(|node| Action::Isolate(*node)));
    }
    if state.budget.crashes > 0 {
        let crashing = configuration.crashing.iter().copied();
        actions.extend(crashing.filter(|node| has_to_lose(&state.nodes[*node])).map(Action::Crash));
    }
    if state.budget.timers > 0 {
        let is_sealed = |node: &usize| matches!(state.nodes[*node].peer.gate(), Gate::Sealed(_));
        actions.extend((0..NODES).filter(is_sealed).map(Action::Wait));
    }
}

/// Whether a crash is more than having heard nothing yet.
fn has_to_lose(node: &Node) -> bool {
    let is_at_work = !node.waiting.is_empty() || node.reading.is_some();
    !node.is_all_synced() || is_at_work || *node.peer.gate() != Gate::Open || !node.controls.is_empty()
}

/// The node loses power and starts again. What it had not synced is gone, and so is whom it would have answered; from now on
/// it numbers its writes as another origin. Where the data was never flushed, the region begins again, and is to be found in
/// its log.
pub(super) fn crash(configuration: &Configuration, state: &mut State, node: usize) {
    state.budget.crashes -= 1;
    let start = configuration.start;
    let at = state.node_mut(node);
    for (_, log) in &mut at.logs {
        log.ids.truncate(log.synced);
    }
    at.logs.retain(|(_, log)| !log.ids.is_empty());
    if configuration.unflushed {
        let era = at.region.era();
        at.region = Region::new(start);
        at.change_logs(era, true);
        (at.base, at.applied) = (Ids::default(), 0);
    }
    at.peer = Peer::start(at.peer.node(), &at.region, &at.controls);
    at.incarnation += 1;
    at.known = 0;
    at.waiting = Ids::default();
    at.proposed = None;
    at.reading = None;
}

pub(super) fn isolate(state: &mut State, node: usize) {
    state.budget.partitions -= 1;
    state.isolated = Some(node);
}

pub(super) fn wait(state: &mut State, node: usize) {
    state.budget.timers -= 1;
    state.node_mut(node).peer.waited_long();
}

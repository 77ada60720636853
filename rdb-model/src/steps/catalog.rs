//! The catalog: what the controller does, and what nodes hear and report.

use crate::action::Action;
use crate::configuration::{Configuration, Pace};
use crate::state::{NODES, Shared, State, fingerprint, node_id};
use rdb_core::ids::Era;
use rdb_core::switch::controller::{self, Facts};
use rdb_core::switch::planted::{Wrong, wrong};
use rdb_core::switch::{Boundary, Change, Gate, Marker, Mode, Peer, Phase, Report, Step, Vector};
use std::sync::Arc;

pub(super) fn offer(configuration: &Configuration, state: &State, actions: &mut Vec<Action>) {
    let descriptor = state.descriptor();
    let wanted = configuration.switches.get(begun(configuration, state)).map(|(mode, _)| *mode);
    if wanted == Some(descriptor.mode.other()) && descriptor.phase == Phase::Settled {
        actions.push(Action::Begin);
    }
    if next(state).is_some() {
        actions.push(Action::Step);
        if state.budget.late_changes > 0 && state.late_change.is_none() {
            actions.push(Action::DelayStep);
        }
    }
    if state.late_change.as_ref().is_some_and(|change| descriptor.apply(change).is_ok()) {
        actions.push(Action::ArriveStep);
    }
    if state.budget.aborts > 0 && descriptor.phase.may_abort() {
        actions.push(Action::Abort);
    }
    for (node, at) in state.nodes.iter().enumerate().filter(|(node, _)| state.is_connected(*node)) {
        let last = state.catalog.len() - 1;
        let late = if configuration.slow_news { at.known..last } else { last..last };
        let hears = late.chain((at.known <= last).then_some(last));
        actions.extend(
            hears.filter(|index| is_news(state, node, *index)).map(|index| Action::Hear(node, index)),
        );
        if wrong(Wrong::HearsOldDescriptors) {
            actions.extend((0..at.known.saturating_sub(1)).map(|index| Action::Hear(node, index)));
        }
        if configuration.pace == Pace::Fine && news(state, node).next().is_some() {
            actions.push(Action::Report(node));
        }
    }
}

/// Whether a node does anything for having heard a descriptor, now or when its region is in another era. What changes nothing
/// is heard with what comes next.
fn is_news(state: &State, node: usize, index: usize) -> bool {
    let at = &state.nodes[node];
    let descriptor = &state.catalog[index];
    let mut peer = at.peer.clone();
    let before = (peer.epoch(), peer.gate().clone(), peer.writing().cloned());
    let (due, cut) = (peer.heard().and_then(|heard| Marker::due(heard)), published(&peer));
    peer.hear(descriptor.arc());
    peer.review(&at.region, !at.waiting.is_empty());
    let after = (peer.epoch(), peer.gate().clone(), peer.writing().cloned());
    let is_for_later = at.region.era() < descriptor.era && descriptor.phase.shuts_gates();
    let sets_era = wrong(Wrong::CatalogSetsEra) && at.region.era() < descriptor.era;
    before != after
        || published(&peer) != cut
        || peer.heard().and_then(|heard| Marker::due(heard)) != due
        || is_for_later
        || sets_era
}

/// The cut that a sealed node knows of.
fn published(peer: &Peer) -> Option<Vector> {
    let Gate::Sealed(seal) = peer.gate() else { return None };
    peer.heard().and_then(|heard| seal.cut(heard)).cloned()
}

fn facts(state: &State, give_up: bool) -> Facts {
    let era = state.descriptor().era;
    let marker_applied =
        (0..NODES).any(|node| state.is_connected(node) && era < state.nodes[node].region.era());
    Facts { ready: true, marker_applied, give_up, ..Facts::default() }
}

fn next(state: &State) -> Option<Change> {
    controller::next(state.descriptor(), &state.reports, facts(state, false))
}

fn change(state: &mut State, change: &Change) {
    if let Ok(changed) = state.descriptor().apply(change) {
        Arc::make_mut(&mut state.catalog).push(Shared::new(changed));
    }
}

/// Switches that were begun so far.
fn begun(configuration: &Configuration, state: &State) -> usize {
    configuration.switches.len() - usize::from(state.budget.switches)
}

pub(super) fn begin(configuration: &Configuration, state: &mut State) {
    let (_, excluded) = configuration.switches[begun(configuration, state)];
    let excluded = excluded.iter().map(|node| node_id(*node)).collect();
    state.budget.switches -= 1;
    let begin = state.descriptor().change(Step::Begin { excluded, deadline_ms: 0, write_pause_ms_max: 0 });
    change(state, &begin);
    if !configuration.prepares {
        step(state);
    }
}

pub(super) fn step(state: &mut State) {
    if let Some(next) = next(state) {
        change(state, &next);
    }
}

pub(super) fn abort(state: &mut State) {
    state.budget.aborts = state.budget.aborts.saturating_sub(1);
    if let Some(abort) = controller::next(state.descriptor(), &state.reports, facts(state, true)) {
        change(state, &abort);
    }
}

pub(super) fn delay(state: &mut State) {
    state.budget.late_changes -= 1;
    state.late_change = next(state);
}

pub(super) fn arrive(state: &mut State) {
    if let Some(late) = state.late_change.take() {
        change(state, &late);
    }
}

pub(super) fn hear(state: &mut State, node: usize, index: usize) {
    let descriptor = state.catalog[index].clone();
    let at = state.node_mut(node);
    at.known = at.known.max(index + 1);
    at.peer.hear(descriptor.arc());
    if wrong(Wrong::CatalogSetsEra) && at.region.era() < descriptor.era {
        at.region.enter(&Marker {
            switch: descriptor.switch,
            epoch: descriptor.epoch,
            era: Era(at.region.era().0 + 1),
            mode: at.region.mode().other(),
            boundary: Boundary::default(),
        });
        at.peer.era_changed(&at.region);
        at.logs.clear();
    }
}

/// What a node would report that the controller does not know. Of one kind and switch, the first report counts: later ones
/// may name more, but never more of what the cut is made of.
fn news(state: &State, node: usize) -> impl Iterator<Item = Report> + '_ {
    let at = &state.nodes[node];
    let digest = |cut: &_| fingerprint(&at.held(cut));
    let reports = match at.region.mode() {
        Mode::Eventual => at.peer.reports(&at.progress(), digest),
        Mode::Strong => Vec::new(),
    };
    reports.into_iter().filter(|report| !is_known(state, report))
}

fn is_known(state: &State, report: &Report) -> bool {
    let about = |report: &Report| match report {
        Report::Sealed { switch, node, .. } => (false, *switch, *node),
        Report::Drained { switch, node, .. } => (true, *switch, *node),
    };
    state.reports.iter().any(|known| about(known) == about(report))
}

pub(super) fn report(state: &mut State, node: usize) {
    if !state.is_connected(node) {
        return;
    }
    let news: Vec<Report> = news(state, node).collect();
    if !news.is_empty() {
        let reports = Arc::make_mut(&mut state.reports);
        reports.extend(news);
        reports.sort();
    }
}

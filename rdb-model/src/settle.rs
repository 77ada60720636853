//! Whether a world comes to rest: from any state, with all connections healed and no more faults, clients or operators, the
//! cluster's own steps are taken in a fixed order until there is none, and then nothing may be left half done.
//!
//! Each such run goes through states that are reachable themselves, so runs share their ends; those that were seen to end well
//! are remembered, and most runs are one step long.

use crate::action::Action;
use crate::model::Cluster;
use crate::state::{State, fingerprint, node_of};
use rdb_core::switch::{Gate, Mode, Phase};
use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

/// More steps than any run takes that ends: past that it turns in circles.
const STEPS_MAX: usize = 400;

/// The states that are known to end well.
#[derive(Debug, Default)]
pub(crate) struct Settled {
    known: Mutex<HashSet<u64>>,
}

impl Settled {
    /// Whether the switch ends from here, if nobody calls it off and if somebody does.
    pub(crate) fn ends(&self, model: &Cluster, state: &State) -> bool {
        let is_pending = state.descriptor().is_switching();
        let forward = self.runs_out(model, state.clone(), false);
        let without_excluded = !is_pending || state.descriptor().excluded.is_empty();
        let alone = without_excluded || self.runs_out(model, state.clone(), true);
        let back = || self.runs_out(model, model.after(state, &Action::Abort), false);
        forward && alone && (!state.descriptor().phase.may_abort() || back())
    }

    /// Runs the cluster until it rests, with the excluded nodes away or not.
    fn runs_out(&self, model: &Cluster, mut state: State, without_excluded: bool) -> bool {
        let mut passed = Vec::new();
        loop {
            let seen = fingerprint(&(&state, without_excluded));
            if self.lock().contains(&seen) {
                break;
            }
            passed.push(seen);
            match next(model, &state, without_excluded) {
                Some(action) if passed.len() < STEPS_MAX => state = model.after(&state, &action),
                Some(_) => return false,
                None if rests(&state, without_excluded) => break,
                None => return false,
            }
        }
        self.lock().extend(passed);
        true
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashSet<u64>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_away(state: &State, node: usize) -> bool {
    state.descriptor().excluded.iter().any(|excluded| node_of(*excluded) == node)
}

/// The first thing that can go on. Each is taken until it can no more, since each brings the world forward.
fn next(model: &Cluster, state: &State, without_excluded: bool) -> Option<Action> {
    let is_there = |node: usize| !without_excluded || !is_away(state, node);
    let mut actions = model.possible(state).into_iter();
    actions.find(|action| action.is_progress() && action.needs().into_iter().flatten().all(is_there))
}

/// Whether nothing is half done.
fn rests(state: &State, without_excluded: bool) -> bool {
    let descriptor = state.descriptor();
    let nodes = state.nodes.iter().enumerate();
    let nodes = nodes.filter(|(node, _)| !without_excluded || !is_away(state, *node));
    let at_rest = nodes.map(|(_, node)| node).all(|node| {
        let mode = (node.region.era(), node.region.mode(), node.peer.epoch());
        let is_open = node.region.mode() == Mode::Strong || *node.peer.gate() == Gate::Open;
        mode == (descriptor.era, descriptor.mode, descriptor.epoch)
            && is_open
            && node.waiting.is_empty()
            && node.applied == state.log.len()
    });
    descriptor.phase == Phase::Settled && state.proposals.is_empty() && at_rest
}

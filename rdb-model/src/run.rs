//! One exploration, breadth first, so that what breaks a promise is broken by as few steps as possible.

use crate::configuration::Configuration;
use crate::model::Cluster;
use crate::promises::Promise;
use stateright::{Checker, HasDiscoveries, Model};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// What came of an exploration.
#[derive(Debug)]
pub struct Outcome {
    /// Different states.
    pub states: usize,
    /// Steps to the farthest of them.
    pub depth: usize,
    /// How long it took.
    pub took: Duration,
    /// Whether every state within the bounds was seen. It is not where a promise was broken.
    pub is_complete: bool,
    /// The promises that were broken, each with the steps to it.
    pub broken: Vec<(Promise, Vec<String>)>,
    /// The goals that were not reached, by name.
    pub missed: Vec<&'static str>,
}

impl Outcome {
    /// Whether every promise holds in every state, and every goal was reached.
    pub fn is_good(&self) -> bool {
        self.is_complete && self.broken.is_empty() && self.missed.is_empty()
    }
}

/// Explores every state of a cluster, on one thread, until a promise is broken: any, or the one that is looked for. It is
/// given up after `steps_max` steps, each of which leads to a state, new or not.
pub fn explore(cluster: Cluster, steps_max: usize, until: Option<Promise>) -> Outcome {
    let started = Instant::now();
    let goals: Vec<&'static str> = goals(&cluster.configuration);
    let until = match until {
        Some(promise) => HasDiscoveries::AnyOf(BTreeSet::from([promise.name()])),
        None => HasDiscoveries::AnyFailures,
    };
    let checker = cluster.checker().threads(1).target_state_count(steps_max).finish_when(until);
    let checker = checker.spawn_bfs().join();
    let took = started.elapsed();
    let mut discoveries = checker.discoveries();
    let steps = |name: &str, found: &mut std::collections::HashMap<&'static str, _>| {
        let path: Option<stateright::Path<_, crate::action::Action>> = found.remove(name);
        path.map(|path| path.into_actions().iter().map(|action| format!("{action:?}")).collect())
    };
    let broken: Vec<(Promise, Vec<String>)> = Promise::ALL
        .into_iter()
        .filter_map(|promise| Some((promise, steps(promise.name(), &mut discoveries)?)))
        .collect();
    Outcome {
        states: checker.unique_state_count(),
        depth: checker.max_depth(),
        took,
        is_complete: broken.is_empty() && checker.state_count() < steps_max,
        broken,
        missed: goals.into_iter().filter(|goal| !discoveries.contains_key(goal)).collect(),
    }
}

fn goals(configuration: &Configuration) -> Vec<&'static str> {
    crate::goals::properties(configuration).iter().map(|property| property.name).collect()
}

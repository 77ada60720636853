//! What the answers mean: what the cluster survives, and how that is said.

use super::problems::{self, Kind, Problem};
use super::quorum::{Survives, survives};
use super::survey::Survey;
use serde::Serialize;
use std::collections::BTreeSet;

/// How the cluster is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Health {
    /// All is well.
    Healthy,
    /// It serves, and less than usual may go wrong.
    Degraded,
    /// Some of it does not serve.
    Unavailable,
}

/// All of it, the worst first.
#[derive(Debug)]
pub(super) struct Verdict {
    pub(super) health: Health,
    /// In a word or two.
    pub(super) label: &'static str,
    pub(super) summary: String,
    /// Nodes that may be lost, besides those that are.
    pub(super) may_lose: usize,
    /// Those without any one of which it would not serve.
    pub(super) must_not_lose: BTreeSet<u64>,
    pub(super) problems: Vec<Problem>,
}

impl Verdict {
    /// Whether some of what is wrong may be no trouble, but on its way: it is worth a second look.
    pub(super) fn may_pass(&self) -> bool {
        self.problems.iter().any(|problem| problem.kind.may_pass())
    }
}

pub(super) fn judge(survey: &Survey) -> Verdict {
    let total = survey.cluster.nodes.len();
    // One that we alone do not reach may have died a moment ago: it is not counted on.
    let up = survey.up();
    let survives = survives(&survey.groups(&up), &up, &|one, other| survey.linked(one, other));
    let problems = problems::find(survey);
    let (health, label) = match problems.first() {
        None => (Health::Healthy, "healthy"),
        Some(Problem { kind: Kind::NoQuorum, .. }) => (Health::Unavailable, "no quorum"),
        Some(Problem { kind: Kind::NoLeader, .. }) => (Health::Unavailable, "no leader"),
        Some(_) => (Health::Degraded, "degraded"),
    };
    let summary = match problems.first() {
        None if total <= 1 => "one node, which must not be lost".into(),
        None => format!("may lose {} of {total} nodes", survives.may_lose),
        Some(problem) if health == Health::Unavailable => problem.what.clone(),
        Some(problem) => format!("{}; {}", problem.what, what_is_left(&survives, total, up.len())),
    };
    let Survives { may_lose, critical } = survives;
    Verdict { health, label, summary, may_lose, must_not_lose: critical, problems }
}

/// What a cluster still serves and may lose where something is wrong.
fn what_is_left(survives: &Survives, total: usize, up: usize) -> String {
    match survives.may_lose {
        _ if total <= 1 => "it is the only node, and must not be lost".into(),
        0 if survives.critical.len() < up => {
            let nodes: Vec<_> = survives.critical.iter().map(|node| format!("node {node}")).collect();
            format!("serves, but must not lose {}", nodes.join(" or "))
        }
        0 => "serves, but may lose no more nodes".into(),
        may_lose if up == total => format!("serves, and may lose {may_lose} of {total} nodes"),
        1 => "serves, and may lose 1 more node".into(),
        may_lose => format!("serves, and may lose {may_lose} more nodes"),
    }
}

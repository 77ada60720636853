//! What came of a run, for people and for programs.

use crate::growth::{self, Growth};
use crate::history::{Entry, Outcome};
use crate::lab::Evidence;
use crate::plan::Plan;
use crate::resources::{self, Peak};
use serde::Serialize;
use std::path::PathBuf;
use std::time::Duration;

/// What came of a run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// What it was drawn from.
    pub seed: u64,
    /// Its faults and workloads.
    pub what: String,
    /// The command that does it again.
    pub again: String,
    /// How long it took, all included.
    pub seconds: f64,
    /// Operations that were answered.
    pub answered: u64,
    /// Operations that were certainly not done.
    pub not_done: u64,
    /// Operations of which nobody knows.
    pub unknown: u64,
    /// What was done to the nodes, and how that shows.
    pub faults: Vec<FaultReport>,
    /// The most that each node has used.
    pub peaks: Vec<Peak>,
    /// How what each node uses has grown, in a run that is long enough to say.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub growth: Vec<Growth>,
    /// What each check has looked at.
    pub looked: Vec<String>,
    /// All that is wrong. A run without problems has passed.
    pub problems: Vec<String>,
    /// Where logs, history and data are, of a run that failed.
    pub folder: Option<PathBuf>,
}

/// One fault of a run.
#[derive(Debug, Clone, Serialize)]
pub struct FaultReport {
    /// What was done.
    pub what: String,
    /// How that shows.
    pub seen: String,
    /// When, in seconds of the run.
    pub at_seconds: f64,
    /// After which time a write was acknowledged again, where that is asked.
    pub resumed_ms: Option<u64>,
    /// Whether a leader was lost without a word, and another had to be elected by those that were left.
    pub leader_lost: bool,
}

impl FaultReport {
    pub(crate) fn new(evidence: &Evidence, resumed: Option<Duration>) -> Self {
        Self {
            what: evidence.what.clone(),
            seen: evidence.seen.clone().unwrap_or_else(|why| format!("not seen: {why}")),
            at_seconds: Duration::from_nanos(evidence.began_ns).as_secs_f64(),
            resumed_ms: resumed.map(millis),
            leader_lost: evidence.bar == crate::lab::Bar::LeaderLost,
        }
    }
}

impl Report {
    /// One that is yet to be filled.
    pub(crate) fn new(plan: &Plan) -> Self {
        Self {
            seed: plan.seed,
            what: plan.in_words(),
            again: plan.again(),
            seconds: 0.0,
            answered: 0,
            not_done: 0,
            unknown: 0,
            faults: Vec::new(),
            peaks: Vec::new(),
            growth: Vec::new(),
            looked: Vec::new(),
            problems: Vec::new(),
            folder: None,
        }
    }

    pub(crate) fn count(&mut self, history: &[Entry]) {
        for entry in history {
            match entry.outcome {
                Outcome::NotDone { .. } | Outcome::Expired { .. } => self.not_done += 1,
                Outcome::Unknown { .. } => self.unknown += 1,
                Outcome::Found { .. } | Outcome::Done { .. } | Outcome::Mismatch { .. } => self.answered += 1,
            }
        }
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.problems.is_empty()
    }

    /// The run in one line.
    #[must_use]
    pub fn in_a_line(&self) -> String {
        let verdict = if self.passed() { "ok" } else { "FAILED" };
        let resumed: Vec<u64> = self.faults.iter().filter_map(|fault| fault.resumed_ms).collect();
        let resumed = resumed
            .iter()
            .max()
            .map_or(String::new(), |most| format!(", writes back after {most} ms at most"));
        format!(
            "seed {}: {verdict}: {}: {} operations answered, {} in doubt, {} faults{resumed}, {}{}, {:.0} s",
            self.seed,
            self.what,
            self.answered,
            self.unknown,
            self.faults.len(),
            resources::in_words(&self.peaks),
            growth::in_words(&self.growth),
            self.seconds
        )
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

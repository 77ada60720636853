//! One long run: a steady load, faults drawn all the time, and in the end whether what nodes use has grown.
//!
//! It goes by chapters. Each has clients of its own, ends with reads of everything at every node, and is judged; then its keys
//! are removed and its operations forgotten. So neither the nodes' disks nor this program's memory have a reason to grow. The nodes
//! live on from chapter to chapter, and so do the measurements of what they use.

use crate::cluster::NAMESPACE;
use crate::faults::Need;
use crate::growth;
use crate::history::History;
use crate::lab::Lab;
use crate::plan::Plan;
use crate::report::Report;
use crate::run::{Place, begin, judge, work};
use crate::workloads::{Pace, Workload, named};
use anyhow::{Context as _, Result, bail};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// What clients do: what writes the same keys again, or gives few up.
const WORKLOADS: [&str; 3] = ["register", "counter", "pairs"];
/// Of all clients together. A counter's turn is two operations, so they come to 200 a second.
const TURNS_PER_SECOND: u32 = 170;
/// 60,000 operations, which take some tens of mebibytes.
const CHAPTER_SECONDS: u64 = 300;
/// Between two faults: nodes must live for some time, so that it shows what they gather.
pub(crate) const QUIET_MS: std::ops::Range<u64> = 3_000..20_000;
/// What faults need that fill memory at one time, in tens of mebibytes: beside that no growth shows. They are struck where they are
/// named.
pub(crate) const FILL_MEMORY: [Need; 2] = [Need::ShortLogs, Need::Memory];
/// A shorter one shows nothing: most of what nodes use is what they fill once.
const SECONDS_MIN: f64 = 600.0;
/// Faults are that long apart at most, on the average.
const SECONDS_PER_FAULT: f64 = 60.0;
/// All keys of the namespace are between these.
const ALL_KEYS: (&str, &str) = ("a", "~");
const REMOVE_LIMIT: Duration = Duration::from_secs(60);

/// The load that all clients share.
pub(crate) fn pace() -> Pace {
    Pace::new(TURNS_PER_SECOND)
}

/// What clients do in a soak that were asked for these.
///
/// # Errors
/// One of them writes more and more keys, or keeps no pace.
pub(crate) fn workloads(asked: &[&'static Workload]) -> Result<Vec<&'static Workload>> {
    if let Some(other) = asked.iter().find(|workload| !WORKLOADS.contains(&workload.name)) {
        bail!("a soak cannot have the workload {}, only {}", other.name, WORKLOADS.join(", "));
    }
    if asked.is_empty() {
        Ok(WORKLOADS.iter().copied().filter_map(named).collect())
    } else {
        Ok(asked.to_vec())
    }
}

/// Does it, and adds what came of it to the report.
pub(crate) async fn soak(
    plan: &Plan,
    place: &Place,
    folder: &Path,
    history: &Arc<History>,
    report: &mut Report,
) {
    let began = Instant::now();
    if let Err(error) = chapters(plan, place, folder, history, report).await {
        report.problems.push(format!("{error:#}"));
    }
    let lasted = began.elapsed().as_secs_f64();
    report.problems.extend(vacuous(lasted, report.faults.len()));
    report.growth = growth::of(&history.looks(), plan.nodes());
    report.problems.extend(growth::over(&report.growth));
}

fn vacuous(seconds: f64, faults: usize) -> Option<String> {
    let faults_min = (seconds / SECONDS_PER_FAULT).floor();
    if seconds < SECONDS_MIN {
        Some(format!(
            "vacuous: a soak of {seconds:.0} s says nothing about growth, {SECONDS_MIN} s at least do"
        ))
    } else if u32::try_from(faults).is_ok_and(|faults| f64::from(faults) < faults_min) {
        Some(format!("vacuous: {faults} faults in {seconds:.0} s, of {faults_min} at least"))
    } else {
        None
    }
}

async fn chapters(
    plan: &Plan,
    place: &Place,
    folder: &Path,
    history: &Arc<History>,
    report: &mut Report,
) -> Result<()> {
    let mut lab = begin(plan, place, folder, history).await?;
    let began = Instant::now();
    for number in 0.. {
        let left = plan.wanted.seconds.saturating_sub(began.elapsed().as_secs());
        let chapter = chapter(plan, number, left.min(CHAPTER_SECONDS));
        history.note(format!("chapter {number}"));
        let mut faults = Vec::new();
        let worked = work(&chapter, &mut lab, &mut faults).await;
        judge(plan, history, &faults, report);
        worked.with_context(|| format!("chapter {number}"))?;
        // What is wrong is looked at with the operations that show it.
        if !report.problems.is_empty() || plan.wanted.seconds <= began.elapsed().as_secs() {
            break;
        }
        remove_keys(&lab).await?;
        history.forget_operations();
    }
    Ok(())
}

/// A part of a soak, with chance of its own.
fn chapter(plan: &Plan, number: u64, seconds: u64) -> Plan {
    let mut chapter = plan.clone();
    chapter.seed = plan.seed.wrapping_add(number << 32);
    chapter.wanted.seconds = seconds;
    chapter
}

/// All nodes have been read since the last fault, so whatever was written before is done, or never will be.
async fn remove_keys(lab: &Lab) -> Result<()> {
    let namespace = lab.client.namespace(NAMESPACE).with_timeout(REMOVE_LIMIT);
    namespace.delete_range(ALL_KEYS.0, ALL_KEYS.1).await.context("a chapter's keys cannot be removed")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_soak_or_one_without_faults_shows_nothing() {
        assert_eq!(vacuous(3_600.0, 60), None);
        assert!(vacuous(3_600.0, 59).is_some_and(|why| why.contains("59 faults")));
        assert!(vacuous(599.0, 60).is_some_and(|why| why.contains("growth")));
    }

    #[test]
    fn a_soak_has_workloads_whose_keys_do_not_grow() {
        assert_eq!(workloads(&[]).unwrap().len(), WORKLOADS.len());
        assert!(workloads(&[named("set").unwrap()]).is_err());
        assert_eq!(workloads(&[named("pairs").unwrap()]).unwrap().len(), 1);
    }
}

//! Strong and eventual namespaces side by side: under a partition both sides take eventual writes, and the minority no strong
//! one. When it has healed the eventual replicas are equal, and every strong history is linearizable.

use super::cut::Cut;
use super::findings::Findings;
use super::load::{Load, tallies};
use super::replicas;
use super::stage::{EVENTUAL, Nodes, Stage};
use super::stats::Times;
use super::tally::Tally;
use crate::cluster::{Cluster, NAMESPACE, PATIENCE, Wire};
use crate::history::{Entry, History, Outcome};
use crate::run::{finish, read_everything};
use crate::workloads::named;
use crate::{probe, verdict};
use anyhow::{Context as _, Result};
use rdb_client::Mode;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

/// Of eventual writes a second, over all nodes. Strong clients work besides.
const RATE: u64 = 300;
const RATE_PERCENT_MIN: u64 = 90;
/// Before the first cut, and behind each.
const QUIET: Duration = Duration::from_secs(2);
/// Long enough for the majority to elect another leader and be written to.
const CUT: Duration = Duration::from_secs(7);
const RESUMED_MAX: Duration = Duration::from_secs(5);
const EQUAL_MAX: Duration = Duration::from_secs(5);
const STRONG_WORKLOADS: [&str; 2] = ["register", "set"];

/// One partition, in the history's time.
#[derive(Debug, Clone, Copy)]
struct Parted {
    minority: u64,
    from_ns: u64,
    to_ns: u64,
}

pub(super) async fn run(stage: &Stage, findings: &mut Findings) -> Result<()> {
    let mut cluster = stage.start().await?;
    Nodes::create(&cluster, NAMESPACE, Mode::Strong).await?;
    let eventual = Nodes::create(&cluster, EVENTUAL, Mode::Eventual).await?;
    let scene = stage.scene(&cluster);
    let mut clients = JoinSet::new();
    for name in STRONG_WORKLOADS {
        let workload = named(name).with_context(|| format!("there is no workload {name}"))?;
        (workload.start)(&scene, &mut clients);
    }
    probe::start(&scene, &mut clients);
    sleep(QUIET).await;
    let parted = partitions(stage, &cluster, &eventual, &scene.history, findings).await;
    scene.stop.store(true, Ordering::Relaxed);
    let parted = parted?;
    finish(clients).await?;
    read_everything(&cluster, &scene).await?;
    let entries = scene.history.entries();
    scene.history.write(&stage.folder.join("history.jsonl"))?;
    judge(&entries, &parted, findings);
    cluster.is_sound()
}

/// Cuts one node off, and every other time the leader.
async fn partitions(
    stage: &Stage,
    cluster: &Cluster,
    nodes: &Nodes,
    history: &History,
    findings: &mut Findings,
) -> Result<Vec<Parted>> {
    let tallies = tallies(nodes);
    let mut dice = stage.dice(1);
    let (mut parted, mut times) = (Vec::new(), Vec::new());
    for round in 1..=stage.sizes.sides_rounds {
        let leader = cluster.leader().await?.node;
        let minority = if round % 2 == 1 { leader } else { dice.pick(&cluster.others(&[leader])) };
        let wire = dice.pick(&[Wire::Silent, Wire::Closed]);
        let (cut, took) = one(stage, cluster, nodes, &tallies, (minority, wire), history, findings).await?;
        let role = if minority == leader { ", the leader," } else { "" };
        stage.say(&format!("round {round}: node {minority}{role} cut off ({wire:?}), equal after {took:?}"));
        parted.push(cut);
        times.push(took);
        sleep(QUIET).await;
    }
    let times = Times::of(times);
    findings.hold(
        format!("eventual replicas equal after {} partitions, longest", times.count()),
        times.longest(),
        EQUAL_MAX,
    );
    let counts = tallies.iter().map(|(node, tally)| (*node, tally.counts().acknowledged));
    let all: BTreeMap<u64, u64> = counts.collect();
    findings.count("eventual writes acknowledged on both sides", all.values().sum());
    findings.expect(replicas::has_all(&nodes.at[&1], &tallies).await?.map(drop));
    Ok(parted)
}

async fn one(
    stage: &Stage,
    cluster: &Cluster,
    nodes: &Nodes,
    tallies: &BTreeMap<u64, Arc<Tally>>,
    (minority, wire): (u64, Wire),
    history: &History,
    findings: &mut Findings,
) -> Result<(Parted, Duration)> {
    let cut = Cut::around(cluster, &[minority], wire);
    let from_ns = history.now_ns();
    let load = Load::begin(nodes, tallies, RATE);
    sleep(CUT).await;
    let done = load.end().await?;
    findings.expect(done.kept(RATE, RATE_PERCENT_MIN, &format!("the eventual load, {minority} cut off")));
    findings.expect(cut.seen(cluster).map(drop));
    let differ = replicas::alike(&replicas::sums(nodes).await?).is_err();
    findings.require(differ, || format!("vacuous: replicas were equal while node {minority} was cut off"));
    let to_ns = history.now_ns();
    let healed = Instant::now();
    cut.heal(cluster);
    replicas::until_alike(nodes, tallies, PATIENCE).await?;
    stage.say("healed");
    Ok((Parted { minority, from_ns, to_ns }, healed.elapsed()))
}

/// What the strong namespace's clients saw.
fn judge(entries: &[Entry], parted: &[Parted], findings: &mut Findings) {
    let mut resumed = Vec::new();
    let mut refused = 0;
    for cut in parted {
        match minority_refused(entries, *cut) {
            Ok(count) => refused += count,
            Err(why) => findings.problem(why),
        }
        match majority_resumed(entries, *cut) {
            Ok(after) => resumed.push(after),
            Err(why) => findings.problem(why),
        }
    }
    findings.count("strong writes refused or left in doubt by minorities", refused);
    findings.hold(
        "majorities took strong writes again after at most",
        Times::of(resumed).longest(),
        RESUMED_MAX,
    );
    let answered = entries.iter().filter(|entry| entry.is_answered()).count();
    findings.count("strong operations answered", answered as u64);
    findings.problems.extend(verdict::judge(entries).1);
}

/// The node that a probe writes at stands in its key.
fn probed(entry: &Entry) -> Option<u64> {
    entry.key.strip_prefix(probe::NAME)?.split('/').nth(1)?.parse().ok()
}

/// Probes that were made and ended while the nodes were parted.
fn probes(entries: &[Entry], cut: Parted) -> impl Iterator<Item = (u64, &Entry)> {
    let within = move |entry: &&Entry| {
        cut.from_ns <= entry.call_ns && entry.return_ns.unwrap_or(entry.call_ns) <= cut.to_ns
    };
    entries.iter().filter(within).filter_map(|entry| Some((probed(entry)?, entry)))
}

/// How many strong writes the minority refused; it must have acknowledged none.
fn minority_refused(entries: &[Entry], cut: Parted) -> Result<u64, String> {
    let mine = || probes(entries, cut).filter(|(node, _)| *node == cut.minority).map(|(_, entry)| entry);
    if let Some(entry) = mine().find(|entry| entry.is_acknowledged_write()) {
        return Err(format!("node {} was cut off and acknowledged a strong write: {entry:?}", cut.minority));
    }
    let refused = |entry: &&Entry| matches!(entry.outcome, Outcome::NotDone { .. } | Outcome::Unknown { .. });
    match mine().filter(refused).count() as u64 {
        0 => Err(format!(
            "vacuous: nobody wrote to the strong namespace at node {}, which was cut off",
            cut.minority
        )),
        refused => Ok(refused),
    }
}

/// After which time a majority has taken a strong write that was made under the cut.
fn majority_resumed(entries: &[Entry], cut: Parted) -> Result<Duration, String> {
    let theirs = probes(entries, cut).filter(|(node, _)| *node != cut.minority).map(|(_, entry)| entry);
    let acknowledged = theirs.filter(|entry| entry.is_acknowledged_write());
    let first = acknowledged.filter_map(|entry| entry.return_ns).min();
    let first = first
        .ok_or_else(|| format!("no strong write was acknowledged while node {} was cut off", cut.minority))?;
    Ok(Duration::from_nanos(first - cut.from_ns))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Call, Request, Stamp};
    use rdb_check::Version;

    fn write(node: u64, call_ns: u64, outcome: Outcome) -> Entry {
        Entry {
            client: node,
            workload: probe::NAME.to_owned(),
            key: format!("{}/{node}/0", probe::NAME),
            request: Some(Request::Put),
            call: Call::Put(call_ns.to_string()),
            call_ns,
            return_ns: Some(call_ns + 10),
            outcome,
            epoch: None,
            node: None,
            served: None,
            name: None,
        }
    }

    fn done(node: u64, call_ns: u64) -> Entry {
        write(node, call_ns, Outcome::Done { version: Stamp(Version { era: 1, hlc: call_ns, node }) })
    }

    fn refused(node: u64, call_ns: u64) -> Entry {
        write(node, call_ns, Outcome::NotDone { why: String::new() })
    }

    const CUT: Parted = Parted { minority: 3, from_ns: 100, to_ns: 200 };

    #[test]
    fn a_minority_that_acknowledges_is_found_and_so_is_one_that_nobody_asked() {
        let outside = [done(3, 50), done(3, 195)];
        assert!(minority_refused(&outside, CUT).is_err_and(|why| why.contains("vacuous")));
        let refusing = [done(3, 50), refused(3, 150), done(1, 150), done(3, 250)];
        assert_eq!(minority_refused(&refusing, CUT), Ok(1));
        assert!(minority_refused(&[refused(3, 150), done(3, 160)], CUT).is_err());
    }

    #[test]
    fn a_majority_resumes_with_a_write_that_was_made_under_the_cut() {
        let history = [done(1, 95), refused(1, 120), done(3, 130), done(2, 150)];
        assert_eq!(majority_resumed(&history, CUT), Ok(Duration::from_nanos(60)));
        assert!(majority_resumed(&history[..3], CUT).is_err());
    }
}

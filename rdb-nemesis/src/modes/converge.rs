//! How far replicas are behind each other under a steady load; and how soon all are equal after partitions during which both
//! sides took writes.

use super::cut::Cut;
use super::findings::Findings;
use super::load::{Load, tallies};
use super::stage::{EVENTUAL, Nodes, Stage};
use super::stats::{Times, millis};
use super::tally::Tally;
use super::{marks, replicas};
use crate::cluster::{Cluster, PATIENCE, Wire};
use crate::peek::Pages;
use anyhow::{Context as _, Result};
use rdb_client::Mode;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::{Instant, sleep};

const LAG_P99_MAX: Duration = Duration::from_millis(100);
const EQUAL_MEDIAN_MAX: Duration = Duration::from_secs(3);
const EQUAL_MAX: Duration = Duration::from_secs(5);
/// Of the writes that are asked for, so many percent must be acknowledged: less is another load.
const RATE_PERCENT_MIN: u64 = 95;
/// Marks, and looks at metrics: fewer show nothing.
const LOOKS_PER_SECOND_MIN: usize = 10;
/// Before anything is measured.
const WARM_UP: Duration = Duration::from_secs(2);

pub(super) async fn run(stage: &Stage, findings: &mut Findings) -> Result<()> {
    let mut cluster = stage.start().await?;
    let nodes = Nodes::create(&cluster, EVENTUAL, Mode::Eventual).await?;
    let tallies = tallies(&nodes);
    steady(stage, &cluster, &nodes, &tallies, findings).await?;
    partitions(stage, &cluster, &nodes, &tallies, findings).await?;
    findings.expect(replicas::has_all(&nodes.at[&1], &tallies).await?.map(drop));
    cluster.is_sound()
}

async fn steady(
    stage: &Stage,
    cluster: &Cluster,
    nodes: &Nodes,
    tallies: &BTreeMap<u64, Arc<Tally>>,
    findings: &mut Findings,
) -> Result<()> {
    let rate = stage.sizes.rate;
    stage.say(&format!("{rate} writes/s for {} s", stage.sizes.seconds));
    let load = Load::begin(nodes, tallies, rate);
    sleep(WARM_UP).await;
    let stop = Arc::<AtomicBool>::default();
    let looks = tokio::spawn(Pages::of(cluster).watch(cluster.ids(), stop.clone()));
    let marks = tokio::spawn(marks::watch(nodes.clone(), stop.clone()));
    sleep(Duration::from_secs(stage.sizes.seconds)).await;
    stop.store(true, Ordering::Relaxed);
    let (looks, marks) = (looks.await??, Times::of(marks.await??));
    let done = load.end().await?;
    let unknown = looks.iter().filter(|sample| !sample.look.known).count();
    let told = Times::of(looks.iter().map(|sample| sample.look.lag).collect());
    findings.tell("steady load", done.rate(), "writes/s");
    findings.hold(format!("lag as told p99 of {}", told.count()), told.percentile(99), LAG_P99_MAX);
    findings.tell("its longest", millis(told.longest()), "ms");
    let what = format!("lag seen from outside p99 of {}", marks.count());
    findings.hold(what, marks.percentile(99), LAG_P99_MAX);
    findings.tell("its median", millis(marks.median()), "ms");
    findings.tell("its longest", millis(marks.longest()), "ms");
    findings.expect(done.kept(rate, RATE_PERCENT_MIN, "the steady load"));
    findings.require(unknown == 0, || format!("{unknown} lags were unknown, with no peer away"));
    let least = usize::try_from(stage.sizes.seconds)? * LOOKS_PER_SECOND_MIN;
    findings.require(least <= marks.count() && least <= told.count(), || {
        format!("vacuous: {} marks and {} looks, of {least} each", marks.count(), told.count())
    });
    Ok(())
}

async fn partitions(
    stage: &Stage,
    cluster: &Cluster,
    nodes: &Nodes,
    tallies: &BTreeMap<u64, Arc<Tally>>,
    findings: &mut Findings,
) -> Result<()> {
    let mut dice = stage.dice(1);
    let mut times = Vec::new();
    for round in 1..=stage.sizes.rounds {
        let away = dice.pick(&cluster.ids());
        let wire = dice.pick(&[Wire::Silent, Wire::Closed]);
        let load = Load::begin(nodes, tallies, stage.sizes.rate);
        let cut = Cut::around(cluster, &[away], wire);
        sleep(Duration::from_secs(stage.sizes.cut_seconds)).await;
        let done = load.end().await?;
        let what = format!("the load of round {round}");
        findings.expect(done.kept(stage.sizes.rate, RATE_PERCENT_MIN, &what));
        findings.expect(cut.seen(cluster).map(drop));
        let differ = replicas::alike(&replicas::sums(nodes).await?).is_err();
        findings.require(differ, || {
            format!("vacuous: replicas were equal while node {away} was cut off in round {round}")
        });
        let healed = Instant::now();
        cut.heal(cluster);
        let sum = replicas::until_alike(nodes, tallies, PATIENCE).await;
        let sum = sum.with_context(|| format!("round {round}, node {away} was cut off ({wire:?})"))?;
        times.push(healed.elapsed());
        stage.say(&format!(
            "round {round}: node {away} cut off ({wire:?}), {:.0} writes/s, {} records equal {:.0} ms after it healed",
            done.rate(),
            sum.records,
            millis(healed.elapsed())
        ));
    }
    let times = Times::of(times);
    if 0 < times.count() {
        let what = format!("equal after {} partitions of {} s", times.count(), stage.sizes.cut_seconds);
        findings.hold(format!("{what} median"), times.median(), EQUAL_MEDIAN_MAX);
        findings.hold("longest", times.longest(), EQUAL_MAX);
    }
    Ok(())
}

//! A node is stopped while the others take very many writes. It must get all of them from their logs, in time.

use super::findings::Findings;
use super::load::{VALUE_BYTES, value};
use super::replicas::{alike, shows, sums};
use super::stage::{EVENTUAL, Nodes, Stage, until};
use crate::peek::Pages;
use anyhow::{Result, bail};
use rdb_client::{Mode, Namespace};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

const CAUGHT_UP_MAX: Duration = Duration::from_secs(60);
/// After which nobody waits any longer.
const LIMIT: Duration = Duration::from_secs(600);
/// Callers at each node that stays.
const CALLERS: u64 = 128;
/// Times that a write is tried.
const TRIES_MAX: u32 = 5;
const RETRY_PAUSE: Duration = Duration::from_millis(100);
const TELL_EVERY: u64 = 100_000;

pub(super) async fn run(stage: &Stage, findings: &mut Findings) -> Result<()> {
    let mut cluster = stage.start().await?;
    let nodes = Nodes::create(&cluster, EVENTUAL, Mode::Eventual).await?;
    let away = stage.dice(1).pick(&cluster.ids());
    let writes = stage.sizes.away_writes;
    stage.say(&format!("node {away} stops, the others take {writes} writes of {VALUE_BYTES} B"));
    let snapshots = cluster.snapshots_taken_in(away);
    cluster.stop(away).await?;
    let began = Instant::now();
    let last = fill(stage, &nodes, away, writes).await?;
    findings.tell("filled at", writes as f64 / began.elapsed().as_secs_f64(), "writes/s");
    let pages = Pages::of(&cluster);
    for (node, _) in nodes.others(away) {
        let kept = pages.look(node).await?.log_bytes;
        findings.tell(format!("node {node} kept"), kept as f64 / f64::from(1 << 20), "MiB of log");
        findings.require(writes * VALUE_BYTES as u64 <= kept, || {
            format!(
                "node {node} keeps {kept} bytes of log, less than the {writes} writes that node {away} lacks"
            )
        });
    }
    stage.say("it comes back");
    let back = Instant::now();
    cluster.launch(away)?;
    cluster.ready(away).await?;
    findings.tell("it answered after", back.elapsed().as_secs_f64(), "s");
    for key in &last {
        until(&format!("node {away} shows {key}"), LIMIT, || shows(&nodes.at[&away], key, 0)).await?;
    }
    let nobody_behind = async || {
        for node in cluster.ids() {
            // A node that has just started knows of its peers only when it has heard them.
            if !pages.look(node).await.is_ok_and(|look| look.known && look.behind == 0) {
                return false;
            }
        }
        true
    };
    until("no node is behind", LIMIT, nobody_behind).await?;
    let caught_up = back.elapsed();
    findings.hold(format!("{writes} writes caught up after"), caught_up, CAUGHT_UP_MAX);
    match alike(&sums(&nodes).await?) {
        Ok(sum) => findings.require(sum.records == writes, || {
            format!("lost: of {writes} acknowledged writes, each of its own key, {} are there", sum.records)
        }),
        Err(why) => findings.problem(format!("nobody was behind, and yet {why}")),
    }
    let copied = cluster.snapshots_taken_in(away) - snapshots;
    findings.require(copied == 0, || format!("it took {copied} full copies in, and was to do without"));
    cluster.is_sound()
}

/// Writes so many records, each with a key of its own, at the nodes that are left. Returns the last keys at each.
async fn fill(stage: &Stage, nodes: &Nodes, away: u64, writes: u64) -> Result<Vec<String>> {
    let next = Arc::<AtomicU64>::default();
    let mut callers = JoinSet::new();
    for (_, namespace) in nodes.others(away) {
        for _ in 0..CALLERS {
            callers.spawn(put_next(namespace.clone(), next.clone(), writes, stage.progress));
        }
    }
    let mut last = Vec::new();
    while let Some(ended) = callers.join_next().await {
        last.extend(ended??);
    }
    Ok(last)
}

async fn put_next(
    namespace: Namespace,
    next: Arc<AtomicU64>,
    writes: u64,
    progress: fn(&str),
) -> Result<Option<String>> {
    let mut last = None;
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if writes <= number {
            return Ok(last);
        }
        let key = format!("away/{number:09}");
        put(&namespace, &key, number).await?;
        last = Some(key);
        if (number + 1).is_multiple_of(TELL_EVERY) {
            progress(&format!("away: {} writes", number + 1));
        }
    }
}

async fn put(namespace: &Namespace, key: &str, number: u64) -> Result<()> {
    let mut tries = 0;
    while let Err(error) = namespace.put(key.to_owned(), value(number)).await {
        tries += 1;
        if TRIES_MAX <= tries {
            bail!("{key} was not written in {tries} tries: {error}");
        }
        sleep(RETRY_PAUSE).await;
    }
    Ok(())
}

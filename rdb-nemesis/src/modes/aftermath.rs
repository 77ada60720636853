//! The end of a run over switches: all is healed, the namespace is strong, everything is read at every node, and judged.

use super::elements::SET;
use super::eras;
use super::findings::Findings;
use super::replicas;
use super::stage::{Nodes, Stage};
use super::switching::{begin, end_of, settled};
use crate::checks::CHECKS;
use crate::cluster::{Cluster, NAMESPACE};
use crate::run::{finish, read_everything};
use crate::workloads::Scene;
use anyhow::{Context as _, Result, bail};
use rdb_client::{Client, Mode, SwitchOptions};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::task::JoinSet;

/// The mode that the namespace begins in.
pub(super) const FIRST: Mode = Mode::Eventual;
/// Switches on a healed cluster end in this time.
pub(super) const END_LIMIT: Duration = Duration::from_secs(90);
/// A switch that was called off is begun again so often.
const TRIES_MAX: u32 = 5;
const WRITES_MIN: u64 = 50;

/// Ends the clients, makes the namespace strong, reads everything, and judges.
pub(super) async fn judge(
    stage: &Stage,
    cluster: &mut Cluster,
    client: &Client,
    scene: &Arc<Scene>,
    clients: JoinSet<Result<()>>,
    findings: &mut Findings,
) -> Result<()> {
    stage.say("healed: to strong for the last time, and everything is read at every node");
    let looked = look(cluster, client, scene, clients).await;
    scene.history.write(&stage.folder.join("history.jsonl"))?;
    let entries = scene.history.entries();
    findings.expect(eras::strong_eras(&entries, FIRST).map(|what| stage.say(&what)));
    findings.expect(eras::epochs(&entries).map(|what| stage.say(&what)));
    let done = eras::count(&entries, FIRST);
    findings.count("eventual writes", done.eventual_writes);
    findings.count("strong writes", done.strong_writes);
    findings.count("compare-and-swaps", done.swaps);
    findings.count("linearizable reads", done.strong_reads);
    let counts = [done.eventual_writes, done.strong_writes, done.swaps, done.strong_reads];
    findings.require(counts.iter().all(|count| WRITES_MIN <= *count), || {
        format!("vacuous: too little was done of something: {done:?}, of {WRITES_MIN} each")
    });
    looked?;
    for check in CHECKS.iter().filter(|check| [SET, "replicas"].contains(&check.name)) {
        match (check.check)(&entries) {
            Ok(what) => stage.say(&format!("{}: {what}", check.name)),
            Err(why) => findings.problem(format!("{}: {why}", check.name)),
        }
    }
    cluster.is_sound()
}

async fn look(
    cluster: &mut Cluster,
    client: &Client,
    scene: &Arc<Scene>,
    clients: JoinSet<Result<()>>,
) -> Result<()> {
    cluster.heal().await?;
    if let Err(error) = make_strong(client).await {
        let nodes = Nodes::of(cluster, NAMESPACE, END_LIMIT).await?;
        return Err(error.context(replicas::differences(&nodes).await?));
    }
    scene.stop.store(true, Ordering::Relaxed);
    finish(clients).await?;
    read_everything(cluster, scene).await.context("all is healed")
}

async fn make_strong(client: &Client) -> Result<()> {
    let mut reason = String::new();
    for _ in 0..TRIES_MAX {
        if settled(client, NAMESPACE, END_LIMIT).await?.mode == Mode::Strong {
            return Ok(());
        }
        let begun = begin(client, NAMESPACE, &SwitchOptions::default(), END_LIMIT).await?;
        reason = end_of(client, &begun, END_LIMIT).await?.reason;
    }
    match settled(client, NAMESPACE, END_LIMIT).await?.mode {
        Mode::Strong => Ok(()),
        Mode::Eventual => {
            bail!("{TRIES_MAX} switches to strong were called off though all is healed: {reason}")
        }
    }
}

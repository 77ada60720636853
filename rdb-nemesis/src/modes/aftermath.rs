//! The end of a run over switches: all is healed, the namespace is strong, everything is read at every node, and judged.

use super::elements;
use super::eras;
use super::findings::Findings;
use super::replicas;
use super::stage::{Nodes, Stage, until};
use super::switching::{begin, end_of, settled};
use crate::cluster::{Cluster, NAMESPACE, PATIENCE};
use crate::run::finish;
use crate::workloads::Scene;
use anyhow::{Result, bail};
use rdb_client::{Client, Mode, SwitchOptions};
use std::collections::BTreeSet;
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
/// Of each kind of operation: fewer show nothing.
const DONE_MIN: u64 = 20;

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
    let found = look(cluster, client, scene, clients).await;
    scene.history.write(&stage.folder.join("history.jsonl"))?;
    let entries = scene.history.entries();
    if let Ok(found) = &found {
        findings.expect(elements::check(&entries, found).map(|what| stage.say(&what)));
    }
    findings.expect(eras::strong_eras(&entries, FIRST).map(|what| stage.say(&what)));
    findings.expect(eras::epochs(&entries).map(|what| stage.say(&what)));
    let done = eras::count(&entries, FIRST);
    findings.count("eventual writes", done.eventual_writes);
    findings.count("strong writes", done.strong_writes);
    findings.count("comparisons", done.comparisons);
    findings.count("linearizable reads", done.strong_reads);
    let counts = [done.eventual_writes, done.strong_writes, done.comparisons, done.strong_reads];
    findings.require(counts.iter().all(|count| DONE_MIN <= *count), || {
        format!("vacuous: too little was done of something: {done:?}, of {DONE_MIN} each")
    });
    found?;
    cluster.is_sound()
}

/// Heals all, and returns the keys that every node has in the end.
async fn look(
    cluster: &mut Cluster,
    client: &Client,
    scene: &Arc<Scene>,
    clients: JoinSet<Result<()>>,
) -> Result<BTreeSet<String>> {
    cluster.heal().await?;
    let nodes = Nodes::of(cluster, NAMESPACE, PATIENCE).await?;
    if let Err(error) = make_strong(client).await {
        return Err(error.context(replicas::differences(&nodes).await?));
    }
    scene.stop.store(true, Ordering::Relaxed);
    finish(clients).await?;
    cluster.catch_up().await?;
    elements::read_registers(scene).await?;
    let same = async || replicas::sums(&nodes).await.is_ok_and(|sums| replicas::alike(&sums).is_ok());
    if let Err(error) = until("all nodes have the same records", PATIENCE, same).await {
        return Err(error.context(replicas::differences(&nodes).await?));
    }
    // All are alike: one says it for all.
    replicas::keys(&nodes.at[&1]).await
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

//! The end of a run over switches: all is healed, the namespace is strong, everything is read at every node, and judged.

use super::findings::Findings;
use super::replicas;
use super::stage::{Nodes, Stage, until};
use crate::checks::eras;
use crate::checks::switched::{self as check, DONE_MIN};
use crate::cluster::{Cluster, NAMESPACE, PATIENCE};
use crate::run::finish;
use crate::switching::make_strong;
use crate::workloads::Scene;
use crate::workloads::switched::{FIRST, read_registers};
use anyhow::Result;
use rdb_client::Client;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::task::JoinSet;

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
        findings.expect(check::elements(&entries, 1, found).map(|what| stage.say(&what)));
    }
    findings.expect(eras::strong_eras(&entries, FIRST).map(|what| stage.say(&what)));
    findings.expect(eras::epochs(&entries).map(|what| stage.say(&what)));
    let done = eras::count(&entries, FIRST);
    findings.count("eventual writes", done.eventual_writes);
    findings.count("strong writes", done.strong_writes);
    findings.count("comparisons", done.comparisons);
    findings.count("linearizable reads", done.strong_reads);
    findings.require(!check::is_little(&done), || {
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
    if let Err(error) = make_strong(client, NAMESPACE).await {
        return Err(error.context(replicas::differences(&nodes).await?));
    }
    scene.stop.store(true, Ordering::Relaxed);
    finish(clients).await?;
    cluster.catch_up().await?;
    read_registers(scene).await?;
    let same = async || replicas::sums(&nodes).await.is_ok_and(|sums| replicas::alike(&sums).is_ok());
    if let Err(error) = until("all nodes have the same records", PATIENCE, same).await {
        return Err(error.context(replicas::differences(&nodes).await?));
    }
    // All are alike: one says it for all.
    replicas::keys(&nodes.at[&1]).await
}

//! What the nodes say of themselves while a run lasts: for its pictures. Nothing is judged by it.

use crate::cluster::{Cluster, NAMESPACE, Raw, page};
use crate::history::Seen;
use crate::peek::look_in;
use crate::workloads::{Scene, switched};
use anyhow::Result;
use rdb_proto::v1;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// Between looks.
const INTERVAL: Duration = Duration::from_millis(150);
/// A node that does not answer in this time is away.
const ANSWER_LIMIT: Duration = Duration::from_millis(300);

/// Looks at every node until clients end.
pub(crate) fn start(cluster: &Cluster, scene: &Arc<Scene>, clients: &mut JoinSet<Result<()>>) {
    let ports = cluster.http_ports();
    for (node, raw) in cluster.raws() {
        clients.spawn(watch(scene.clone(), node, raw, ports.get(&node).copied()));
    }
}

async fn watch(scene: Arc<Scene>, node: u64, raw: Raw, port: Option<u16>) -> Result<()> {
    while !scene.is_over() {
        let status = raw.status(ANSWER_LIMIT).await.ok();
        let mut seen = status.map_or_else(|| Seen::away(node), |status| seen_in(node, &status));
        if let Some(port) = port.filter(|_| seen.mode.is_some()) {
            let text = tokio::time::timeout(ANSWER_LIMIT, page(port, "/metrics")).await;
            let look = text.ok().and_then(Result::ok).and_then(|text| look_in(&text));
            seen.lag_ms = look.map(|look| u64::try_from(look.lag.as_millis()).unwrap_or(u64::MAX));
            seen.lag_known = look.is_some_and(|look| look.known);
        }
        scene.history.see(seen);
        sleep(INTERVAL).await;
    }
    Ok(())
}

fn seen_in(node: u64, status: &v1::StatusResponse) -> Seen {
    let named = |name: &str| status.namespaces.iter().find(|namespace| namespace.name == name);
    let region = named(NAMESPACE).and_then(|namespace| namespace.regions.first());
    let term = region.filter(|region| region.leader == node).map(|region| region.term);
    let mode = named(switched::NAMESPACE).map(|namespace| match namespace.mode() {
        v1::Mode::Eventual => "eventual".to_owned(),
        _ => "strong".to_owned(),
    });
    Seen { node, answers: true, leads_in_term: term, mode, lag_ms: None, lag_known: false }
}

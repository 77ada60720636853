//! What the nodes say of themselves while a run lasts, for its pictures, and what they use, which must stay within bounds.

use crate::cluster::{Cluster, Meter, NAMESPACE, Raw, page};
use crate::history::{Seen, Used};
use crate::peek::look_in;
use crate::workloads::{Scene, switched};
use anyhow::Result;
use rdb_proto::v1;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

/// Between looks.
const INTERVAL: Duration = Duration::from_millis(150);
/// Between two measurements of what a node uses.
const MEASURE_INTERVAL: Duration = Duration::from_secs(1);
/// A node that does not answer in this time is away.
const ANSWER_LIMIT: Duration = Duration::from_millis(300);

/// Looks at every node until clients end.
pub(crate) fn start(cluster: &Cluster, scene: &Arc<Scene>, clients: &mut JoinSet<Result<()>>) {
    let (addresses, meters) = (cluster.http_addresses(), cluster.meters());
    for ((node, raw), meter) in cluster.raws().into_iter().zip(meters) {
        clients.spawn(watch(scene.clone(), node, raw, addresses.get(&node).copied(), meter));
    }
}

async fn watch(
    scene: Arc<Scene>,
    node: u64,
    raw: Raw,
    pages: Option<SocketAddr>,
    meter: Meter,
) -> Result<()> {
    let mut measured: Option<Instant> = None;
    while !scene.is_over() {
        let status = raw.status(ANSWER_LIMIT).await.ok();
        let mut seen = status.map_or_else(|| Seen::away(node), |status| seen_in(node, &status));
        if let Some(address) = pages.filter(|_| seen.mode.is_some()) {
            let text = tokio::time::timeout(ANSWER_LIMIT, page(address, "/metrics")).await;
            let look = text.ok().and_then(Result::ok).and_then(|text| look_in(&text));
            seen.lag_ms = look.map(|look| u64::try_from(look.lag.as_millis()).unwrap_or(u64::MAX));
            seen.lag_known = look.is_some_and(|look| look.known);
        }
        if measured.is_none_or(|measured| MEASURE_INTERVAL <= measured.elapsed()) {
            measured = Some(Instant::now());
            seen.used = measure(meter.clone()).await?;
        }
        scene.history.see(seen);
        sleep(INTERVAL).await;
    }
    Ok(())
}

/// In a thread where waiting for a disk keeps nobody else waiting.
async fn measure(meter: Meter) -> Result<Option<Used>> {
    Ok(tokio::task::spawn_blocking(move || meter.read()).await?)
}

fn seen_in(node: u64, status: &v1::StatusResponse) -> Seen {
    let named = |name: &str| status.namespaces.iter().find(|namespace| namespace.name == name);
    let region = named(NAMESPACE).and_then(|namespace| namespace.regions.first());
    let term = region.filter(|region| region.leader == node).map(|region| region.term);
    let mode = named(switched::NAMESPACE).map(|namespace| match namespace.mode() {
        v1::Mode::Eventual => "eventual".to_owned(),
        _ => "strong".to_owned(),
    });
    Seen { node, answers: true, leads_in_term: term, mode, lag_ms: None, lag_known: false, used: None }
}

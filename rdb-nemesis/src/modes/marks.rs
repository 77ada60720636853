//! The true lag, from outside: a mark is written at one node and looked for at the others until they show it.

use super::stage::Nodes;
use anyhow::{Context as _, Result, bail};
use rdb_client::{Consistency, Namespace};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

/// Between marks.
const INTERVAL: Duration = Duration::from_millis(50);
/// Between looks for one: what is measured is too long by as much.
const LOOK_INTERVAL: Duration = Duration::from_millis(1);
/// A mark that is not seen by then is taken for lost.
const LIMIT: Duration = Duration::from_secs(20);

/// Marks one node after the other until it is to stop. Returns, for each mark, the time from the call that wrote it until the
/// last node showed it: the write's own time is within it.
pub(super) async fn watch(nodes: Nodes, stop: Arc<AtomicBool>) -> Result<Vec<Duration>> {
    let mut times = Vec::new();
    let mut number = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        for (node, namespace) in &nodes.at {
            number += 1;
            let key = format!("mark/{number}");
            let called = Instant::now();
            namespace.put(key.clone(), "here").await.with_context(|| format!("no mark at node {node}"))?;
            let mut looking = JoinSet::new();
            for (other, namespace) in nodes.others(*node) {
                looking.spawn(seen(namespace.clone(), other, key.clone(), called));
            }
            let mut longest = Duration::ZERO;
            while let Some(seen) = looking.join_next().await {
                longest = longest.max(seen??);
            }
            times.push(longest);
            sleep_until(called + INTERVAL).await;
        }
    }
    Ok(times)
}

async fn seen(namespace: Namespace, node: u64, key: String, called: Instant) -> Result<Duration> {
    let namespace = namespace.with_consistency(Consistency::Stale { max_age: None });
    loop {
        if namespace.get(key.clone()).await?.is_some() {
            return Ok(called.elapsed());
        }
        if LIMIT < called.elapsed() {
            bail!("node {node} does not show {key} after {LIMIT:?}");
        }
        sleep(LOOK_INTERVAL).await;
    }
}

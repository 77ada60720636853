//! Elements of a set, each under a key of its own: a later write would hide that an earlier one was lost.

use super::cluster::Cluster;
use super::{PATIENCE, until};
use rdb_client::{Client, Consistency, Namespace, Options, ScanOptions};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::task::JoinHandle;

/// A client of one node, which asks no other while reads are local.
pub async fn at(cluster: &Cluster, node: u64, namespace: &str) -> Namespace {
    let address = cluster.node(node).address();
    let options = Options { connect_patience: PATIENCE, ..Options::new([address.clone()]) };
    Client::connect(options).await.unwrap().namespace_at(namespace, &address).unwrap()
}

/// Writes elements until it is told to stop. Gives those that were acknowledged.
pub struct Writer {
    stop: Arc<AtomicBool>,
    acknowledged: JoinHandle<BTreeSet<String>>,
}

impl Writer {
    fn start(namespace: Namespace, name: String) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let acknowledged = tokio::spawn(async move {
            let mut acknowledged = BTreeSet::new();
            for number in 0.. {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                let key = format!("{name}-{number:06}");
                match namespace.put(key.clone(), "x").await {
                    Ok(_) => drop(acknowledged.insert(key)),
                    Err(error) => eprintln!("{key}: {error}"),
                }
            }
            acknowledged
        });
        Self { stop, acknowledged }
    }

    async fn stop(self) -> BTreeSet<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.acknowledged.await.unwrap()
    }
}

/// One that knows each of these nodes and no other; elements are named after `name` and the node.
pub async fn writers(cluster: &Cluster, namespace: &str, name: &str, nodes: &[u64]) -> Vec<Writer> {
    let mut writers = Vec::new();
    for node in nodes {
        let options = Options { connect_patience: PATIENCE, ..Options::new([cluster.node(*node).address()]) };
        let client = Client::connect(options).await.unwrap();
        writers.push(Writer::start(client.namespace(namespace), format!("{name}{node}")));
    }
    writers
}

/// All that they had acknowledged.
pub async fn stop(writers: Vec<Writer>) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for writer in writers {
        all.extend(writer.stop().await);
    }
    all
}

/// All keys that a node has.
pub async fn keys(cluster: &Cluster, node: u64, namespace: &str) -> Option<BTreeSet<String>> {
    let namespace = at(cluster, node, namespace).await.with_consistency(Consistency::Stale { max_age: None });
    let mut scan = namespace.scan(ScanOptions::default());
    let mut found = BTreeSet::new();
    while let Some(record) = scan.next().await.ok()? {
        found.insert(String::from_utf8(record.key.to_vec()).unwrap());
    }
    Some(found)
}

/// Waits until every node has all of these.
pub async fn everywhere(cluster: &Cluster, namespace: &str, expected: &BTreeSet<String>) {
    for node in cluster.ids() {
        until("every node has all that was acknowledged", async || {
            let found = keys(cluster, node, namespace).await?;
            let missing = expected.difference(&found).take(3).collect::<Vec<_>>();
            if !missing.is_empty() {
                eprintln!("node {node} lacks {missing:?} and maybe more");
            }
            missing.is_empty().then_some(())
        })
        .await;
    }
}

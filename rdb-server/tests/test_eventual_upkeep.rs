//! What eventual namespaces do besides taking writes, on real processes: losses become certain and come to the same number
//! everywhere, and deletions are forgotten when everybody has them, and not before.

use crate::support;
use crate::support::proxy::Wire;
use crate::support::{Cluster, Settings, until};
use rdb_client::{Client, Mode, Namespace, Options};

const NAMESPACE: &str = "carts";
const LOST: &str = "flaredb_lww_conflicts";
const CERTAIN: &str = "flaredb_lww_conflicts_certain";
const PURGED: &str = "flaredb_tombstones_purged";
/// By then each node has looked several times what there is to be done.
const SILENCE_MS: u64 = 4000;

/// A client of one node, which asks no other.
async fn at(cluster: &Cluster, node: u64) -> Namespace {
    let address = cluster.node(node).address();
    let options = Options { connect_patience: support::PATIENCE, ..Options::new([address.clone()]) };
    Client::connect(options).await.unwrap().namespace_at(NAMESPACE, &address).unwrap()
}

async fn start() -> (Cluster, u64) {
    let options = "tombstone_grace_seconds = 0".to_owned();
    let cluster = Cluster::start(Settings { wires: true, options, ..Settings::default() }).await;
    cluster.client().await.create_namespace(NAMESPACE, Mode::Eventual).await.unwrap();
    for node in cluster.ids() {
        until("every node has the namespace", async || at(&cluster, node).await.get("nothing").await.ok())
            .await;
    }
    let region = until("the region is known", async || Some(cluster.region(1, NAMESPACE).await?.id)).await;
    (cluster, region)
}

async fn all_show(cluster: &Cluster, region: u64, metric: &str, number: u64) {
    for node in cluster.ids() {
        let what = format!("node {node} shows {number} as {metric}");
        until(&what, async || {
            cluster.node(node).metric(metric, region).await.filter(|shown| *shown == number)
        })
        .await;
    }
}

async fn all_have(cluster: &Cluster, key: &str, value: Option<&str>) {
    for node in cluster.ids() {
        until("every node has it", async || {
            let record = at(cluster, node).await.get(key.to_owned()).await.ok()?;
            (record.as_ref().map(|record| &record.value[..]) == value.map(str::as_bytes)).then_some(())
        })
        .await;
    }
}

/// Node 1 notices that others are away, and looks a few more times what there is to be done.
async fn is_silent_for_long(cluster: &Cluster, region: u64) {
    until("a node was silent for some seconds", async || {
        cluster.node(1).metric("flaredb_eventual_lag_ms", region).await.filter(|lag_ms| SILENCE_MS <= *lag_ms)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn losses_become_certain_and_every_node_counts_the_same() {
    let (cluster, region) = start().await;
    let (one, three) = (at(&cluster, 1).await, at(&cluster, 3).await);
    one.put("replaced", "before").await.unwrap();
    all_have(&cluster, "replaced", Some("before")).await;
    cluster.isolate(3, Wire::Silent);
    for number in 0..10 {
        let key = format!("key {number}");
        one.put(key.clone(), "one").await.unwrap();
        // What the same node has written over is not lost.
        three.put(key.clone(), "three, first").await.unwrap();
        three.put(key, "three").await.unwrap();
    }
    three.put("replaced", "after").await.unwrap();
    cluster.isolate(3, Wire::Whole);
    all_have(&cluster, "key 9", Some("three")).await;
    all_show(&cluster, region, LOST, 10).await;
    all_show(&cluster, region, CERTAIN, 10).await;
    all_show(&cluster, region, LOST, 10).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deletions_are_forgotten_when_all_have_them_and_not_while_one_is_away() {
    let (mut cluster, region) = start().await;
    let one = at(&cluster, 1).await;
    for number in 0..20 {
        one.put(format!("key {number}"), "value").await.unwrap();
    }
    all_have(&cluster, "key 19", Some("value")).await;
    cluster.isolate(3, Wire::Silent);
    for number in 0..20 {
        one.delete(format!("key {number}")).await.unwrap();
    }
    is_silent_for_long(&cluster, region).await;
    for node in [1, 2] {
        assert_eq!(cluster.node(node).metric(PURGED, region).await, Some(0), "node 3 has not got them");
    }
    cluster.isolate(3, Wire::Whole);
    all_show(&cluster, region, PURGED, 20).await;
    // They do not come back, and a key that was deleted is one like any other.
    at(&cluster, 3).await.put("key 7", "again").await.unwrap();
    all_have(&cluster, "key 7", Some("again")).await;
    all_have(&cluster, "key 8", None).await;
    cluster.kill(2);
    cluster.restart(2).await;
    all_have(&cluster, "key 7", Some("again")).await;
    all_have(&cluster, "key 8", None).await;
}

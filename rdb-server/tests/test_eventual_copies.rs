//! Members for which logs would grow without end, on real processes: a node that is away too long is given up, takes a copy of the
//! data when it is back, and has lost nothing that it wrote itself. And replicas that differ, since one was damaged: that is noticed
//! and mended.

use crate::support;
use crate::support::proxy::Wire;
use crate::support::{Cluster, Settings, until};
use rdb_client::{Client, Mode, Namespace, Options, ScanOptions, SwitchOptions};
use rdb_core::eventual::machine::Changes;
use rdb_core::ids::{NamespaceId, NodeId, RegionId};
use rdb_storage::{Engine, EngineOptions, Expected};
use std::collections::BTreeMap;

const NAMESPACE: &str = "carts";
/// The least that is allowed.
const CAP_BYTES: u64 = 256 << 10;
const VALUE_BYTES: usize = 4 << 10;
/// So many values are more than twice the cap.
const VALUES: u64 = 150;

const GIVEN_UP: &str = "flaredb_eventual_peers_given_up";
const LOG_BYTES: &str = "flaredb_eventual_log_bytes";
const CERTAIN: &str = "flaredb_lww_conflicts_certain";
const LOST: &str = "flaredb_lww_conflicts";
const PURGED: &str = "flaredb_tombstones_purged";
const DIVERGENT: &str = "flaredb_eventual_divergent_buckets";
const REPAIRED: &str = "flaredb_eventual_records_repaired";

/// A client of one node, which asks no other.
async fn at(cluster: &Cluster, node: u64) -> Namespace {
    let address = cluster.node(node).address();
    let options = Options { connect_patience: support::PATIENCE, ..Options::new([address.clone()]) };
    Client::connect(options).await.unwrap().namespace_at(NAMESPACE, &address).unwrap()
}

async fn start() -> (Cluster, Client, u64) {
    let options = format!(
        "tombstone_grace_seconds = 0\neventual_log_bytes_max = {CAP_BYTES}\neventual_compare_seconds = 1"
    );
    let cluster = Cluster::start(Settings { wires: true, options, ..Settings::default() }).await;
    let client = cluster.client().await;
    client.create_namespace(NAMESPACE, Mode::Eventual).await.unwrap();
    for node in cluster.ids() {
        until("every node has the namespace", async || at(&cluster, node).await.get("nothing").await.ok())
            .await;
    }
    let region = until("the region is known", async || Some(cluster.region(1, NAMESPACE).await?.id)).await;
    (cluster, client, region)
}

async fn shows(cluster: &Cluster, node: u64, region: u64, metric: &str, is_it: impl Fn(u64) -> bool) -> u64 {
    let what = format!("node {node} shows what is waited for as {metric}");
    until(&what, async || cluster.node(node).metric(metric, region).await.filter(|shown| is_it(*shown))).await
}

async fn fill(namespace: &Namespace, name: &str) {
    for number in 0..VALUES {
        namespace.put(format!("{name}-{number:04}"), vec![b'x'; VALUE_BYTES]).await.unwrap();
    }
}

/// Waits until the others have given node 3 up, and have dropped what it lacks: before that their logs may still bring it.
async fn is_given_up(cluster: &Cluster, region: u64) {
    for node in [1, 2] {
        shows(cluster, node, region, GIVEN_UP, |given_up| given_up == 1).await;
        shows(cluster, node, region, LOG_BYTES, |bytes| bytes < 2 * CAP_BYTES).await;
    }
}

/// Brings node 3 back to the others, and nothing that was under way to it when it was cut off: with that, it might need no copy.
fn bring_back(cluster: &Cluster) {
    cluster.isolate(3, Wire::Closed);
    cluster.isolate(3, Wire::Whole);
}

/// All that a node shows.
async fn everything(cluster: &Cluster, node: u64) -> Option<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut scan = at(cluster, node).await.scan(ScanOptions::default());
    let mut found = BTreeMap::new();
    while let Some(record) = scan.next().await.ok()? {
        found.insert(record.key.to_vec(), record.value.to_vec());
    }
    Some(found)
}

/// Waits until all nodes show the same; and nobody is given up.
async fn all_show_the_same(cluster: &Cluster, region: u64, keys: usize) -> BTreeMap<Vec<u8>, Vec<u8>> {
    for node in cluster.ids() {
        shows(cluster, node, region, GIVEN_UP, |given_up| given_up == 0).await;
        shows(cluster, node, region, "flaredb_eventual_peers_behind", |behind| behind == 0).await;
    }
    let first =
        until("node 1 has all", async || everything(cluster, 1).await.filter(|found| found.len() == keys))
            .await;
    for node in cluster.others(&[1]) {
        until("all nodes show the same", async || {
            everything(cluster, node).await.filter(|found| *found == first)
        })
        .await;
    }
    first
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_away_too_long_takes_a_copy_and_keeps_what_it_wrote() {
    let (cluster, client, region) = start().await;
    let (one, three) = (at(&cluster, 1).await, at(&cluster, 3).await);
    one.put("deleted", "before").await.unwrap();
    until("node 3 has it", async || three.get("deleted").await.ok().flatten()).await;
    cluster.isolate(3, Wire::Silent);
    for number in 0..10 {
        // One of them stays, and the other one is lost.
        three.put(format!("both-{number}"), "three").await.unwrap();
        one.put(format!("both-{number}"), "one").await.unwrap();
        three.put(format!("own-{number}"), "three").await.unwrap();
    }
    one.delete("deleted").await.unwrap();
    fill(&one, "away").await;
    is_given_up(&cluster, region).await;
    for node in [1, 2] {
        assert_eq!(
            cluster.node(node).metric(PURGED, region).await,
            Some(0),
            "it would come back with node 3"
        );
    }
    bring_back(&cluster);
    let keys = usize::try_from(VALUES).unwrap() + 20;
    let found = all_show_the_same(&cluster, region, keys).await;
    for number in 0..10 {
        assert!([&b"one"[..], b"three"].contains(&&found[format!("both-{number}").as_bytes()][..]));
        assert_eq!(found[format!("own-{number}").as_bytes()], b"three");
    }
    assert!(cluster.node(3).said().contains("the copy is merged"));
    for node in cluster.ids() {
        shows(&cluster, node, region, CERTAIN, |certain| certain == 10).await;
        shows(&cluster, node, region, LOST, |lost| lost == 10).await;
        shows(&cluster, node, region, PURGED, |purged| purged == 1).await;
        assert_eq!(cluster.node(node).metric(DIVERGENT, region).await, Some(0));
    }
    let end = client.switch_mode(NAMESPACE, Mode::Strong, &SwitchOptions::default()).await.unwrap();
    let end = client.wait_for_switch(&end, |status| eprintln!("{:?}", status.blockers)).await.unwrap();
    assert!(end.completed, "{end:?}");
    assert_eq!(everything(&cluster, 3).await.map(|found| found.len()), Some(keys));
}

/// A minority keeps all that it writes, whatever its logs come to: nobody else has it. And it is killed while it takes its copy.
#[tokio::test(flavor = "multi_thread")]
async fn a_minority_keeps_what_nobody_else_has_and_takes_a_copy_of_the_rest() {
    let (mut cluster, _, region) = start().await;
    let (one, three) = (at(&cluster, 1).await, at(&cluster, 3).await);
    cluster.isolate(3, Wire::Silent);
    for number in 0..10 {
        one.put(format!("both-{number}"), "one").await.unwrap();
        three.put(format!("both-{number}"), "three").await.unwrap();
    }
    fill(&one, "one").await;
    fill(&three, "three").await;
    is_given_up(&cluster, region).await;
    shows(&cluster, 3, region, LOG_BYTES, |bytes| 2 * CAP_BYTES < bytes).await;
    assert_eq!(cluster.node(3).metric(GIVEN_UP, region).await, Some(0));
    bring_back(&cluster);
    until("node 3 takes a copy", async || cluster.node(3).said().contains("takes a copy").then_some(()))
        .await;
    cluster.kill(3);
    cluster.restart(3).await;
    all_show_the_same(&cluster, region, 2 * usize::try_from(VALUES).unwrap() + 10).await;
    for node in cluster.ids() {
        shows(&cluster, node, region, CERTAIN, |certain| certain == 10).await;
        shows(&cluster, node, region, LOST, |lost| lost == 10).await;
    }
    // What was put aside is gone, and a start finds nothing amiss.
    for node in [1, 3] {
        cluster.kill(node);
        cluster.restart(node).await;
    }
    all_show_the_same(&cluster, region, 2 * usize::try_from(VALUES).unwrap() + 10).await;
}

/// Takes a record away from a node that is down.
fn damage(cluster: &Cluster, node: u64, key: &str, (region, namespace): (RegionId, NamespaceId)) {
    let expected = Expected { cluster_id: "test".to_owned(), node_id: NodeId(node) };
    let engine = Engine::open(cluster.data(node), &expected, &EngineOptions::default()).unwrap();
    let data = engine.data();
    assert!(data.get(namespace, key.as_bytes()).unwrap().is_some(), "the record was there");
    let state = data.eventual_state(region).unwrap().unwrap();
    let records = vec![(key.as_bytes().to_vec(), None)];
    let changes = Changes { records, notes: Vec::new(), state: state.encode() };
    data.apply_eventual(region, namespace, &changes, (state.era, &state.applied)).unwrap();
    data.flush().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_a_replica_has_lost_is_missed_and_mended() {
    let (mut cluster, _, region) = start().await;
    let one = at(&cluster, 1).await;
    for number in 0..20 {
        one.put(format!("key-{number}"), "value").await.unwrap();
    }
    all_show_the_same(&cluster, region, 20).await;
    let namespace = until("the namespace's number is known", async || {
        let status = cluster.node(1).raw().status().await.ok()?;
        status.namespaces.into_iter().find(|known| known.name == NAMESPACE).map(|known| known.id)
    })
    .await;
    cluster.stop(2);
    damage(&cluster, 2, "key-7", (RegionId(region), NamespaceId(namespace)));
    cluster.restart(2).await;
    // Something changes, so that there is something to compare.
    one.put("key-0", "changed").await.unwrap();
    shows(&cluster, 2, region, REPAIRED, |repaired| repaired == 1).await;
    let found = all_show_the_same(&cluster, region, 20).await;
    assert_eq!(found[&b"key-7"[..]], b"value");
    for node in cluster.ids() {
        shows(&cluster, node, region, DIVERGENT, |buckets| buckets == 0).await;
    }
    assert!(cluster.node(2).said().contains("hold different records"), "there was an alarm");
}

//! Eventual namespaces on real processes: every node takes writes, also alone; what was acknowledged is never lost; and all come to
//! the same records.

use crate::support;
use crate::support::proxy::Wire;
use crate::support::{Cluster, Settings, until};
use rdb_client::{
    CasOutcome, Client, Consistency, Error, Expect, Mode, Namespace, Options, Record, ScanOptions, WriteError,
};
use rdb_proto::v1;
use std::collections::BTreeMap;

const NAMESPACE: &str = "carts";

/// A client of one node, which asks no other.
async fn at(cluster: &Cluster, node: u64) -> Namespace {
    let address = cluster.node(node).address();
    let options = Options { connect_patience: support::PATIENCE, ..Options::new([address.clone()]) };
    Client::connect(options).await.unwrap().namespace_at(NAMESPACE, &address).unwrap()
}

async fn create(cluster: &Cluster) {
    cluster.client().await.create_namespace(NAMESPACE, Mode::Eventual).await.unwrap();
    for node in cluster.ids() {
        until("every node has the namespace", async || at(cluster, node).await.get("nothing").await.ok())
            .await;
    }
}

/// All that a node has.
async fn all(cluster: &Cluster, node: u64) -> Option<BTreeMap<Vec<u8>, Record>> {
    let mut scan = at(cluster, node).await.scan(ScanOptions::default());
    let mut found = BTreeMap::new();
    while let Some(record) = scan.next().await.ok()? {
        found.insert(record.key.to_vec(), record);
    }
    Some(found)
}

/// Waits until these nodes have the same records, so many of them. Returns them.
async fn converged(cluster: &Cluster, nodes: &[u64], count: usize) -> BTreeMap<Vec<u8>, Record> {
    until("all have the same records", async || {
        let first = all(cluster, nodes[0]).await.filter(|records| records.len() == count)?;
        for node in &nodes[1..] {
            if all(cluster, *node).await? != first {
                return None;
            }
        }
        Some(first)
    })
    .await
}

fn key(node: u64, number: u64) -> String {
    format!("{node}-{number:05}")
}

async fn put_range(namespace: &Namespace, node: u64, numbers: std::ops::Range<u64>) {
    let puts = numbers.map(|number| namespace.put(key(node, number), format!("value {number}")));
    let mut under_way = Vec::new();
    for put in puts {
        under_way.push(put);
    }
    for put in under_way {
        put.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_node_takes_writes_and_all_come_to_the_same_records() {
    let cluster = Cluster::of_three().await;
    create(&cluster).await;
    for node in cluster.ids() {
        let namespace = at(&cluster, node).await;
        put_range(&namespace, node, 0..50).await;
        namespace.put("contended", format!("{node}")).await.unwrap();
        namespace.delete(key(node, 7)).await.unwrap();
        // What a node has acknowledged it shows.
        assert_eq!(namespace.get(key(node, 7)).await.unwrap(), None);
        assert_eq!(namespace.get(key(node, 8)).await.unwrap().unwrap().value, "value 8");
    }
    let records = converged(&cluster, &[1, 2, 3], 3 * 49 + 1).await;
    let contended = &records[&b"contended"[..]];
    assert_eq!(contended.version.node.to_string().as_bytes(), &contended.value[..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_strong_mode_has_is_refused_and_changes_nothing() {
    let cluster = Cluster::of_three().await;
    create(&cluster).await;
    let namespace = at(&cluster, 1).await;
    namespace.put("key", "before").await.unwrap();
    let refused = |error: Error| match error {
        Error::Refused(refusal) => assert_eq!(refusal.code, v1::Code::RequiresStrong, "{refusal:?}"),
        other => panic!("{other}"),
    };
    let not_done = |error: WriteError| match error {
        WriteError::NotDone(error) => refused(error),
        WriteError::InDoubt(error) | WriteError::DoneHere(_, error) => panic!("{error}"),
    };
    let swap: Result<CasOutcome, _> =
        namespace.compare_and_swap("key", Expect::Present, Some("after".into())).await;
    not_done(swap.unwrap_err());
    not_done(namespace.delete_prefix("k").await.unwrap_err());
    let raw = cluster.node(2).raw();
    for consistency in [v1::Consistency::Linearizable, v1::Consistency::Lease] {
        let get = v1::GetRequest {
            namespace: NAMESPACE.to_owned(),
            get: Some(v1::Get { key: "key".into() }),
            consistency: consistency.into(),
            ..v1::GetRequest::default()
        };
        let refused = raw.kv.clone().get(get).await.unwrap_err();
        assert!(refused.message().contains("eventual"), "{refused}");
    }
    refused(namespace.clone().with_consistency(Consistency::Linearizable).get("key").await.unwrap_err());
    let record = namespace.get("key").await.unwrap().unwrap();
    assert_eq!(record.value, "before", "the default of the mode");
    converged(&cluster, &[1, 2, 3], 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_away_catches_up_and_everything_outlives_a_kill_of_all() {
    let mut cluster = Cluster::of_three().await;
    create(&cluster).await;
    put_range(&at(&cluster, 3).await, 3, 0..20).await;
    converged(&cluster, &[1, 2, 3], 20).await;
    cluster.kill(3);
    put_range(&at(&cluster, 1).await, 1, 0..300).await;
    cluster.kill(2);
    // One of three goes on alone.
    put_range(&at(&cluster, 1).await, 1, 300..400).await;
    cluster.restart(3).await;
    converged(&cluster, &[1, 3], 420).await;
    put_range(&at(&cluster, 3).await, 3, 20..40).await;
    cluster.kill(1);
    cluster.kill(3);
    cluster.launch_all().await;
    let records = converged(&cluster, &[1, 2, 3], 440).await;
    assert!((0..400).all(|number| records.contains_key(key(1, number).as_bytes())));
    // A node that has started again counts on, and nothing of what it writes is taken for what it wrote before.
    put_range(&at(&cluster, 1).await, 1, 400..450).await;
    converged(&cluster, &[1, 2, 3], 490).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_sides_of_a_cut_take_writes_and_converge_when_it_heals() {
    let cluster = Cluster::start(Settings { wires: true, ..Settings::default() }).await;
    create(&cluster).await;
    at(&cluster, 1).await.put("contended", "before").await.unwrap();
    converged(&cluster, &[1, 2, 3], 1).await;
    cluster.isolate(3, Wire::Silent);
    for node in cluster.ids() {
        let namespace = at(&cluster, node).await;
        put_range(&namespace, node, 0..100).await;
        namespace.put("contended", format!("{node}")).await.unwrap();
    }
    converged(&cluster, &[1, 2], 201).await;
    assert_eq!(all(&cluster, 3).await.unwrap().len(), 101);
    cluster.isolate(3, Wire::Whole);
    let records = converged(&cluster, &[1, 2, 3], 301).await;
    assert_eq!(records[&b"contended"[..]].value, "3", "it wrote last");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_node_wrote_is_sent_on_by_who_has_it() {
    let mut cluster = Cluster::start(Settings { wires: true, ..Settings::default() }).await;
    create(&cluster).await;
    cluster.wire(1, 3, Wire::Silent);
    cluster.wire(3, 1, Wire::Silent);
    put_range(&at(&cluster, 1).await, 1, 0..100).await;
    until("node 2 has it", async || all(&cluster, 2).await.filter(|records| records.len() == 100)).await;
    cluster.kill(1);
    converged(&cluster, &[2, 3], 100).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_namespace_leaves_nothing_to_the_next_one_of_its_name() {
    let cluster = Cluster::of_three().await;
    create(&cluster).await;
    put_range(&at(&cluster, 1).await, 1, 0..50).await;
    let client = cluster.client().await;
    client.delete_namespace(NAMESPACE).await.unwrap();
    create(&cluster).await;
    put_range(&at(&cluster, 2).await, 2, 0..5).await;
    converged(&cluster, &[1, 2, 3], 5).await;
}

//! Lost writes that a namespace keeps, on real processes: what is listed is what was lost and nothing else, on every node, also
//! after a restart and a switch of mode; and it goes when its time is over, and is counted all the same.

use crate::support;
use crate::support::proxy::Wire;
use crate::support::{Cluster, Settings, until};
use rdb_client::{
    Bytes, Client, LostWrite, Mode, Namespace, NamespaceSettings, Options, SwitchOptions, Version,
};
use std::collections::BTreeMap;

const NAMESPACE: &str = "carts";
const CERTAIN: &str = "flaredb_lww_conflicts_certain";
const BYTES: &str = "flaredb_lost_kept_bytes";
const CONFLICTS: usize = 10;

/// A client of one node, which asks no other.
async fn client_at(cluster: &Cluster, node: u64) -> Client {
    let address = cluster.node(node).address();
    let options = Options { connect_patience: support::PATIENCE, ..Options::new([address]) };
    Client::connect(options).await.unwrap()
}

async fn at(cluster: &Cluster, node: u64) -> Namespace {
    client_at(cluster, node).await.namespace_at(NAMESPACE, &cluster.node(node).address()).unwrap()
}

async fn start(keep_lost_seconds: u64) -> (Cluster, u64) {
    let cluster = Cluster::start(Settings { wires: true, ..Settings::default() }).await;
    let settings = NamespaceSettings { keep_lost_seconds, ..NamespaceSettings::default() };
    let client = cluster.client().await;
    let created = client.create_namespace_with(NAMESPACE, Mode::Eventual, settings).await.unwrap();
    assert_eq!(created.keep_lost_seconds, keep_lost_seconds);
    for node in cluster.ids() {
        until("every node has the namespace", async || at(&cluster, node).await.get("nothing").await.ok())
            .await;
    }
    let region = until("the region is known", async || Some(cluster.region(1, NAMESPACE).await?.id)).await;
    (cluster, region)
}

/// What a node lists, by key, of keys with this prefix; a few at a time.
async fn listed(cluster: &Cluster, node: u64, prefix: &str) -> Vec<LostWrite> {
    let (client, address) = (client_at(cluster, node).await, cluster.node(node).address());
    let (prefix, mut after, mut writes) = (Bytes::from(prefix.to_owned()), None::<Bytes>, Vec::new());
    loop {
        let page = client.conflicts_at(&address, NAMESPACE, &prefix, after.as_ref(), 3).await.unwrap();
        assert_eq!(page.node, node);
        writes.extend(page.writes);
        let Some(next) = page.next else { return writes };
        after = Some(next);
    }
}

async fn all_list(cluster: &Cluster, count: usize, settled: bool) -> Vec<LostWrite> {
    let mut writes = Vec::new();
    for node in cluster.ids() {
        let what = format!("node {node} lists {count} lost writes, settled: {settled}");
        writes = until(&what, async || {
            let writes = listed(cluster, node, "").await;
            let fits = writes.len() == count && writes.iter().all(|write| write.settled == settled);
            fits.then_some(writes)
        })
        .await;
    }
    writes
}

/// Keys on which node 1 loses against node 3, one that node 3 has replaced, and one that node 1 deletes in vain. Returns the
/// versions that are lost.
async fn conflict(cluster: &Cluster) -> BTreeMap<Bytes, Version> {
    let (one, three) = (at(cluster, 1).await, at(cluster, 3).await);
    one.put("replaced", "before").await.unwrap();
    until("node 3 has it", async || three.get("replaced").await.unwrap()).await;
    cluster.isolate(3, Wire::Silent);
    let mut lost = BTreeMap::new();
    for number in 0..CONFLICTS {
        let key = Bytes::from(format!("key {number}"));
        lost.insert(key.clone(), one.put(key.clone(), format!("one {number}")).await.unwrap().version);
        three.put(key.clone(), "three, first").await.unwrap();
        three.put(key, "three").await.unwrap();
    }
    lost.insert("gone".into(), one.delete("gone").await.unwrap().version);
    three.put("gone", "three").await.unwrap();
    three.put("replaced", "after").await.unwrap();
    cluster.isolate(3, Wire::Whole);
    lost
}

#[tokio::test(flavor = "multi_thread")]
async fn every_node_lists_what_was_lost_with_what_displaced_it() {
    let (mut cluster, region) = start(3600).await;
    let lost = conflict(&cluster).await;
    let writes = all_list(&cluster, CONFLICTS + 1, true).await;
    let found: BTreeMap<Bytes, Version> =
        writes.iter().map(|write| (write.key.clone(), write.version)).collect();
    assert_eq!(found, lost);
    for write in &writes {
        let record = at(&cluster, 2).await.get(write.key.clone()).await.unwrap().unwrap();
        assert_eq!((write.displaced_by, &record.value[..]), (record.version, &b"three"[..]), "{write:?}");
        let number = write.key.strip_prefix(b"key ").map(|number| [b"one ", number].concat());
        assert_eq!(write.value.as_deref(), number.as_deref(), "{write:?}");
    }
    assert_eq!(listed(&cluster, 2, "key").await.len(), CONFLICTS);
    assert_eq!(listed(&cluster, 2, "gone").await.len(), 1);
    assert!(listed(&cluster, 2, "replaced").await.is_empty());
    assert!(cluster.node(1).metric(BYTES, region).await.is_some_and(|bytes| 0 < bytes));
    // Neither a restart nor a switch of mode makes any difference.
    cluster.kill(2);
    cluster.restart(2).await;
    all_list(&cluster, CONFLICTS + 1, true).await;
    let client = cluster.client().await;
    client.switch_mode(NAMESPACE, Mode::Strong, &SwitchOptions::default()).await.unwrap();
    until("it is strong", async || {
        let status = client.switch_status(NAMESPACE).await.ok()?;
        (status.mode == Mode::Strong && status.to.is_none()).then_some(())
    })
    .await;
    let strong = all_list(&cluster, CONFLICTS + 1, true).await;
    let values = |writes: &[LostWrite]| -> Vec<_> {
        writes.iter().map(|write| (write.key.clone(), write.version, write.value.clone())).collect()
    };
    assert_eq!(values(&strong), values(&writes));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_goes_when_its_time_is_over_and_is_counted_all_the_same() {
    let (cluster, region) = start(2).await;
    conflict(&cluster).await;
    let certain = CONFLICTS as u64 + 1;
    for node in cluster.ids() {
        until("all losses are certain", async || {
            cluster.node(node).metric(CERTAIN, region).await.filter(|shown| *shown == certain)
        })
        .await;
    }
    all_list(&cluster, 0, true).await;
    for node in cluster.ids() {
        assert_eq!(cluster.node(node).metric(CERTAIN, region).await, Some(certain));
        until("nothing is kept", async || {
            cluster.node(node).metric(BYTES, region).await.filter(|bytes| *bytes == 0)
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_strong_mode_too_what_is_kept_goes_when_its_time_is_over() {
    let (cluster, _) = start(20).await;
    conflict(&cluster).await;
    all_list(&cluster, CONFLICTS + 1, true).await;
    let client = cluster.client().await;
    client.switch_mode(NAMESPACE, Mode::Strong, &SwitchOptions::default()).await.unwrap();
    all_list(&cluster, 0, true).await;
    assert_eq!(client.switch_status(NAMESPACE).await.unwrap().mode, Mode::Strong);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_does_not_ask_for_it_keeps_nothing() {
    let (cluster, region) = start(0).await;
    conflict(&cluster).await;
    until("all losses are certain", async || {
        cluster.node(2).metric(CERTAIN, region).await.filter(|shown| *shown == CONFLICTS as u64 + 1)
    })
    .await;
    all_list(&cluster, 0, true).await;
    assert_eq!(cluster.node(2).metric(BYTES, region).await, Some(0));
}

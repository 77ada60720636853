//! Durability `periodic` on real processes: writes are shown and acknowledged before they are synced, with far fewer syncs; they
//! come to every node, and no switch of mode and no restart that leaves the disk alone loses one. What a session has seen and no
//! node will ever have is told.

use crate::support;
use crate::support::{Cluster, Settings, until};
use rdb_client::{
    Acks, Client, Consistency, Durability, Mode, Namespace, NamespaceSettings, Options, SwitchOptions,
};
use rdb_proto::session::Token;
use rdb_proto::v1;
use std::collections::BTreeSet;

const WRITES: u64 = 400;
const SYNCS: &str = "flaredb_log_syncs";

async fn at(cluster: &Cluster, node: u64, name: &str) -> Namespace {
    let address = cluster.node(node).address();
    let options = Options { connect_patience: support::PATIENCE, ..Options::new([address.clone()]) };
    Client::connect(options).await.unwrap().namespace_at(name, &address).unwrap()
}

async fn create(cluster: &Cluster, name: &str, durability: Durability) {
    let settings = NamespaceSettings { durability, ..NamespaceSettings::default() };
    let client = cluster.client().await;
    let created = client.create_namespace_with(name, Mode::Eventual, settings).await.unwrap();
    assert_eq!(created.durability, durability);
    for node in cluster.ids() {
        until("every node has the namespace", async || {
            at(cluster, node, name).await.get("nothing").await.ok()
        })
        .await;
    }
}

fn key(number: u64) -> String {
    format!("key {number:05}")
}

/// One after the other. How many syncs that took.
async fn put_all(cluster: &Cluster, node: u64, name: &str) -> u64 {
    let namespace = at(cluster, node, name).await;
    let before = cluster.node(node).gauge(SYNCS).await.unwrap();
    for number in 0..WRITES {
        namespace.put(key(number), format!("{number}")).await.unwrap();
        // What is acknowledged is shown.
        assert!(namespace.get(key(number)).await.unwrap().is_some());
    }
    cluster.node(node).gauge(SYNCS).await.unwrap() - before
}

async fn have_all(cluster: &Cluster, name: &str) {
    for node in cluster.ids() {
        until("every node has all writes", async || {
            let found = at(cluster, node, name).await.count(Default::default()).await.ok()?;
            (found == WRITES).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_are_acknowledged_before_they_are_synced_and_come_to_all() {
    let cluster = Cluster::of_three().await;
    create(&cluster, "sync", Durability::Sync).await;
    create(&cluster, "periodic", Durability::Periodic).await;
    let synced = put_all(&cluster, 1, "sync").await;
    have_all(&cluster, "sync").await;
    let periodic = put_all(&cluster, 1, "periodic").await;
    assert!(WRITES <= synced, "{synced} syncs of {WRITES} writes, each of which waits for one");
    assert!(periodic < WRITES / 4, "{periodic} syncs of {WRITES} writes");
    have_all(&cluster, "periodic").await;
    // Who asks for more waits for the sync, and for the others.
    for acks in [Acks::Quorum, Acks::All] {
        let namespace = at(&cluster, 2, "periodic").await.with_acks(acks);
        namespace.put("acknowledged", format!("{acks:?}")).await.unwrap();
    }
    for node in cluster.ids() {
        let record = at(&cluster, node, "periodic").await.get("acknowledged").await.unwrap();
        assert_eq!(record.unwrap().value, "All", "all had it when it was answered");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_a_switch_nor_a_stop_loses_a_write() {
    let mut cluster = Cluster::of_three().await;
    create(&cluster, "carts", Durability::Periodic).await;
    let client = cluster.client().await;
    let writers = async {
        let mut acknowledged = BTreeSet::new();
        // Of all nodes: one that does not lead refuses what comes after the last switch, and each write would wait for that to end.
        let namespace = client.namespace("carts");
        for number in 0..WRITES {
            if namespace.put(key(number), "value").await.is_ok() {
                acknowledged.insert(key(number));
            }
        }
        acknowledged
    };
    let switch = async {
        for mode in [Mode::Strong, Mode::Eventual, Mode::Strong] {
            // A region that has just been made may have no leader yet.
            until("the switch begins", async || {
                client.switch_mode("carts", mode, &SwitchOptions::default()).await.ok()
            })
            .await;
            until("the switch has ended", async || {
                let status = client.switch_status("carts").await.ok()?;
                (status.mode == mode && status.to.is_none()).then_some(())
            })
            .await;
        }
    };
    let (acknowledged, ()) = tokio::join!(writers, switch);
    let strong = client.namespace("carts");
    for key in &acknowledged {
        assert!(strong.get(key.clone()).await.unwrap().is_some(), "{key} was acknowledged");
    }
    // A node that is stopped has nothing unsynced left, and one that starts goes on from there.
    create(&cluster, "others", Durability::Periodic).await;
    put_all(&cluster, 3, "others").await;
    cluster.stop(3);
    cluster.restart(3).await;
    have_all(&cluster, "others").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_has_seen_what_is_lost_is_told_so_once() {
    let mut cluster = Cluster::start(Settings::default()).await;
    create(&cluster, "carts", Durability::Periodic).await;
    let namespace = at(&cluster, 3, "carts").await;
    namespace.put("key", "value").await.unwrap();
    until("node 1 has it", async || at(&cluster, 1, "carts").await.get("key").await.unwrap()).await;
    let token = Token::decode(&namespace.session_token()).unwrap();
    // As a power cut would have it: acknowledged, and not there any more.
    let (_, seq) = token.seen.iter().next().map(|(origin, seq)| (*origin, *seq)).unwrap();
    let mut lost = token.clone();
    lost.seen.values_mut().for_each(|seen| *seen = seq + 5);
    let get = async |node: u64, token: &Token| {
        let request = v1::GetRequest {
            namespace: "carts".into(),
            get: Some(v1::Get { key: "key".into() }),
            consistency: v1::Consistency::Session.into(),
            session: token.encode(),
            ..v1::GetRequest::default()
        };
        let mut request = tonic::Request::new(request);
        request.set_timeout(std::time::Duration::from_millis(500));
        let answer = cluster.node(node).raw().kv.clone().get(request).await;
        answer.map(drop).map_err(|status| support::raw::Refused::from(status).code)
    };
    assert_eq!(get(1, &lost).await, Err(v1::Code::Behind), "node 3 may yet send it");
    get(1, &token).await.unwrap();
    cluster.kill(3);
    cluster.restart(3).await;
    let cluster = cluster;
    let get = async |node: u64, token: &Token| {
        let client = at(&cluster, node, "carts").await.with_consistency(Consistency::Session);
        client.resume(&token.encode()).unwrap();
        (client.get("key").await.map(|record| record.is_some()).map_err(|error| error.code()), client)
    };
    for node in cluster.ids() {
        let client = until("node 3 has told where it ended", async || {
            let (told, client) = get(node, &lost).await;
            (told == Err(Some(v1::Code::SessionLost))).then_some(client)
        })
        .await;
        assert!(client.get("key").await.unwrap().is_some(), "it is told once");
        assert_eq!(get(node, &token).await.0, Ok(true), "what is not lost is served");
    }
}

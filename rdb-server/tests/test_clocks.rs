//! Clocks that are far off: a node whose clock differs from those of a majority takes no eventual writes and says why, keeps
//! what it has acknowledged, and takes writes again when its clock is right. Two nodes are processes; the third runs in here,
//! so that it can be given another wall clock.

use crate::support;
use crate::support::proxy::Wire;
use crate::support::{Cluster, Settings, until};
use rdb_client::{Client, Code, Error, Mode, Namespace, Options, Record, WriteError};
use rdb_server::config::{Config, Flags};
use rdb_server::{Node, WallClock};
use std::time::Duration;

const NAMESPACE: &str = "carts";
const HOUR_MS: i64 = 3_600_000;
/// The node that runs in here.
const GUEST: u64 = 3;

/// A client of one node, which asks no other, and does not ask for ever.
async fn at(cluster: &Cluster, node: u64) -> Namespace {
    let address = cluster.node(node).address();
    let request_timeout = Duration::from_secs(2);
    let options =
        Options { connect_patience: support::PATIENCE, request_timeout, ..Options::new([address.clone()]) };
    Client::connect(options).await.unwrap().namespace_at(NAMESPACE, &address).unwrap()
}

/// The node that runs in here, by a clock that is so far ahead.
async fn start_guest(cluster: &Cluster, ahead_ms: i64) -> Node {
    let flags = Flags { config: Some(cluster.node(GUEST).config.clone()), ..Flags::default() };
    let node = tokio::task::spawn_blocking(move || {
        Node::start_by(Config::load(flags).unwrap(), WallClock::ahead_by_ms(ahead_ms)).unwrap()
    });
    let node = node.await.unwrap();
    until("the guest is ready", async || {
        cluster.node(GUEST).page("/readyz").await.filter(|(code, _)| *code == 200)
    })
    .await;
    node
}

async fn stop_guest(node: Node) {
    tokio::task::spawn_blocking(move || node.stop()).await.unwrap();
}

async fn start() -> Cluster {
    let mut cluster = Cluster::prepare(Settings { wires: true, ..Settings::default() }).await;
    cluster.launch(1);
    cluster.launch(2);
    cluster.ready(1).await;
    cluster.ready(2).await;
    let client = Client::connect(Options {
        connect_patience: support::PATIENCE,
        ..Options::new([cluster.node(1).address()])
    });
    client.await.unwrap().create_namespace(NAMESPACE, Mode::Eventual).await.unwrap();
    for node in [1, 2] {
        has_namespace(&cluster, node).await;
    }
    cluster
}

async fn has_namespace(cluster: &Cluster, node: u64) {
    until("the node has the namespace", async || at(cluster, node).await.get("nothing").await.ok()).await;
}

async fn has(cluster: &Cluster, node: u64, key: &str, value: &str) -> Record {
    until("the node has the record", async || {
        at(cluster, node).await.get(key.to_owned()).await.ok()?.filter(|record| record.value == value)
    })
    .await
}

async fn is_untrusted(cluster: &Cluster, node: u64, untrusted: u64) {
    until("the guard has judged", async || {
        cluster.node(node).gauge("flaredb_clock_untrusted").await.filter(|shown| *shown == untrusted)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_clock_is_off_takes_no_writes_until_it_is_set_right() {
    let cluster = start().await;
    let guest = start_guest(&cluster, HOUR_MS).await;
    has_namespace(&cluster, GUEST).await;
    is_untrusted(&cluster, GUEST, 1).await;
    let error = at(&cluster, GUEST).await.put("key", "from the future").await.unwrap_err();
    let WriteError::NotDone(Error::Refused(refusal)) = error else { panic!("{error:?}") };
    assert_eq!(refusal.code, Code::ClockOff, "{refusal:?}");
    for part in ["node 1's is 3", "node 2's is 3", "behind it", "nothing was written"] {
        assert!(refusal.message.contains(part), "{part}: {}", refusal.message);
    }
    assert!(refusal.hint.contains("start it again"), "{}", refusal.hint);
    // The others go on, and the one that is off takes their writes in and shows them.
    at(&cluster, 1).await.put("key", "now").await.unwrap();
    has(&cluster, GUEST, "key", "now").await;
    for node in [1, 2] {
        assert_eq!(cluster.node(node).gauge("flaredb_clock_untrusted").await, Some(0));
        let status = cluster.node(node).raw().status().await.unwrap();
        let ahead_ms = status.nodes.iter().find(|other| other.id == GUEST).unwrap().clock_ahead_ms;
        assert!(ahead_ms.is_some_and(|ahead_ms| ahead_ms.abs_diff(HOUR_MS) < 60_000), "{ahead_ms:?}");
        let offset = cluster.node(node).gauge(&format!("flaredb_clock_offset_ms{{peer=\"{GUEST}\"}}")).await;
        assert!(
            offset.is_some_and(|offset_ms| HOUR_MS.unsigned_abs().abs_diff(offset_ms) < 60_000),
            "{offset:?}"
        );
    }
    assert!(cluster.node(GUEST).raw().status().await.unwrap().clock_untrusted);
    // A client that knows all nodes is served by the others.
    let everywhere = cluster.client().await;
    for number in 0..6 {
        everywhere.namespace(NAMESPACE).put(format!("key {number}"), "any").await.unwrap();
    }
    stop_guest(guest).await;
    let guest = start_guest(&cluster, 0).await;
    has_namespace(&cluster, GUEST).await;
    is_untrusted(&cluster, GUEST, 0).await;
    let version = at(&cluster, GUEST).await.put("key", "after").await.unwrap().version;
    assert_eq!(
        has(&cluster, 1, "key", "after").await.version,
        version,
        "nothing from the future is in its way"
    );
    stop_guest(guest).await;
}

/// It cannot know better, and what it acknowledged goes to all, once they hear each other again. Then it is found to be off.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_hears_nobody_goes_on_and_what_it_acknowledged_stays() {
    let cluster = start().await;
    let guest = start_guest(&cluster, 2 * HOUR_MS).await;
    has_namespace(&cluster, GUEST).await;
    is_untrusted(&cluster, GUEST, 1).await;
    cluster.isolate(GUEST, Wire::Silent);
    is_untrusted(&cluster, GUEST, 0).await;
    // Where the machine stood still for seconds, what came before the cut is heard once more.
    let version = until("it takes a write", async || {
        Some(at(&cluster, GUEST).await.put("key", "alone").await.ok()?.version)
    })
    .await;
    cluster.isolate(GUEST, Wire::Whole);
    for node in [1, 2] {
        assert_eq!(has(&cluster, node, "key", "alone").await.version, version);
    }
    is_untrusted(&cluster, GUEST, 1).await;
    let error = at(&cluster, GUEST).await.put("key", "more").await.unwrap_err();
    let WriteError::NotDone(Error::Refused(refusal)) = error else { panic!("{error:?}") };
    assert_eq!(refusal.code, Code::ClockOff);
    // Nobody's later write loses to what is there from the future: each node has seen it.
    at(&cluster, 2).await.put("key", "later").await.unwrap();
    has(&cluster, 1, "key", "later").await;
    stop_guest(guest).await;
}

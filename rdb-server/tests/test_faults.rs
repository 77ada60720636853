//! The fault calls, on real processes: a cut does to a cluster what a pulled cable does, mending it brings everything back,
//! and nodes that were not started for demonstrations know no such call.

use crate::support;
use crate::support::raw::timed;
use crate::support::{Cluster, Settings, assert_words, until};
use rdb_client::{Client, Options};
use rdb_proto::internal::v1::CutRequest;
use rdb_proto::internal::v1::faults_client::FaultsClient;
use rdb_proto::v1;

const NAMESPACE: &str = "things";
/// Long enough that a cluster that could answer would.
const HOPELESS_MS: u64 = 3_000;
/// More than logs keep.
const BIG_WRITES: usize = 300;
const BIG_BYTES: usize = 256 << 10;
const FAULT_CALLS: &str = "fault_calls = true";

async fn with_fault_calls(options: &str) -> Cluster {
    let options = format!("{FAULT_CALLS}\n{options}");
    Cluster::start(Settings { options, ..Settings::default() }).await
}

/// Tells a node what it is cut off from, in both directions.
async fn cut(cluster: &Cluster, node: u64, others: &[u64]) {
    told(cluster, node, others, others).await.unwrap();
}

async fn told(cluster: &Cluster, node: u64, to: &[u64], from: &[u64]) -> Result<(), tonic::Status> {
    let address = format!("http://{}", cluster.node(node).address());
    let mut faults = FaultsClient::connect(address).await.unwrap();
    faults.cut(timed(CutRequest { to: to.to_vec(), from: from.to_vec() }, 5_000)).await.map(drop)
}

/// What a node says of whom it hears.
async fn hears(cluster: &Cluster, node: u64, other: u64) -> Option<bool> {
    let status = cluster.node(node).raw().status().await.ok()?;
    Some(status.nodes.into_iter().find(|known| known.id == other)?.reachable)
}

async fn until_deaf(cluster: &Cluster, node: u64, other: u64) {
    until("a node no longer hears another", async || (!hears(cluster, node, other).await?).then_some(()))
        .await;
}

async fn until_heard(cluster: &Cluster, node: u64, other: u64) {
    until("a node hears another", async || hears(cluster, node, other).await?.then_some(())).await;
}

async fn put_until_done(client: &Client, key: &str) {
    let namespace = client.namespace(NAMESPACE);
    until("a write is confirmed", async || namespace.put(key.to_owned(), "value").await.ok()).await;
}

async fn client_of(cluster: &Cluster, nodes: &[u64]) -> Client {
    let endpoints = nodes.iter().map(|node| cluster.node(*node).address());
    let options = Options { connect_patience: support::PATIENCE, ..Options::new(endpoints) };
    Client::connect(options).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_cut_off_steps_down_and_the_majority_serves() {
    let cluster = with_fault_calls("").await;
    let client = cluster.client().await;
    cluster.create(&client, NAMESPACE).await;
    put_until_done(&client, "before").await;
    let leader = cluster.leader(NAMESPACE).await;
    let rest = cluster.others(&[leader]);
    // The leader alone is told: what it does not take in and does not let out, the others need not know.
    cut(&cluster, leader, &rest).await;
    let raw = cluster.node(leader).raw();
    let (write, read) = tokio::join!(
        raw.put(NAMESPACE, "minority", "value", HOPELESS_MS),
        raw.get(NAMESPACE, "before", HOPELESS_MS)
    );
    assert!(write.is_err() && read.is_err(), "a minority has served: {write:?} {read:?}");
    until("the old leader has stepped down", async || {
        let refused = raw.put(NAMESPACE, "minority", "value", HOPELESS_MS).await.expect_err("confirmed");
        (refused.code == v1::Code::NoLeader && refused.outcome == v1::Outcome::NotDone).then_some(())
    })
    .await;
    cluster.leader_of(NAMESPACE, &rest).await;
    let majority = client_of(&cluster, &rest).await;
    put_until_done(&majority, "during").await;
    for other in &rest {
        until_deaf(&cluster, leader, *other).await;
        until_deaf(&cluster, *other, leader).await;
        until_heard(&cluster, *other, cluster.others(&[leader, *other])[0]).await;
    }
    cut(&cluster, leader, &[]).await;
    for other in &rest {
        until_heard(&cluster, leader, *other).await;
        until_heard(&cluster, *other, leader).await;
    }
    cluster.catch_up(NAMESPACE, &cluster.ids()).await;
    for key in ["before", "during"] {
        let found =
            until("the node that was cut off serves", async || raw.get(NAMESPACE, key, 3_000).await.ok())
                .await;
        assert_eq!(found.value.as_deref(), Some(&b"value"[..]), "{key}");
    }
    until("the whole cluster takes writes", async || raw.get(NAMESPACE, "minority", 3_000).await.ok()).await;
    put_until_done(&client, "after").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_direction_alone_can_be_cut() {
    let cluster = with_fault_calls("").await;
    let client = cluster.client().await;
    cluster.create(&client, NAMESPACE).await;
    let leader = cluster.leader(NAMESPACE).await;
    let rest = cluster.others(&[leader]);
    told(&cluster, leader, &rest, &[]).await.unwrap();
    for other in &rest {
        told(&cluster, *other, &[], &[leader]).await.unwrap();
        until_deaf(&cluster, *other, leader).await;
    }
    cluster.leader_of(NAMESPACE, &rest).await;
    put_until_done(&client_of(&cluster, &rest).await, "during").await;
    for node in cluster.ids() {
        cut(&cluster, node, &[]).await;
    }
    cluster.catch_up(NAMESPACE, &cluster.ids()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_does_not_pass_a_cut_either() {
    // Logs are kept for nobody, and the snapshot takes two seconds, so that it can be cut on its way.
    let options = "log_keep_entries = 8\nlog_bytes_max = 0\nsnapshot_bytes_per_second = 33554432\n\
                   log = \"info,rdb_server=debug\"";
    let cluster = with_fault_calls(options).await;
    let client = cluster.client().await;
    let region = cluster.create(&client, NAMESPACE).await;
    let leader = cluster.leader(NAMESPACE).await;
    let away = cluster.others(&[leader])[0];
    let others = cluster.others(&[away]);
    cut(&cluster, away, &others).await;
    until_deaf(&cluster, leader, away).await;
    for key in 0..BIG_WRITES {
        client.namespace(NAMESPACE).put(format!("big/{key}"), vec![5; BIG_BYTES]).await.unwrap();
    }
    for id in &others {
        until("a node has dropped what the one away needs", async || {
            let entries = cluster.node(*id).metric("flaredb_region_log_entries", region).await?;
            (entries < BIG_WRITES as u64 / 2).then_some(())
        })
        .await;
    }
    let said = |nodes: &[u64], words: &str| {
        let logs: String = nodes.iter().map(|node| cluster.node(*node).said()).collect();
        let of_region = format!("region={region} ");
        logs.lines().filter(|line| line.contains(words) && format!("{line} ").contains(&of_region)).count()
    };
    cut(&cluster, away, &[]).await;
    until("the snapshot is on its way", async || (0 < said(&others, "sending a snapshot")).then_some(()))
        .await;
    cut(&cluster, away, &others).await;
    until("the sender has given the connection up", async || {
        (0 < said(&others, "a snapshot's connection was lost")).then_some(())
    })
    .await;
    assert_eq!(said(&[away], "a snapshot has replaced the region's data"), 0, "it passed the cut");
    cut(&cluster, away, &[]).await;
    cluster.catch_up(NAMESPACE, &cluster.ids()).await;
    assert_eq!(said(&[away], "a snapshot has replaced the region's data"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_other_nodes_can_be_named() {
    let cluster = with_fault_calls("").await;
    for stranger in [1, 9] {
        let refused = told(&cluster, 1, &[2, stranger], &[]).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::InvalidArgument);
        assert_words(refused.message(), &[&format!("node {stranger}"), "nothing was changed"]);
    }
    assert_eq!(hears(&cluster, 1, 2).await, Some(true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_knows_no_such_call_unless_it_was_started_with_it() {
    let cluster = Cluster::start(Settings { size: 1, ..Settings::default() }).await;
    let refused = told(&cluster, 1, &[], &[]).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unimplemented);
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_calls_are_refused_where_others_could_reach_them() {
    let mut cluster = Cluster::prepare(Settings { size: 1, ..Settings::default() }).await;
    cluster.write_config(1, FAULT_CALLS, |config| {
        config.replacen("listen_client = \"127.0.0.1", "listen_client = \"0.0.0.0", 1)
    });
    let (code, said) = cluster.refused(1);
    assert_eq!(code, Some(2));
    assert_words(&said, &["fault_calls", "listen_client", "0.0.0.0", "127.0.0.1"]);
}

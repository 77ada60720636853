//! Disks that fill up, and disks that stand still. A full one refuses what stores something before anything is proposed,
//! goes on with reads and deletes, and recovers by itself; one that stands still costs its node the leadership and nothing
//! else.
//!
//! Disks of their own are mounted: where that may not be done the tests are skipped, which they say.

use crate::support::disk::Disk;
use crate::support::load::Load;
use crate::support::raw::{Raw, Refused, timed};
use crate::support::{Cluster, Settings, assert_words, until};
use rdb_client::{Client, Consistency, Mode, Transaction, Write};
use rdb_proto::v1;

const NAMESPACE: &str = "things";
const TIMEOUT_MS: u64 = 5_000;
/// Long enough that a cluster that could answer would.
const HOPELESS_MS: u64 = 3_000;
const MIB: u64 = 1 << 20;
/// Of a small disk. A node takes 140 MiB of it for its write-ahead log ahead of time.
const DISK_MIB: u64 = 384;
/// The first mark of nodes on small disks, as they are configured, and the second one.
const RESERVE: &str = "disk_reserve_bytes = 33554432";
const SECOND_MARK: &str = "8388608";

async fn alone(options: &str) -> Cluster {
    Cluster::start(Settings { size: 1, options: options.to_owned(), ..Settings::default() }).await
}

/// One node on a disk of its own, that was never started.
async fn alone_on(disk: &Disk, options: &str) -> Cluster {
    cluster_on(1, &[(1, disk)], options).await
}

/// Nodes that were never started, some of them on disks of their own.
async fn cluster_on(size: u64, disks: &[(u64, &Disk)], options: &str) -> Cluster {
    let settings = Settings { size, options: options.to_owned(), ..Settings::default() };
    let mut cluster = Cluster::prepare(settings).await;
    for (id, disk) in disks {
        cluster.place(*id, disk.node());
    }
    cluster
}

/// Waits until a write is refused that stores something. Returns what is said.
async fn until_full(raw: &Raw) -> Refused {
    let refused =
        until("a write is refused", async || raw.put(NAMESPACE, "full", "", HOPELESS_MS).await.err()).await;
    assert_eq!((refused.code, refused.outcome), (v1::Code::ResourceExhausted, v1::Outcome::NotDone));
    assert!(0 < refused.error.retry_after_ms, "{refused:?}");
    refused
}

async fn delete(raw: &Raw, key: &'static str) -> Result<(), Refused> {
    let delete = Some(v1::Delete { key: key.into() });
    let request = v1::DeleteRequest { namespace: NAMESPACE.into(), delete, ..v1::DeleteRequest::default() };
    Ok(raw.kv.clone().delete(timed(request, HOPELESS_MS)).await.map(drop)?)
}

/// Whether a node says of another one, or of itself, that its disk is full.
async fn says_full(cluster: &Cluster, id: u64, of: u64) -> Option<bool> {
    let status = cluster.node(id).raw().status().await.ok()?;
    status.nodes.iter().find(|node| node.id == of).map(|node| node.disk_full)
}

/// Less is free than is to be kept free: as if the disk were full.
#[tokio::test(flavor = "multi_thread")]
async fn below_the_reserve_writes_are_refused_and_reads_go_on() {
    let mut cluster = alone("").await;
    let client = cluster.client().await;
    cluster.create(&client, NAMESPACE).await;
    client.namespace(NAMESPACE).put("key", "value").await.unwrap();
    cluster.stop(1);
    let reserve = i64::MAX;
    cluster.write_config(1, &format!("disk_reserve_bytes = {reserve}"), |text| text);
    cluster.launch(1);
    let raw = cluster.node(1).raw();
    let refused = until("a write is refused", async || {
        let refused = raw.put(NAMESPACE, "wrong", "value", HOPELESS_MS).await.err()?;
        (refused.code == v1::Code::ResourceExhausted).then_some(refused)
    })
    .await;
    assert_eq!(refused.outcome, v1::Outcome::NotDone);
    assert_words(&refused.text, &["free on the node's disk", &reserve.to_string(), "free disk space"]);
    let found = until("reads go on", async || raw.get(NAMESPACE, "key", TIMEOUT_MS).await.ok()).await;
    assert_eq!(found.value.unwrap(), "value");
    let (code, reason) = cluster.node(1).page("/readyz").await.unwrap();
    assert!(code == 503 && reason.contains("disk"), "{code} {reason}");
    cluster.stop(1);
    cluster.write_config(1, "", |text| text);
    cluster.restart(1).await;
    assert_eq!(
        raw.put(NAMESPACE, "key", "newer", TIMEOUT_MS).await.map(drop).map_err(|refused| refused.text),
        Ok(())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fills_up_refuses_writes_and_recovers_by_itself() {
    let Some(mut disk) = Disk::mount(DISK_MIB) else { return };
    let mut cluster = alone_on(&disk, "disk_reserve_bytes = 33554432").await;
    cluster.restart(1).await;
    let client = cluster.client().await;
    cluster.create(&client, NAMESPACE).await;
    let raw = cluster.node(1).raw();
    raw.put(NAMESPACE, "key", "value", TIMEOUT_MS).await.unwrap();
    disk.fill_but_for(20 << 20);
    let refused =
        until("a write is refused", async || raw.put(NAMESPACE, "full", "", HOPELESS_MS).await.err()).await;
    assert_eq!((refused.code, refused.outcome), (v1::Code::ResourceExhausted, v1::Outcome::NotDone));
    assert_words(&refused.text, &["33554432", "free disk space"]);
    assert_eq!(raw.get(NAMESPACE, "key", TIMEOUT_MS).await.unwrap().value.unwrap(), "value");
    disk.free();
    until("writes resume", async || raw.put(NAMESPACE, "key", "newer", TIMEOUT_MS).await.ok()).await;
    assert_eq!(raw.get(NAMESPACE, "key", TIMEOUT_MS).await.unwrap().value.unwrap(), "newer");
    cluster.kill(1);
    cluster.restart(1).await;
    assert_eq!(client.namespace(NAMESPACE).get("key").await.unwrap().unwrap().value, "newer");
}

/// Without a reserve the disk can fill to the last byte. Then the node stops; what it acknowledged is there when it is
/// started with room again.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_without_a_byte_left_stops_the_node_and_loses_nothing() {
    let Some(mut disk) = Disk::mount(DISK_MIB) else { return };
    let mut cluster = alone_on(&disk, "disk_reserve_bytes = 0").await;
    cluster.expect_in_log("it cannot keep its promises");
    cluster.restart(1).await;
    let client = cluster.client().await;
    cluster.create(&client, NAMESPACE).await;
    let raw = cluster.node(1).raw();
    raw.put(NAMESPACE, "key", "value", TIMEOUT_MS).await.unwrap();
    disk.fill_but_for(4 << 20);
    // RocksDB has taken room for its write-ahead log ahead of time: that is used up first.
    // It must not compress away.
    let value: String = (0..256 << 10).map(|_| rand::random_range('!'..='~')).collect();
    let mut acknowledged = 0;
    let refused = loop {
        match raw.put(NAMESPACE, &format!("key/{acknowledged}"), &value, TIMEOUT_MS).await {
            Ok(_) => acknowledged += 1,
            Err(refused) => break refused,
        }
        assert!(acknowledged < 1024, "the disk is never full");
    };
    assert_ne!(refused.outcome, v1::Outcome::NotDone, "{refused:?}");
    let status = cluster.wait(1);
    assert!(!status.success(), "{status}");
    assert_words(&cluster.node(1).said(), &["No space left on device", "it cannot keep its promises"]);
    disk.free();
    cluster.restart(1).await;
    for key in 0..acknowledged {
        let found = client.namespace(NAMESPACE).get(format!("key/{key}")).await.unwrap();
        assert!(found.is_some_and(|record| record.value == value), "{key} of {acknowledged}");
    }
    raw.put(NAMESPACE, "key", "newer", TIMEOUT_MS).await.unwrap();
}

/// A put and a delete in one message of the pipe. Returns what is said to each.
async fn put_and_delete(raw: &Raw) -> [v1::pipe_result::Result; 2] {
    use v1::pipe_operation::Operation;
    let put = Operation::Put(v1::Put { key: "piped".into(), value: "value".into() });
    let delete = Operation::Delete(v1::Delete { key: "piped".into() });
    let operations = [(1, put), (2, delete)].map(|(id, operation)| v1::PipeOperation {
        id,
        sequence: 0,
        operation: Some(operation),
    });
    let message = v1::PipeRequest {
        namespace: NAMESPACE.into(),
        operations: operations.into(),
        ..v1::PipeRequest::default()
    };
    let mut answers = raw.kv.clone().pipe(tokio_stream::iter([message])).await.unwrap().into_inner();
    let mut results = Vec::new();
    while let Some(answer) = answers.message().await.unwrap() {
        results.extend(answer.results);
    }
    results.sort_by_key(|result| result.id);
    let results: Vec<_> = results.into_iter().map(|result| result.result.unwrap()).collect();
    results.try_into().unwrap()
}

/// All that removes, of each kind.
async fn remove_in_every_way(client: &Client) {
    let namespace = client.namespace(NAMESPACE);
    namespace.delete("a").await.unwrap();
    namespace.delete_range("b", "c").await.unwrap();
    namespace.batch_write(vec![Write::Delete("c".into()), Write::Delete("d".into())]).await.unwrap();
    let both = Transaction::new().when_present("e").then_get("e").then_delete("e").else_delete("a");
    assert!(namespace.transaction(both).await.unwrap().held);
    client.delete_namespace("other").await.unwrap();
    for key in ["a", "b", "c", "d", "e"] {
        assert_eq!(namespace.get(key).await.unwrap(), None, "{key}");
    }
}

async fn nothing_is_stored(cluster: &Cluster, raw: &Raw) {
    let namespace = cluster.client().await.namespace(NAMESPACE);
    let namespace = namespace.with_timeout(std::time::Duration::from_millis(HOPELESS_MS));
    let words = |error: String| assert_words(&error, &["free on the node's disk"]);
    let batch = vec![Write::Delete("kept".into()), Write::Put("new".into(), "".into())];
    words(namespace.batch_write(batch).await.unwrap_err().to_string());
    let transaction = Transaction::new().then_delete("kept").else_put("new", "");
    words(namespace.transaction(transaction).await.unwrap_err().to_string());
    let create = v1::CreateNamespaceRequest { name: "newer".into(), ..v1::CreateNamespaceRequest::default() };
    let created = raw.namespaces.clone().create(timed(create, HOPELESS_MS)).await;
    words(created.unwrap_err().message().to_owned());
    let [put, deleted] = put_and_delete(raw).await;
    assert!(matches!(put, v1::pipe_result::Result::NotDone(_)), "{put:?}");
    assert!(matches!(deleted, v1::pipe_result::Result::Done(_)), "{deleted:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn deletes_go_on_where_nothing_is_stored_any_more() {
    let Some(mut disk) = Disk::mount(DISK_MIB) else { return };
    let mut cluster = alone_on(&disk, RESERVE).await;
    cluster.launch_all().await;
    let client = cluster.client().await;
    cluster.create(&client, NAMESPACE).await;
    cluster.create(&client, "other").await;
    for key in ["a", "b", "c", "d", "e", "kept"] {
        client.namespace(NAMESPACE).put(key, "value").await.unwrap();
    }
    let raw = cluster.node(1).raw();
    disk.fill_but_for(20 * MIB);
    until_full(&raw).await;
    nothing_is_stored(&cluster, &raw).await;
    remove_in_every_way(&client).await;
    assert_eq!(says_full(&cluster, 1, 1).await, Some(true));
    assert_eq!(cluster.node(1).gauge("flaredb_disk_room").await, Some(1));
    let (code, reason) = cluster.node(1).page("/readyz").await.unwrap();
    assert!(code == 503 && reason.contains("deletes"), "{code} {reason}");
    // Below the second mark these are refused, too; and still before anything is proposed.
    disk.fill_but_for(6 * MIB);
    let refused = until("a delete is refused", async || delete(&raw, "kept").await.err()).await;
    assert_eq!((refused.code, refused.outcome), (v1::Code::ResourceExhausted, v1::Outcome::NotDone));
    assert_words(&refused.text, &[SECOND_MARK, "free disk space"]);
    let refused = client.delete_namespace(NAMESPACE).await.unwrap_err().to_string();
    assert_words(&refused, &[SECOND_MARK]);
    disk.free();
    until("deletes resume", async || delete(&raw, "gone").await.ok()).await;
    until("writes resume", async || raw.put(NAMESPACE, "new", "", TIMEOUT_MS).await.ok()).await;
    until("the node is ready", async || {
        cluster.node(1).page("/readyz").await.filter(|(code, _)| *code == 200)
    })
    .await;
    assert_eq!(says_full(&cluster, 1, 1).await, Some(false));
}

/// A node that must refuse writes is no good leader while others need not.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_on_a_full_disk_hands_over_to_one_that_has_room() {
    let Some(mut disk) = Disk::mount(DISK_MIB) else { return };
    let mut cluster = cluster_on(3, &[(1, &disk)], RESERVE).await;
    cluster.launch_all().await;
    let client = cluster.client().await;
    cluster.create(&client, NAMESPACE).await;
    until("node 1 leads", async || client.move_leader(NAMESPACE, 1).await.ok()).await;
    assert_eq!(cluster.leader(NAMESPACE).await, 1);
    disk.fill_but_for(20 * MIB);
    until("another node leads", async || (cluster.leader(NAMESPACE).await != 1).then_some(())).await;
    client.namespace(NAMESPACE).put("key", "value").await.unwrap();
    until("the others know", async || says_full(&cluster, 2, 1).await.filter(|full| *full)).await;
    disk.free();
    until("the others know", async || says_full(&cluster, 2, 1).await.filter(|full| !*full)).await;
    cluster.catch_up(NAMESPACE, &[1, 2, 3]).await;
}

async fn write_much(raw: &Raw, name: &str) {
    for key in 0..32 {
        let value: String = (0..64 << 10).map(|_| rand::random_range('!'..='~')).collect();
        raw.put(NAMESPACE, &format!("{name}/{key}"), &value, TIMEOUT_MS).await.unwrap();
    }
}

/// One follower without room costs nothing: it takes no more in, and gets it later. Two of three are a majority, and then
/// the leader refuses what could not be committed, rather than let it wait.
#[tokio::test(flavor = "multi_thread")]
async fn followers_on_full_disks_stop_at_the_mark_and_catch_up_by_themselves() {
    let (Some(mut disk), Some(mut other)) = (Disk::mount(DISK_MIB), Disk::mount(DISK_MIB)) else { return };
    let mut cluster = cluster_on(3, &[(2, &disk), (3, &other)], RESERVE).await;
    cluster.launch_all().await;
    let client = cluster.client().await;
    cluster.create(&client, NAMESPACE).await;
    until("node 1 leads", async || client.move_leader(NAMESPACE, 1).await.ok()).await;
    let raw = cluster.node(1).raw();
    raw.put(NAMESPACE, "key", "value", TIMEOUT_MS).await.unwrap();
    disk.fill_but_for(6 * MIB);
    until("the node notices", async || {
        cluster.node(2).gauge("flaredb_disk_room").await.filter(|room| *room == 2)
    })
    .await;
    until("the leader hears of it", async || says_full(&cluster, 1, 2).await.filter(|full| *full)).await;
    let before = cluster.region(2, NAMESPACE).await.unwrap().applied_index;
    write_much(&raw, "one").await;
    cluster.catch_up(NAMESPACE, &[1, 3]).await;
    let (full, leader) =
        (cluster.region(2, NAMESPACE).await.unwrap(), cluster.region(1, NAMESPACE).await.unwrap());
    assert!(
        full.applied_index <= before + 1 && full.applied_index + 30 < leader.applied_index,
        "{full:?} {leader:?}"
    );

    // Little by little, as disks fill up: the leader hears of it before the second mark.
    other.fill_but_for(20 * MIB);
    let refused = until_full(&raw).await;
    assert_words(&refused.text, &["too many nodes", "rdb status"]);
    delete(&raw, "gone").await.unwrap();
    other.fill_but_for(6 * MIB);
    // One that the leader proposes before it has heard of it waits, and is in doubt.
    let refused = until("a delete is refused", async || {
        delete(&raw, "gone").await.err().filter(|refused| refused.code == v1::Code::ResourceExhausted)
    })
    .await;
    assert_eq!(refused.outcome, v1::Outcome::NotDone);
    assert_words(&refused.text, &["too many nodes"]);
    assert_eq!(raw.get(NAMESPACE, "key", TIMEOUT_MS).await.unwrap().value.unwrap(), "value");

    disk.free();
    other.free();
    until("writes resume", async || raw.put(NAMESPACE, "key", "newer", TIMEOUT_MS).await.ok()).await;
    write_much(&raw, "two").await;
    cluster.catch_up(NAMESPACE, &[1, 2, 3]).await;
}

/// A frozen file system: every write and sync of the leader's node waits, while its clock and its connections go on.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_disk_stands_still_is_replaced_and_nothing_is_lost() {
    let Some(disk) = Disk::mount_ext4(768) else { return };
    let mut cluster = cluster_on(3, &[(1, &disk)], "disk_reserve_bytes = 0").await;
    cluster.launch_all().await;
    let client = cluster.client().await;
    cluster.create(&client, NAMESPACE).await;
    until("node 1 leads", async || client.move_leader(NAMESPACE, 1).await.ok()).await;
    client.namespace(NAMESPACE).put("key", "value").await.unwrap();
    let load = Load::start(&client, NAMESPACE, "load", 8);
    load.go_on_for(200).await;
    assert_eq!(cluster.leader(NAMESPACE).await, 1);
    let Some(frozen) = disk.freeze() else { return };
    // The node itself follows the other one: its raft loop goes on, and knows what it hears.
    until("another node leads, and all know it", async || {
        (cluster.leader(NAMESPACE).await != 1).then_some(())
    })
    .await;
    load.go_on_for(200).await;
    let stale = client.namespace_at(NAMESPACE, &cluster.node(1).address()).unwrap();
    let stale = stale.with_consistency(Consistency::Stale { max_age: None });
    assert_eq!(stale.get("key").await.unwrap().unwrap().value, "value");
    assert_eq!(cluster.node(1).page("/healthz").await.unwrap().0, 200);
    drop(frozen);
    load.go_on_for(200).await;
    let written = load.stop().await;
    cluster.catch_up(NAMESPACE, &[1, 2, 3]).await;
    assert!(600 <= written.verify().await);
}

/// In eventual mode a node that has room takes writes though no majority has any; and nodes without room take none in, until they
/// have it.
#[tokio::test(flavor = "multi_thread")]
async fn an_eventual_namespace_needs_room_on_the_node_that_is_asked_and_spares_the_others() {
    let mut cluster = Cluster::start(Settings::default()).await;
    let client = cluster.client().await;
    client.create_namespace(NAMESPACE, Mode::Eventual).await.unwrap();
    cluster.create(&client, "strong").await;
    let full = format!("disk_reserve_bytes = {}", i64::MAX);
    for node in [1, 2] {
        cluster.stop(node);
        cluster.write_config(node, &full, |text| text);
        cluster.launch(node);
    }
    let alone = cluster.node(3).raw();
    let refused = until("no majority has room for a strong write", async || {
        let mut refused = Vec::new();
        for node in cluster.ids() {
            refused.extend(cluster.node(node).raw().put("strong", "key", "x", HOPELESS_MS).await.err());
        }
        refused.into_iter().find(|refused| refused.text.contains("too many nodes"))
    })
    .await;
    assert_eq!(refused.outcome, v1::Outcome::NotDone);
    for node in [1, 2] {
        until("node 3 knows that the others are full", async || {
            says_full(&cluster, 3, node).await.filter(|full| *full)
        })
        .await;
        until("a full node notices", async || {
            cluster.node(node).gauge("flaredb_disk_room").await.filter(|room| *room == 2)
        })
        .await;
    }
    alone.put(NAMESPACE, "key", "value", TIMEOUT_MS).await.unwrap();
    let refused = until("a full node refuses", async || {
        let refused = cluster.node(1).raw().put(NAMESPACE, "full", "", HOPELESS_MS).await.err()?;
        (refused.code == v1::Code::ResourceExhausted).then_some(refused)
    })
    .await;
    assert_words(&refused.text, &["free on the node's disk"]);
    until("a full node drops what it is sent", async || {
        cluster.node(1).gauge("flaredb_peer_messages_dropped_total").await.filter(|dropped| 0 < *dropped)
    })
    .await;
    assert_eq!(cluster.node(1).raw().get(NAMESPACE, "key", TIMEOUT_MS).await.unwrap().value, None);
    for node in [1, 2] {
        cluster.stop(node);
        cluster.write_config(node, "", |text| text);
        cluster.restart(node).await;
        until("it comes once there is room", async || {
            cluster.node(node).raw().get(NAMESPACE, "key", TIMEOUT_MS).await.ok()?.value
        })
        .await;
    }
}

//! What the cluster promises about strong namespaces, tried on real processes: what is acknowledged is kept by whatever
//! crashes, what a majority has not confirmed is neither acknowledged nor read, and nothing is applied twice.
//!
//! Each test does something bad to a node or a wire, under load where that matters, and then looks for every write that
//! was acknowledged.

use crate::support;
use crate::support::load::Load;
use crate::support::proxy::Wire;
use crate::support::raw::{Refused, timed};
use crate::support::{Cluster, Settings, until};
use rdb_client::{Bytes, Client, Expect, Options, Write};
use rdb_proto::v1;
use std::time::{Duration, Instant};

const NAMESPACE: &str = "things";
/// Long enough that a cluster that could answer would.
const HOPELESS_MS: u64 = 3_000;

async fn alone() -> Cluster {
    Cluster::start(Settings { size: 1, ..Settings::default() }).await
}

async fn put(client: &Client, key: &str, value: &str) {
    client.namespace(NAMESPACE).put(key.to_owned(), value.to_owned()).await.unwrap();
}

/// Writes until it is confirmed: for where a first attempt may be in doubt.
async fn put_until_done(client: &Client, key: &str, value: &str) {
    let namespace = client.namespace(NAMESPACE);
    until("a write is confirmed", async || namespace.put(key.to_owned(), value.to_owned()).await.ok()).await;
}

async fn get(client: &Client, key: &str) -> Option<Bytes> {
    client.namespace(NAMESPACE).get(key.to_owned()).await.unwrap().map(|record| record.value)
}

/// Writes `count` keys that begin with `name`, in batches.
async fn put_many(client: &Client, name: &str, count: usize, value: &[u8]) {
    let value = Bytes::copy_from_slice(value);
    let keys: Vec<usize> = (0..count).collect();
    for keys in keys.chunks((2 << 20) / (value.len() + 64)) {
        let keys = &keys[..keys.len()];
        for keys in keys.chunks(1000) {
            let writes =
                keys.iter().map(|key| Write::Put(format!("{name}/{key}").into(), value.clone())).collect();
            client.namespace(NAMESPACE).batch_write(writes).await.unwrap();
        }
    }
}

async fn assert_has_many(client: &Client, name: &str, count: usize, value: &[u8]) {
    let keys: Vec<Bytes> = (0..count).map(|key| format!("{name}/{key}").into()).collect();
    for keys in keys.chunks(((1 << 20) / (value.len() + 64)).clamp(1, 1000)) {
        let found = client.namespace(NAMESPACE).batch_get(keys.to_vec()).await.unwrap();
        assert_eq!(found.len(), keys.len());
        assert!(found.iter().all(|record| record.value == value));
    }
}

/// What became of a write that could not be confirmed must not be told as done, nor as surely not done if it may be.
fn assert_honest(refused: &Refused) {
    let honest = match refused.outcome {
        v1::Outcome::InDoubt => true,
        v1::Outcome::DoneHere => false,
        v1::Outcome::NotDone => matches!(
            refused.code,
            v1::Code::NoLeader | v1::Code::NotLeader | v1::Code::Superseded | v1::Code::ShuttingDown
        ),
        // The client's own deadline came first: it knows nothing.
        v1::Outcome::Unspecified => {
            matches!(refused.status, tonic::Code::DeadlineExceeded | tonic::Code::Cancelled)
        }
    };
    assert!(honest, "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_node_commits_and_keeps_what_it_acknowledged() {
    let mut cluster = alone().await;
    let client = cluster.client().await;
    cluster.create(&client, NAMESPACE).await;
    put(&client, "apple", "red").await;
    // Killed at once, before anything but the log can be on disk: then again after a start that wrote nothing.
    for round in 0..3 {
        cluster.kill(1);
        cluster.restart(1).await;
        assert_eq!(get(&client, "apple").await.as_deref(), Some(&b"red"[..]), "round {round}");
        put(&client, &format!("round/{round}"), "done").await;
    }
    cluster.stop(1);
    cluster.restart(1).await;
    for round in 0..3 {
        assert_eq!(get(&client, &format!("round/{round}")).await.as_deref(), Some(&b"done"[..]));
    }
    assert_eq!(client.list_namespaces().await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_hold_the_same_data_whoever_leads() {
    let mut cluster = Cluster::of_three().await;
    let client = cluster.client().await;
    cluster.create(&client, NAMESPACE).await;
    put_many(&client, "a", 500, b"value").await;
    cluster.catch_up(NAMESPACE, &cluster.ids()).await;
    // A read is the leader's: each node in turn must lead.
    let mut have_led = Vec::new();
    while have_led.len() < 3 {
        let leader = cluster.leader(NAMESPACE).await;
        if !have_led.contains(&leader) {
            have_led.push(leader);
            assert_has_many(&client, "a", 500, b"value").await;
        }
        cluster.kill(leader);
        let rest = cluster.others(&[leader]);
        let next = cluster.leader_of(NAMESPACE, &rest).await;
        if !have_led.contains(&next) {
            have_led.push(next);
            assert_has_many(&client, "a", 500, b"value").await;
        }
        cluster.restart(leader).await;
        cluster.catch_up(NAMESPACE, &cluster.ids()).await;
    }
}

/// With two of three nodes away, the third answers no write with done and no read at all; and when they are back, what
/// it said still holds.
async fn a_minority_is_powerless(away: impl Fn(&mut Cluster, u64), back: impl AsyncFn(&mut Cluster, u64)) {
    let mut cluster = Cluster::of_three().await;
    let client = cluster.client().await;
    cluster.create(&client, NAMESPACE).await;
    put(&client, "key", "before").await;
    let leader = cluster.leader(NAMESPACE).await;
    let followers = cluster.others(&[leader]);
    for id in &followers {
        away(&mut cluster, *id);
    }
    let raw = cluster.node(leader).raw();
    let (write, read) = tokio::join!(
        raw.put(NAMESPACE, "key", "minority", HOPELESS_MS),
        raw.get(NAMESPACE, "key", HOPELESS_MS)
    );
    assert_honest(&write.expect_err("a minority has confirmed a write"));
    let read = read.expect_err("a minority has served a linearizable read");
    assert_ne!(read.outcome, v1::Outcome::InDoubt, "a read has no effect: {read:?}");
    // By now it knows that it leads nobody, and says so at once.
    until("the old leader has stepped down", async || {
        let refused = raw.put(NAMESPACE, "key", "minority", HOPELESS_MS).await.expect_err("confirmed");
        (refused.code == v1::Code::NoLeader && refused.outcome == v1::Outcome::NotDone).then_some(())
    })
    .await;
    assert!(raw.get(NAMESPACE, "key", HOPELESS_MS).await.is_err());
    let (code, reason) = cluster.node(leader).page("/readyz").await.unwrap();
    assert!(code == 503 && reason.contains("leader"), "{code} {reason}");
    for id in &followers {
        back(&mut cluster, *id).await;
    }
    cluster.leader(NAMESPACE).await;
    let found = get(&client, "key").await.unwrap();
    assert!(found == "before" || found == "minority", "{found:?}");
    put_until_done(&client, "key", "after").await;
    assert_eq!(get(&client, "key").await.unwrap(), "after");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_minority_neither_commits_nor_reads_while_the_others_are_paused() {
    a_minority_is_powerless(Cluster::pause, async |cluster, id| {
        cluster.resume(id);
        cluster.ready(id).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_minority_neither_commits_nor_reads_while_the_others_are_dead() {
    a_minority_is_powerless(Cluster::kill, async |cluster, id| cluster.launch(id)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_leaders_and_then_all_nodes_loses_nothing_acknowledged() {
    let mut cluster = Cluster::of_three().await;
    let client = cluster.client().await;
    cluster.create(&client, NAMESPACE).await;
    let load = Load::start(&client, NAMESPACE, "kill", 8);
    for _ in 0..3 {
        load.go_on_for(200).await;
        let leader = cluster.leader(NAMESPACE).await;
        cluster.kill(leader);
        load.go_on_for(50).await;
        cluster.restart(leader).await;
    }
    load.go_on_for(200).await;
    for id in cluster.ids() {
        cluster.kill(id);
    }
    for id in cluster.ids() {
        cluster.launch(id);
    }
    load.go_on_for(50).await;
    let written = load.stop().await;
    assert!(0 < written.verify().await);
    cluster.catch_up(NAMESPACE, &cluster.ids()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_missed_many_writes_catches_up() {
    const WRITES: usize = 20_000;
    let mut cluster = Cluster::of_three().await;
    let client = cluster.client().await;
    cluster.create(&client, NAMESPACE).await;
    let leader = cluster.leader(NAMESPACE).await;
    let [away, stays] = cluster.others(&[leader])[..] else { unreachable!() };
    cluster.kill(away);
    put_many(&client, "missed", WRITES, &[7; 256]).await;
    cluster.restart(away).await;
    cluster.catch_up(NAMESPACE, &cluster.ids()).await;
    // From here on it is needed: without it there is no majority.
    cluster.kill(stays);
    assert_has_many(&client, "missed", WRITES, &[7; 256]).await;
    put_until_done(&client, "key", "value").await;
    cluster.kill(leader);
    cluster.restart(stays).await;
    assert_has_many(&client, "missed", WRITES, &[7; 256]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_was_paused_serves_nothing_stale() {
    let mut cluster = Cluster::of_three().await;
    let client = cluster.client().await;
    cluster.create(&client, NAMESPACE).await;
    put(&client, "key", "old").await;
    let leader = cluster.leader(NAMESPACE).await;
    let raw = cluster.node(leader).raw();
    assert!(raw.get(NAMESPACE, "key", HOPELESS_MS).await.is_ok(), "the connection is there before the pause");
    cluster.pause(leader);
    let rest = cluster.others(&[leader]);
    cluster.leader_of(NAMESPACE, &rest).await;
    put_until_done(&client, "key", "new").await;
    // These reads begin after the write was acknowledged. They wait in the paused node's sockets, so that they are the
    // first thing it sees, before any word of its successor.
    let reads: Vec<_> = (0..50)
        .map(|_| {
            let raw = raw.clone();
            tokio::spawn(async move { raw.get(NAMESPACE, "key", 10_000).await })
        })
        .collect();
    // They are on their way; how far does not matter.
    tokio::time::sleep(Duration::from_millis(200)).await;
    cluster.resume(leader);
    let mut refused = 0;
    for read in reads {
        match read.await.unwrap() {
            Ok(answer) => assert_eq!(answer.value.unwrap(), "new", "a stale read"),
            Err(_) => refused += 1,
        }
    }
    println!("{refused} of 50 reads were refused");
    cluster.leader(NAMESPACE).await;
    assert_eq!(get(&client, "key").await.unwrap(), "new");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stops_hands_over_and_no_write_fails() {
    let mut cluster = Cluster::of_three().await;
    let client =
        cluster.client_with(Options { request_timeout: support::PATIENCE, ..Options::default() }).await;
    cluster.create(&client, NAMESPACE).await;
    let load = Load::start(&client, NAMESPACE, "roll", 8);
    for _ in 0..3 {
        load.go_on_for(100).await;
        let leader = cluster.leader(NAMESPACE).await;
        cluster.stop(leader);
        cluster.restart(leader).await;
        cluster.catch_up(NAMESPACE, &cluster.ids()).await;
    }
    load.go_on_for(100).await;
    let written = load.stop().await;
    assert!(0 < written.verify().await);
    assert_eq!(written.failures(), Vec::<&str>::new());
}

/// The old leader, cut off from the others in some way, while they go on.
async fn an_isolated_leader_is_powerless(wire: Wire) {
    let cluster = Cluster::start(Settings { wires: true, ..Settings::default() }).await;
    let client = cluster.client().await;
    cluster.create(&client, NAMESPACE).await;
    put(&client, "key", "old").await;
    let leader = cluster.leader(NAMESPACE).await;
    let raw = cluster.node(leader).raw();
    cluster.isolate(leader, wire);
    let lonely = raw.put(NAMESPACE, "lonely", "value", HOPELESS_MS);
    let rest = cluster.others(&[leader]);
    let (lonely, successor) = tokio::join!(lonely, cluster.leader_of(NAMESPACE, &rest));
    assert_honest(&lonely.expect_err("a leader without followers has confirmed a write"));
    let at_successor = cluster.node(successor).raw();
    until("the majority goes on", async || at_successor.put(NAMESPACE, "key", "new", HOPELESS_MS).await.ok())
        .await;
    for _ in 0..20 {
        let read = raw.get(NAMESPACE, "key", 200).await;
        assert!(read.is_err(), "an isolated leader has served {:?}", read.unwrap().value);
    }
    let load = Load::start(&client, NAMESPACE, "majority", 4);
    load.go_on_for(100).await;
    cluster.isolate(leader, Wire::Whole);
    cluster.leader(NAMESPACE).await;
    load.go_on_for(100).await;
    load.stop().await.verify().await;
    assert_eq!(get(&client, "key").await.unwrap(), "new");
    // It was in doubt; it is the same for whoever asks.
    assert_eq!(get(&client, "lonely").await, get(&client, "lonely").await);
    cluster.catch_up(NAMESPACE, &cluster.ids()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_hears_nothing_is_powerless() {
    an_isolated_leader_is_powerless(Wire::Silent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_connections_are_refused_is_powerless() {
    an_isolated_leader_is_powerless(Wire::Closed).await;
}

/// Cuts only what the leader says, then only what it hears: each time there must be one working leader soon, and what
/// was acknowledged must be there.
#[tokio::test(flavor = "multi_thread")]
async fn one_way_cuts_leave_one_leader() {
    let cluster = Cluster::start(Settings { wires: true, ..Settings::default() }).await;
    let client = cluster.client().await;
    cluster.create(&client, NAMESPACE).await;
    let load = Load::start(&client, NAMESPACE, "one-way", 4);
    for speaks in [false, true] {
        load.go_on_for(50).await;
        let leader = cluster.leader(NAMESPACE).await;
        for other in cluster.others(&[leader]) {
            if speaks {
                cluster.wire(other, leader, Wire::Silent);
            } else {
                cluster.wire(leader, other, Wire::Silent);
            }
        }
        load.go_on_for(50).await;
        cluster.isolate(leader, Wire::Whole);
        cluster.leader(NAMESPACE).await;
    }
    load.go_on_for(50).await;
    assert!(0 < load.stop().await.verify().await);
}

/// A follower that is cut off and comes back neither stops the others nor makes them elect anew.
#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_was_cut_off_does_not_disturb() {
    let cluster = Cluster::start(Settings { wires: true, ..Settings::default() }).await;
    let client = cluster.client().await;
    cluster.create(&client, NAMESPACE).await;
    let leader = cluster.leader(NAMESPACE).await;
    let lonely = cluster.others(&[leader])[0];
    let raw = cluster.node(lonely).raw();
    let load = Load::start(&client, NAMESPACE, "cut", 4);
    load.go_on_for(50).await;
    let term = cluster.region(leader, NAMESPACE).await.unwrap().term;
    cluster.isolate(lonely, Wire::Silent);
    until("the lonely node knows no leader", async || {
        let refused = raw.get(NAMESPACE, "cut/0", 500).await.err()?;
        (refused.code == v1::Code::NoLeader).then_some(())
    })
    .await;
    load.go_on_for(100).await;
    cluster.isolate(lonely, Wire::Whole);
    assert_eq!(cluster.leader(NAMESPACE).await, leader);
    assert_eq!(cluster.region(leader, NAMESPACE).await.unwrap().term, term, "it made the others elect anew");
    load.go_on_for(50).await;
    assert!(0 < load.stop().await.verify().await);
}

/// The log is dropped up to a flush of the data: so much is written that there are flushes, and few entries are kept.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_after_the_log_was_truncated_has_everything() {
    const WRITES: usize = 300;
    let value = vec![5; 256 << 10];
    let options = "log_keep_entries = 8".to_owned();
    let mut cluster = Cluster::start(Settings { options, ..Settings::default() }).await;
    let client = cluster.client().await;
    let region = cluster.create(&client, NAMESPACE).await;
    // One by one, so that there are many entries.
    for key in 0..WRITES {
        client.namespace(NAMESPACE).put(format!("big/{key}"), value.clone()).await.unwrap();
    }
    for id in cluster.ids() {
        until("a node has dropped entries", async || {
            let entries = cluster.node(id).metric("flaredb_region_log_entries", region).await?;
            (entries < WRITES as u64 / 2).then_some(())
        })
        .await;
    }
    put(&client, "last", "value").await;
    for id in cluster.ids() {
        cluster.kill(id);
    }
    for id in cluster.ids() {
        cluster.launch(id);
    }
    cluster.leader(NAMESPACE).await;
    assert_has_many(&client, "big", WRITES, &value).await;
    assert_eq!(get(&client, "last").await.unwrap(), "value");
    cluster.catch_up(NAMESPACE, &cluster.ids()).await;
}

/// Logs are kept for nobody, so that whoever was away needs a snapshot, of the catalog too. Snapshots take seconds.
const SHORT_LOGS: &str = "log_keep_entries = 8\nlog_bytes_max = 0\nsnapshot_bytes_per_second = 33554432";
const BIG_WRITES: usize = 300;
const BIG_BYTES: usize = 256 << 10;

/// A cluster of which a follower is away, whose log nobody has any longer. Returns it with the leader's and its ids.
async fn one_far_behind(client: &Client, cluster: &mut Cluster) -> (u64, u64) {
    let region = cluster.create(client, NAMESPACE).await;
    let leader = cluster.leader(NAMESPACE).await;
    let away = cluster.others(&[leader])[0];
    put(client, "first", "value").await;
    put_many(client, "goes", 500, b"there before the snapshot, and not in it").await;
    cluster.catch_up(NAMESPACE, &cluster.ids()).await;
    cluster.kill(away);
    for key in 0..500 {
        client.namespace(NAMESPACE).delete(format!("goes/{key}")).await.unwrap();
    }
    for name in 0..20 {
        client.create_namespace(&format!("new-{name}"), rdb_client::Mode::Strong).await.unwrap();
    }
    client.namespace("new-7").put("key", "value").await.unwrap();
    for key in 0..BIG_WRITES {
        client.namespace(NAMESPACE).put(format!("big/{key}"), vec![5; BIG_BYTES]).await.unwrap();
    }
    for id in cluster.others(&[away]) {
        until("a node has dropped what the one away needs", async || {
            let entries = cluster.node(id).metric("flaredb_region_log_entries", region).await?;
            (entries < BIG_WRITES as u64 / 2).then_some(())
        })
        .await;
    }
    (leader, away)
}

/// With everyone else dead but one, `away` is needed for every answer, and then leads: it must have everything.
async fn assert_is_whole(client: &Client, cluster: &mut Cluster, away: u64) {
    cluster.catch_up(NAMESPACE, &cluster.ids()).await;
    cluster.catch_up("new-7", &cluster.ids()).await;
    for dead in cluster.others(&[away]) {
        cluster.kill(dead);
        let rest = cluster.others(&[dead]);
        cluster.leader_of(NAMESPACE, &rest).await;
        assert_has_many(client, "big", BIG_WRITES, &[5; BIG_BYTES]).await;
        assert_eq!(get(client, "goes/7").await, None);
        assert_eq!(get(client, "first").await.unwrap(), "value");
        assert_eq!(client.namespace("new-7").get("key").await.unwrap().unwrap().value, "value");
        put_until_done(client, "last", "value").await;
        cluster.restart(dead).await;
        cluster.catch_up(NAMESPACE, &cluster.ids()).await;
    }
    assert_eq!(client.list_namespaces().await.unwrap().len(), 21);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_too_far_behind_comes_back_by_snapshot_under_load() {
    let settings = Settings { options: SHORT_LOGS.to_owned(), ..Settings::default() };
    let mut cluster = Cluster::start(settings).await;
    let client = cluster.client().await;
    let (_, away) = one_far_behind(&client, &mut cluster).await;
    let load = Load::start(&client, NAMESPACE, "load", 4);
    cluster.restart(away).await;
    until("the snapshots were taken in", async || {
        let said = cluster.node(away).said();
        (1 < said.matches("a snapshot has replaced the region's data").count()).then_some(())
    })
    .await;
    load.go_on_for(200).await;
    let written = load.stop().await;
    assert!(0 < written.verify().await);
    assert_is_whole(&client, &mut cluster, away).await;
    written.verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_dies_while_it_takes_in_a_snapshot_has_the_old_state_or_the_new_one() {
    let settings = Settings { options: SHORT_LOGS.to_owned(), ..Settings::default() };
    let mut cluster = Cluster::start(settings).await;
    let client = cluster.client().await;
    let (leader, away) = one_far_behind(&client, &mut cluster).await;
    for round in 0..6 {
        cluster.launch(away);
        // At various moments of the two to three seconds that it takes.
        tokio::time::sleep(Duration::from_millis(300 + 500 * round)).await;
        cluster.kill(away);
    }
    // And the one that sends it.
    cluster.launch(away);
    tokio::time::sleep(Duration::from_millis(800)).await;
    cluster.kill(leader);
    cluster.restart(leader).await;
    assert_is_whole(&client, &mut cluster, away).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn namespaces_come_and_go_while_nodes_are_away() {
    let mut cluster = Cluster::of_three().await;
    // The node that is killed may lead the catalog; then the next call takes as long as an election.
    let client =
        cluster.client_with(Options { request_timeout: support::PATIENCE, ..Options::default() }).await;
    cluster.create(&client, "stays").await;
    cluster.create(&client, "goes").await;
    client.namespace("goes").put("key", "gone").await.unwrap();
    let away = cluster.others(&[cluster.leader("goes").await])[0];
    cluster.kill(away);
    client.create_namespace("comes", rdb_client::Mode::Strong).await.unwrap();
    client.namespace("comes").put("key", "here").await.unwrap();
    client.delete_namespace("goes").await.unwrap();
    let refused = client.namespace("goes").get("key").await.unwrap_err();
    assert_eq!(refused.code(), Some(rdb_client::Code::NamespaceNotFound));
    cluster.restart(away).await;
    cluster.leader("comes").await;
    until("the node has heard of the deletion", async || {
        cluster.region(away, "goes").await.is_none().then_some(())
    })
    .await;
    // The same name is another namespace, on the node that was away, too.
    cluster.create(&client, "goes").await;
    assert_eq!(client.namespace("goes").get("key").await.unwrap(), None);
    // All of it survives a crash of all, before and after the node's own log is all that has it.
    for _ in 0..2 {
        for id in cluster.ids() {
            cluster.kill(id);
        }
        for id in cluster.ids() {
            cluster.launch(id);
        }
        for namespace in ["stays", "comes", "goes"] {
            cluster.leader(namespace).await;
        }
        assert_eq!(client.namespace("goes").get("key").await.unwrap(), None);
        assert_eq!(client.namespace("comes").get("key").await.unwrap().unwrap().value, "here");
        let names: Vec<_> =
            client.list_namespaces().await.unwrap().into_iter().map(|known| known.name).collect();
        assert_eq!(names, ["comes", "goes", "stays"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_named_write_is_applied_once() {
    let mut cluster = Cluster::of_three().await;
    let client = cluster.client().await;
    cluster.create(&client, NAMESPACE).await;
    let leader = cluster.leader(NAMESPACE).await;
    let raw = cluster.node(leader).raw();
    let open = v1::OpenSessionRequest { namespace: NAMESPACE.to_owned(), epoch: 0, token: 0 };
    let session = raw.kv.clone().open_session(timed(open, HOPELESS_MS)).await.unwrap().into_inner().client;
    let named = |sequence| Some(v1::RequestId { client: session, sequence, lowest: 1 });
    let first = raw.put_as(NAMESPACE, "key", "first", named(1), HOPELESS_MS).await.unwrap();
    put(&client, "key", "between").await;
    // The answer is lost and the client asks again: it gets the first answer, and the newer value stays.
    let again = raw.put_as(NAMESPACE, "key", "first", named(1), HOPELESS_MS).await.unwrap();
    assert_eq!(first, again);
    assert_eq!(get(&client, "key").await.unwrap(), "between");
    // The same at the next leader, which knows it from the log alone, and after a crash of all nodes.
    cluster.kill(leader);
    let rest = cluster.others(&[leader]);
    let next = cluster.leader_of(NAMESPACE, &rest).await;
    let again = at_leader(&cluster, next, named(1)).await;
    assert_eq!(first, again);
    for id in rest {
        cluster.kill(id);
    }
    for id in cluster.ids() {
        cluster.launch(id);
    }
    let leader = cluster.leader(NAMESPACE).await;
    assert_eq!(first, at_leader(&cluster, leader, named(1)).await);
    assert_eq!(get(&client, "key").await.unwrap(), "between");
    // A new name is a new write; and a session that nobody opened is told so and nothing is done.
    let second = at_leader(&cluster, leader, named(2)).await;
    assert_ne!(first, second);
    assert_eq!(get(&client, "key").await.unwrap(), "first");
    put(&client, "key", "between").await;
    let unknown = Some(v1::RequestId { client: session ^ 1, sequence: 1, lowest: 1 });
    let raw = cluster.node(leader).raw();
    let refused = raw.put_as(NAMESPACE, "key", "first", unknown, HOPELESS_MS).await.unwrap_err();
    assert_eq!(refused.code, v1::Code::SessionExpired, "{refused:?}");
    assert_eq!(get(&client, "key").await.unwrap(), "between");
}

/// Repeats a named write at a new leader, which may need a moment.
async fn at_leader(cluster: &Cluster, leader: u64, request: Option<v1::RequestId>) -> v1::Version {
    let raw = cluster.node(leader).raw();
    until("the new leader answers", async || {
        raw.put_as(NAMESPACE, "key", "first", request, HOPELESS_MS).await.ok()
    })
    .await
}

/// Increments that each read a number and swap in the next one, by clients with sessions, while leaders are killed: the
/// sum is the number of those that were told that they did it.
#[tokio::test(flavor = "multi_thread")]
async fn increments_in_sessions_count_once_each() {
    const INCREMENTS: u64 = 40;
    const CALLERS: u64 = 4;
    let mut cluster = Cluster::of_three().await;
    let options = Options { request_timeout: support::PATIENCE, ..Options::default() };
    let client = cluster.client_with(options).await;
    cluster.create(&client, NAMESPACE).await;
    put(&client, "count", "0").await;
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let namespace = client.namespace(NAMESPACE);
            tokio::spawn(async move {
                for _ in 0..INCREMENTS {
                    increment(&namespace).await;
                }
            })
        })
        .collect();
    for _ in 0..2 {
        until("there is progress", async || {
            let count: u64 = number(&get(&client, "count").await?);
            (5 <= count).then_some(())
        })
        .await;
        let leader = cluster.leader(NAMESPACE).await;
        cluster.kill(leader);
        cluster.restart(leader).await;
    }
    let began = Instant::now();
    for caller in callers {
        caller.await.unwrap();
    }
    println!("the callers ended {:?} after the last kill", began.elapsed());
    assert_eq!(number(&get(&client, "count").await.unwrap()), INCREMENTS * CALLERS);
}

fn number(value: &[u8]) -> u64 {
    std::str::from_utf8(value).unwrap().parse().unwrap()
}

async fn increment(namespace: &rdb_client::Namespace) {
    loop {
        let found = namespace.get("count").await.unwrap().unwrap();
        let next = (number(&found.value) + 1).to_string();
        let swap = namespace.compare_and_swap("count", Expect::Version(found.version), Some(next.into()));
        match swap.await {
            Ok(rdb_client::CasOutcome::Swapped(_)) => return,
            Ok(rdb_client::CasOutcome::Mismatch { .. }) => {}
            Err(error) => panic!("in a session nothing stays in doubt for a minute: {error}"),
        }
    }
}

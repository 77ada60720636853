//! Reads at every node and of every consistency, and leaders that move while they are read from.

use crate::support::load::Load;
use crate::support::proxy::Wire;
use crate::support::raw::{Raw, Refused, timed};
use crate::support::{Cluster, Settings, assert_words, until};
use bytes::Bytes;
use rdb_client::{Options, Transport, Write};
use rdb_proto::v1;
use rdb_proto::v1::Consistency;
use std::time::Duration;
use tokio::task::JoinSet;

const NAMESPACE: &str = "things";
const PATIENCE_MS: u64 = 3_000;

async fn read(
    raw: &Raw,
    key: &str,
    consistency: Consistency,
    max_age_ms: u32,
) -> Result<v1::GetResponse, Refused> {
    let get = v1::GetRequest {
        namespace: NAMESPACE.to_owned(),
        get: Some(v1::Get { key: key.to_owned().into() }),
        consistency: consistency.into(),
        max_age_ms,
        ..v1::GetRequest::default()
    };
    Ok(raw.kv.clone().get(timed(get, PATIENCE_MS)).await?.into_inner())
}

fn number(answer: &v1::GetResponse) -> u64 {
    answer.value.as_ref().map_or(0, |value| std::str::from_utf8(value).unwrap().parse().unwrap())
}

fn header(answer: &v1::GetResponse) -> &v1::Header {
    answer.header.as_ref().unwrap()
}

/// One writer counts up; readers at all nodes must never see less than what was acknowledged before they asked.
async fn count_up_and_read_everywhere(cluster: &mut Cluster, consistency: Consistency) {
    let client = cluster.client().await;
    cluster.create(&client, NAMESPACE).await;
    let acknowledged = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let relaxed = std::sync::atomic::Ordering::SeqCst;
    let mut readers = Vec::new();
    for id in cluster.ids() {
        let (raw, acknowledged, stop) = (cluster.node(id).raw(), acknowledged.clone(), stop.clone());
        readers.push(tokio::spawn(async move {
            let mut served = 0u64;
            while !stop.load(relaxed) {
                let least = acknowledged.load(relaxed);
                let Ok(answer) = read(&raw, "count", consistency, 0).await else { continue };
                assert!(least <= number(&answer), "node {id} has read {}, after {least}", number(&answer));
                served += 1;
            }
            served
        }));
    }
    let namespace = client.namespace(NAMESPACE);
    for round in 1..=4u64 {
        for count in 100 * round..100 * (round + 1) {
            until("a write is acknowledged", async || namespace.put("count", count.to_string()).await.ok())
                .await;
            acknowledged.store(count, relaxed);
        }
        let leader = cluster.leader(NAMESPACE).await;
        match round {
            1 => drop(client.move_leader(NAMESPACE, cluster.others(&[leader])[0]).await),
            2 => {
                cluster.pause(leader);
                cluster.leader_of(NAMESPACE, &cluster.others(&[leader])).await;
                cluster.resume(leader);
            }
            3 => {
                cluster.kill(leader);
                cluster.restart(leader).await;
            }
            _ => {}
        }
    }
    stop.store(true, relaxed);
    for reader in readers {
        assert!(0 < reader.await.unwrap(), "a node has served no read at all");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn linearizable_reads_are_served_by_every_node() {
    let mut cluster = Cluster::of_three().await;
    count_up_and_read_everywhere(&mut cluster, Consistency::Linearizable).await;
    let leader = cluster.leader(NAMESPACE).await;
    for id in cluster.others(&[leader]) {
        let answer = read(&cluster.node(id).raw(), "count", Consistency::Linearizable, 0).await.unwrap();
        assert_eq!(header(&answer).served(), Consistency::Linearizable);
        assert_eq!((header(&answer).node, header(&answer).leader), (id, leader));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lease_reads_see_all_that_was_acknowledged_and_end_with_the_leader() {
    let options = "leader_lease = true".to_owned();
    let mut cluster = Cluster::start(Settings { options, ..Settings::default() }).await;
    count_up_and_read_everywhere(&mut cluster, Consistency::Lease).await;
    let leader = cluster.leader(NAMESPACE).await;
    let raw = cluster.node(leader).raw();
    until("the leader has its lease", async || {
        let answer = read(&raw, "count", Consistency::Lease, 0).await.ok()?;
        (header(&answer).served() == Consistency::Lease).then_some(())
    })
    .await;
    let follower = cluster.others(&[leader])[0];
    let answer = read(&cluster.node(follower).raw(), "count", Consistency::Lease, 0).await.unwrap();
    assert_eq!(header(&answer).served(), Consistency::Linearizable, "a follower has no lease");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_option_a_lease_read_is_a_linearizable_one() {
    let cluster = Cluster::start(Settings { size: 1, ..Settings::default() }).await;
    let client = cluster.client().await;
    cluster.create(&client, NAMESPACE).await;
    for _ in 0..3 {
        let answer = read(&cluster.node(1).raw(), "key", Consistency::Lease, 0).await.unwrap();
        assert_eq!(header(&answer).served(), Consistency::Linearizable);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stale_reads_go_on_without_a_majority_and_tell_their_age() {
    let cluster = Cluster::start(Settings { wires: true, ..Settings::default() }).await;
    let client = cluster.client().await;
    cluster.create(&client, NAMESPACE).await;
    client.namespace(NAMESPACE).put("key", "7").await.unwrap();
    cluster.catch_up(NAMESPACE, &cluster.ids()).await;
    let away = cluster.others(&[cluster.leader(NAMESPACE).await])[0];
    let raw = cluster.node(away).raw();
    let young = until("a stale read knows its age", async || {
        let answer = read(&raw, "key", Consistency::Stale, 0).await.ok()?;
        assert_eq!((header(&answer).served(), number(&answer)), (Consistency::Stale, 7));
        header(&answer).age_ms
    })
    .await;
    assert!(young < 60_000, "{young}");
    cluster.isolate(away, Wire::Silent);
    until("the rest has written something that the cut-off node has not", async || {
        client.namespace(NAMESPACE).put("key", "8").await.ok()
    })
    .await;
    until("its reads grow old", async || {
        let answer = read(&raw, "key", Consistency::Stale, 0).await.ok()?;
        assert_eq!(number(&answer), 7, "nothing has reached it");
        (1_000 < header(&answer).age_ms?).then_some(())
    })
    .await;
    let refused = read(&raw, "key", Consistency::Stale, 500).await.expect_err("an older read than allowed");
    assert_eq!(refused.outcome, v1::Outcome::NotDone, "{refused:?}");
    cluster.isolate(away, Wire::Whole);
    until("it is as young as asked for, or linearizable", async || {
        let answer = read(&raw, "key", Consistency::Stale, 500).await.ok()?;
        (number(&answer) == 8).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_library_asks_the_node_and_the_consistency_that_it_is_told() {
    let cluster = Cluster::of_three().await;
    let client = cluster.client().await;
    cluster.create(&client, NAMESPACE).await;
    client.namespace(NAMESPACE).put("key", "7").await.unwrap();
    let leader = cluster.leader(NAMESPACE).await;
    let stale = rdb_client::Consistency::Stale { max_age: Some(Duration::from_secs(60)) };
    for id in cluster.others(&[leader]) {
        let there = client.namespace_at(NAMESPACE, &cluster.node(id).address()).unwrap();
        let (record, served) = there.get_served("key").await.unwrap();
        assert_eq!(record.unwrap().value, "7");
        assert_eq!((served.node, served.by), (id, Some(rdb_client::ServedBy::Linearizable)));
        let (record, served) = there.clone().with_consistency(stale).get_served("key").await.unwrap();
        assert_eq!(record.unwrap().value, "7");
        assert_eq!((served.node, served.by), (id, Some(rdb_client::ServedBy::Stale)));
        assert!(served.age.is_some());
        // Both kinds at once, in one pipe: each is told how it was served.
        let mixed = (0..50).map(|number| {
            let consistency = if number % 2 == 0 { stale } else { rdb_client::Consistency::Linearizable };
            let there = there.clone().with_consistency(consistency);
            tokio::spawn(async move { (number, there.get_served("key").await.unwrap().1) })
        });
        for read in mixed.collect::<Vec<_>>() {
            let (number, served) = read.await.unwrap();
            let strong = number % 2 != 0;
            assert!(!strong || served.by == Some(rdb_client::ServedBy::Linearizable), "{number}: {served:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn leaders_are_spread_and_come_back_after_a_restart() {
    let mut cluster = Cluster::of_three().await;
    let client = cluster.client().await;
    for name in ["a", "b", "c", "d", "e", "f"] {
        cluster.create(&client, name).await;
    }
    let spread = async |cluster: &Cluster| {
        let mut led = std::collections::BTreeMap::new();
        for name in ["a", "b", "c", "d", "e", "f"] {
            *led.entry(cluster.leader(name).await).or_insert(0) += 1;
        }
        (led.len() == 3 && led.values().all(|count| *count == 2)).then_some(())
    };
    until("every node leads two", async || spread(&cluster).await).await;
    let load = Load::start(&client, "b", "spread", 4);
    cluster.kill(1);
    cluster.restart(1).await;
    load.go_on_for(100).await;
    until("every node leads two again", async || spread(&cluster).await).await;
    load.stop().await.verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_moves_where_it_is_told_and_nowhere_else() {
    let mut cluster = Cluster::of_three().await;
    let client = cluster.client().await;
    cluster.create(&client, NAMESPACE).await;
    let load = Load::start(&client, NAMESPACE, "move", 8);
    for to in [2, 3, 1, 2] {
        load.go_on_for(100).await;
        let moved = client.move_leader(NAMESPACE, to).await.unwrap();
        assert_eq!((moved.preferred_leader, moved.regions[0].leader), (to, to));
    }
    let written = load.stop().await;
    assert!(0 < written.verify().await);
    assert_eq!(written.failures(), Vec::<&str>::new());
    cluster.kill(3);
    let dead = until("node 3 is known to be dead", async || {
        let error = client.move_leader(NAMESPACE, 3).await.unwrap_err().into_error();
        (error.code() == Some(rdb_client::Code::NodeUnreachable)).then_some(error)
    })
    .await;
    assert_words(&dead.to_string(), &["node 3", "heard"]);
    let stranger = client.move_leader(NAMESPACE, 9).await.unwrap_err().into_error();
    assert_words(&stranger.to_string(), &["node 9", "1, 2, 3"]);
    let nowhere = client.move_leader("nowhere", 1).await.unwrap_err().into_error();
    assert_words(&nowhere.to_string(), &["nowhere"]);
    // None of it has moved the leader, or will.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(cluster.leader_of(NAMESPACE, &[1, 2]).await, 2);
}

/// After a start no table is in memory, and the cache is too small for all of them: reads wait for the disk. Each is answered with what
/// is its own, whatever is asked together with it, in both transports.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_in_memory_is_found_all_the_same() {
    const KEYS: usize = 3_000;
    let options = "cache_bytes = 8388608".to_owned();
    let mut cluster = Cluster::start(Settings { size: 1, options, ..Settings::default() }).await;
    let client = cluster.client().await;
    cluster.create(&client, NAMESPACE).await;
    for numbers in (0..KEYS).collect::<Vec<_>>().chunks(64) {
        let puts = numbers.iter().map(|number| Write::Put(key_of(*number), value_of(*number)));
        client.namespace(NAMESPACE).batch_write(puts.collect()).await.unwrap();
    }
    for transport in [Transport::Pipe, Transport::Unary] {
        cluster.stop(1);
        cluster.launch(1);
        cluster.ready(1).await;
        let client = cluster.client_with(Options { transport, ..Options::default() }).await;
        let mut reads = JoinSet::new();
        // With one that is not there for each.
        for number in 0..2 * KEYS {
            let namespace = client.namespace(NAMESPACE);
            reads.spawn(async move {
                let record = namespace.get(key_of(number)).await.unwrap();
                let expected = (number < KEYS).then(|| value_of(number));
                assert_eq!(record.map(|record| record.value), expected, "{number}");
            });
        }
        for from in (0..KEYS).step_by(97) {
            let namespace = client.namespace(NAMESPACE);
            reads.spawn(async move {
                let numbers = from..KEYS.min(from + 97);
                let records = namespace.batch_get(numbers.clone().map(key_of).collect()).await.unwrap();
                let found: Vec<_> = records.into_iter().map(|record| (record.key, record.value)).collect();
                assert!(
                    found == numbers.map(|number| (key_of(number), value_of(number))).collect::<Vec<_>>()
                );
            });
        }
        while let Some(read) = reads.join_next().await {
            read.unwrap();
        }
    }
}

fn key_of(number: usize) -> Bytes {
    format!("{number:06}").into()
}

/// Of eight kibibytes.
fn value_of(number: usize) -> Bytes {
    format!("{number:08192}").into()
}

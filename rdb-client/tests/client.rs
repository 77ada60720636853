//! The client against a fake cluster whose faults the tests choose.
//!
//! What they are after: that the leader is found and followed, that concurrent callers share messages, that a write in
//! doubt is called so and never sent twice without a name, that one with a name is applied once, and that no call outlives
//! its deadline.

#![allow(clippy::unwrap_used, reason = "tests")]

mod fake;

use fake::{Cluster, Fault};
use rdb_client::{
    Bytes, CasOutcome, Client, Code, Error, Expect, Mode, OperationResult, Options, Record, Transaction,
    Transport, Write, WriteError,
};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

const TRANSPORTS: [Transport; 2] = [Transport::Pipe, Transport::Unary];

fn options(cluster: &Cluster, transport: Transport) -> Options {
    Options { transport, ..Options::new(cluster.endpoints()) }
}

async fn connect(cluster: &Cluster, transport: Transport) -> Client {
    Client::connect(options(cluster, transport)).await.unwrap()
}

async fn connect_without_sessions(cluster: &Cluster, transport: Transport) -> Client {
    Client::connect(Options { sessions: false, ..options(cluster, transport) }).await.unwrap()
}

#[tokio::test]
async fn every_operation() {
    for transport in TRANSPORTS {
        let cluster = Cluster::start(3);
        let test = connect(&cluster, transport).await.namespace("test");
        assert_eq!(test.get("a").await.unwrap(), None);
        let written = test.put("a", "1").await.unwrap();
        assert_eq!(written.epoch, 1);
        let record = test.get("a").await.unwrap().unwrap();
        assert_eq!((record.value, record.version), (Bytes::from("1"), written.version));

        let swapped = test.compare_and_swap("a", Expect::Value("1".into()), Some("2".into())).await.unwrap();
        let CasOutcome::Swapped(version) = swapped else { panic!("{swapped:?}") };
        let mismatch = test.compare_and_swap("a", Expect::Absent, None).await.unwrap();
        assert_eq!(mismatch, CasOutcome::Mismatch { version: Some(version), found: Some("2".into()) });
        let gone = test.compare_and_swap("a", Expect::Version(version), None).await.unwrap();
        assert!(matches!(gone, CasOutcome::Swapped(_)));

        test.batch_write(vec![
            Write::Put("b".into(), "3".into()),
            Write::Put("c".into(), "4".into()),
            Write::Delete("a".into()),
        ])
        .await
        .unwrap();
        test.delete("b").await.unwrap();
        let records = test.batch_get(vec!["a".into(), "c".into(), "b".into()]).await.unwrap();
        assert_eq!(
            records.iter().map(|r| (&r.key[..], &r.value[..])).collect::<Vec<_>>(),
            [(&b"c"[..], &b"4"[..])]
        );
    }
}

#[tokio::test]
async fn transactions_and_ranges() {
    for transport in TRANSPORTS {
        let cluster = Cluster::start(3);
        let test = connect(&cluster, transport).await.namespace("test");
        for key in ["a", "b/1", "b/2", "c"] {
            test.put(key, "1").await.unwrap();
        }
        let a = test.get("a").await.unwrap().unwrap();
        let transaction = || {
            Transaction::new()
                .when_version("a", a.version)
                .when_value("b/1", "1")
                .when_present("c")
                .when_absent("d")
                .then_get("a")
                .then_put("a", "2")
                .then_delete("c")
                .then_delete_range("b/2", "b/3")
                .then_get("c")
                .else_get("a")
                .else_get("d")
        };
        let done = test.transaction(transaction()).await.unwrap();
        assert!(done.held && done.version.is_some() && done.epoch == 1, "{done:?}");
        let found = |record: &Record| OperationResult::Found(Some(record.clone()));
        let written = OperationResult::Written;
        let expected =
            vec![found(&a), written.clone(), written.clone(), written, OperationResult::Found(None)];
        assert_eq!(done.results, Some(expected));
        let now = test.get("a").await.unwrap().unwrap();
        assert_eq!((&now.value[..], Some(now.version)), (&b"2"[..], done.version));
        let failed = test.transaction(transaction()).await.unwrap();
        assert_eq!((failed.held, failed.version), (false, None));
        assert_eq!(failed.gets().collect::<Vec<_>>(), [Some(&now), None]);

        let swapped = test.compare_and_swap("a", Expect::Present, None).await.unwrap();
        assert!(matches!(swapped, CasOutcome::Swapped(_)));
        for key in ["p", "p\u{7f}", "q", "r"] {
            test.put(key, "1").await.unwrap();
        }
        test.delete_prefix("p").await.unwrap();
        test.delete_range("r", "").await.unwrap();
        let keys = ["a", "b/1", "b/2", "c", "p", "p\u{7f}", "q", "r"].map(Bytes::from).to_vec();
        let left = test.batch_get(keys).await.unwrap();
        assert_eq!(left.into_iter().map(|record| record.key).collect::<Vec<_>>(), ["b/1", "q"]);
    }
}

/// Like a compare-and-swap, it is repeated only where the cluster can tell a repetition from a new one.
#[tokio::test]
async fn a_transaction_in_doubt_is_repeated_in_a_session_only() {
    for transport in TRANSPORTS {
        for sessions in [false, true] {
            let cluster = Cluster::start(1);
            let options = Options { sessions, ..options(&cluster, transport) };
            let test = Client::connect(options).await.unwrap().namespace("test");
            test.put("first", "1").await.unwrap();
            let transaction = || Transaction::new().when_absent("a").then_put("a", "1").else_put("b", "1");
            cluster.fault(1, Fault::BreakAfterApply, 1);
            let answer = test.transaction(transaction()).await;
            if sessions {
                assert!(answer.unwrap().held, "and not what a second one would have found");
            } else {
                assert!(matches!(answer, Err(WriteError::InDoubt(Error::Lost { .. }))), "{answer:?}");
            }
            assert_eq!((cluster.writes_applied(), cluster.value("b")), (2, None));
        }
    }
}

#[tokio::test]
async fn namespaces_and_status() {
    let cluster = Cluster::start(3);
    cluster.lead(2);
    let client = Client::connect(Options::new([cluster.endpoint(3)])).await.unwrap();
    assert_eq!(client.nodes().len(), 3, "the others are learned");
    // In a task of its own, as callers do: the futures must be free to move between threads.
    let created = tokio::spawn({
        let client = client.clone();
        async move { client.create_namespace("fruit", Mode::Strong).await }
    });
    assert_eq!(created.await.unwrap().unwrap().name, "fruit");
    let again = client.create_namespace("fruit", Mode::Strong).await.unwrap_err();
    let WriteError::NotDone(error) = again else { panic!("{again:?}") };
    assert_eq!(error.code(), Some(Code::NamespaceExists));
    let names: Vec<_> = client.list_namespaces().await.unwrap().into_iter().map(|n| n.name).collect();
    assert_eq!(names, ["fruit", "test"]);
    assert_eq!(client.describe_namespace("fruit").await.unwrap().regions[0].leader, 2);
    client.delete_namespace("fruit").await.unwrap();
    let error = client.namespace("fruit").get("a").await.unwrap_err();
    assert_eq!(error.code(), Some(Code::NamespaceNotFound));
    let status = client.status().await.unwrap();
    assert_eq!((status.nodes.len(), status.meta_leader), (3, 2));
}

#[tokio::test]
async fn follows_the_leader() {
    for transport in TRANSPORTS {
        let cluster = Cluster::start(3);
        let test = connect(&cluster, transport).await.namespace("test");
        test.put("a", "1").await.unwrap();
        for leader in [2, 3, 1, 3] {
            cluster.lead(leader);
            test.put("a", "2").await.unwrap();
            let before = cluster.world.messages.load(Ordering::Relaxed);
            test.put("a", "3").await.unwrap();
            let asked = cluster.world.messages.load(Ordering::Relaxed) - before;
            assert_eq!(asked, 1, "the new leader is remembered");
        }
    }
}

#[tokio::test]
async fn waits_for_an_election() {
    for transport in TRANSPORTS {
        let cluster = Cluster::start(3);
        let test = connect(&cluster, transport).await.namespace("test");
        cluster.lead(0);
        let put = tokio::spawn({
            let test = test.clone();
            async move { test.put("a", "1").await }
        });
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(cluster.writes_applied(), 0);
        cluster.lead(3);
        put.await.unwrap().unwrap();
        assert_eq!(cluster.writes_applied(), 1);
    }
}

#[tokio::test]
async fn survives_a_dead_leader() {
    for transport in TRANSPORTS {
        let mut cluster = Cluster::start(3);
        let test = connect(&cluster, transport).await.namespace("test");
        test.put("a", "1").await.unwrap();
        cluster.kill(1);
        cluster.lead(2);
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(test.get("a").await.unwrap().unwrap().value, "1");
        test.put("a", "2").await.unwrap();
        assert_eq!(cluster.value("a").unwrap(), "2");
    }
}

#[tokio::test]
async fn callers_share_messages() {
    const CALLERS: u64 = 256;
    const EACH: u64 = 20;
    let cluster = Cluster::start(1);
    cluster.world.delay_ms.store(2, Ordering::Relaxed);
    let test = connect(&cluster, Transport::Pipe).await.namespace("test");
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let test = test.clone();
            tokio::spawn(async move {
                for _ in 0..EACH {
                    test.put(format!("key-{caller}"), "value").await.unwrap();
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    let messages = cluster.world.messages.load(Ordering::Relaxed);
    assert_eq!(cluster.world.operations.load(Ordering::Relaxed), CALLERS * EACH);
    assert!(messages < CALLERS * EACH / 20, "{messages} messages");
}

/// Each namespace has a pipe, a call that lasts, and a node takes only so many calls on one connection.
#[tokio::test]
async fn many_namespaces_leave_room_for_each_other_and_for_calls() {
    const NAMESPACES: usize = 600;
    let cluster = Cluster::start(1);
    let client = connect(&cluster, Transport::Pipe).await;
    let namespaces: Vec<_> =
        (0..NAMESPACES).map(|number| client.namespace(&format!("many-{number}"))).collect();
    for namespace in &namespaces {
        client.create_namespace(namespace.name(), Mode::Strong).await.unwrap();
        namespace.put("key", namespace.name().to_owned()).await.unwrap();
    }
    for namespace in &namespaces {
        let record = namespace.get("key").await.unwrap().unwrap();
        assert_eq!(record.value, namespace.name().to_owned());
    }
    client.status().await.unwrap();
}

#[tokio::test]
async fn one_caller_waits_for_nobody() {
    let cluster = Cluster::start(1);
    let test = connect(&cluster, Transport::Pipe).await.namespace("test");
    test.put("a", "1").await.unwrap();
    let started = Instant::now();
    for _ in 0..100 {
        test.get("a").await.unwrap();
    }
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
}

#[tokio::test]
async fn without_a_name_a_write_whose_connection_broke_is_in_doubt_and_not_repeated() {
    for transport in TRANSPORTS {
        for (fault, applied) in [(Fault::BreakAfterApply, 1), (Fault::BreakBeforeApply, 0)] {
            let cluster = Cluster::start(1);
            let test = connect_without_sessions(&cluster, transport).await.namespace("test");
            cluster.fault(1, fault, 1);
            let error = test.put("a", "1").await.unwrap_err();
            assert!(matches!(error, WriteError::InDoubt(Error::Lost { .. })), "{error:?}");
            assert_eq!(cluster.writes_applied(), applied);
            test.put("a", "2").await.unwrap();
            assert_eq!(cluster.writes_applied(), applied + 1);
        }
    }
}

#[tokio::test]
async fn without_a_name_a_write_that_the_node_calls_in_doubt_is_not_repeated() {
    for transport in TRANSPORTS {
        let cluster = Cluster::start(1);
        let test = connect_without_sessions(&cluster, transport).await.namespace("test");
        cluster.fault(1, Fault::InDoubt, 1);
        let error = test.delete("a").await.unwrap_err();
        let WriteError::InDoubt(error) = error else { panic!("{error:?}") };
        assert_eq!(error.code(), Some(Code::LeaderLost));
        assert_eq!(cluster.world.operations.load(Ordering::Relaxed), 1);
    }
}

#[tokio::test]
async fn a_write_that_was_not_done_is_repeated() {
    for transport in TRANSPORTS {
        let cluster = Cluster::start(1);
        let test = connect(&cluster, transport).await.namespace("test");
        for fault in [Fault::Busy, Fault::NoLeader] {
            cluster.fault(1, fault, 3);
            test.put("a", "1").await.unwrap();
        }
        assert_eq!(cluster.writes_applied(), 2);
        assert_eq!(cluster.world.operations.load(Ordering::Relaxed), 8);
    }
}

#[tokio::test]
async fn a_read_is_repeated_whatever_happens() {
    for transport in TRANSPORTS {
        let cluster = Cluster::start(1);
        let test = connect(&cluster, transport).await.namespace("test");
        test.put("a", "1").await.unwrap();
        for fault in [Fault::BreakBeforeApply, Fault::BreakAfterApply, Fault::Busy, Fault::InDoubt] {
            cluster.fault(1, fault, 2);
            assert_eq!(test.get("a").await.unwrap().unwrap().value, "1", "{fault:?}");
        }
    }
}

#[tokio::test]
async fn no_call_outlives_its_deadline() {
    for transport in TRANSPORTS {
        let cluster = Cluster::start(1);
        let test =
            connect(&cluster, transport).await.namespace("test").with_timeout(Duration::from_millis(200));
        for fault in [Fault::Silent, Fault::Busy, Fault::NoLeader, Fault::BreakBeforeApply] {
            test.put("a", "1").await.unwrap();
            cluster.fault(1, fault, 1000);
            let started = Instant::now();
            let read = test.get("a").await.unwrap_err();
            let write = test.put("a", "1").await.unwrap_err();
            assert!(started.elapsed() < Duration::from_millis(900), "{fault:?}: {:?}", started.elapsed());
            let doubt = matches!(fault, Fault::Silent | Fault::BreakBeforeApply);
            assert_eq!(matches!(write, WriteError::InDoubt(_)), doubt, "{fault:?}: {write:?}");
            if fault == Fault::Silent {
                assert!(matches!(read, Error::TimedOut { .. }), "{read:?}");
            }
            cluster.fault(1, Fault::Busy, 1);
        }
    }
}

/// All messages are on their way to a node that says nothing, and more wait: those that wait were certainly not done.
#[tokio::test]
async fn what_waits_behind_a_silent_node_is_not_done() {
    let cluster = Cluster::start(1);
    let options = Options { messages_in_flight: 1, ..options(&cluster, Transport::Pipe) };
    let test = Client::connect(options).await.unwrap().namespace("test");
    cluster.fault(1, Fault::Silent, 1000);
    let long = test.clone().with_timeout(Duration::from_secs(3));
    let sent = tokio::spawn(async move { long.put("a", "1").await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    let started = Instant::now();
    let waiting = test.with_timeout(Duration::from_millis(100)).put("b", "1").await.unwrap_err();
    assert!(matches!(waiting, WriteError::NotDone(Error::TimedOut { .. })), "{waiting:?}");
    assert!(started.elapsed() < Duration::from_millis(500));
    assert!(!sent.is_finished());
}

#[tokio::test]
async fn callers_may_go() {
    let cluster = Cluster::start(1);
    cluster.world.delay_ms.store(50, Ordering::Relaxed);
    let test = connect(&cluster, Transport::Pipe).await.namespace("test");
    for _ in 0..10 {
        let gone = tokio::time::timeout(Duration::from_millis(10), test.put("a", "1"));
        assert!(gone.await.is_err());
    }
    cluster.world.delay_ms.store(0, Ordering::Relaxed);
    test.put("a", "2").await.unwrap();
    assert_eq!(test.get("a").await.unwrap().unwrap().value, "2");
}

#[tokio::test]
async fn an_operation_too_large_harms_nobody_else() {
    let cluster = Cluster::start(1);
    let test = connect(&cluster, Transport::Pipe).await.namespace("test");
    let (large, small) = tokio::join!(test.put("a", vec![0; 7 << 20]), test.put("b", vec![0; 3 << 20]));
    let WriteError::NotDone(error) = large.unwrap_err() else { panic!() };
    assert_eq!(error.code(), Some(Code::InvalidArgument));
    small.unwrap();
}

#[tokio::test]
async fn says_what_it_cannot_reach() {
    let mut cluster = Cluster::start(1);
    let endpoint = cluster.endpoint(1);
    let test =
        connect(&cluster, Transport::Pipe).await.namespace("test").with_timeout(Duration::from_millis(300));
    cluster.kill(1);
    let error = Client::connect(Options::new([endpoint.clone()])).await.map(|_| ()).unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with(&format!("cannot reach {endpoint} (connection refused, ")), "{text}");
    assert!(text.contains(" tries in "), "{text}");
    tokio::time::sleep(Duration::from_millis(50)).await;
    let error = test.put("a", "1").await.unwrap_err();
    assert!(matches!(error, WriteError::NotDone(Error::Unreachable { .. })), "{error:?}");
    for wrong in ["", "nonsense", "127.0.0.1", "127.0.0.1:port"] {
        let error = Client::connect(Options::new([wrong])).await.map(|_| ()).unwrap_err();
        assert!(matches!(error, Error::Options(_)), "{wrong}");
    }
}

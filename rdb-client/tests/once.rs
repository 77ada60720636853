//! Exactly once: writes under a session, and the catalog's calls, against a fake cluster whose faults the tests choose.
//!
//! What they are after: that whatever happens between two attempts of one write it is applied once or reported in doubt, and
//! that sessions hold nobody up: not when they are opened, not when they end, and not for the sake of one slow caller.

#![allow(clippy::unwrap_used, reason = "tests")]

mod fake;

use fake::{Cluster, Fault, Meanwhile};
use rdb_client::{
    Client, Code, Error, Mode, Namespace, Options, SwitchOptions, SwitchPhase, Transport, WriteError,
};
use std::sync::atomic::Ordering;
use std::time::Duration;

const TRANSPORTS: [Transport; 2] = [Transport::Pipe, Transport::Unary];
/// Long enough that a slow machine does not make it short.
const PATIENCE: Duration = Duration::from_secs(60);

async fn connect(cluster: &Cluster, transport: Transport) -> Client {
    let options = Options { transport, request_timeout: PATIENCE, ..Options::new(cluster.endpoints()) };
    Client::connect(options).await.unwrap()
}

async fn namespace(cluster: &Cluster, transport: Transport) -> Namespace {
    connect(cluster, transport).await.namespace("test")
}

/// All of them at the same time.
async fn put_at_once(test: &Namespace, callers: usize) {
    let puts: Vec<_> = (0..callers)
        .map(|caller| {
            let test = test.clone();
            tokio::spawn(async move { test.put(format!("key-{caller}"), "1").await })
        })
        .collect();
    for put in puts {
        put.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_write_whose_answer_is_lost_is_repeated_and_applied_once() {
    for transport in TRANSPORTS {
        let cluster = Cluster::start(1);
        let test = namespace(&cluster, transport).await;
        for fault in [Fault::BreakAfterApply, Fault::BreakBeforeApply, Fault::InDoubt, Fault::TimedOut] {
            let before = cluster.writes_applied();
            cluster.fault(1, fault, 3);
            test.put("a", "1").await.unwrap();
            assert_eq!(cluster.writes_applied(), before + 1, "{fault:?}");
        }
        assert_eq!(cluster.sessions_opened(), 1, "one for all");
    }
}

/// A call that is cancelled and whose time is not over was ended by the node, or by whoever is in between: the caller has the
/// time to hear what became of it.
#[tokio::test]
async fn a_call_that_the_node_has_ended_is_repeated() {
    let cluster = Cluster::start(1);
    let test = namespace(&cluster, Transport::Unary).await;
    cluster.world.cancels.store(true, Ordering::Relaxed);
    cluster.fault(1, Fault::BreakAfterApply, 3);
    test.put("a", "1").await.unwrap();
    assert_eq!((cluster.writes_applied(), cluster.sessions_opened()), (1, 1));
    cluster.fault(1, Fault::BreakBeforeApply, 3);
    assert!(test.get("a").await.unwrap().is_some());
}

#[tokio::test]
async fn a_write_that_was_never_sent_takes_another_session() {
    for transport in TRANSPORTS {
        let cluster = Cluster::start(1);
        let test = namespace(&cluster, transport).await;
        test.put("a", "1").await.unwrap();
        cluster.expire_sessions();
        test.put("a", "2").await.unwrap();
        // The session belonged to the region of the namespace that is gone.
        cluster.replace_namespace("test");
        test.put("a", "3").await.unwrap();
        cluster.next_epoch();
        assert_eq!(test.put("a", "4").await.unwrap().epoch, 2);
        assert_eq!((cluster.writes_applied(), cluster.sessions_opened()), (4, 4));
    }
}

/// The write was applied, the answer is lost, and what could tell a repetition is gone: only "in doubt" is honest.
#[tokio::test]
async fn a_write_that_was_sent_is_never_executed_anew() {
    let cases = [
        (Meanwhile::Expiry, Code::SessionExpired),
        (Meanwhile::Replacement, Code::SessionExpired),
        (Meanwhile::NextEpoch, Code::EpochMismatch),
    ];
    for transport in TRANSPORTS {
        for (meanwhile, code) in cases {
            let cluster = Cluster::start(1);
            let test = namespace(&cluster, transport).await;
            cluster.fault(1, Fault::BreakAfterApplyAnd(meanwhile), 1);
            let error = test.put("a", "1").await.unwrap_err();
            let WriteError::InDoubt(error) = error else { panic!("{error:?}") };
            assert_eq!(error.code(), Some(code), "{meanwhile:?}: {error}");
            assert_eq!(cluster.writes_applied(), 1, "{meanwhile:?}");
            let there = test.get("a").await.unwrap().is_some();
            assert_eq!(there, meanwhile != Meanwhile::Replacement);
            // And the next one is as good as the first.
            test.put("b", "2").await.unwrap();
            assert_eq!((cluster.writes_applied(), cluster.sessions_opened()), (2, 2));
        }
    }
}

#[tokio::test]
async fn one_caller_opens_the_session_and_the_rest_wait() {
    const CALLERS: usize = 200;
    for transport in TRANSPORTS {
        let cluster = Cluster::start(3);
        let test = namespace(&cluster, transport).await;
        cluster.world.delay_ms.store(20, Ordering::Relaxed);
        put_at_once(&test, CALLERS).await;
        assert_eq!(cluster.sessions_opened(), 1);
        cluster.expire_sessions();
        put_at_once(&test, CALLERS).await;
        assert_eq!(cluster.sessions_opened(), 2);
        assert_eq!(cluster.writes_applied(), 2 * CALLERS as u64);
    }
}

/// In an outage a session is asked for again and again. Were each answer that is lost a session more, clients would push out
/// each other's, and with these what they wait for.
#[tokio::test]
async fn openings_whose_answers_are_lost_open_one_session() {
    let cluster = Cluster::start(1);
    let test = namespace(&cluster, Transport::Pipe).await;
    cluster.lose_openings(3);
    test.put("a", "1").await.unwrap();
    assert_eq!(cluster.sessions_opened(), 1);
    // It is asked for by whoever comes, where the one before had no time any more.
    cluster.expire_sessions();
    cluster.lose_openings(u64::MAX);
    let error = test.clone().with_timeout(Duration::from_millis(100)).put("a", "2").await.unwrap_err();
    assert!(matches!(error, WriteError::NotDone(_)), "{error:?}");
    cluster.lose_openings(1);
    test.put("a", "3").await.unwrap();
    assert_eq!((cluster.sessions_opened(), cluster.writes_applied()), (2, 2));
    // The next one that is needed is another one.
    cluster.expire_sessions();
    test.put("a", "4").await.unwrap();
    assert_eq!(cluster.sessions_opened(), 3);
}

/// The one who opens it may have little time, or go: it must not take the others with it.
#[tokio::test]
async fn a_session_is_opened_by_whoever_has_the_time() {
    let cluster = Cluster::start(3);
    cluster.lead(0);
    let test = namespace(&cluster, Transport::Pipe).await;
    let hasty = test.clone().with_timeout(Duration::from_millis(200));
    let gone = tokio::time::timeout(Duration::from_millis(50), test.put("a", "1"));
    let (first, second, gone) = tokio::join!(hasty.put("a", "1"), hasty.put("a", "2"), gone);
    for hasty in [first, second] {
        let error = hasty.unwrap_err();
        assert!(matches!(error, WriteError::NotDone(_)), "{error:?}");
    }
    assert!(gone.is_err());
    let patient = tokio::spawn({
        let test = test.clone();
        async move { test.put("a", "3").await }
    });
    let error = hasty.put("a", "4").await.unwrap_err();
    assert!(matches!(error, WriteError::NotDone(Error::TimedOut { .. } | Error::Refused(_))), "{error:?}");
    cluster.lead(2);
    patient.await.unwrap().unwrap();
    assert_eq!(cluster.writes_applied(), 1);
}

/// A caller that is gone waits for nothing: the cluster need not keep its answer, nor any after it.
#[tokio::test]
async fn callers_that_go_hold_nothing_up() {
    for transport in TRANSPORTS {
        let cluster = Cluster::start(1);
        let test = namespace(&cluster, transport).await;
        test.put("a", "1").await.unwrap();
        cluster.world.delay_ms.store(100, Ordering::Relaxed);
        for _ in 0..5 {
            let gone = tokio::time::timeout(Duration::from_millis(5), test.put("a", "1"));
            assert!(gone.await.is_err());
        }
        cluster.world.delay_ms.store(0, Ordering::Relaxed);
        test.put("a", "2").await.unwrap();
        assert_eq!(cluster.lowest(), 7, "one before, five that went, and this one");
        assert_eq!(cluster.sessions_opened(), 1);
    }
}

/// One write comes to no end while thousands do. The fake, like a real region, would forget its answer after 4,096.
#[tokio::test]
async fn one_slow_caller_holds_up_nobody_and_keeps_its_answer() {
    const WRITES: usize = 6_000;
    let cluster = Cluster::start(1);
    let test = namespace(&cluster, Transport::Pipe).await;
    *cluster.world.stuck.lock() = Some("slow".into());
    let slow = tokio::spawn({
        let test = test.clone();
        async move { test.put("slow", "1").await }
    });
    while cluster.sessions_opened() == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    for _ in 0..WRITES / 200 {
        put_at_once(&test, 200).await;
    }
    assert_eq!(cluster.sessions_opened(), 2);
    assert!(!slow.is_finished());
    cluster.fault(1, Fault::BreakAfterApply, 2);
    *cluster.world.stuck.lock() = None;
    slow.await.unwrap().unwrap();
    assert_eq!(cluster.writes_applied(), WRITES as u64 + 1);
    test.put("a", "1").await.unwrap();
    assert_eq!(cluster.sessions_opened(), 2, "the newer one goes on");
}

#[tokio::test]
async fn without_sessions_none_is_opened() {
    for transport in TRANSPORTS {
        let cluster = Cluster::start(1);
        let options = Options { transport, sessions: false, ..Options::new(cluster.endpoints()) };
        let test = Client::connect(options).await.unwrap().namespace("test");
        test.put("a", "1").await.unwrap();
        cluster.fault(1, Fault::BreakAfterApply, 1);
        let error = test.put("a", "1").await.unwrap_err();
        assert!(matches!(error, WriteError::InDoubt(Error::Lost { .. })), "{error:?}");
        assert_eq!((cluster.writes_applied(), cluster.sessions_opened()), (2, 0));
    }
}

const LOST: [Fault; 4] = [Fault::BreakAfterApply, Fault::BreakBeforeApply, Fault::InDoubt, Fault::TimedOut];

#[tokio::test]
async fn a_namespace_is_created_once_however_often_it_is_asked_for() {
    let cluster = Cluster::start(3);
    let client = connect(&cluster, Transport::Pipe).await;
    for (name, fault) in ["a", "b", "c", "d"].into_iter().zip(LOST) {
        cluster.fault(1, fault, 2);
        assert_eq!(client.create_namespace(name, Mode::Strong).await.unwrap().name, name, "{fault:?}");
        // Another request is another request, also by the same client.
        let error = client.create_namespace(name, Mode::Strong).await.unwrap_err();
        let WriteError::NotDone(error) = error else { panic!("{error:?}") };
        assert_eq!(error.code(), Some(Code::NamespaceExists));
    }
    assert_eq!(client.list_namespaces().await.unwrap().len(), 5);
}

#[tokio::test]
async fn the_namespace_that_is_deleted_is_the_one_that_was_there() {
    let cluster = Cluster::start(3);
    let client = connect(&cluster, Transport::Pipe).await;
    for fault in LOST {
        client.create_namespace("a", Mode::Strong).await.unwrap();
        cluster.fault(1, fault, 2);
        client.delete_namespace("a").await.unwrap();
        assert_eq!(cluster.namespace_id("a"), None, "{fault:?}");
    }
    let error = client.delete_namespace("a").await.unwrap_err();
    let WriteError::NotDone(error) = error else { panic!("{error:?}") };
    assert_eq!(error.code(), Some(Code::NamespaceNotFound));
    // Somebody else takes the name between the attempts.
    client.create_namespace("a", Mode::Strong).await.unwrap();
    let before = cluster.namespace_id("a");
    cluster.fault(1, Fault::BreakAfterApplyAnd(Meanwhile::Replacement), 1);
    client.delete_namespace("a").await.unwrap();
    assert!(before < cluster.namespace_id("a"), "the newer one is left alone");
    // The same before the first attempt, for who has looked before.
    let looked = client.describe_namespace("a").await.unwrap();
    cluster.replace_namespace("a");
    let error = client.delete_namespace_of_id("a", looked.id).await.unwrap_err();
    let WriteError::NotDone(error) = error else { panic!("{error:?}") };
    assert_eq!(error.code(), Some(Code::NamespaceNotFound));
    let newer = cluster.namespace_id("a").unwrap();
    assert!(looked.id < newer, "the newer one is left alone");
    assert!(client.delete_namespace_of_id("a", 0).await.is_err(), "0 would be any");
    client.delete_namespace_of_id("a", newer).await.unwrap();
    assert_eq!(cluster.namespace_id("a"), None);
}

#[tokio::test]
async fn a_switch_is_begun_once_and_called_off_once_however_often_it_is_asked_for() {
    let cluster = Cluster::start(3);
    let client = connect(&cluster, Transport::Pipe).await;
    let (options, refused) = (SwitchOptions::default(), Some(Code::SwitchRefused));
    for (number, fault) in (1..).zip(LOST) {
        assert!(client.check_switch("test", Mode::Eventual, &options).await.unwrap().hindrances.is_empty());
        cluster.fault(1, fault, 2);
        let begun = client.switch_mode("test", Mode::Eventual, &options).await.unwrap();
        assert_eq!((begun.switch, begun.phase), (number, SwitchPhase::Preparing), "{fault:?}");
        assert_eq!(cluster.switches(), (number, true));
        let error = client.switch_mode("test", Mode::Eventual, &options).await.unwrap_err();
        let WriteError::NotDone(error) = error else { panic!("{error:?}") };
        assert_eq!(error.code(), refused, "another request is another switch");
        cluster.fault(1, fault, 2);
        let (waited, aborted) =
            tokio::join!(client.wait_for_switch(&begun, |_| ()), client.abort_switch("test"));
        assert!(!waited.unwrap().completed && aborted.unwrap().epoch == begun.epoch + 1);
        assert_eq!(cluster.switches(), (number, false));
        let WriteError::NotDone(error) = client.abort_switch("test").await.unwrap_err() else { panic!() };
        assert_eq!(error.code(), refused, "there is none any more");
    }
}

/// An eventual namespace has no sessions; whoever has written to one must not go on without for ever.
#[tokio::test]
async fn writes_have_names_again_once_a_namespace_is_strong_again() {
    for transport in TRANSPORTS {
        let cluster = Cluster::start(3);
        let test = connect(&cluster, transport).await.namespace("test");
        test.put("a", "1").await.unwrap();
        assert_eq!(cluster.sessions_opened(), 1);
        cluster.become_eventual(true);
        test.put("a", "2").await.unwrap();
        test.put("a", "3").await.unwrap();
        cluster.become_eventual(false);
        // The first answer tells of the new epoch.
        test.put("a", "4").await.unwrap();
        assert_eq!(cluster.sessions_opened(), 1);
        cluster.fault(1, Fault::BreakAfterApply, 1);
        test.put("a", "5").await.unwrap();
        assert_eq!(
            (cluster.sessions_opened(), cluster.writes_applied()),
            (2, 5),
            "it was repeated, and applied once"
        );
    }
}

//! Scans against a fake cluster whose faults the tests choose: that a scan brings what it should, page by page, that it goes
//! on where it was when the node that serves it is lost, and that it does not where it was told not to.

#![allow(clippy::unwrap_used, reason = "tests")]

mod fake;

use fake::{Cluster, Fault, SCAN_PAGE_RECORDS};
use rdb_client::{Bytes, Client, Code, Error, Namespace, Options, Record, Scan, ScanOptions};
use std::sync::atomic::Ordering;
use std::time::Duration;

async fn connect(cluster: &Cluster) -> Namespace {
    Client::connect(Options::new(cluster.endpoints())).await.unwrap().namespace("test")
}

/// Keys `a` to `j`.
async fn filled(cluster: &Cluster) -> Namespace {
    let test = connect(cluster).await;
    for key in 'a'..='j' {
        test.put(key.to_string(), format!("value of {key}")).await.unwrap();
    }
    test
}

async fn rest(scan: &mut Scan) -> Result<Vec<Record>, Error> {
    let mut records = Vec::new();
    while let Some(record) = scan.next().await? {
        records.push(record);
    }
    Ok(records)
}

fn keys(records: &[Record]) -> String {
    records.iter().map(|record| String::from_utf8_lossy(&record.key).into_owned()).collect()
}

async fn scanned(test: &Namespace, options: ScanOptions) -> String {
    keys(&rest(&mut test.scan(options)).await.unwrap())
}

#[tokio::test]
async fn a_scan_brings_what_was_asked_for_in_order() {
    let cluster = Cluster::start(3);
    let test = filled(&cluster).await;
    for (options, expected) in [
        (ScanOptions::all(), "abcdefghij"),
        (ScanOptions::all().reverse(), "jihgfedcba"),
        (ScanOptions::all().limit(4), "abcd"),
        (ScanOptions::all().reverse().limit(3), "jih"),
        (ScanOptions::prefix("c"), "c"),
        (ScanOptions::prefix(""), "abcdefghij"),
        (ScanOptions::range("c", "f"), "cde"),
        (ScanOptions::range("h", ""), "hij"),
        (ScanOptions::range("x", ""), ""),
    ] {
        assert_eq!(scanned(&test, options.clone()).await, expected, "{options:?}");
        assert_eq!(test.count(options).await.unwrap(), expected.len() as u64);
    }
    let records = rest(&mut test.scan(ScanOptions::prefix("c"))).await.unwrap();
    assert_eq!(records, [test.get("c").await.unwrap().unwrap()]);
    let keys_only = rest(&mut test.scan(ScanOptions::prefix("c").keys_only())).await.unwrap();
    assert_eq!((&keys_only[0].value, keys_only[0].version), (&Bytes::new(), records[0].version));
    let mut pages = test.scan(ScanOptions::all());
    assert_eq!(keys(&[pages.next().await.unwrap().unwrap()]), "a");
    assert_eq!(keys(&pages.next_page().await.unwrap().unwrap()), "bc", "what is left of the first one");
    assert_eq!(keys(&pages.next_page().await.unwrap().unwrap()), "def");
    assert_eq!(keys(&rest(&mut pages).await.unwrap()), "ghij");
    assert_eq!((pages.next_page().await.unwrap(), pages.next().await.unwrap()), (None, None));
    assert_eq!(pages.served().unwrap().node, 1);
}

#[tokio::test]
async fn a_token_goes_on_where_a_scan_was() {
    let cluster = Cluster::start(1);
    let test = filled(&cluster).await;
    for (options, expected) in
        [(ScanOptions::all(), "abcdefghij"), (ScanOptions::range("b", "j").reverse(), "ihgfedcb")]
    {
        let (mut found, mut token) = (String::new(), Bytes::new());
        loop {
            let mut scan = test.scan(options.clone().limit(4).after(token));
            found += &keys(&rest(&mut scan).await.unwrap());
            match scan.token() {
                Some(next) => token = next.clone(),
                None => break,
            }
        }
        assert_eq!(found, expected);
    }
    // Within a page it goes on before the page: nothing is left out.
    let mut scan = test.scan(ScanOptions::all());
    assert_eq!(scan.token(), None);
    for _ in 0..=SCAN_PAGE_RECORDS {
        scan.next().await.unwrap();
    }
    let token = scan.token().unwrap().clone();
    assert_eq!(scanned(&test, ScanOptions::all().after(token)).await, "defghij");
}

#[tokio::test]
async fn a_scan_goes_on_at_another_node_and_keeps_its_limit() {
    let mut cluster = Cluster::start(3);
    let test = filled(&cluster).await;
    for reverse in [false, true] {
        cluster.fault(1, Fault::BreakAfterApply, 2);
        let options = if reverse { ScanOptions::all().reverse() } else { ScanOptions::all() };
        let mut scan = test.scan(options.limit(8));
        let expected = if reverse { "jihgfedc" } else { "abcdefgh" };
        assert_eq!(keys(&rest(&mut scan).await.unwrap()), expected);
        assert_eq!(scan.moments(), 3, "two streams broke");
        cluster.fault(1, Fault::BreakAfterApply, 2);
        assert_eq!(test.count(ScanOptions::all().limit(8)).await.unwrap(), 8);
    }
    // The node is gone for good, after the first page.
    cluster.fault(1, Fault::BreakAfterApply, 1);
    let mut scan = test.scan(ScanOptions::all());
    let first = scan.next_page().await.unwrap().unwrap();
    cluster.kill(1);
    cluster.lead(3);
    assert_eq!(keys(&first) + &keys(&rest(&mut scan).await.unwrap()), "abcdefghij");
    assert_eq!(scan.served().unwrap().node, 3);
}

#[tokio::test]
async fn a_scan_of_one_moment_fails_rather_than_go_on() {
    let cluster = Cluster::start(1);
    let test = filled(&cluster).await;
    // Before anything has come it is tried again.
    for fault in [Fault::BreakBeforeApply, Fault::Busy, Fault::NoLeader] {
        cluster.fault(1, fault, 2);
        assert_eq!(scanned(&test, ScanOptions::all().one_moment()).await, "abcdefghij", "{fault:?}");
    }
    cluster.fault(1, Fault::BreakAfterApply, 1);
    let mut scan = test.scan(ScanOptions::all().one_moment());
    assert_eq!(keys(&scan.next_page().await.unwrap().unwrap()), "abc");
    let before = cluster.world.messages.load(Ordering::Relaxed);
    for _ in 0..2 {
        let error = scan.next().await.unwrap_err();
        assert!(matches!(error, Error::Lost { .. }), "{error:?}");
    }
    assert_eq!(cluster.world.messages.load(Ordering::Relaxed), before, "it was not asked for again");
    cluster.fault(1, Fault::BreakAfterApply, 1);
    assert!(test.count(ScanOptions::all().one_moment()).await.is_err());
}

#[tokio::test]
async fn a_scan_fails_with_the_nodes_words_or_when_no_page_comes() {
    let cluster = Cluster::start(1);
    let test = filled(&cluster).await.with_timeout(Duration::from_millis(200));
    let client = Client::connect(Options::new(cluster.endpoints())).await.unwrap();
    let error = client.namespace("nowhere").scan(ScanOptions::all()).next().await.unwrap_err();
    assert_eq!(error.code(), Some(Code::NamespaceNotFound));
    for fault in [Fault::Silent, Fault::Busy] {
        cluster.fault(1, fault, 1000);
        let mut scan = test.scan(ScanOptions::all());
        let error = scan.next().await.unwrap_err();
        let silent = matches!(error, Error::TimedOut { .. });
        assert_eq!(silent, fault == Fault::Silent, "{error:?}");
        cluster.fault(1, Fault::Busy, 1);
        assert_eq!(keys(&rest(&mut scan).await.unwrap()), "abcdefghij", "it can be asked again");
    }
}

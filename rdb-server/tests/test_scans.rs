//! Scans on real processes: what they bring and in which order, that all of it is of one moment, that they go on by their
//! token and by no other, and that a node is neither held up nor filled by those who do not read.

use crate::support;
use crate::support::cluster::Node;
use crate::support::raw::{Raw, Refused, timed};
use crate::support::{Cluster, PATIENCE, Settings, assert_words, until};
use rdb_client::{Bytes, Client, Namespace, Options, Record, ScanOptions, ServedBy, Transaction, Write};
use rdb_proto::v1;
use rdb_proto::v1::kv_client::KvClient;
use rdb_proto::v1::scan::Keys;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tonic::transport::{Channel, Endpoint};

const NAMESPACE: &str = "things";
const TIMEOUT_MS: u64 = 5_000;
/// What a client without much room lets the node send ahead.
const WINDOW_BYTES: u32 = 65_535;
/// Enough of these do not fit into any window.
const LARGE_BYTES: usize = 100_000;
const LARGE: u32 = 150;

type Model = BTreeMap<Bytes, Bytes>;

async fn alone(options: &str) -> (Cluster, Client) {
    let settings = Settings { size: 1, options: options.to_owned(), ..Settings::default() };
    let cluster = Cluster::start(settings).await;
    let client = cluster.client().await;
    cluster.create(&client, NAMESPACE).await;
    (cluster, client)
}

async fn write(namespace: &Namespace, records: impl IntoIterator<Item = (Bytes, Bytes)>) {
    let writes: Vec<_> = records.into_iter().map(|(key, value)| Write::Put(key, value)).collect();
    // Each well below what one batch may have.
    for batch in writes.chunks(30) {
        until("a batch is written", async || namespace.batch_write(batch.to_vec()).await.ok()).await;
    }
}

fn numbered(number: u32) -> Bytes {
    format!("key/{number:06}").into()
}

async fn write_large(namespace: &Namespace) {
    write(namespace, (0..LARGE).map(|number| (numbered(number), vec![7; LARGE_BYTES].into()))).await;
}

async fn scanned(namespace: &Namespace, options: ScanOptions) -> Vec<Record> {
    let mut scan = namespace.scan(options);
    let mut records = Vec::new();
    while let Some(record) = scan.next().await.unwrap() {
        records.push(record);
    }
    records
}

fn request(scan: v1::Scan) -> v1::ScanRequest {
    v1::ScanRequest { namespace: NAMESPACE.to_owned(), scan: Some(scan), ..v1::ScanRequest::default() }
}

fn between(from: &[u8], to: &[u8]) -> v1::Scan {
    let range = v1::ScanRange { from: from.to_vec().into(), to: to.to_vec().into() };
    v1::Scan { keys: Some(Keys::Range(range)), ..v1::Scan::default() }
}

async fn pages(raw: &Raw, request: v1::ScanRequest) -> Result<Vec<v1::ScanResponse>, Refused> {
    let mut stream = raw.kv.clone().scan(timed(request, TIMEOUT_MS)).await?.into_inner();
    let mut pages = Vec::new();
    while let Some(page) = stream.message().await? {
        pages.push(page);
    }
    Ok(pages)
}

fn records(pages: &[v1::ScanResponse]) -> Vec<v1::Record> {
    pages.iter().flat_map(|page| page.records.clone()).collect()
}

/// A client that lets the node send no more than a little ahead of what it reads.
fn narrow(node: &Node) -> KvClient<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{}", node.address())).unwrap();
    let endpoint =
        endpoint.initial_stream_window_size(WINDOW_BYTES).initial_connection_window_size(4 * WINDOW_BYTES);
    KvClient::new(endpoint.connect_lazy())
}

/// A gauge, or a counter, without the prefix that all have.
async fn metric(node: &Node, name: &str) -> Option<u64> {
    let (_, text) = node.page("/metrics").await?;
    let wanted = format!("flaredb_{name} ");
    text.lines().find_map(|line| line.strip_prefix(&wanted)?.parse().ok())
}

async fn no_scan_is_under_way(node: &Node) {
    until("no scan is under way, and its memory is given back", async || {
        let left = (metric(node, "scans").await?, metric(node, "request_bytes").await?);
        (left == (0, 0)).then_some(())
    })
    .await;
}

/// Keys at the edges of what bytes can be.
const EDGES: [&[u8]; 12] = [
    b"\0",
    b"\0\0",
    b"a",
    b"a\0",
    b"a\xff",
    b"a\xff\xff",
    b"b",
    b"b/1",
    b"b/2",
    b"\xfe\xff",
    b"\xff",
    b"\xff\xff",
];

async fn compare(namespace: &Namespace, model: &Model) {
    let ends: Vec<&[u8]> = [&b""[..]].into_iter().chain(EDGES).collect();
    for prefix in &ends {
        let expected = model.iter().filter(|(key, _)| key.starts_with(prefix));
        compare_one(namespace, ScanOptions::prefix(prefix.to_vec()), expected.collect()).await;
    }
    for (place, from) in ends.iter().enumerate() {
        for to in ends[place + 1..].iter().chain([&ends[0]]) {
            let within = |key: &Bytes| from <= &&key[..] && (to.is_empty() || &&key[..] < to);
            let expected = model.iter().filter(|(key, _)| within(key));
            let options = ScanOptions::range(from.to_vec(), to.to_vec());
            compare_one(namespace, options, expected.collect()).await;
        }
    }
    compare_one(namespace, ScanOptions::all(), model.iter().collect()).await;
}

async fn compare_one(namespace: &Namespace, options: ScanOptions, mut expected: Vec<(&Bytes, &Bytes)>) {
    assert_eq!(namespace.count(options.clone()).await.unwrap(), expected.len() as u64, "{options:?}");
    for options in [options.clone(), options.reverse()] {
        let found = scanned(namespace, options.clone()).await;
        let found: Vec<_> = found.iter().map(|record| (&record.key, &record.value)).collect();
        assert_eq!(found, expected, "{options:?}");
        expected.reverse();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scan_brings_the_records_of_its_keys_and_of_no_other_namespace() {
    let cluster = Cluster::start(Settings { size: 1, ..Settings::default() }).await;
    let client = cluster.client().await;
    // One after the other: the ids of the first and the last are next to that of the one that is scanned.
    for name in ["before", NAMESPACE, "behind"] {
        cluster.create(&client, name).await;
    }
    let namespace = client.namespace(NAMESPACE);
    for neighbour in ["before", "behind"] {
        write(&client.namespace(neighbour), EDGES.map(|key| (key.into(), "neighbour".into()))).await;
    }
    compare(&namespace, &Model::new()).await;
    let mut model = Model::new();
    for (key, number) in EDGES.into_iter().zip(0..) {
        let value = Bytes::from(vec![number; usize::from(number)]);
        model.insert(key.into(), value.clone());
        namespace.put(key, value).await.unwrap();
    }
    compare(&namespace, &model).await;
    namespace.delete_range("a\0", "b/1").await.unwrap();
    model.retain(|key, _| key[..] < b"a\0"[..] || b"b/1"[..] <= key[..]);
    namespace.delete(&b"\xff"[..]).await.unwrap();
    model.remove(&b"\xff"[..]);
    namespace.put("a\0", "again").await.unwrap();
    model.insert("a\0".into(), "again".into());
    compare(&namespace, &model).await;
    namespace.delete_range(&b"\xfe"[..], "").await.unwrap();
    model.retain(|key, _| key[..] < b"\xfe"[..]);
    compare(&namespace, &model).await;
    // Versions are those of the records, and keys come without values where none are wanted.
    let mut record = namespace.get("a").await.unwrap();
    let one = ScanOptions::range("a", "a\0");
    assert_eq!(scanned(&namespace, one.clone()).await.pop(), record);
    record.as_mut().unwrap().value.clear();
    assert_eq!(scanned(&namespace, one.keys_only()).await.pop(), record);
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_are_bounded_and_each_has_a_token_that_goes_on_behind_it() {
    let (cluster, client) = alone("").await;
    let namespace = client.namespace(NAMESPACE);
    let raw = cluster.node(1).raw();
    let empty = pages(&raw, request(v1::Scan::default())).await.unwrap();
    assert_eq!((empty.len(), empty[0].done, empty[0].count, empty[0].token.len()), (1, true, 0, 0));
    // Small ones, of which a page has a certain number; then larger ones, of which it has fewer.
    write(&namespace, (0..3000).map(|number| (numbered(number), "small".into()))).await;
    write(&namespace, (3000..3300).map(|number| (numbered(number), vec![1; 2000].into()))).await;
    write(&namespace, (3300..3303).map(|number| (numbered(number), vec![1; 1 << 20].into()))).await;
    for reverse in [false, true] {
        let whole = v1::Scan { reverse, ..v1::Scan::default() };
        let all = pages(&raw, request(whole.clone())).await.unwrap();
        let mut expected: Vec<Bytes> = (0..3303).map(numbered).collect();
        if reverse {
            expected.reverse();
        }
        let keys: Vec<_> = records(&all).into_iter().map(|record| record.key).collect();
        assert_eq!(keys, expected);
        let mut passed = 0;
        for (place, page) in all.iter().enumerate() {
            let last = place == all.len() - 1;
            assert_eq!((page.done, page.token.is_empty()), (last, last));
            assert_eq!(page.count, page.records.len() as u64);
            let header = page.header.as_ref().unwrap();
            assert_eq!((header.mode(), header.served()), (v1::Mode::Strong, v1::Consistency::Linearizable));
            let bytes: usize = page.records.iter().map(|record| record.key.len() + record.value.len()).sum();
            assert!(page.count <= 1024 && (bytes <= 256 << 10 || page.count == 1), "{} {bytes}", page.count);
            passed += page.records.len();
            if !last {
                let resumed = v1::ScanRequest { token: page.token.clone(), ..request(whole.clone()) };
                let rest = records(&pages(&raw, resumed).await.unwrap());
                assert_eq!(rest, records(&all)[passed..]);
            }
        }
        // The limit is exact, within a page and over several, and says whether anything lies behind.
        for limit in [1, 1024, 1025, 3302, 3303, 4000] {
            let limited = request(v1::Scan { limit, ..whole.clone() });
            let limited = pages(&raw, limited).await.unwrap();
            assert_eq!(records(&limited).len() as u64, limit.min(3303));
            let last = limited.last().unwrap();
            assert!(last.done);
            assert_eq!(last.token.is_empty(), 3303 <= limit, "{limit}");
            let counted = request(v1::Scan { limit, count_only: true, ..whole.clone() });
            let counted = pages(&raw, counted).await.unwrap();
            assert!(records(&counted).is_empty());
            assert_eq!(counted.iter().map(|page| page.count).sum::<u64>(), limit.min(3303));
        }
    }
    let done = metric(cluster.node(1), "requests_total{operation=\"Scan\",result=\"Done\"}").await.unwrap();
    assert!(20 < done, "{done}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_and_tokens_are_refused_and_named() {
    let (cluster, client) = alone("").await;
    let namespace = client.namespace(NAMESPACE);
    cluster.create(&client, "other").await;
    for name in [NAMESPACE, "other"] {
        write(&client.namespace(name), (0..10).map(|number| (numbered(number), "v".into()))).await;
    }
    let raw = cluster.node(1).raw();
    let scan = || v1::Scan { limit: 3, ..between(b"key", b"l") };
    let token = pages(&raw, request(scan())).await.unwrap().pop().unwrap().token;
    let with =
        |scan: v1::Scan, token: &[u8]| v1::ScanRequest { token: token.to_vec().into(), ..request(scan) };
    // The prefix has the very keys of the range.
    let same = v1::Scan { keys: Some(Keys::Prefix("k".into())), ..v1::Scan::default() };
    let of_prefix = pages(&raw, request(v1::Scan { limit: 3, ..same.clone() })).await.unwrap();
    let rest = pages(&raw, with(between(b"k", b"l"), &of_prefix[0].token)).await.unwrap();
    assert_eq!(records(&rest).len(), 7);
    let mut damaged = token.to_vec();
    damaged[20] ^= 1;
    let other = v1::ScanRequest { namespace: "other".to_owned(), ..with(scan(), &token) };
    let reverse = v1::Scan { reverse: true, ..scan() };
    let long = [b'k'; 4097];
    let prefix = v1::Scan { keys: Some(Keys::Prefix(long.to_vec().into())), ..v1::Scan::default() };
    for (wrong, words) in [
        (other.clone(), &["token", "another namespace"][..]),
        (with(scan(), &damaged), &["token is damaged", "checksum"]),
        (with(scan(), &token[..token.len() - 1]), &["token is damaged"]),
        (with(scan(), b"x"), &["token is damaged"]),
        (with(reverse, &token), &["token", "other direction"]),
        (with(between(b"key", b"m"), &token), &["token", "another range"]),
        (with(v1::Scan::default(), &token), &["token", "another range"]),
        (request(between(b"b", b"a")), &["from 'b' to 'a'", "ends where it begins"]),
        (request(between(b"a", b"a")), &["ends where it begins"]),
        (request(between(&long, b"")), &["4097", "4096"]),
        (request(prefix), &["prefix", "4097", "4096"]),
    ] {
        let refused = pages(&raw, wrong).await.unwrap_err();
        assert_eq!((refused.code, refused.outcome), (v1::Code::InvalidArgument, v1::Outcome::NotDone));
        assert_eq!((refused.status, refused.error.retry_after_ms), (tonic::Code::InvalidArgument, 0));
        assert_words(&refused.text, words);
    }
    let nowhere = v1::ScanRequest { namespace: "nowhere".to_owned(), ..request(scan()) };
    assert_eq!(pages(&raw, nowhere).await.unwrap_err().code, v1::Code::NamespaceNotFound);
    let epoch = pages(&raw, v1::ScanRequest { epoch: 99, ..request(scan()) }).await.unwrap_err();
    assert_eq!(epoch.code, v1::Code::EpochMismatch);
    let unknown = pages(&raw, v1::ScanRequest { consistency: 99, ..request(scan()) }).await.unwrap_err();
    assert_eq!(unknown.code, v1::Code::Unsupported);
    // The same name is another namespace once it was deleted and made again.
    client.delete_namespace(NAMESPACE).await.unwrap();
    cluster.create(&client, NAMESPACE).await;
    write(&namespace, (0..10).map(|number| (numbered(number), "v".into()))).await;
    let again = pages(&raw, with(scan(), &token)).await.unwrap_err();
    assert_words(&again.text, &["another namespace", "deleted and made again"]);
}

/// One writer stores the same number under `a/N` and `z/N` in one transaction, over and over. A scan that had a part of
/// one moment and a part of another one would find them different: between its pages all of them are written anew.
#[tokio::test(flavor = "multi_thread")]
async fn all_pages_are_of_one_moment() {
    const PAIRS: u64 = 64;
    let (cluster, client) = alone("").await;
    let namespace = client.namespace(NAMESPACE);
    let pad = "p".repeat(30_000);
    let number = |value: &[u8]| String::from_utf8_lossy(value).split(' ').next().unwrap().to_owned();
    let (stop, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let writer = tokio::spawn({
        let (namespace, stop, rounds) = (namespace.clone(), stop.clone(), rounds.clone());
        async move {
            for round in 1.. {
                for pair in 0..PAIRS {
                    let value = format!("{round}.{pair} {pad}");
                    let both = Transaction::new()
                        .then_put(format!("a/{pair:02}"), value.clone())
                        .then_put(format!("z/{pair:02}"), value);
                    namespace.transaction(both).await.unwrap();
                }
                // What is there for a while only, in between and at the ends.
                let transient = Transaction::new().then_put("a", "t").then_put("m", "t").then_put("zz", "t");
                namespace.transaction(transient).await.unwrap();
                let gone = Transaction::new().then_delete("a").then_delete_range("m", "n").then_delete("zz");
                namespace.transaction(gone).await.unwrap();
                rounds.store(round, Ordering::SeqCst);
                if stop.load(Ordering::SeqCst) {
                    return;
                }
            }
        }
    });
    let rounds_pass = async || {
        let wanted = rounds.load(Ordering::SeqCst) + 2;
        until("all is written anew", async || (wanted <= rounds.load(Ordering::SeqCst)).then_some(())).await;
    };
    rounds_pass().await;
    for reverse in [false, true] {
        let scan = v1::Scan { reverse, ..v1::Scan::default() };
        let mut stream = narrow(cluster.node(1)).scan(request(scan)).await.unwrap().into_inner();
        let (mut found, mut transient, mut pages) = (BTreeMap::new(), Vec::new(), 0);
        while let Some(page) = stream.message().await.unwrap() {
            pages += 1;
            for record in page.records {
                match record.key.split(|byte| *byte == b'/').collect::<Vec<_>>()[..] {
                    [_, pair] => {
                        let pair = found.entry(pair.to_vec()).or_insert_with(Vec::new);
                        pair.push(number(&record.value));
                    }
                    _ => transient.push(record.version),
                }
            }
            if pages < 4 {
                rounds_pass().await;
            }
        }
        assert!(12 < pages, "{pages} pages are too few: they may all be read before the first is looked at");
        assert_eq!(found.len() as u64, PAIRS);
        assert!(found.values().all(|pair| pair.len() == 2 && pair[0] == pair[1]), "{found:?}");
        assert!([0, 3].contains(&transient.len()), "all three of one transaction, or none: {transient:?}");
        transient.dedup();
        assert!(transient.len() <= 1, "{transient:?}");
    }
    stop.store(true, Ordering::SeqCst);
    writer.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_read_is_cut_off_and_goes_on_by_the_token() {
    // The last one is read to its end, and waits with its last pages only.
    const LIMITS: [u64; 3] = [0, 0, 5];
    let (cluster, client) = alone("request_timeout_ms = 3000\nscans_max = 3").await;
    let namespace = client.namespace(NAMESPACE);
    write_large(&namespace).await;
    let node = cluster.node(1);
    no_scan_is_under_way(node).await;
    let mut stalled = Vec::new();
    for limit in LIMITS {
        let scan = v1::Scan { limit, ..v1::Scan::default() };
        let stream = narrow(node).scan(request(scan)).await.unwrap().into_inner();
        stalled.push(stream);
    }
    // There is no place for one more, until one of them is cut off.
    let refused = pages(&node.raw(), request(v1::Scan::default())).await.map(drop).unwrap_err();
    assert_eq!((refused.code, refused.status), (v1::Code::ResourceExhausted, tonic::Code::ResourceExhausted));
    assert!(0 < refused.error.retry_after_ms);
    assert_words(&refused.text, &["limit of 3 scans at a time"]);
    let held = metric(node, "request_bytes").await.unwrap();
    assert!(
        held <= (LIMITS.len() * 4 * (256 << 10)) as u64,
        "{held} bytes are held for those who do not read"
    );
    no_scan_is_under_way(node).await;
    for mut stream in stalled {
        let mut read = Vec::new();
        let error = loop {
            match stream.message().await {
                Ok(Some(page)) => read.push(page),
                Ok(None) => panic!("{} pages came before the end", read.len()),
                Err(status) => break Refused::from(status),
            }
        };
        assert_eq!(error.code, v1::Code::ResourceExhausted, "{error:?}");
        assert!(0 < error.error.retry_after_ms);
        assert_words(&error.text, &["was not read for 3s", "token of the last page"]);
        let token = read.last().map(|page| page.token.clone()).unwrap_or_default();
        let rest =
            pages(&node.raw(), v1::ScanRequest { token, ..request(v1::Scan::default()) }).await.unwrap();
        let keys = records(&read).into_iter().chain(records(&rest)).map(|record| record.key);
        assert!(keys.eq((0..LARGE).map(numbered)), "nothing twice, nothing left out");
    }
    // The library goes on by itself.
    let mut scan = namespace.scan(ScanOptions::all());
    let mut keys: Vec<_> = scan.next_page().await.unwrap().unwrap();
    no_scan_is_under_way(node).await;
    while let Some(page) = scan.next_page().await.unwrap() {
        keys.extend(page);
    }
    assert!(keys.into_iter().map(|record| record.key).eq((0..LARGE).map(numbered)));
    assert_eq!(scan.moments(), 2);
}

/// A client that goes away, and a node that stops, wait for nobody.
#[tokio::test(flavor = "multi_thread")]
async fn an_abandoned_scan_ends_and_a_stopping_node_ends_those_under_way() {
    let (mut cluster, client) = alone("").await;
    write_large(&client.namespace(NAMESPACE)).await;
    let stall = async |node: &Node| {
        let mut stream = narrow(node).scan(request(v1::Scan::default())).await.unwrap().into_inner();
        stream.message().await.unwrap().unwrap();
        until("it is under way", async || (metric(node, "scans").await? == 1).then_some(())).await;
        stream
    };
    drop(stall(cluster.node(1)).await);
    no_scan_is_under_way(cluster.node(1)).await;
    let mut stream = stall(cluster.node(1)).await;
    let log = cluster.node(1).log.clone();
    let read = tokio::spawn(async move {
        while !std::fs::read_to_string(&log).unwrap().contains("stopping") {
            tokio::time::sleep(support::LOOK_INTERVAL).await;
        }
        loop {
            match stream.message().await {
                Ok(page) => assert!(page.is_some(), "it has ended well"),
                Err(status) => return Refused::from(status),
            }
        }
    });
    cluster.stop(1);
    let refused = read.await.unwrap();
    // The connection may be closed before the node's words are through.
    let said = refused.code == v1::Code::ShuttingDown;
    assert!(said || refused.error == v1::Error::default(), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_is_deleted_ends_its_scans() {
    let (cluster, client) = alone("request_timeout_ms = 60000").await;
    write_large(&client.namespace(NAMESPACE)).await;
    for made_again in [false, true] {
        if made_again {
            cluster.create(&client, NAMESPACE).await;
            write_large(&client.namespace(NAMESPACE)).await;
        }
        let mut stream =
            narrow(cluster.node(1)).scan(request(v1::Scan::default())).await.unwrap().into_inner();
        let first = stream.message().await.unwrap().unwrap();
        client.delete_namespace(NAMESPACE).await.unwrap();
        if made_again {
            cluster.create(&client, NAMESPACE).await;
            client.namespace(NAMESPACE).put("key/", "of the new one").await.unwrap();
        }
        let mut found = records(&[first]);
        let refused = loop {
            match stream.message().await {
                Ok(Some(page)) => found.extend(page.records),
                Ok(None) => panic!("the scan has ended well, with {} records", found.len()),
                Err(status) => break Refused::from(status),
            }
        };
        assert_eq!((refused.code, refused.outcome), (v1::Code::NamespaceNotFound, v1::Outcome::NotDone));
        assert_words(&refused.text, &["'things' was deleted while it was scanned"]);
        let expected = (0..LARGE).map(numbered).take(found.len());
        assert!(found.into_iter().map(|record| record.key).eq(expected), "what came is what was there");
        no_scan_is_under_way(cluster.node(1)).await;
    }
}

/// One writer adds keys; scans and counts at all nodes must find all that were acknowledged before they asked, and none
/// that comes after one that is missing.
#[tokio::test(flavor = "multi_thread")]
async fn scans_at_every_node_see_what_was_acknowledged() {
    let mut cluster = Cluster::of_three().await;
    let client = cluster.client().await;
    cluster.create(&client, NAMESPACE).await;
    let (acknowledged, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let mut readers = Vec::new();
    for id in cluster.ids() {
        let there = client.namespace_at(NAMESPACE, &cluster.node(id).address()).unwrap();
        let (acknowledged, stop) = (acknowledged.clone(), stop.clone());
        readers.push(tokio::spawn(async move {
            let mut served = 0u64;
            while !stop.load(Ordering::SeqCst) {
                let least = acknowledged.load(Ordering::SeqCst);
                let mut scan = there.scan(ScanOptions::prefix("key/").keys_only().one_moment());
                let mut found = 0u32;
                let complete = loop {
                    match scan.next().await {
                        Ok(Some(record)) => {
                            found += 1;
                            assert_eq!(record.key, numbered(found), "node {id}");
                        }
                        Ok(None) => break true,
                        Err(_) => break false,
                    }
                };
                assert!(!complete || least <= u64::from(found), "node {id} has found {found}, after {least}");
                let least = acknowledged.load(Ordering::SeqCst);
                let Ok(count) = there.count(ScanOptions::prefix("key/").one_moment()).await else { continue };
                assert!(least <= count, "node {id} has counted {count}, after {least}");
                served += u64::from(complete);
            }
            served
        }));
    }
    let namespace = client.namespace(NAMESPACE);
    for round in 0..3u32 {
        for count in 100 * round + 1..=100 * (round + 1) {
            until("a write is acknowledged", async || namespace.put(numbered(count), "v").await.ok()).await;
            acknowledged.store(count.into(), Ordering::SeqCst);
        }
        let leader = cluster.leader(NAMESPACE).await;
        match round {
            0 => drop(client.move_leader(NAMESPACE, cluster.others(&[leader])[0]).await),
            1 => {
                cluster.kill(leader);
                cluster.restart(leader).await;
            }
            _ => {}
        }
    }
    stop.store(true, Ordering::SeqCst);
    for reader in readers {
        assert!(0 < reader.await.unwrap(), "a node has served no scan at all");
    }
    // And how they were served is said.
    cluster.catch_up(NAMESPACE, &cluster.ids()).await;
    let leader = cluster.leader(NAMESPACE).await;
    for id in cluster.others(&[leader]) {
        let there = client.namespace_at(NAMESPACE, &cluster.node(id).address()).unwrap();
        let stale = rdb_client::Consistency::Stale { max_age: Some(PATIENCE) };
        for (there, by) in
            [(there.clone(), ServedBy::Linearizable), (there.with_consistency(stale), ServedBy::Stale)]
        {
            let mut scan = there.scan(ScanOptions::all());
            assert_eq!(scan.next().await.unwrap().unwrap().key, numbered(1));
            let served = scan.served().unwrap();
            assert_eq!((served.node, served.by, served.age.is_some()), (id, Some(by), by == ServedBy::Stale));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scan_goes_on_when_the_node_that_serves_it_dies() {
    let mut cluster = Cluster::of_three().await;
    let client = cluster.client_with(Options { request_timeout: PATIENCE, ..Options::default() }).await;
    cluster.create(&client, NAMESPACE).await;
    let namespace = client.namespace(NAMESPACE);
    write_large(&namespace).await;
    let expected: Vec<Bytes> = (0..LARGE).map(numbered).collect();
    let mut scan = namespace.scan(ScanOptions::all());
    let mut strict = namespace.scan(ScanOptions::all().one_moment());
    let mut found = scan.next_page().await.unwrap().unwrap();
    strict.next_page().await.unwrap().unwrap();
    let served = scan.served().unwrap().node;
    assert_eq!(served, cluster.leader(NAMESPACE).await);
    cluster.kill(served);
    while let Some(page) = scan.next_page().await.unwrap() {
        found.extend(page);
    }
    let keys: Vec<_> = found.into_iter().map(|record| record.key).collect();
    assert!(keys == expected, "{} keys, in order, none twice", keys.len());
    assert!(1 < scan.moments(), "it was too small to be cut off");
    assert_ne!(scan.served().unwrap().node, served);
    let error = loop {
        match strict.next_page().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it has gone on at another moment"),
            Err(error) => break error,
        }
    };
    assert_words(&error.to_string(), &["lost the connection"]);
    let count = namespace.count(ScanOptions::all().limit(100)).await.unwrap();
    assert_eq!(count, 100);
}

//! Requests at a limit are done, and one byte or one operation past it they are refused, by name and with nothing applied: by calls
//! of their own and in the pipe alike. Scans over far more than a node may keep in memory come in pages that it can.

use crate::support::raw::{Raw, Refused, timed};
use crate::support::{Cluster, Settings, assert_words};
use bytes::Bytes;
use prost::Message as _;
use rdb_proto::v1;
use rdb_proto::v1::compare_and_swap::Expect;
use rdb_proto::v1::pipe_operation::Operation;
use rdb_proto::v1::pipe_result::Result as Answer;
use rdb_proto::v1::transaction_operation::Operation as Step;
use std::time::Instant;

const NAMESPACE: &str = "things";
const TIMEOUT_MS: u64 = 30_000;
const KEY_BYTES_MAX: usize = 4096;
const VALUE_BYTES_MAX: usize = 1 << 20;
const BATCH_BYTES_MAX: usize = 4 << 20;
const BATCH_OPERATIONS_MAX: usize = 1024;
const TRANSACTION_OPERATIONS_MAX: usize = 128;
const PIPE_OPERATIONS_MAX: usize = 4096;
const MESSAGE_BYTES_MAX: usize = 16 << 20;

fn key(bytes: usize) -> Bytes {
    vec![b'k'; bytes].into()
}

fn put(key: impl Into<Bytes>, value_bytes: usize) -> v1::Put {
    v1::Put { key: key.into(), value: vec![b'v'; value_bytes].into() }
}

fn batch(puts: impl IntoIterator<Item = v1::Put>) -> Operation {
    let writes = puts.into_iter().map(|put| v1::Write { write: Some(v1::write::Write::Put(put)) });
    Operation::BatchWrite(v1::BatchWrite { writes: writes.collect() })
}

fn transaction(steps: impl IntoIterator<Item = Step>) -> Operation {
    let then = steps.into_iter().map(|step| v1::TransactionOperation { operation: Some(step) });
    Operation::Transaction(v1::Transaction { then: then.collect(), ..v1::Transaction::default() })
}

fn cas(key: Bytes, value_bytes: usize) -> Operation {
    let (expect, then_put) = (Some(Expect::Absent(v1::Absent {})), Some(vec![b'v'; value_bytes].into()));
    Operation::Cas(v1::CompareAndSwap { key, expect, then_put })
}

fn range(from: Bytes, to: Bytes) -> v1::DeleteRange {
    v1::DeleteRange { from, to }
}

/// Puts of keys of three bytes, which have `bytes` together.
fn puts_of(bytes: usize) -> Vec<v1::Put> {
    let values_bytes = bytes - 5 * 3;
    let value_bytes = |number: usize| values_bytes / 5 + usize::from(number < values_bytes % 5);
    (0..5).map(|number| put(format!("b/{number}"), value_bytes(number))).collect()
}

/// What is limited, a request with so much of it, the limit, and what the refusal says.
type Case = (&'static str, fn(usize) -> Operation, usize, &'static [&'static str]);

const CASES: [Case; 18] = [
    ("a put's key", |n| Operation::Put(put(key(n), 1)), KEY_BYTES_MAX, &["key has 4097", "4096"]),
    ("a put's value", |n| Operation::Put(put("k", n)), VALUE_BYTES_MAX, &["value has 1048577", "1048576"]),
    ("a get's key", |n| Operation::Get(v1::Get { key: key(n) }), KEY_BYTES_MAX, &["key has 4097", "4096"]),
    ("a delete's key", |n| Operation::Delete(v1::Delete { key: key(n) }), KEY_BYTES_MAX, &["key has 4097"]),
    ("a cas's key", |n| cas(key(n), 1), KEY_BYTES_MAX, &["key has 4097", "4096"]),
    ("a cas's value", |n| cas("c".into(), n), VALUE_BYTES_MAX, &["value has 1048577", "1048576"]),
    (
        "a batch get's keys",
        |n| Operation::BatchGet(v1::BatchGet { keys: vec!["absent".into(); n] }),
        BATCH_OPERATIONS_MAX,
        &["1025 operations", "1024"],
    ),
    (
        "a batch's operations",
        |n| batch((0..n).map(|number| put(format!("b/{number}"), 1))),
        BATCH_OPERATIONS_MAX,
        &["1025 operations", "1024"],
    ),
    ("a batch's bytes", |n| batch(puts_of(n)), BATCH_BYTES_MAX, &["4194305 bytes", "4194304"]),
    ("a batch's keys", |n| batch([put("b", 1), put(key(n), 1)]), KEY_BYTES_MAX, &["key has 4097"]),
    ("a batch's values", |n| batch([put("b", 1), put("v", n)]), VALUE_BYTES_MAX, &["value has 1048577"]),
    (
        "a transaction's operations",
        |n| transaction((0..n).map(|number| Step::Put(put(format!("t/{number}"), 1)))),
        TRANSACTION_OPERATIONS_MAX,
        &["129 compares and operations", "128"],
    ),
    (
        "a transaction's bytes",
        |n| transaction(puts_of(n).into_iter().map(Step::Put)),
        BATCH_BYTES_MAX,
        &["4194305 bytes", "4194304"],
    ),
    ("a transaction's keys", |n| transaction([Step::Put(put(key(n), 1))]), KEY_BYTES_MAX, &["key has 4097"]),
    (
        "a transaction's values",
        |n| transaction([Step::Put(put("t", 1)), Step::Put(put("v", n))]),
        VALUE_BYTES_MAX,
        &["value has 1048577"],
    ),
    (
        "the ranges of a transaction",
        |n| {
            transaction([Step::Put(put("t", 1)), Step::DeleteRange(range("zz".into(), vec![b'~'; n].into()))])
        },
        KEY_BYTES_MAX,
        &["end has 4097"],
    ),
    (
        "a range's beginning",
        |n| Operation::DeleteRange(range(vec![b'z'; n].into(), Bytes::new())),
        KEY_BYTES_MAX,
        &["beginning has 4097", "4096"],
    ),
    (
        "a range's end",
        |n| Operation::DeleteRange(range("z".into(), vec![b'~'; n].into())),
        KEY_BYTES_MAX,
        &["end has 4097", "4096"],
    ),
];

/// By a call of its own.
async fn call(raw: &Raw, operation: Operation) -> Result<(), Refused> {
    let (mut kv, namespace) = (raw.kv.clone(), NAMESPACE.to_owned());
    macro_rules! call {
        ($method:ident, $request:ident, $field:ident, $value:expr) => {{
            let request = v1::$request { namespace, $field: Some($value), ..v1::$request::default() };
            kv.$method(timed(request, TIMEOUT_MS)).await.map(drop).map_err(Refused::from)
        }};
    }
    match operation {
        Operation::Get(get) => call!(get, GetRequest, get, get),
        Operation::Put(put) => call!(put, PutRequest, put, put),
        Operation::Delete(delete) => call!(delete, DeleteRequest, delete, delete),
        Operation::Cas(cas) => call!(compare_and_swap, CompareAndSwapRequest, cas, cas),
        Operation::BatchGet(get) => call!(batch_get, BatchGetRequest, get, get),
        Operation::BatchWrite(batch) => call!(batch_write, BatchWriteRequest, batch, batch),
        Operation::Transaction(transaction) => {
            call!(transaction, TransactionRequest, transaction, transaction)
        }
        Operation::DeleteRange(range) => call!(delete_range, DeleteRangeRequest, range, range),
    }
}

fn message(operations: impl IntoIterator<Item = Operation>) -> v1::PipeRequest {
    let operation = |(id, operation)| v1::PipeOperation { id, sequence: 0, operation: Some(operation) };
    let operations = (1..).zip(operations).map(operation).collect();
    v1::PipeRequest { namespace: NAMESPACE.to_owned(), operations, ..v1::PipeRequest::default() }
}

/// What the pipe answers to one message, in the order in which it was asked; or how the pipe ends.
async fn piped(raw: &Raw, message: v1::PipeRequest) -> Result<Vec<Answer>, Refused> {
    let mut answers = raw.kv.clone().pipe(tokio_stream::once(message)).await?.into_inner();
    let mut results = Vec::new();
    while let Some(answer) = answers.message().await? {
        results.extend(answer.results);
    }
    results.sort_unstable_by_key(|result| result.id);
    Ok(results.into_iter().map(|result| result.result.unwrap()).collect())
}

/// By the pipe.
async fn pipe(raw: &Raw, operation: Operation) -> Result<(), v1::Error> {
    match piped(raw, message([operation])).await.unwrap().pop() {
        Some(Answer::NotDone(error) | Answer::InDoubt(error)) => Err(error),
        Some(_) => Ok(()),
        None => panic!("the pipe has not answered"),
    }
}

/// All that is in the namespace: keys, lengths, and when each was written.
async fn content(raw: &Raw) -> Vec<(Bytes, usize, Option<v1::Version>)> {
    let request = v1::ScanRequest {
        namespace: NAMESPACE.to_owned(),
        scan: Some(v1::Scan::default()),
        ..v1::ScanRequest::default()
    };
    let mut pages = raw.kv.clone().scan(timed(request, TIMEOUT_MS)).await.unwrap().into_inner();
    let mut content = Vec::new();
    while let Some(page) = pages.message().await.unwrap() {
        content.extend(page.records.into_iter().map(|one| (one.key, one.value.len(), one.version)));
    }
    content
}

async fn alone(options: &str) -> Cluster {
    let cluster =
        Cluster::start(Settings { size: 1, options: options.to_owned(), ..Settings::default() }).await;
    cluster.create(&cluster.client().await, NAMESPACE).await;
    cluster
}

#[tokio::test(flavor = "multi_thread")]
async fn at_each_limit_it_is_done_and_past_it_refused_with_nothing_applied() {
    let cluster = alone("").await;
    let raw = cluster.node(1).raw();
    raw.put(NAMESPACE, "zz/kept", "value", TIMEOUT_MS).await.unwrap();
    for (what, of, limit, words) in CASES {
        call(&raw, of(limit)).await.unwrap_or_else(|refused| panic!("{what} of {limit}: {refused:?}"));
        pipe(&raw, of(limit)).await.unwrap_or_else(|refused| panic!("{what} of {limit}, piped: {refused:?}"));
        // A range at its limit has deleted it.
        raw.put(NAMESPACE, "zz/kept", "value", TIMEOUT_MS).await.unwrap();
        let before = content(&raw).await;
        let refused = call(&raw, of(limit + 1)).await.expect_err(what);
        assert_eq!(refused.status, tonic::Code::InvalidArgument, "{what}: {refused:?}");
        let piped = pipe(&raw, of(limit + 1)).await.expect_err(what);
        for error in [refused.error, piped] {
            assert_eq!(
                (error.code(), error.outcome()),
                (v1::Code::InvalidArgument, v1::Outcome::NotDone),
                "{what}: {error:?}"
            );
            assert_words(&error.message, words);
            assert!(!error.hint.is_empty() && error.retry_after_ms == 0, "{what}: {error:?}");
        }
        assert_eq!(content(&raw).await, before, "{what}: something was applied");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_with_too_many_operations_are_refused_as_a_whole() {
    let cluster = alone("").await;
    let raw = cluster.node(1).raw();
    let of = |count: usize| message((0..count).map(|number| Operation::Put(put(format!("p/{number}"), 1))));
    let done = piped(&raw, of(PIPE_OPERATIONS_MAX)).await.unwrap();
    assert_eq!(done.len(), PIPE_OPERATIONS_MAX);
    assert!(done.iter().all(|answer| matches!(answer, Answer::Done(_))));
    let before = content(&raw).await;
    assert_eq!(before.len(), PIPE_OPERATIONS_MAX);
    let refused = piped(&raw, of(PIPE_OPERATIONS_MAX + 1)).await.unwrap();
    assert_eq!(refused.len(), PIPE_OPERATIONS_MAX + 1);
    for answer in refused {
        let Answer::NotDone(error) = answer else { panic!("{answer:?}") };
        assert_eq!(error.code(), v1::Code::InvalidArgument);
        assert_words(&error.message, &["4097 operations", "4096"]);
    }
    assert_eq!(content(&raw).await, before);
}

/// Puts that make a message of just so many bytes.
fn message_of(bytes: usize) -> v1::PipeRequest {
    let of = |last: usize| {
        let puts = (0..16).map(|number| put(format!("m/{number:02}"), VALUE_BYTES_MAX - 1_000));
        message(puts.chain([put("m/last", last)]).map(Operation::Put))
    };
    // Lengths of some thousands have all the same number of digits.
    let last = 10_000 + bytes - of(10_000).encoded_len();
    let message = of(last);
    assert_eq!(message.encoded_len(), bytes);
    message
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_over_what_the_transport_takes_are_refused_by_their_heads() {
    let cluster = alone("").await;
    let raw = cluster.node(1).raw();
    let done = piped(&raw, message_of(MESSAGE_BYTES_MAX)).await.unwrap();
    assert_eq!(done.len(), 17);
    assert!(done.iter().all(|answer| matches!(answer, Answer::Done(_))), "{done:?}");
    let before = content(&raw).await;
    let refused = piped(&raw, message_of(MESSAGE_BYTES_MAX + 1)).await.unwrap_err();
    let words = ["message has 16777217 bytes", "limit is 16777216"];
    let assert_refused = |refused: Refused, words: &[&str]| {
        assert_eq!((refused.code, refused.outcome), (v1::Code::InvalidArgument, v1::Outcome::NotDone));
        assert_eq!(refused.status, tonic::Code::InvalidArgument);
        assert_words(&refused.text, words);
        assert!(!refused.error.hint.is_empty());
    };
    assert_refused(refused, &words);
    // A call that has no other limit so large: its own is far below, and not what it is refused by.
    let refused = call(&raw, Operation::Put(put("wrong", MESSAGE_BYTES_MAX))).await.unwrap_err();
    assert_refused(refused, &["message has", "limit is 16777216"]);
    let refused = call(&raw, Operation::Put(put("wrong", MESSAGE_BYTES_MAX - 100))).await.unwrap_err();
    assert_refused(refused, &["value has", "limit is 1048576"]);
    assert_eq!(content(&raw).await, before);
}

/// Writes so many records, scans them, and returns how much memory that took beyond what the node had.
async fn scan_of(cluster: &mut Cluster, keys: usize, value_bytes: usize) -> u64 {
    let raw = cluster.node(1).raw();
    let begun = Instant::now();
    let numbers: Vec<usize> = (0..keys).collect();
    for numbers in numbers.chunks(BATCH_OPERATIONS_MAX) {
        let puts = numbers.iter().map(|number| put(format!("{number:08}"), value_bytes));
        call(&raw, batch(puts)).await.unwrap();
    }
    let written = begun.elapsed();
    cluster.process(1).forget_peak_memory();
    let before = cluster.process(1).memory_bytes();
    let request = v1::ScanRequest {
        namespace: NAMESPACE.to_owned(),
        scan: Some(v1::Scan::default()),
        ..v1::ScanRequest::default()
    };
    let mut pages = raw.kv.clone().scan(timed(request, TIMEOUT_MS)).await.unwrap().into_inner();
    let (mut next, mut count) = (0, 0);
    while let Some(page) = pages.message().await.unwrap() {
        count += 1;
        for record in page.records {
            assert_eq!(record.key, format!("{next:08}"));
            assert_eq!(record.value.len(), value_bytes);
            next += 1;
        }
    }
    assert_eq!(next, keys);
    let grown = cluster.peak_memory_bytes(1).saturating_sub(before);
    println!(
        "{keys} keys in {count} pages: {} KiB more; written in {written:?}, all in {:?}",
        grown >> 10,
        begun.elapsed()
    );
    // No page has more than 1,024.
    assert!(keys / 1024 <= count);
    grown
}

/// Far more than what a scan may have in memory.
#[tokio::test(flavor = "multi_thread")]
async fn scans_of_many_keys_take_no_more_memory_than_a_few_pages() {
    const MEMORY_BYTES_MAX: u64 = 48 << 20;
    for (keys, value_bytes) in [(100_000, 1_000), (200_000, 1)] {
        let mut cluster = alone("cache_bytes = 8388608").await;
        let grown = scan_of(&mut cluster, keys, value_bytes).await;
        assert!(grown < MEMORY_BYTES_MAX, "a scan of {keys} keys took {} MiB", grown >> 20);
        // The smaller ones fit, so that they show nothing but that there may be so many.
        assert!(value_bytes == 1 || 2 * MEMORY_BYTES_MAX < (keys * value_bytes) as u64 + (8 << 20));
    }
}

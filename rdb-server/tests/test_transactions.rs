//! Transactions and range deletes on real processes: whole or not at all, once under a session, and refused with a clear
//! word where they are over a limit.

use crate::support::raw::{Raw, Refused, timed};
use crate::support::{Cluster, PATIENCE, Settings, assert_words, until};
use rdb_client::{Bytes, Namespace, OperationResult, Options, Transaction, Transport};
use rdb_proto::v1;
use rdb_proto::v1::compare::Expect;
use rdb_proto::v1::pipe_operation::Operation as PipeOperation;
use rdb_proto::v1::pipe_result::Result as PipeResult;
use rdb_proto::v1::transaction_operation::Operation;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

const NAMESPACE: &str = "things";
const TIMEOUT_MS: u64 = 5_000;
const MIB: usize = 1 << 20;

async fn alone() -> (Cluster, Namespace) {
    let cluster = Cluster::start(Settings { size: 1, ..Settings::default() }).await;
    let client = cluster.client().await;
    cluster.create(&client, NAMESPACE).await;
    (cluster, client.namespace(NAMESPACE))
}

fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Operation {
    Operation::Put(v1::Put { key: key.into(), value: value.into() })
}

fn get(key: impl Into<Bytes>) -> Operation {
    Operation::Get(v1::Get { key: key.into() })
}

fn range(from: impl Into<Bytes>, to: impl Into<Bytes>) -> v1::DeleteRange {
    v1::DeleteRange { from: from.into(), to: to.into() }
}

fn compare(key: impl Into<Bytes>, expect: Expect) -> v1::Compare {
    v1::Compare { key: key.into(), expect: Some(expect) }
}

fn operations(operations: impl IntoIterator<Item = Operation>) -> Vec<v1::TransactionOperation> {
    operations.into_iter().map(|operation| v1::TransactionOperation { operation: Some(operation) }).collect()
}

fn then(list: impl IntoIterator<Item = Operation>) -> v1::Transaction {
    v1::Transaction { then: operations(list), ..v1::Transaction::default() }
}

fn request(transaction: v1::Transaction, request: Option<v1::RequestId>) -> v1::TransactionRequest {
    let transaction = Some(transaction);
    v1::TransactionRequest { namespace: NAMESPACE.to_owned(), epoch: 0, transaction, request }
}

async fn ask(
    raw: &Raw,
    transaction: v1::Transaction,
    name: Option<v1::RequestId>,
) -> Result<v1::TransactionResult, Refused> {
    // An answer at the limit is more than tonic takes by itself.
    let mut kv = raw.kv.clone().max_decoding_message_size(8 * MIB);
    let answer = kv.transaction(timed(request(transaction, name), TIMEOUT_MS)).await?;
    Ok(answer.into_inner().result.expect("an answer has a result"))
}

/// The same through the pipe, together with others, whose fate is their own.
async fn ask_in_pipe(raw: &Raw, transaction: v1::Transaction) -> Result<v1::TransactionResult, v1::Error> {
    let neighbour = PipeOperation::Put(v1::Put { key: "neighbour".into(), value: "1".into() });
    let operations = [neighbour.clone(), PipeOperation::Transaction(transaction), neighbour];
    let operations = (1..).zip(operations).map(|(id, operation)| v1::PipeOperation {
        id,
        sequence: 0,
        operation: Some(operation),
    });
    let message = v1::PipeRequest {
        namespace: NAMESPACE.to_owned(),
        operations: operations.collect(),
        ..v1::PipeRequest::default()
    };
    let mut answers = raw.kv.clone().pipe(tokio_stream::iter([message])).await.unwrap().into_inner();
    let mut own = None;
    while let Some(response) = answers.message().await.unwrap() {
        for result in response.results {
            match result.result.unwrap() {
                PipeResult::Transaction(done) if result.id == 2 => own = Some(Ok(done)),
                PipeResult::NotDone(error) if result.id == 2 => own = Some(Err(error)),
                PipeResult::Done(_) if result.id != 2 => {}
                other => panic!("operation {}: {other:?}", result.id),
            }
        }
    }
    own.expect("the transaction is answered")
}

/// Asks in both ways. The refusal is the same, is sure that nothing was done, and names what is wrong.
async fn assert_refused(raw: &Raw, transaction: v1::Transaction, code: v1::Code, words: &[&str]) {
    let refused = ask(raw, transaction.clone(), None).await.expect_err("it was to be refused");
    assert_eq!((refused.code, refused.outcome), (code, v1::Outcome::NotDone), "{refused:?}");
    assert_words(&refused.text, words);
    assert!(!refused.error.hint.is_empty(), "{refused:?}");
    let in_pipe = ask_in_pipe(raw, transaction).await.expect_err("it was to be refused");
    assert_eq!(in_pipe, refused.error);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_over_a_limit_is_refused_by_name_and_nothing_of_it_is_done() {
    let (cluster, namespace) = alone().await;
    let raw = cluster.node(1).raw();
    let invalid = v1::Code::InvalidArgument;
    let wrong = || put("wrong", "1");
    let absent = || compare("none", Expect::Absent(v1::Absent {}));
    // Compares and both lists count together.
    let of = |count: usize| v1::Transaction {
        compares: vec![absent(); 40],
        then: operations((0..44).map(|key| put(format!("full/{key}"), "1"))),
        otherwise: operations((0..count - 84).map(|_| wrong())),
    };
    assert_eq!(ask(&raw, of(128), None).await.unwrap().results.len(), 44);
    assert_eq!(ask_in_pipe(&raw, of(128)).await.unwrap().results.len(), 44);
    assert_refused(&raw, of(129), invalid, &["129 compares and operations", "limit is 128"]).await;
    assert_refused(&raw, v1::Transaction::default(), invalid, &["transaction is empty"]).await;
    // So do all keys and values: three values in puts, and one that is compared with.
    let sized = |last: usize| v1::Transaction {
        compares: vec![compare("c", Expect::Value(vec![2; MIB].into()))],
        then: operations([wrong()]),
        otherwise: operations([put("1", vec![1; MIB]), put("2", vec![1; MIB]), put("large", vec![3; last])]),
    };
    let names = ["c", "wrong", "1", "1", "2", "large"].map(str::len).iter().sum::<usize>();
    assert!(!ask(&raw, sized(MIB - names), None).await.unwrap().held);
    let words = ["4194305 bytes of keys and values", "limit is 4194304"];
    assert_refused(&raw, sized(MIB - names + 1), invalid, &words).await;
    // What any key, value and range must be.
    let long = vec![b'k'; 4097];
    for (operation, words) in [
        (put("", "1"), &["key is empty", "1 to 4096"][..]),
        (put(long.clone(), "1"), &["key has 4097", "limit is 4096"]),
        (put("k", vec![0; MIB + 1]), &["value has 1048577", "limit is 1048576"]),
        (get(long.clone()), &["key has 4097"]),
        (Operation::Delete(v1::Delete { key: "".into() }), &["key is empty"]),
        (Operation::DeleteRange(range("b", "a")), &["from 'b' to 'a'", "ends where it begins, or before"]),
        (Operation::DeleteRange(range("a", "a")), &["from 'a' to 'a'"]),
        (Operation::DeleteRange(range(long.clone(), "")), &["beginning has 4097", "limit is 4096"]),
        (Operation::DeleteRange(range("", long.clone())), &["end has 4097"]),
    ] {
        assert_refused(&raw, then([wrong(), operation.clone()]), invalid, words).await;
        let unused = v1::Transaction { otherwise: operations([operation]), ..then([wrong()]) };
        assert_refused(&raw, unused, invalid, words).await;
    }
    let compares = [
        (v1::Compare { key: "k".into(), expect: None }, &["does not say what it expects"][..]),
        (compare("", Expect::Absent(v1::Absent {})), &["key is empty"]),
        (compare("k", Expect::Value(vec![0; MIB + 1].into())), &["value has 1048577"]),
    ];
    for (compare, words) in compares {
        assert_refused(&raw, v1::Transaction { compares: vec![compare], ..then([wrong()]) }, invalid, words)
            .await;
    }
    let unknown = v1::Transaction { then: vec![v1::TransactionOperation::default()], ..then([]) };
    assert_refused(&raw, unknown, v1::Code::Unsupported, &["not known to this node", "upgrade"]).await;
    // What it finds is known only when it is applied; even then it is all or nothing.
    let large = || put("large", vec![4; MIB]);
    let gets = |count| then([large(), wrong()].into_iter().chain((0..count).map(|_| get("large"))));
    let words = ["gets found more than 4194304 bytes"];
    assert_refused(&raw, gets(5), invalid, &words).await;
    assert_ne!(namespace.get("large").await.unwrap().unwrap().value, vec![4; MIB]);
    assert!(namespace.get("wrong").await.unwrap().is_none(), "something of a refused transaction was done");
    let found = ask(&raw, gets(4), None).await.unwrap();
    assert_eq!(found.results.iter().filter(|result| result.found.is_some()).count(), 4);
    // A range delete of its own.
    let delete =
        |range| v1::DeleteRangeRequest { namespace: NAMESPACE.to_owned(), range, ..Default::default() };
    for (wrong, words) in [(Some(range("b", "a")), "ends where it begins"), (None, "names no range")] {
        let refused = raw.kv.clone().delete_range(timed(delete(wrong), TIMEOUT_MS)).await.unwrap_err();
        let refused = Refused::from(refused);
        assert_eq!((refused.code, refused.outcome), (invalid, v1::Outcome::NotDone));
        assert_words(&refused.text, &[words]);
    }
    assert!(namespace.get("wrong").await.unwrap().is_some(), "no refused range was removed");
}

/// Each of these is within its limits; together, in one entry of the log, they would fill any node's memory.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_commands_of_one_entry_read_is_bounded_and_the_rest_may_come_again() {
    let (cluster, namespace) = alone().await;
    namespace.put("large", vec![1; MIB]).await.unwrap();
    let raw = cluster.node(1).raw();
    let own = |id: u64| Bytes::from(format!("own/{id}"));
    let transaction = |id| then([put(own(id), "1")].into_iter().chain((0..4).map(|_| get("large"))));
    let operations = (1..=12).map(|id| v1::PipeOperation {
        id,
        sequence: 0,
        operation: Some(PipeOperation::Transaction(transaction(id))),
    });
    let message = v1::PipeRequest {
        namespace: NAMESPACE.to_owned(),
        operations: operations.collect(),
        ..v1::PipeRequest::default()
    };
    let mut kv = raw.kv.clone().max_decoding_message_size(64 * MIB);
    let mut answers = kv.pipe(tokio_stream::iter([message])).await.unwrap().into_inner();
    let (mut done, mut refused) = (vec![], vec![]);
    while let Some(response) = answers.message().await.unwrap() {
        for result in response.results {
            match result.result.unwrap() {
                PipeResult::Transaction(_) => done.push(own(result.id)),
                PipeResult::NotDone(error) => {
                    assert_eq!(error.code(), v1::Code::ResourceExhausted);
                    assert!(0 < error.retry_after_ms, "it will fit into another entry");
                    assert_words(&error.message, &["33554432 bytes of values"]);
                    refused.push(own(result.id));
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!((done.len(), refused.len()), (8, 4));
    assert_eq!(namespace.batch_get(done).await.unwrap().len(), 8);
    assert_eq!(namespace.batch_get(refused).await.unwrap(), []);
    assert_eq!(ask(&raw, transaction(13), None).await.unwrap().results.len(), 5);
}

async fn keys_left(namespace: &Namespace, keys: &[&str]) -> Vec<String> {
    let keys = keys.iter().map(|key| Bytes::copy_from_slice(key.as_bytes())).collect();
    let left = namespace.batch_get(keys).await.unwrap();
    left.into_iter().map(|record| String::from_utf8(record.key.to_vec()).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_and_a_range_delete_do_what_they_say_and_outlive_a_crash() {
    const KEYS: [&str; 6] = ["a", "b/1", "b/2", "c", "d", "e"];
    for transport in [Transport::Pipe, Transport::Unary] {
        let (mut cluster, _) = alone().await;
        let client = cluster.client_with(Options { transport, ..Options::default() }).await;
        let namespace = client.namespace(NAMESPACE);
        for key in KEYS {
            namespace.put(key, "1").await.unwrap();
        }
        let a = namespace.get("a").await.unwrap().unwrap();
        let transaction = || {
            Transaction::new()
                .when_version("a", a.version)
                .when_present("c")
                .when_value("d", "1")
                .when_absent("x")
                .then_put("a", "2")
                .then_delete_range("b/", "b0")
                .then_get("b/1")
                .then_put("b/2", "2")
                .then_get("a")
                .then_delete("c")
                .else_get("a")
                .else_get("x")
        };
        let done = namespace.transaction(transaction()).await.unwrap();
        assert!(done.held);
        let found: Vec<_> = done.gets().collect();
        let [None, Some(own)] = found[..] else { panic!("{done:?}") };
        assert_eq!((&own.value[..], Some(own.version)), (&b"2"[..], done.version), "its own write");
        let failed = namespace.transaction(transaction()).await.unwrap();
        assert_eq!((failed.held, failed.version), (false, None));
        assert_eq!(failed.gets().collect::<Vec<_>>(), [Some(own), None]);
        let written = namespace.get("b/2").await.unwrap().unwrap();
        assert_eq!(Some(written.version), done.version, "one version for all that it wrote");
        namespace.delete_range("e", "").await.unwrap();
        namespace.put("f", "1").await.unwrap();
        namespace.delete_prefix("f").await.unwrap();
        let expected = ["a", "b/2", "d"];
        let all: Vec<_> = KEYS.into_iter().chain(["f", "x"]).collect();
        assert_eq!(keys_left(&namespace, &all).await, expected);
        // From the log, then from a flush.
        cluster.kill(1);
        cluster.restart(1).await;
        assert_eq!(keys_left(&namespace, &all).await, expected);
        cluster.stop(1);
        cluster.restart(1).await;
        assert_eq!(keys_left(&namespace, &all).await, expected);
    }
}

fn number(value: &[u8]) -> u64 {
    std::str::from_utf8(value).unwrap().parse().unwrap()
}

/// What the transfers have to say for themselves.
#[derive(Default)]
struct Bank {
    done: AtomicU64,
    looks: AtomicU64,
    stop: AtomicBool,
}

const ACCOUNTS: [&str; 3] = ["a", "b", "c"];
const EACH: u64 = 500;

/// All accounts, and the number of transfers that were done, of one moment.
async fn books(namespace: &Namespace) -> Vec<rdb_client::Record> {
    let keys = ACCOUNTS.into_iter().chain(["count"]).map(Bytes::from).collect();
    let found = namespace.batch_get(keys).await.unwrap();
    assert_total(found[..ACCOUNTS.len()].iter().map(|record| number(&record.value)));
    found
}

/// Moves one from an account to another, over and over, and counts: each in one transaction, which those of others may
/// make fail. Any two of three accounts share one with any other two, so that one of them would be lost if not.
async fn transfer(namespace: Namespace, bank: Arc<Bank>) {
    while !bank.stop.load(Ordering::Relaxed) {
        let found = books(&namespace).await;
        let first = rand::random_range(0..3);
        let (from, to, count) = (&found[first], &found[(first + rand::random_range(1..3)) % 3], &found[3]);
        let Some(less) = number(&from.value).checked_sub(1) else { continue };
        let transaction = Transaction::new()
            .when_version(from.key.clone(), from.version)
            .when_version(to.key.clone(), to.version)
            .then_put(from.key.clone(), less.to_string())
            .then_put(to.key.clone(), (number(&to.value) + 1).to_string())
            .then_put("count", (number(&count.value) + 1).to_string())
            .else_get("a")
            .else_get("b")
            .else_get("c");
        let outcome = namespace.transaction(transaction).await.expect("in a session nothing stays in doubt");
        if outcome.held {
            bank.done.fetch_add(1, Ordering::Relaxed);
        } else if let Some(results) = outcome.results {
            assert_total(results.iter().map(|result| match result {
                OperationResult::Found(Some(record)) => number(&record.value),
                other => panic!("{other:?}"),
            }));
        }
    }
}

/// Nobody ever sees money that is made or lost.
fn assert_total(amounts: impl Iterator<Item = u64>) {
    assert_eq!(amounts.sum::<u64>(), EACH * ACCOUNTS.len() as u64);
}

async fn look(namespace: Namespace, bank: Arc<Bank>) {
    while !bank.stop.load(Ordering::Relaxed) {
        books(&namespace).await;
        bank.looks.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn transfers_neither_make_nor_lose_money_while_the_leader_is_killed() {
    const CALLERS: usize = 4;
    let mut cluster = Cluster::of_three().await;
    let options = Options { request_timeout: PATIENCE, ..Options::default() };
    let client = cluster.client_with(options).await;
    cluster.create(&client, NAMESPACE).await;
    let namespace = client.namespace(NAMESPACE);
    let opened = Transaction::new().when_absent("a").then_put("count", "0");
    let opened = ACCOUNTS.into_iter().fold(opened, |all, account| all.then_put(account, EACH.to_string()));
    assert!(namespace.transaction(opened).await.unwrap().held);
    let bank = Arc::<Bank>::default();
    let mut tasks: Vec<_> =
        (0..CALLERS).map(|_| tokio::spawn(transfer(namespace.clone(), bank.clone()))).collect();
    tasks.push(tokio::spawn(look(namespace.clone(), bank.clone())));
    let progress = async |more: u64| {
        let (done, looks) = (&bank.done, &bank.looks);
        let wanted = (done.load(Ordering::Relaxed) + more, looks.load(Ordering::Relaxed) + more);
        until("transfers are done, and looked at", async || {
            let now = (done.load(Ordering::Relaxed), looks.load(Ordering::Relaxed));
            (wanted.0 <= now.0 && wanted.1 <= now.1).then_some(())
        })
        .await;
    };
    progress(20).await;
    let leader = cluster.leader(NAMESPACE).await;
    cluster.kill(leader);
    progress(20).await;
    cluster.restart(leader).await;
    progress(20).await;
    bank.stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.unwrap();
    }
    let count = number(&books(&namespace).await[3].value);
    let done = bank.done.load(Ordering::Relaxed);
    assert_eq!(count, done, "each transfer that was confirmed was done, and done once");
    println!("{done} transfers, {} looks", bank.looks.load(Ordering::Relaxed));
}

/// Repeats a named transaction at a leader that may be new and need a moment.
async fn at_leader(
    cluster: &Cluster,
    leader: u64,
    transaction: &v1::Transaction,
    name: v1::RequestId,
) -> v1::TransactionResult {
    let raw = cluster.node(leader).raw();
    until("the leader answers", async || ask(&raw, transaction.clone(), Some(name)).await.ok()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_in_a_session_is_applied_once_by_whichever_leader_hears_of_it() {
    let mut cluster = Cluster::of_three().await;
    let client = cluster.client().await;
    cluster.create(&client, NAMESPACE).await;
    let namespace = client.namespace(NAMESPACE).with_timeout(Duration::from_secs(20));
    let leader = cluster.leader(NAMESPACE).await;
    let raw = cluster.node(leader).raw();
    let open = v1::OpenSessionRequest { namespace: NAMESPACE.to_owned(), epoch: 0, token: 0 };
    let session = raw.kv.clone().open_session(timed(open, TIMEOUT_MS)).await.unwrap().into_inner().client;
    let named = |sequence| v1::RequestId { client: session, sequence, lowest: 1 };
    namespace.put("small", "1").await.unwrap();
    namespace.put("large", vec![7; 2000]).await.unwrap();
    // A second execution would find the key there, and do the other list.
    let once = |key: &str, reads: &str| v1::Transaction {
        compares: vec![compare(key.to_owned(), Expect::Absent(v1::Absent {}))],
        then: operations([get(reads.to_owned()), put(key.to_owned(), "done")]),
        otherwise: operations([put("twice", key.to_owned())]),
    };
    let (small, large) = (once("first", "small"), once("second", "large"));
    let first = ask(&raw, small.clone(), Some(named(1))).await.unwrap();
    let second = ask(&raw, large.clone(), Some(named(2))).await.unwrap();
    let found =
        |result: &v1::TransactionResult| result.results[0].found.as_ref().unwrap().value.clone().unwrap();
    assert_eq!((found(&first), found(&second)), ("1".into(), vec![7; 2000].into()));
    // What was found is told again if it is little; that it was done, and under which version, always.
    let forgotten = v1::TransactionResult { results: vec![], results_forgotten: true, ..second.clone() };
    for delete in [false, true] {
        if delete {
            namespace.delete_range("", "").await.unwrap();
        }
        assert_eq!(ask(&raw, small.clone(), Some(named(1))).await.unwrap(), first);
        assert_eq!(ask(&raw, large.clone(), Some(named(2))).await.unwrap(), forgotten);
    }
    // The same at the next leader, which knows it from the log alone, and after a crash of all nodes.
    cluster.kill(leader);
    let rest = cluster.others(&[leader]);
    let next = cluster.leader_of(NAMESPACE, &rest).await;
    assert_eq!(at_leader(&cluster, next, &small, named(1)).await, first);
    for id in rest {
        cluster.kill(id);
    }
    for id in cluster.ids() {
        cluster.launch(id);
    }
    let leader = cluster.leader(NAMESPACE).await;
    assert_eq!(at_leader(&cluster, leader, &small, named(1)).await, first);
    assert_eq!(at_leader(&cluster, leader, &large, named(2)).await, forgotten);
    assert_eq!(keys_left(&namespace, &["first", "second", "twice", "small"]).await, Vec::<String>::new());
    // A new name is a new transaction.
    assert!(at_leader(&cluster, leader, &small, named(3)).await.held);
    assert_eq!(keys_left(&namespace, &["first", "twice"]).await, ["first"]);
}

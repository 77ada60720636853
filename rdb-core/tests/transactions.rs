//! Transactions and range deletes against a model that anyone can check by reading it: a map that is changed one command
//! at a time. Whatever the batches are, the state, the answers and the records must be the model's.

#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;
use rdb_core::apply::{
    Answer, Applied, Changes, Committed, ENTRY_READ_BYTES_MAX, FOUND_BYTES_MAX, Machine, State, View,
};
use rdb_core::command::{Command, Encoded, Expect, Operation, RequestId, Stamp, Write, begin_keys};
use rdb_core::ids::{Era, Index, NodeId, RegionId};
use rdb_core::record;
use rdb_core::sessions::Sessions;
use rdb_core::transaction::{Compare, Found, OperationResult, Outcome, Transaction, TransactionOperation};
use rdb_core::version::{Hlc, Version};
use std::collections::BTreeMap;
use std::convert::Infallible;

type Records = BTreeMap<Vec<u8>, (Version, Vec<u8>)>;

/// A replica's disk.
#[derive(Default)]
struct Memory(BTreeMap<Vec<u8>, Vec<u8>>);

impl View for Memory {
    type Error = Infallible;
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Infallible> {
        Ok(self.0.get(key).cloned())
    }
}

impl Memory {
    fn write(&mut self, changes: Changes) {
        self.0.retain(|key, _| !changes.removed.iter().any(|range| range.contains(key)));
        for (key, record) in changes.records {
            match record {
                Some(record) => drop(self.0.insert(key, record)),
                None => drop(self.0.remove(&key)),
            }
        }
    }

    fn records(&self) -> Records {
        let decode = |(key, bytes): (&Vec<u8>, &Vec<u8>)| {
            let record = record::decode(bytes).unwrap();
            (key.clone(), (record.version, record.value.unwrap().to_vec()))
        };
        self.0.iter().map(decode).collect()
    }
}

/// A replica.
struct Replica {
    machine: Machine,
    memory: Memory,
}

impl Replica {
    fn new() -> Self {
        let machine = Machine::new(RegionId(16), State::default(), Sessions::default());
        Self { machine, memory: Memory::default() }
    }

    fn apply(&mut self, entries: &[Committed]) -> Vec<Answer> {
        let Applied { changes, answers } = self.machine.apply(entries, &self.memory).unwrap();
        self.memory.write(changes);
        answers.into_iter().flatten().collect()
    }

    /// One command, alone in its entry and in its batch.
    fn execute(&mut self, request: Option<RequestId>, operation: Operation<'_>) -> Answer {
        let index = self.machine.state().applied + 1;
        self.apply(&[entry(index, &[Command { request, operation }])]).remove(0)
    }
}

fn entry(index: Index, commands: &[Command<'_>]) -> Committed {
    let mut encoded = Encoded::default();
    commands.iter().for_each(|command| encoded.push(command));
    let mut data = begin_keys(Stamp { era: Era(1), hlc: Hlc(100), node: NodeId(1) });
    data.extend_from_slice(&encoded.bytes);
    Committed { index, term: 1, data }
}

/// The model: what each command means.
#[derive(Default)]
struct Model {
    records: Records,
    writes: u64,
}

impl Model {
    fn version(&self) -> Version {
        Version { era: Era(1), hlc: Hlc(100 + self.writes), node: NodeId(1) }
    }

    fn put(&mut self, write: &Write<'_>) {
        let version = self.version();
        match write.value {
            Some(value) => drop(self.records.insert(write.key.to_vec(), (version, value.to_vec()))),
            None => drop(self.records.remove(write.key)),
        }
    }

    fn remove(&mut self, from: &[u8], to: &[u8]) {
        self.records.retain(|key, _| &key[..] < from || (!to.is_empty() && to <= &key[..]));
    }

    fn holds(&self, compare: &Compare<'_>) -> bool {
        let found = self.records.get(compare.key);
        match compare.expect {
            Expect::Absent => found.is_none(),
            Expect::Present => found.is_some(),
            Expect::Value(value) => found.is_some_and(|found| found.1 == value),
            Expect::Version(version) => found.is_some_and(|found| found.0 == version),
        }
    }

    fn done(&mut self) -> Answer {
        let version = self.version();
        self.writes += 1;
        Answer::Done(version)
    }

    fn execute(&mut self, operation: &Operation<'_>) -> Answer {
        match operation {
            Operation::Write(write) => self.put(write),
            Operation::Batch(writes) => writes.iter().for_each(|write| self.put(write)),
            Operation::DeleteRange { from, to } => self.remove(from, to),
            Operation::CompareAndSwap { expect, then } => {
                if !self.holds(&Compare { key: then.key, expect: *expect }) {
                    let (version, found) = self.records.get(then.key).cloned().unzip();
                    return Answer::Mismatch { version, found };
                }
                self.put(then);
            }
            Operation::Transaction(transaction) => return self.transact(transaction),
            Operation::OpenSession => panic!("no test opens one here"),
        }
        self.done()
    }

    fn transact(&mut self, transaction: &Transaction<'_>) -> Answer {
        let held = transaction.compares.iter().all(|compare| self.holds(compare));
        let operations = if held { &transaction.then } else { &transaction.otherwise };
        let mut results = Vec::new();
        for operation in operations {
            results.push(match operation {
                TransactionOperation::Write(write) => {
                    self.put(write);
                    OperationResult::Written
                }
                TransactionOperation::DeleteRange { from, to } => {
                    self.remove(from, to);
                    OperationResult::Written
                }
                TransactionOperation::Get(key) => {
                    let found = self.records.get(*key).cloned();
                    OperationResult::Found(found.map(|(version, value)| Found { version, value }))
                }
            });
        }
        let version = results.contains(&OperationResult::Written).then(|| self.version());
        self.writes += u64::from(version.is_some());
        Answer::Transaction(Outcome { held, version, results: Some(results) })
    }
}

fn write<'a>(key: &'a [u8], value: Option<&'a [u8]>) -> Write<'a> {
    Write { key, value }
}

/// A command that owns what it says.
#[derive(Debug, Clone)]
enum Step {
    Write(Key, Option<Key>),
    Batch(Vec<(Key, Option<Key>)>),
    DeleteRange(Key, Key),
    Swap(Key, Wish, Option<Key>),
    Transaction(Vec<(Key, Wish)>, Vec<Act>, Vec<Act>),
}

#[derive(Debug, Clone)]
enum Wish {
    Absent,
    Present,
    Value(Key),
    /// Of the so manieth write.
    Version(u64),
}

#[derive(Debug, Clone)]
enum Act {
    Write(Key, Option<Key>),
    DeleteRange(Key, Key),
    Get(Key),
}

type Key = Vec<u8>;

/// Few keys, so that operations meet.
fn key() -> impl Strategy<Value = Key> {
    prop::collection::vec(prop_oneof![Just(0u8), Just(b'm'), Just(255)], 1..3)
}

/// The end of a range: sometimes none.
fn end() -> impl Strategy<Value = Key> {
    prop_oneof![3 => key(), 1 => Just(Key::new())]
}

fn wish() -> impl Strategy<Value = Wish> {
    prop_oneof![
        Just(Wish::Absent),
        Just(Wish::Present),
        key().prop_map(Wish::Value),
        (0..20u64).prop_map(Wish::Version)
    ]
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        3 => (key(), prop::option::of(key())).prop_map(|(key, value)| Act::Write(key, value)),
        1 => (end(), end()).prop_map(|(from, to)| Act::DeleteRange(from, to)),
        2 => key().prop_map(Act::Get),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let write = || (key(), prop::option::weighted(0.8, key()));
    let acts = || prop::collection::vec(act(), 0..6);
    prop_oneof![
        4 => write().prop_map(|(key, value)| Step::Write(key, value)),
        1 => prop::collection::vec(write(), 0..4).prop_map(Step::Batch),
        2 => (end(), end()).prop_map(|(from, to)| Step::DeleteRange(from, to)),
        1 => (key(), wish(), prop::option::of(key())).prop_map(|(key, wish, value)| Step::Swap(key, wish, value)),
        4 => (prop::collection::vec((key(), wish()), 0..3), acts(), acts())
            .prop_map(|(compares, then, otherwise)| Step::Transaction(compares, then, otherwise)),
    ]
}

impl Wish {
    fn expect(&self) -> Expect<'_> {
        match self {
            Wish::Absent => Expect::Absent,
            Wish::Present => Expect::Present,
            Wish::Value(value) => Expect::Value(value),
            Wish::Version(write) => {
                Expect::Version(Version { era: Era(1), hlc: Hlc(100 + write), node: NodeId(1) })
            }
        }
    }
}

impl Act {
    fn operation(&self) -> TransactionOperation<'_> {
        match self {
            Act::Write(key, value) => TransactionOperation::Write(write(key, value.as_deref())),
            Act::DeleteRange(from, to) => TransactionOperation::DeleteRange { from, to },
            Act::Get(key) => TransactionOperation::Get(key),
        }
    }
}

impl Step {
    fn operation(&self) -> Operation<'_> {
        match self {
            Step::Write(key, value) => Operation::Write(write(key, value.as_deref())),
            Step::Batch(writes) => {
                Operation::Batch(writes.iter().map(|(key, value)| write(key, value.as_deref())).collect())
            }
            Step::DeleteRange(from, to) => Operation::DeleteRange { from, to },
            Step::Swap(key, wish, value) => {
                Operation::CompareAndSwap { expect: wish.expect(), then: write(key, value.as_deref()) }
            }
            Step::Transaction(compares, then, otherwise) => Operation::Transaction(Transaction {
                compares: compares.iter().map(|(key, wish)| Compare { key, expect: wish.expect() }).collect(),
                then: then.iter().map(Act::operation).collect(),
                otherwise: otherwise.iter().map(Act::operation).collect(),
            }),
        }
    }
}

/// The steps, cut into entries of `per_entry` commands.
fn entries(steps: &[Step], per_entry: usize) -> Vec<Committed> {
    let commands: Vec<_> =
        steps.iter().map(|step| Command { request: None, operation: step.operation() }).collect();
    (1..).zip(commands.chunks(per_entry)).map(|(index, commands)| entry(index, commands)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn however_it_is_batched_it_is_the_model(
        steps in prop::collection::vec(step(), 1..24),
        per_entry in 1..6usize,
        per_batch in 1..6usize,
    ) {
        let mut model = Model::default();
        let expected: Vec<_> = steps.iter().map(|step| model.execute(&step.operation())).collect();
        let entries = entries(&steps, per_entry);
        let (mut one, mut some, mut all) = (Replica::new(), Replica::new(), Replica::new());
        let answers: Vec<_> = entries.chunks(1).flat_map(|batch| one.apply(batch)).collect();
        prop_assert_eq!(&answers, &expected);
        let answers: Vec<_> = entries.chunks(per_batch).flat_map(|batch| some.apply(batch)).collect();
        prop_assert_eq!(&answers, &expected);
        prop_assert_eq!(&all.apply(&entries), &expected);
        for replica in [&one, &some, &all] {
            prop_assert_eq!(replica.memory.records(), model.records.clone());
            prop_assert_eq!(&replica.machine, &one.machine);
        }
    }
}

fn put<'a>(key: &'a [u8], value: &'a [u8]) -> TransactionOperation<'a> {
    TransactionOperation::Write(Write { key, value: Some(value) })
}

#[test]
fn all_writes_of_a_transaction_have_one_version_and_its_gets_see_them() {
    let mut replica = Replica::new();
    replica.execute(None, Operation::Write(Write { key: b"b", value: Some(b"old") }));
    let transaction = Transaction {
        compares: vec![Compare { key: b"b", expect: Expect::Present }],
        then: vec![
            TransactionOperation::Get(b"b"),
            put(b"a", b"1"),
            TransactionOperation::DeleteRange { from: b"b", to: b"" },
            TransactionOperation::Get(b"b"),
            put(b"c", b"2"),
            TransactionOperation::Get(b"c"),
        ],
        otherwise: vec![put(b"d", b"wrong")],
    };
    let answer = replica.execute(None, Operation::Transaction(transaction));
    let Answer::Transaction(Outcome { held: true, version: Some(version), results: Some(results) }) = answer
    else {
        panic!("{answer:?}")
    };
    let [
        OperationResult::Found(Some(old)),
        _,
        _,
        OperationResult::Found(None),
        _,
        OperationResult::Found(Some(own)),
    ] = &results[..]
    else {
        panic!("{results:?}")
    };
    assert_eq!((&old.value[..], &own.value[..], own.version), (&b"old"[..], &b"2"[..], version));
    assert!(old.version < version);
    let records = replica.memory.records();
    let expected = [(b"a".to_vec(), (version, b"1".to_vec())), (b"c".to_vec(), (version, b"2".to_vec()))];
    assert_eq!(records.into_iter().collect::<Vec<_>>(), expected);
}

#[test]
fn a_retried_transaction_is_applied_once_and_told_what_is_kept_of_it() {
    let request = |sequence| Some(RequestId { client: 9, sequence, lowest: 1 });
    let mut replica = Replica::new();
    replica.execute(request(0), Operation::OpenSession);
    replica.execute(None, Operation::Write(Write { key: b"big", value: Some(&[7; 2000]) }));
    let transaction = |key| {
        Operation::Transaction(Transaction {
            compares: vec![Compare { key: b"k", expect: Expect::Absent }],
            then: vec![TransactionOperation::Get(key), put(b"k", b"1")],
            otherwise: vec![put(b"failed", b"1")],
        })
    };
    let first = replica.execute(request(1), transaction(b"small"));
    assert!(matches!(&first, Answer::Transaction(Outcome { held: true, .. })));
    let before = replica.memory.records();
    assert_eq!(replica.execute(request(1), transaction(b"small")), first, "and not its else-operations");
    assert_eq!(replica.memory.records(), before);
    replica.execute(None, Operation::Write(Write { key: b"k", value: None }));
    let Answer::Transaction(second) = replica.execute(request(2), transaction(b"big")) else { panic!() };
    let retried = replica.execute(request(2), transaction(b"big"));
    assert_eq!(retried, Answer::Transaction(Outcome { results: None, ..second }));
}

#[test]
fn a_transaction_that_finds_too_much_leaves_no_trace_and_its_retry_is_told_the_same() {
    let request = Some(RequestId { client: 9, sequence: 1, lowest: 1 });
    let mut replica = Replica::new();
    replica.execute(Some(RequestId { client: 9, sequence: 0, lowest: 0 }), Operation::OpenSession);
    let value = vec![7; FOUND_BYTES_MAX / 4];
    replica.execute(None, Operation::Write(Write { key: b"big", value: Some(&value) }));
    let gets = |times| {
        let mut then = vec![TransactionOperation::DeleteRange { from: b"a", to: b"b" }, put(b"k", b"1")];
        then.extend(vec![TransactionOperation::Get(b"big"); times]);
        then.push(put(b"big", b"small"));
        Operation::Transaction(Transaction { then, ..Transaction::default() })
    };
    let (before, highest) = (replica.memory.records(), replica.machine.state().highest);
    assert_eq!(replica.execute(request, gets(5)), Answer::FoundTooMuch);
    assert_eq!((replica.memory.records(), replica.machine.state().highest), (before, highest));
    assert!(matches!(replica.execute(None, gets(4)), Answer::Transaction(_)), "exactly the limit");
    // By now it would not find too much, but it was said that it is not done.
    assert_eq!(replica.execute(request, gets(5)), Answer::FoundTooMuch);
}

/// However many small commands an entry has, what it reads stays within bounds; and who is refused is refused alike,
/// whatever else is applied in the same batch.
#[test]
fn the_commands_of_one_entry_read_only_so_much_and_the_rest_is_not_applied() {
    let request = |sequence| Some(RequestId { client: 9, sequence, lowest: 1 });
    let value = vec![7; FOUND_BYTES_MAX / 4];
    let fit = ENTRY_READ_BYTES_MAX / FOUND_BYTES_MAX;
    let transaction = |gets: usize, key| {
        let mut then = vec![TransactionOperation::Get(b"big"); gets];
        then.push(put(key, b"1"));
        Operation::Transaction(Transaction { then, ..Transaction::default() })
    };
    // What compares and failed swaps read counts as well, and what a transaction has itself written.
    let compare = Transaction {
        compares: vec![Compare { key: b"big", expect: Expect::Absent }],
        then: vec![put(b"wrong", b"1")],
        otherwise: vec![put(b"own", &value), TransactionOperation::Get(b"own"), put(b"own", b"1")],
    };
    let swap =
        || Operation::CompareAndSwap { expect: Expect::Absent, then: Write { key: b"big", value: None } };
    let write = Operation::Write(Write { key: b"written", value: Some(b"1") });
    let plain = |operation| Command { request: None, operation };
    let mut commands: Vec<_> = (0..fit - 1).map(|_| plain(transaction(4, b"done"))).collect();
    commands.extend([plain(Operation::Transaction(compare)), plain(swap())]);
    let named = |key| Command { request: request(1), operation: transaction(4, key) };
    // This one begins before the limit is reached; those behind it have to come again.
    commands.extend([
        plain(transaction(1, b"last")),
        named(b"wrong"),
        plain(swap()),
        plain(transaction(0, b"wrong")),
    ]);
    commands.push(plain(write));
    let mut replica = Replica::new();
    replica.execute(request(0), Operation::OpenSession);
    replica.execute(None, Operation::Write(Write { key: b"big", value: Some(&value) }));
    let answers = replica.apply(&[entry(3, &commands), entry(4, &[named(b"later")])]);
    let (done, rest) = answers.split_at(fit);
    assert!(done.iter().all(|answer| matches!(answer, Answer::Transaction(_))));
    let [mismatch, last, refused @ .., written, later] = rest else { panic!("{} answers", rest.len()) };
    assert!(matches!((mismatch, last), (Answer::Mismatch { .. }, Answer::Transaction(_))));
    assert_eq!(refused, [Answer::Crowded, Answer::Crowded, Answer::Crowded]);
    assert!(matches!((written, later), (Answer::Done(_), Answer::Transaction(_))), "it reads nothing");
    let keys: Vec<_> = replica.memory.records().into_keys().collect();
    assert_eq!(keys, [&b"big"[..], b"done", b"last", b"later", b"own", b"written"]);
}

#[test]
fn a_range_delete_takes_what_its_own_batch_has_written_and_not_what_comes_later() {
    let write = |key| Operation::Write(Write { key, value: Some(b"v") });
    let delete = |from, to| Operation::DeleteRange { from, to };
    let operations = [
        write(&b"a/1"[..]),
        write(b"b/1"),
        delete(&b"a/"[..], &b"a0"[..]),
        write(b"a/2"),
        // Nothing lies in these.
        delete(b"b", b"a"),
        delete(b"b/1", b"b/1"),
    ];
    let commands = operations.map(|operation| Command { request: None, operation });
    let mut replica = Replica::new();
    replica.apply(&[entry(1, &commands)]);
    assert_eq!(replica.memory.records().into_keys().collect::<Vec<_>>(), [b"a/2", b"b/1"]);
}

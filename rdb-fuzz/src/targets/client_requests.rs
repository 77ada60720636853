//! Clients' requests, as each call reads and checks them; and what is admitted is applied. Whatever a client asks, what is proposed
//! for it can be read again and has an answer for each command: what cannot be read stops every replica.

use crate::memory::Memory;
use crate::parts::{Parts, part};
use prost::Message;
use rdb_core::apply::{Committed, Machine, State};
use rdb_core::command::{Commands, Encoded, Stamp, begin_keys};
use rdb_core::ids::{Era, NamespaceId, NodeId, RegionId};
use rdb_core::range::KeyRange;
use rdb_core::scan::{Direction, Way};
use rdb_core::sessions::Sessions;
use rdb_core::switch::Mode;
use rdb_core::version::Hlc;
use rdb_proto::v1;
use rdb_proto::v1::pipe_operation::Operation;
use rdb_proto::v1::transaction_operation::Operation as Inner;
use rdb_proto::v1::{compare, compare_and_swap, scan, write};
use rdb_server::fuzzed::{Call, client_request};

/// Past so many requests an input says nothing new.
const REQUESTS_MAX: usize = 32;

pub(super) fn run(input: &[u8]) -> bool {
    let mut parts = Parts::of(input);
    let mut machine = Machine::new(RegionId::FIRST_USER, State::default(), Sessions::default());
    let (mut data, mut accepted) = (Memory::default(), false);
    for _ in 0..REQUESTS_MAX {
        if parts.is_empty() {
            break;
        }
        let call = Call::ALL[usize::from(parts.number()) % Call::ALL.len()];
        let mode = if parts.number() % 4 == 3 { Mode::Eventual } else { Mode::Strong };
        let Some(commands) = client_request(call, mode, parts.part()) else { continue };
        accepted = true;
        match mode {
            Mode::Strong => apply(&mut machine, &mut data, &commands),
            Mode::Eventual => {
                let read = Commands::new(&commands.bytes).filter(Result::is_ok).count();
                assert_eq!(read, commands.count, "what is proposed can be read");
                assert!(!commands.named && !commands.strong_only, "eventual mode cannot do that");
            }
        }
    }
    accepted
}

fn apply(machine: &mut Machine, data: &mut Memory, commands: &Encoded) {
    let stamp = Stamp { era: Era(1), hlc: Hlc(machine.state().applied + 1), node: NodeId(1) };
    let entry = [begin_keys(stamp), commands.bytes.clone()].concat();
    let entry = Committed { index: machine.state().applied + 1, term: 1, data: entry };
    let applied = machine.apply(&[entry], data);
    let applied = applied.unwrap_or_else(|error| panic!("what was admitted cannot be applied: {error}"));
    assert_eq!(applied.answers[0].len(), commands.count, "each command has an answer");
    data.write(applied.changes);
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let seed = |call: u8, mode: u8, request: Vec<u8>| [&[call, mode][..], &part(&request)].concat();
    let mut seeds: Vec<_> = (0..).zip(requests()).map(|(call, request)| seed(call, 0, request)).collect();
    // Eventual mode takes these, without a name.
    let put = v1::PutRequest { put: Some(a_put()), acks: 3, ..v1::PutRequest::default() };
    let operations = vec![v1::PipeOperation { id: 1, sequence: 0, operation: Some(Operation::Put(a_put())) }];
    let pipe = v1::PipeRequest { operations, ..v1::PipeRequest::default() };
    seeds.extend([seed(2, 3, put.encode_to_vec()), seed(9, 3, pipe.encode_to_vec())]);
    seeds.push(seeds.concat());
    seeds
}

fn key() -> bytes::Bytes {
    b"key".to_vec().into()
}

fn a_put() -> v1::Put {
    v1::Put { key: key(), value: b"value".to_vec().into() }
}

fn a_cas() -> v1::CompareAndSwap {
    let expect = Some(compare_and_swap::Expect::Absent(v1::Absent {}));
    v1::CompareAndSwap { key: key(), then_put: Some(b"swapped".to_vec().into()), expect }
}

fn a_batch() -> v1::BatchWrite {
    let writes = [write::Write::Put(a_put()), write::Write::Delete(v1::Delete { key: key() })];
    v1::BatchWrite { writes: writes.map(|write| v1::Write { write: Some(write) }).into() }
}

fn a_range() -> v1::DeleteRange {
    v1::DeleteRange { from: b"a".to_vec().into(), to: b"z".to_vec().into() }
}

fn a_transaction() -> v1::Transaction {
    let version = v1::Version { era: 1, hlc: 1, node: 1 };
    let compares = [compare::Expect::Version(version), compare::Expect::Value(b"value".to_vec().into())];
    let inner = [
        Inner::Put(a_put()),
        Inner::Get(v1::Get { key: key() }),
        Inner::DeleteRange(a_range()),
        Inner::Delete(v1::Delete { key: key() }),
    ];
    let operations = inner.map(|operation| v1::TransactionOperation { operation: Some(operation) });
    v1::Transaction {
        compares: compares.map(|expect| v1::Compare { key: key(), expect: Some(expect) }).into(),
        then: operations.to_vec(),
        otherwise: operations[..2].to_vec(),
    }
}

fn a_scan() -> v1::ScanRequest {
    let range = KeyRange { from: b"a".to_vec(), to: b"z".to_vec() };
    let way = Way { namespace: NamespaceId(16), range, direction: Direction::Forward };
    let keys = scan::Keys::Range(v1::ScanRange { from: b"a".to_vec().into(), to: b"z".to_vec().into() });
    v1::ScanRequest {
        scan: Some(v1::Scan { keys: Some(keys), ..v1::Scan::default() }),
        token: way.token(b"key").into(),
        ..v1::ScanRequest::default()
    }
}

/// A message of the pipe with one operation of each kind.
fn a_message() -> v1::PipeRequest {
    let operations = [
        Operation::Get(v1::Get { key: key() }),
        Operation::Put(a_put()),
        Operation::Delete(v1::Delete { key: key() }),
        Operation::Cas(a_cas()),
        Operation::BatchGet(v1::BatchGet { keys: vec![key(), key()] }),
        Operation::BatchWrite(a_batch()),
        Operation::Transaction(a_transaction()),
        Operation::DeleteRange(a_range()),
    ];
    let operation = |(id, operation)| v1::PipeOperation { id, sequence: id, operation: Some(operation) };
    v1::PipeRequest {
        client: 7,
        lowest: 1,
        operations: (1..).zip(operations).map(operation).collect(),
        ..v1::PipeRequest::default()
    }
}

/// One of each call, in the order of [`Call::ALL`].
fn requests() -> Vec<Vec<u8>> {
    let request = Some(v1::RequestId { client: 7, sequence: 1, lowest: 1 });
    let seen = rdb_proto::session::Token { namespace: 16, era: 1, seen: [((2, 1), 3)].into() };
    let get =
        v1::GetRequest { get: Some(v1::Get { key: key() }), session: seen.encode(), ..Default::default() };
    let keys = v1::BatchGet { keys: vec![key(), key()] };
    let delete = Some(v1::Delete { key: key() });
    let quarantine = vec![1, 2, 1, 4];
    let lost = crate::targets::lost_note_key();
    vec![
        get.encode_to_vec(),
        v1::BatchGetRequest { get: Some(keys), ..Default::default() }.encode_to_vec(),
        v1::PutRequest { put: Some(a_put()), request, ..Default::default() }.encode_to_vec(),
        v1::DeleteRequest { delete, request, ..Default::default() }.encode_to_vec(),
        v1::CompareAndSwapRequest { cas: Some(a_cas()), request, ..Default::default() }.encode_to_vec(),
        v1::BatchWriteRequest { batch: Some(a_batch()), ..Default::default() }.encode_to_vec(),
        v1::TransactionRequest { transaction: Some(a_transaction()), ..Default::default() }.encode_to_vec(),
        v1::DeleteRangeRequest { range: Some(a_range()), ..Default::default() }.encode_to_vec(),
        a_scan().encode_to_vec(),
        a_message().encode_to_vec(),
        v1::CreateNamespaceRequest { name: "space".into(), mode: 2, ..Default::default() }.encode_to_vec(),
        v1::ListConflictsRequest { token: lost.into(), ..Default::default() }.encode_to_vec(),
        v1::ListQuarantineRequest { token: quarantine.into(), ..Default::default() }.encode_to_vec(),
    ]
}

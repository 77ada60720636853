//! What the core and the server keep on disk, each as its reader reads it; and what was read is written and read again as the same.

use crate::parts::{Parts, sealed, unsealed};
use rdb_core::apply::State;
use rdb_core::codec::Reader;
use rdb_core::command::RequestId;
use rdb_core::eventual::buckets::{Buckets, Digest};
use rdb_core::eventual::conflicts::{Listed, Lost};
use rdb_core::eventual::copy::{self, Page};
use rdb_core::eventual::machine;
use rdb_core::eventual::run::{Entry, Replaced, Run};
use rdb_core::eventual::vector::{Origin, Vector, WriteId};
use rdb_core::ids::{Epoch, Era, Incarnation, NodeId};
use rdb_core::raft::disk::{self, Terms};
use rdb_core::raft::{self, HardState};
use rdb_core::record::{self, Record};
use rdb_core::sessions::{Answer, Sessions};
use rdb_core::switch::{
    Boundary, Change, Control, Descriptor, Marker, Mode, Phase, Region, Seal, Step, SwitchId,
};
use rdb_core::version::{Hlc, Version};
use rdb_server::fuzzed;

/// A kind of record: how it is read, and one of it.
type Kind = (fn(&[u8]) -> bool, fn() -> Vec<u8>);

/// That bytes are this type, and stay it.
macro_rules! comes_back {
    ($type:ty) => {
        |bytes| {
            let Ok(read) = <$type>::decode(bytes) else { return false };
            assert_eq!(<$type>::decode(&read.encode()).as_ref(), Ok(&read));
            true
        }
    };
}

/// The same of what is read behind a checksum.
macro_rules! comes_back_sealed {
    ($type:ty) => {
        |bytes| {
            let Ok(read) = <$type>::decode(&sealed(bytes)) else { return false };
            assert_eq!(<$type>::decode(&read.encode()).as_ref(), Ok(&read));
            true
        }
    };
}

/// An input's first byte says which of them it is. New ones come last: what was kept stays what it is.
const KINDS: [Kind; 21] = [
    (read_record, || a_record().encode()),
    (read_entry, an_entry),
    (read_hard_state, || disk::encode_hard_state(&HardState { term: 4, vote: 2, commit: 700 })),
    (read_members, || disk::encode_members(&[NodeId(1), NodeId(2), NodeId(3)])),
    (read_terms, terms),
    (comes_back!(State), || State::default().encode()),
    (comes_back!(machine::State), || machine::State::begin(Era(1), Hlc(9)).encode()),
    (comes_back!(Lost), || lost().encode()),
    (comes_back!(Digest), digest),
    (comes_back_sealed!(Run), || unsealed(run_of_one().encode())),
    (comes_back_sealed!(Page), || unsealed(Page::Awaited(vec![id()]).encode())),
    (comes_back!(copy::Note), copy_note),
    (comes_back!(Descriptor), || Descriptor::new(Mode::Eventual, [1, 2, 3].map(NodeId)).encode()),
    (comes_back!(Change), change),
    (comes_back!(Marker), || a_marker().encode()),
    (comes_back!(Control), || Control::Seal(seal()).encode()),
    (comes_back!(Region), region),
    (read_session, session),
    (read_vector, vector_bytes),
    (fuzzed::gate_records, gate_records),
    (fuzzed::quarantine, || vec![1, 1, 2, 3, 4, 9]),
];

pub(super) fn run(input: &[u8]) -> bool {
    let mut parts = Parts::of(input);
    let (read, _) = KINDS[usize::from(parts.number()) % KINDS.len()];
    read(parts.rest())
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    (0..).zip(KINDS).map(|(number, (_, example))| [vec![number], example()].concat()).collect()
}

fn read_record(bytes: &[u8]) -> bool {
    let Ok(read) = record::decode(bytes) else { return false };
    assert_eq!(record::decode(&read.encode()).as_ref(), Ok(&read));
    true
}

fn read_entry(bytes: &[u8]) -> bool {
    let Ok(read) = disk::decode_entry(7, bytes) else { return false };
    assert_eq!(disk::decode_entry(7, &disk::encode_entry(&read)), Ok(read));
    true
}

fn read_hard_state(bytes: &[u8]) -> bool {
    let Ok(read) = disk::decode_hard_state(bytes) else { return false };
    assert_eq!(disk::decode_hard_state(&disk::encode_hard_state(&read)), Ok(read));
    true
}

fn read_members(bytes: &[u8]) -> bool {
    let Ok(read) = disk::decode_members(bytes) else { return false };
    assert_eq!(disk::decode_members(&disk::encode_members(&read)), Ok(read));
    true
}

/// A table of terms also answers what a start asks of it.
fn read_terms(bytes: &[u8]) -> bool {
    let Ok(read) = Terms::decode(bytes) else { return false };
    assert_eq!(Terms::decode(&read.encode()).as_ref(), Ok(&read));
    for index in [0, 1, read.first_index(), u64::MAX] {
        let _ = read.term(index);
    }
    let (mut cut, mut dropped) = (read.clone(), read.clone());
    cut.cut_from(read.first_index());
    dropped.drop_to(read.first_index());
    true
}

fn read_session(bytes: &[u8]) -> bool {
    let mut sessions = Sessions::default();
    if sessions.load(7, bytes).is_err() {
        return false;
    }
    let (written, mut again) = (sessions.encode(7).unwrap_or_default(), Sessions::default());
    assert_eq!(again.load(7, &written), Ok(()));
    assert_eq!(again, sessions);
    let request = RequestId { client: 7, sequence: 3, lowest: 2 };
    let _ = sessions.judge(request, 9);
    true
}

fn read_vector(bytes: &[u8]) -> bool {
    let mut reader = Reader::new("a vector", bytes);
    let Ok(read) = Vector::read(&mut reader) else { return false };
    let mut out = Vec::new();
    read.put(&mut out);
    // There is one way to write a vector.
    assert!(reader.is_empty() || out.len() < bytes.len());
    assert_eq!(Vector::read(&mut Reader::new("a vector", &out)).as_ref(), Ok(&read));
    let _ = (Vector::default().lacks(&read), read.compare(&Vector::default()));
    true
}

fn origin() -> Origin {
    Origin { node: NodeId(2), incarnation: Incarnation(3) }
}

fn id() -> WriteId {
    WriteId { origin: origin(), seq: 4 }
}

fn vector() -> Vector {
    Vector::from_iter([(origin(), 300)])
}

fn vector_bytes() -> Vec<u8> {
    let mut out = Vec::new();
    vector().put(&mut out);
    out
}

fn a_record() -> Record<'static> {
    let version = Version { era: Era(1), hlc: Hlc(7), node: NodeId(2) };
    Record { version, id: Some(id()), value: Some(b"value") }
}

fn an_entry() -> Vec<u8> {
    disk::encode_entry(&raft::Entry { index: 7, term: 3, data: b"data".to_vec(), ..raft::Entry::default() })
}

fn terms() -> Vec<u8> {
    let mut terms = Terms::after(9, 1);
    terms.push(10, 1);
    terms.push(12, 3);
    terms.encode()
}

fn lost() -> Lost {
    let listed = Some(Listed { noted: Hlc(9), by_hlc: Hlc(8) });
    Lost { hlc: Hlc(7), tombstone: false, kept: Some(b"value".to_vec()), by: id(), settled: true, listed }
}

fn digest() -> Vec<u8> {
    Digest { era: Era(1), vector: vector(), purged: Hlc(0), buckets: Buckets::default() }.encode()
}

fn run_of_one() -> Run {
    let (key, value) = (b"key".to_vec(), Some(b"value".to_vec()));
    let entry = Entry { seq: 5, hlc: Hlc(7), key, value, replaced: Replaced::Write(id()), since: 4 };
    Run { era: Era(1), origin: origin(), after: 3, entries: vec![entry] }
}

fn copy_note() -> Vec<u8> {
    copy::Note { from: NodeId(2), era: Era(1), pages: 2, highest: Hlc(9), vector: vector() }.encode()
}

fn change() -> Vec<u8> {
    let step = Step::Drain { cut: vector() };
    Change { epoch: Epoch(1), phase: Phase::Sealing, switch: SwitchId(1), step }.encode()
}

fn a_marker() -> Marker {
    let boundary = Boundary { cut: vector(), excluded: [NodeId(3)].into() };
    Marker { switch: SwitchId(1), epoch: Epoch(2), era: Era(2), mode: Mode::Strong, boundary }
}

fn seal() -> Seal {
    Seal { era: Era(1), epoch: Epoch(1), switch: SwitchId(1), excluded: [NodeId(3)].into() }
}

fn region() -> Vec<u8> {
    let mut region = Region::new(Mode::Eventual);
    region.enter(&a_marker());
    region.encode()
}

fn session() -> Vec<u8> {
    let mut sessions = Sessions::default();
    sessions.open(7, 9, 1);
    let done = Answer::Done(Version { era: Era(1), hlc: Hlc(7), node: NodeId(2) });
    sessions.record(RequestId { client: 7, sequence: 1, lowest: 1 }, done);
    sessions.encode(7).unwrap_or_default()
}

fn gate_records() -> Vec<u8> {
    let mut out = Vec::new();
    for control in [Control::Open { era: Era(1), epoch: Epoch(1) }, Control::Seal(seal())] {
        rdb_core::codec::put_bytes(&mut out, &control.encode());
    }
    out
}

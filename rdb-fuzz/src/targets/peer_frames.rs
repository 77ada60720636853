//! Frames of peers' connections, from their protobuf to what is posted for a node's threads.

use crate::parts::{Parts, part};
use bytes::Bytes;
use prost::Message;
use raft_prost::Message as _;
use rdb_core::eventual::run::{Entry, Replaced, Run};
use rdb_core::eventual::vector::{Origin, Vector};
use rdb_core::ids::{Era, Incarnation, NodeId};
use rdb_core::raft;
use rdb_core::version::Hlc;
use rdb_proto::internal::v1 as wire;
use rdb_proto::internal::v1::peer_frame::Frame;
use rdb_proto::internal::v1::snapshot_frame::Frame as SnapshotFrame;
use rdb_proto::internal::v1::switch_report::Said;
use rdb_server::fuzzed;

/// Past so many frames an input says nothing new.
const FRAMES_MAX: usize = 32;

pub(super) fn run(input: &[u8]) -> bool {
    let mut parts = Parts::of(input);
    if parts.number().is_multiple_of(4) {
        return fuzzed::snapshot_frame(parts.rest());
    }
    let frames = std::iter::from_fn(|| (!parts.is_empty()).then(|| parts.part()));
    0 < fuzzed::peer_frames(frames.take(FRAMES_MAX))
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let snapshot = |frame| [vec![0], wire::SnapshotFrame { frame: Some(frame) }.encode_to_vec()].concat();
    let chunk = rdb_storage::fuzzed::Kind::Chunk.example().into();
    let begin = wire::SnapshotBegin { message: message(), region: 16, ..wire::SnapshotBegin::default() };
    let mut seeds = vec![
        frames(&all()),
        snapshot(SnapshotFrame::Begin(begin)),
        snapshot(SnapshotFrame::Chunk(wire::SnapshotChunk { number: 0, bytes: chunk, checksum: 0 })),
        snapshot(SnapshotFrame::End(wire::SnapshotEnd { chunks: 1, checksum: 0 })),
    ];
    seeds.extend(all().into_iter().map(|frame| frames(&[frame])));
    seeds
}

fn frames(frames: &[Frame]) -> Vec<u8> {
    let encoded = |frame: &Frame| part(&wire::PeerFrame { frame: Some(frame.clone()) }.encode_to_vec());
    std::iter::once(vec![1]).chain(frames.iter().map(encoded)).collect::<Vec<_>>().concat()
}

/// One of each kind, in an order in which all are taken.
fn all() -> Vec<Frame> {
    let raft = wire::RaftMessage { region: 16, message: message() };
    let sleeping = wire::SleepingRegion { region: 16, term: 1, last: 3 };
    let run = run_of_one();
    vec![
        Frame::Raft(wire::RaftBatch { messages: vec![raft] }),
        Frame::Part(wire::RaftPart { region: 16, bytes: message(), last: true }),
        Frame::Sleep(wire::Sleep { regions: vec![sleeping] }),
        Frame::Runs(wire::OriginRuns { region: 16, runs: vec![run.clone()], awaited: true }),
        Frame::RunPart(wire::OriginPart { region: 16, bytes: run, last: true, awaited: false }),
        Frame::Reports(wire::OriginReports { reports: vec![report()] }),
        Frame::Standings(wire::SwitchStandings { standings: vec![standing()] }),
        Frame::Ping(wire::Ping { log_position: 9, disk: 1, sent_micros: 7, slow_sync_ms: 5 }),
    ]
}

fn message() -> Bytes {
    let mut message = raft::Message { from: 2, to: 1, term: 2, ..raft::Message::default() };
    message.set_msg_type(raft::MessageType::MsgHeartbeat);
    message.encode_to_vec().into()
}

fn run_of_one() -> Bytes {
    let origin = Origin { node: NodeId(2), incarnation: Incarnation(1) };
    let (key, value) = (b"key".to_vec(), Some(b"value".to_vec()));
    let entry = Entry { seq: 1, hlc: Hlc(7), key, value, replaced: Replaced::Nothing(Hlc(0)), since: 1 };
    Run { era: Era(1), origin, after: 0, entries: vec![entry] }.encode().into()
}

fn vector() -> Bytes {
    let mut out = Vec::new();
    let origin = Origin { node: NodeId(2), incarnation: Incarnation(1) };
    Vector::from_iter([(origin, 300)]).put(&mut out);
    out.into()
}

fn report() -> wire::OriginReport {
    wire::OriginReport {
        region: 16,
        era: 1,
        synced: vector(),
        applied: vector(),
        shown: vector(),
        promise: 9,
        certain: vector(),
        ..wire::OriginReport::default()
    }
}

fn standing() -> wire::SwitchStanding {
    let sealed = wire::SwitchReport { switch: 1, said: Some(Said::Sealed(vector())) };
    let drained = wire::SwitchReport { switch: 1, said: Some(Said::Drained(5)) };
    wire::SwitchStanding {
        region: 16,
        era: 1,
        epoch: 1,
        mode: 2,
        gate: 3,
        applied: vector(),
        reports: vec![sealed, drained],
        ..wire::SwitchStanding::default()
    }
}

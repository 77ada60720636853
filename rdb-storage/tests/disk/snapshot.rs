//! Snapshots: what comes out is what went in, and a crash at any step leaves the old state or the new one.

use crate::support::{Node, REGION, copy, entries, hard_state, open, private};
use rdb_core::apply::{Changes, State};
use rdb_core::ids::{Index, NamespaceId, RegionId};
use rdb_core::raft::disk::Terms;
use rdb_core::raft::{LogWrite, SnapshotPlace};
use rdb_core::sessions::Sessions;
use rdb_storage::{Chunk, Data, Engine, Incoming, Result, Section, StagedSnapshot};
use std::collections::VecDeque;
use std::path::Path;

const NAMESPACE: NamespaceId = NamespaceId(7);
const NEIGHBOUR: (RegionId, NamespaceId) = (RegionId(17), NamespaceId(8));

/// Records `from` to `to` with the value `value`, two sessions, and the state after entry `applied`.
fn fill(data: &Data, region: RegionId, namespace: NamespaceId, applied: Index, keys: std::ops::Range<u32>) {
    let mut sessions = Sessions::default();
    let clients = [applied, applied + 1];
    for client in clients {
        sessions.open(client, 0, applied);
    }
    let value = vec![applied.to_le_bytes()[0]; 100];
    let changes = Changes {
        removed: Vec::new(),
        records: keys.map(|key| (key.to_be_bytes().to_vec(), Some(value.clone()))).collect(),
        sessions: clients.iter().map(|client| (*client, sessions.encode(*client))).collect(),
        state: State { applied, applied_term: 3, ..State::default() }.encode(),
        entered: None,
    };
    data.apply(region, namespace, &changes).unwrap();
}

type Everything = (State, Sessions, Vec<(Vec<u8>, Vec<u8>)>);

/// All that a region has.
fn all(data: &Data, region: RegionId, namespace: NamespaceId) -> Everything {
    let (state, sessions) = data.load(region).unwrap().unwrap();
    (state, sessions, data.records(namespace).unwrap())
}

fn chunks(data: &Data) -> VecDeque<Chunk> {
    let mut reader = data.snapshot(REGION, NAMESPACE).unwrap().unwrap();
    let mut chunks = VecDeque::new();
    while let Some(chunk) = reader.next_chunk(1000).unwrap() {
        assert_eq!(Chunk::decode(&chunk.encode()).unwrap(), chunk);
        chunks.push_back(chunk);
    }
    chunks
}

fn receive(engine: &Engine, mut chunks: VecDeque<Chunk>) -> Result<Option<StagedSnapshot>> {
    let inbox = engine.inbox().with_file_bytes(4000);
    inbox.receive(REGION, NAMESPACE, &mut || chunks.pop_front().map_or(Incoming::End, Incoming::Chunk))
}

/// A node whose log ends at 5 and whose data stands there; and the parts of a snapshot of 900.
fn behind(path: &Path) -> (Node, VecDeque<Chunk>) {
    let node = Node::with_region(path);
    node.write(entries(1, 1..=5, 2));
    fill(&node.engine.data(), REGION, NAMESPACE, 5, 0..700);
    fill(&node.engine.data(), NEIGHBOUR.0, NEIGHBOUR.1, 9, 0..50);
    let directory = private();
    let ahead = open(directory.path()).unwrap();
    fill(&ahead.data(), REGION, NAMESPACE, 900, 300..1000);
    (node, chunks(&ahead.data()))
}

fn write() -> LogWrite {
    LogWrite {
        number: 2,
        hard_state: Some(hard_state(4, 0, 900)),
        terms: Some(Terms::after(900, 3).encode()),
        snapshot: Some(SnapshotPlace { index: 900, term: 3 }),
        sync: true,
        ..LogWrite::default()
    }
}

fn note(node: &Node) {
    let (done, synced) = crossbeam_channel::unbounded();
    node.handle.note_snapshot(REGION, &write(), move || done.send(()).unwrap()).unwrap();
    synced.recv_timeout(crate::support::PATIENCE).unwrap();
}

#[test]
fn a_snapshot_is_of_one_moment_and_replaces_all_that_was_there() {
    let directory = private();
    let (node, _) = behind(directory.path());
    let source = private();
    let ahead = open(source.path()).unwrap();
    fill(&ahead.data(), REGION, NAMESPACE, 900, 300..1000);
    let expected = all(&ahead.data(), REGION, NAMESPACE);
    let data = ahead.data();
    let mut reader = data.snapshot(REGION, NAMESPACE).unwrap().unwrap();
    let mut parts = VecDeque::from([reader.next_chunk(1000).unwrap().unwrap()]);
    // Written while it is read: not in it.
    fill(&data, REGION, NAMESPACE, 901, 0..2000);
    while let Some(part) = reader.next_chunk(1000).unwrap() {
        parts.push_back(part);
    }
    let neighbour = all(&node.engine.data(), NEIGHBOUR.0, NEIGHBOUR.1);
    let staged = receive(&node.engine, parts).unwrap().unwrap();
    assert_eq!(staged.state().applied, 900);
    node.engine.data().install(staged).unwrap();
    assert_eq!(all(&node.engine.data(), REGION, NAMESPACE), expected);
    assert_eq!(all(&node.engine.data(), NEIGHBOUR.0, NEIGHBOUR.1), neighbour);
    assert_eq!(node.engine.data().durable(REGION), 900);
    assert_eq!(std::fs::read_dir(directory.path().join("incoming")).unwrap().count(), 0);
}

/// A sender whose connection was lost may begin anew while the first one's parts are still being written.
#[test]
fn two_snapshots_of_a_region_that_come_at_a_time_do_not_touch_each_other() {
    let directory = private();
    let (node, parts) = behind(directory.path());
    let source = private();
    let ahead = open(source.path()).unwrap();
    fill(&ahead.data(), REGION, NAMESPACE, 900, 300..1000);
    let expected = all(&ahead.data(), REGION, NAMESPACE);
    let (mut coming, half) = (parts.clone(), parts.len() / 2);
    let mut meanwhile = None;
    let inbox = node.engine.inbox().with_file_bytes(4000);
    let mut next = || {
        if coming.len() == half {
            meanwhile = Some(receive(&node.engine, parts.clone()).unwrap().unwrap());
        }
        coming.pop_front().map_or(Incoming::End, Incoming::Chunk)
    };
    let first = inbox.receive(REGION, NAMESPACE, &mut next).unwrap().unwrap();
    // The other one is given up, with its files; these are all here.
    drop(meanwhile.expect("another one came in between"));
    node.engine.data().install(first).unwrap();
    assert_eq!(all(&node.engine.data(), REGION, NAMESPACE), expected);
}

#[test]
fn a_crash_at_any_step_leaves_the_old_state_or_the_new_one() {
    let directory = private();
    let (node, parts) = behind(directory.path());
    node.engine.data().flush().unwrap();
    let old = all(&node.engine.data(), REGION, NAMESPACE);
    let crashes = private();
    let crash = |step: &str| copy(directory.path(), &crashes.path().join(step));
    let staged = receive(&node.engine, parts).unwrap().unwrap();
    crash("1 files");
    note(&node);
    crash("2 note");
    node.engine.data().install(staged).unwrap();
    let new = all(&node.engine.data(), REGION, NAMESPACE);
    crash("3 data");
    node.write(write());
    crash("4 log");
    for (step, is_new) in [("1 files", false), ("2 note", false), ("3 data", true), ("4 log", true)] {
        let path = crashes.path().join(step);
        // Twice: the first start settles it for good.
        for _ in 0..2 {
            let engine = open(&path).unwrap();
            let found = all(&engine.data(), REGION, NAMESPACE);
            assert!(found == if is_new { new.clone() } else { old.clone() }, "{step}");
            let log = engine.log().regions().unwrap().remove(0);
            let (last, first) = if is_new { (900, 901) } else { (5, 1) };
            assert_eq!((log.last(), log.terms().first_index()), (last, first), "{step}");
            let boot = log.into_boot(found.0.applied, 0);
            let (term, commit) = if is_new { (4, 900) } else { (2, 0) };
            assert_eq!((boot.hard_state.term, boot.hard_state.commit), (term, commit), "{step}");
            assert!(!path.join("incoming").exists(), "{step}");
        }
    }
}

#[test]
fn what_is_no_snapshot_is_refused_and_leaves_nothing() {
    let directory = private();
    let (node, parts) = behind(directory.path());
    let before = all(&node.engine.data(), REGION, NAMESPACE);
    let mut without_state = parts.clone();
    without_state.pop_front();
    let mut twice = parts.clone();
    twice.push_back(parts[parts.len() - 1].clone());
    let mut backwards = parts.clone();
    backwards.swap(2, 3);
    let mut two_states = parts.clone();
    two_states.insert(1, parts[0].clone());
    let mut strange = parts.clone();
    strange.insert(1, Chunk { section: Section::Sessions, items: vec![(b"short".to_vec(), Vec::new())] });
    for broken in [without_state, twice, backwards, two_states, strange, VecDeque::new()] {
        let error = receive(&node.engine, broken).unwrap_err();
        assert!(error.to_string().contains("snapshot"), "{error}");
    }
    let aborted = node.engine.inbox().receive(REGION, NAMESPACE, &mut || Incoming::Aborted);
    assert!(aborted.unwrap().is_none());
    assert_eq!(all(&node.engine.data(), REGION, NAMESPACE), before);
    assert_eq!(std::fs::read_dir(directory.path().join("incoming")).unwrap().count(), 0);
}

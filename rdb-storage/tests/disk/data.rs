//! The data without a log of its own: what a crash leaves is of one moment, and the log is kept for the rest.

use crate::support::{REGION, copy, open, private};
use rdb_core::apply::{Changes, State, View as _};
use rdb_core::eventual::machine as eventual;
use rdb_core::eventual::vector::{Origin, Vector};
use rdb_core::ids::{Era, Incarnation, NamespaceId, NodeId, RegionId};
use rdb_core::range::KeyRange;
use rdb_core::sessions::Sessions;
use rdb_core::version::Hlc;
use rdb_storage::{Data, NotInMemory};

const NAMESPACE: NamespaceId = NamespaceId(7);

/// What applying entry `index` changes: one record that all entries write, and one of its own slot.
fn changes(index: u64, value_bytes: usize) -> Changes {
    let mut sessions = Sessions::default();
    sessions.open(5, 0, index);
    let mut value = index.to_be_bytes().to_vec();
    value.resize(8 + value_bytes, index.to_le_bytes()[0]);
    Changes {
        removed: Vec::new(),
        records: vec![(b"last".to_vec(), Some(index.to_be_bytes().to_vec())), (slot(index), Some(value))],
        sessions: vec![(5, sessions.encode(5))],
        state: State { applied: index, truncate_to: index, ..State::default() }.encode(),
        entered: None,
    }
}

fn slot(index: u64) -> Vec<u8> {
    format!("slot {}", index % 10).into_bytes()
}

/// Checks that records, session and state are all of one moment, and returns it.
fn moment(data: &Data) -> u64 {
    let Some((state, sessions)) = data.load(REGION).unwrap() else {
        assert_eq!(data.get(NAMESPACE, b"last").unwrap(), None);
        return 0;
    };
    let mut expected = Sessions::default();
    expected.open(5, 0, state.applied);
    assert_eq!(sessions, expected, "the session is not of the state's moment, {}", state.applied);
    assert_eq!(data.get(NAMESPACE, b"last").unwrap().unwrap(), state.applied.to_be_bytes());
    for index in state.applied.saturating_sub(9).max(1)..=state.applied {
        let value = data.get(NAMESPACE, &slot(index)).unwrap().unwrap();
        assert_eq!(value[..8], index.to_be_bytes(), "slot of {index} at {}", state.applied);
    }
    assert_eq!(data.durable(REGION), state.applied, "what a start finds came from disk");
    state.applied
}

#[test]
fn records_are_read_as_they_were_applied() {
    let directory = private();
    let engine = open(directory.path()).unwrap();
    let data = engine.data();
    let region = data.region(REGION, NAMESPACE);
    assert!(data.load(REGION).unwrap().is_none());
    region.apply(&changes(1, 0)).unwrap();
    assert_eq!(region.get(b"last").unwrap().unwrap(), 1u64.to_be_bytes());
    assert_eq!(region.get(b"none").unwrap(), None);
    assert_eq!(data.get(NamespaceId(8), b"last").unwrap(), None, "another namespace");
    let many = data.multi_get(NAMESPACE, &[&b"slot 1"[..], b"none", b"last"], 1000).unwrap().unwrap();
    assert_eq!(data.multi_get(NAMESPACE, &[b"last"], 1).unwrap(), None, "more than a byte");
    assert_eq!(many.iter().map(Option::is_some).collect::<Vec<_>>(), [true, false, true]);
    let mut removal = changes(2, 0);
    removal.records = vec![(b"last".to_vec(), Some(Vec::new())), (b"last".to_vec(), None)];
    removal.sessions = vec![(5, None)];
    region.apply(&removal).unwrap();
    assert_eq!(region.get(b"last").unwrap(), None, "the later of two changes of a key counts");
    assert!(data.load(REGION).unwrap().unwrap().1.is_empty());
}

/// Keys that are put in this namespace and in its neighbours, and what is left of them, also after a restart.
#[test]
fn a_range_is_removed_before_the_records_of_its_batch_are_written() {
    let parent = private();
    let path = parent.path().join("node");
    let engine = open(&path).unwrap();
    let data = engine.data();
    let neighbours = [NamespaceId(6), NamespaceId(8)];
    let put = |keys: &[&[u8]]| keys.iter().map(|key| (key.to_vec(), Some(b"v".to_vec()))).collect();
    let state = |applied| State { applied, ..State::default() }.encode();
    let keys: [&[u8]; 6] = [b"a", b"b", b"b/1", b"b/2", b"c", b"\xff\xff"];
    for (region, namespace) in [(16, NAMESPACE), (17, neighbours[0]), (18, neighbours[1])] {
        let changes = Changes { records: put(&keys), state: state(1), ..Changes::default() };
        data.apply(RegionId(region), namespace, &changes).unwrap();
    }
    data.flush().unwrap();
    let left = |data: &Data| {
        let keys = data
            .records(NAMESPACE)
            .unwrap()
            .into_iter()
            .map(|(key, _)| String::from_utf8_lossy(&key).into_owned());
        keys.collect::<Vec<_>>().join(" ")
    };
    let remove = |from: &[u8], to: &[u8]| KeyRange { from: from.to_vec(), to: to.to_vec() };
    // Some flushed, one not; one comes back in the same batch; and a range of nothing, which harms nobody.
    let unflushed = Changes { records: put(&[b"b/3"]), state: state(2), ..Changes::default() };
    data.apply(REGION, NAMESPACE, &unflushed).unwrap();
    let removed = vec![remove(b"b/", b"b0"), remove(b"c", b"a")];
    data.apply(
        REGION,
        NAMESPACE,
        &Changes { removed, records: put(&[b"b/2"]), sessions: vec![], state: state(3), entered: None },
    )
    .unwrap();
    assert_eq!(left(&data), "a b b/2 c \u{fffd}\u{fffd}");
    // To the end of the namespace, and not into the next one.
    let removed = vec![remove(b"b/2", b"")];
    data.apply(REGION, NAMESPACE, &Changes { removed, state: state(4), ..Changes::default() }).unwrap();
    assert_eq!(left(&data), "a b");
    data.close().unwrap();
    drop(engine);
    let engine = open(&path).unwrap();
    let data = engine.data();
    assert_eq!(left(&data), "a b");
    for neighbour in neighbours {
        assert_eq!(data.records(neighbour).unwrap().len(), keys.len());
    }
}

/// What was written lately, or read before, is known without the disk; what lies in tables alone is not taken for absent.
#[test]
fn without_the_disk_it_is_told_what_is_in_memory_and_what_is_not_known() {
    let directory = private();
    let engine = open(directory.path()).unwrap();
    let data = engine.data();
    data.apply(REGION, NAMESPACE, &changes(1, 0)).unwrap();
    let (last, absent) = (&b"last"[..], &b"lasting"[..]);
    let record = Some(1u64.to_be_bytes().to_vec());
    let both = || data.multi_get_in_memory(NAMESPACE, &[last, absent], 1 << 20).unwrap();
    assert_eq!(data.get_in_memory(NAMESPACE, last).unwrap(), Ok(record.clone()));
    assert_eq!(data.get_in_memory(NAMESPACE, absent).unwrap(), Ok(None));
    assert_eq!(both(), Ok(Some(vec![record.clone(), None])));
    data.close().unwrap();
    drop(engine);
    let engine = open(directory.path()).unwrap();
    let data = engine.data();
    let both = || data.multi_get_in_memory(NAMESPACE, &[last, absent], 1 << 20).unwrap();
    assert_eq!(data.get_in_memory(NAMESPACE, last).unwrap(), Err(NotInMemory));
    assert_eq!(both(), Err(NotInMemory));
    // A table's filter, where it is in memory, may tell.
    let of_absent = data.get_in_memory(NAMESPACE, absent).unwrap();
    assert!(matches!(of_absent, Err(NotInMemory) | Ok(None)), "{of_absent:?}");
    assert!(data.get(NAMESPACE, last).unwrap().is_some());
    assert!(data.get(NAMESPACE, absent).unwrap().is_none());
    assert_eq!(data.get_in_memory(NAMESPACE, last).unwrap(), Ok(record.clone()));
    assert_eq!(both(), Ok(Some(vec![record, None])));
}

#[test]
fn a_crash_leaves_the_last_flush_and_a_close_leaves_all() {
    let parent = private();
    let path = parent.path().join("node");
    let engine = open(&path).unwrap();
    let data = engine.data();
    for index in 1..=30 {
        data.apply(REGION, NAMESPACE, &changes(index, 0)).unwrap();
        if index % 10 == 0 {
            data.flush().unwrap();
        }
        let crashed = parent.path().join(index.to_string());
        copy(&path, &crashed);
        assert_eq!(moment(&open(&crashed).unwrap().data()), index / 10 * 10);
    }
    data.apply(REGION, NAMESPACE, &changes(31, 0)).unwrap();
    data.close().unwrap();
    drop(engine);
    assert_eq!(moment(&open(&path).unwrap().data()), 31);
}

/// RocksDB flushes full memtables by itself, while more is applied.
#[test]
fn a_crash_between_flushes_of_rocksdbs_own_leaves_one_moment() {
    let parent = private();
    let path = parent.path().join("node");
    let engine = open(&path).unwrap();
    let data = engine.data();
    for index in 1..=120u64 {
        data.apply(REGION, NAMESPACE, &changes(index, 400_000)).unwrap();
        if index % 40 == 0 {
            let crashed = parent.path().join(index.to_string());
            copy(&path, &crashed);
            let found = moment(&open(&crashed).unwrap().data());
            assert!(found < index, "the last one is in memory");
        }
    }
    assert_eq!(data.durable(REGION), 0, "only a flush that was waited for counts");
    assert!(0 < data.unflushed_bytes());
    drop((data, engine));
}

#[test]
#[cfg_attr(feature = "bug-truncate-past-durable", should_panic(expected = "lost"))]
fn a_log_is_never_truncated_past_what_a_crash_leaves() {
    let parent = private();
    let path = parent.path().join("node");
    let engine = open(&path).unwrap();
    let data = engine.data();
    for index in 1..=20 {
        data.apply(REGION, NAMESPACE, &changes(index, 0)).unwrap();
        if index == 8 {
            data.flush().unwrap();
        }
        let crashed = parent.path().join(index.to_string());
        copy(&path, &crashed);
        let found = moment(&open(&crashed).unwrap().data());
        let target = data.truncation_target(REGION);
        assert!(target <= found, "entries after {found} would be lost: truncated to {target}");
    }
    assert_eq!((data.durable(REGION), data.truncation_target(REGION)), (8, 8));
    let mut held = changes(21, 0);
    held.state = State { applied: 21, truncate_to: 5, ..State::default() }.encode();
    data.apply(REGION, NAMESPACE, &held).unwrap();
    data.flush().unwrap();
    assert_eq!((data.durable(REGION), data.truncation_target(REGION)), (21, 5), "the state may ask for less");
    assert_eq!(data.truncation_target(RegionId(99)), 0, "nothing is known of it");
}

#[test]
fn a_destroyed_region_is_gone_for_good_and_its_neighbours_stay() {
    let parent = private();
    let path = parent.path().join("node");
    let engine = open(&path).unwrap();
    let data = engine.data();
    let neighbour = (RegionId(17), NamespaceId(8));
    data.apply(REGION, NAMESPACE, &changes(1, 0)).unwrap();
    data.apply(neighbour.0, neighbour.1, &changes(1, 0)).unwrap();
    data.flush().unwrap();
    data.destroy(&[(REGION, NAMESPACE)]).unwrap();
    copy(&path, &parent.path().join("crashed"));
    let data = open(&parent.path().join("crashed")).unwrap().data();
    assert!(data.load(REGION).unwrap().is_none());
    assert_eq!(data.get(NAMESPACE, b"last").unwrap(), None);
    assert!(data.load(neighbour.0).unwrap().is_some());
    assert!(data.get(neighbour.1, b"last").unwrap().is_some());
}

/// A reader may look at any moment, also between a write and the note of it.
#[test]
fn who_reads_an_eventual_state_does_not_make_it_durable() {
    let parent = private();
    let engine = open(&parent.path().join("node")).unwrap();
    let data = engine.data();
    let era = Era(1);
    let origin = Origin { node: NodeId(1), incarnation: Incarnation(1) };
    let applied = Vector::from_iter([(origin, 5)]);
    let state = eventual::State { applied: applied.clone(), ..eventual::State::begin(era, Hlc(0)) };
    let changes = eventual::Changes { state: state.encode(), ..eventual::Changes::default() };
    data.apply_eventual(REGION, NAMESPACE, &changes, (era, &applied)).unwrap();
    assert_eq!(data.eventual_state(REGION).unwrap(), Some(state.clone()));
    assert_eq!(data.durable_vector(REGION, era), Vector::default());
    data.flush().unwrap();
    assert_eq!(data.durable_vector(REGION, era), applied);
    drop((data, engine));
    let data = open(&parent.path().join("node")).unwrap().data();
    assert_eq!(data.eventual_state(REGION).unwrap(), Some(state.clone()));
    assert_eq!(data.durable_vector(REGION, era), Vector::default(), "nobody has taken it up");
    assert_eq!(data.load_eventual(REGION).unwrap(), Some(state));
    assert_eq!(data.durable_vector(REGION, era), applied, "and nobody has applied anything since the start");
}

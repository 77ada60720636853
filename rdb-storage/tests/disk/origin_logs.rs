//! The logs of eventual mode on disk.

use crate::support::{Node, PATIENCE, REGION, open, private};
use bytes::Bytes;
use crossbeam_channel::unbounded;
use rdb_core::eventual::run::{Entry, Replaced, Run};
use rdb_core::eventual::vector::{Origin, Seq, Vector};
use rdb_core::ids::{Era, Incarnation, NodeId, RegionId};
use rdb_core::version::Hlc;
use rdb_storage::{OriginLogs, OriginState, OriginWrite};

const ERA: Era = Era(2);

fn origin(node: u64, incarnation: u64) -> Origin {
    Origin { node: NodeId(node), incarnation: Incarnation(incarnation) }
}

/// A run of one write.
fn run(origin: Origin, last: Seq) -> (Origin, Seq, Bytes) {
    run_of(ERA, origin, last)
}

fn run_of(era: Era, origin: Origin, last: Seq) -> (Origin, Seq, Bytes) {
    let replaced = Replaced::Nothing(Hlc(0));
    let entry = Entry { seq: last, hlc: Hlc(1), key: vec![7], value: None, replaced, since: last };
    (origin, last, Run { era, origin, after: last - 1, entries: vec![entry] }.encode().into())
}

fn runs(runs: impl IntoIterator<Item = (Origin, Seq)>) -> OriginWrite {
    let runs = runs.into_iter().map(|(origin, last)| run(origin, last)).collect();
    OriginWrite { era: ERA, runs, sync: true, ..OriginWrite::default() }
}

fn write(node: &Node, region: RegionId, write: OriginWrite) {
    let (done, written) = unbounded();
    node.handle.write_origins(region, write, move || done.send(()).unwrap()).unwrap();
    written.recv_timeout(PATIENCE).unwrap();
}

fn last(node: &Node, region: RegionId, era: Era) -> Vector {
    ends(&node.engine.origins(), region, era)
}

fn ends(origins: &OriginLogs, region: RegionId, era: Era) -> Vector {
    origins.load(region, era).unwrap().runs.iter().map(|held| (held.origin, held.last)).collect()
}

/// The last writes of the runs that a reader finds who knows the log up to `known`.
fn from(node: &Node, origin: Origin, known: Seq, bytes_max: usize) -> Vec<Seq> {
    let found = node.engine.origins().runs(REGION, ERA, origin, known, bytes_max).unwrap();
    found.iter().map(|run| Run::decode(run).unwrap().last()).collect()
}

#[test]
fn a_reader_finds_the_run_that_has_what_he_lacks_and_those_after_it() {
    let directory = private();
    let node = Node::with_region(directory.path());
    let (one, two) = (origin(1, 1), origin(1, 2));
    write(&node, REGION, runs([(one, 4), (one, 5), (one, 300), (two, 2), (origin(2, 1), 7)]));
    assert_eq!(from(&node, one, 0, usize::MAX), [4, 5, 300]);
    assert_eq!(from(&node, one, 3, usize::MAX), [4, 5, 300], "the first run has 4");
    assert_eq!(from(&node, one, 4, usize::MAX), [5, 300]);
    assert_eq!(from(&node, one, 300, usize::MAX), Vec::<Seq>::new());
    assert_eq!(from(&node, two, 0, usize::MAX), [2], "another life of the node is another log");
    let bytes = run(one, 4).2.len() + run(one, 5).2.len();
    assert_eq!(from(&node, one, 0, bytes), [4, 5]);
    assert_eq!(from(&node, one, 0, bytes - 1), [4]);
    assert_eq!(from(&node, one, 0, 0), [4], "at least one");
    node.close();
}

#[test]
fn what_was_written_is_there_after_a_start() {
    let directory = private();
    let node = Node::with_region(directory.path());
    let written = [(origin(1, 1), 4), (origin(1, 9), 2), (origin(3, 1), u64::from(u32::MAX) + 1)];
    let states = vec![(OriginState::Gate, b"open".to_vec()), (OriginState::Base, b"base".to_vec())];
    write(&node, REGION, OriginWrite { states, stamps_below: Some(Hlc(77)), ..runs(written) });
    write(&node, REGION, runs([(origin(1, 1), 9)]));
    write(&node, REGION, OriginWrite { states: vec![(OriginState::Gate, b"sealed".to_vec())], ..runs([]) });
    node.close();
    let origins = open(directory.path()).unwrap().origins();
    let stored = origins.load(REGION, ERA).unwrap();
    let mut expected: Vector = written.into_iter().collect();
    expected.raise(origin(1, 1), 9);
    assert_eq!(ends(&origins, REGION, ERA), expected);
    assert_eq!((stored.gate, stored.base), (Some(b"sealed".to_vec()), Some(b"base".to_vec())));
    assert_eq!(origins.stamps_below().unwrap(), Some(Hlc(77)));
    assert_eq!(origins.load(RegionId(17), ERA).unwrap(), rdb_storage::StoredOrigins::default());
}

#[test]
fn dropping_takes_whole_runs_of_one_origin() {
    let directory = private();
    let node = Node::with_region(directory.path());
    let (one, two) = (origin(1, 1), origin(2, 1));
    write(&node, REGION, runs([(one, 3), (one, 6), (one, 9), (two, 5)]));
    write(&node, REGION, OriginWrite { drop: vec![(one, 7)], ..runs([(one, 12)]) });
    assert_eq!(from(&node, one, 0, usize::MAX), [9, 12], "the run up to 9 has more than was dropped");
    assert_eq!(from(&node, two, 0, usize::MAX), [5]);
    write(&node, REGION, OriginWrite { drop: vec![(one, u64::MAX)], ..runs([]) });
    assert_eq!(last(&node, REGION, ERA), [(two, 5)].into_iter().collect());
    node.close();
}

#[test]
fn an_era_begins_with_empty_logs() {
    let directory = private();
    let node = Node::with_region(directory.path());
    let one = origin(1, 1);
    for region in [15, 16, 17] {
        for era in 1..=4 {
            let runs = vec![run_of(Era(era), one, u64::from(era))];
            write(
                &node,
                RegionId(region),
                OriginWrite { era: Era(era), runs, sync: true, ..OriginWrite::default() },
            );
        }
    }
    write(&node, REGION, OriginWrite { only_from: Some(Era(3)), ..runs([]) });
    for region in [15, 16, 17] {
        for era in 1..=4 {
            let gone = region == 16 && era < 3;
            let left = last(&node, RegionId(region), Era(era)).get(one);
            assert_eq!(left, if gone { 0 } else { u64::from(era) }, "region {region}, era {era}");
        }
    }
    node.close();
}

#[test]
fn a_destroyed_region_leaves_nothing_of_its_origins_and_its_neighbours_alone() {
    let directory = private();
    let node = Node::open(directory.path());
    for region in [15, 16, 17].map(RegionId) {
        node.create(region);
        let states = OriginState::ALL.map(|kind| (kind, vec![1])).to_vec();
        write(
            &node,
            region,
            OriginWrite { states, ..runs([(origin(u64::MAX, u64::MAX), u64::MAX), (origin(1, 1), 1)]) },
        );
    }
    let (done, destroyed) = unbounded();
    node.handle.destroy_region(REGION, move || done.send(()).unwrap()).unwrap();
    destroyed.recv_timeout(PATIENCE).unwrap();
    for (region, whole) in [(15, true), (16, false), (17, true)] {
        let stored = node.engine.origins().load(RegionId(region), ERA).unwrap();
        assert_eq!(
            (stored.runs.is_empty(), stored.gate.is_some(), stored.base.is_some()),
            (!whole, whole, whole)
        );
    }
    node.close();
}

/// A directory from before eventual mode.
#[test]
fn a_log_without_the_families_of_eventual_mode_gets_them() {
    let directory = private();
    Node::with_region(directory.path()).close();
    {
        let mut options = rocksdb::Options::default();
        options.set_wal_recovery_mode(rocksdb::DBRecoveryMode::TolerateCorruptedTailRecords);
        let names = ["default", "raft_log", "raft_state", "origin_log", "origin_state"];
        let log = rocksdb::DB::open_cf(&options, directory.path().join("log"), names).unwrap();
        names[3..].iter().for_each(|name| log.drop_cf(name).unwrap());
    }
    let node = Node::open(directory.path());
    write(&node, REGION, runs([(origin(1, 1), 3)]));
    node.close();
    let node = Node::open(directory.path());
    assert_eq!(last(&node, REGION, ERA).get(origin(1, 1)), 3);
    assert_eq!(node.engine.log().regions().unwrap().len(), 1);
    node.close();
}

/// A family that the log must have is not made anew: that would hide that it is lost.
#[test]
fn a_log_without_the_families_of_raft_is_refused() {
    let directory = private();
    Node::with_region(directory.path()).close();
    {
        let options = rocksdb::Options::default();
        let names = ["default", "raft_log", "raft_state", "origin_log", "origin_state"];
        let log = rocksdb::DB::open_cf(&options, directory.path().join("log"), names).unwrap();
        log.drop_cf("raft_state").unwrap();
    }
    assert!(crate::support::refused(directory.path()).to_string().contains("raft_state"));
}

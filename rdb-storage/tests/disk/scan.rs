//! Walks over records against a map in memory: every range, both directions, with removed keys and ranges, half of it
//! flushed, and with neighbours whose ids are next to the scanned one's.

use crate::support::{open, private};
use proptest::prelude::*;
use rdb_core::apply::{Changes, State};
use rdb_core::ids::{NamespaceId, RegionId};
use rdb_core::range::KeyRange;
use rdb_core::scan::Direction;
use rdb_storage::{Data, Frozen, Length};
use std::collections::BTreeMap;

/// The one that is scanned is the middle one.
const NAMESPACES: [NamespaceId; 3] = [NamespaceId(255), NamespaceId(256), NamespaceId(257)];
const SCANNED: NamespaceId = NAMESPACES[1];

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

#[derive(Debug, Clone)]
enum Step {
    Put(Vec<u8>, u8),
    Delete(Vec<u8>),
    DeleteRange(Vec<u8>, Vec<u8>),
    Flush,
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop_oneof![Just(0u8), Just(1), Just(255)], 1..4)
}

fn end() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![Just(Vec::new()), key()]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (key(), any::<u8>()).prop_map(|(key, value)| Step::Put(key, value)),
        2 => key().prop_map(Step::Delete),
        1 => (end(), end()).prop_map(|(from, to)| Step::DeleteRange(from, to)),
        1 => Just(Step::Flush),
    ]
}

fn write(
    data: &Data,
    namespace: NamespaceId,
    removed: Vec<KeyRange>,
    records: Vec<(Vec<u8>, Option<Vec<u8>>)>,
) {
    let state = State { applied: 1, ..State::default() }.encode();
    let changes = Changes { removed, records, state, ..Changes::default() };
    data.apply(RegionId(u64::from(namespace.0)), namespace, &changes).unwrap();
}

fn play(data: &Data, model: &mut Model, step: Step) {
    match step {
        Step::Put(key, value) => {
            model.insert(key.clone(), vec![value]);
            write(data, SCANNED, vec![], vec![(key, Some(vec![value]))]);
        }
        Step::Delete(key) => {
            model.remove(&key);
            write(data, SCANNED, vec![], vec![(key, None)]);
        }
        Step::DeleteRange(from, to) => {
            let range = KeyRange { from, to };
            model.retain(|key, _| !range.contains(key));
            write(data, SCANNED, vec![range], vec![]);
        }
        Step::Flush => data.flush().unwrap(),
    }
}

fn walked(
    data: &Frozen<'_>,
    range: &KeyRange,
    direction: Direction,
    length: Length,
) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut walk = data.walk(SCANNED, range, direction, length);
    let mut found = Vec::new();
    while let Some((key, record)) = walk.record().unwrap() {
        found.push((key.to_vec(), record.to_vec()));
        walk.step();
    }
    // Past the end there is nothing, however often one asks.
    walk.step();
    assert_eq!(walk.record().unwrap(), None);
    found
}

fn expected(model: &Model, range: &KeyRange, direction: Direction) -> Vec<(Vec<u8>, Vec<u8>)> {
    let within = model.iter().filter(|(key, _)| range.contains(key));
    let mut expected: Vec<_> = within.map(|(key, value)| (key.clone(), value.clone())).collect();
    if direction == Direction::Reverse {
        expected.reverse();
    }
    expected
}

proptest! {
    // Each case opens a node's databases.
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn a_walk_meets_what_is_there_in_its_order(
        before in prop::collection::vec(step(), 0..40),
        after in prop::collection::vec(step(), 0..20),
        ranges in prop::collection::vec((end(), end()), 1..12),
    ) {
        let directory = private();
        let engine = open(directory.path()).unwrap();
        let data = engine.data();
        for neighbour in [NAMESPACES[0], NAMESPACES[2]] {
            let keys = [&b"\x00"[..], b"\x01", b"\xff\xff\xff\xff"];
            write(&data, neighbour, vec![], keys.map(|key| (key.to_vec(), Some(b"neighbour".to_vec()))).to_vec());
        }
        let mut model = Model::new();
        before.into_iter().for_each(|step| play(&data, &mut model, step));
        let frozen = data.freeze();
        // What comes after does not show, flushed or not.
        let mut later = model.clone();
        after.into_iter().for_each(|step| play(&data, &mut later, step));
        let ranges = ranges.into_iter().map(|(from, to)| KeyRange { from, to }).chain([KeyRange::all()]);
        for range in ranges {
            for (direction, length) in [(Direction::Forward, Length::Long), (Direction::Reverse, Length::Short)] {
                let found = walked(&frozen, &range, direction, length);
                prop_assert_eq!(found, expected(&model, &range, direction), "{:?} {:?}", range, direction);
                let found = walked(&data.freeze(), &range, direction, length);
                prop_assert_eq!(found, expected(&later, &range, direction), "now, {:?} {:?}", range, direction);
            }
        }
    }
}

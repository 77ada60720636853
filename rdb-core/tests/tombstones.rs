//! Members purge tombstones each in its own time, and hold the same all the while: their hashes and their counts of lost writes
//! must say so.
#![allow(clippy::unwrap_used, reason = "the helpers of a test are not seen as tests")]

use rdb_core::apply;
use rdb_core::command::Write;
use rdb_core::eventual::buckets::{Buckets, Comparison, counted};
use rdb_core::eventual::conflicts::lost_of_era;
use rdb_core::eventual::machine::{Changes, Machine, Notes, State, View};
use rdb_core::eventual::run::{Entry, Replaced, Run};
use rdb_core::eventual::vector::{Origin, Vector};
use rdb_core::ids::{Era, Incarnation, NodeId};
use rdb_core::record;
use rdb_core::version::{Hlc, Version};
use std::collections::BTreeMap;
use std::convert::Infallible;

#[derive(Default)]
struct Records(BTreeMap<Vec<u8>, Vec<u8>>, BTreeMap<Vec<u8>, Vec<u8>>);

impl apply::View for Records {
    type Error = Infallible;
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Infallible> {
        Ok(self.0.get(key).cloned())
    }
}

impl View for Records {
    fn note(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Infallible> {
        Ok(self.1.get(key).cloned())
    }

    fn notes(&self, from: &[u8], to: &[u8]) -> Result<Notes, Infallible> {
        let range = self.1.range(from.to_vec()..to.to_vec());
        Ok(range.map(|(key, note)| (key.clone(), note.clone())).collect())
    }
}

impl Records {
    fn write(&mut self, changes: Changes) {
        let all = [(&mut self.0, changes.records), (&mut self.1, changes.notes)];
        for (map, changes) in all {
            for (key, value) in changes {
                match value {
                    Some(value) => map.insert(key, value),
                    None => map.remove(&key),
                };
            }
        }
    }

    fn buckets(&self, era: Era) -> Buckets {
        let mut buckets = Buckets::default();
        for (key, stored) in &self.0 {
            buckets.change(key, None, counted(&record::decode(stored).unwrap(), era));
        }
        buckets
    }

    fn machine(&self, era: Era) -> Machine {
        Machine::new(State::begin(era, Hlc(9)), self.buckets(era), true)
    }
}

fn origin(node: u64) -> Origin {
    Origin { node: NodeId(node), incarnation: Incarnation(1) }
}

/// A switch of mode does not wait for purges: an era may begin with a deletion that some members remember and others do not.
#[test]
fn a_deletion_that_one_member_has_purged_before_the_era_makes_no_difference() {
    let deletion = Version { era: Era(1), hlc: Hlc(5), node: NodeId(2) };
    let mut remembers = Records::default();
    for key in [b"over", b"gone"] {
        remembers.0.insert(key.to_vec(), record::encode(deletion, None));
    }
    let mut purged = Records::default();
    let (mut one, mut other) = (remembers.machine(Era(3)), purged.machine(Era(3)));
    let alike = |one: &Machine, other: &Machine| one.digest().compare(&other.digest());
    assert_eq!(alike(&one, &other), Comparison::Equal, "as the era begins");

    let me = origin(1);
    let write = [Write { key: b"over", value: Some(b"new") }];
    let run = one.write(Hlc(10), me, 0, &write, &remembers).unwrap();
    remembers.write(one.apply(std::slice::from_ref(&run), &remembers).unwrap());
    purged.write(other.apply(&[run], &purged).unwrap());
    assert_eq!(alike(&one, &other), Comparison::Equal, "after a write over one of them");

    let found = vec![(b"gone".to_vec(), remembers.0[&b"gone"[..]].clone())];
    one.purge(Hlc(7), &Vector::default(), &found, &remembers).unwrap();
    other.purge(Hlc(7), &Vector::default(), &[], &purged).unwrap();
    assert_eq!(alike(&one, &other), Comparison::Equal, "after the other one is purged");
}

/// Nodes 2 and 3 delete a key, and do not know of each other: one of the two deletions is lost, the smaller one, and all members
/// know that for certain before the greater one is purged anywhere. Who then writes over it had the greater one in front of him.
#[test]
fn a_deletion_that_is_lost_for_certain_stays_lost_when_the_one_that_it_lost_to_is_purged() {
    let (mut has_purged, mut has_not) = (Records::default(), Records::default());
    let (mut one, mut other) = (has_purged.machine(Era(1)), has_not.machine(Era(1)));
    let settled = [(origin(2), 1), (origin(3), 1)].into_iter().collect();
    for (machine, records) in [(&mut one, &mut has_purged), (&mut other, &mut has_not)] {
        for node in [3, 2] {
            let deletion = Entry {
                seq: 1,
                hlc: Hlc(13 - node),
                key: b"k".to_vec(),
                value: None,
                replaced: Replaced::Nothing(Hlc(0)),
                since: 1,
            };
            let run = [Run { era: Era(1), origin: origin(node), after: 0, entries: vec![deletion] }];
            records.write(machine.apply(&run, records).unwrap());
        }
        let notes = records.notes(&lost_of_era(Era(1)), &lost_of_era(Era(2))).unwrap();
        records.write(machine.settle(&settled, notes, records).unwrap());
        assert_eq!((machine.state().lost, machine.state().settled), (1, 1));
    }
    let found = vec![(b"k".to_vec(), has_purged.0[&b"k"[..]].clone())];
    has_purged.write(one.purge(Hlc(11), &settled, &found, &has_purged).unwrap());

    let write = [Write { key: b"k", value: Some(b"new") }];
    let run = one.write(Hlc(20), origin(1), 0, &write, &has_purged).unwrap();
    assert_eq!(run.entries[0].replaced, Replaced::Nothing(Hlc(11)));
    has_purged.write(one.apply(std::slice::from_ref(&run), &has_purged).unwrap());
    has_not.write(other.apply(&[run], &has_not).unwrap());
    assert_eq!((one.state().lost, other.state().lost), (1, 1));
    // What was remembered of the key was forgotten with the deletion.
    assert_eq!(one.buckets(), &has_purged.buckets(Era(1)));
    assert_eq!(one.digest().buckets, other.digest().buckets);
}

//! Members purge tombstones each in its own time, and a switch of mode does not wait for that: an era may begin with a
//! deletion that some members remember and others have purged. They hold the same, and their hashes must say so.
#![allow(clippy::unwrap_used, reason = "the helpers of a test are not seen as tests")]

use rdb_core::apply;
use rdb_core::command::Write;
use rdb_core::eventual::buckets::{Buckets, Comparison, counted};
use rdb_core::eventual::machine::{Changes, Machine, Notes, State, View};
use rdb_core::eventual::vector::{Origin, Vector};
use rdb_core::ids::{Era, Incarnation, NodeId};
use rdb_core::record;
use rdb_core::version::{Hlc, Version};
use std::collections::BTreeMap;
use std::convert::Infallible;

#[derive(Default)]
struct Records(BTreeMap<Vec<u8>, Vec<u8>>);

impl apply::View for Records {
    type Error = Infallible;
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Infallible> {
        Ok(self.0.get(key).cloned())
    }
}

impl View for Records {
    fn note(&self, _: &[u8]) -> Result<Option<Vec<u8>>, Infallible> {
        Ok(None)
    }

    fn notes(&self, _: &[u8], _: &[u8]) -> Result<Notes, Infallible> {
        Ok(Notes::new())
    }
}

impl Records {
    fn write(&mut self, changes: Changes) {
        for (key, record) in changes.records {
            match record {
                Some(record) => self.0.insert(key, record),
                None => self.0.remove(&key),
            };
        }
    }

    fn machine(&self, era: Era) -> Machine {
        let mut buckets = Buckets::default();
        for (key, stored) in &self.0 {
            buckets.change(key, None, counted(&record::decode(stored).unwrap(), era));
        }
        Machine::new(State::begin(era, Hlc(9)), buckets, false)
    }
}

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

    let me = Origin { node: NodeId(1), incarnation: Incarnation(1) };
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

//! Reading the log back, and noticing where it contradicts itself.

use crate::support::{Node, PATIENCE, REGION, entries, entry, hard_state, private};
use crossbeam_channel::unbounded;
use rdb_core::ids::RegionId;
use rdb_core::raft::disk::Terms;
use rdb_core::raft::{LogRead as _, LogWrite};

#[test]
fn a_read_stops_at_its_limits() {
    let directory = private();
    let node = Node::with_region(directory.path());
    node.write(entries(1, 1..=9, 1));
    let log = node.engine.log().region(REGION);
    let one = entry(1, 1).len() as u64;
    for (low, high, bytes_max, count) in [
        (1, 10, u64::MAX, 9),
        (1, 10, 3 * one, 3),
        (1, 10, 3 * one - 1, 2),
        (4, 10, 0, 1),
        (4, 6, u64::MAX, 2),
        (4, 4, u64::MAX, 0),
    ] {
        let found = log.read(low, high, bytes_max).unwrap();
        assert_eq!(found.len(), count, "[{low}, {high}) within {bytes_max}");
        assert!(found.iter().zip(low..).all(|(entry, index)| entry.index == index));
    }
    assert!(log.read(8, 11, u64::MAX).unwrap_err().contains("entry 10 is missing"));
    assert!(log.read(0, 2, u64::MAX).unwrap_err().contains("entry 0 is missing"));
    assert_eq!(log.read(8, 11, 0).unwrap().len(), 1, "a limit before the gap hides it");
    node.close();
}

#[test]
fn a_truncated_log_begins_where_its_terms_say() {
    let directory = private();
    let node = Node::with_region(directory.path());
    node.write(entries(1, 1..=9, 1));
    let mut terms = Terms::default();
    terms.push(1, 1);
    for to in [4, 9] {
        terms.drop_to(to);
        node.handle.truncate(REGION, to, terms.encode()).unwrap();
        node.write(LogWrite { number: to, hard_state: Some(hard_state(1, 0, 9)), ..LogWrite::default() });
        let stored = &node.engine.log().regions().unwrap()[0];
        assert_eq!((stored.terms().first_index(), stored.last()), (to + 1, 9));
    }
    assert!(node.engine.log().region(REGION).entries(9, 10, u64::MAX).is_err());
    node.close();
}

#[test]
fn a_destroyed_region_leaves_nothing_and_its_neighbours_alone() {
    let directory = private();
    let node = Node::open(directory.path());
    for region in [15, 16, 17] {
        node.create(RegionId(region));
        node.handle.append(RegionId(region), entries(region, 1..=3, 1)).unwrap();
    }
    let (done, destroyed) = unbounded();
    node.handle.destroy_region(REGION, move || done.send(()).unwrap()).unwrap();
    destroyed.recv_timeout(PATIENCE).unwrap();
    let left: Vec<_> =
        node.engine.log().regions().unwrap().iter().map(|s| (s.region().0, s.last())).collect();
    assert_eq!(left, [(15, 3), (17, 3)]);
    assert!(node.engine.log().region(REGION).entries(1, 2, u64::MAX).is_err());
    node.close();
}

/// Logs that no crash leaves, each with a word from the error that it must give.
#[test]
fn a_log_that_contradicts_itself_is_refused() {
    let mut later_terms = Terms::default();
    later_terms.push(1, 1);
    later_terms.push(3, 2);
    let mut dropped = Terms::default();
    dropped.push(1, 1);
    dropped.drop_to(1);
    let whole = || entries(1, 1..=3, 1);
    let mut not_an_entry = whole();
    not_an_entry.entries[2].1[0] = 99;
    let cases = [
        (LogWrite { terms: None, ..whole() }, "another term"),
        (LogWrite { hard_state: None, ..whole() }, "it is in term 0"),
        (LogWrite { hard_state: Some(hard_state(1, 0, 4)), ..whole() }, "up to 4 were committed"),
        (LogWrite { terms: Some(later_terms.encode()), ..entries(1, 1..=2, 1) }, "goes on"),
        (LogWrite { terms: Some(later_terms.encode()), ..whole() }, "entry 3 has another term"),
        (LogWrite { terms: Some(dropped.encode()), ..whole() }, "is to begin at 2"),
        (LogWrite { hard_state: Some(vec![99]), ..whole() }, "format"),
        (not_an_entry, "format"),
    ];
    for (write, expected) in cases {
        let directory = private();
        let node = Node::with_region(directory.path());
        node.write(write);
        let error = node.engine.log().regions().unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        node.close();
    }
}

#[test]
fn entries_of_an_unknown_region_are_refused() {
    let directory = private();
    let node = Node::with_region(directory.path());
    node.handle
        .append(RegionId(99), LogWrite { hard_state: None, terms: None, ..entries(1, 1..=1, 1) })
        .unwrap();
    node.write(entries(2, 1..=3, 1));
    let error = node.engine.log().regions().unwrap_err().to_string();
    assert!(error.contains("region 99: the log has its entries but not its state"), "{error}");
    node.close();
}

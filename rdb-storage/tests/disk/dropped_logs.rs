//! Write-ahead logs that are no longer needed: put aside, removed a little at a time, and never missed.

use crate::support::{Node, REGION, entries, private};
use rdb_storage::{DroppedLogs, Removal};
use std::fs::File;
use std::path::Path;

const MIB: u64 = 1 << 20;

fn put_aside(path: &Path) -> Vec<u64> {
    let mut files: Vec<_> = std::fs::read_dir(path.join("log/archive"))
        .map(|items| items.map(|item| item.unwrap()).collect())
        .unwrap_or_default();
    files.sort_by_key(std::fs::DirEntry::file_name);
    files.into_iter().map(|file| file.metadata().unwrap().len()).collect()
}

fn remove_all(dropped: &DroppedLogs) -> usize {
    (1..).find(|_| dropped.remove(Removal::Step).unwrap() == 0).unwrap()
}

#[test]
fn what_a_start_no_longer_needs_is_put_aside_and_never_missed() {
    let directory = private();
    for start in 1..=3 {
        let node =
            if start == 1 { Node::with_region(directory.path()) } else { Node::open(directory.path()) };
        node.write(entries(start, start..=start, 1));
        remove_all(&node.engine.dropped_logs());
        assert_eq!(put_aside(directory.path()), [0; 0]);
        node.close();
    }
    // A start makes the log before it a table file, and needs its write-ahead log no longer. The next start removes it at once:
    // it may be the space that it needs.
    Node::open(directory.path()).close();
    let left: Vec<_> = std::fs::read_dir(directory.path().join("log/archive")).unwrap().collect();
    assert_ne!(left.len(), 0, "nothing was put aside: this test shows nothing");
    let stray = directory.path().join("log/archive/000000.log");
    File::create(&stray).unwrap().set_len(MIB).unwrap();
    let node = Node::open(directory.path());
    assert!(!stray.exists());
    assert_eq!(node.engine.dropped_logs().remove(Removal::Everything).unwrap(), 0);
    assert_eq!(put_aside(directory.path()), [0; 0]);
    node.close();
    let node = Node::open(directory.path());
    let found = node.engine.log().region(REGION).entries(1, 4, u64::MAX).unwrap();
    assert_eq!(found.iter().map(|entry| entry.index).collect::<Vec<_>>(), [1, 2, 3]);
    node.close();
}

#[test]
fn they_go_a_little_at_a_time_the_oldest_first_and_faster_where_there_is_more() {
    let directory = private();
    let node = Node::open(directory.path());
    let dropped = node.engine.dropped_logs();
    let archive = directory.path().join("log/archive");
    std::fs::create_dir_all(&archive).unwrap();
    dropped.remove(Removal::Everything).unwrap();
    let make = |name: &str, bytes| File::create(archive.join(name)).unwrap().set_len(bytes).unwrap();
    make("000001.log", 2 * MIB + 1);
    make("000002.log", 3 * MIB);
    assert_eq!(dropped.remove(Removal::Step).unwrap(), 4 * MIB + 1);
    assert_eq!(put_aside(directory.path()), [MIB + 1, 3 * MIB]);
    dropped.remove(Removal::Step).unwrap();
    assert_eq!(dropped.remove(Removal::Step).unwrap(), 2 * MIB + 1);
    assert_eq!(put_aside(directory.path()), [2 * MIB + 1], "the rest of a step goes to the next file");
    assert_eq!(remove_all(&dropped), 3);
    // A gigabyte that waits must not wait for a thousand steps.
    make("000003.log", 1024 * MIB);
    assert_eq!(dropped.remove(Removal::Step).unwrap(), (1024 - 32) * MIB);
    assert_eq!(dropped.remove(Removal::Everything).unwrap(), 0);
    // What cannot be removed does not keep the rest, and is told.
    std::fs::create_dir(archive.join("000004.log")).unwrap();
    make("000005.log", MIB);
    assert!(dropped.remove(Removal::Everything).unwrap_err().to_string().contains("000004.log"));
    assert!(!archive.join("000005.log").exists());
    node.close();
}

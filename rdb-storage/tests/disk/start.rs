//! What a start accepts and what it refuses. Each refusal names what does not fit.

use crate::support::{Node, REGION, copy, entries, expected, open, private, refused};
use rdb_core::ids::NodeId;
use rdb_storage::{Engine, EngineOptions, Error, Expected};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

fn closed_node(path: &Path) {
    let node = Node::with_region(path);
    node.write(entries(1, 1..=3, 1));
    node.close();
}

#[test]
fn a_directory_is_made_private_and_each_start_is_a_new_incarnation() {
    let parent = private();
    let path = parent.path().join("a/node");
    let mut store = None;
    for incarnation in 1..=3 {
        let engine = open(&path).unwrap();
        assert_eq!(engine.identity().incarnation, incarnation);
        assert_eq!(*store.get_or_insert(engine.identity().store_id), engine.identity().store_id);
        assert!(engine.disk_space().unwrap().available_bytes <= engine.disk_space().unwrap().total_bytes);
    }
    for directory in ["", "log", "data"] {
        let mode = path.join(directory).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{directory}");
    }
}

#[test]
fn a_clean_close_and_a_start_find_all_of_the_log() {
    let parent = private();
    closed_node(&parent.path().join("node"));
    let engine = open(&parent.path().join("node")).unwrap();
    let [stored] = &engine.log().regions().unwrap()[..] else { panic!("one region was made") };
    assert_eq!((stored.region(), stored.last(), stored.terms().first_index()), (REGION, 3, 1));
    assert_eq!(stored.members(), [NodeId(1), NodeId(2), NodeId(3)]);
    assert_eq!(stored.clone().into_boot(2, 9).hard_state.term, 1);
    let entries = engine.log().region(REGION).entries(1, 4, u64::MAX).unwrap();
    assert_eq!(entries[2].data, b"entry 3");
}

#[test]
fn a_directory_of_another_cluster_or_node_is_refused() {
    let parent = private();
    let path = parent.path().join("node");
    closed_node(&path);
    let other = Expected { cluster_id: "other".into(), ..expected() };
    let error = Engine::open(&path, &other, &EngineOptions::default()).err().unwrap();
    assert!(matches!(error, Error::OtherCluster { .. }), "{error}");
    let other = Expected { node_id: NodeId(2), ..expected() };
    let error = Engine::open(&path, &other, &EngineOptions::default()).err().unwrap();
    assert!(matches!(error, Error::OtherNode { .. }), "{error}");
    open(&path).unwrap();
}

#[test]
fn a_second_process_is_refused() {
    let parent = private();
    let path = parent.path().join("node");
    let engine = open(&path).unwrap();
    let error = refused(&path);
    assert!(matches!(error, Error::Locked(_)), "{error}");
    let data = engine.data();
    drop(engine);
    assert!(matches!(refused(&path), Error::Locked(_)), "a handle still uses it");
    drop(data);
    open(&path).unwrap();
}

#[test]
fn a_directory_that_others_may_enter_is_refused() {
    let parent = private();
    let path = parent.path().join("node");
    drop(open(&path).unwrap());
    for mode in [0o755, 0o710, 0o701] {
        std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let error = refused(&path);
        assert!(matches!(error, Error::NotPrivate { .. }), "{error}");
        assert!(error.to_string().contains("chmod 700"), "{error}");
    }
}

#[test]
fn a_directory_of_something_else_is_refused() {
    let parent = private();
    std::fs::write(parent.path().join("letters"), "dear").unwrap();
    let error = refused(parent.path());
    assert!(matches!(&error, Error::NotEmpty { found, .. } if found == "letters"), "{error}");
}

#[test]
fn a_missing_part_is_refused() {
    for part in ["log", "data", "IDENTITY", "WATERMARK"] {
        let parent = private();
        let path = parent.path().join("node");
        closed_node(&path);
        std::fs::rename(path.join(part), parent.path().join("away")).unwrap();
        let error = refused(&path);
        let right = match part {
            "log" => matches!(error, Error::LogMissing(_)),
            "data" => matches!(error, Error::DataMissing(_)),
            "IDENTITY" => matches!(error, Error::IdentityMissing(_)),
            _ => matches!(error, Error::WatermarkDamaged { .. }),
        };
        assert!(right, "{part}: {error}");
        std::fs::rename(parent.path().join("away"), path.join(part)).unwrap();
        open(&path).unwrap();
    }
}

#[test]
fn an_emptied_database_is_refused() {
    for part in ["log", "data"] {
        let parent = private();
        let path = parent.path().join("node");
        closed_node(&path);
        std::fs::remove_dir_all(path.join(part)).unwrap();
        std::fs::create_dir(path.join(part)).unwrap();
        let error = refused(&path);
        assert!(matches!(error, Error::LogMissing(_) | Error::DataMissing(_)), "{error}");
    }
}

#[test]
fn a_part_of_another_nodes_directory_is_refused() {
    for part in ["log", "data", "WATERMARK", "IDENTITY"] {
        let parent = private();
        let (path, other) = (parent.path().join("node"), parent.path().join("other"));
        closed_node(&path);
        // The same cluster and node, so that only the store tells them apart: a directory that the node had before.
        closed_node(&other);
        std::fs::rename(path.join(part), parent.path().join("away")).unwrap();
        std::fs::rename(other.join(part), path.join(part)).unwrap();
        let error = refused(&path);
        assert!(matches!(error, Error::Foreign { .. }), "{part}: {error}");
    }
}

#[test]
fn an_old_identity_that_is_put_back_is_refused() {
    let parent = private();
    let path = parent.path().join("node");
    closed_node(&path);
    let old = std::fs::read(path.join("IDENTITY")).unwrap();
    closed_node(&path);
    let newest = std::fs::read(path.join("IDENTITY")).unwrap();
    std::fs::write(path.join("IDENTITY"), old).unwrap();
    let error = refused(&path);
    assert!(matches!(error, Error::IdentityOld { found: 1, known: 2, .. }), "{error}");
    std::fs::write(path.join("IDENTITY"), newest).unwrap();
    open(&path).unwrap();
}

#[test]
fn an_edited_identity_is_refused() {
    let parent = private();
    let path = parent.path().join("node");
    closed_node(&path);
    let text = std::fs::read_to_string(path.join("IDENTITY")).unwrap();
    std::fs::write(path.join("IDENTITY"), text.replace("node_id = 1", "node_id = 2")).unwrap();
    let error = refused(&path);
    assert!(matches!(error, Error::IdentityDamaged { .. }), "{error}");
}

/// Even if nothing was written since: each start moves the log.
#[test]
fn an_old_copy_of_the_log_is_refused() {
    let parent = private();
    let path = parent.path().join("node");
    closed_node(&path);
    copy(&path.join("log"), &parent.path().join("old"));
    drop(open(&path).unwrap());
    std::fs::remove_dir_all(path.join("log")).unwrap();
    copy(&parent.path().join("old"), &path.join("log"));
    let error = refused(&path);
    assert!(matches!(error, Error::LogBehind { .. }), "{error}");
}

/// The identity file is written before the log: a crash in between is no reason to refuse.
#[test]
fn a_crash_between_identity_and_log_is_harmless() {
    let parent = private();
    let (path, crashed) = (parent.path().join("node"), parent.path().join("crashed"));
    closed_node(&path);
    copy(&path, &crashed);
    drop(open(&path).unwrap());
    std::fs::copy(path.join("IDENTITY"), crashed.join("IDENTITY")).unwrap();
    assert_eq!(open(&crashed).unwrap().identity().incarnation, 3);
}

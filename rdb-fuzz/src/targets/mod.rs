//! The targets, one file each.

mod catalog;
mod client_requests;
mod config;
mod disk_files;
mod disk_records;
mod keys;
mod log_entries;
mod peer_eventual;
mod peer_frames;
mod peer_raft;

use rdb_core::eventual::conflicts::lost_key;
use rdb_core::eventual::vector::{Origin, WriteId};
use rdb_core::ids::{Era, Incarnation, NodeId};

/// A target.
#[derive(Debug)]
pub struct Target {
    /// Its name, also of its folders.
    pub name: &'static str,
    /// Hands an input over. Whether it was accepted.
    pub run: fn(&[u8]) -> bool,
    /// Inputs that are accepted.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "peer-raft", run: peer_raft::run, seeds: peer_raft::seeds },
    Target { name: "peer-frames", run: peer_frames::run, seeds: peer_frames::seeds },
    Target { name: "peer-eventual", run: peer_eventual::run, seeds: peer_eventual::seeds },
    Target { name: "client-requests", run: client_requests::run, seeds: client_requests::seeds },
    Target { name: "log-entries", run: log_entries::run, seeds: log_entries::seeds },
    Target { name: "catalog", run: catalog::run, seeds: catalog::seeds },
    Target { name: "disk-records", run: disk_records::run, seeds: disk_records::seeds },
    Target { name: "disk-files", run: disk_files::run, seeds: disk_files::seeds },
    Target { name: "keys", run: keys::run, seeds: keys::seeds },
    Target { name: "config", run: config::run, seeds: config::seeds },
];

impl Target {
    /// The target of this name.
    pub fn named(name: &str) -> Option<&'static Target> {
        TARGETS.iter().find(|target| target.name == name)
    }
}

/// The key of a note of a lost write, for seeds.
fn lost_note_key() -> Vec<u8> {
    let origin = Origin { node: NodeId(2), incarnation: Incarnation(3) };
    lost_key(Era(1), b"key", WriteId { origin, seq: 4 })
}

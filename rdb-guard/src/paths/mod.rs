//! The paths that are counted: what a put and a get of one key go through on a node, part by part.

mod get;
mod put;
mod stored;
mod wire;

use anyhow::Result;

/// Puts in one message.
const BATCH: u64 = 64;
const VALUE: [u8; 256] = [7; 256];
/// Keys that are used in turn.
const KEYS: u64 = 10_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Path {
    Wire,
    Raft,
    Apply,
    Get,
}

impl Path {
    pub(crate) fn all() -> [Path; 4] {
        [Path::Wire, Path::Raft, Path::Apply, Path::Get]
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Path::Wire => "wire",
            Path::Raft => "raft",
            Path::Apply => "apply",
            Path::Get => "get",
        }
    }

    pub(crate) fn about(self) -> &'static str {
        match self {
            Path::Wire => "a put of 64 is read from its message, and its answer written",
            Path::Raft => "a put of 64 is encoded, proposed, logged and committed, by a group of one",
            Path::Apply => "the same, and it is applied and stored in the memtable",
            Path::Get => "one of 10,000 keys is read from a table",
        }
    }

    /// Operations of one time that it is run.
    pub(crate) fn operations(self) -> u64 {
        BATCH
    }

    pub(crate) fn run(self, times: u64) -> Result<()> {
        match self {
            Path::Wire => wire::run(times),
            Path::Raft => put::propose(times),
            Path::Apply => put::apply(times),
            Path::Get => get::run(times),
        }
    }
}

/// Neighbours in time are none in order, and each of the keys has its turn.
fn key(number: u64) -> [u8; 16] {
    /// A prime, which has no factor of the number of keys.
    const STRIDE: u64 = 7919;
    let mut key = [b'k'; 16];
    key[8..].copy_from_slice(&(number % KEYS * STRIDE % KEYS).to_be_bytes());
    key
}

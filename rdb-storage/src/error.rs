//! What can go wrong with a disk, and what to do about each.

use crate::identity::Identity;
use rdb_core::codec::Corrupt;
use rdb_core::ids::{NodeId, RegionId};
use std::path::PathBuf;

/// This crate's result.
pub type Result<T> = std::result::Result<T, Error>;

/// Why the disk did not do what was asked. Each says what to do next.
///
/// All that [`Engine::open`](crate::Engine::open) returns means that the node must not start. All that a running node
/// gets, except [`Error::LogWriterStopped`], means that it must stop: none of it is worth a second try.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused something.
    #[error("{doing} {path}: {source}")]
    Io {
        /// What was being done, in the present tense.
        doing: &'static str,
        /// To which file or directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// RocksDB refused something. It keeps its own log in the file `LOG` of each database.
    #[error("{doing}: {source}")]
    Rocks {
        /// What was being done, in the present tense.
        doing: &'static str,
        /// What RocksDB said.
        source: rocksdb::Error,
    },
    /// The configured cluster id cannot be written to the identity file.
    #[error(
        "the cluster id {0:?} is not valid: use 1 to 128 letters, digits, '.', '-' and '_', and the same one on \
         every node"
    )]
    InvalidClusterId(String),
    /// Others than the owner may read or change the data.
    #[error(
        "the data directory {path} is open to other users (mode {mode:03o}): make it private with \
         'chmod 700 {path}' and start again"
    )]
    NotPrivate {
        /// The data directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Another process has the directory open.
    #[error(
        "the data directory {0} is in use by another process: stop that one first, or give this node a directory of \
         its own"
    )]
    Locked(PathBuf),
    /// A directory that is to be initialised has something else in it.
    #[error(
        "{path} is not a FlareDB data directory and is not empty (it has '{found}'): name an empty directory or one \
         that does not exist yet"
    )]
    NotEmpty {
        /// The directory.
        path: PathBuf,
        /// One thing that is in it.
        found: String,
    },
    /// Databases without a name on them.
    #[error(
        "{0} has databases but no IDENTITY file: whose they are cannot be told. Put the file back if you moved it; \
         otherwise replace the node: give it an empty directory and a node id that was never used"
    )]
    IdentityMissing(PathBuf),
    /// The identity file is not as it was written.
    #[error(
        "{path} is damaged or was edited: {problem}. Put back the file as FlareDB wrote it; otherwise replace the \
         node: give it an empty directory and a node id that was never used"
    )]
    IdentityDamaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Another node has found this directory to be older than it was.
    #[error(
        "{path}: {said}. It has forgotten what the cluster counts on, and is not started again. Put the newest directory of this node \
         back; if there is none, replace the node: give it an empty directory and a node id that was never used"
    )]
    Outdated {
        /// The mark.
        path: PathBuf,
        /// What is in it.
        said: String,
    },
    /// The file about the other nodes' directories is not as it was written.
    #[error(
        "{path} is damaged or was edited: {problem}. Put back the file as FlareDB wrote it, or remove it: then this node \
         notices only from when it meets another one again whether that comes back with an older state of its directory"
    )]
    PeersDamaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The identity file is an older copy of itself.
    #[error(
        "{path} is an old copy: it says that this node has started {found} times, but its databases know of {known}. \
         Put back the newest copy; without it, replace the node: give it an empty directory and a node id that was \
         never used"
    )]
    IdentityOld {
        /// The file.
        path: PathBuf,
        /// The incarnation in the file.
        found: u64,
        /// The incarnation in the log or the watermark.
        known: u64,
    },
    /// A data directory of another cluster.
    #[error(
        "{path} belongs to cluster '{found}', but this node is configured for '{expected}': correct the cluster id, \
         or give the node a directory of its own"
    )]
    OtherCluster {
        /// The data directory.
        path: PathBuf,
        /// The cluster in its identity file.
        found: String,
        /// The cluster in the configuration.
        expected: String,
    },
    /// A data directory of another node.
    #[error(
        "{path} belongs to node {found}, but this node is configured as {expected}: correct the node id, or give the \
         node a directory of its own"
    )]
    OtherNode {
        /// The data directory.
        path: PathBuf,
        /// The node in its identity file.
        found: NodeId,
        /// The node in the configuration.
        expected: NodeId,
    },
    /// A database of another store inside this data directory.
    #[error(
        "{path} belongs to {found}, but IDENTITY says {expected}: directories were mixed up. Put each node's own \
         log, data, WATERMARK and IDENTITY back together"
    )]
    Foreign {
        /// The database or file.
        path: PathBuf,
        /// Whose it is.
        found: String,
        /// Whose the data directory is.
        expected: Box<Identity>,
    },
    /// The log database is not there.
    #[error(
        "{0} is missing or empty: this node's votes and synced writes are gone. Do not start it again; put the \
         directory back if you moved it, otherwise replace the node: give it an empty directory and a node id that \
         was never used"
    )]
    LogMissing(PathBuf),
    /// The data database is not there.
    #[error(
        "{0} is missing or empty: the log keeps only what came after it. Do not start this node again; put the directory \
         back if you moved it, otherwise replace the node: give it an empty directory and a node id that was never \
         used"
    )]
    DataMissing(PathBuf),
    /// The log lost something that others were told is on disk.
    #[error(
        "the log in {path} is behind what this node promised: it ends at position {log}, but position {watermark} \
         was synced. The disk or someone removed part of it. Do not start this node again: it could vote twice and \
         lose acknowledged writes. Replace it: give it an empty directory and a node id that was never used"
    )]
    LogBehind {
        /// The log database.
        path: PathBuf,
        /// Where the log stands.
        log: u64,
        /// Where it stood.
        watermark: u64,
    },
    /// What guards against a log that lost its end is itself gone.
    #[error(
        "{path} is missing or damaged ({problem}): whether the log lost its end cannot be told. Put the file back if \
         you moved it, otherwise replace the node: give it an empty directory and a node id that was never used"
    )]
    WatermarkDamaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Stored bytes contradict each other or cannot be read, though RocksDB's checksums are right.
    #[error(
        "{what}: {problem}. Do not start this node again as it is: keep a copy of its directory for a report, and \
         replace the node: give it an empty directory and a node id that was never used"
    )]
    Damaged {
        /// Which bytes.
        what: String,
        /// What is wrong with them.
        problem: String,
    },
    /// The log writer is gone: it failed, which it said to its sink, or was shut down.
    #[error("the log writer has stopped: see its own error before this one, and restart the node")]
    LogWriterStopped,
    /// More writes are outstanding than was agreed.
    #[error("the log writer's queue is full: try this again when earlier writes are reported")]
    LogQueueFull,
}

impl Error {
    /// What stored bytes of `region` contradict.
    pub(crate) fn damaged_region(region: RegionId, problem: impl Into<String>) -> Self {
        Self::Damaged { what: format!("region {region}"), problem: problem.into() }
    }

    /// Bytes of `region` that cannot be decoded.
    pub(crate) fn corrupt_region(region: RegionId) -> impl Fn(Corrupt) -> Self {
        move |corrupt| Self::damaged_region(region, corrupt.to_string())
    }

    /// Names what was being done to which file.
    pub(crate) fn io(doing: &'static str, path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { doing, path, source }
    }

    /// Names what RocksDB was asked.
    pub(crate) fn rocks(doing: &'static str) -> impl Fn(rocksdb::Error) -> Self {
        move |source| Self::Rocks { doing, source }
    }
}

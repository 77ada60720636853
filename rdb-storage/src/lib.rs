//! FlareDB's disk: the two RocksDB instances, the log writer, the data and a node's identity.
//!
//! One write, seen from here: the raft loop hands a [`LogWrite`](rdb_core::raft::LogWrite) to the
//! [`LogWriterHandle`]. The one log-writer thread puts all that waits, of all regions, into one batch, syncs it once,
//! reports it and only then lets the messages go that promise it. When the entries are committed, the applier turns
//! them into changes and gives them to [`Data::apply`], which writes records, sessions and the region's state in one
//! batch without a log of its own: after a crash the data is what was last flushed, and the Raft log is replayed
//! from there. [`Data::truncation_target`] says how much of the log is no longer needed for that.
//!
//! ```text
//! <data_dir>/IDENTITY     whose directory this is: cluster, node, store, incarnation     identity.rs
//! <data_dir>/PEERS        what this node has seen of the others' directories             peers.rs
//! <data_dir>/OUTDATED     another node has refused this directory: it is not started again  outdated.rs
//! <data_dir>/LOCK         held by the process that uses it                               directory.rs
//! <data_dir>/WATERMARK    how far the log was synced when anyone was last promised that  watermark.rs
//! <data_dir>/log/         RocksDB with a write-ahead log: the truth                      log_writer.rs, log_store.rs
//! <data_dir>/log/N.log    its write-ahead log, longer than what is in it                 log_ahead.rs, wal.rs
//! <data_dir>/log/archive  write-ahead logs that are no longer needed                     dropped_logs.rs
//! <data_dir>/data/        RocksDB without one: derived from the log                      data.rs
//! <data_dir>/incoming/    snapshots of other nodes while they come; emptied at a start   snapshot.rs
//! ```
//! Every key of both databases is in `keys.rs`. [`Engine::open`] starts it all, and refuses a directory that is not
//! what it was when this node last promised something: a node that lost part of its log must not vote again.
//!
//! What this crate deliberately does not do: it never retries a failed write or sync (the process must stop, since a
//! sync that failed once may have dropped the pages it was to write), and it repairs nothing but a log's end that was
//! never synced.

mod checked_text;
mod data;
mod directory;
mod dropped_logs;
mod engine;
mod error;
#[doc(hidden)]
pub mod fuzzed;
mod identity;
mod initialise;
mod keys;
mod log_ahead;
mod log_batch;
mod log_store;
mod log_writer;
mod metrics;
mod origin_logs;
mod outdated;
mod peers;
mod region_scan;
mod rocks;
mod scan;
mod snapshot;
mod wal;
mod watermark;

pub use data::{Data, InMemory, NotInMemory, Records, RegionData};
pub use directory::DiskSpace;
pub use dropped_logs::{DroppedLogs, Removal};
pub use engine::Engine;
pub use error::{Error, Result};
pub use identity::{Expected, Identity};
pub use keys::OriginState;
pub use log_batch::OriginWrite;
pub use log_store::{LogStore, RegionLog, StoredLog};
pub use log_writer::{
    AppendError, LogSink, LogWriter, LogWriterHandle, LogWriterOptions, WRITES_PER_REGION_MAX,
};
pub use metrics::{LATENCY_BOUNDS_MICROS, Latency, LatencyHistogram, LogMetrics};
pub use origin_logs::{OriginLogs, StoredOrigins};
pub use outdated::OutdatedMark;
pub use peers::PeerDirectory;
pub use region_scan::FrozenRegion;
pub use rocks::EngineOptions;
pub use scan::{Frozen, Length, Walk};
pub use snapshot::{Chunk, Incoming, Section, SnapshotInbox, SnapshotReader, StagedSnapshot};

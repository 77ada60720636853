//! A FlareDB node: threads and network around the pure core.
//!
//! A strong write's way through the node, and the thread that each step runs on:
//!
//! 1. `api` (tokio) checks the request against the limits and the catalog, encodes its commands, takes its bytes from
//!    the node's budget, and posts it to the mailbox.
//! 2. `peer_manager` (the raft loop; the same thread goes on, or under load the loop's own) drains the mailbox; all drained
//!    commands of a region become one entry.
//!    The append leaves for the followers (`transport`), the entry for the log writer (`rdb-storage`, one thread).
//! 3. The log writer syncs once for all that waits, of all regions, and reports back to the mailbox.
//! 4. When a majority and this node have synced it, `applier` (one thread) writes the records and answers the caller.
//!
//! Each hand-over carries whole batches. A linearizable read takes the mailbox to the raft loop, which asks one round
//! of heartbeats for all reads that wait; then the caller's own task reads the records.
//!
//! `node.rs` is the wiring: every thread and channel is named there once.

pub mod config;
#[doc(hidden)]
pub mod fuzzed;

mod api;
mod applier;
mod backlog;
mod budget;
mod clock;
mod clocks;
mod connections;
#[cfg(feature = "failpoints")]
mod crash;
mod disk;
mod eventual;
mod faults;
mod http;
mod logging;
mod mailbox;
mod metrics;
mod node;
mod pace;
mod peer;
mod peer_manager;
mod peer_notes;
mod raft_service;
mod regions;
mod shared;
mod snapshots;
mod switch;
mod transport;
mod upkeep;
mod waiter;

pub use clocks::WallClock;
#[cfg(feature = "failpoints")]
pub use crash::crash_as_told;
pub use logging::init as init_logging;
pub use node::{Node, StartError};

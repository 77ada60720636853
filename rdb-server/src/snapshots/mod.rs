//! Snapshots on their way: a region's data for a follower that needs entries which the log no longer has.
//!
//! ```text
//! leader    raft loop ──▶ outgoing.rs  reads the data and sends it, one snapshot per thread
//!                              │
//! follower                incoming.rs  writes it to files, then tells the raft loop
//!           raft loop ──▶ install.rs   replaces the data, then hands the log's new beginning to the log writer
//! ```
//! Whatever becomes of it, the leader's loop hears of it: until then the follower would get nothing else.

mod incoming;
mod install;
mod outgoing;

pub(crate) use incoming::{Arrived, Inbound};
pub(crate) use install::{Installer, Staged, run_installs};
pub(crate) use outgoing::{Outbound, Sending, Throttle, run_sends};

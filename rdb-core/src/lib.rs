//! FlareDB's pure core: what a node decides, without a clock, thread, socket or disk.
//!
//! One write, seen from here: the leader's [`raft::Group`] packs the waiting [`command`]s into one Raft entry and
//! names what the outside must do ([`raft::Effects`]): messages to send at once, a log write to sync and the messages
//! that wait for it, entries to apply. When the entry is committed and synced, [`apply::Machine`] turns it into
//! records and the region's new state, to be written in one batch, and into one answer per command.
//!
//! Time, randomness, disk and network come in as arguments and go out as effects, so that `rdb-sim` runs this very
//! code in a world made from a seed. `clippy.toml` and the crate's dependencies keep it so.

pub mod apply;
pub mod codec;
pub mod command;
pub mod coverage;
pub mod eventual;
pub mod hlc;
pub mod ids;
pub mod raft;
pub mod range;
pub mod record;
pub mod scan;
pub mod sessions;
pub mod switch;
pub mod transaction;
pub mod version;

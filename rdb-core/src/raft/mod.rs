//! One region's Raft group, driven without I/O.
//!
//! The life of a write on the leader:
//!
//! 1. [`Group::propose`] queues its commands. At most [`Options::entries_in_flight_max`] entries are under way, so
//!    under load the commands of many callers gather and leave as one entry.
//! 2. [`Group::take_effects`] makes the entry and names what the outside must do, as [`Effects`]: `send` the appends
//!    to the followers now, `write` the entry to the log. The leader's sync and the followers' run side by side.
//! 3. The log writer syncs, reports [`Group::persisted`] and then sends what the write held back
//!    ([`LogWrite::then_send`]): votes and append answers must not be heard before what they promise is on disk.
//! 4. Once a majority has synced it, and this node too, the entry appears in [`Effects::apply`] with the callers that
//!    wait for it. The applier answers them and reports [`Group::applied`].
//!
//! A linearizable read asks [`Group::read`]; all reads that wait share one round of heartbeats (Raft's ReadIndex), and
//! come back in [`Effects::reads`] when the state machine has applied what the round found committed. What such a round promises
//! for a while longer is a [`Lease`].
//!
//! A follower that needs entries which the leader's log no longer has is named in [`Effects::snapshots`]. The outside
//! sends it the data, and there the message that stands for it goes to [`Group::step_snapshot`]. If it is of use, the next
//! write says so ([`LogWrite::snapshot`]): the outside replaces the data, starts the log anew and reports
//! [`Group::installed`]; the leader's side reports [`Group::snapshot_sent`].
//!
//! What it deliberately does not do: membership changes (messages that carry them are refused), and nothing at all by
//! the clock: time comes as [`Group::tick`] and as the stamp of an entry.
//!
//! raft-rs panics on many malformed messages, so `validate` looks at each before it is stepped.

pub mod disk;
mod effects;
mod group;
mod lease;
mod log;
mod options;
mod proposals;
mod reads;
mod truncation;
mod validate;

pub use ::raft::{GetEntriesContext, StateRole as Role};
pub use effects::{
    Apply, Effects, Failure, Fetch, LogWrite, SendSnapshot, Sleep, SnapshotPlace, snapshot_message,
};
pub use group::{Boot, BootError, Group, Status};
pub use lease::{Lease, Standing};
pub use log::LogRead;
pub use options::Options;
pub use raft_proto::eraftpb::{Entry, HardState, Message, MessageType};
pub use truncation::truncation_target;
pub use validate::Rejected;

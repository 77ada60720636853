//! Eventual mode: any node takes writes, always, and all come to the same records.
//!
//! One write, seen from here. The node's [`hlc::DurableClock`] stamps it. [`machine::Machine::write`] gives it its
//! place in the node's own log and the name of what it replaces; writes that come together become a [`run::Run`].
//! [`origin_log::OriginLogs`] takes note of the run when it is handed to the log writer and when it is synced. Then
//! [`machine::Machine::apply`] turns it into records, to be written in one batch with the region's state, and it is
//! visible. [`peers::Peers`] names what each peer lacks; the peer's [`origin_log::OriginLogs::receive`] takes the run,
//! and from there it goes the same way.
//!
//! Which record stays, and what it means for the other one to be *lost*, is in [`merge`]; that is the place to begin
//! reading. [`lag`] says how far replicas are behind, [`buckets`] whether they are equal, [`session`] whether one shows
//! what a client has seen.
//!
//! A member for which logs would grow without end is given up, and takes a [`copy`] when it is back.
//!
//! What is not here: the gate, the seal and the marker of a switch of mode.

pub mod buckets;
pub mod conflicts;
pub mod copy;
mod heads;
pub mod hlc;
pub mod lag;
pub mod machine;
pub mod merge;
pub mod origin_log;
pub mod peers;
pub mod run;
pub mod session;
pub mod stamps;
pub mod unsynced;
pub mod vector;

//! The cluster's half of a namespace's switch between strong and eventual: what nodes tell of themselves.
//!
//! | file | |
//! |---|---|
//! | `standing.rs` | what each node says of its part of each region, and when it was heard |
//! | `wire.rs` | the same between nodes |
//!
//! What is decided is decided in `rdb_core::switch`.

#[allow(dead_code, reason = "what reads it, the controller, is about to come")]
mod standing;
pub(crate) mod wire;

pub(crate) use standing::{Alarm, GateState, Standing, Standings};

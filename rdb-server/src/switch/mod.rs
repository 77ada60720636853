//! The cluster's half of a namespace's switch between strong and eventual: what nodes tell of themselves, and who takes
//! the next step.
//!
//! | file | |
//! |---|---|
//! | `standing.rs` | what each node says of its part of each region, and when it was heard |
//! | `wire.rs` | the same between nodes |
//! | `facts.rs` | what that means for a switch, for the controller and in words |
//! | `controller.rs` | the thread `switch`, which proposes the next step to the catalog |
//! | `history.rs` | what this node has seen of switches: since when, for how long, how it ended |
//! | `metrics.rs` | what `/metrics` shows of it |
//!
//! What is decided is decided in `rdb_core::switch`. A node's own half, its gate and its part of the region's log, is with
//! those who own them.

mod controller;
pub(crate) mod facts;
mod history;
mod metrics;
mod standing;
pub(crate) mod wire;

pub(crate) use controller::{Controller, tell, wall_ms};
pub(crate) use history::History;
pub(crate) use metrics::SwitchMetrics;
pub(crate) use standing::{Alarm, GateState, Standing, Standings};

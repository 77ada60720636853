//! A model of the switch between strong and eventual: one namespace with one region on three nodes, every order of steps,
//! crashes, lost power, cut-off nodes and late messages within the bounds of a [`Configuration`].
//!
//! What the nodes and the controller decide is decided by `rdb_core::switch`, the functions that the product runs. The model
//! adds what lies around them: logs with a synced and an unsynced part, messages, clients. Raft is abstracted: a log that
//! every node applies in its own time, proposals that are committed in any order and any time later; elections are raft-rs's
//! affair, and the simulator's.
//!
//! - `state` is the world, `action` what can happen in it, `steps/` what each does.
//! - `promises/` has a file for each promise of `docs/mode-switch.md`; they hold in every state, or a shortest trace that
//!   breaks one is printed.
//! - `goals` are states that a configuration must reach, so that none holds its promises by doing nothing.
//! - `configurations` bounds the worlds; `run` explores one.

mod action;
mod configuration;
pub mod configurations;
mod goals;
mod model;
#[cfg(feature = "planted")]
pub mod planted;
mod promises;
mod run;
mod settle;
mod state;
mod steps;

pub use action::Action;
pub use configuration::{Configuration, Pace};
pub use goals::Goal;
pub use model::Cluster;
pub use promises::Promise;
pub use run::{Outcome, explore};
pub use state::State;

//! Judges what clients saw.
//!
//! [`check_versioned`] says whether the history of one key is linearizable. The simulator asks it about histories of
//! simulated clients, the nemesis about those of real ones. Nothing here is shared with what is judged.

mod versioned;

pub use versioned::{Action, Expect, Operation, Value, Version, check_versioned};

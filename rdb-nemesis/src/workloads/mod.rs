//! What clients do while nodes are struck. One file for each kind; a new workload is a file and a line in the table.
//!
//! Whatever a workload does is recorded key by key, and every key's history must be linearizable. A check of the
//! workload's own, where it has one, is in `checks` under the same name.

mod caller;
mod counter;
mod pairs;
mod register;
mod retries;
mod set;

pub(crate) use caller::{Caller, Scene, Where};
pub(crate) use counter::number_in;
pub(crate) use retries::{SHARED, WHEELS, wheel_value};

use anyhow::Result;
use std::sync::Arc;
use tokio::task::JoinSet;

/// One kind of load.
pub struct Workload {
    /// What it is called on the command line.
    pub name: &'static str,
    /// What its clients do.
    pub about: &'static str,
    /// Starts the clients. They end when the scene says so, and what is left in doubt then is resolved before they end,
    /// where it can be.
    pub(crate) start: fn(&Arc<Scene>, &mut JoinSet<Result<()>>),
}

/// All kinds.
pub const WORKLOADS: &[Workload] = &[
    Workload {
        name: "register",
        about: "puts, gets, compare-and-swaps and deletes of a few keys, reads at the leader and at every node",
        start: register::start,
    },
    Workload {
        name: "set",
        about: "each element is a key of its own, written once: finds losses that later writes would hide",
        start: set::start,
    },
    Workload {
        name: "counter",
        about: "transactions that read a number's version and write the next one if it is still the same",
        start: counter::start,
    },
    Workload {
        name: "pairs",
        about: "batches and transactions that write two keys alike; reads at every node must never see them differ",
        start: pairs::start,
    },
    Workload {
        name: "retries",
        about: "compare-and-swaps under a session, each sent at least twice under one name",
        start: retries::start,
    },
];

/// The workload of this name.
pub(crate) fn named(name: &str) -> Option<&'static Workload> {
    WORKLOADS.iter().find(|workload| workload.name == name)
}

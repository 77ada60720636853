//! What clients do while nodes are struck. One file for each kind; a new workload is a file and a line in the table.
//!
//! Whatever a workload does is recorded key by key, and every key's history must be linearizable. A check of the
//! workload's own, where it has one, is in `checks` under the same name.

mod caller;
mod counter;
mod extent;
mod pace;
mod pairs;
mod register;
mod retries;
mod scans;
mod set;
pub(crate) mod switched;

pub(crate) use caller::{Caller, Scene, Where};
pub(crate) use counter::number_in;
pub(crate) use extent::Extent;
pub(crate) use pace::Pace;
pub(crate) use retries::{ANSWERS_MIN, SHARED, WHEELS, wheel_value};

use crate::history::Request;
use anyhow::Result;
use std::sync::Arc;
use tokio::task::JoinSet;

/// One kind of load.
pub struct Workload {
    /// What it is called on the command line.
    pub name: &'static str,
    /// What its clients do.
    pub about: &'static str,
    /// The requests that they make: each must succeed, in every part of a run.
    pub requests: &'static [Request],
    /// Starts the clients. They end when the scene says so, and what is left in doubt then is resolved before they end,
    /// where it can be.
    pub(crate) start: fn(&Arc<Scene>, &mut JoinSet<Result<()>>),
}

/// All kinds.
pub const WORKLOADS: &[Workload] = &[
    Workload {
        name: "register",
        about: "puts, gets, compare-and-swaps and deletes of a few keys, reads at the leader and at every node",
        requests: &[Request::Get, Request::Put, Request::CompareAndSwap, Request::Delete],
        start: register::start,
    },
    Workload {
        name: "set",
        about: "each element is a key of its own, written once: finds losses that later writes would hide",
        requests: &[Request::Put],
        start: set::start,
    },
    Workload {
        name: "counter",
        about: "transactions that read a number's version and write the next one if it is still the same",
        requests: &[Request::Get, Request::Transaction],
        start: counter::start,
    },
    Workload {
        name: "pairs",
        about: "batches and transactions that write two keys alike; reads at every node must never see them differ",
        requests: &[Request::BatchWrite, Request::Transaction, Request::BatchGet],
        start: pairs::start,
    },
    Workload {
        name: "scans",
        about: "scans of many keys at every node, page by page, while they are written, removed and written together",
        requests: &[Request::Scan, Request::Put, Request::BatchWrite, Request::Delete, Request::DeleteRange],
        start: scans::start,
    },
    Workload {
        name: "retries",
        about: "compare-and-swaps under a session, each answered at least twice under one name",
        requests: &[Request::CompareAndSwap],
        start: retries::start,
    },
    Workload {
        name: switched::NAME,
        about: "elements and registers of a namespace of their own, which is switched between eventual and strong all the time",
        // In either mode: the others wait for the right one.
        requests: &[Request::Put],
        start: switched::start,
    },
];

/// The workload of this name.
pub(crate) fn named(name: &str) -> Option<&'static Workload> {
    WORKLOADS.iter().find(|workload| workload.name == name)
}

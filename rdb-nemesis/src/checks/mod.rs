//! What a history must show. One file for each check; a new one is a file and a line in the table.
//!
//! Every check looks at the whole history and says what it has looked at, so that a check that saw nothing can be told
//! from one that found nothing wrong.

mod counter;
pub(crate) mod eras;
mod linearizable;
mod pairs;
mod replicas;
mod retries;
mod scans;
mod set;
pub(crate) mod switched;
#[cfg(test)]
mod tests;

use crate::history::{Call, Entry, Request};
use crate::workloads::switched::{ELEMENTS, REGISTERS};

/// What a check found: what it looked at, or what is wrong.
pub type Finding = Result<String, String>;

/// One check.
pub struct Check {
    /// Its name.
    pub name: &'static str,
    /// What it looks for.
    pub about: &'static str,
    /// Looks.
    pub check: fn(&[Entry]) -> Finding,
}

/// All checks. Each passes where its workload was not run.
pub const CHECKS: &[Check] = &[
    Check {
        name: "linearizable",
        about: "every key's history, whatever workload it belongs to, by the versions of its records",
        check: linearizable::check,
    },
    Check {
        name: "set",
        about: "every acknowledged element is found at every node, and none that was refused",
        check: set::check,
    },
    Check {
        name: "counter",
        about: "each number is as many as the transactions that counted it up",
        check: counter::check,
    },
    Check {
        name: "pairs",
        about: "keys that are written alike are never seen to differ",
        check: pairs::check,
    },
    Check {
        name: "retries",
        about: "all copies of a named write have one answer, and it was applied once",
        check: retries::check,
    },
    Check {
        name: "scans",
        about: "every scan shows one moment, and the last ones bring what the last reads find",
        check: scans::check,
    },
    Check {
        name: "switched",
        about: "over switches of the mode: no element is lost, strong eras are linearizable, an epoch is of one era",
        check: switched::check,
    },
    Check { name: "replicas", about: "all nodes have the same data in the end", check: replicas::check },
];

/// The workload of the reads that end a run: everything, at every node, when all is quiet.
pub(crate) const FINAL: &str = "final";

/// The final reads that saw all that was acknowledged before. The final scans are held against them by `scans`.
fn final_reads(history: &[Entry]) -> impl Iterator<Item = &Entry> {
    history.iter().filter(|entry| is_final_read(entry) && entry.call == Call::Get)
}

/// Whether it is of the namespace that is switched.
fn is_switched(entry: &Entry) -> bool {
    entry.key.starts_with(ELEMENTS) || entry.key.starts_with(REGISTERS)
}

fn is_final_read(entry: &Entry) -> bool {
    entry.workload == FINAL && entry.request != Some(Request::Scan)
}

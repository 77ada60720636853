//! What is done to the nodes. One file for each kind; a new fault is a file with a `FAULTS` of its own and a line here.
//!
//! A fault strikes, lasts, undoes itself, and brings evidence: whether it has really happened, as the outside shows it. A
//! run whose faults have not been seen fails.

mod kill;
mod lossy;
mod partition;
mod pause;
mod power;
mod restart;
mod snapshot;
mod transfer;

use crate::dice::Dice;
use crate::lab::{Evidence, Lab};
use anyhow::Result;
use std::pin::Pin;

/// A fault under way.
pub(crate) type Striking<'a> = Pin<Box<dyn Future<Output = Result<Evidence>> + Send + 'a>>;

/// One kind of fault.
pub struct Fault {
    /// What it is called on the command line.
    pub name: &'static str,
    /// What it does.
    pub about: &'static str,
    /// It shows only where logs are short.
    pub(crate) short_logs: bool,
    /// It needs disks whose power can be cut.
    pub(crate) disks: bool,
    pub(crate) strike: for<'a> fn(&'a mut Lab, &'a mut Dice) -> Striking<'a>,
}

/// All kinds.
pub const FAULTS: &[&[Fault]] = &[
    kill::FAULTS,
    pause::FAULTS,
    partition::FAULTS,
    lossy::FAULTS,
    restart::FAULTS,
    transfer::FAULTS,
    snapshot::FAULTS,
    power::FAULTS,
];

/// All faults, one after the other.
pub(crate) fn all() -> impl Iterator<Item = &'static Fault> {
    FAULTS.iter().copied().flatten()
}

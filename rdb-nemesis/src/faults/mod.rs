//! What is done to the nodes. One file for each kind; a new fault is a file with a `FAULTS` of its own and a line here.
//!
//! A fault strikes, lasts, undoes itself, and brings evidence: whether it has really happened, as the outside shows it. A
//! run whose faults have not been seen fails.

mod clock;
mod disk;
mod kill;
mod lossy;
mod memory;
mod partition;
mod pause;
mod power;
mod restart;
mod snapshot;
mod transfer;
mod upgrade;

use crate::cluster::Leader;
use crate::dice::Dice;
use crate::lab::{Evidence, Lab};
use anyhow::Result;
use std::pin::Pin;

/// A fault under way.
pub(crate) type Striking<'a> = Pin<Box<dyn Future<Output = Result<Evidence>> + Send + 'a>>;

/// What a fault needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// It shows only where logs are short.
    ShortLogs,
    /// Disks of the nodes' own. Root only.
    Disks,
    /// Wall clocks that can be stepped.
    Clocks,
    /// Syncs that can be made slow, or fail.
    Syncs,
    /// Memory that can be capped. Root only.
    Memory,
    /// Nodes that begin with an older server.
    Before,
    /// Wires that can be slow, or thin: between hosts of the nodes' own there are none.
    Wires,
    /// Five nodes.
    Five,
}

/// One kind of fault.
pub struct Fault {
    /// What it is called on the command line.
    pub name: &'static str,
    /// What it does.
    pub about: &'static str,
    /// What it needs to be done, or to show.
    pub(crate) needs: &'static [Need],
    pub(crate) strike: for<'a> fn(&'a mut Lab, &'a mut Dice) -> Striking<'a>,
}

/// All kinds.
pub const FAULTS: &[&[Fault]] = &[
    kill::FAULTS,
    pause::FAULTS,
    partition::FAULTS,
    lossy::FAULTS,
    restart::FAULTS,
    upgrade::FAULTS,
    transfer::FAULTS,
    snapshot::FAULTS,
    power::FAULTS,
    memory::FAULTS,
    disk::FAULTS,
    clock::FAULTS,
];

impl Fault {
    pub(crate) fn needs(&self, need: Need) -> bool {
        self.needs.contains(&need)
    }
}

/// Whom a fault strikes that may strike anybody: the leader, every other time.
fn leader_or_any(lab: &Lab, leader: Leader, dice: &mut Dice) -> u64 {
    if dice.percent(50) { leader.node } else { dice.pick(&lab.cluster.ids()) }
}

/// All faults, one after the other.
pub(crate) fn all() -> impl Iterator<Item = &'static Fault> {
    FAULTS.iter().copied().flatten()
}

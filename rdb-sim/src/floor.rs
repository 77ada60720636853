//! What a world must have gone through before its storm may end, where that is asked for.

use crate::options::{Micros, SECOND};

/// The least that a world must have gone through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Floor {
    /// Operations that were answered.
    pub operations: u64,
    /// Faults, crashes among them.
    pub faults: u64,
    /// Crashes.
    pub crashes: u64,
}

/// After so long, in simulated time, all goes wrong half as often, where it is not reached: some weather lets nobody get anything
/// done.
pub(crate) const EASES_AFTER: Micros = 30 * SECOND;
/// And again as often as this.
pub(crate) const EASES_MAX: u32 = 20;

impl Floor {
    /// What the long form of the simulation asks of each world.
    pub const FULL: Floor = Floor { operations: 500, faults: 5, crashes: 1 };

    /// Whether these are no less.
    pub fn is_reached(&self, operations: u64, faults: u64, crashes: u64) -> bool {
        self.operations <= operations && self.faults <= faults && self.crashes <= crashes
    }
}

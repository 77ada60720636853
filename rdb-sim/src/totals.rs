//! What worlds went through, so that nobody mistakes an idle run for a clean one.

use crate::options::{Micros, SECOND};
use std::fmt;

/// Counts of one world, or of many.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Simulated time.
    pub micros: Micros,
    /// Events that happened.
    pub events: u64,
    /// Messages sent between replicas.
    pub messages: u64,
    /// Entries committed.
    pub entries: u64,
    /// Writes answered by a state machine.
    pub writes: u64,
    /// Reads answered.
    pub reads: u64,
    /// Attempts in doubt.
    pub in_doubt: u64,
    /// Operations that the linearizability checker looked at.
    pub checked: u64,
    /// Elections won.
    pub elections: u64,
    /// Nodes that lost power.
    pub crashes: u64,
    /// Times that all nodes did at once.
    pub power_cuts: u64,
    /// Cuts in the network.
    pub cuts: u64,
    /// Processes stopped for a while.
    pub pauses: u64,
    /// Log disks that hung.
    pub stalls: u64,
    /// Hand-overs asked for.
    pub transfers: u64,
    /// Reads of old entries for a follower.
    pub fetches: u64,
    /// Logs shortened.
    pub truncations: u64,
    /// Snapshots that leaders were asked for.
    pub snapshots_wanted: u64,
    /// Snapshots that replaced a replica's data.
    pub snapshots: u64,
    /// Worlds in which that happened.
    pub snapshot_worlds: u64,
    /// Starts that found a snapshot half taken in.
    pub snapshots_settled: u64,
    /// Namespaces that the catalog took up.
    pub created: u64,
    /// Namespaces that it let go.
    pub removed: u64,
    /// Regions that nodes destroyed while they ran.
    pub destroyed: u64,
    /// Starts that found what was left of a region that is gone.
    pub leftovers: u64,
    /// Writes and reads that were refused since their region was closed.
    pub refused: u64,
}

impl Totals {
    /// Adds another world's.
    pub fn add(&mut self, other: &Totals) {
        self.micros += other.micros;
        self.events += other.events;
        self.messages += other.messages;
        self.entries += other.entries;
        self.writes += other.writes;
        self.reads += other.reads;
        self.in_doubt += other.in_doubt;
        self.checked += other.checked;
        self.elections += other.elections;
        self.crashes += other.crashes;
        self.power_cuts += other.power_cuts;
        self.cuts += other.cuts;
        self.pauses += other.pauses;
        self.stalls += other.stalls;
        self.transfers += other.transfers;
        self.fetches += other.fetches;
        self.truncations += other.truncations;
        self.snapshots_wanted += other.snapshots_wanted;
        self.snapshots += other.snapshots;
        self.snapshot_worlds += other.snapshot_worlds;
        self.snapshots_settled += other.snapshots_settled;
        self.created += other.created;
        self.removed += other.removed;
        self.destroyed += other.destroyed;
        self.leftovers += other.leftovers;
        self.refused += other.refused;
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hours = self.micros / SECOND / 36;
        writeln!(f, "{}.{:02} simulated hours, {} events", hours / 100, hours % 100, self.events)?;
        writeln!(
            f,
            "{} writes and {} reads answered, {} attempts in doubt, {} operations checked",
            self.writes, self.reads, self.in_doubt, self.checked
        )?;
        writeln!(
            f,
            "{} messages, {} entries committed, {} elections, {} hand-overs, {} logs shortened, {} fetches",
            self.messages, self.entries, self.elections, self.transfers, self.truncations, self.fetches
        )?;
        writeln!(
            f,
            "{} snapshots wanted, {} taken in {} worlds, {} found half taken in by a start",
            self.snapshots_wanted, self.snapshots, self.snapshot_worlds, self.snapshots_settled
        )?;
        writeln!(
            f,
            "{} namespaces created, {} removed, {} regions destroyed, {} found half destroyed by a start, {} operations \
             refused by closed regions",
            self.created, self.removed, self.destroyed, self.leftovers, self.refused
        )?;
        write!(
            f,
            "{} crashes, {} power cuts, {} network cuts, {} pauses, {} disk stalls",
            self.crashes, self.power_cuts, self.cuts, self.pauses, self.stalls
        )
    }
}

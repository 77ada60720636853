//! The bounds of one exploration.

use crate::goals::Goal;
use rdb_core::switch::Mode;

/// How finely a node's own steps are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// Appending, syncing, answering and reporting are steps of their own, and a crash may come between them.
    Fine,
    /// Each follows at once. For configurations whose point lies elsewhere.
    Coarse,
}

/// What may happen, and how often. Nodes are numbered from 0.
#[derive(Debug, Clone)]
pub struct Configuration {
    /// A word for tables and tests.
    pub name: &'static str,
    /// What it is after.
    pub about: &'static str,
    /// How the namespace begins.
    pub start: Mode,
    /// The keys of the first, second, … write, each 0 or 1.
    pub keys: &'static [u8],
    /// Eventual writes by clients.
    pub eventual_writes: u8,
    /// The nodes that they reach.
    pub eventual_writers: &'static [usize],
    /// Writes and comparisons through the region's log.
    pub strong_writes: u8,
    /// The nodes that they reach.
    pub strong_writers: &'static [usize],
    /// The switches that operators ask for, in turn: to which mode, and without which nodes. One to the mode that the
    /// namespace is in is not begun, nor those after it.
    pub switches: &'static [(Mode, &'static [usize])],
    /// Whether a switch stays in `preparing` for a while, and may be called off there, or is past it at once.
    pub prepares: bool,
    /// Switches that are called off.
    pub aborts: u8,
    /// Nodes that crash, lose what they have not synced, and start again.
    pub crashes: u8,
    /// Whether the data was never flushed before a crash, so that the region is to be rebuilt from its log; for
    /// configurations without snapshots.
    pub unflushed: bool,
    /// The nodes that may crash.
    pub crashing: &'static [usize],
    /// Nodes that are cut off for a while.
    pub partitions: u8,
    /// The nodes that may be cut off.
    pub isolated: &'static [usize],
    /// Writes between nodes that arrive any time later, and doubly.
    pub late_deliveries: u8,
    /// Changes to the catalog that arrive any time later.
    pub late_changes: u8,
    /// How often a marker is proposed, at most.
    pub marker_copies: usize,
    /// The nodes that may lead the region.
    pub leaders: &'static [usize],
    /// Eventual reads by clients.
    pub local_reads: u8,
    /// Linearizable reads by clients.
    pub strong_reads: u8,
    /// Strong-only operations, asked of any node in any mode.
    pub strong_only: u8,
    /// Whether the leader, node 0, reads by its lease.
    pub lease: bool,
    /// Sealed nodes that hear nothing for long.
    pub timers: u8,
    /// What the nodes' wall clocks show. They stand still: readings grow by what is seen.
    pub walls_ms: [u64; 3],
    /// How finely a node's own steps are told apart.
    pub pace: Pace,
    /// Whether a node may hear some descriptors late, one by one, and not only the newest.
    pub slow_news: bool,
    /// Whether replicas may be replaced by others' snapshots. Excluded nodes come back by no other way.
    pub snapshots: bool,
    /// States that must be reached.
    pub goals: &'static [Goal],
}

impl Configuration {
    /// A configuration in which nothing happens, to be filled in.
    pub(crate) const NOTHING: Configuration = Configuration {
        name: "",
        about: "",
        start: Mode::Eventual,
        keys: &[0, 1, 0, 1, 0, 1],
        eventual_writes: 0,
        eventual_writers: &[0],
        strong_writes: 0,
        strong_writers: &[0],
        switches: &[],
        prepares: false,
        aborts: 0,
        crashes: 0,
        unflushed: false,
        crashing: &[0, 1, 2],
        partitions: 0,
        isolated: &[0, 1, 2],
        late_deliveries: 0,
        late_changes: 0,
        marker_copies: 1,
        leaders: &[0],
        local_reads: 0,
        strong_reads: 0,
        strong_only: 0,
        lease: false,
        timers: 0,
        walls_ms: [0; 3],
        pace: Pace::Coarse,
        slow_news: false,
        snapshots: false,
        goals: &[],
    };
}

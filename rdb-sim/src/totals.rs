//! What worlds went through, so that nobody mistakes an idle run for a clean one.

/// Declares the counts of one kind of world: simulated time, and one number for each name.
macro_rules! totals {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counts of one world, or of many.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct Totals {
            /// Simulated time.
            pub micros: $crate::options::Micros,
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Totals {
            /// Adds another world's.
            pub fn add(&mut self, other: &Totals) {
                self.micros += other.micros;
                $(self.$name += other.$name;)*
            }

            /// Each count, by its name.
            pub fn each(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
                [$((stringify!($name), self.$name),)*].into_iter()
            }
        }

        impl std::fmt::Display for Totals {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{} simulated seconds", self.micros / $crate::options::SECOND)?;
                self.each().try_for_each(|(name, count)| write!(f, ", {} {count}", name.replace('_', " ")))
            }
        }
    };
}
pub(crate) use totals;

totals! {
    /// Events that happened.
    events,
    /// Messages sent between replicas.
    messages,
    /// Entries committed.
    entries,
    /// Writes answered by a state machine.
    writes,
    /// Reads answered.
    reads,
    /// Attempts in doubt.
    in_doubt,
    /// Operations that the linearizability checker looked at.
    checked,
    /// Elections won.
    elections,
    /// Nodes that lost power.
    crashes,
    /// Times that all nodes did at once.
    power_cuts,
    /// Cuts in the network.
    cuts,
    /// Processes stopped for a while.
    pauses,
    /// Log disks that hung.
    stalls,
    /// Hand-overs asked for.
    transfers,
    /// Reads of old entries for a follower.
    fetches,
    /// Logs shortened.
    truncations,
    /// Snapshots that leaders were asked for.
    snapshots_wanted,
    /// Snapshots that replaced a replica's data.
    snapshots,
    /// Starts that found a snapshot half taken in.
    snapshots_settled,
    /// Namespaces that the catalog took up.
    created,
    /// Namespaces that it let go.
    removed,
    /// Regions that nodes destroyed while they ran.
    destroyed,
    /// Starts that found what was left of a region that is gone.
    leftovers,
    /// Writes and reads that were refused since their region was closed.
    refused,
}

impl Totals {
    /// Operations that clients were answered.
    pub fn operations(&self) -> u64 {
        self.writes + self.reads
    }

    /// What was done to nodes, their disks and the network. Hand-overs are none.
    pub fn faults(&self) -> u64 {
        self.crashes + self.power_cuts + self.cuts + self.pauses + self.stalls
    }
}

//! FlareDB's simulator: the real core in a world made from a seed.
//!
//! A [`Options::draw`] turns a seed into a cluster of three or five nodes with slow disks, lossy links and wrong
//! clocks, and into a weather of crashes, power cuts, partitions, pauses and stalls. Its logs leave members behind that
//! are away or slow, and these get the data by a snapshot, with a crash possible between any two steps. In some worlds
//! namespaces come and go, and their regions with them. [`run`] lets
//! clients work in it: first through the storm, then with a random quorum that must make progress, then with everything
//! repaired, when all replicas must become equal. The invariants watch every step, and in the end the checker looks at
//! what the clients saw. The same seed gives the same world, event by event, so every failure can be watched again.
//!
//! Nothing of the core is replaced: groups, state machines, sessions, clocks and message checks are those of a node.
//! Only what a node does at its edges is played here: threads, disks, network and time.
//!
//! [`modes`] is a world of another kind, for a namespace that is eventual, strong, and switched between the two.
//!
//! What it does not see: the code at the edges itself, real time, and disks that return wrong bytes.

mod clients;
mod coverage;
mod disks;
mod event;
mod floor;
mod invariants;
mod machine;
pub mod modes;
mod options;
mod run;
mod snapshot;
mod totals;
mod trace;
mod world;

pub use coverage::Coverage;
pub use floor::Floor;
pub use invariants::Violation;
pub use options::{Clocks, Congestion, Faults, Lifetimes, Micros, Network, Options, SECOND, Snapshots, Span};
pub use run::{Verdict, run, run_by};
pub use totals::Totals;
pub use trace::Sink;

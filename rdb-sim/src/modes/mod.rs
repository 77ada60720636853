//! Worlds in which a namespace is eventual, strong, and switched between the two, while everything fails that can.
//!
//! One namespace with one region on three or five nodes. Its log is a real Raft group, with elections, reads and a disk
//! that loses what is not synced; in that log lie the markers. Eventual writes go through the core's origin logs, clock, merge and
//! streams; the gate, the controller and every verdict are those of `rdb_core::switch`. What a node does around these
//! functions, in which order and synced when, is played here as `docs/mode-switch.md` says that a node owes it.
//!
//! Of the catalog there is its log and nothing else: changes reach it late, twice or never, from any node that hears a majority
//! and takes itself for the controller, often several at once; nodes hear what it says late and out of order.
//!
//! - `options` is what a seed draws, `event` what happens, `world` where it happens.
//! - `node`, `origins` and `data` are a node and its disks; `region` its log and the markers in it, `eventual` the other mode,
//!   `streams` what travels between nodes in that mode, `copies` what is taken where that is not enough, `switching` its part in a
//!   switch.
//! - `leases` is what a leader may answer without asking.
//! - `truncate` shortens the region's log, and `snapshots` brings those back whom that or a switch has left behind.
//! - `catalog` holds the catalog, the controllers and the operators; `clients` and `requests` those who ask.
//! - `truth` is what an onlooker knows who sees everything; `invariants/` holds the worlds to it, one file each.
//! - `phases` is the story: a storm, then all is healed, the switch ends, one more is made in peace, and all must be equal.

mod catalog;
mod clients;
mod copies;
mod data;
mod event;
mod eventual;
mod faults;
mod invariants;
mod leases;
mod network;
mod node;
mod options;
mod origins;
mod periodic;
mod phases;
mod planted;
mod region;
mod requests;
mod snapshots;
mod streams;
mod switching;
mod totals;
mod truncate;
mod truth;
mod world;

pub use options::Options;
pub use planted::Shortcut;
#[cfg(feature = "bug-modes")]
pub use planted::take_shortcut;
#[cfg(feature = "bug-modes")]
pub use rdb_core::switch::planted::{Wrong, plant};
pub use totals::Totals;

use crate::invariants::Violation;
use crate::run::text_of;
use crate::trace::{Sink, Trace};
use std::panic::{AssertUnwindSafe, catch_unwind};
use world::World;

/// What became of a world.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// What it went through.
    pub totals: Totals,
    /// A hash of all that happened.
    pub trace: u64,
    /// What went wrong, if anything did.
    pub violation: Option<Violation>,
}

/// Runs the world of `seed`.
pub fn run(seed: u64) -> Verdict {
    run_in(Options::draw(seed), Trace::default())
}

/// Runs a world that is not, or not only, drawn; tells each event to `sink`, if there is one.
pub fn run_by(options: Options, sink: Option<Sink>) -> Verdict {
    run_in(options, sink.map_or_else(Trace::default, Trace::telling))
}

fn run_in(options: Options, trace: Trace) -> Verdict {
    let mut world = World::new(options, trace);
    let violation = match catch_unwind(AssertUnwindSafe(|| world.live())) {
        Ok(lived) => lived.err(),
        Err(panic) => Some(Violation { invariant: "no panic", what: text_of(panic.as_ref()) }),
    };
    Verdict { totals: world.totals(), trace: world.trace.hash(), violation }
}

#[cfg(all(test, not(feature = "bug-any")))]
mod tests {
    use super::*;

    /// Two of five nodes are left out together, and one of them has a copy of the other's part by then: what only the two had is set
    /// aside at both. About one world of two hundred meets that; should none of these any more, others do.
    #[test]
    fn what_a_copy_has_brought_to_a_node_that_is_left_out_is_set_aside() {
        let mut from_copies = 0;
        for seed in 2_000_222..2_000_225 {
            let options = Options { nodes: 5, exclude: 0.9, log_cap: 800, ..Options::draw(seed) };
            let verdict = run_in(options, Trace::default());
            assert!(verdict.violation.is_none(), "seed {seed}: {}", verdict.violation.unwrap());
            from_copies += verdict.totals.quarantined_from_copies;
        }
        assert_ne!(from_copies, 0);
    }
}

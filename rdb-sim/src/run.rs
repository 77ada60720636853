//! One seed, from its options to its verdict.

use crate::invariants::Violation;
use crate::options::Options;
use crate::totals::Totals;
use crate::trace::{Sink, Trace};
use crate::world::World;
use std::panic::{AssertUnwindSafe, catch_unwind};

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
    // The core asserts what it relies on; where a build unwinds, a panic is a violation like any other.
    let violation = match catch_unwind(AssertUnwindSafe(|| world.live())) {
        Ok(lived) => lived.err(),
        Err(panic) => Some(Violation { invariant: "no panic", what: text_of(panic.as_ref()) }),
    };
    Verdict { totals: world.totals(), trace: world.trace.hash(), violation }
}

pub(crate) fn text_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

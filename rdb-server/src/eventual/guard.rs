//! The guard against clocks that are far off. A node whose clock differs from those of a majority takes no writes: they would
//! win against all that come later, or lose against all that came before. What it had acknowledged stays, and goes on to the
//! others; and a node that hears no majority goes on as it is.

use crate::clocks::Clocks;
use rdb_core::eventual::hlc::{DurableClock, OffFromMajority};

/// What the thread knows of its clock.
pub(super) struct Guard {
    clocks: Clocks,
    /// Set while the clock is not to be trusted.
    off: Option<OffFromMajority>,
    /// The measurements that this was judged by.
    measurements: u64,
    /// The step of the wall clock that was told last.
    step_ms: Option<i64>,
}

/// Steps that differ by less are one: clocks are also set right by little and little.
const STEPS_DIFFER_MS: u64 = 500;

impl Guard {
    pub(super) fn new(clocks: Clocks) -> Self {
        Self { clocks, off: None, measurements: 0, step_ms: None }
    }

    /// Compares the clocks, and says so where what comes of it has changed.
    pub(super) fn look(&mut self) {
        self.measurements = self.clocks.measurements();
        let off = self.clocks.trust().err();
        match (&self.off, &off) {
            (None, Some(off)) => tracing::error!(
                nodes = ?off.ahead_ms,
                "this node takes no eventual writes: its clock is off from those of a majority; set the machine's clock, and \
                 start the node again"
            ),
            (Some(_), None) => tracing::info!(
                "this node takes eventual writes again: its clock is not off from those of a majority that it hears"
            ),
            _ => {}
        }
        self.off = off;
    }

    /// Compares them if anything was measured since: so no write is taken in that came after the clock was seen to be off.
    pub(super) fn look_if_measured(&mut self) {
        if self.measurements != self.clocks.measurements() {
            self.look();
        }
    }

    /// Why no write may be taken in, if that is so.
    pub(super) fn refuses(&self) -> Option<&OffFromMajority> {
        self.off.as_ref()
    }

    /// Says where the wall clock was stepped: the clock does not follow.
    pub(super) fn look_at_wall_clock(&mut self, clock: &DurableClock, monotonic_ms: u64) {
        let step_ms = clock.wall_step_ms(self.clocks.wall_ms(), monotonic_ms);
        let told = match (self.step_ms, step_ms) {
            (Some(before), Some(now)) => before.abs_diff(now) < STEPS_DIFFER_MS,
            (before, now) => before == now,
        };
        if told {
            return;
        }
        self.step_ms = step_ms;
        match step_ms {
            Some(step_ms) => tracing::warn!(
                step_ms,
                "the wall clock was stepped, and this node's clock does not follow until it is started again"
            ),
            None => tracing::info!("the wall clock and this node's clock show the same again"),
        }
    }
}

//! How far a node may shorten its log: one rule, for the real disk and for the simulator's.

use crate::ids::Index;

/// The last entry that a node may drop, where the region's state allows all up to `truncate_to` and what was applied
/// up to `durable` survives a crash of this node. What lies above `durable` exists in the log alone.
#[cfg_attr(feature = "bug-truncate-past-durable", allow(unused_variables))]
pub fn truncation_target(truncate_to: Index, durable: Index) -> Index {
    // One of the bugs that the simulator must catch.
    #[cfg(feature = "bug-truncate-past-durable")]
    return truncate_to;
    #[cfg(not(feature = "bug-truncate-past-durable"))]
    truncate_to.min(durable)
}

#[cfg(all(test, not(feature = "bug-truncate-past-durable")))]
mod tests {
    use super::*;

    #[test]
    fn what_only_the_log_holds_stays_in_the_log() {
        assert_eq!(truncation_target(10, 7), 7);
        assert_eq!(truncation_target(10, 12), 10);
    }
}

//! What a node has handed to its log writer and to its applier and is not done with, in bytes. The raft loop never waits for
//! them; so where they are slower than what comes in, it takes less in: a leader refuses writes, and a follower drops
//! appends, which its leader sends again. Each region has its part, and all of them together have a bound, so that many
//! regions on a slow disk do not fill the memory.

use crate::budget::{Budget, Share};
use rdb_core::ids::Index;
use std::collections::VecDeque;

/// Bytes of one region that are committed and not yet applied.
const APPLYING_BYTES_MAX: usize = 64 << 20;
/// Bytes of one region that are not yet on disk: more than a leader sends without an answer.
const WRITING_BYTES_MAX: usize = 128 << 20;
/// Of all regions, for each of the two.
const NODE_BYTES_MAX: usize = 512 << 20;

/// Of all regions of a node.
pub(crate) struct Backlogs {
    writing: Budget,
    applying: Budget,
}

impl Backlogs {
    pub(crate) fn new() -> Self {
        Self { writing: Budget::new(NODE_BYTES_MAX), applying: Budget::new(NODE_BYTES_MAX) }
    }

    /// One more region's.
    pub(crate) fn region(&self) -> Backlog {
        Backlog {
            writing: self.writing.part(WRITING_BYTES_MAX),
            writes: VecDeque::new(),
            applying: self.applying.part(APPLYING_BYTES_MAX),
            tasks: VecDeque::new(),
        }
    }
}

/// Of one region.
pub(crate) struct Backlog {
    writing: Budget,
    /// By the number of the write.
    writes: VecDeque<(u64, Share)>,
    applying: Budget,
    /// By the last index of each task.
    tasks: VecDeque<(Index, Share)>,
}

impl Backlog {
    /// Whether nothing should be added.
    pub(crate) fn is_full(&self) -> bool {
        self.writing.is_exceeded() || self.applying.is_exceeded()
    }

    /// A write was handed to the log writer.
    pub(crate) fn write(&mut self, number: u64, bytes: usize) {
        self.writes.push_back((number, self.writing.charge(bytes)));
    }

    /// The write of this number is on disk, and so are all before it.
    pub(crate) fn written(&mut self, number: u64) {
        while self.writes.pop_front_if(|(written, _)| *written <= number).is_some() {}
    }

    /// Entries up to `last` were handed to the applier.
    pub(crate) fn apply(&mut self, last: Index, bytes: usize) {
        self.tasks.push_back((last, self.applying.charge(bytes)));
    }

    /// Entries up to `index` are applied.
    pub(crate) fn applied(&mut self, index: Index) {
        while self.tasks.pop_front_if(|(last, _)| *last <= index).is_some() {}
    }

    /// The region's data was replaced by a snapshot's: what was to be applied to it is not.
    pub(crate) fn replaced(&mut self) {
        self.tasks.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_is_full_until_enough_is_written_and_applied() {
        let node = Backlogs::new();
        let (mut region, other) = (node.region(), node.region());
        region.write(1, WRITING_BYTES_MAX);
        region.apply(7, APPLYING_BYTES_MAX);
        assert!(!region.is_full());
        region.write(2, 1);
        assert!(region.is_full() && !other.is_full());
        region.written(1);
        assert!(!region.is_full());
        region.apply(9, 1);
        assert!(region.is_full());
        region.applied(8);
        assert!(!region.is_full());
        region.apply(12, APPLYING_BYTES_MAX);
        assert!(region.is_full());
        region.replaced();
        assert!(!region.is_full());
    }

    /// Each within its part, and yet too much: then no region takes anything in, until one is done with some.
    #[test]
    fn many_regions_have_a_bound_together() {
        let node = Backlogs::new();
        let mut regions: Vec<Backlog> = (0..16).map(|_| node.region()).collect();
        for region in &mut regions {
            region.apply(1, NODE_BYTES_MAX / 16 + 1);
        }
        assert!(regions.iter().all(Backlog::is_full));
        regions[3].applied(1);
        assert!(!regions.iter().any(Backlog::is_full));
        // One that ends gives back what it has.
        regions[3].apply(2, NODE_BYTES_MAX / 16 + 1);
        regions.truncate(8);
        assert!(!regions[0].is_full());
    }
}

//! The order of writes.

use crate::ids::{Era, NodeId};
use std::fmt;

/// A hybrid logical clock's reading: 48 bits of Unix milliseconds and 16 bits of counter, in one ordered number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Hlc(pub u64);

impl Hlc {
    /// The first reading within a millisecond of Unix time. Milliseconds past 48 bits (the year 10889) are clamped.
    pub fn from_millis(millis: u64) -> Self {
        Self(millis.min((1 << 48) - 1) << 16)
    }

    /// The Unix millisecond that this reading belongs to.
    pub fn millis(self) -> u64 {
        self.0 >> 16
    }

    /// The next reading: the counter carries into the milliseconds, so that readings never run out.
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Debug for Hlc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.millis(), self.0 & 0xffff)
    }
}

/// The place of a write among all writes of a key. Every stored record has one, and no two writes share one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Version {
    /// Switches of mode that the namespace had completed, plus one.
    pub era: Era,
    /// When, as the writer's clock and its log's order had it.
    pub hlc: Hlc,
    /// Who stamped it; breaks ties.
    pub node: NodeId,
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{:?}/{}", self.era, self.hlc, self.node)
    }
}

//! The names of things. Each kind of number has a type of its own, so that none is passed for another.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
        impl From<$inner> for $name {
            fn from(value: $inner) -> Self {
                Self(value)
            }
        }
    };
}

id!(
    /// One `rdb-server` process with its data directory. Never 0: raft-rs reads 0 as "nobody".
    NodeId(u64)
);
id!(
    /// One replicated key range of one namespace, with a Raft group. Never used twice.
    RegionId(u64)
);
id!(
    /// A named key space. Never used twice.
    NamespaceId(u32)
);
id!(
    /// Grows whenever who may write to a namespace changes; fences requests.
    Epoch(u64)
);
id!(
    /// Grows at every start of a node, synced before that start's first write: what a node numbers, it numbers once.
    Incarnation(u64)
);
id!(
    /// Grows only when a switch of mode completes; first component of every version. The first era is 1.
    Era(u32)
);

/// A position in a region's Raft log. The first entry has index 1.
pub type Index = u64;
/// A Raft term.
pub type Term = u64;

impl RegionId {
    /// The region whose log holds the catalog. It exists on every node from the first start.
    pub const META: RegionId = RegionId(1);
    /// The first region of a user's namespace.
    pub const FIRST_USER: RegionId = RegionId(16);
}

impl NamespaceId {
    /// The key space of the catalog itself; no client reaches it by name.
    pub const META: NamespaceId = NamespaceId(0);
}

//! The switch of a namespace between strong and eventual, as decisions: who may write, how far a switch is, what a node
//! does at each step. Everything here is a function of what is passed in; whoever calls carries out what is returned.
//!
//! Two logs take part. The **catalog's** says who may write and how far the switch is: a [`Descriptor`], changed by
//! compare-and-set alone, as [`controller::next`] proposes it. Each **region's own** says which mode and era it is in: a
//! [`Region`], changed by the [`Marker`] in its log or by a snapshot, and by nothing else. Between them stands the
//! **node**: a [`Peer`], whose gate is open or shut, and whose word about it is synced before anybody hears of it.
//! Everything hangs on their order: no marker is proposed before the catalog's step to `flipping` is committed, no step
//! is taken on a promise that is not synced, and no node believes the catalog about an era that its region is not in.
//!
//! | file | decides |
//! |---|---|
//! | `descriptor` | what the catalog says of a namespace, and which change may follow which |
//! | `controller` | the next change, from the descriptor and the nodes' reports |
//! | `peer` | a node's gate: open, shut, sealed; what it syncs and what it reports |
//! | `region` | what a marker or a put in the region's log does; which snapshots are taken in |
//! | `stream` | which of another node's eventual writes are taken in, which of one's own are sent and shown |
//! | `service` | which requests are served, and how |
//! | `quarantine` | what a node sets aside that the cluster has gone on without |
//! | `codec` | nothing: the bytes of what outlives a process |
//!
//! The crate `rdb-model` runs these very functions through every order of steps, crashes and late messages within its
//! bounds, and `docs/mode-switch.md` tells the protocol as a story. Wrong variants, each of which looks reasonable and
//! loses something, are planted behind the feature `bug-switch`.

mod codec;
pub mod controller;
mod descriptor;
mod peer;
pub mod planted;
mod progress;
pub mod quarantine;
mod region;
pub mod service;
pub mod stream;

pub use crate::eventual::vector::{Origin, Vector};
pub use descriptor::{Change, Descriptor, Phase, Refused, Step, SwitchId};
pub use peer::{Control, Gate, Peer, Report, Seal};
pub use progress::Progress;
pub use region::{BOUNDARIES_MAX, Boundary, Marker, Region, Verdict};

/// How a namespace keeps its replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// One order of writes, through the region's Raft log.
    Strong,
    /// Each node orders its own writes; replicas merge by version.
    Eventual,
}

impl Mode {
    /// What a switch leads to.
    pub fn other(self) -> Self {
        match self {
            Mode::Strong => Mode::Eventual,
            Mode::Eventual => Mode::Strong,
        }
    }
}

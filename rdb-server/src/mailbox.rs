//! The raft loop's mailbox: one channel, since the order of what it carries matters. The log writer reports a write
//! before it sends the messages that the write held back, so an answer to them can only come behind the report.
//!
//! It has no bound of its own: what posts to it has. Requests take their bytes from the node's budget, each peer has
//! one of its own, entries that were read wait until earlier ones are taken in, and the node's other threads answer only
//! what the loop gave them.

use crate::applier;
use crate::budget::Share;
use crate::eventual;
use crate::snapshots::Arrived;
use crate::waiter::{ReadWaiter, WriteWaiter};
use crossbeam_channel::{Receiver, Sender};
use rdb_core::apply::State;
use rdb_core::command::Encoded;
use rdb_core::ids::{Index, NodeId, RegionId, Term};
use rdb_core::raft::{Entry, GetEntriesContext, Message, Sleep};
use rdb_core::switch;
use rdb_pd::Catalog;
use std::sync::Arc;

/// Everything that can happen to the raft loop.
pub(crate) enum Event {
    /// Commands to propose.
    Write { region: RegionId, commands: Encoded, waiter: WriteWaiter },
    /// A read that wants to know when it may be served.
    Read { region: RegionId, waiter: ReadWaiter },
    /// Messages from another node, and the share of its budget that they take.
    Messages { from: NodeId, messages: Vec<(RegionId, Message)>, share: Share },
    /// Regions that another node leads have fallen asleep; with the share of its budget that this takes.
    Sleep { from: NodeId, regions: Vec<(RegionId, Sleep)>, share: Share },
    /// A node is not the process any more that it was: what it led has no leader.
    Restarted { node: NodeId },
    /// Messages to a node were lost, or its connection was.
    Unreachable { peer: NodeId },
    /// The log write of this number is on disk.
    Persisted { region: RegionId, number: u64 },
    /// Entries up to this one are applied; the log may be dropped up to the other once that is durable. One of them, or one
    /// before them, may have closed the region.
    Applied { region: RegionId, index: Index, truncate_to: Index, closed: bool },
    /// The entry at this place is applied, and has put the region into another era. [`Event::Applied`] follows.
    Entered { region: RegionId, mode: switch::Region, index: Index, term: Term },
    /// A snapshot of this mode is about to replace the region's data; see [`eventual::Event::Leave`].
    Leave { region: RegionId, offered: switch::Region, left: eventual::Left },
    /// The region's next era began without this node: it needs a snapshot of it.
    Replace { region: RegionId },
    /// Entries that were read for a follower that lags.
    Fetched {
        region: RegionId,
        /// In which they were asked for.
        term: Term,
        low: Index,
        entries: Result<Vec<Entry>, String>,
        /// What they take of the memory for such entries.
        share: Share,
        context: GetEntriesContext,
    },
    /// A snapshot has come from a region's leader, with the message that stands for it.
    Snapshot { from: NodeId, region: RegionId, message: Box<Message>, arrived: Arrived },
    /// A region's data is a snapshot's now; the write that follows it is on its way.
    Installed { region: RegionId, number: u64, machine: Box<applier::Machine>, state: State },
    /// A snapshot that this node was to send was taken in, or came to nothing.
    SnapshotSent { region: RegionId, peer: NodeId, term: Term, taken: bool },
    /// The catalog has changed: regions may have come or gone.
    Catalog(Arc<Catalog>),
    /// A new region's log is on disk.
    RegionCreated { region: RegionId },
    /// Data was flushed: logs may be dropped up to what it holds.
    Flushed,
    /// Give up all leaderships: the node is about to stop.
    HandOver,
    /// End the loop.
    Stop,
}

/// Posts events. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Mailbox(Sender<Event>);

impl Mailbox {
    pub(crate) fn new() -> (Self, Receiver<Event>) {
        let (sender, receiver) = crossbeam_channel::unbounded();
        (Self(sender), receiver)
    }

    /// Posts `event`. A loop that has ended drops it, and what waits for it is told so.
    pub(crate) fn post(&self, event: Event) {
        drop(self.0.send(event));
    }

    /// Events that wait.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

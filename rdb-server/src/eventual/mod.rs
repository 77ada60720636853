//! Eventual mode on a node: one thread that owns the eventual part of every region.
//!
//! A write's way: `api` posts it to this thread's mailbox, as it posts a strong write to the raft loop's. The thread gives it
//! a stamp, a place in this node's own log and the name of what it replaces, and hands the turn's writes of a region to the log
//! writer as one run. Once that is synced, the run is applied, which makes it visible, the caller is answered, and the run leaves for
//! the other nodes. Theirs come in the same way: logged, synced, applied; and then this node reports what it has. What all members
//! have, and the data has flushed, is dropped from the logs.
//!
//! | file | |
//! |---|---|
//! | `driver.rs` | the thread: its mailbox, its turns, its clock |
//! | `driver/upkeep.rs` | what the thread does now and then, in what time is left |
//! | `driver/copying.rs` | the thread's part in copies and comparisons |
//! | `replica.rs` | one region: what is under way, and what comes of it |
//! | `replica/applying.rs` | what is synced, until all of it is applied |
//! | `replica/periodic.rs` | writes that are acknowledged before they are synced |
//! | `ends.rs` | up to where nodes' earlier starts came |
//! | `replica/settling.rs` | which losses are certain |
//! | `replica/purging.rs` | tombstones that nobody needs any more |
//! | `replica/copying.rs` | members that are given up, and the copy that such a one takes |
//! | `replica/leaving.rs` | what a copy had brought, for a node that sets aside what it has: no log has it |
//! | `replica/comparing.rs` | whether replicas are equal, and what is done if not |
//! | `copy/` | how a copy, and what is compared, gets from one member to another |
//! | `keeping.rs` | values of lost writes that are kept, and when they go |
//! | `kept.rs` | those values, page by page, for who asks |
//! | `guard.rs` | whether its clock lets a node take writes |
//! | `gatekeeper.rs` | whether it may acknowledge writes, and its way from one era to the next |
//! | `switching.rs` | the steps of a switch, as the thread takes them |
//! | `quarantine.rs` | which of its writes this node has set aside, since the cluster went on without them |
//! | `set_aside.rs` | those writes, page by page, for who asks |
//! | `inbox.rs` | what comes from other nodes, on its way in |
//! | `hashes.rs` | the hash of what was stored when an era began, read while it goes on |
//! | `recent.rs` | runs that were synced lately, in memory, for those who follow closely |
//! | `view.rs` | what the thread shows to everyone else |
//! | `waiting.rs` | what callers wait for: other members that have a write, a session that is to be shown no less |
//! | `records.rs` | what members ask each other for reads of a majority |
//! | `wire.rs` | what nodes say to each other about it |
//!
//! What is decided is decided in `rdb_core::eventual`; here are the effects.

pub(crate) mod copy;
mod driver;
mod ends;
pub(crate) mod fuzzed;
mod gatekeeper;
mod guard;
mod hashes;
mod inbox;
mod keeping;
pub(crate) mod kept;
pub(crate) mod quarantine;
mod recent;
pub(crate) mod records;
mod replica;
pub(crate) mod set_aside;
mod switching;
mod view;
pub(crate) mod waiting;
pub(crate) mod wire;

pub(crate) use driver::{Driver, Parts};
pub(crate) use gatekeeper::{Left, Reached, epochs_in};
pub(crate) use inbox::Inbox;
pub(crate) use view::Shown;

use crate::budget::Share;
use crate::waiter::WriteWaiter;
use arc_swap::ArcSwap;
use bytes::Bytes;
use rdb_core::command::Encoded;
use rdb_core::eventual::buckets::Buckets;
use rdb_core::eventual::run::Run;
use rdb_core::ids::{Era, Index, NamespaceId, NodeId, RegionId, Term};
use rdb_core::switch::{self, Control, Descriptor, Marker};
use rdb_core::version::Hlc;
use rdb_pd::Settings;
use rdb_queue::{Receiver, Sender};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Everything that can happen to the thread.
pub(crate) enum Event {
    /// A region is here, or has entered an era by this entry.
    Open { opening: Opening, entered: Option<Entry> },
    /// What the catalog says of some regions' modes.
    Heard { descriptors: Vec<(RegionId, Arc<Descriptor>)> },
    /// A region's log has come to a marker that ends an eventual era. `reached` is called once this node has all that goes on
    /// into the next one, and takes no more.
    Marker { region: RegionId, marker: Marker, index: Index, reached: Reached },
    /// A snapshot of a later era is about to replace a region's data. `left` is called once what this node alone has is set aside.
    Leave { region: RegionId, offered: switch::Region, left: Left },
    /// The hashes of what a region had stored when its era began here.
    Hashed { region: RegionId, era: Era, stored: Box<Buckets> },
    /// Something of a copy, or of a comparison of replicas, of a region in this era.
    Copy { region: RegionId, era: Era, arrived: copy::Arrived },
    /// A region goes. `done` is called once nothing of it is written any more.
    Close { region: RegionId, done: Box<dyn FnOnce() + Send> },
    /// Writes to accept: puts, deletes and batches of them.
    Write { region: RegionId, commands: Encoded, waiter: WriteWaiter },
    /// Runs of another node, with the share of its budget that they take, and whether it waits for this node to have them.
    Runs { from: NodeId, region: RegionId, runs: Vec<(Run, Bytes)>, awaited: bool, share: Share },
    /// What another node says that it has.
    Reports { from: NodeId, reports: Vec<wire::Said> },
    /// What was sent to a node lately may be lost.
    Lost { peer: NodeId },
    /// The oldest log write of a region that is under way is synced, and with it the clock's mark and the record of the gate that
    /// it carried.
    Synced { region: RegionId, era: Era, mark: Option<Hlc>, control: Option<Control> },
    /// End the thread.
    Stop,
}

/// A region, as it is opened.
pub(crate) struct Opening {
    pub(crate) region: RegionId,
    pub(crate) namespace: NamespaceId,
    pub(crate) members: Vec<NodeId>,
    /// What its namespace was created with.
    pub(crate) settings: Settings,
    /// As the region's own log has it.
    pub(crate) mode: switch::Region,
}

/// The entry by which a region has entered its era.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) place: (Index, Term),
    /// Whether this node enters the era for the first time. At a start it enters eras again.
    pub(crate) is_new: bool,
}

/// The way to the thread, and what it shows. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Eventual {
    events: Sender<Event>,
    shown: Arc<ArcSwap<BTreeMap<RegionId, Arc<Shown>>>>,
}

impl Eventual {
    /// The way to a thread that is to be given the other end. It has no bound of its own: what posts to it has.
    pub(crate) fn new() -> (Self, Receiver<Event>) {
        let (events, receiver) = rdb_queue::unbounded();
        (Self { events, shown: Arc::default() }, receiver)
    }

    /// Posts `event`. A thread that has ended drops it, and what waits for it is told so.
    pub(crate) fn post(&self, event: Event) {
        drop(self.events.send(event));
    }

    /// What is shown of a region, if this node has it in eventual mode.
    pub(crate) fn shown(&self, region: RegionId) -> Option<Arc<Shown>> {
        self.shown.load().get(&region).cloned()
    }

    /// The same, if it is of this era. What is shown of an earlier one stays until the thread has come to the later one, and the data
    /// may be in that before.
    pub(crate) fn shown_in(&self, region: RegionId, era: Era) -> Option<Arc<Shown>> {
        self.shown(region).filter(|shown| shown.era() == era)
    }

    /// Shows a region that is about to be opened in an era that begins: its data is what readers may see, since nothing was
    /// written in that era.
    pub(crate) fn announce(&self, region: RegionId, era: Era) {
        self.show(|all| drop(all.insert(region, Shown::of(era))));
    }

    /// Shows nothing of a region's earlier eras any more. The raft loop may have announced a later one by now.
    pub(crate) fn hide_before(&self, region: RegionId, era: Era) {
        self.show(|all| {
            if all.get(&region).is_some_and(|shown| shown.era() < era) {
                all.remove(&region);
            }
        });
    }

    /// All regions in eventual mode.
    pub(crate) fn all(&self) -> Arc<BTreeMap<RegionId, Arc<Shown>>> {
        self.shown.load_full()
    }

    /// Two threads do this: the raft loop, which announces, and the thread.
    fn show(&self, change: impl Fn(&mut BTreeMap<RegionId, Arc<Shown>>)) {
        self.shown.rcu(|all| {
            let mut all = BTreeMap::clone(all);
            change(&mut all);
            all
        });
    }
}

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
//! | `replica.rs` | one region: what is under way, and what comes of it |
//! | `replica/settling.rs` | which losses are certain |
//! | `replica/purging.rs` | tombstones that nobody needs any more |
//! | `recent.rs` | runs that were synced lately, in memory, for those who follow closely |
//! | `view.rs` | what the thread shows to everyone else |
//! | `wire.rs` | what nodes say to each other about it |
//!
//! What is decided is decided in `rdb_core::eventual`; here are the effects.

mod driver;
mod recent;
mod replica;
mod view;
pub(crate) mod wire;

pub(crate) use driver::{Driver, Parts};
pub(crate) use view::Shown;

use crate::budget::Share;
use crate::waiter::WriteWaiter;
use arc_swap::ArcSwap;
use crossbeam_channel::{Receiver, Sender};
use rdb_core::command::Encoded;
use rdb_core::eventual::run::Run;
use rdb_core::ids::{Era, NamespaceId, NodeId, RegionId};
use rdb_core::version::Hlc;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Everything that can happen to the thread.
pub(crate) enum Event {
    /// A region in eventual mode is here.
    Open { region: RegionId, namespace: NamespaceId, members: Vec<NodeId>, era: Era },
    /// A region goes. `done` is called once nothing of it is written any more.
    Close { region: RegionId, done: Box<dyn FnOnce() + Send> },
    /// Writes to accept: puts, deletes and batches of them.
    Write { region: RegionId, commands: Encoded, waiter: WriteWaiter },
    /// Runs of another node, with the share of its budget that they take.
    Runs { region: RegionId, runs: Vec<Run>, share: Share },
    /// What another node says that it has.
    Reports { from: NodeId, reports: Vec<wire::Said> },
    /// What was sent to a node lately may be lost.
    Lost { peer: NodeId },
    /// The oldest log write of a region that is under way is synced, and with it the clock's mark that it carried.
    Synced { region: RegionId, mark: Option<Hlc> },
    /// End the thread.
    Stop,
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
        let (events, receiver) = crossbeam_channel::unbounded();
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

    /// All regions in eventual mode.
    pub(crate) fn all(&self) -> Arc<BTreeMap<RegionId, Arc<Shown>>> {
        self.shown.load_full()
    }

    fn show(&self, change: impl FnOnce(&mut BTreeMap<RegionId, Arc<Shown>>)) {
        let mut all = BTreeMap::clone(&self.shown.load());
        change(&mut all);
        self.shown.store(Arc::new(all));
    }
}

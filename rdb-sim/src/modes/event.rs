//! What happens in a world. What belongs to one start of a node carries its incarnation: it dies with that start.

use super::clients::{Reply, Request};
use super::copies::Sent;
use super::snapshots::Snapshot;
use crate::event::{Fault, Happening, describe_message};
use crate::snapshot::Sender;
use rdb_core::eventual::peers;
use rdb_core::ids::{Era, NodeId};
use rdb_core::raft::{Fetch, Message, SendSnapshot};
use rdb_core::switch::{Change, Report, Vector};
use std::rc::Rc;

/// What travels between nodes.
#[derive(Debug, Clone)]
pub(super) enum Parcel {
    /// Between replicas of the region's log.
    Raft(Box<Message>),
    /// A run of an origin's log.
    Run(Rc<Vec<u8>>),
    /// A run was not taken in.
    Refused,
    /// What a node has of the origins' writes.
    Has(Box<peers::Report>),
    /// What a node tells whoever is the controller, and the era of its region.
    Switch(Vec<Report>, Era),
    /// What became of a snapshot.
    Taken(Sender, bool),
    /// A replica's data.
    Snapshot(Rc<Snapshot>),
    /// The sender, which has synced so much in this era, cannot serve the receiver from its logs.
    GivenUp(Era, Box<Vector>),
    /// A page of a copy of the receiver, by the copy's name and its number.
    WantsPage(Era, u64, u64),
    /// Such a page.
    Page(Rc<Sent>),
}

#[derive(Debug)]
pub(super) enum Event {
    Deliver {
        from: NodeId,
        to: NodeId,
        parcel: Parcel,
    },
    Turn {
        node: NodeId,
        incarnation: u64,
    },
    Tick {
        node: NodeId,
        incarnation: u64,
    },
    /// A log writer's sync is done.
    Synced {
        node: NodeId,
        incarnation: u64,
    },
    /// The applier of the region's log is done with some entries.
    Applied {
        node: NodeId,
        incarnation: u64,
    },
    /// Synced runs are merged.
    Merged {
        node: NodeId,
        incarnation: u64,
    },
    /// A page of a copy is merged.
    PageMerged {
        node: NodeId,
        incarnation: u64,
    },
    Fetched {
        node: NodeId,
        incarnation: u64,
        fetch: Box<Fetch>,
    },
    Flush {
        node: NodeId,
        incarnation: u64,
    },
    Upkeep {
        node: NodeId,
        incarnation: u64,
    },
    Request {
        node: NodeId,
        request: Box<Request>,
    },
    Reply {
        client: usize,
        attempt: u64,
        reply: Box<Reply>,
    },
    /// A client waited long enough.
    Impatient {
        client: usize,
        attempt: u64,
    },
    Wake {
        client: usize,
        attempt: u64,
    },
    /// A step reaches the catalog.
    Change {
        change: Box<Change>,
    },
    /// A node hears what the catalog said.
    Hear {
        node: NodeId,
        incarnation: u64,
        said: usize,
    },
    /// An operator does something.
    Operate,
    Fault(Fault),
    /// A node reads the region's data, to send it.
    SnapshotRead {
        node: NodeId,
        incarnation: u64,
        number: u64,
        wanted: Box<SendSnapshot>,
    },
    /// A node has waited long enough for what becomes of a snapshot.
    SnapshotGivenUp {
        node: NodeId,
        incarnation: u64,
        number: u64,
    },
    /// A node replaces the region's data by a snapshot's.
    Replace {
        node: NodeId,
        incarnation: u64,
    },
    /// A node loses power, or all do, at a moment that was chosen for what goes on there.
    Crash {
        node: NodeId,
        incarnation: u64,
        all: bool,
    },
    Heal {
        from: NodeId,
        to: NodeId,
        cut: u64,
    },
    Restart {
        node: NodeId,
    },
    Resume {
        node: NodeId,
        incarnation: u64,
    },
}

impl Event {
    /// For whose process this is, if it waits while that is stopped.
    pub(super) fn waits_for(&self) -> Option<NodeId> {
        match self {
            Event::Deliver { to: node, .. }
            | Event::Turn { node, .. }
            | Event::Synced { node, .. }
            | Event::Applied { node, .. }
            | Event::Merged { node, .. }
            | Event::PageMerged { node, .. }
            | Event::Fetched { node, .. }
            | Event::Flush { node, .. }
            | Event::Upkeep { node, .. }
            | Event::Request { node, .. }
            | Event::SnapshotRead { node, .. }
            | Event::SnapshotGivenUp { node, .. }
            | Event::Replace { node, .. }
            | Event::Hear { node, .. } => Some(*node),
            _ => None,
        }
    }
}

impl Happening for Event {
    fn describe(&self) -> String {
        match self {
            Event::Deliver { to, parcel: Parcel::Raft(message), .. } => {
                format!("deliver to {to} {}", describe_message(message))
            }
            Event::Deliver { from, to, parcel: Parcel::Snapshot(snapshot) } => {
                format!("deliver from {from} to {to} a snapshot of era {}", snapshot.region.era())
            }
            other => format!("{other:?}"),
        }
    }

    fn numbers(&self) -> [u64; 4] {
        match self {
            Event::Deliver { from, to, parcel } => {
                let (kind, more) = parcel.numbers();
                [200 + kind, from.0, to.0, more]
            }
            Event::Turn { node, incarnation } => [1, node.0, *incarnation, 0],
            Event::Tick { node, incarnation } => [2, node.0, *incarnation, 0],
            Event::Synced { node, incarnation } => [3, node.0, *incarnation, 0],
            Event::Applied { node, incarnation } => [4, node.0, *incarnation, 0],
            Event::Merged { node, incarnation } => [5, node.0, *incarnation, 0],
            Event::Fetched { node, incarnation, fetch } => [6, node.0, *incarnation, fetch.low],
            Event::Flush { node, incarnation } => [7, node.0, *incarnation, 0],
            Event::Upkeep { node, incarnation } => [8, node.0, *incarnation, 0],
            Event::Request { node, request } => [9, node.0, request.client as u64, request.attempt],
            Event::Reply { client, attempt, .. } => [10, *client as u64, *attempt, 0],
            Event::Impatient { client, attempt } => [11, *client as u64, *attempt, 0],
            Event::Wake { client, attempt } => [12, *client as u64, *attempt, 0],
            Event::Change { change } => [13, change.epoch.0, change.switch.0, change.phase as u64],
            Event::Hear { node, incarnation, said } => [14, node.0, *incarnation, *said as u64],
            Event::Operate => [15, 0, 0, 0],
            Event::Fault(fault) => [16, *fault as u64, 0, 0],
            Event::Crash { node, incarnation, all } => [17, node.0, *incarnation, u64::from(*all)],
            Event::Heal { from, to, cut } => [18, from.0, to.0, *cut],
            Event::Restart { node } => [19, node.0, 0, 0],
            Event::Resume { node, incarnation } => [20, node.0, *incarnation, 0],
            Event::SnapshotRead { node, number, .. } => [21, node.0, *number, 0],
            Event::SnapshotGivenUp { node, number, .. } => [22, node.0, *number, 0],
            Event::Replace { node, incarnation } => [23, node.0, *incarnation, 0],
            Event::PageMerged { node, incarnation } => [24, node.0, *incarnation, 0],
        }
    }
}

impl Parcel {
    fn numbers(&self) -> (u64, u64) {
        match self {
            Parcel::Raft(message) => (0, message.term ^ message.index.rotate_left(32)),
            Parcel::Run(bytes) => (1, bytes.len() as u64),
            Parcel::Refused => (2, 0),
            Parcel::Has(report) => (3, report.promise.0),
            Parcel::Switch(reports, era) => (4, u64::from(era.0) << 32 | reports.len() as u64),
            Parcel::Taken(sender, taken) => (5, sender.number << 1 | u64::from(*taken)),
            Parcel::Snapshot(snapshot) => (6, u64::from(snapshot.region.era().0)),
            Parcel::GivenUp(era, _) => (7, u64::from(era.0)),
            Parcel::WantsPage(_, name, page) => (8, name ^ page),
            Parcel::Page(sent) => (9, sent.number()),
        }
    }
}

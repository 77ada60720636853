//! What happens in a world, and when: a queue ordered by time, and by age where times are equal.

use crate::clients::{Reply, Request};
use crate::options::Micros;
use crate::snapshot::{Parcel, Sender};
use rdb_core::ids::{NodeId, RegionId};
use rdb_core::raft::{Fetch, Message, SendSnapshot};
use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

/// Something that happens. What belongs to one start of a node carries its incarnation: it dies with that start.
#[derive(Debug)]
pub(crate) enum Event {
    /// A message between replicas arrives.
    Deliver { to: NodeId, region: RegionId, message: Box<Message> },
    /// A node handles what came in since its last turn.
    Turn { node: NodeId, incarnation: u64 },
    /// A node's ticker fires.
    Tick { node: NodeId, incarnation: u64 },
    /// A log writer's sync is done.
    Synced { node: NodeId, incarnation: u64 },
    /// An applier is done with its batch.
    Applied { node: NodeId, incarnation: u64, region: RegionId },
    /// Old entries were read for a follower.
    Fetched { node: NodeId, incarnation: u64, region: RegionId, fetch: Box<Fetch> },
    /// A client's request reaches a node.
    Request { node: NodeId, request: Box<Request> },
    /// An answer reaches a client.
    Reply { client: usize, attempt: u64, reply: Reply },
    /// A client waited long enough.
    Impatient { client: usize, attempt: u64 },
    /// A client begins or tries again.
    Wake { client: usize, attempt: u64 },
    /// A node flushes some of its data.
    Flush { node: NodeId, incarnation: u64 },
    /// A node looks whether its logs can be shortened.
    Shorten { node: NodeId, incarnation: u64 },
    /// A node reads a region's data, to send it.
    SnapshotRead { node: NodeId, incarnation: u64, number: u64, wanted: Box<SendSnapshot> },
    /// A node looks whether a snapshot that it sends is still wanted.
    SnapshotLook { node: NodeId, incarnation: u64, number: u64 },
    /// A snapshot has come, and its files are synced.
    SnapshotCame { parcel: Box<Parcel> },
    /// What became of a snapshot reaches its sender.
    SnapshotOutcome { sender: Sender, taken: bool },
    /// A node goes on taking in a snapshot.
    Install { node: NodeId, incarnation: u64, region: RegionId, step: InstallStep },
    /// A node goes on destroying a region's data.
    End { node: NodeId, incarnation: u64, region: RegionId, step: EndStep },
    /// Somebody creates or deletes a namespace.
    Garden { attempt: u64 },
    /// A node loses power, or all do, at a moment that was chosen for what goes on there.
    Crash { node: NodeId, incarnation: u64, all: bool },
    /// A fault of this kind strikes.
    Fault(Fault),
    /// A leader is cut off, after its links have filled up.
    Isolate { leader: NodeId, deaf: bool, length: Micros },
    /// A cut link heals.
    Heal { from: NodeId, to: NodeId, cut: u64 },
    /// A node without power gets it back.
    Restart { node: NodeId },
    /// A stopped process goes on.
    Resume { node: NodeId, incarnation: u64 },
}

/// What a node does to take in a snapshot, besides its writes to the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InstallStep {
    /// The applier lets go of the data.
    Release,
    /// The data is replaced.
    Replace,
}

/// What a node does to destroy a region's data, besides its writes to the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EndStep {
    /// The applier applies what was committed, and removes the data.
    Remove,
    /// All data is brought to safety.
    Flush,
}

/// The kinds of faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Crash,
    PowerCut,
    Partition,
    IsolateLeader,
    CongestLeader,
    OneWay,
    Pause,
    Stall,
    ClockStep,
    Transfer,
}

impl Fault {
    pub(crate) const ALL: [Fault; 10] = [
        Fault::Crash,
        Fault::PowerCut,
        Fault::Partition,
        Fault::IsolateLeader,
        Fault::CongestLeader,
        Fault::OneWay,
        Fault::Pause,
        Fault::Stall,
        Fault::ClockStep,
        Fault::Transfer,
    ];
}

impl Happening for Event {
    fn describe(&self) -> String {
        match self {
            Event::Deliver { to, region, message } => {
                format!("deliver to {to} region {region} {}", describe_message(message))
            }
            Event::SnapshotCame { parcel } => format!(
                "snapshot {:?} comes to {} region {} {}",
                parcel.sender,
                parcel.to,
                parcel.region,
                describe_message(&parcel.message)
            ),
            other => format!("{other:?}"),
        }
    }

    fn numbers(&self) -> [u64; 4] {
        match self {
            Event::Deliver { to, region, message: m } => {
                let kind = u64::from(m.msg_type.unsigned_abs());
                [kind << 32 | region.0, to.0 << 32 | m.from, m.term, m.index ^ m.commit.rotate_left(32)]
            }
            Event::Turn { node, incarnation } => [101, node.0, *incarnation, 0],
            Event::Tick { node, incarnation } => [102, node.0, *incarnation, 0],
            Event::Synced { node, incarnation } => [103, node.0, *incarnation, 0],
            Event::Applied { node, incarnation, region } => [104, node.0, *incarnation, region.0],
            Event::Fetched { node, incarnation, fetch, .. } => [105, node.0, *incarnation, fetch.low],
            Event::Request { node, request } => [106, node.0, request.client as u64, request.attempt],
            Event::Reply { client, attempt, .. } => [107, *client as u64, *attempt, 0],
            Event::Impatient { client, attempt } => [108, *client as u64, *attempt, 0],
            Event::Wake { client, attempt } => [109, *client as u64, *attempt, 0],
            Event::Flush { node, incarnation } => [110, node.0, *incarnation, 0],
            Event::Shorten { node, incarnation } => [111, node.0, *incarnation, 0],
            Event::Fault(fault) => [112, *fault as u64, 0, 0],
            Event::Heal { from, to, cut } => [113, from.0, to.0, *cut],
            Event::Restart { node } => [114, node.0, 0, 0],
            Event::Resume { node, incarnation } => [115, node.0, *incarnation, 0],
            Event::SnapshotRead { node, incarnation, number, .. } => [116, node.0, *incarnation, *number],
            Event::SnapshotLook { node, incarnation, number } => [117, node.0, *incarnation, *number],
            Event::SnapshotCame { parcel } => [118, parcel.to.0, parcel.region.0, parcel.sender.number],
            Event::SnapshotOutcome { sender, taken } => {
                [119, sender.node.0, sender.number, u64::from(*taken)]
            }
            Event::Isolate { leader, deaf, length } => [123, leader.0, u64::from(*deaf), *length],
            Event::Garden { attempt } => [124, *attempt, 0, 0],
            Event::End { node, incarnation, region, step } => {
                [125 + *step as u64, node.0, *incarnation, region.0]
            }
            Event::Crash { node, incarnation, all } => [120, node.0, *incarnation, u64::from(*all)],
            Event::Install { node, incarnation, region, step } => {
                [121 + *step as u64, node.0, *incarnation, region.0]
            }
        }
    }
}

pub(crate) fn describe_message(message: &Message) -> String {
    let reject = if message.reject { " reject" } else { "" };
    let snapshot = message.snapshot.as_ref().map_or_else(String::new, |snapshot| {
        let metadata = snapshot.get_metadata();
        format!(" of {}@{}", metadata.index, metadata.term)
    });
    format!(
        "{:?} from {} term {} log_term {} index {} commit {} entries {}{snapshot}{reject}",
        message.msg_type(),
        message.from,
        message.term,
        message.log_term,
        message.index,
        message.commit,
        message.entries.len(),
    )
}

/// What a trace records of whatever happens.
pub(crate) trait Happening {
    /// A line for a trace, and all that its hash sees.
    fn describe(&self) -> String;
    /// Numbers that tell this event from others, for the trace's hash.
    fn numbers(&self) -> [u64; 4];
}

/// The future.
#[derive(Debug)]
pub(crate) struct Queue<E> {
    heap: BinaryHeap<Reverse<Due<E>>>,
    sequence: u64,
}

#[derive(Debug)]
struct Due<E> {
    at: Micros,
    sequence: u64,
    event: E,
}

impl<E> Default for Queue<E> {
    fn default() -> Self {
        Self { heap: BinaryHeap::new(), sequence: 0 }
    }
}

impl<E> Queue<E> {
    pub(crate) fn push(&mut self, at: Micros, event: E) {
        self.sequence += 1;
        self.heap.push(Reverse(Due { at, sequence: self.sequence, event }));
    }

    /// The next event, if it happens before `end`.
    pub(crate) fn pop_before(&mut self, end: Micros) -> Option<(Micros, E)> {
        if end <= self.heap.peek()?.0.at {
            return None;
        }
        self.heap.pop().map(|Reverse(due)| (due.at, due.event))
    }
}

impl<E> Ord for Due<E> {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.sequence).cmp(&(other.at, other.sequence))
    }
}

impl<E> PartialOrd for Due<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> PartialEq for Due<E> {
    fn eq(&self, other: &Self) -> bool {
        self.sequence == other.sequence
    }
}

impl<E> Eq for Due<E> {}

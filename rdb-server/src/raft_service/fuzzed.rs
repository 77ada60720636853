//! Frames of peers, from the bytes that came to what is posted for the node's threads, for `rdb-fuzz`.

use super::*;
use crate::clocks::WallClock;
use prost::Message as _;
use rdb_storage::Chunk;
use std::sync::OnceLock;

/// Whose connection it is.
const FROM: NodeId = NodeId(2);

/// Takes frames as a connection does once its handshake was good, up to the first one that it would end at. How many it took.
pub fn peer_frames<'b>(frames: impl Iterator<Item = &'b [u8]>) -> usize {
    let (mailbox, events) = Mailbox::new();
    let (eventual, runs_and_reports) = Eventual::new();
    let connection = incoming(mailbox, eventual);
    let (mut joining, mut joining_runs) = (Joining::default(), Joining::default());
    let taken = frames.take_while(|bytes| {
        let decoded = PeerFrame::decode(*bytes).ok().and_then(|frame| frame.frame);
        let taken =
            decoded.is_some_and(|frame| connection.take(frame, (&mut joining, &mut joining_runs)).is_ok());
        // What waits is what has a share of the connection's memory.
        std::iter::from_fn(|| events.next()).for_each(drop);
        runs_and_reports.try_iter().for_each(drop);
        taken
    });
    taken.count()
}

fn incoming(mailbox: Mailbox, eventual: Eventual) -> Incoming {
    static METRICS: OnceLock<Arc<Metrics>> = OnceLock::new();
    let metrics = METRICS.get_or_init(|| Arc::new(Metrics::new())).clone();
    let (budget, disk) = (Budget::new(INCOMING_BYTES_MAX), Disk::default());
    let (alarm, _) = switch::Alarm::new();
    let runs = Inbox { eventual: eventual.clone(), disk, budget: budget.clone(), metrics: metrics.clone() };
    Incoming {
        from: FROM,
        process: 1,
        peers: Peers::new([FROM].into_iter(), &BTreeMap::new()),
        catalog: CatalogCell::default(),
        mailbox,
        eventual,
        standings: Standings::new(alarm),
        cuts: Cuts::new(false),
        clocks: Clocks::start(WallClock::default(), [FROM].into_iter()),
        metrics,
        budget,
        runs,
    }
}

/// Reads a frame of a snapshot's connection, and what it carries.
pub fn snapshot_frame(bytes: &[u8]) -> bool {
    match SnapshotFrame::decode(bytes).ok().and_then(|frame| frame.frame) {
        Some(snapshot_frame::Frame::Begin(begin)) => Message::decode(begin.message).is_ok(),
        Some(snapshot_frame::Frame::Chunk(chunk)) => Chunk::decode(&chunk.bytes).is_ok(),
        Some(snapshot_frame::Frame::End(_)) => true,
        None => false,
    }
}

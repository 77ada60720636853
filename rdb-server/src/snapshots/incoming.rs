//! Takes in snapshots that leaders send: the parts go to files on a thread of their own, and when all have come the
//! raft loop is told. What has come outlives its connection for a while, so that the sender can go on with it.

use crate::disk::{Disk, Room};
use crate::faults::Cuts;
use crate::mailbox::{Event, Mailbox};
use crate::regions::Regions;
use crate::shared::CatalogCell;
use crate::snapshots::{Installer, Staged};
use fail::fail_point;
use parking_lot::Mutex;
use raft_prost::Message as _;
use rdb_core::ids::{NamespaceId, NodeId, RegionId};
use rdb_core::raft::Message;
use rdb_proto::internal::v1::snapshot_frame::Frame;
use rdb_proto::internal::v1::snapshot_reply::Reply;
use rdb_proto::internal::v1::{
    SnapshotBegin, SnapshotChunk, SnapshotDone, SnapshotEnd, SnapshotFrame, SnapshotHave, SnapshotReply,
};
use rdb_storage::{Chunk, Incoming, SnapshotInbox, StagedSnapshot};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tonic::{Status, Streaming};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// Parts that wait for the disk.
const PARTS_WAITING_MAX: usize = 4;
/// How long what has come waits for its sender to connect again, and a part for the disk.
const PATIENCE: Duration = Duration::from_secs(15);
/// Snapshots that come at the same time. More are refused, and tried again.
const INBOUND_MAX: usize = 4;

/// A snapshot that has come, on its way to the raft loop. Whoever sent it waits for the answer.
pub(crate) struct Arrived {
    pub(crate) staged: Staged,
    /// Nothing, once the region's data is the snapshot's; else why it is not.
    pub(crate) answer: oneshot::Sender<Result<(), String>>,
}

/// The snapshots that are coming. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Inbound {
    pub(crate) inbox: SnapshotInbox,
    pub(crate) regions: Regions,
    pub(crate) catalog: CatalogCell,
    pub(crate) mailbox: Mailbox,
    disk: Disk,
    installer: Installer,
    cuts: Cuts,
    transfers: Arc<Mutex<Kept<Transfer>>>,
    slots: Arc<Semaphore>,
}

/// One of them. While a connection brings it forward, that has it; in between it is among [`Inbound::transfers`].
struct Transfer {
    id: u64,
    have: u64,
    checksums: Xxh3,
    parts: mpsc::Sender<Incoming>,
    staged: oneshot::Receiver<Result<StagedSnapshot, String>>,
    _slot: OwnedSemaphorePermit,
}

impl Inbound {
    pub(crate) fn new(
        inbox: SnapshotInbox,
        regions: Regions,
        catalog: CatalogCell,
        mailbox: Mailbox,
        disk: Disk,
        installer: Installer,
        cuts: Cuts,
    ) -> Self {
        let slots = Arc::new(Semaphore::new(INBOUND_MAX));
        Self { inbox, regions, catalog, mailbox, disk, installer, cuts, transfers: Arc::default(), slots }
    }

    /// Serves one connection, whose handshake was good, until the snapshot has come and was taken in or refused.
    pub(crate) async fn serve(
        self,
        from: NodeId,
        begin: SnapshotBegin,
        mut frames: Streaming<SnapshotFrame>,
        replies: mpsc::Sender<Result<SnapshotReply, Status>>,
    ) {
        let served = self.receive(from, &begin, &mut frames, &replies).await;
        let reply = match served {
            Ok(reply) => Ok(SnapshotReply { reply: Some(Reply::Done(reply)) }),
            Err(status) => Err(status),
        };
        let _ = replies.send(reply).await;
    }

    async fn receive(
        &self,
        from: NodeId,
        begin: &SnapshotBegin,
        frames: &mut Streaming<SnapshotFrame>,
        replies: &mpsc::Sender<Result<SnapshotReply, Status>>,
    ) -> Result<SnapshotDone, Status> {
        let region = RegionId(begin.region);
        let message = Message::decode(begin.message.clone())
            .map_err(|error| Status::invalid_argument(format!("the snapshot's message: {error}")))?;
        let mut transfer = match self.resume(from, begin) {
            Some(transfer) => transfer,
            None => match self.begin(region, begin) {
                Ok(transfer) => transfer,
                Err(reason) => return Ok(SnapshotDone { taken: false, reason }),
            },
        };
        loop {
            let have = SnapshotHave { chunks: transfer.have };
            let next = tokio::time::timeout(PATIENCE, async {
                self.cuts.until_open_to(from).await;
                let reply = SnapshotReply { reply: Some(Reply::Have(have)) };
                replies.send(Ok(reply)).await.ok()?;
                let frame = frames.message().await;
                self.cuts.until_open_from(from).await;
                frame.ok()?
            });
            let Ok(Some(SnapshotFrame { frame: Some(frame) })) = next.await else {
                self.keep(from, region, transfer);
                return Err(Status::unavailable("the connection was lost"));
            };
            match frame {
                Frame::Chunk(_) if self.disk.room() == Room::Gone => {
                    let reason = "the receiver's disk has filled up".to_owned();
                    return Ok(SnapshotDone { taken: false, reason });
                }
                Frame::Chunk(chunk) => transfer.take(chunk).await?,
                Frame::End(end) => {
                    let staged = transfer.finish(&end).await?;
                    return Ok(self.hand_over(from, region, message, staged).await);
                }
                Frame::Begin(_) => return Err(Status::failed_precondition("a second beginning")),
            }
        }
    }

    /// What another connection has brought of the same snapshot.
    fn resume(&self, from: NodeId, begin: &SnapshotBegin) -> Option<Transfer> {
        let transfer = self.transfers.lock().take((from, RegionId(begin.region)))?;
        (transfer.id == begin.id).then_some(transfer)
    }

    fn keep(&self, from: NodeId, region: RegionId, transfer: Transfer) {
        let (place, until) = ((from, region), Instant::now() + PATIENCE);
        self.transfers.lock().keep(place, transfer, until);
        let transfers = self.transfers.clone();
        tokio::spawn(async move {
            tokio::time::sleep_until(until.into()).await;
            let late = transfers.lock().take_late(place, until);
            // Without the lock: its thread removes what it has written.
            drop(late);
        });
    }

    /// Starts a thread that writes what comes.
    fn begin(&self, region: RegionId, begin: &SnapshotBegin) -> Result<Transfer, String> {
        let namespace = self.namespace(region).filter(|namespace| namespace.0 == begin.namespace);
        let namespace = namespace.ok_or("the region is not on this node yet, or no longer")?;
        if self.disk.room() != Room::Enough {
            return Err(
                "the receiver's disk is nearly full; it is tried again until there is room".to_owned()
            );
        }
        let slot = self.slots.clone().try_acquire_owned();
        let slot = slot.map_err(|_| "other snapshots are coming; try again later")?;
        let (parts, mut coming) = mpsc::channel(PARTS_WAITING_MAX);
        let (done, staged) = oneshot::channel();
        let (inbox, id) = (self.inbox.clone(), begin.id);
        let write = move || {
            let mut next = || coming.blocking_recv().unwrap_or(Incoming::Aborted);
            let received = inbox.receive(region, namespace, &mut next);
            let received = received.map_err(|error| error.to_string());
            drop(done.send(received.and_then(|staged| staged.ok_or("it was given up".to_owned()))));
        };
        std::thread::Builder::new()
            .name("snapshot-in".to_owned())
            .spawn(write)
            .map_err(|error| format!("no thread for it: {error}"))?;
        Ok(Transfer { id, have: 0, checksums: Xxh3::new(), parts, staged, _slot: slot })
    }

    fn namespace(&self, region: RegionId) -> Option<NamespaceId> {
        self.regions.get(region)?;
        if region == RegionId::META {
            return Some(NamespaceId::META);
        }
        let catalog = self.catalog.load();
        catalog.namespaces().find(|namespace| namespace.region == region).map(|namespace| namespace.id)
    }

    /// Tells the raft loop, and waits until it has taken the snapshot in or has no use for it.
    async fn hand_over(
        &self,
        from: NodeId,
        region: RegionId,
        message: Message,
        staged: StagedSnapshot,
    ) -> SnapshotDone {
        let (answer, answered) = oneshot::channel();
        let arrived = Arrived { staged: self.installer.stage(staged), answer };
        self.mailbox.post(Event::Snapshot { from, region, message: Box::new(message), arrived });
        match answered.await.unwrap_or_else(|_| Err("the region is gone, or the node stops".to_owned())) {
            Ok(()) => SnapshotDone { taken: true, reason: String::new() },
            Err(reason) => SnapshotDone { taken: false, reason },
        }
    }
}

/// What waits for its sender to connect again, each until a moment of its own. A sender may come and go many times with one
/// snapshot: each time it has the whole of its patience.
struct Kept<T>(BTreeMap<(NodeId, RegionId), (T, Instant)>);

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T> Kept<T> {
    fn keep(&mut self, place: (NodeId, RegionId), what: T, until: Instant) {
        self.0.insert(place, (what, until));
    }

    fn take(&mut self, place: (NodeId, RegionId)) -> Option<T> {
        self.0.remove(&place).map(|(what, _)| what)
    }

    /// Takes it out if it was to be kept until `now` at most.
    fn take_late(&mut self, place: (NodeId, RegionId), now: Instant) -> Option<T> {
        let late = self.0.get(&place).is_some_and(|(_, until)| *until <= now);
        if late { self.take(place) } else { None }
    }
}

impl Transfer {
    /// Takes in the next part.
    async fn take(&mut self, SnapshotChunk { number, bytes, checksum }: SnapshotChunk) -> Result<(), Status> {
        if number != self.have {
            return Err(Status::data_loss(format!("part {number} came where {} was to come", self.have)));
        }
        if xxh3_64(&bytes) != checksum {
            return Err(Status::data_loss(format!("part {number} was damaged on its way")));
        }
        let chunk = Chunk::decode(&bytes).map_err(|error| Status::data_loss(error.to_string()))?;
        if self.parts.send(Incoming::Chunk(chunk)).await.is_err() {
            return Err(self.why().await);
        }
        self.checksums.update(&checksum.to_be_bytes());
        self.have += 1;
        Ok(())
    }

    async fn finish(mut self, end: &SnapshotEnd) -> Result<StagedSnapshot, Status> {
        fail_point!("snapshot-before-finish");
        if end.chunks != self.have || end.checksum != self.checksums.digest() {
            return Err(Status::data_loss("not all of the snapshot has come"));
        }
        if self.parts.send(Incoming::End).await.is_err() {
            return Err(self.why().await);
        }
        match self.staged.await {
            Ok(Ok(staged)) => Ok(staged),
            Ok(Err(reason)) => Err(Status::aborted(reason)),
            Err(_) => Err(Status::aborted("the thread that wrote it is gone")),
        }
    }

    /// Why the thread that writes takes no more.
    async fn why(&mut self) -> Status {
        match (&mut self.staged).await {
            Ok(Err(reason)) => Status::aborted(reason),
            _ => Status::aborted("the thread that wrote it is gone"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_taken_up_and_kept_again_is_kept_for_the_whole_time_again() {
        let (place, mut kept) = ((NodeId(2), RegionId(16)), Kept::default());
        let first = Instant::now();
        kept.keep(place, "half of it", first);
        assert_eq!(kept.take(place), Some("half of it"), "its sender has connected again");
        let second = first + PATIENCE;
        kept.keep(place, "more of it", second);
        assert_eq!(kept.take_late(place, first), None, "what ends the first wait ends no other");
        assert_eq!(kept.take_late(place, second), Some("more of it"));
        assert_eq!(kept.take(place), None);
    }
}

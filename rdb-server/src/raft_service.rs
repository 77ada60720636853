//! Messages from other nodes: the handshake, then frames into the mailbox.

pub(crate) mod fuzzed;

use crate::budget::{Budget, Share};
use crate::clocks::Clocks;
use crate::disk::{Disk, Room};
use crate::eventual::{self, Eventual, Inbox};
use crate::faults::Cuts;
use crate::mailbox::{Event, Mailbox};
use crate::metrics::Metrics;
use crate::shared::CatalogCell;
use crate::snapshots::Inbound;
use crate::switch::{self, Standings};
use crate::transport::{
    Directory, Introduction, Links, MESSAGE_BYTES_MAX, PROTOCOL, Peers, Refusal, SILENCE_MAX,
};
use bytes::Bytes;
use parking_lot::Mutex;
use raft_prost::Message as _;
use rdb_core::ids::{NodeId, RegionId};
use rdb_core::raft::{Message, Sleep};
use rdb_proto::internal::v1 as wire;
use rdb_proto::internal::v1::peer_frame::Frame;
use rdb_proto::internal::v1::peer_reply::Reply;
use rdb_proto::internal::v1::{
    Hello, OriginPart, OriginReports, OriginRuns, PeerFrame, PeerReply, Pong, RaftBatch, RaftMessage,
    RaftPart, SleepingRegion, SnapshotFrame, SnapshotReply, SwitchStandings, peer_server, snapshot_frame,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// Bytes of one node's messages that wait for the raft loop. Past it they are dropped, as if the network had.
const INCOMING_BYTES_MAX: usize = 128 << 20;

/// Between two signs of life on one connection.
const ANSWER_INTERVAL: Duration = Duration::from_millis(100);

/// A node that is refused tries again at once and for ever: the same refusal is logged once in so long.
const REFUSAL_TOLD_INTERVAL: Duration = Duration::from_secs(30);

/// Serves other nodes.
pub(crate) struct RaftService {
    introduction: Introduction,
    peers: Peers,
    catalog: CatalogCell,
    mailbox: Mailbox,
    eventual: Eventual,
    standings: Standings,
    disk: Disk,
    cuts: Cuts,
    metrics: Arc<Metrics>,
    inbound: Inbound,
    budgets: BTreeMap<NodeId, Budget>,
    /// The refusal that was logged last, and when.
    refusal: Mutex<Option<(String, Instant)>>,
}

impl RaftService {
    pub(crate) fn new(
        links: Links,
        metrics: Arc<Metrics>,
        inbound: Inbound,
        others: impl Iterator<Item = NodeId>,
    ) -> Self {
        let Links { introduction, peers, catalog, mailbox, eventual, standings, disk, cuts, .. } = links;
        let budgets = others.map(|node| (node, Budget::new(INCOMING_BYTES_MAX))).collect();
        let refusal = Mutex::default();
        Self {
            introduction,
            peers,
            catalog,
            mailbox,
            eventual,
            standings,
            disk,
            cuts,
            metrics,
            inbound,
            budgets,
            refusal,
        }
    }

    fn tell(&self, node: u64, reason: &str) {
        let mut last = self.refusal.lock();
        let told = |(told, at): &(String, Instant)| told == reason && at.elapsed() < REFUSAL_TOLD_INTERVAL;
        if !last.as_ref().is_some_and(told) {
            tracing::warn!(peer = node, reason, "handshake refused");
            *last = Some((reason.to_owned(), Instant::now()));
        }
    }

    async fn admit(&self, hello: &Hello) -> Result<NodeId, Status> {
        // A handshake from behind a cut is not answered, and not taken note of. The caller gives up before this does.
        let whole = self.cuts.until_whole(NodeId(hello.from));
        tokio::time::timeout(2 * SILENCE_MAX, whole)
            .await
            .map_err(|_| Status::deadline_exceeded("cut off by a fault call"))?;
        self.check(hello).map_err(|refusal| {
            self.tell(hello.from, &refusal.reason);
            refusal.into_status()
        })
    }

    /// Who calls, if it is one to listen to.
    fn check(&self, hello: &Hello) -> Result<NodeId, Refusal> {
        let (from, to) = (NodeId(hello.from), NodeId(hello.to));
        let this = &self.introduction;
        if hello.protocol != PROTOCOL {
            return Err(Refusal::of(format!(
                "node {from} speaks protocol {} and node {} speaks {PROTOCOL}: upgrade the older one",
                hello.protocol, this.node
            )));
        }
        if hello.cluster_id != this.cluster_id {
            return Err(Refusal::of(format!(
                "node {from} belongs to the cluster '{}' and node {} to '{}': check cluster_id and the addresses \
                 under [[nodes]]",
                hello.cluster_id, this.node, this.cluster_id
            )));
        }
        if to != this.node {
            return Err(Refusal::of(format!(
                "node {from} wants to speak to node {to}, but this is node {}: check the addresses under [[nodes]]",
                this.node
            )));
        }
        let Hello { store_id, incarnation, log_position, process, .. } = *hello;
        let directory = Directory { store_id, incarnation, log_position, process };
        if self.peers.meet(from, directory, &self.catalog)? {
            self.mailbox.post(Event::Restarted { node: from });
        }
        Ok(from)
    }
}

#[tonic::async_trait]
impl peer_server::Peer for RaftService {
    type ExchangeStream = ReceiverStream<Result<PeerReply, Status>>;

    async fn exchange(
        &self,
        request: Request<Streaming<PeerFrame>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        let mut frames = request.into_inner();
        let Some(Frame::Hello(hello)) = in_time(frames.message()).await? else {
            return Err(Status::failed_precondition("the first frame is not a handshake"));
        };
        let from = self.admit(&hello).await?;
        let (replies, sent) = mpsc::channel(64);
        let welcome = PeerReply { reply: Some(Reply::Welcome(self.introduction.welcome())) };
        // The channel is new and has room.
        let _ = replies.try_send(Ok(welcome));
        let budget = self.budgets.get(&from).cloned().unwrap_or_else(|| Budget::new(0));
        let (eventual, disk, metrics) = (self.eventual.clone(), self.disk.clone(), self.metrics.clone());
        let incoming = Incoming {
            from,
            process: hello.process,
            peers: self.peers.clone(),
            catalog: self.catalog.clone(),
            mailbox: self.mailbox.clone(),
            eventual: self.eventual.clone(),
            standings: self.standings.clone(),
            cuts: self.cuts.clone(),
            clocks: self.introduction.clocks.clone(),
            metrics: self.metrics.clone(),
            runs: Inbox { eventual, disk, budget: budget.clone(), metrics },
            budget,
        };
        tokio::spawn(async move {
            if let Err(status) = incoming.receive(&mut frames, &replies).await {
                tracing::debug!(peer = %from, reason = status.message(), "incoming connection ended");
                drop(replies.try_send(Err(status)));
            }
        });
        Ok(Response::new(ReceiverStream::new(sent)))
    }

    type SnapshotStream = ReceiverStream<Result<SnapshotReply, Status>>;

    async fn snapshot(
        &self,
        request: Request<Streaming<SnapshotFrame>>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        let mut frames = request.into_inner();
        let first = tokio::time::timeout(SILENCE_MAX, frames.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("no handshake within a second"))??;
        let Some(snapshot_frame::Frame::Begin(begin)) = first.and_then(|frame| frame.frame) else {
            return Err(Status::failed_precondition("the first frame is not a handshake"));
        };
        let from = self.admit(begin.hello.as_ref().unwrap_or(&Hello::default())).await?;
        let (replies, sent) = mpsc::channel(64);
        tokio::spawn(self.inbound.clone().serve(from, begin, frames, replies));
        Ok(Response::new(ReceiverStream::new(sent)))
    }
}

fn sleeping(region: &SleepingRegion) -> (RegionId, Sleep) {
    (RegionId(region.region), Sleep { term: region.term, last: region.last })
}

/// A frame; an error when none comes for too long. The peer pings more often than that.
async fn in_time(
    coming: impl Future<Output = Result<Option<PeerFrame>, Status>>,
) -> Result<Option<Frame>, Status> {
    match tokio::time::timeout(SILENCE_MAX, coming).await {
        Ok(frame) => Ok(frame?.and_then(|frame| frame.frame)),
        Err(_) => Err(Status::deadline_exceeded("nothing was heard for a second")),
    }
}

/// One incoming connection.
struct Incoming {
    from: NodeId,
    /// The process that speaks.
    process: u64,
    peers: Peers,
    catalog: CatalogCell,
    mailbox: Mailbox,
    eventual: Eventual,
    standings: Standings,
    cuts: Cuts,
    clocks: Clocks,
    metrics: Arc<Metrics>,
    budget: Budget,
    runs: Inbox,
}

impl Incoming {
    async fn receive(
        &self,
        frames: &mut Streaming<PeerFrame>,
        replies: &mpsc::Sender<Result<PeerReply, Status>>,
    ) -> Result<(), Status> {
        let mut answered = Instant::now();
        let mut pinged = None;
        let (mut joining, mut joining_runs, mut seen) = (Joining::default(), Joining::default(), 0);
        while let Some(frame) = self.next(frames).await? {
            self.peers.recheck(self.from, &self.catalog, &mut seen).map_err(Status::failed_precondition)?;
            self.peers.heard(self.from);
            if let Frame::Ping(ping) = &frame {
                pinged = Some((ping.sent_micros, Instant::now()));
            }
            self.take(frame, (&mut joining, &mut joining_runs))?;
            // Not for pings alone: on a slow link they come late, behind what was sent before them.
            if ANSWER_INTERVAL <= answered.elapsed() && !self.cuts.is_cut_to(self.from) {
                answered = Instant::now();
                // A peer that does not read its answers will find them missing, and connect anew.
                let _ = replies.try_send(Ok(PeerReply { reply: Some(Reply::Pong(self.pong(pinged))) }));
            }
        }
        Ok(())
    }

    /// Takes a frame in. What came of messages and runs that are in parts is in the two that join them.
    fn take(
        &self,
        frame: Frame,
        (joining, joining_runs): (&mut Joining, &mut Joining),
    ) -> Result<(), Status> {
        match frame {
            Frame::Raft(batch) => self.post(batch),
            Frame::Part(part) => self.join(&part, joining),
            Frame::Sleep(sleep) => {
                self.sleep(&sleep);
                Ok(())
            }
            Frame::Runs(OriginRuns { region, runs, awaited }) => self.runs(region, &runs, awaited),
            Frame::RunPart(part) => self.join_run(&part, joining_runs),
            Frame::Reports(reports) => self.reports(&reports),
            Frame::Standings(standings) => self.standings(&standings),
            Frame::Ping(ping) => {
                self.peers.advanced(self.from, self.process, ping.log_position);
                self.peers.has_room(self.from, Room::from_wire(ping.disk));
                self.peers.syncs_in(self.from, ping.slow_sync_ms);
                Ok(())
            }
            Frame::Hello(_) => Err(Status::failed_precondition("a second handshake")),
        }
    }

    /// What the last ping said comes back, so that its sender can tell how old this is.
    fn pong(&self, pinged: Option<(u64, Instant)>) -> Pong {
        let (sent_micros, held) = pinged.map_or((0, Duration::ZERO), |(sent, came)| (sent, came.elapsed()));
        let held_micros = u64::try_from(held.as_micros()).unwrap_or(u64::MAX);
        Pong { sent_micros, held_micros, clock_ms: self.clocks.physical_ms() }
    }

    async fn next(&self, frames: &mut Streaming<PeerFrame>) -> Result<Option<Frame>, Status> {
        in_time(async {
            let frame = frames.message().await;
            self.cuts.until_open_from(self.from).await;
            frame
        })
        .await
    }

    /// Puts a long message together from its parts, which follow each other.
    fn join(&self, part: &RaftPart, joining: &mut Joining) -> Result<(), Status> {
        match joining.add(&part.bytes, part.last, &self.budget)? {
            Joined::NotYet => Ok(()),
            Joined::Whole(message) => {
                let message = RaftMessage { region: part.region, message: message.into() };
                self.post(RaftBatch { messages: vec![message] })
            }
            Joined::Dropped => {
                self.metrics.messages_dropped(1);
                Ok(())
            }
        }
    }

    /// Lost, it does no harm: who does not sleep finds its leader silent, and wakes it.
    fn sleep(&self, sleep: &wire::Sleep) {
        if let Ok(share) = self.budget.take(sleep.regions.len() * size_of::<SleepingRegion>()) {
            let regions = sleep.regions.iter().map(sleeping).collect();
            self.mailbox.post(Event::Sleep { from: self.from, regions, share });
        }
    }

    fn runs(&self, region: u64, runs: &[Bytes], awaited: bool) -> Result<(), Status> {
        let taken = self.runs.take(self.from, RegionId(region), runs, awaited);
        taken.map_err(|error| Status::invalid_argument(error.to_string()))
    }

    /// Puts a long run together from its parts, which follow each other.
    fn join_run(&self, part: &OriginPart, joining: &mut Joining) -> Result<(), Status> {
        match joining.add(&part.bytes, part.last, &self.budget)? {
            Joined::NotYet => Ok(()),
            Joined::Whole(run) => self.runs(part.region, &[run.into()], part.awaited),
            // It is sent again: its sender hears what is here.
            Joined::Dropped => {
                self.metrics.messages_dropped(1);
                Ok(())
            }
        }
    }

    fn reports(&self, reports: &OriginReports) -> Result<(), Status> {
        let reports =
            reports.reports.iter().map(eventual::wire::report_from_wire).collect::<Result<Vec<_>, _>>();
        let reports = reports.map_err(|error| Status::invalid_argument(error.to_string()))?;
        self.eventual.post(eventual::Event::Reports { from: self.from, reports });
        Ok(())
    }

    fn standings(&self, standings: &SwitchStandings) -> Result<(), Status> {
        let read = |standing| switch::wire::from_wire(self.from, standing);
        let standings = standings.standings.iter().map(read).collect::<Result<Vec<_>, _>>();
        for standing in standings.map_err(Status::invalid_argument)? {
            self.standings.put(self.from, standing);
        }
        Ok(())
    }

    fn post(&self, batch: RaftBatch) -> Result<(), Status> {
        let bytes = batch.messages.iter().map(|message| message.message.len() + 64).sum();
        let Ok(share) = self.budget.take(bytes) else {
            self.metrics.messages_dropped(batch.messages.len());
            return Ok(());
        };
        let mut messages = Vec::with_capacity(batch.messages.len());
        for message in batch.messages {
            let decoded = Message::decode(message.message).map_err(|error| {
                Status::invalid_argument(format!("a Raft message cannot be decoded: {error}"))
            })?;
            messages.push((RegionId(message.region), decoded));
        }
        self.mailbox.post_here(Event::Messages { from: self.from, messages, share });
        Ok(())
    }
}

/// What a part takes besides its bytes.
const PART_OVERHEAD_BYTES: usize = 64;

/// A long message or run of which not all parts have come. They take of their sender's budget as those do that wait for the raft
/// loop, or to be logged, over all connections: a sender that never comes to an end must not fill this node's memory.
#[derive(Default)]
struct Joining {
    bytes: Vec<u8>,
    shares: Vec<Share>,
    /// There was no room for a part of it: what comes of it yet is passed over.
    dropped: bool,
}

/// What came of one more part.
#[derive(Debug, PartialEq, Eq)]
enum Joined {
    NotYet,
    Whole(Vec<u8>),
    /// It was the last part of a message for which there was no room.
    Dropped,
}

impl Joining {
    fn add(&mut self, part: &[u8], last: bool, budget: &Budget) -> Result<Joined, Status> {
        if MESSAGE_BYTES_MAX < self.bytes.len() + part.len() {
            return Err(Status::resource_exhausted("a message is too long"));
        }
        if !self.dropped {
            match budget.take(part.len() + PART_OVERHEAD_BYTES) {
                Ok(share) => {
                    self.shares.push(share);
                    self.bytes.extend_from_slice(part);
                }
                Err(_) => *self = Self { dropped: true, ..Self::default() },
            }
        }
        if !last {
            return Ok(Joined::NotYet);
        }
        // The shares are given back here: as a message it takes another one.
        let Self { bytes, dropped, .. } = std::mem::take(self);
        Ok(if dropped { Joined::Dropped } else { Joined::Whole(bytes) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clocks::WallClock;

    fn add(joining: &mut Joining, length: usize, last: bool, budget: &Budget) -> Joined {
        joining.add(&vec![7; length], last, budget).unwrap()
    }

    /// A connection from a node.
    fn incoming(from: NodeId, budget: Budget) -> Incoming {
        let (mailbox, _) = Mailbox::new();
        let (eventual, _) = Eventual::new();
        let (alarm, _) = switch::Alarm::new();
        let (metrics, disk) = (Arc::new(Metrics::new()), Disk::default());
        let runs =
            Inbox { eventual: eventual.clone(), disk, budget: budget.clone(), metrics: metrics.clone() };
        Incoming {
            from,
            process: 1,
            peers: Peers::new([from].into_iter(), &BTreeMap::new()),
            catalog: CatalogCell::default(),
            mailbox,
            eventual,
            standings: Standings::new(alarm),
            cuts: Cuts::new(false),
            clocks: Clocks::start(WallClock::default(), [from].into_iter()),
            metrics,
            budget,
            runs,
        }
    }

    #[test]
    fn parts_of_runs_count_like_those_of_messages() {
        let budget = Budget::new(1000);
        let incoming = incoming(NodeId(2), budget.clone());
        let part = |length, last| {
            let bytes = vec![7; length].into();
            OriginPart { region: 16, bytes, last, awaited: false }
        };
        let (mut one, mut other) = (Joining::default(), Joining::default());
        incoming.join_run(&part(600, false), &mut one).unwrap();
        assert_eq!(budget.used(), 600 + PART_OVERHEAD_BYTES);
        incoming.join_run(&part(600, false), &mut other).unwrap();
        assert_eq!(budget.used(), 600 + PART_OVERHEAD_BYTES, "there is no room for the other one");
        incoming.join_run(&part(10, true), &mut other).unwrap();
        assert!(incoming.join_run(&part(10, true), &mut one).is_err(), "it is whole, and no run");
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn parts_count_until_the_message_is_whole_or_its_connection_ends() {
        let budget = Budget::new(1000);
        let (mut one, mut other) = (Joining::default(), Joining::default());
        assert_eq!(add(&mut one, 300, false, &budget), Joined::NotYet);
        assert_eq!(add(&mut other, 100, false, &budget), Joined::NotYet);
        assert_eq!(budget.used(), 400 + 2 * PART_OVERHEAD_BYTES);
        assert_eq!(add(&mut one, 200, true, &budget), Joined::Whole(vec![7; 500]));
        assert_eq!(budget.used(), 100 + PART_OVERHEAD_BYTES);
        drop(other);
        assert_eq!(budget.used(), 0);
    }

    /// However many connections a sender has, and however short its parts are.
    #[test]
    fn a_message_without_an_end_finds_no_room() {
        let budget = Budget::new(1000);
        let mut connections: Vec<Joining> = (0..100).map(|_| Joining::default()).collect();
        for length in [0, 400] {
            for joining in &mut connections {
                for _ in 0..10 {
                    assert_eq!(add(joining, length, false, &budget), Joined::NotYet);
                }
            }
            let held: usize =
                connections.iter().map(|joining| joining.bytes.len() + joining.shares.len()).sum();
            assert!(held <= 1000 && budget.used() <= 1000, "{held} are held, {} counted", budget.used());
        }
        // Of each the rest is passed over, and nothing of it is taken for the beginning of the next one.
        for joining in &mut connections {
            let ended = add(joining, 1, true, &budget);
            assert!(matches!(ended, Joined::Dropped | Joined::Whole(_)));
        }
        assert_eq!(budget.used(), 0);
        assert_eq!(add(&mut connections[99], 3, true, &budget), Joined::Whole(vec![7; 3]));
    }
}

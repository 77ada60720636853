//! Messages to other nodes: one task, one connection and one bounded queue per node.
//!
//! Raft copes with lost messages and not with a loop that waits, so what finds a full queue is dropped, and the groups
//! are told to ask again. A connection on which nothing was heard for a second is dead and made anew, soon and with
//! jitter: TCP alone would take minutes to notice a peer that vanished.

use crate::budget::{Budget, Share};
use crate::clocks::{Clocks, millis};
use crate::disk::{Disk, Room};
use crate::eventual::{self, Eventual};
use crate::faults::Cuts;
use crate::mailbox::{Event, Mailbox};
use crate::metrics::Metrics;
use crate::shared::CatalogCell;
use crate::switch::{self, Standing, Standings};
use bytes::Bytes;
use parking_lot::Mutex;
use raft_prost::Message as _;
use rdb_core::ids::{NodeId, RegionId};
use rdb_core::raft::{Message, Sleep};
use rdb_proto::internal::v1 as wire;
use rdb_proto::internal::v1::peer_client::PeerClient;
use rdb_proto::internal::v1::peer_frame::Frame;
use rdb_proto::internal::v1::peer_reply::Reply;
use rdb_proto::internal::v1::{
    Hello, OriginPart, OriginReport, OriginReports, OriginRuns, PeerFrame, PeerReply, Ping, Pong, RaftBatch,
    RaftMessage, RaftPart, SleepingRegion, SwitchStanding, SwitchStandings, Welcome,
};
pub(crate) use rdb_storage::PeerDirectory as Directory;
use rdb_storage::{LogWriterHandle, OutdatedMark};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::transport::Endpoint;
use tonic::{Status, Streaming};

/// The version of what nodes say to each other.
pub(crate) const PROTOCOL: u32 = 3;
/// In the refusal of a node whose directory is an older state of itself.
const OUTDATED_KEY: &str = "flaredb-outdated";
/// A connection silent for this long is dead.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(1);
/// Between pings.
const PING_INTERVAL: Duration = Duration::from_millis(200);
/// For a connection and its handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// Between attempts, drawn anew each time so that nodes do not retry in step.
const RETRY_MS: std::ops::Range<u64> = 100..400;
/// For a frame to find room in the connection.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);
/// Messages that wait for one node.
const QUEUE_MESSAGES_MAX: usize = 16_384;
/// Their bytes.
const QUEUE_BYTES_MAX: usize = 128 << 20;
/// Between two reports that messages to a node were dropped.
const DROPS_TOLD_INTERVAL_MS: u64 = 100;
/// Bytes of one frame. A peer whose frames take longer than a second to come counts as dead, so this and that second are
/// the slowest link that works: half a megabit a second.
const FRAME_BYTES: usize = 64 << 10;
/// Regions that one frame says are asleep.
const SLEEPERS_PER_FRAME_MAX: usize = 1024;
/// Messages taken from the queue at a time.
const MESSAGES_PER_TURN_MAX: usize = 512;
/// The largest frame that is read: what is sent, and room to spare for what surrounds it.
pub(crate) const FRAME_BYTES_MAX: usize = 4 << 20;
/// The longest message that is put together from parts: an entry of the largest request, and room to spare.
pub(crate) const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// HTTP/2's windows: wide enough that a follower that catches up is limited by its disk.
pub(crate) const STREAM_WINDOW_BYTES: u32 = 8 << 20;

struct Outgoing {
    item: Item,
    _share: Share,
}

/// In one queue, since their order matters: a message wakes what fell asleep before it.
#[allow(clippy::large_enum_variant, reason = "nearly all are messages, and a box each would cost more")]
enum Item {
    Raft(RegionId, Message),
    Sleep(Vec<SleepingRegion>),
    Runs(RegionId, Vec<Bytes>, bool),
    Reports(Vec<OriginReport>),
    Standings(Vec<SwitchStanding>),
}

struct Queue {
    messages: mpsc::Sender<Outgoing>,
    budget: Budget,
    /// When the raft loop was last told that messages were dropped; milliseconds after `Transport::started`.
    told_ms: AtomicU64,
}

/// Sends to all other nodes. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Transport {
    queues: Arc<BTreeMap<NodeId, Queue>>,
    started: Instant,
    mailbox: Mailbox,
    metrics: Arc<Metrics>,
}

impl Transport {
    /// Queues messages for the nodes that they name. Never waits.
    pub(crate) fn send(&self, region: RegionId, messages: Vec<Message>) {
        for message in messages {
            let node = NodeId(message.to);
            let Some(queue) = self.queues.get(&node) else { continue };
            let bytes: usize = message.entries.iter().map(|entry| entry.data.len() + 32).sum();
            if !queue.push(Item::Raft(region, message), bytes) {
                self.metrics.messages_dropped(1);
                self.tell(node, queue);
            }
        }
    }

    /// Tells `node` that regions which it follows have fallen asleep. Never waits; should it be lost, they find out.
    pub(crate) fn sleep(&self, node: NodeId, regions: &[(RegionId, Sleep)]) {
        let Some(queue) = self.queues.get(&node) else { return };
        for regions in regions.chunks(SLEEPERS_PER_FRAME_MAX) {
            let told = regions.iter().map(|(region, sleep)| SleepingRegion {
                region: region.0,
                term: sleep.term,
                last: sleep.last,
            });
            queue.push(Item::Sleep(told.collect()), regions.len() * size_of::<SleepingRegion>());
        }
    }

    /// Queues runs of a region in eventual mode, which writers wait for or not. Never waits. Returns whether there was room.
    pub(crate) fn send_runs(&self, node: NodeId, region: RegionId, runs: Vec<Bytes>, awaited: bool) -> bool {
        let bytes = runs.iter().map(Bytes::len).sum();
        self.queues.get(&node).is_some_and(|queue| queue.push(Item::Runs(region, runs, awaited), bytes))
    }

    /// Queues reports on regions in eventual mode. Never waits; should they be lost, there will be others.
    pub(crate) fn send_reports(&self, node: NodeId, reports: Vec<OriginReport>) {
        if let Some(queue) = self.queues.get(&node) {
            let bytes = reports.iter().map(prost::Message::encoded_len).sum();
            queue.push(Item::Reports(reports), bytes);
        }
    }

    /// All other nodes.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.queues.keys().copied()
    }

    /// Tells `node` how this node's part of regions stands. Never waits; should it be lost, it is told again soon.
    pub(crate) fn send_standings(&self, node: NodeId, standings: Vec<Standing>) {
        let Some(queue) = self.queues.get(&node) else { return };
        let (mut together, mut bytes) = (Vec::new(), 0);
        for standing in standings {
            let standing = switch::wire::to_wire(&standing);
            let long = prost::Message::encoded_len(&standing);
            if FRAME_BYTES < bytes + long && !together.is_empty() {
                queue.push(Item::Standings(std::mem::take(&mut together)), bytes);
                bytes = 0;
            }
            bytes += long;
            together.push(standing);
        }
        if !together.is_empty() {
            queue.push(Item::Standings(together), bytes);
        }
    }

    /// Tells the groups that messages to `node` were dropped, but not for each one: that would be a flood of its own.
    fn tell(&self, node: NodeId, queue: &Queue) {
        let now_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let told_ms = queue.told_ms.load(Ordering::Relaxed);
        if told_ms + DROPS_TOLD_INTERVAL_MS <= now_ms {
            queue.told_ms.store(now_ms, Ordering::Relaxed);
            self.mailbox.post(Event::Unreachable { peer: node });
        }
    }
}

impl Queue {
    fn push(&self, item: Item, bytes: usize) -> bool {
        let Ok(share) = self.budget.take(bytes + 64) else { return false };
        self.messages.try_send(Outgoing { item, _share: share }).is_ok()
    }
}

/// What is known of the other nodes' directories and health.
#[derive(Clone)]
pub(crate) struct Peers {
    states: Arc<BTreeMap<NodeId, PeerState>>,
    started: Instant,
}

#[derive(Default)]
struct PeerState {
    /// Milliseconds after the start of this process; 0: never.
    heard_ms: AtomicU64,
    /// Since when it is heard without a pause.
    steady_ms: AtomicU64,
    /// How much room it has on its disk, as it said last.
    room: AtomicU8,
    /// What a sync of its log takes, as it said last; 0: its disk is quick, or it does not say.
    slow_sync_ms: AtomicU32,
    seen: Mutex<Option<Directory>>,
}

impl Peers {
    /// `known`: what was seen of them before this process.
    pub(crate) fn new(others: impl Iterator<Item = NodeId>, known: &BTreeMap<NodeId, Directory>) -> Self {
        let state = |node| PeerState { seen: Mutex::new(known.get(&node).copied()), ..PeerState::default() };
        let states = others.map(|node| (node, state(node))).collect();
        Self { states: Arc::new(states), started: Instant::now() }
    }

    /// Something came from `node`.
    pub(crate) fn heard(&self, node: NodeId) {
        if let Some(state) = self.states.get(&node) {
            let now_ms = self.now_ms();
            let before_ms = state.heard_ms.swap(now_ms, Ordering::Relaxed);
            if before_ms == 0 || before_ms + millis(SILENCE_MAX) < now_ms {
                state.steady_ms.store(now_ms, Ordering::Relaxed);
            }
        }
    }

    /// Since this started, and never 0.
    fn now_ms(&self) -> u64 {
        millis(self.started.elapsed()).max(1)
    }

    /// For how long `node` is heard without a pause; `None` if it is not.
    pub(crate) fn steady(&self, node: NodeId) -> Option<Duration> {
        let state = self.states.get(&node)?;
        let silence = self.silence(node)?;
        let since_ms = state.steady_ms.load(Ordering::Relaxed);
        let steady = Duration::from_millis(self.now_ms().saturating_sub(since_ms));
        (silence <= SILENCE_MAX).then_some(steady)
    }

    /// How long nothing has come from `node`; `None` if nothing ever did.
    pub(crate) fn silence(&self, node: NodeId) -> Option<Duration> {
        let heard_ms = self.states.get(&node)?.heard_ms.load(Ordering::Relaxed);
        (heard_ms != 0).then(|| self.started.elapsed().saturating_sub(Duration::from_millis(heard_ms)))
    }

    /// How long `node` may have been away: since it was last heard, or since this process started. Of this node: not at all.
    pub(crate) fn absence(&self, node: NodeId) -> Duration {
        match self.states.contains_key(&node) {
            true => self.silence(node).unwrap_or_else(|| self.started.elapsed()),
            false => Duration::ZERO,
        }
    }

    /// The directory with which `node` was last seen.
    pub(crate) fn directory(&self, node: NodeId) -> Option<Directory> {
        *self.states.get(&node)?.seen.lock()
    }

    /// What is known of all of them.
    pub(crate) fn directories(&self) -> BTreeMap<NodeId, Directory> {
        self.states.iter().filter_map(|(node, state)| Some((*node, (*state.seen.lock())?))).collect()
    }

    /// Takes note of a node's directory. Returns whether it was another process before.
    ///
    /// # Errors
    /// It is another one than before, or the same one as it was earlier: the node has lost what it promised.
    pub(crate) fn meet(&self, node: NodeId, now: Directory, catalog: &CatalogCell) -> Result<bool, Refusal> {
        let stranger = || Refusal::of(format!("node {node} is not a member of this cluster"));
        let state = self.states.get(&node).ok_or_else(stranger)?;
        let mut seen = state.seen.lock();
        let registered = catalog.load().node(node).map(|known| known.store_id);
        let known = registered.or(seen.map(|before| before.store_id));
        if let Some(store_id) = known.filter(|store_id| *store_id != now.store_id) {
            return Err(Refusal::of(replaced(node, now.store_id, store_id)));
        }
        // Another directory's past says nothing of this one.
        let before = seen.filter(|before| before.store_id == now.store_id);
        if let Some(before) = before
            && now.process != before.process
            && (now.incarnation <= before.incarnation || now.log_position < before.log_position)
        {
            let reason = format!(
                "node {node} comes with an older state of its data directory (start {}, log position {}) than it \
                 had (start {}, log position {}): a backup was put back, or its log was lost. Put its newest directory \
                 back, or replace the node",
                now.incarnation, now.log_position, before.incarnation, before.log_position
            );
            return Err(Refusal { reason, outdated: true });
        }
        let log_position = before.map_or(0, |before| before.log_position).max(now.log_position);
        *seen = Some(Directory { log_position, ..now });
        Ok(before.is_some_and(|before| before.process != now.process))
    }

    /// Refuses a node that was let in before the catalog said which directory is the node's: at a start, what the
    /// catalog took up last may have to be applied again from the log first. Looks once, and again when the catalog has
    /// changed: `seen` is the number of its changes, from 0 on, for the connection that asks.
    ///
    /// # Errors
    /// It came with another directory than it joined with.
    pub(crate) fn recheck(&self, node: NodeId, catalog: &CatalogCell, seen: &mut u64) -> Result<(), String> {
        let changes = catalog.changes();
        if *seen == changes {
            return Ok(());
        }
        *seen = changes;
        let registered = catalog.load().node(node).map(|known| known.store_id);
        let Some((state, store_id)) = self.states.get(&node).zip(registered) else { return Ok(()) };
        let stranger = state.seen.lock().filter(|seen| seen.store_id != store_id);
        match stranger {
            Some(found) => Err(replaced(node, found.store_id, store_id)),
            None => Ok(()),
        }
    }

    /// `node` has so much room on its disk.
    pub(crate) fn has_room(&self, node: NodeId, room: Room) {
        if let Some(state) = self.states.get(&node) {
            state.room.store(room as u8, Ordering::Relaxed);
        }
    }

    /// How much room `node` has on its disk, as far as is known.
    pub(crate) fn room(&self, node: NodeId) -> Room {
        let state = self.states.get(&node);
        state.map_or(Room::Enough, |state| Room::from_wire(state.room.load(Ordering::Relaxed).into()))
    }

    /// The disk of `node` is slow, and a sync of its log takes so long, or it is not, and this is 0.
    pub(crate) fn syncs_in(&self, node: NodeId, slow_sync_ms: u32) {
        if let Some(state) = self.states.get(&node) {
            state.slow_sync_ms.store(slow_sync_ms, Ordering::Relaxed);
        }
    }

    /// What a sync of the log of `node` takes where its disk is slow, as far as is known; 0: it is not.
    pub(crate) fn slow_sync_ms(&self, node: NodeId) -> u32 {
        self.states.get(&node).map_or(0, |state| state.slow_sync_ms.load(Ordering::Relaxed))
    }

    /// The process of `node` that is known by this has synced its log this far.
    pub(crate) fn advanced(&self, node: NodeId, process: u64, log_position: u64) {
        if let Some(state) = self.states.get(&node)
            && let Some(seen) = state.seen.lock().as_mut()
            && seen.process == process
        {
            seen.log_position = seen.log_position.max(log_position);
        }
    }
}

/// Why a node is not listened to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) reason: String,
    /// Its directory is an older state of itself: it must not be started again.
    pub(crate) outdated: bool,
}

impl Refusal {
    pub(crate) fn of(reason: String) -> Self {
        Self { reason, outdated: false }
    }

    /// As it is told to the node.
    pub(crate) fn into_status(self) -> Status {
        let mut status = Status::failed_precondition(self.reason);
        if self.outdated {
            status.metadata_mut().insert(OUTDATED_KEY, MetadataValue::from_static("1"));
        }
        status
    }
}

/// Marks this node's directory and ends the process, if that is what a peer has found out about it.
fn end_if_outdated(node: NodeId, status: &Status, links: &Links) {
    if status.metadata().get(OUTDATED_KEY).is_none() {
        return;
    }
    let reason = format!("node {node} says that {}", status.message());
    if let Err(error) = links.outdated.set(&reason) {
        tracing::error!(%error, "this directory could not be marked as outdated: do not start it again");
    }
    crate::node::die(&reason);
}

fn replaced(node: NodeId, found: u64, joined_with: u64) -> String {
    format!(
        "node {node} comes with the data directory {found:016x}, but it joined with {joined_with:016x}: its directory \
         was replaced. A node that lost its directory must not come back under its old id"
    )
}

/// Who this node is, for handshakes.
#[derive(Clone)]
pub(crate) struct Introduction {
    pub(crate) cluster_id: String,
    pub(crate) node: NodeId,
    pub(crate) store_id: u64,
    pub(crate) incarnation: u64,
    pub(crate) client_address: String,
    pub(crate) process: u64,
    pub(crate) log: LogWriterHandle,
    pub(crate) clocks: Clocks,
}

impl Introduction {
    pub(crate) fn hello(&self, to: NodeId) -> Hello {
        Hello {
            protocol: PROTOCOL,
            cluster_id: self.cluster_id.clone(),
            from: self.node.0,
            to: to.0,
            store_id: self.store_id,
            incarnation: self.incarnation,
            log_position: self.log.synced_position(),
            client_address: self.client_address.clone(),
            process: self.process,
        }
    }

    pub(crate) fn welcome(&self) -> Welcome {
        Welcome {
            store_id: self.store_id,
            incarnation: self.incarnation,
            log_position: self.log.synced_position(),
            client_address: self.client_address.clone(),
            process: self.process,
            clock_ms: self.clocks.physical_ms(),
        }
    }
}

/// What the tasks that send need.
#[derive(Clone)]
pub(crate) struct Links {
    pub(crate) introduction: Introduction,
    pub(crate) peers: Peers,
    pub(crate) catalog: CatalogCell,
    pub(crate) mailbox: Mailbox,
    pub(crate) eventual: Eventual,
    pub(crate) standings: Standings,
    pub(crate) disk: Disk,
    pub(crate) cuts: Cuts,
    pub(crate) outdated: OutdatedMark,
}

/// Queues that wait for their tasks: the transport exists before the log writer, whose position the tasks announce.
pub(crate) struct Unstarted(Vec<(NodeId, String, mpsc::Receiver<Outgoing>)>);

impl Transport {
    /// The queues to `others`, each a node and its address.
    pub(crate) fn new(
        others: impl Iterator<Item = (NodeId, String)>,
        mailbox: Mailbox,
        metrics: Arc<Metrics>,
    ) -> (Self, Unstarted) {
        let mut queues = BTreeMap::new();
        let mut unstarted = Vec::new();
        for (node, address) in others {
            let (messages, outgoing) = mpsc::channel(QUEUE_MESSAGES_MAX);
            queues.insert(
                node,
                Queue { messages, budget: Budget::new(QUEUE_BYTES_MAX), told_ms: AtomicU64::new(0) },
            );
            unstarted.push((node, address, outgoing));
        }
        let started = Instant::now();
        (Self { queues: Arc::new(queues), started, mailbox, metrics }, Unstarted(unstarted))
    }
}

impl Unstarted {
    /// Starts a task for each node, on the current runtime.
    pub(crate) fn start(self, links: &Links) {
        for (node, address, outgoing) in self.0 {
            tokio::spawn(keep_connected(node, address, outgoing, links.clone()));
        }
    }
}

async fn keep_connected(node: NodeId, address: String, mut outgoing: mpsc::Receiver<Outgoing>, links: Links) {
    let mut last_reason = String::new();
    loop {
        let reason = match exchange(node, &address, &mut outgoing, &links).await {
            Ok(()) => return,
            Err(reason) => reason,
        };
        // The same reason again and again is one event.
        if reason != last_reason {
            tracing::warn!(peer = %node, address, reason, "not connected");
            last_reason = reason;
        }
        links.mailbox.post(Event::Unreachable { peer: node });
        links.eventual.post(eventual::Event::Lost { peer: node });
        tokio::time::sleep(Duration::from_millis(rand::random_range(RETRY_MS))).await;
        // What waited is stale by now.
        while outgoing.try_recv().is_ok() {}
    }
}

/// One connection's life. Ends well only when the node stops.
async fn exchange(
    node: NodeId,
    address: &str,
    outgoing: &mut mpsc::Receiver<Outgoing>,
    links: &Links,
) -> Result<(), String> {
    let (frames, replies) = connect(node, address, links).await?;
    tracing::info!(peer = %node, address, "connected");
    let mut waiting = Vec::with_capacity(MESSAGES_PER_TURN_MAX);
    let mut ping = tokio::time::interval(PING_INTERVAL);
    let mut seen = 0;
    let (hears, mut heard) = tokio::sync::watch::channel(Instant::now());
    // In a task of its own: the peer is heard also while a long message leaves.
    let mut listening = Listening(tokio::spawn(listen(node, replies, links.clone(), hears)));
    let clocks = &links.introduction.clocks;
    loop {
        // What cannot leave waits, as it would for TCP; the pings below find out when it can again, or never will.
        let cut = links.cuts.is_cut_to(node);
        tokio::select! {
            taken = outgoing.recv_many(&mut waiting, MESSAGES_PER_TURN_MAX), if !cut => {
                if taken == 0 {
                    return Ok(());
                }
                for frame in pack(waiting.drain(..)) {
                    send(&frames, frame).await?;
                }
            }
            reason = &mut listening.0 => {
                return Err(reason.unwrap_or_else(|error| error.to_string()));
            }
            _ = ping.tick() => {
                links.peers.recheck(node, &links.catalog, &mut seen)?;
                let silent_since = *heard.borrow_and_update();
                if SILENCE_MAX < silent_since.elapsed() {
                    return Err("nothing was heard for a second".to_owned());
                }
                if !links.cuts.is_cut_to(node) {
                    let log_position = links.introduction.log.synced_position();
                    let sent_micros = clocks.moment_micros();
                    let (disk, slow_sync_ms) = (links.disk.room() as u32, links.disk.slow_sync_ms());
                    let ping = Ping { log_position, disk, sent_micros, slow_sync_ms };
                    send(&frames, Frame::Ping(ping)).await?;
                }
            }
        }
    }
}

/// Ends with the connection that it listens to.
struct Listening(tokio::task::JoinHandle<String>);

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Notes when the peer was last heard. Returns why the connection ended.
async fn listen(
    node: NodeId,
    mut replies: Streaming<PeerReply>,
    links: Links,
    hears: tokio::sync::watch::Sender<Instant>,
) -> String {
    loop {
        match replies.message().await {
            Ok(Some(reply)) => {
                links.cuts.until_open_from(node).await;
                links.peers.heard(node);
                if let Some(Reply::Pong(Pong { sent_micros, held_micros, clock_ms })) = reply.reply {
                    links.introduction.clocks.answered(node, (sent_micros, held_micros), clock_ms);
                }
                hears.send_replace(Instant::now());
            }
            Ok(None) => return "the peer ended the connection".to_owned(),
            Err(status) => return status.message().to_owned(),
        }
    }
}

async fn send(frames: &mpsc::Sender<PeerFrame>, frame: Frame) -> Result<(), String> {
    let frame = PeerFrame { frame: Some(frame) };
    match tokio::time::timeout(SEND_TIMEOUT, frames.send(frame)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err("the connection was lost".to_owned()),
        Err(_) => Err("the connection takes nothing in".to_owned()),
    }
}

async fn connect(
    node: NodeId,
    address: &str,
    links: &Links,
) -> Result<(mpsc::Sender<PeerFrame>, Streaming<PeerReply>), String> {
    tokio::time::timeout(CONNECT_TIMEOUT, links.cuts.until_whole(node))
        .await
        .map_err(|_| "cut off from it by a fault call".to_owned())?;
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|error| format!("'{address}' is no address: {error}"))?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(2 * STREAM_WINDOW_BYTES);
    let channel = endpoint.connect().await.map_err(|error| source_of(&error))?;
    let mut client = PeerClient::new(channel);
    let (frames, sent) = mpsc::channel(4);
    let asked_micros = links.introduction.clocks.moment_micros();
    send(&frames, Frame::Hello(links.introduction.hello(node))).await?;
    let handshake = async {
        let mut replies = client.exchange(ReceiverStream::new(sent)).await?.into_inner();
        let first = replies.message().await?;
        Ok::<_, Status>((replies, first))
    };
    let (replies, first) = tokio::time::timeout(SILENCE_MAX, handshake)
        .await
        .map_err(|_| "no answer to the handshake within a second".to_owned())?
        .map_err(|status| {
            end_if_outdated(node, &status, links);
            status.message().to_owned()
        })?;
    let Some(Reply::Welcome(Welcome { store_id, incarnation, log_position, process, clock_ms, .. })) =
        first.and_then(|reply| reply.reply)
    else {
        return Err("the peer did not answer the handshake".to_owned());
    };
    let directory = Directory { store_id, incarnation, log_position, process };
    if links.peers.meet(node, directory, &links.catalog).map_err(|refusal| refusal.reason)? {
        links.mailbox.post(Event::Restarted { node });
    }
    links.peers.heard(node);
    links.introduction.clocks.answered(node, (asked_micros, 0), clock_ms);
    Ok((frames, replies))
}

/// The innermost reason: tonic's own words are "transport error".
fn source_of(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// Messages as frames of bounded size: small messages together, a long one in parts.
fn pack(messages: impl Iterator<Item = Outgoing>) -> Vec<Frame> {
    let mut frames = Vec::new();
    let mut batch = RaftBatch::default();
    let mut bytes = 0;
    for Outgoing { item, .. } in messages {
        let Item::Raft(region, message) = item else {
            if !batch.messages.is_empty() {
                frames.push(Frame::Raft(std::mem::take(&mut batch)));
                bytes = 0;
            }
            pack_other(item, &mut frames);
            continue;
        };
        let message = Bytes::from(message.encode_to_vec());
        if FRAME_BYTES < bytes + message.len() && !batch.messages.is_empty() {
            frames.push(Frame::Raft(std::mem::take(&mut batch)));
            bytes = 0;
        }
        if FRAME_BYTES < message.len() {
            frames.extend(
                parts(&message).map(|(bytes, last)| Frame::Part(RaftPart { region: region.0, bytes, last })),
            );
        } else {
            bytes += message.len();
            batch.messages.push(RaftMessage { region: region.0, message });
        }
    }
    if !batch.messages.is_empty() {
        frames.push(Frame::Raft(batch));
    }
    frames
}

fn pack_other(item: Item, frames: &mut Vec<Frame>) {
    match item {
        Item::Sleep(regions) => frames.push(Frame::Sleep(wire::Sleep { regions })),
        Item::Reports(reports) => frames.push(Frame::Reports(OriginReports { reports })),
        Item::Standings(standings) => frames.push(Frame::Standings(SwitchStandings { standings })),
        Item::Runs(region, runs, awaited) => pack_runs(region, runs, awaited, frames),
        Item::Raft(..) => unreachable!("these are packed together"),
    }
}

fn pack_runs(region: RegionId, runs: Vec<Bytes>, awaited: bool, frames: &mut Vec<Frame>) {
    let region = region.0;
    let (mut together, mut bytes) = (Vec::new(), 0);
    for run in runs {
        if FRAME_BYTES < bytes + run.len() && !together.is_empty() {
            frames.push(Frame::Runs(OriginRuns { region, runs: std::mem::take(&mut together), awaited }));
            bytes = 0;
        }
        if FRAME_BYTES < run.len() {
            frames.extend(
                parts(&run).map(|(bytes, last)| Frame::RunPart(OriginPart { region, bytes, last, awaited })),
            );
        } else {
            bytes += run.len();
            together.push(run);
        }
    }
    if !together.is_empty() {
        frames.push(Frame::Runs(OriginRuns { region, runs: together, awaited }));
    }
}

/// A long message's parts, and whether each is the last.
fn parts(message: &Bytes) -> impl Iterator<Item = (Bytes, bool)> + '_ {
    (0..message.len()).step_by(FRAME_BYTES).map(move |begin| {
        let end = message.len().min(begin + FRAME_BYTES);
        (message.slice(begin..end), end == message.len())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers() -> Peers {
        Peers::new([NodeId(2)].into_iter(), &BTreeMap::new())
    }

    fn directory(store_id: u64, incarnation: u64, log_position: u64) -> Directory {
        Directory { store_id, incarnation, log_position, process: 10 * incarnation + log_position }
    }

    #[test]
    fn a_node_that_went_back_in_time_is_refused() {
        let (peers, catalog) = (peers(), CatalogCell::default());
        peers.meet(NodeId(2), directory(7, 1, 100), &catalog).unwrap();
        peers.meet(NodeId(2), directory(7, 2, 120), &catalog).unwrap();
        peers.advanced(NodeId(2), 140, 500);
        peers.advanced(NodeId(2), 110, 700);
        assert!(peers.meet(NodeId(2), directory(7, 2, 400), &catalog).unwrap_err().reason.contains("backup"));
        assert!(peers.meet(NodeId(2), directory(7, 1, 600), &catalog).is_err(), "an earlier start");
        assert!(
            peers.meet(NodeId(2), directory(8, 1, 900), &catalog).unwrap_err().reason.contains("replaced")
        );
        peers.meet(NodeId(2), directory(7, 3, 500), &catalog).unwrap();
        let late = Directory { log_position: 450, ..directory(7, 3, 500) };
        peers.meet(NodeId(2), late, &catalog).expect("the same process, said earlier and heard later");
        peers.advanced(NodeId(2), 530, 460);
        assert_eq!(peers.directory(NodeId(2)).unwrap().log_position, 500);
    }

    #[test]
    fn what_was_seen_before_a_start_counts() {
        let seen = directory(7, 2, 500);
        let peers = Peers::new([NodeId(2)].into_iter(), &[(NodeId(2), seen)].into());
        let catalog = CatalogCell::default();
        assert!(peers.meet(NodeId(2), directory(7, 2, 400), &catalog).unwrap_err().reason.contains("backup"));
        assert!(!peers.meet(NodeId(2), seen, &catalog).unwrap(), "it has run all the time");
        assert!(peers.meet(NodeId(2), directory(7, 3, 600), &catalog).unwrap());
        assert_eq!(peers.directories(), [(NodeId(2), directory(7, 3, 600))].into());
    }

    /// A leader that has just started has heard nobody yet. Were the others away to it, it would drop what they need.
    #[test]
    fn who_was_never_heard_is_away_since_this_node_started() {
        let mut peers = peers();
        assert!(peers.silence(NodeId(2)).is_none());
        assert!(peers.absence(NodeId(2)) < Duration::from_secs(3600));
        peers.started = peers.started.checked_sub(Duration::from_secs(7200)).unwrap();
        assert!(Duration::from_secs(7200) <= peers.absence(NodeId(2)));
        peers.heard(NodeId(2));
        assert!(peers.absence(NodeId(2)) < Duration::from_secs(3600));
        assert_eq!(peers.absence(NodeId(1)), Duration::ZERO, "this node itself");
    }

    #[test]
    fn a_stranger_is_refused() {
        let refusal = peers().meet(NodeId(9), directory(1, 1, 1), &CatalogCell::default()).unwrap_err();
        assert!(refusal.reason.contains("not a member") && !refusal.outdated, "{refusal:?}");
    }
}

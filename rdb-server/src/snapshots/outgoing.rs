//! Sends snapshots: the data is read as of one moment and leaves in chunks, each confirmed. What is not confirmed is
//! kept, so that a connection that breaks is made anew and the snapshot goes on where it was.

use crate::eventual::Eventual;
use crate::faults::Cuts;
use crate::mailbox::Event;
use crate::regions::RegionView;
use crate::shared::Shared;
use crate::transport::{Links, SILENCE_MAX, STREAM_WINDOW_BYTES};
use crossbeam_channel::{Receiver, Sender};
use parking_lot::Mutex;
use raft_prost::Message as _;
use rdb_core::eventual::machine::State;
use rdb_core::ids::{NamespaceId, NodeId, RegionId, Term};
use rdb_core::raft::{SendSnapshot, SnapshotPlace, snapshot_message};
use rdb_core::switch::Mode;
use rdb_proto::internal::v1::peer_client::PeerClient;
use rdb_proto::internal::v1::snapshot_frame::Frame;
use rdb_proto::internal::v1::snapshot_reply::Reply;
use rdb_proto::internal::v1::{
    SnapshotBegin, SnapshotChunk, SnapshotDone, SnapshotEnd, SnapshotFrame, SnapshotReply,
};
use rdb_storage::SnapshotReader;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Endpoint;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// Bytes of one chunk, about; a single long record makes it longer.
const CHUNK_BYTES: usize = 256 << 10;
/// Chunks on their way and not confirmed.
const CHUNKS_UNCONFIRMED_MAX: usize = 16;
/// For a chunk to be confirmed.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(10);
/// For the receiver to replace its data, once all has come.
const INSTALL_TIMEOUT: Duration = Duration::from_secs(120);
/// Connections in a row that bring nothing forward, after which it is given up.
const ATTEMPTS_MAX: u32 = 5;
/// Between them.
const ATTEMPT_INTERVAL: Duration = Duration::from_millis(300);
/// Between looks whether a snapshot is still wanted.
const WANTED_INTERVAL: Duration = Duration::from_millis(100);

/// A snapshot that a region's group wants sent.
pub(crate) struct Sending {
    pub(crate) region: RegionId,
    pub(crate) namespace: NamespaceId,
    pub(crate) snapshot: SendSnapshot,
    /// To see whether this node still leads the region in the term in which that was wanted.
    pub(crate) view: Arc<RegionView>,
    pub(crate) term: Term,
}

/// Hands snapshots to the threads that send them. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Outbound(Sender<Sending>);

impl Outbound {
    pub(crate) fn new() -> (Self, Receiver<Sending>) {
        let (sender, receiver) = crossbeam_channel::unbounded();
        (Self(sender), receiver)
    }

    /// A group asks for one snapshot per follower at a time, so the queue is bounded by the followers.
    pub(crate) fn send(&self, sending: Sending) {
        drop(self.0.send(sending));
    }
}

/// Lets so many bytes a second pass, over all snapshots of a node.
pub(crate) struct Throttle {
    bytes_per_second: u64,
    /// When what has passed will have had its time.
    free_at: Mutex<Instant>,
}

impl Throttle {
    pub(crate) fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second: bytes_per_second.max(1), free_at: Mutex::new(Instant::now()) }
    }

    /// Takes time for `bytes`, and says how long to wait before they may leave.
    fn take(&self, bytes: usize) -> Duration {
        let cost = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        let mut free_at = self.free_at.lock();
        let now = Instant::now();
        let begin = (*free_at).max(now);
        *free_at = begin + cost;
        begin - now
    }
}

/// Sends snapshots, one after the other, until nobody wants any more. Several threads may share `sends`.
pub(crate) fn run_sends(
    sends: &Receiver<Sending>,
    shared: &Shared,
    links: &Links,
    addresses: &BTreeMap<NodeId, String>,
    throttle: &Throttle,
) {
    // Its own: the one that serves other nodes ends before this thread does.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => crate::node::die(&format!("no runtime for snapshots: {error}")),
    };
    while let Ok(sending) = sends.recv() {
        let (region, peer, term) = (sending.region, sending.snapshot.to, sending.term);
        let began = Instant::now();
        let sent = match addresses.get(&peer) {
            Some(address) => runtime.block_on(async {
                let (view, term) = (sending.view.clone(), sending.term);
                let wanted = || view.leads() && view.term() == term && !shared.stopping.is_set();
                tokio::select! {
                    sent = send(sending, shared, links, address, throttle) => sent,
                    () = until_not(wanted) => Err("this node no longer leads the region".to_owned()),
                }
            }),
            None => Err("it is not a member".to_owned()),
        };
        match &sent {
            Ok(bytes) => {
                let seconds = began.elapsed().as_secs_f64();
                tracing::info!(%region, %peer, bytes, seconds, "a snapshot was sent and taken in");
            }
            Err(reason) => tracing::warn!(%region, %peer, reason, "a snapshot came to nothing"),
        }
        shared.mailbox.post(Event::SnapshotSent { region, peer, term, taken: sent.is_ok() });
    }
}

async fn until_not(wanted: impl Fn() -> bool) {
    while wanted() {
        tokio::time::sleep(WANTED_INTERVAL).await;
    }
}

/// Sends one snapshot. Returns its bytes once the receiver has taken it in.
async fn send(
    sending: Sending,
    shared: &Shared,
    links: &Links,
    address: &str,
    throttle: &Throttle,
) -> Result<u64, String> {
    let Sending { region, namespace, snapshot, view, .. } = sending;
    let reader = shared.data.snapshot(region, namespace).map_err(|error| error.to_string())?;
    let reader = reader.filter(|reader| snapshot.index <= reader.state().applied);
    let reader =
        reader.ok_or("the region's data is gone, behind its log, or in between: a copy is merged into it")?;
    let place = SnapshotPlace { index: reader.state().applied, term: reader.state().applied_term };
    let message = snapshot_message(snapshot.message, place);
    tracing::info!(%region, peer = %snapshot.to, index = place.index, "sending a snapshot");
    let begin = SnapshotBegin {
        hello: Some(links.introduction.hello(snapshot.to)),
        region: region.0,
        namespace: namespace.0,
        id: rand::random(),
        message: message.encode_to_vec().into(),
    };
    let mut source = Source::new(reader);
    let receiver = Addressee { node: snapshot.to, address, cuts: &links.cuts };
    let synced = Synced { eventual: &shared.eventual, view: &view, region };
    let mut attempts = 0;
    loop {
        let before = source.confirmed;
        let reason = match attempt(&mut source, &begin, &receiver, throttle, &synced).await {
            Ok(SnapshotDone { taken: true, .. }) => return Ok(source.bytes),
            Ok(SnapshotDone { reason, .. }) => return Err(reason),
            Err(Failed::ForGood(reason)) => return Err(reason),
            Err(Failed::Connection(reason)) => reason,
        };
        attempts = if before < source.confirmed { 0 } else { attempts + 1 };
        if ATTEMPTS_MAX <= attempts {
            return Err(reason);
        }
        tracing::debug!(%region, peer = %snapshot.to, reason, "a snapshot's connection was lost");
        tokio::time::sleep(ATTEMPT_INTERVAL).await;
    }
}

/// Why a connection did not bring the snapshot to its end.
enum Failed {
    /// Another one may.
    Connection(String),
    /// None will.
    ForGood(String),
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn lost(reason: impl ToString) -> Failed {
    Failed::Connection(reason.to_string())
}

/// What is still to be confirmed, and what is still to be read.
struct Source<'d> {
    reader: SnapshotReader<'d>,
    unconfirmed: VecDeque<SnapshotChunk>,
    /// Chunks read, and those of them confirmed.
    read: u64,
    confirmed: u64,
    bytes: u64,
    checksums: Xxh3,
    ended: bool,
}

impl<'d> Source<'d> {
    fn new(reader: SnapshotReader<'d>) -> Self {
        Self {
            reader,
            unconfirmed: VecDeque::new(),
            read: 0,
            confirmed: 0,
            bytes: 0,
            checksums: Xxh3::new(),
            ended: false,
        }
    }

    /// Reads one more chunk; false at the end.
    fn read(&mut self) -> Result<bool, String> {
        let chunk = self.reader.next_chunk(CHUNK_BYTES).map_err(|error| error.to_string())?;
        let Some(chunk) = chunk else {
            self.ended = true;
            return Ok(false);
        };
        let bytes = chunk.encode();
        let checksum = xxh3_64(&bytes);
        self.checksums.update(&checksum.to_be_bytes());
        self.bytes += bytes.len() as u64;
        self.unconfirmed.push_back(SnapshotChunk { number: self.read, bytes: bytes.into(), checksum });
        self.read += 1;
        Ok(true)
    }

    /// The receiver has so many chunks.
    fn confirm(&mut self, chunks: u64) -> Result<(), Failed> {
        if self.read < chunks || chunks < self.confirmed {
            return Err(Failed::ForGood(format!(
                "the receiver has lost what it had: {chunks} parts, after {} of {}",
                self.confirmed, self.read
            )));
        }
        self.confirmed = chunks;
        while self.unconfirmed.pop_front_if(|chunk| chunk.number < chunks).is_some() {}
        Ok(())
    }
}

/// Who gets the snapshot, and where.
struct Addressee<'a> {
    node: NodeId,
    address: &'a str,
    cuts: &'a Cuts,
}

/// Where a snapshot waits before its end: what is acknowledged before its sync is in the data before, and a power cut here must not
/// leave it at the receiver alone.
struct Synced<'a> {
    eventual: &'a Eventual,
    view: &'a RegionView,
    region: RegionId,
}

impl Synced<'_> {
    async fn wait_for(&self, state: Option<&State>) -> Result<(), Failed> {
        // Of an era that has ended all is synced: no gate is sealed over anything else.
        let is_now = |state: &&State| self.view.mode() == (Mode::Eventual, state.era);
        let Some(state) = state.filter(is_now) else { return Ok(()) };
        let waited = self.eventual.until_synced(self.region, state).await;
        waited.map_err(|_| Failed::ForGood("the region has entered another era meanwhile".to_owned()))
    }
}

/// One connection's life.
async fn attempt(
    source: &mut Source<'_>,
    begin: &SnapshotBegin,
    receiver: &Addressee<'_>,
    throttle: &Throttle,
    synced: &Synced<'_>,
) -> Result<SnapshotDone, Failed> {
    let mut connection = Connection::open(begin, receiver).await?;
    let have = connection.hear(SILENCE_MAX).await?;
    match have {
        Reply::Have(have) => source.confirm(have.chunks)?,
        Reply::Done(done) => return Ok(done),
    }
    // Those that the last connection lost go again; then the rest.
    let mut next = source.confirmed;
    loop {
        if next == source.read && (source.ended || !source.read().map_err(Failed::ForGood)?) {
            break;
        }
        let place = usize::try_from(next - source.confirmed).unwrap_or(usize::MAX);
        let Some(chunk) = source.unconfirmed.get(place).cloned() else {
            return Err(Failed::ForGood("a part to be sent again is gone".to_owned()));
        };
        tokio::time::sleep(throttle.take(chunk.bytes.len())).await;
        connection.say(Frame::Chunk(chunk)).await?;
        next += 1;
        while CHUNKS_UNCONFIRMED_MAX <= source.unconfirmed.len() {
            connection.confirm(source).await?;
        }
    }
    while source.confirmed < source.read {
        connection.confirm(source).await?;
    }
    synced.wait_for(source.reader.eventual()).await?;
    let end = SnapshotEnd { chunks: source.read, checksum: source.checksums.digest() };
    connection.say(Frame::End(end)).await?;
    match connection.hear(INSTALL_TIMEOUT).await? {
        Reply::Done(done) => Ok(done),
        Reply::Have(_) => Err(Failed::ForGood("the receiver confirmed what was not sent".to_owned())),
    }
}

struct Connection<'a> {
    receiver: &'a Addressee<'a>,
    frames: mpsc::Sender<SnapshotFrame>,
    replies: Streaming<SnapshotReply>,
}

impl<'a> Connection<'a> {
    async fn open(begin: &SnapshotBegin, receiver: &'a Addressee<'a>) -> Result<Self, Failed> {
        let whole = receiver.cuts.until_whole(receiver.node);
        tokio::time::timeout(CONFIRM_TIMEOUT, whole).await.map_err(lost)?;
        let endpoint = Endpoint::from_shared(format!("http://{}", receiver.address))
            .map_err(|error| Failed::ForGood(error.to_string()))?
            .connect_timeout(SILENCE_MAX)
            .tcp_nodelay(true)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(2 * STREAM_WINDOW_BYTES);
        let mut client = PeerClient::new(endpoint.connect().await.map_err(lost)?);
        let (frames, sent) = mpsc::channel(2);
        let first = SnapshotFrame { frame: Some(Frame::Begin(begin.clone())) };
        // The channel is new and has room.
        let _ = frames.try_send(first);
        let opened = tokio::time::timeout(CONFIRM_TIMEOUT, client.snapshot(ReceiverStream::new(sent))).await;
        let replies = opened.map_err(lost)?.map_err(|status| lost(status.message()))?.into_inner();
        Ok(Self { receiver, frames, replies })
    }

    async fn say(&self, frame: Frame) -> Result<(), Failed> {
        let sent = async {
            self.receiver.cuts.until_open_to(self.receiver.node).await;
            self.frames.send(SnapshotFrame { frame: Some(frame) }).await
        };
        tokio::time::timeout(CONFIRM_TIMEOUT, sent).await.map_err(lost)?.map_err(lost)
    }

    async fn hear(&mut self, patience: Duration) -> Result<Reply, Failed> {
        let heard = async {
            let reply = self.replies.message().await;
            self.receiver.cuts.until_open_from(self.receiver.node).await;
            reply
        };
        let reply = tokio::time::timeout(patience, heard).await.map_err(lost)?;
        let reply = reply.map_err(|status| lost(status.message()))?.and_then(|reply| reply.reply);
        reply.ok_or_else(|| lost("the receiver ended the connection"))
    }

    async fn confirm(&mut self, source: &mut Source<'_>) -> Result<(), Failed> {
        match self.hear(CONFIRM_TIMEOUT).await? {
            Reply::Have(have) => source.confirm(have.chunks),
            Reply::Done(SnapshotDone { reason, .. }) => Err(Failed::ForGood(reason)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_throttle_lets_so_many_bytes_a_second_pass() {
        let throttle = Throttle::new(1000);
        assert_eq!(throttle.take(500), Duration::ZERO);
        let wait = throttle.take(500);
        assert!(Duration::from_millis(300) < wait && wait <= Duration::from_millis(500), "{wait:?}");
    }
}

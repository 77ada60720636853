//! A wire between two nodes that can be cut: a TCP proxy in this process, so that no root is needed.
//!
//! Each ordered pair of nodes has its own, for the connections that the first dials and on which it alone speaks: so
//! what one says can be lost while it hears the other. All of them share what a thin wire lets pass. A wire counts what it kept back, which is how a partition is known
//! to have happened.

use parking_lot::Mutex;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::Instant;

/// How a wire is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wire {
    /// Bytes pass.
    Whole,
    /// Nothing comes through in either direction, as behind a firewall: connections stay open, new ones are accepted and
    /// lead nowhere. What was under way comes when the wire is whole again, as TCP would send it again.
    Silent,
    /// What the dialling node says is lost; what the other answers on the connection, such as its receipts, is not.
    Mute,
    /// The answers on the connection are lost; what the dialling node says is not.
    Deaf,
    /// Connections are closed and new ones refused, as by a host without the service.
    Closed,
    /// Bytes pass, this much later.
    Slow(Duration),
    /// So many bytes pass in a second each way, of all connections together.
    Thin(u64),
    /// Of a hundred pieces so many are lost and sent again, as TCP does: they come later, and all behind them.
    Lossy(u32),
}

/// Until TCP sends again what was lost, at first.
const SENT_AGAIN_MS: std::ops::Range<u64> = 200..400;
/// Smaller ones come later by less than a timer can tell.
const THIN_PIECE_BYTES: usize = 8 << 10;

/// A direction of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    There,
    Back,
}

impl Wire {
    /// Whether bytes pass this way.
    fn passes(self, way: Way) -> bool {
        match self {
            Wire::Whole | Wire::Slow(_) | Wire::Thin(_) | Wire::Lossy(_) => true,
            Wire::Silent | Wire::Closed => false,
            Wire::Mute => way == Way::Back,
            Wire::Deaf => way == Way::There,
        }
    }
}

/// One proxy, until dropped.
pub(crate) struct Proxy {
    address: SocketAddr,
    wire: watch::Sender<Wire>,
    kept_back: Arc<AtomicU64>,
}

impl Proxy {
    /// Leads connections to `port`.
    pub(crate) async fn start(port: u16) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (wire, state) = watch::channel(Wire::Whole);
        let kept_back = Arc::<AtomicU64>::default();
        let ends = Ends { wire: state, kept_back: kept_back.clone(), there: Room::new(), back: Room::new() };
        tokio::spawn(accept(listener, port, ends));
        Ok(Self { address, wire, kept_back })
    }

    /// Where it listens.
    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Cuts or mends it.
    pub(crate) fn set(&self, wire: Wire) {
        self.wire.send_replace(wire);
    }

    /// How often it has kept back bytes or a connection.
    pub(crate) fn kept_back(&self) -> u64 {
        self.kept_back.load(Ordering::Relaxed)
    }
}

/// What a proxy's tasks share.
#[derive(Clone)]
struct Ends {
    wire: watch::Receiver<Wire>,
    kept_back: Arc<AtomicU64>,
    there: Room,
    back: Room,
}

/// One way of a thin wire, which all connections share: when the piece that came last will be through. Who comes next is served
/// behind it, so that connections take turns, and nothing saves up what it did not use.
#[derive(Clone)]
struct Room(Arc<Mutex<Instant>>);

impl Room {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    /// Waits until so many bytes are through.
    async fn pass(&self, bytes: usize, bytes_per_second: u64) {
        tokio::time::sleep_until(self.reserve(bytes, bytes_per_second)).await;
    }

    fn reserve(&self, bytes: usize, bytes_per_second: u64) -> Instant {
        let micros = bytes as u64 * 1_000_000 / bytes_per_second.max(1);
        let mut through = self.0.lock();
        *through = Instant::now().max(*through) + Duration::from_micros(micros);
        *through
    }
}

impl Ends {
    fn room(&self, way: Way) -> &Room {
        match way {
            Way::There => &self.there,
            Way::Back => &self.back,
        }
    }

    fn keep_back(&self) {
        self.kept_back.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits until the wire passes bytes this way. `None`: it is gone.
    async fn passes(&mut self, way: Way) -> Option<Wire> {
        let now = *self.wire.borrow();
        if now.passes(way) {
            return Some(now);
        }
        self.keep_back();
        self.wire.wait_for(|wire| wire.passes(way)).await.ok().map(|wire| *wire)
    }
}

async fn accept(listener: TcpListener, port: u16, ends: Ends) {
    let mut dropped = ends.wire.clone();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            // Its owner is gone.
            _ = dropped.wait_for(|_| false) => return,
        };
        let Ok((near, _)) = accepted else { continue };
        if *ends.wire.borrow() == Wire::Closed {
            ends.keep_back();
        } else {
            tokio::spawn(connect(near, port, ends.clone()));
        }
    }
}

async fn connect(near: TcpStream, port: u16, ends: Ends) {
    let mut closed = ends.wire.clone();
    let pass = async {
        // A new connection gets through only to a node that can hear it.
        ends.clone().passes(Way::There).await?;
        let far = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
        near.set_nodelay(true).ok()?;
        far.set_nodelay(true).ok()?;
        let (near_in, near_out) = near.into_split();
        let (far_in, far_out) = far.into_split();
        tokio::select! {
            _ = copy(near_in, far_out, Way::There, ends.clone()) => {}
            _ = copy(far_in, near_out, Way::Back, ends.clone()) => {}
        }
        Some(())
    };
    tokio::select! {
        _ = pass => {}
        _ = closed.wait_for(|wire| *wire == Wire::Closed) => {}
    }
}

async fn copy(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    way: Way,
    mut ends: Ends,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let piece =
            if matches!(*ends.wire.borrow(), Wire::Thin(_)) { THIN_PIECE_BYTES } else { buffer.len() };
        let read = from.read(&mut buffer[..piece]).await?;
        if read == 0 {
            // The other direction ends with this one; give it a moment for its last words.
            tokio::time::sleep(Duration::from_millis(20)).await;
            return Ok(());
        }
        match ends.passes(way).await {
            Some(Wire::Slow(delay)) => tokio::time::sleep(delay).await,
            Some(Wire::Thin(bytes_per_second)) => ends.room(way).pass(read, bytes_per_second).await,
            Some(Wire::Lossy(percent)) if rand::random_range(0..100) < percent => {
                ends.keep_back();
                tokio::time::sleep(Duration::from_millis(rand::random_range(SENT_AGAIN_MS))).await;
            }
            Some(_) => {}
            None => return Ok(()),
        }
        to.write_all(&buffer[..read]).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES_PER_SECOND: u64 = 500_000;

    /// Sends so many bytes through a proxy on so many connections at once; returns how long all of them took.
    async fn takes(connections: usize, bytes: usize) -> Duration {
        let far = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Proxy::start(far.local_addr().unwrap().port()).await.unwrap();
        proxy.set(Wire::Thin(BYTES_PER_SECOND));
        let began = Instant::now();
        let mut work = tokio::task::JoinSet::new();
        for _ in 0..connections {
            let port = proxy.port();
            work.spawn(async move {
                let mut near = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                near.write_all(&vec![0; bytes]).await.unwrap();
                near.shutdown().await.unwrap();
            });
            let (mut heard, _) = far.accept().await.unwrap();
            work.spawn(async move {
                let mut all = Vec::new();
                heard.read_to_end(&mut all).await.unwrap();
                assert_eq!(all.len(), bytes);
            });
        }
        work.join_all().await;
        began.elapsed()
    }

    #[tokio::test]
    async fn the_connections_of_a_thin_wire_share_it() {
        // 200 kB at 500 kB a second.
        let shared = takes(4, 50_000).await;
        assert!(Duration::from_millis(380) <= shared, "{shared:?}");
    }
}

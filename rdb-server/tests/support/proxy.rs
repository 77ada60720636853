//! A wire between two nodes that can be cut: a TCP proxy. Each ordered pair of nodes has its own, so that what one says
//! can be lost while it hears the other.

use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// How a wire is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// Bytes pass.
    Whole,
    /// Bytes vanish without a word, as behind a firewall: connections stay open and nothing comes through. What was
    /// under way comes when the wire is whole again, as TCP would send it again.
    Silent,
    /// Connections are closed and new ones refused, as by a host without the service.
    Closed,
}

/// One proxy, until dropped.
pub struct Proxy {
    address: SocketAddr,
    wire: watch::Sender<Wire>,
}

impl Proxy {
    /// Leads connections to `port`.
    pub async fn start(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (wire, state) = watch::channel(Wire::Whole);
        tokio::spawn(accept(listener, port, state));
        Self { address, wire }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts or mends it.
    pub fn set(&self, wire: Wire) {
        self.wire.send_replace(wire);
    }
}

async fn accept(listener: TcpListener, port: u16, wire: watch::Receiver<Wire>) {
    let mut dropped = wire.clone();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            // Its owner is gone.
            _ = dropped.wait_for(|_| false) => return,
        };
        let Ok((near, _)) = accepted else { continue };
        if *wire.borrow() != Wire::Closed {
            tokio::spawn(connect(near, port, wire.clone()));
        }
    }
}

async fn connect(near: TcpStream, port: u16, mut wire: watch::Receiver<Wire>) {
    let mut ended = wire.clone();
    let pass = async {
        // A new connection is not even answered while the wire is silent.
        wire.wait_for(|wire| *wire == Wire::Whole).await.ok()?;
        let far = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
        near.set_nodelay(true).ok()?;
        far.set_nodelay(true).ok()?;
        let (near_in, near_out) = near.into_split();
        let (far_in, far_out) = far.into_split();
        tokio::select! {
            _ = copy(near_in, far_out, wire.clone()) => {}
            _ = copy(far_in, near_out, wire.clone()) => {}
        }
        Some(())
    };
    tokio::select! {
        _ = pass => {}
        _ = ended.wait_for(|wire| *wire == Wire::Closed) => {}
    }
}

async fn copy(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut wire: watch::Receiver<Wire>,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            // The other direction ends with this one; give it a moment for its last words.
            tokio::time::sleep(Duration::from_millis(20)).await;
            return Ok(());
        }
        if wire.wait_for(|wire| *wire == Wire::Whole).await.is_err() {
            return Ok(());
        }
        to.write_all(&buffer[..read]).await?;
    }
}

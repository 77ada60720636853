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

/// How it is, and how often it was closed: a connection does not outlive that, however soon the wire is whole again.
#[derive(Debug, Clone, Copy)]
struct State {
    wire: Wire,
    closed: u64,
}

impl State {
    fn is_whole(&self) -> bool {
        self.wire == Wire::Whole
    }
}

/// One proxy, until dropped.
pub struct Proxy {
    address: SocketAddr,
    state: watch::Sender<State>,
}

impl Proxy {
    /// Leads connections to `port`.
    pub async fn start(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, state) = watch::channel(State { wire: Wire::Whole, closed: 0 });
        tokio::spawn(accept(listener, port, state));
        Self { address, state: sender }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts or mends it.
    pub fn set(&self, wire: Wire) {
        self.state.send_modify(|state| {
            state.wire = wire;
            state.closed += u64::from(wire == Wire::Closed);
        });
    }
}

async fn accept(listener: TcpListener, port: u16, state: watch::Receiver<State>) {
    let mut dropped = state.clone();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            // Its owner is gone.
            _ = dropped.wait_for(|_| false) => return,
        };
        let Ok((near, _)) = accepted else { continue };
        if state.borrow().wire != Wire::Closed {
            tokio::spawn(connect(near, port, state.clone()));
        }
    }
}

async fn connect(near: TcpStream, port: u16, mut state: watch::Receiver<State>) {
    let mut ended = state.clone();
    let closed_before = ended.borrow().closed;
    let pass = async {
        // A new connection is not even answered while the wire is silent.
        state.wait_for(State::is_whole).await.ok()?;
        let far = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
        near.set_nodelay(true).ok()?;
        far.set_nodelay(true).ok()?;
        let (near_in, near_out) = near.into_split();
        let (far_in, far_out) = far.into_split();
        tokio::select! {
            _ = copy(near_in, far_out, state.clone()) => {}
            _ = copy(far_in, near_out, state.clone()) => {}
        }
        Some(())
    };
    tokio::select! {
        // First: what was held back must not slip through.
        biased;
        _ = ended.wait_for(|state| state.closed != closed_before) => {}
        _ = pass => {}
    }
}

async fn copy(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut state: watch::Receiver<State>,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            // The other direction ends with this one; give it a moment for its last words.
            tokio::time::sleep(Duration::from_millis(20)).await;
            return Ok(());
        }
        if state.wait_for(State::is_whole).await.is_err() {
            return Ok(());
        }
        to.write_all(&buffer[..read]).await?;
    }
}

//! Who may connect. Each of a node's ports has a [`Door`], which counts the connections that are open and lets in no more than
//! it may: those above are closed at once, so that they cost neither memory nor open files, which the log and the data need too.
//! Whoever has connected and does not begin to speak in time is sent away again.
//!
//! A port's connections are accepted by one task, on the runtime that serves the port.

use axum::serve::Listener;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::future::Future as _;
use std::io::{Error, ErrorKind, IoSlice, Result};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant as Moment, Sleep};
use tonic::transport::server::{Connected, TcpConnectInfo};

/// How long a new connection may take for its first words. They come with the first packets of whoever means to speak.
const OPENING_WAIT: Duration = Duration::from_secs(5);
/// What a client of HTTP/2 says before anything else.
const HTTP2_OPENING_BYTES: usize = 24;
/// The shortest first line of a request over HTTP/1.
const HTTP1_OPENING_BYTES: usize = 16;
/// A connection over HTTP/1 from which nothing comes for so long ends: one that is dead would keep its place for ever. Over HTTP/2
/// there are pings for that.
const HTTP1_IDLE_MAX: Duration = Duration::from_secs(120);
/// Between attempts to accept where the system has nothing to accept with. What waits is not lost meanwhile.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Between two lines in the log about the same door.
const SAY_INTERVAL: Duration = Duration::from_secs(10);
/// Connections of other nodes. Four others have a few each; the rest is for those that are dead and not yet noticed.
const PEERS_MAX: usize = 1_000;
/// Connections to health and metrics.
const HTTP_MAX: usize = 256;

/// The doors of a node's ports.
#[derive(Debug, Clone)]
pub(crate) struct Doors {
    pub(crate) clients: Door,
    pub(crate) peers: Door,
    pub(crate) http: Door,
}

impl Doors {
    /// As configured, and as far as this process may open files; it may open as many as the system lets it choose.
    pub(crate) fn of_this_process(clients_max: usize) -> Self {
        let files_max = raise_open_files();
        let doors = Self::within(clients_max, files_max);
        let clients = doors.clients.0.connections_max;
        if clients < clients_max {
            tracing::warn!(
                clients,
                client_connections_max = clients_max,
                files_max,
                "fewer clients may connect than configured: this process may not open enough files. Raise the limit of open \
                 files (LimitNOFILE, ulimit -n), or lower client_connections_max"
            );
        }
        doors
    }

    /// A third of the files, about, is left for the log and the data at the least.
    pub(crate) fn within(clients_max: usize, files_max: usize) -> Self {
        let door = |port, connections_max: usize| Door::new(port, connections_max.max(1));
        Self {
            clients: door("clients", clients_max.min(files_max / 2)),
            peers: door("peers", PEERS_MAX.min(files_max / 8)),
            http: door("http", HTTP_MAX.min(files_max / 16)),
        }
    }

    /// All of them.
    pub(crate) fn all(&self) -> [&Door; 3] {
        [&self.clients, &self.peers, &self.http]
    }
}

/// Takes the most open files that this process may have, and returns how many that is.
fn raise_open_files() -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let files_max = if raised.is_ok() { maximum } else { current };
    files_max.map_or(usize::MAX, |files| usize::try_from(files).unwrap_or(usize::MAX))
}

/// How many are connected to a port, and how many were sent away. Cheap to clone; every clone is the same.
#[derive(Debug, Clone)]
pub(crate) struct Door(Arc<Counts>);

#[derive(Debug)]
struct Counts {
    /// What the port is called.
    port: &'static str,
    connections_max: usize,
    open: AtomicUsize,
    /// Closed at once, since there were as many as may be.
    refused: AtomicU64,
    /// Closed since they had said nothing, at first or for long.
    silent: AtomicU64,
}

impl Door {
    fn new(port: &'static str, connections_max: usize) -> Self {
        let (open, refused, silent) = (AtomicUsize::new(0), AtomicU64::new(0), AtomicU64::new(0));
        Self(Arc::new(Counts { port, connections_max, open, refused, silent }))
    }

    /// What its port is called.
    pub(crate) fn port(&self) -> &'static str {
        self.0.port
    }

    /// Connections now.
    pub(crate) fn open(&self) -> usize {
        self.0.open.load(Ordering::Relaxed)
    }

    /// Those that were closed at once since the start.
    pub(crate) fn refused(&self) -> u64 {
        self.0.refused.load(Ordering::Relaxed)
    }

    /// Those that were closed since the start for having said nothing, at first or for long.
    pub(crate) fn silent(&self) -> u64 {
        self.0.silent.load(Ordering::Relaxed)
    }

    fn enter(&self) -> Option<Place> {
        let place = Place(self.clone());
        // Counted before it is looked at, and taken back by the drop: two that come at once never both take the last place.
        let before = self.0.open.fetch_add(1, Ordering::Relaxed);
        if before < self.0.connections_max {
            return Some(place);
        }
        self.0.refused.fetch_add(1, Ordering::Relaxed);
        None
    }
}

/// One connection, as it is counted until this is dropped.
#[derive(Debug)]
struct Place(Door);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A port's new connections. It never ends and never fails: what the system cannot do now it is asked to do again later.
pub(crate) struct Arrivals {
    listener: TcpListener,
    door: Door,
    opening_bytes: usize,
    idle_max: Option<Duration>,
    /// While nothing is accepted.
    pause: Option<Pin<Box<Sleep>>>,
    /// When the log last had a line about refusals, and about failures.
    said: [Option<Instant>; 2],
}

impl Arrivals {
    /// Of a port that speaks gRPC.
    ///
    /// # Errors
    /// The runtime, in which this is to be called, cannot watch the socket.
    pub(crate) fn of_grpc(listener: std::net::TcpListener, door: Door) -> Result<Self> {
        Self::new(listener, door, HTTP2_OPENING_BYTES, None)
    }

    /// Of a port that serves pages.
    ///
    /// # Errors
    /// As [`Self::of_grpc`].
    pub(crate) fn of_http(listener: std::net::TcpListener, door: Door) -> Result<Self> {
        Self::new(listener, door, HTTP1_OPENING_BYTES, Some(HTTP1_IDLE_MAX))
    }

    fn new(
        listener: std::net::TcpListener,
        door: Door,
        opening_bytes: usize,
        idle_max: Option<Duration>,
    ) -> Result<Self> {
        let listener = TcpListener::from_std(listener)?;
        Ok(Self { listener, door, opening_bytes, idle_max, pause: None, said: [None; 2] })
    }

    fn poll_arrival(&mut self, context: &mut Context<'_>) -> Poll<Connection> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(context));
                self.pause = None;
            }
            // Tokio has a task that accepts without end wait for its turn, also where all are closed at once.
            match ready!(self.listener.poll_accept(context)) {
                Ok((stream, _)) => match self.door.enter() {
                    Some(place) => {
                        return Poll::Ready(Connection::new(
                            stream,
                            place,
                            self.opening_bytes,
                            self.idle_max,
                        ));
                    }
                    None => self.say_refused(),
                },
                Err(error) if is_of_the_connection(&error) => {}
                // Without the pause this would spin: the connection that could not be accepted still waits, so the listener is
                // ready at once and fails again.
                Err(error) => {
                    self.say_failed(&error);
                    self.pause = Some(Box::pin(tokio::time::sleep(ACCEPT_PAUSE)));
                }
            }
        }
    }

    fn say_refused(&mut self) {
        if is_due(&mut self.said[0]) {
            let Counts { port, connections_max, .. } = *self.door.0;
            let refused = self.door.refused();
            tracing::warn!(
                port,
                connections_max,
                refused,
                "new connections are closed at once: there are as many as may be; `refused` were closed since the start"
            );
        }
    }

    fn say_failed(&mut self, error: &Error) {
        if is_due(&mut self.said[1]) {
            let (port, open) = (self.door.port(), self.door.open());
            tracing::error!(port, open, %error, "new connections cannot be accepted now, and wait; those that are open go on");
        }
    }
}

fn is_due(said: &mut Option<Instant>) -> bool {
    let due = said.is_none_or(|said| SAY_INTERVAL <= said.elapsed());
    if due {
        *said = Some(Instant::now());
    }
    due
}

/// Whether a connection has ended before it was accepted, which says nothing about the next one.
fn is_of_the_connection(error: &Error) -> bool {
    use ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}

impl tokio_stream::Stream for Arrivals {
    type Item = Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Connection>>> {
        self.poll_arrival(context).map(|connection| Some(Ok(connection)))
    }
}

impl Listener for Arrivals {
    type Io = Connection;
    type Addr = ();

    async fn accept(&mut self) -> (Connection, ()) {
        (std::future::poll_fn(|context| self.poll_arrival(context)).await, ())
    }

    fn local_addr(&self) -> Result<()> {
        Ok(())
    }
}

/// A connection that was let in.
pub(crate) struct Connection {
    stream: TcpStream,
    /// Until enough was said, and from then on where there is a limit to silence.
    patience: Option<Patience>,
    place: Place,
}

struct Patience {
    /// Of the first words.
    bytes_left: usize,
    deadline: Pin<Box<Sleep>>,
    /// For how long nothing may come after these.
    idle_max: Option<Duration>,
}

impl Connection {
    fn new(stream: TcpStream, place: Place, opening_bytes: usize, idle_max: Option<Duration>) -> Self {
        // Without Nagle's algorithm, which holds small answers back. Slower with it, and no worse.
        let _ = stream.set_nodelay(true);
        let deadline = Box::pin(tokio::time::sleep(OPENING_WAIT));
        Self { stream, patience: Some(Patience { bytes_left: opening_bytes, deadline, idle_max }), place }
    }

    /// Reads while there is a limit to silence. What has come is read before the time is looked at: a node that stood still
    /// meanwhile would else send everyone away who spoke while it did.
    fn poll_patiently(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        let Some(patience) = &mut self.patience else { return read };
        if read.is_ready() {
            patience.bytes_left = patience.bytes_left.saturating_sub(buffer.filled().len() - before);
            match patience.idle_max {
                _ if 0 < patience.bytes_left => {}
                Some(idle_max) => patience.deadline.as_mut().reset(Moment::now() + idle_max),
                None => self.patience = None,
            }
            return read;
        }
        ready!(patience.deadline.as_mut().poll(context));
        self.place.0.0.silent.fetch_add(1, Ordering::Relaxed);
        self.patience = None;
        Poll::Ready(Err(Error::new(ErrorKind::TimedOut, "nothing has come over the connection for too long")))
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        match self.patience {
            None => Pin::new(&mut self.stream).poll_read(context, buffer),
            Some(_) => self.poll_patiently(context, buffer),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_door_lets_in_as_many_as_may_be_and_counts_the_others() {
        let door = Door::new("clients", 2);
        let places = [door.enter().unwrap(), door.enter().unwrap()];
        assert!(door.enter().is_none() && door.enter().is_none());
        assert_eq!((door.open(), door.refused()), (2, 2));
        drop(places);
        assert_eq!((door.open(), door.refused()), (0, 2));
        assert!(door.enter().is_some());
    }

    #[test]
    fn a_part_of_the_files_is_left_for_the_data() {
        let most = |files_max| Doors::within(10_000, files_max).all().map(|door| door.0.connections_max);
        assert_eq!(most(1 << 20), [10_000, PEERS_MAX, HTTP_MAX]);
        assert_eq!(most(1024), [512, 128, 64]);
        for files_max in [1, 64, 256, 4096, 20_000] {
            let [clients, peers, http] = most(files_max);
            assert!(0 < clients && 0 < peers && 0 < http);
            assert!(clients + peers + http <= (files_max * 11 / 16).max(3), "{files_max}");
        }
    }

    #[test]
    fn only_what_is_wrong_with_one_connection_is_passed_over() {
        assert!(is_of_the_connection(&Error::from(rustix::io::Errno::CONNABORTED)));
        for errno in [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE, rustix::io::Errno::NOBUFS] {
            assert!(!is_of_the_connection(&Error::from(errno)));
        }
    }

    /// Who has begun to speak and says nothing more keeps its place for as long as it may, and no longer.
    #[tokio::test]
    async fn silence_after_the_first_words_ends_a_connection_where_it_has_a_limit() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let door = Door::new("http", 1);
        let idle_max = Some(Duration::from_millis(50));
        let mut arrivals = Arrivals::new(listener, door.clone(), HTTP1_OPENING_BYTES, idle_max).unwrap();
        let mut client = TcpStream::connect(address).await.unwrap();
        let (mut connection, ()) = Listener::accept(&mut arrivals).await;
        client.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
        let mut words = [0; 16];
        connection.read_exact(&mut words).await.unwrap();
        assert_eq!(connection.read(&mut words).await.unwrap_err().kind(), ErrorKind::TimedOut);
        assert_eq!((door.open(), door.silent()), (1, 1));
        drop(connection);
        assert_eq!(door.open(), 0);
    }

    #[test]
    fn the_log_has_one_line_in_a_while() {
        let mut said = None;
        assert!(is_due(&mut said) && !is_due(&mut said));
        said = Instant::now().checked_sub(SAY_INTERVAL);
        assert!(is_due(&mut said));
    }
}

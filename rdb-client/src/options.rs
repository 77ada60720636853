//! How a client behaves.

use std::time::Duration;

/// How operations travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Transport {
    /// Operations of concurrent callers share messages: a small part of a call's cost each.
    #[default]
    Pipe,
    /// Each operation is a call of its own.
    Unary,
}

/// How a client behaves. [`Options::new`] gives values that serve most.
#[derive(Debug, Clone)]
pub struct Options {
    /// Addresses of some of the cluster's nodes, `host:port`. The others are learned from them.
    pub endpoints: Vec<String>,
    /// How long a call may take, all its attempts included. [`crate::Namespace::with_timeout`] changes it for some.
    pub request_timeout: Duration,
    /// How long a node may take to accept a connection before the next one is asked.
    pub connect_timeout: Duration,
    /// How long [`crate::Client::connect`] looks for a node before it gives up.
    pub connect_patience: Duration,
    /// A connection that is silent for this long is asked for a sign of life, and given up after the same time again.
    pub keepalive: Duration,
    /// How operations travel.
    pub transport: Transport,
    /// Names each write, so that the cluster recognises it when it comes again: one whose answer was lost is then repeated
    /// until it is answered, and applied once. The names belong to a session, which the first write in a namespace opens and
    /// all writers of a [`crate::Client`] share; it costs that write one round trip more. Without it such a write is
    /// reported in doubt at once.
    pub sessions: bool,
    /// Messages that a pipe has on their way, reads and writes counted apart. Few, so that the rest gathers: two keep
    /// the server busy while an answer travels.
    pub messages_in_flight: usize,
    /// Operations that one message carries.
    pub operations_per_message: usize,
    /// Operations that may wait for a pipe, reads and writes counted apart. Past it callers wait for a place.
    pub operations_waiting: usize,
}

impl Options {
    /// The defaults, with these endpoints.
    pub fn new<E: Into<String>>(endpoints: impl IntoIterator<Item = E>) -> Self {
        Self { endpoints: endpoints.into_iter().map(Into::into).collect(), ..Self::default() }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            endpoints: vec!["127.0.0.1:7101".into(), "127.0.0.1:7102".into(), "127.0.0.1:7103".into()],
            request_timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_millis(500),
            connect_patience: Duration::from_secs(2),
            keepalive: Duration::from_secs(1),
            transport: Transport::Pipe,
            sessions: true,
            messages_in_flight: 2,
            operations_per_message: 512,
            operations_waiting: 4096,
        }
    }
}

//! The nodes that are known, and the connections to each: one, and more where there are many pipes.

use crate::error::Error;
use crate::options::Options;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use tonic::transport::{Channel, Endpoint};

/// A node's client address, `host:port`.
pub(crate) type Address = Arc<str>;

/// Nodes that a client remembers. Clusters have at most a handful; this only stops a server that names ever new ones.
const NODES_MAX: usize = 64;
/// What may be on its way on one stream and on one connection before the receiver says that it has read some. Large
/// values must not wait for such words.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// FlareDB's nodes take 256 calls on one connection at a time, and let further ones wait. A pipe is a call that lasts, one for each
/// namespace in use: were all places theirs, every other call would wait for ever.
const PIPES_PER_CONNECTION_MAX: usize = 128;

pub(crate) struct Nodes {
    options: Options,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// In the order learned, endpoints first.
    order: Vec<Address>,
    /// The first connection is for all calls, the others for pipes alone.
    connections: HashMap<Address, Vec<Connection>>,
    /// The node last told to lead a namespace, for routes that are yet to be made.
    leaders: HashMap<String, Address>,
}

struct Connection {
    /// It connects when it is first used, and again after it broke.
    channel: Channel,
    pipes: Arc<()>,
}

/// A pipe's place on a connection; free again when this is dropped.
pub(crate) struct Place(#[allow(dead_code, reason = "it is counted")] Arc<()>);

impl Connection {
    fn new(endpoint: &Endpoint) -> Self {
        Self { channel: endpoint.connect_lazy(), pipes: Arc::default() }
    }

    fn pipes(&self) -> usize {
        Arc::strong_count(&self.pipes) - 1
    }
}

impl Nodes {
    pub(crate) fn new(options: Options) -> Result<Self, Error> {
        let nodes = Self { options, known: Mutex::default() };
        for endpoint in &nodes.options.endpoints {
            let address = endpoint.trim().trim_start_matches("http://").trim_end_matches('/');
            if nodes.endpoint(address).is_none() {
                return Err(Error::Options(format!("'{endpoint}' is not an address like 127.0.0.1:7101")));
            }
            nodes.learn(address);
        }
        if nodes.known.lock().order.is_empty() {
            return Err(Error::Options("no endpoints were given".into()));
        }
        Ok(nodes)
    }

    pub(crate) fn options(&self) -> &Options {
        &self.options
    }

    /// Remembers a node. Answers `None` if the address is none, or there are too many.
    pub(crate) fn learn(&self, address: &str) -> Option<Address> {
        let mut known = self.known.lock();
        if let Some((address, _)) = known.connections.get_key_value(address) {
            return Some(address.clone());
        }
        if known.order.len() == NODES_MAX {
            return None;
        }
        let connection = Connection::new(&self.endpoint(address)?);
        let address: Address = address.into();
        known.order.push(address.clone());
        known.connections.insert(address.clone(), vec![connection]);
        Some(address)
    }

    pub(crate) fn channel(&self, address: &Address) -> Option<Channel> {
        Some(self.known.lock().connections.get(address)?.first()?.channel.clone())
    }

    /// For a pipe, which holds on to its place.
    pub(crate) fn channel_for_pipe(&self, address: &Address) -> Option<(Channel, Place)> {
        let mut known = self.known.lock();
        let connections = known.connections.get_mut(address)?;
        let mut number = 0;
        connections.retain(|connection| {
            number += 1;
            number == 1 || 0 < connection.pipes()
        });
        let has_room = |connection: &Connection| connection.pipes() < PIPES_PER_CONNECTION_MAX;
        let position = match connections.iter().position(has_room) {
            Some(position) => position,
            None => {
                connections.push(Connection::new(&self.endpoint(address)?));
                connections.len() - 1
            }
        };
        let connection = &connections[position];
        Some((connection.channel.clone(), Place(connection.pipes.clone())))
    }

    pub(crate) fn all(&self) -> Vec<Address> {
        self.known.lock().order.clone()
    }

    /// The node to ask after `address`, all in turn.
    pub(crate) fn after(&self, address: &Address) -> Address {
        let known = self.known.lock();
        let position = known.order.iter().position(|other| other == address).unwrap_or_default();
        known.order[(position + 1) % known.order.len()].clone()
    }

    pub(crate) fn remember_leader(&self, namespace: &str, address: Address) {
        self.known.lock().leaders.insert(namespace.to_string(), address);
    }

    /// The node to ask first about a namespace.
    pub(crate) fn first_for(&self, namespace: &str) -> Address {
        let known = self.known.lock();
        known.leaders.get(namespace).unwrap_or(&known.order[0]).clone()
    }

    /// Without a port it would be a name to look up, again and again.
    fn endpoint(&self, address: &str) -> Option<Endpoint> {
        let (_, port) = address.rsplit_once(':')?;
        port.parse::<u16>().ok()?;
        Some(
            Endpoint::from_shared(format!("http://{address}"))
                .ok()?
                .connect_timeout(self.options.connect_timeout)
                .http2_keep_alive_interval(self.options.keepalive)
                .keep_alive_timeout(self.options.keepalive)
                .keep_alive_while_idle(true)
                .initial_stream_window_size(STREAM_WINDOW_BYTES)
                .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
                .tcp_nodelay(true),
        )
    }
}

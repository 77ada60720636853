//! The nodes that are known, and one connection to each.

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

pub(crate) struct Nodes {
    options: Options,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// In the order learned, endpoints first.
    order: Vec<Address>,
    /// A channel connects when it is first used, and again after it broke.
    channels: HashMap<Address, Channel>,
    /// The node last told to lead a namespace, for routes that are yet to be made.
    leaders: HashMap<String, Address>,
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
        if let Some((address, _)) = known.channels.get_key_value(address) {
            return Some(address.clone());
        }
        if known.order.len() == NODES_MAX {
            return None;
        }
        let channel = self.endpoint(address)?.connect_lazy();
        let address: Address = address.into();
        known.order.push(address.clone());
        known.channels.insert(address.clone(), channel);
        Some(address)
    }

    pub(crate) fn channel(&self, address: &Address) -> Option<Channel> {
        self.known.lock().channels.get(address).cloned()
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

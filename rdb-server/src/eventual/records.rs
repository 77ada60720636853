//! What members ask each other for reads of a majority: the records of some keys. Both ends; the calls run on the runtime of
//! whoever reads, and are served on that of the peers, which hands the reading of the disk to its blocking threads.
//!
//! An answer counts only if it comes from the data directory that its node joined with, as this node knows it from their
//! handshakes: a node that came back with an empty one has forgotten what it acknowledged.

use crate::budget::Share;
use crate::faults::Cuts;
use crate::shared::Shared;
use crate::transport::PROTOCOL;
use bytes::Bytes;
use rdb_core::ids::{Era, NamespaceId, NodeId, RegionId};
use rdb_pd::Mode;
use rdb_proto::internal::v1::records_client::RecordsClient;
use rdb_proto::internal::v1::records_server;
use rdb_proto::internal::v1::{FindRequest, FindResponse, FoundRecord, Hello};
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};

/// Bytes of records after which an answer ends; what is left is asked for again.
const ANSWER_BYTES: usize = 1 << 20;
/// The longest answer: one record more, and what surrounds them.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// Bytes of keys in one request.
const REQUEST_BYTES: usize = 1 << 20;
/// The longest request: one key more, and what surrounds them.
pub(crate) const REQUEST_BYTES_MAX: usize = 4 << 20;
/// Bytes of records that one question may find.
const FOUND_BYTES_MAX: usize = 4 << 20;
/// For a connection to another member.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);

/// Records as they are stored, one for each key.
pub(crate) type Stored = Vec<Option<Bytes>>;

/// Where the records of some keys are to be found.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) region: RegionId,
    pub(crate) namespace: NamespaceId,
    pub(crate) era: Era,
}

/// The ways to the other members. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Finders(Arc<Inner>);

struct Inner {
    cuts: Cuts,
    /// Made when first needed: that takes a runtime.
    clients: BTreeMap<NodeId, (String, OnceLock<RecordsClient<Channel>>)>,
}

impl Finders {
    /// The ways to `others`, each a node and its address.
    pub(crate) fn new(others: impl Iterator<Item = (NodeId, String)>, cuts: Cuts) -> Self {
        let clients = others.map(|(node, address)| (node, (address, OnceLock::new()))).collect();
        Self(Arc::new(Inner { cuts, clients }))
    }

    /// Where a member is reached by other nodes.
    pub(super) fn address(&self, node: NodeId) -> Option<&str> {
        self.0.clients.get(&node).map(|(address, _)| address.as_str())
    }

    /// From whom this node is cut off.
    pub(super) fn cuts(&self) -> &Cuts {
        &self.0.cuts
    }

    fn client(&self, node: NodeId) -> Result<RecordsClient<Channel>, String> {
        let (address, client) =
            self.0.clients.get(&node).ok_or_else(|| format!("node {node} is no member"))?;
        if let Some(client) = client.get() {
            return Ok(client.clone());
        }
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .map_err(|error| format!("'{address}' is no address: {error}"))?;
        let endpoint = endpoint.connect_timeout(CONNECT_TIMEOUT).tcp_nodelay(true);
        let made = RecordsClient::new(endpoint.connect_lazy()).max_decoding_message_size(ANSWER_BYTES_MAX);
        Ok(client.get_or_init(|| made).clone())
    }
}

/// Why a member did not say what it has.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unsaid {
    /// In words that follow its name.
    Because(String),
    /// The records are more than one question may find.
    TooMuch,
}

impl From<String> for Unsaid {
    fn from(reason: String) -> Self {
        Unsaid::Because(reason)
    }
}

/// Asks a member for the records of `keys`. Ends only when it has them or cannot: whoever calls sets the time.
pub(crate) async fn find(
    shared: &Shared,
    node: NodeId,
    place: &Place,
    keys: &[Bytes],
) -> Result<Stored, Unsaid> {
    let mut client = shared.finders.client(node)?;
    let (mut stored, mut bytes) = (Vec::with_capacity(keys.len()), 0);
    while stored.len() < keys.len() {
        shared.finders.0.cuts.until_whole(node).await;
        let request = FindRequest {
            hello: Some(hello(shared, node)),
            region: place.region.0,
            era: place.era.0,
            namespace: place.namespace.0,
            keys: within(&keys[stored.len()..], REQUEST_BYTES),
        };
        let asked = request.keys.len();
        let answer = client.find(request).await.map_err(|status| status.message().to_owned())?.into_inner();
        let known = shared.peers.directory(node).map(|directory| directory.store_id);
        if known != Some(answer.store_id) {
            return Err("answers from another data directory than it joined with".to_owned().into());
        }
        if answer.records.is_empty() || asked < answer.records.len() {
            return Err("gave an answer that does not fit the question".to_owned().into());
        }
        bytes += answer.records.iter().map(|found| found.record.len()).sum::<usize>();
        if FOUND_BYTES_MAX < bytes {
            return Err(Unsaid::TooMuch);
        }
        let records = answer.records.into_iter().map(|found| found.record);
        stored.extend(records.map(|record| (!record.is_empty()).then_some(record)));
    }
    Ok(stored)
}

/// Whether this node shows the records of that era.
pub(crate) fn is_here(shared: &Shared, place: &Place) -> bool {
    let view = shared.regions.get(place.region);
    let same = view.is_some_and(|view| !view.is_closed() && view.mode() == (Mode::Eventual, place.era));
    same && shared.eventual.shown_in(place.region, place.era).is_some()
}

/// The first of the keys, as many as fit, and at least one.
fn within(keys: &[Bytes], bytes_max: usize) -> Vec<Bytes> {
    let mut bytes = 0;
    let fit = keys.iter().take_while(|key| {
        let first = bytes == 0;
        bytes += key.len();
        first || bytes <= bytes_max
    });
    fit.cloned().collect()
}

pub(super) fn hello(shared: &Shared, to: NodeId) -> Hello {
    Hello {
        protocol: PROTOCOL,
        cluster_id: shared.config.cluster_id.clone(),
        from: shared.config.node_id,
        to: to.0,
        store_id: shared.identity.store_id,
        incarnation: shared.identity.incarnation,
        ..Hello::default()
    }
}

/// Tells other members what is here.
pub(crate) struct RecordsService {
    pub(crate) shared: Shared,
    pub(crate) cuts: Cuts,
}

/// Who asks, if it is a member that speaks to this node.
pub(super) fn asking_member(shared: &Shared, hello: &Hello) -> Result<NodeId, Status> {
    let (from, config) = (NodeId(hello.from), &shared.config);
    let fits = hello.protocol == PROTOCOL
        && hello.cluster_id == config.cluster_id
        && hello.to == config.node_id
        && from != config.node()
        && config.members().contains(&from);
    let refused = || Status::failed_precondition("says that the two do not belong to one cluster");
    fits.then_some(from).ok_or_else(refused)
}

impl RecordsService {
    async fn read(&self, place: Place, keys: Vec<Bytes>) -> Result<Vec<FoundRecord>, Status> {
        let away =
            || Status::unavailable("is in another era of the namespace, or has not read its part of it yet");
        if !is_here(&self.shared, &place) {
            return Err(away());
        }
        let budget = self.shared.regions.budget(place.region);
        let bytes = keys.iter().map(Bytes::len).sum::<usize>() + ANSWER_BYTES;
        let share =
            budget.take(bytes).map_err(|_| Status::resource_exhausted("is out of memory for requests"))?;
        let data = self.shared.data.clone();
        let namespace = place.namespace;
        let read = tokio::task::spawn_blocking(move || {
            let _share: Share = share;
            let (mut records, mut bytes) = (Vec::with_capacity(keys.len()), 0);
            for key in keys {
                let record = data.get(namespace, &key)?.unwrap_or_default();
                bytes += key.len() + record.len();
                records.push(FoundRecord { record: record.into() });
                if ANSWER_BYTES <= bytes {
                    break;
                }
            }
            Ok::<_, rdb_storage::Error>(records)
        });
        let read = read.await.map_err(|error| Status::internal(error.to_string()))?;
        let records = read.map_err(|error| Status::internal(format!("cannot read its disk: {error}")))?;
        // A region that has left takes its records with it, and another era begins with other ones.
        let same = is_here(&self.shared, &place);
        same.then_some(records).ok_or_else(away)
    }
}

#[tonic::async_trait]
impl records_server::Records for RecordsService {
    async fn find(&self, request: Request<FindRequest>) -> Result<Response<FindResponse>, Status> {
        let FindRequest { hello, region, era, namespace, keys } = request.into_inner();
        let from = asking_member(&self.shared, &hello.unwrap_or_default())?;
        self.cuts.until_open_from(from).await;
        let place = Place { region: RegionId(region), namespace: NamespaceId(namespace), era: Era(era) };
        let records = self.read(place, keys).await?;
        self.cuts.until_open_to(from).await;
        Ok(Response::new(FindResponse { store_id: self.shared.identity.store_id, records }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_go_in_parts_and_none_is_too_long_to_go() {
        let keys: Vec<Bytes> = [3, 4, 5, 1].map(|len| Bytes::from(vec![7; len])).to_vec();
        let count = |bytes_max| within(&keys, bytes_max).len();
        assert_eq!([1, 3, 7, 11, 12, 13].map(count), [1, 1, 2, 2, 3, 4]);
        assert!(within(&[], 10).is_empty());
    }
}

//! Taking pages, and asking for hashes. The calls run on the runtime of the peers; what they bring is posted to the thread.

use super::{Arrived, Piece};
use crate::disk::Room;
use crate::eventual::Event;
use crate::eventual::records::{CONNECT_TIMEOUT, Place, hello};
use crate::shared::Shared;
use rdb_core::eventual::buckets::Digest;
use rdb_core::eventual::machine::State;
use rdb_core::ids::NodeId;
use rdb_proto::internal::v1::copies_client::CopiesClient;
use rdb_proto::internal::v1::{CopyRequest, CopyResponse, DigestRequest};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tonic::transport::{Channel, Endpoint};

/// The longest page, many times over: a record and a lost value of the largest size more than it is cut at, and what surrounds them.
const PAGE_BYTES_MAX: usize = 64 << 20;
/// For one page, or for hashes.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a page is asked for.
const ATTEMPTS_MAX: usize = 3;

/// What the thread has fetched for it.
#[derive(Clone)]
pub(crate) struct Fetcher {
    shared: Shared,
    runtime: Handle,
}

impl Fetcher {
    pub(crate) fn new(shared: Shared, runtime: Handle) -> Self {
        Self { shared, runtime }
    }

    /// Fetches a copy of `from`'s part, page by page.
    pub(in crate::eventual) fn copy(&self, from: NodeId, place: Place, attempt: u64) {
        let shared = self.shared.clone();
        self.runtime.spawn(async move {
            let give = |piece| post(&shared, &place, Arrived::Page { attempt, piece });
            if let Err(reason) = pages(&shared, from, &place, &[], give).await {
                post(&shared, &place, Arrived::Failed { attempt, reason });
            }
        });
    }

    /// Fetches `from`'s records in these buckets.
    pub(in crate::eventual) fn records(&self, from: NodeId, place: Place, buckets: Vec<u32>) {
        let shared = self.shared.clone();
        self.runtime.spawn(async move {
            let give = |piece| post(&shared, &place, Arrived::Records { piece });
            let failed = pages(&shared, from, &place, &buckets, give).await.err();
            post(&shared, &place, Arrived::RecordsEnd { from, failed });
        });
    }

    /// Asks `from` for its hashes.
    pub(in crate::eventual) fn digest(&self, from: NodeId, place: Place) {
        let shared = self.shared.clone();
        self.runtime.spawn(async move {
            let asked = tokio::time::timeout(ANSWER_TIMEOUT, digest(&shared, from, &place)).await;
            let digest = asked.unwrap_or_else(|_| Err("did not answer in time".to_owned()));
            if let Err(reason) = &digest {
                tracing::debug!(region = %place.region, %from, reason, "a member's hashes are not known");
            }
            post(&shared, &place, Arrived::Digest { from, digest: digest.ok().flatten() });
        });
    }
}

fn post(shared: &Shared, place: &Place, arrived: Arrived) {
    shared.eventual.post(Event::Copy { region: place.region, era: place.era, arrived });
}

fn client(shared: &Shared, node: NodeId) -> Result<CopiesClient<Channel>, String> {
    let address = shared.finders.address(node).ok_or_else(|| format!("node {node} is no member"))?;
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|error| format!("'{address}' is no address: {error}"))?;
    let endpoint = endpoint.connect_timeout(CONNECT_TIMEOUT).tcp_nodelay(true);
    Ok(CopiesClient::new(endpoint.connect_lazy()).max_decoding_message_size(PAGE_BYTES_MAX))
}

/// Whether an answer comes from the data directory that its node joined with.
fn is_from_there(shared: &Shared, node: NodeId, store_id: u64) -> Result<(), String> {
    let known = shared.peers.directory(node).map(|directory| directory.store_id);
    let same = known == Some(store_id);
    same.then_some(()).ok_or_else(|| "answers from another data directory than it joined with".to_owned())
}

async fn pages(
    shared: &Shared,
    from: NodeId,
    place: &Place,
    buckets: &[u32],
    mut give: impl FnMut(Piece),
) -> Result<(), String> {
    let mut client = client(shared, from)?;
    let (mut copy, mut number) = (0, 0);
    loop {
        if shared.disk.room() != Room::Enough {
            return Err("this node's disk is nearly full".to_owned());
        }
        let request = CopyRequest {
            hello: Some(hello(shared, from)),
            region: place.region.0,
            era: place.era.0,
            namespace: place.namespace.0,
            copy,
            page: number,
            buckets: buckets.to_vec(),
        };
        let answer = page(shared, from, &mut client, request).await?;
        is_from_there(shared, from, answer.store_id)?;
        let state = match number {
            0 => Some(State::decode(&answer.state).map_err(|error| error.to_string())?),
            _ => None,
        };
        let (go_on, goes_on) = oneshot::channel();
        give(Piece { number, state, page: answer.page, last: answer.last, go_on });
        if goes_on.await.is_err() {
            return Err("it is not wanted any more".to_owned());
        }
        if answer.last {
            return Ok(());
        }
        (copy, number) = (answer.copy, number + 1);
    }
}

/// One page. What was lost on its way is asked for again.
async fn page(
    shared: &Shared,
    from: NodeId,
    client: &mut CopiesClient<Channel>,
    request: CopyRequest,
) -> Result<CopyResponse, String> {
    let mut failure = String::new();
    for _ in 0..ATTEMPTS_MAX {
        let ask = async {
            shared.finders.cuts().until_whole(from).await;
            client.page(request.clone()).await
        };
        failure = match tokio::time::timeout(ANSWER_TIMEOUT, ask).await {
            Ok(Ok(answer)) => return Ok(answer.into_inner()),
            Ok(Err(status)) => status.message().to_owned(),
            Err(_) => "did not answer in time".to_owned(),
        };
        // A copy that was not opened may have been refused for good.
        if request.copy == 0 {
            break;
        }
    }
    Err(failure)
}

async fn digest(shared: &Shared, from: NodeId, place: &Place) -> Result<Option<Digest>, String> {
    let mut client = client(shared, from)?;
    shared.finders.cuts().until_whole(from).await;
    let request = DigestRequest {
        hello: Some(hello(shared, from)),
        region: place.region.0,
        era: place.era.0,
        namespace: place.namespace.0,
    };
    let answer = client.digest(request).await.map_err(|status| status.message().to_owned())?.into_inner();
    is_from_there(shared, from, answer.store_id)?;
    if answer.digest.is_empty() {
        return Ok(None);
    }
    Digest::decode(&answer.digest).map(Some).map_err(|error| error.to_string())
}

//! Plain gRPC to one node, for what must choose the node or the names of its requests.

use prost::Message as _;
use rdb_proto::v1::cluster_client::ClusterClient;
use rdb_proto::v1::kv_client::KvClient;
use rdb_proto::{ERROR_METADATA_KEY, v1};
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

/// A connection to one node, made when first used and again after it broke.
#[derive(Clone)]
pub(crate) struct Raw {
    channel: Channel,
}

impl Raw {
    /// To the node at this address.
    pub(crate) fn new(address: &str) -> anyhow::Result<Self> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))?
            .connect_timeout(Duration::from_millis(500))
            .tcp_nodelay(true);
        Ok(Self { channel: endpoint.connect_lazy() })
    }

    /// Keys and values.
    pub(crate) fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel.clone())
    }

    /// How the cluster is, as this node sees it.
    pub(crate) async fn status(&self, limit: Duration) -> Result<v1::StatusResponse, Status> {
        let mut cluster = ClusterClient::new(self.channel.clone());
        match tokio::time::timeout(limit, cluster.status(timed(v1::StatusRequest {}, limit))).await {
            Ok(answer) => Ok(answer?.into_inner()),
            Err(_) => Err(Status::deadline_exceeded("no answer")),
        }
    }
}

/// A request that the client gives up after this long.
pub(crate) fn timed<T>(message: T, limit: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(limit);
    request
}

/// The node's own error in a failed call, where it sent one.
pub(crate) fn error_in(status: &Status) -> Option<v1::Error> {
    let value = status.metadata().get_bin(ERROR_METADATA_KEY)?;
    v1::Error::decode(value.to_bytes().ok()?).ok()
}

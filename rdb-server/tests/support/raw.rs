//! Plain gRPC to one node, for tests that must choose the node, the names of requests, or what is wrong with them.

use prost::Message as _;
use rdb_proto::v1::cluster_client::ClusterClient;
use rdb_proto::v1::kv_client::KvClient;
use rdb_proto::v1::namespaces_client::NamespacesClient;
use rdb_proto::{ERROR_METADATA_KEY, v1};
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

/// A node's own words, or the transport's where it sent none.
#[derive(Debug, Clone)]
pub struct Refused {
    pub code: v1::Code,
    pub outcome: v1::Outcome,
    pub text: String,
    pub error: v1::Error,
    pub status: tonic::Code,
}

impl From<Status> for Refused {
    fn from(status: Status) -> Self {
        let detail = status.metadata().get_bin(ERROR_METADATA_KEY).and_then(|value| value.to_bytes().ok());
        let error = detail.and_then(|bytes| v1::Error::decode(bytes).ok()).unwrap_or_default();
        Self {
            code: error.code(),
            outcome: error.outcome(),
            text: status.message().to_owned(),
            error,
            status: status.code(),
        }
    }
}

/// Connections to one node.
#[derive(Clone)]
pub struct Raw {
    pub kv: KvClient<Channel>,
    pub namespaces: NamespacesClient<Channel>,
    pub cluster: ClusterClient<Channel>,
}

type Answer<T> = Result<T, Refused>;

impl Raw {
    /// Connects when first used.
    pub fn new(address: &str) -> Self {
        let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy();
        Self {
            kv: KvClient::new(channel.clone()),
            namespaces: NamespacesClient::new(channel.clone()),
            cluster: ClusterClient::new(channel),
        }
    }

    pub async fn status(&self) -> Answer<v1::StatusResponse> {
        Ok(self.cluster.clone().status(timed(v1::StatusRequest {}, 1000)).await?.into_inner())
    }

    /// A linearizable read.
    pub async fn get(&self, namespace: &str, key: &str, timeout_ms: u64) -> Answer<v1::GetResponse> {
        let get = v1::GetRequest {
            namespace: namespace.to_owned(),
            get: Some(v1::Get { key: key.to_owned().into() }),
            ..v1::GetRequest::default()
        };
        Ok(self.kv.clone().get(timed(get, timeout_ms)).await?.into_inner())
    }

    pub async fn put(&self, namespace: &str, key: &str, value: &str, timeout_ms: u64) -> Answer<v1::Version> {
        self.put_as(namespace, key, value, None, timeout_ms).await
    }

    /// A write with a name of its own in a session.
    pub async fn put_as(
        &self,
        namespace: &str,
        key: &str,
        value: &str,
        request: Option<v1::RequestId>,
        timeout_ms: u64,
    ) -> Answer<v1::Version> {
        let put = v1::PutRequest {
            namespace: namespace.to_owned(),
            epoch: 0,
            put: Some(v1::Put { key: key.to_owned().into(), value: value.to_owned().into() }),
            request,
            ..v1::PutRequest::default()
        };
        let answer = self.kv.clone().put(timed(put, timeout_ms)).await?.into_inner();
        Ok(answer.version.expect("a write's answer has a version"))
    }
}

pub fn timed<T>(message: T, timeout_ms: u64) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(Duration::from_millis(timeout_ms));
    request
}

//! The cluster service: how the cluster is doing, as this node sees it. It answers without a majority, since that is
//! when it is asked.

use super::namespaces::{catalog_header, describe_all, describe_region};
use crate::disk::Room;
use crate::shared::Shared;
use crate::transport::SILENCE_MAX;
use rdb_core::ids::{NodeId, RegionId};
use rdb_proto::v1;
use rdb_proto::v1::cluster_server::Cluster;
use tonic::{Request, Response, Status};

/// Serves the cluster's status.
pub(crate) struct ClusterService(pub(crate) Shared);

#[tonic::async_trait]
impl Cluster for ClusterService {
    async fn status(&self, _: Request<v1::StatusRequest>) -> Result<Response<v1::StatusResponse>, Status> {
        let shared = &self.0;
        let meta = shared.regions.get(RegionId::META);
        Ok(Response::new(v1::StatusResponse {
            header: Some(catalog_header(shared)),
            cluster_id: shared.config.cluster_id.clone(),
            nodes: nodes(shared),
            namespaces: describe_all(shared),
            meta_leader: meta.and_then(|view| view.leader()).map_or(0, |leader| leader.0),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            disk_full: shared.disk.room() != Room::Enough,
            disk_available_bytes: shared.disk.available_bytes(),
            clock_untrusted: shared.clocks.trust().is_err(),
            catalog: Some(describe_region(&shared.regions, RegionId::META, &shared.config.members())),
        }))
    }
}

fn nodes(shared: &Shared) -> Vec<v1::Node> {
    let regions = shared.regions.all();
    let led_by = |node: NodeId| regions.values().filter(|view| view.leader() == Some(node)).count() as u64;
    let ahead_ms = shared.clocks.ahead_ms();
    let mut nodes = Vec::new();
    for member in &shared.config.nodes {
        let node = NodeId(member.id);
        let this = node == shared.config.node();
        let silence = shared.peers.silence(node);
        let room = if this { shared.disk.room() } else { shared.peers.room(node) };
        nodes.push(v1::Node {
            id: member.id,
            client_address: member.client.clone(),
            peer_address: member.peer.clone(),
            reachable: this || silence.is_some_and(|silence| silence <= SILENCE_MAX),
            silence_ms: silence.map_or(0, |silence| u64::try_from(silence.as_millis()).unwrap_or(u64::MAX)),
            regions_led: led_by(node),
            disk_full: room != Room::Enough,
            clock_ahead_ms: ahead_ms.get(&node).copied(),
            slow_sync_ms: if this { shared.disk.slow_sync_ms() } else { shared.peers.slow_sync_ms(node) },
        });
    }
    nodes
}

//! The request for what a node has set aside. It answers for itself alone, without a majority, whatever mode the namespace is in.

use super::namespaces::NamespaceService;
use super::pages::Read;
use super::{held, request, status};
use crate::eventual::set_aside::{self, Page, Place, SetAside};
use rdb_core::version::Version;
use rdb_proto::v1;
use tonic::Response;

impl NamespaceService {
    pub(super) async fn list_set_aside(
        &self,
        asked: v1::ListQuarantineRequest,
    ) -> Result<Response<v1::ListQuarantineResponse>, v1::Error> {
        let after = match &asked.token[..] {
            [] => None,
            token => Some(Place::decode(token).map_err(|error| status::invalid(error.to_string()))?),
        };
        let logs = self.0.logs.clone();
        let read =
            self.read_page((&asked.name, asked.limit), "what this node has set aside", |namespace, max| {
                let region = namespace.region;
                move || set_aside::list(&logs, region, after, max)
            });
        let Read { page, header, budget, .. } = read.await?;
        held::read(&budget, to_wire(header, page))
    }
}

fn to_wire(header: v1::Header, page: Page) -> v1::ListQuarantineResponse {
    let write = |SetAside { place, origin, entry }| {
        let version = Version { era: place.era, hlc: entry.hlc, node: origin.node };
        v1::QuarantinedWrite {
            version: Some(request::to_wire(version)),
            incarnation: origin.incarnation.0,
            seq: entry.seq,
            key: entry.key.into(),
            value: entry.value.map(Into::into),
        }
    };
    v1::ListQuarantineResponse {
        header: Some(header),
        writes: page.writes.into_iter().map(write).collect(),
        next: page.next.map(Place::encode).unwrap_or_default().into(),
        total: page.total,
    }
}

//! The request for the lost writes that a node keeps. It answers for itself, without a majority, whatever mode the namespace is in.

use super::namespaces::NamespaceService;
use super::pages::Read;
use super::{held, request, status};
use crate::eventual::kept::{self, LostWrite, Page};
use rdb_core::ids::Era;
use rdb_proto::v1;
use tonic::Response;

impl NamespaceService {
    pub(super) async fn list_lost(
        &self,
        asked: v1::ListConflictsRequest,
    ) -> Result<Response<v1::ListConflictsResponse>, v1::Error> {
        let after = Some(asked.token.to_vec()).filter(|token| !token.is_empty());
        if let Some(token) = &after {
            kept::check_token(token).map_err(|error| status::invalid(error.to_string()))?;
        }
        let shared = self.0.clone();
        let read = self.read_page(
            (&asked.name, asked.limit),
            "the lost writes that this node keeps",
            |namespace, max| {
                let region = namespace.region;
                // Of a replica that is not here nothing is certain.
                let era = shared.regions.get(region).map_or(Era(0), |view| view.mode().1);
                let (data, prefix) = (shared.data.region(region, namespace.id), asked.prefix.clone());
                move || kept::list(&data, (era, &prefix), after.as_deref(), max)
            },
        );
        let Read { page, header, namespace, budget } = read.await?;
        held::read(&budget, to_wire(header, namespace.settings.keep_lost_seconds, page))
    }
}

fn to_wire(header: v1::Header, keep_lost_seconds: u64, page: Page) -> v1::ListConflictsResponse {
    let write = |write: LostWrite| v1::LostWrite {
        version: Some(request::to_wire(write.version)),
        incarnation: write.id.origin.incarnation.0,
        seq: write.id.seq,
        key: write.key.into(),
        value: write.value.map(Into::into),
        displaced_by: Some(request::to_wire(write.by_version)),
        displaced_by_incarnation: write.by.origin.incarnation.0,
        displaced_by_seq: write.by.seq,
        settled: write.settled,
        noted_ms: write.noted_ms,
    };
    v1::ListConflictsResponse {
        header: Some(header),
        writes: page.writes.into_iter().map(write).collect(),
        next: page.next.unwrap_or_default().into(),
        keep_lost_seconds,
    }
}

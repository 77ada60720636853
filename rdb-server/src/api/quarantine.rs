//! The request for what a node has set aside. It answers for itself alone, without a majority, whatever mode the namespace is in.

use super::namespaces::NamespaceService;
use super::{held, request, status};
use crate::eventual::set_aside::{self, ListError, Page, PageMax, Place, SetAside};
use rdb_core::version::Version;
use rdb_pd::Stage;
use rdb_proto::v1;
use tonic::Response;

/// Writes on a page, and as many as there are unless the caller says otherwise.
const PAGE_WRITES_MAX: usize = 1000;
/// Bytes of a page, unless its first write has more: with the largest value it stays below what gRPC libraries take unasked.
pub(super) const PAGE_BYTES_MAX: usize = 1 << 20;

impl NamespaceService {
    pub(super) async fn list_set_aside(
        &self,
        asked: v1::ListQuarantineRequest,
    ) -> Result<Response<v1::ListQuarantineResponse>, v1::Error> {
        let after = match &asked.token[..] {
            [] => None,
            token => Some(Place::decode(token).map_err(|error| status::invalid(error.to_string()))?),
        };
        let shared = &self.0;
        let catalog = shared.catalog.load();
        let namespace = catalog.namespace(&asked.name).filter(|namespace| namespace.stage == Stage::Open);
        let namespace = namespace.ok_or_else(|| status::namespace_not_found(&asked.name))?;
        let budget = shared.budget_of(&asked.name);
        // While it is read; the answer takes what it has.
        let _reads = super::admit_read(&budget, PAGE_BYTES_MAX)?;
        let (logs, region) = (shared.logs.clone(), namespace.region);
        let max = PageMax { writes: page_writes(asked.limit), bytes: PAGE_BYTES_MAX };
        let read = tokio::task::spawn_blocking(move || set_aside::list(&logs, region, after, max));
        let page = read.await.map_err(|error| status::internal(error.to_string()))?;
        let page = page.map_err(|error| unread(error, "what this node has set aside"))?;
        // A namespace that has left in the meantime takes its logs with it, and this may be half of them.
        let now = shared.catalog.load();
        if now.namespace_of(namespace.id).is_none_or(|now| now.stage != Stage::Open) {
            return Err(status::namespace_gone());
        }
        let header = shared.header(region, namespace.epoch());
        held::read(&budget, to_wire(header, page))
    }
}

pub(super) fn page_writes(limit: u32) -> usize {
    match usize::try_from(limit).unwrap_or(PAGE_WRITES_MAX) {
        0 => PAGE_WRITES_MAX,
        limit => limit.min(PAGE_WRITES_MAX),
    }
}

pub(super) fn unread(error: ListError, what: &str) -> v1::Error {
    match error {
        ListError::Storage(error) => super::kv::disk_failed(error),
        ListError::Corrupt(error) => {
            tracing::error!(%error, what, "it could not be read");
            status::internal(format!("{what} cannot be read, a part of it is damaged: {error}"))
        }
    }
}

fn to_wire(header: v1::Header, page: Page) -> v1::ListQuarantineResponse {
    let write = |SetAside { place, entry }| {
        let version = Version { era: place.era, hlc: entry.hlc, node: place.origin.node };
        v1::QuarantinedWrite {
            version: Some(request::to_wire(version)),
            incarnation: place.origin.incarnation.0,
            seq: place.seq,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_its_bound_whatever_is_asked_for() {
        let asked = [0, 1, 999, 1000, 1001, u32::MAX];
        assert_eq!(asked.map(page_writes), [1000, 1, 999, 1000, 1000, 1000]);
    }
}

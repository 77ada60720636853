//! Pages of what this node has of a namespace for itself alone: it answers without a majority, whatever mode the namespace is in.

use super::namespaces::NamespaceService;
use super::status;
use crate::budget::Budget;
use crate::eventual::set_aside::{ListError, PageMax};
use rdb_pd::{Namespace, Stage};
use rdb_proto::v1;

/// Writes on a page, and as many as there are unless the caller says otherwise.
const PAGE_WRITES_MAX: usize = 1000;
/// Bytes of a page, unless its first write has more: with the largest value it stays below what gRPC libraries take unasked.
const PAGE_BYTES_MAX: usize = 1 << 20;

/// What was read, and what its answer needs besides.
pub(super) struct Read<P> {
    pub(super) page: P,
    pub(super) header: v1::Header,
    pub(super) namespace: Namespace,
    pub(super) budget: Budget,
}

impl NamespaceService {
    /// Reads a page of `what` this node has of the namespace called `name`, on a thread that may wait for the disk. `prepare` says how.
    pub(super) async fn read_page<P: Send + 'static, R>(
        &self,
        (name, limit): (&str, u32),
        what: &str,
        prepare: impl FnOnce(&Namespace, PageMax) -> R,
    ) -> Result<Read<P>, v1::Error>
    where
        R: FnOnce() -> Result<P, ListError> + Send + 'static,
    {
        let shared = &self.0;
        let catalog = shared.catalog.load();
        let namespace = catalog.namespace(name).filter(|namespace| namespace.stage == Stage::Open);
        let namespace = namespace.ok_or_else(|| status::namespace_not_found(name))?.clone();
        let budget = shared.budget_of(name);
        // While it is read; the answer takes what it has.
        let _reads = super::admit_read(&budget, PAGE_BYTES_MAX)?;
        let max = PageMax { writes: page_writes(limit), bytes: PAGE_BYTES_MAX };
        let read = tokio::task::spawn_blocking(prepare(&namespace, max));
        let page = read.await.map_err(|error| status::internal(error.to_string()))?;
        let page = page.map_err(|error| unread(error, what))?;
        // A namespace that has left in the meantime takes what it had here with it, and this may be half of it.
        let now = shared.catalog.load();
        if now.namespace_of(namespace.id).is_none_or(|now| now.stage != Stage::Open) {
            return Err(status::namespace_gone());
        }
        let header = shared.header_of(&namespace);
        Ok(Read { page, header, namespace, budget })
    }
}

fn page_writes(limit: u32) -> usize {
    match usize::try_from(limit).unwrap_or(PAGE_WRITES_MAX) {
        0 => PAGE_WRITES_MAX,
        limit => limit.min(PAGE_WRITES_MAX),
    }
}

fn unread(error: ListError, what: &str) -> v1::Error {
    match error {
        ListError::Storage(error) => super::kv::disk_failed(error),
        ListError::Corrupt(error) => {
            tracing::error!(%error, what, "it could not be read");
            status::internal(format!("{what} cannot be read, a part of it is damaged: {error}"))
        }
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

//! Lost writes: what a test says, a few at a time.

use super::{Cluster, Service, not_found, to_status};
use rdb_proto::v1;
use tonic::{Response, Status};

/// Writes that a node looks at for a page, at most.
const PAGE_WRITES_MAX: usize = 2;
/// For how long all namespaces keep them.
const KEEP_LOST_SECONDS: u64 = 3600;

impl Cluster {
    /// The node has noted these as lost, by key and value, in all namespaces.
    pub fn lose(&self, node: u64, writes: &[(&[u8], Option<&[u8]>)]) {
        let write = |(number, (key, value)): (u64, &(&[u8], Option<&[u8]>))| v1::LostWrite {
            version: Some(v1::Version { era: 3, hlc: 70 + number, node }),
            incarnation: 9,
            seq: number,
            key: key.to_vec().into(),
            value: value.map(|value| value.to_vec().into()),
            displaced_by: Some(v1::Version { era: 3, hlc: 90, node: 1 }),
            displaced_by_incarnation: 8,
            displaced_by_seq: 5,
            settled: number % 2 == 0,
            noted_ms: 1_000,
        };
        let writes = (1..).zip(writes).map(write).collect();
        self.world.state.lock().lost.insert(node, writes);
    }
}

impl Service {
    pub(super) fn list_lost(
        &self,
        asked: &v1::ListConflictsRequest,
    ) -> Result<Response<v1::ListConflictsResponse>, Status> {
        let state = self.world.state.lock();
        if !state.namespaces.contains_key(&asked.name) {
            return Err(to_status(&not_found(&asked.name)));
        }
        let all = state.lost.get(&self.id).cloned().unwrap_or_default();
        let from = asked.token.first().copied().map_or(0, usize::from);
        let limit = usize::try_from(asked.limit).unwrap().clamp(1, PAGE_WRITES_MAX);
        let to = all.len().min(from + limit);
        let next = if to < all.len() { vec![u8::try_from(to).unwrap()] } else { Vec::new() };
        let found = all[from..to].iter().filter(|write| write.key.starts_with(&asked.prefix));
        Ok(Response::new(v1::ListConflictsResponse {
            header: Some(state.header(self.id)),
            writes: found.cloned().collect(),
            next: next.into(),
            keep_lost_seconds: KEEP_LOST_SECONDS,
        }))
    }
}

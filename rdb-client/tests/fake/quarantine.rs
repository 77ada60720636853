//! What nodes have set aside: what a test says, a few writes at a time.

use super::{Cluster, Service, not_found, to_status};
use rdb_proto::v1;
use tonic::{Response, Status};

/// Writes that a node gives at a time, at most.
const PAGE_WRITES_MAX: usize = 2;

impl Cluster {
    /// The node has set these aside, by key and value, of all namespaces.
    pub fn set_aside(&self, node: u64, writes: &[(&[u8], Option<&[u8]>)]) {
        let write = |(number, (key, value)): (u64, &(&[u8], Option<&[u8]>))| v1::QuarantinedWrite {
            version: Some(v1::Version { era: 3, hlc: 70 + number, node }),
            incarnation: 9,
            seq: number,
            key: key.to_vec().into(),
            value: value.map(|value| value.to_vec().into()),
        };
        let writes = (1..).zip(writes).map(write).collect();
        self.world.state.lock().quarantine.insert(node, writes);
    }
}

impl Service {
    pub(super) fn list_set_aside(
        &self,
        asked: &v1::ListQuarantineRequest,
    ) -> Result<Response<v1::ListQuarantineResponse>, Status> {
        let state = self.world.state.lock();
        if !state.namespaces.contains_key(&asked.name) {
            return Err(to_status(&not_found(&asked.name)));
        }
        let all = state.quarantine.get(&self.id).cloned().unwrap_or_default();
        let from = asked.token.first().copied().map_or(0, usize::from);
        let limit = usize::try_from(asked.limit).unwrap().clamp(1, PAGE_WRITES_MAX);
        let to = all.len().min(from + limit);
        let next = if to < all.len() { vec![u8::try_from(to).unwrap()] } else { Vec::new() };
        Ok(Response::new(v1::ListQuarantineResponse {
            header: Some(state.header(self.id)),
            writes: all[from..to].to_vec(),
            next: next.into(),
            total: all.len() as u64,
        }))
    }
}

//! What a node has set aside, since the others went on to strong without it.

use crate::client::Client;
use crate::error::{Attempted, Error, Refusal};
use crate::nodes::Address;
use crate::status::Failed;
use crate::values::Version;
use bytes::Bytes;
use rdb_proto::v1;
use rdb_proto::v1::namespaces_client::NamespacesClient;
use tokio::time::{Instant, timeout};

/// Some of what a node has set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuarantinePage {
    /// The node that answered.
    pub node: u64,
    /// By era, accepting node, its incarnation, and place.
    pub writes: Vec<QuarantinedWrite>,
    /// Where to go on at the same node; `None`: these were the last ones.
    pub next: Option<Bytes>,
    /// How many writes the node has set aside in all. It may be more than are listed: a write that its own node had written over
    /// at once, or that all members had, need not be in the log.
    pub total: u64,
}

/// A write that a node had acknowledged, or had from one who had, in an eventual era that ended without it. It is in no later era.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuarantinedWrite {
    /// Its era, its stamp, and the node that accepted it.
    pub version: Version,
    /// Which start of that node did.
    pub incarnation: u64,
    /// Its place among what that start accepted in the era.
    pub seq: u64,
    /// Which key.
    pub key: Bytes,
    /// What was to be stored there; `None`: it was a delete.
    pub value: Option<Bytes>,
}

impl Client {
    /// Lists what one node has set aside of a namespace, from `after` on, which a page before has as its `next`; at most `limit`
    /// writes, and no more than a node gives at a time. 0: as many as that.
    ///
    /// The node is asked once, and answers for itself, without a majority.
    ///
    /// # Errors
    /// It does not answer within the time for a request, or it refuses.
    pub async fn quarantine_at(
        &self,
        address: &str,
        name: &str,
        after: Option<&Bytes>,
        limit: u32,
    ) -> Result<QuarantinePage, Error> {
        let started = Instant::now();
        let nodes = self.nodes_known();
        let unknown = || Error::Options(format!("'{address}' is not an address like 127.0.0.1:7101"));
        let node = nodes.learn(address).ok_or_else(unknown)?;
        let channel = nodes.channel(&node).ok_or_else(unknown)?;
        let token = after.cloned().unwrap_or_default();
        let request = v1::ListQuarantineRequest { name: name.into(), token, limit };
        let limit = self.deadline().saturating_duration_since(started);
        let mut client = NamespacesClient::new(channel);
        let failed = match timeout(limit, client.list_quarantine(request)).await {
            Ok(Ok(answer)) => return Ok(answer.into_inner().into()),
            Ok(Err(status)) => Failed::from_status(&node, &status),
            Err(_) => Failed::Deadline { address: node, sent: true },
        };
        Err(explain(failed, Attempted { tries: 1, waited: started.elapsed() }))
    }
}

pub(crate) fn explain(failed: Failed, attempted: Attempted) -> Error {
    let text = |address: Address| address.to_string();
    match failed {
        Failed::NotSent(address, reason) => Error::Unreachable { nodes: text(address), reason, attempted },
        Failed::Lost(address, reason) => Error::Lost { node: text(address), reason, attempted },
        Failed::Deadline { address, .. } => Error::TimedOut { node: text(address), before: None, attempted },
        Failed::Answered(address, error) => Error::Refused(Box::new(Refusal {
            code: error.code(),
            message: error.message,
            hint: error.hint,
            node: text(address),
            attempted,
        })),
    }
}

impl From<v1::ListQuarantineResponse> for QuarantinePage {
    fn from(page: v1::ListQuarantineResponse) -> Self {
        Self {
            node: page.header.map_or(0, |header| header.node),
            writes: page.writes.into_iter().map(QuarantinedWrite::from).collect(),
            next: Some(page.next).filter(|next| !next.is_empty()),
            total: page.total,
        }
    }
}

impl From<v1::QuarantinedWrite> for QuarantinedWrite {
    fn from(write: v1::QuarantinedWrite) -> Self {
        Self {
            version: write.version.unwrap_or_default().into(),
            incarnation: write.incarnation,
            seq: write.seq,
            key: write.key,
            value: write.value,
        }
    }
}

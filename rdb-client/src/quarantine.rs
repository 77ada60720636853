//! What a node has set aside, since the others went on to strong without it.

use crate::client::Client;
use crate::error::Error;
use crate::values::Version;
use bytes::Bytes;
use rdb_proto::v1;

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
        let token = after.cloned().unwrap_or_default();
        let request = v1::ListQuarantineRequest { name: name.into(), token, limit };
        let answer = self.ask_at(address, |mut node| async move { node.list_quarantine(request).await });
        Ok(answer.await?.into())
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

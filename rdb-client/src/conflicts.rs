//! The lost writes that a namespace keeps.

use crate::client::Client;
use crate::error::Error;
use crate::values::Version;
use bytes::Bytes;
use rdb_proto::v1;

/// Some of the lost writes that a node has noted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConflictsPage {
    /// The node that answered.
    pub node: u64,
    /// By era; of one era by the length of the key, the key, and who accepted it.
    pub writes: Vec<LostWrite>,
    /// Where to go on at the same node; `None`: these were the last ones.
    pub next: Option<Bytes>,
    /// For how many seconds the namespace keeps them; 0: it does not.
    pub keep_lost_seconds: u64,
}

/// An eventual write that did not stay, and that nobody who had it in front of him wrote over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostWrite {
    /// Its era, its stamp, and the node that accepted it.
    pub version: Version,
    /// Which start of that node did.
    pub incarnation: u64,
    /// Its place among what that start accepted in the era.
    pub seq: u64,
    /// Which key.
    pub key: Bytes,
    /// What was stored there; `None`: it was a delete.
    pub value: Option<Bytes>,
    /// What stayed instead of it, when both were on the answering node.
    pub displaced_by: Version,
    /// Which start of its node accepted that.
    pub displaced_by_incarnation: u64,
    /// And its place there.
    pub displaced_by_seq: u64,
    /// Whether it is certain. Else it may yet be found that somebody had it in front of him.
    pub settled: bool,
    /// Unix time in milliseconds at which the answering node found out.
    pub noted_ms: u64,
}

impl Client {
    /// Lists lost writes that one node has noted, of keys with this prefix, from `after` on, which a page before has as its `next`;
    /// at most `limit`, and no more than a node gives at a time. 0: as many as that. A page may be empty and go on.
    ///
    /// The node is asked once, and answers for itself, without a majority. All nodes come to the same, but for those whose time
    /// is over on one and not yet on another.
    ///
    /// # Errors
    /// It does not answer within the time for a request, or it refuses.
    pub async fn conflicts_at(
        &self,
        address: &str,
        name: &str,
        prefix: &Bytes,
        after: Option<&Bytes>,
        limit: u32,
    ) -> Result<ConflictsPage, Error> {
        let (prefix, token) = (prefix.clone(), after.cloned().unwrap_or_default());
        let request = v1::ListConflictsRequest { name: name.into(), prefix, token, limit };
        let answer = self.ask_at(address, |mut node| async move { node.list_conflicts(request).await });
        Ok(answer.await?.into())
    }
}

impl From<v1::ListConflictsResponse> for ConflictsPage {
    fn from(page: v1::ListConflictsResponse) -> Self {
        Self {
            node: page.header.map_or(0, |header| header.node),
            writes: page.writes.into_iter().map(LostWrite::from).collect(),
            next: Some(page.next).filter(|next| !next.is_empty()),
            keep_lost_seconds: page.keep_lost_seconds,
        }
    }
}

impl From<v1::LostWrite> for LostWrite {
    fn from(write: v1::LostWrite) -> Self {
        Self {
            version: write.version.unwrap_or_default().into(),
            incarnation: write.incarnation,
            seq: write.seq,
            key: write.key,
            value: write.value,
            displaced_by: write.displaced_by.unwrap_or_default().into(),
            displaced_by_incarnation: write.displaced_by_incarnation,
            displaced_by_seq: write.displaced_by_seq,
            settled: write.settled,
            noted_ms: write.noted_ms,
        }
    }
}

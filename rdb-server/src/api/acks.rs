//! What a write asks for besides being done, and the wait for acknowledgements of other members. The write is on this node by
//! then, and stays: whoever does not get more in time is told just that.

use super::session::Saw;
use super::{Target, status};
use crate::eventual::waiting::{Acks, Terms};
use crate::shared::Shared;
use bytes::Bytes;
use rdb_core::eventual::vector::WriteId;
use rdb_core::ids::NamespaceId;
use rdb_core::version::Version;
use rdb_pd::Mode;
use rdb_proto::v1;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Between looks whether the region is still what it was.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// A wait ends so much before the caller's time is over that the answer, which says why, still comes in time.
const ANSWER_MARGIN: Duration = Duration::from_millis(100);

/// Until when a request that came at `began` may wait.
pub(super) fn answer_by(began: Instant, timeout: Duration) -> Instant {
    began + timeout - ANSWER_MARGIN.min(timeout / 4)
}

/// What a request asks of its writes.
pub(super) fn terms(acks: i32, seen: Option<&v1::Version>, target: Target) -> Result<Terms, v1::Error> {
    let acks = match v1::Acks::try_from(acks) {
        Ok(v1::Acks::Unspecified | v1::Acks::One) => Acks::One,
        Ok(v1::Acks::Quorum) => Acks::Quorum,
        Ok(v1::Acks::All) if target.mode == Mode::Strong => return Err(status::strong_acks()),
        Ok(v1::Acks::All) => Acks::All,
        Err(_) => {
            return Err(status::unsupported(
                format!("acks {acks} are not known to this node; nothing was written"),
                "write with ACKS_ONE, ACKS_QUORUM or ACKS_ALL, or upgrade the node",
            ));
        }
    };
    Ok(Terms { acks, seen: seen.map(super::request::from_wire), ..Terms::in_era(target.era) })
}

/// A write that this node has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Held {
    pub(super) namespace: NamespaceId,
    pub(super) write: WriteId,
    pub(super) version: Version,
}

impl Held {
    /// What an answer that tells of it has shown.
    pub(super) fn token(self) -> Bytes {
        let mut saw = Saw::default();
        saw.era(self.namespace, self.version.era).write(self.version.era, self.write);
        saw.token()
    }
}

impl Shared {
    /// Whether so many members have a write of this node.
    pub(super) fn is_acked(&self, target: Target, held: Held, acks: Acks) -> bool {
        acks == Acks::One
            || self.eventual.shown_in(target.region, held.version.era).is_some_and(|shown| {
                shown.progress().follow_acked().borrow().has(held.version.era, held.write, acks)
            })
    }

    /// Waits until so many members have a write of this node.
    ///
    /// # Errors
    /// They are not known to have it in time. It stays done here.
    pub(super) async fn acked(
        &self,
        target: Target,
        held: Held,
        acks: Acks,
        deadline: Instant,
    ) -> Result<(), v1::Error> {
        let began = Instant::now();
        let gone = || status::switched_before_acks(held);
        let shown_now = || self.eventual.shown_in(target.region, held.version.era);
        let shown = shown_now().ok_or_else(gone)?;
        let mut acked = shown.progress().follow_acked();
        loop {
            if acked.borrow_and_update().has(held.version.era, held.write, acks) {
                return Ok(());
            }
            let Some(left) = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
            else {
                let (lacking, members) = acked.borrow().lacking(held.write);
                let silent =
                    lacking.into_iter().map(|node| (node, self.peers.silence(node))).collect::<Vec<_>>();
                return Err(status::too_few_acks(held, acks, &silent, members, began.elapsed()));
            };
            // It fails only when it takes too long, for `shown` keeps the other end.
            let _ = tokio::time::timeout(left.min(LOOK_INTERVAL), acked.changed()).await;
            let same = |now: Arc<_>| Arc::ptr_eq(&now, &shown);
            if !shown_now().is_some_and(same) {
                return Err(gone());
            }
        }
    }
}

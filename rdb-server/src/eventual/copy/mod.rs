//! Copies of a member's part of an era, and what replicas compare of each other: what travels, on calls of their own.
//!
//! | file | |
//! |---|---|
//! | `serving.rs` | the end that gives: copies that are open here, each read by a thread of its own |
//! | `fetching.rs` | the end that takes: one page after the other, each when the thread has put the one before aside |
//!
//! What the thread does with it is in `replica/copying.rs` and `replica/comparing.rs`.

mod fetching;
mod serving;

pub(crate) use fetching::Fetcher;
pub(crate) use serving::{CopiesService, REQUEST_BYTES_MAX};

use crate::eventual::{Event, Eventual};
use bytes::Bytes;
use rdb_core::eventual::buckets::Digest;
use rdb_core::eventual::machine::State;
use rdb_core::eventual::vector::Vector;
use rdb_core::ids::{Era, NodeId, RegionId};
use std::time::Duration;
use tokio::sync::oneshot;

/// Between two looks whether what is about to leave is synced.
const SYNC_POLL: Duration = Duration::from_millis(20);

/// The region is in another era here, or is not read yet.
pub(crate) struct Away;

impl Eventual {
    /// Asks the thread that owns the region, in that era.
    async fn ask<T>(
        &self,
        (region, era): (RegionId, Era),
        arrived: impl FnOnce(oneshot::Sender<T>) -> Arrived,
    ) -> Result<T, Away> {
        let (answer, answered) = oneshot::channel();
        self.post(Event::Copy { region, era, arrived: arrived(answer) });
        answered.await.map_err(|_| Away)
    }

    /// Waits until all is synced that the data reflected when the region stood at `state`. Where writes are acknowledged before
    /// their sync, they are in the data before, too; and nothing may leave this node that a power cut could take from it.
    pub(crate) async fn until_synced(&self, region: RegionId, state: &State) -> Result<(), Away> {
        loop {
            let vector = state.applied.clone();
            if self.ask((region, state.era), |answer| Arrived::Closes { vector, answer }).await? {
                return Ok(());
            }
            tokio::time::sleep(SYNC_POLL).await;
        }
    }
}

/// A page that has come.
pub(crate) struct Piece {
    pub(crate) number: u64,
    /// Where its sender stood, with the first one.
    pub(crate) state: Option<State>,
    pub(crate) page: Bytes,
    pub(crate) last: bool,
    /// Told when the next one may come. Dropped, no more is wanted.
    pub(crate) go_on: oneshot::Sender<()>,
}

/// What comes to the thread of copies and comparisons, all of one region in one era.
pub(crate) enum Arrived {
    /// A member is about to take a copy of this one. `answer` is whether it can.
    Opens { to: NodeId, answer: oneshot::Sender<bool> },
    /// A member is about to get the last of what goes up to `vector`. `answer` is whether all of that is synced here.
    Closes { vector: Vector, answer: oneshot::Sender<bool> },
    /// A page of the copy that this node takes, in its attempt of this number.
    Page { attempt: u64, piece: Piece },
    /// That attempt has failed.
    Failed { attempt: u64, reason: String },
    /// The note that the copy is complete is synced.
    Noted,
    /// A member asks for this one's hashes.
    Asked { answer: oneshot::Sender<Option<Digest>> },
    /// A member's hashes; `None` if it could not tell.
    Digest { from: NodeId, digest: Option<Digest> },
    /// Records of buckets in which another member's differ from those that are here.
    Records { piece: Piece },
    /// No more of them come from that member.
    RecordsEnd { from: NodeId, failed: Option<String> },
}

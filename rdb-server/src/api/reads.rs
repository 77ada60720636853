//! How reads are served: by a round to the followers, by the leader's clock, or as the data is.
//!
//! A round of reads confirms more than the reads that wait for it: whatever was committed when it began is in this node's
//! data, and where this node leads, nobody else does for most of an election timeout. Stale reads and lease reads live on
//! that. Both ask for the next round before they need it, so that none of them has to wait.

use super::eventual_reads::Way;
use super::{Target, acks, session, status};
use crate::clock::Moment;
use crate::mailbox::{Event, Mailbox};
use crate::regions::RegionView;
use crate::shared::Shared;
use crate::waiter::{ReadWaiter, Released};
use bytes::Bytes;
use fail::fail_point;
use rdb_core::ids::RegionId;
use rdb_core::raft::Failure;
use rdb_pd::Mode;
use rdb_proto::v1;
use rdb_proto::v1::Consistency;
use std::time::{Duration, Instant};

/// Data confirmed longer ago than this is confirmed anew when somebody reads it stale.
const STALE_REFRESH: Duration = Duration::from_millis(100);

/// How a read is to be served.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) consistency: Consistency,
    /// Of a stale read: an older one is to be linearizable.
    max_age: Option<Duration>,
    /// The token that the request has brought, if it is not empty.
    pub(super) session: Bytes,
}

/// How a read was served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Served {
    consistency: Consistency,
    /// Of a stale read, where it is known.
    age_ms: Option<u64>,
}

impl Served {
    /// Of a write.
    pub(super) const NOT_AT_ALL: Served = Served { consistency: Consistency::Unspecified, age_ms: None };
    /// By a round.
    pub(super) const LINEARIZABLE: Served = Served { consistency: Consistency::Linearizable, age_ms: None };
    /// As the node's data is.
    pub(super) const LOCAL: Served = Served { consistency: Consistency::Local, age_ms: None };
    /// The same, once it showed what a session has seen.
    pub(super) const SESSION: Served = Served { consistency: Consistency::Session, age_ms: None };
    /// By the newest of what a majority has.
    pub(super) const QUORUM: Served = Served { consistency: Consistency::Quorum, age_ms: None };

    /// The same, answered so much later than it was read for: a stale read may miss what was acknowledged meanwhile.
    pub(super) fn after(self, waited: Duration) -> Self {
        let waited_ms = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
        Self { age_ms: self.age_ms.map(|age_ms| age_ms.saturating_add(waited_ms)), ..self }
    }

    /// Says so in a header.
    pub(super) fn mark(self, header: v1::Header) -> v1::Header {
        v1::Header { served: self.consistency.into(), age_ms: self.age_ms, ..header }
    }
}

impl Wanted {
    /// What the request says.
    pub(super) fn new(consistency: i32, max_age_ms: u32, session: Bytes) -> Result<Self, v1::Error> {
        let consistency = match Consistency::try_from(consistency) {
            Ok(known) => known,
            Err(_) => {
                return Err(status::unsupported(
                    format!("consistency {consistency} is not known to this node"),
                    "read with CONSISTENCY_LINEARIZABLE, or upgrade the node",
                ));
            }
        };
        let max_age = (max_age_ms != 0).then(|| Duration::from_millis(max_age_ms.into()));
        Ok(Self { consistency, max_age, session })
    }
}

impl Shared {
    /// Waits until the data may be read, if the read is to wait. Says how it is served.
    pub(super) async fn serve(
        &self,
        namespace: &str,
        epoch: u64,
        target: Target,
        wanted: &Wanted,
        timeout: Duration,
    ) -> Result<Served, v1::Error> {
        let served = if target.mode == Mode::Eventual {
            let Way { served, awaits } = self.eventual_way(target, wanted)?;
            let Some(token) = awaits else { return Ok(served) };
            let deadline = acks::answer_by(Instant::now(), timeout);
            self.until_shown(target, &token, deadline).await?;
            served
        } else {
            if let Some(served) = self.serve_now(target, wanted)? {
                return Ok(served);
            }
            self.read_barrier(target.region, timeout).await?;
            Served::LINEARIZABLE
        };
        // The namespace may have been deleted or have changed its rules while the read waited.
        let after = self.target(namespace, epoch).await?;
        if after.region != target.region {
            return Err(status::namespace_gone());
        }
        if (after.mode, after.era) != (target.mode, target.era) {
            return Err(status::era_mismatch());
        }
        Ok(served)
    }

    /// Whether a read of a strong namespace can be served at once, and how.
    ///
    /// # Errors
    /// The mode has no such reads, or the token is none for it.
    pub(super) fn serve_now(&self, target: Target, wanted: &Wanted) -> Result<Option<Served>, v1::Error> {
        let region = target.region;
        // Of an earlier era: strong mode began with all that was seen there, and a round shows it.
        session::read(&wanted.session, target)?;
        // The round that it then asks for is refused.
        if self.regions.get(region).is_some_and(|view| view.is_closed()) {
            return Ok(None);
        }
        match wanted.consistency {
            Consistency::Lease => Ok(self.by_lease(region)),
            Consistency::Stale => {
                self.found(region)?;
                Ok(self.as_it_is(region, wanted.max_age))
            }
            Consistency::Linearizable
            | Consistency::Unspecified
            | Consistency::Session
            | Consistency::Quorum => Ok(None),
            // Whoever reads so goes on while the mode changes. The age is not asked for, nor told.
            Consistency::Local => self.found(region).map(|()| Some(Served::LOCAL)),
        }
    }

    /// Whether this node's data is not behind what it has shown before it started.
    pub(super) fn found(&self, region: RegionId) -> Result<(), v1::Error> {
        let found = self.regions.get(region).is_none_or(|view| view.is_found());
        if found { Ok(()) } else { Err(status::not_opened(self.config.node_id)) }
    }

    fn by_lease(&self, region: RegionId) -> Option<Served> {
        let length = self.config.lease()?;
        let view = self.regions.get(region)?;
        let now = Moment::now();
        let left = view.lease(now)?;
        if left < length / 2 {
            self.ask_for_round(region, &view, now, length / 8);
        }
        Some(Served { consistency: Consistency::Lease, age_ms: None })
    }

    fn as_it_is(&self, region: RegionId, max_age: Option<Duration>) -> Option<Served> {
        let view = self.regions.get(region)?;
        let now = Moment::now();
        let age = view.age(now);
        if age.is_none_or(|age| STALE_REFRESH < age) {
            self.ask_for_round(region, &view, now, STALE_REFRESH);
        }
        if max_age.is_some_and(|max_age| age.is_none_or(|age| max_age < age)) {
            return None;
        }
        let age_ms = age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
        Some(Served { consistency: Consistency::Stale, age_ms })
    }

    fn ask_for_round(&self, region: RegionId, view: &RegionView, now: Moment, interval: Duration) {
        if view.asks(now, interval) {
            self.post_read(region, |_| (), Mailbox::post);
        }
    }

    /// Asks for a round of reads by `post`, and takes note of what it confirms.
    pub(super) fn post_read(
        &self,
        region: RegionId,
        then: impl FnOnce(Result<Released, Failure>) + Send + 'static,
        post: impl FnOnce(&Mailbox, Event),
    ) {
        let (view, lease, began) = (self.regions.get(region), self.config.lease(), Moment::now());
        let waiter = ReadWaiter::new(move |answer| {
            if let (Ok(released), Some(view)) = (&answer, view) {
                if lease.is_some() && released.led_in.is_some() {
                    fail_point!("lease-before-renewal");
                }
                view.confirmed(began, *released, lease);
            }
            then(answer);
        });
        post(&self.mailbox, Event::Read { region, waiter });
    }
}

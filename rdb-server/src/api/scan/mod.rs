//! Scans: many records in order, all of one moment, page by page.
//!
//! The call waits like any read. Then a thread of the runtime's blocking pool reads pages into a short queue, from which
//! the connection takes them: reading from disk must not hold up those who serve other requests. Between two pages the
//! thread looks whether the namespace is still what it was when the scan began.
//!
//! What a client can make the node hold is bounded whatever it does: so many scans at a time, so many pages for each, and
//! so much time for each page to be taken. One that is too slow is cut off, and can go on with its token.

mod page;
mod queue;

pub(crate) use queue::Outgoing;

use super::kv::disk_failed;
use super::reads::{Served, Wanted};
use super::session::Saw;
use super::{Target, admit_read, limits, status};
use crate::budget::Share;
use crate::metrics::{Operation, Result as MetricResult};
use crate::shared::Shared;
use page::{Contents, PAGE_BYTES, PAGE_RECORDS, Page};
use queue::{Pages, Waited};
use rdb_core::range::KeyRange;
use rdb_core::scan::{Direction, Way};
use rdb_proto::v1;
use rdb_proto::v1::scan::Keys as WireKeys;
use rdb_storage::{Frozen, Length, Walk};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Pages that may wait for the connection: one that it is to take next, and one to be ready behind it.
const PAGES_WAITING_MAX: usize = 2;
/// A walk that is older is begun anew, so that it does not keep memtables that were flushed since.
const WALK_AGE_MAX: Duration = Duration::from_secs(1);
/// A walk is kept for so long while the client takes its time; for longer, beginning anew costs less.
const WALK_PATIENCE: Duration = Duration::from_millis(20);
/// What a scan reads from keeps RocksDB from dropping what was removed since, and so costs disk.
const FROZEN_AGE_MAX: Duration = Duration::from_secs(3600);
/// Between looks, while a thread waits for its client.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// The places for scans on this node.
#[derive(Debug, Clone)]
pub(crate) struct Scans {
    places: Arc<Semaphore>,
    most: usize,
}

impl Scans {
    pub(crate) fn new(most: usize) -> Self {
        Self { places: Arc::new(Semaphore::new(most)), most }
    }

    /// Scans under way.
    pub(crate) fn under_way(&self) -> usize {
        self.most.saturating_sub(self.places.available_permits())
    }

    fn enter(&self) -> Result<OwnedSemaphorePermit, v1::Error> {
        let place = self.places.clone().try_acquire_owned();
        place.map_err(|_| status::overloaded("scans at a time", self.most))
    }
}

impl Shared {
    /// Begins a scan. Its failure to begin is counted here, and its end where it ends.
    pub(super) async fn scan(
        &self,
        request: v1::ScanRequest,
        timeout: Duration,
    ) -> Result<Outgoing, v1::Error> {
        let began = Instant::now();
        let begun = self.begin_scan(request, timeout, began).await;
        if let Err(error) = &begun {
            self.metrics.requests(Operation::Scan, MetricResult::of(error), 1, began.elapsed());
        }
        begun
    }

    async fn begin_scan(
        &self,
        request: v1::ScanRequest,
        timeout: Duration,
        began: Instant,
    ) -> Result<Outgoing, v1::Error> {
        let v1::ScanRequest { namespace, epoch, scan, consistency, max_age_ms, token, session } = request;
        let wanted = Wanted::new(consistency, max_age_ms, session)?;
        let scan = scan.unwrap_or_default();
        let range = range(scan.keys)?;
        let place = self.scans.enter()?;
        let share = admit_read(&self.budget_of(&namespace), PAGE_BYTES)?;
        let target = self.target(&namespace, epoch).await?;
        let direction = if scan.reverse { Direction::Reverse } else { Direction::Forward };
        let way = Way { namespace: target.namespace, range, direction };
        let rest = match &token[..] {
            [] => way.range.clone(),
            token => way.resume(token).map_err(|error| status::token_refused(&error))?,
        };
        let served = self.serve(&namespace, epoch, target, &wanted, timeout).await?;
        if served == Served::QUORUM {
            return Err(status::quorum_scan());
        }
        let (pages, outgoing) = queue::new();
        let reader = Reader {
            shared: self.clone(),
            namespace,
            target,
            served,
            saw: Saw::default(),
            contents: Contents::of(scan.keys_only, scan.count_only),
            way,
            rest,
            left: (scan.limit != 0).then_some(scan.limit),
            done: false,
            began,
            pages,
            _place: place,
            _share: share,
        };
        tokio::task::spawn_blocking(move || reader.run());
        Ok(outgoing)
    }
}

/// The keys that a request names.
pub(super) fn range(keys: Option<WireKeys>) -> Result<KeyRange, v1::Error> {
    match keys {
        None => Ok(KeyRange::all()),
        Some(WireKeys::Prefix(prefix)) => {
            limits::prefix(&prefix)?;
            Ok(KeyRange::of_prefix(&prefix))
        }
        Some(WireKeys::Range(range)) => {
            limits::range(&range.from, &range.to)?;
            Ok(KeyRange { from: range.from.into(), to: range.to.into() })
        }
    }
}

/// Why a scan ends before its last page is taken.
enum Ended {
    /// The client is no longer there, which is its right.
    Gone,
    /// It is told why.
    Failed(v1::Error),
}

impl From<v1::Error> for Ended {
    fn from(error: v1::Error) -> Self {
        Ended::Failed(error)
    }
}

/// One scan, in its thread.
struct Reader {
    shared: Shared,
    namespace: String,
    target: Target,
    served: Served,
    /// What the moment of the scan holds, in eventual mode.
    saw: Saw,
    contents: Contents,
    way: Way,
    /// What is yet to be read.
    rest: KeyRange,
    /// Records until the limit.
    left: Option<u64>,
    done: bool,
    began: Instant,
    pages: Pages,
    _place: OwnedSemaphorePermit,
    /// For the page that is being read; those that wait have their own.
    _share: Share,
}

impl Reader {
    fn run(mut self) {
        let ended = self.read();
        let result = match &ended {
            Ok(()) | Err(Ended::Gone) => MetricResult::Done,
            Err(Ended::Failed(error)) => MetricResult::of(error),
        };
        if let Err(Ended::Failed(error)) = ended {
            self.pages.fail(status::to_status(&error));
        }
        self.shared.metrics.requests(Operation::Scan, result, 1, self.began.elapsed());
    }

    /// Returns when the client has taken the last page: until then the scan has its place.
    fn read(&mut self) -> Result<(), Ended> {
        let data = self.shared.data.clone();
        // The first look for the namespace comes after this: were it deleted before, its records could be missing.
        let frozen = data.freeze();
        let region = frozen.region(self.target.region, self.target.namespace);
        if self.shared.eventual.shown(self.target.region).is_some()
            && let Some(state) = region.state().map_err(disk_failed)?
        {
            self.saw.era(self.target.namespace, state.era).all(state.era, &state.found());
        }
        while !self.done {
            self.walk(&frozen)?;
            self.wait(PAGES_WAITING_MAX - 1)?;
        }
        // A client may take its time for the last pages; nothing is read for them any more.
        drop(frozen);
        (0..PAGES_WAITING_MAX).rev().try_for_each(|most| self.wait(most))
    }

    /// Reads pages for as long as the client keeps up.
    fn walk(&mut self, data: &Frozen<'_>) -> Result<(), Ended> {
        let began = Instant::now();
        let length = match self.left {
            Some(left) if left <= PAGE_RECORDS => Length::Short,
            _ => Length::Long,
        };
        let mut walk = data.walk(self.way.namespace, &self.rest, self.way.direction, length);
        loop {
            self.page(&mut walk)?;
            if self.done || WALK_AGE_MAX < began.elapsed() {
                return Ok(());
            }
            match self.pages.wait(PAGES_WAITING_MAX - 1, WALK_PATIENCE) {
                Waited::Taken => {}
                Waited::InVain => return Ok(()),
                Waited::Gone => return Err(Ended::Gone),
            }
        }
    }

    fn page(&mut self, walk: &mut Walk<'_>) -> Result<(), Ended> {
        let page = page::fill(walk, self.contents, self.left)?;
        self.check()?;
        self.left = self.left.map(|left| left - page.count);
        self.done = page.exhausted || self.left == Some(0);
        let token = if page.exhausted { Vec::new() } else { self.way.token(&page.last) };
        if !page.exhausted {
            self.rest = self.way.behind(&page.last);
        }
        let share = self.shared.regions.budget(self.target.region).charge(page.bytes());
        let Page { records, count, .. } = page;
        let header = self.served.mark(self.shared.header(self.target.region, self.target.rules()));
        let header = Some(v1::Header { session: self.saw.token(), ..header });
        let response = v1::ScanResponse { header, records, count, token: token.into(), done: self.done };
        self.pages.push(response, share);
        Ok(())
    }

    /// Whether what the scan began under still holds.
    fn check(&self) -> Result<(), v1::Error> {
        if self.shared.stopping.is_set() {
            return Err(status::shutting_down());
        }
        if FROZEN_AGE_MAX < self.began.elapsed() {
            return Err(status::scan_too_old(FROZEN_AGE_MAX));
        }
        // A region that has left this node has taken its records with it, perhaps before they could be frozen.
        let here = self.shared.still_here(self.target).is_ok();
        let now = self.shared.find(&self.namespace).filter(|_| here);
        match now.filter(|now| now.namespace == self.target.namespace) {
            None => Err(status::deleted_while_scanned(&self.namespace)),
            Some(now) if now.epoch != self.target.epoch => {
                Err(status::epoch_mismatch(&self.namespace, self.target.epoch.0, now.epoch))
            }
            Some(_) => Ok(()),
        }
    }

    /// Waits until no more than so many pages wait for the connection.
    fn wait(&self, most: usize) -> Result<(), Ended> {
        let patience = self.shared.config.request_timeout();
        let began = Instant::now();
        loop {
            match self.pages.wait(most, LOOK_INTERVAL) {
                Waited::Taken => return Ok(()),
                Waited::Gone => return Err(Ended::Gone),
                Waited::InVain => self.check()?,
            }
            if patience < began.elapsed() {
                return Err(status::scan_unread(patience).into());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_given_back() {
        let scans = Scans::new(2);
        let places = [scans.enter().unwrap(), scans.enter().unwrap()];
        let error = scans.enter().unwrap_err();
        assert_eq!((error.code(), scans.under_way()), (v1::Code::ResourceExhausted, 2));
        assert!(0 < error.retry_after_ms && error.message.contains("2 scans"), "{error:?}");
        drop(places);
        assert!(scans.enter().is_ok() && scans.under_way() == 0);
    }

    #[test]
    fn the_keys_of_a_request_are_checked() {
        let between = |from: &'static [u8], to: &'static [u8]| {
            range(Some(WireKeys::Range(v1::ScanRange { from: from.into(), to: to.into() })))
        };
        assert_eq!(range(None).unwrap(), KeyRange::all());
        assert_eq!(between(b"", b"").unwrap(), KeyRange::all());
        assert!(between(b"b", b"a").is_err() && between(b"a", b"a").is_err());
        let prefix = |bytes: &[u8]| range(Some(WireKeys::Prefix(bytes.to_vec().into())));
        assert_eq!(prefix(b"a\xff").unwrap(), KeyRange { from: b"a\xff".to_vec(), to: b"b".to_vec() });
        assert_eq!(prefix(b"\xff").unwrap(), KeyRange { from: b"\xff".to_vec(), to: Vec::new() });
        assert!(prefix(&[b'p'; limits::KEY_BYTES_MAX]).is_ok());
        assert!(prefix(&[b'p'; limits::KEY_BYTES_MAX + 1]).is_err());
    }
}

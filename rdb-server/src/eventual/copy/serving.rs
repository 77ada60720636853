//! Copies that are open here. Each is read by a thread of its own, which holds the data as it was when the copy began, and ends with
//! the last page, when it is replaced, or when nobody asks for a while.

use super::{Arrived, Away};
use crate::eventual::records::{Place, asking_member, is_here};
use crate::faults::Cuts;
use crate::shared::Shared;
use rdb_core::eventual::buckets::bucket_of;
use rdb_core::eventual::conflicts::awaited_of_era;
use rdb_core::eventual::copy::{Copied, Page, awaited, copied};
use rdb_core::eventual::machine::{Error as MachineError, State};
use rdb_core::eventual::vector::WriteId;
use rdb_core::ids::{Era, NamespaceId, NodeId, RegionId};
use rdb_proto::internal::v1::copies_server;
use rdb_proto::internal::v1::{CopyRequest, CopyResponse, DigestRequest, DigestResponse};
use rdb_storage::{Data, FrozenRegion};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;
use tonic::{Request, Response, Status};

/// The longest request: 256 buckets and what surrounds them.
pub(crate) const REQUEST_BYTES_MAX: usize = 64 << 10;
/// Copies that are open at a time: each takes a thread, and keeps RocksDB from dropping what it reads.
const OPEN_MAX: usize = 4;
/// Bytes after which a page ends: merged within some milliseconds.
const PAGE_BYTES: usize = 128 << 10;
/// Keys that are looked at for one page: where few are wanted it may be empty.
const KEYS_PER_PAGE_MAX: usize = 16 << 10;
/// Awaited writes in a page.
const AWAITED_PER_PAGE_MAX: usize = 4096;
/// After so long without a question a copy is closed. Its reader asks three times, for ten seconds each.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// What a reader asks a copy's thread.
struct Ask {
    page: u64,
    answer: oneshot::Sender<Result<CopyResponse, Status>>,
}

/// A copy that is open.
struct Open {
    to: NodeId,
    region: RegionId,
    asks: SyncSender<Ask>,
}

/// All that are.
type AllOpen = Arc<Mutex<BTreeMap<u64, Open>>>;

/// Gives other members copies, and hashes.
pub(crate) struct CopiesService {
    shared: Shared,
    cuts: Cuts,
    open: AllOpen,
}

impl CopiesService {
    pub(crate) fn new(shared: Shared, cuts: Cuts) -> Self {
        Self { shared, cuts, open: Arc::default() }
    }

    /// Opens a copy for `to`, in place of the one that it may have of that region. Its name.
    async fn open(&self, to: NodeId, place: &Place, buckets: &[u32]) -> Result<u64, Status> {
        if buckets.is_empty() {
            let can = self.ask(place, |answer| Arrived::Opens { to, answer }).await;
            can?.then_some(()).ok_or_else(|| Status::unavailable("takes in a copy itself"))?;
        }
        let name = rand::random::<u64>().max(1);
        let (asks, asked) = sync_channel(1);
        let mut all = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, open| (open.to, open.region) != (to, place.region));
        if OPEN_MAX <= all.len() {
            return Err(Status::resource_exhausted("gives as many copies as it may"));
        }
        all.insert(name, Open { to, region: place.region, asks });
        drop(all);
        let (data, place, open, store_id) =
            (self.shared.data.clone(), place.clone(), self.open.clone(), self.shared.identity.store_id);
        let buckets: BTreeSet<usize> =
            buckets.iter().filter_map(|bucket| usize::try_from(*bucket).ok()).collect();
        let serve = move || {
            serve(&data, &place, &buckets, &asked, |response| CopyResponse {
                store_id,
                copy: name,
                ..response
            });
            open.lock().unwrap_or_else(PoisonError::into_inner).remove(&name);
        };
        let spawned = std::thread::Builder::new().name("copies".to_owned()).spawn(serve);
        match spawned {
            Ok(_) => Ok(name),
            Err(error) => {
                self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&name);
                Err(Status::resource_exhausted(format!("has no thread for a copy: {error}")))
            }
        }
    }

    /// The last page waits until a power cut could not take back what is in the copy.
    async fn until_synced(&self, place: &Place, state: &[u8]) -> Result<(), Status> {
        let state = State::decode(state).map_err(|error| Status::internal(error.to_string()))?;
        self.shared.eventual.until_synced(place.region, &state).await.map_err(|Away| away())
    }

    /// Asks the thread that owns the region.
    async fn ask<T>(
        &self,
        place: &Place,
        arrived: impl FnOnce(oneshot::Sender<T>) -> Arrived,
    ) -> Result<T, Status> {
        self.shared.eventual.ask((place.region, place.era), arrived).await.map_err(|Away| away())
    }

    fn asks_of(&self, name: u64, from: NodeId) -> Option<SyncSender<Ask>> {
        let all = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(&name).filter(|open| open.to == from).map(|open| open.asks.clone())
    }
}

fn away() -> Status {
    Status::unavailable("is in another era of the namespace, or has not read its part of it yet")
}

#[tonic::async_trait]
impl copies_server::Copies for CopiesService {
    async fn page(&self, request: Request<CopyRequest>) -> Result<Response<CopyResponse>, Status> {
        let CopyRequest { hello, region, era, namespace, copy, page, buckets } = request.into_inner();
        let from = asking_member(&self.shared, &hello.unwrap_or_default())?;
        self.cuts.until_open_from(from).await;
        let place = Place { region: RegionId(region), namespace: NamespaceId(namespace), era: Era(era) };
        if !is_here(&self.shared, &place) {
            return Err(away());
        }
        let copy = if copy == 0 { self.open(from, &place, &buckets).await? } else { copy };
        let gone = || {
            Status::not_found(
                "has closed the copy: it was not asked for it for long, or it gives another one",
            )
        };
        let asks = self.asks_of(copy, from).ok_or_else(gone)?;
        let (answer, answered) = oneshot::channel();
        asks.try_send(Ask { page, answer }).map_err(|_| gone())?;
        let response = answered.await.map_err(|_| gone())??;
        if response.last && buckets.is_empty() {
            self.until_synced(&place, &response.state).await?;
        }
        // A region that has left takes its records with it, and another era begins with other ones.
        if !is_here(&self.shared, &place) {
            return Err(away());
        }
        self.cuts.until_open_to(from).await;
        Ok(Response::new(response))
    }

    async fn digest(&self, request: Request<DigestRequest>) -> Result<Response<DigestResponse>, Status> {
        let DigestRequest { hello, region, era, namespace } = request.into_inner();
        let from = asking_member(&self.shared, &hello.unwrap_or_default())?;
        self.cuts.until_open_from(from).await;
        let place = Place { region: RegionId(region), namespace: NamespaceId(namespace), era: Era(era) };
        let digest = self.ask(&place, |answer| Arrived::Asked { answer }).await?;
        self.cuts.until_open_to(from).await;
        let digest = digest.map(|digest| digest.encode().into()).unwrap_or_default();
        Ok(Response::new(DigestResponse { store_id: self.shared.identity.store_id, digest }))
    }
}

/// Why a page could not be read.
type Failure = MachineError<rdb_storage::Error>;

/// A copy's thread.
fn serve(
    data: &Data,
    place: &Place,
    buckets: &BTreeSet<usize>,
    asked: &Receiver<Ask>,
    named: impl Fn(CopyResponse) -> CopyResponse,
) {
    let frozen = data.freeze();
    let view = frozen.region(place.region, place.namespace);
    let mut reader = match Reader::new(&view, place.era, buckets) {
        Ok(reader) => reader,
        Err(status) => {
            if let Ok(Ask { answer, .. }) = asked.recv_timeout(IDLE_MAX) {
                drop(answer.send(Err(status)));
            }
            return;
        }
    };
    let mut given: Option<CopyResponse> = None;
    let mut next = 0;
    while let Ok(Ask { page, answer }) = asked.recv_timeout(IDLE_MAX) {
        if page == next && given.as_ref().is_none_or(|given| !given.last) {
            match reader.page() {
                Ok((page, last)) => {
                    let state = if next == 0 || last { reader.state.encode() } else { Vec::new() };
                    let response = CopyResponse {
                        state: state.into(),
                        page: page.encode().into(),
                        last,
                        ..CopyResponse::default()
                    };
                    given = Some(named(response));
                    next += 1;
                }
                Err(error) => {
                    tracing::error!(region = %place.region, %error, "a copy cannot be read");
                    let status = Status::internal(format!("cannot read its data: {error}"));
                    return drop(answer.send(Err(status)));
                }
            }
        }
        let response = match &given {
            Some(given) if next.checked_sub(1) == Some(page) => Ok(given.clone()),
            _ => Err(Status::invalid_argument("was asked for a page that does not follow")),
        };
        drop(answer.send(response));
    }
}

/// Reads a copy.
struct Reader<'v> {
    view: &'v FrozenRegion<'v, 'v>,
    /// Where the member stood.
    state: State,
    /// Only records in these, whatever their era; all that is of this era, if there are none.
    buckets: &'v BTreeSet<usize>,
    /// The next note of an awaited write; `None` once all are read.
    next_awaited: Option<Vec<u8>>,
    /// The next key.
    next: Vec<u8>,
    /// Behind which of its lost writes its next part begins; `None` at its first one.
    after: Option<WriteId>,
}

impl<'v> Reader<'v> {
    fn new(view: &'v FrozenRegion<'v, 'v>, era: Era, buckets: &'v BTreeSet<usize>) -> Result<Self, Status> {
        let state =
            view.state().map_err(|error| Status::internal(format!("cannot read its data: {error}")))?;
        let is_whole = |state: &State| state.era == era && state.copied_pages == 0;
        let state = state.filter(is_whole).ok_or_else(away)?;
        let next_awaited = buckets.is_empty().then(|| awaited_of_era(era));
        Ok(Self { view, state, buckets, next_awaited, next: Vec::new(), after: None })
    }

    /// The next page, and whether it is the last one. It ends between keys, or within one that has very many lost writes.
    fn page(&mut self) -> Result<(Page, bool), Failure> {
        let era = self.state.era;
        if let Some(from) = self.next_awaited.take() {
            let notes = self.view.some_notes(&from, &awaited_of_era(Era(era.0 + 1)), AWAITED_PER_PAGE_MAX);
            let notes = notes.map_err(MachineError::View)?;
            if notes.len() == AWAITED_PER_PAGE_MAX {
                // The first key behind the last one.
                self.next_awaited = notes.last().map(|(key, _)| [&key[..], &[0]].concat());
            }
            return Ok((awaited(&notes)?, false));
        }
        let (mut records, mut bytes, mut keys) = (Vec::new(), 0, 0);
        let mut walk = self.view.walk_from(&self.next);
        while let Some((key, stored)) = walk.record().map_err(MachineError::View)? {
            if PAGE_BYTES <= bytes || KEYS_PER_PAGE_MAX <= keys {
                self.next = key.to_vec();
                return Ok((Page::Records(records), false));
            }
            keys += 1;
            let found = match self.buckets.is_empty() {
                true => copied(era, (key, stored), self.after, (0 < self.state.lost, PAGE_BYTES), self.view)?,
                false => self.buckets.contains(&bucket_of(key)).then(|| Copied::record(key, stored)),
            };
            bytes += found.as_ref().map_or(0, Copied::bytes);
            self.after = found.as_ref().and_then(Copied::goes_on_after);
            records.extend(found);
            if self.after.is_none() {
                walk.step();
            }
        }
        Ok((Page::Records(records), true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::tests::engine;
    use rdb_core::eventual::conflicts::{Listed, Lost, lost_key};
    use rdb_core::eventual::machine::Changes;
    use rdb_core::eventual::vector::{Origin, Vector};
    use rdb_core::ids::Incarnation;
    use rdb_core::record::Record;
    use rdb_core::version::{Hlc, Version};

    const ERA: Era = Era(2);
    const KEPT_BYTES: usize = 64 << 10;
    const LOST: u64 = 40;

    fn id(seq: u64) -> WriteId {
        WriteId { origin: Origin { node: NodeId(1), incarnation: Incarnation(1) }, seq }
    }

    fn lost(key: &[u8], seq: u64) -> (Vec<u8>, Option<Vec<u8>>) {
        let (noted, by_hlc) = (Hlc(seq), Hlc(seq));
        let lost = Lost {
            hlc: Hlc(seq),
            tombstone: false,
            kept: Some(vec![b'x'; KEPT_BYTES]),
            by: id(seq),
            settled: false,
            listed: Some(Listed { noted, by_hlc }),
        };
        (lost_key(ERA, key, id(seq)), Some(lost.encode()))
    }

    /// All pages, with how long each is, and what they say of the lost writes of each key.
    fn read(data: &Data, place: &Place) -> (Vec<usize>, BTreeMap<Vec<u8>, Vec<u64>>) {
        let (frozen, buckets) = (data.freeze(), BTreeSet::new());
        let view = frozen.region(place.region, place.namespace);
        let mut reader = Reader::new(&view, ERA, &buckets).unwrap();
        let (mut sizes, mut found) = (Vec::new(), BTreeMap::<_, Vec<u64>>::new());
        loop {
            let (page, last) = reader.page().unwrap();
            sizes.push(page.encode().len());
            if let Page::Records(records) = page {
                for copied in records {
                    found.entry(copied.key).or_default().extend(copied.lost.iter().map(|(id, _)| id.seq));
                }
            }
            if last {
                return (sizes, found);
            }
        }
    }

    /// Whatever number a peer asks for.
    #[test]
    fn only_the_next_page_is_given_and_the_last_one_again() {
        let (_directory, engine) = engine();
        let place = Place { region: RegionId(7), namespace: NamespaceId(3), era: ERA };
        let changes = Changes { state: State::begin(ERA, Hlc(1)).encode(), ..Changes::default() };
        let data = engine.data();
        data.apply_eventual(place.region, place.namespace, &changes, (ERA, &Vector::default())).unwrap();
        let (asks, asked) = sync_channel(1);
        let serves =
            std::thread::spawn(move || serve(&data, &place, &BTreeSet::new(), &asked, |response| response));
        let is_given = |page| {
            let (answer, answered) = oneshot::channel();
            asks.send(Ask { page, answer }).unwrap();
            answered.blocking_recv().unwrap().is_ok()
        };
        let (given, refused) = ([0, 0, 1, 1], [u64::MAX, 7, 0, 2]);
        for (page, other) in given.into_iter().zip(refused) {
            assert!(is_given(page), "page {page}");
            assert!(!is_given(other), "page {other} after page {page}");
        }
        // The last one to hold the database closes it, which must not be after the tests' process has begun to end.
        drop(asks);
        serves.join().unwrap();
    }

    /// A key that was written everywhere while a member was away: what is kept of its lost writes is many pages long.
    #[test]
    fn pages_stay_short_however_many_lost_writes_a_key_has() {
        let (_directory, engine) = engine();
        let place = Place { region: RegionId(7), namespace: NamespaceId(3), era: ERA };
        let version = Version { era: ERA, hlc: Hlc(1000), node: NodeId(1) };
        let record = Record { version, id: Some(id(LOST + 1)), value: Some(b"value") }.encode();
        let keys = [&b"before"[..], b"hot", b"later"];
        let records = keys.iter().map(|key| (key.to_vec(), Some(record.clone()))).collect();
        let mut notes: Vec<_> = (1..=LOST).map(|seq| lost(b"hot", seq)).collect();
        notes.push(lost(b"later", 1));
        let applied: Vector = [(id(1).origin, LOST + 1)].into_iter().collect();
        let state = State { applied, lost: LOST + 1, ..State::begin(ERA, Hlc(1000)) };
        let changes = Changes { records, notes, state: state.encode() };
        let data = engine.data();
        data.apply_eventual(place.region, place.namespace, &changes, (ERA, &state.applied)).unwrap();
        let (sizes, found) = read(&data, &place);
        let longest = sizes.iter().max().unwrap();
        assert!(*longest < PAGE_BYTES + 2 * KEPT_BYTES, "{sizes:?}");
        assert_eq!(found[&b"hot"[..]], (1..=LOST).collect::<Vec<_>>());
        assert_eq!((found[&b"before"[..]].len(), found[&b"later"[..]].len()), (0, 1));
    }
}

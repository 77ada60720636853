//! Looking records up for reads. What lies in memory is found at once by the task that answers. What may have to come from the disk is read
//! by other threads: nobody else's answer waits for it, and several reads of the disk are under way at a time.

use super::kv::disk_failed;
use super::{Target, limits, status};
use crate::eventual::records::Stored;
use crate::shared::Shared;
use bytes::Bytes;
use rdb_proto::v1;
use rdb_storage::{InMemory, NotInMemory, Records};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::Semaphore;

/// Threads that read at a time. More do not make a disk faster, and where the system has the files in its memory each takes processor time.
const AT_A_TIME: usize = 16;

/// Places of those who read the disk. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Lookups(Arc<Semaphore>);

impl Lookups {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new(AT_A_TIME)))
    }
}

impl Shared {
    /// The record of a key, as it is stored, if no disk has to be read for it.
    pub(super) fn record_in_memory(
        &self,
        target: Target,
        key: &[u8],
    ) -> Result<InMemory<Option<Bytes>>, v1::Error> {
        let read = self.data.get_in_memory(target.namespace, key).map_err(disk_failed)?;
        self.still_here(target)?;
        Ok(read.map(|record| record.map(Bytes::from)))
    }

    /// The records of many keys, as they are stored, all of one moment, if no disk has to be read for any of them.
    pub(super) fn records_in_memory(
        &self,
        target: Target,
        keys: &[Bytes],
    ) -> Result<InMemory<Stored>, v1::Error> {
        let read = self.data.multi_get_in_memory(target.namespace, keys, limits::BATCH_BYTES_MAX);
        let read = read.map_err(disk_failed)?;
        self.still_here(target)?;
        match read {
            Ok(read) => whole(read).map(Ok),
            Err(NotInMemory) => Ok(Err(NotInMemory)),
        }
    }

    /// The record of a key, as it is stored. May wait for the disk.
    pub(super) fn record_on_disk(&self, target: Target, key: &[u8]) -> Result<Option<Bytes>, v1::Error> {
        let record = self.data.get(target.namespace, key).map_err(disk_failed)?;
        self.still_as_asked(target)?;
        Ok(record.map(Bytes::from))
    }

    /// The records of many keys, as they are stored, all of one moment. May wait for the disk.
    pub(super) fn records_on_disk(&self, target: Target, keys: &[Bytes]) -> Result<Stored, v1::Error> {
        let read =
            self.data.multi_get(target.namespace, keys, limits::BATCH_BYTES_MAX).map_err(disk_failed)?;
        self.still_as_asked(target)?;
        whole(read)
    }

    /// What was looked up may have waited for long: in eventual mode, too, what it was to show is that era's.
    fn still_as_asked(&self, target: Target) -> Result<(), v1::Error> {
        self.still_here(target)?;
        let same =
            self.regions.get(target.region).is_some_and(|view| view.mode() == (target.mode, target.era));
        if same { Ok(()) } else { Err(status::era_mismatch()) }
    }

    /// The record of a key, as it is stored, wherever it is.
    pub(super) async fn find_record(
        &self,
        target: Target,
        key: &Bytes,
        deadline: Instant,
    ) -> Result<Option<Bytes>, v1::Error> {
        if let Ok(record) = self.record_in_memory(target, key)? {
            return Ok(record);
        }
        let key = key.clone();
        self.by_a_thread(deadline, move |shared| shared.record_on_disk(target, &key)).await?
    }

    /// The records of many keys, as they are stored, all of one moment.
    pub(super) async fn find_records(
        &self,
        target: Target,
        keys: &[Bytes],
        deadline: Instant,
    ) -> Result<Stored, v1::Error> {
        if let Ok(stored) = self.records_in_memory(target, keys)? {
            return Ok(stored);
        }
        let keys = keys.to_vec();
        self.by_a_thread(deadline, move |shared| shared.records_on_disk(target, &keys)).await?
    }

    /// Has one of the threads do something that may wait for the disk.
    ///
    /// # Errors
    /// It takes too long, or the node stops.
    pub(super) async fn by_a_thread<T: Send + 'static>(
        &self,
        deadline: Instant,
        look: impl FnOnce(&Shared) -> T + Send + 'static,
    ) -> Result<T, v1::Error> {
        let (began, shared) = (Instant::now(), self.clone());
        let looked = async {
            let place = self.lookups.0.clone().acquire_owned().await;
            let place = place.map_err(|_| status::shutting_down())?;
            let looked = tokio::task::spawn_blocking(move || {
                // A thread that a disk holds up keeps its place, also where nobody waits for it any more.
                let _place = place;
                look(&shared)
            });
            looked.await.map_err(|_| status::shutting_down())
        };
        let late = |_| status::read_timed_out(began.elapsed());
        tokio::time::timeout_at(deadline.into(), looked).await.map_err(late)?
    }
}

/// All records that were asked for, if they were not too many bytes.
fn whole(read: Option<Records>) -> Result<Stored, v1::Error> {
    let stored = read.ok_or_else(status::read_too_much)?;
    Ok(stored.into_iter().map(|record| record.map(Bytes::from)).collect())
}

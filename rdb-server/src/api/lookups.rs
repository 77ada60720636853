//! Looking records up for reads. What lies in memory is found at once by the task that answers. What may have to come from the disk is read
//! by other threads: nobody else's answer waits for it, and several reads of the disk are under way at a time.

use super::kv::disk_failed;
use super::{Target, limits, status};
use crate::eventual::records::Stored;
use crate::shared::Shared;
use bytes::Bytes;
use rdb_proto::v1;
use rdb_storage::InMemory;
use std::sync::Arc;
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
    /// The record of a key, as it is stored; `None`: the disk has to be read to tell.
    pub(super) fn record_in_memory(
        &self,
        target: Target,
        key: &[u8],
    ) -> Result<Option<Option<Vec<u8>>>, v1::Error> {
        match self.data.get_in_memory(target.namespace, key).map_err(disk_failed)? {
            InMemory::Record(record) => self.still_here(target).map(|()| Some(record)),
            InMemory::Unknown => Ok(None),
        }
    }

    /// The record of a key, as it is stored. May wait for the disk.
    pub(super) fn read_record(&self, target: Target, key: &[u8]) -> Result<Option<Vec<u8>>, v1::Error> {
        let stored = self.data.get(target.namespace, key).map_err(disk_failed)?;
        self.still_here(target)?;
        Ok(stored)
    }

    /// The records of many keys, as they are stored, all of one moment. May wait for the disk.
    pub(super) fn read_records(&self, target: Target, keys: &[Bytes]) -> Result<Stored, v1::Error> {
        let stored =
            self.data.multi_get(target.namespace, keys, limits::BATCH_BYTES_MAX).map_err(disk_failed)?;
        self.still_here(target)?;
        let stored = stored.ok_or_else(status::read_too_much)?;
        Ok(stored.into_iter().map(|record| record.map(Bytes::from)).collect())
    }

    /// The record of a key, as it is stored, wherever it is.
    pub(super) async fn find_record(&self, target: Target, key: &Bytes) -> Result<Option<Bytes>, v1::Error> {
        let record = match self.record_in_memory(target, key)? {
            Some(record) => record,
            None => {
                let key = key.clone();
                self.look_up(move |shared| shared.read_record(target, &key)).await?
            }
        };
        Ok(record.map(Bytes::from))
    }

    /// The records of many keys, as they are stored, all of one moment.
    pub(super) async fn find_records(&self, target: Target, keys: &[Bytes]) -> Result<Stored, v1::Error> {
        let keys = keys.to_vec();
        self.look_up(move |shared| shared.read_records(target, &keys)).await
    }

    /// Has a thread look something up that may wait for the disk.
    ///
    /// # Errors
    /// It has found an error, or the node stops.
    pub(super) async fn look_up<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Shared) -> Result<T, v1::Error> + Send + 'static,
    ) -> Result<T, v1::Error> {
        let _place = self.lookups.0.acquire().await.map_err(|_| status::shutting_down())?;
        let shared = self.clone();
        let looked = tokio::task::spawn_blocking(move || look(&shared)).await;
        looked.unwrap_or_else(|_| Err(status::shutting_down()))
    }
}

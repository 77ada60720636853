//! The hash of what a region has stored when it is opened. A namespace may be large, and an era must not wait for it: a few
//! records are read at once, and more of them on a thread of their own, from a view of the data as it is now. What changes
//! meanwhile is counted by the region's machine; hashes add up in any order.

use super::{Event, Eventual};
use rdb_core::eventual::buckets::{Buckets, counted};
use rdb_core::ids::{Era, NamespaceId, RegionId};
use rdb_core::range::KeyRange;
use rdb_core::scan::Direction;
use rdb_storage::{Data, Length};
use std::time::Duration;

/// Records that are read at once: in less than a millisecond, for callers wait for the era to begin.
const AT_ONCE_MAX: usize = 200;
/// After so many records the thread rests, so that it takes less than half of a processor from those callers: all members begin
/// an era at once, and nobody waits for a hash until the era is to end.
const RECORDS_BETWEEN_RESTS: usize = 500;
const REST: Duration = Duration::from_millis(1);

/// The hashes of what is stored, if that is little. Otherwise they come as [`Event::Hashed`].
///
/// # Errors
/// The disk could not be read, or holds a record that is none.
pub(super) fn begin(
    data: &Data,
    (region, namespace): (RegionId, NamespaceId),
    era: Era,
    eventual: &Eventual,
) -> Result<Option<Buckets>, HashError> {
    let little = walk(data, namespace, (AT_ONCE_MAX, era), || ())?;
    if little.is_some() {
        return Ok(little);
    }
    let (data, eventual) = (data.clone(), eventual.clone());
    let (sender, begun) = crossbeam_channel::bounded(1);
    let hash = move || {
        // Nothing is applied before this view is taken: whoever asks waits for it.
        let hashed = walk(&data, namespace, (usize::MAX, era), || {
            let _ = sender.send(());
        });
        match hashed {
            Ok(stored) => {
                let stored = Box::new(stored.unwrap_or_default());
                eventual.post(Event::Hashed { region, era, stored });
            }
            Err(error) => crate::node::die(&format!("region {region}: its records cannot be read: {error}")),
        }
    };
    std::thread::Builder::new().name("hashes".to_owned()).spawn(hash).map_err(HashError::Thread)?;
    // It ends without a word only if the disk has failed, and then it ends the process.
    let _ = begun.recv();
    Ok(None)
}

/// Why records could not be hashed.
#[derive(Debug, thiserror::Error)]
pub(super) enum HashError {
    /// The disk could not be read.
    #[error(transparent)]
    Storage(#[from] rdb_storage::Error),
    /// A record is damaged.
    #[error(transparent)]
    Corrupt(#[from] rdb_core::codec::Corrupt),
    /// The system refused a thread.
    #[error("no thread to read the records: {0}")]
    Thread(std::io::Error),
}

/// The hashes of at most so many records; `None` if there are more. Calls `begun` once it sees the data as it will hash it.
fn walk(
    data: &Data,
    namespace: NamespaceId,
    (records_max, era): (usize, Era),
    begun: impl FnOnce(),
) -> Result<Option<Buckets>, HashError> {
    let frozen = data.freeze();
    begun();
    let (mut buckets, mut records) = (Buckets::default(), 0);
    let mut walk = frozen.walk(namespace, &KeyRange::all(), Direction::Forward, Length::Long);
    while let Some((key, record)) = walk.record()? {
        records += 1;
        if records_max < records {
            return Ok(None);
        }
        buckets.change(key, None, counted(&rdb_core::record::decode(record)?, era));
        walk.step();
        if records.is_multiple_of(RECORDS_BETWEEN_RESTS) {
            std::thread::sleep(REST);
        }
    }
    Ok(Some(buckets))
}

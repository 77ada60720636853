//! The lost writes that a namespace keeps, page by page, as this node has them noted. Whoever may wait for the disk calls it: the
//! thread is not asked.

use super::set_aside::{ListError, PageMax};
use rdb_core::eventual::conflicts::{Listed, Lost, all_lost, parse_lost_key};
use rdb_core::eventual::vector::WriteId;
use rdb_core::ids::Era;
use rdb_core::version::Version;
use rdb_storage::RegionData;

/// Notes that are read at a time.
const NOTES_PER_READ: usize = 64;
/// Notes that are looked at for one page: who asks for few keys goes on with the next one.
const NOTES_PER_PAGE_MAX: usize = 4096;
/// What a write takes in an answer besides its key and value.
const WRITE_OVERHEAD_BYTES: usize = 96;

/// A lost write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LostWrite {
    pub(crate) key: Vec<u8>,
    pub(crate) id: WriteId,
    pub(crate) version: Version,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) by: WriteId,
    pub(crate) by_version: Version,
    pub(crate) settled: bool,
    pub(crate) noted_ms: u64,
}

/// Some of them, in the order of their notes.
#[derive(Debug, Default)]
pub(crate) struct Page {
    pub(crate) writes: Vec<LostWrite>,
    /// Where to go on, if there may be more.
    pub(crate) next: Option<Vec<u8>>,
}

/// What is kept behind `after`, a token that a page before has given, of keys that begin with `prefix`. Losses of eras before
/// `era` are certain.
///
/// # Errors
/// It could not be read, or the token is none.
pub(crate) fn list(
    data: &RegionData,
    (era, prefix): (Era, &[u8]),
    after: Option<&[u8]>,
    max: PageMax,
) -> Result<Page, ListError> {
    page((era, prefix), after, max, |from, to| Ok(data.some_notes(from, to, NOTES_PER_READ)?))
}

/// Checks a token that a caller hands back.
///
/// # Errors
/// It was not made here.
pub(crate) fn check_token(token: &[u8]) -> Result<(), rdb_core::codec::Corrupt> {
    parse_lost_key(token).map(drop)
}

/// The same with `read`, which reads the first notes of a range.
fn page(
    (era, prefix): (Era, &[u8]),
    after: Option<&[u8]>,
    max: PageMax,
    mut read: impl FnMut(&[u8], &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>)>, ListError>,
) -> Result<Page, ListError> {
    let (mut from, to) = all_lost();
    if let Some(after) = after {
        from = behind(after);
    }
    let (mut page, mut bytes, mut seen) = (Page::default(), 0, 0);
    loop {
        let notes = read(&from, &to)?;
        let Some((last, _)) = notes.last() else { return Ok(page) };
        from = behind(last);
        for (key, note) in notes {
            seen += 1;
            let write = lost_write(&key, &note, era)?.filter(|write| write.key.starts_with(prefix));
            if let Some(write) = write {
                bytes += WRITE_OVERHEAD_BYTES + write.key.len() + write.value.as_ref().map_or(0, Vec::len);
                if max.bytes < bytes && !page.writes.is_empty() {
                    return Ok(page);
                }
                page.writes.push(write);
            }
            page.next = Some(key);
            if max.writes <= page.writes.len() || NOTES_PER_PAGE_MAX <= seen {
                return Ok(page);
            }
        }
        // Whatever follows, this page has all up to here.
        if read(&from, &to)?.is_empty() {
            page.next = None;
            return Ok(page);
        }
    }
}

/// The first key behind this one.
fn behind(key: &[u8]) -> Vec<u8> {
    [key, &[0]].concat()
}

/// What a note says, if it is one that is kept.
fn lost_write(key: &[u8], note: &[u8], now: Era) -> Result<Option<LostWrite>, ListError> {
    let (era, key, id) = parse_lost_key(key)?;
    let Lost { hlc, kept, by, settled, listed, .. } = Lost::decode(note)?;
    let version = |hlc, id: WriteId| Version { era, hlc, node: id.origin.node };
    let write = |Listed { noted, by_hlc }| LostWrite {
        key,
        id,
        version: version(hlc, id),
        value: kept,
        by,
        by_version: version(by_hlc, by),
        // A switch of mode ends when all members have all writes of the era.
        settled: settled || era < now,
        noted_ms: noted.millis(),
    };
    Ok(listed.map(write))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdb_core::eventual::conflicts::lost_key;
    use rdb_core::eventual::vector::Origin;
    use rdb_core::ids::{Incarnation, NodeId};
    use rdb_core::version::Hlc;
    use std::collections::BTreeMap;
    use std::ops::Bound;

    fn id(seq: u64) -> WriteId {
        WriteId { origin: Origin { node: NodeId(2), incarnation: Incarnation(1) }, seq }
    }

    /// Ten lost writes of each of two eras; of each fifth the time is over.
    fn stored() -> BTreeMap<Vec<u8>, Vec<u8>> {
        let mut notes = BTreeMap::new();
        for era in [1, 3] {
            for seq in 1..=10 {
                let key = format!("{}{seq}", if seq % 2 == 0 { "even" } else { "odd" });
                let listed = Listed { noted: Hlc::from_millis(900 + seq), by_hlc: Hlc(77) };
                let lost = Lost {
                    hlc: Hlc(seq),
                    tombstone: seq == 3,
                    kept: (seq != 3).then(|| vec![b'v'; 100]),
                    by: id(99),
                    settled: seq == 2,
                    listed: (seq % 5 != 0).then_some(listed),
                };
                notes.insert(lost_key(Era(era), key.as_bytes(), id(seq)), lost.encode());
            }
        }
        notes
    }

    fn all(prefix: &str, max: PageMax) -> Vec<(u32, u64, bool)> {
        let (stored, mut seen, mut after) = (stored(), Vec::new(), None::<Vec<u8>>);
        loop {
            let read = |from: &[u8], to: &[u8]| {
                let range = stored.range::<[u8], _>((Bound::Included(from), Bound::Excluded(to)));
                Ok(range.take(3).map(|(key, note)| (key.clone(), note.clone())).collect())
            };
            let page = page((Era(3), prefix.as_bytes()), after.as_deref(), max, read).unwrap();
            assert!(page.writes.len() <= max.writes);
            seen.extend(page.writes.iter().map(|write| (write.version.era.0, write.id.seq, write.settled)));
            let Some(next) = page.next else { return seen };
            check_token(&next).unwrap();
            after = Some(next);
        }
    }

    #[test]
    fn all_that_is_kept_is_listed_once_whatever_fills_the_pages() {
        for max in [
            PageMax { writes: 100, bytes: 1 << 20 },
            PageMax { writes: 1, bytes: 1 << 20 },
            PageMax { writes: 3, bytes: 1 << 20 },
            PageMax { writes: 100, bytes: 1 },
            PageMax { writes: 100, bytes: 450 },
        ] {
            // Shorter keys come first; those of an earlier era are all certain.
            let odd = all("odd", max);
            let expected = [1, 3, 7, 9].map(|seq| (1, seq, true)).into_iter();
            let expected: Vec<_> = expected.chain([1, 3, 7, 9].map(|seq| (3, seq, false))).collect();
            assert_eq!(odd, expected, "{max:?}");
            assert_eq!(all("", max).len(), 16, "{max:?}");
            assert_eq!(all("even", max).iter().filter(|(era, ..)| *era == 3).count(), 4);
            assert!(all("none", max).is_empty());
        }
        assert!(check_token(b"").is_err() && check_token(b"\x01token").is_err());
    }
}

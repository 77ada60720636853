//! What this node has set aside, write by write and page by page, as it lies in its logs. Whoever may wait for the disk calls it:
//! both the note of what is set aside and the logs are read from there, so that the thread is not asked.
//!
//! Nothing of it changes but by what is added: what is set aside stays until the namespace goes.

use super::quarantine::Quarantine;
use rdb_core::codec::{Corrupt, Reader, put_varint};
use rdb_core::eventual::run::{Entry, Run};
use rdb_core::eventual::vector::{Origin, Seq};
use rdb_core::ids::{Era, Incarnation, NodeId, RegionId};
use rdb_core::switch::quarantine::FROM_RECORDS;
use rdb_storage::OriginLogs;

/// Bytes of runs that are read at a time.
const RUNS_BYTES: usize = 1 << 20;
/// What a write takes in an answer besides its key and value.
const WRITE_OVERHEAD_BYTES: usize = 64;

/// The place of a write among all that are set aside: in its origin's log, or among those that were found in the records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) era: Era,
    pub(crate) origin: Origin,
    pub(crate) seq: Seq,
}

/// A write that is set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SetAside {
    pub(crate) place: Place,
    /// Who accepted it.
    pub(crate) origin: Origin,
    pub(crate) entry: Entry,
}

/// Some of them, in the order of their places.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) writes: Vec<SetAside>,
    /// Where to go on, if there are more.
    pub(crate) next: Option<Place>,
    /// How many writes are set aside. Those that a later one of the same run had replaced before it came here count, though no page
    /// has them; and so do those of a copy that had lost to others, or were replaced, where it was taken.
    pub(crate) total: u64,
}

/// How much may be on a page. One write is, whatever its size.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PageMax {
    pub(crate) writes: usize,
    pub(crate) bytes: usize,
}

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ListError {
    /// The log could not be read.
    #[error(transparent)]
    Storage(#[from] rdb_storage::Error),
    /// What lies there is damaged.
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
}

impl Place {
    /// As the caller hands it back.
    pub(crate) fn encode(self) -> Vec<u8> {
        let mut out = Vec::new();
        for number in [u64::from(self.era.0), self.origin.node.0, self.origin.incarnation.0, self.seq] {
            put_varint(&mut out, number);
        }
        out
    }

    /// Reads what a caller hands back.
    ///
    /// # Errors
    /// It was not made here.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Corrupt> {
        let mut reader = Reader::new("a token of a quarantine", bytes);
        let era = Era(reader.varint32()?);
        let node = NodeId(reader.varint()?);
        let origin = Origin { node, incarnation: Incarnation(reader.varint()?) };
        let seq = reader.varint()?;
        reader.finish()?;
        Ok(Self { era, origin, seq })
    }
}

/// What a region has set aside behind `after`.
///
/// # Errors
/// It could not be read.
pub(crate) fn list(
    logs: &OriginLogs,
    region: RegionId,
    after: Option<Place>,
    max: PageMax,
) -> Result<Page, ListError> {
    let quarantine = Quarantine::decode(&logs.quarantine(region)?.unwrap_or_default())?;
    page(&quarantine, after, max, |era, origin, known| Ok(logs.runs(region, era, origin, known, RUNS_BYTES)?))
}

/// The same with `runs`, which reads encoded runs of an origin's log from the one that has the write after a given one on.
fn page(
    quarantine: &Quarantine,
    after: Option<Place>,
    max: PageMax,
    mut runs: impl FnMut(Era, Origin, Seq) -> Result<Vec<Vec<u8>>, ListError>,
) -> Result<Page, ListError> {
    let mut page = Page { writes: Vec::new(), next: None, total: quarantine.writes() };
    let mut bytes = 0;
    for (era, origin, first_after, last) in quarantine.ranges() {
        let mut known = match after {
            Some(after) if (era, origin) < (after.era, after.origin) => continue,
            Some(after) if (era, origin) == (after.era, after.origin) => first_after.max(after.seq),
            _ => first_after,
        };
        while known < last {
            let read = runs(era, origin, known)?;
            let before = known;
            for run in read {
                for write in writes((era, origin), &mut known, &run)? {
                    if last < write.place.seq {
                        break;
                    }
                    bytes += entry_bytes(&write.entry);
                    let is_full = max.writes <= page.writes.len() || max.bytes < bytes;
                    if is_full && !page.writes.is_empty() {
                        page.next = page.writes.last().map(|write| write.place);
                        return Ok(page);
                    }
                    page.writes.push(write);
                }
            }
            if known == before {
                // The rest of it came by a copy: what is left of that is among those that were found in the records.
                break;
            }
        }
    }
    Ok(page)
}

/// The writes of a stored run behind `known`, which is raised to the last of them. Those that were found in the records have a run each.
fn writes((era, log): (Era, Origin), known: &mut Seq, run: &[u8]) -> Result<Vec<SetAside>, Corrupt> {
    let run = Run::decode(run)?;
    let origin = run.origin;
    let run = if log == FROM_RECORDS { run } else { run.without(*known) };
    let before = *known;
    *known = if log == FROM_RECORDS { before + 1 } else { before.max(run.last()) };
    let place = |entry: &Entry| if log == FROM_RECORDS { before + 1 } else { entry.seq };
    let write = |entry| SetAside { place: Place { era, origin: log, seq: place(&entry) }, origin, entry };
    Ok(run.entries.into_iter().map(write).collect())
}

fn entry_bytes(entry: &Entry) -> usize {
    WRITE_OVERHEAD_BYTES + entry.key.len() + entry.value.as_ref().map_or(0, Vec::len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdb_core::eventual::run::Replaced;
    use rdb_core::switch::quarantine::Tail;
    use rdb_core::version::Hlc;

    fn origin(node: u64) -> Origin {
        Origin { node: NodeId(node), incarnation: Incarnation(1) }
    }

    fn run(era: Era, origin: Origin, after: Seq, seqs: &[Seq]) -> Vec<u8> {
        let replaced = Replaced::Nothing(Hlc(0));
        let entry = |seq: &Seq| Entry {
            seq: *seq,
            hlc: Hlc(100 + seq),
            key: format!("{}", origin.node.0 * 100 + seq).into_bytes(),
            value: (seq % 2 == 1).then(|| vec![b'x'; 1000]),
            replaced,
            since: *seq,
        };
        Run { era, origin, after, entries: seqs.iter().map(entry).collect() }.encode()
    }

    /// Of node 2, writes 3 to 6 of era 1 and 1 to 2 of era 3, and of node 3 write 8 of era 1. The runs begin before what is set aside
    /// and go on behind it, the log of node 3 no longer has the writes before, two of which were found in the records, and of write 5
    /// of node 2 a later one was left.
    fn stored(era: Era, of: Origin, known: Seq) -> Result<Vec<Vec<u8>>, ListError> {
        let all = [
            (Era(1), FROM_RECORDS, 1, run(Era(1), origin(3), 6, &[7])),
            (Era(1), FROM_RECORDS, 2, run(Era(1), origin(3), 5, &[6])),
            (Era(1), origin(2), 4, run(Era(1), origin(2), 0, &[1, 2, 3, 4])),
            (Era(1), origin(2), 7, run(Era(1), origin(2), 4, &[6, 7])),
            (Era(1), origin(3), 8, run(Era(1), origin(3), 7, &[8])),
            (Era(3), origin(2), 2, run(Era(3), origin(2), 0, &[1, 2])),
        ];
        let found = all.into_iter().find(|(at, who, last, _)| (*at, *who) == (era, of) && known < *last);
        Ok(found.map(|(.., run)| run).into_iter().collect())
    }

    fn quarantine() -> Quarantine {
        let mut quarantine = Quarantine::default();
        let tail = |node, after, last| Tail { origin: origin(node), after, last };
        quarantine.add(Era(1), &[tail(2, 2, 6), tail(3, 5, 8)], 2);
        quarantine.add(Era(3), &[tail(2, 0, 2)], 0);
        quarantine
    }

    fn places(page: &Page) -> Vec<(u32, u64, Seq)> {
        let of = |write: &SetAside| (write.place.era.0, write.origin.node.0, write.entry.seq);
        page.writes.iter().map(of).collect()
    }

    const ALL: [(u32, u64, Seq); 8] =
        [(1, 3, 7), (1, 3, 6), (1, 2, 3), (1, 2, 4), (1, 2, 6), (1, 3, 8), (3, 2, 1), (3, 2, 2)];

    #[test]
    fn what_is_set_aside_is_listed_and_nothing_else() {
        let max = PageMax { writes: 100, bytes: 1 << 20 };
        let found = page(&quarantine(), None, max, stored).unwrap();
        assert_eq!((places(&found), found.next, found.total), (ALL.to_vec(), None, 9));
        assert_eq!((&found.writes[2].entry.key[..], found.writes[2].entry.hlc), (&b"203"[..], Hlc(103)));
        assert!(found.writes[2].entry.value.is_some() && found.writes[3].entry.value.is_none());
        let none = page(&Quarantine::default(), None, max, stored).unwrap();
        assert_eq!(none, Page { writes: Vec::new(), next: None, total: 0 });
    }

    #[test]
    fn pages_follow_each_other_without_a_gap_whatever_fills_them() {
        for max in [
            PageMax { writes: 1, bytes: 1 << 20 },
            PageMax { writes: 4, bytes: 1 << 20 },
            PageMax { writes: 100, bytes: 1 },
            PageMax { writes: 100, bytes: 2500 },
        ] {
            let (mut seen, mut after) = (Vec::new(), None);
            loop {
                let page = page(&quarantine(), after, max, stored).unwrap();
                assert!(!page.writes.is_empty() && page.writes.len() <= max.writes, "{page:?}");
                seen.extend(places(&page));
                let Some(next) = page.next else { break };
                after = Some(Place::decode(&next.encode()).unwrap());
            }
            assert_eq!(seen, ALL, "{max:?}");
        }
        assert!(Place::decode(b"").is_err() && Place::decode(b"12345").is_err());
    }

    #[test]
    fn a_damaged_run_is_no_empty_one() {
        let damaged = |_, _, _| Ok(vec![b"damaged".to_vec()]);
        let max = PageMax { writes: 1, bytes: 1 };
        assert!(matches!(page(&quarantine(), None, max, damaged), Err(ListError::Corrupt(_))));
    }
}

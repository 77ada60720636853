//! The values of lost writes, where a namespace keeps them: for how long, and how many bytes of them at most. The oldest go first.
//!
//! Their age counts from when this node found out that they are lost, by its hybrid clock's physical part; while that is not to
//! be trusted, nothing goes for its age. What goes is no longer listed, and is counted all the same.

use super::replica::ReplicaError;
use rdb_core::codec::Corrupt;
use rdb_core::eventual::conflicts::{Kept, Lost, all_kept, lost_of_era};
use rdb_core::eventual::machine::{View as _, forget};
use rdb_core::ids::Era;
use rdb_core::version::Hlc;
use rdb_storage::RegionData;

/// Bytes of lost writes that a namespace keeps on a node: as many as an hour of conflicts on a busy one. While they are made room
/// for it may be a little more.
const KEPT_BYTES_MAX: u64 = 64 << 20;
/// Notes looked at in one step: a millisecond or two.
const NOTES_PER_STEP_MAX: usize = 512;
/// The same in bytes, where they may hold values.
const BYTES_PER_STEP: usize = 128 << 10;

/// Notes with their keys; `None` removes.
type Changed = [(Vec<u8>, Option<Vec<u8>>)];

/// What a replica keeps.
#[derive(Debug, Default)]
pub(super) struct Keeping {
    /// For how long; 0: nothing is kept.
    keep_ms: u64,
    /// Of all that is kept before `uncounted`.
    bytes: u64,
    /// Where the count of what a start has found goes on; `None` once all is counted.
    uncounted: Option<Vec<u8>>,
    /// What was noted before this is too old.
    before: Hlc,
    /// Whether it is to be looked at again what is too old.
    is_due: bool,
    /// How many had to go before their time, since the start.
    crowded_out: u64,
}

impl Keeping {
    pub(super) fn new(keep_seconds: u64) -> Self {
        let keep_ms = keep_seconds.saturating_mul(1000);
        Self { keep_ms, uncounted: Some(all_kept().0), ..Self::default() }
    }

    pub(super) fn keeps(&self) -> bool {
        0 < self.keep_ms
    }

    /// Bytes that are kept, and how many lost writes had to go before their time.
    pub(super) fn shown(&self) -> (u64, u64) {
        (self.bytes, self.crowded_out)
    }

    /// Time goes on. `physical_ms` is the clock's, if it is to be trusted.
    pub(super) fn look(&mut self, physical_ms: Option<u64>) {
        if let Some(physical_ms) = physical_ms.filter(|_| self.keeps()) {
            self.before = too_old(physical_ms, self.keep_ms);
            self.is_due = true;
        }
    }

    /// Takes note of what is written.
    ///
    /// # Errors
    /// A key in it is damaged.
    pub(super) fn saw(&mut self, changed: &Changed) -> Result<(), Corrupt> {
        if !self.keeps() {
            return Ok(());
        }
        for (key, note) in changed {
            let Some(kept) = Kept::parse(key)? else { continue };
            if self.uncounted.as_ref().is_some_and(|from| from <= key) {
                continue;
            }
            let bytes = u64::from(kept.bytes);
            self.bytes = match note {
                Some(_) => self.bytes.saturating_add(bytes),
                None => self.bytes.saturating_sub(bytes),
            };
        }
        Ok(())
    }

    /// Does a little of what there is to be done. Whether there is more.
    pub(super) fn work(&mut self, era: Era, data: &RegionData) -> Result<bool, ReplicaError> {
        if !self.keeps() {
            return Ok(false);
        }
        if let Some(from) = self.uncounted.take() {
            self.uncounted = self.count(&from, data)?;
            return Ok(true);
        }
        if !self.is_due && self.bytes <= KEPT_BYTES_MAX {
            return Ok(false);
        }
        let oldest = oldest(data)?;
        let Going { count, crowded_out } = going(&oldest, self.bytes, KEPT_BYTES_MAX, self.before)?;
        if count == 0 {
            self.is_due = false;
            return Ok(false);
        }
        if 0 < crowded_out && self.crowded_out == 0 {
            tracing::warn!(
                bytes_max = KEPT_BYTES_MAX,
                "more lost writes than there is room for: the oldest are not listed until their time is over"
            );
        }
        self.crowded_out += crowded_out;
        let changed = forget(Some(era), &oldest[..count], data)?;
        data.change_notes(&changed)?;
        self.saw(&changed)?;
        Ok(true)
    }

    /// Counts some of what a start has found. Where to go on.
    fn count(&mut self, from: &[u8], data: &RegionData) -> Result<Option<Vec<u8>>, ReplicaError> {
        let found = data.some_notes(from, &all_kept().1, NOTES_PER_STEP_MAX)?;
        for (key, _) in &found {
            self.bytes += Kept::parse(key)?.map_or(0, |kept| u64::from(kept.bytes));
        }
        let last = found.last().filter(|_| found.len() == NOTES_PER_STEP_MAX);
        // The first key behind the last one.
        Ok(last.map(|(key, _)| [&key[..], &[0]].concat()))
    }
}

/// Where a namespace is strong, nobody adds to what it has kept: it goes when it is too old. Returns how many went.
pub(super) fn forget_old(
    data: &RegionData,
    keep_seconds: u64,
    physical_ms: u64,
) -> Result<usize, ReplicaError> {
    let before = too_old(physical_ms, keep_seconds.saturating_mul(1000));
    let oldest = oldest(data)?;
    let Going { count, .. } = going(&oldest, 0, KEPT_BYTES_MAX, before)?;
    if 0 < count {
        data.change_notes(&forget(None, &oldest[..count], data)?)?;
    }
    Ok(count)
}

/// Removes some of what is noted of losses in eras before `era`, from `from` on: they are certain and counted for good, and nobody
/// asks for them any more, but for those that are kept. Where to go on, if there may be more.
pub(super) fn forget_bare(data: &RegionData, era: Era, from: &[u8]) -> Result<Option<Vec<u8>>, ReplicaError> {
    // Those that are kept hold values, and may be long.
    let found = data.first_notes(from, &lost_of_era(era), BYTES_PER_STEP)?;
    let mut bare = Vec::new();
    for (key, note) in &found {
        if Lost::decode(note)?.listed.is_none() {
            bare.push((key.clone(), None));
        }
    }
    if !bare.is_empty() {
        data.change_notes(&bare)?;
    }
    let bytes: usize = found.iter().map(|(key, note)| key.len() + note.len()).sum();
    let last = found.last().filter(|_| BYTES_PER_STEP <= bytes);
    // The first key behind the last one.
    Ok(last.map(|(key, _)| [&key[..], &[0]].concat()))
}

fn too_old(physical_ms: u64, keep_ms: u64) -> Hlc {
    Hlc::from_millis(physical_ms.saturating_sub(keep_ms))
}

fn oldest(data: &RegionData) -> Result<Vec<Vec<u8>>, ReplicaError> {
    let (from, to) = all_kept();
    let found = data.some_notes(&from, &to, NOTES_PER_STEP_MAX)?;
    Ok(found.into_iter().map(|(key, _)| key).collect())
}

/// How many of the oldest go.
#[derive(Debug, PartialEq, Eq)]
struct Going {
    count: usize,
    /// Those of them that are not too old.
    crowded_out: u64,
}

fn going(oldest: &[Vec<u8>], mut bytes: u64, bytes_max: u64, before: Hlc) -> Result<Going, Corrupt> {
    let (mut count, mut crowded_out) = (0, 0);
    for key in oldest {
        let Some(kept) = Kept::parse(key)? else { break };
        let is_old = kept.noted < before;
        if !is_old && bytes <= bytes_max {
            break;
        }
        bytes = bytes.saturating_sub(u64::from(kept.bytes));
        crowded_out += u64::from(!is_old);
        count += 1;
    }
    Ok(Going { count, crowded_out })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As [`Kept`] has it: noted then, so long.
    fn key(noted_ms: u64, bytes: u32, number: u8) -> Vec<u8> {
        let mut key = all_kept().0;
        key.extend_from_slice(&Hlc::from_millis(noted_ms).0.to_be_bytes());
        key.extend_from_slice(&bytes.to_be_bytes());
        key.push(number);
        key
    }

    #[test]
    fn what_is_too_old_goes_and_then_the_oldest_until_there_is_room() {
        let oldest = [key(100, 10, 1), key(200, 20, 2), key(300, 30, 3), key(400, 40, 4)];
        let going = |bytes_max, before_ms| {
            let Going { count, crowded_out } =
                going(&oldest, 100, bytes_max, Hlc::from_millis(before_ms)).unwrap();
            (count, crowded_out)
        };
        assert_eq!(going(100, 0), (0, 0));
        assert_eq!(going(100, 201), (2, 0), "what is as old as allowed stays");
        assert_eq!(going(70, 0), (2, 2), "two make just enough room");
        assert_eq!(going(69, 0), (3, 3));
        assert_eq!(going(40, 201), (3, 1));
        assert_eq!(going(0, 0), (4, 4));
    }

    #[test]
    fn bytes_are_counted_once_while_a_start_still_counts() {
        let mut keeping = Keeping { uncounted: Some(key(300, 0, 0)), ..Keeping::new(3600) };
        keeping.saw(&[(key(200, 20, 2), Some(vec![1])), (key(300, 30, 3), Some(vec![1]))]).unwrap();
        assert_eq!(keeping.shown(), (20, 0), "the other one is yet to be counted");
        keeping.uncounted = None;
        keeping.saw(&[(key(400, 40, 4), Some(vec![1])), (key(200, 20, 2), None)]).unwrap();
        assert_eq!(keeping.shown(), (40, 0));
        let mut none = Keeping::new(0);
        none.look(Some(u64::MAX));
        assert!(!none.is_due && !none.keeps());
    }

    #[test]
    fn nothing_gets_old_by_a_clock_that_is_not_to_be_trusted() {
        let mut keeping = Keeping::new(1);
        keeping.look(None);
        assert!(!keeping.is_due);
        keeping.look(Some(5000));
        assert_eq!((keeping.is_due, keeping.before), (true, Hlc::from_millis(4000)));
    }
}

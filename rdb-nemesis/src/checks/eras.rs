//! What a history over many switches must show.
//!
//! A version names its era, and every switch that completes begins one; so it is known of each write in which mode it was done.
//!
//! Strong eras are linearizable, and begin with the newest of all that was acknowledged before. To judge that, a key's whole
//! history is given to the check of linearizability, in which writes of an eventual era are made concurrent with each other: each
//! counts as answered only when the last of its era has been asked for. So nothing is demanded among them but that versions have
//! one writer each, while a strong operation after them must see the greatest of them, or what followed it.

use super::FINAL;
use super::linearizable;
use crate::history::{Call, Entry, Outcome};
use crate::switching::mode_of;
use crate::workloads::switched::REGISTERS;
use rdb_client::Mode;
use std::collections::BTreeMap;

/// How reads that saw all that was acknowledged were served.
const STRONG_READS: [&str; 2] = ["linearizable", "lease"];

/// How many operations of each kind there were.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Done {
    pub(crate) strong_writes: u64,
    pub(crate) eventual_writes: u64,
    /// Compare-and-swaps that were answered, also those that found something else.
    pub(crate) comparisons: u64,
    pub(crate) strong_reads: u64,
}

/// Counts what was done in which mode.
pub(crate) fn count(history: &[Entry], first: Mode) -> Done {
    let mut done = Done::default();
    for entry in history {
        match (&entry.call, era(entry).map(|era| mode_of(era, first))) {
            (Call::Cas(_), _) if entry.is_answered() => done.comparisons += 1,
            (_, Some(Mode::Strong)) => done.strong_writes += 1,
            (_, Some(Mode::Eventual)) => done.eventual_writes += 1,
            (_, None) if entry.workload != FINAL && is_strong_read(entry) => done.strong_reads += 1,
            (_, None) => {}
        }
    }
    done
}

/// The era of an acknowledged write.
fn era(entry: &Entry) -> Option<u32> {
    match entry.outcome {
        Outcome::Done { version } => Some(version.0.era),
        _ => None,
    }
}

fn is_strong_read(entry: &Entry) -> bool {
    let found = matches!(entry.outcome, Outcome::Found { .. });
    let strongly = entry.served.as_deref().is_some_and(|served| STRONG_READS.contains(&served));
    // Nobody asks for anything weaker in the end, and batches do not tell.
    entry.call == Call::Get && found && (strongly || entry.workload == FINAL)
}

/// Every strong era of every register is linearizable, from what it began with.
pub(crate) fn strong_eras(history: &[Entry], first: Mode) -> Result<String, String> {
    let registers = history.iter().filter(|entry| entry.key.starts_with(REGISTERS));
    let mut adapted: Vec<Entry> = registers.filter(|entry| counts(entry)).cloned().collect();
    if let Some(weak) = adapted.iter().find(|entry| {
        matches!(entry.call, Call::Cas(_))
            && era(entry).is_some_and(|era| mode_of(era, first) == Mode::Eventual)
    }) {
        return Err(format!("silently weaker: a compare-and-swap was done in an eventual era: {weak:?}"));
    }
    let mut last_asked: BTreeMap<(String, u32), u64> = BTreeMap::new();
    for entry in &adapted {
        if let Some(era) = era(entry).filter(|era| mode_of(*era, first) == Mode::Eventual) {
            let last = last_asked.entry((entry.key.clone(), era)).or_default();
            *last = entry.call_ns.max(*last);
        }
    }
    for (place, entry) in (1..).zip(&mut adapted) {
        let last = era(entry).and_then(|era| last_asked.get(&(entry.key.clone(), era)));
        if let Some(last) = last {
            // Each at a moment of its own.
            entry.return_ns = entry.return_ns.map(|returned| returned.max(last + place));
        }
    }
    linearizable::of(adapted.iter())
}

/// What a node had promises nothing here; what was refused must not be seen.
fn counts(entry: &Entry) -> bool {
    match entry.call {
        Call::Stale => false,
        Call::Get => is_strong_read(entry),
        Call::Put(_) | Call::Delete | Call::Cas(_) => true,
    }
}

/// An epoch is of one era, and a later one of no earlier era.
pub(crate) fn epochs(history: &[Entry]) -> Result<String, String> {
    let mut eras: BTreeMap<u64, u32> = BTreeMap::new();
    for entry in history {
        let (Some(epoch), Some(era)) = (entry.epoch, era(entry)) else { continue };
        let before = *eras.entry(epoch).or_insert(era);
        if before != era {
            return Err(format!("writes of epoch {epoch} were done in eras {before} and {era}"));
        }
    }
    let falls = eras.iter().zip(eras.iter().skip(1)).find(|((_, before), (_, after))| after < before);
    match falls {
        None => Ok(format!("{} epochs", eras.len())),
        Some((before, after)) => {
            Err(format!("epochs and eras grow apart: {before:?} comes before {after:?}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Expect, Request, Stamp, Swap};
    use crate::workloads::switched::NAME;
    use rdb_check::Version;

    const FIRST: Mode = Mode::Eventual;

    fn stamp(era: u32, hlc: u64) -> Stamp {
        Stamp(Version { era, hlc, node: 1 })
    }

    fn entry(call: Call, (call_ns, return_ns): (u64, u64), outcome: Outcome) -> Entry {
        Entry {
            client: call_ns,
            workload: NAME.to_owned(),
            key: format!("{REGISTERS}key"),
            request: Some(Request::Put),
            call,
            call_ns,
            return_ns: Some(return_ns),
            outcome,
            epoch: None,
            node: None,
            served: None,
            name: None,
        }
    }

    fn put(value: &str, times: (u64, u64), era: u32, hlc: u64) -> Entry {
        entry(Call::Put(value.to_owned()), times, Outcome::Done { version: stamp(era, hlc) })
    }

    fn get(value: &str, times: (u64, u64), era: u32, hlc: u64) -> Entry {
        let found = Outcome::Found { value: Some(value.to_owned()), version: Some(stamp(era, hlc)) };
        Entry { served: Some("linearizable".to_owned()), ..entry(Call::Get, times, found) }
    }

    /// Two nodes write, whose clocks differ: the write that was answered first has the greater stamp.
    fn eventual() -> Vec<Entry> {
        vec![put("a", (10, 20), 1, 9_000), put("b", (30, 40), 1, 5_000)]
    }

    fn with(more: impl IntoIterator<Item = Entry>) -> Vec<Entry> {
        let mut history = eventual();
        history.extend(more);
        history
    }

    #[test]
    fn an_eventual_era_need_not_be_linearizable_but_a_strong_one_begins_with_its_greatest_write() {
        assert!(strong_eras(&eventual(), FIRST).is_ok());
        assert!(strong_eras(&with([get("a", (100, 110), 1, 9_000)]), FIRST).is_ok());
        let behind = with([get("b", (100, 110), 1, 5_000)]);
        assert!(strong_eras(&behind, FIRST).is_err(), "the later version is lost");
        let found = Outcome::Found { value: None, version: None };
        let nothing =
            Entry { served: Some("linearizable".to_owned()), ..entry(Call::Get, (100, 110), found) };
        assert!(strong_eras(&with([nothing]), FIRST).is_err(), "all is lost");
    }

    #[test]
    fn a_strong_era_is_linearizable() {
        let strong = [put("c", (100, 110), 2, 3), get("c", (120, 130), 2, 3)];
        assert!(strong_eras(&with(strong), FIRST).is_ok());
        let stale = [put("c", (100, 110), 2, 3), get("a", (120, 130), 1, 9_000)];
        assert!(strong_eras(&with(stale), FIRST).is_err());
        // The eventual era that follows is one again.
        let next =
            [put("c", (100, 110), 2, 3), put("d", (120, 130), 3, 9_000), put("e", (140, 150), 3, 5_000)];
        assert!(strong_eras(&with(next), FIRST).is_ok());
    }

    #[test]
    fn a_comparison_that_was_done_in_an_eventual_era_is_found() {
        let swap = Swap { expect: Expect::Value("a".to_owned()), then: "c".to_owned() };
        let swapped =
            |era| entry(Call::Cas(swap.clone()), (100, 110), Outcome::Done { version: stamp(era, 9_999) });
        assert!(strong_eras(&with([swapped(2)]), FIRST).is_ok());
        assert!(strong_eras(&with([swapped(1)]), FIRST).is_err_and(|why| why.contains("weaker")));
        let found = Swap { expect: Expect::Value("b".to_owned()), then: "c".to_owned() };
        let wrong = entry(Call::Cas(found), (100, 110), Outcome::Done { version: stamp(2, 9_999) });
        assert!(strong_eras(&with([wrong]), FIRST).is_err(), "it found what was not the greatest");
    }

    #[test]
    fn what_local_reads_show_is_not_held_against_anybody() {
        let local = Entry { served: Some("local".to_owned()), ..get("b", (100, 110), 1, 5_000) };
        assert!(strong_eras(&with([local.clone()]), FIRST).is_ok());
        let done = count(&with([local, put("c", (120, 130), 2, 3), get("c", (140, 150), 2, 3)]), FIRST);
        assert_eq!(done, Done { strong_writes: 1, eventual_writes: 2, comparisons: 0, strong_reads: 1 });
    }

    #[test]
    fn an_epoch_is_of_one_era() {
        let at = |epoch, era| Entry { epoch: Some(epoch), ..put("a", (10, 20), era, 1) };
        assert!(epochs(&[at(1, 1), at(2, 1), at(3, 2)]).is_ok());
        assert!(epochs(&[at(1, 1), at(1, 2)]).is_err());
        assert!(epochs(&[at(1, 2), at(2, 1)]).is_err());
    }
}

//! What clients of a namespace saw that was switched all the time: no acknowledged element is lost, nothing that was refused has
//! happened, strong eras are linearizable, and an epoch is of one era.

use super::eras::{self, Done};
use super::{FINAL, Finding, is_switched, set};
use crate::history::Entry;
use crate::workloads::switched::{ELEMENTS, FIRST};
use std::collections::{BTreeMap, BTreeSet};

/// Of each kind of operation: fewer show nothing.
pub(crate) const DONE_MIN: u64 = 20;

pub(super) fn check(history: &[Entry]) -> Finding {
    let ours: Vec<Entry> = history.iter().filter(|entry| is_switched(entry)).cloned().collect();
    if ours.is_empty() {
        return Ok("nothing was switched".to_owned());
    }
    let done = eras::count(&ours, FIRST);
    if is_little(&done) {
        return Err(format!("vacuous: too little was done of something: {done:?}, of {DONE_MIN} each"));
    }
    // Cases that compare whole replicas have no reads of every key in the end.
    let has_final = ours.iter().any(|entry| entry.workload == FINAL);
    let elements = if has_final { set::of(&ours, is_element)? } else { "elements not looked for".to_owned() };
    let strong = eras::strong_eras(&ours, FIRST)?;
    let epochs = eras::epochs(&ours)?;
    Ok(format!("{elements}; strong eras: {strong}; {epochs}"))
}

/// Whether so little was done of something that nothing is shown.
pub(crate) fn is_little(done: &Done) -> bool {
    let Done { strong_writes, eventual_writes, comparisons, strong_reads } = *done;
    [strong_writes, eventual_writes, comparisons, strong_reads].iter().any(|count| *count < DONE_MIN)
}

fn is_element(entry: &Entry) -> bool {
    entry.key.starts_with(ELEMENTS) && entry.workload != FINAL
}

/// The same of elements alone, held against what a node has in the end.
pub(crate) fn elements(history: &[Entry], node: u64, found: &BTreeSet<String>) -> Finding {
    let adds: Vec<&Entry> = history.iter().filter(|entry| is_element(entry)).collect();
    let found = found.iter().map(String::as_str).collect();
    set::are_there(&adds, &BTreeMap::from([(node, found)]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Call, Outcome, Request, Stamp};
    use crate::workloads::switched::NAME;
    use rdb_check::Version;

    fn add(element: &str, outcome: Outcome) -> Entry {
        Entry {
            client: 1,
            workload: NAME.to_owned(),
            key: format!("{ELEMENTS}{element}"),
            request: Some(Request::Put),
            call: Call::Put(element.to_owned()),
            call_ns: 1,
            return_ns: Some(2),
            outcome,
            epoch: None,
            node: None,
            served: None,
            name: None,
        }
    }

    fn done() -> Outcome {
        Outcome::Done { version: Stamp(Version::default()) }
    }

    #[test]
    fn an_acknowledged_element_must_be_there_and_a_refused_one_must_not() {
        let why = String::new;
        let history = [
            add("done", done()),
            add("refused", Outcome::NotDone { why: why() }),
            add("doubtful", Outcome::Unknown { why: why() }),
        ];
        let looked = |found: &[&str]| {
            elements(&history, 1, &found.iter().map(|key| format!("{ELEMENTS}{key}")).collect())
        };
        assert!(looked(&["done"]).is_ok() && looked(&["done", "doubtful"]).is_ok());
        assert!(looked(&["doubtful"]).is_err_and(|why| why.contains("lost") && why.contains("done")));
        assert!(looked(&["done", "refused"]).is_err_and(|why| why.contains("yet there")));
    }

    #[test]
    fn a_run_whose_switches_let_clients_do_little_shows_nothing() {
        assert!(check(&[]).is_ok());
        assert!(check(&[add("done", done())]).is_err_and(|why| why.contains("vacuous")));
        let enough = Done {
            strong_writes: DONE_MIN,
            eventual_writes: DONE_MIN,
            comparisons: DONE_MIN,
            strong_reads: DONE_MIN,
        };
        assert!(!is_little(&enough));
        assert!(is_little(&Done { comparisons: DONE_MIN - 1, ..enough }));
    }
}

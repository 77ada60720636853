//! Nothing that was acknowledged is lost, at any node, and nothing that was refused has happened.

use super::{Finding, final_reads};
use crate::history::{Call, Entry, Outcome};
use std::collections::{BTreeMap, BTreeSet};

const NAME: &str = "set";
/// How many elements a finding names.
const NAMED_MAX: usize = 5;

pub(super) fn check(history: &[Entry]) -> Finding {
    of(history, |entry| entry.workload == NAME)
}

/// The same of elements of another name.
pub(super) fn of(history: &[Entry], is_element: impl Fn(&Entry) -> bool) -> Finding {
    let is_add = |entry: &&Entry| is_element(entry) && matches!(entry.call, Call::Put(_));
    let adds: Vec<&Entry> = history.iter().filter(is_add).collect();
    let keys: BTreeSet<&str> = adds.iter().map(|entry| entry.key.as_str()).collect();
    let mut found: BTreeMap<u64, BTreeSet<&str>> = BTreeMap::new();
    for read in final_reads(history).filter(|read| keys.contains(read.key.as_str())) {
        let at_node = found.entry(read.node.unwrap_or(0)).or_default();
        if matches!(read.outcome, Outcome::Found { value: Some(_), .. }) {
            at_node.insert(&read.key);
        }
    }
    are_there(&adds, &found)
}

/// Whether elements that these writes added are at each node, and those that were refused at none.
pub(super) fn are_there(adds: &[&Entry], found: &BTreeMap<u64, BTreeSet<&str>>) -> Finding {
    let with = |wanted: fn(&Entry) -> bool| {
        adds.iter().filter(move |entry| wanted(entry)).map(|entry| entry.key.as_str())
    };
    let acknowledged: BTreeSet<&str> = with(Entry::is_acknowledged_write).collect();
    let refused: BTreeSet<&str> = with(|entry| matches!(entry.outcome, Outcome::NotDone { .. })).collect();
    if !acknowledged.is_empty() && found.is_empty() {
        return Err("elements were acknowledged, and no final read looked for them".to_owned());
    }
    for (node, found) in found {
        some(&acknowledged, |key| !found.contains(key), &format!("acknowledged and lost at node {node}"))?;
        some(
            &refused,
            |key| found.contains(key),
            &format!("refused as not done, and yet there at node {node}"),
        )?;
    }
    Ok(format!("{} acknowledged elements at {} nodes", acknowledged.len(), found.len()))
}

/// Fails if there are any such elements.
fn some(of: &BTreeSet<&str>, wrong: impl Fn(&str) -> bool, what: &str) -> Result<(), String> {
    let wrong: Vec<&str> = of.iter().copied().filter(|key| wrong(key)).collect();
    if wrong.is_empty() {
        return Ok(());
    }
    let named = &wrong[..wrong.len().min(NAMED_MAX)];
    Err(format!("{} of {} elements were {what}, among them {named:?}", wrong.len(), of.len()))
}

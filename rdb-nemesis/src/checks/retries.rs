//! A named write is applied once, however often it is sent.
//!
//! All copies of it that were answered have the same answer, and there are at least two; no copy was told that its session is
//! forgotten. Each wheel stands where as many turns as were acknowledged
//! have brought it, and the shared number is as many as the swaps that were.

use super::{Finding, final_reads};
use crate::history::{Call, Entry, Name, Outcome, Stamp};
use crate::workloads::{ANSWERS_MIN, SHARED, WHEELS, wheel_value};
use std::collections::BTreeMap;

const NAME: &str = "retries";

/// What a named write was told: the version that it has made, or that it was refused against.
type Told = Result<Stamp, Option<Stamp>>;

#[derive(Default)]
struct Copies<'a> {
    key: &'a str,
    answered: u64,
    told: Option<Told>,
}

pub(super) fn check(history: &[Entry]) -> Finding {
    let mut names: BTreeMap<Name, Copies<'_>> = BTreeMap::new();
    for entry in history.iter().filter(|entry| entry.workload == NAME) {
        let (Some(name), Call::Cas(_)) = (entry.name, &entry.call) else { continue };
        let copies = names.entry(name).or_default();
        copies.key = &entry.key;
        add(copies, name, entry)?;
    }
    let mut swapped: BTreeMap<&str, u64> = BTreeMap::new();
    let (mut answered, mut once) = (0, 0);
    for (name, copies) in &names {
        let told = copies.told.ok_or_else(|| format!("{name:?} was never answered, and is in doubt"))?;
        if told.is_err() && copies.key.starts_with(WHEELS) {
            return Err(format!("{name:?} failed on {}, which nobody else writes", copies.key));
        }
        *swapped.entry(copies.key).or_default() += u64::from(told.is_ok());
        answered += copies.answered;
        once += u64::from(copies.answered < ANSWERS_MIN);
    }
    if 0 < once {
        return Err(format!("{once} writes were answered only once, which shows nothing"));
    }
    for (key, swaps) in &swapped {
        ends_where_it_must(history, key, *swaps)?;
    }
    let applied: u64 = swapped.values().sum();
    Ok(format!("{} named writes in {answered} answered copies, {applied} applied", names.len()))
}

fn add(copies: &mut Copies<'_>, name: Name, entry: &Entry) -> Result<(), String> {
    let told: Told = match &entry.outcome {
        Outcome::Done { version } => Ok(*version),
        Outcome::Mismatch { version, .. } => Err(*version),
        Outcome::Expired { why } => {
            return Err(format!("a copy of {name:?} on {} found its session forgotten: {why}", entry.key));
        }
        Outcome::NotDone { .. } | Outcome::Unknown { .. } | Outcome::Found { .. } => return Ok(()),
    };
    copies.answered += 1;
    match copies.told.replace(told) {
        Some(before) if before != told => {
            Err(format!("copies of {name:?} on {} have two answers: {before:?} and {told:?}", entry.key))
        }
        _ => Ok(()),
    }
}

fn ends_where_it_must(history: &[Entry], key: &str, swaps: u64) -> Result<(), String> {
    let wanted = match key {
        SHARED => (0 < swaps).then(|| swaps.to_string()),
        _ => wheel_value(swaps),
    };
    let mut reads = 0;
    for read in final_reads(history).filter(|read| read.key == key) {
        let Outcome::Found { value, .. } = &read.outcome else { continue };
        if *value != wanted {
            let node = read.node.unwrap_or(0);
            return Err(format!(
                "{key} is {value:?} at node {node} after {swaps} acknowledged swaps, not {wanted:?}"
            ));
        }
        reads += 1;
    }
    if reads == 0 {
        return Err(format!("{key} was swapped, and no final read looked at it"));
    }
    Ok(())
}

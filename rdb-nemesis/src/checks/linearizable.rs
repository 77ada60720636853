//! Every key's history is linearizable, by the versioned check of `rdb-check`.
//!
//! What was certainly not done is left out, so that it must not be seen. Copies of a named write are one write, which took
//! effect between the first call and the first answer. Stale reads promise less and are looked at by `replicas`.

use super::{Finding, is_switched};
use crate::history::{Call, Entry, Expect, Name, Outcome};
use rdb_check::{Action, Operation, Value, check_versioned};
use std::collections::BTreeMap;

pub(super) fn check(history: &[Entry]) -> Finding {
    // What is switched is linearizable at times: `switched` knows when.
    of(history.iter().filter(|entry| !is_switched(entry)))
}

/// The same of some of a history.
pub(super) fn of<'a>(history: impl Iterator<Item = &'a Entry>) -> Finding {
    let mut keys: BTreeMap<&str, Vec<&Entry>> = BTreeMap::new();
    for entry in history.filter(|entry| entry.call != Call::Stale) {
        keys.entry(&entry.key).or_default().push(entry);
    }
    let mut operations = 0;
    for (key, entries) in &keys {
        let history = operations_of(entries);
        operations += history.len();
        check_versioned(&history).map_err(|why| format!("key {key}: {why}{}", in_doubt(entries)))?;
    }
    Ok(format!("{operations} operations on {} keys", keys.len()))
}

/// A removal leaves no value by which somebody could see that it has happened, so one in doubt counts as not done.
fn in_doubt(entries: &[&Entry]) -> &'static str {
    if entries.iter().any(|entry| entry.call == Call::Delete && entry.is_unknown()) {
        " (a delete of this key stayed in doubt, and may explain it)"
    } else {
        ""
    }
}

/// Values by number: the checker wants no strings.
#[derive(Default)]
struct Values<'a>(BTreeMap<&'a str, Value>);

impl<'a> Values<'a> {
    fn number(&mut self, value: &'a str) -> Value {
        let next = self.0.len() as Value + 1;
        *self.0.entry(value).or_insert(next)
    }

    fn expect(&mut self, expect: &'a Expect) -> rdb_check::Expect {
        match expect {
            Expect::Absent => rdb_check::Expect::Absent,
            Expect::Value(value) => rdb_check::Expect::Value(self.number(value)),
            Expect::Version(version) => rdb_check::Expect::Version(version.0),
        }
    }
}

fn operations_of(entries: &[&Entry]) -> Vec<Operation> {
    let mut values = Values::default();
    let mut operations = Vec::new();
    let mut named: BTreeMap<Name, Vec<&Entry>> = BTreeMap::new();
    for entry in entries {
        match entry.name {
            Some(name) => named.entry(name).or_default().push(entry),
            None => operations.extend(actions(entry, &mut values).into_iter().map(|action| Operation {
                call: entry.call_ns,
                ret: entry.return_ns.filter(|_| !entry.is_unknown()),
                action,
            })),
        }
    }
    for copies in named.values() {
        operations.extend(one_of(copies, &mut values));
    }
    operations
}

/// What copies of one write are together.
fn one_of<'a>(copies: &[&'a Entry], values: &mut Values<'a>) -> Vec<Operation> {
    let is_answered =
        |copy: &&&Entry| matches!(copy.outcome, Outcome::Done { .. } | Outcome::Mismatch { .. });
    let answered = copies.iter().filter(is_answered).min_by_key(|copy| copy.return_ns);
    let Some(told) = answered.or_else(|| copies.iter().find(|copy| copy.is_unknown())) else {
        return Vec::new();
    };
    let call = copies.iter().map(|copy| copy.call_ns).min().unwrap_or(told.call_ns);
    let operation = |action| Operation { call, ret: told.return_ns.filter(|_| !told.is_unknown()), action };
    actions(told, values).into_iter().map(operation).collect()
}

/// What an operation did to its key: nothing, if it was not done.
fn actions<'a>(entry: &'a Entry, values: &mut Values<'a>) -> Vec<Action> {
    let write = |version, values: &mut Values<'a>| match &entry.call {
        Call::Put(value) => vec![Action::Write { value: Some(values.number(value)), version }],
        Call::Delete => vec![Action::Write { value: None, version }],
        Call::Cas(swap) => vec![Action::Swap {
            expect: values.expect(&swap.expect),
            value: Some(values.number(&swap.then)),
            version,
        }],
        Call::Get | Call::Stale => Vec::new(),
    };
    match (&entry.outcome, &entry.call) {
        (Outcome::NotDone { .. } | Outcome::Expired { .. }, _) => Vec::new(),
        (Outcome::Unknown { .. }, _) => write(None, values),
        (Outcome::Done { version }, _) => write(Some(version.0), values),
        (Outcome::Found { value, version }, _) => {
            // A value without a version was written by nobody: version 0 says so.
            let version = version.map(|version| version.0).unwrap_or_default();
            vec![Action::Read { found: value.as_ref().map(|value| (values.number(value), version)) }]
        }
        (Outcome::Mismatch { version, value }, Call::Cas(swap)) => {
            let found = version.map(|version| version.0);
            let mut actions = vec![Action::Refused { expect: values.expect(&swap.expect), found }];
            if let (Some(value), Some(version)) = (value, found) {
                actions.push(Action::Read { found: Some((values.number(value), version)) });
            }
            actions
        }
        (Outcome::Mismatch { .. }, _) => Vec::new(),
    }
}

//! What clients saw is linearizable, key by key; see [`check_versioned`].
//!
//! Writes that were left in doubt count as what became of them in the end: the simulator knows every command that was
//! ever executed, and at the end of a world nothing is under way.

use super::{ExactlyOnce, Violation};
use crate::clients::{Expected, Kind, Outcome, Recorded, value_of};
use rdb_check::{Action, Expect, Operation, check_versioned};
use rdb_core::apply::Answer;
use rdb_core::ids::RegionId;
use rdb_core::version::Version;
use std::collections::BTreeMap;

/// Checks all keys. Returns how many operations were looked at.
pub(crate) fn history_is_linearizable(history: &[Recorded], once: &ExactlyOnce) -> Result<u64, Violation> {
    let mut keys: BTreeMap<(RegionId, &[u8]), Vec<Operation>> = BTreeMap::new();
    for recorded in history {
        for (key, action) in actions(recorded, once) {
            let ret = (!matches!(recorded.outcome, Outcome::InDoubt)).then_some(recorded.ret);
            let operation = Operation { call: recorded.call, ret, action };
            keys.entry((recorded.region, key)).or_default().push(operation);
        }
    }
    let mut checked = 0;
    for ((region, key), operations) in &keys {
        checked += operations.len() as u64;
        check_versioned(operations).map_err(|why| Violation {
            invariant: "linearizable",
            what: format!("region {region} {}: {why}", String::from_utf8_lossy(key)),
        })?;
    }
    Ok(checked)
}

/// The core's version as the checker knows it.
fn seen(version: Version) -> rdb_check::Version {
    rdb_check::Version { era: version.era.0, hlc: version.hlc.0, node: version.node.0 }
}

/// What an operation did to each of its keys.
fn actions<'a>(recorded: &'a Recorded, once: &ExactlyOnce) -> Vec<(&'a [u8], Action)> {
    if let (Kind::Get { key }, Outcome::Found(found)) = (&recorded.kind, &recorded.outcome) {
        return vec![(key, Action::Read { found: found.map(|(version, value)| (value, seen(version))) })];
    }
    if let (Kind::Swap { key, expect, .. }, Outcome::Answered(Answer::Mismatch { version, found })) =
        (&recorded.kind, &recorded.outcome)
    {
        let mut actions =
            vec![(key.as_slice(), Action::Refused { expect: expect.into(), found: version.map(seen) })];
        // The refusal tells the value too.
        if let (Some(version), Some(found)) = (version, found) {
            actions.push((key, Action::Read { found: Some((value_of(found), seen(*version))) }));
        }
        return actions;
    }
    let version = match &recorded.outcome {
        Outcome::Answered(Answer::Done(version)) => Some(*version),
        Outcome::InDoubt => recorded.name.as_ref().and_then(|name| once.version(recorded.region, name)),
        _ => None,
    };
    version.map_or_else(Vec::new, |version| writes(&recorded.kind, version))
}

fn writes(kind: &Kind, version: Version) -> Vec<(&[u8], Action)> {
    let version = Some(seen(version));
    match kind {
        Kind::Put { key, value } => vec![(key, Action::Write { value: Some(*value), version })],
        Kind::Delete { key, .. } => vec![(key, Action::Write { value: None, version })],
        Kind::Swap { key, expect, value } => {
            vec![(key, Action::Swap { expect: expect.into(), value: Some(*value), version })]
        }
        Kind::Batch { keys, value } => {
            keys.iter().map(|key| (key.as_slice(), Action::Write { value: Some(*value), version })).collect()
        }
        Kind::Get { .. } | Kind::Open => Vec::new(),
    }
}

impl From<&Expected> for Expect {
    fn from(expected: &Expected) -> Self {
        match expected {
            Expected::Absent => Expect::Absent,
            Expected::Value(value) => Expect::Value(*value),
            Expected::Version(version) => Expect::Version(seen(*version)),
        }
    }
}

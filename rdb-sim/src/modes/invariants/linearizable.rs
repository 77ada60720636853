//! The history of each key within each strong era is linearizable, beginning with what the era began with.

use crate::invariants::Violation;
use crate::modes::clients::{Expected, Kind, Outcome, Recorded};
use crate::modes::truth::{Key, Truth};
use rdb_check::{Action, Expect, Operation, check_versioned};
use rdb_core::ids::Era;
use rdb_core::switch::Mode;
use rdb_core::version::Version;
use std::collections::BTreeMap;

/// When the base was written: before any client asks for anything.
const BASE: (u64, u64) = (1, 2);

fn seen(version: Version) -> rdb_check::Version {
    rdb_check::Version { era: version.era.0, hlc: version.hlc.0, node: version.node.0 }
}

impl Truth {
    /// Checks all keys of all strong eras. Returns how many operations were looked at.
    pub(in crate::modes) fn strong_eras_are_linearizable(
        &self,
        history: &[Recorded],
    ) -> Result<u64, Violation> {
        let mut keys: BTreeMap<(Era, Key), Vec<Operation>> = BTreeMap::new();
        for recorded in history {
            let ret = (!matches!(recorded.outcome, Outcome::InDoubt)).then_some(recorded.ret);
            for (era, key, action) in self.actions(recorded) {
                let operation = Operation { call: recorded.call, ret, action };
                keys.entry((era, key)).or_default().push(operation);
            }
        }
        let mut checked = 0;
        for ((era, key), operations) in &mut keys {
            checked += operations.len() as u64;
            let base = self.bases.get(era).and_then(|base| base.get(key));
            operations.extend(base.map(|(version, value)| Operation {
                call: BASE.0,
                ret: Some(BASE.1),
                action: Action::Write { value: Some(*value), version: Some(seen(*version)) },
            }));
            check_versioned(operations).map_err(|why| Violation {
                invariant: "strong eras are linearizable",
                what: format!("era {era} {}: {why}", String::from_utf8_lossy(key)),
            })?;
        }
        Ok(checked)
    }

    /// What an operation did to each of its keys, if that was in a strong era.
    fn actions(&self, recorded: &Recorded) -> Vec<(Era, Key, Action)> {
        let version = match (&recorded.kind, &recorded.outcome) {
            (Kind::Read { key, .. } | Kind::ReadSession { key }, Outcome::Found { found, era }) => {
                let found = found.map(|(version, value)| (value, seen(version)));
                return vec![(*era, key.clone(), Action::Read { found })];
            }
            (Kind::Swap { key, expect }, Outcome::Mismatch { version, era }) => {
                let action = Action::Refused { expect: (*expect).into(), found: version.map(seen) };
                return vec![(*era, key.clone(), action)];
            }
            (_, Outcome::Done(version)) => Some(*version),
            (_, Outcome::InDoubt) => self.writes.get(&recorded.op).map(|written| written.version),
            _ => None,
        };
        let Some(version) = version.filter(|version| self.mode_of(version.era) == Mode::Strong) else {
            return Vec::new();
        };
        let written = recorded.kind.writes(recorded.op).into_iter();
        let action = |value| match recorded.kind {
            Kind::Swap { expect, .. } => {
                Action::Swap { expect: expect.into(), value, version: Some(seen(version)) }
            }
            _ => Action::Write { value, version: Some(seen(version)) },
        };
        written.map(|(key, value)| (version.era, key, action(value))).collect()
    }
}

impl From<Expected> for Expect {
    fn from(expected: Expected) -> Self {
        match expected {
            Expected::Absent => Expect::Absent,
            Expected::Version(version) => Expect::Version(seen(version)),
        }
    }
}

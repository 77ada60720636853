//! No acknowledged write is lost, and none happened that its client was told had not.
//!
//! Overwritten values hide a loss from every reader, so some keys are written once, by a swap that expects nothing,
//! and never touched again: all of those that were acknowledged must be there in the end.

use super::{AppliedAlike, ExactlyOnce, Violation, holds};
use crate::clients::{Kind, Outcome, Recorded, value_of};
use rdb_core::apply::Answer;

/// Looks at all operations after the last entry was applied everywhere.
pub(crate) fn acknowledged_writes_are_there(
    history: &[Recorded],
    once: &ExactlyOnce,
    applied: &AppliedAlike,
) -> Result<(), Violation> {
    for recorded in history {
        match (&recorded.outcome, &recorded.name) {
            (Outcome::NotDone, Some(name)) => once.not_done(recorded.region, name)?,
            (Outcome::Answered(Answer::Done(version)), Some(name))
                if !matches!(recorded.kind, Kind::Open) =>
            {
                let executed = once.version(recorded.region, name);
                holds("done is done", executed == Some(*version), || {
                    format!("{recorded:?} was executed as {executed:?}")
                })?;
                element_is_there(recorded, applied)?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn element_is_there(recorded: &Recorded, applied: &AppliedAlike) -> Result<(), Violation> {
    let Kind::Swap { key, value, .. } = &recorded.kind else { return Ok(()) };
    if !key.starts_with(b"set") {
        return Ok(());
    }
    let found = applied.stored(recorded.region).map(|stored| stored.read(key));
    let there = matches!(&found, Some(Ok(Some((_, bytes)))) if value_of(bytes) == *value);
    holds("acknowledged writes are there", there, || format!("{recorded:?}, but {found:?}"))
}

//! Each write is executed at most once, and not at all if its client was told "not done".
//!
//! Clients never try a write again unless they were told that it was not done, or have a session in which the region
//! recognises it. So whatever is executed twice was either called "not done" wrongly, or not recognised.

use super::{Violation, holds};
use crate::machine::Answer;
use rdb_core::apply::{self, Committed};
use rdb_core::command::{Command, Operation, Payload};
use rdb_core::ids::RegionId;
use rdb_core::version::Version;
use std::collections::BTreeMap;

/// What tells a client's write from all others.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Name {
    /// Its place in a session.
    Request { client: u64, sequence: u64 },
    /// A value that is written only by it.
    Value(Vec<u8>),
}

impl Name {
    pub(crate) fn of(command: &Command<'_>) -> Option<Self> {
        if let Some(request) = command.request {
            return Some(Name::Request { client: request.client, sequence: request.sequence });
        }
        let value = match &command.operation {
            Operation::Write(write) | Operation::CompareAndSwap { then: write, .. } => write.value,
            Operation::Batch(writes) => writes.iter().find_map(|write| write.value),
            // Clients here send none of these without a session.
            Operation::OpenSession | Operation::Transaction(_) | Operation::DeleteRange { .. } => None,
        };
        value.map(|value| Name::Value(value.to_vec()))
    }
}

#[derive(Debug, Default)]
pub(crate) struct ExactlyOnce {
    executed: BTreeMap<(RegionId, Name), Version>,
}

impl ExactlyOnce {
    /// The commands of an entry were answered by the state machine.
    pub(crate) fn executed(
        &mut self,
        region: RegionId,
        entry: &Committed,
        answers: &[Answer],
    ) -> Result<(), Violation> {
        let Ok(Payload::Keys { commands, .. }) = Payload::decode(&entry.data) else { return Ok(()) };
        for (command, answer) in commands.zip(answers) {
            let (Ok(command), Answer::Keys(apply::Answer::Done(version))) = (command, answer) else {
                continue;
            };
            // A session may be opened again and again.
            let Some(name) = Name::of(&command).filter(|_| command.operation != Operation::OpenSession)
            else {
                continue;
            };
            let what = format!("{name:?}");
            let first = *self.executed.entry((region, name)).or_insert(*version);
            holds("exactly once", first == *version, || {
                format!("region {region} entry {}: {what} was executed as {first:?} before", entry.index)
            })?;
        }
        Ok(())
    }

    /// The version under which a write was executed, if it was.
    pub(crate) fn version(&self, region: RegionId, name: &Name) -> Option<Version> {
        self.executed.get(&(region, name.clone())).copied()
    }

    /// A client was told that its write is not done.
    pub(crate) fn not_done(&self, region: RegionId, name: &Name) -> Result<(), Violation> {
        let version = self.version(region, name);
        holds("not done is not done", version.is_none(), || {
            format!("region {region}: {name:?} was executed as {version:?}")
        })
    }
}

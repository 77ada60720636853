//! How a transaction is executed.
//!
//! It reads first and writes then: what its gets find must be within a limit, and a transaction past it is to leave no
//! trace.

use super::batch::Batch;
use super::{Answer, Error, Machine, View, matches};
use crate::command::{Stamp, Write};
use crate::range;
use crate::transaction::{Found, OperationResult, Outcome, Transaction, TransactionOperation};
use crate::version::Version;

/// What the gets of one transaction may find, in bytes of values: every replica builds the answer.
///
/// All replicas must draw this line alike: a change of it is a change of the format of entries.
pub const FOUND_BYTES_MAX: usize = 4 << 20;

impl Machine {
    pub(super) fn transact<V: View>(
        &mut self,
        stamp: Stamp,
        transaction: &Transaction<'_>,
        batch: &mut Batch<'_, V>,
    ) -> Result<Answer, Error<V::Error>> {
        let held = holds(transaction, batch)?;
        let operations = if held { &transaction.then } else { &transaction.otherwise };
        let version = self.version_after(stamp);
        let Some(results) = read(operations, version, batch)? else { return Ok(Answer::FoundTooMuch) };
        let writes = results.contains(&OperationResult::Written);
        if writes {
            self.state.highest = version.hlc;
            operations.iter().for_each(|operation| write(operation, version, batch));
        }
        let version = writes.then_some(version);
        Ok(Answer::Transaction(Outcome { held, version, results: Some(results) }))
    }
}

fn holds<V: View>(transaction: &Transaction<'_>, batch: &mut Batch<'_, V>) -> Result<bool, Error<V::Error>> {
    for compare in &transaction.compares {
        let current = batch.get(compare.key)?;
        if !matches(&compare.expect, current.as_ref()) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The operations' results, before any of them is done; `None` if they find more than they may.
fn read<V: View>(
    operations: &[TransactionOperation<'_>],
    version: Version,
    batch: &mut Batch<'_, V>,
) -> Result<Option<Vec<OperationResult>>, Error<V::Error>> {
    let (mut results, mut bytes) = (Vec::with_capacity(operations.len()), 0);
    for (place, operation) in operations.iter().enumerate() {
        let result = match operation {
            TransactionOperation::Get(key) => {
                let own = operations[..place].iter().rev().find_map(|before| left_by(before, key));
                let found = match own {
                    Some(value) => {
                        batch.spend(value.map_or(0, <[u8]>::len));
                        value.map(|value| Found { version, value: value.to_vec() })
                    }
                    None => {
                        batch.get(key)?.and_then(|(version, value)| Some(Found { version, value: value? }))
                    }
                };
                OperationResult::Found(found)
            }
            TransactionOperation::Write(_) | TransactionOperation::DeleteRange { .. } => {
                OperationResult::Written
            }
        };
        bytes += result.value_bytes();
        if FOUND_BYTES_MAX < bytes {
            return Ok(None);
        }
        results.push(result);
    }
    Ok(Some(results))
}

/// What an operation leaves under a key; `None` if it does not touch it.
fn left_by<'a>(operation: &TransactionOperation<'a>, key: &[u8]) -> Option<Option<&'a [u8]>> {
    match operation {
        TransactionOperation::Write(write) => (write.key == key).then_some(write.value),
        TransactionOperation::DeleteRange { from, to } => range::contains(from, to, key).then_some(None),
        TransactionOperation::Get(_) => None,
    }
}

fn write<V: View>(operation: &TransactionOperation<'_>, version: Version, batch: &mut Batch<'_, V>) {
    match operation {
        TransactionOperation::Write(Write { key, value }) => {
            batch.write(&Write { key, value: *value }, version);
        }
        TransactionOperation::DeleteRange { from, to } => batch.remove_range(from, to),
        TransactionOperation::Get(_) => {}
    }
}

//! Transactions and range deletes as they come over the wire, turned into the core's commands once they are known to be
//! within the limits; and what came of a transaction, turned into the wire's words.

use super::request::{from_wire, to_wire, write_delete, write_put};
use super::{limits, status};
use bytes::Bytes;
use rdb_core::command::{Command, Encoded, Expect, Operation, RequestId};
use rdb_core::transaction::{Compare, OperationResult, Outcome, Transaction, TransactionOperation};
use rdb_proto::v1;
use rdb_proto::v1::compare::Expect as WireExpect;
use rdb_proto::v1::transaction_operation::Operation as WireOperation;

pub(super) fn push_transaction(
    out: &mut Encoded,
    wire: &v1::Transaction,
    request: Option<RequestId>,
) -> Result<(), v1::Error> {
    // Counted first: a list that is too long is not even looked at.
    limits::transaction_operations(wire.compares.len() + wire.then.len() + wire.otherwise.len())?;
    let transaction = Transaction {
        compares: wire.compares.iter().map(compare).collect::<Result<_, _>>()?,
        then: wire.then.iter().map(operation).collect::<Result<_, _>>()?,
        otherwise: wire.otherwise.iter().map(operation).collect::<Result<_, _>>()?,
    };
    limits::transaction_bytes(bytes(&transaction))?;
    out.push(&Command { request, operation: Operation::Transaction(transaction) });
    Ok(())
}

pub(super) fn push_delete_range(
    out: &mut Encoded,
    range: &v1::DeleteRange,
    request: Option<RequestId>,
) -> Result<(), v1::Error> {
    limits::range(&range.from, &range.to)?;
    let operation = Operation::DeleteRange { from: &range.from, to: &range.to };
    out.push(&Command { request, operation });
    Ok(())
}

fn compare(wire: &v1::Compare) -> Result<Compare<'_>, v1::Error> {
    limits::key(&wire.key)?;
    let expect = match &wire.expect {
        Some(WireExpect::Absent(_)) => Expect::Absent,
        Some(WireExpect::Present(_)) => Expect::Present,
        Some(WireExpect::Version(version)) => Expect::Version(from_wire(version)),
        Some(WireExpect::Value(value)) => {
            limits::value(value)?;
            Expect::Value(value)
        }
        None => {
            let message = "a compare of the transaction does not say what it expects".to_owned();
            return Err(status::invalid(message));
        }
    };
    Ok(Compare { key: &wire.key, expect })
}

fn operation(wire: &v1::TransactionOperation) -> Result<TransactionOperation<'_>, v1::Error> {
    match &wire.operation {
        Some(WireOperation::Put(put)) => Ok(TransactionOperation::Write(write_put(put)?)),
        Some(WireOperation::Delete(delete)) => Ok(TransactionOperation::Write(write_delete(delete)?)),
        Some(WireOperation::DeleteRange(v1::DeleteRange { from, to })) => {
            limits::range(from, to)?;
            Ok(TransactionOperation::DeleteRange { from, to })
        }
        Some(WireOperation::Get(get)) => {
            limits::key(&get.key)?;
            Ok(TransactionOperation::Get(&get.key))
        }
        None => {
            let message = "an operation of the transaction is not known to this node".to_owned();
            Err(status::unsupported(message, "upgrade the node, or do without"))
        }
    }
}

/// The keys and values of a transaction, together.
fn bytes(transaction: &Transaction<'_>) -> usize {
    let compares = transaction.compares.iter().map(|compare| {
        let Expect::Value(value) = compare.expect else { return compare.key.len() };
        compare.key.len() + value.len()
    });
    let operations = transaction.then.iter().chain(&transaction.otherwise).map(|operation| match operation {
        TransactionOperation::Write(write) => write.key.len() + write.value.map_or(0, <[u8]>::len),
        TransactionOperation::DeleteRange { from, to } => from.len() + to.len(),
        TransactionOperation::Get(key) => key.len(),
    });
    compares.chain(operations).sum()
}

/// What a transaction's caller is told.
pub(super) fn transaction_result(outcome: Outcome) -> v1::TransactionResult {
    let results_forgotten = outcome.results.is_none();
    v1::TransactionResult {
        held: outcome.held,
        version: outcome.version.map(to_wire),
        results: outcome.results.unwrap_or_default().into_iter().map(operation_result).collect(),
        results_forgotten,
    }
}

fn operation_result(result: OperationResult) -> v1::TransactionOperationResult {
    let found = match result {
        OperationResult::Written => None,
        OperationResult::Found(found) => {
            let (version, value) =
                found.map(|found| (to_wire(found.version), Bytes::from(found.value))).unzip();
            Some(v1::Found { value, version, deleted: None })
        }
    };
    v1::TransactionOperationResult { found }
}

//! Transactions: how they are made, and what comes of them.

use crate::values::{Expect, Record, Version};
use bytes::Bytes;
use rdb_proto::v1;
use rdb_proto::v1::compare::Expect as WireExpect;
use rdb_proto::v1::transaction_operation::Operation;

/// Looks at some keys of a namespace and then does one list of operations or another, all at one moment.
///
/// ```
/// use rdb_client::Transaction;
///
/// let take = Transaction::new()
///     .when_value("lock", "free")
///     .then_put("lock", "mine")
///     .then_get("work")
///     .else_get("lock");
/// ```
///
/// If all compares hold, the `then` operations are done, else the `else` operations; in the order in which they were
/// added. Each sees what those before it did. All that is written gets one version.
///
/// At most 128 compares and operations, and 4 MiB of keys and values; what the gets find has at most 4 MiB.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Transaction {
    pub(crate) wire: v1::Transaction,
}

impl Transaction {
    /// One that does nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Only if this is found under the key.
    #[must_use]
    pub fn when(mut self, key: impl Into<Bytes>, expect: Expect) -> Self {
        let expect = match expect {
            Expect::Absent => WireExpect::Absent(v1::Absent {}),
            Expect::Present => WireExpect::Present(v1::Present {}),
            Expect::Value(value) => WireExpect::Value(value),
            Expect::Version(version) => WireExpect::Version(version.into()),
        };
        self.wire.compares.push(v1::Compare { key: key.into(), expect: Some(expect) });
        self
    }

    /// Only if there is no such key.
    #[must_use]
    pub fn when_absent(self, key: impl Into<Bytes>) -> Self {
        self.when(key, Expect::Absent)
    }

    /// Only if there is such a key, whatever its value.
    #[must_use]
    pub fn when_present(self, key: impl Into<Bytes>) -> Self {
        self.when(key, Expect::Present)
    }

    /// Only if the key has this value.
    #[must_use]
    pub fn when_value(self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        self.when(key, Expect::Value(value.into()))
    }

    /// Only if the key's record is of this version: nobody has written it since it was read.
    #[must_use]
    pub fn when_version(self, key: impl Into<Bytes>, version: Version) -> Self {
        self.when(key, Expect::Version(version))
    }

    /// If the compares hold, stores a value.
    #[must_use]
    pub fn then_put(self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        self.then(put(key.into(), value.into()))
    }

    /// If the compares hold, removes a key.
    #[must_use]
    pub fn then_delete(self, key: impl Into<Bytes>) -> Self {
        self.then(delete(key.into()))
    }

    /// If the compares hold, removes the keys from `from` up to, and without, `to`; all from there on where that is empty.
    #[must_use]
    pub fn then_delete_range(self, from: impl Into<Bytes>, to: impl Into<Bytes>) -> Self {
        self.then(delete_range(from.into(), to.into()))
    }

    /// If the compares hold, reads a key.
    #[must_use]
    pub fn then_get(self, key: impl Into<Bytes>) -> Self {
        self.then(get(key.into()))
    }

    /// If a compare fails, stores a value.
    #[must_use]
    pub fn else_put(self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        self.otherwise(put(key.into(), value.into()))
    }

    /// If a compare fails, removes a key.
    #[must_use]
    pub fn else_delete(self, key: impl Into<Bytes>) -> Self {
        self.otherwise(delete(key.into()))
    }

    /// If a compare fails, removes the keys from `from` up to, and without, `to`; all from there on where that is empty.
    #[must_use]
    pub fn else_delete_range(self, from: impl Into<Bytes>, to: impl Into<Bytes>) -> Self {
        self.otherwise(delete_range(from.into(), to.into()))
    }

    /// If a compare fails, reads a key.
    #[must_use]
    pub fn else_get(self, key: impl Into<Bytes>) -> Self {
        self.otherwise(get(key.into()))
    }

    fn then(mut self, operation: Operation) -> Self {
        self.wire.then.push(v1::TransactionOperation { operation: Some(operation) });
        self
    }

    fn otherwise(mut self, operation: Operation) -> Self {
        self.wire.otherwise.push(v1::TransactionOperation { operation: Some(operation) });
        self
    }

    /// What is needed to read the answer, whichever list was done.
    pub(crate) fn shape(&self) -> Shape {
        let gets = |operations: &[v1::TransactionOperation]| operations.iter().map(get_key).collect();
        Shape { then: gets(&self.wire.then), otherwise: gets(&self.wire.otherwise) }
    }
}

fn put(key: Bytes, value: Bytes) -> Operation {
    Operation::Put(v1::Put { key, value })
}

fn delete(key: Bytes) -> Operation {
    Operation::Delete(v1::Delete { key })
}

fn delete_range(from: Bytes, to: Bytes) -> Operation {
    Operation::DeleteRange(v1::DeleteRange { from, to })
}

fn get(key: Bytes) -> Operation {
    Operation::Get(v1::Get { key })
}

fn get_key(operation: &v1::TransactionOperation) -> Option<Bytes> {
    match &operation.operation {
        Some(Operation::Get(get)) => Some(get.key.clone()),
        _ => None,
    }
}

/// What a transaction did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionOutcome {
    /// Whether all compares held, and so whether the `then` operations were done or the `else` operations.
    pub held: bool,
    /// Of all that was written; `None` where nothing was.
    pub version: Option<Version>,
    /// Of each operation that was done, in order.
    ///
    /// `None`, under a session only: an attempt whose answer was lost has done it, as the other fields say, and the cluster
    /// no longer keeps what its gets found. It keeps up to 1 KiB.
    pub results: Option<Vec<OperationResult>>,
    /// The namespace's epoch when it was done.
    pub epoch: u64,
}

/// What one operation of a transaction did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OperationResult {
    /// It wrote or removed.
    Written,
    /// What a get found; `None`: there is no such key.
    Found(Option<Record>),
}

impl TransactionOutcome {
    /// What the gets found, in order.
    pub fn gets(&self) -> impl Iterator<Item = Option<&Record>> {
        self.results.iter().flatten().filter_map(|result| match result {
            OperationResult::Found(found) => Some(found.as_ref()),
            OperationResult::Written => None,
        })
    }
}

/// For each operation of both lists, the key that it gets.
pub(crate) struct Shape {
    then: Vec<Option<Bytes>>,
    otherwise: Vec<Option<Bytes>>,
}

impl Shape {
    /// Reads an answer; `None` if it is none to this transaction.
    pub(crate) fn read(self, answer: v1::TransactionResult, epoch: u64) -> Option<TransactionOutcome> {
        let v1::TransactionResult { held, version, results, results_forgotten } = answer;
        let version = version.map(Version::from);
        let gets = if held { self.then } else { self.otherwise };
        let results = if results_forgotten {
            None
        } else if results.len() == gets.len() {
            Some(gets.into_iter().zip(results).map(read_result).collect::<Option<_>>()?)
        } else {
            return None;
        };
        Some(TransactionOutcome { held, version, results, epoch })
    }
}

fn read_result((key, result): (Option<Bytes>, v1::TransactionOperationResult)) -> Option<OperationResult> {
    match (key, result.found) {
        (None, None) => Some(OperationResult::Written),
        (Some(key), Some(v1::Found { value, version, .. })) => {
            let version = version.map(Version::from).unwrap_or_default();
            Some(OperationResult::Found(value.map(|value| Record { key, value, version })))
        }
        _ => None,
    }
}

/// The first key behind all that begin with `prefix`; empty where there is none.
pub(crate) fn prefix_end(prefix: &[u8]) -> Bytes {
    let kept = prefix.iter().rposition(|byte| *byte != 0xff).map_or(0, |last| last + 1);
    let mut end = prefix[..kept].to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_where_no_key_begins_with_it_any_more() {
        for (prefix, end) in [
            (&b"a"[..], &b"b"[..]),
            (b"user/", b"user0"),
            (b"a\xff", b"b"),
            (b"a\xff\xff", b"b"),
            (b"\xff\xff", b""),
            (b"", b""),
            (b"a\x00", b"a\x01"),
        ] {
            assert_eq!(prefix_end(prefix), end, "{prefix:?}");
        }
    }
}

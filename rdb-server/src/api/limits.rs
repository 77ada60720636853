//! The limits that are published, and what is said to a request that exceeds one.

use super::status::invalid;
use rdb_proto::v1;

/// A key's length.
pub(crate) const KEY_BYTES_MAX: usize = 4096;
/// A value's length.
pub(crate) const VALUE_BYTES_MAX: usize = 1 << 20;
/// The keys and values of one batch, together.
pub(crate) const BATCH_BYTES_MAX: usize = 4 << 20;
/// The operations of one batch.
pub(crate) const BATCH_OPERATIONS_MAX: usize = 1024;
/// The compares and operations of one transaction, together.
pub(crate) const TRANSACTION_OPERATIONS_MAX: usize = 128;
/// The keys and values of one transaction, together.
pub(crate) const TRANSACTION_BYTES_MAX: usize = 4 << 20;
/// The operations of one message in the pipe.
pub(crate) const PIPE_OPERATIONS_MAX: usize = 4096;
/// A message. Room for a full batch, or for many operations in the pipe.
pub(crate) const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// Checks a key.
pub(crate) fn key(key: &[u8]) -> Result<(), v1::Error> {
    match key.len() {
        0 => Err(invalid("the key is empty; a key has 1 to 4096 bytes".to_owned())),
        len if KEY_BYTES_MAX < len => Err(over("the key has", len, "bytes", KEY_BYTES_MAX)),
        _ => Ok(()),
    }
}

/// Checks a value.
pub(crate) fn value(value: &[u8]) -> Result<(), v1::Error> {
    within("the value has", value.len(), "bytes", VALUE_BYTES_MAX)
}

/// Checks a batch's size.
pub(crate) fn batch(operations: usize, bytes: usize) -> Result<(), v1::Error> {
    if operations == 0 {
        return Err(invalid("the batch is empty".to_owned()));
    }
    within("the batch has", operations, "operations", BATCH_OPERATIONS_MAX)?;
    within("the batch has", bytes, "bytes of keys and values", BATCH_BYTES_MAX)
}

/// Checks how many compares and operations a transaction has.
pub(crate) fn transaction_operations(operations: usize) -> Result<(), v1::Error> {
    if operations == 0 {
        return Err(invalid("the transaction is empty".to_owned()));
    }
    within("the transaction has", operations, "compares and operations", TRANSACTION_OPERATIONS_MAX)
}

/// Checks a transaction's size.
pub(crate) fn transaction_bytes(bytes: usize) -> Result<(), v1::Error> {
    within("the transaction has", bytes, "bytes of keys and values", TRANSACTION_BYTES_MAX)
}

/// Checks the ends of a range. An empty one is the namespace's own; two that are the wrong way round are a mistake that
/// should not pass for a range without keys.
pub(crate) fn range(from: &[u8], to: &[u8]) -> Result<(), v1::Error> {
    within("the range's beginning has", from.len(), "bytes", KEY_BYTES_MAX)?;
    within("the range's end has", to.len(), "bytes", KEY_BYTES_MAX)?;
    if rdb_core::range::is_empty(from, to) {
        let (from, to) = (from.escape_ascii(), to.escape_ascii());
        return Err(invalid(format!("the range from '{from}' to '{to}' ends where it begins, or before")));
    }
    Ok(())
}

/// Checks a prefix, which may be empty.
pub(crate) fn prefix(prefix: &[u8]) -> Result<(), v1::Error> {
    within("the prefix has", prefix.len(), "bytes", KEY_BYTES_MAX)
}

/// Checks a message of the pipe.
pub(crate) fn pipe(operations: usize) -> Result<(), v1::Error> {
    within("the message has", operations, "operations", PIPE_OPERATIONS_MAX)
}

/// Checks a message's length, as it is announced.
pub(crate) fn message(bytes: usize) -> Result<(), v1::Error> {
    within("the message has", bytes, "bytes", MESSAGE_BYTES_MAX)
}

fn within(what: &str, is: usize, unit: &str, most: usize) -> Result<(), v1::Error> {
    if is <= most { Ok(()) } else { Err(over(what, is, unit, most)) }
}

fn over(what: &str, is: usize, unit: &str, most: usize) -> v1::Error {
    invalid(format!("{what} {is} {unit}; the limit is {most}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_inclusive_and_named() {
        assert!(key(&[0; KEY_BYTES_MAX]).is_ok());
        let error = key(&[0; KEY_BYTES_MAX + 1]).unwrap_err();
        assert!(error.message.contains("4097") && error.message.contains("4096"), "{}", error.message);
        assert!(key(b"").is_err());
        assert!(value(&vec![0; VALUE_BYTES_MAX]).is_ok() && value(&vec![0; VALUE_BYTES_MAX + 1]).is_err());
        assert!(batch(0, 0).is_err() && batch(1025, 1).is_err() && batch(1, BATCH_BYTES_MAX + 1).is_err());
        assert!(batch(1024, BATCH_BYTES_MAX).is_ok());
        assert!(transaction_operations(128).is_ok() && transaction_operations(0).is_err());
        let error = transaction_operations(129).unwrap_err();
        assert!(error.message.contains("129") && error.message.contains("128"), "{}", error.message);
        assert!(transaction_bytes(TRANSACTION_BYTES_MAX).is_ok());
        assert!(transaction_bytes(TRANSACTION_BYTES_MAX + 1).is_err());
        assert!(range(b"", b"").is_ok() && range(b"a", b"").is_ok() && range(b"a", b"b").is_ok());
        assert!(range(b"a", b"a").is_err() && range(b"b", b"a").is_err());
        let long = [b'k'; KEY_BYTES_MAX + 1];
        assert!(range(&long, b"").is_err() && range(b"", &long).is_err());
    }
}

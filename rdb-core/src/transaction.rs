//! Transactions: what they say, what comes of them, and how both are encoded.
//!
//! ```text
//! transaction  varint count, compares: key, expectation; varint count, then-operations; varint count, else-operations
//! operation    byte: 1 put key value | 2 delete key | 7 delete range from to | 8 get key
//! outcome      byte: 1 = the compares held, 2 = a version follows, 4 = results follow; then version, results
//! results      varint count, each a byte: 0 it wrote | 1 nothing was found | 2 found: version, value
//! ```
//! The expectation and the writes are encoded as those of other commands: see [`crate::command`].

use crate::codec::{Corrupt, Reader, put_bytes, put_varint};
use crate::command::{
    Expect, TAG_DELETE_RANGE, Write, put_expect, put_range, put_version, put_write, read_expect,
    read_version, read_write,
};
use crate::version::Version;

const TAG_GET: u8 = 8;

const HELD: u8 = 1;
const HAS_VERSION: u8 = 2;
const HAS_RESULTS: u8 = 4;

/// Looks at some keys, and does one thing or another.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Transaction<'a> {
    /// What must all be so for `then` to be done.
    pub compares: Vec<Compare<'a>>,
    /// What is done if all compares hold, in order.
    pub then: Vec<TransactionOperation<'a>>,
    /// What is done if one does not, in order.
    pub otherwise: Vec<TransactionOperation<'a>>,
}

impl Transaction<'_> {
    /// Whether this may store a value, whichever of its lists is done.
    pub(crate) fn stores(&self) -> bool {
        let stores = |operation: &TransactionOperation<'_>| matches!(operation, TransactionOperation::Write(write) if write.value.is_some());
        self.then.iter().chain(&self.otherwise).any(stores)
    }
}

/// What a transaction wants to find under a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compare<'a> {
    /// Which key.
    pub key: &'a [u8],
    /// What should be there.
    pub expect: Expect<'a>,
}

/// One step of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionOperation<'a> {
    /// Writes one key.
    Write(Write<'a>),
    /// Removes the keys from `from` up to, and without, `to`; up to the end of the namespace where that is empty.
    DeleteRange {
        /// The first key.
        from: &'a [u8],
        /// The first key that stays.
        to: &'a [u8],
    },
    /// Reads a key, as the steps before this one leave it.
    Get(&'a [u8]),
}

/// What came of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Whether all compares held, and so whether `then` was done or `otherwise`.
    pub held: bool,
    /// Of all that was written; `None` where nothing was.
    pub version: Option<Version>,
    /// Of each operation that was done, in order. `None` in the answer to a retry whose results are no longer kept.
    pub results: Option<Vec<OperationResult>>,
}

/// What came of one operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OperationResult {
    /// It wrote or removed.
    Written,
    /// What a get has found.
    Found(Option<Found>),
}

/// A value that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The write that put it there.
    pub version: Version,
    /// The value.
    pub value: Vec<u8>,
}

pub(crate) fn put_transaction(out: &mut Vec<u8>, transaction: &Transaction<'_>) {
    put_varint(out, transaction.compares.len() as u64);
    for compare in &transaction.compares {
        put_bytes(out, compare.key);
        put_expect(out, &compare.expect);
    }
    for operations in [&transaction.then, &transaction.otherwise] {
        put_varint(out, operations.len() as u64);
        operations.iter().for_each(|operation| put_operation(out, operation));
    }
}

fn put_operation(out: &mut Vec<u8>, operation: &TransactionOperation<'_>) {
    match operation {
        TransactionOperation::Write(write) => put_write(out, write),
        TransactionOperation::DeleteRange { from, to } => put_range(out, from, to),
        TransactionOperation::Get(key) => {
            out.push(TAG_GET);
            put_bytes(out, key);
        }
    }
}

// The lists below grow as they are read: a count may be damaged, and memory for it must not be taken on its word.

pub(crate) fn read_transaction<'a>(reader: &mut Reader<'a>) -> Result<Transaction<'a>, Corrupt> {
    let mut compares = Vec::new();
    for _ in 0..reader.varint()? {
        compares.push(Compare { key: reader.bytes()?, expect: read_expect(reader)? });
    }
    Ok(Transaction { compares, then: read_operations(reader)?, otherwise: read_operations(reader)? })
}

fn read_operations<'a>(reader: &mut Reader<'a>) -> Result<Vec<TransactionOperation<'a>>, Corrupt> {
    let mut operations = Vec::new();
    for _ in 0..reader.varint()? {
        operations.push(match reader.u8()? {
            TAG_DELETE_RANGE => {
                TransactionOperation::DeleteRange { from: reader.bytes()?, to: reader.bytes()? }
            }
            TAG_GET => TransactionOperation::Get(reader.bytes()?),
            tag => TransactionOperation::Write(read_write(reader, tag)?),
        });
    }
    Ok(operations)
}

impl Outcome {
    /// The same as a session keeps it: without its results, where these take more than `bytes_max`.
    pub(crate) fn within(&self, bytes_max: usize) -> Self {
        let results = self.results.as_ref().filter(|_| self.results_bytes() <= bytes_max);
        Self { held: self.held, version: self.version, results: results.cloned() }
    }

    /// What the results take when they are kept.
    fn results_bytes(&self) -> usize {
        self.results.iter().flatten().map(OperationResult::kept_bytes).sum()
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, Corrupt> {
        let flags = reader.u8()?;
        if flags & !(HELD | HAS_VERSION | HAS_RESULTS) != 0 {
            return Err(reader.corrupt("a transaction's outcome has unknown flags"));
        }
        let version = if flags & HAS_VERSION == 0 { None } else { Some(read_version(reader)?) };
        let results = if flags & HAS_RESULTS == 0 { None } else { Some(read_results(reader)?) };
        Ok(Self { held: flags & HELD != 0, version, results })
    }
}

/// An [`Outcome`] as a session keeps it: with encoded results, since a hundred of a byte each would take kilobytes otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeptOutcome {
    held: bool,
    version: Option<Version>,
    results: Option<Box<[u8]>>,
    results_bytes: usize,
}

impl KeptOutcome {
    /// Without the results, where these take more than `bytes_max`.
    pub(crate) fn new(outcome: &Outcome, bytes_max: usize) -> Self {
        let Outcome { held, version, results } = outcome.within(bytes_max);
        let results_bytes = results.iter().flatten().map(OperationResult::kept_bytes).sum();
        let results = results.map(|results| {
            let mut encoded = Vec::new();
            put_varint(&mut encoded, results.len() as u64);
            results.iter().for_each(|result| result.put(&mut encoded));
            encoded.into_boxed_slice()
        });
        Self { held, version, results, results_bytes }
    }

    /// What the results take of a session's room for results.
    pub(crate) fn results_bytes(&self) -> usize {
        self.results_bytes
    }

    /// What the results take encoded.
    pub(crate) fn encoded_bytes(&self) -> usize {
        self.results.as_ref().map_or(0, |results| results.len())
    }

    pub(crate) fn outcome(&self) -> Outcome {
        // They were encoded above. Should they not be readable, to say that they are forgotten is true.
        let read = |results: &[u8]| read_results(&mut Reader::new("a transaction's results", results)).ok();
        Outcome { held: self.held, version: self.version, results: self.results.as_deref().and_then(read) }
    }

    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        let flag = |is, flag| if is { flag } else { 0 };
        out.push(
            flag(self.held, HELD)
                | flag(self.version.is_some(), HAS_VERSION)
                | flag(self.results.is_some(), HAS_RESULTS),
        );
        if let Some(version) = self.version {
            put_version(out, version);
        }
        if let Some(results) = &self.results {
            out.extend_from_slice(results);
        }
    }
}

fn read_results(reader: &mut Reader<'_>) -> Result<Vec<OperationResult>, Corrupt> {
    let mut results = Vec::new();
    for _ in 0..reader.varint()? {
        results.push(match reader.u8()? {
            0 => OperationResult::Written,
            1 => OperationResult::Found(None),
            2 => {
                let version = read_version(reader)?;
                OperationResult::Found(Some(Found { version, value: reader.bytes()?.to_vec() }))
            }
            _ => return Err(reader.corrupt("a result of a transaction is not known")),
        });
    }
    Ok(results)
}

impl OperationResult {
    /// The bytes of the value that was found.
    pub(crate) fn value_bytes(&self) -> usize {
        match self {
            OperationResult::Found(Some(found)) => found.value.len(),
            OperationResult::Found(None) | OperationResult::Written => 0,
        }
    }

    fn kept_bytes(&self) -> usize {
        /// More than a byte, a version and a length ever take.
        const OVERHEAD: usize = 32;
        match self {
            OperationResult::Found(Some(found)) => OVERHEAD + found.value.len(),
            OperationResult::Found(None) | OperationResult::Written => 1,
        }
    }

    fn put(&self, out: &mut Vec<u8>) {
        match self {
            OperationResult::Written => out.push(0),
            OperationResult::Found(None) => out.push(1),
            OperationResult::Found(Some(found)) => {
                out.push(2);
                put_version(out, found.version);
                put_bytes(out, &found.value);
            }
        }
    }
}

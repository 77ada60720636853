//! What a Raft entry says: many commands of one region, packed.
//!
//! ```text
//! entry     empty: the first entry of a new leader
//!           byte 0   format, now 1
//!           byte 1   kind: 1 = commands on keys, 2 = commands on the catalog, 3 = log truncation, 4 = the end, 5 = a marker
//! kind 1    varint era, 8 bytes stamp (hlc), varint node that stamped, then commands up to the end
//! command   byte: 0 = no request id | 1, then 8 bytes client, varint sequence, varint lowest
//!           byte: 1 put     key value
//!                 2 delete  key
//!                 3 compare-and-swap  key, expectation, byte 0 delete | 1 put value
//!                 4 batch   varint count, then puts and deletes
//!                 5 open the session of the request id, whose sequence is the opening's token; 0: it has none
//!                 6 transaction   see crate::transaction
//!                 7 delete range  from, to: keys from the one up to and without the other; `to` empty: to the end
//! expectation  byte: 0 absent | 1 value | 2 version (varint era, 8 bytes hlc, varint node) | 3 present
//! kind 2    what `rdb-pd` makes of it
//! kind 3    varint index: entries up to it may be dropped
//! kind 4    nothing: no command behind it is executed, since the region's namespace is being deleted
//! kind 5    crate::switch::Marker: the region is in another era from here on
//! ```
//! Keys and values carry their length in front. Commands are encoded where the request is read, by many threads; the
//! raft loop only joins the bytes.

use crate::codec::{Corrupt, Reader, put_bytes, put_varint};
use crate::ids::{Era, Index, NodeId};
use crate::switch::Marker;
use crate::transaction::{Transaction, put_transaction, read_transaction};
use crate::version::{Hlc, Version};

const FORMAT: u8 = 1;
const KIND_KEYS: u8 = 1;
const KIND_CATALOG: u8 = 2;
const KIND_TRUNCATE: u8 = 3;
const KIND_CLOSE: u8 = 4;
const KIND_MARKER: u8 = 5;
const TAG_TRANSACTION: u8 = 6;
pub(crate) const TAG_DELETE_RANGE: u8 = 7;

/// Names a write for ever: a retry under the same name is answered from the record and not applied again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestId {
    /// The client's session.
    pub client: u64,
    /// Grows by one with each write of the session.
    pub sequence: u64,
    /// The lowest sequence whose answer the client still waits for. Records below it are dropped.
    pub lowest: u64,
}

/// What a compare-and-swap, or a transaction's compare, wants to find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect<'a> {
    /// No value: the key was never written, or deleted.
    Absent,
    /// This value.
    Value(&'a [u8]),
    /// The record that this version put there.
    Version(Version),
    /// Some value, whichever.
    Present,
}

/// A write to one key; `None` deletes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Write<'a> {
    /// Which key.
    pub key: &'a [u8],
    /// What to store there.
    pub value: Option<&'a [u8]>,
}

/// What a command does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation<'a> {
    /// Writes one key, whatever is there.
    Write(Write<'a>),
    /// Writes one key if it holds what is expected.
    CompareAndSwap {
        /// What must be found for the write to happen.
        expect: Expect<'a>,
        /// The write.
        then: Write<'a>,
    },
    /// Writes all of these, in order, under one version.
    Batch(Vec<Write<'a>>),
    /// Opens the session that the request id names. Its sequence is a token by which the opening is known when it comes
    /// again; 0: it has none.
    OpenSession,
    /// Looks at some keys, and does one list of things or another.
    Transaction(Transaction<'a>),
    /// Removes the keys from `from` up to, and without, `to`; up to the end of the namespace where that is empty.
    DeleteRange {
        /// The first key.
        from: &'a [u8],
        /// The first key that stays.
        to: &'a [u8],
    },
}

impl Operation<'_> {
    /// Whether this may store a value. A session counts as none: it is small, and removing needs one, too.
    fn stores(&self) -> bool {
        match self {
            Operation::Write(write) | Operation::CompareAndSwap { then: write, .. } => write.value.is_some(),
            Operation::Batch(writes) => writes.iter().any(|write| write.value.is_some()),
            Operation::Transaction(transaction) => transaction.stores(),
            Operation::OpenSession | Operation::DeleteRange { .. } => false,
        }
    }
}

/// One command: an operation, and the name of the request where there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command<'a> {
    /// For exactly-once; `None` for requests that are not to be remembered.
    pub request: Option<RequestId>,
    /// What to do.
    pub operation: Operation<'a>,
}

/// Commands ready to be joined into an entry.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Encoded {
    /// The commands' bytes, one after the other.
    pub bytes: Vec<u8>,
    /// How many commands they are.
    pub count: usize,
    /// Whether one of them stores something. The others only remove, and are let through where a disk is nearly full.
    pub stores: bool,
    /// Whether one of them looks before it writes, or removes a range: what only one order of all writes can give.
    pub strong_only: bool,
    /// Whether one of them has a name, by which it is done once and no more: strong mode alone keeps track of those.
    pub named: bool,
}

impl Encoded {
    /// Appends the commands of `other`.
    pub fn append(&mut self, other: &Encoded) {
        self.bytes.extend_from_slice(&other.bytes);
        self.count += other.count;
        self.stores |= other.stores;
        self.strong_only |= other.strong_only;
        self.named |= other.named;
    }

    /// Appends `command`.
    pub fn push(&mut self, command: &Command<'_>) {
        self.count += 1;
        self.stores |= command.operation.stores();
        self.named |= command.request.is_some();
        self.strong_only |= !matches!(command.operation, Operation::Write(_) | Operation::Batch(_));
        let out = &mut self.bytes;
        match command.request {
            None => out.push(0),
            Some(request) => {
                out.push(1);
                out.extend_from_slice(&request.client.to_be_bytes());
                put_varint(out, request.sequence);
                put_varint(out, request.lowest);
            }
        }
        match &command.operation {
            Operation::Write(write) => put_write(out, write),
            Operation::CompareAndSwap { expect, then } => put_compare_and_swap(out, expect, then),
            Operation::Batch(writes) => {
                out.push(4);
                put_varint(out, writes.len() as u64);
                for write in writes {
                    put_write(out, write);
                }
            }
            Operation::OpenSession => out.push(5),
            Operation::Transaction(transaction) => {
                out.push(TAG_TRANSACTION);
                put_transaction(out, transaction);
            }
            Operation::DeleteRange { from, to } => put_range(out, from, to),
        }
    }
}

impl From<&Command<'_>> for Encoded {
    fn from(command: &Command<'_>) -> Self {
        let mut encoded = Encoded::default();
        encoded.push(command);
        encoded
    }
}

pub(crate) fn put_write(out: &mut Vec<u8>, write: &Write<'_>) {
    match write.value {
        Some(value) => {
            out.push(1);
            put_bytes(out, write.key);
            put_bytes(out, value);
        }
        None => {
            out.push(2);
            put_bytes(out, write.key);
        }
    }
}

fn put_compare_and_swap(out: &mut Vec<u8>, expect: &Expect<'_>, then: &Write<'_>) {
    out.push(3);
    put_bytes(out, then.key);
    put_expect(out, expect);
    match then.value {
        None => out.push(0),
        Some(value) => {
            out.push(1);
            put_bytes(out, value);
        }
    }
}

pub(crate) fn put_expect(out: &mut Vec<u8>, expect: &Expect<'_>) {
    match expect {
        Expect::Absent => out.push(0),
        Expect::Value(value) => {
            out.push(1);
            put_bytes(out, value);
        }
        Expect::Version(version) => {
            out.push(2);
            put_version(out, *version);
        }
        Expect::Present => out.push(3),
    }
}

pub(crate) fn put_range(out: &mut Vec<u8>, from: &[u8], to: &[u8]) {
    out.push(TAG_DELETE_RANGE);
    put_bytes(out, from);
    put_bytes(out, to);
}

/// Appends a version.
pub fn put_version(out: &mut Vec<u8>, version: Version) {
    put_varint(out, u64::from(version.era.0));
    out.extend_from_slice(&version.hlc.0.to_be_bytes());
    put_varint(out, version.node.0);
}

/// Reads what [`put_version`] wrote.
///
/// # Errors
/// The bytes end too early or hold too large a number.
pub fn read_version(reader: &mut Reader<'_>) -> Result<Version, Corrupt> {
    Ok(Version { era: Era(reader.varint32()?), hlc: Hlc(reader.u64()?), node: NodeId(reader.varint()?) })
}

/// Who stamped an entry and under which rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// The era that the leader had installed.
    pub era: Era,
    /// The leader's clock when it proposed.
    pub hlc: Hlc,
    /// The leader.
    pub node: NodeId,
}

/// What a committed entry says.
#[derive(Debug, Clone)]
pub enum Payload<'a> {
    /// A new leader's first entry.
    Empty,
    /// Commands on keys.
    Keys {
        /// Who stamped them.
        stamp: Stamp,
        /// The commands, still encoded.
        commands: Commands<'a>,
    },
    /// Commands on the catalog, for `rdb-pd`.
    Catalog(&'a [u8]),
    /// Entries up to this index may be dropped: every member has them.
    Truncate(Index),
    /// The region's namespace is being deleted: no command after this one is executed.
    Close,
    /// The region is put into another era, if it is in the one before.
    Marker(Marker),
}

/// Starts an entry of commands on keys; the commands' bytes follow.
pub fn begin_keys(stamp: Stamp) -> Vec<u8> {
    let mut out = vec![FORMAT, KIND_KEYS];
    put_varint(&mut out, u64::from(stamp.era.0));
    out.extend_from_slice(&stamp.hlc.0.to_be_bytes());
    put_varint(&mut out, stamp.node.0);
    out
}

/// Starts an entry of commands on the catalog; the commands' bytes follow.
pub fn begin_catalog() -> Vec<u8> {
    vec![FORMAT, KIND_CATALOG]
}

/// An entry that lets every member drop its log up to `index`.
pub fn truncate(index: Index) -> Vec<u8> {
    let mut out = vec![FORMAT, KIND_TRUNCATE];
    put_varint(&mut out, index);
    out
}

/// The entry that closes a region.
pub fn close() -> Vec<u8> {
    vec![FORMAT, KIND_CLOSE]
}

/// The entry that puts a region into another era.
pub fn marker(marker: &Marker) -> Vec<u8> {
    let mut out = vec![FORMAT, KIND_MARKER];
    out.extend_from_slice(&marker.encode());
    out
}

/// Whether an entry closes its region.
pub fn is_close(data: &[u8]) -> bool {
    data == [FORMAT, KIND_CLOSE]
}

/// Whether an entry may be a marker, from its first bytes.
pub fn is_marker(data: &[u8]) -> bool {
    data.starts_with(&[FORMAT, KIND_MARKER])
}

impl<'a> Payload<'a> {
    /// Reads an entry's data.
    ///
    /// # Errors
    /// The bytes are damaged, or a later FlareDB wrote them.
    pub fn decode(data: &'a [u8]) -> Result<Self, Corrupt> {
        if data.is_empty() {
            return Ok(Payload::Empty);
        }
        let mut reader = Reader::new("a log entry", data);
        if reader.u8()? != FORMAT {
            return Err(reader.corrupt("its format is not known to this version of FlareDB"));
        }
        match reader.u8()? {
            KIND_KEYS => {
                let stamp = Stamp {
                    era: Era(reader.varint32()?),
                    hlc: Hlc(reader.u64()?),
                    node: NodeId(reader.varint()?),
                };
                Ok(Payload::Keys { stamp, commands: Commands { reader } })
            }
            KIND_CATALOG => Ok(Payload::Catalog(reader.rest())),
            KIND_TRUNCATE => {
                let index = reader.varint()?;
                reader.finish()?;
                Ok(Payload::Truncate(index))
            }
            KIND_CLOSE => {
                reader.finish()?;
                Ok(Payload::Close)
            }
            KIND_MARKER => Ok(Payload::Marker(Marker::decode(reader.rest())?)),
            _ => Err(reader.corrupt("its kind is not known to this version of FlareDB")),
        }
    }
}

/// The commands of one entry, decoded one at a time.
#[derive(Debug, Clone)]
pub struct Commands<'a> {
    reader: Reader<'a>,
}

impl<'a> Commands<'a> {
    /// Reads commands that are not inside an entry.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { reader: Reader::new("a command", bytes) }
    }

    fn command(&mut self) -> Result<Command<'a>, Corrupt> {
        let reader = &mut self.reader;
        let request = match reader.u8()? {
            0 => None,
            1 => Some(RequestId {
                client: reader.u64()?,
                sequence: reader.varint()?,
                lowest: reader.varint()?,
            }),
            _ => return Err(reader.corrupt("a command's start is not known")),
        };
        let tag = reader.u8()?;
        let operation = match tag {
            1 | 2 => Operation::Write(read_write(reader, tag)?),
            3 => read_compare_and_swap(reader)?,
            4 => {
                let count = reader.varint()?;
                let mut writes = Vec::new();
                for _ in 0..count {
                    let tag = reader.u8()?;
                    writes.push(read_write(reader, tag)?);
                }
                Operation::Batch(writes)
            }
            5 => Operation::OpenSession,
            TAG_TRANSACTION => Operation::Transaction(read_transaction(reader)?),
            TAG_DELETE_RANGE => Operation::DeleteRange { from: reader.bytes()?, to: reader.bytes()? },
            _ => return Err(reader.corrupt("a command is not known to this version of FlareDB")),
        };
        Ok(Command { request, operation })
    }
}

impl<'a> Iterator for Commands<'a> {
    type Item = Result<Command<'a>, Corrupt>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.reader.is_empty() {
            return None;
        }
        let command = self.command();
        if command.is_err() {
            self.reader = Reader::new("a command", &[]);
        }
        Some(command)
    }
}

pub(crate) fn read_write<'a>(reader: &mut Reader<'a>, tag: u8) -> Result<Write<'a>, Corrupt> {
    let key = reader.bytes()?;
    match tag {
        1 => Ok(Write { key, value: Some(reader.bytes()?) }),
        2 => Ok(Write { key, value: None }),
        _ => Err(reader.corrupt("a write is neither a put nor a delete")),
    }
}

fn read_compare_and_swap<'a>(reader: &mut Reader<'a>) -> Result<Operation<'a>, Corrupt> {
    let key = reader.bytes()?;
    let expect = read_expect(reader)?;
    let value = match reader.u8()? {
        0 => None,
        1 => Some(reader.bytes()?),
        _ => return Err(reader.corrupt("a swap is neither a put nor a delete")),
    };
    Ok(Operation::CompareAndSwap { expect, then: Write { key, value } })
}

pub(crate) fn read_expect<'a>(reader: &mut Reader<'a>) -> Result<Expect<'a>, Corrupt> {
    match reader.u8()? {
        0 => Ok(Expect::Absent),
        1 => Ok(Expect::Value(reader.bytes()?)),
        2 => Ok(Expect::Version(read_version(reader)?)),
        3 => Ok(Expect::Present),
        _ => Err(reader.corrupt("a comparison is not known")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transaction::{Compare, TransactionOperation};
    use proptest::prelude::*;

    fn commands() -> Vec<Command<'static>> {
        let write = Write { key: b"k", value: Some(b"v") };
        let version = Version { era: Era(3), hlc: Hlc(99), node: NodeId(2) };
        let request = Some(RequestId { client: 7, sequence: 300, lowest: 299 });
        vec![
            Command { request: None, operation: Operation::Write(write) },
            Command { request, operation: Operation::Write(Write { key: b"gone", value: None }) },
            Command { request, operation: Operation::CompareAndSwap { expect: Expect::Absent, then: write } },
            Command {
                request: None,
                operation: Operation::CompareAndSwap { expect: Expect::Value(b"old"), then: write },
            },
            Command {
                request: None,
                operation: Operation::CompareAndSwap {
                    expect: Expect::Version(version),
                    then: Write { key: b"k", value: None },
                },
            },
            Command {
                request: None,
                operation: Operation::Batch(vec![write, Write { key: b"", value: None }]),
            },
            Command { request, operation: Operation::OpenSession },
            Command {
                request: None,
                operation: Operation::CompareAndSwap { expect: Expect::Present, then: write },
            },
            Command { request, operation: Operation::DeleteRange { from: b"a", to: b"" } },
            Command { request, operation: Operation::Transaction(transaction(write, version)) },
            Command { request: None, operation: Operation::Transaction(Transaction::default()) },
        ]
    }

    fn transaction(write: Write<'static>, version: Version) -> Transaction<'static> {
        let compare = |expect| Compare { key: b"k", expect };
        let expects = [Expect::Absent, Expect::Value(b"old"), Expect::Version(version), Expect::Present];
        Transaction {
            compares: expects.into_iter().map(compare).collect(),
            then: vec![
                TransactionOperation::Write(write),
                TransactionOperation::Write(Write { key: b"gone", value: None }),
                TransactionOperation::DeleteRange { from: b"a", to: b"b" },
                TransactionOperation::Get(b"k"),
            ],
            otherwise: vec![TransactionOperation::Get(b"other")],
        }
    }

    #[test]
    fn commands_come_back() {
        let mut encoded = Encoded::default();
        commands().iter().for_each(|command| encoded.push(command));
        let stamp = Stamp { era: Era(1), hlc: Hlc(5), node: NodeId(3) };
        let mut entry = begin_keys(stamp);
        entry.extend_from_slice(&encoded.bytes);
        let Ok(Payload::Keys { stamp: read, commands: decoded }) = Payload::decode(&entry) else {
            panic!("not commands on keys");
        };
        assert_eq!(read, stamp);
        assert_eq!(decoded.collect::<Result<Vec<_>, _>>().unwrap(), commands());
        assert_eq!(encoded.count, commands().len());
    }

    #[test]
    fn what_only_removes_stores_nothing() {
        use crate::transaction::TransactionOperation;
        let remove = Write { key: b"k", value: None };
        let put = Write { key: b"k", value: Some(b"") };
        let transaction = |then: Vec<_>, otherwise| {
            Operation::Transaction(Transaction { compares: Vec::new(), then, otherwise })
        };
        let range = TransactionOperation::DeleteRange { from: b"", to: b"" };
        let (get, remove_one) = (TransactionOperation::Get(b"k"), TransactionOperation::Write(remove));
        let stores = |operation| Encoded::from(&Command { request: None, operation }).stores;
        for removes in [
            Operation::Write(remove),
            Operation::CompareAndSwap { expect: Expect::Value(b"v"), then: remove },
            Operation::Batch(vec![remove, remove]),
            Operation::DeleteRange { from: b"", to: b"" },
            Operation::OpenSession,
            transaction(vec![remove_one, get], vec![range]),
        ] {
            assert!(!stores(removes.clone()), "{removes:?}");
        }
        for puts in [
            Operation::Write(put),
            Operation::CompareAndSwap { expect: Expect::Absent, then: put },
            Operation::Batch(vec![remove, put, remove]),
            transaction(vec![TransactionOperation::Write(put)], vec![]),
            transaction(vec![get], vec![TransactionOperation::Write(put)]),
        ] {
            assert!(stores(puts.clone()), "{puts:?}");
        }
        let mut both = Encoded::from(&Command { request: None, operation: Operation::Write(remove) });
        both.append(&Encoded::from(&Command { request: None, operation: Operation::Write(put) }));
        assert!(both.stores && both.count == 2);
    }

    #[test]
    fn a_cut_entry_is_refused_and_never_a_panic() {
        let mut encoded = Encoded::default();
        commands().iter().for_each(|command| encoded.push(command));
        for cut in 0..encoded.bytes.len() {
            let read: Vec<_> = Commands::new(&encoded.bytes[..cut]).collect();
            assert!(read.len() <= commands().len());
        }
    }

    /// A count is read long before what it counts: the list must grow with what is there, and not with the count.
    #[test]
    fn a_count_that_nothing_follows_is_refused() {
        let mut count = Vec::new();
        put_varint(&mut count, u64::MAX);
        let lists: [&[u8]; 4] =
            [&[0, 4], &[0, TAG_TRANSACTION], &[0, TAG_TRANSACTION, 0], &[0, TAG_TRANSACTION, 0, 0]];
        for list in lists {
            let bytes = [list, &count].concat();
            let read: Vec<_> = Commands::new(&bytes).collect();
            assert!(matches!(read[..], [Err(_)]), "{read:?}");
        }
    }

    proptest! {
        /// Any bytes seldom begin like a command: damage to real ones gets further into the decoder.
        #[test]
        fn damaged_commands_are_read_or_refused(place: prop::sample::Index, byte: u8) {
            let mut encoded = Encoded::default();
            commands().iter().for_each(|command| encoded.push(command));
            let place = place.index(encoded.bytes.len());
            encoded.bytes[place] = byte;
            assert!(Commands::new(&encoded.bytes).count() <= encoded.bytes.len());
        }

        #[test]
        fn any_transaction_is_read_or_refused(bytes: Vec<u8>) {
            let bytes = [&[0, TAG_TRANSACTION][..], &bytes].concat();
            assert!(Commands::new(&bytes).count() <= bytes.len());
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            if let Ok(Payload::Keys { commands, .. }) = Payload::decode(&bytes) {
                for command in commands {
                    let _ = command;
                }
            }
        }
    }
}

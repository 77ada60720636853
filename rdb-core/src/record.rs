//! A stored record: a value or a deletion, with the version that put it there.
//!
//! ```text
//! byte 0      format, now 1
//! byte 1      flags: 1 = tombstone, 2 = written in eventual mode; a flag that the reader does not know makes it refuse
//!             the record
//! varint      era
//! 8 bytes     hlc, highest byte first
//! varint      node
//! if flag 2   varint incarnation of the node, varint seq
//! rest        the value; nothing in a tombstone
//! ```
//! What strong mode writes is as it always was. Flag 2 came with eventual mode, and names the write in its origin's log.

use crate::codec::{Corrupt, Reader, put_varint};
use crate::eventual::vector::{Origin, WriteId};
use crate::ids::{Era, Incarnation, NodeId};
use crate::version::{Hlc, Version};

const FORMAT: u8 = 1;
const TOMBSTONE: u8 = 1;
const EVENTUAL: u8 = 2;

/// A record as it is read, borrowing its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// The write that this record is.
    pub version: Version,
    /// Which write of its era's origin logs that was; `None` for a write of a strong era. The node is the version's.
    pub id: Option<WriteId>,
    /// The value; `None` is a deletion that is remembered.
    pub value: Option<&'a [u8]>,
}

/// Encodes a record of a strong era.
pub fn encode(version: Version, value: Option<&[u8]>) -> Vec<u8> {
    Record { version, id: None, value }.encode()
}

impl Record<'_> {
    /// As it is stored.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(32 + self.value.map_or(0, <[u8]>::len));
        out.push(FORMAT);
        let tombstone = if self.value.is_some() { 0 } else { TOMBSTONE };
        out.push(tombstone | if self.id.is_some() { EVENTUAL } else { 0 });
        put_varint(&mut out, u64::from(self.version.era.0));
        out.extend_from_slice(&self.version.hlc.0.to_be_bytes());
        put_varint(&mut out, self.version.node.0);
        if let Some(id) = self.id {
            put_varint(&mut out, id.origin.incarnation.0);
            put_varint(&mut out, id.seq);
        }
        out.extend_from_slice(self.value.unwrap_or_default());
        out
    }
}

/// Reads a record.
///
/// # Errors
/// The bytes are damaged, or a later FlareDB wrote them.
pub fn decode(bytes: &[u8]) -> Result<Record<'_>, Corrupt> {
    let mut reader = Reader::new("a record", bytes);
    if reader.u8()? != FORMAT {
        return Err(reader.corrupt("its format is not known to this version of FlareDB"));
    }
    let flags = reader.u8()?;
    if flags & !(TOMBSTONE | EVENTUAL) != 0 {
        return Err(reader.corrupt("it has flags not known to this version of FlareDB"));
    }
    let era = Era(reader.varint32()?);
    let hlc = Hlc(reader.u64()?);
    let node = NodeId(reader.varint()?);
    let version = Version { era, hlc, node };
    let id = match flags & EVENTUAL {
        0 => None,
        _ => {
            let origin = Origin { node, incarnation: Incarnation(reader.varint()?) };
            Some(WriteId { origin, seq: reader.varint()? })
        }
    };
    if flags & TOMBSTONE == 0 {
        return Ok(Record { version, id, value: Some(reader.rest()) });
    }
    reader.finish()?;
    Ok(Record { version, id, value: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn records_come_back(era: u32, hlc: u64, node: u64, written: Option<(u64, u64)>, value: Option<Vec<u8>>) {
            let node = NodeId(node);
            let version = Version { era: Era(era), hlc: Hlc(hlc), node };
            let id = written.map(|(incarnation, seq)| {
                WriteId { origin: Origin { node, incarnation: Incarnation(incarnation) }, seq }
            });
            let record = Record { version, id, value: value.as_deref() };
            let bytes = record.encode();
            prop_assert_eq!(decode(&bytes).unwrap(), record);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = decode(&bytes);
        }
    }

    /// Data directories hold such records, and will for as long as nobody writes those keys again.
    #[test]
    fn records_of_strong_mode_are_as_they_always_were() {
        let version = Version { era: Era(2), hlc: Hlc(0x0102_0304_0506_0708), node: NodeId(3) };
        let put = [&[1, 0, 2, 1, 2, 3, 4, 5, 6, 7, 8, 3], &b"value"[..]].concat();
        assert_eq!(encode(version, Some(b"value")), put);
        assert_eq!(decode(&put).unwrap(), Record { version, id: None, value: Some(b"value") });
        assert_eq!(encode(version, None), [1, 1, 2, 1, 2, 3, 4, 5, 6, 7, 8, 3]);
        assert!(decode(&[1, 4, 2, 1, 2, 3, 4, 5, 6, 7, 8, 3]).is_err(), "a flag of a later FlareDB");
    }
}

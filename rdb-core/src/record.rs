//! A stored record: a value or a deletion, with the version that put it there.
//!
//! ```text
//! byte 0      format, now 1
//! byte 1      flags: 1 = tombstone; a flag that the reader does not know makes it refuse the record
//! varint      era
//! 8 bytes     hlc, highest byte first
//! varint      node
//! rest        the value; nothing in a tombstone
//! ```

use crate::codec::{Corrupt, Reader, put_varint};
use crate::ids::{Era, NodeId};
use crate::version::{Hlc, Version};

const FORMAT: u8 = 1;
const TOMBSTONE: u8 = 1;

/// A record as it is read, borrowing its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// The write that this record is.
    pub version: Version,
    /// The value; `None` is a deletion that is remembered.
    pub value: Option<&'a [u8]>,
}

/// Encodes a record.
pub fn encode(version: Version, value: Option<&[u8]>) -> Vec<u8> {
    let mut out = Vec::with_capacity(24 + value.map_or(0, <[u8]>::len));
    out.push(FORMAT);
    out.push(if value.is_some() { 0 } else { TOMBSTONE });
    put_varint(&mut out, u64::from(version.era.0));
    out.extend_from_slice(&version.hlc.0.to_be_bytes());
    put_varint(&mut out, version.node.0);
    out.extend_from_slice(value.unwrap_or_default());
    out
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
    if flags & !TOMBSTONE != 0 {
        return Err(reader.corrupt("it has flags not known to this version of FlareDB"));
    }
    let era = Era(reader.varint32()?);
    let hlc = Hlc(reader.u64()?);
    let node = NodeId(reader.varint()?);
    let version = Version { era, hlc, node };
    if flags & TOMBSTONE == 0 {
        return Ok(Record { version, value: Some(reader.rest()) });
    }
    reader.finish()?;
    Ok(Record { version, value: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn records_come_back(era: u32, hlc: u64, node: u64, value: Option<Vec<u8>>) {
            let version = Version { era: Era(era), hlc: Hlc(hlc), node: NodeId(node) };
            let bytes = encode(version, value.as_deref());
            prop_assert_eq!(decode(&bytes).unwrap(), Record { version, value: value.as_deref() });
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = decode(&bytes);
        }
    }
}

//! What goes in and what comes out.

use bytes::Bytes;
use rdb_proto::v1;
use std::fmt;
use std::str::FromStr;

/// How a namespace keeps its replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Linearizable, through Raft.
    #[default]
    Strong,
    /// Every replica accepts writes, the highest version wins.
    Eventual,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::Strong => "strong",
            Mode::Eventual => "eventual",
        })
    }
}

impl From<v1::Mode> for Mode {
    fn from(mode: v1::Mode) -> Self {
        match mode {
            v1::Mode::Eventual => Mode::Eventual,
            v1::Mode::Strong | v1::Mode::Unspecified => Mode::Strong,
        }
    }
}

impl From<Mode> for v1::Mode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Strong => v1::Mode::Strong,
            Mode::Eventual => v1::Mode::Eventual,
        }
    }
}

/// The order of writes, unique per record. Written `era.hlc.node`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Version {
    /// How many switches of mode the namespace has completed, plus one.
    pub era: u32,
    /// 48 bits of Unix milliseconds, 16 bits of counter.
    pub hlc: u64,
    /// The node that stamped it.
    pub node: u64,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.era, self.hlc, self.node)
    }
}

/// The text is not a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a version is era.hlc.node, as in 1.116281047842816.2")]
pub struct ParseVersionError;

impl FromStr for Version {
    type Err = ParseVersionError;

    fn from_str(text: &str) -> Result<Self, ParseVersionError> {
        let mut parts = text.split('.');
        let mut part = || parts.next().ok_or(ParseVersionError);
        let version = Version {
            era: part()?.parse().map_err(|_| ParseVersionError)?,
            hlc: part()?.parse().map_err(|_| ParseVersionError)?,
            node: part()?.parse().map_err(|_| ParseVersionError)?,
        };
        if parts.next().is_some() { Err(ParseVersionError) } else { Ok(version) }
    }
}

impl From<v1::Version> for Version {
    fn from(version: v1::Version) -> Self {
        Self { era: version.era, hlc: version.hlc, node: version.node }
    }
}

impl From<Version> for v1::Version {
    fn from(version: Version) -> Self {
        Self { era: version.era, hlc: version.hlc, node: version.node }
    }
}

/// A key's stored value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The key.
    pub key: Bytes,
    /// Its value.
    pub value: Bytes,
    /// When it was written, in the order of writes.
    pub version: Version,
}

/// A write was applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Of the new record, or of the deletion.
    pub version: Version,
    /// The namespace's epoch when it was acknowledged.
    pub epoch: u64,
}

/// What a compare-and-swap, or a transaction's compare, expects to find.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    /// No such key.
    Absent,
    /// This value.
    Value(Bytes),
    /// The record of this version.
    Version(Version),
    /// Some value, whichever.
    Present,
}

/// What a compare-and-swap did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CasOutcome {
    /// The record was as expected and is now of this version.
    Swapped(Version),
    /// It was not, and nothing was changed.
    Mismatch {
        /// Of the record found, or of its deletion where one is remembered.
        version: Option<Version>,
        /// The value found; `None` where there is no such key.
        found: Option<Bytes>,
    },
}

/// One write of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Stores the value.
    Put(Bytes, Bytes),
    /// Removes the key.
    Delete(Bytes),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_read_as_they_are_written() {
        let version = Version { era: 3, hlc: u64::MAX, node: 9 };
        assert_eq!(version.to_string().parse(), Ok(version));
        for wrong in ["", "1", "1.2", "1.2.3.4", "1.2.x", "-1.2.3"] {
            assert_eq!(wrong.parse::<Version>(), Err(ParseVersionError), "{wrong}");
        }
    }
}

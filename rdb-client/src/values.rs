//! What goes in and what comes out.

use bytes::Bytes;
use rdb_proto::v1;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

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

/// How a read is to be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Consistency {
    /// The default of the namespace's mode: linearizable, or, in eventual mode, local.
    #[default]
    Default,
    /// Sees every write that was acknowledged before the read began. Eventual namespaces refuse it.
    Linearizable,
    /// The same by the leader's clock, without a round to its followers, where the nodes are told to serve it so.
    Lease,
    /// What the asked node has. With a limit, data that is older or of unknown age is not good enough, and the read is
    /// linearizable instead.
    Stale {
        /// How old it may be.
        max_age: Option<Duration>,
    },
    /// What the asked node has, in either mode.
    Local,
    /// In eventual mode: what the asked node has, once that is no less than this session has been shown. Linearizable in
    /// strong mode.
    Session,
    /// In eventual mode: the newest record that a majority of the members has; keys alone are read so, and scans are not.
    /// Linearizable in strong mode.
    Quorum,
}

/// How many members of an eventual namespace must have a write, synced and shown to whoever reads there, before it counts as done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Acks {
    /// The namespace's default, which is one.
    #[default]
    Default,
    /// The node that was asked.
    One,
    /// A majority, as every write of a strong namespace.
    Quorum,
    /// All of them. Strong namespaces refuse it.
    All,
}

impl From<Acks> for v1::Acks {
    fn from(acks: Acks) -> Self {
        match acks {
            Acks::Default => v1::Acks::Unspecified,
            Acks::One => v1::Acks::One,
            Acks::Quorum => v1::Acks::Quorum,
            Acks::All => v1::Acks::All,
        }
    }
}

impl Consistency {
    /// As requests say it.
    pub(crate) fn to_wire(self) -> (v1::Consistency, u32) {
        match self {
            Consistency::Default => (v1::Consistency::Unspecified, 0),
            Consistency::Linearizable => (v1::Consistency::Linearizable, 0),
            Consistency::Local => (v1::Consistency::Local, 0),
            Consistency::Session => (v1::Consistency::Session, 0),
            Consistency::Quorum => (v1::Consistency::Quorum, 0),
            Consistency::Lease => (v1::Consistency::Lease, 0),
            Consistency::Stale { max_age } => {
                let millis = |age: Duration| u32::try_from(age.as_millis()).unwrap_or(u32::MAX).max(1);
                (v1::Consistency::Stale, max_age.map_or(0, millis))
            }
        }
    }
}

/// How a read was served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Served {
    /// The node that answered.
    pub node: u64,
    /// By which consistency; `None`: the node did not say.
    pub by: Option<ServedBy>,
    /// Of a stale read: it may miss what was acknowledged in so long. `None`: unknown.
    pub age: Option<Duration>,
}

/// By which consistency a read was served. It may be stronger than what was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServedBy {
    /// By a round to a majority.
    Linearizable,
    /// By the leader's lease.
    Lease,
    /// As the node's data was.
    Stale,
    /// The same, of a namespace in eventual mode.
    Local,
    /// The same, once it showed what the session had seen.
    Session,
    /// The newest of what a majority had.
    Quorum,
}

impl fmt::Display for ServedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ServedBy::Linearizable => "linearizable",
            ServedBy::Lease => "lease",
            ServedBy::Stale => "stale",
            ServedBy::Local => "local",
            ServedBy::Session => "session",
            ServedBy::Quorum => "quorum",
        })
    }
}

impl From<&v1::Header> for Served {
    fn from(header: &v1::Header) -> Self {
        let by = match header.served() {
            v1::Consistency::Unspecified => None,
            v1::Consistency::Linearizable => Some(ServedBy::Linearizable),
            v1::Consistency::Lease => Some(ServedBy::Lease),
            v1::Consistency::Stale => Some(ServedBy::Stale),
            v1::Consistency::Local => Some(ServedBy::Local),
            v1::Consistency::Session => Some(ServedBy::Session),
            v1::Consistency::Quorum => Some(ServedBy::Quorum),
        };
        Self { node: header.node, by, age: header.age_ms.map(Duration::from_millis) }
    }
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

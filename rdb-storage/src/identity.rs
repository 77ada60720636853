//! Whose directory this is: the IDENTITY file, and the markers that tie each database to it.
//!
//! The file is text, so that a person can see what a directory is; its last line is a checksum, so that nobody changes
//! it by hand. It is written beside itself, synced and renamed, so that a crash leaves the old one or the new one.

use crate::checked_text;
use crate::directory::{self, IDENTITY, IDENTITY_TEMPORARY};
use crate::error::{Error, Result};
use rdb_core::codec::{Corrupt, Reader, put_varint};
use rdb_core::ids::NodeId;
use std::fmt;
use std::path::Path;

/// The format of the whole data directory, file names and keys included.
pub(crate) const FORMAT: u64 = 1;
/// The format of a marker.
const MARKER_FORMAT: u8 = 1;
/// A cluster id's length, at most.
const CLUSTER_ID_BYTES_MAX: usize = 128;

/// Who the configuration says this node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// The cluster: letters, digits, `.`, `-` and `_`.
    pub cluster_id: String,
    /// The node.
    pub node_id: NodeId,
}

impl Expected {
    /// Refuses a cluster id that the identity file could not hold.
    pub(crate) fn validate(&self) -> Result<()> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        let fits = (1..=CLUSTER_ID_BYTES_MAX).contains(&self.cluster_id.len());
        if fits && self.cluster_id.bytes().all(plain) {
            return Ok(());
        }
        Err(Error::InvalidClusterId(self.cluster_id.clone()))
    }
}

/// Whose directory this is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster_id: String,
    /// The node.
    pub node_id: NodeId,
    /// Drawn when the directory was made: tells it from another one that the same node had before.
    pub store_id: u64,
    /// Starts of the node with this directory, this one included.
    pub incarnation: u64,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cluster '{}', node {}, store {:016x}", self.cluster_id, self.node_id, self.store_id)
    }
}

impl Identity {
    /// Who `expected` is in a directory that is being made. The first start makes it incarnation 1.
    pub(crate) fn draw(expected: &Expected) -> Self {
        Self {
            cluster_id: expected.cluster_id.clone(),
            node_id: expected.node_id,
            store_id: rand::random(),
            incarnation: 0,
        }
    }

    /// Reads the file.
    pub(crate) fn read(directory: &Path) -> Result<Self> {
        let path = directory.join(IDENTITY);
        let text = std::fs::read_to_string(&path).map_err(Error::io("read", &path))?;
        Self::parse(&text).map_err(|problem| Error::IdentityDamaged { path, problem })
    }

    /// Replaces the file, for good.
    pub(crate) fn write(&self, directory: &Path) -> Result<()> {
        directory::write_synced(&directory.join(IDENTITY_TEMPORARY), self.to_text().as_bytes())?;
        directory::rename_synced(directory, IDENTITY_TEMPORARY, IDENTITY)
    }

    /// Refuses a directory of another cluster or node than the configuration names.
    pub(crate) fn check(&self, directory: &Path, expected: &Expected) -> Result<()> {
        if self.cluster_id != expected.cluster_id {
            return Err(Error::OtherCluster {
                path: directory.to_path_buf(),
                found: self.cluster_id.clone(),
                expected: expected.cluster_id.clone(),
            });
        }
        if self.node_id != expected.node_id {
            return Err(Error::OtherNode {
                path: directory.to_path_buf(),
                found: self.node_id,
                expected: expected.node_id,
            });
        }
        Ok(())
    }

    /// As it goes to the file.
    pub(crate) fn to_text(&self) -> String {
        let body = format!(
            "# A FlareDB node's data directory. Written at every start; do not edit it, nor copy it to another node.\n\
             format = {FORMAT}\n\
             cluster_id = \"{}\"\n\
             node_id = {}\n\
             store_id = \"{:016x}\"\n\
             incarnation = {}\n",
            self.cluster_id, self.node_id, self.store_id, self.incarnation,
        );
        checked_text::seal(&body)
    }

    pub(crate) fn parse(text: &str) -> std::result::Result<Self, String> {
        let body = checked_text::open(text)?;
        // The checksum is right, so from here on the text is what some FlareDB wrote.
        let field = |name: &str| {
            let lines = body.lines().filter_map(|line| line.split_once(" = "));
            let found =
                lines.filter(|(key, _)| *key == name).map(|(_, value)| value.trim_matches('"')).next();
            found.ok_or_else(|| format!("'{name}' is missing"))
        };
        let number = |name: &str| field(name)?.parse().map_err(|_| format!("'{name}' is not a number"));
        let format = number("format")?;
        if format != FORMAT {
            return Err(format!(
                "its format is {format}, and this FlareDB knows {FORMAT}: use the one that wrote it"
            ));
        }
        let store_id =
            u64::from_str_radix(field("store_id")?, 16).map_err(|_| "'store_id' is not a number")?;
        Ok(Self {
            cluster_id: field("cluster_id")?.to_owned(),
            node_id: NodeId(number("node_id")?),
            store_id,
            incarnation: number("incarnation")?,
        })
    }

    /// As it is marked in a database: without the incarnation, which changes.
    pub(crate) fn to_marker(&self) -> Vec<u8> {
        let mut out = vec![MARKER_FORMAT];
        out.extend_from_slice(&self.store_id.to_be_bytes());
        put_varint(&mut out, self.node_id.0);
        out.extend_from_slice(self.cluster_id.as_bytes());
        out
    }

    /// Refuses the database at `path` if its marker is another directory's.
    pub(crate) fn check_marker(&self, path: &Path, marker: Option<&[u8]>) -> Result<()> {
        let marker = marker.ok_or_else(|| Error::Damaged {
            what: path.display().to_string(),
            problem: "it does not say whose it is".into(),
        })?;
        if marker == self.to_marker() {
            return Ok(());
        }
        let found = Self::from_marker(marker)
            .map_or_else(|corrupt| format!("an unknown node ({corrupt})"), |other| other.to_string());
        Err(Error::Foreign { path: path.to_path_buf(), found, expected: Box::new(self.clone()) })
    }

    pub(crate) fn from_marker(bytes: &[u8]) -> std::result::Result<Self, Corrupt> {
        let mut reader = Reader::new("a database's marker", bytes);
        if reader.u8()? != MARKER_FORMAT {
            return Err(reader.corrupt("its format is not known to this version of FlareDB"));
        }
        let store_id = reader.u64()?;
        let node_id = NodeId(reader.varint()?);
        let cluster_id = String::from_utf8_lossy(reader.rest()).into_owned();
        Ok(Self { cluster_id, node_id, store_id, incarnation: 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn identity() -> Identity {
        Identity { cluster_id: "test-1".into(), node_id: NodeId(3), store_id: 0xabc, incarnation: 7 }
    }

    #[test]
    fn the_file_reads_like_this() {
        let expected = "# A FlareDB node's data directory. Written at every start; do not edit it, nor copy it to \
                        another node.\nformat = 1\ncluster_id = \"test-1\"\nnode_id = 3\n\
                        store_id = \"0000000000000abc\"\nincarnation = 7\ncrc32 = ";
        let text = identity().to_text();
        assert!(text.starts_with(expected), "{text}");
        assert_eq!(Identity::parse(&text).unwrap(), identity());
    }

    #[test]
    fn any_change_of_a_byte_is_noticed() {
        let text = identity().to_text();
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1;
            let edited = String::from_utf8(bytes).unwrap();
            assert!(Identity::parse(&edited).is_err(), "byte {at}:\n{edited}");
            assert!(Identity::parse(&text[..at]).is_err(), "cut at byte {at}");
        }
    }

    #[test]
    fn cluster_ids_are_plain_words() {
        let node_id = NodeId(1);
        for (cluster_id, valid) in [("prod-1.eu_west", true), ("", false), ("a b", false), ("a\"", false)] {
            let expected = Expected { cluster_id: cluster_id.into(), node_id };
            assert_eq!(expected.validate().is_ok(), valid, "{cluster_id:?}");
        }
    }

    proptest! {
        #[test]
        fn markers_come_back(cluster_id in "[a-z]{1,9}", node_id: u64, store_id: u64) {
            let identity = Identity { cluster_id, node_id: NodeId(node_id), store_id, incarnation: 0 };
            prop_assert_eq!(Identity::from_marker(&identity.to_marker()).unwrap(), identity);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>, text: String) {
            let _ = (Identity::from_marker(&bytes), Identity::parse(&text));
        }
    }
}

//! What this node has seen of the other nodes' directories: the PEERS file.
//!
//! A node that comes back with an older state of its directory than it had, as from a backup, has forgotten promises that others
//! count on. Those others notice, by what they have seen of it; the file is for the time after they have all started again.
//! Like IDENTITY it is text with a checksum, written beside itself, synced and renamed. It may be missing: then nothing was seen.

use crate::checked_text;
use crate::directory::{self, PEERS, PEERS_TEMPORARY};
use crate::error::{Error, Result};
use crate::identity::Identity;
use rdb_core::ids::NodeId;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

const FORMAT: u64 = 1;

/// A node's directory, as the node described it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerDirectory {
    /// Which directory it is.
    pub store_id: u64,
    /// Starts of the node with it.
    pub incarnation: u64,
    /// How many batches its log had synced.
    pub log_position: u64,
    /// Drawn at every start of its process. What one process says on two connections may arrive in another order.
    pub process: u64,
}

/// What the node of this directory wrote last.
pub(crate) fn read(directory: &Path, own: &Identity) -> Result<BTreeMap<NodeId, PeerDirectory>> {
    let path = directory.join(PEERS);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        // Bytes that are no text were not written so.
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
            return Err(Error::PeersDamaged { path, problem: "it is no text".into() });
        }
        Err(error) => return Err(Error::io("read", &path)(error)),
    };
    match parse(&text) {
        Ok((store_id, peers)) if store_id == own.store_id => Ok(peers),
        Ok((store_id, _)) => Err(Error::Foreign {
            path,
            found: format!("store {store_id:016x}"),
            expected: Box::new(own.clone()),
        }),
        Err(problem) => Err(Error::PeersDamaged { path, problem }),
    }
}

/// Replaces the file, for good.
pub(crate) fn write(directory: &Path, own: &Identity, peers: &BTreeMap<NodeId, PeerDirectory>) -> Result<()> {
    directory::write_synced(&directory.join(PEERS_TEMPORARY), to_text(own.store_id, peers).as_bytes())?;
    directory::rename_synced(directory, PEERS_TEMPORARY, PEERS)
}

fn to_text(own_store_id: u64, peers: &BTreeMap<NodeId, PeerDirectory>) -> String {
    let mut body = format!(
        "# What a FlareDB node has seen of the others' data directories: node, store, starts, synced batches of its log, process.\n\
         format = {FORMAT}\n\
         store_id = {own_store_id:016x}\n"
    );
    for (node, PeerDirectory { store_id, incarnation, log_position, process }) in peers {
        // Writing to a string cannot fail.
        let _ = writeln!(body, "{node} {store_id:016x} {incarnation} {log_position} {process:016x}");
    }
    checked_text::seal(&body)
}

/// Whose it is, and what is in it.
fn parse(text: &str) -> std::result::Result<(u64, BTreeMap<NodeId, PeerDirectory>), String> {
    // The checksum is right, so from here on the text is what some FlareDB wrote.
    let mut lines = checked_text::open(text)?.lines().filter(|line| !line.starts_with('#'));
    let format = lines.next().and_then(|line| line.strip_prefix("format = ")).unwrap_or_default();
    if format != FORMAT.to_string() {
        return Err(format!(
            "its format is '{format}', and this FlareDB knows {FORMAT}: use the one that wrote it"
        ));
    }
    let store_id = lines.next().and_then(|line| line.strip_prefix("store_id = "));
    let store_id =
        store_id.and_then(|id| u64::from_str_radix(id, 16).ok()).ok_or("it does not say whose it is")?;
    let peers: std::result::Result<_, String> =
        lines.map(|line| peer(line).ok_or_else(|| format!("the line '{line}' is not understood"))).collect();
    Ok((store_id, peers?))
}

fn peer(line: &str) -> Option<(NodeId, PeerDirectory)> {
    let fields: Vec<&str> = line.split(' ').collect();
    let [node, store_id, incarnation, log_position, process] = fields[..] else { return None };
    let directory = PeerDirectory {
        store_id: u64::from_str_radix(store_id, 16).ok()?,
        incarnation: incarnation.parse().ok()?,
        log_position: log_position.parse().ok()?,
        process: u64::from_str_radix(process, 16).ok()?,
    };
    Some((NodeId(node.parse().ok()?), directory))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Expected;

    fn some() -> BTreeMap<NodeId, PeerDirectory> {
        let directory = |seed: u64| PeerDirectory {
            store_id: seed << 60,
            incarnation: seed,
            log_position: u64::MAX - seed,
            process: seed,
        };
        [1, 2, 31].map(|node| (NodeId(node), directory(node))).into_iter().collect()
    }

    #[test]
    fn what_was_written_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let expected = Expected { cluster_id: "test".into(), node_id: NodeId(1) };
        let (own, other) = (Identity::draw(&expected), Identity::draw(&expected));
        assert!(read(directory.path(), &own).unwrap().is_empty());
        for peers in [some(), BTreeMap::new()] {
            write(directory.path(), &own, &peers).unwrap();
            assert_eq!(read(directory.path(), &own).unwrap(), peers);
        }
        assert!(matches!(read(directory.path(), &other), Err(Error::Foreign { .. })));
    }

    #[test]
    fn any_changed_byte_is_noticed() {
        let text = to_text(7, &some());
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1;
            if let Ok(changed) = String::from_utf8(bytes) {
                assert!(parse(&changed).is_err(), "byte {at}");
            }
        }
        assert!(parse("").is_err());
        assert!(parse(&checked_text::seal("format = 2\n")).unwrap_err().contains("its format is '2'"));
        assert!(
            parse(&checked_text::seal("format = 1\nstore_id = 7\n1 2 3\n"))
                .unwrap_err()
                .contains("not understood")
        );
        assert!(parse(&checked_text::seal("format = 1\n1 2 3\n")).unwrap_err().contains("whose it is"));
    }
}

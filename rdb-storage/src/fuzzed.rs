//! What this crate reads from disk by itself, as plain functions for `rdb-fuzz`. What RocksDB reads is its own affair, and what
//! the core reads is the core's.

use crate::checked_text;
use crate::identity::Identity;
use crate::keys::{self, Position};
use crate::snapshot::{self, Chunk};
use crate::wal::{self, BLOCK_BYTES, HEADER_BYTES};
use crate::watermark;
use rdb_core::eventual::vector::Origin;
use rdb_core::ids::{Era, Incarnation, NamespaceId, NodeId, RegionId};
use rdb_core::raft::{HardState, SnapshotPlace};
use rdb_core::range::KeyRange;

/// What can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The IDENTITY file, without its checksum.
    Identity,
    /// The marker in a database.
    Marker,
    /// A slot of the WATERMARK file, without its checksum.
    Watermark,
    /// A write-ahead log, each record of which is given the checksum that it should have.
    WriteAheadLog,
    /// The same, as it is.
    DamagedLog,
    /// A part of a snapshot.
    Chunk,
    /// The note of a snapshot that is being taken in.
    SnapshotNote,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 7] = [
        Kind::Identity,
        Kind::Marker,
        Kind::Watermark,
        Kind::WriteAheadLog,
        Kind::DamagedLog,
        Kind::Chunk,
        Kind::SnapshotNote,
    ];

    /// Reads `bytes` as this. Whether they are that.
    ///
    /// # Panics
    /// What was read is not what is written for it.
    pub fn read(self, bytes: &[u8]) -> bool {
        match self {
            Kind::Identity => identity(bytes),
            Kind::Marker => marker(bytes),
            Kind::Watermark => watermark(bytes),
            Kind::WriteAheadLog => matches!(wal::looked_over(with_checksums(bytes)), (Some(_), None)),
            Kind::DamagedLog => matches!(wal::looked_over(bytes.to_vec()), (Some(_), None)),
            Kind::Chunk => chunk(bytes),
            Kind::SnapshotNote => snapshot_note(bytes),
        }
    }

    /// Bytes that are this.
    pub fn example(self) -> Vec<u8> {
        match self {
            Kind::Identity => {
                let text = example_identity().to_text();
                checked_text::open(&text).unwrap_or_default().as_bytes().to_vec()
            }
            Kind::Marker => example_identity().to_marker(),
            Kind::Watermark => {
                let mut slot = watermark::Note { incarnation: 7, position: 9, store_id: 1 }.encode();
                slot.truncate(slot.len() - 4);
                slot
            }
            Kind::WriteAheadLog => example_log(),
            Kind::DamagedLog => with_checksums(&example_log()),
            Kind::Chunk => {
                let items = vec![(b"key".to_vec(), b"value".to_vec()), (b"other".to_vec(), Vec::new())];
                Chunk { section: snapshot::Section::Records, items }.encode()
            }
            Kind::SnapshotNote => {
                let place = SnapshotPlace { index: 700, term: 3 };
                snapshot::Note { place, hard_state: HardState { term: 4, vote: 2, commit: 700 } }.encode()
            }
        }
    }
}

fn example_identity() -> Identity {
    Identity { cluster_id: "test-1".to_owned(), node_id: NodeId(3), store_id: 0xabc, incarnation: 7 }
}

/// Two batches, the second one in two parts.
fn example_log() -> Vec<u8> {
    let batch = |at: u64| {
        let position = Position { at, synced: at - 1 }.encode();
        [&[7; 20][..], b"\x01\x08", keys::LOG_POSITION, b"\x10", &position].concat()
    };
    let second = batch(6);
    [vec![0, 0], framed(1, &batch(5)), framed(2, &second[..30]), framed(4, &second[30..])].concat()
}

fn identity(body: &[u8]) -> bool {
    let Ok(body) = std::str::from_utf8(body) else { return false };
    let Ok(identity) = Identity::parse(&checked_text::seal(body)) else { return false };
    // The configuration is held against it before it is written anew, and no other cluster's id is.
    let expected = crate::Expected { cluster_id: identity.cluster_id.clone(), node_id: identity.node_id };
    if expected.validate().is_ok() {
        assert_eq!(Identity::parse(&identity.to_text()).as_ref(), Ok(&identity));
    }
    true
}

fn marker(bytes: &[u8]) -> bool {
    let Ok(identity) = Identity::from_marker(bytes) else { return false };
    assert_eq!(Identity::from_marker(&identity.to_marker()).as_ref(), Ok(&identity));
    true
}

fn chunk(bytes: &[u8]) -> bool {
    let Ok(chunk) = Chunk::decode(bytes) else { return false };
    assert_eq!(Chunk::decode(&chunk.encode()).as_ref(), Ok(&chunk));
    true
}

fn snapshot_note(bytes: &[u8]) -> bool {
    let Ok(note) = snapshot::Note::decode(bytes) else { return false };
    assert_eq!(snapshot::Note::decode(&note.encode()).as_ref(), Ok(&note));
    true
}

fn watermark(body: &[u8]) -> bool {
    let slot = [body, &crc32fast::hash(body).to_be_bytes()].concat();
    let Ok(note) = watermark::Note::decode(&slot) else { return false };
    assert_eq!(watermark::Note::decode(&note.encode()), Ok(note));
    true
}

/// Puts a batch before the log that takes as many bytes as its first two say, so that the log may come to a block's end; and gives
/// each record the checksum that it should have, which the engine would never find.
fn with_checksums(log: &[u8]) -> Vec<u8> {
    let Some((length, log)) = log.split_at_checked(2) else { return Vec::new() };
    let length = usize::from(u16::from_le_bytes([length[0], length[1]])).min(BLOCK_BYTES - HEADER_BYTES);
    let mut filled = framed(1, &vec![7; length]);
    filled.extend_from_slice(log);
    let mut at = 0;
    while let Some(end) = end_of_record(&filled, at) {
        let checksum = wal::checksum(filled[at + 6], &filled[at + HEADER_BYTES..end]);
        filled[at..at + 4].copy_from_slice(&checksum);
        let room = BLOCK_BYTES - end % BLOCK_BYTES;
        at = if room < HEADER_BYTES { end + room } else { end };
    }
    filled
}

/// Where the record at `at` ends, by its length.
fn end_of_record(log: &[u8], at: usize) -> Option<usize> {
    let header = log.get(at..at + HEADER_BYTES)?;
    let end = at + HEADER_BYTES + usize::from(u16::from_le_bytes([header[4], header[5]]));
    (end <= log.len()).then_some(end)
}

/// A record without its checksum.
fn framed(kind: u8, bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap_or_default().to_le_bytes();
    [&[0; 4][..], &length, &[kind], bytes].concat()
}

/// Reads `key` as each kind of key, and holds what it was read as against what is written for that.
///
/// # Panics
/// A key comes back as another one.
pub fn key(key: &[u8]) -> bool {
    let entry = keys::parse_entry(key);
    if let Some((region, index)) = entry {
        assert_eq!(keys::entry(region, index), key);
    }
    let state = keys::parse_raft_state(key);
    if let Some((region, kind)) = state {
        assert_eq!(keys::raft_state(region, kind), key);
    }
    let run = keys::parse_run(key);
    if let Some((region, era, origin, last)) = run {
        assert_eq!(keys::run(region, era, origin, last), key);
    }
    let (session, owner) = (keys::parse_session(key), keys::parse_owner(key));
    let position = keys::position_of_batch(key);
    entry.is_some()
        || state.is_some()
        || run.is_some()
        || session.is_some()
        || owner.is_some()
        || position.is_some()
}

/// Numbers that make up keys.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// A region, or a namespace.
    pub owner: u64,
    /// An index, a client, a node.
    pub first: u64,
    /// An incarnation, an era.
    pub second: u64,
    /// A place.
    pub third: u64,
}

impl Place {
    fn as_run(self) -> (RegionId, Era, Origin, u64) {
        let era = Era(u32::try_from(self.second & 0xff).unwrap_or_default());
        let origin = Origin { node: NodeId(self.first), incarnation: Incarnation(self.second) };
        (RegionId(self.owner), era, origin, self.third)
    }
}

/// Keys sort as what they stand for, and are read back.
///
/// # Panics
/// They do not, or are not.
pub fn keys_keep_order(a: Place, b: Place) {
    let entries = [a, b].map(|place| keys::entry(RegionId(place.owner), place.first));
    assert_eq!(entries[0].cmp(&entries[1]), (a.owner, a.first).cmp(&(b.owner, b.first)));
    assert_eq!(keys::parse_entry(&entries[0]), Some((RegionId(a.owner), a.first)));
    assert_eq!(keys::entries(RegionId(b.owner)).contains(&entries[0].to_vec()), a.owner == b.owner);
    let runs = [a, b].map(|place| {
        let (region, era, origin, last) = place.as_run();
        keys::run(region, era, origin, last)
    });
    assert_eq!(runs[0].cmp(&runs[1]), a.as_run().cmp(&b.as_run()));
    assert_eq!(keys::parse_run(&runs[0]), Some(a.as_run()));
    let sessions = [a, b].map(|place| keys::session(RegionId(place.owner), place.first));
    assert_eq!(sessions[0].cmp(&sessions[1]), (a.owner, a.first).cmp(&(b.owner, b.first)));
    assert_eq!(keys::parse_session(&sessions[0]), Some(a.first));
    assert_eq!(keys::sessions(RegionId(b.owner)).contains(&sessions[0].to_vec()), a.owner == b.owner);
    // A region's entries and runs lie in different column families; its state and its sessions in one.
    assert!(!keys::sessions(RegionId(b.owner)).contains(&keys::region_state(RegionId(a.owner)).to_vec()));
}

/// Records sort as their keys, each in its namespace, and a range has those of the range.
///
/// # Panics
/// They do not.
pub fn records_keep_order(namespaces: [u32; 2], a: &[u8], b: &[u8], range: &KeyRange) {
    let [first, second] = namespaces.map(NamespaceId);
    let (record_a, record_b) = (keys::record(first, a), keys::record(second, b));
    assert_eq!(record_a.cmp(&record_b), (namespaces[0], a).cmp(&(namespaces[1], b)));
    let bounds = keys::record_range(second, range);
    assert!(bounds.start <= bounds.end);
    assert_eq!(bounds.contains(&record_a), first == second && range.contains(a));
    assert_eq!(keys::records(second).contains(&record_a), first == second);
}

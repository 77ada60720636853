//! Every key of both databases. All numbers are big-endian, so that keys sort as the numbers do.
//!
//! ```text
//! log/   default      "identity"                      whose database this is: identity.rs
//!                     "incarnation"                   starts of this node, 8 bytes
//!                     "position"                      batches written in this log's life, 8 bytes: watermark.rs
//!                     "hlc"                           stamps of eventual writes are below this, 8 bytes
//!        raft_log     region 8 | index 8              an entry: rdb_core::raft::disk
//!        raft_state   region 8 | 1                    hard state
//!                     region 8 | 2                    table of terms
//!                     region 8 | 3                    members; the region exists if this key does
//!                     region 8 | 4                    note of a snapshot that is being taken in: snapshot.rs
//!        origin_log   region 8 | era 4 | node 8 | incarnation 8 | seq 8
//!                                                     the run of which this is the last write: rdb_core::eventual::run;
//!                                                     node 0: a page of a copy, or its note: rdb_core::eventual::copy
//!        origin_state region 8 | 1                    gate: who may write, as this node knows it
//!                     region 8 | 2                    base: what is no longer in the origins' logs
//!                     region 8 | 3                    the entry by which this node has entered an era: index 8, term 8
//!                     region 8 | 4                    quarantine: writes in the logs that the cluster went on without
//! data/  default      0x00 "identity"                 whose database this is
//!                     0x01 | region 8 | 1             apply state: rdb_core::apply::State
//!                     0x01 | region 8 | 2 | client 8  a client's session: rdb_core::sessions
//!                     0x01 | region 8 | 3             eventual state: rdb_core::eventual::machine::State
//!                     0x01 | region 8 | 4 | key       a note of eventual mode: rdb_core::eventual::conflicts
//!                     0x01 | region 8 | 5             mode and era: rdb_core::switch::Region; none: as the catalog made it
//!                     0x10 | namespace 4 | user key   a record: rdb_core::record
//! ```
//! Byte 0xff is never a first byte, so that every prefix has an end. Whoever changes the meaning of a key raises
//! [`crate::identity::FORMAT`].

use rdb_core::eventual::vector::{Origin, Seq};
use rdb_core::ids::{Era, Incarnation, Index, NamespaceId, NodeId, RegionId};
use rdb_core::range::KeyRange;
use std::ops::Range;

/// Column family of the log database: entries.
pub(crate) const RAFT_LOG: &str = "raft_log";
/// Column family of the log database: what a region must remember besides its entries.
pub(crate) const RAFT_STATE: &str = "raft_state";

/// Column family of the log database: what was written in eventual mode.
pub(crate) const ORIGIN_LOG: &str = "origin_log";
/// Column family of the log database: what a region in eventual mode must remember besides its origins' logs.
pub(crate) const ORIGIN_STATE: &str = "origin_state";

/// In the log database: whose it is.
pub(crate) const LOG_IDENTITY: &[u8] = b"identity";
/// In the log database: how many times this node has started.
pub(crate) const LOG_INCARNATION: &[u8] = b"incarnation";
/// In the log database: grows with every batch.
pub(crate) const LOG_POSITION: &[u8] = b"position";
/// In the log database: no stamp at or above this was ever given out.
pub(crate) const LOG_HLC: &[u8] = b"hlc";
/// How RocksDB's batch begins its last part where that is the position: a put into the first column family (1), the
/// key's length and the key, the value's length.
const POSITION_IN_BATCH: &[u8] = b"\x01\x08position\x10";
/// In the data database: whose it is.
pub(crate) const DATA_IDENTITY: &[u8] = b"\x00identity";

const REGION: u8 = 0x01;
const RECORD: u8 = 0x10;
const REGION_STATE: u8 = 1;
const REGION_SESSION: u8 = 2;
const REGION_EVENTUAL: u8 = 3;
const REGION_NOTE: u8 = 4;
const REGION_MODE: u8 = 5;

/// Where the log stands: the last part of each of its batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Position {
    /// Of this batch: one more than of the batch before.
    pub(crate) at: u64,
    /// Of the last batch that was synced when this one was written.
    pub(crate) synced: u64,
}

impl Position {
    /// As it is stored under [`LOG_POSITION`].
    pub(crate) fn encode(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.at.to_be_bytes());
        bytes[8..].copy_from_slice(&self.synced.to_be_bytes());
        bytes
    }

    /// As it was stored; `None` if these are not the bytes of one.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (at, synced) = bytes.split_at_checked(8)?;
        Some(Self {
            at: u64::from_be_bytes(at.try_into().ok()?),
            synced: u64::from_be_bytes(synced.try_into().ok()?),
        })
    }
}

/// The position that a batch ends with, from the batch's bytes in the write-ahead log or those of its last record.
pub(crate) fn position_of_batch(bytes: &[u8]) -> Option<Position> {
    let (rest, position) = bytes.split_at_checked(bytes.len().checked_sub(16)?)?;
    rest.ends_with(POSITION_IN_BATCH).then(|| Position::decode(position))?
}

/// What the log keeps of a region besides its entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RaftState {
    /// Term, vote and commit index.
    HardState = 1,
    /// The terms of all entries, as runs.
    Terms = 2,
    /// The voters.
    Members = 3,
    /// The note of a snapshot that is being taken in.
    Snapshot = 4,
}

impl RaftState {
    /// All of them, in key order.
    pub(crate) const ALL: [RaftState; 4] =
        [RaftState::HardState, RaftState::Terms, RaftState::Members, RaftState::Snapshot];
}

/// The key of an entry.
pub(crate) fn entry(region: RegionId, index: Index) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&region.0.to_be_bytes());
    key[8..].copy_from_slice(&index.to_be_bytes());
    key
}

/// Reads the key of an entry.
pub(crate) fn parse_entry(key: &[u8]) -> Option<(RegionId, Index)> {
    let (region, index) = key.split_first_chunk::<8>()?;
    Some((RegionId(u64::from_be_bytes(*region)), u64::from_be_bytes(index.try_into().ok()?)))
}

/// The keys of all of a region's entries.
pub(crate) fn entries(region: RegionId) -> Range<Vec<u8>> {
    prefixed(region.0.to_be_bytes().to_vec())
}

/// The key of what the log keeps of a region.
pub(crate) fn raft_state(region: RegionId, kind: RaftState) -> [u8; 9] {
    let mut key = [kind as u8; 9];
    key[..8].copy_from_slice(&region.0.to_be_bytes());
    key
}

/// Reads a key that [`raft_state`] made.
pub(crate) fn parse_raft_state(key: &[u8]) -> Option<(RegionId, RaftState)> {
    let (region, kind) = key.split_first_chunk::<8>()?;
    let kind = RaftState::ALL.into_iter().find(|known| [*known as u8] == kind)?;
    Some((RegionId(u64::from_be_bytes(*region)), kind))
}

/// What the log keeps of a region's eventual mode besides the origins' logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum OriginState {
    /// Who may write.
    Gate = 1,
    /// What is no longer in the origins' logs.
    Base = 2,
    /// The entry of the region's log by which this node has entered an era: it was committed.
    Entered = 3,
    /// Which writes in the origins' logs the cluster went on without.
    Quarantine = 4,
}

impl OriginState {
    /// All of them, in key order.
    pub const ALL: [OriginState; 4] =
        [OriginState::Gate, OriginState::Base, OriginState::Entered, OriginState::Quarantine];
}

/// The key of a run: of its last write, so that the first key from a write's on is that of the run that has it.
pub(crate) fn run(region: RegionId, era: Era, origin: Origin, last: Seq) -> [u8; 36] {
    let mut key = [0; 36];
    key[..8].copy_from_slice(&region.0.to_be_bytes());
    key[8..12].copy_from_slice(&era.0.to_be_bytes());
    key[12..20].copy_from_slice(&origin.node.0.to_be_bytes());
    key[20..28].copy_from_slice(&origin.incarnation.0.to_be_bytes());
    key[28..].copy_from_slice(&last.to_be_bytes());
    key
}

/// Reads the key of a run.
pub(crate) fn parse_run(key: &[u8]) -> Option<(RegionId, Era, Origin, Seq)> {
    let (region, rest) = key.split_first_chunk::<8>()?;
    let (era, rest) = rest.split_first_chunk::<4>()?;
    let (node, rest) = rest.split_first_chunk::<8>()?;
    let (incarnation, seq) = rest.split_first_chunk::<8>()?;
    let origin = Origin {
        node: NodeId(u64::from_be_bytes(*node)),
        incarnation: Incarnation(u64::from_be_bytes(*incarnation)),
    };
    let (region, era) = (RegionId(u64::from_be_bytes(*region)), Era(u32::from_be_bytes(*era)));
    Some((region, era, origin, u64::from_be_bytes(seq.try_into().ok()?)))
}

/// The keys of all runs of an origin.
pub(crate) fn runs(region: RegionId, era: Era, origin: Origin) -> Range<Vec<u8>> {
    prefixed(run(region, era, origin, 0)[..28].to_vec())
}

/// The keys of all runs of a region.
pub(crate) fn runs_of_region(region: RegionId) -> Range<Vec<u8>> {
    prefixed(region.0.to_be_bytes().to_vec())
}

/// The keys of all runs of a region's era.
pub(crate) fn runs_of_era(region: RegionId, era: Era) -> Range<Vec<u8>> {
    let none = Origin { node: NodeId(0), incarnation: Incarnation(0) };
    prefixed(run(region, era, none, 0)[..12].to_vec())
}

/// The key of what the log keeps of a region's eventual mode.
pub(crate) fn origin_state(region: RegionId, kind: OriginState) -> [u8; 9] {
    let mut key = [kind as u8; 9];
    key[..8].copy_from_slice(&region.0.to_be_bytes());
    key
}

/// The key of a region's apply state.
pub(crate) fn region_state(region: RegionId) -> [u8; 10] {
    let mut key = [REGION_STATE; 10];
    key[0] = REGION;
    key[1..9].copy_from_slice(&region.0.to_be_bytes());
    key
}

/// The key of a client's session in a region.
pub(crate) fn session(region: RegionId, client: u64) -> [u8; 18] {
    let mut key = [REGION_SESSION; 18];
    key[0] = REGION;
    key[1..9].copy_from_slice(&region.0.to_be_bytes());
    key[10..].copy_from_slice(&client.to_be_bytes());
    key
}

/// Reads the client from a key that [`session`] made.
pub(crate) fn parse_session(key: &[u8]) -> Option<u64> {
    let client = key.get(10..)?.try_into().ok()?;
    (key[0] == REGION && key[9] == REGION_SESSION).then(|| u64::from_be_bytes(client))
}

/// The keys of all of a region's sessions.
pub(crate) fn sessions(region: RegionId) -> Range<Vec<u8>> {
    prefixed(session(region, 0)[..10].to_vec())
}

/// The key of a region's state of eventual mode.
pub(crate) fn eventual_state(region: RegionId) -> [u8; 10] {
    let mut key = region_state(region);
    key[9] = REGION_EVENTUAL;
    key
}

/// The key of a region's mode.
pub(crate) fn region_mode(region: RegionId) -> [u8; 10] {
    let mut key = region_state(region);
    key[9] = REGION_MODE;
    key
}

/// The key of a note of a region's eventual mode.
pub(crate) fn note(region: RegionId, note: &[u8]) -> Vec<u8> {
    let mut key = region_state(region).to_vec();
    key[9] = REGION_NOTE;
    key.extend_from_slice(note);
    key
}

/// The keys of a region's mode and of what it has of eventual mode: those behind its sessions.
pub(crate) fn modes(of: RegionId) -> Range<Vec<u8>> {
    eventual_state(of).to_vec()..region(of).end
}

/// The keys of a region's state and sessions, and of what it has of eventual mode.
pub(crate) fn region(region: RegionId) -> Range<Vec<u8>> {
    prefixed(region_state(region)[..9].to_vec())
}

/// The key of a record.
pub(crate) fn record(namespace: NamespaceId, user_key: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(5 + user_key.len());
    key.push(RECORD);
    key.extend_from_slice(&namespace.0.to_be_bytes());
    key.extend_from_slice(user_key);
    key
}

/// The keys of all of a namespace's records.
pub(crate) fn records(namespace: NamespaceId) -> Range<Vec<u8>> {
    prefixed(record(namespace, &[]))
}

/// The keys of those of a namespace's records that lie in a range.
pub(crate) fn record_range(namespace: NamespaceId, range: &KeyRange) -> Range<Vec<u8>> {
    let start = record(namespace, &range.from);
    let end = if range.to.is_empty() { records(namespace).end } else { record(namespace, &range.to) };
    // RocksDB fails on a range that ends before it begins, and with it the node.
    let end = end.max(start.clone());
    start..end
}

/// Whose a key of the data database is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    Region(RegionId),
    Namespace(NamespaceId),
}

/// Whose `key` is; `None` if it is neither a region's nor a namespace's.
pub(crate) fn parse_owner(key: &[u8]) -> Option<Owner> {
    let (kind, rest) = key.split_first()?;
    match *kind {
        REGION => Some(Owner::Region(RegionId(u64::from_be_bytes(rest.get(..8)?.try_into().ok()?)))),
        RECORD => Some(Owner::Namespace(NamespaceId(u32::from_be_bytes(rest.get(..4)?.try_into().ok()?)))),
        _ => None,
    }
}

/// All keys that begin with `prefix`.
fn prefixed(prefix: Vec<u8>) -> Range<Vec<u8>> {
    let mut end = prefix.clone();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            break;
        }
    }
    // Only a prefix of nothing but 0xff has no end: the entries of the last region id of all. The longest entry key
    // bounds it from above.
    if end.is_empty() {
        end = vec![0xff; 17];
    }
    prefix..end
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// One key of the data database, with the ranges that it is to lie in.
    #[derive(Debug, Clone)]
    enum Key {
        State(u64),
        Session(u64, u64),
        Record(u32, Vec<u8>),
    }

    impl Key {
        fn bytes(&self) -> Vec<u8> {
            match self {
                Key::State(region) => region_state(RegionId(*region)).to_vec(),
                Key::Session(region, client) => session(RegionId(*region), *client).to_vec(),
                Key::Record(namespace, user_key) => record(NamespaceId(*namespace), user_key),
            }
        }
    }

    fn edge() -> impl Strategy<Value = u64> {
        prop_oneof![0..3u64, Just(255), Just(256), Just(u64::MAX - 1), Just(u64::MAX), any::<u64>()]
    }

    /// A namespace id from the low bytes: the edges stay edges.
    fn narrow(number: u64) -> u32 {
        let [.., a, b, c, d] = number.to_be_bytes();
        u32::from_be_bytes([a, b, c, d])
    }

    fn key() -> impl Strategy<Value = Key> {
        prop_oneof![
            edge().prop_map(Key::State),
            (edge(), edge()).prop_map(|(region, client)| Key::Session(region, client)),
            (edge(), prop::collection::vec(prop_oneof![Just(0u8), Just(255u8), any::<u8>()], 0..6))
                .prop_map(|(namespace, user_key)| Key::Record(narrow(namespace), user_key)),
        ]
    }

    proptest! {
        #[test]
        fn a_key_lies_in_the_ranges_of_its_own_region_or_namespace_only(key in key(), other in edge()) {
            let bytes = key.bytes();
            let of_region = matches!(&key, Key::State(owner) | Key::Session(owner, _) if *owner == other);
            let of_sessions = matches!(&key, Key::Session(owner, _) if *owner == other);
            let of_namespace = matches!(&key, Key::Record(owner, _) if *owner == narrow(other));
            prop_assert_eq!(region(RegionId(other)).contains(&bytes), of_region);
            prop_assert_eq!(sessions(RegionId(other)).contains(&bytes), of_sessions);
            prop_assert_eq!(records(NamespaceId(narrow(other))).contains(&bytes), of_namespace);
            prop_assert!(bytes != DATA_IDENTITY);
        }

        #[test]
        fn records_sort_as_user_keys_do(namespace: u32, a: Vec<u8>, b: Vec<u8>) {
            let namespace = NamespaceId(namespace);
            prop_assert_eq!(record(namespace, &a).cmp(&record(namespace, &b)), a.cmp(&b));
        }

        #[test]
        fn a_range_of_records_has_the_keys_of_the_range_and_of_no_other_namespace(
            namespace in edge(), other in edge(), from: Vec<u8>, to: Vec<u8>, key: Vec<u8>,
        ) {
            let range = KeyRange { from, to };
            let keys = record_range(NamespaceId(narrow(namespace)), &range);
            prop_assert!(keys.start <= keys.end);
            let expected = narrow(namespace) == narrow(other) && range.contains(&key);
            prop_assert_eq!(keys.contains(&record(NamespaceId(narrow(other)), &key)), expected);
        }

        #[test]
        fn entries_sort_by_index_and_stay_in_their_region(region in edge(), a in edge(), b in edge(), other in edge()) {
            let (key_a, key_b) = (entry(RegionId(region), a), entry(RegionId(region), b));
            prop_assert_eq!(key_a.cmp(&key_b), a.cmp(&b));
            prop_assert_eq!(entries(RegionId(other)).contains(&key_a.to_vec()), region == other);
            prop_assert_eq!(parse_entry(&key_a), Some((RegionId(region), a)));
        }

        #[test]
        fn keys_are_read_back(region in edge(), client in edge()) {
            for kind in RaftState::ALL {
                prop_assert_eq!(parse_raft_state(&raft_state(RegionId(region), kind)), Some((RegionId(region), kind)));
            }
            prop_assert_eq!(parse_session(&session(RegionId(region), client)), Some(client));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = (parse_entry(&bytes), parse_raft_state(&bytes), parse_session(&bytes));
        }
    }
}

//! One flipped bit in each kind of file that a stopped node's directory has: tables and manifests of both databases, their logs,
//! and the node's own files. A start and the reads after it find all that was there, or one of them is refused; none finds something
//! else. And a start that was refused has taken nothing away: with the bit as it was, all is found.

use crate::support::{Node, PATIENCE, REGION, copy, entries, entry, open, private};
use bytes::Bytes;
use crossbeam_channel::unbounded;
use rdb_core::apply::{Changes, State};
use rdb_core::eventual::run::{Entry, Replaced, Run};
use rdb_core::eventual::vector::Origin;
use rdb_core::ids::{Era, Incarnation, NamespaceId, NodeId};
use rdb_core::raft::disk::encode_entry;
use rdb_core::version::Hlc;
use rdb_storage::{OriginWrite, PeerDirectory, Result};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const NAMESPACE: NamespaceId = NamespaceId(7);
const ERA: Era = Era(2);
const ORIGIN: Origin = Origin { node: NodeId(1), incarnation: Incarnation(1) };
/// All that a node's directory holds.
#[derive(Debug, PartialEq, Eq)]
struct Contents {
    entries: Vec<Vec<u8>>,
    runs: Vec<Vec<u8>>,
    records: Vec<(Vec<u8>, Vec<u8>)>,
    applied: u64,
    peers: BTreeMap<NodeId, PeerDirectory>,
}

fn contents(path: &Path) -> Result<Contents> {
    let engine = open(path)?;
    let regions = engine.log().regions()?;
    let last =
        regions.iter().find(|stored| stored.region() == REGION).map_or(0, rdb_storage::StoredLog::last);
    let entries = engine.log().region(REGION).entries(1, last + 1, u64::MAX)?;
    let data = engine.data();
    let applied = data.load(REGION)?.map_or(0, |(state, _)| state.applied);
    let records = data.records(NAMESPACE)?;
    let runs = engine.origins().runs(REGION, ERA, ORIGIN, 0, usize::MAX)?;
    Ok(Contents {
        entries: entries.iter().map(encode_entry).collect(),
        runs,
        records,
        applied,
        peers: engine.known_peers().clone(),
    })
}

fn run(last: u64) -> (Origin, u64, Bytes) {
    let replaced = Replaced::Nothing(Hlc(0));
    let value = Some(last.to_be_bytes().to_vec());
    let entry = Entry { seq: last, hlc: Hlc(last), key: vec![7], value, replaced, since: last };
    (ORIGIN, last, Run { era: ERA, origin: ORIGIN, after: last - 1, entries: vec![entry] }.encode().into())
}

/// A node that was started twice: so its log is in tables, too. Some of it is in the write-ahead log alone, as a kill leaves it.
fn killed(parent: &Path) -> PathBuf {
    let (path, killed) = (parent.join("node"), parent.join("killed"));
    Node::with_region(&path).close();
    for half in [1, 21] {
        let node = Node::open(&path);
        for index in half..half + 20 {
            node.write(entries(index, index..=index, 1));
            let (done, written) = unbounded();
            let write =
                OriginWrite { era: ERA, runs: vec![run(index)], sync: true, ..OriginWrite::default() };
            node.handle.write_origins(REGION, write, move || done.send(()).unwrap()).unwrap();
            written.recv_timeout(PATIENCE).unwrap();
            let record = (format!("key {index}").into_bytes(), Some(vec![b'v'; 300]));
            let state = State { applied: index, ..State::default() }.encode();
            let changes = Changes { records: vec![record], state, ..Changes::default() };
            node.engine.data().apply(REGION, NAMESPACE, &changes).unwrap();
        }
        node.engine.data().flush().unwrap();
        let seen = PeerDirectory { store_id: 7, incarnation: 1, log_position: half, process: 9 };
        node.engine.note_peers(&[(NodeId(2), seen)].into()).unwrap();
        if half == 21 {
            copy(&path, &killed);
        }
        node.close();
    }
    // As the watermark is a moment later: until then the last write cannot be told from one that was never synced.
    std::fs::copy(path.join("WATERMARK"), killed.join("WATERMARK")).unwrap();
    killed
}

/// The files of a directory that have something in them. Logs for people and the lock are nobody's data.
fn files(path: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for item in std::fs::read_dir(path).unwrap() {
        let path = item.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            found.extend(files(&path));
        } else if !name.starts_with("LOG") && !name.starts_with("LOCK") && path.metadata().unwrap().len() != 0
        {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// What a file is, whichever its number.
fn kind(file: &Path) -> String {
    let name: String =
        file.file_name().unwrap().to_string_lossy().chars().filter(|c| !c.is_ascii_digit()).collect();
    let parent = file.parent().unwrap().file_name().unwrap().to_string_lossy().into_owned();
    if ["log", "data", "archive"].contains(&&*parent) { format!("{parent}/{name}") } else { name }
}

/// As many places of a file, spread over it, and some more at each end.
fn places(length: u64, count: u64) -> Vec<u64> {
    let edge = (count / 4).min(length);
    let spread = (0..count).map(|place| place * length / count);
    let mut places: Vec<u64> = spread.chain(0..edge).chain(length - edge..length).collect();
    places.sort_unstable();
    places.dedup();
    places
}

/// The length of what is in a file: a log is longer, and zeroes behind.
fn used(file: &Path) -> u64 {
    let bytes = std::fs::read(file).unwrap();
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1)
}

fn flip(file: &Path, at: u64) {
    let mut bytes = std::fs::read(file).unwrap();
    bytes[usize::try_from(at).unwrap()] ^= 1 << (at % 8);
    std::fs::write(file, bytes).unwrap();
}

/// What became of the starts with one bit of a kind of file flipped.
#[derive(Debug, Default)]
struct Outcomes {
    tried: u64,
    refused: u64,
}

#[test]
fn a_flipped_bit_in_any_file_is_refused_or_does_no_harm() {
    flip_bits(6);
}

#[test]
#[ignore = "minutes: ./x nightly damage"]
fn many_flipped_bits_in_any_file_are_refused_or_do_no_harm() {
    flip_bits(100);
}

fn flip_bits(count: u64) {
    let parent = private();
    let killed = killed(parent.path());
    let again = parent.path().join("again");
    let fresh = || {
        if again.exists() {
            std::fs::remove_dir_all(&again).unwrap();
        }
        copy(&killed, &again);
    };
    fresh();
    let whole = contents(&again).unwrap();
    assert_eq!(whole.entries, (1..=40).map(|index| entry(index, 1)).collect::<Vec<_>>());
    assert_eq!((whole.runs.len(), whole.records.len(), whole.applied), (40, 40, 40));
    let mut outcomes: BTreeMap<String, Outcomes> = BTreeMap::new();
    for file in files(&killed) {
        let place = again.join(file.strip_prefix(&killed).unwrap());
        for at in places(used(&file), count) {
            fresh();
            flip(&place, at);
            let found = contents(&again);
            let outcome = outcomes.entry(kind(&file)).or_default();
            outcome.tried += 1;
            let Err(error) = found else {
                assert_eq!(found.unwrap(), whole, "byte {at} of {}", file.display());
                continue;
            };
            outcome.refused += 1;
            assert!(!error.to_string().is_empty());
            let length = place.metadata().map_or(0, |metadata| metadata.len());
            assert!(
                at < length || !place.exists(),
                "{} was cut to {length} by a refused start: {error}",
                place.display()
            );
            if place.exists() {
                flip(&place, at);
            }
            let found = contents(&again);
            assert!(
                found.as_ref().is_ok_and(|found| *found == whole),
                "byte {at} of {} was flipped, which was refused ({error}), and flipped back: {found:?}",
                file.display()
            );
        }
    }
    println!("{outcomes:#?}");
    for kind in ["log/.sst", "log/MANIFEST-", "log/.log", "data/.sst", "data/MANIFEST-", "IDENTITY", "PEERS"]
    {
        assert!(outcomes.get(kind).is_some_and(|outcome| 0 < outcome.refused), "{kind}: {outcomes:?}");
    }
}

/// A table or a manifest that is gone is missed.
#[test]
fn a_missing_file_is_refused() {
    let parent = private();
    let killed = killed(parent.path());
    let again = parent.path().join("again");
    for file in files(&killed) {
        let kind = kind(&file);
        // RocksDB writes its options anew, and has its own name for the directory in the manifest, too. Where nothing is known of the
        // other nodes, nothing was noted.
        if kind == "PEERS"
            || kind.contains("OPTIONS")
            || kind.ends_with("/IDENTITY")
            || kind.starts_with("archive/")
        {
            continue;
        }
        if again.exists() {
            std::fs::remove_dir_all(&again).unwrap();
        }
        copy(&killed, &again);
        std::fs::remove_file(again.join(file.strip_prefix(&killed).unwrap())).unwrap();
        let found = contents(&again);
        assert!(found.is_err(), "{} is missing, and nobody notices: {found:?}", file.display());
    }
}

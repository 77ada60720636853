//! A log that lost bytes. The rule: a start either finds all that was promised, or is refused. It may find less only
//! where nobody was promised more: past the watermark.
//!
//! A log is longer than what is in it while a node runs. Here it is as long as what is in it at first, so that a test finds its
//! end, and then both are tried: as it is, and with zeroes behind.

use crate::support::{Node, PATIENCE, REGION, copy, entries, hard_state, open, private, refused, wal};
use rdb_core::raft::LogWrite;
use rdb_storage::{Error, LogWriterOptions};
use std::path::{Path, PathBuf};

/// What may be behind the end of a log: nothing, less than a record's header, more than a block.
const ZEROES: [u64; 3] = [0, 5, 40_000];

/// The log ends where what is in it ends.
fn open_tight(path: &Path) -> Node {
    Node::open_with(path, &LogWriterOptions { ahead_bytes: 0, ..LogWriterOptions::default() })
}

/// A killed node with entries 1 to 5, of which the watermark of a moment before knows 1 to 4.
struct Killed {
    parent: tempfile::TempDir,
    /// The last write's place in the write-ahead log.
    last_write: std::ops::Range<u64>,
    old_watermark: Vec<u8>,
    new_watermark: Vec<u8>,
}

impl Killed {
    fn new() -> Self {
        let parent = private();
        let path = parent.path().join("node");
        let node = open_tight(&path);
        node.create(REGION);
        (1..=4).for_each(|index| node.write(entries(index, index..=index, 1)));
        // A vote: the watermark is on disk when it is reported.
        let vote = LogWrite {
            number: 5,
            hard_state: Some(hard_state(2, 1, 0)),
            sync: true,
            vote_changed: true,
            ..LogWrite::default()
        };
        node.write(vote);
        let old_watermark = std::fs::read(path.join("WATERMARK")).unwrap();
        let begin = wal(&path).metadata().unwrap().len();
        node.write(LogWrite { hard_state: None, terms: None, ..entries(6, 5..=5, 1) });
        let end = wal(&path).metadata().unwrap().len();
        copy(&path, &parent.path().join("killed"));
        node.close();
        let new_watermark = std::fs::read(path.join("WATERMARK")).unwrap();
        Self { parent, last_write: begin..end, old_watermark, new_watermark }
    }

    /// The killed node's directory once more, with one of the watermarks.
    fn again(&self, watermark: &[u8]) -> PathBuf {
        let path = self.parent.path().join("again");
        if path.exists() {
            std::fs::remove_dir_all(&path).unwrap();
        }
        copy(&self.parent.path().join("killed"), &path);
        std::fs::write(path.join("WATERMARK"), watermark).unwrap();
        path
    }
}

/// The last entry that a start finds; all up to it must be readable.
fn last_entry(path: &Path) -> Result<u64, Error> {
    let engine = open(path)?;
    let regions = engine.log().regions()?;
    let last =
        regions.iter().find(|stored| stored.region() == REGION).map_or(0, rdb_storage::StoredLog::last);
    if 0 < last {
        let entries = engine.log().region(REGION).entries(1, last + 1, u64::MAX)?;
        assert_eq!(entries.len() as u64, last);
    }
    Ok(last)
}

fn cut(path: &Path, len: u64, zeroes: u64) {
    let file = std::fs::OpenOptions::new().write(true).open(wal(path)).unwrap();
    file.set_len(len).and_then(|()| file.set_len(len + zeroes)).unwrap();
}

#[test]
fn a_killed_node_finds_all_that_was_synced() {
    let killed = Killed::new();
    assert_eq!(last_entry(&killed.again(&killed.old_watermark)).unwrap(), 5);
    assert_eq!(last_entry(&killed.again(&killed.new_watermark)).unwrap(), 5);
}

/// As a power cut leaves a batch whose sync had not returned.
#[test]
fn a_torn_last_write_is_dropped_if_nothing_was_promised() {
    let killed = Killed::new();
    let cuts = ZEROES.into_iter().flat_map(|zeroes| killed.last_write.clone().map(move |len| (len, zeroes)));
    for (len, zeroes) in cuts {
        let path = killed.again(&killed.old_watermark);
        let last = std::fs::read(wal(&path)).unwrap();
        cut(&path, len, zeroes);
        let place = || format!("cut at byte {len} of {:?}, {zeroes} zeroes behind", killed.last_write);
        // What was cut off may be zeroes itself: then nothing was.
        let end = usize::try_from(len).unwrap();
        let is_whole = last.len() as u64 <= len + zeroes && last[end..].iter().all(|byte| *byte == 0);
        assert_eq!(last_entry(&path).unwrap(), if is_whole { 5 } else { 4 }, "{}", place());
    }
}

#[test]
fn a_torn_last_write_is_refused_if_it_was_promised() {
    let killed = Killed::new();
    for zeroes in ZEROES {
        for len in killed.last_write.clone().step_by(4) {
            let path = killed.again(&killed.new_watermark);
            cut(&path, len, zeroes);
            let error = refused(&path);
            let seen = matches!(error, Error::LogBehind { .. } | Error::Damaged { .. });
            assert!(seen, "cut at byte {len}, {zeroes} zeroes behind: {error}");
        }
        let path = killed.again(&killed.new_watermark);
        cut(&path, killed.last_write.start, zeroes);
        refused(&path);
        let error = refused(&path);
        let seen = matches!(error, Error::LogBehind { .. });
        assert!(seen, "a second start is refused as the first was, {zeroes} zeroes behind: {error}");
    }
}

/// As a node leaves it that is killed just after it began a new log: the one before may have zeroes behind, too.
#[test]
fn zeroes_behind_the_log_before_the_last_hide_nothing() {
    let killed = Killed::new();
    for zeroes in ZEROES {
        let path = killed.again(&killed.new_watermark);
        let older = wal(&path);
        let (begin, bytes) =
            (usize::try_from(killed.last_write.start).unwrap(), std::fs::read(&older).unwrap());
        cut(&path, killed.last_write.start, zeroes);
        let number: u64 = older.file_stem().unwrap().to_str().unwrap().parse().unwrap();
        std::fs::write(older.with_file_name(format!("{:06}.log", number + 100)), &bytes[begin..]).unwrap();
        assert_ne!(wal(&path), older);
        assert_eq!(last_entry(&path).unwrap(), 5, "{zeroes} zeroes behind");
        assert_eq!(last_entry(&path).unwrap(), 5, "and again at the next start");
    }
}

/// While a node runs, its log is longer than what is in it; when it has stopped, it is not.
#[test]
fn a_log_is_longer_than_what_is_in_it_only_while_its_node_runs() {
    let parent = private();
    let (path, killed) = (parent.path().join("node"), parent.path().join("killed"));
    let ahead = LogWriterOptions::default().ahead_bytes;
    let node = Node::with_region(&path);
    node.write(entries(1, 1..=5, 1));
    let length = || wal(&path).metadata().unwrap().len();
    let deadline = std::time::Instant::now() + PATIENCE;
    while length() < ahead && std::time::Instant::now() < deadline {
        std::thread::yield_now();
    }
    assert!(ahead <= length());
    copy(&path, &killed);
    node.close();
    assert!(length() < ahead, "RocksDB has cut it to what is in it");
    assert_eq!(last_entry(&path).unwrap(), 5);
    assert_eq!(last_entry(&killed).unwrap(), 5);
}

/// One bit of some bytes of the write-ahead log, in turn; of every byte around the last write's begin. Bit 2 of a record's
/// type makes RocksDB hang by itself.
#[test]
fn a_flipped_bit_is_never_overlooked() {
    let killed = Killed::new();
    let (begin, end) = (killed.last_write.start, killed.last_write.end);
    for at in (0..end).filter(|at| at % 7 == 0 || (begin..begin + 20).contains(at)) {
        let path = killed.again(&killed.new_watermark);
        flip(&path, at, if at % 2 == 0 { 2 } else { at % 8 });
        if let Ok(last) = last_entry(&path) {
            assert_eq!(last, 5, "byte {at}");
        }
    }
}

/// The pages of a write whose sync had not returned reach the disk in any order: some of it may be there, some zeroes.
#[test]
fn an_unsynced_last_write_with_holes_is_dropped() {
    let killed = Killed::new();
    for hole in killed.last_write.clone().step_by(8) {
        let path = killed.again(&killed.old_watermark);
        let mut bytes = std::fs::read(wal(&path)).unwrap();
        let hole = usize::try_from(hole).unwrap();
        let end = (hole + 16).min(bytes.len());
        let was_zero = bytes[hole..end].iter().all(|byte| *byte == 0);
        bytes[hole..end].fill(0);
        std::fs::write(wal(&path), bytes).unwrap();
        let expected = if was_zero { 5 } else { 4 };
        assert_eq!(last_entry(&path).unwrap(), expected, "zeroes from byte {hole}");
        assert_eq!(last_entry(&path).unwrap(), expected, "and again at the next start");
    }
}

/// The watermark lags. The record behind the damaged one was written when that was synced, and says so.
#[test]
fn a_synced_write_that_the_watermark_does_not_know_is_not_given_up() {
    let parent = private();
    let path = parent.path().join("node");
    let node = open_tight(&path);
    node.create(REGION);
    let before = std::fs::read(path.join("WATERMARK")).unwrap();
    (1..=4).for_each(|index| node.write(entries(index, index..=index, 1)));
    let begin = wal(&path).metadata().unwrap().len();
    node.write(entries(5, 5..=5, 1));
    node.write(entries(6, 6..=6, 1));
    std::fs::write(path.join("WATERMARK"), before).unwrap();
    let later = parent.path().join("later");
    copy(&path, &later);
    node.close();
    flip(&later, begin + 20, 3);
    let error = refused(&later);
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
    assert!(error.to_string().contains("a later record says"), "{error}");
}

fn flip(path: &Path, at: u64, bit: u64) {
    let mut bytes = std::fs::read(wal(path)).unwrap();
    bytes[usize::try_from(at).unwrap()] ^= 1 << bit;
    std::fs::write(wal(path), bytes).unwrap();
}

/// Damage that RocksDB alone would not report: it would wait for ever, or leave out what lies between.
#[test]
fn damage_that_rocksdb_overlooks_is_refused() {
    let killed = Killed::new();
    let begin = killed.last_write.start;
    let path = killed.again(&killed.new_watermark);
    flip(&path, begin + 6, 2);
    let error = refused(&path);
    assert!(matches!(error, Error::Damaged { .. }), "{error}");

    let path = killed.again(&killed.new_watermark);
    let mut bytes = std::fs::read(wal(&path)).unwrap();
    bytes[..7].fill(0);
    std::fs::write(wal(&path), bytes).unwrap();
    let error = refused(&path);
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
}

#[test]
fn a_deleted_write_ahead_log_is_refused() {
    let killed = Killed::new();
    let path = killed.again(&killed.old_watermark);
    std::fs::remove_file(wal(&path)).unwrap();
    let error = refused(&path);
    assert!(matches!(error, Error::LogBehind { .. }), "{error}");
}

#[test]
fn an_end_of_zeroes_is_refused() {
    let killed = Killed::new();
    let path = killed.again(&killed.new_watermark);
    let mut bytes = std::fs::read(wal(&path)).unwrap();
    bytes[usize::try_from(killed.last_write.start).unwrap()..].fill(0);
    std::fs::write(wal(&path), bytes).unwrap();
    let error = refused(&path);
    assert!(matches!(error, Error::LogBehind { .. }), "{error}");
}

//! A log that lost bytes. The rule: a start either finds all that was promised, or is refused. It may find less only
//! where nobody was promised more: past the watermark.

use crate::support::{Node, REGION, copy, entries, hard_state, open, private, refused, wal};
use rdb_core::raft::LogWrite;
use rdb_storage::Error;
use std::path::{Path, PathBuf};

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
        let node = Node::with_region(&path);
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

fn cut(path: &Path, len: u64) {
    std::fs::OpenOptions::new().write(true).open(wal(path)).unwrap().set_len(len).unwrap();
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
    for len in killed.last_write.clone() {
        let path = killed.again(&killed.old_watermark);
        cut(&path, len);
        assert_eq!(last_entry(&path).unwrap(), 4, "cut at byte {len} of {:?}", killed.last_write);
    }
}

#[test]
fn a_torn_last_write_is_refused_if_it_was_promised() {
    let killed = Killed::new();
    for len in killed.last_write.clone().step_by(4) {
        let path = killed.again(&killed.new_watermark);
        cut(&path, len);
        let error = refused(&path);
        let seen = matches!(error, Error::LogBehind { .. } | Error::Damaged { .. });
        assert!(seen, "cut at byte {len}: {error}");
    }
    let path = killed.again(&killed.new_watermark);
    cut(&path, killed.last_write.start);
    refused(&path);
    let error = refused(&path);
    assert!(matches!(error, Error::LogBehind { .. }), "a second start is refused as the first was: {error}");
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
    let node = Node::with_region(&path);
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

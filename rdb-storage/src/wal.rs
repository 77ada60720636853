//! A look over the log's write-ahead logs before RocksDB opens them: is what was synced whole, and where does the rest
//! end?
//!
//! A power cut may leave the last, unsynced writes half on disk: cut short, full of holes, or with later pages written
//! and earlier ones not. Nobody was promised anything of them, and RocksDB's choice is between dropping synced records
//! behind such a place and refusing to start. So this node decides by itself, by what it knows better:
//!
//! - Every batch ends with its *position*, one more than that of the batch before, and with the position up to which all
//!   was synced when the batch was written.
//! - The watermark says how far the log was synced a moment before the node stopped.
//!
//! The first record that is damaged, missing or cut short ends what can be read. If that is before the watermark, or if
//! an intact record behind it says that it was synced, promised data is lost and the start is refused. If not, the log is
//! cut there, and a copy of what is cut stays in the data directory.
//!
//! It also keeps two faults of RocksDB 11 away: a header of zeroes makes it skip the rest of a block without a word, and
//! a record type of recycled logs, one flipped bit away, makes it read the same record for ever (facebook/rocksdb#13333).
//!
//! ```text
//! a block: records, then zeroes where less than a header's 7 bytes are left
//! a record: crc 4 | length 2, low byte first | type 1 | so many bytes
//! type: 1 a whole batch, 2 its first part, 3 a middle one, 4 the last; the crc is CRC32C of type and bytes, masked
//! ```

use crate::directory;
use crate::error::{Error, Result};
use crate::keys::{self, Position};
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};

pub(crate) const BLOCK_BYTES: usize = 32 * 1024;
pub(crate) const HEADER_BYTES: usize = 7;
/// What RocksDB adds to a checksum, so that a checksum of bytes that hold checksums is not degenerate.
const MASK_DELTA: u32 = 0xa282_ead8;

/// By how many bytes a batch of `bytes` bytes is longer in a log, at most: it has a header in every block that it reaches into, and
/// the first may have been left to zeroes.
pub(crate) fn overhead_bytes_max(bytes: u64) -> u64 {
    let room = (BLOCK_BYTES - HEADER_BYTES) as u64;
    (bytes / room + 2) * HEADER_BYTES as u64 + HEADER_BYTES as u64
}

/// One physical record.
struct Record<'a> {
    kind: u8,
    bytes: &'a [u8],
    end: usize,
}

/// What stands at some place of a file.
enum Found<'a> {
    Record(Record<'a>),
    /// Nothing but zeroes, or nothing at all, up to the end of the file.
    End,
    /// Anything else.
    Damage,
}

/// The batches that can be read without a gap, and where that ends.
#[derive(Debug, PartialEq, Eq)]
struct Intact {
    /// The position of the last one, if there is one.
    last: Option<u64>,
    /// Which file, and the offset in it, where something else begins; `None` if nothing does.
    damage: Option<(usize, usize)>,
}

/// Looks over the write-ahead logs of `database`, and cuts off what was never synced and is damaged. `watermark` is the
/// position up to which all is sure to have been synced. What is cut is copied to `saved` first.
///
/// # Errors
/// What was synced is damaged, or a file cannot be read or written.
pub(crate) fn repair(database: &Path, watermark: u64, saved: &Path) -> Result<()> {
    if cfg!(feature = "bug-wal-point-in-time") {
        return Ok(());
    }
    let paths = directory::logs(database)?;
    let mut files = Vec::with_capacity(paths.len());
    for path in &paths {
        files.push(std::fs::read(path).map_err(Error::io("read", path))?);
    }
    let Intact { last, damage: Some((file, offset)) } = intact(&files) else { return Ok(()) };
    let place = format!("{} at offset {offset}", paths[file].display());
    let intact_to = last.unwrap_or(0);
    if last.is_some_and(|last| last < watermark) {
        return Err(Error::Damaged {
            what: format!("the write-ahead log {place}"),
            problem: format!(
                "the log can be read up to position {intact_to}, but was synced up to {watermark}"
            ),
        });
    }
    if let Some(witness) = witness(&files, file, offset, last) {
        return Err(Error::Damaged {
            what: format!("the write-ahead log {place}"),
            problem: format!(
                "the log can be read up to position {intact_to}, but a later record says that it was synced up to \
                 {witness}"
            ),
        });
    }
    tracing::warn!(
        place,
        intact_to,
        "the log's unsynced end is damaged, as after a power cut; it is cut off"
    );
    cut(&paths[file..], offset, saved)
}

/// What a file is found to be, for `rdb-fuzz`: the last position up to which it is whole; and whether it is so to its end, or else
/// what it says further on that was synced.
pub(crate) fn looked_over(file: Vec<u8>) -> (Option<u64>, Option<Option<u64>>) {
    let files = [file];
    let Intact { last, damage } = intact(&files);
    (last, damage.map(|(file, offset)| witness(&files, file, offset, last)))
}

/// Walks from batch to batch until one does not follow the one before.
fn intact(files: &[Vec<u8>]) -> Intact {
    let mut last: Option<u64> = None;
    for (number, file) in files.iter().enumerate() {
        let mut at = 0;
        loop {
            match next_batch(file, at, None) {
                Ok(None) => break,
                Ok(Some((end, position))) => {
                    if let (Some(last), Some(position)) = (last, position)
                        && Some(position.at) != last.checked_add(1)
                    {
                        return Intact { last: Some(last), damage: Some((number, at)) };
                    }
                    last = position.map(|position| position.at).or(last);
                    at = end;
                }
                Err(()) => return Intact { last, damage: Some((number, at)) },
            }
        }
    }
    Intact { last, damage: None }
}

/// The batch at `at`: where it ends, and its position where it has one; `None` at the end of the file. `parts` is what
/// came before of a batch that is cut in several: `Some`, though empty, where the walk begins in the midst of one.
fn next_batch(
    file: &[u8],
    at: usize,
    mut parts: Option<Vec<u8>>,
) -> std::result::Result<Option<(usize, Option<Position>)>, ()> {
    let mut at = at;
    loop {
        match record(file, at) {
            Found::End if parts.is_some() => return Err(()),
            Found::End => return Ok(None),
            Found::Damage => return Err(()),
            Found::Record(Record { kind, bytes, end }) => {
                match (kind, &mut parts) {
                    (1, None) => return Ok(Some((end, keys::position_of_batch(bytes)))),
                    (2, None) => parts = Some(bytes.to_vec()),
                    (3, Some(parts)) => parts.extend_from_slice(bytes),
                    // Joined, for the last part alone may be shorter than the position.
                    (4, Some(parts)) => {
                        parts.extend_from_slice(bytes);
                        return Ok(Some((end, keys::position_of_batch(parts))));
                    }
                    _ => return Err(()),
                }
                at = end;
            }
        }
    }
}

/// The record at `at`, or after the zeroes that fill the block.
fn record(file: &[u8], at: usize) -> Found<'_> {
    let room = BLOCK_BYTES - at % BLOCK_BYTES;
    let begin = if room < HEADER_BYTES { at + room } else { at };
    let rest = file.get(begin..).unwrap_or_default();
    if rest.iter().all(|byte| *byte == 0) {
        return Found::End;
    }
    let Some((header, rest)) = rest.split_at_checked(HEADER_BYTES) else { return Found::Damage };
    let len = usize::from(u16::from_le_bytes([header[4], header[5]]));
    let kind = header[6];
    let fits = HEADER_BYTES + len <= BLOCK_BYTES - begin % BLOCK_BYTES;
    let Some(bytes) = rest.get(..len).filter(|_| fits && (1..=4).contains(&kind)) else {
        return Found::Damage;
    };
    if checksum(kind, bytes) == header[..4] {
        Found::Record(Record { kind, bytes, end: begin + HEADER_BYTES + len })
    } else {
        Found::Damage
    }
}

/// The checksum of a record, as it stands in its header.
pub(crate) fn checksum(kind: u8, bytes: &[u8]) -> [u8; 4] {
    let crc = crc32c::crc32c_append(crc32c::crc32c(&[kind]), bytes);
    crc.rotate_right(15).wrapping_add(MASK_DELTA).to_le_bytes()
}

/// The highest position after `last` that an intact batch behind the damage, or the intact end of one, says was synced.
/// Where a batch is missing, what follows is itself intact. Lengths cannot be trusted there, so every offset is tried as a
/// beginning.
fn witness(files: &[Vec<u8>], file: usize, offset: usize, last: Option<u64>) -> Option<u64> {
    let mut synced = None;
    for (number, bytes) in files.iter().enumerate().skip(file) {
        let mut at = if number == file { offset } else { 0 };
        while at + HEADER_BYTES < bytes.len() {
            match next_batch(bytes, at, None).or_else(|()| next_batch(bytes, at, Some(Vec::new()))) {
                Ok(Some((end, position))) => {
                    let told = position.filter(|position| position.synced < position.at);
                    synced = synced.max(told.map(|position| position.synced));
                    at = end;
                }
                Ok(None) => break,
                // No record begins with as many zeroes as a header has bytes.
                Err(()) => {
                    let zeroes = bytes[at..].iter().take_while(|byte| **byte == 0).count();
                    at += zeroes.saturating_sub(HEADER_BYTES).max(1);
                }
            }
        }
    }
    synced.filter(|synced| last.unwrap_or(0) < *synced)
}

/// Ends the first log at `offset` and empties the later ones, all synced.
fn cut(paths: &[PathBuf], offset: usize, saved: &Path) -> Result<()> {
    for (number, path) in paths.iter().enumerate() {
        let name = path.file_name().unwrap_or_default();
        let mut copy = saved.as_os_str().to_owned();
        copy.push("-");
        copy.push(name);
        std::fs::copy(path, &copy).map_err(Error::io("copy", path))?;
        let keep = if number == 0 { offset as u64 } else { 0 };
        let file = OpenOptions::new().write(true).open(path).map_err(Error::io("open", path))?;
        file.set_len(keep).and_then(|()| file.sync_all()).map_err(Error::io("cut", path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(kind: u8, bytes: &[u8]) -> Vec<u8> {
        let mut record = checksum(kind, bytes).to_vec();
        record.extend_from_slice(&u16::try_from(bytes.len()).unwrap().to_le_bytes());
        record.push(kind);
        record.extend_from_slice(bytes);
        record
    }

    fn batch(at: u64, synced: u64) -> Vec<u8> {
        let mut bytes = vec![7; 40];
        bytes.extend_from_slice(&[1, 8]);
        bytes.extend_from_slice(keys::LOG_POSITION);
        bytes.push(16);
        bytes.extend_from_slice(&Position { at, synced }.encode());
        framed(1, &bytes)
    }

    fn log(range: std::ops::RangeInclusive<u64>) -> Vec<u8> {
        range.flat_map(|at| batch(at, at - 1)).collect()
    }

    #[test]
    fn a_whole_log_is_whole_with_and_without_zeroes_behind() {
        for tail in [0, 3, 100] {
            let file = [log(5..=9), vec![0; tail]].concat();
            assert_eq!(intact(&[file]), Intact { last: Some(9), damage: None });
        }
        assert_eq!(intact(&[log(5..=6), log(7..=9), vec![]]), Intact { last: Some(9), damage: None });
        let ahead = [log(5..=6), vec![0; 100_000]].concat();
        assert_eq!(intact(&[ahead, log(7..=9)]), Intact { last: Some(9), damage: None });
    }

    #[test]
    fn a_record_cut_short_ends_it_at_its_beginning() {
        let whole = log(5..=8);
        for cut in 1..batch(9, 8).len() {
            let file = [whole.clone(), batch(9, 8)[..cut].to_vec()].concat();
            assert_eq!(intact(&[file]), Intact { last: Some(8), damage: Some((0, whole.len())) }, "{cut}");
        }
    }

    #[test]
    fn a_gap_between_positions_is_damage_and_so_is_a_hole() {
        let gap = [log(5..=6), log(8..=9)].concat();
        assert_eq!(intact(&[gap]).damage, Some((0, log(5..=6).len())));
        let mut hole = log(5..=9);
        hole[..7].fill(0);
        assert_eq!(intact(&[hole]), Intact { last: None, damage: Some((0, 0)) });
    }

    /// Batch 7 is damaged. Batch 9, if it is there, says that 8 was synced; batch 8 says that 7 was.
    #[test]
    fn a_later_record_bears_witness_that_what_is_damaged_was_synced() {
        let before = log(5..=6).len();
        let mut file = log(5..=9);
        file[before + 20] ^= 4;
        assert_eq!(witness(std::slice::from_ref(&file), 0, before, Some(6)), Some(8));
        file.truncate(before + batch(7, 6).len());
        assert_eq!(witness(&[file], 0, before, Some(6)), None);
    }

    /// The end of one file is lost; what is damaged is a gap before an intact batch, which says so itself.
    #[test]
    fn the_batch_after_a_gap_bears_witness_too() {
        let files = [[log(5..=6), vec![0; 100]].concat(), batch(9, 8)];
        let Intact { last, damage: Some((file, offset)) } = intact(&files) else { panic!("no gap") };
        assert_eq!((last, file, offset), (Some(6), 1, 0));
        assert_eq!(witness(&files, file, offset, last), Some(8));
    }

    /// The witness may lie across a block's end, and its first part may be what is damaged.
    #[test]
    fn a_witness_in_several_parts_is_heard_too() {
        let before = log(5..=6);
        let mut damaged = batch(7, 6);
        damaged[20] ^= 4;
        let whole = &batch(8, 7)[HEADER_BYTES..];
        for split in 1..whole.len() {
            let parts = [framed(2, &whole[..split]), framed(4, &whole[split..])].concat();
            let file = [before.clone(), damaged.clone(), parts].concat();
            assert_eq!(witness(&[file], 0, before.len(), Some(6)), Some(7), "split at {split}");
        }
        let mut parts = [framed(2, &[1; 9]), framed(3, &[2; 9]), framed(4, whole)].concat();
        parts[HEADER_BYTES] ^= 4;
        assert_eq!(witness(&[[before.clone(), parts].concat()], 0, before.len(), Some(6)), Some(7));
    }

    /// Three batches in one sync: what was written later says nothing about what came before.
    #[test]
    fn unsynced_records_in_any_state_bear_no_witness() {
        let before = log(5..=6);
        let mut tail = [batch(7, 6), batch(8, 6), batch(9, 6)].concat();
        tail[20] ^= 4;
        let file = [before.clone(), tail].concat();
        assert_eq!(witness(&[file], 0, before.len(), Some(6)), None);
    }

    #[test]
    fn a_batch_of_many_records_is_one() {
        let mut end = vec![7; 10];
        end.extend_from_slice(&batch(5, 4)[HEADER_BYTES..]);
        let file = [framed(2, &[1; 100]), framed(3, &[2; 100]), framed(4, &end)].concat();
        assert_eq!(intact(std::slice::from_ref(&file)), Intact { last: Some(5), damage: None });
        assert_eq!(intact(&[file[..200].to_vec()]).damage, Some((0, 0)));
    }

    /// A batch is split where a block ends, wherever in the batch that is: in the position's bytes, too.
    #[test]
    fn a_batch_split_anywhere_has_its_position() {
        let whole = &batch(6, 5)[HEADER_BYTES..];
        for split in 1..whole.len() {
            let parts = [framed(2, &whole[..split]), framed(4, &whole[split..])].concat();
            let file = [log(5..=5), parts, log(7..=8)].concat();
            assert_eq!(intact(&[file]), Intact { last: Some(8), damage: None }, "split at {split}");
        }
    }
}

//! A look over the log's write-ahead logs before RocksDB opens them, for two kinds of damage that it does not report.
//!
//! - A header of zeroes makes it skip the rest of the 32 KiB block without a word: an old way to preallocate files.
//!   At the end of a log that is right. Before the end it is a hole: what comes after is replayed, as if nothing were
//!   missing, so the watermark does not notice either.
//! - A record type of recycled logs, among others, makes RocksDB 11 read the same record again for ever
//!   (facebook/rocksdb#13333). One flipped bit is enough. We recycle no logs, so such a type is damage.
//!
//! All else is left to RocksDB: checksums, and a record that the end of the file cuts short.
//!
//! ```text
//! a block: records, then zeroes where less than a header's 7 bytes are left
//! a record: crc 4 | length 2, low byte first | type 1 | so many bytes
//! ```

use crate::error::{Error, Result};
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

const BLOCK_BYTES: usize = 32 * 1024;
const HEADER_BYTES: usize = 7;
/// A whole record, and the first, middle and last part of one.
const TYPES: std::ops::RangeInclusive<u8> = 1..=4;

/// Refuses damage that RocksDB would not report.
pub(crate) fn check(database: &Path) -> Result<()> {
    for item in std::fs::read_dir(database).map_err(Error::io("list", database))? {
        let path = item.map_err(Error::io("list", database))?.path();
        if path.extension().is_some_and(|ending| ending == "log") {
            check_file(&path)?;
        }
    }
    Ok(())
}

fn check_file(path: &Path) -> Result<()> {
    let mut file = File::open(path).map_err(Error::io("open", path))?;
    let mut block = Vec::with_capacity(BLOCK_BYTES);
    let (mut before, mut zeroes) = (0, false);
    loop {
        block.clear();
        let read = file.by_ref().take(BLOCK_BYTES as u64).read_to_end(&mut block);
        if read.map_err(Error::io("read", path))? == 0 {
            return Ok(());
        }
        check_block(&block, &mut zeroes).map_err(|at| Error::Damaged {
            what: format!("the write-ahead log {}", path.display()),
            problem: format!("bytes were changed near offset {}", before + at),
        })?;
        before += block.len();
    }
}

/// Walks over one block. `zeroes`: whether a header of zeroes was met, after which only zeroes may come. The error is
/// the offset of what is wrong.
fn check_block(block: &[u8], zeroes: &mut bool) -> std::result::Result<(), usize> {
    let mut at = 0;
    while let Some(header) = block.get(at..at + HEADER_BYTES)
        && !*zeroes
    {
        let len = usize::from(u16::from_le_bytes([header[4], header[5]]));
        match header[6] {
            0 if len == 0 => *zeroes = true,
            known if TYPES.contains(&known) => at += HEADER_BYTES + len,
            _ => return Err(at),
        }
    }
    let clean = !*zeroes || block.get(at..).unwrap_or_default().iter().all(|byte| *byte == 0);
    if clean { Ok(()) } else { Err(at) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u8, len: u16) -> Vec<u8> {
        let mut bytes = vec![9; 4];
        bytes.extend_from_slice(&len.to_le_bytes());
        bytes.push(kind);
        bytes.resize(HEADER_BYTES + usize::from(len), 7);
        bytes
    }

    #[test]
    fn records_torn_ends_and_zeroes_at_the_end_pass() {
        let whole = [record(1, 10), record(2, 3)].concat();
        let zeroed = [whole.clone(), vec![0; 50]].concat();
        for block in [&whole[..], &whole[..15], &whole[..20], &whole[..26], &zeroed[..], &[]] {
            assert_eq!(check_block(block, &mut false), Ok(()), "{block:?}");
        }
        assert_eq!(check_block(&[0; 20], &mut true), Ok(()));
    }

    #[test]
    fn holes_and_unknown_types_do_not() {
        let hole = [record(1, 10), vec![0; 7], record(1, 10)].concat();
        assert_eq!(check_block(&hole, &mut false), Err(17));
        assert_eq!(check_block(&record(1, 10), &mut true), Err(0), "a block after zeroes");
        for kind in [5, 8, 9, 11, 0, 255] {
            let block = [record(1, 10), record(kind, 10)].concat();
            assert_eq!(check_block(&block, &mut false), Err(17), "type {kind}");
        }
    }
}

//! Write-ahead logs that the log database needs no longer, removed bit by bit.
//!
//! To remove a file of a hundred megabytes at once holds up the file system's journal, and with it every sync, for as long
//! as it takes to free its blocks: tens of milliseconds where the disk is told of them. So RocksDB only puts such files
//! aside, under `log/archive`, and here they are cut shorter a little at a time. Nothing ever reads them again: a crash may
//! leave them as long as they were, or shorter, and the next start goes on.

use crate::directory;
use crate::error::{Error, Result};
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};

/// Where RocksDB puts them, in its database's folder.
const ARCHIVE: &str = "archive";
/// Bytes cut off at a time, at least: about a millisecond's work of a disk.
const STEP_BYTES_MIN: u64 = 1 << 20;
/// The more there is the larger the steps, so that it never piles up: this part of it at a time.
const STEPS: u64 = 32;

/// The files that were put aside. Cheap to clone.
#[derive(Debug, Clone)]
pub struct DroppedLogs {
    folder: PathBuf,
}

/// How much to remove at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// A little, so that nobody waits for it.
    Step,
    /// All of it, for the sake of the space.
    Everything,
}

impl DroppedLogs {
    pub(crate) fn of(log: &Path) -> Self {
        Self { folder: log.join(ARCHIVE) }
    }

    /// Removes some of it. Returns the bytes that are left.
    ///
    /// # Errors
    /// The file system refused. They can stay where they are; it is only their space that is lost.
    pub fn remove(&self, how: Removal) -> Result<u64> {
        let files = self.files()?;
        let total: u64 = files.iter().map(|(_, bytes)| bytes).sum();
        let mut to_remove = match how {
            Removal::Step => STEP_BYTES_MIN.max(total / STEPS),
            Removal::Everything => u64::MAX,
        };
        let (mut left, mut failed) = (total, None);
        for (path, bytes) in files {
            if to_remove == 0 {
                break;
            }
            let removed = bytes.min(to_remove);
            match remove(&path, bytes, removed) {
                Ok(()) => (to_remove, left) = (to_remove - removed, left - removed),
                // One that cannot be removed must not keep the others.
                Err(error) => failed = failed.or(Some(Error::io("remove a part of", &path)(error))),
            }
        }
        failed.map_or(Ok(left), Err)
    }

    /// The oldest first. RocksDB makes the folder when it has something to put there.
    fn files(&self) -> Result<Vec<(PathBuf, u64)>> {
        if !self.folder.exists() {
            return Ok(Vec::new());
        }
        let names = directory::names(&self.folder)?.into_iter().filter(|name| name.ends_with(".log"));
        let paths = names.map(|name| self.folder.join(name));
        let length = |path: PathBuf| {
            let bytes = path.metadata().map_err(Error::io("look at", &path))?.len();
            Ok((path, bytes))
        };
        paths.map(length).collect()
    }
}

/// Cuts so many of a file's bytes off its end, or removes it if none are left.
fn remove(path: &Path, bytes: u64, removed: u64) -> std::io::Result<()> {
    if removed == bytes {
        return std::fs::remove_file(path);
    }
    OpenOptions::new().write(true).open(path)?.set_len(bytes - removed)
}

//! The data directory as the operating system sees it: where things lie, who may look, who holds it, how full it is.

use crate::error::{Error, Result};
use rustix::fs::{FlockOperation, OFlags};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// The log database.
pub(crate) const LOG: &str = "log";
/// The data database.
pub(crate) const DATA: &str = "data";
/// Whose directory this is.
pub(crate) const IDENTITY: &str = "IDENTITY";
/// The identity of a directory that is being initialised: see `initialise.rs`.
pub(crate) const IDENTITY_NEW: &str = "IDENTITY.new";
/// The next contents of the identity file.
pub(crate) const IDENTITY_TEMPORARY: &str = "IDENTITY.tmp";
/// Another node has refused this directory.
pub(crate) const OUTDATED: &str = "OUTDATED";
/// What this node has seen of the others' directories.
pub(crate) const PEERS: &str = "PEERS";
/// Its next contents.
pub(crate) const PEERS_TEMPORARY: &str = "PEERS.tmp";
/// How far the log was synced.
pub(crate) const WATERMARK: &str = "WATERMARK";
/// Snapshots of other nodes, while they come.
pub(crate) const INCOMING: &str = "incoming";
/// Opened and removed at a start, to see what the file system can do.
const DIRECT_PROBE: &str = "direct-io.tmp";
/// Held by the process that uses the directory.
pub(crate) const LOCK: &str = "LOCK";

/// Permission bits that let others than the owner in.
const OTHERS: u32 = 0o077;

/// The directory, held by this process until dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

/// Makes the directory if it is not there, refuses it if others may look inside, and takes its lock.
pub(crate) fn enter(path: &Path) -> Result<Lock> {
    if !path.exists() {
        create(path)?;
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            sync(parent)?;
        }
    }
    let mode = path.metadata().map_err(Error::io("look at the data directory", path))?.mode() & 0o777;
    if mode & OTHERS != 0 {
        return Err(Error::NotPrivate { path: path.to_path_buf(), mode });
    }
    let file = path.join(LOCK);
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&file)
        .map_err(Error::io("open the lock file", &file))?;
    match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Lock { _file: lock }),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(Error::Locked(path.to_path_buf())),
        Err(errno) => Err(Error::io("lock", &file)(errno.into())),
    }
}

/// Makes a directory that only its owner may enter, and its parents.
pub(crate) fn create(path: &Path) -> Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(Error::io("make the directory", path))
}

/// Makes names that were added to or removed from a directory survive a power cut.
pub(crate) fn sync(path: &Path) -> Result<()> {
    let synced = File::open(path).and_then(|directory| directory.sync_all());
    synced.map_err(Error::io("sync the directory", path))
}

/// Writes a whole file and syncs it; its name is not synced yet.
pub(crate) fn write_synced(path: &Path, bytes: &[u8]) -> Result<()> {
    let write = || {
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(Error::io("write", path))
}

/// Renames a file within its directory, for good.
pub(crate) fn rename_synced(directory: &Path, from: &str, to: &str) -> Result<()> {
    let from = directory.join(from);
    std::fs::rename(&from, directory.join(to)).map_err(Error::io("rename", &from))?;
    sync(directory)
}

/// Whether a RocksDB database was ever finished there. RocksDB makes `CURRENT` last.
pub(crate) fn has_database(path: &Path) -> bool {
    path.join("CURRENT").is_file()
}

/// Whether files there can be written past the system's page cache.
pub(crate) fn takes_direct_io(path: &Path) -> bool {
    let probe = path.join(DIRECT_PROBE);
    let flags = i32::try_from(OFlags::DIRECT.bits()).unwrap_or_default();
    let opened = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .custom_flags(flags)
        .open(&probe);
    // One that stays is truncated by the next start.
    let _ = std::fs::remove_file(&probe);
    opened.is_ok()
}

/// The names in a directory, sorted.
pub(crate) fn names(path: &Path) -> Result<Vec<String>> {
    let list = || {
        std::fs::read_dir(path)?
            .map(|item| Ok(item?.file_name().to_string_lossy().into_owned()))
            .collect::<std::io::Result<Vec<_>>>()
    };
    let mut names = list().map_err(Error::io("list", path))?;
    names.sort();
    Ok(names)
}

/// The write-ahead logs of a database, the oldest first.
pub(crate) fn logs(database: &Path) -> Result<Vec<PathBuf>> {
    let names = names(database)?;
    let mut logs: Vec<(u64, PathBuf)> = names
        .iter()
        .filter_map(|name| Some((name.strip_suffix(".log")?.parse().ok()?, database.join(name))))
        .collect();
    logs.sort();
    Ok(logs.into_iter().map(|(_, path)| path).collect())
}

/// How full the file system under a data directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskSpace {
    /// Its size.
    pub total_bytes: u64,
    /// What this process may still write; less than what is free where some is kept for the administrator.
    pub available_bytes: u64,
}

impl DiskSpace {
    /// Asks the file system that `path` lies on.
    pub(crate) fn of(path: &Path) -> Result<Self> {
        let stat = rustix::fs::statvfs(path)
            .map_err(|errno| Error::io("ask for the free space of", &PathBuf::from(path))(errno.into()))?;
        Ok(Self {
            total_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
            available_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
        })
    }
}

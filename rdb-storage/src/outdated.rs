//! The mark on a directory that another node has found to be older than it was: the OUTDATED file.
//!
//! Each start and each write takes a directory further, also one that was put back from a backup. So one that was refused could pass
//! for the true one after enough of them, though it has forgotten what others count on. With the mark it is never started again.

use crate::directory::{self, OUTDATED};
use crate::error::{Error, Result};
use std::path::{Path, PathBuf};

/// Where the mark goes.
#[derive(Debug, Clone)]
pub struct OutdatedMark(PathBuf);

impl OutdatedMark {
    pub(crate) fn of(directory: &Path) -> Self {
        Self(directory.to_path_buf())
    }

    /// Marks the directory, for good. `reason`: what the other node said.
    ///
    /// # Errors
    /// It cannot be written, and the directory may not be marked.
    pub fn set(&self, reason: &str) -> Result<()> {
        let text = format!("Another node has refused this directory: {reason}\n");
        directory::write_synced(&self.0.join(OUTDATED), text.as_bytes())?;
        directory::sync(&self.0)
    }
}

/// Refuses a directory that is marked.
pub(crate) fn check(directory: &Path) -> Result<()> {
    let path = directory.join(OUTDATED);
    match std::fs::read(&path) {
        Ok(said) => Err(Error::Outdated { path, said: String::from_utf8_lossy(&said).trim().to_owned() }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::io("read", &path)(error)),
    }
}

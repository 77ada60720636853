//! What a node's process holds, as the kernel tells it: read from outside, so that a node which hangs is measured, too.

use super::process::resident_bytes;
use crate::history::Used;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// What the system counts room on disks in.
const BLOCK_BYTES: u64 = 512;

/// One node's, whichever process it is by now.
#[derive(Debug, Clone)]
pub(crate) struct Meter {
    /// 0: none.
    process: Arc<AtomicU32>,
    data: PathBuf,
}

impl Meter {
    /// Of a node that does not run yet, and keeps its data there.
    pub(super) fn new(data: &Path) -> Self {
        Self { process: Arc::default(), data: data.to_owned() }
    }

    /// From now on it is this process.
    pub(super) fn begins(&self, process: u32) {
        self.process.store(process, Ordering::Relaxed);
    }

    /// It is gone, or about to be.
    pub(super) fn ends(&self) {
        self.process.store(0, Ordering::Relaxed);
    }

    /// What the node holds now; `None` where it does not run, or ends while it is looked at. Takes time: it looks at each of the
    /// node's files.
    pub(crate) fn read(&self) -> Option<Used> {
        let process = Some(self.process.load(Ordering::Relaxed)).filter(|process| *process != 0)?;
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
        let open_files = std::fs::read_dir(format!("/proc/{process}/fd")).ok()?.count() as u64;
        let data_bytes = bytes_in(&self.data);
        // Whoever has ended meanwhile, and whose number another process may have, is not measured.
        let is_same = self.process.load(Ordering::Relaxed) == process;
        let used = Used { process, resident_bytes: resident_bytes(&status)?, open_files, data_bytes };
        is_same.then_some(used)
    }
}

/// The room that a folder's files take. What goes while it is looked at takes none.
fn bytes_in(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let bytes = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_in(&entry.path()),
        Ok(metadata) => metadata.blocks() * BLOCK_BYTES,
        Err(_) => 0,
    };
    entries.map(bytes).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_measured_while_it_is_the_nodes() {
        let data = tempfile::TempDir::new().unwrap();
        std::fs::create_dir(data.path().join("within")).unwrap();
        std::fs::write(data.path().join("within/file"), vec![1; 100_000]).unwrap();
        let meter = Meter::new(data.path());
        assert_eq!(meter.read(), None);
        meter.begins(std::process::id());
        let used = meter.read().unwrap();
        assert!(0 < used.resident_bytes && 0 < used.open_files && 100_000 <= used.data_bytes, "{used:?}");
        meter.ends();
        assert_eq!(meter.read(), None);
    }
}

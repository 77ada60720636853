//! One server.

use anyhow::{Context as _, Result};
use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Lines of each log that are shown of a server that does not become ready.
const LAST_LINES: usize = 5;

/// A process that is killed when this is dropped.
pub(super) struct Process {
    child: Child,
}

impl Process {
    pub(super) fn start(mut command: Command, log: &Path) -> Result<Self> {
        let output = File::create(log)?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child =
            command.spawn().with_context(|| format!("cannot start {}", command.get_program().display()))?;
        Ok(Self { child })
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The most that it has held so far. `None`: it is gone.
    pub(super) fn memory_kib_max(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        line.split_ascii_whitespace().next()?.parse().ok()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // One that has ended by itself needs no more.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The ends of all logs of a folder.
pub(super) fn last_words(folder: &Path) -> String {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let logs = files.filter(|file| file.path().extension().is_some_and(|extension| extension == "log"));
    let ends = logs.map(|file| {
        let text = std::fs::read_to_string(file.path()).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        let end = lines[lines.len().saturating_sub(LAST_LINES)..].join("\n");
        format!("{}:\n{end}\n", file.path().display())
    });
    ends.collect()
}

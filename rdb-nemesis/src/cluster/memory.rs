//! Caps on the memory of one process: control groups of the kernel's first version, in which what a process takes is counted from the
//! moment it is put there. Needs root.

use anyhow::{Context as _, Result};
use std::path::{Path, PathBuf};

/// Where the kernel shows the groups.
const GROUPS: &str = "/sys/fs/cgroup/memory";

/// A cap on a process, taken off when dropped.
#[derive(Debug)]
pub(super) struct Cap {
    folder: PathBuf,
}

impl Cap {
    /// A group of this name that holds nobody yet, and whose processes may take so many bytes.
    ///
    /// It lies within this program's own group, so that what holds for this program holds for whom it starts.
    fn new(name: &str, bytes: u64) -> Result<Self> {
        let folder = own_group()?.join(format!("{name}-{}", std::process::id()));
        std::fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let cap = Self { folder };
        cap.write("memory.limit_in_bytes", bytes)?;
        Ok(cap)
    }

    /// Lets a process take so many bytes from now on. Past them the kernel kills it.
    pub(super) fn on(process: u32, name: &str, bytes: u64) -> Result<Self> {
        let cap = Self::new(name, bytes)?;
        cap.write("cgroup.procs", u64::from(process))?;
        Ok(cap)
    }

    /// How many processes the kernel has killed for it.
    pub(super) fn kills(&self) -> Result<u64> {
        let told = std::fs::read_to_string(self.folder.join("memory.oom_control"))?;
        let count = told.lines().find_map(|line| line.strip_prefix("oom_kill "));
        Ok(count.context("memory.oom_control tells no oom_kill")?.trim().parse()?)
    }

    fn write(&self, file: &str, number: u64) -> Result<()> {
        let path = self.folder.join(file);
        std::fs::write(&path, number.to_string()).with_context(|| format!("cannot write {}", path.display()))
    }
}

impl Drop for Cap {
    fn drop(&mut self) {
        // Who lives in it yet goes on without it; a group that holds somebody cannot be removed.
        let held = std::fs::read_to_string(self.folder.join("cgroup.procs")).unwrap_or_default();
        for process in held.lines() {
            let _ = std::fs::write(self.folder.join("../cgroup.procs"), process);
        }
        let _ = std::fs::remove_dir(&self.folder);
    }
}

/// The group that this program is in.
fn own_group() -> Result<PathBuf> {
    let groups = std::fs::read_to_string("/proc/self/cgroup")?;
    let ours = group_in(&groups).context("memory is not counted by groups of the first version here")?;
    Ok(Path::new(GROUPS).join(ours.trim_start_matches('/')))
}

fn group_in(groups: &str) -> Option<&str> {
    let mut fields = groups.lines().map(|line| line.splitn(3, ':').skip(1));
    fields.find_map(|mut line| line.next()?.split(',').any(|kind| kind == "memory").then(|| line.next())?)
}

/// Whether memory can be capped here: tries it, with nobody in it.
///
/// # Errors
/// Why not.
pub(crate) fn try_one() -> Result<()> {
    const TRIAL_BYTES: u64 = 64 << 20;
    Cap::new("flaredb-nemesis-try", TRIAL_BYTES)?.kills().map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_writes() {
        assert_eq!(group_in("8:pids:/a\n4:memory:/b/c:d\n0::/\n"), Some("/b/c:d"));
        assert_eq!(group_in("4:cpu,memory:/b\n"), Some("/b"));
        assert_eq!(group_in("0::/b\n"), None);
    }
}

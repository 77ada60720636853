//! Disks of a test's own, to be filled up or to stand still. Both need root: elsewhere a test that wants one is skipped, and
//! says so.

use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// A file system of its own, unmounted when dropped.
pub struct Disk {
    folder: TempDir,
    /// What the file system lies in, if it is not memory.
    image: Option<TempDir>,
    fillers: usize,
}

impl Disk {
    /// A small one, in memory; `None` where this may not be mounted.
    pub fn mount(mib: u64) -> Option<Self> {
        let folder = TempDir::with_prefix("flaredb-disk-").unwrap();
        let size = format!("size={mib}m");
        run("mount", &["-t", "tmpfs", "-o", &size, "tmpfs", path(folder.path())])?;
        Some(Self { folder, image: None, fillers: 0 })
    }

    /// One that can be frozen: ext4 in a file.
    pub fn mount_ext4(mib: u64) -> Option<Self> {
        let (folder, images) =
            (TempDir::with_prefix("flaredb-disk-").unwrap(), TempDir::with_prefix("flaredb-image-").unwrap());
        let image = images.path().join("image");
        std::fs::File::create(&image).unwrap().set_len(mib << 20).unwrap();
        run("mkfs.ext4", &["-q", "-F", path(&image)])?;
        run("mount", &["-o", "loop", path(&image), path(folder.path())])?;
        Some(Self { folder, image: Some(images), fillers: 0 })
    }

    /// A folder on it for a node.
    pub fn node(&self) -> PathBuf {
        self.folder.path().join("node")
    }

    /// Fills it with something that is not the node's, but for so many bytes.
    pub fn fill_but_for(&mut self, left: u64) {
        let space = rustix::fs::statvfs(self.folder.path()).unwrap();
        let bytes = (space.f_bavail * space.f_frsize).saturating_sub(left);
        let filler = self.folder.path().join(format!("filler-{}", self.fillers));
        std::fs::write(filler, vec![1; usize::try_from(bytes).unwrap()]).unwrap();
        self.fillers += 1;
    }

    /// Removes what it was filled with.
    pub fn free(&mut self) {
        for filler in 0..std::mem::take(&mut self.fillers) {
            std::fs::remove_file(self.folder.path().join(format!("filler-{filler}"))).unwrap();
        }
    }

    /// Nothing is written to it any more: who tries waits, and cannot even be killed, until what is returned is dropped. So
    /// that must come before the nodes' end.
    pub fn freeze(&self) -> Option<Frozen> {
        assert!(self.image.is_some(), "a file system in memory cannot be frozen");
        run("fsfreeze", &["--freeze", path(self.folder.path())])?;
        Some(Frozen(self.folder.path().to_owned()))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a node that was just killed may still have it open for a moment.
        let _ = Command::new("umount").arg("-l").arg(self.folder.path()).status();
    }
}

/// A disk that stands still until this is dropped.
pub struct Frozen(PathBuf);

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = Command::new("fsfreeze").arg("--unfreeze").arg(&self.0).status();
    }
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// `None`, and the reason is printed, where the program is not there or may not do that.
fn run(program: &str, arguments: &[&str]) -> Option<()> {
    match Command::new(program).args(arguments).output() {
        Ok(output) if output.status.success() => Some(()),
        Ok(output) => {
            println!("SKIPPED: {program}: {}", String::from_utf8_lossy(&output.stderr).trim());
            None
        }
        Err(error) => {
            println!("SKIPPED: {program} cannot be run: {error}");
            None
        }
    }
}

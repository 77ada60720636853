//! A disk whose power can be cut: an ext4 file system in a loop file. Needs root.

use anyhow::{Context as _, Result, bail};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

/// Sparse, so that it takes what the node writes.
const DISK_BYTES: u64 = 3 << 30;
const UNMOUNT_TRIES: u32 = 100;
const UNMOUNT_PAUSE: Duration = Duration::from_millis(100);
/// A file system must not stay frozen because the nemesis was killed: no process that uses it could be ended.
const REMINDER: &str = "sleep 60; fsfreeze --unfreeze \"$1\"";
/// The shutdown call is an ioctl, and this workspace has no unsafe code.
const POWERCUT_SOURCE: &str = include_str!("../../../scripts/tools/powercut.c");

/// A mounted file system, unmounted when dropped.
pub(crate) struct Disk {
    image: PathBuf,
    folder: PathBuf,
    powercut: PathBuf,
    mounted: bool,
    /// Thaws it if nobody else does.
    frozen: Option<Child>,
}

impl Disk {
    /// Makes a file system in `image` and mounts it at `folder`.
    pub(crate) fn make(image: PathBuf, folder: PathBuf, powercut: PathBuf) -> Result<Self> {
        std::fs::File::create(&image)?.set_len(DISK_BYTES)?;
        std::fs::create_dir_all(&folder)?;
        command(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image))?;
        let mut disk = Self { image, folder, powercut, mounted: false, frozen: None };
        disk.mount()?;
        Ok(disk)
    }

    /// Where it is mounted.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Drops all that was not synced and ends all writing.
    pub(crate) fn cut_power(&self) -> Result<()> {
        command(Command::new(&self.powercut).arg(&self.folder))
    }

    /// Takes it away and brings it back, as a restart of the machine does.
    pub(crate) fn remount(&mut self) -> Result<()> {
        self.unmount()?;
        self.mount()
    }

    /// Fills it but for so many bytes, with what takes no room on the disk that the image lies on.
    pub(super) fn fill(&self, but_for: u64) -> Result<()> {
        let space = rustix::fs::statvfs(&self.folder)?;
        let free = space.f_bavail * space.f_frsize;
        let bytes = free.checked_sub(but_for).with_context(|| format!("{free} bytes are free already"))?;
        let filler = std::fs::File::create(self.filler())?;
        Ok(rustix::fs::fallocate(filler, rustix::fs::FallocateFlags::empty(), 0, bytes)?)
    }

    /// Undoes that.
    pub(super) fn free(&self) -> Result<()> {
        match std::fs::remove_file(self.filler()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    fn filler(&self) -> PathBuf {
        self.folder.join("filler")
    }

    /// Nothing is written to it any more: who tries waits.
    pub(super) fn freeze(&mut self) -> Result<()> {
        let mut reminder = Command::new("sh");
        reminder.arg("-c").arg(REMINDER).arg("sh").arg(&self.folder);
        self.frozen = Some(reminder.spawn().context("cannot run sh")?);
        command(Command::new("fsfreeze").arg("--freeze").arg(&self.folder))
    }

    /// Undoes that.
    pub(super) fn thaw(&mut self) -> Result<()> {
        if self.frozen.is_none() {
            return Ok(());
        }
        command(Command::new("fsfreeze").arg("--unfreeze").arg(&self.folder))?;
        if let Some(mut reminder) = self.frozen.take() {
            let _ = reminder.kill();
            let _ = reminder.wait();
        }
        Ok(())
    }

    fn mount(&mut self) -> Result<()> {
        command(Command::new("mount").args(["-o", "loop"]).arg(&self.image).arg(&self.folder))?;
        self.mounted = true;
        Ok(())
    }

    /// The last process that used it may take a moment to go.
    fn unmount(&mut self) -> Result<()> {
        let mut tried = Ok(());
        for _ in 0..UNMOUNT_TRIES {
            tried = command(Command::new("umount").arg(&self.folder));
            if tried.is_ok() {
                self.mounted = false;
                break;
            }
            std::thread::sleep(UNMOUNT_PAUSE);
        }
        tried
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.mounted
            && let Err(error) = self.unmount()
        {
            // Whoever removes the folder must not remove what is mounted there.
            let _ = command(Command::new("umount").arg("-l").arg(&self.folder));
            let _ = std::fs::write(self.folder.with_extension("error"), error.to_string());
        }
    }
}

/// Builds the program that cuts the power. Returns its path.
pub(crate) fn make_powercut(folder: &Path) -> Result<PathBuf> {
    let (source, program) = (folder.join("powercut.c"), folder.join("powercut"));
    std::fs::write(&source, POWERCUT_SOURCE)?;
    command(Command::new("cc").arg("-o").arg(&program).arg(&source))?;
    Ok(program)
}

/// Whether disks can be cut off here: tries one.
///
/// # Errors
/// What does not work.
pub(crate) fn try_one(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    let powercut = make_powercut(folder)?;
    let mut disk = Disk::make(folder.join("try.img"), folder.join("try"), powercut)?;
    disk.freeze()?;
    disk.thaw()?;
    disk.cut_power()?;
    disk.remount()
}

fn command(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("cannot run {name}"))?;
    if !output.status.success() {
        bail!("{name}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

//! Nodes' wall clocks, each of which can be stepped while its node runs. Needs a C compiler: this workspace has no unsafe code.

use anyhow::{Context as _, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

const SOURCE: &str = include_str!("../../../scripts/tools/clockstep.c");
/// Of the file that holds the offset, for the preloaded library.
const FILE_VARIABLE: &str = "CLOCKSTEP_FILE";
/// What the trial steps by.
const TRIAL_SECONDS: i64 = 3_600;
/// By so much the trial may be off: it takes its time.
const TRIAL_SECONDS_OFF_MAX: i64 = 60;

/// One node's wall clock.
#[derive(Debug, Clone)]
pub(crate) struct Clock {
    library: PathBuf,
    file: PathBuf,
}

impl Clock {
    /// The clocks of these nodes, which go right.
    ///
    /// # Errors
    /// The library cannot be built, or does not do what it should here.
    pub(crate) fn of(folder: &Path, nodes: &[u64]) -> Result<Vec<(u64, Self)>> {
        let library = build(folder)?;
        let clock =
            |name: &str| Self { library: library.clone(), file: folder.join(format!("{name}.clock")) };
        clock("trial").try_it()?;
        let mut clocks = Vec::new();
        for node in nodes {
            let clock = clock(&format!("node-{node}"));
            clock.set(0)?;
            clocks.push((*node, clock));
        }
        Ok(clocks)
    }

    /// Lets a program live by this clock.
    pub(super) fn give_to(&self, command: &mut Command) {
        command.env("LD_PRELOAD", &self.library).env(FILE_VARIABLE, &self.file);
    }

    /// By so many seconds it differs from now on. A running program sees it in place.
    pub(crate) fn set(&self, seconds: i64) -> Result<()> {
        use std::io::{Seek as _, Write as _};
        let nanoseconds = seconds * 1_000_000_000;
        let file = std::fs::File::options().create(true).truncate(false).write(true).open(&self.file);
        let mut file = file.with_context(|| format!("cannot write {}", self.file.display()))?;
        file.rewind()?;
        Ok(file.write_all(&nanoseconds.to_ne_bytes())?)
    }

    /// Whether a process lives by it.
    pub(crate) fn is_used_by(&self, process: u32) -> Result<bool> {
        let maps = std::fs::read_to_string(format!("/proc/{process}/maps"))?;
        Ok([&self.library, &self.file].iter().all(|path| maps.contains(&*path.to_string_lossy())))
    }

    fn try_it(&self) -> Result<()> {
        self.set(TRIAL_SECONDS)?;
        let (right, stepped) = (seconds(&mut Command::new("date"))?, {
            let mut command = Command::new("date");
            self.give_to(&mut command);
            seconds(&mut command)?
        });
        let off = stepped - right - TRIAL_SECONDS;
        if TRIAL_SECONDS_OFF_MAX < off.abs() {
            bail!("a clock that was stepped by {TRIAL_SECONDS} s shows {} s more", stepped - right);
        }
        Ok(())
    }
}

fn build(folder: &Path) -> Result<PathBuf> {
    let (source, library) = (folder.join("clockstep.c"), folder.join("clockstep.so"));
    std::fs::write(&source, SOURCE)?;
    let built =
        Command::new("cc").args(["-O1", "-shared", "-fPIC", "-o"]).arg(&library).arg(&source).output();
    let built = built.context("clocks cannot be stepped here: there is no C compiler (cc)")?;
    if !built.status.success() {
        bail!("clocks cannot be stepped here: {}", String::from_utf8_lossy(&built.stderr).trim());
    }
    Ok(library)
}

/// What a program that tells the time says.
fn seconds(date: &mut Command) -> Result<i64> {
    let told = date.arg("+%s").output().context("cannot run date")?;
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    told.trim().parse().with_context(|| format!("date says {told:?}"))
}

//! Nodes' wall clocks, each of which can be stepped while its node runs.

use super::preload::Preload;
use anyhow::{Context as _, Result, bail};
use std::path::Path;
use std::process::Command;

const SOURCE: &str = include_str!("../../../scripts/tools/clockstep.c");
/// Of the file that holds the offset, for the library.
const FILE_VARIABLE: &str = "CLOCKSTEP_FILE";
/// What the trial steps by.
const TRIAL_SECONDS: i64 = 3_600;
/// By so much the trial may be off: it takes its time.
const TRIAL_SECONDS_OFF_MAX: i64 = 60;

/// One node's wall clock.
#[derive(Debug, Clone)]
pub(crate) struct Clock(Preload);

impl Clock {
    /// The clocks of these nodes, which go right.
    ///
    /// # Errors
    /// The library cannot be built, or does not do what it should here.
    pub(crate) fn of(folder: &Path, nodes: &[u64]) -> Result<Vec<(u64, Self)>> {
        let library = Preload::build(folder, "clockstep", SOURCE)?;
        let clock =
            |name: &str| Self(Preload::new(&library, folder.join(format!("{name}.clock")), FILE_VARIABLE));
        clock("trial").try_it()?;
        let mut clocks = Vec::new();
        for node in nodes {
            let clock = clock(&format!("node-{node}"));
            clock.set(0)?;
            clocks.push((*node, clock));
        }
        Ok(clocks)
    }

    /// What a node lives by.
    pub(super) fn preload(&self) -> &Preload {
        &self.0
    }

    /// By so many seconds it differs from now on.
    pub(crate) fn set(&self, seconds: i64) -> Result<()> {
        self.0.write(&[seconds * 1_000_000_000])
    }

    fn try_it(&self) -> Result<()> {
        self.set(TRIAL_SECONDS)?;
        let (right, stepped) = (seconds(&mut Command::new("date"))?, {
            let mut command = Command::new("date");
            Preload::give_to(std::iter::once(&self.0), &mut command);
            seconds(&mut command)?
        });
        let off = stepped - right - TRIAL_SECONDS;
        if TRIAL_SECONDS_OFF_MAX < off.abs() {
            bail!("a clock that was stepped by {TRIAL_SECONDS} s shows {} s more", stepped - right);
        }
        Ok(())
    }
}

/// What a program that tells the time says.
fn seconds(date: &mut Command) -> Result<i64> {
    let told = date.arg("+%s").output().context("cannot run date")?;
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    told.trim().parse().with_context(|| format!("date says {told:?}"))
}

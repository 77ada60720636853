//! Counts instructions, by valgrind.

use crate::paths::Path;
use anyhow::{Context as _, Result, bail};
use std::process::Command;

/// How often a path is run the first time; the second time it is twice as often.
const TIMES: u64 = 200;
/// What stands before the number.
const COLLECTED: &str = "Collected : ";

/// Of one operation.
pub(crate) fn instructions(path: Path) -> Result<u64> {
    let (once, twice) = (of_process(path, TIMES)?, of_process(path, 2 * TIMES)?);
    let more =
        twice.checked_sub(once).context("the longer run took fewer instructions than the shorter one")?;
    Ok(more / (TIMES * path.operations()))
}

fn of_process(path: Path, times: u64) -> Result<u64> {
    let program = std::env::current_exe()?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args(["run", path.name(), &times.to_string()])
        .output()
        .context("cannot start valgrind (Debian and Ubuntu: apt-get install valgrind)")?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("{} under valgrind: {}\n{said}", path.name(), output.status);
    }
    let number = said.lines().find_map(|line| line.split_once(COLLECTED)).map(|(_, number)| number.trim());
    number
        .and_then(|number| number.parse().ok())
        .with_context(|| format!("valgrind counted nothing:\n{said}"))
}

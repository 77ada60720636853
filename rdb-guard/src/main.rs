//! `rdb-guard`: how many instructions FlareDB's hot paths take, held against what was recorded.
//!
//! Clocks lie on machines that others share; valgrind counts the same instructions each time. A path (`paths`) is run in a process of
//! its own under valgrind, once so many times and once twice as many: the difference is the path's alone, without what comes
//! before and after it. `baseline.json` says what was recorded, and with which compilers: others count differently, so then only the
//! counts are told. Whoever makes a path dearer on purpose records it anew, in the same change.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is what the program is for")]

mod baseline;
mod count;
mod paths;

use anyhow::{Result, bail};
use baseline::Baseline;
use clap::{Parser, Subcommand};
use paths::Path;
use std::collections::BTreeMap;

/// Instructions may be so many percent more than recorded: what the linker lays out elsewhere, and RocksDB's dice.
const PERCENT_MAX: f64 = 4.0;

/// Counts the instructions of FlareDB's hot paths and holds them against what was recorded.
#[derive(Debug, Parser)]
#[command(name = "rdb-guard", max_term_width = 110)]
struct Args {
    /// Write what is counted into the baseline
    #[arg(long)]
    record: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run one path so many times: what is counted
    Run { path: Path, times: u64 },
}

fn main() -> Result<()> {
    let args = Args::parse();
    if let Some(Command::Run { path, times }) = args.command {
        return path.run(times);
    }
    let counted = count_all()?;
    if args.record {
        return Baseline::record(counted);
    }
    compare(&counted, &Baseline::read()?)
}

/// Instructions for one operation of each path.
fn count_all() -> Result<BTreeMap<String, u64>> {
    let mut counted = BTreeMap::new();
    for path in Path::all() {
        let instructions = count::instructions(path)?;
        println!("{:10} {instructions:>8} instructions, {}", path.name(), path.about());
        counted.insert(path.name().to_owned(), instructions);
    }
    Ok(counted)
}

fn compare(counted: &BTreeMap<String, u64>, baseline: &Baseline) -> Result<()> {
    let tools = baseline::tools();
    if baseline.tools != tools {
        println!("not compared: recorded with {}; here is {tools}", baseline.tools);
        return Ok(());
    }
    let mut dearer = Vec::new();
    for (path, now) in counted {
        let Some(before) = baseline.instructions.get(path) else {
            bail!("{path} was never recorded: rdb-guard --record")
        };
        #[allow(clippy::cast_precision_loss, reason = "a percentage")]
        let percent = (*now as f64 / *before as f64 - 1.0) * 100.0;
        println!("{path:10} {percent:+.1} % of the {before} that were recorded");
        if PERCENT_MAX < percent {
            dearer.push(format!(
                "{path} takes {now} instructions, {percent:.1} % more than the {before} recorded"
            ));
        }
    }
    if !dearer.is_empty() {
        bail!("{}; where that is meant: rdb-guard --record", dearer.join("; "));
    }
    Ok(())
}

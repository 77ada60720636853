//! `rdb`, FlareDB's command line.
//!
//! One file per command under [`commands`], which asks the cluster through `rdb-client` and answers with an
//! [`output::Answer`] or an [`exit::Failure`]. What a user sees of either is decided in those two files alone: the format,
//! the colours, and the exit code.
//!
//! | code | means |
//! |---|---|
//! | 0 | done |
//! | 1 | there is no such key; the comparison failed; the benchmark's data is wrong |
//! | 2 | the command line is wrong |
//! | 3 | not done: nothing was changed |
//! | 4 | in doubt: a write may have been applied |
//! | 5 | no node could be reached |

mod args;
mod bench;
mod commands;
mod exit;
mod output;

use args::{Args, Command};
use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args = Args::parse();
    let format = args.output;
    // The benchmark says how many threads it wants; everything else waits for one answer.
    let threads = if let Command::Bench(bench) = &args.command { bench.threads } else { 1 };
    let runtime = match runtime(threads) {
        Ok(runtime) => runtime,
        Err(error) => return exit::Failure::usage(format!("cannot start: {error}")).report(format),
    };
    match runtime.block_on(commands::run(args)) {
        Ok(answer) => answer.print(format),
        Err(failure) => failure.report(format),
    }
}

fn runtime(threads: usize) -> std::io::Result<tokio::runtime::Runtime> {
    match threads {
        0 | 1 => tokio::runtime::Builder::new_current_thread().enable_all().build(),
        threads => tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build(),
    }
}

//! `rdb`, FlareDB's command line.
//!
//! One file per command under [`commands`], which asks the cluster through `rdb-client` and answers with an
//! [`output::Answer`] or an [`exit::Failure`]. What a user sees of either is decided in those two files alone: the format,
//! the colours, and the exit code.
//!
//! | code | means |
//! |---|---|
//! | 0 | done |
//! | 1 | there is no such key; the comparison failed; the benchmark's data is wrong; the cluster is degraded |
//! | 2 | the command line is wrong |
//! | 3 | not done: nothing was changed; of `status`, some of the cluster does not serve |
//! | 4 | in doubt: a write may have been applied |
//! | 5 | no node could be reached |
//!
//! [`shell`] runs the same commands at a prompt.

mod args;
mod bench;
mod commands;
mod exit;
mod output;
mod shell;
mod usage;

use args::{Args, Command, Format};
use clap::Parser;
use std::process::ExitCode;

const SHELL_THREADS: usize = 2;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            let format = usage::wanted(std::env::args_os()).unwrap_or(Format::Table);
            return ExitCode::from(usage::report(&error, format, None));
        }
    };
    let format = args.output;
    // The benchmark says how many threads it wants; a shell is busy while it waits for a line; everything else waits for
    // one answer.
    let threads = match &args.command {
        Command::Bench(bench) => bench.threads,
        Command::Shell(_) => SHELL_THREADS,
        _ => 1,
    };
    let code = match runtime(threads) {
        // A shell's thread that asks who leads ends with the process: without the runtime under it, it would panic.
        Ok(runtime) => run(args, Box::leak(Box::new(runtime))),
        Err(error) => exit::Failure::usage(format!("cannot start: {error}")).report(format),
    };
    ExitCode::from(code)
}

fn run(args: Args, runtime: &tokio::runtime::Runtime) -> u8 {
    let format = args.output;
    if let Command::Shell(shell) = &args.command {
        return shell::run(&args, shell, runtime);
    }
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

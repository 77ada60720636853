//! `rdb-sim`: runs worlds by the thousand, and shows one of them again.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that people read at a terminal")]

use clap::{Args, Parser, Subcommand};
use rdb_sim::{Options, Totals, Verdict};
use std::cell::Cell;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// FlareDB's simulator: the real core in worlds made from seeds.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: RunArgs,
}

#[derive(Subcommand)]
enum Command {
    /// Run many seeds and stop at the first that fails (the default)
    Run(RunArgs),
    /// Run one seed again
    Replay(ReplayArgs),
}

#[derive(Args, Clone, Copy)]
struct RunArgs {
    /// How many seeds
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first of them
    #[arg(long, default_value_t = 0)]
    start: u64,
    /// Threads
    #[arg(long, default_value_t = 1)]
    jobs: u64,
}

#[derive(Args, Clone, Copy)]
struct ReplayArgs {
    /// Which seed
    #[arg(long)]
    seed: u64,
    /// Print every event
    #[arg(long)]
    trace: bool,
}

thread_local! {
    /// What a panic in this thread must name.
    static SEED: Cell<Option<u64>> = const { Cell::new(None) };
}

fn main() -> ExitCode {
    name_the_seed_of_a_panic();
    let cli = Cli::parse();
    match cli.command.unwrap_or(Command::Run(cli.run)) {
        Command::Run(args) => run(args),
        Command::Replay(args) => replay(args),
    }
}

/// A release build aborts at a panic, so the seed must be told before.
fn name_the_seed_of_a_panic() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        default(info);
        if let Some(seed) = SEED.get() {
            eprintln!("seed {seed} panicked; again: {}", again(seed));
        }
    }));
}

fn again(seed: u64) -> String {
    format!("cargo run --release -p rdb-sim -- replay --seed {seed} --trace")
}

/// What the threads of a run share.
#[derive(Default)]
struct Progress {
    next: AtomicU64,
    failed: AtomicBool,
    done: Mutex<Done>,
}

#[derive(Default)]
struct Done {
    seeds: u64,
    totals: Totals,
    /// The lowest seed that failed.
    failure: Option<(u64, Verdict)>,
}

fn run(args: RunArgs) -> ExitCode {
    let started = Instant::now();
    let progress = Progress::default();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..args.jobs.max(1)).map(|_| scope.spawn(|| work(args, &progress))).collect();
        while !workers.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            std::thread::sleep(Duration::from_millis(200));
            let done = progress.done.lock().map(|done| done.seeds).unwrap_or_default();
            eprint!("\r{done} of {} seeds, {:.0} a second ", args.seeds, rate(done, started));
        }
    });
    eprintln!();
    let Ok(Done { seeds, totals, failure }) = progress.done.into_inner() else { return ExitCode::FAILURE };
    println!(
        "{seeds} seeds in {:.1} s ({:.0} a second)",
        started.elapsed().as_secs_f64(),
        rate(seeds, started)
    );
    println!("{totals}");
    let Some((seed, verdict)) = failure else { return ExitCode::SUCCESS };
    report(seed, &verdict);
    println!("again: {}", again(seed));
    ExitCode::FAILURE
}

#[allow(clippy::cast_precision_loss, reason = "shown with no decimals")]
fn rate(done: u64, started: Instant) -> f64 {
    done as f64 / started.elapsed().as_secs_f64().max(0.001)
}

fn work(args: RunArgs, progress: &Progress) {
    while !progress.failed.load(Ordering::Relaxed) {
        let number = progress.next.fetch_add(1, Ordering::Relaxed);
        if args.seeds <= number {
            return;
        }
        let seed = args.start + number;
        SEED.set(Some(seed));
        let verdict = rdb_sim::run(seed);
        let Ok(mut done) = progress.done.lock() else { return };
        done.seeds += 1;
        done.totals.add(&verdict.totals);
        if verdict.violation.is_some() && done.failure.as_ref().is_none_or(|(first, _)| seed < *first) {
            progress.failed.store(true, Ordering::Relaxed);
            done.failure = Some((seed, verdict));
        }
    }
}

fn replay(args: ReplayArgs) -> ExitCode {
    SEED.set(Some(args.seed));
    let verdict = if args.trace {
        let tell = |at: u64, line: &str| println!("{:>10}.{:06} {line}", at / 1_000_000, at % 1_000_000);
        rdb_sim::run_traced(args.seed, Box::new(tell))
    } else {
        rdb_sim::run(args.seed)
    };
    report(args.seed, &verdict);
    println!("{}", verdict.totals);
    println!("trace {:016x}", verdict.trace);
    if verdict.violation.is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn report(seed: u64, verdict: &Verdict) {
    println!("{:#?}", Options::draw(seed));
    match &verdict.violation {
        Some(violation) => println!("seed {seed} FAILED: {violation}"),
        None => println!("seed {seed} holds"),
    }
}

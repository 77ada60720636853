//! `rdb-sim`: runs worlds by the thousand, and shows one of them again.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that people read at a terminal")]

use clap::{Args, Parser, Subcommand, ValueEnum};
use rdb_sim::{Violation, modes};
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
    /// Which of a seed's worlds
    #[arg(long, value_enum, default_value_t = Worlds::Both)]
    world: Worlds,
}

/// The worlds that a seed stands for.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Worlds {
    /// Strong regions: Raft, its disks, snapshots, namespaces that come and go
    Raft,
    /// A namespace that is eventual, strong, and switched between the two
    Modes,
    /// Both, one after the other
    Both,
}

impl Worlds {
    fn each(self) -> &'static [Worlds] {
        match self {
            Worlds::Raft => &[Worlds::Raft],
            Worlds::Modes => &[Worlds::Modes],
            Worlds::Both => &[Worlds::Raft, Worlds::Modes],
        }
    }

    fn name(self) -> &'static str {
        match self {
            Worlds::Raft => "raft",
            Worlds::Modes => "modes",
            Worlds::Both => "both",
        }
    }
}

#[derive(Args, Clone, Copy)]
struct ReplayArgs {
    /// Which seed
    #[arg(long)]
    seed: u64,
    /// Print every event
    #[arg(long)]
    trace: bool,
    /// Which of its worlds
    #[arg(long, value_enum, default_value_t = Worlds::Both)]
    world: Worlds,
}

thread_local! {
    /// What a panic in this thread must name.
    static SEED: Cell<Option<(Worlds, u64)>> = const { Cell::new(None) };
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
        if let Some((world, seed)) = SEED.get() {
            eprintln!("seed {seed} panicked; again: {}", again(world, seed));
        }
    }));
}

fn again(world: Worlds, seed: u64) -> String {
    format!("cargo run --release -p rdb-sim -- replay --world {} --seed {seed} --trace", world.name())
}

/// What became of one world.
struct Lived {
    violation: Option<Violation>,
    totals: Totals,
    trace: u64,
}

/// Runs one of a seed's worlds, and tells each event if that is asked for.
fn live(world: Worlds, seed: u64, tells: bool) -> Lived {
    SEED.set(Some((world, seed)));
    let tell = |at: u64, line: &str| println!("{:>10}.{:06} {line}", at / 1_000_000, at % 1_000_000);
    if world == Worlds::Raft {
        let verdict = if tells { rdb_sim::run_traced(seed, Box::new(tell)) } else { rdb_sim::run(seed) };
        let totals = Totals { raft: verdict.totals, ..Totals::default() };
        return Lived { violation: verdict.violation, totals, trace: verdict.trace };
    }
    let verdict = if tells { modes::run_traced(seed, Box::new(tell)) } else { modes::run(seed) };
    let totals = Totals { modes: verdict.totals, ..Totals::default() };
    Lived { violation: verdict.violation, totals, trace: verdict.trace }
}

/// What worlds of both kinds went through.
#[derive(Default)]
struct Totals {
    raft: rdb_sim::Totals,
    modes: modes::Totals,
}

impl Totals {
    fn add(&mut self, other: &Totals) {
        self.raft.add(&other.raft);
        self.modes.add(&other.modes);
    }

    fn print(&self, worlds: Worlds) {
        for world in worlds.each() {
            match world {
                Worlds::Modes => println!("modes: {}", self.modes),
                _ => println!("raft: {}", self.raft),
            }
        }
    }
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
    failure: Option<(Worlds, u64, Violation)>,
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
    totals.print(args.world);
    let Some((world, seed, violation)) = failure else { return ExitCode::SUCCESS };
    report(world, seed, Some(&violation));
    println!("again: {}", again(world, seed));
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
        let lived: Vec<(Worlds, Lived)> =
            args.world.each().iter().map(|world| (*world, live(*world, seed, false))).collect();
        let Ok(mut done) = progress.done.lock() else { return };
        done.seeds += 1;
        for (world, Lived { violation, totals, .. }) in lived {
            done.totals.add(&totals);
            let is_first = done.failure.as_ref().is_none_or(|(_, first, _)| seed < *first);
            if let Some(violation) = violation.filter(|_| is_first) {
                progress.failed.store(true, Ordering::Relaxed);
                done.failure = Some((world, seed, violation));
            }
        }
    }
}

fn replay(args: ReplayArgs) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for world in args.world.each() {
        let lived = live(*world, args.seed, args.trace);
        report(*world, args.seed, lived.violation.as_ref());
        lived.totals.print(*world);
        println!("trace {:016x}", lived.trace);
        if lived.violation.is_some() {
            code = ExitCode::FAILURE;
        }
    }
    code
}

fn report(world: Worlds, seed: u64, violation: Option<&Violation>) {
    match world {
        Worlds::Modes => println!("{:#?}", modes::Options::draw(seed)),
        _ => println!("{:#?}", rdb_sim::Options::draw(seed)),
    }
    match violation {
        Some(violation) => println!("seed {seed} FAILED in world {}: {violation}", world.name()),
        None => println!("seed {seed} holds in world {}", world.name()),
    }
}

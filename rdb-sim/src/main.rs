//! `rdb-sim`: runs worlds by the thousand, and shows one of them again.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that people read at a terminal")]

use clap::{Args, Parser, Subcommand, ValueEnum};
use rdb_sim::{Coverage, Floor, SECOND, Violation, modes};
use std::cell::Cell;
use std::io::IsTerminal as _;
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
    /// Each world goes on until it has answered 500 operations and met 5 faults, a crash among them
    #[arg(long)]
    full: bool,
    /// Fail, too, where a count or a branch of the core was never come to
    #[arg(long)]
    cover: bool,
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
    /// As it was with `run --full`
    #[arg(long)]
    full: bool,
    /// Which of its worlds
    #[arg(long, value_enum, default_value_t = Worlds::Both)]
    world: Worlds,
}

/// One world.
#[derive(Clone, Copy)]
struct World {
    kind: Worlds,
    seed: u64,
    full: bool,
}

thread_local! {
    /// What a panic in this thread must name.
    static SEED: Cell<Option<World>> = const { Cell::new(None) };
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
        if let Some(world) = SEED.get() {
            eprintln!("seed {} panicked; again: {}", world.seed, world.again());
        }
    }));
}

impl World {
    fn again(self) -> String {
        let full = if self.full { " --full" } else { "" };
        let Self { kind, seed, .. } = self;
        format!(
            "cargo run --release -p rdb-sim -- replay --world {}{full} --seed {seed} --trace",
            kind.name()
        )
    }

    /// Runs it, and tells each event if that is asked for.
    fn live(self, tells: bool) -> Lived {
        SEED.set(Some(self));
        let tell = |at: u64, line: &str| println!("{:>10}.{:06} {line}", at / 1_000_000, at % 1_000_000);
        let sink = tells.then(|| Box::new(tell) as rdb_sim::Sink);
        let (violation, trace, totals) = match self.kind {
            Worlds::Modes => {
                let modes::Verdict { violation, trace, totals } = modes::run_by(self.modes(), sink);
                (violation, trace, Totals::Modes(Box::new(totals)))
            }
            _ => {
                let rdb_sim::Verdict { violation, trace, totals } = rdb_sim::run_by(self.raft(), sink);
                (violation, trace, Totals::Raft(Box::new(totals)))
            }
        };
        Lived { world: self, violation, totals, trace, branches: branches() }
    }

    fn raft(self) -> rdb_sim::Options {
        let options = rdb_sim::Options::draw(self.seed);
        if self.full { options.with_floor(Floor::FULL) } else { options }
    }

    fn modes(self) -> modes::Options {
        let options = modes::Options::draw(self.seed);
        if self.full { options.with_floor(Floor::FULL) } else { options }
    }
}

/// The branches of the core, with how often this thread took each of them since this was last asked.
fn branches() -> Vec<(&'static str, u64)> {
    #[cfg(feature = "coverage")]
    return rdb_core::coverage::take().into_iter().map(|(branch, times)| (branch.what(), times)).collect();
    #[cfg(not(feature = "coverage"))]
    Vec::new()
}

/// What became of one world.
struct Lived {
    world: World,
    violation: Option<Violation>,
    totals: Totals,
    trace: u64,
    branches: Vec<(&'static str, u64)>,
}

/// What a world of either kind went through.
enum Totals {
    Raft(Box<rdb_sim::Totals>),
    Modes(Box<modes::Totals>),
}

/// What many went through.
#[derive(Default)]
struct Sums {
    micros: u64,
    operations: u64,
    faults: u64,
    raft: Coverage,
    modes: Coverage,
    branches: Coverage,
}

impl Sums {
    fn add(&mut self, lived: &Lived) {
        let (micros, operations, faults) = match &lived.totals {
            Totals::Raft(totals) => {
                self.raft.add(totals.each());
                (totals.micros, totals.operations(), totals.faults())
            }
            Totals::Modes(totals) => {
                self.modes.add(totals.each());
                (totals.micros, totals.operations(), totals.faults())
            }
        };
        self.micros += micros;
        self.operations += operations;
        self.faults += faults;
        self.branches.add(lived.branches.iter().copied());
    }

    fn each(&self) -> impl Iterator<Item = (&'static str, &Coverage)> {
        let all = [("raft", &self.raft), ("modes", &self.modes), ("branches of the core", &self.branches)];
        all.into_iter().filter(|(_, coverage)| !coverage.is_empty())
    }

    fn print(&self) {
        for (name, coverage) in self.each() {
            println!("{name}:\n{coverage}");
        }
        let minutes = self.micros / SECOND / 60;
        let (hours, minutes) = (minutes / 60, minutes % 60);
        println!(
            "{hours} h {minutes} min simulated, {} operations answered, {} faults",
            self.operations, self.faults
        );
        if self.branches.is_empty() {
            println!("branches of the core are not counted in this build: --features coverage");
        }
    }

    /// Says what was never come to, and whether that is anything.
    fn tell_missed(&self) -> bool {
        let missed: Vec<String> = self
            .each()
            .flat_map(|(name, coverage)| coverage.missed().map(move |missed| format!("{name}: {missed}")))
            .collect();
        missed.iter().for_each(|missed| println!("never come to: {missed}"));
        !missed.is_empty()
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
    sums: Sums,
    /// The lowest seed that failed.
    failure: Option<(World, Violation)>,
}

fn run(args: RunArgs) -> ExitCode {
    let started = Instant::now();
    let progress = Progress::default();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..args.jobs.max(1)).map(|_| scope.spawn(|| work(args, &progress))).collect();
        while !workers.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            std::thread::sleep(Duration::from_millis(200));
            let done = progress.done.lock().map(|done| done.seeds).unwrap_or_default();
            if !std::io::stderr().is_terminal() {
                continue;
            }
            eprint!("\r{done} of {} seeds, {:.0} a second ", args.seeds, rate(done, started));
        }
    });
    if std::io::stderr().is_terminal() {
        eprintln!();
    }
    let Ok(Done { seeds, sums, failure }) = progress.done.into_inner() else { return ExitCode::FAILURE };
    sums.print();
    println!(
        "{seeds} seeds in {:.1} s with {} threads: {:.1} a second, {:.0} simulated minutes a minute",
        started.elapsed().as_secs_f64(),
        args.jobs.max(1),
        rate(seeds, started),
        rate(sums.micros / SECOND, started)
    );
    let misses = args.cover && sums.tell_missed();
    if let Some((world, violation)) = failure {
        report(world, Some(&violation));
        println!("again: {}", world.again());
        return ExitCode::FAILURE;
    }
    if misses { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

#[allow(clippy::cast_precision_loss, reason = "shown with few decimals")]
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
        let lived: Vec<Lived> = worlds(args.world, seed, args.full).map(|world| world.live(false)).collect();
        let Ok(mut done) = progress.done.lock() else { return };
        done.seeds += 1;
        for lived in lived {
            done.sums.add(&lived);
            let is_first = done.failure.as_ref().is_none_or(|(first, _)| seed < first.seed);
            if let Some(violation) = lived.violation.filter(|_| is_first) {
                progress.failed.store(true, Ordering::Relaxed);
                done.failure = Some((lived.world, violation));
            }
        }
    }
}

fn worlds(kinds: Worlds, seed: u64, full: bool) -> impl Iterator<Item = World> {
    kinds.each().iter().map(move |kind| World { kind: *kind, seed, full })
}

fn replay(args: ReplayArgs) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for world in worlds(args.world, args.seed, args.full) {
        let lived = world.live(args.trace);
        let mut sums = Sums::default();
        sums.add(&lived);
        sums.print();
        report(world, lived.violation.as_ref());
        println!("trace {:016x}", lived.trace);
        if lived.violation.is_some() {
            code = ExitCode::FAILURE;
        }
    }
    code
}

fn report(world: World, violation: Option<&Violation>) {
    match world.kind {
        Worlds::Modes => println!("{:#?}", world.modes()),
        _ => println!("{:#?}", world.raft()),
    }
    let World { kind, seed, .. } = world;
    match violation {
        Some(violation) => println!("seed {seed} FAILED in world {}: {violation}", kind.name()),
        None => println!("seed {seed} holds in world {}", kind.name()),
    }
}

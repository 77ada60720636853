//! `rdb-nemesis`: real nodes under faults, and a verdict on what their clients saw.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that people read at a terminal")]

use anyhow::{Context as _, Result, bail};
use clap::{Args, Parser, Subcommand};
use rdb_nemesis::{
    CHECKS, FAULTS, History, ModesArgs, Outcome, Place, Plan, Report, WORKLOADS, Wanted, has_hosts,
    has_memory_caps, idle, judge, modes, run, write_page,
};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The largest median of the times until writes resume after a leader is lost.
const RESUME_MEDIAN_MS_MAX: u64 = 2_000;

/// Real FlareDB nodes under faults, and a verdict on what their clients saw.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run clusters under faults, one after the other
    Run(RunArgs),
    /// Judge the history of a run again
    Check {
        /// A history.jsonl
        history: PathBuf,
    },
    /// Draw the history of a run: a page with pictures of it
    Page {
        /// A history.jsonl
        history: PathBuf,
        /// The page to write
        #[arg(long, default_value = "page.html")]
        to: PathBuf,
    },
    /// Name the faults, workloads and checks
    List,
    /// Measure what idle namespaces cost three nodes, and how soon they serve writes after a node's death; prints JSON
    Idle(IdleArgs),
    /// Hold eventual namespaces, and the switch between the modes, against their bars
    Modes(ModesCommand),
}

#[derive(Args)]
struct IdleArgs {
    /// How many namespaces
    #[arg(long, default_value_t = 1000)]
    namespaces: usize,
    /// How long to watch the nodes while nobody asks anything
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    #[command(flatten)]
    place: PlaceArgs,
}

#[derive(Args)]
struct ModesCommand {
    #[command(flatten)]
    modes: ModesArgs,
    /// How each case's outcome is printed
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
    #[command(flatten)]
    place: PlaceArgs,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// One line a case
    Text,
    /// One JSON object a line
    Json,
}

#[derive(Args)]
struct PlaceArgs {
    /// Where logs, history and data of what failed are left (default: a folder in the temporary one)
    #[arg(long)]
    keep: Option<PathBuf>,
    /// The server to run (default: rdb-server in FLAREDB_BIN_DIR, or beside this program)
    #[arg(long)]
    server: Option<PathBuf>,
}

impl PlaceArgs {
    fn place(self) -> Result<Place> {
        let folder = self.keep.unwrap_or_else(default_folder);
        Ok(Place { server: server(self.server)?, folder, pages: None })
    }
}

#[derive(Args)]
struct RunArgs {
    /// How many runs
    #[arg(long, default_value_t = 1)]
    runs: u64,
    /// The first one's seed; the others follow. Without it, one is drawn
    #[arg(long)]
    seed: Option<u64>,
    /// Only this fault; may be given more than once
    #[arg(long)]
    fault: Vec<String>,
    /// Only this workload; may be given more than once
    #[arg(long)]
    workload: Vec<String>,
    /// How long clients work in each run
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Nodes: 3 or 5 (default: as many as the faults need)
    #[arg(long)]
    nodes: Option<u64>,
    /// Go on until the workload `retries` has made so many compare-and-swaps
    #[arg(long, default_value_t = 0)]
    tries: u64,
    /// One long run of so many seconds: a steady load, faults drawn all the time, and whether memory, open files and disk grow
    #[arg(long, conflicts_with_all = ["runs", "tries"])]
    soak: bool,
    /// An older server that nodes begin with, to be upgraded from
    #[arg(long)]
    server_before: Option<PathBuf>,
    /// Give each node a host of its own, a network namespace, between which packets are lost; root only
    #[arg(long)]
    hosts: bool,
    /// Write a page with pictures of each run into this folder, and an index of them
    #[arg(long)]
    pages: Option<PathBuf>,
    /// Write the reports there, one JSON object a line
    #[arg(long)]
    json: Option<PathBuf>,
    #[command(flatten)]
    place: PlaceArgs,
}

#[tokio::main]
async fn main() -> ExitCode {
    let ended = match Cli::parse().command {
        Command::Run(args) => until_interrupted(run_all(args)).await,
        Command::Idle(args) => until_interrupted(measure_idle(args)).await,
        Command::Modes(args) => until_interrupted(hold_modes(args)).await,
        Command::Check { history } => check(&history),
        Command::Page { history, to } => draw(&history, &to),
        Command::List => {
            list();
            Ok(true)
        }
    };
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Ends early, with all nodes, when somebody presses Ctrl-C.
async fn until_interrupted(work: impl Future<Output = Result<bool>>) -> Result<bool> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminated = signal(SignalKind::terminate())?;
    let mut hung_up = signal(SignalKind::hangup())?;
    tokio::select! {
        ended = work => ended,
        _ = tokio::signal::ctrl_c() => bail!("interrupted"),
        _ = terminated.recv() => bail!("terminated"),
        _ = hung_up.recv() => bail!("the terminal is gone"),
    }
}

async fn run_all(args: RunArgs) -> Result<bool> {
    if let Some(nodes) = args.nodes.filter(|nodes| ![3, 5].contains(nodes)) {
        bail!("--nodes is 3 or 5, not {nodes}");
    }
    let place = Place { pages: args.pages, ..args.place.place()? };
    if args.hosts {
        has_hosts().context("nodes cannot have hosts of their own here")?;
    }
    let caps = has_memory_caps();
    if let Err(why) = &caps {
        println!("no kills for want of memory: {why:#}");
    }
    let wanted = Wanted {
        faults: args.fault,
        workloads: workloads(args.workload, args.tries)?,
        seconds: args.seconds,
        nodes: args.nodes,
        tries: args.tries,
        soak: args.soak,
        memory_caps: caps.is_ok(),
        hosts: args.hosts,
        server_before: args.server_before.map(|before| another(before, &place.server)).transpose()?,
        bars: true,
    };
    let power = place.has_power().map_err(|error| format!("{error:#}"));
    if let Err(why) = &power {
        println!("no power cuts: {why}");
    }
    if wanted.server_before.is_none() {
        println!("no upgrades: no older server was named by --server-before");
    }
    let power = power.as_ref().copied().map_err(String::as_str);
    let seed = args.seed.unwrap_or_else(|| u64::from(rand::random::<u32>()));
    let mut reports = Vec::new();
    for number in 0..args.runs {
        let plan = Plan::draw(seed.wrapping_add(number), &wanted, power)?;
        let report = run(&plan, &place).await;
        tell(&report);
        if let Some(path) = &args.json {
            write_json(path, &report)?;
        }
        reports.push(report);
    }
    // Only if nothing is kept there.
    let _ = std::fs::remove_dir(&place.folder);
    Ok(sum_up(&reports))
}

/// The figures are for whoever asks to judge.
async fn measure_idle(args: IdleArgs) -> Result<bool> {
    if args.namespaces == 0 || args.seconds == 0 {
        bail!("--namespaces and --seconds are at least 1");
    }
    let place = args.place.place()?;
    let measured = idle(&place, args.namespaces, args.seconds).await?;
    // Only if nothing is kept there.
    let _ = std::fs::remove_dir(&place.folder);
    println!("{}", serde_json::to_string_pretty(&measured)?);
    Ok(true)
}

/// Each case is told as it ends, and all are counted.
async fn hold_modes(args: ModesCommand) -> Result<bool> {
    let place = args.place.place()?;
    let (mut passed, mut failed) = (0, 0);
    let ended = |outcome: &Outcome| {
        *if outcome.passed() { &mut passed } else { &mut failed } += 1;
        match args.output {
            Output::Text => tell_outcome(outcome),
            Output::Json => println!("{}", serde_json::to_string(outcome)?),
        }
        Ok(())
    };
    modes(&place, &args.modes, |what| eprintln!("  {what}"), ended).await?;
    // Only if nothing is kept there.
    let _ = std::fs::remove_dir(&place.folder);
    if args.output == Output::Text {
        println!("{passed} passed, {failed} failed");
    }
    Ok(failed == 0)
}

fn tell_outcome(outcome: &Outcome) {
    println!("{}", outcome.in_a_line());
    if outcome.passed() {
        return;
    }
    for problem in &outcome.problems {
        println!("  problem: {problem}");
    }
    if let Some(folder) = &outcome.folder {
        println!("  kept: {}", folder.display());
    }
    println!("  again: {}", outcome.again);
}

/// Tries are made by one workload, so whoever wants them wants that one.
fn workloads(mut named: Vec<String>, tries: u64) -> Result<Vec<String>> {
    if 0 < tries && named.is_empty() {
        named.push("retries".to_owned());
    }
    if 0 < tries && !named.iter().any(|name| name == "retries") {
        bail!("--tries are made by the workload retries, which was not asked for");
    }
    Ok(named)
}

fn server(named: Option<PathBuf>) -> Result<PathBuf> {
    let from_environment =
        || std::env::var_os("FLAREDB_BIN_DIR").map(|folder| PathBuf::from(folder).join("rdb-server"));
    let beside = || Some(std::env::current_exe().ok()?.parent()?.join("rdb-server"));
    let server =
        named.or_else(from_environment).or_else(beside).context("where is rdb-server? Say --server PATH")?;
    if !server.is_file() {
        bail!(
            "there is no {}; build it (cargo build --release -p rdb-server), or say --server PATH",
            server.display()
        );
    }
    Ok(std::path::absolute(server)?)
}

/// An older server, which must be there, and must not be the other once more.
fn another(before: PathBuf, server: &Path) -> Result<PathBuf> {
    let bytes = |path: &Path| std::fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    if bytes(&before)? == bytes(server)? {
        bail!("--server-before is the same program as {}", server.display());
    }
    Ok(std::path::absolute(before)?)
}

fn default_folder() -> PathBuf {
    std::env::temp_dir().join(format!("flaredb-nemesis-{}", std::process::id()))
}

fn tell(report: &Report) {
    println!("{}", report.in_a_line());
    if report.passed() {
        return;
    }
    for fault in &report.faults {
        println!("  {:.1} s: {} ({})", fault.at_seconds, fault.what, fault.seen);
    }
    for problem in &report.problems {
        println!("  problem: {problem}");
    }
    if let Some(folder) = &report.folder {
        println!("  kept: {}", folder.display());
    }
    println!("  again: {}", report.again);
}

fn write_json(path: &PathBuf, report: &Report) -> Result<()> {
    let file = std::fs::File::options().create(true).append(true).open(path);
    let mut file = file.with_context(|| format!("cannot open {}", path.display()))?;
    serde_json::to_writer(&mut file, report)?;
    Ok(file.write_all(b"\n")?)
}

/// The last words. Returns whether all is well.
fn sum_up(reports: &[Report]) -> bool {
    let failed: Vec<&Report> = reports.iter().filter(|report| !report.passed()).collect();
    let sum = |count: fn(&Report) -> u64| reports.iter().map(count).sum::<u64>();
    println!(
        "{} operations answered, {} in doubt, {} faults",
        sum(|report| report.answered),
        sum(|report| report.unknown),
        sum(|report| report.faults.len() as u64)
    );
    let in_time = resumed_in_time(reports);
    for report in &failed {
        println!("failed: {}", report.again);
    }
    println!("{} passed, {} failed", reports.len() - failed.len(), failed.len());
    failed.is_empty() && in_time
}

/// How long there was nobody to write to after leaders were lost.
fn resumed_in_time(reports: &[Report]) -> bool {
    let faults = reports.iter().flat_map(|report| &report.faults).filter(|fault| fault.leader_lost);
    let mut times: Vec<u64> = faults.filter_map(|fault| fault.resumed_ms).collect();
    times.sort_unstable();
    let (Some(median), Some(most)) = (times.get(times.len() / 2), times.last()) else { return true };
    println!(
        "a leader was lost {} times: writes resumed after {median} ms (median), {most} ms (longest)",
        times.len()
    );
    if RESUME_MEDIAN_MS_MAX < *median {
        println!("the median must be {RESUME_MEDIAN_MS_MAX} ms at most");
        return false;
    }
    true
}

fn check(path: &Path) -> Result<bool> {
    let (looked, problems) = judge(&History::operations(&History::read(path)?));
    for line in looked {
        println!("ok: {line}");
    }
    for problem in &problems {
        println!("problem: {problem}");
    }
    println!("{} passed, {} failed", CHECKS.len() - problems.len(), problems.len());
    Ok(problems.is_empty())
}

fn draw(history: &Path, to: &Path) -> Result<bool> {
    let lines = History::read(history)?;
    let (looked, problems) = judge(&History::operations(&lines));
    write_page(to, &history.display().to_string(), &lines, &looked, &problems)?;
    println!("{}", to.display());
    Ok(true)
}

fn list() {
    println!("faults:");
    for fault in FAULTS.iter().copied().flatten() {
        println!("  {:<20} {}", fault.name, fault.about);
    }
    println!("workloads:");
    for workload in WORKLOADS {
        println!("  {:<20} {}", workload.name, workload.about);
    }
    println!("checks:");
    for check in CHECKS {
        println!("  {:<20} {}", check.name, check.about);
    }
}

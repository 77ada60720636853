//! `rdb bench`: a loop of callers, its measurements, and a check of the data that it leaves.
//!
//! Each of the callers has one request on its way, or a few, and sends the next ones when the answers are there (`closed`); or
//! requests are sent at a fixed rate, whether answers come or not (`open`); or the data set is read from end to end (`scans`).
//! What is measured lies between the end of the warm-up and the end of the run. Every value says which key it belongs to, who
//! wrote it and in which order, so that afterwards each stored value can be judged. The same loops drive etcd and Redis.

mod check;
mod closed;
mod cpu;
#[cfg(feature = "etcd")]
mod etcd;
mod flaredb;
mod load;
mod measure;
mod open;
mod redis;
mod report;
mod request;
mod run;
mod scans;
mod target;
mod workload;

use crate::args::{Args, parse_duration};
use crate::commands::ns::{DurabilityArg, ModeArg};
use crate::commands::put::AcksArgs;
use crate::commands::read::ConsistencyArg;
use crate::exit::{Class, Failure};
use crate::output::Answer;
use clap::ValueEnum;
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;
use target::Target;
use workload::Workload;

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct BenchArgs {
    /// Callers, each with one request on its way
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    callers: u32,
    /// Requests that each caller sends together; the next ones go when all of them are answered
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    in_flight: u32,
    /// Send so many requests a second, whether answers come or not (an open loop); latencies count from when each was due
    #[arg(long, value_name = "PER_SECOND", value_parser = clap::value_parser!(u32).range(1..=1_000_000), conflicts_with = "in_flight")]
    rate: Option<u32>,
    /// Read the whole data set from end to end, again and again; its records are what is counted
    #[arg(long, conflicts_with_all = ["in_flight", "rate", "read_share"])]
    scan: bool,
    /// How long to measure
    #[arg(long, default_value = "60s", value_parser = parse_duration)]
    duration: Duration,
    /// How long to run before
    #[arg(long, default_value = "5s", value_parser = parse_duration)]
    warmup: Duration,
    /// Keys in the data set
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    keys: u64,
    /// Bytes of a key
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(9..=4096))]
    key_size: u32,
    /// Bytes of a value
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(16..=1_048_576))]
    value_size: u32,
    /// The part of the requests that are reads, from 0 to 1
    #[arg(long, default_value_t = 0.5, value_parser = parse_share)]
    read_share: f64,
    /// Which keys are chosen
    #[arg(long, value_enum, default_value_t = Distribution::Uniform)]
    distribution: Distribution,
    /// How requests travel to FlareDB
    #[arg(long, value_enum, default_value_t = TransportArg::Pipe)]
    transport: TransportArg,
    /// Do not name writes: one whose answer is lost is then in doubt at once, and not sent again
    #[arg(long)]
    no_sessions: bool,
    /// The namespace, created if there is none; for etcd a prefix of the keys
    #[arg(long, default_value = "bench")]
    namespace: String,
    /// Spread the keys over so many namespaces of FlareDB, `NAMESPACE-1` and so on
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000), conflicts_with = "scan")]
    namespaces: u32,
    /// The namespace's mode. Of an eventual one, reads are a session's, and the time until all nodes have everything is told
    #[arg(long, value_enum, default_value_t = ModeArg::Strong)]
    mode: ModeArg,
    /// When a node acknowledges an eventual write, if the namespace is created
    #[arg(long, value_enum, default_value_t = DurabilityArg::Sync)]
    durability: DurabilityArg,
    #[command(flatten)]
    acks: AcksArgs,
    /// How reads are to be served, if not as `--mode` says. Of etcd, local ones are its serializable ones
    #[arg(long, value_enum)]
    consistency: Option<ConsistencyArg>,
    /// Write the data set and exit; without it the data set is written only where it is missing
    #[arg(long)]
    load: bool,
    /// What the choice of keys and operations follows from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Threads of this program; 1 costs the least per request
    #[arg(long, default_value_t = 1)]
    pub(crate) threads: usize,
    /// What is measured
    #[arg(long, value_enum, default_value_t = TargetArg::Flaredb)]
    target: TargetArg,
    /// Connections to etcd, which callers share
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    connections: u32,
    /// Processes on this machine whose processor time is measured
    #[arg(long, value_delimiter = ',', value_name = "PID,...", conflicts_with = "server_name")]
    server_pids: Vec<u32>,
    /// The same, for all processes of this name (default: rdb-server, etcd, or redis-server)
    #[arg(long)]
    server_name: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
enum Distribution {
    /// Every key alike
    Uniform,
    /// A few keys often, most seldom (exponent 0.99)
    Zipfian,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
enum TransportArg {
    /// Concurrent requests share messages
    Pipe,
    /// Each request is a call of its own
    Unary,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
enum TargetArg {
    Flaredb,
    #[cfg(feature = "etcd")]
    Etcd,
    /// One Redis, the first of the endpoints, through a connection for each caller
    Redis,
}

impl TargetArg {
    fn process_name(self) -> &'static str {
        match self {
            TargetArg::Flaredb => "rdb-server",
            #[cfg(feature = "etcd")]
            TargetArg::Etcd => "etcd",
            TargetArg::Redis => "redis-server",
        }
    }
}

fn parse_share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("a share is from 0 to 1".into()),
    }
}

pub(crate) async fn run(args: &Args, bench: &BenchArgs) -> Result<Answer, Failure> {
    let target = Target::connect(args, bench).await?;
    let workload = Arc::new(Workload::new(bench)?);
    if bench.load || !load::is_loaded(&target, &workload).await? {
        let loaded = load::run(&target, &workload, bench).await?;
        if bench.load {
            return Ok(loaded);
        }
    }
    let pids = match &bench.server_name {
        _ if !bench.server_pids.is_empty() => bench.server_pids.clone(),
        Some(name) => cpu::pids_named(name),
        None => cpu::pids_named(bench.target.process_name()),
    };
    let measured = run::run(&target, &workload, bench, &pids).await?;
    let drained = target.drain(&workload).await;
    let checked = check::run(&target, &workload).await.map_err(|error| {
        Failure::new(Class::Unreachable, format!("the data could not be checked: {}", error.message))
            .hint("the cluster may not have recovered; the measurements are lost with this")
    })?;
    Ok(report::answer(bench, &measured, &checked, drained))
}

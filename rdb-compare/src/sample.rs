//! One measurement: servers of its own, `rdb bench` against them, and what it says.

use crate::stores::{Running, Store, Upkeep};
use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// How measurements are made.
#[derive(Debug, Clone)]
pub(crate) struct Bench {
    /// The folder of `rdb-server` and `rdb`.
    pub(crate) programs: PathBuf,
    /// Where servers keep their data.
    pub(crate) folder: PathBuf,
    pub(crate) seconds: u64,
    pub(crate) warmup_seconds: u64,
}

/// What one measurement has shown.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Sample {
    #[serde(flatten)]
    pub(crate) report: Report,
    /// The most that any server held.
    pub(crate) memory_mib_max: u64,
    /// Flushes and compactions of the data, of all nodes, loading included.
    pub(crate) upkeep: Upkeep,
}

/// Of what `rdb bench` says, what is compared.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Report {
    /// The time added that replicas needed to have everything.
    drained_operations_per_second: Option<f64>,
    pub(crate) drain_ms: Option<u64>,
    pub(crate) reads: Kind,
    pub(crate) writes: Kind,
    pub(crate) cpu: Cpu,
    check: Check,
    messages: Vec<String>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Kind {
    count: u64,
    p50_us: u64,
    p99_us: u64,
    not_done: u64,
    in_doubt: u64,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Cpu {
    pub(crate) server_us_per_operation: Option<f64>,
    pub(crate) server_cores: Option<f64>,
    pub(crate) client_cores: Option<f64>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Check {
    passed: bool,
    keys: u64,
    shown: Vec<String>,
}

impl Bench {
    /// Starts the servers, loads them, measures, and checks all data.
    pub(crate) fn sample(&self, store: Store, load: &str) -> Result<Sample> {
        let running = store.start(&self.programs, &self.folder)?;
        let report = self.report(&running, store, load)?;
        Ok(Sample { report, memory_mib_max: running.memory_mib_max(), upkeep: running.upkeep()? })
    }

    fn report(&self, running: &Running, store: Store, load: &str) -> Result<Report> {
        let mut command = Command::new(self.programs.join("rdb"));
        command.args(["bench", "-o", "json", "--timeout", "30s", "--target", store.target()]);
        command.args(["--endpoints", &running.endpoints, "--server-pids", &running.pids()]);
        command.args([
            "--duration",
            &format!("{}s", self.seconds),
            "--warmup",
            &format!("{}s", self.warmup_seconds),
        ]);
        command.args(load.split(' ')).stderr(Stdio::inherit());
        let output = command.output().context("cannot start rdb")?;
        let said = String::from_utf8_lossy(&output.stdout);
        let report: Report = serde_json::from_str(&said)
            .with_context(|| format!("rdb bench --target {} {load} has no report: {said}", store.target()))?;
        report.judge().with_context(|| format!("{} {load}", store.target()))?;
        Ok(report)
    }
}

impl Report {
    /// A measurement counts only where the data is right, and everything was done.
    fn judge(&self) -> Result<()> {
        if self.drained_operations_per_second.is_none() {
            bail!("the replicas did not come to have everything: {}", self.messages.join("; "));
        }
        if !self.check.passed {
            bail!("the data is wrong: {}", self.check.shown.join("; "));
        }
        let failed = [self.reads, self.writes].map(|kind| kind.not_done + kind.in_doubt);
        if 0 < failed[0] + failed[1] {
            bail!("{} reads and {} writes failed: {}", failed[0], failed[1], self.messages.join("; "));
        }
        Ok(())
    }

    /// What something did that is no store.
    pub(crate) fn of_rate(per_second: f64) -> Self {
        let none = Kind { count: 0, p50_us: 0, p99_us: 0, not_done: 0, in_doubt: 0 };
        Self {
            drained_operations_per_second: Some(per_second),
            drain_ms: None,
            reads: none,
            writes: none,
            cpu: Cpu { server_us_per_operation: None, server_cores: None, client_cores: None },
            check: Check { passed: true, keys: 0, shown: Vec::new() },
            messages: Vec::new(),
        }
    }

    /// Operations a second, the time counted that replicas needed afterwards.
    pub(crate) fn throughput(&self) -> f64 {
        self.drained_operations_per_second.unwrap_or(0.0)
    }

    /// Of what there is more of.
    fn latency(&self) -> Kind {
        if self.writes.count < self.reads.count { self.reads } else { self.writes }
    }

    /// Processor time of all servers for an operation, in microseconds; 0: it could not be measured.
    pub(crate) fn server_us(&self) -> f64 {
        self.cpu.server_us_per_operation.unwrap_or(0.0)
    }

    #[allow(clippy::cast_precision_loss, reason = "microseconds of a request")]
    pub(crate) fn p50_us(&self) -> f64 {
        self.latency().p50_us as f64
    }

    #[allow(clippy::cast_precision_loss, reason = "microseconds of a request")]
    pub(crate) fn p99_us(&self) -> f64 {
        self.latency().p99_us as f64
    }
}

//! The servers that are measured: started for one measurement, on free ports and in a folder of their own, and ended after it.

mod http;
mod ports;
mod process;

use anyhow::{Context as _, Result, bail};
use http::{body_of, is_ok};
use process::Process;
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const READY_PATIENCE: Duration = Duration::from_secs(60);
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// Members of an etcd cluster.
const ETCD_MEMBERS: usize = 3;
/// Above etcd's default of 2 GiB, which a long run of puts may fill.
const ETCD_BYTES_MAX: &str = "8589934592";

/// A kind of store.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Store {
    /// With its defaults.
    FlareDb { nodes: usize },
    /// Three members with their defaults, which sync every write.
    Etcd,
    /// One, with an append-only file that is synced so.
    Redis { fsync: &'static str },
}

/// Servers that run, and their data. Both are gone when this is dropped.
pub(crate) struct Running {
    store: Store,
    processes: Vec<Process>,
    /// Where clients reach them. Of etcd this is its leader, which answers half as much again when it is asked itself.
    pub(crate) endpoints: String,
    // Goes last.
    folder: TempDir,
}

/// What RocksDB has done in the background, on all nodes.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Upkeep {
    pub(crate) flushes: u64,
    pub(crate) compactions: u64,
}

impl Store {
    /// What `rdb bench` calls it.
    pub(crate) fn target(self) -> &'static str {
        match self {
            Store::FlareDb { .. } => "flaredb",
            Store::Etcd => "etcd",
            Store::Redis { .. } => "redis",
        }
    }

    pub(crate) fn start(self, programs: &Path, folder: &Path) -> Result<Running> {
        let folder = TempDir::with_prefix_in(format!("{}-", self.target()), folder)?;
        match self {
            Store::FlareDb { nodes } => start_flaredb(self, nodes, programs, folder),
            Store::Etcd => start_etcd(folder),
            Store::Redis { fsync } => start_redis(self, fsync, folder),
        }
    }
}

impl Running {
    pub(crate) fn pids(&self) -> String {
        let pids: Vec<_> = self.processes.iter().map(|process| process.id().to_string()).collect();
        pids.join(",")
    }

    /// The most memory that any of the servers has held so far.
    pub(crate) fn memory_mib_max(&self) -> u64 {
        self.processes.iter().filter_map(Process::memory_kib_max).max().unwrap_or(0) / 1024
    }

    /// Counted in what RocksDB writes of itself. Of other stores there is nothing.
    pub(crate) fn upkeep(&self) -> Result<Upkeep> {
        let Store::FlareDb { nodes } = self.store else { return Ok(Upkeep::default()) };
        let mut upkeep = Upkeep::default();
        for node in 1..=nodes {
            for file in std::fs::read_dir(self.folder.path().join(format!("node-{node}/data")))? {
                let file = file?;
                if !file.file_name().to_string_lossy().starts_with("LOG") {
                    continue;
                }
                let text = String::from_utf8_lossy(&std::fs::read(file.path())?).into_owned();
                upkeep.flushes += text.matches("\"event\": \"flush_finished\"").count() as u64;
                upkeep.compactions += text.matches("\"event\": \"compaction_finished\"").count() as u64;
            }
        }
        Ok(upkeep)
    }
}

fn start_flaredb(store: Store, nodes: usize, programs: &Path, folder: TempDir) -> Result<Running> {
    let ports = ports::free(3 * nodes)?;
    let address = |kind: usize, node: usize| format!("127.0.0.1:{}", ports[3 * (node - 1) + kind]);
    let mut members = String::new();
    for node in 1..=nodes {
        writeln!(
            members,
            "\n[[nodes]]\nid = {node}\nclient = \"{}\"\npeer = \"{}\"",
            address(0, node),
            address(1, node)
        )?;
    }
    let mut processes = Vec::new();
    for node in 1..=nodes {
        let config = folder.path().join(format!("node-{node}.toml"));
        let data = folder.path().join(format!("node-{node}"));
        let own = format!(
            "cluster_id = \"compare\"\nnode_id = {node}\ndata_dir = \"{}\"\nlisten_client = \"{}\"\nlisten_peer = \"{}\"\nlisten_http = \"{}\"\n",
            data.display(),
            address(0, node),
            address(1, node),
            address(2, node)
        );
        std::fs::write(&config, own + &members)?;
        let mut command = Command::new(programs.join("rdb-server"));
        command.arg("--config").arg(&config);
        processes.push(Process::start(command, &folder.path().join(format!("node-{node}.log")))?);
    }
    wait("FlareDB is ready", &folder, || (1..=nodes).all(|node| is_ok(&address(2, node), "/readyz")))?;
    let endpoints = (1..=nodes).map(|node| address(0, node)).collect::<Vec<_>>().join(",");
    Ok(Running { store, processes, endpoints, folder })
}

fn start_etcd(folder: TempDir) -> Result<Running> {
    let ports = ports::free(2 * ETCD_MEMBERS)?;
    let url = |kind: usize, member: usize| format!("http://127.0.0.1:{}", ports[2 * (member - 1) + kind]);
    let cluster: Vec<_> = (1..=ETCD_MEMBERS).map(|member| format!("e{member}={}", url(1, member))).collect();
    let mut processes = Vec::new();
    for member in 1..=ETCD_MEMBERS {
        let mut command = Command::new("etcd");
        command.args(["--name", &format!("e{member}"), "--log-level", "error"]);
        command.arg("--data-dir").arg(folder.path().join(format!("etcd-{member}")));
        command.args(["--listen-client-urls", &url(0, member), "--advertise-client-urls", &url(0, member)]);
        command.args([
            "--listen-peer-urls",
            &url(1, member),
            "--initial-advertise-peer-urls",
            &url(1, member),
        ]);
        command.args(["--initial-cluster", &cluster.join(","), "--initial-cluster-state", "new"]);
        command.args(["--quota-backend-bytes", ETCD_BYTES_MAX]);
        let log = folder.path().join(format!("etcd-{member}.log"));
        processes.push(Process::start(command, &log).context("Debian's etcd-server has etcd")?);
    }
    let address = |member: usize| url(0, member)["http://".len()..].to_owned();
    let leader = || {
        let leads =
            |member: &usize| body_of(&address(*member), "/metrics").contains("\netcd_server_is_leader 1");
        let healthy = (1..=ETCD_MEMBERS).all(|member| is_ok(&address(member), "/health"));
        (1..=ETCD_MEMBERS).find(leads).filter(|_| healthy)
    };
    wait("etcd is ready", &folder, || leader().is_some())?;
    let endpoints = address(leader().context("etcd has lost its leader")?);
    Ok(Running { store: Store::Etcd, processes, endpoints, folder })
}

fn start_redis(store: Store, fsync: &str, folder: TempDir) -> Result<Running> {
    let port = ports::free(1)?[0];
    let mut command = Command::new("redis-server");
    command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", ""]);
    command.args(["--appendonly", "yes", "--appendfsync", fsync]);
    command.arg("--dir").arg(folder.path());
    let process =
        Process::start(command, &folder.path().join("redis.log")).context("Debian's redis-server has it")?;
    let endpoints = format!("127.0.0.1:{port}");
    wait("Redis is ready", &folder, || TcpStream::connect(&endpoints).is_ok())?;
    Ok(Running { store, processes: vec![process], endpoints, folder })
}

fn wait(what: &str, folder: &TempDir, mut is_so: impl FnMut() -> bool) -> Result<()> {
    let began = Instant::now();
    while !is_so() {
        if READY_PATIENCE < began.elapsed() {
            let logs = process::last_words(folder.path());
            bail!("waited {} s in vain until {what}\n{logs}", READY_PATIENCE.as_secs());
        }
        std::thread::sleep(LOOK_INTERVAL);
    }
    Ok(())
}

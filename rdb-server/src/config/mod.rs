//! What a node is told. A file, then environment variables, then flags: the later wins. Unknown keys are refused, and
//! `config/node.toml` explains each option.

pub(crate) mod fuzzed;

use crate::peer::LogLimits;
use clap::Parser;
use rdb_core::ids::NodeId;
use rdb_core::raft;
use serde::Deserialize;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The command line of `rdb-server`. Each option can stand in the file, in the environment, or here.
#[derive(Debug, Parser, Default)]
#[command(name = "rdb-server", version, about = "A FlareDB node", long_about = None)]
pub struct Flags {
    /// The configuration file
    #[arg(long, env = "FLAREDB_CONFIG")]
    pub config: Option<PathBuf>,
    /// Names the cluster; nodes of another one are refused
    #[arg(long, env = "FLAREDB_CLUSTER_ID")]
    pub cluster_id: Option<String>,
    /// This node's id, one of those under `nodes`
    #[arg(long, env = "FLAREDB_NODE_ID")]
    pub node_id: Option<u64>,
    /// Where the node keeps everything
    #[arg(long, env = "FLAREDB_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// Where clients are served
    #[arg(long, env = "FLAREDB_LISTEN_CLIENT")]
    pub listen_client: Option<SocketAddr>,
    /// Where other nodes are served
    #[arg(long, env = "FLAREDB_LISTEN_PEER")]
    pub listen_peer: Option<SocketAddr>,
    /// Where /metrics, /healthz and /readyz are served
    #[arg(long, env = "FLAREDB_LISTEN_HTTP")]
    pub listen_http: Option<SocketAddr>,
    /// A member of the cluster, as ID,CLIENT_ADDRESS,PEER_ADDRESS; give one for each, this node included
    #[arg(long = "node", env = "FLAREDB_NODES", value_delimiter = ';', value_parser = parse_member)]
    pub nodes: Vec<Member>,
    /// The length of a tick of Raft's time, in milliseconds
    #[arg(long, env = "FLAREDB_TICK_MS")]
    pub tick_ms: Option<u64>,
    /// Ticks of silence after which a follower may stand for election
    #[arg(long, env = "FLAREDB_ELECTION_TICKS")]
    pub election_ticks: Option<usize>,
    /// Ticks between a leader's heartbeats
    #[arg(long, env = "FLAREDB_HEARTBEAT_TICKS")]
    pub heartbeat_ticks: Option<usize>,
    /// Milliseconds without anything to do after which a region may sleep; 0: never
    #[arg(long, env = "FLAREDB_SLEEP_AFTER_MS")]
    pub sleep_after_ms: Option<u64>,
    /// Whether leaders may serve lease reads by their clock: true or false, the same on every node
    #[arg(long, env = "FLAREDB_LEADER_LEASE")]
    pub leader_lease: Option<bool>,
    /// How long a request may take where the client does not say, in milliseconds
    #[arg(long, env = "FLAREDB_REQUEST_TIMEOUT_MS")]
    pub request_timeout_ms: Option<u64>,
    /// Bytes of client requests under way, past which more are refused
    #[arg(long, env = "FLAREDB_REQUEST_BYTES_MAX")]
    pub request_bytes_max: Option<usize>,
    /// Connections of clients, past which more are closed at once
    #[arg(long, env = "FLAREDB_CLIENT_CONNECTIONS_MAX")]
    pub client_connections_max: Option<usize>,
    /// Scans at a time, past which more are refused
    #[arg(long, env = "FLAREDB_SCANS_MAX")]
    pub scans_max: Option<usize>,
    /// Those of one namespace; 0: a quarter of the node's
    #[arg(long, env = "FLAREDB_NAMESPACE_REQUEST_BYTES_MAX")]
    pub namespace_request_bytes_max: Option<usize>,
    /// Bytes of records cached in memory
    #[arg(long, env = "FLAREDB_CACHE_BYTES")]
    pub cache_bytes: Option<usize>,
    /// Entries that a region's log keeps for followers that lag, at least, up to 16 MiB of them
    #[arg(long, env = "FLAREDB_LOG_KEEP_ENTRIES")]
    pub log_keep_entries: Option<u64>,
    /// Bytes that a region's log may have for the sake of a node that is away
    #[arg(long, env = "FLAREDB_LOG_BYTES_MAX")]
    pub log_bytes_max: Option<u64>,
    /// How long a log is kept for a node that is away, in seconds
    #[arg(long, env = "FLAREDB_LOG_KEEP_SECONDS")]
    pub log_keep_seconds: Option<u64>,
    /// How long deletions of eventual namespaces are remembered at least, in seconds
    #[arg(long, env = "FLAREDB_TOMBSTONE_GRACE_SECONDS")]
    pub tombstone_grace_seconds: Option<u64>,
    /// Bytes of an eventual namespace's writes that are kept for members that lack them
    #[arg(long, env = "FLAREDB_EVENTUAL_LOG_BYTES_MAX")]
    pub eventual_log_bytes_max: Option<u64>,
    /// Between two comparisons of an eventual namespace's replicas, in seconds
    #[arg(long, env = "FLAREDB_EVENTUAL_COMPARE_SECONDS")]
    pub eventual_compare_seconds: Option<u64>,
    /// Bytes of snapshots that this node sends, a second
    #[arg(long, env = "FLAREDB_SNAPSHOT_BYTES_PER_SECOND")]
    pub snapshot_bytes_per_second: Option<u64>,
    /// Free bytes on the disk below which writes are refused; deletes, below a quarter of that
    #[arg(long, env = "FLAREDB_DISK_RESERVE_BYTES")]
    pub disk_reserve_bytes: Option<u64>,
    /// Whether anyone who reaches the node may cut it off from others, for demonstrations on loopback: true or false
    #[arg(long, env = "FLAREDB_FAULT_CALLS")]
    pub fault_calls: Option<bool>,
    /// What is logged: error, warn, info, debug, trace, or directives such as info,rdb_core=debug
    #[arg(long, env = "FLAREDB_LOG")]
    pub log: Option<String>,
    /// How it is logged: text or json
    #[arg(long, env = "FLAREDB_LOG_FORMAT")]
    pub log_format: Option<LogFormat>,
}

/// A receiver of a snapshot waits some seconds for each of its parts, and no longer.
const SNAPSHOT_BYTES_PER_SECOND_MIN: u64 = 1 << 20;

/// Logs are measured to within 64 KiB for each start of a node.
const EVENTUAL_LOG_BYTES_MIN: u64 = 256 << 10;

/// The runtime has threads for twice as many.
const SCANS_MAX: RangeInclusive<usize> = 1..=256;
/// A year: the next comparison is a moment of the clock, which has an end.
const COMPARE_SECONDS_MAX: u64 = 365 * 24 * 3600;
/// A clock that is slower than this finds no dead leader in time for anyone. What is counted in ticks stays small enough to be
/// multiplied.
const TICK_MS_MAX: u64 = 60_000;
/// The same.
const ELECTION_TICKS_MAX: usize = 10_000;
/// A batch of the largest size, read or written, and room for others beside it.
const REQUEST_BYTES_MIN: usize = 8 << 20;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// A member of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// Its node id.
    pub id: u64,
    /// Where clients reach it.
    pub client: String,
    /// Where other nodes reach it.
    pub peer: String,
}

/// A node's configuration, checked.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Names the cluster.
    pub cluster_id: String,
    /// This node.
    pub node_id: u64,
    /// Where it keeps everything.
    pub data_dir: PathBuf,
    /// Where clients are served.
    pub listen_client: SocketAddr,
    /// Where other nodes are served.
    pub listen_peer: SocketAddr,
    /// Where metrics and health are served.
    pub listen_http: SocketAddr,
    /// All members, this node included.
    pub nodes: Vec<Member>,
    /// Milliseconds of one tick.
    pub tick_ms: u64,
    /// Ticks of silence before an election.
    pub election_ticks: usize,
    /// Ticks between heartbeats.
    pub heartbeat_ticks: usize,
    /// Milliseconds after which an idle region may sleep; 0: never.
    pub sleep_after_ms: u64,
    /// Whether leaders may serve lease reads.
    pub leader_lease: bool,
    /// Milliseconds that a request may take by default.
    pub request_timeout_ms: u64,
    /// Bytes of requests under way.
    pub request_bytes_max: usize,
    /// Connections of clients.
    pub client_connections_max: usize,
    /// Scans at a time.
    pub scans_max: usize,
    /// Those of one namespace; 0: a quarter of the node's.
    pub namespace_request_bytes_max: usize,
    /// Bytes of cached records.
    pub cache_bytes: usize,
    /// Entries kept for lagging followers.
    pub log_keep_entries: u64,
    /// Bytes of a region's log for the sake of a node that is away.
    pub log_bytes_max: u64,
    /// Seconds that a log is kept for a node that is away.
    pub log_keep_seconds: u64,
    /// Seconds that deletions of eventual namespaces are remembered at least.
    pub tombstone_grace_seconds: u64,
    /// Bytes of an eventual namespace's writes that are kept for members that lack them.
    pub eventual_log_bytes_max: u64,
    /// Seconds between two comparisons of an eventual namespace's replicas.
    pub eventual_compare_seconds: u64,
    /// Bytes of snapshots sent a second.
    pub snapshot_bytes_per_second: u64,
    /// Free bytes on the disk below which writes are refused.
    pub disk_reserve_bytes: u64,
    /// Whether the node can be cut off from others by a call.
    pub fault_calls: bool,
    /// What is logged.
    pub log: String,
    /// How it is logged.
    pub log_format: LogFormat,
}

impl Default for Config {
    fn default() -> Self {
        let loopback = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Self {
            cluster_id: String::new(),
            node_id: 0,
            data_dir: PathBuf::new(),
            listen_client: loopback(7101),
            listen_peer: loopback(7201),
            listen_http: loopback(7301),
            nodes: Vec::new(),
            tick_ms: 50,
            election_ticks: 16,
            heartbeat_ticks: 2,
            sleep_after_ms: 5_000,
            leader_lease: false,
            request_timeout_ms: 5_000,
            request_bytes_max: 256 << 20,
            client_connections_max: 10_000,
            scans_max: 64,
            namespace_request_bytes_max: 0,
            cache_bytes: 256 << 20,
            log_keep_entries: 1_000,
            log_bytes_max: 256 << 20,
            log_keep_seconds: 3_600,
            tombstone_grace_seconds: 3_600,
            eventual_log_bytes_max: 2 << 30,
            eventual_compare_seconds: 60,
            snapshot_bytes_per_second: 64 << 20,
            disk_reserve_bytes: 1280 << 20,
            fault_calls: false,
            log: "info".to_owned(),
            log_format: LogFormat::Text,
        }
    }
}

/// What is wrong with a configuration, and where.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {path}: {source}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not what is expected: a typo, or an option that does not exist.
    #[error("the configuration {path} is wrong:\n{source}")]
    Parse {
        /// Which file.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// The options do not fit together.
    #[error("the configuration is wrong: {0}")]
    Invalid(String),
}

/// Whether an address, `host:port`, can be reached from this machine alone.
fn is_loopback(address: &str) -> bool {
    match address.parse::<SocketAddr>() {
        Ok(address) => address.ip().is_loopback(),
        Err(_) => address.rsplit_once(':').is_some_and(|(host, _)| host == "localhost"),
    }
}

fn parse_member(text: &str) -> Result<Member, String> {
    let parts: Vec<&str> = text.split(',').map(str::trim).collect();
    let [id, client, peer] = parts[..] else {
        return Err("expected ID,CLIENT_ADDRESS,PEER_ADDRESS".to_owned());
    };
    let id = id.parse().map_err(|_| format!("'{id}' is not a node id"))?;
    Ok(Member { id, client: client.to_owned(), peer: peer.to_owned() })
}

impl Config {
    /// Reads the file that `flags` names, lets `flags` overrule it, and checks the whole.
    ///
    /// # Errors
    /// The file cannot be read or has an unknown key, or the options do not fit together.
    pub fn load(flags: Flags) -> Result<Self, ConfigError> {
        let mut config = match &flags.config {
            Some(path) => Self::read(path)?,
            None => Self::default(),
        };
        config.overrule(flags);
        config.check()?;
        Ok(config)
    }

    fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        toml::from_str(&text)
            .map_err(|source| ConfigError::Parse { path: path.to_owned(), source: Box::new(source) })
    }

    fn overrule(&mut self, flags: Flags) {
        fn set<T>(option: &mut T, flag: Option<T>) {
            if let Some(flag) = flag {
                *option = flag;
            }
        }
        set(&mut self.cluster_id, flags.cluster_id);
        set(&mut self.node_id, flags.node_id);
        set(&mut self.data_dir, flags.data_dir);
        set(&mut self.listen_client, flags.listen_client);
        set(&mut self.listen_peer, flags.listen_peer);
        set(&mut self.listen_http, flags.listen_http);
        set(&mut self.nodes, Some(flags.nodes).filter(|nodes| !nodes.is_empty()));
        set(&mut self.tick_ms, flags.tick_ms);
        set(&mut self.election_ticks, flags.election_ticks);
        set(&mut self.heartbeat_ticks, flags.heartbeat_ticks);
        set(&mut self.sleep_after_ms, flags.sleep_after_ms);
        set(&mut self.leader_lease, flags.leader_lease);
        set(&mut self.request_timeout_ms, flags.request_timeout_ms);
        set(&mut self.request_bytes_max, flags.request_bytes_max);
        set(&mut self.client_connections_max, flags.client_connections_max);
        set(&mut self.scans_max, flags.scans_max);
        set(&mut self.namespace_request_bytes_max, flags.namespace_request_bytes_max);
        set(&mut self.cache_bytes, flags.cache_bytes);
        set(&mut self.log_keep_entries, flags.log_keep_entries);
        set(&mut self.log_bytes_max, flags.log_bytes_max);
        set(&mut self.log_keep_seconds, flags.log_keep_seconds);
        set(&mut self.tombstone_grace_seconds, flags.tombstone_grace_seconds);
        set(&mut self.eventual_log_bytes_max, flags.eventual_log_bytes_max);
        set(&mut self.eventual_compare_seconds, flags.eventual_compare_seconds);
        set(&mut self.snapshot_bytes_per_second, flags.snapshot_bytes_per_second);
        set(&mut self.disk_reserve_bytes, flags.disk_reserve_bytes);
        set(&mut self.fault_calls, flags.fault_calls);
        set(&mut self.log, flags.log);
        set(&mut self.log_format, flags.log_format);
    }

    fn check(&self) -> Result<(), ConfigError> {
        let wrong = |text: String| Err(ConfigError::Invalid(text));
        if self.cluster_id.is_empty() || 128 < self.cluster_id.len() {
            return wrong("cluster_id is to be set: 1 to 128 bytes, the same on every node".to_owned());
        }
        if self.node_id == 0 {
            return wrong("node_id is to be set: a number from 1".to_owned());
        }
        if self.data_dir.as_os_str().is_empty() {
            return wrong("data_dir is to be set: a folder for this node alone".to_owned());
        }
        let mut ids: Vec<u64> = self.nodes.iter().map(|node| node.id).collect();
        ids.sort_unstable();
        ids.dedup();
        if ids.len() != self.nodes.len() || ids.contains(&0) {
            return wrong("nodes: every id is a number from 1 and stands there once".to_owned());
        }
        if !ids.contains(&self.node_id) {
            return wrong(format!("nodes does not list this node, {}; it lists {ids:?}", self.node_id));
        }
        if ![1, 3, 5].contains(&ids.len()) {
            return wrong(format!("nodes lists {} members; a cluster has 1, 3 or 5", ids.len()));
        }
        let ticks_fit = self.heartbeat_ticks != 0
            && self.heartbeat_ticks.saturating_mul(2) < self.election_ticks
            && self.election_ticks <= ELECTION_TICKS_MAX;
        if !(1..=TICK_MS_MAX).contains(&self.tick_ms) || !ticks_fit {
            return wrong(format!(
                "tick_ms ({}) is 1 to {TICK_MS_MAX}, heartbeat_ticks ({}) at least 1, and election_ticks ({}) more than twice \
                 heartbeat_ticks, and at most {ELECTION_TICKS_MAX}",
                self.tick_ms, self.heartbeat_ticks, self.election_ticks
            ));
        }
        if self.client_connections_max == 0 {
            return wrong("client_connections_max is 0, and at least 1: nobody could connect".to_owned());
        }
        if !SCANS_MAX.contains(&self.scans_max) {
            let (least, most) = (SCANS_MAX.start(), SCANS_MAX.end());
            return wrong(format!(
                "scans_max is {}; it is {least} to {most}, since each takes a thread",
                self.scans_max
            ));
        }
        let (node, namespace) = (self.request_bytes_max, self.namespace_request_bytes_max);
        if node < REQUEST_BYTES_MIN {
            return wrong(format!(
                "request_bytes_max is {node}, and at least {REQUEST_BYTES_MIN}: the largest request must find room"
            ));
        }
        if namespace != 0 && !(REQUEST_BYTES_MIN..=node).contains(&namespace) {
            return wrong(format!(
                "namespace_request_bytes_max is {namespace}, and 0 or from {REQUEST_BYTES_MIN} to request_bytes_max, \
                 {node}"
            ));
        }
        if self.snapshot_bytes_per_second < SNAPSHOT_BYTES_PER_SECOND_MIN {
            return wrong(format!(
                "snapshot_bytes_per_second is {}, and at least {SNAPSHOT_BYTES_PER_SECOND_MIN}: slower, a snapshot would \
                 never arrive",
                self.snapshot_bytes_per_second
            ));
        }
        if self.eventual_log_bytes_max < EVENTUAL_LOG_BYTES_MIN {
            return wrong(format!(
                "eventual_log_bytes_max is {}, and at least {EVENTUAL_LOG_BYTES_MIN}: with less, every short delay would cost a \
                 copy of the data",
                self.eventual_log_bytes_max
            ));
        }
        if COMPARE_SECONDS_MAX < self.eventual_compare_seconds {
            return wrong(format!(
                "eventual_compare_seconds is {}, and at most {COMPARE_SECONDS_MAX}, a year",
                self.eventual_compare_seconds
            ));
        }
        self.check_fault_calls()
    }

    /// Whoever can call may cut the cluster to pieces, so nobody outside this machine may be able to.
    fn check_fault_calls(&self) -> Result<(), ConfigError> {
        if !self.fault_calls {
            return Ok(());
        }
        let listens = [
            ("listen_client", self.listen_client),
            ("listen_peer", self.listen_peer),
            ("listen_http", self.listen_http),
        ];
        let listens = listens.map(|(option, address)| (option, address.to_string()));
        let members = self.nodes.iter().flat_map(|member| {
            [
                ("the client address of a node", member.client.clone()),
                ("a node's peer address", member.peer.clone()),
            ]
        });
        match listens.into_iter().chain(members).find(|(_, address)| !is_loopback(address)) {
            None => Ok(()),
            Some((what, address)) => Err(ConfigError::Invalid(format!(
                "fault_calls is for demonstrations on one machine, and {what} is {address}, which others may reach: use \
                 127.0.0.1 for all addresses, or leave fault_calls out"
            ))),
        }
    }

    /// This node.
    pub fn node(&self) -> NodeId {
        NodeId(self.node_id)
    }

    /// All members, ascending.
    pub fn members(&self) -> Vec<NodeId> {
        let mut members: Vec<NodeId> = self.nodes.iter().map(|node| NodeId(node.id)).collect();
        members.sort_unstable();
        members
    }

    /// One member's addresses.
    pub fn member(&self, node: NodeId) -> Option<&Member> {
        self.nodes.iter().find(|member| member.id == node.0)
    }

    /// The length of a tick.
    pub fn tick(&self) -> Duration {
        Duration::from_millis(self.tick_ms)
    }

    /// How long a request may take where the client does not say.
    pub fn request_timeout(&self) -> Duration {
        Duration::from_millis(self.request_timeout_ms)
    }

    /// How long a leader surely leads after a round that confirmed it; `None` where that is switched off. Followers that
    /// took part promise an election timeout less a tick, by their own clocks; a tenth of it is for clocks that differ.
    pub(crate) fn lease(&self) -> Option<Duration> {
        let ticks = u32::try_from(self.election_ticks.saturating_sub(2)).unwrap_or(u32::MAX);
        self.leader_lease.then(|| self.tick() * ticks / 10 * 9)
    }

    /// No sooner than an election timeout: by then a leader's lease has run out, and a sleeping leader has none.
    fn sleep_after_ticks(&self) -> u64 {
        self.sleep_after_ms.div_ceil(self.tick_ms.max(1)).max(self.election_ticks as u64)
    }

    /// How long logs may become for the sake of members that lag.
    pub(crate) fn log_limits(&self) -> LogLimits {
        LogLimits {
            bytes_max: self.log_bytes_max,
            absence_max: Duration::from_secs(self.log_keep_seconds),
            keep_entries: self.log_keep_entries,
        }
    }

    /// How much of the node's memory for requests one namespace may take, so that it cannot keep the others out.
    pub(crate) fn namespace_bytes_max(&self) -> usize {
        match self.namespace_request_bytes_max {
            0 => (self.request_bytes_max / 4).max(REQUEST_BYTES_MIN),
            bytes_max => bytes_max,
        }
    }

    /// The options of a region's Raft group.
    pub fn raft(&self) -> raft::Options {
        raft::Options {
            election_ticks: self.election_ticks,
            heartbeat_ticks: self.heartbeat_ticks,
            leases: self.leader_lease,
            sleep_after_ticks: (self.sleep_after_ms != 0).then(|| self.sleep_after_ticks()),
            ..raft::Options::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        toml::from_str::<Config>(text).map_err(|error| error.to_string())
    }

    #[test]
    fn the_shipped_file_holds_every_option_with_its_default() {
        let text = include_str!("../../../config/node.toml");
        let shipped = parse(text).unwrap();
        shipped.check().unwrap();
        let expected = Config {
            cluster_id: shipped.cluster_id.clone(),
            node_id: shipped.node_id,
            data_dir: shipped.data_dir.clone(),
            nodes: shipped.nodes.clone(),
            ..Config::default()
        };
        assert_eq!(shipped, expected);
        let table: toml::Table = text.parse().unwrap();
        for option in table.keys() {
            let explained = text.lines().any(|line| line.starts_with(option) || line.contains("[[nodes]]"));
            assert!(explained, "{option}");
        }
        assert_eq!(table.len(), 29, "an option is missing from config/node.toml or from this count");
    }

    /// A leader that sleeps promises nothing, so its lease must have run out by then.
    #[test]
    fn no_region_sleeps_before_a_lease_has_run_out() {
        for sleep_after_ms in [1, 100, 799, 800, 5000] {
            let config = Config { sleep_after_ms, leader_lease: true, ..Config::default() };
            let ticks = u32::try_from(config.raft().sleep_after_ticks.unwrap()).unwrap();
            assert!(config.lease().unwrap() < config.tick() * ticks, "{sleep_after_ms} ms, {ticks} ticks");
            assert!(sleep_after_ms <= u64::from(ticks) * config.tick_ms);
        }
        assert_eq!(Config { sleep_after_ms: 0, ..Config::default() }.raft().sleep_after_ticks, None);
    }

    #[test]
    fn a_typo_is_refused_and_named() {
        let error = parse("cluster_id = \"c\"\nelection_tick = 5\n").unwrap_err();
        assert!(error.contains("election_tick") && error.contains("line 2"), "{error}");
    }

    #[test]
    fn options_that_do_not_fit_are_refused() {
        let good = Config {
            cluster_id: "c".to_owned(),
            node_id: 1,
            data_dir: "d".into(),
            nodes: vec![parse_member("1,a:1,a:2").unwrap()],
            ..Config::default()
        };
        assert!(good.check().is_ok());
        assert_eq!(good.namespace_bytes_max(), 64 << 20);
        let small = Config { request_bytes_max: 12 << 20, ..good.clone() };
        assert_eq!((small.check().is_ok(), small.namespace_bytes_max()), (true, 8 << 20));
        let all = Config { namespace_request_bytes_max: good.request_bytes_max, ..good.clone() };
        assert_eq!((all.check().is_ok(), all.namespace_bytes_max()), (true, 256 << 20));
        for bad in [
            Config { cluster_id: String::new(), ..good.clone() },
            Config { node_id: 2, ..good.clone() },
            Config { nodes: vec![], ..good.clone() },
            Config { nodes: [good.nodes.clone(), good.nodes.clone()].concat(), ..good.clone() },
            Config { election_ticks: 4, ..good.clone() },
            Config { heartbeat_ticks: usize::MAX, ..good.clone() },
            Config { election_ticks: usize::MAX, ..good.clone() },
            Config { tick_ms: u64::MAX, leader_lease: true, ..good.clone() },
            Config { snapshot_bytes_per_second: 1000, ..good.clone() },
            Config { client_connections_max: 0, ..good.clone() },
            Config { eventual_compare_seconds: u64::MAX, ..good.clone() },
            Config { scans_max: 0, ..good.clone() },
            Config { scans_max: 257, ..good.clone() },
            Config { request_bytes_max: 1 << 20, ..good.clone() },
            Config { namespace_request_bytes_max: 1 << 20, ..good.clone() },
            Config { namespace_request_bytes_max: good.request_bytes_max + 1, ..good.clone() },
            Config { data_dir: PathBuf::new(), ..good.clone() },
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn fault_calls_are_for_loopback_alone() {
        let good = Config {
            cluster_id: "c".to_owned(),
            node_id: 1,
            data_dir: "d".into(),
            nodes: vec![parse_member("1,localhost:1,127.0.0.1:2").unwrap()],
            fault_calls: true,
            ..Config::default()
        };
        assert!(good.check().is_ok());
        let anywhere: SocketAddr = "0.0.0.0:1".parse().unwrap();
        for bad in [
            Config { listen_client: anywhere, ..good.clone() },
            Config { listen_peer: anywhere, ..good.clone() },
            Config { listen_http: anywhere, ..good.clone() },
            Config { nodes: vec![parse_member("1,10.0.0.1:1,127.0.0.1:2").unwrap()], ..good.clone() },
            Config { nodes: vec![parse_member("1,127.0.0.1:1,node-1:2").unwrap()], ..good.clone() },
        ] {
            let error = bad.check().unwrap_err().to_string();
            assert!(error.contains("fault_calls is for demonstrations"), "{error}");
            assert!(Config { fault_calls: false, ..bad }.check().is_ok());
        }
    }
}

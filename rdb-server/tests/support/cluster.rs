//! Nodes that belong together.

use super::process::Process;
use super::proxy::{Proxy, Wire};
use super::raw::Raw;
use super::{ports, until};
use rdb_client::{Client, Mode, Options};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Clusters at a time, however many tests the test runner starts: more would only starve each other of processors.
const CLUSTERS_MAX: usize = 4;
/// Attempts to start on ports that nobody takes in the meantime.
const STARTS_MAX: usize = 5;
/// Lines of each node's log that a failed test prints.
const LOG_LINES: usize = 40;
/// What a log must not have.
const NEVER_LOGGED: [&str; 3] = ["panicked at", "it cannot keep its promises", "contradicts this node's log"];

static PLACES: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(CLUSTERS_MAX)));

/// What a test wants.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Nodes.
    pub size: u64,
    /// Lines for every node's configuration.
    pub options: String,
    /// Whether what the nodes say to each other goes through wires that can be cut.
    pub wires: bool,
    /// Files that each node may open, if not as many as the test.
    pub files_max: Option<usize>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { size: 3, options: String::new(), wires: false, files_max: None }
    }
}

/// One node, running or not.
pub struct Node {
    pub id: u64,
    pub client_port: u16,
    pub peer_port: u16,
    pub http_port: u16,
    pub config: PathBuf,
    pub data: PathBuf,
    pub log: PathBuf,
    /// How long the log was when it was last started.
    said_before: usize,
    process: Option<Process>,
}

impl Node {
    /// Where clients are served.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.client_port)
    }

    /// Plain gRPC to it.
    pub fn raw(&self) -> Raw {
        Raw::new(&self.address())
    }

    /// All that it has said.
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// What it has said since it was last started.
    pub fn said_now(&self) -> String {
        self.said().split_off(self.said_before)
    }

    /// A page that it serves over HTTP: the status code and the body.
    pub async fn page(&self, path: &str) -> Option<(u16, String)> {
        let exchange = async {
            let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", self.http_port)).await.ok()?;
            let request = format!("GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.ok()?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.ok()?;
            let (head, body) = answer.split_once("\r\n\r\n")?;
            let code = head.split(' ').nth(1)?.parse().ok()?;
            Some((code, body.to_owned()))
        };
        tokio::time::timeout(Duration::from_secs(2), exchange).await.ok()?
    }

    /// A gauge or counter of a region.
    pub async fn metric(&self, name: &str, region: u64) -> Option<u64> {
        self.gauge(&format!("{name}{{region=\"{region}\"}}")).await
    }

    /// One of the node.
    pub async fn gauge(&self, name: &str) -> Option<u64> {
        let (_, text) = self.page("/metrics").await?;
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
    }
}

/// Nodes that belong together.
pub struct Cluster {
    pub folder: TempDir,
    nodes: BTreeMap<u64, Node>,
    wires: BTreeMap<(u64, u64), Proxy>,
    settings: Settings,
    /// Words that this test expects in a log, though they are bad news elsewhere.
    expected: Vec<&'static str>,
    _place: OwnedSemaphorePermit,
}

impl Cluster {
    /// Three nodes, ready.
    pub async fn of_three() -> Self {
        Self::start(Settings::default()).await
    }

    /// Starts the nodes and waits until they are ready.
    pub async fn start(settings: Settings) -> Self {
        for _ in 0..STARTS_MAX {
            let mut cluster = Self::prepare(settings.clone()).await;
            let ids = cluster.ids();
            for id in &ids {
                cluster.launch(*id);
            }
            if cluster.are_ready_unless_port_taken().await {
                return cluster;
            }
        }
        panic!("no free ports were found");
    }

    /// Chooses folders and ports and writes the configurations, and starts nothing.
    pub async fn prepare(settings: Settings) -> Self {
        let place = PLACES.clone().acquire_owned().await.unwrap();
        let folder = TempDir::with_prefix("flaredb-test-").unwrap();
        let node = |id: u64| Node {
            id,
            client_port: ports::free(),
            peer_port: ports::free(),
            http_port: ports::free(),
            config: folder.path().join(format!("node-{id}.toml")),
            data: folder.path().join(format!("node-{id}")),
            log: folder.path().join(format!("node-{id}.log")),
            said_before: 0,
            process: None,
        };
        let nodes: BTreeMap<_, _> = (1..=settings.size).map(|id| (id, node(id))).collect();
        let mut wires = BTreeMap::new();
        for from in nodes.keys().filter(|_| settings.wires) {
            for to in nodes.keys().filter(|to| *to != from) {
                wires.insert((*from, *to), Proxy::start(nodes[to].peer_port).await);
            }
        }
        let cluster = Self { folder, nodes, wires, settings, expected: Vec::new(), _place: place };
        for id in cluster.ids() {
            cluster.write_config(id, "", |config| config);
        }
        cluster
    }

    /// Writes a node's configuration, with some more options and one last change.
    pub fn write_config(&self, id: u64, options: &str, change: impl FnOnce(String) -> String) {
        let node = &self.nodes[&id];
        let mut text = format!(
            "cluster_id = \"test\"\nnode_id = {id}\ndata_dir = \"{}\"\n\
             listen_client = \"127.0.0.1:{}\"\nlisten_peer = \"127.0.0.1:{}\"\nlisten_http = \"127.0.0.1:{}\"\n",
            node.data.display(),
            node.client_port,
            node.peer_port,
            node.http_port
        );
        for options in [&self.settings.options, options] {
            let _ = writeln!(text, "{options}");
        }
        for peer in self.nodes.values() {
            let wire = self.wires.get(&(id, peer.id)).map(|wire| wire.address().port());
            let _ = writeln!(
                text,
                "[[nodes]]\nid = {}\nclient = \"{}\"\npeer = \"127.0.0.1:{}\"",
                peer.id,
                peer.address(),
                wire.unwrap_or(peer.peer_port)
            );
        }
        std::fs::write(&node.config, change(text)).unwrap();
    }

    async fn are_ready_unless_port_taken(&mut self) -> bool {
        for id in self.ids() {
            let taken = until("a node is ready", async || {
                let node = self.nodes.get_mut(&id)?;
                let ended = node.process.as_mut().is_none_or(|process| process.ended().is_some());
                if ended && node.said().contains("Is another process using the port") {
                    return Some(true);
                }
                assert!(!ended, "node {id} ended while starting: {}", node.said());
                is_ready(node).await.then_some(false)
            });
            if taken.await {
                return false;
            }
        }
        true
    }

    /// All nodes' ids.
    pub fn ids(&self) -> Vec<u64> {
        self.nodes.keys().copied().collect()
    }

    /// All ids but these.
    pub fn others(&self, than: &[u64]) -> Vec<u64> {
        self.ids().into_iter().filter(|id| !than.contains(id)).collect()
    }

    pub fn node(&self, id: u64) -> &Node {
        &self.nodes[&id]
    }

    pub fn data(&self, id: u64) -> &Path {
        &self.nodes[&id].data
    }

    /// A client that knows all nodes.
    pub async fn client(&self) -> Client {
        self.client_with(Options::default()).await
    }

    /// The same, with these options.
    pub async fn client_with(&self, options: Options) -> Client {
        let endpoints = self.nodes.values().map(Node::address).collect();
        let options = Options { endpoints, connect_patience: super::PATIENCE, ..options };
        Client::connect(options).await.unwrap()
    }

    /// Creates a namespace, and waits until every node has it and agrees on who leads it.
    pub async fn create(&self, client: &Client, namespace: &str) -> u64 {
        client.create_namespace(namespace, Mode::Strong).await.unwrap();
        self.leader(namespace).await;
        until("the region is known", async || Some(self.region(self.ids()[0], namespace).await?.id)).await
    }

    /// What a node knows of a namespace's region.
    pub async fn region(&self, id: u64, namespace: &str) -> Option<rdb_proto::v1::Region> {
        let status = self.node(id).raw().status().await.ok()?;
        let namespace = status.namespaces.into_iter().find(|known| known.name == namespace)?;
        namespace.regions.into_iter().next()
    }

    /// The leader of a namespace on which all nodes agree.
    pub async fn leader(&self, namespace: &str) -> u64 {
        self.leader_of(namespace, &self.ids()).await
    }

    /// The leader on which these nodes agree, one of them.
    pub async fn leader_of(&self, namespace: &str, ids: &[u64]) -> u64 {
        until("these nodes agree on a leader among them", async || {
            let mut leader = None;
            for id in ids {
                let known = self.region(*id, namespace).await?.leader;
                if !ids.contains(&known) || leader.is_some_and(|leader| leader != known) {
                    return None;
                }
                leader = Some(known);
            }
            leader
        })
        .await
    }

    /// Waits until these nodes have applied all that the leader has now.
    pub async fn catch_up(&self, namespace: &str, ids: &[u64]) {
        let target = until("the leader's index is known", async || {
            let leader = self.leader_of(namespace, ids).await;
            Some(self.region(leader, namespace).await?.commit_index)
        })
        .await;
        for id in ids {
            until("a node has caught up", async || {
                (target <= self.region(*id, namespace).await?.applied_index).then_some(())
            })
            .await;
        }
    }

    /// Where a node that was never started keeps everything.
    pub fn place(&mut self, id: u64, data: PathBuf) {
        self.nodes.get_mut(&id).unwrap().data = data;
        self.write_config(id, "", |config| config);
    }

    /// Starts all nodes, and waits until they are ready.
    pub async fn launch_all(&mut self) {
        let ids = self.ids();
        ids.iter().for_each(|id| self.launch(*id));
        for id in ids {
            self.ready(id).await;
        }
    }

    /// The most memory that a node has had so far.
    pub fn peak_memory_bytes(&mut self, id: u64) -> u64 {
        self.process(id).peak_memory_bytes()
    }

    /// Starts a node and does not wait.
    pub fn launch(&mut self, id: u64) {
        self.launch_to_crash(id, "");
    }

    /// The same, and has it crash at a point, `POINT:NUMBER`: when it comes there for that time. Only a build with the feature
    /// `failpoints` does so.
    pub fn launch_to_crash(&mut self, id: u64, at: &str) {
        let node = self.nodes.get_mut(&id).unwrap();
        assert!(node.process.is_none(), "node {id} runs");
        node.said_before = node.said().len();
        node.process = Some(Process::start(&node.config, &node.log, at, self.settings.files_max));
    }

    /// Whether a node has crashed at this point, as it was told. It can be started again then.
    pub fn has_crashed(&mut self, id: u64, point: &str) -> bool {
        let node = self.nodes.get_mut(&id).unwrap();
        let Some(status) = node.process.as_mut().and_then(Process::ended) else { return false };
        node.process = None;
        let said = node.said_now();
        let told = said
            .lines()
            .any(|line| line.contains("this process crashes, as it was told") && line.contains(point));
        assert!(told && !status.success(), "node {id} ended by itself: {status}\n{said}");
        for words in NEVER_LOGGED {
            assert!(!said.contains(words), "node {id}: {said}");
        }
        true
    }

    /// Starts a node that was up before, and waits until it is ready.
    pub async fn restart(&mut self, id: u64) {
        self.launch(id);
        self.ready(id).await;
    }

    /// Waits until a node is ready.
    pub async fn ready(&mut self, id: u64) {
        until("a node is ready", async || {
            let node = self.nodes.get_mut(&id)?;
            let ended = node.process.as_mut().is_none_or(|process| process.ended().is_some());
            assert!(!ended, "node {id} ended while starting: {}", node.said());
            is_ready(node).await.then_some(())
        })
        .await;
    }

    /// Starts a node that must refuse to start. Returns its exit code, and what it said this time.
    pub fn refused(&mut self, id: u64) -> (Option<i32>, String) {
        let before = self.node(id).said().len();
        self.launch(id);
        let status = self.process(id).wait();
        self.nodes.get_mut(&id).unwrap().process = None;
        (status.code(), self.node(id).said().split_off(before))
    }

    /// Waits until a running node ends by itself.
    pub fn wait(&mut self, id: u64) -> ExitStatus {
        let status = self.process(id).wait();
        self.nodes.get_mut(&id).unwrap().process = None;
        status
    }

    /// The process of a node that runs.
    pub fn process(&mut self, id: u64) -> &mut Process {
        self.nodes.get_mut(&id).unwrap().process.as_mut().expect("the node runs")
    }

    fn take(&mut self, id: u64) -> Process {
        self.nodes.get_mut(&id).unwrap().process.take().expect("the node runs")
    }

    /// kill -9.
    pub fn kill(&mut self, id: u64) {
        self.take(id).kill();
    }

    /// SIGTERM, and waits until it has stopped.
    pub fn stop(&mut self, id: u64) {
        let status = self.take(id).stop();
        assert!(status.success(), "node {id}: {status}");
    }

    /// SIGSTOP: it neither answers nor notices.
    pub fn pause(&mut self, id: u64) {
        self.process(id).pause();
    }

    /// SIGCONT.
    pub fn resume(&mut self, id: u64) {
        self.process(id).signal(Signal::CONT);
    }

    /// What `from` says to `to`, from now on.
    pub fn wire(&self, from: u64, to: u64, wire: Wire) {
        self.wires[&(from, to)].set(wire);
    }

    /// Everything that `id` and the others say to each other.
    pub fn isolate(&self, id: u64, wire: Wire) {
        for other in self.others(&[id]) {
            self.wire(id, other, wire);
            self.wire(other, id, wire);
        }
    }

    /// This test expects these words in a log.
    pub fn expect_in_log(&mut self, words: &'static str) {
        self.expected.push(words);
    }

    fn search_logs(&self) {
        for node in self.nodes.values() {
            let said = node.said();
            for words in NEVER_LOGGED.iter().filter(|words| !self.expected.contains(words)) {
                let line = said.lines().find(|line| line.contains(words));
                assert!(line.is_none(), "node {}: {}", node.id, line.unwrap_or_default());
            }
        }
    }

    fn print_logs(&self) {
        for node in self.nodes.values() {
            let said = node.said();
            let lines: Vec<&str> = said.lines().collect();
            eprintln!("--- node {}, the end of its log", node.id);
            for line in &lines[lines.len().saturating_sub(LOG_LINES)..] {
                eprintln!("{line}");
            }
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in self.nodes.values_mut() {
            node.process = None;
        }
        if std::thread::panicking() {
            self.print_logs();
        } else {
            self.search_logs();
        }
    }
}

async fn is_ready(node: &Node) -> bool {
    node.page("/readyz").await.is_some_and(|(code, _)| code == 200)
}

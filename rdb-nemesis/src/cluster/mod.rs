//! Nodes that belong together: real processes in a folder of their own. On loopback, their words to each other go through wires that
//! can be cut; or each has a host of its own, and packets are lost between these. Clients reach the nodes directly.

mod clock;
mod disk;
mod host;
mod memory;
mod meter;
mod page;
mod preload;
mod process;
mod raw;
mod syncs;
mod wire;

pub(crate) use disk::try_one as try_power_cut;
pub(crate) use host::try_two as try_hosts;
pub(crate) use memory::try_one as try_memory_cap;
pub(crate) use meter::Meter;
pub(crate) use page::get as page;
pub(crate) use process::Usage;
pub(crate) use raw::{Raw, error_in, timed};
pub(crate) use wire::Wire;

use anyhow::{Context as _, Result, bail};
use clock::Clock;
use disk::Disk;
use host::{Bridge, Host, Sending};
use memory::Cap;
use process::Process;
use rustix::process::Signal;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use syncs::Syncs;
use tokio::time::{Instant, sleep};
use wire::Proxy;

/// The namespace that everything happens in.
pub(crate) const NAMESPACE: &str = "nemesis";
/// Attempts to start on ports that nobody takes in the meantime.
const STARTS_MAX: usize = 5;
/// For anything that should happen at all.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// Until a process that was sent SIGSTOP has stopped.
const STOP_LIMIT: Duration = Duration::from_secs(5);
const STATUS_LIMIT: Duration = Duration::from_millis(500);
/// What no log must have, whatever was done to the node.
const NEVER_LOGGED: [&str; 3] = ["panicked at", DIED, "contradicts this node's log"];
/// What a node says that ends so as not to answer for what is not so.
const DIED: &str = "it cannot keep its promises";
/// What a node says after a snapshot.
const SNAPSHOT_TAKEN_IN: &str = "a snapshot has replaced the region's data";

/// How the nodes are to be.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settings {
    /// How many.
    pub(crate) size: u64,
    /// Lines for every node's configuration.
    pub(crate) options: String,
    /// Whether each has a disk of its own, whose power can be cut.
    pub(crate) disks: bool,
    /// Whether each has a wall clock of its own, which can be stepped.
    pub(crate) clocks: bool,
    /// Whether each one's syncs can be made slow, or fail.
    pub(crate) syncs: bool,
    /// The server that they begin with, where it is another one.
    pub(crate) before: Option<PathBuf>,
    /// Whether each has a host of its own.
    pub(crate) hosts: bool,
}

struct Node {
    server: PathBuf,
    address: Ipv4Addr,
    client_port: u16,
    peer_port: u16,
    http_port: u16,
    config: PathBuf,
    data: PathBuf,
    log: PathBuf,
    raw: Raw,
    process: Option<Process>,
    meter: Meter,
    /// On its memory. Dropped after the process, or it could not be taken off.
    cap: Option<Cap>,
    disk: Option<Disk>,
    clock: Option<Clock>,
    syncs: Option<Syncs>,
    /// Dropped after the process, which lives there.
    host: Option<Host>,
    /// Up to here its log is of a process whose end was wanted.
    excused: usize,
}

impl Node {
    fn http_address(&self) -> SocketAddr {
        (self.address, self.http_port).into()
    }
}

/// Who leads the namespace, in which term.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Leader {
    pub(crate) node: u64,
    pub(crate) term: u64,
}

/// Nodes that belong together, killed when dropped.
pub(crate) struct Cluster {
    server: PathBuf,
    nodes: BTreeMap<u64, Node>,
    /// None where nodes have hosts of their own.
    wires: BTreeMap<(u64, u64), Proxy>,
    /// Why what a host sends could not be lost, or mended, if so.
    not_sent: Mutex<Option<String>>,
    /// What hosts are on. Dropped after them.
    _bridge: Option<Bridge>,
}

impl Cluster {
    /// Starts the nodes and waits until they are ready.
    pub(crate) async fn start(server: &Path, folder: &Path, settings: &Settings) -> Result<Self> {
        for attempt in 0..STARTS_MAX {
            let folder = folder.join(format!("cluster-{attempt}"));
            std::fs::create_dir_all(&folder)?;
            let mut cluster = Self::prepare(server, &folder, settings).await?;
            let ids = cluster.ids();
            for id in &ids {
                cluster.launch(*id)?;
            }
            if cluster.are_ready_unless_port_taken().await? {
                return Ok(cluster);
            }
        }
        bail!("no free ports were found in {STARTS_MAX} attempts")
    }

    async fn prepare(server: &Path, folder: &Path, settings: &Settings) -> Result<Self> {
        let powercut = if settings.disks { Some(disk::make_powercut(folder)?) } else { None };
        let ids: Vec<u64> = (1..=settings.size).collect();
        let clocks = if settings.clocks { Clock::of(folder, &ids)? } else { Vec::new() };
        let mut clocks: BTreeMap<u64, Clock> = clocks.into_iter().collect();
        let syncs = if settings.syncs { Syncs::of(folder, &ids)? } else { Vec::new() };
        let mut syncs: BTreeMap<u64, Syncs> = syncs.into_iter().collect();
        let bridge = settings.hosts.then(Bridge::put_up).transpose()?;
        let mut nodes = BTreeMap::new();
        let mut ports = Ports::default();
        for id in 1..=settings.size {
            let (client_port, peer_port, http_port) = (ports.free(), ports.free(), ports.free());
            let image = folder.join(format!("disk-{id}.img"));
            let disk = powercut
                .clone()
                .map(|powercut| Disk::make(image, folder.join(format!("disk-{id}")), powercut));
            let disk = disk.transpose()?;
            let data = disk
                .as_ref()
                .map_or_else(|| folder.join(format!("node-{id}")), |disk| disk.folder().join("data"));
            let meter = Meter::new(&data);
            let host = bridge.as_ref().map(|bridge| Host::put_up(bridge, id)).transpose()?;
            let address = host.as_ref().map_or(Ipv4Addr::LOCALHOST, Host::address);
            let node = Node {
                server: settings.before.as_deref().unwrap_or(server).to_owned(),
                address,
                client_port,
                peer_port,
                http_port,
                config: folder.join(format!("node-{id}.toml")),
                data,
                log: folder.join(format!("node-{id}.log")),
                raw: Raw::new(&format!("{address}:{client_port}"))?,
                process: None,
                meter,
                cap: None,
                disk,
                clock: clocks.remove(&id),
                syncs: syncs.remove(&id),
                host,
                excused: 0,
            };
            nodes.insert(id, node);
        }
        let mut wires = BTreeMap::new();
        for from in nodes.keys().filter(|_| bridge.is_none()) {
            for (to, node) in nodes.iter().filter(|(to, _)| *to != from) {
                wires.insert((*from, *to), Proxy::start(node.peer_port).await?);
            }
        }
        let cluster =
            Self { server: server.to_owned(), nodes, wires, not_sent: Mutex::default(), _bridge: bridge };
        for id in cluster.ids() {
            std::fs::write(&cluster.node(id).config, cluster.configuration(id, &settings.options))?;
        }
        Ok(cluster)
    }

    fn configuration(&self, id: u64, options: &str) -> String {
        let node = self.node(id);
        let mut text = format!(
            "cluster_id = \"nemesis\"\nnode_id = {id}\ndata_dir = \"{}\"\n\
             listen_client = \"{address}:{}\"\nlisten_peer = \"{address}:{}\"\nlisten_http = \"{address}:{}\"\n\
             {options}\n",
            node.data.display(),
            node.client_port,
            node.peer_port,
            node.http_port,
            address = node.address,
        );
        for (peer_id, peer) in &self.nodes {
            let port = self.wires.get(&(id, *peer_id)).map_or(peer.peer_port, Proxy::port);
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "[[nodes]]\nid = {peer_id}\nclient = \"{address}:{}\"\npeer = \"{address}:{port}\"",
                peer.client_port,
                address = peer.address,
            );
        }
        text
    }

    async fn are_ready_unless_port_taken(&mut self) -> Result<bool> {
        for id in self.ids() {
            if let Err(error) = self.ready(id).await {
                if self.said(id).contains("Is another process using the port") {
                    return Ok(false);
                }
                return Err(error);
            }
        }
        Ok(true)
    }

    /// All nodes' ids.
    pub(crate) fn ids(&self) -> Vec<u64> {
        self.nodes.keys().copied().collect()
    }

    /// All ids but these.
    pub(crate) fn others(&self, than: &[u64]) -> Vec<u64> {
        self.ids().into_iter().filter(|id| !than.contains(id)).collect()
    }

    /// Where clients reach each node.
    pub(crate) fn addresses(&self) -> BTreeMap<u64, String> {
        self.nodes.iter().map(|(id, node)| (*id, format!("{}:{}", node.address, node.client_port))).collect()
    }

    /// A connection to each node.
    pub(crate) fn raws(&self) -> Vec<(u64, Raw)> {
        self.nodes.iter().map(|(id, node)| (*id, node.raw.clone())).collect()
    }

    /// Where each node shows its metrics.
    pub(crate) fn http_addresses(&self) -> BTreeMap<u64, SocketAddr> {
        self.nodes.iter().map(|(id, node)| (*id, node.http_address())).collect()
    }

    /// What measures each node, in the same order.
    pub(crate) fn meters(&self) -> Vec<Meter> {
        self.nodes.values().map(|node| node.meter.clone()).collect()
    }

    fn node(&self, id: u64) -> &Node {
        &self.nodes[&id]
    }

    fn node_mut(&mut self, id: u64) -> Result<&mut Node> {
        self.nodes.get_mut(&id).with_context(|| format!("there is no node {id}"))
    }

    fn process(&mut self, id: u64) -> Result<&mut Process> {
        self.node_mut(id)?.process.as_mut().with_context(|| format!("node {id} does not run"))
    }

    /// All that a node has said.
    pub(crate) fn said(&self, id: u64) -> String {
        std::fs::read_to_string(&self.node(id).log).unwrap_or_default()
    }

    /// How many snapshots a node has taken in, as its log tells.
    pub(crate) fn snapshots_taken_in(&self, id: u64) -> usize {
        self.said(id).matches(SNAPSHOT_TAKEN_IN).count()
    }

    // --- processes

    /// Starts a node and does not wait.
    pub(crate) fn launch(&mut self, id: u64) -> Result<()> {
        let node = self.node_mut(id)?;
        let clock = node.clock.iter().map(Clock::preload);
        let preloads = clock.chain(node.syncs.iter().map(Syncs::preload));
        let process = Process::start(&node.server, node.host.as_ref(), &node.config, &node.log, preloads)?;
        node.meter.begins(process.id());
        node.process = Some(process);
        Ok(())
    }

    /// Takes a node's process, to end it.
    fn take_process(&mut self, id: u64) -> Result<Process> {
        let node = self.node_mut(id)?;
        node.meter.ends();
        node.process.take().with_context(|| format!("node {id} does not run"))
    }

    /// Waits until a node that was started answers.
    pub(crate) async fn ready(&mut self, id: u64) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.process(id)?.ended() {
                bail!("node {id} ended while starting ({status}): {}", last_words(&self.said(id)));
            }
            if self.node(id).raw.status(STATUS_LIMIT).await.is_ok() {
                return Ok(());
            }
            if deadline < Instant::now() {
                bail!("node {id} does not answer {} s after its start", PATIENCE.as_secs());
            }
            sleep(LOOK_INTERVAL).await;
        }
    }

    /// kill -9. Returns when the process is gone.
    pub(crate) fn kill(&mut self, id: u64) -> Result<()> {
        self.take_process(id)?.kill();
        Ok(())
    }

    /// SIGTERM. Returns when the process is gone, which must be in good order.
    pub(crate) async fn stop(&mut self, id: u64) -> Result<()> {
        let status = self.take_process(id)?.stop().await?;
        if !status.success() {
            bail!("node {id} was asked to stop and ended with {status}");
        }
        Ok(())
    }

    /// Stops a node that runs the older server, in good order, and starts it with the other, which it must run then.
    pub(crate) async fn upgrade(&mut self, id: u64) -> Result<()> {
        let (older, newer) = (self.node(id).server.clone(), self.server.clone());
        self.runs(id, &older)?;
        self.stop(id).await?;
        self.node_mut(id)?.server = newer.clone();
        self.launch(id)?;
        self.ready(id).await?;
        self.runs(id, &newer)
    }

    /// Whether all nodes have the server that is tried.
    pub(crate) fn is_upgraded(&self) -> bool {
        self.nodes.values().all(|node| node.server == self.server)
    }

    /// Fails where the kernel says that a node's process is of another file.
    fn runs(&mut self, id: u64, server: &Path) -> Result<()> {
        let (runs, should) = (self.process(id)?.executable()?, server.canonicalize()?);
        if runs != should {
            bail!("node {id} runs {}, and should {}", runs.display(), should.display());
        }
        Ok(())
    }

    /// SIGSTOP: it neither answers nor notices.
    pub(crate) fn pause(&mut self, id: u64) -> Result<()> {
        self.process(id)?.signal(Signal::STOP)
    }

    /// SIGCONT.
    pub(crate) fn resume(&mut self, id: u64) -> Result<()> {
        self.process(id)?.signal(Signal::CONT)
    }

    /// Whether the kernel says that a node's process is stopped.
    pub(crate) fn is_stopped(&mut self, id: u64) -> Result<bool> {
        self.process(id)?.is_stopped()
    }

    /// Steps a node's wall clock: from now on it differs by so many seconds from the right one.
    pub(crate) fn step_clock(&self, id: u64, seconds: i64) -> Result<()> {
        self.node(id).clock.as_ref().context("the node has no clock of its own")?.set(seconds)
    }

    /// Whether a node's process lives by the clock that can be stepped.
    pub(crate) fn has_clock(&mut self, id: u64) -> Result<bool> {
        let process = self.process(id)?.id();
        self.node(id).clock.as_ref().map_or(Ok(false), |clock| clock.preload().is_used_by(process))
    }

    /// Cuts the power of all nodes at one moment of their work. They are stopped first: ext4 that was shut down may tell a
    /// process that still runs that a sync has succeeded though it has not, and a node without power tells nobody anything.
    pub(crate) fn cut_power(&mut self) -> Result<()> {
        for id in self.ids() {
            self.pause(id)?;
        }
        for id in self.ids() {
            self.wait_until_stopped(id)?;
        }
        for node in self.nodes.values() {
            node.disk.as_ref().context("a node has no disk of its own")?.cut_power()?;
        }
        for id in self.ids() {
            self.kill(id)?;
        }
        for node in self.nodes.values_mut() {
            node.disk.as_mut().context("a node has no disk of its own")?.remount()?;
        }
        Ok(())
    }

    /// The signal is only on its way when it has been sent: until one of the process's threads has taken it, all go on.
    fn wait_until_stopped(&mut self, id: u64) -> Result<()> {
        let deadline = Instant::now() + STOP_LIMIT;
        while !self.is_stopped(id)? {
            if deadline < Instant::now() {
                bail!("node {id} still runs {} s after SIGSTOP", STOP_LIMIT.as_secs());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Each of a node's syncs takes so much longer from now on.
    pub(crate) fn slow_syncs(&self, id: u64, by: Duration) -> Result<()> {
        self.syncs(id)?.slow_down(by)
    }

    /// A node's next sync fails.
    pub(crate) fn fail_sync(&self, id: u64) -> Result<()> {
        self.syncs(id)?.fail(1)
    }

    /// All of a node's syncs fail from now on.
    pub(crate) fn fail_all_syncs(&self, id: u64) -> Result<()> {
        self.syncs(id)?.fail(i64::MAX)
    }

    /// A node's next write to its log fails.
    pub(crate) fn fail_write(&self, id: u64) -> Result<()> {
        self.syncs(id)?.fail_writes(1, 0)
    }

    /// So many of a node's writes to its log write only half of what they should.
    pub(crate) fn shorten_writes(&self, id: u64, count: i64) -> Result<()> {
        self.syncs(id)?.fail_writes(0, count)
    }

    /// How many of a node's syncs and writes were slow or short, or failed, so far.
    pub(crate) fn bad_syncs(&self, id: u64) -> Result<i64> {
        self.syncs(id)?.met()
    }

    fn syncs(&self, id: u64) -> Result<&Syncs> {
        self.node(id).syncs.as_ref().context("the node's syncs are as they are")
    }

    /// Waits until a node has ended by itself, in the way that it must, and returns the last that it said.
    pub(crate) async fn ends(&mut self, id: u64, limit: Duration) -> Result<String> {
        let anew = self.until_ended(id, limit).await?;
        if !anew.contains(DIED) {
            bail!("node {id} ended otherwise: {}", last_words(&anew));
        }
        Ok(last_words(&anew).to_owned())
    }

    /// Starts a node that cannot go on, and waits until it has ended by itself again, at whatever it could not do.
    pub(crate) async fn starts_and_ends(&mut self, id: u64, limit: Duration) -> Result<()> {
        self.launch(id)?;
        self.until_ended(id, limit).await.map(drop)
    }

    /// Waits until a node has ended by itself, without a panic; returns what it has said since it was last excused.
    async fn until_ended(&mut self, id: u64, limit: Duration) -> Result<String> {
        let deadline = Instant::now() + limit;
        while self.process(id)?.ended().is_none() {
            if deadline < Instant::now() {
                bail!("node {id} goes on");
            }
            sleep(LOOK_INTERVAL).await;
        }
        let said = self.said(id);
        let node = self.node_mut(id)?;
        let anew = said[node.excused..].to_owned();
        if NEVER_LOGGED.iter().any(|words| *words != DIED && anew.contains(words)) {
            bail!("node {id} ended otherwise: {}", last_words(&anew));
        }
        node.process = None;
        node.meter.ends();
        node.excused = said.len();
        Ok(anew)
    }

    /// A node may take so many bytes of memory more, and is killed by the kernel if it wants more than that.
    pub(crate) fn cap_memory(&mut self, id: u64, bytes: u64) -> Result<()> {
        let process = self.process(id)?.id();
        self.node_mut(id)?.cap = Some(Cap::on(process, &format!("flaredb-nemesis-node-{id}"), bytes)?);
        Ok(())
    }

    /// Whether a node has been killed by somebody else.
    pub(crate) fn was_killed(&mut self, id: u64) -> Result<bool> {
        let Some(status) = self.process(id)?.ended() else { return Ok(false) };
        if status.signal() != Some(Signal::KILL.as_raw()) {
            bail!("node {id} ended by itself ({status}): {}", last_words(&self.said(id)));
        }
        self.take_process(id).map(|_| true)
    }

    /// How many of a node's processes the kernel has killed for want of memory, since it was capped.
    pub(crate) fn killed_for_memory(&self, id: u64) -> Result<u64> {
        self.node(id).cap.as_ref().context("the node's memory has no cap")?.kills()
    }

    /// Fills a node's disk but for so many bytes.
    pub(crate) fn fill_disk(&self, id: u64, but_for: u64) -> Result<()> {
        self.disk(id)?.fill(but_for)
    }

    /// A node's disk stands still from now on: who writes to it waits, and cannot even be killed.
    pub(crate) fn freeze_disk(&mut self, id: u64) -> Result<()> {
        self.node_mut(id)?.disk.as_mut().context("the node has no disk of its own")?.freeze()
    }

    fn disk(&self, id: u64) -> Result<&Disk> {
        self.node(id).disk.as_ref().context("the node has no disk of its own")
    }

    /// Whether a node says that its disk is full.
    pub(crate) async fn says_full(&self, id: u64) -> bool {
        let status = self.node(id).raw.status(STATUS_LIMIT).await.ok();
        let own = status.and_then(|status| status.nodes.into_iter().find(|node| node.id == id));
        own.is_some_and(|node| node.disk_full)
    }

    // --- wires

    /// What `from` says to `to`, from now on.
    pub(crate) fn wire(&self, from: u64, to: u64, wire: Wire) {
        if let Some(proxy) = self.wires.get(&(from, to)) {
            proxy.set(wire);
        } else if let Err(error) = self.send(from, to, wire) {
            // Whoever cuts wires goes on; the run does not.
            *self.not_sent.lock().unwrap_or_else(PoisonError::into_inner) = Some(format!("{error:#}"));
        }
    }

    /// The same between hosts, where it is the packets of all connections that are lost.
    fn send(&self, from: u64, to: u64, wire: Wire) -> Result<()> {
        let (one, other) = (self.host(from)?, self.host(to)?);
        match wire {
            Wire::Whole => one.sends(other, Sending::Arrives),
            Wire::Silent | Wire::Mute => one.sends(other, Sending::IsLost),
            Wire::Closed => one.sends(other, Sending::IsRefused),
            Wire::Deaf => other.sends(one, Sending::IsLost),
            Wire::Slow(_) | Wire::Thin(_) | Wire::Lossy(_) => {
                bail!("hosts can lose packets, and cannot delay them")
            }
        }
    }

    fn host(&self, id: u64) -> Result<&Host> {
        self.node(id).host.as_ref().context("the node has no host of its own")
    }

    /// How often the wire from `from` to `to` has kept something back; between hosts, how often that of `from` has sent again to anyone.
    pub(crate) fn kept_back(&self, from: u64, to: u64) -> u64 {
        let process = || self.node(from).process.as_ref().map(Process::id);
        let sent_again = || process().and_then(|process| host::sent_again(process).ok()).unwrap_or_default();
        self.wires.get(&(from, to)).map_or_else(sent_again, Proxy::kept_back)
    }

    /// How often all wires together have.
    pub(crate) fn kept_back_by_all(&self) -> u64 {
        self.wires.values().map(Proxy::kept_back).sum()
    }

    /// All wires: from whom, and to whom.
    pub(crate) fn all_wires(&self) -> Vec<(u64, u64)> {
        let ids = self.ids();
        ids.iter().flat_map(|from| self.others(&[*from]).into_iter().map(|to| (*from, to))).collect()
    }

    /// Undoes whatever a fault has left: wires are mended, paused nodes go on, and dead ones are started.
    pub(crate) async fn heal(&mut self) -> Result<()> {
        for (from, to) in self.all_wires() {
            self.wire(from, to, Wire::Whole);
        }
        for node in self.nodes.values_mut() {
            node.cap = None;
        }
        self.mend_disks()?;
        for id in self.ids() {
            if self.node(id).process.is_some() {
                self.resume(id)?;
            } else {
                self.launch(id)?;
                self.ready(id).await?;
            }
        }
        Ok(())
    }

    /// All of them, whatever goes wrong with one.
    fn mend_disks(&mut self) -> Result<()> {
        let mut mended = Ok(());
        for node in self.nodes.values_mut() {
            if let Some(disk) = &mut node.disk {
                mended = mended.and(disk.thaw());
                mended = mended.and(disk.free());
            }
            if let Some(syncs) = &node.syncs {
                mended = mended.and(syncs.mend());
            }
        }
        mended
    }

    // --- what the nodes know

    /// Who leads the namespace: the node of the highest term that says so of itself. `None`: nobody does.
    pub(crate) async fn leader_now(&self) -> Option<Leader> {
        self.leader_among(&self.ids()).await
    }

    async fn leader_among(&self, ids: &[u64]) -> Option<Leader> {
        let asked: Vec<_> = ids.iter().map(|id| (*id, self.node(*id).raw.clone())).collect();
        let asked: Vec<_> = asked
            .into_iter()
            .map(|(id, raw)| tokio::spawn(async move { (id, raw.status(STATUS_LIMIT).await) }))
            .collect();
        let mut leader: Option<Leader> = None;
        for answer in asked {
            let Ok((id, Ok(status))) = answer.await else { continue };
            let Some(region) = region_in(&status) else { continue };
            if region.leader == id && leader.is_none_or(|known| known.term < region.term) {
                leader = Some(Leader { node: id, term: region.term });
            }
        }
        leader
    }

    /// Waits for a leader.
    pub(crate) async fn leader(&self) -> Result<Leader> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(leader) = self.leader_now().await {
                return Ok(leader);
            }
            if deadline < Instant::now() {
                bail!("nobody leads the namespace for {} s", PATIENCE.as_secs());
            }
            sleep(LOOK_INTERVAL).await;
        }
    }

    /// Which node leads each namespace, as this node knows it.
    pub(crate) async fn leaders(&self, id: u64) -> Result<BTreeMap<String, u64>> {
        let status = self.node(id).raw.status(PATIENCE).await?;
        let leader =
            |namespace: &rdb_proto::v1::Namespace| namespace.regions.first().map(|region| region.leader);
        let leaders = status.namespaces.iter();
        Ok(leaders.filter_map(|namespace| Some((namespace.name.clone(), leader(namespace)?))).collect())
    }

    /// A number among a node's metrics that has no labels.
    pub(crate) async fn metric(&self, id: u64, name: &str) -> Result<u64> {
        let page = page::get(self.node(id).http_address(), "/metrics").await?;
        let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let value = value.with_context(|| format!("node {id} has no metric {name}"))?;
        value.parse().with_context(|| format!("{name} of node {id} is {value}"))
    }

    /// What a node's process has used so far.
    pub(crate) fn usage(&mut self, id: u64) -> Result<Usage> {
        self.process(id)?.usage()
    }

    /// Waits until every node has applied all that the leader has now.
    pub(crate) async fn catch_up(&self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let mut target = None;
        let mut behind: BTreeSet<u64> = self.ids().into_iter().collect();
        while !behind.is_empty() {
            if target.is_none()
                && let Some(leader) = self.leader_now().await
            {
                target = self.applied_and_commit(leader.node).await.map(|(_, commit)| commit);
            }
            for id in behind.clone() {
                if let (Some(target), Some((applied, _))) = (target, self.applied_and_commit(id).await)
                    && target <= applied
                {
                    behind.remove(&id);
                }
            }
            if deadline < Instant::now() {
                bail!("after {} s these nodes have not caught up: {behind:?}", PATIENCE.as_secs());
            }
            sleep(LOOK_INTERVAL).await;
        }
        Ok(())
    }

    /// How many entries of the namespace's log a node keeps.
    pub(crate) async fn log_entries(&self, id: u64) -> Option<u64> {
        let node = self.node(id);
        let region = region_in(&node.raw.status(STATUS_LIMIT).await.ok()?)?.id;
        let text = page(node.http_address(), "/metrics").await.ok()?;
        let name = format!("flaredb_region_log_entries{{region=\"{region}\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok())
    }

    async fn applied_and_commit(&self, id: u64) -> Option<(u64, u64)> {
        let status = self.node(id).raw.status(STATUS_LIMIT).await.ok()?;
        let region = region_in(&status)?;
        Some((region.applied_index, region.commit_index))
    }

    /// Looks for nodes that have ended by themselves, and for words that no log must have.
    ///
    /// # Errors
    /// Says what was found.
    pub(crate) fn is_sound(&mut self) -> Result<()> {
        if let Some(why) = self.not_sent.get_mut().unwrap_or_else(PoisonError::into_inner) {
            bail!("what hosts send to each other could not be changed: {why}");
        }
        for id in self.ids() {
            let node = self.node_mut(id)?;
            let ended = node.process.as_mut().and_then(Process::ended);
            let said = self.said(id);
            if let Some(status) = ended {
                bail!("node {id} ended by itself ({status}): {}", last_words(&said));
            }
            let bad = |line: &&str| NEVER_LOGGED.iter().any(|words| line.contains(words));
            if let Some(line) = said[self.node(id).excused..].lines().find(bad) {
                bail!("node {id} said: {line}");
            }
        }
        Ok(())
    }
}

/// What waits for a disk that stands still cannot be killed, and nodes are killed when they are dropped.
impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = self.mend_disks();
    }
}

fn region_in(status: &rdb_proto::v1::StatusResponse) -> Option<&rdb_proto::v1::Region> {
    status.namespaces.iter().find(|namespace| namespace.name == NAMESPACE)?.regions.first()
}

fn last_words(said: &str) -> &str {
    said.lines().next_back().unwrap_or("it said nothing")
}

/// Ports below the range from which the kernel takes those of outgoing connections: a node that is started anew needs its
/// own again.
#[derive(Default)]
struct Ports(BTreeSet<u16>);

impl Ports {
    fn free(&mut self) -> u16 {
        loop {
            let port = rand::random_range(11_000..28_000);
            if !self.0.contains(&port) && TcpListener::bind(("127.0.0.1", port)).is_ok() {
                self.0.insert(port);
                return port;
            }
        }
    }
}

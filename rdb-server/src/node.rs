//! The wiring: every thread, task and channel of a node, named once; and how they start and stop.
//!
//! ```text
//! threads   raft         peer_manager    mailbox ──▶ log writer, applier, transport, fetches
//!           log-writer   rdb-storage     its queue ──▶ mailbox, transport
//!           applier      applier         its queue ──▶ callers, mailbox
//!           eventual     eventual        its mailbox ──▶ log writer, callers, transport
//!           fetches      upkeep          its queue ──▶ mailbox
//!           snapshots    snapshots       its queue ──▶ other nodes, mailbox
//!           installs     snapshots       its queue ──▶ log writer, applier, mailbox
//!           switch       switch          what members say, the catalog, a clock ──▶ mailbox
//!           flushes      upkeep          a clock ──▶ mailbox
//!           removals     upkeep          a clock
//!           disk         disk            a clock ──▶ what requests and pings read
//!           peer-notes   peer_notes      a clock
//! runtimes  peers        transport and raft_service: a flood of clients cannot stop heartbeats
//!           clients      api; each scan blocks a thread of it
//!           http         health and metrics, which answer whatever clients do
//! ```

use crate::api::{
    Arriving, ClusterService, Holding, KvService, Lookups, MESSAGE_BYTES_MAX, NamespaceService, Scans,
    arriving_budget,
};
use crate::applier::{Applier, ApplierHandle, Task};
use crate::budget::Budget;
use crate::clocks::{Clocks, WallClock};
use crate::config::Config;
use crate::connections::{Arrivals, Doors};
use crate::disk::{self, Disk};
use crate::eventual::copy::{self, CopiesService};
use crate::eventual::records::{Finders, REQUEST_BYTES_MAX, RecordsService};
use crate::eventual::{self, Eventual};
use crate::faults::{Cuts, FaultService};
use crate::http;
use crate::logging;
use crate::mailbox::{Event, Mailbox};
use crate::metrics::Metrics;
use crate::peer_manager::{Parts, PeerManager};
use crate::peer_notes;
use crate::raft_service::RaftService;
use crate::regions::Regions;
use crate::shared::{CatalogCell, Shared, Stopping};
use crate::snapshots::{Inbound, Installer, Outbound, Throttle, run_installs, run_sends};
use crate::switch::{Alarm, Controller, History, Standings};
use crate::transport::{
    FRAME_BYTES_MAX, Introduction, Links, Peers, SILENCE_MAX, STREAM_WINDOW_BYTES, Transport, Unstarted,
};
use crate::upkeep::{self, Fetcher};
use crate::waiter::WriteWaiter;
use rdb_core::apply::State;
use rdb_core::ids::{NamespaceId, NodeId, RegionId};
use rdb_core::raft::Message;
use rdb_pd::Catalog;
use rdb_proto::internal::v1::copies_server::CopiesServer;
use rdb_proto::internal::v1::faults_server::FaultsServer;
use rdb_proto::internal::v1::peer_server::PeerServer;
use rdb_proto::internal::v1::records_server::RecordsServer;
use rdb_proto::v1::cluster_server::ClusterServer;
use rdb_proto::v1::kv_server::KvServer;
use rdb_proto::v1::namespaces_server::NamespacesServer;
use rdb_storage::{Engine, EngineOptions, Expected, LogSink, LogWriter, LogWriterHandle, LogWriterOptions};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tonic::transport::Server;

/// How long a stopping node waits for others to take over what it leads.
const HAND_OVER_WAIT: Duration = Duration::from_secs(3);
/// How long a stopping node waits for requests under way.
const DRAIN_WAIT: Duration = Duration::from_secs(2);
/// Snapshots that are sent at the same time.
const SNAPSHOTS_SENT_MAX: usize = 2;
/// Between attempts to register nodes in the catalog.
const REGISTER_INTERVAL: Duration = Duration::from_millis(500);
/// What HTTP/2 takes in at a time. By default it is a quarter of a frame of ours, and each piece is dealt with on its own.
const HTTP2_FRAME_BYTES: u32 = 128 << 10;
/// Streams that one client's connection may have open.
const STREAMS_PER_CONNECTION_MAX: u32 = 256;
/// Streams that a connection may have opened and reset before this node came to look, past which it is closed. A client that has
/// all its calls time out while the node stands still has as many as it may have streams; one that has more floods.
const RESETS_PENDING_MAX: usize = STREAMS_PER_CONNECTION_MAX as usize;
/// Streams of a connection that this node may have to reset for what was wrong with them, past which it is closed. Clients that
/// keep to the protocol have none.
const RESETS_FOR_ERRORS_MAX: usize = 1_024;
/// The headers of one call. Those of ours are a few hundred bytes.
const HEADERS_BYTES_MAX: u32 = 16 << 10;
/// Between signs of life that are asked of a client, however idle it is.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// How long it may take for one, after which it is taken for dead, and its connection for another one's place.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory is not one that this node may use.
    #[error(transparent)]
    Storage(#[from] rdb_storage::Error),
    /// What is in it does not fit together.
    #[error("{0}")]
    Boot(String),
    /// An address cannot be listened on.
    #[error(
        "cannot listen on {address} for {what}: {source}. Is another process using the port? Stop it, or change {option}"
    )]
    Listen {
        /// Which address.
        address: SocketAddr,
        /// What for.
        what: &'static str,
        /// The option that sets it.
        option: &'static str,
        /// Why not.
        source: std::io::Error,
    },
    /// The system refused a thread or a runtime.
    #[error("cannot start: {0}")]
    System(#[from] std::io::Error),
}

/// Ends the process at once: to go on would be to answer for what is not so. The log is flushed by being unbuffered.
pub(crate) fn die(reason: &str) -> ! {
    tracing::error!(reason, "this node stops: it cannot keep its promises");
    std::process::abort();
}

/// A running node.
pub struct Node {
    shared: Shared,
    threads: Vec<JoinHandle<()>>,
    applier: ApplierHandle,
    log: Option<LogWriter>,
    stop_upkeep: Arc<AtomicBool>,
    stop_serving: watch::Sender<bool>,
    peers: Runtime,
    clients: Runtime,
    http: Runtime,
    addresses: Addresses,
    _engine: Arc<Engine>,
}

/// Where a node listens.
#[derive(Debug, Clone, Copy)]
struct Addresses {
    client: SocketAddr,
    http: SocketAddr,
}

/// What the log writer reports to.
struct Sink {
    mailbox: Mailbox,
    transport: Transport,
}

impl LogSink for Sink {
    fn persisted(&mut self, region: RegionId, number: u64) {
        // Before its messages leave; the turn for it can wait until they have.
        self.mailbox.post_quietly(Event::Persisted { region, number });
    }

    fn send(&mut self, region: RegionId, messages: Vec<Message>) {
        self.transport.send(region, messages);
    }

    fn reported(&mut self) {
        self.mailbox.take_turns_here();
    }

    fn failed(&mut self, error: rdb_storage::Error) {
        die(&format!("the log cannot be written: {error}"));
    }
}

/// The three sockets, bound before anything on disk is touched: a port in use is found out first.
struct Listeners {
    client: std::net::TcpListener,
    peer: std::net::TcpListener,
    http: std::net::TcpListener,
}

impl Listeners {
    fn bind(config: &Config) -> Result<Self, StartError> {
        let bind = |address: SocketAddr, what, option| {
            let bound = std::net::TcpListener::bind(address)
                .and_then(|listener| listener.set_nonblocking(true).map(|()| listener));
            bound.map_err(|source| StartError::Listen { address, what, option, source })
        };
        Ok(Self {
            client: bind(config.listen_client, "clients", "listen_client")?,
            peer: bind(config.listen_peer, "other nodes", "listen_peer")?,
            http: bind(config.listen_http, "metrics and health", "listen_http")?,
        })
    }
}

/// Half of the processors serve clients: the other threads need some, too, and where one thread is enough, the tasks of a connection
/// need not wake each other across threads.
fn client_workers() -> usize {
    std::thread::available_parallelism().map_or(1, |processors| (processors.get() / 2).max(1))
}

impl Node {
    /// Starts a node. When this returns it serves; whether it is ready, `/readyz` says.
    ///
    /// # Errors
    /// It must not start, or cannot: the error says why and what to do.
    pub fn start(config: Config) -> Result<Self, StartError> {
        Self::start_by(config, WallClock::default())
    }

    /// The same, by another wall clock than the machine's.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_by(config: Config, wall: WallClock) -> Result<Self, StartError> {
        let listeners = Listeners::bind(&config)?;
        // Before the data is opened, which may take more files than a process is given at first.
        let doors = Doors::of_this_process(config.client_connections_max);
        let engine = Arc::new(open(&config)?);
        let runtime = |name: &str, workers: usize| {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            builder.worker_threads(workers).thread_name(name).enable_all().build()
        };
        let peers = runtime("peers", 1)?;
        let clients = runtime("clients", client_workers())?;
        let http = runtime("http", 1)?;
        let (mailbox, events) = Mailbox::new();
        let metrics = Arc::new(Metrics::new());
        let others: Vec<(NodeId, String)> = config
            .nodes
            .iter()
            .filter(|member| member.id != config.node_id)
            .map(|member| (NodeId(member.id), member.peer.clone()))
            .collect();
        let (transport, unstarted) = Transport::new(others.iter().cloned(), mailbox.clone(), metrics.clone());
        let (eventual, eventual_events) = Eventual::new();
        let sink = Sink { mailbox: mailbox.clone(), transport: transport.clone() };
        let log = LogWriter::spawn(&engine, &LogWriterOptions::default(), sink)?;
        let catalog_machine = load_catalog(&engine, &log.handle(), &config)?;
        let budget = Budget::new(config.request_bytes_max);
        let cuts = Cuts::new(config.fault_calls);
        let (alarm, rings) = Alarm::new();
        let shared = Shared {
            identity: Arc::new(engine.identity().clone()),
            catalog: CatalogCell::ringing(alarm.clone()),
            standings: Standings::new(alarm),
            switches: History::default(),
            regions: Regions::new(budget.clone(), config.namespace_bytes_max()),
            data: engine.data(),
            logs: engine.origins(),
            budget,
            arriving: arriving_budget(config.request_bytes_max),
            scans: Scans::new(config.scans_max),
            lookups: Lookups::new(),
            doors,
            disk: Disk::default(),
            peers: Peers::new(others.iter().map(|(node, _)| *node), engine.known_peers()),
            clocks: Clocks::start(wall, others.iter().map(|(node, _)| *node)),
            finders: Finders::new(others.iter().cloned(), cuts.clone()),
            stopping: Stopping::default(),
            config: Arc::new(config),
            mailbox,
            eventual,
            metrics,
        };
        shared.catalog.store(Arc::new(catalog_machine.catalog().clone()));
        let mut threads = Vec::new();
        let (applier, fetcher) = start_workers(&shared, &engine, &mut threads)?;
        let driver = eventual::Driver::new(
            eventual::Parts {
                node: shared.config.node(),
                eventual: shared.eventual.clone(),
                transport: transport.clone(),
                log: log.handle(),
                health: shared.peers.clone(),
                mailbox: shared.mailbox.clone(),
                regions: shared.regions.clone(),
                standings: shared.standings.clone(),
                clocks: shared.clocks.clone(),
                tombstone_grace: Duration::from_secs(shared.config.tombstone_grace_seconds),
                log_bytes_max: shared.config.eventual_log_bytes_max,
                compare_interval: Duration::from_secs(shared.config.eventual_compare_seconds),
                fetcher: copy::Fetcher::new(shared.clone(), peers.handle().clone()),
            },
            &engine,
        )?;
        let controller = Controller::new(shared.clone());
        threads.push(spawn("switch", move || controller.run(&rings))?);
        threads.push(spawn("eventual", move || driver.run(&eventual_events))?);
        let links = links(&shared, &engine, &log.handle(), cuts);
        let outbound = start_sends(&shared, &links, &mut threads)?;
        let installer = start_installs(&shared, &log.handle(), &applier, &mut threads)?;
        let inbound = inbound(&shared, &engine, &installer, &links.cuts);
        let parts = Parts {
            config: shared.config.clone(),
            mailbox: shared.mailbox.clone(),
            eventual: shared.eventual.clone(),
            transport,
            log: log.handle(),
            applier: applier.clone(),
            fetcher,
            outbound,
            installer,
            health: shared.peers.clone(),
            disk: shared.disk.clone(),
            clocks: shared.clocks.clone(),
            regions: shared.regions.clone(),
            metrics: shared.metrics.clone(),
            logger: logging::slog_logger(),
        };
        let manager = PeerManager::boot(parts, &engine, &catalog_machine)
            .map_err(|error| StartError::Boot(error.to_string()))?;
        threads.push(spawn("raft", move || manager.run(events))?);
        let stop_upkeep = Arc::new(AtomicBool::new(false));
        start_upkeep(&shared, &engine, log.handle(), &stop_upkeep, &mut threads)?;
        let (stop_serving, stopped) = watch::channel(false);
        let addresses =
            Addresses { client: listeners.client.local_addr()?, http: listeners.http.local_addr()? };
        serve_peers(&peers, &shared, &links, inbound, unstarted, listeners.peer)?;
        serve_clients(&clients, &shared, &links.cuts, listeners.client, stopped.clone())?;
        serve_http(&http, &shared, &log.handle(), listeners.http, stopped)?;
        clients.spawn(register_nodes(shared.clone()));
        tracing::info!(
            node = shared.config.node_id,
            cluster = shared.config.cluster_id,
            client = %addresses.client,
            http = %addresses.http,
            "serving"
        );
        Ok(Self {
            shared,
            threads,
            applier,
            log: Some(log),
            stop_upkeep,
            stop_serving,
            peers,
            clients,
            http,
            addresses,
            _engine: engine,
        })
    }

    /// Where clients are served.
    pub fn client_address(&self) -> SocketAddr {
        self.addresses.client
    }

    /// Where metrics and health are served.
    pub fn http_address(&self) -> SocketAddr {
        self.addresses.http
    }

    /// Stops the node: hands over what it leads, takes no more requests, lets those under way end, and closes its files
    /// with nothing left to replay.
    pub fn stop(mut self) {
        tracing::info!("stopping");
        self.hand_over();
        self.shared.stopping.set();
        let drained = Instant::now() + DRAIN_WAIT;
        while 0 < self.shared.budget.used() && Instant::now() < drained {
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.stop_serving.send(true);
        self.clients.shutdown_timeout(Duration::from_millis(500));
        self.http.shutdown_timeout(Duration::from_millis(500));
        self.stop_upkeep.store(true, Ordering::Relaxed);
        self.shared.mailbox.post(Event::Stop);
        self.shared.eventual.post(eventual::Event::Stop);
        self.applier.post(Task::Stop);
        self.peers.shutdown_timeout(Duration::from_millis(500));
        for thread in self.threads {
            // A thread that panicked has said so; with panics that abort it never gets here.
            let _ = thread.join();
        }
        // Behind all threads: the last thing that one of them does may be to have a region's log removed.
        if let Some(Err(error)) = self.log.take().map(LogWriter::shutdown) {
            tracing::error!(%error, "the log was not closed well");
        }
        if let Err(error) = self.shared.data.flush() {
            tracing::error!(%error, "the data was not flushed; the next start replays the log instead");
        }
        tracing::info!("stopped");
    }

    fn majority_is_reachable(&self) -> bool {
        let members = self.shared.config.members();
        let silence = |node: &NodeId| self.shared.peers.silence(*node);
        let others =
            members.iter().filter(|node| silence(node).is_some_and(|silence| silence <= SILENCE_MAX));
        members.len() / 2 < others.count() + 1
    }

    fn hand_over(&self) {
        if self.shared.config.nodes.len() == 1 {
            return;
        }
        let deadline = Instant::now() + HAND_OVER_WAIT;
        let leads = || self.shared.regions.all().values().any(|view| view.leads());
        let mut asked = Instant::now();
        self.shared.mailbox.post(Event::HandOver);
        // With the others gone there is nobody to take over, and nobody to serve.
        while leads() && self.majority_is_reachable() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
            if Duration::from_millis(500) < asked.elapsed() {
                asked = Instant::now();
                self.shared.mailbox.post(Event::HandOver);
            }
        }
    }
}

fn open(config: &Config) -> Result<Engine, rdb_storage::Error> {
    let expected = Expected { cluster_id: config.cluster_id.clone(), node_id: config.node() };
    let options = EngineOptions { block_cache_bytes: config.cache_bytes, ..EngineOptions::default() };
    Engine::open(&config.data_dir, &expected, &options)
}

/// The catalog as it is stored. The meta region is made at the very first start, on every node alike.
fn load_catalog(
    engine: &Engine,
    log: &LogWriterHandle,
    config: &Config,
) -> Result<rdb_pd::Machine, StartError> {
    let known = engine.log().regions()?.iter().any(|stored| stored.region() == RegionId::META);
    let stored = engine.data().load(RegionId::META)?;
    if !known {
        if stored.is_some() {
            return Err(StartError::Boot(
                "the data has a catalog but the log has none: the log was lost. Do not start this node; \
                 see docs/data-on-disk.md"
                    .to_owned(),
            ));
        }
        let (done, created) = crossbeam_channel::bounded(1);
        log.create_region(RegionId::META, config.members(), move || {
            let _ = done.send(());
        })?;
        if created.recv().is_err() {
            return Err(StartError::Boot("the meta region's log could not be made".to_owned()));
        }
    }
    let state = stored.map_or_else(State::default, |(state, _)| state);
    let mut catalog = Catalog::default();
    for (key, value) in engine.data().records(NamespaceId::META)? {
        catalog.load(&key, &value).map_err(|error| StartError::Boot(format!("the catalog: {error}")))?;
    }
    Ok(rdb_pd::Machine::new(state, catalog))
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(run)
}

fn start_workers(
    shared: &Shared,
    engine: &Engine,
    threads: &mut Vec<JoinHandle<()>>,
) -> std::io::Result<(ApplierHandle, Fetcher)> {
    let (tasks, work) = rdb_queue::unbounded();
    let handle = ApplierHandle(tasks);
    let applier = Applier {
        data: shared.data.clone(),
        mailbox: shared.mailbox.clone(),
        eventual: shared.eventual.clone(),
        handle: handle.clone(),
        catalog: shared.catalog.clone(),
        metrics: shared.metrics.clone(),
        answer_first: shared.config.lease().is_none(),
    };
    threads.push(spawn("applier", move || {
        if let Err(error) = applier.run(&work) {
            die(&error.to_string());
        }
    })?);
    let (fetcher, fetches) = Fetcher::new();
    let (logs, mailbox) = (engine.log(), shared.mailbox.clone());
    threads.push(spawn("fetches", move || upkeep::run_fetches(&fetches, &logs, &mailbox))?);
    Ok((handle, fetcher))
}

fn start_upkeep(
    shared: &Shared,
    engine: &Arc<Engine>,
    log: LogWriterHandle,
    stop: &Arc<AtomicBool>,
    threads: &mut Vec<JoinHandle<()>>,
) -> std::io::Result<()> {
    let (flushes, stop_flushes) = (shared.clone(), stop.clone());
    threads.push(spawn("flushes", move || upkeep::run_flushes(&flushes, &stop_flushes))?);
    let (dropped, disk, stop_removals) = (engine.dropped_logs(), shared.disk.clone(), stop.clone());
    threads.push(spawn("removals", move || upkeep::run_removals(&dropped, &disk, &stop_removals))?);
    let (peers, notes, stop_notes) = (shared.peers.clone(), engine.clone(), stop.clone());
    threads.push(spawn("peer-notes", move || peer_notes::run_notes(&peers, &notes, &stop_notes))?);
    // Once before this node serves.
    shared.disk.look(engine, &shared.config, &shared.peers);
    let (shared, engine, stop) = (shared.clone(), engine.clone(), stop.clone());
    threads.push(spawn("disk", move || disk::run_looks(&shared, &engine, &log, &stop))?);
    Ok(())
}

fn start_sends(
    shared: &Shared,
    links: &Links,
    threads: &mut Vec<JoinHandle<()>>,
) -> std::io::Result<Outbound> {
    let (outbound, sends) = Outbound::new();
    let addresses: Arc<BTreeMap<NodeId, String>> =
        Arc::new(shared.config.nodes.iter().map(|member| (NodeId(member.id), member.peer.clone())).collect());
    let throttle = Arc::new(Throttle::new(shared.config.snapshot_bytes_per_second));
    for _ in 0..SNAPSHOTS_SENT_MAX {
        let (sends, shared, links, addresses, throttle) =
            (sends.clone(), shared.clone(), links.clone(), addresses.clone(), throttle.clone());
        threads.push(spawn("snapshots", move || {
            run_sends(&sends, &shared, &links, &addresses, &throttle);
        })?);
    }
    Ok(outbound)
}

fn start_installs(
    shared: &Shared,
    log: &LogWriterHandle,
    applier: &ApplierHandle,
    threads: &mut Vec<JoinHandle<()>>,
) -> std::io::Result<Installer> {
    let (installer, installs) = Installer::new();
    let (data, log, applier) = (shared.data.clone(), log.clone(), applier.clone());
    let (catalog, mailbox) = (shared.catalog.clone(), shared.mailbox.clone());
    threads.push(spawn("installs", move || {
        run_installs(&installs, &data, &log, &applier, &catalog, &mailbox);
    })?);
    Ok(installer)
}

fn links(shared: &Shared, engine: &Engine, log: &LogWriterHandle, cuts: Cuts) -> Links {
    let config = &shared.config;
    let introduction = Introduction {
        cluster_id: config.cluster_id.clone(),
        node: config.node(),
        store_id: shared.identity.store_id,
        incarnation: shared.identity.incarnation,
        client_address: config.member(config.node()).map(|member| member.client.clone()).unwrap_or_default(),
        process: rand::random(),
        log: log.clone(),
        clocks: shared.clocks.clone(),
    };
    Links {
        introduction,
        peers: shared.peers.clone(),
        catalog: shared.catalog.clone(),
        mailbox: shared.mailbox.clone(),
        eventual: shared.eventual.clone(),
        standings: shared.standings.clone(),
        disk: shared.disk.clone(),
        cuts,
        outdated: engine.outdated_mark(),
    }
}

fn inbound(shared: &Shared, engine: &Engine, installer: &Installer, cuts: &Cuts) -> Inbound {
    Inbound::new(
        engine.inbox(),
        shared.regions.clone(),
        shared.catalog.clone(),
        shared.mailbox.clone(),
        shared.disk.clone(),
        installer.clone(),
        cuts.clone(),
    )
}

fn serve_peers(
    runtime: &Runtime,
    shared: &Shared,
    links: &Links,
    inbound: Inbound,
    unstarted: Unstarted,
    listener: std::net::TcpListener,
) -> Result<(), StartError> {
    let others = shared.config.members().into_iter().filter(|member| *member != shared.config.node());
    let service = RaftService::new(links.clone(), shared.metrics.clone(), inbound, others);
    let service = PeerServer::new(service)
        .max_decoding_message_size(FRAME_BYTES_MAX)
        .max_encoding_message_size(FRAME_BYTES_MAX);
    let records = RecordsService { shared: shared.clone(), cuts: links.cuts.clone() };
    let records = RecordsServer::new(records).max_decoding_message_size(REQUEST_BYTES_MAX);
    let copies = CopiesService::new(shared.clone(), links.cuts.clone());
    let copies = CopiesServer::new(copies).max_decoding_message_size(copy::REQUEST_BYTES_MAX);
    let _entered = runtime.enter();
    unstarted.start(links);
    let arrivals = Arrivals::of_grpc(listener, shared.doors.peers.clone())?;
    runtime.spawn(async move {
        let served = Server::builder()
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(2 * STREAM_WINDOW_BYTES)
            .max_frame_size(HTTP2_FRAME_BYTES)
            .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
            .add_service(service)
            .add_service(records)
            .add_service(copies)
            .serve_with_incoming(arrivals)
            .await;
        if let Err(error) = served {
            die(&format!("other nodes can no longer be served: {error}"));
        }
    });
    Ok(())
}

/// What arrives for a service counts, whichever it is: a client may choose the one that does not.
fn counted<S>(shared: &Shared, service: S) -> Arriving<S> {
    Arriving::new(service, shared.arriving.clone(), shared.config.request_timeout())
}

fn serve_clients(
    runtime: &Runtime,
    shared: &Shared,
    cuts: &Cuts,
    listener: std::net::TcpListener,
    mut stopped: watch::Receiver<bool>,
) -> Result<(), StartError> {
    let (limit, patience) = (MESSAGE_BYTES_MAX, shared.config.request_timeout());
    let faults =
        FaultService::new(cuts, &shared.config).map(|service| counted(shared, FaultsServer::new(service)));
    let kv = KvServer::new(KvService(shared.clone())).max_decoding_message_size(limit);
    let kv = counted(shared, Holding::new(kv, patience));
    let namespaces = NamespacesServer::new(NamespaceService(shared.clone())).max_decoding_message_size(limit);
    let namespaces = counted(shared, Holding::new(namespaces, patience));
    let cluster = ClusterServer::new(ClusterService(shared.clone())).max_decoding_message_size(limit);
    let cluster = counted(shared, cluster);
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(rdb_proto::FILE_DESCRIPTOR_SET)
        .build_v1()
        .map_err(|error| StartError::Boot(format!("reflection: {error}")))?;
    let reflection = counted(shared, reflection);
    let (reporter, health) = tonic_health::server::health_reporter();
    let health = counted(shared, health);
    let _entered = runtime.enter();
    let arrivals = Arrivals::of_grpc(listener, shared.doors.clients.clone())?;
    runtime.spawn(async move {
        reporter.set_serving::<KvServer<KvService>>().await;
        let served = Server::builder()
            .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
            .http2_max_pending_accept_reset_streams(Some(RESETS_PENDING_MAX))
            .http2_max_local_error_reset_streams(Some(RESETS_FOR_ERRORS_MAX))
            .http2_max_header_list_size(HEADERS_BYTES_MAX)
            .max_frame_size(HTTP2_FRAME_BYTES)
            .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
            .add_service(kv)
            .add_service(namespaces)
            .add_service(cluster)
            .add_optional_service(faults)
            .add_service(health)
            .add_service(reflection)
            .serve_with_incoming_shutdown(arrivals, async move {
                let _ = stopped.wait_for(|stop| *stop).await;
            })
            .await;
        if let Err(error) = served {
            die(&format!("clients can no longer be served: {error}"));
        }
    });
    Ok(())
}

fn serve_http(
    runtime: &Runtime,
    shared: &Shared,
    log: &LogWriterHandle,
    listener: std::net::TcpListener,
    mut stopped: watch::Receiver<bool>,
) -> Result<(), StartError> {
    let pages = http::Pages { shared: shared.clone(), log: log.clone() };
    let _entered = runtime.enter();
    let arrivals = Arrivals::of_http(listener, shared.doors.http.clone())?;
    runtime.spawn(async move {
        let serve = axum::serve(arrivals, http::router(pages)).with_graceful_shutdown(async move {
            let _ = stopped.wait_for(|stop| *stop).await;
        });
        if let Err(error) = serve.await {
            tracing::error!(%error, "metrics and health can no longer be served");
        }
    });
    Ok(())
}

/// The catalog's leader remembers the directory with which each node first joined, so that a node which comes back with
/// an empty one is not mistaken for it: it might vote twice.
async fn register_nodes(shared: Shared) {
    loop {
        tokio::time::sleep(REGISTER_INTERVAL).await;
        let leads = shared.regions.get(RegionId::META).is_some_and(|view| view.leads());
        if !leads || shared.stopping.is_set() {
            continue;
        }
        for node in shared.config.members() {
            let store_id = if node == shared.config.node() {
                Some(shared.identity.store_id)
            } else {
                // Not one that is known from before this process alone: it may be another one by now.
                let met = shared.peers.silence(node).and_then(|_| shared.peers.directory(node));
                met.map(|directory| directory.store_id)
            };
            if let Some(store_id) = store_id.filter(|_| shared.catalog.load().node(node).is_none()) {
                register(&shared, node, store_id).await;
            }
        }
    }
}

async fn register(shared: &Shared, node: NodeId, store_id: u64) {
    let command = rdb_pd::Command::RegisterNode { node, store_id };
    let (waiter, answer) = WriteWaiter::channel();
    let event = Event::Write { region: RegionId::META, commands: command.encode(), waiter };
    shared.mailbox.post(event);
    if let Ok(Ok(Err(failure))) = tokio::time::timeout(shared.config.request_timeout(), answer).await {
        tracing::debug!(%node, ?failure, "the node is not registered yet");
    }
}

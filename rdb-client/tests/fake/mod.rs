//! A cluster to test clients against: the wire's services over one map in memory, with faults at the tester's word.
//!
//! It keeps no promise of its own: all nodes share the map, and whoever `leader` names answers. Each node has a runtime
//! of its own, so that [`Cluster::kill`] closes its sockets as a crash does.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    clippy::unwrap_used,
    reason = "a test's tool, used in parts"
)]

mod conflicts;
mod quarantine;
mod switch;

use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message;
use rdb_proto::v1::pipe_operation::Operation;
use rdb_proto::v1::pipe_result::Result as PipeResult;
use rdb_proto::v1::{self, Code, Header, Mode, Outcome};
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

/// Records of one page of a scan.
pub const SCAN_PAGE_RECORDS: usize = 3;

/// Calls at a time that a node takes on one connection, as real ones do.
const CALLS_PER_CONNECTION_MAX: u32 = 256;

/// What a node does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Answers that no leader is known.
    NoLeader,
    /// Answers that it is busy.
    Busy,
    /// Answers that the write is in doubt, without applying it.
    InDoubt,
    /// Applies what the message holds, then breaks the stream without an answer.
    BreakAfterApply,
    /// The same, and this happens before anyone can ask again.
    BreakAfterApplyAnd(Meanwhile),
    /// Breaks the stream without applying anything.
    BreakBeforeApply,
    /// Answers that the write was not confirmed in time, without applying it.
    TimedOut,
    /// Answers nothing at all.
    Silent,
    /// Names this node as the leader.
    NotLeader(u64),
}

/// Answers that a session keeps, as real ones do.
const ANSWERS_MAX: usize = 4096;

/// What can happen between two attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meanwhile {
    /// The session is forgotten.
    Expiry,
    /// The namespace is deleted, and another one is created under its name.
    Replacement,
    /// Another epoch begins.
    NextEpoch,
}

pub struct Cluster {
    pub world: Arc<World>,
    nodes: BTreeMap<u64, (SocketAddr, Option<Runtime>)>,
}

/// What all nodes share.
#[derive(Default)]
pub struct World {
    state: Mutex<State>,
    /// Pipe messages and unary calls that arrived.
    pub messages: AtomicU64,
    /// Operations in them.
    pub operations: AtomicU64,
    /// Times that a node was asked for the cluster's status: once for each client that connects, at least.
    pub statuses: AtomicU64,
    /// Milliseconds that every answer takes.
    pub delay_ms: AtomicU64,
    /// Acknowledges writes without applying them.
    pub forgetful: AtomicBool,
    /// A call of its own that breaks is cancelled, as by a connection that is reset.
    pub cancels: AtomicBool,
    /// Puts of this key are answered "busy" for as long as it is set.
    pub stuck: Mutex<Option<Bytes>>,
    /// Answers are of eventual mode.
    pub eventual: Mutex<Option<Eventual>>,
}

/// What is different in eventual mode. Whoever asks for acknowledgements of all does not get them.
#[derive(Default)]
pub struct Eventual {
    /// What the answers show.
    pub shown: rdb_proto::session::Token,
    /// What puts and gets have brought: the session of a read, or the version and the acknowledgements of a write.
    pub brought: Vec<(Bytes, Option<v1::Version>, v1::Acks)>,
}

#[derive(Default)]
struct State {
    leader: u64,
    addresses: BTreeMap<u64, SocketAddr>,
    down: BTreeMap<u64, bool>,
    /// Names, ids, and the tokens that they were created under.
    namespaces: BTreeMap<String, (u32, u64)>,
    namespaces_created: u32,
    epoch: u64,
    data: BTreeMap<(String, Bytes), (Bytes, v1::Version)>,
    /// Per node, what goes wrong and how often yet.
    faults: HashMap<u64, (Fault, u64)>,
    /// By namespace and client.
    sessions: HashMap<(u32, u64), Session>,
    sessions_opened: u64,
    /// Of so many the answer is lost yet.
    openings_lost: u64,
    clock: u64,
    writes_applied: u64,
    switch: switch::Switch,
    quarantine: BTreeMap<u64, Vec<v1::QuarantinedWrite>>,
    lost: BTreeMap<u64, Vec<v1::LostWrite>>,
    /// No namespace has sessions.
    eventual: bool,
}

/// What a region knows of one client.
#[derive(Default)]
struct Session {
    token: u64,
    lowest: u64,
    answers: BTreeMap<u64, PipeResult>,
}

/// How a write is named, in which epoch.
#[derive(Default, Clone, Copy)]
struct Name {
    epoch: u64,
    client: u64,
    sequence: u64,
    lowest: u64,
}

impl Name {
    fn new(epoch: u64, request: Option<v1::RequestId>) -> Self {
        let v1::RequestId { client, sequence, lowest } = request.unwrap_or_default();
        Self { epoch, client, sequence, lowest }
    }
}

impl Cluster {
    /// Nodes 1 to `count`, of which 1 leads, and the namespace `test`.
    pub fn start(count: u64) -> Self {
        let world = Arc::new(World::default());
        let mut cluster = Self { world: world.clone(), nodes: BTreeMap::new() };
        {
            let mut state = world.state.lock();
            state.leader = 1;
            state.epoch = 1;
            state.create("test", 0);
        }
        for id in 1..=count {
            cluster.start_node(id, "127.0.0.1:0".parse().unwrap());
        }
        cluster
    }

    pub fn start_node(&mut self, id: u64, address: SocketAddr) {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = std::net::TcpListener::bind(address).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        self.world.state.lock().addresses.insert(id, address);
        self.world.state.lock().down.insert(id, false);
        let service = Service { id, world: self.world.clone() };
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            tonic::transport::Server::builder()
                .max_concurrent_streams(CALLS_PER_CONNECTION_MAX)
                .initial_stream_window_size(4 << 20)
                .initial_connection_window_size(16 << 20)
                .add_service(
                    v1::kv_server::KvServer::new(service.clone()).max_decoding_message_size(16 << 20),
                )
                .add_service(v1::namespaces_server::NamespacesServer::new(service.clone()))
                .add_service(v1::cluster_server::ClusterServer::new(service))
                .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)))
                .await
        });
        self.nodes.insert(id, (address, Some(runtime)));
    }

    pub fn endpoints(&self) -> Vec<String> {
        self.nodes.values().map(|(address, _)| address.to_string()).collect()
    }

    pub fn endpoint(&self, id: u64) -> String {
        self.nodes[&id].0.to_string()
    }

    pub fn kill(&mut self, id: u64) {
        self.world.state.lock().down.insert(id, true);
        if let Some(runtime) = self.nodes.get_mut(&id).and_then(|(_, runtime)| runtime.take()) {
            runtime.shutdown_background();
        }
    }

    pub fn lead(&self, id: u64) {
        self.world.state.lock().leader = id;
    }

    /// The node's next `times` operations, or calls, go wrong.
    pub fn fault(&self, id: u64, fault: Fault, times: u64) {
        self.world.state.lock().faults.insert(id, (fault, times));
    }

    pub fn writes_applied(&self) -> u64 {
        self.world.state.lock().writes_applied
    }

    /// Forgets all sessions, and with them what they had done.
    pub fn expire_sessions(&self) {
        self.world.state.lock().sessions.clear();
    }

    /// The next `times` sessions that are asked for are opened, and nobody hears of it.
    pub fn lose_openings(&self, times: u64) {
        self.world.state.lock().openings_lost = times;
    }

    /// Sessions that were ever opened.
    pub fn sessions_opened(&self) -> u64 {
        self.world.state.lock().sessions_opened
    }

    /// Of all sessions, the highest sequence that any client has called the lowest it waits for.
    pub fn lowest(&self) -> u64 {
        self.world.state.lock().sessions.values().map(|session| session.lowest).max().unwrap_or_default()
    }

    /// Another epoch begins.
    pub fn next_epoch(&self) {
        self.world.state.lock().epoch += 1;
    }

    /// All namespaces have this mode, in another epoch.
    pub fn become_eventual(&self, eventual: bool) {
        let mut state = self.world.state.lock();
        state.epoch += 1;
        state.eventual = eventual;
    }

    /// Puts another namespace in the place of this one, as if it had been deleted and created.
    pub fn replace_namespace(&self, name: &str) {
        let mut state = self.world.state.lock();
        state.delete(name);
        state.create(name, 0);
    }

    pub fn namespace_id(&self, name: &str) -> Option<u32> {
        self.world.state.lock().namespaces.get(name).map(|(id, _)| *id)
    }

    /// Switches of mode that were ever begun, and whether one is under way.
    pub fn switches(&self) -> (u64, bool) {
        let state = self.world.state.lock();
        (state.switch.number, state.switch.under_way)
    }

    pub fn value(&self, key: &str) -> Option<Bytes> {
        let state = self.world.state.lock();
        state
            .data
            .get(&("test".into(), Bytes::copy_from_slice(key.as_bytes())))
            .map(|(value, _)| value.clone())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for id in self.nodes.keys().copied().collect::<Vec<_>>() {
            self.kill(id);
        }
    }
}

/// The stream ends here, without an answer.
struct Broken;

impl State {
    fn header(&self, node: u64) -> Header {
        let leader_address = self.addresses.get(&self.leader).map(ToString::to_string).unwrap_or_default();
        Header {
            node,
            mode: Mode::Strong.into(),
            epoch: self.epoch,
            leader: self.leader,
            leader_address,
            ..Header::default()
        }
    }

    fn next_fault(&mut self, node: u64) -> Option<Fault> {
        let (fault, times) = self.faults.get_mut(&node)?;
        let fault = *fault;
        *times -= 1;
        if *times == 0 {
            self.faults.remove(&node);
        }
        Some(fault)
    }

    /// What goes wrong before a request is looked at.
    fn refuse(&mut self, node: u64, fault: Option<Fault>) -> Option<Result<v1::Error, Broken>> {
        let redirect = match fault {
            Some(Fault::NotLeader(id)) => Some(id),
            Some(Fault::NoLeader) => Some(0),
            _ if self.leader != node => Some(self.leader),
            _ => None,
        };
        match (redirect, fault) {
            (Some(leader), _) => Some(Ok(self.not_leader(leader))),
            (_, Some(Fault::Busy)) => Some(Ok(busy())),
            (_, Some(Fault::InDoubt)) => Some(Ok(in_doubt())),
            (_, Some(Fault::TimedOut)) => Some(Ok(timed_out())),
            (_, Some(Fault::BreakBeforeApply)) => Some(Err(Broken)),
            _ => None,
        }
    }

    fn execute(
        &mut self,
        node: u64,
        namespace: &str,
        name: Name,
        operation: Operation,
        forget: bool,
    ) -> Result<PipeResult, Broken> {
        let fault = self.next_fault(node);
        if let Some(refused) = self.refuse(node, fault) {
            return refused.map(error_result);
        }
        let Some((id, _)) = self.namespaces.get(namespace).copied() else {
            return Ok(PipeResult::NotDone(not_found(namespace)));
        };
        if name.epoch != 0 && name.epoch != self.epoch {
            return Ok(PipeResult::NotDone(epoch_mismatch()));
        }
        let place = (id, name.client);
        if name.sequence != 0 {
            let Some(session) = self.sessions.get_mut(&place) else {
                return Ok(PipeResult::InDoubt(session_expired()));
            };
            if let Some(answer) = session.answers.get(&name.sequence) {
                let answer = answer.clone();
                return if self.breaks(fault, namespace) { Err(Broken) } else { Ok(answer) };
            }
            if name.sequence < session.lowest {
                return Ok(PipeResult::InDoubt(session_expired()));
            }
            session.lowest = session.lowest.max(name.lowest);
            session.answers = session.answers.split_off(&session.lowest);
            assert!(
                session.answers.len() < ANSWERS_MAX,
                "a cluster would forget an answer that is waited for"
            );
        }
        let result = self.apply(namespace, operation, forget);
        if let Some(session) = self.sessions.get_mut(&place).filter(|_| name.sequence != 0) {
            session.answers.insert(name.sequence, result.clone());
        }
        if self.breaks(fault, namespace) { Err(Broken) } else { Ok(result) }
    }

    /// Whether the answer is lost; then something else may happen, too.
    fn breaks(&mut self, fault: Option<Fault>, namespace: &str) -> bool {
        match fault {
            Some(Fault::BreakAfterApply) => true,
            Some(Fault::BreakAfterApplyAnd(meanwhile)) => {
                match meanwhile {
                    Meanwhile::Expiry => self.sessions.clear(),
                    Meanwhile::Replacement => {
                        self.delete(namespace);
                        self.create(namespace, 0);
                    }
                    Meanwhile::NextEpoch => self.epoch += 1,
                }
                true
            }
            _ => false,
        }
    }

    fn create(&mut self, name: &str, token: u64) {
        self.namespaces_created += 1;
        self.namespaces.insert(name.to_owned(), (self.namespaces_created, token));
    }

    fn delete(&mut self, name: &str) {
        if let Some((id, _)) = self.namespaces.remove(name) {
            self.sessions.retain(|(of, _), _| *of != id);
        }
        self.data.retain(|(namespace, _), _| *namespace != name);
    }

    fn apply(&mut self, namespace: &str, operation: Operation, forget: bool) -> PipeResult {
        let place = |key: Bytes| (namespace.to_string(), key);
        let done = |version| PipeResult::Done(v1::Done { version: Some(version) });
        match operation {
            Operation::Get(get) => {
                let found = self.data.get(&place(get.key));
                PipeResult::Found(v1::Found {
                    value: found.map(|(value, _)| value.clone()),
                    version: found.map(|(_, version)| *version),
                    deleted: None,
                })
            }
            Operation::BatchGet(get) => {
                let records = get.keys.into_iter().filter_map(|key| {
                    let (value, version) = self.data.get(&place(key.clone()))?;
                    Some(v1::Record { key, value: value.clone(), version: Some(*version) })
                });
                PipeResult::Records(v1::Records { records: records.collect() })
            }
            Operation::Put(put) => {
                let version = self.stamp();
                if !forget {
                    self.data.insert(place(put.key), (put.value, version));
                }
                done(version)
            }
            Operation::Delete(delete) => {
                self.data.remove(&place(delete.key));
                done(self.stamp())
            }
            Operation::BatchWrite(batch) => {
                let version = self.stamp();
                for write in batch.writes {
                    match write.write {
                        Some(v1::write::Write::Put(put)) => {
                            self.data.insert(place(put.key), (put.value, version));
                        }
                        Some(v1::write::Write::Delete(delete)) => {
                            self.data.remove(&place(delete.key));
                        }
                        None => {}
                    }
                }
                done(version)
            }
            Operation::DeleteRange(range) => {
                self.delete_range(namespace, &range);
                done(self.stamp())
            }
            Operation::Transaction(transaction) => {
                PipeResult::Transaction(self.transact(namespace, transaction))
            }
            Operation::Cas(cas) => {
                let found = self.data.get(&place(cas.key.clone())).cloned();
                let expected = match cas.expect.unwrap() {
                    v1::compare_and_swap::Expect::Absent(_) => found.is_none(),
                    v1::compare_and_swap::Expect::Present(_) => found.is_some(),
                    v1::compare_and_swap::Expect::Value(value) => {
                        found.as_ref().is_some_and(|f| f.0 == value)
                    }
                    v1::compare_and_swap::Expect::Version(version) => {
                        found.as_ref().is_some_and(|f| f.1 == version)
                    }
                };
                if !expected {
                    return PipeResult::Mismatch(v1::Mismatch {
                        version: found.as_ref().map(|f| f.1),
                        found: found.map(|f| f.0),
                    });
                }
                let version = self.stamp();
                match cas.then_put {
                    Some(value) => self.data.insert(place(cas.key), (value, version)),
                    None => self.data.remove(&place(cas.key)),
                };
                done(version)
            }
        }
    }

    /// All pages of a scan.
    fn scan(&self, node: u64, request: &v1::ScanRequest) -> Vec<v1::ScanResponse> {
        use v1::scan::Keys;
        let scan = request.scan.clone().unwrap_or_default();
        let wanted = |key: &Bytes| match &scan.keys {
            None => true,
            Some(Keys::Prefix(prefix)) => key.starts_with(prefix),
            Some(Keys::Range(range)) => range.from <= *key && (range.to.is_empty() || *key < range.to),
        };
        // The token is the last key.
        let behind = |key: &Bytes| match (&request.token[..], scan.reverse) {
            ([], _) => true,
            (token, false) => token < &key[..],
            (token, true) => &key[..] < token,
        };
        let all = self.data.iter().filter(|((of, key), _)| *of == request.namespace && wanted(key));
        let mut records: Vec<_> = all
            .filter(|((_, key), _)| behind(key))
            .map(|((_, key), (value, version))| v1::Record {
                key: key.clone(),
                value: if scan.keys_only { Bytes::new() } else { value.clone() },
                version: Some(*version),
            })
            .collect();
        if scan.reverse {
            records.reverse();
        }
        let limited = scan.limit != 0 && scan.limit < records.len() as u64;
        records.truncate(if limited { usize::try_from(scan.limit).unwrap() } else { usize::MAX });
        let mut pages: Vec<_> = records
            .chunks(SCAN_PAGE_RECORDS)
            .map(|page| v1::ScanResponse {
                header: Some(self.header(node)),
                records: if scan.count_only { Vec::new() } else { page.to_vec() },
                count: page.len() as u64,
                token: page.last().unwrap().key.clone(),
                done: false,
            })
            .collect();
        if pages.is_empty() {
            pages.push(v1::ScanResponse { header: Some(self.header(node)), ..Default::default() });
        }
        let last = pages.last_mut().unwrap();
        last.done = true;
        if !limited {
            last.token.clear();
        }
        pages
    }

    fn delete_range(&mut self, namespace: &str, range: &v1::DeleteRange) {
        let within = |key: &Bytes| range.from <= *key && (range.to.is_empty() || *key < range.to);
        self.data.retain(|(of, key), _| of != namespace || !within(key));
    }

    fn transact(&mut self, namespace: &str, transaction: v1::Transaction) -> v1::TransactionResult {
        use v1::compare::Expect;
        use v1::transaction_operation::Operation;
        let place = |key: &Bytes| (namespace.to_string(), key.clone());
        let held = transaction.compares.iter().all(|compare| {
            let found = self.data.get(&place(&compare.key));
            match compare.expect.as_ref().unwrap() {
                Expect::Absent(_) => found.is_none(),
                Expect::Present(_) => found.is_some(),
                Expect::Value(value) => found.is_some_and(|found| found.0 == value),
                Expect::Version(version) => found.is_some_and(|found| found.1 == *version),
            }
        });
        let operations = if held { transaction.then } else { transaction.otherwise };
        let writes =
            operations.iter().any(|operation| !matches!(operation.operation, Some(Operation::Get(_))));
        let version = writes.then(|| self.stamp());
        let mut results = Vec::new();
        for operation in operations {
            let mut found = None;
            match operation.operation.unwrap() {
                Operation::Put(put) => {
                    self.data.insert(place(&put.key), (put.value, version.unwrap()));
                }
                Operation::Delete(delete) => drop(self.data.remove(&place(&delete.key))),
                Operation::DeleteRange(range) => self.delete_range(namespace, &range),
                Operation::Get(get) => {
                    let (value, version) = self.data.get(&place(&get.key)).cloned().unzip();
                    found = Some(v1::Found { value, version, deleted: None });
                }
            }
            results.push(v1::TransactionOperationResult { found });
        }
        v1::TransactionResult { held, version, results, results_forgotten: false }
    }

    fn stamp(&mut self) -> v1::Version {
        self.clock += 1;
        self.writes_applied += 1;
        v1::Version { era: 1, hlc: self.clock, node: self.leader }
    }

    fn not_leader(&self, leader: u64) -> v1::Error {
        let address = self.addresses.get(&leader);
        v1::Error {
            code: if address.is_some() { Code::NotLeader } else { Code::NoLeader }.into(),
            outcome: Outcome::NotDone.into(),
            retry_after_ms: if address.is_some() { 0 } else { 20 },
            message: if address.is_some() { "this node does not lead" } else { "no leader is known" }.into(),
            leader,
            leader_address: address.map(ToString::to_string).unwrap_or_default(),
            ..v1::Error::default()
        }
    }

    fn namespace(&self, name: &str) -> Option<v1::Namespace> {
        let (id, _) = *self.namespaces.get(name)?;
        let region = v1::Region {
            id: id.into(),
            leader: self.leader,
            term: 2,
            commit_index: self.clock,
            applied_index: self.clock,
            members: self.addresses.keys().copied().collect(),
            absent: false,
        };
        Some(v1::Namespace {
            name: name.into(),
            id,
            mode: Mode::Strong.into(),
            epoch: self.epoch,
            era: 1,
            regions: vec![region],
            preferred_leader: self.leader,
            deleting: false,
            ..v1::Namespace::default()
        })
    }
}

fn busy() -> v1::Error {
    v1::Error {
        code: Code::ResourceExhausted.into(),
        outcome: Outcome::NotDone.into(),
        retry_after_ms: 5,
        message: "too much is in flight".into(),
        ..v1::Error::default()
    }
}

fn in_doubt() -> v1::Error {
    v1::Error {
        code: Code::LeaderLost.into(),
        outcome: Outcome::InDoubt.into(),
        retry_after_ms: 5,
        message: "leadership was lost while the write was on its way".into(),
        ..v1::Error::default()
    }
}

fn timed_out() -> v1::Error {
    v1::Error {
        code: Code::DeadlineExceeded.into(),
        outcome: Outcome::InDoubt.into(),
        message: "the write was not confirmed within 5 ms".into(),
        ..v1::Error::default()
    }
}

fn epoch_mismatch() -> v1::Error {
    v1::Error {
        code: Code::EpochMismatch.into(),
        outcome: Outcome::NotDone.into(),
        message: "the namespace is in another epoch".into(),
        ..v1::Error::default()
    }
}

fn session_expired() -> v1::Error {
    v1::Error {
        code: Code::SessionExpired.into(),
        outcome: Outcome::InDoubt.into(),
        message: "the record of this session's request is gone; the request was not executed now".into(),
        ..v1::Error::default()
    }
}

fn error_result(error: v1::Error) -> PipeResult {
    if error.outcome() == Outcome::InDoubt { PipeResult::InDoubt(error) } else { PipeResult::NotDone(error) }
}

fn to_status(error: &v1::Error) -> Status {
    let mut status = Status::unavailable(error.message.clone());
    let value = tonic::metadata::MetadataValue::from_bytes(&error.encode_to_vec());
    status.metadata_mut().insert_bin(rdb_proto::ERROR_METADATA_KEY, value);
    status
}

#[derive(Clone)]
struct Service {
    id: u64,
    world: Arc<World>,
}

impl Service {
    async fn delay(&self) {
        let delay = self.world.delay_ms.load(Ordering::Relaxed);
        if 0 < delay {
            tokio::time::sleep(Duration::from_millis(delay)).await;
        }
    }

    async fn is_silent(&self) -> bool {
        let silent = {
            let mut state = self.world.state.lock();
            let silent = matches!(state.faults.get(&self.id), Some((Fault::Silent, _)));
            if silent {
                state.next_fault(self.id);
            }
            silent
        };
        self.delay().await;
        silent
    }

    fn is_stuck(&self, operation: &Operation) -> bool {
        let stuck = self.world.stuck.lock();
        matches!((operation, &*stuck), (Operation::Put(put), Some(key)) if put.key == *key)
    }

    /// Takes note of what a request has brought.
    fn bring(&self, session: &Bytes, seen: Option<v1::Version>, acks: v1::Acks) {
        if let Some(eventual) = &mut *self.world.eventual.lock() {
            eventual.brought.push((session.clone(), seen, acks));
        }
    }

    /// A header as it is in the world's mode.
    fn mark(&self, header: Header) -> Header {
        match &*self.world.eventual.lock() {
            Some(eventual) => {
                Header { mode: Mode::Eventual.into(), session: eventual.shown.encode(), ..header }
            }
            None => header,
        }
    }

    /// A result as it is in the world's mode.
    fn acknowledge(&self, acks: v1::Acks, result: PipeResult) -> PipeResult {
        match (&*self.world.eventual.lock(), result) {
            (Some(eventual), PipeResult::Done(done)) if acks == v1::Acks::All => {
                PipeResult::DoneHere(v1::Error {
                    code: Code::TooFewAcks.into(),
                    outcome: Outcome::DoneHere.into(),
                    message: "on 1 of 3".into(),
                    done_here: Some(Box::new(v1::DoneHere {
                        version: done.version,
                        session: eventual.shown.encode(),
                    })),
                    ..v1::Error::default()
                })
            }
            (_, result) => result,
        }
    }

    fn execute_message(&self, request: v1::PipeRequest) -> Result<v1::PipeResponse, Broken> {
        let acks = request.acks();
        self.bring(&request.session, request.seen, acks);
        let mut state = self.world.state.lock();
        let forget = self.world.forgetful.load(Ordering::Relaxed);
        // All nodes have the same records here, so any of them serves local reads.
        let local = request.consistency() == v1::Consistency::Local;
        let node = if local { state.leader } else { self.id };
        let mut results = Vec::with_capacity(request.operations.len());
        for operation in request.operations {
            let name = Name {
                epoch: request.epoch,
                client: request.client,
                sequence: operation.sequence,
                lowest: request.lowest,
            };
            let operation_id = operation.id;
            let operation = operation.operation.unwrap();
            let result = if self.is_stuck(&operation) {
                PipeResult::NotDone(busy())
            } else {
                self.acknowledge(acks, state.execute(node, &request.namespace, name, operation, forget)?)
            };
            results.push(v1::PipeResult { id: operation_id, result: Some(result) });
        }
        Ok(v1::PipeResponse { header: Some(self.mark(state.header(self.id))), results })
    }

    async fn unary(
        &self,
        namespace: &str,
        name: Name,
        operation: Operation,
    ) -> Result<(Option<Header>, PipeResult), Status> {
        self.world.messages.fetch_add(1, Ordering::Relaxed);
        self.world.operations.fetch_add(1, Ordering::Relaxed);
        if self.is_silent().await {
            std::future::pending::<()>().await;
        }
        if self.is_stuck(&operation) {
            return Err(to_status(&busy()));
        }
        let mut state = self.world.state.lock();
        let forget = self.world.forgetful.load(Ordering::Relaxed);
        match state.execute(self.id, namespace, name, operation, forget) {
            Ok(PipeResult::NotDone(error) | PipeResult::InDoubt(error)) => Err(to_status(&error)),
            Ok(result) => Ok((Some(self.mark(state.header(self.id))), result)),
            Err(Broken) if self.world.cancels.load(Ordering::Relaxed) => Err(Status::cancelled("broken")),
            Err(Broken) => Err(Status::unavailable("broken")),
        }
    }

    async fn unary_write(
        &self,
        namespace: &str,
        name: Name,
        operation: Operation,
    ) -> Result<Response<v1::WriteResponse>, Status> {
        let (header, result) = self.unary(namespace, name, operation).await?;
        let PipeResult::Done(done) = result else { unreachable!() };
        Ok(Response::new(v1::WriteResponse { header, version: done.version }))
    }
}

#[tonic::async_trait]
impl v1::kv_server::Kv for Service {
    async fn get(&self, request: Request<v1::GetRequest>) -> Result<Response<v1::GetResponse>, Status> {
        let request = request.into_inner();
        self.bring(&request.session, None, v1::Acks::Unspecified);
        let (header, result) =
            self.unary(&request.namespace, Name::default(), Operation::Get(request.get.unwrap())).await?;
        let PipeResult::Found(found) = result else { unreachable!() };
        let v1::Found { value, version, deleted } = found;
        Ok(Response::new(v1::GetResponse { header, value, version, deleted }))
    }

    async fn put(&self, request: Request<v1::PutRequest>) -> Result<Response<v1::WriteResponse>, Status> {
        let request = request.into_inner();
        let (name, acks) = (Name::new(request.epoch, request.request), request.acks());
        self.bring(&Bytes::new(), request.seen, acks);
        let operation = Operation::Put(request.put.unwrap());
        let (header, result) = self.unary(&request.namespace, name, operation).await?;
        match self.acknowledge(acks, result) {
            PipeResult::Done(done) => Ok(Response::new(v1::WriteResponse { header, version: done.version })),
            PipeResult::DoneHere(error) => Err(to_status(&error)),
            _ => unreachable!(),
        }
    }

    async fn delete(
        &self,
        request: Request<v1::DeleteRequest>,
    ) -> Result<Response<v1::WriteResponse>, Status> {
        let request = request.into_inner();
        let operation = Operation::Delete(request.delete.unwrap());
        let name = Name::new(request.epoch, request.request);
        self.unary_write(&request.namespace, name, operation).await
    }

    async fn compare_and_swap(
        &self,
        request: Request<v1::CompareAndSwapRequest>,
    ) -> Result<Response<v1::CompareAndSwapResponse>, Status> {
        let request = request.into_inner();
        let operation = Operation::Cas(request.cas.unwrap());
        let name = Name::new(request.epoch, request.request);
        let (header, result) = self.unary(&request.namespace, name, operation).await?;
        Ok(Response::new(match result {
            PipeResult::Done(done) => {
                v1::CompareAndSwapResponse { header, swapped: true, version: done.version, found: None }
            }
            PipeResult::Mismatch(mismatch) => v1::CompareAndSwapResponse {
                header,
                swapped: false,
                version: mismatch.version,
                found: mismatch.found,
            },
            _ => unreachable!(),
        }))
    }

    async fn batch_get(
        &self,
        request: Request<v1::BatchGetRequest>,
    ) -> Result<Response<v1::BatchGetResponse>, Status> {
        let request = request.into_inner();
        let operation = Operation::BatchGet(request.get.unwrap());
        let (header, result) = self.unary(&request.namespace, Name::default(), operation).await?;
        let PipeResult::Records(records) = result else { unreachable!() };
        Ok(Response::new(v1::BatchGetResponse { header, records: records.records }))
    }

    async fn batch_write(
        &self,
        request: Request<v1::BatchWriteRequest>,
    ) -> Result<Response<v1::WriteResponse>, Status> {
        let request = request.into_inner();
        let operation = Operation::BatchWrite(request.batch.unwrap());
        let name = Name::new(request.epoch, request.request);
        self.unary_write(&request.namespace, name, operation).await
    }

    async fn delete_range(
        &self,
        request: Request<v1::DeleteRangeRequest>,
    ) -> Result<Response<v1::WriteResponse>, Status> {
        let request = request.into_inner();
        let operation = Operation::DeleteRange(request.range.unwrap());
        let name = Name::new(request.epoch, request.request);
        self.unary_write(&request.namespace, name, operation).await
    }

    async fn transaction(
        &self,
        request: Request<v1::TransactionRequest>,
    ) -> Result<Response<v1::TransactionResponse>, Status> {
        let request = request.into_inner();
        let operation = Operation::Transaction(request.transaction.unwrap());
        let name = Name::new(request.epoch, request.request);
        let (header, result) = self.unary(&request.namespace, name, operation).await?;
        let PipeResult::Transaction(result) = result else { unreachable!() };
        Ok(Response::new(v1::TransactionResponse { header, result: Some(result) }))
    }

    type ScanStream = ReceiverStream<Result<v1::ScanResponse, Status>>;

    async fn scan(&self, request: Request<v1::ScanRequest>) -> Result<Response<Self::ScanStream>, Status> {
        let request = request.into_inner();
        self.world.messages.fetch_add(1, Ordering::Relaxed);
        if self.is_silent().await {
            std::future::pending::<()>().await;
        }
        let pages = {
            let mut state = self.world.state.lock();
            let fault = state.next_fault(self.id);
            match fault {
                Some(Fault::NotLeader(id)) => return Err(to_status(&state.not_leader(id))),
                Some(Fault::NoLeader) => return Err(to_status(&state.not_leader(0))),
                Some(Fault::Busy) => return Err(to_status(&busy())),
                Some(Fault::BreakBeforeApply) => return Err(Status::unavailable("broken")),
                _ if state.leader != self.id => return Err(to_status(&state.not_leader(state.leader))),
                _ => {}
            }
            if !state.namespaces.contains_key(&request.namespace) {
                return Err(to_status(&not_found(&request.namespace)));
            }
            let mut pages: Vec<_> = state.scan(self.id, &request).into_iter().map(Ok).collect();
            if fault == Some(Fault::BreakAfterApply) {
                pages.truncate(1);
                pages.push(Err(Status::unavailable("broken")));
            }
            pages
        };
        let (sender, stream) = tokio::sync::mpsc::channel(pages.len());
        pages.into_iter().for_each(|page| sender.try_send(page).unwrap());
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn open_session(
        &self,
        request: Request<v1::OpenSessionRequest>,
    ) -> Result<Response<v1::OpenSessionResponse>, Status> {
        self.delay().await;
        let mut state = self.world.state.lock();
        if state.leader != self.id {
            return Err(to_status(&state.not_leader(state.leader)));
        }
        if state.eventual {
            let header = Some(state.header(self.id));
            return Ok(Response::new(v1::OpenSessionResponse { header, client: 0 }));
        }
        let v1::OpenSessionRequest { namespace: name, token, .. } = request.into_inner();
        let Some((id, _)) = state.namespaces.get(&name).copied() else {
            return Err(to_status(&not_found(&name)));
        };
        let known = state
            .sessions
            .iter()
            .find(|((of, _), session)| *of == id && token != 0 && session.token == token);
        let client = match known {
            Some(((_, client), _)) => *client,
            None => {
                state.sessions_opened += 1;
                let client = state.sessions_opened;
                state.sessions.insert((id, client), Session { token, ..Session::default() });
                client
            }
        };
        if 0 < state.openings_lost {
            state.openings_lost -= 1;
            return Err(Status::unavailable("broken"));
        }
        Ok(Response::new(v1::OpenSessionResponse { header: Some(state.header(self.id)), client }))
    }

    type PipeStream = ReceiverStream<Result<v1::PipeResponse, Status>>;

    async fn pipe(
        &self,
        request: Request<Streaming<v1::PipeRequest>>,
    ) -> Result<Response<Self::PipeStream>, Status> {
        let mut requests = request.into_inner();
        let (answers, stream) = tokio::sync::mpsc::channel(64);
        let service = self.clone();
        tokio::spawn(async move {
            while let Ok(Some(request)) = requests.message().await {
                service.world.messages.fetch_add(1, Ordering::Relaxed);
                service.world.operations.fetch_add(request.operations.len() as u64, Ordering::Relaxed);
                let (service, answers) = (service.clone(), answers.clone());
                let answer = async move {
                    if service.is_silent().await {
                        return;
                    }
                    let answer = service.execute_message(request);
                    let _ = answers.send(answer.map_err(|Broken| Status::unavailable("broken"))).await;
                };
                tokio::spawn(answer);
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

#[tonic::async_trait]
impl v1::namespaces_server::Namespaces for Service {
    async fn create(
        &self,
        request: Request<v1::CreateNamespaceRequest>,
    ) -> Result<Response<v1::CreateNamespaceResponse>, Status> {
        let v1::CreateNamespaceRequest { name, token, .. } = request.into_inner();
        let mut state = self.world.state.lock();
        let fault = state.next_fault(self.id);
        if let Some(refused) = state.refuse(self.id, fault) {
            return Err(refused_status(refused));
        }
        match state.namespaces.get(&name) {
            Some((_, known)) if token == 0 || *known != token => {
                return Err(to_status(&v1::Error {
                    code: Code::NamespaceExists.into(),
                    outcome: Outcome::NotDone.into(),
                    message: format!("there is a namespace '{name}' already"),
                    ..v1::Error::default()
                }));
            }
            Some(_) => {}
            None => state.create(&name, token),
        }
        if state.breaks(fault, &name) {
            return Err(refused_status(Err(Broken)));
        }
        let namespace = state.namespace(&name);
        Ok(Response::new(v1::CreateNamespaceResponse { header: Some(state.header(self.id)), namespace }))
    }

    async fn list(
        &self,
        _: Request<v1::ListNamespacesRequest>,
    ) -> Result<Response<v1::ListNamespacesResponse>, Status> {
        let state = self.world.state.lock();
        let namespaces = state.namespaces.keys().filter_map(|name| state.namespace(name)).collect();
        Ok(Response::new(v1::ListNamespacesResponse { header: Some(state.header(self.id)), namespaces }))
    }

    async fn describe(
        &self,
        request: Request<v1::DescribeNamespaceRequest>,
    ) -> Result<Response<v1::DescribeNamespaceResponse>, Status> {
        let name = request.into_inner().name;
        let state = self.world.state.lock();
        match state.namespace(&name) {
            Some(namespace) => Ok(Response::new(v1::DescribeNamespaceResponse {
                header: Some(state.header(self.id)),
                namespace: Some(namespace),
            })),
            None => Err(to_status(&not_found(&name))),
        }
    }

    async fn delete(
        &self,
        request: Request<v1::DeleteNamespaceRequest>,
    ) -> Result<Response<v1::DeleteNamespaceResponse>, Status> {
        let v1::DeleteNamespaceRequest { name, id } = request.into_inner();
        let mut state = self.world.state.lock();
        let fault = state.next_fault(self.id);
        if let Some(refused) = state.refuse(self.id, fault) {
            return Err(refused_status(refused));
        }
        if state.namespaces.get(&name).is_none_or(|(known, _)| id != 0 && *known != id) {
            return Err(to_status(&not_found(&name)));
        }
        state.delete(&name);
        if state.breaks(fault, &name) {
            return Err(refused_status(Err(Broken)));
        }
        Ok(Response::new(v1::DeleteNamespaceResponse { header: Some(state.header(self.id)) }))
    }

    async fn move_leader(
        &self,
        request: Request<v1::MoveLeaderRequest>,
    ) -> Result<Response<v1::MoveLeaderResponse>, Status> {
        let v1::MoveLeaderRequest { name, to } = request.into_inner();
        let mut state = self.world.state.lock();
        if state.namespace(&name).is_none() {
            return Err(to_status(&not_found(&name)));
        }
        state.leader = to;
        let (header, namespace) = (Some(state.header(self.id)), state.namespace(&name));
        Ok(Response::new(v1::MoveLeaderResponse { header, namespace }))
    }

    async fn switch_mode(
        &self,
        request: Request<v1::SwitchModeRequest>,
    ) -> Result<Response<v1::SwitchModeResponse>, Status> {
        self.begin_switch(&request.into_inner())
    }

    async fn abort_switch(
        &self,
        request: Request<v1::AbortSwitchRequest>,
    ) -> Result<Response<v1::AbortSwitchResponse>, Status> {
        self.call_off(&request.into_inner())
    }

    async fn get_switch(
        &self,
        request: Request<v1::GetSwitchRequest>,
    ) -> Result<Response<v1::GetSwitchResponse>, Status> {
        self.look_at_switch(&request.into_inner().name)
    }

    async fn list_quarantine(
        &self,
        request: Request<v1::ListQuarantineRequest>,
    ) -> Result<Response<v1::ListQuarantineResponse>, Status> {
        self.list_set_aside(&request.into_inner())
    }

    async fn list_conflicts(
        &self,
        request: Request<v1::ListConflictsRequest>,
    ) -> Result<Response<v1::ListConflictsResponse>, Status> {
        self.list_lost(&request.into_inner())
    }
}

fn refused_status(refused: Result<v1::Error, Broken>) -> Status {
    match refused {
        Ok(error) => to_status(&error),
        Err(Broken) => Status::unavailable("broken"),
    }
}

fn not_found(name: &str) -> v1::Error {
    v1::Error {
        code: Code::NamespaceNotFound.into(),
        outcome: Outcome::NotDone.into(),
        message: format!("there is no namespace '{name}'"),
        ..v1::Error::default()
    }
}

#[tonic::async_trait]
impl v1::cluster_server::Cluster for Service {
    async fn status(&self, _: Request<v1::StatusRequest>) -> Result<Response<v1::StatusResponse>, Status> {
        self.world.statuses.fetch_add(1, Ordering::Relaxed);
        let state = self.world.state.lock();
        let nodes = state.addresses.iter().map(|(id, address)| v1::Node {
            id: *id,
            client_address: address.to_string(),
            peer_address: String::new(),
            reachable: !state.down[id],
            silence_ms: if state.down[id] { 5000 } else { 10 },
            regions_led: if *id == state.leader { state.namespaces.len() as u64 } else { 0 },
            disk_full: false,
            clock_ahead_ms: None,
            slow_sync_ms: 0,
        });
        Ok(Response::new(v1::StatusResponse {
            header: Some(state.header(self.id)),
            cluster_id: "fake".into(),
            nodes: nodes.collect(),
            namespaces: state.namespaces.keys().filter_map(|name| state.namespace(name)).collect(),
            meta_leader: state.leader,
            version: "0.0.0".into(),
            ..v1::StatusResponse::default()
        }))
    }
}

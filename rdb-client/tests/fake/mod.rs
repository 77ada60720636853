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
    /// Breaks the stream without applying anything.
    BreakBeforeApply,
    /// Answers nothing at all.
    Silent,
    /// Names this node as the leader.
    NotLeader(u64),
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
    /// Milliseconds that every answer takes.
    pub delay_ms: AtomicU64,
    /// Acknowledges writes without applying them.
    pub forgetful: AtomicBool,
}

#[derive(Default)]
struct State {
    leader: u64,
    addresses: BTreeMap<u64, SocketAddr>,
    down: BTreeMap<u64, bool>,
    namespaces: BTreeMap<String, u32>,
    data: BTreeMap<(String, Bytes), (Bytes, v1::Version)>,
    /// Per node, what goes wrong and how often yet.
    faults: HashMap<u64, (Fault, u64)>,
    open_sessions: std::collections::HashSet<u64>,
    sessions: HashMap<(u64, u64), PipeResult>,
    clock: u64,
    writes_applied: u64,
}

impl Cluster {
    /// Nodes 1 to `count`, of which 1 leads, and the namespace `test`.
    pub fn start(count: u64) -> Self {
        let world = Arc::new(World::default());
        let mut cluster = Self { world: world.clone(), nodes: BTreeMap::new() };
        {
            let mut state = world.state.lock();
            state.leader = 1;
            state.namespaces.insert("test".into(), 1);
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
        let mut state = self.world.state.lock();
        state.open_sessions.clear();
        state.sessions.clear();
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
            epoch: 1,
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

    fn execute(
        &mut self,
        node: u64,
        namespace: &str,
        name: (u64, u64),
        operation: Operation,
        forget: bool,
    ) -> Result<PipeResult, Broken> {
        let fault = self.next_fault(node);
        let redirect = match fault {
            Some(Fault::NotLeader(id)) => Some(id),
            Some(Fault::NoLeader) => Some(0),
            _ if self.leader != node => Some(self.leader),
            _ => None,
        };
        if let Some(leader) = redirect {
            return Ok(PipeResult::NotDone(self.not_leader(leader)));
        }
        match fault {
            Some(Fault::Busy) => return Ok(PipeResult::NotDone(busy())),
            Some(Fault::InDoubt) => return Ok(PipeResult::InDoubt(in_doubt())),
            Some(Fault::BreakBeforeApply) => return Err(Broken),
            _ => {}
        }
        if !self.namespaces.contains_key(namespace) {
            return Ok(PipeResult::NotDone(v1::Error {
                code: Code::NamespaceNotFound.into(),
                outcome: Outcome::NotDone.into(),
                message: format!("there is no namespace '{namespace}'"),
                ..v1::Error::default()
            }));
        }
        if name.1 != 0 && !self.open_sessions.contains(&name.0) {
            return Ok(PipeResult::InDoubt(v1::Error {
                code: Code::SessionExpired.into(),
                outcome: Outcome::InDoubt.into(),
                message: "the session is not known".into(),
                ..v1::Error::default()
            }));
        }
        if let Some(answer) = self.sessions.get(&name)
            && name.1 != 0
        {
            return if fault == Some(Fault::BreakAfterApply) { Err(Broken) } else { Ok(answer.clone()) };
        }
        let result = self.apply(namespace, operation, forget);
        if name.1 != 0 {
            self.sessions.insert(name, result.clone());
        }
        if fault == Some(Fault::BreakAfterApply) { Err(Broken) } else { Ok(result) }
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
                    found = Some(v1::Found { value, version });
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
        let id = *self.namespaces.get(name)?;
        let region = v1::Region {
            id: id.into(),
            leader: self.leader,
            term: 2,
            commit_index: self.clock,
            applied_index: self.clock,
            members: self.addresses.keys().copied().collect(),
        };
        Some(v1::Namespace {
            name: name.into(),
            id,
            mode: Mode::Strong.into(),
            epoch: 1,
            era: 1,
            regions: vec![region],
            preferred_leader: self.leader,
            deleting: false,
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

    fn execute_message(&self, request: v1::PipeRequest) -> Result<v1::PipeResponse, Broken> {
        let mut state = self.world.state.lock();
        let forget = self.world.forgetful.load(Ordering::Relaxed);
        let mut results = Vec::with_capacity(request.operations.len());
        for operation in request.operations {
            let name = (request.client, operation.sequence);
            let result =
                state.execute(self.id, &request.namespace, name, operation.operation.unwrap(), forget)?;
            results.push(v1::PipeResult { id: operation.id, result: Some(result) });
        }
        Ok(v1::PipeResponse { header: Some(state.header(self.id)), results })
    }

    async fn unary(
        &self,
        namespace: &str,
        name: Option<v1::RequestId>,
        operation: Operation,
    ) -> Result<(Option<Header>, PipeResult), Status> {
        self.world.messages.fetch_add(1, Ordering::Relaxed);
        self.world.operations.fetch_add(1, Ordering::Relaxed);
        if self.is_silent().await {
            std::future::pending::<()>().await;
        }
        let name = name.map_or((0, 0), |name| (name.client, name.sequence));
        let mut state = self.world.state.lock();
        let forget = self.world.forgetful.load(Ordering::Relaxed);
        match state.execute(self.id, namespace, name, operation, forget) {
            Ok(PipeResult::NotDone(error) | PipeResult::InDoubt(error)) => Err(to_status(&error)),
            Ok(result) => Ok((Some(state.header(self.id)), result)),
            Err(Broken) => Err(Status::unavailable("broken")),
        }
    }

    async fn unary_write(
        &self,
        namespace: &str,
        name: Option<v1::RequestId>,
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
        let (header, result) =
            self.unary(&request.namespace, None, Operation::Get(request.get.unwrap())).await?;
        let PipeResult::Found(found) = result else { unreachable!() };
        Ok(Response::new(v1::GetResponse { header, value: found.value, version: found.version }))
    }

    async fn put(&self, request: Request<v1::PutRequest>) -> Result<Response<v1::WriteResponse>, Status> {
        let request = request.into_inner();
        self.unary_write(&request.namespace, request.request, Operation::Put(request.put.unwrap())).await
    }

    async fn delete(
        &self,
        request: Request<v1::DeleteRequest>,
    ) -> Result<Response<v1::WriteResponse>, Status> {
        let request = request.into_inner();
        let operation = Operation::Delete(request.delete.unwrap());
        self.unary_write(&request.namespace, request.request, operation).await
    }

    async fn compare_and_swap(
        &self,
        request: Request<v1::CompareAndSwapRequest>,
    ) -> Result<Response<v1::CompareAndSwapResponse>, Status> {
        let request = request.into_inner();
        let operation = Operation::Cas(request.cas.unwrap());
        let (header, result) = self.unary(&request.namespace, request.request, operation).await?;
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
        let (header, result) = self.unary(&request.namespace, None, operation).await?;
        let PipeResult::Records(records) = result else { unreachable!() };
        Ok(Response::new(v1::BatchGetResponse { header, records: records.records }))
    }

    async fn batch_write(
        &self,
        request: Request<v1::BatchWriteRequest>,
    ) -> Result<Response<v1::WriteResponse>, Status> {
        let request = request.into_inner();
        let operation = Operation::BatchWrite(request.batch.unwrap());
        self.unary_write(&request.namespace, request.request, operation).await
    }

    async fn delete_range(
        &self,
        request: Request<v1::DeleteRangeRequest>,
    ) -> Result<Response<v1::WriteResponse>, Status> {
        let request = request.into_inner();
        let operation = Operation::DeleteRange(request.range.unwrap());
        self.unary_write(&request.namespace, request.request, operation).await
    }

    async fn transaction(
        &self,
        request: Request<v1::TransactionRequest>,
    ) -> Result<Response<v1::TransactionResponse>, Status> {
        let request = request.into_inner();
        let operation = Operation::Transaction(request.transaction.unwrap());
        let (header, result) = self.unary(&request.namespace, request.request, operation).await?;
        let PipeResult::Transaction(result) = result else { unreachable!() };
        Ok(Response::new(v1::TransactionResponse { header, result: Some(result) }))
    }

    async fn open_session(
        &self,
        _: Request<v1::OpenSessionRequest>,
    ) -> Result<Response<v1::OpenSessionResponse>, Status> {
        let mut state = self.world.state.lock();
        if state.leader != self.id {
            return Err(to_status(&state.not_leader(state.leader)));
        }
        state.clock += 1;
        let client = state.clock;
        state.open_sessions.insert(client);
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
        let name = request.into_inner().name;
        let mut state = self.world.state.lock();
        if state.leader != self.id {
            return Err(to_status(&state.not_leader(state.leader)));
        }
        if state.namespaces.contains_key(&name) {
            return Err(to_status(&v1::Error {
                code: Code::NamespaceExists.into(),
                outcome: Outcome::NotDone.into(),
                message: format!("there is a namespace '{name}' already"),
                ..v1::Error::default()
            }));
        }
        let id = 1 + u32::try_from(state.namespaces.len()).unwrap();
        state.namespaces.insert(name.clone(), id);
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
        let name = request.into_inner().name;
        let mut state = self.world.state.lock();
        if state.namespaces.remove(&name).is_none() {
            return Err(to_status(&not_found(&name)));
        }
        state.data.retain(|(namespace, _), _| *namespace != name);
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
        let state = self.world.state.lock();
        let nodes = state.addresses.iter().map(|(id, address)| v1::Node {
            id: *id,
            client_address: address.to_string(),
            peer_address: String::new(),
            reachable: !state.down[id],
            silence_ms: if state.down[id] { 5000 } else { 10 },
            regions_led: if *id == state.leader { state.namespaces.len() as u64 } else { 0 },
        });
        Ok(Response::new(v1::StatusResponse {
            header: Some(state.header(self.id)),
            cluster_id: "fake".into(),
            nodes: nodes.collect(),
            namespaces: state.namespaces.keys().filter_map(|name| state.namespace(name)).collect(),
            meta_leader: state.leader,
            version: "0.0.0".into(),
        }))
    }
}

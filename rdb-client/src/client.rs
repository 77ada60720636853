//! The client: finds the cluster, hands out namespaces, and asks for what concerns all of them.

use crate::attempts::Safety;
use crate::error::{Attempted, Code, Error, WriteError};
use crate::meta::{ClusterStatus, NamespaceStatus};
use crate::namespace::Namespace;
use crate::nodes::{Address, Nodes};
use crate::options::Options;
use crate::route::Route;
use crate::settings::NamespaceSettings;
use crate::status::Failed;
use crate::unary;
use crate::values::Mode;
use parking_lot::Mutex;
use rdb_proto::v1;
use rdb_proto::v1::cluster_client::ClusterClient;
use rdb_proto::v1::namespaces_client::NamespacesClient;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

/// While connecting, the next endpoint is asked so long after the one before, unless that one has answered.
const STAGGER: Duration = Duration::from_millis(100);
/// Between two rounds over all endpoints.
const ROUND_PAUSE: Duration = Duration::from_millis(300);
/// The route of what the meta group answers for. No namespace has this name.
const META: &str = "";

/// A connection to a cluster. Cheap to clone; all clones share connections, routes and pipes.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    nodes: Arc<Nodes>,
    meta: Arc<Route>,
    routes: Mutex<HashMap<String, Arc<Route>>>,
}

impl Client {
    /// Finds the cluster: asks the endpoints until one answers, and learns the other nodes from it.
    pub async fn connect(options: Options) -> Result<Self, Error> {
        let nodes = Arc::new(Nodes::new(options)?);
        let status = find(&nodes).await?;
        if let Some(status) = &status {
            learn(&nodes, status);
        }
        let meta = Arc::new(Route::new(META, nodes.clone()));
        Ok(Self { inner: Arc::new(Inner { nodes, meta, routes: Mutex::default() }) })
    }

    /// One namespace. Whether it exists shows when it is used.
    #[must_use]
    pub fn namespace(&self, name: &str) -> Namespace {
        Namespace::new(self.route(name))
    }

    fn route(&self, name: &str) -> Arc<Route> {
        let mut routes = self.inner.routes.lock();
        if let Some(route) = routes.get(name) {
            return route.clone();
        }
        let route = Arc::new(Route::new(name, self.inner.nodes.clone()));
        routes.insert(name.to_string(), route.clone());
        route
    }

    /// One namespace at one node, whoever leads: for reads at a node that is close. `None`: that is no address.
    ///
    /// Writes to a strong namespace through it are refused by a node that does not lead; use [`Client::namespace`] for them. An
    /// eventual one takes writes at every node.
    #[must_use]
    pub fn namespace_at(&self, name: &str, address: &str) -> Option<Namespace> {
        let address = self.inner.nodes.learn(address)?;
        let route = Route::pinned(&self.route(name), address);
        Some(Namespace::new(Arc::new(route)))
    }

    /// The addresses of all nodes that are known.
    #[must_use]
    pub fn nodes(&self) -> Vec<String> {
        self.inner.nodes.all().iter().map(ToString::to_string).collect()
    }

    /// What the cluster is and how it is doing, as some node sees it.
    pub async fn status(&self) -> Result<ClusterStatus, Error> {
        let answer = self.call(Safety::Read, v1::StatusRequest {}, async |channel, request| {
            ClusterClient::new(channel).status(request).await
        });
        let status = answer.await.map_err(WriteError::into_error)?.into();
        learn(&self.inner.nodes, &status);
        Ok(status)
    }

    /// What one node says of the cluster, and of itself. It is asked once, and has a second to answer: this is for asking
    /// every node, when some of them may be gone.
    pub async fn status_at(&self, address: &str) -> Result<ClusterStatus, Error> {
        let started = Instant::now();
        let nodes = &self.inner.nodes;
        let unknown = || Error::Options(format!("'{address}' is not an address like 127.0.0.1:7101"));
        let asked = nodes.learn(address).ok_or_else(unknown)?;
        let reason = match ask_status(nodes, asked).await {
            Ok(Some(status)) => return Ok(status),
            Ok(None) => "it answered with an error".to_owned(),
            Err(reason) => reason,
        };
        let attempted = Attempted { tries: 1, waited: started.elapsed() };
        Err(Error::Unreachable { nodes: address.to_owned(), reason, attempted })
    }

    /// Creates a namespace.
    ///
    /// Tried again until it is answered or the time is over. The request has a token, which the catalog keeps with the
    /// namespace: a repetition finds its own and is done, and anybody else's request is told that the name is taken.
    pub async fn create_namespace(&self, name: &str, mode: Mode) -> Result<NamespaceStatus, WriteError> {
        self.create_namespace_with(name, mode, NamespaceSettings::default()).await
    }

    /// The same, with these settings.
    pub async fn create_namespace_with(
        &self,
        name: &str,
        mode: Mode,
        settings: NamespaceSettings,
    ) -> Result<NamespaceStatus, WriteError> {
        // Zero is none.
        let token = rand::random_range(1..=u64::MAX);
        let request = v1::CreateNamespaceRequest {
            name: name.into(),
            mode: v1::Mode::from(mode).into(),
            token,
            keep_lost_seconds: settings.keep_lost_seconds,
            durability: v1::Durability::from(settings.durability).into(),
        };
        let answer = self.call(Safety::NamedWrite, request, async |channel, request| {
            NamespacesClient::new(channel).create(request).await
        });
        Ok(answer.await?.namespace.unwrap_or_default().into())
    }

    /// All namespaces, by name.
    pub async fn list_namespaces(&self) -> Result<Vec<NamespaceStatus>, Error> {
        let answer = self.call(Safety::Read, v1::ListNamespacesRequest {}, async |channel, request| {
            NamespacesClient::new(channel).list(request).await
        });
        let answer = answer.await.map_err(WriteError::into_error)?;
        let mut namespaces: Vec<NamespaceStatus> =
            answer.namespaces.into_iter().map(NamespaceStatus::from).collect();
        namespaces.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(namespaces)
    }

    /// One namespace.
    pub async fn describe_namespace(&self, name: &str) -> Result<NamespaceStatus, Error> {
        let request = v1::DescribeNamespaceRequest { name: name.into() };
        let answer = self.call(Safety::Read, request, async |channel, request| {
            NamespacesClient::new(channel).describe(request).await
        });
        let answer = answer.await.map_err(WriteError::into_error)?;
        Ok(answer.namespace.unwrap_or_default().into())
    }

    /// Names the node that should lead a namespace, now and whenever it can, and waits until it does. Where it does not lead in
    /// time this is in doubt: it is named, and may lead yet.
    pub async fn move_leader(&self, name: &str, to: u64) -> Result<NamespaceStatus, WriteError> {
        let request = v1::MoveLeaderRequest { name: name.into(), to };
        // Asked twice it is the same.
        let answer = self.call(Safety::NamedWrite, request, async |channel, request| {
            NamespacesClient::new(channel).move_leader(request).await
        });
        Ok(answer.await?.namespace.unwrap_or_default().into())
    }

    /// Deletes a namespace and all that it holds, and returns when nothing of it can be read or written any more. There is no
    /// way back.
    ///
    /// What is deleted is the namespace that has the name when this is called, and never one that comes after it. So it is
    /// tried again until it is answered or the time is over: a repetition that finds the namespace gone is done. If it ends in
    /// doubt for want of time, the deletion goes on by itself; asked again, it is waited for.
    pub async fn delete_namespace(&self, name: &str) -> Result<(), WriteError> {
        let deadline = self.deadline();
        let request = v1::DescribeNamespaceRequest { name: name.into() };
        let described = self.call_until(deadline, Safety::Read, request, async |channel, request| {
            NamespacesClient::new(channel).describe(request).await
        });
        let described = described.await.map_err(|error| WriteError::NotDone(error.into_error()))?;
        let id = described.namespace.unwrap_or_default().id;
        self.delete_until(deadline, name, id).await
    }

    /// The same for the namespace of this name and this id, and no other: for who has looked at it before. If it is gone, or
    /// another one has its name by now, nothing is deleted, and the answer is that it is not found.
    pub async fn delete_namespace_of_id(&self, name: &str, id: u32) -> Result<(), WriteError> {
        if id == 0 {
            let what = "0 is no namespace's id: delete_namespace deletes whichever has the name".to_owned();
            return Err(WriteError::NotDone(Error::Options(what)));
        }
        self.delete_until(self.deadline(), name, id).await
    }

    async fn delete_until(&self, deadline: Instant, name: &str, id: u32) -> Result<(), WriteError> {
        let request = v1::DeleteNamespaceRequest { name: name.into(), id };
        let answer = self.call_until(deadline, Safety::NamedWrite, request, async |channel, request| {
            NamespacesClient::new(channel).delete(request).await
        });
        match answer.await {
            Ok(_) => Ok(()),
            Err(WriteError::InDoubt(error)) if error.code() == Some(Code::NamespaceNotFound) => Ok(()),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn nodes_known(&self) -> &Arc<Nodes> {
        &self.inner.nodes
    }

    /// Asks the meta group's leader, as far as it is known.
    pub(crate) async fn call<Q: Clone, A>(
        &self,
        safety: Safety,
        request: Q,
        ask: impl AsyncFn(Channel, Request<Q>) -> Result<Response<A>, Status>,
    ) -> Result<A, WriteError> {
        self.call_until(self.deadline(), safety, request, ask).await
    }

    pub(crate) async fn call_until<Q: Clone, A>(
        &self,
        deadline: Instant,
        safety: Safety,
        request: Q,
        ask: impl AsyncFn(Channel, Request<Q>) -> Result<Response<A>, Status>,
    ) -> Result<A, WriteError> {
        unary::ask(&self.inner.meta, safety, request, deadline, ask).await
    }

    /// Of a call that begins now.
    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.inner.nodes.options().request_timeout
    }
}

/// Asks all endpoints, one a little after the other, until one answers. `None`: one did, but told nothing of the cluster.
async fn find(nodes: &Arc<Nodes>) -> Result<Option<ClusterStatus>, Error> {
    let started = Instant::now();
    let mut attempted = Attempted::default();
    loop {
        let mut reason = String::new();
        let mut asked = JoinSet::new();
        for (address, position) in nodes.all().into_iter().zip(0..) {
            let nodes = nodes.clone();
            attempted.tries += 1;
            asked.spawn(async move {
                sleep(STAGGER * position).await;
                ask_status(&nodes, address).await
            });
        }
        while let Some(answer) = asked.join_next().await {
            match answer {
                Ok(Ok(status)) => return Ok(status),
                Ok(Err(why)) => reason = why,
                Err(_) => {}
            }
        }
        attempted.waited = started.elapsed();
        if nodes.options().connect_patience < attempted.waited + ROUND_PAUSE {
            return Err(Error::Unreachable { nodes: nodes.all().join(", "), reason, attempted });
        }
        sleep(ROUND_PAUSE).await;
    }
}

async fn ask_status(nodes: &Nodes, address: Address) -> Result<Option<ClusterStatus>, String> {
    let channel = nodes.channel(&address).ok_or("unknown node")?;
    // Once to connect, once to answer.
    let limit = 2 * nodes.options().connect_timeout;
    match timeout(limit, ClusterClient::new(channel).status(v1::StatusRequest {})).await {
        Ok(Ok(status)) => Ok(Some(status.into_inner().into())),
        Ok(Err(status)) => match Failed::from_status(&address, &status) {
            Failed::Answered(..) => Ok(None),
            Failed::NotSent(_, reason) | Failed::Lost(_, reason) => Err(reason),
            Failed::Deadline { .. } => Err("timed out".into()),
        },
        Err(_) => Err("timed out".into()),
    }
}

/// Remembers the nodes' addresses, and who leads what.
fn learn(nodes: &Nodes, status: &ClusterStatus) {
    let mut by_id = HashMap::new();
    for node in &status.nodes {
        if let Some(address) = nodes.learn(&node.client_address) {
            by_id.insert(node.id, address);
        }
    }
    let remember = |namespace: &str, leader: u64| {
        if let Some(address) = by_id.get(&leader) {
            nodes.remember_leader(namespace, address.clone());
        }
    };
    remember(META, status.meta_leader);
    for namespace in &status.namespaces {
        if let Some(region) = namespace.regions.first() {
            remember(&namespace.name, region.leader);
        }
    }
}

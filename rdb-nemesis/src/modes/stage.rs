//! What a case is played on: nodes, and clients that ask each of them by itself.

use super::options::{Case, Sizes};
use super::stats::millis;
use crate::cluster::{Cluster, NAMESPACE, PATIENCE, Settings};
use crate::dice::Dice;
use crate::history::History;
use crate::run::connect;
use crate::workloads::Scene;
use anyhow::{Context as _, Result, bail};
use rdb_client::{Client, Mode, Namespace, Options};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// The namespace that is eventual. The nemesis's own name is left to strong ones: their leader is known by it.
pub(super) const EVENTUAL: &str = "modes";
const NODES: u64 = 3;
/// Of calls to one node. A page of a scan may take long where the machine is busy.
const CALL_LIMIT: Duration = Duration::from_secs(10);
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// What a case has in its hands.
pub(super) struct Stage {
    pub(super) server: PathBuf,
    pub(super) folder: PathBuf,
    pub(super) seed: u64,
    pub(super) sizes: Sizes,
    pub(super) case: Case,
    pub(super) progress: fn(&str),
}

impl Stage {
    /// Starts the nodes.
    pub(super) async fn start(&self) -> Result<Cluster> {
        self.start_nodes(false).await
    }

    /// Starts nodes whose wall clocks can be stepped.
    pub(super) async fn start_with_clocks(&self) -> Result<Cluster> {
        self.start_nodes(true).await
    }

    async fn start_nodes(&self, clocks: bool) -> Result<Cluster> {
        let settings = Settings { size: NODES, clocks, ..Settings::default() };
        Cluster::start(&self.server, &self.folder, &settings).await
    }

    /// What clients of a namespace that is switched share.
    pub(super) fn scene(&self, cluster: &Cluster) -> Arc<Scene> {
        let history = Arc::new(History::begin(self.seed));
        Arc::new(Scene::new(history, cluster.addresses(), self.seed, NAMESPACE))
    }

    /// Chance for the user of this number.
    pub(super) fn dice(&self, stream: u64) -> Dice {
        Dice::new(self.seed, stream)
    }

    /// Tells whoever waits what goes on.
    pub(super) fn say(&self, what: &str) {
        (self.progress)(&format!("{}: {what}", self.case.name()));
    }
}

/// A namespace at each node, whoever leads.
#[derive(Clone)]
pub(super) struct Nodes {
    pub(super) client: Client,
    pub(super) at: BTreeMap<u64, Namespace>,
}

impl Nodes {
    /// Makes a namespace, and waits until each node serves reads of it by itself.
    pub(super) async fn create(cluster: &Cluster, name: &str, mode: Mode) -> Result<Self> {
        let nodes = Self::of(cluster, name, CALL_LIMIT).await?;
        nodes.client.create_namespace(name, mode).await.with_context(|| format!("cannot make {name}"))?;
        for (node, namespace) in &nodes.at {
            let has_it = || async { namespace.get("nothing").await.is_ok() };
            until(&format!("node {node} has {name}"), PATIENCE, has_it).await?;
        }
        Ok(nodes)
    }

    /// Of a namespace that is there. Calls take no longer than `limit`.
    pub(super) async fn of(cluster: &Cluster, name: &str, limit: Duration) -> Result<Self> {
        let client = connect(cluster, Options { request_timeout: limit, ..Options::default() }).await?;
        let mut at = BTreeMap::new();
        for (node, address) in cluster.addresses() {
            let namespace = client.namespace_at(name, &address).context("a node's address is none")?;
            at.insert(node, namespace);
        }
        Ok(Self { client, at })
    }

    /// All nodes but one.
    pub(super) fn others(&self, than: u64) -> impl Iterator<Item = (u64, &Namespace)> {
        self.at.iter().filter(move |(node, _)| **node != than).map(|(node, at)| (*node, at))
    }
}

/// Waits until it is so. Returns how long that took.
pub(super) async fn until<F: Future<Output = bool>>(
    what: &str,
    limit: Duration,
    is_so: impl Fn() -> F,
) -> Result<Duration> {
    let began = Instant::now();
    while !is_so().await {
        if limit < began.elapsed() {
            bail!("for {:.1} s it was not so that {what}", millis(began.elapsed()) / 1e3);
        }
        sleep(LOOK_INTERVAL).await;
    }
    Ok(began.elapsed())
}

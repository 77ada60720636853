//! A namespace of FlareDB, or several, as the benchmark's target.

use super::target::{Failed, Stored};
use super::workload::Workload;
use super::{BenchArgs, TransportArg};
use crate::args::Args;
use crate::exit::Failure;
use futures_util::future::ready;
use futures_util::stream::{self, StreamExt as _};
use rdb_client::{
    Acks, Bytes, Client, Code, Consistency, Mode, Namespace, NamespaceSettings, Options, Transport, Version,
    Write,
};
use std::time::{Duration, Instant};

const LOOK_INTERVAL: Duration = Duration::from_millis(5);
/// Namespaces that are waited for at a time.
const DRAINED_TOGETHER: usize = 64;

pub(super) struct FlareDb {
    client: Client,
    /// Addresses of nodes.
    endpoints: Vec<String>,
    mode: Mode,
    /// How long the other nodes may take until they have what was acknowledged.
    drain_patience: Duration,
    places: Vec<Place>,
    reads_are_current: bool,
}

/// One of the namespaces.
struct Place {
    /// For writes, and for loading and checking.
    namespace: Namespace,
    /// For the load's reads.
    read: Namespace,
}

impl FlareDb {
    pub(super) async fn connect(args: &Args, bench: &BenchArgs) -> Result<Self, Failure> {
        let transport = match bench.transport {
            TransportArg::Pipe => Transport::Pipe,
            TransportArg::Unary => Transport::Unary,
        };
        let options = Options { transport, sessions: !bench.no_sessions, ..args.client_options() };
        let client = Client::connect(options).await?;
        let mode = bench.mode.into();
        // What was acknowledged must be seen, also where another node is asked.
        let current = match mode {
            Mode::Strong => Consistency::Linearizable,
            Mode::Eventual => Consistency::Session,
        };
        let consistency = bench.consistency.map_or(current, Consistency::from);
        let mut places = Vec::new();
        for number in 1..=bench.namespaces {
            let name = match bench.namespaces {
                1 => bench.namespace.clone(),
                _ => format!("{}-{number}", bench.namespace),
            };
            create_namespace(&client, &name, bench).await?;
            let namespace = client.namespace(&name).with_acks(bench.acks.acks());
            places.push(Place {
                read: namespace.clone().with_consistency(consistency),
                namespace: namespace.with_consistency(current),
            });
        }
        Ok(Self {
            client,
            endpoints: args.endpoints.clone(),
            mode,
            drain_patience: args.timeout,
            places,
            reads_are_current: !matches!(consistency, Consistency::Stale { .. } | Consistency::Local),
        })
    }

    /// The first one, as the load reads it.
    pub(super) fn reading(&self) -> &Namespace {
        &self.places[0].read
    }

    pub(super) fn reads_are_current(&self) -> bool {
        self.reads_are_current
    }

    pub(super) async fn get(&self, namespace: usize, key: &Bytes) -> Result<Stored, Failed> {
        let record = self.places[namespace].read.get(key.clone()).await?;
        Ok(record.map(|record| (record.value, record.version)))
    }

    pub(super) async fn put(&self, namespace: usize, key: &Bytes, value: Bytes) -> Result<Version, Failed> {
        Ok(self.places[namespace].namespace.put(key.clone(), value).await?.version)
    }

    pub(super) async fn get_many(&self, namespace: usize, keys: &[Bytes]) -> Result<Vec<Stored>, Failed> {
        let mut records =
            self.places[namespace].namespace.batch_get(keys.to_vec()).await?.into_iter().peekable();
        let stored = keys.iter().map(|key| {
            let record = records.next_if(|record| record.key == *key)?;
            Some((record.value, record.version))
        });
        Ok(stored.collect())
    }

    pub(super) async fn put_many(
        &self,
        namespace: usize,
        records: Vec<(Bytes, Bytes)>,
    ) -> Result<Version, Failed> {
        let writes = records.into_iter().map(|(key, value)| Write::Put(key, value)).collect();
        Ok(self.places[namespace].namespace.batch_write(writes).await?.version)
    }

    /// How long it takes until all nodes have all that was written. `None`: longer than is waited for.
    pub(super) async fn drain(&self, workload: &Workload) -> Option<Duration> {
        let began = Instant::now();
        let drained = stream::iter(workload.first_keys())
            .map(|key| self.drain_one(workload, key, began + self.drain_patience))
            .buffer_unordered(DRAINED_TOGETHER)
            .all(|drained| ready(drained.is_some()));
        drained.await.then(|| began.elapsed())
    }

    /// One more write of this key is made, and comes to each node after all that came before it from the same node.
    async fn drain_one(&self, workload: &Workload, key: usize, deadline: Instant) -> Option<()> {
        let namespace = &self.places[workload.namespace(key)].namespace;
        let last = match self.mode {
            Mode::Strong => namespace.clone(),
            Mode::Eventual => namespace.clone().with_acks(Acks::All),
        };
        let (name, value) = (&workload.keys()[key], workload.begin_write(key, 0));
        let version = last.put(name.clone(), value).await.ok()?.version;
        workload.acknowledge(key, version);
        for endpoint in &self.endpoints {
            let node = self.client.namespace_at(namespace.name(), endpoint)?;
            let node = node.with_consistency(Consistency::Local);
            while node.get(name.clone()).await.ok().flatten().is_none_or(|record| record.version < version) {
                if deadline < Instant::now() {
                    return None;
                }
                tokio::time::sleep(LOOK_INTERVAL).await;
            }
        }
        Some(())
    }
}

/// Sees to it that the namespace exists. That it was there already is what was wanted.
async fn create_namespace(client: &Client, name: &str, bench: &BenchArgs) -> Result<(), Failure> {
    let mode = Mode::from(bench.mode);
    match client.describe_namespace(name).await {
        Ok(found) if found.mode == mode => return Ok(()),
        Ok(found) => {
            let message = format!("the namespace '{name}' is {}, and not {mode}", found.mode);
            return Err(
                Failure::usage(message).hint("name another one with --namespace, or this mode with --mode")
            );
        }
        Err(error) if error.code() == Some(Code::NamespaceNotFound) => {}
        Err(error) => return Err(error.into()),
    }
    let settings = NamespaceSettings { durability: bench.durability.into(), ..NamespaceSettings::default() };
    match client.create_namespace_with(name, mode, settings).await {
        Ok(_) => Ok(()),
        Err(error) if error.error().code() == Some(Code::NamespaceExists) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

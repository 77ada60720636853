//! A namespace of FlareDB as the benchmark's target.

use super::target::{Failed, Stored};
use super::workload::Workload;
use super::{BenchArgs, TransportArg};
use crate::args::Args;
use crate::exit::Failure;
use rdb_client::{
    Acks, Bytes, Client, Code, Consistency, Mode, Namespace, NamespaceSettings, Options, Transport, Version,
    Write,
};
use std::time::{Duration, Instant};

const LOOK_INTERVAL: Duration = Duration::from_millis(5);

#[derive(Clone)]
pub(super) struct FlareDb {
    client: Client,
    /// Addresses of nodes.
    endpoints: Vec<String>,
    mode: Mode,
    /// How long the other nodes may take until they have what was acknowledged.
    drain_patience: Duration,
    /// For loading and checking.
    namespace: Namespace,
    /// For the load's reads.
    read: Namespace,
    reads_are_current: bool,
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
        create_namespace(&client, bench).await?;
        let namespace = client.namespace(&bench.namespace).with_acks(bench.acks.acks());
        // What was acknowledged must be seen, also where another node is asked.
        let current = match mode {
            Mode::Strong => Consistency::Linearizable,
            Mode::Eventual => Consistency::Session,
        };
        let consistency = bench.consistency.map_or(current, Consistency::from);
        Ok(Self {
            client,
            endpoints: args.endpoints.clone(),
            mode,
            drain_patience: args.timeout,
            read: namespace.clone().with_consistency(consistency),
            namespace: namespace.with_consistency(current),
            reads_are_current: !matches!(consistency, Consistency::Stale { .. } | Consistency::Local),
        })
    }

    /// As the load reads it.
    pub(super) fn reading(&self) -> &Namespace {
        &self.read
    }

    pub(super) fn reads_are_current(&self) -> bool {
        self.reads_are_current
    }

    pub(super) async fn get(&self, key: &Bytes) -> Result<Stored, Failed> {
        let record = self.read.get(key.clone()).await?;
        Ok(record.map(|record| (record.value, record.version)))
    }

    pub(super) async fn put(&self, key: &Bytes, value: Bytes) -> Result<Version, Failed> {
        Ok(self.namespace.put(key.clone(), value).await?.version)
    }

    pub(super) async fn get_many(&self, keys: &[Bytes]) -> Result<Vec<Stored>, Failed> {
        let mut records = self.namespace.batch_get(keys.to_vec()).await?.into_iter().peekable();
        let stored = keys.iter().map(|key| {
            let record = records.next_if(|record| record.key == *key)?;
            Some((record.value, record.version))
        });
        Ok(stored.collect())
    }

    pub(super) async fn put_many(&self, records: Vec<(Bytes, Bytes)>) -> Result<Version, Failed> {
        let writes = records.into_iter().map(|(key, value)| Write::Put(key, value)).collect();
        Ok(self.namespace.batch_write(writes).await?.version)
    }

    /// How long it takes until all nodes have all that was written: one more write is made, and comes to each node after all
    /// that came before it from the same node.
    pub(super) async fn drain(&self, workload: &Workload) -> Option<Duration> {
        let began = Instant::now();
        let (key, value) = (workload.keys().first()?.clone(), workload.begin_write(0, 0));
        let last = match self.mode {
            Mode::Strong => self.namespace.clone(),
            Mode::Eventual => self.namespace.clone().with_acks(Acks::All),
        };
        let version = last.put(key.clone(), value).await.ok()?.version;
        workload.acknowledge(0, version);
        for endpoint in &self.endpoints {
            let node = self.client.namespace_at(self.namespace.name(), endpoint)?;
            let node = node.with_consistency(Consistency::Local);
            while node.get(key.clone()).await.ok().flatten().is_none_or(|record| record.version < version) {
                if self.drain_patience < began.elapsed() {
                    return None;
                }
                tokio::time::sleep(LOOK_INTERVAL).await;
            }
        }
        Some(began.elapsed())
    }
}

/// Sees to it that the namespace exists. That it was there already is what was wanted.
async fn create_namespace(client: &Client, bench: &BenchArgs) -> Result<(), Failure> {
    let (name, mode) = (&bench.namespace, Mode::from(bench.mode));
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

//! What is measured: a namespace of FlareDB, or an etcd cluster, with the few operations that the benchmark needs.

#[cfg(feature = "etcd")]
use super::etcd::Etcd;
use super::workload::Workload;
use super::{BenchArgs, TargetArg, TransportArg};
use crate::args::Args;
use crate::exit::Failure;
use rdb_client::{
    Acks, Bytes, Client, Code, Consistency, Error, Mode, Namespace, Options, Transport, Version, Write,
    WriteError,
};

use std::time::{Duration, Instant};

/// A request that failed.
pub(super) struct Failed {
    pub(super) in_doubt: bool,
    pub(super) message: String,
}

/// A stored value and its place in the order of writes.
pub(super) type Stored = Option<(Bytes, Version)>;

#[derive(Clone)]
pub(super) enum Target {
    FlareDb(Namespace),
    #[cfg(feature = "etcd")]
    Etcd(Box<Etcd>),
}

impl Target {
    pub(super) async fn connect(args: &Args, bench: &BenchArgs) -> Result<Self, Failure> {
        match bench.target {
            TargetArg::Flaredb => {
                let transport = match bench.transport {
                    TransportArg::Pipe => Transport::Pipe,
                    TransportArg::Unary => Transport::Unary,
                };
                let options = Options { transport, sessions: !bench.no_sessions, ..args.client_options() };
                let client = Client::connect(options).await?;
                let mode = bench.mode.into();
                create_namespace(&client, &bench.namespace, mode).await?;
                let namespace = client.namespace(&bench.namespace).with_acks(bench.acks.acks());
                Ok(Target::FlareDb(match mode {
                    Mode::Strong => namespace,
                    // What was acknowledged must be seen, also where another node is asked.
                    Mode::Eventual => namespace.with_consistency(Consistency::Session),
                }))
            }
            #[cfg(feature = "etcd")]
            TargetArg::Etcd => {
                let etcd = Etcd::connect(&args.endpoints, &bench.namespace, args.timeout).await?;
                Ok(Target::Etcd(Box::new(etcd)))
            }
        }
    }

    pub(super) async fn get(&self, key: &Bytes) -> Result<Stored, Failed> {
        match self {
            Target::FlareDb(namespace) => {
                let record = namespace.get(key.clone()).await?;
                Ok(record.map(|record| (record.value, record.version)))
            }
            #[cfg(feature = "etcd")]
            Target::Etcd(etcd) => etcd.get(key).await,
        }
    }

    pub(super) async fn put(&self, key: &Bytes, value: Bytes) -> Result<Version, Failed> {
        match self {
            Target::FlareDb(namespace) => Ok(namespace.put(key.clone(), value).await?.version),
            #[cfg(feature = "etcd")]
            Target::Etcd(etcd) => etcd.put(key, value).await,
        }
    }

    /// How long it takes until all nodes have all that was written to an eventual namespace: a node's writes come to the others
    /// in order, so the last one is not acknowledged by all before the rest is. `None`: there is nothing to wait for, or it did
    /// not come to an end in time.
    pub(super) async fn drain(&self, workload: &Workload) -> Option<Duration> {
        match self {
            Target::FlareDb(namespace) if !namespace.session_token().is_empty() => {
                let began = Instant::now();
                let (key, value) = (workload.keys().first()?.clone(), workload.begin_write(0, 0));
                let written = namespace.clone().with_acks(Acks::All).put(key, value).await.ok()?;
                workload.acknowledge(0, written.version);
                Some(began.elapsed())
            }
            _ => None,
        }
    }

    /// In the order of the keys.
    pub(super) async fn get_many(&self, keys: &[Bytes]) -> Result<Vec<Stored>, Failed> {
        match self {
            Target::FlareDb(namespace) => {
                let mut records = namespace.batch_get(keys.to_vec()).await?.into_iter().peekable();
                let stored = keys.iter().map(|key| {
                    let record = records.next_if(|record| record.key == *key)?;
                    Some((record.value, record.version))
                });
                Ok(stored.collect())
            }
            #[cfg(feature = "etcd")]
            Target::Etcd(etcd) => etcd.get_many(keys).await,
        }
    }

    pub(super) async fn put_many(&self, records: Vec<(Bytes, Bytes)>) -> Result<Version, Failed> {
        match self {
            Target::FlareDb(namespace) => {
                let writes = records.into_iter().map(|(key, value)| Write::Put(key, value)).collect();
                Ok(namespace.batch_write(writes).await?.version)
            }
            #[cfg(feature = "etcd")]
            Target::Etcd(etcd) => etcd.put_many(records).await,
        }
    }
}

/// Sees to it that the namespace exists. That it was there already is what was wanted.
async fn create_namespace(client: &Client, name: &str, mode: Mode) -> Result<(), Failure> {
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
    match client.create_namespace(name, mode).await {
        Ok(_) => Ok(()),
        Err(error) if error.error().code() == Some(Code::NamespaceExists) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self { in_doubt: false, message: error.to_string() }
    }
}

impl From<WriteError> for Failed {
    fn from(error: WriteError) -> Self {
        // What is done on one node may be read from now on, or not yet: for the check that is the same as a doubt.
        let in_doubt = matches!(error, WriteError::InDoubt(_) | WriteError::DoneHere(..));
        Self { in_doubt, message: error.to_string() }
    }
}

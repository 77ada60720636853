//! What is measured: a namespace of FlareDB, or an etcd cluster, with the few operations that the benchmark needs.

#[cfg(feature = "etcd")]
use super::etcd::Etcd;
use super::{BenchArgs, TargetArg, TransportArg};
use crate::args::Args;
use crate::exit::Failure;
use rdb_client::{
    Bytes, Client, Code, Error, Mode, Namespace, Options, Transport, Version, Write, WriteError,
};

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
                create_namespace(&client, &bench.namespace).await?;
                Ok(Target::FlareDb(client.namespace(&bench.namespace)))
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
async fn create_namespace(client: &Client, name: &str) -> Result<(), Failure> {
    match client.describe_namespace(name).await {
        Ok(_) => return Ok(()),
        Err(error) if error.code() == Some(Code::NamespaceNotFound) => {}
        Err(error) => return Err(error.into()),
    }
    match client.create_namespace(name, Mode::Strong).await {
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
        Self { in_doubt: matches!(error, WriteError::InDoubt(_)), message: error.to_string() }
    }
}

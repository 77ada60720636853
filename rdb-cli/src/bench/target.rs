//! What is measured: a namespace of FlareDB, an etcd cluster or a Redis, with the few operations that the benchmark needs.

#[cfg(feature = "etcd")]
use super::etcd::Etcd;
use super::flaredb::FlareDb;
use super::redis::{self, Redis};
use super::request::{Answer, Request};
use super::workload::Workload;
use super::{BenchArgs, TargetArg};
use crate::args::Args;
use crate::exit::Failure;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use rdb_client::{Bytes, Error, Namespace, Version, WriteError};
use std::sync::Arc;
use std::time::Duration;

/// A cluster that just lost a leader may need a moment.
const TRIES: usize = 5;

/// Asks until it is done, a few times.
pub(super) async fn tried<T, F>(ask: impl Fn() -> F) -> Result<T, Failed>
where
    F: Future<Output = Result<T, Failed>>,
{
    let mut result = ask().await;
    for _ in 1..TRIES {
        if result.is_ok() {
            break;
        }
        result = ask().await;
    }
    result
}

/// A request that failed.
pub(super) struct Failed {
    pub(super) in_doubt: bool,
    pub(super) message: String,
}

/// A stored value and its place in the order of writes.
pub(super) type Stored = Option<(Bytes, Version)>;

#[derive(Clone)]
pub(super) enum Target {
    FlareDb(Arc<FlareDb>),
    #[cfg(feature = "etcd")]
    Etcd(Box<Etcd>),
    Redis(Redis),
}

/// What one caller asks through.
pub(super) enum Line {
    /// Requests of all callers share connections.
    Shared(Target),
    /// A connection of its own.
    Redis(redis::Connection),
}

impl Target {
    pub(super) async fn connect(args: &Args, bench: &BenchArgs) -> Result<Self, Failure> {
        if 1 < bench.namespaces && bench.target != TargetArg::Flaredb {
            return Err(Failure::usage("--namespaces is for flaredb"));
        }
        match bench.target {
            TargetArg::Flaredb => Ok(Target::FlareDb(Arc::new(FlareDb::connect(args, bench).await?))),
            #[cfg(feature = "etcd")]
            TargetArg::Etcd => Ok(Target::Etcd(Box::new(Etcd::connect(args, bench).await?))),
            TargetArg::Redis => Ok(Target::Redis(Redis::connect(args, bench).await?)),
        }
    }

    /// What this caller asks through.
    pub(super) async fn line(&self, caller: u32) -> Result<Line, Failure> {
        match self {
            #[cfg(feature = "etcd")]
            Target::Etcd(etcd) => Ok(Line::Shared(Target::Etcd(Box::new(etcd.of_caller(caller))))),
            Target::Redis(redis) => Ok(Line::Redis(redis.open().await?)),
            shared => Ok(Line::Shared(shared.clone())),
        }
    }

    /// This target, if its connections may be shared by any number of requests.
    pub(super) fn shareable(&self) -> Result<Self, Failure> {
        match self {
            Target::Redis(_) => Err(Failure::usage("--rate is for flaredb and etcd")),
            shared => Ok(shared.clone()),
        }
    }

    pub(super) fn namespace(&self) -> Result<Namespace, Failure> {
        match self {
            Target::FlareDb(flaredb) => Ok(flaredb.reading().clone()),
            _ => Err(Failure::usage("--scan is for flaredb")),
        }
    }

    /// Whether reads promise to see what was acknowledged before.
    pub(super) fn reads_are_current(&self) -> bool {
        match self {
            Target::FlareDb(flaredb) => flaredb.reads_are_current(),
            #[cfg(feature = "etcd")]
            Target::Etcd(etcd) => etcd.reads_are_current(),
            Target::Redis(_) => true,
        }
    }

    /// See [`FlareDb::drain`]. `None`: there is nothing to wait for, or it did not come to an end in time.
    pub(super) async fn drain(&self, workload: &Workload) -> Option<Duration> {
        match self {
            Target::FlareDb(flaredb) => flaredb.drain(workload).await,
            _ => None,
        }
    }

    /// Of one namespace, in the order of the keys, and current.
    pub(super) async fn get_many(&self, namespace: usize, keys: &[Bytes]) -> Result<Vec<Stored>, Failed> {
        match self {
            Target::FlareDb(flaredb) => flaredb.get_many(namespace, keys).await,
            #[cfg(feature = "etcd")]
            Target::Etcd(etcd) => etcd.get_many(keys).await,
            Target::Redis(redis) => redis.get_many(keys).await,
        }
    }

    pub(super) async fn put_many(
        &self,
        namespace: usize,
        records: Vec<(Bytes, Bytes)>,
    ) -> Result<Version, Failed> {
        match self {
            Target::FlareDb(flaredb) => flaredb.put_many(namespace, records).await,
            #[cfg(feature = "etcd")]
            Target::Etcd(etcd) => etcd.put_many(records).await,
            Target::Redis(redis) => redis.put_many(records).await,
        }
    }

    async fn ask(&self, request: &Request) -> Result<Answer, Failed> {
        let (namespace, name, value) = (request.namespace, &request.name, request.value.clone());
        match (self, value) {
            (Target::FlareDb(flaredb), None) => flaredb.get(namespace, name).await.map(Answer::Read),
            (Target::FlareDb(flaredb), Some(value)) => {
                flaredb.put(namespace, name, value).await.map(Answer::Written)
            }
            #[cfg(feature = "etcd")]
            (Target::Etcd(etcd), None) => etcd.get(name).await.map(Answer::Read),
            #[cfg(feature = "etcd")]
            (Target::Etcd(etcd), Some(value)) => etcd.put(name, value).await.map(Answer::Written),
            (Target::Redis(_), _) => {
                Err(Failed::not_sent("each caller has a connection to Redis of its own"))
            }
        }
    }
}

impl Line {
    /// Sends all requests at once, and returns when all have been answered.
    pub(super) async fn ask(
        &mut self,
        mut requests: Vec<Request>,
        mut answered: impl FnMut(&Request, Result<Answer, Failed>),
    ) {
        let target = match self {
            Line::Redis(connection) => return connection.ask(&requests, answered).await,
            Line::Shared(target) => target,
        };
        if requests.len() == 1
            && let Some(request) = requests.pop()
        {
            let result = target.ask(&request).await;
            return answered(&request, result);
        }
        let mut under_way: FuturesUnordered<_> =
            requests.iter().map(async |request| (request, target.ask(request).await)).collect();
        while let Some((request, result)) = under_way.next().await {
            answered(request, result);
        }
    }
}

impl Failed {
    pub(super) fn not_sent(message: &str) -> Self {
        Self { in_doubt: false, message: message.to_owned() }
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

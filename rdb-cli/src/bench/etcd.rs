//! An etcd cluster as the benchmark's target: puts, and linearizable or serializable gets.

use super::BenchArgs;
use super::target::{Failed, Stored};
use crate::args::Args;
use crate::commands::read::ConsistencyArg;
use crate::exit::{Class, Failure};
use etcd_client::{ConnectOptions, GetOptions, KvClient, Txn, TxnOp, TxnOpResponse};
use rdb_client::{Bytes, Version};

#[derive(Clone)]
pub(super) struct Etcd {
    /// One for each connection.
    clients: Vec<KvClient>,
    /// The one that is asked.
    kv: KvClient,
    prefix: String,
    /// Whether gets are served by whichever member is asked, from what it has.
    serializable: bool,
}

impl Etcd {
    pub(super) async fn connect(args: &Args, bench: &BenchArgs) -> Result<Self, Failure> {
        let (endpoints, timeout) = (&args.endpoints, args.timeout);
        let serializable = match bench.consistency {
            None | Some(ConsistencyArg::Linearizable) => false,
            Some(ConsistencyArg::Local) => true,
            Some(_) => return Err(Failure::usage("etcd's reads are linearizable or local")),
        };
        let options = ConnectOptions::new().with_connect_timeout(timeout).with_timeout(timeout);
        let connect = async {
            let client = etcd_client::Client::connect(endpoints, Some(options.clone())).await?;
            let mut kv = client.kv_client();
            kv.get("flaredb-bench-probe", None).await?;
            let mut clients = vec![kv.clone()];
            while clients.len() < bench.connections as usize {
                clients
                    .push(etcd_client::Client::connect(endpoints, Some(options.clone())).await?.kv_client());
            }
            Ok::<_, etcd_client::Error>((clients, kv))
        };
        match connect.await {
            Ok((clients, kv)) => {
                Ok(Self { clients, kv, prefix: format!("{}/", bench.namespace), serializable })
            }
            Err(error) => {
                let message = format!("cannot reach etcd at {} ({error})", endpoints.join(", "));
                Err(Failure::new(Class::Unreachable, message)
                    .hint("--endpoints names etcd's client addresses, as in 127.0.0.1:2379"))
            }
        }
    }

    /// The same, through the connection of this caller.
    pub(super) fn of_caller(&self, caller: u32) -> Self {
        let kv = self.clients[caller as usize % self.clients.len()].clone();
        Self { clients: Vec::new(), kv, prefix: self.prefix.clone(), serializable: self.serializable }
    }

    /// Whether gets promise to see what was acknowledged before.
    pub(super) fn reads_are_current(&self) -> bool {
        !self.serializable
    }

    pub(super) async fn get(&self, key: &Bytes) -> Result<Stored, Failed> {
        let options = self.serializable.then(|| GetOptions::new().with_serializable());
        let mut answer = self.kv.clone().get(self.key(key), options).await.map_err(read_failed)?;
        Ok(answer.take_kvs().into_iter().next().map(|kv| {
            let version = version(kv.mod_revision());
            (kv.into_key_value().1.into(), version)
        }))
    }

    pub(super) async fn put(&self, key: &Bytes, value: Bytes) -> Result<Version, Failed> {
        let answer = self.kv.clone().put(self.key(key), value, None).await.map_err(write_failed)?;
        Ok(version(answer.header().map_or(0, etcd_client::ResponseHeader::revision)))
    }

    pub(super) async fn get_many(&self, keys: &[Bytes]) -> Result<Vec<Stored>, Failed> {
        let gets: Vec<_> = keys.iter().map(|key| TxnOp::get(self.key(key), None)).collect();
        let answer = self.kv.clone().txn(Txn::new().and_then(gets)).await.map_err(read_failed)?;
        let stored = answer.op_responses().into_iter().map(|answer| {
            let TxnOpResponse::Get(mut answer) = answer else { return None };
            let kv = answer.take_kvs().into_iter().next()?;
            let version = version(kv.mod_revision());
            Some((kv.into_key_value().1.into(), version))
        });
        Ok(stored.collect())
    }

    pub(super) async fn put_many(&self, records: Vec<(Bytes, Bytes)>) -> Result<Version, Failed> {
        let puts: Vec<_> =
            records.into_iter().map(|(key, value)| TxnOp::put(self.key(&key), value, None)).collect();
        let answer = self.kv.clone().txn(Txn::new().and_then(puts)).await.map_err(write_failed)?;
        Ok(version(answer.header().map_or(0, etcd_client::ResponseHeader::revision)))
    }

    fn key(&self, key: &Bytes) -> Vec<u8> {
        [self.prefix.as_bytes(), key].concat()
    }
}

/// etcd orders all writes by their revision.
fn version(revision: i64) -> Version {
    Version { era: 0, hlc: u64::try_from(revision).unwrap_or(0), node: 0 }
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn read_failed(error: etcd_client::Error) -> Failed {
    Failed { in_doubt: false, message: error.to_string() }
}

/// etcd does not say what became of a write that failed.
#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn write_failed(error: etcd_client::Error) -> Failed {
    Failed { in_doubt: true, message: error.to_string() }
}

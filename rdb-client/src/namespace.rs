//! The operations on one namespace.

use crate::attempts::{Attempts, Safety, ends_session};
use crate::error::{Error, WriteError};
use crate::options::Transport;
use crate::pipe::{Answer, Lane};
use crate::route::Route;
use crate::scan::{Scan, ScanOptions};
use crate::seen::Manner;
use crate::session::Named;
use crate::status::Failed;
use crate::transaction::{Transaction, TransactionOutcome, prefix_end};
use crate::unary;
use crate::values::{Acks, CasOutcome, Consistency, Expect, Record, Served, Version, Write, Written};
use bytes::Bytes;
use rdb_proto::v1;
use rdb_proto::v1::compare_and_swap::Expect as WireExpect;
use rdb_proto::v1::pipe_operation::Operation;
use rdb_proto::v1::pipe_result::Result as PipeResult;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// One namespace of the cluster. Cheap to clone; all clones share one route and one pipe.
///
/// Each call is tried again, wherever that is safe, until its timeout is over. Writes are named, unless
/// [`Options::sessions`](crate::Options::sessions) is switched off, and then it is always safe. Dropping a call's future is
/// safe; what becomes of a write is then unknown.
#[derive(Clone)]
pub struct Namespace {
    route: Arc<Route>,
    timeout: Duration,
    manner: Manner,
}

impl Namespace {
    pub(crate) fn new(route: Arc<Route>) -> Self {
        let timeout = route.nodes().options().request_timeout;
        let seen = route.seen.clone();
        Self {
            route,
            timeout,
            manner: Manner { consistency: Consistency::default(), acks: Acks::default(), seen },
        }
    }

    /// The same namespace, with another limit for each call.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The same namespace, with another consistency for its reads.
    #[must_use]
    pub fn with_consistency(mut self, consistency: Consistency) -> Self {
        self.manner.consistency = consistency;
        self
    }

    /// The same namespace, with other acknowledgements for its writes, if it is eventual.
    #[must_use]
    pub fn with_acks(mut self, acks: Acks) -> Self {
        self.manner.acks = acks;
        self
    }

    /// The same namespace in a session of its own, which has seen nothing yet: for one user of many that a program serves.
    /// Without it all handles of a client to one namespace share a session.
    #[must_use]
    pub fn new_session(mut self) -> Self {
        self.manner.seen = Arc::default();
        self
    }

    /// What this session has been shown, for [`Self::resume`] in another program; empty where that is nothing. It is short: a
    /// few bytes for each node whose writes were seen.
    #[must_use]
    pub fn session_token(&self) -> Bytes {
        self.manner.seen.token()
    }

    /// Takes in what another session has been shown: reads with [`Consistency::Session`] then show no less.
    pub fn resume(&self, token: &[u8]) -> Result<(), Error> {
        let refused =
            |damaged| Error::Options(format!("the session token is damaged, or is none: {damaged}"));
        self.manner.seen.resume(token).map_err(refused)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.route.namespace
    }

    /// Reads a key. `None`: there is no such key.
    pub async fn get(&self, key: impl Into<Bytes>) -> Result<Option<Record>, Error> {
        self.get_served(key).await.map(|(record, _)| record)
    }

    /// Reads a key, and tells how the read was served.
    pub async fn get_served(&self, key: impl Into<Bytes>) -> Result<(Option<Record>, Served), Error> {
        let key = key.into();
        let answer = self.read(Operation::Get(v1::Get { key: key.clone() })).await?;
        match answer.result {
            PipeResult::Found(v1::Found { value, version, .. }) => {
                let version = version.map(Version::from).unwrap_or_default();
                Ok((value.map(|value| Record { key, value, version }), answer.served))
            }
            other => Err(self.misfit(&other)),
        }
    }

    /// Reads many keys at one moment. Returns those that exist, in the order asked.
    pub async fn batch_get(&self, keys: Vec<Bytes>) -> Result<Vec<Record>, Error> {
        let answer = self.read(Operation::BatchGet(v1::BatchGet { keys })).await?;
        match answer.result {
            PipeResult::Records(records) => Ok(records.records.into_iter().map(record).collect()),
            other => Err(self.misfit(&other)),
        }
    }

    /// Reads many records in the order of their keys, all of one moment as long as the node that serves them lives. Asks
    /// for nothing before its first [`Scan::next`].
    #[must_use]
    pub fn scan(&self, options: ScanOptions) -> Scan {
        Scan::new(self.route.clone(), self.timeout, self.manner.clone(), options)
    }

    /// Counts records, at the server. A limit holds for what is counted.
    pub async fn count(&self, options: ScanOptions) -> Result<u64, Error> {
        self.scan(options).count().await
    }

    /// Stores a value under a key.
    pub async fn put(&self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<Written, WriteError> {
        let put = v1::Put { key: key.into(), value: value.into() };
        self.write(Operation::Put(put)).await
    }

    /// Removes a key. That there is none is no error.
    pub async fn delete(&self, key: impl Into<Bytes>) -> Result<Written, WriteError> {
        self.write(Operation::Delete(v1::Delete { key: key.into() })).await
    }

    /// Applies all of the batch at one moment, or none of it.
    pub async fn batch_write(&self, writes: Vec<Write>) -> Result<Written, WriteError> {
        let writes = writes.into_iter().map(wire_write).collect();
        self.write(Operation::BatchWrite(v1::BatchWrite { writes })).await
    }

    /// Stores `then` (or removes the key where it is `None`) if the record is as expected.
    pub async fn compare_and_swap(
        &self,
        key: impl Into<Bytes>,
        expect: Expect,
        then: Option<Bytes>,
    ) -> Result<CasOutcome, WriteError> {
        let expect = match expect {
            Expect::Absent => WireExpect::Absent(v1::Absent {}),
            Expect::Value(value) => WireExpect::Value(value),
            Expect::Version(version) => WireExpect::Version(version.into()),
            Expect::Present => WireExpect::Present(v1::Present {}),
        };
        let cas = v1::CompareAndSwap { key: key.into(), expect: Some(expect), then_put: then };
        let answer = self.call(Lane::Writes, Operation::Cas(cas)).await?;
        match answer.result {
            PipeResult::Done(done) => {
                Ok(CasOutcome::Swapped(done.version.map(Version::from).unwrap_or_default()))
            }
            PipeResult::Mismatch(mismatch) => Ok(CasOutcome::Mismatch {
                version: mismatch.version.map(Version::from),
                found: mismatch.found,
            }),
            other => Err(WriteError::InDoubt(self.misfit(&other))),
        }
    }

    /// Looks at some keys, and does one list of operations or another, all at one moment.
    pub async fn transaction(&self, transaction: Transaction) -> Result<TransactionOutcome, WriteError> {
        let shape = transaction.shape();
        let answer = self.call(Lane::Writes, Operation::Transaction(transaction.wire)).await?;
        let epoch = answer.epoch;
        let outcome = match &answer.result {
            PipeResult::Transaction(result) => shape.read(result.clone(), epoch),
            _ => None,
        };
        outcome.ok_or_else(|| WriteError::InDoubt(self.misfit(&answer.result)))
    }

    /// Removes the keys from `from` up to, and without, `to`; all from there on where `to` is empty. It takes no longer for
    /// many keys than for few, and does not tell how many there were.
    pub async fn delete_range(
        &self,
        from: impl Into<Bytes>,
        to: impl Into<Bytes>,
    ) -> Result<Written, WriteError> {
        self.write(Operation::DeleteRange(v1::DeleteRange { from: from.into(), to: to.into() })).await
    }

    /// Removes the keys that begin with `prefix`; all keys of the namespace where it is empty.
    pub async fn delete_prefix(&self, prefix: impl Into<Bytes>) -> Result<Written, WriteError> {
        let prefix = prefix.into();
        let end = prefix_end(&prefix);
        self.delete_range(prefix, end).await
    }

    async fn read(&self, operation: Operation) -> Result<Answer, Error> {
        self.call(Lane::Reads, operation).await.map_err(WriteError::into_error)
    }

    async fn write(&self, operation: Operation) -> Result<Written, WriteError> {
        let answer = self.call(Lane::Writes, operation).await?;
        match answer.result {
            PipeResult::Done(done) => Ok(Written {
                version: done.version.map(Version::from).unwrap_or_default(),
                epoch: answer.epoch,
            }),
            other => Err(WriteError::InDoubt(self.misfit(&other))),
        }
    }

    /// Attempts, until one succeeds or there is to be none any more.
    async fn call(&self, lane: Lane, operation: Operation) -> Result<Answer, WriteError> {
        let started = Instant::now();
        let deadline = started + self.timeout;
        let name = match lane {
            Lane::Writes if self.route.nodes().options().sessions => {
                self.route.name(started, deadline).await?
            }
            _ => None,
        };
        match self.attempt(lane, operation.clone(), name.as_ref(), deadline).await {
            Ok(answer) => Ok(answer),
            // Kept apart, and on the heap, so that the common case stays small.
            Err(failed) => Box::pin(self.repeat(lane, operation, name, (started, deadline), failed)).await,
        }
    }

    /// The attempts after the first one. The name is held over all of them: a repetition carries the same.
    async fn repeat(
        &self,
        lane: Lane,
        operation: Operation,
        mut name: Option<Named>,
        (started, deadline): (Instant, Instant),
        mut failed: Failed,
    ) -> Result<Answer, WriteError> {
        let safety = match (lane, &name) {
            (Lane::Reads, _) => Safety::Read,
            (Lane::Writes, None) => Safety::Write,
            (Lane::Writes, Some(_)) => Safety::NamedWrite,
        };
        let mut attempts = Attempts::new(&self.route, safety, started, deadline);
        loop {
            // Whatever becomes of this write, the next ones need another session.
            if let Some(dead) = name.as_ref().filter(|_| ends_session(&failed)) {
                self.route.forget_session(&dead.session);
            }
            if is_of_another(&failed) {
                // The caller is told once that what was seen is gone.
                self.manner.seen.forget();
            }
            attempts.after(failed).await?;
            if attempts.name_is_over() {
                name = self.route.name(started, deadline).await?;
            }
            failed = match self.attempt(lane, operation.clone(), name.as_ref(), deadline).await {
                Ok(answer) => return Ok(answer),
                Err(failed) => failed,
            };
        }
    }

    async fn attempt(
        &self,
        lane: Lane,
        operation: Operation,
        name: Option<&Named>,
        deadline: Instant,
    ) -> Result<Answer, Failed> {
        let name = name.map(|named| (named.session.clone(), named.sequence));
        let (asked, answer) = match self.route.nodes().options().transport {
            Transport::Pipe => {
                let pipe = self.route.pipe(deadline).await?;
                let asked = pipe.address().clone();
                (asked, pipe.call(lane, (operation, self.manner.clone()), name, deadline).await?)
            }
            Transport::Unary => {
                let asked = self.route.target();
                let (nodes, namespace) = (self.route.nodes(), self.name());
                (
                    asked.clone(),
                    unary::call(nodes, asked, namespace, (operation, self.manner.clone()), name, deadline)
                        .await?,
                )
            }
        };
        self.route.answered_in(answer.epoch);
        if let Some(leader) = &answer.leader {
            // It was forwarded; the next one goes there at once.
            self.route.follow(&asked, leader);
        }
        Ok(answer)
    }

    /// An answer that is none to what was asked: the node is of another kind than this client knows.
    fn misfit(&self, _result: &PipeResult) -> Error {
        Error::Lost {
            node: self.route.target().to_string(),
            reason: "it answered another question than the one asked".into(),
            attempted: crate::error::Attempted { tries: 1, waited: Duration::ZERO },
        }
    }
}

/// Whether what was seen is of another namespace than the one that has the name now, or lost.
fn is_of_another(failed: &Failed) -> bool {
    let lasting = |code| matches!(code, v1::Code::OtherNamespace | v1::Code::SessionLost);
    matches!(failed, Failed::Answered(_, error) if lasting(error.code()))
}

pub(crate) fn record(record: v1::Record) -> Record {
    Record {
        key: record.key,
        value: record.value,
        version: record.version.map(Version::from).unwrap_or_default(),
    }
}

fn wire_write(write: Write) -> v1::Write {
    let write = match write {
        Write::Put(key, value) => v1::write::Write::Put(v1::Put { key, value }),
        Write::Delete(key) => v1::write::Write::Delete(v1::Delete { key }),
    };
    v1::Write { write: Some(write) }
}

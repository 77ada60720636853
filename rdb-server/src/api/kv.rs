//! The key-value service: each operation as a call of its own. See `pipe.rs` for many of them in one message.

use super::acks::{self, Held};
use super::reads::{Served, Wanted};
use super::request::{self, found, from_wire, request_id, to_wire};
use super::session::Saw;
use super::status::{self, Answered, answered, responded};
use super::{Target, admit_read, held, limits, pipe, scan, transaction};
use crate::eventual::records::Stored;
use crate::eventual::waiting::{Acks, Terms};
use crate::metrics::{Operation, Result as MetricResult};
use crate::shared::Shared;
use crate::waiter::Answers;
use bytes::Bytes;
use rdb_core::apply::Answer;
use rdb_core::command::{self, Command, Encoded, RequestId};
use rdb_pd::Mode;
use rdb_proto::v1;
use rdb_proto::v1::kv_server::Kv;
use std::time::{Duration, Instant};
use tonic::{Request, Response, Streaming};

/// What eventual mode does not have, and why.
pub(super) const CAS: (&str, &str) = ("a compare-and-swap", "it looks before it writes");
pub(super) const TRANSACTION: (&str, &str) = ("a transaction", "it looks before it writes");
pub(super) const DELETE_RANGE: (&str, &str) =
    ("a range delete", "it removes keys that other nodes may be writing");
const SESSION: (&str, &str) = ("a session that names writes", "no node knows what the others have taken in");

/// What a write's request says besides the write.
struct Asked<'a> {
    namespace: &'a str,
    epoch: u64,
    acks: i32,
    seen: Option<v1::Version>,
}

/// Serves keys and values.
pub(crate) struct KvService(pub(crate) Shared);

impl KvService {
    /// One command of strong mode, and what the state machine says to it.
    async fn command(
        &self,
        target: Target,
        commands: Encoded,
        what: (&str, &str),
        timeout: Duration,
    ) -> Result<Answer, v1::Error> {
        target.check_mode(what)?;
        target.check_names(commands.named)?;
        match self
            .0
            .write(Operation::Write, target.region, (commands, Terms::in_era(target.era)), timeout)
            .await?
        {
            Answers::Keys(mut answers) if answers.len() == 1 => Ok(answers.remove(0)),
            other => Err(status::internal(format!("unexpected answers: {other:?}"))),
        }
    }

    /// A write that cannot fail a comparison.
    async fn write(
        &self,
        asked: Asked<'_>,
        timeout: Duration,
        push: impl FnOnce(&mut Encoded) -> Result<(), v1::Error>,
    ) -> Result<v1::WriteResponse, v1::Error> {
        let deadline = acks::answer_by(Instant::now(), timeout);
        let mut commands = Encoded::default();
        push(&mut commands)?;
        let target = self.0.target(asked.namespace, asked.epoch).await?;
        target.check_names(commands.named)?;
        let terms = acks::terms(asked.acks, asked.seen.as_ref(), target)?;
        let answers = self.0.write(Operation::Write, target.region, (commands, terms), timeout).await?;
        let (version, session) = match answers {
            Answers::Keys(answers) if answers.len() == 1 => {
                let version = done(&answers[0])?;
                if terms.acks == Acks::All {
                    return Err(status::strong_acks_late(from_wire(&version)));
                }
                (version, Bytes::new())
            }
            Answers::Eventual(answers, write) if answers.len() == 1 => {
                let version = done(&answers[0])?;
                let held = Held { namespace: target.namespace, write, version: from_wire(&version) };
                if !self.0.is_acked(target, held, terms.acks) {
                    self.0.acked(target, held, terms.acks, deadline).await?;
                }
                (version, held.token())
            }
            other => return Err(status::internal(format!("unexpected answers: {other:?}"))),
        };
        // Taken now: it may have waited at a gate, and others have been answered in a later epoch by then.
        let header = self.0.header(target.region, target.rules());
        Ok(v1::WriteResponse { header: Some(v1::Header { session, ..header }), version: Some(version) })
    }

    async fn delete_range(
        &self,
        namespace: &str,
        epoch: u64,
        timeout: Duration,
        push: impl FnOnce(&mut Encoded) -> Result<(), v1::Error>,
    ) -> Result<v1::WriteResponse, v1::Error> {
        let mut commands = Encoded::default();
        push(&mut commands)?;
        let target = self.0.target(namespace, epoch).await?;
        let version = Some(done(&self.command(target, commands, DELETE_RANGE, timeout).await?)?);
        Ok(v1::WriteResponse { header: Some(self.0.header(target.region, target.rules())), version })
    }

    /// Waits until the data may be read, if the read is to wait. Says how it is served.
    async fn barrier(
        &self,
        namespace: &str,
        epoch: u64,
        wanted: &Wanted,
        timeout: Duration,
    ) -> Result<(Target, Served), v1::Error> {
        let target = self.0.target(namespace, epoch).await?;
        let began = Instant::now();
        let served = self.0.serve(namespace, epoch, target, wanted, timeout).await;
        let result = served.as_ref().err().map_or(MetricResult::Done, MetricResult::of);
        self.0.metrics.requests(Operation::Read, result, 1, began.elapsed());
        Ok((target, served?))
    }

    async fn get(
        &self,
        get: v1::GetRequest,
        timeout: Duration,
    ) -> Result<Response<v1::GetResponse>, v1::Error> {
        let key = get.get.unwrap_or_default().key;
        limits::key(&key)?;
        let budget = self.0.budget_of(&get.namespace);
        let _waits = admit_read(&budget, key.len() + status::REQUEST_OVERHEAD_BYTES)?;
        let deadline = acks::answer_by(Instant::now(), timeout);
        let wanted = Wanted::new(get.consistency, get.max_age_ms, get.session)?;
        let (target, served) = self.barrier(&get.namespace, get.epoch, &wanted, timeout).await?;
        let mut saw = self.0.saw(target);
        let found = found(self.0.fetch_record(target, served, &key, deadline).await?)?;
        saw.found(&found);
        let header = served.mark(self.0.header(target.region, target.rules()));
        let header = Some(v1::Header { session: saw.token(), ..header });
        held::read(
            &budget,
            v1::GetResponse { header, value: found.value, version: found.version, deleted: found.deleted },
        )
    }

    async fn batch_get(
        &self,
        get: v1::BatchGetRequest,
        timeout: Duration,
    ) -> Result<Response<v1::BatchGetResponse>, v1::Error> {
        let keys = get.get.unwrap_or_default();
        request::check_batch_get(&keys)?;
        let budget = self.0.budget_of(&get.namespace);
        let bytes = keys.keys.iter().map(|key| key.len() + status::REQUEST_OVERHEAD_BYTES).sum();
        let _waits = admit_read(&budget, bytes)?;
        let deadline = acks::answer_by(Instant::now(), timeout);
        let wanted = Wanted::new(get.consistency, get.max_age_ms, get.session)?;
        let (target, served) = self.barrier(&get.namespace, get.epoch, &wanted, timeout).await?;
        let mut saw = self.0.saw(target);
        let stored = if served == Served::QUORUM {
            self.0.read_quorum(target, &keys.keys, deadline).await?.0
        } else {
            self.0.find_records(target, &keys.keys, deadline).await?
        };
        let records = records(&keys.keys, stored, &mut saw)?;
        let header = served.mark(self.0.header(target.region, target.rules()));
        let header = v1::Header { session: saw.token(), ..header };
        held::read(&budget, v1::BatchGetResponse { header: Some(header), records })
    }

    async fn cas(
        &self,
        cas: v1::CompareAndSwapRequest,
        timeout: Duration,
    ) -> Result<Response<v1::CompareAndSwapResponse>, v1::Error> {
        let mut commands = Encoded::default();
        let request = request_id(cas.request.as_ref());
        request::push_cas(&mut commands, &cas.cas.unwrap_or_default(), request)?;
        let target = self.0.target(&cas.namespace, cas.epoch).await?;
        let answer = self.command(target, commands, CAS, timeout).await?;
        let header = Some(self.0.header(target.region, target.rules()));
        let response = match answer {
            Answer::Mismatch { version, found } => v1::CompareAndSwapResponse {
                header,
                swapped: false,
                version: version.map(to_wire),
                found: found.map(Bytes::from),
            },
            answer => {
                let version = Some(done(&answer)?);
                v1::CompareAndSwapResponse { header, swapped: true, version, found: None }
            }
        };
        Ok(held::written(&self.0.regions.budget(target.region), response))
    }

    async fn transaction(
        &self,
        asked: v1::TransactionRequest,
        timeout: Duration,
    ) -> Result<Response<v1::TransactionResponse>, v1::Error> {
        let mut commands = Encoded::default();
        let request = request_id(asked.request.as_ref());
        transaction::push_transaction(&mut commands, &asked.transaction.unwrap_or_default(), request)?;
        let target = self.0.target(&asked.namespace, asked.epoch).await?;
        match self.command(target, commands, TRANSACTION, timeout).await? {
            Answer::Transaction(outcome) => {
                let header = Some(self.0.header(target.region, target.rules()));
                let result = Some(transaction::transaction_result(outcome));
                let budget = self.0.regions.budget(target.region);
                Ok(held::written(&budget, v1::TransactionResponse { header, result }))
            }
            other => Err(match done(&other) {
                Err(error) => error,
                Ok(_) => status::internal("a write's answer to a transaction".to_owned()),
            }),
        }
    }

    async fn open_session(
        &self,
        open: v1::OpenSessionRequest,
        timeout: Duration,
    ) -> Result<v1::OpenSessionResponse, v1::Error> {
        let target = self.0.target(&open.namespace, open.epoch).await?;
        if target.mode == Mode::Eventual {
            // No node knows what the others have taken in: a repetition is a write of its own.
            let header = Some(self.0.header(target.region, target.rules()));
            return Ok(v1::OpenSessionResponse { header, client: 0 });
        }
        let drawn: u64 = rand::random();
        let request = Some(RequestId { client: drawn, sequence: open.token, lowest: 0 });
        let commands = Encoded::from(&Command { request, operation: command::Operation::OpenSession });
        let client = match self.command(target, commands, SESSION, timeout).await? {
            Answer::OpenedBefore { client } => client,
            answer => done(&answer).map(|_| drawn)?,
        };
        Ok(v1::OpenSessionResponse { header: Some(self.0.header(target.region, target.rules())), client })
    }
}

#[tonic::async_trait]
impl Kv for KvService {
    async fn get(&self, request: Request<v1::GetRequest>) -> Answered<v1::GetResponse> {
        let timeout = self.0.timeout(&request);
        responded(KvService::get(self, request.into_inner(), timeout).await)
    }

    async fn put(&self, request: Request<v1::PutRequest>) -> Answered<v1::WriteResponse> {
        let timeout = self.0.timeout(&request);
        let v1::PutRequest { namespace, epoch, put, request, acks, seen } = request.into_inner();
        let asked = Asked { namespace: &namespace, epoch, acks, seen };
        let push = |out: &mut Encoded| {
            request::push_put(out, &put.unwrap_or_default(), request_id(request.as_ref()))
        };
        answered(self.write(asked, timeout, push).await)
    }

    async fn delete(&self, request: Request<v1::DeleteRequest>) -> Answered<v1::WriteResponse> {
        let timeout = self.0.timeout(&request);
        let v1::DeleteRequest { namespace, epoch, delete, request, acks, seen } = request.into_inner();
        let asked = Asked { namespace: &namespace, epoch, acks, seen };
        let push = |out: &mut Encoded| {
            request::push_delete(out, &delete.unwrap_or_default(), request_id(request.as_ref()))
        };
        answered(self.write(asked, timeout, push).await)
    }

    async fn compare_and_swap(
        &self,
        request: Request<v1::CompareAndSwapRequest>,
    ) -> Answered<v1::CompareAndSwapResponse> {
        let timeout = self.0.timeout(&request);
        responded(self.cas(request.into_inner(), timeout).await)
    }

    async fn batch_get(&self, request: Request<v1::BatchGetRequest>) -> Answered<v1::BatchGetResponse> {
        let timeout = self.0.timeout(&request);
        responded(KvService::batch_get(self, request.into_inner(), timeout).await)
    }

    async fn batch_write(&self, request: Request<v1::BatchWriteRequest>) -> Answered<v1::WriteResponse> {
        let timeout = self.0.timeout(&request);
        let v1::BatchWriteRequest { namespace, epoch, batch, request, acks, seen } = request.into_inner();
        let asked = Asked { namespace: &namespace, epoch, acks, seen };
        let push = |out: &mut Encoded| {
            request::push_batch(out, &batch.unwrap_or_default(), request_id(request.as_ref()))
        };
        answered(self.write(asked, timeout, push).await)
    }

    async fn transaction(
        &self,
        request: Request<v1::TransactionRequest>,
    ) -> Answered<v1::TransactionResponse> {
        let timeout = self.0.timeout(&request);
        responded(KvService::transaction(self, request.into_inner(), timeout).await)
    }

    async fn delete_range(&self, request: Request<v1::DeleteRangeRequest>) -> Answered<v1::WriteResponse> {
        let timeout = self.0.timeout(&request);
        let v1::DeleteRangeRequest { namespace, epoch, range, request } = request.into_inner();
        let Some(range) = range else {
            // Its ends would both be empty, which is all of the namespace.
            return answered(Err(status::invalid("the request names no range".to_owned())));
        };
        let push =
            |out: &mut Encoded| transaction::push_delete_range(out, &range, request_id(request.as_ref()));
        answered(self.delete_range(&namespace, epoch, timeout, push).await)
    }

    async fn open_session(
        &self,
        request: Request<v1::OpenSessionRequest>,
    ) -> Answered<v1::OpenSessionResponse> {
        let timeout = self.0.timeout(&request);
        answered(KvService::open_session(self, request.into_inner(), timeout).await)
    }

    type ScanStream = scan::Outgoing;

    async fn scan(&self, request: Request<v1::ScanRequest>) -> Answered<Self::ScanStream> {
        let timeout = self.0.timeout(&request);
        answered(self.0.scan(request.into_inner(), timeout).await)
    }

    type PipeStream = pipe::Outgoing;

    async fn pipe(&self, request: Request<Streaming<v1::PipeRequest>>) -> Answered<Self::PipeStream> {
        Ok(Response::new(pipe::serve(self.0.clone(), request.into_inner())))
    }
}

impl Shared {
    /// How long this request may take: what the client says, by gRPC's own header, up to the node's own limit.
    pub(super) fn timeout<T>(&self, request: &Request<T>) -> Duration {
        let header = request.metadata().get("grpc-timeout").and_then(|value| value.to_str().ok());
        let longest = self.config.request_timeout();
        header.and_then(parse_timeout).map_or(longest, |asked| asked.min(longest))
    }
}

/// gRPC's timeout: up to eight digits and a unit. tonic hands a malformed one on as it came.
fn parse_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let amount: u64 = digits.parse().ok().filter(|_| digits.len() <= 8)?;
    match unit {
        "H" => Some(Duration::from_secs(amount * 3600)),
        "M" => Some(Duration::from_secs(amount * 60)),
        "S" => Some(Duration::from_secs(amount)),
        "m" => Some(Duration::from_millis(amount)),
        "u" => Some(Duration::from_micros(amount)),
        "n" => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

fn done(answer: &Answer) -> Result<v1::Version, v1::Error> {
    match answer {
        Answer::Done(version) => Ok(to_wire(*version)),
        Answer::EraMismatch => Err(status::era_mismatch()),
        Answer::Closed => Err(status::namespace_gone()),
        Answer::SessionExpired => Err(status::session_expired()),
        Answer::FoundTooMuch => Err(status::found_too_much()),
        Answer::Crowded => Err(status::crowded()),
        Answer::Mismatch { .. } | Answer::Transaction(_) | Answer::OpenedBefore { .. } => {
            Err(status::internal("an answer to another question than the one asked".to_owned()))
        }
    }
}

#[allow(clippy::needless_pass_by_value, reason = "it is handed to `map_err`")]
pub(super) fn disk_failed(error: rdb_storage::Error) -> v1::Error {
    tracing::error!(%error, "a record could not be read");
    status::fail(
        v1::Code::Internal,
        v1::Outcome::NotDone,
        format!("the node's disk could not be read: {error}"),
        "ask another node, and see this node's log",
    )
}

/// Those of the keys that are there, in the order asked.
pub(super) fn records(keys: &[Bytes], stored: Stored, saw: &mut Saw) -> Result<Vec<v1::Record>, v1::Error> {
    let mut records = Vec::with_capacity(keys.len());
    for (key, stored) in keys.iter().zip(stored) {
        let found = found(stored)?;
        saw.found(&found);
        if let Some(value) = found.value {
            records.push(v1::Record { key: key.clone(), value, version: found.version });
        }
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_timeouts_are_understood() {
        assert_eq!(parse_timeout("250m"), Some(Duration::from_millis(250)));
        assert_eq!(parse_timeout("3S"), Some(Duration::from_secs(3)));
        assert_eq!(parse_timeout("99u"), Some(Duration::from_micros(99)));
        assert_eq!(parse_timeout(""), None);
        assert_eq!(parse_timeout("m"), None);
        assert_eq!(parse_timeout("5x"), None);
        assert_eq!(parse_timeout("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        assert_eq!(parse_timeout("18446744073709551615H"), None);
    }
}

//! Calls of their own: operations, where the pipe is not wanted, and what the pipe does not carry.

use crate::attempts::{Attempts, Safety};
use crate::error::WriteError;
use crate::nodes::{Address, Nodes};
use crate::pipe::{ANSWER_BYTES_MAX, Answer, Name, version};
use crate::route::Route;
use crate::seen::Manner;
use crate::status::Failed;
use crate::values::{Served, Version};
use rdb_proto::v1::kv_client::KvClient;
use rdb_proto::v1::pipe_operation::Operation;
use rdb_proto::v1::pipe_result::Result as PipeResult;
use rdb_proto::v1::{self, Header};
use std::time::Duration;
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

/// Asks one node, once.
pub(crate) async fn call(
    nodes: &Nodes,
    address: Address,
    namespace: &str,
    (operation, manner): (Operation, Manner),
    name: Option<Name>,
    deadline: Instant,
) -> Result<Answer, Failed> {
    let Some(channel) = nodes.channel(&address) else {
        return Err(Failed::NotSent(address, "unknown node".into()));
    };
    let remaining = manner.patience(deadline.saturating_duration_since(Instant::now()));
    if remaining.is_zero() {
        return Err(Failed::Deadline { address, sent: false });
    }
    let mut client = KvClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
    let seen = manner.seen.clone();
    let call = Call { namespace: namespace.to_string(), name, manner, remaining };
    match call.send(&mut client, operation).await {
        Ok((header, result)) => {
            let header = header.unwrap_or_default();
            seen.saw_bytes(&header.session, version(&result));
            let elsewhere = header.leader != header.node && !header.leader_address.is_empty();
            let leader = elsewhere.then(|| header.leader_address.as_str().into());
            Ok(Answer { result, epoch: header.epoch, served: Served::from(&header), leader })
        }
        Err(status) => {
            let failed = ended(Failed::from_status(&address, &status), deadline);
            if let Failed::Answered(_, error) = &failed
                && let Some(done) = &error.done_here
            {
                seen.saw_bytes(&done.session, done.version.map(Version::from));
            }
            Err(failed)
        }
    }
}

/// Why a call has ended. One that the caller's time does not explain was ended by the node, or on the way to it, or has had
/// its share of that time: the answer is lost, and there is time to ask again.
pub(crate) fn ended(failed: Failed, deadline: Instant) -> Failed {
    match failed {
        Failed::Deadline { address, sent: true } if Instant::now() < deadline => {
            Failed::Lost(address, "no answer".into())
        }
        failed => failed,
    }
}

type Answered = Result<(Option<Header>, PipeResult), Status>;

struct Call {
    namespace: String,
    name: Option<Name>,
    manner: Manner,
    remaining: Duration,
}

impl Call {
    async fn send(self, client: &mut KvClient<Channel>, operation: Operation) -> Answered {
        let (consistency, max_age_ms) = self.manner.consistency.to_wire();
        let (acks, seen) = (v1::Acks::from(self.manner.acks).into(), self.manner.seen.highest());
        match operation {
            Operation::Get(get) => {
                let request = v1::GetRequest {
                    namespace: self.namespace.clone(),
                    epoch: 0,
                    get: Some(get),
                    consistency: consistency.into(),
                    max_age_ms,
                    session: self.manner.token(),
                };
                let answer = client.get(self.timed(request)).await?.into_inner();
                let v1::GetResponse { header, value, version, deleted } = answer;
                Ok((header, PipeResult::Found(v1::Found { value, version, deleted })))
            }
            Operation::BatchGet(get) => {
                let request = v1::BatchGetRequest {
                    namespace: self.namespace.clone(),
                    epoch: 0,
                    get: Some(get),
                    consistency: consistency.into(),
                    max_age_ms,
                    session: self.manner.token(),
                };
                let answer = client.batch_get(self.timed(request)).await?.into_inner();
                Ok((answer.header, PipeResult::Records(v1::Records { records: answer.records })))
            }
            Operation::Put(put) => {
                let (namespace, epoch, request) = (self.namespace.clone(), self.epoch(), self.request_id());
                let request = v1::PutRequest { namespace, epoch, put: Some(put), request, acks, seen };
                Ok(done(client.put(self.timed(request)).await?.into_inner()))
            }
            Operation::Delete(delete) => {
                let (namespace, epoch, request) = (self.namespace.clone(), self.epoch(), self.request_id());
                let request =
                    v1::DeleteRequest { namespace, epoch, delete: Some(delete), request, acks, seen };
                Ok(done(client.delete(self.timed(request)).await?.into_inner()))
            }
            Operation::BatchWrite(batch) => {
                let (namespace, epoch, request) = (self.namespace.clone(), self.epoch(), self.request_id());
                let request =
                    v1::BatchWriteRequest { namespace, epoch, batch: Some(batch), request, acks, seen };
                Ok(done(client.batch_write(self.timed(request)).await?.into_inner()))
            }
            Operation::DeleteRange(range) => {
                let (namespace, epoch, request) = (self.namespace.clone(), self.epoch(), self.request_id());
                let request = v1::DeleteRangeRequest { namespace, epoch, range: Some(range), request };
                Ok(done(client.delete_range(self.timed(request)).await?.into_inner()))
            }
            Operation::Transaction(transaction) => {
                let (namespace, epoch, request) = (self.namespace.clone(), self.epoch(), self.request_id());
                let transaction = Some(transaction);
                let request = v1::TransactionRequest { namespace, epoch, transaction, request };
                let answer = client.transaction(self.timed(request)).await?.into_inner();
                Ok((answer.header, PipeResult::Transaction(answer.result.unwrap_or_default())))
            }
            Operation::Cas(cas) => {
                let (namespace, epoch, request) = (self.namespace.clone(), self.epoch(), self.request_id());
                let request = v1::CompareAndSwapRequest { namespace, epoch, cas: Some(cas), request };
                let answer = client.compare_and_swap(self.timed(request)).await?.into_inner();
                let result = if answer.swapped {
                    PipeResult::Done(v1::Done { version: answer.version })
                } else {
                    PipeResult::Mismatch(v1::Mismatch { version: answer.version, found: answer.found })
                };
                Ok((answer.header, result))
            }
        }
    }

    fn timed<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(self.remaining);
        request
    }

    fn epoch(&self) -> u64 {
        self.name.as_ref().map_or(0, |(session, _)| session.epoch)
    }

    fn request_id(&self) -> Option<v1::RequestId> {
        self.name.as_ref().map(|(session, sequence)| v1::RequestId {
            client: session.client,
            sequence: *sequence,
            lowest: session.lowest(),
        })
    }
}

fn done(answer: v1::WriteResponse) -> (Option<Header>, PipeResult) {
    (answer.header, PipeResult::Done(v1::Done { version: answer.version }))
}

/// Asks the route's target, and whom it names, by the same rules as operations are tried by.
pub(crate) async fn ask<Q: Clone, A>(
    route: &Route,
    safety: Safety,
    request: Q,
    deadline: Instant,
    ask: impl AsyncFn(Channel, Request<Q>) -> Result<Response<A>, Status>,
) -> Result<A, WriteError> {
    let mut attempts = Attempts::new(route, safety, Instant::now(), deadline);
    loop {
        let address = route.target();
        let failed = match route.nodes().channel(&address) {
            None => Failed::NotSent(address, "unknown node".into()),
            Some(channel) => {
                let mut request = Request::new(request.clone());
                request.set_timeout(attempt_limit(route.nodes(), safety, deadline));
                match ask(channel, request).await {
                    Ok(answer) => return Ok(answer.into_inner()),
                    Err(status) => ended(Failed::from_status(&address, &status), deadline),
                }
            }
        };
        attempts.after(failed).await?;
    }
}

/// How long one attempt may take: a read whose node is silent goes to another one while there is time.
pub(crate) fn attempt_limit(nodes: &Nodes, safety: Safety, deadline: Instant) -> Duration {
    let remaining = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    match safety {
        Safety::Read => remaining.min(2 * nodes.options().keepalive),
        Safety::Write | Safety::NamedWrite => remaining,
    }
}

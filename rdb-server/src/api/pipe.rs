//! The pipe: many operations of one connection in each message.
//!
//! A message's writes become one proposal and its reads share one wait for a ReadIndex round, so the cost of a hand-over
//! is paid per message and not per operation. One task per pipe takes messages in, and what comes back from the raft
//! loop and the applier goes out in as few messages as there is time for. Deadlines are looked at for the message as a
//! whole, a few times a second.
//!
//! A client that does not read its answers is not read from either: the task waits with them.

use super::kv::{disk_failed, read_records};
use super::request::{self, error_result, found, write_result};
use super::{Target, limits, status};
use crate::budget::Share;
use crate::mailbox::Event;
use crate::metrics::{Operation, Result as MetricResult};
use crate::shared::Shared;
use crate::waiter::{Answers, ReadWaiter, WriteWaiter};
use bytes::Bytes;
use rdb_core::command::{Encoded, RequestId};
use rdb_core::ids::{Epoch, RegionId};
use rdb_core::raft::Failure;
use rdb_proto::v1;
use rdb_proto::v1::pipe_operation::Operation as WireOperation;
use rdb_proto::v1::pipe_result::Result as WireResult;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

/// Operations of one pipe under way, past which it is not read from.
const OPERATIONS_MAX: usize = 65_536;
/// Answers that may wait for the connection.
const RESPONSES_MAX: usize = 16;
/// Parts that are joined into one response.
const PARTS_MAX: usize = 256;
/// Between looks for what has taken too long.
const SWEEP_INTERVAL: Duration = Duration::from_millis(50);

/// Serves one pipe, in a task of its own, until either side ends it.
pub(super) fn serve(
    shared: Shared,
    incoming: Streaming<v1::PipeRequest>,
) -> ReceiverStream<Result<v1::PipeResponse, Status>> {
    let (responses, outgoing) = mpsc::channel(RESPONSES_MAX);
    let (parts, arrived) = mpsc::unbounded_channel();
    let pipe = Pipe { shared, parts, under_way: BTreeMap::new(), operations: 0, next_ticket: 0 };
    tokio::spawn(async move {
        if let Err(status) = pipe.run(incoming, arrived, &responses).await {
            drop(responses.send(Err(status)).await);
        }
    });
    ReceiverStream::new(outgoing)
}

/// What comes back for a ticket.
enum Part {
    Written(u64, Result<Answers, Failure>),
    Released(u64, Result<(), Failure>),
}

/// A read and its id.
struct Read {
    id: u64,
    keys: Keys,
}

enum Keys {
    One(Bytes),
    Many(Vec<Bytes>),
}

enum Work {
    /// The ids of the commands of one proposal, in order.
    Writes(Vec<u64>),
    /// The reads that wait for one round.
    Reads(Vec<Read>),
}

/// One proposal, or one wait for a round.
struct UnderWay {
    target: Target,
    work: Work,
    began: Instant,
    deadline: Instant,
    timeout: Duration,
    _share: Option<Share>,
}

struct Pipe {
    shared: Shared,
    parts: mpsc::UnboundedSender<Part>,
    under_way: BTreeMap<u64, UnderWay>,
    operations: usize,
    next_ticket: u64,
}

type Results = Vec<v1::PipeResult>;

impl Pipe {
    async fn run(
        mut self,
        mut incoming: Streaming<v1::PipeRequest>,
        mut arrived: mpsc::UnboundedReceiver<Part>,
        responses: &mpsc::Sender<Result<v1::PipeResponse, Status>>,
    ) -> Result<(), Status> {
        let mut sweep = tokio::time::interval(SWEEP_INTERVAL);
        let mut parts = Vec::with_capacity(PARTS_MAX);
        let mut ended = false;
        while !ended || !self.under_way.is_empty() {
            let mut out = BTreeMap::<(RegionId, Epoch), Results>::new();
            tokio::select! {
                biased;
                _ = arrived.recv_many(&mut parts, PARTS_MAX) => {
                    for part in parts.drain(..) {
                        self.finish(part, &mut out);
                    }
                }
                message = incoming.message(), if !ended && self.operations < OPERATIONS_MAX => {
                    match message? {
                        Some(message) => self.take(message, &mut out).await,
                        None => ended = true,
                    }
                }
                _ = sweep.tick() => self.sweep(&mut out),
            }
            for ((region, epoch), results) in out {
                let header = self.shared.header(region, epoch);
                let response = v1::PipeResponse { header: Some(header), results };
                if responses.send(Ok(response)).await.is_err() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Starts what a message asks for. What is refused at once goes to `out`.
    async fn take(&mut self, message: v1::PipeRequest, out: &mut BTreeMap<(RegionId, Epoch), Results>) {
        let longest = self.shared.config.request_timeout();
        let asked = Duration::from_millis(u64::from(message.timeout_ms));
        let timeout = if asked.is_zero() { longest } else { asked.min(longest) };
        let checked = match limits::pipe(message.operations.len()) {
            Ok(()) => self.shared.target(&message.namespace, message.epoch).await,
            Err(error) => Err(error),
        };
        let target = match checked {
            Ok(target) => target,
            Err(error) => {
                let refused = out.entry((RegionId::META, Epoch(0))).or_default();
                let ids = message.operations.iter().map(|operation| operation.id);
                refused.extend(ids.map(|id| refuse(id, error.clone())));
                return;
            }
        };
        let refused = out.entry((target.region, target.epoch)).or_default();
        let (commands, writes, reads) = sort(message, refused);
        self.propose(target, commands, writes, timeout, refused);
        self.await_round(target, reads, timeout);
        if refused.is_empty() {
            out.remove(&(target.region, target.epoch));
        }
    }

    fn propose(
        &mut self,
        target: Target,
        commands: Encoded,
        ids: Vec<u64>,
        timeout: Duration,
        refused: &mut Results,
    ) {
        if ids.is_empty() {
            return;
        }
        let share = match self.shared.admit(commands.bytes.len()) {
            Ok(share) => share,
            Err(error) => return refused.extend(ids.into_iter().map(|id| refuse(id, error.clone()))),
        };
        let ticket = self.start(target, ids.len(), Work::Writes(ids), timeout, Some(share));
        let parts = self.parts.clone();
        // A pipe that has ended needs no answers.
        let waiter = WriteWaiter::new(move |answer| drop(parts.send(Part::Written(ticket, answer))));
        self.shared.mailbox.post(Event::Write { region: target.region, commands, waiter });
    }

    fn await_round(&mut self, target: Target, reads: Vec<Read>, timeout: Duration) {
        if reads.is_empty() {
            return;
        }
        let ticket = self.start(target, reads.len(), Work::Reads(reads), timeout, None);
        let parts = self.parts.clone();
        let waiter = ReadWaiter::new(move |answer| drop(parts.send(Part::Released(ticket, answer))));
        self.shared.mailbox.post(Event::Read { region: target.region, waiter });
    }

    fn start(
        &mut self,
        target: Target,
        operations: usize,
        work: Work,
        timeout: Duration,
        share: Option<Share>,
    ) -> u64 {
        self.next_ticket += 1;
        self.operations += operations;
        let began = Instant::now();
        let under_way = UnderWay { target, work, began, deadline: began + timeout, timeout, _share: share };
        self.under_way.insert(self.next_ticket, under_way);
        self.next_ticket
    }

    fn end(&mut self, ticket: u64) -> Option<UnderWay> {
        let ended = self.under_way.remove(&ticket)?;
        self.operations -= match &ended.work {
            Work::Writes(ids) => ids.len(),
            Work::Reads(reads) => reads.len(),
        };
        Some(ended)
    }

    /// Turns a part into results. One whose ticket is gone has timed out, and its operations have their answers.
    fn finish(&mut self, part: Part, out: &mut BTreeMap<(RegionId, Epoch), Results>) {
        let (Part::Written(ticket, _) | Part::Released(ticket, _)) = &part;
        let Some(ended) = self.end(*ticket) else { return };
        let UnderWay { target, work, began, .. } = ended;
        let results = out.entry((target.region, target.epoch)).or_default();
        match (part, work) {
            (Part::Written(_, answer), Work::Writes(ids)) => {
                self.written(target, ids, answer, began, results);
            }
            (Part::Released(_, Ok(())), Work::Reads(reads)) => self.read(target, reads, began, results),
            (Part::Released(_, Err(failure)), Work::Reads(reads)) => {
                let error = self.shared.failed_read(target.region, failure);
                self.refuse_reads(reads, &error, began, results);
            }
            (Part::Written(..), Work::Reads(_)) | (Part::Released(..), Work::Writes(_)) => {
                unreachable!("a ticket is for one kind of work")
            }
        }
    }

    fn written(
        &self,
        target: Target,
        ids: Vec<u64>,
        answer: Result<Answers, Failure>,
        began: Instant,
        results: &mut Results,
    ) {
        let count = ids.len() as u64;
        let error = match answer {
            Ok(Answers::Keys(answers)) if answers.len() == ids.len() => {
                self.shared.metrics.requests(Operation::Write, MetricResult::Done, count, began.elapsed());
                let answered = ids.into_iter().zip(answers);
                results.extend(answered.map(|(id, answer)| result(id, write_result(answer))));
                return;
            }
            Ok(other) => status::internal(format!("unexpected answers: {other:?}")),
            Err(failure) => self.shared.failed_write(target.region, failure),
        };
        let metric = match error.outcome() {
            v1::Outcome::InDoubt => MetricResult::InDoubt,
            _ => MetricResult::NotDone,
        };
        self.shared.metrics.requests(Operation::Write, metric, count, began.elapsed());
        results.extend(ids.into_iter().map(|id| refuse(id, error.clone())));
    }

    fn read(&self, target: Target, reads: Vec<Read>, began: Instant, results: &mut Results) {
        // The namespace may have been deleted or have changed its rules while the reads waited.
        let unchanged = self
            .shared
            .catalog
            .load()
            .namespaces()
            .any(|namespace| namespace.region == target.region && namespace.epoch == target.epoch);
        if !unchanged {
            let error = status::not_done(
                v1::Code::EpochMismatch,
                "the namespace was deleted or changed its mode while the read waited".to_owned(),
                "ask again",
            );
            return self.refuse_reads(reads, &error, began, results);
        }
        let count = reads.len() as u64;
        results.extend(reads.into_iter().map(|read| {
            let served = match read.keys {
                Keys::One(key) => self.read_one(target, &key),
                Keys::Many(keys) => read_records(&self.shared, target, keys)
                    .map(|records| WireResult::Records(v1::Records { records })),
            };
            result(read.id, served.unwrap_or_else(error_result))
        }));
        self.shared.metrics.requests(Operation::Read, MetricResult::Done, count, began.elapsed());
    }

    fn read_one(&self, target: Target, key: &[u8]) -> Result<WireResult, v1::Error> {
        let found = found(self.shared.data.get(target.namespace, key).map_err(disk_failed)?)?;
        Ok(WireResult::Found(v1::Found { value: found.value, version: found.version }))
    }

    fn refuse_reads(&self, reads: Vec<Read>, error: &v1::Error, began: Instant, results: &mut Results) {
        let count = reads.len() as u64;
        self.shared.metrics.requests(Operation::Read, MetricResult::NotDone, count, began.elapsed());
        results.extend(reads.into_iter().map(|read| refuse(read.id, error.clone())));
    }

    /// Answers what has taken too long.
    fn sweep(&mut self, out: &mut BTreeMap<(RegionId, Epoch), Results>) {
        let now = Instant::now();
        let late: Vec<u64> = self
            .under_way
            .iter()
            .filter(|(_, under_way)| under_way.deadline <= now)
            .map(|(ticket, _)| *ticket)
            .collect();
        for ticket in late {
            let Some(UnderWay { target, work, began, timeout, .. }) = self.end(ticket) else { continue };
            let results = out.entry((target.region, target.epoch)).or_default();
            match work {
                Work::Writes(ids) => {
                    let error = status::write_timed_out(timeout);
                    let (count, took) = (ids.len() as u64, began.elapsed());
                    self.shared.metrics.requests(Operation::Write, MetricResult::InDoubt, count, took);
                    results.extend(ids.into_iter().map(|id| refuse(id, error.clone())));
                }
                Work::Reads(reads) => {
                    self.refuse_reads(reads, &status::read_timed_out(timeout), began, results);
                }
            }
        }
    }
}

/// A message's operations: the writes as commands with their ids, and the reads. What breaks a limit is refused.
fn sort(message: v1::PipeRequest, refused: &mut Results) -> (Encoded, Vec<u64>, Vec<Read>) {
    let (mut commands, mut writes, mut reads) = (Encoded::default(), Vec::new(), Vec::new());
    for operation in message.operations {
        let id = operation.id;
        let request = (operation.sequence != 0).then_some(RequestId {
            client: message.client,
            sequence: operation.sequence,
            lowest: message.lowest,
        });
        let taken = match operation.operation {
            Some(WireOperation::Get(get)) => {
                limits::key(&get.key).map(|()| reads.push(Read { id, keys: Keys::One(get.key) }))
            }
            Some(WireOperation::BatchGet(get)) => {
                request::check_batch_get(&get).map(|()| reads.push(Read { id, keys: Keys::Many(get.keys) }))
            }
            Some(WireOperation::Put(put)) => {
                request::push_put(&mut commands, &put, request).map(|()| writes.push(id))
            }
            Some(WireOperation::Delete(delete)) => {
                request::push_delete(&mut commands, &delete, request).map(|()| writes.push(id))
            }
            Some(WireOperation::Cas(cas)) => {
                request::push_cas(&mut commands, &cas, request).map(|()| writes.push(id))
            }
            Some(WireOperation::BatchWrite(batch)) => {
                request::push_batch(&mut commands, &batch, request).map(|()| writes.push(id))
            }
            None => Err(status::unsupported(
                "the operation is not known to this node".to_owned(),
                "upgrade the node, or do without",
            )),
        };
        if let Err(error) = taken {
            refused.push(refuse(id, error));
        }
    }
    (commands, writes, reads)
}

fn result(id: u64, result: WireResult) -> v1::PipeResult {
    v1::PipeResult { id, result: Some(result) }
}

fn refuse(id: u64, error: v1::Error) -> v1::PipeResult {
    result(id, error_result(error))
}

//! The pipe: many operations of one connection in each message.
//!
//! A message's writes become one proposal (or a few, where they are many bytes) and its reads share one wait for a
//! ReadIndex round, so the cost of a hand-over is paid per message and not per operation. One task per pipe takes messages in, and what comes back from the raft
//! loop and the applier goes out in as few messages as there is time for. Deadlines are looked at for the message as a
//! whole, a few times a second.
//!
//! A client that does not read its answers is not read from either: the task waits with them, for as long as a request
//! may take. Then the pipe ends and gives back what its answers have taken of the node's memory.

mod eventual;
pub(super) mod fuzzed;
mod reading;

use super::kv;
use super::reads::{Served, Wanted};
use super::request::{self, error_result, write_result};
use super::session::Saw;
use super::{Target, acks, admit_read, answers, limits, status, transaction};
use crate::budget::{Budget, Share};
use crate::eventual::waiting::{self, Terms};
use crate::mailbox::Mailbox;
use crate::metrics::{Operation, Result as MetricResult};
use crate::regions::Rules;
use crate::shared::Shared;
use crate::waiter::{Answers, Released, WriteWaiter};
use eventual::{Acks, Ready};
use parking_lot::Mutex;
use prost::Message as _;
use rdb_core::command::{Encoded, RequestId};
use rdb_core::ids::{Epoch, Era, NamespaceId, RegionId};
use rdb_core::raft::Failure;
use rdb_pd::Mode;
use rdb_proto::v1;
use rdb_proto::v1::pipe_operation::Operation as WireOperation;
use rdb_proto::v1::pipe_result::Result as WireResult;
use reading::{Batch, Keys, LookedUp, Read, ids};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tonic::{Status, Streaming};

/// Operations of one pipe under way, past which it is not read from.
const OPERATIONS_MAX: usize = 65_536;
/// Answers that may wait for the connection.
const RESPONSES_MAX: usize = 4;
/// Parts that are joined into one response.
const PARTS_MAX: usize = 256;
/// Bytes of results that are sent without waiting for more.
const RESPONSE_BYTES: usize = 1 << 20;
/// Bytes of commands after which a message's further writes go into another proposal.
const PROPOSAL_BYTES: usize = 1 << 20;
/// What a waiting read takes besides its key.
const READ_OVERHEAD_BYTES: usize = 64;
/// Under which answers go that belong to no namespace.
const NOWHERE: Target = Target {
    namespace: NamespaceId::META,
    region: RegionId::META,
    epoch: Epoch(0),
    mode: Mode::Strong,
    era: Era(0),
};
/// Between looks for what has taken too long.
const SWEEP_INTERVAL: Duration = Duration::from_millis(50);

/// Serves one pipe, in a task of its own, until either side ends it.
pub(super) fn serve(shared: Shared, incoming: Streaming<v1::PipeRequest>) -> Outgoing {
    let (responses, queue) = mpsc::channel(RESPONSES_MAX);
    let outgoing = Outgoing(Arc::new(Queue { responses: Mutex::new(queue), taken: AtomicU64::new(0) }));
    let (parts, arrived) = mpsc::unbounded_channel();
    let (waiting, shares) = (BTreeMap::new(), Vec::new());
    let queue = outgoing.clone();
    let out = Out { shared: shared.clone(), responses, queue, unread: None, waiting, bytes: 0, shares };
    let (under_way, to_look_up) = (BTreeMap::new(), VecDeque::new());
    let pipe = Pipe { shared, parts, out, under_way, operations: 0, next_ticket: 0, to_look_up, lookups: 0 };
    tokio::spawn(pipe.run(incoming, arrived));
    outgoing
}

/// A response, and what it takes of the node's memory until it leaves.
type Response = (Result<v1::PipeResponse, Status>, Vec<Share>);

/// Responses that wait for the connection. The pipe can take them back, should the client never read them.
#[derive(Clone)]
pub(crate) struct Outgoing(Arc<Queue>);

struct Queue {
    responses: Mutex<mpsc::Receiver<Response>>,
    /// How many the connection has taken.
    taken: AtomicU64,
}

impl Stream for Outgoing {
    type Item = Result<v1::PipeResponse, Status>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.responses.lock().poll_recv(context).map(|next| {
            self.0.taken.fetch_add(1, Ordering::Relaxed);
            next.map(|(response, _)| response)
        })
    }
}

/// What comes back for a ticket.
enum Part {
    /// With the share of the memory that what was found takes.
    Written(u64, Result<Answers, Failure>, Option<Share>),
    Released(u64, Result<(), Failure>),
    /// In eventual mode: the node shows what a session has seen, or the records that a majority has are here.
    Ready(u64, Result<Ready, v1::Error>),
    /// Reads were looked up; with those that are left. `None`: it took too long.
    LookedUp(u64, Option<(LookedUp, Batch)>),
    /// In eventual mode: as many members have the writes as was asked, or are not known to in time.
    Acked(u64, Result<(), v1::Error>),
}

/// Writes of one message that become one proposal: their commands, and their ids in the same order.
#[derive(Default)]
struct Writes {
    commands: Encoded,
    ids: Vec<u64>,
}

enum Work {
    /// The ids of the commands of one proposal, in order, and what it asks for.
    Writes(Vec<u64>, Terms),
    /// Those of writes that are done here, and wait for other members.
    Acks(Acks),
    /// The reads that wait for one round, and their share of the node's memory.
    Reads(Vec<Read>, Share),
    /// The ids of reads that may wait for the disk, and how they are served.
    Lookup(Vec<u64>, Served),
}

/// One proposal, or one wait for a round.
struct UnderWay {
    target: Target,
    work: Work,
    began: Instant,
    deadline: Instant,
    timeout: Duration,
}

/// When something began, and how long it may take.
#[derive(Clone, Copy)]
struct Span {
    began: Instant,
    timeout: Duration,
}

struct Pipe {
    shared: Shared,
    parts: mpsc::UnboundedSender<Part>,
    out: Out,
    under_way: BTreeMap<u64, UnderWay>,
    operations: usize,
    next_ticket: u64,
    /// By their tickets, reads that wait until fewer are looked up.
    to_look_up: VecDeque<(u64, Batch)>,
    lookups: usize,
}

/// The client has gone.
struct Gone;

/// Results on their way to the client: by the header that they go under, until there is a message's worth of them.
struct Out {
    shared: Shared,
    responses: mpsc::Sender<Response>,
    queue: Outgoing,
    /// Since when the connection has taken nothing, and how many it had taken by then.
    unread: Option<(u64, Instant)>,
    waiting: BTreeMap<(RegionId, Rules, Served), Group>,
    bytes: usize,
    /// What the waiting results have taken of the node's memory.
    shares: Vec<Share>,
}

/// Results under one header, and what they show.
#[derive(Default)]
struct Group {
    results: Vec<v1::PipeResult>,
    saw: Saw,
}

impl Out {
    /// What the results under a header show so far.
    fn saw(&mut self, target: Target, served: Served) -> &mut Saw {
        &mut self.waiting.entry((target.region, target.rules(), served)).or_default().saw
    }

    /// Adds one result. Waits for the client once there are many bytes of them.
    async fn add(&mut self, target: Target, result: v1::PipeResult) -> Result<(), Gone> {
        self.add_read(target, Served::NOT_AT_ALL, result).await
    }

    /// The same for a read's result, which goes under a header that says how it was served.
    async fn add_read(&mut self, target: Target, served: Served, result: v1::PipeResult) -> Result<(), Gone> {
        self.bytes += result.encoded_len();
        self.waiting.entry((target.region, target.rules(), served)).or_default().results.push(result);
        if RESPONSE_BYTES <= self.bytes { self.flush().await } else { Ok(()) }
    }

    async fn add_all(
        &mut self,
        target: Target,
        results: impl Iterator<Item = v1::PipeResult>,
    ) -> Result<(), Gone> {
        for result in results {
            self.add(target, result).await?;
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), Gone> {
        self.bytes = 0;
        let mut shares = std::mem::take(&mut self.shares);
        for ((region, rules, served), Group { results, saw }) in std::mem::take(&mut self.waiting) {
            let header = served.mark(self.shared.header(region, rules));
            let header = v1::Header { session: saw.token(), ..header };
            let response = v1::PipeResponse { header: Some(header), results };
            let sent = self.responses.send((Ok(response), std::mem::take(&mut shares)));
            match tokio::time::timeout(self.shared.config.request_timeout(), sent).await {
                Ok(sent) => sent.map_err(|_| Gone)?,
                Err(_) => return Err(self.give_up()),
            }
        }
        Ok(())
    }

    /// The client does not read. What waits for it is thrown away, and it is told why, should it ever look.
    fn give_up(&self) -> Gone {
        let mut queue = self.queue.0.responses.lock();
        while queue.try_recv().is_ok() {}
        let reason = format!(
            "the answers in this pipe were not read for {:?}, the longest that a request may take",
            self.shared.config.request_timeout()
        );
        let _ = self.responses.try_send((Err(Status::resource_exhausted(reason)), Vec::new()));
        Gone
    }

    /// Looks whether the client still reads what waits for it.
    fn look(&mut self) -> Result<(), Gone> {
        let taken = self.queue.0.taken.load(Ordering::Relaxed);
        if self.queue.0.responses.lock().is_empty() {
            self.unread = None;
            return Ok(());
        }
        match self.unread {
            Some((before, since)) if before == taken => {
                let late = self.shared.config.request_timeout() < since.elapsed();
                if late { Err(self.give_up()) } else { Ok(()) }
            }
            _ => {
                self.unread = Some((taken, Instant::now()));
                Ok(())
            }
        }
    }
}

impl Pipe {
    async fn run(mut self, incoming: Streaming<v1::PipeRequest>, arrived: mpsc::UnboundedReceiver<Part>) {
        if let Err(Ended::Badly(status)) = self.work(incoming, arrived).await {
            let sent = self.out.responses.send((Err(status), Vec::new()));
            let _ = tokio::time::timeout(self.shared.config.request_timeout(), sent).await;
        }
    }

    async fn work(
        &mut self,
        mut incoming: Streaming<v1::PipeRequest>,
        mut arrived: mpsc::UnboundedReceiver<Part>,
    ) -> Result<(), Ended> {
        let mut sweep = tokio::time::interval(SWEEP_INTERVAL);
        let mut parts = Vec::with_capacity(PARTS_MAX);
        let mut ended = false;
        while !ended || !self.under_way.is_empty() {
            tokio::select! {
                biased;
                _ = arrived.recv_many(&mut parts, PARTS_MAX) => {
                    for part in parts.drain(..) {
                        self.finish(part).await?;
                    }
                }
                message = incoming.message(), if !ended && self.operations < OPERATIONS_MAX => {
                    match message? {
                        Some(message) => self.take(message).await?,
                        None => ended = true,
                    }
                }
                _ = sweep.tick() => self.sweep().await?,
            }
            self.out.flush().await?;
        }
        Ok(())
    }

    /// Starts what a message asks for. What is refused at once is answered at once.
    async fn take(&mut self, message: v1::PipeRequest) -> Result<(), Gone> {
        let longest = self.shared.config.request_timeout();
        let asked = Duration::from_millis(u64::from(message.timeout_ms));
        let timeout = if asked.is_zero() { longest } else { asked.min(longest) };
        let wanted = limits::pipe(message.operations.len())
            .and_then(|()| Wanted::new(message.consistency, message.max_age_ms, message.session.clone()));
        let checked = match wanted {
            Ok(wanted) => {
                let target = self.shared.target(&message.namespace, message.epoch).await;
                target.map(|target| (target, wanted))
            }
            Err(error) => Err(error),
        };
        let (target, wanted) = match checked {
            Ok(checked) => checked,
            Err(error) => {
                let ids = message.operations.iter().map(|operation| operation.id);
                let refused = ids.map(|id| refuse(id, error.clone()));
                return self.out.add_all(NOWHERE, refused).await;
            }
        };
        let budget = self.shared.regions.budget(target.region);
        let room = self.shared.check_disk(target.region, true);
        let terms = acks::terms(message.acks, message.seen.as_ref(), target);
        let Sorted { writes, reads, refused } = sort(message, target, terms.as_ref(), &room);
        self.out.add_all(target, refused.into_iter()).await?;
        if let Ok(terms) = terms {
            for writes in writes {
                self.propose(target, &budget, writes, terms, timeout).await?;
            }
        }
        if !reads.is_empty() && target.mode == Mode::Eventual {
            return self.read_eventual(target, &budget, &wanted, reads, timeout).await;
        }
        if !reads.is_empty() {
            match self.shared.serve_now(target, &wanted) {
                Ok(None) => {}
                Ok(Some(served)) => {
                    let span = Span { began: Instant::now(), timeout };
                    return self.read(target, served, reads, None, span).await;
                }
                Err(error) => return self.refuse_reads(target, ids(&reads), &error, Instant::now()).await,
            }
        }
        self.await_round(target, &budget, reads, timeout).await
    }

    async fn propose(
        &mut self,
        target: Target,
        budget: &Budget,
        writes: Writes,
        terms: Terms,
        timeout: Duration,
    ) -> Result<(), Gone> {
        let Writes { commands, ids } = writes;
        let share = match self.shared.admit(target.region, budget, &commands) {
            Ok(share) => share,
            Err(error) => {
                let refused = ids.into_iter().map(|id| refuse(id, error.clone()));
                return self.out.add_all(target, refused).await;
            }
        };
        let ticket = self.start(target, ids.len(), Work::Writes(ids, terms), timeout);
        let (parts, budget) = (self.parts.clone(), budget.clone());
        // The share goes with the write, wherever it is, and not with this pipe: a client that does not read its answers
        // must not keep what they no longer need.
        let waiter = WriteWaiter::new(move |mut answer| {
            drop(share);
            let held = answers::hold(&mut answer, &budget);
            // A pipe that has ended needs no answers.
            drop(parts.send(Part::Written(ticket, answer, held)));
        });
        self.shared.post_write(target.region, commands, waiter.with_terms(terms), Mailbox::post_here);
        Ok(())
    }

    async fn await_round(
        &mut self,
        target: Target,
        budget: &Budget,
        reads: Vec<Read>,
        timeout: Duration,
    ) -> Result<(), Gone> {
        if reads.is_empty() {
            return Ok(());
        }
        let share = match admit_read(budget, reads.iter().map(Read::bytes).sum()) {
            Ok(share) => share,
            Err(error) => {
                let refused = reads.into_iter().map(|read| refuse(read.id, error.clone()));
                return self.out.add_all(target, refused).await;
            }
        };
        let ticket = self.start(target, reads.len(), Work::Reads(reads, share), timeout);
        let parts = self.parts.clone();
        let answered = move |answer: Result<Released, Failure>| {
            drop(parts.send(Part::Released(ticket, answer.map(|_| ()))));
        };
        self.shared.post_read(target.region, answered, Mailbox::post_here);
        Ok(())
    }

    fn start(&mut self, target: Target, operations: usize, work: Work, timeout: Duration) -> u64 {
        let began = Instant::now();
        self.enter(operations, UnderWay { target, work, began, deadline: began + timeout, timeout })
    }

    fn enter(&mut self, operations: usize, under_way: UnderWay) -> u64 {
        self.next_ticket += 1;
        self.operations += operations;
        self.under_way.insert(self.next_ticket, under_way);
        self.next_ticket
    }

    fn end(&mut self, ticket: u64) -> Option<UnderWay> {
        let ended = self.under_way.remove(&ticket)?;
        self.operations -= match &ended.work {
            Work::Writes(ids, _) => ids.len(),
            Work::Acks(acks) => acks.ids.len(),
            Work::Reads(reads, _) => reads.len(),
            Work::Lookup(ids, _) => ids.len(),
        };
        Some(ended)
    }

    /// Turns a part into results. One whose ticket is gone has timed out, and its operations have their answers.
    async fn finish(&mut self, part: Part) -> Result<(), Gone> {
        let ticket = match part {
            // Some of them may be left: then the ticket is not at its end.
            Part::LookedUp(ticket, looked_up) => return self.looked_up(ticket, looked_up).await,
            Part::Written(ticket, ..)
            | Part::Released(ticket, _)
            | Part::Ready(ticket, _)
            | Part::Acked(ticket, _) => ticket,
        };
        let Some(under_way) = self.end(ticket) else { return Ok(()) };
        let UnderWay { target, work, began, deadline, timeout } = under_way;
        match (part, work) {
            (Part::Written(_, Ok(Answers::Eventual(answers, last)), _), Work::Writes(ids, terms)) => {
                self.written_here(target, Acks { ids, answers, last }, terms.acks, (began, deadline)).await
            }
            (
                Part::Written(_, Ok(Answers::Keys(answers)), _),
                Work::Writes(ids, Terms { acks: waiting::Acks::All, .. }),
            ) => self.written_strong(target, ids, answers, began).await,
            (Part::Written(_, answer, held), Work::Writes(ids, _)) => {
                self.out.shares.extend(held);
                self.written(target, ids, answer, began).await
            }
            (Part::Acked(_, outcome), Work::Acks(acks)) => self.acked(target, acks, outcome, began).await,
            (Part::Ready(_, ready), Work::Reads(reads, share)) => {
                drop(share);
                self.read_ready(target, ready, reads, Span { began, timeout }).await
            }
            (Part::Released(_, Ok(())), Work::Reads(reads, share)) => {
                // Those that are looked up take it anew, and must find it.
                drop(share);
                let span = Span { began, timeout };
                self.read(target, Served::LINEARIZABLE, reads, None, span).await
            }
            (Part::Released(_, Err(failure)), Work::Reads(reads, _)) => {
                let error = self.shared.failed_read(target.region, failure);
                self.refuse_reads(target, ids(&reads), &error, began).await
            }
            _ => unreachable!("a ticket is for one kind of work"),
        }
    }

    async fn written(
        &mut self,
        target: Target,
        ids: Vec<u64>,
        answer: Result<Answers, Failure>,
        began: Instant,
    ) -> Result<(), Gone> {
        let count = ids.len() as u64;
        let error = match answer {
            Ok(Answers::Keys(answers)) if answers.len() == ids.len() => {
                self.shared.metrics.requests(Operation::Write, MetricResult::Done, count, began.elapsed());
                let answered = ids.into_iter().zip(answers);
                let results = answered.map(|(id, answer)| result(id, write_result(answer)));
                return self.out.add_all(target, results).await;
            }
            Ok(Answers::Unmet(unmet)) => status::unmet(unmet, self.shared.config.node_id),
            Ok(other) => status::internal(format!("unexpected answers: {other:?}")),
            Err(failure) => self.shared.failed_write(target.region, failure),
        };
        self.refuse_writes(target, ids, &error, began).await
    }

    async fn refuse_reads(
        &mut self,
        target: Target,
        ids: Vec<u64>,
        error: &v1::Error,
        began: Instant,
    ) -> Result<(), Gone> {
        let count = ids.len() as u64;
        self.shared.metrics.requests(Operation::Read, MetricResult::NotDone, count, began.elapsed());
        self.out.add_all(target, ids.into_iter().map(|id| refuse(id, error.clone()))).await
    }

    async fn refuse_writes(
        &mut self,
        target: Target,
        ids: Vec<u64>,
        error: &v1::Error,
        began: Instant,
    ) -> Result<(), Gone> {
        let (metric, count) = (MetricResult::of(error), ids.len() as u64);
        self.shared.metrics.requests(Operation::Write, metric, count, began.elapsed());
        self.out.add_all(target, ids.into_iter().map(|id| refuse(id, error.clone()))).await
    }

    /// Answers what has taken too long.
    async fn sweep(&mut self) -> Result<(), Gone> {
        self.out.look()?;
        let now = Instant::now();
        let late: BTreeSet<u64> = self
            .under_way
            .iter()
            .filter(|(_, under_way)| under_way.deadline <= now)
            .map(|(ticket, _)| *ticket)
            .collect();
        if !late.is_empty() {
            self.to_look_up.retain(|(ticket, _)| !late.contains(ticket));
        }
        for ticket in late {
            let Some(UnderWay { target, work, began, timeout, .. }) = self.end(ticket) else { continue };
            match work {
                Work::Acks(acks) => self.acked_late(target, acks, began).await?,
                Work::Writes(ids, _) => {
                    self.refuse_writes(target, ids, &status::write_timed_out(timeout), began).await?;
                }
                Work::Reads(reads, _) => {
                    let error = status::read_timed_out(timeout);
                    self.refuse_reads(target, ids(&reads), &error, began).await?;
                }
                Work::Lookup(ids, _) => {
                    self.refuse_reads(target, ids, &status::read_timed_out(timeout), began).await?;
                }
            }
        }
        Ok(())
    }
}

/// Why a pipe ended before it was through.
enum Ended {
    /// There is nobody left to tell.
    Quietly,
    /// The client broke the connection's rules.
    Badly(Status),
}

impl From<Gone> for Ended {
    fn from(_: Gone) -> Self {
        Ended::Quietly
    }
}

impl From<Status> for Ended {
    fn from(status: Status) -> Self {
        Ended::Badly(status)
    }
}

/// A message's operations by what is to be done with them.
#[derive(Default)]
struct Sorted {
    /// Cut into proposals, each about as large as an entry: a longer one would make everyone behind it wait.
    writes: Vec<Writes>,
    reads: Vec<Read>,
    /// Those that break a limit.
    refused: Vec<v1::PipeResult>,
}

impl Sorted {
    /// The proposal that the next command joins.
    fn writes(&mut self) -> &mut Writes {
        let full = self.writes.last().is_none_or(|last| PROPOSAL_BYTES <= last.commands.bytes.len());
        if full {
            self.writes.push(Writes::default());
        }
        let last = self.writes.len() - 1;
        &mut self.writes[last]
    }
}

/// Writes on terms that cannot be kept are refused, removals among them; a disk without `room` refuses what stores something.
fn sort(
    message: v1::PipeRequest,
    target: Target,
    terms: Result<&Terms, &v1::Error>,
    room: &Result<(), v1::Error>,
) -> Sorted {
    let mut sorted = Sorted::default();
    for operation in message.operations {
        let id = operation.id;
        let request = (operation.sequence != 0).then_some(RequestId {
            client: message.client,
            sequence: operation.sequence,
            lowest: message.lowest,
        });
        let taken = match operation.operation {
            Some(WireOperation::Get(get)) => limits::key(&get.key).map(|()| {
                sorted.reads.push(Read { id, keys: Keys::One(get.key) });
            }),
            Some(WireOperation::BatchGet(get)) => request::check_batch_get(&get).map(|()| {
                sorted.reads.push(Read { id, keys: Keys::Many(get.keys) });
            }),
            Some(write) => strong_only(&write)
                .map_or(Ok(()), |what| target.check_mode(what))
                .and_then(|()| target.check_names(request.is_some()))
                .and_then(|()| terms.map(drop).map_err(Clone::clone))
                .and_then(|()| match room {
                    Ok(()) => push_write(sorted.writes(), id, &write, request),
                    Err(full) => push_removal(sorted.writes(), id, &write, request, full),
                }),
            None => Err(status::unsupported(
                "the operation is not known to this node".to_owned(),
                "upgrade the node, or do without",
            )),
        };
        if let Err(error) = taken {
            sorted.refused.push(refuse(id, error));
        }
    }
    sorted.writes.retain(|writes| !writes.ids.is_empty());
    sorted
}

/// What makes an operation one of strong mode, if it is.
fn strong_only(operation: &WireOperation) -> Option<(&'static str, &'static str)> {
    match operation {
        WireOperation::Cas(_) => Some(kv::CAS),
        WireOperation::Transaction(_) => Some(kv::TRANSACTION),
        WireOperation::DeleteRange(_) => Some(kv::DELETE_RANGE),
        _ => None,
    }
}

fn push_write(
    writes: &mut Writes,
    id: u64,
    operation: &WireOperation,
    request: Option<RequestId>,
) -> Result<(), v1::Error> {
    let out = &mut writes.commands;
    match operation {
        WireOperation::Put(put) => request::push_put(out, put, request)?,
        WireOperation::Delete(delete) => request::push_delete(out, delete, request)?,
        WireOperation::Cas(cas) => request::push_cas(out, cas, request)?,
        WireOperation::BatchWrite(batch) => request::push_batch(out, batch, request)?,
        WireOperation::Transaction(wire) => transaction::push_transaction(out, wire, request)?,
        WireOperation::DeleteRange(range) => transaction::push_delete_range(out, range, request)?,
        WireOperation::Get(_) | WireOperation::BatchGet(_) => unreachable!("reads are sorted out before"),
    }
    writes.ids.push(id);
    Ok(())
}

/// On a full disk: a write that only removes joins others of its kind. One that stores something would have all of them
/// refused.
fn push_removal(
    writes: &mut Writes,
    id: u64,
    operation: &WireOperation,
    request: Option<RequestId>,
    full: &v1::Error,
) -> Result<(), v1::Error> {
    let mut alone = Writes::default();
    push_write(&mut alone, id, operation, request)?;
    if alone.commands.stores {
        return Err(full.clone());
    }
    writes.commands.append(&alone.commands);
    writes.ids.push(id);
    Ok(())
}

fn result(id: u64, result: WireResult) -> v1::PipeResult {
    v1::PipeResult { id, result: Some(result) }
}

fn refuse(id: u64, error: v1::Error) -> v1::PipeResult {
    result(id, error_result(error))
}

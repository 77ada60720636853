//! The task that owns one stream: gathers what waits into messages, and gives each answer to its caller.

use super::in_flight::{InFlight, Pending};
use super::{Answer, Call, Lane, MESSAGE_BYTES_MAX, OPERATION_BYTES_MAX};
use crate::nodes::Address;
use crate::options::Options;
use crate::seen::{self, Manner};
use crate::session::Session;
use crate::status::{Failed, describe};
use crate::values::{Served, Version};
use rdb_proto::v1::pipe_result::Result as PipeResult;
use rdb_proto::v1::{self, Code, Outcome, PipeOperation, PipeRequest, PipeResponse};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};
use tonic::Streaming;

/// How late a caller may learn that its time is over. One look at all that waits costs less than a timer for each.
const DEADLINE_CHECK: Duration = Duration::from_millis(20);

pub(super) struct Task {
    address: Address,
    namespace: String,
    operations_max: usize,
    reads: LaneQueue,
    writes: LaneQueue,
    in_flight: InFlight,
    requests: mpsc::Sender<PipeRequest>,
    responses: Streaming<PipeResponse>,
    /// The leader that the node named last, if it is another node.
    leader: Option<Address>,
}

/// What waits in one lane, and how many messages it has on their way.
struct LaneQueue {
    lane: Lane,
    queue: mpsc::Receiver<Call>,
    /// Empty but for a moment; keeps its memory.
    gathered: Vec<Call>,
    /// Taken from the queue, and not yet sent because the messages were full.
    staged: VecDeque<Call>,
    /// Per message on its way, its operations that are not answered; 0: the place is free.
    slots: Vec<usize>,
    /// All senders are gone.
    finished: bool,
}

impl LaneQueue {
    fn new(lane: Lane, queue: mpsc::Receiver<Call>, options: &Options) -> Self {
        let slots = vec![0; options.messages_in_flight.max(1)];
        Self { lane, queue, gathered: Vec::new(), staged: VecDeque::new(), slots, finished: false }
    }

    fn free_slot(&self) -> Option<usize> {
        self.slots.iter().position(|waiting| *waiting == 0)
    }

    fn wants_more(&self) -> bool {
        !self.finished && self.staged.is_empty() && self.free_slot().is_some()
    }

    /// Waits for calls, and takes what there is.
    async fn take_waiting(&mut self, operations_max: usize) {
        let count = self.queue.recv_many(&mut self.gathered, operations_max).await;
        self.finished = count == 0;
        self.staged.extend(self.gathered.drain(..));
    }
}

impl Task {
    pub(super) fn new(
        address: Address,
        namespace: &str,
        options: &Options,
        (reads, writes): (mpsc::Receiver<Call>, mpsc::Receiver<Call>),
        requests: mpsc::Sender<PipeRequest>,
        responses: Streaming<PipeResponse>,
    ) -> Self {
        Self {
            address,
            namespace: namespace.to_string(),
            operations_max: options.operations_per_message.max(1),
            reads: LaneQueue::new(Lane::Reads, reads, options),
            writes: LaneQueue::new(Lane::Writes, writes, options),
            in_flight: InFlight::default(),
            requests,
            responses,
            leader: None,
        }
    }

    pub(super) async fn run(mut self) {
        let reason = self.serve().await;
        self.close(&reason).await;
    }

    /// Serves until the stream breaks, or nobody can call any more. Says which.
    async fn serve(&mut self) -> String {
        let mut check = tokio::time::interval(DEADLINE_CHECK);
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let waiting = !self.in_flight.is_empty();
            if self.reads.finished && self.writes.finished && !waiting {
                return "nobody uses it any more".into();
            }
            tokio::select! {
                biased;
                response = self.responses.message() => match response {
                    Ok(Some(response)) => self.complete(response),
                    Ok(None) => return "closed by the node".into(),
                    Err(status) => return describe(&status),
                },
                () = self.writes.take_waiting(self.operations_max), if self.writes.wants_more() => {}
                () = self.reads.take_waiting(self.operations_max), if self.reads.wants_more() => {}
                _ = check.tick(), if waiting => self.expire(),
            }
            if !self.send_staged(Lane::Writes) || !self.send_staged(Lane::Reads) {
                return "closed by the node".into();
            }
        }
    }

    /// Sends what is staged, in as many messages as may be on their way. False: the stream is gone.
    fn send_staged(&mut self, lane: Lane) -> bool {
        let now = Instant::now();
        while !self.lane(lane).staged.is_empty() {
            let Some(slot) = self.lane(lane).free_slot() else { break };
            let request = self.gather(lane, slot, now);
            if request.operations.is_empty() {
                break;
            }
            if self.requests.try_send(request).is_err() {
                return false;
            }
        }
        true
    }

    /// Makes one message of what is staged, up to its limits, and enters its operations as on their way.
    fn gather(&mut self, lane: Lane, slot: usize, now: Instant) -> PipeRequest {
        let mut operations = Vec::with_capacity(self.lane(lane).staged.len().min(self.operations_max));
        let mut bytes = 0;
        let mut latest = now;
        let mut session: Option<Arc<Session>> = None;
        let mut manner: Option<Manner> = None;
        while operations.len() < self.operations_max {
            let Some(call) = self.lane(lane).staged.pop_front() else { break };
            if call.reply.is_closed() {
                continue;
            }
            if call.deadline <= now {
                self.answer(call, |address| Failed::Deadline { address, sent: false });
                continue;
            }
            let size = call.operation.encoded_len();
            if OPERATION_BYTES_MAX < size {
                self.answer(call, |address| too_large(address, size));
                continue;
            }
            let other_manner = manner.as_ref().is_some_and(|chosen| !chosen.fits(&call.manner));
            let other_session =
                session.as_ref().map(Arc::as_ptr) != call.name.as_ref().map(|n| Arc::as_ptr(&n.0));
            if !operations.is_empty() && (MESSAGE_BYTES_MAX < bytes + size || other_session || other_manner) {
                self.lane(lane).staged.push_front(call);
                break;
            }
            bytes += size;
            latest = latest.max(call.deadline);
            let (of_session, sequence) = call.name.unzip();
            session = of_session;
            let seen = call.manner.seen.clone();
            manner.get_or_insert(call.manner);
            let pending = Pending { reply: call.reply, deadline: call.deadline, lane, slot, seen };
            let id = self.in_flight.insert(pending);
            let sequence = sequence.unwrap_or(0);
            operations.push(PipeOperation { id, sequence, operation: Some(call.operation) });
        }
        self.lane(lane).slots[slot] = operations.len();
        let session = session.as_deref();
        let consistency = manner.as_ref().map(|manner| manner.consistency).unwrap_or_default();
        let (consistency, max_age_ms) = consistency.to_wire();
        let (reads, writes) = match lane {
            Lane::Reads => (manner.as_ref(), None),
            Lane::Writes => (None, manner.as_ref()),
        };
        let remaining = latest - now;
        let remaining = reads.map_or(remaining, |manner| manner.patience(remaining));
        PipeRequest {
            namespace: self.namespace.clone(),
            epoch: session.map_or(0, |session| session.epoch),
            // The longest of them: a shorter one's caller is told here.
            timeout_ms: u32::try_from(remaining.as_millis()).unwrap_or(u32::MAX).max(1),
            client: session.map_or(0, |session| session.client),
            lowest: session.map_or(0, Session::lowest),
            operations,
            consistency: consistency.into(),
            max_age_ms,
            session: reads.map(Manner::token).unwrap_or_default(),
            acks: writes.map_or(v1::Acks::Unspecified, |manner| manner.acks.into()).into(),
            seen: writes.and_then(|manner| manner.seen.highest()),
        }
    }

    fn complete(&mut self, response: PipeResponse) {
        let epoch = self.read_header(response.header.as_ref());
        let served = response.header.as_ref().map(Served::from).unwrap_or_default();
        // Of eventual mode.
        let shown = response.header.as_ref().and_then(|header| seen::read(&header.session));
        for result in response.results {
            let Some(pending) = self.in_flight.remove(result.id) else { continue };
            if let Some(shown) = &shown {
                pending.seen.saw(shown, result.result.as_ref().and_then(version));
            }
            self.lane(pending.lane).slots[pending.slot] -= 1;
            let answer = match result.result {
                Some(PipeResult::NotDone(mut error)) => {
                    error.outcome = Outcome::NotDone.into();
                    Err(Failed::Answered(self.address.clone(), Box::new(error)))
                }
                Some(PipeResult::InDoubt(mut error)) => {
                    error.outcome = Outcome::InDoubt.into();
                    Err(Failed::Answered(self.address.clone(), Box::new(error)))
                }
                Some(PipeResult::DoneHere(mut error)) => {
                    error.outcome = Outcome::DoneHere.into();
                    Err(Failed::Answered(self.address.clone(), Box::new(error)))
                }
                Some(result) => Ok(Answer { result, epoch, served, leader: self.leader.clone() }),
                None => Err(Failed::Lost(self.address.clone(), "an answer of an unknown kind".into())),
            };
            // A caller who is gone needs no answer.
            let _ = pending.reply.send(answer);
        }
    }

    /// Returns the epoch, and remembers who leads if it is not the node that answers.
    fn read_header(&mut self, header: Option<&v1::Header>) -> u64 {
        let Some(header) = header else { return 0 };
        if header.leader == header.node || header.leader_address.is_empty() {
            self.leader = None;
        } else if self.leader.as_deref() != Some(header.leader_address.as_str()) {
            self.leader = Some(header.leader_address.as_str().into());
        }
        header.epoch
    }

    /// Answers those whose time is over, on their way or still waiting.
    fn expire(&mut self) {
        let now = Instant::now();
        for pending in self.in_flight.take_expired(now) {
            self.lane(pending.lane).slots[pending.slot] -= 1;
            let _ = pending.reply.send(Err(Failed::Deadline { address: self.address.clone(), sent: true }));
        }
        for lane in [Lane::Reads, Lane::Writes] {
            self.expire_waiting(lane, now);
        }
    }

    /// While all messages are on their way nobody takes from the queue; a short deadline there must not be missed.
    fn expire_waiting(&mut self, lane: Lane, now: Instant) {
        let lane = self.lane(lane);
        let staged_max = lane.queue.max_capacity();
        while lane.staged.len() < staged_max
            && let Ok(call) = lane.queue.try_recv()
        {
            lane.staged.push_back(call);
        }
        let mut kept = VecDeque::with_capacity(lane.staged.len());
        let mut expired = Vec::new();
        for call in lane.staged.drain(..) {
            if call.deadline <= now { expired.push(call) } else { kept.push_back(call) }
        }
        lane.staged = kept;
        for call in expired {
            self.answer(call, |address| Failed::Deadline { address, sent: false });
        }
    }

    /// The stream is gone: what was sent is lost, what was not can go elsewhere.
    async fn close(&mut self, reason: &str) {
        for pending in self.in_flight.take_all() {
            let _ = pending.reply.send(Err(Failed::Lost(self.address.clone(), reason.to_string())));
        }
        for lane in [Lane::Reads, Lane::Writes] {
            // From here on callers are told that it is closed; those who came before are in the queue, or have their
            // place in it and are about to take it.
            self.lane(lane).queue.close();
            let mut waiting = std::mem::take(&mut self.lane(lane).staged);
            while let Some(call) = self.lane(lane).queue.recv().await {
                waiting.push_back(call);
            }
            for call in waiting {
                self.answer(call, |address| Failed::NotSent(address, reason.to_string()));
            }
        }
    }

    fn answer(&self, call: Call, failed: impl FnOnce(Address) -> Failed) {
        let _ = call.reply.send(Err(failed(self.address.clone())));
    }

    fn lane(&mut self, lane: Lane) -> &mut LaneQueue {
        let queue = match lane {
            Lane::Reads => &mut self.reads,
            Lane::Writes => &mut self.writes,
        };
        debug_assert_eq!(queue.lane, lane);
        queue
    }
}

/// The highest version in an answer.
pub(crate) fn version(result: &PipeResult) -> Option<Version> {
    let highest = match result {
        PipeResult::Found(found) => found.version.or(found.deleted),
        PipeResult::Done(done) => done.version,
        PipeResult::DoneHere(error) => error.done_here.as_ref().and_then(|done| done.version),
        PipeResult::Records(records) => {
            return records.records.iter().filter_map(|record| record.version.map(Version::from)).max();
        }
        _ => None,
    };
    highest.map(Version::from)
}

fn too_large(address: Address, size: usize) -> Failed {
    let error = v1::Error {
        code: Code::InvalidArgument.into(),
        outcome: Outcome::NotDone.into(),
        message: format!("the operation has {size} bytes, at most {OPERATION_BYTES_MAX} can be sent"),
        hint: "split it into smaller ones".into(),
        ..v1::Error::default()
    };
    Failed::Answered(address, Box::new(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Else a write after it, at a node whose clock is behind, could lose to the deletion.
    #[test]
    fn a_deletion_that_was_read_was_seen() {
        let of = |hlc| v1::Version { era: 1, hlc, node: 2 };
        let found =
            |shown, deleted| version(&PipeResult::Found(v1::Found { value: None, version: shown, deleted }));
        assert_eq!(found(Some(of(7)), None), Some(of(7).into()));
        assert_eq!(found(None, Some(of(8))), Some(of(8).into()));
        assert_eq!(found(None, None), None);
    }
}

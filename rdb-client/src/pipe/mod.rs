//! The pipe: many operations per message, to one node, for one namespace.
//!
//! Reads and writes have a lane each. A message counts as on its way until its slowest operation is answered; in one lane
//! a read would wait for the disk writes that its message or the ones before it carry.
//!
//! Performance-critical: what happens here per operation is a push into a queue, an entry in a table, and one wake-up.
//! No timer, no task, no lock and no string per operation.

mod in_flight;
mod task;

use crate::nodes::{Address, Nodes};
use crate::seen::Manner;
use crate::session::Session;
use crate::status::Failed;
use crate::values::Served;
use rdb_proto::v1::kv_client::KvClient;
use rdb_proto::v1::pipe_operation::Operation;
use rdb_proto::v1::pipe_result::Result as PipeResult;
use std::sync::Arc;
use task::Task;
pub(crate) use task::version;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};
use tokio_stream::wrappers::ReceiverStream;

/// What one message may carry: far below what servers accept, far above what a turn gathers of small operations.
/// An operation that is larger alone travels alone.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// An operation larger than this is refused here: the server would break the stream, and with it everybody's operations.
const OPERATION_BYTES_MAX: usize = 6 << 20;
/// Answers may be large: a batch of reads brings up to a thousand values.
pub(crate) const ANSWER_BYTES_MAX: usize = 256 << 20;

/// An operation that succeeded.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) result: PipeResult,
    pub(crate) epoch: u64,
    pub(crate) served: Served,
    /// The node that leads, where the one that answered is another.
    pub(crate) leader: Option<Address>,
}

pub(crate) type Reply = oneshot::Sender<Result<Answer, Failed>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    Reads,
    Writes,
}

/// A write's session, and its sequence there.
pub(crate) type Name = (Arc<Session>, u64);

/// An operation on its way to the pipe's task.
pub(crate) struct Call {
    operation: Operation,
    /// Of a write under a session.
    name: Option<Name>,
    manner: Manner,
    deadline: Instant,
    reply: Reply,
}

/// Hands operations to the task that owns the stream. The task ends when the stream does, or when the last handle is
/// gone and everything is answered.
pub(crate) struct Pipe {
    address: Address,
    reads: mpsc::Sender<Call>,
    writes: mpsc::Sender<Call>,
}

impl Pipe {
    pub(crate) async fn open(nodes: &Nodes, address: Address, namespace: &str) -> Result<Self, Failed> {
        let options = nodes.options();
        let Some((channel, place)) = nodes.channel_for_pipe(&address) else {
            return Err(Failed::NotSent(address, "unknown node".into()));
        };
        // Each lane's messages on their way have a place, so sending never waits.
        let (requests, to_send) = mpsc::channel(2 * options.messages_in_flight.max(1));
        let mut client = KvClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
        let opening = client.pipe(ReceiverStream::new(to_send));
        // Once to connect, once for the first answer.
        let limit = Instant::now() + 2 * options.connect_timeout;
        let responses = match timeout_at(limit, opening).await {
            Ok(Ok(response)) => response.into_inner(),
            Ok(Err(status)) => {
                return Err(match Failed::from_status(&address, &status) {
                    // No operation was on the stream yet.
                    Failed::Lost(address, reason) => Failed::NotSent(address, reason),
                    Failed::Deadline { address, .. } => Failed::NotSent(address, "timed out".into()),
                    failed => failed,
                });
            }
            Err(_) => return Err(Failed::NotSent(address, "timed out".into())),
        };
        let (reads, reads_waiting) = mpsc::channel(options.operations_waiting.max(1));
        let (writes, writes_waiting) = mpsc::channel(options.operations_waiting.max(1));
        let queues = (reads_waiting, writes_waiting);
        let task = Task::new(address.clone(), namespace, options, queues, requests, responses);
        tokio::spawn(async move {
            task.run().await;
            drop(place);
        });
        Ok(Self { address, reads, writes })
    }

    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.reads.is_closed()
    }

    /// Puts the operation into its lane; the receiver has its answer in time, whatever happens.
    pub(crate) async fn call(
        self: Arc<Self>,
        lane: Lane,
        (operation, manner): (Operation, Manner),
        name: Option<Name>,
        deadline: Instant,
    ) -> Result<Answer, Failed> {
        let (reply, answer) = oneshot::channel();
        let call = Call { operation, name, manner, deadline, reply };
        let queue = match lane {
            Lane::Reads => &self.reads,
            Lane::Writes => &self.writes,
        };
        match queue.try_send(call) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(call)) => {
                match timeout_at(deadline, queue.send(call)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => return Err(self.not_sent()),
                    Err(_) => return Err(Failed::Deadline { address: self.address.clone(), sent: false }),
                }
            }
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(self.not_sent()),
        }
        let address = self.address.clone();
        // A pipe that nobody else holds any more may end when this is answered.
        drop(self);
        match answer.await {
            Ok(result) => result,
            // The task answers all that it holds, unless its runtime is gone.
            Err(_) => Err(Failed::Lost(address, "the client's runtime stopped".into())),
        }
    }

    fn not_sent(&self) -> Failed {
        Failed::NotSent(self.address.clone(), "the connection was closed".into())
    }
}

//! What gRPC carries between two threads of this process: the calls and messages of FlareDB's own service, answered by a server
//! that does nothing.

use super::{DURATION, KEY_BYTES, VALUE_BYTES, rate};
use anyhow::{Context as _, Error, Result};
use bytes::Bytes;
use rdb_proto::v1;
use rdb_proto::v1::kv_client::KvClient;
use rdb_proto::v1::kv_server::{Kv, KvServer};
use rdb_proto::v1::pipe_operation::Operation;
use rdb_proto::v1::pipe_result::Result as Answer;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Server};
use tonic::{Request, Response, Status, Streaming};

const CALLERS: usize = 64;
const OPERATIONS: u64 = 64;
/// Messages under way at a time.
const MESSAGES: usize = 16;

pub(super) struct Calls {
    pub(super) calls_per_second: f64,
    pub(super) streamed_per_second: f64,
}

pub(super) fn measure() -> Result<Calls> {
    let serving = runtime()?;
    let incoming =
        serving.block_on(async { TcpIncoming::bind("127.0.0.1:0".parse()?).map_err(Error::msg) })?;
    let incoming = incoming.with_nodelay(Some(true));
    let address = incoming.local_addr()?;
    serving.spawn(Server::builder().add_service(KvServer::new(Idle)).serve_with_incoming(incoming));
    let calling = runtime()?;
    let channel = calling.block_on(connect(address))?;
    Ok(Calls {
        calls_per_second: calling.block_on(call(&channel))?,
        streamed_per_second: calling.block_on(stream(&channel))?,
    })
}

/// One thread of its own, as a node's connections and the load have.
fn runtime() -> Result<Runtime> {
    Ok(Builder::new_multi_thread().worker_threads(1).enable_all().build()?)
}

async fn connect(address: SocketAddr) -> Result<Channel> {
    Ok(Channel::from_shared(format!("http://{address}"))?.connect().await?)
}

fn put() -> v1::Put {
    v1::Put { key: Bytes::from_static(&[b'k'; KEY_BYTES]), value: Bytes::from_static(&[7; VALUE_BYTES]) }
}

async fn call(channel: &Channel) -> Result<f64> {
    let (began, count) = (Instant::now(), Arc::new(AtomicU64::new(0)));
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let (mut client, count) = (KvClient::new(channel.clone()), count.clone());
        callers.spawn(async move {
            while began.elapsed() < DURATION {
                client.put(v1::PutRequest { put: Some(put()), ..v1::PutRequest::default() }).await?;
                count.fetch_add(1, Ordering::Relaxed);
            }
            Ok::<_, Status>(())
        });
    }
    while let Some(ended) = callers.join_next().await {
        ended??;
    }
    Ok(rate(count.load(Ordering::Relaxed), began.elapsed()))
}

async fn stream(channel: &Channel) -> Result<f64> {
    let (sender, receiver) = mpsc::channel(MESSAGES);
    let answers = KvClient::new(channel.clone()).pipe(ReceiverStream::new(receiver)).await;
    let mut answers = answers?.into_inner();
    let (began, mut count) = (Instant::now(), 0);
    for _ in 0..MESSAGES {
        sender.send(message()).await?;
    }
    while began.elapsed() < DURATION {
        let answer = answers.next().await.context("the pipe has ended")??;
        count += answer.results.len() as u64;
        sender.send(message()).await?;
    }
    Ok(rate(count, began.elapsed()))
}

fn message() -> v1::PipeRequest {
    let operation = |id| v1::PipeOperation { id, sequence: 0, operation: Some(Operation::Put(put())) };
    v1::PipeRequest { operations: (0..OPERATIONS).map(operation).collect(), ..v1::PipeRequest::default() }
}

/// Answers puts and pipes at once.
struct Idle;

type Answered<T> = Result<Response<T>, Status>;

fn not_asked<T>() -> Answered<T> {
    Err(Status::unimplemented("only puts and pipes are measured"))
}

#[tonic::async_trait]
impl Kv for Idle {
    type ScanStream = tokio_stream::Empty<Result<v1::ScanResponse, Status>>;
    type PipeStream = ReceiverStream<Result<v1::PipeResponse, Status>>;

    async fn put(&self, _: Request<v1::PutRequest>) -> Answered<v1::WriteResponse> {
        Ok(Response::new(v1::WriteResponse::default()))
    }

    async fn pipe(&self, request: Request<Streaming<v1::PipeRequest>>) -> Answered<Self::PipeStream> {
        let mut messages = request.into_inner();
        let (sender, receiver) = mpsc::channel(MESSAGES);
        tokio::spawn(async move {
            while let Some(Ok(message)) = messages.next().await {
                let done = |operation: v1::PipeOperation| v1::PipeResult {
                    id: operation.id,
                    result: Some(Answer::Done(v1::Done::default())),
                };
                let results = message.operations.into_iter().map(done).collect();
                if sender.send(Ok(v1::PipeResponse { header: None, results })).await.is_err() {
                    break;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn get(&self, _: Request<v1::GetRequest>) -> Answered<v1::GetResponse> {
        not_asked()
    }

    async fn delete(&self, _: Request<v1::DeleteRequest>) -> Answered<v1::WriteResponse> {
        not_asked()
    }

    async fn compare_and_swap(
        &self,
        _: Request<v1::CompareAndSwapRequest>,
    ) -> Answered<v1::CompareAndSwapResponse> {
        not_asked()
    }

    async fn batch_get(&self, _: Request<v1::BatchGetRequest>) -> Answered<v1::BatchGetResponse> {
        not_asked()
    }

    async fn batch_write(&self, _: Request<v1::BatchWriteRequest>) -> Answered<v1::WriteResponse> {
        not_asked()
    }

    async fn transaction(&self, _: Request<v1::TransactionRequest>) -> Answered<v1::TransactionResponse> {
        not_asked()
    }

    async fn delete_range(&self, _: Request<v1::DeleteRangeRequest>) -> Answered<v1::WriteResponse> {
        not_asked()
    }

    async fn scan(&self, _: Request<v1::ScanRequest>) -> Answered<Self::ScanStream> {
        not_asked()
    }

    async fn open_session(&self, _: Request<v1::OpenSessionRequest>) -> Answered<v1::OpenSessionResponse> {
        not_asked()
    }
}

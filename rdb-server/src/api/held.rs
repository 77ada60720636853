//! Answers to calls of their own take their part of the memory for requests until they have been sent, as those in the pipe
//! do. A service that is wrapped in [`Holding`] hands long answers to the connection piece by piece, so that they leave
//! memory as they are read; one that is not read for as long as a request may take is thrown away.

use super::admit_read;
use crate::budget::{Budget, Share};
use bytes::Bytes;
use http_body::{Body as _, Frame};
use parking_lot::Mutex;
use prost::Message;
use rdb_proto::v1;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::task::AbortHandle;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::NamedService;
use tonic::{Response, Status};

/// Shorter answers do not count: they leave at once.
const ANSWER_BYTES_FREE: usize = 1 << 10;
/// What the connection is given at a time; it keeps that itself until it is read.
const PIECE_BYTES: usize = 16 << 10;

/// A share on its way from a handler to the body of its answer. Clones are one share.
#[derive(Clone)]
struct Held(#[allow(dead_code, reason = "it is given back when this is dropped")] Arc<Share>);

/// An answer that was read, with its part of the memory.
///
/// # Errors
/// There is none; the read is not done.
pub(super) fn read<T: Message>(budget: &Budget, answer: T) -> Result<Response<T>, v1::Error> {
    let bytes = answer.encoded_len();
    let share = if bytes <= ANSWER_BYTES_FREE { None } else { Some(admit_read(budget, bytes)?) };
    Ok(with_share(answer, share))
}

/// What a write has found, which cannot be refused any more.
pub(super) fn written<T: Message>(budget: &Budget, answer: T) -> Response<T> {
    let bytes = answer.encoded_len();
    with_share(answer, (ANSWER_BYTES_FREE < bytes).then(|| budget.charge(bytes)))
}

fn with_share<T>(answer: T, share: Option<Share>) -> Response<T> {
    let mut response = Response::new(answer);
    if let Some(share) = share {
        response.extensions_mut().insert(Held(Arc::new(share)));
    }
    response
}

/// A service whose answers keep their shares until they are sent.
#[derive(Clone)]
pub(crate) struct Holding<S> {
    service: S,
    patience: Duration,
}

impl<S> Holding<S> {
    /// Answers that are not read are given up after `patience`.
    pub(crate) fn new(service: S, patience: Duration) -> Self {
        Self { service, patience }
    }
}

impl<S: NamedService> NamedService for Holding<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for Holding<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let (answered, patience) = (self.service.call(request), self.patience);
        Box::pin(async move {
            let mut response = answered.await?;
            Ok(match response.extensions_mut().remove::<Held>() {
                Some(held) => response.map(|body| Body::new(Sent::new(body, held, patience))),
                None => response,
            })
        })
    }
}

/// An answer that is being sent.
struct Sent {
    pieces: Arc<Mutex<Option<Pieces>>>,
    /// The task that waits for it to take too long.
    watch: AbortHandle,
}

struct Pieces {
    body: Body,
    /// What the body has given and the connection has not taken.
    rest: Bytes,
    _held: Held,
}

impl Sent {
    fn new(body: Body, held: Held, patience: Duration) -> Self {
        let pieces = Arc::new(Mutex::new(Some(Pieces { body, rest: Bytes::new(), _held: held })));
        let watched = pieces.clone();
        let watch = tokio::spawn(async move {
            tokio::time::sleep(patience).await;
            watched.lock().take();
        });
        Self { pieces, watch: watch.abort_handle() }
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

impl http_body::Body for Sent {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match &mut *self.pieces.lock() {
            Some(pieces) => pieces.poll(context),
            None => {
                let reason = "the answer was not read for the longest that a request may take";
                Poll::Ready(Some(Err(Status::resource_exhausted(reason))))
            }
        }
    }
}

impl Pieces {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.rest.is_empty() {
            match std::task::ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                other => return Poll::Ready(other),
            }
        }
        let piece = self.rest.split_to(PIECE_BYTES.min(self.rest.len()));
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }
}

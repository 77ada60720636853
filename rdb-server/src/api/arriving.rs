//! Requests on their way in take memory before there is a request that could be counted: a client may send all of a long one but
//! its last byte, on every stream that it may open, and never that byte. A service that is wrapped in [`Arriving`] counts what has
//! come of each message until all of it is there. Past the bound messages are refused, and so is one that takes too long; with
//! it goes what has come of it. Nothing of a message is done before it is whole, so a refusal is definite.

use super::limits::{self, MESSAGE_BYTES_MAX};
use super::status::{arriving_late, arriving_too_much, to_status};
use crate::budget::{Budget, Share};
use bytes::Bytes;
use http_body::Frame;
use rdb_proto::v1;
use std::convert::Infallible;
use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::NamedService;

/// A message may take so long, or as long as a request may, if that is more: 16 MiB in it are 13 Mbit/s.
const MESSAGE_WAIT_MIN: Duration = Duration::from_secs(10);
/// A deadline that was found to have passed longer ago is no evidence against the client: this node has not looked.
const LOOKED_WITHIN: Duration = Duration::from_secs(1);
/// What comes before each message: a byte of flags, and its length in four.
const HEAD_BYTES: usize = 5;

/// A service whose requests count as they come.
#[derive(Clone)]
pub(crate) struct Arriving<S> {
    service: S,
    budget: Budget,
    patience: Duration,
}

impl<S> Arriving<S> {
    /// Messages count in `budget` until they are whole. Requests may take `request_timeout`.
    pub(crate) fn new(service: S, budget: Budget, request_timeout: Duration) -> Self {
        Self { service, budget, patience: request_timeout.max(MESSAGE_WAIT_MIN) }
    }
}

/// The memory for what arrives: half of that for requests, and room for one of the longest in any case.
pub(crate) fn arriving_budget(request_bytes_max: usize) -> Budget {
    Budget::new((request_bytes_max / 2).max(MESSAGE_BYTES_MAX))
}

impl<S: NamedService> NamedService for Arriving<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for Arriving<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let counted = |body| Counted {
            body,
            message: Message::default(),
            share: None,
            deadline: None,
            budget: self.budget.clone(),
            patience: self.patience,
        };
        let request = request.map(|body| Body::new(counted(body)));
        self.service.call(request)
    }
}

/// What comes of a call.
struct Counted {
    body: Body,
    /// The one that is not whole yet.
    message: Message,
    /// What was taken for it.
    share: Option<Share>,
    /// When it is to be whole.
    deadline: Option<Pin<Box<Sleep>>>,
    budget: Budget,
    patience: Duration,
}

impl Counted {
    fn count(&mut self, data: &[u8]) -> Result<(), v1::Error> {
        let begun = self.message.take(data)?;
        if begun || self.message.bytes() == 0 {
            (self.share, self.deadline) = (None, None);
        }
        if self.message.bytes() == 0 {
            return Ok(());
        }
        if self.deadline.is_none() {
            self.deadline = Some(Box::pin(tokio::time::sleep(self.patience)));
        }
        let share = self.share.get_or_insert_with(|| self.budget.charge(0));
        // Taken beside what it has: given back and taken anew, another message could come in between, and this one be refused in
        // the midst, though it had its place.
        share.grow_to(self.message.bytes()).map_err(|refused| arriving_too_much(refused.bytes_max))
    }

    /// Whether the message is late, as far as this node has waited for it. A full pipe is not read for a while: what comes late
    /// then is late by this node's doing, and is given the time anew.
    fn poll_late(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = &mut self.deadline else { return Poll::Pending };
        std::task::ready!(deadline.as_mut().poll(context));
        if deadline.deadline().elapsed() < LOOKED_WITHIN {
            return Poll::Ready(());
        }
        deadline.as_mut().reset(Instant::now() + self.patience);
        deadline.as_mut().poll(context)
    }
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let counted = match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Pending => {
                std::task::ready!(self.poll_late(context));
                Err(arriving_late(self.patience))
            }
            Poll::Ready(Some(Ok(frame))) => {
                frame.data_ref().map_or(Ok(()), |data| self.count(data)).map(|()| frame)
            }
            other => return other,
        };
        Poll::Ready(Some(counted.map_err(|error| to_status(&error))))
    }
}

/// How far a message has come.
#[derive(Debug, Default)]
struct Message {
    head: [u8; HEAD_BYTES],
    head_bytes: usize,
    length: usize,
    came: usize,
}

impl Message {
    /// Bytes of it that are there.
    fn bytes(&self) -> usize {
        self.head_bytes + self.came
    }

    /// More has come. Returns whether a message has ended in it, so that what is there now is of another one.
    fn take(&mut self, mut data: &[u8]) -> Result<bool, v1::Error> {
        let mut ended = false;
        while !data.is_empty() {
            if self.head_bytes < HEAD_BYTES {
                let piece = data.len().min(HEAD_BYTES - self.head_bytes);
                self.head[self.head_bytes..self.head_bytes + piece].copy_from_slice(&data[..piece]);
                self.head_bytes += piece;
                data = &data[piece..];
                if self.head_bytes == HEAD_BYTES {
                    let [_, length @ ..] = self.head;
                    self.length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
                    limits::message(self.length)?;
                }
            } else {
                let piece = data.len().min(self.length - self.came);
                self.came += piece;
                data = &data[piece..];
            }
            if self.head_bytes == HEAD_BYTES && self.came == self.length {
                (*self, ended) = (Self::default(), true);
            }
        }
        Ok(ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(lengths: &[usize]) -> Vec<u8> {
        let framed = |length: &usize| {
            let head = u32::try_from(*length).unwrap().to_be_bytes();
            [&[0][..], &head, &vec![7; *length]].concat()
        };
        lengths.iter().flat_map(framed).collect()
    }

    #[test]
    fn what_is_there_of_a_message_counts_wherever_it_is_cut() {
        let lengths = [3, 0, 300, 1];
        let all = framed(&lengths);
        for piece_bytes in 1..all.len() {
            let (mut message, mut ends, mut came) = (Message::default(), 0, 0);
            for piece in all.chunks(piece_bytes) {
                message.take(piece).unwrap();
                came += piece.len();
                ends = lengths
                    .iter()
                    .scan(0, |end, length| {
                        *end += HEAD_BYTES + length;
                        Some(*end)
                    })
                    .filter(|end| *end <= came)
                    .max()
                    .unwrap_or(0);
                assert_eq!(message.bytes(), came - ends, "in pieces of {piece_bytes}, after {came}");
            }
            assert_eq!(ends, all.len());
        }
    }

    #[test]
    fn a_message_that_would_be_too_long_is_refused_by_its_head() {
        let head = |length: usize| [&[0][..], &u32::try_from(length).unwrap().to_be_bytes()].concat();
        assert!(Message::default().take(&head(MESSAGE_BYTES_MAX)).is_ok());
        let error = Message::default().take(&head(MESSAGE_BYTES_MAX + 1)).unwrap_err();
        assert_eq!((error.code(), error.outcome()), (v1::Code::InvalidArgument, v1::Outcome::NotDone));
        assert!(
            error.message.contains("16777217") && error.message.contains("16777216"),
            "{}",
            error.message
        );
    }
}

//! Callers that wait for an answer, as the threads in between see them: something to call once.

use crate::eventual::waiting::{Terms, Unmet};
use rdb_core::apply;
use rdb_core::eventual::vector::WriteId;
use rdb_core::ids::Term;
use rdb_core::raft::Failure;

/// What the state machine answered: one answer per command.
#[derive(Debug)]
pub(crate) enum Answers {
    /// A user's region.
    Keys(Vec<apply::Answer>),
    /// A user's region in eventual mode, with the last of the writes.
    Eventual(Vec<apply::Answer>, WriteId),
    /// The same, which wrote nothing.
    Unmet(Unmet),
    /// The meta region.
    Catalog(Vec<rdb_pd::Answer>),
}

/// A write's caller.
pub(crate) type WriteWaiter = Waiter<Result<Answers, Failure>>;
/// A read's caller: told that the applied state now holds all that the read must see.
pub(crate) type ReadWaiter = Waiter<Result<Released, Failure>>;

/// What a round of reads has confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Released {
    /// The term in which this node leads; `None` where it asked its leader.
    pub(crate) led_in: Option<Term>,
}

/// Answers that can be given when a waiter is dropped without one.
pub(crate) trait WhenDropped {
    /// The honest answer where nothing more will be known.
    fn when_dropped() -> Self;
}

impl<T> WhenDropped for Result<T, Failure> {
    fn when_dropped() -> Self {
        Err(Failure::LeaderLost)
    }
}

/// Calls back once. One that is dropped, with its region or at the end of the process, says that the fate of the
/// request is not known: silence would leave the caller to its deadline.
pub(crate) struct Waiter<T: WhenDropped> {
    call: Option<Box<dyn FnOnce(T) + Send>>,
    /// Of a write: what it asks for besides being done. It goes with the write, whichever way that takes as the mode changes.
    terms: Terms,
}

impl<T: WhenDropped> Waiter<T> {
    pub(crate) fn new(call: impl FnOnce(T) + Send + 'static) -> Self {
        Self { call: Some(Box::new(call)), terms: Terms::default() }
    }

    pub(crate) fn with_terms(mut self, terms: Terms) -> Self {
        self.terms = terms;
        self
    }

    pub(crate) fn terms(&self) -> Terms {
        self.terms
    }

    /// A waiter whose answer comes out of a channel.
    pub(crate) fn channel() -> (Self, tokio::sync::oneshot::Receiver<T>)
    where
        T: Send + 'static,
    {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        // A caller that has gone away is no concern of the sender.
        (Self::new(move |answer| drop(sender.send(answer))), receiver)
    }

    pub(crate) fn answer(mut self, answer: T) {
        if let Some(call) = self.call.take() {
            call(answer);
        }
    }
}

impl<T: WhenDropped> Drop for Waiter<T> {
    fn drop(&mut self) {
        if let Some(call) = self.call.take() {
            call(T::when_dropped());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_waiter_says_that_it_does_not_know() {
        let (waiter, mut receiver) = WriteWaiter::channel();
        drop(waiter);
        assert!(matches!(receiver.try_recv(), Ok(Err(Failure::LeaderLost))));
    }
}

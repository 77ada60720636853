//! Pages between the thread that reads them and the connection that sends them. The thread waits outside of the runtime,
//! so this is no channel of tokio's; and it can take back what the client does not read.

use crate::budget::Share;
use parking_lot::{Condvar, Mutex};
use rdb_proto::v1;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use tokio_stream::Stream;
use tonic::Status;

type Response = Result<v1::ScanResponse, Status>;

/// The thread's end.
pub(super) struct Pages(Arc<Queue>);

/// The connection's end.
pub(crate) struct Outgoing(Arc<Queue>);

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    /// A page was taken, or the client has gone.
    taken: Condvar,
}

#[derive(Default)]
struct State {
    /// Pages, and what they take of the node's memory until they leave.
    waiting: VecDeque<(Response, Option<Share>)>,
    connection: Option<Waker>,
    /// The thread has ended.
    ended: bool,
    /// The connection has.
    gone: bool,
}

/// What came of waiting.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Waited {
    /// The client has taken enough.
    Taken,
    /// It has not, yet.
    InVain,
    /// It is no longer there.
    Gone,
}

pub(super) fn new() -> (Pages, Outgoing) {
    let queue = Arc::<Queue>::default();
    (Pages(queue.clone()), Outgoing(queue))
}

impl Pages {
    pub(super) fn push(&self, page: v1::ScanResponse, share: Share) {
        self.0.change(|state| state.waiting.push_back((Ok(page), Some(share))));
    }

    /// Ends the scan with an error, in the place of what was not taken yet: what is behind a page that came can be read
    /// with its token.
    pub(super) fn fail(&self, status: Status) {
        self.0.change(|state| {
            state.waiting.clear();
            state.waiting.push_back((Err(status), None));
        });
    }

    /// Waits until no more than `most` pages are left to be taken, for `patience` at most.
    pub(super) fn wait(&self, most: usize, patience: Duration) -> Waited {
        let deadline = Instant::now() + patience;
        let mut state = self.0.state.lock();
        loop {
            if state.gone {
                return Waited::Gone;
            }
            if state.waiting.len() <= most {
                return Waited::Taken;
            }
            if self.0.taken.wait_until(&mut state, deadline).timed_out() {
                let taken = state.waiting.len() <= most;
                return if taken { Waited::Taken } else { Waited::InVain };
            }
        }
    }
}

impl Queue {
    /// Changes what waits, and tells the connection.
    fn change(&self, change: impl FnOnce(&mut State)) {
        let connection = {
            let mut state = self.state.lock();
            if state.gone {
                return;
            }
            change(&mut state);
            state.connection.take()
        };
        if let Some(connection) = connection {
            connection.wake();
        }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        self.0.change(|state| state.ended = true);
    }
}

impl Stream for Outgoing {
    type Item = Response;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Response>> {
        let mut state = self.0.state.lock();
        if let Some((response, _share)) = state.waiting.pop_front() {
            self.0.taken.notify_one();
            return Poll::Ready(Some(response));
        }
        if state.ended {
            return Poll::Ready(None);
        }
        state.connection = Some(context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.gone = true;
        state.waiting.clear();
        self.0.taken.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Budget;
    use tokio_stream::StreamExt as _;

    const SHORT: Duration = Duration::from_millis(1);
    const LONG: Duration = Duration::from_secs(60);

    fn page(count: u64) -> v1::ScanResponse {
        v1::ScanResponse { count, ..v1::ScanResponse::default() }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn pages_come_in_order_and_their_memory_is_given_back_as_they_leave() {
        let (budget, (pages, mut outgoing)) = (Budget::new(100), new());
        for number in 1..=2 {
            pages.push(page(number), budget.charge(10));
        }
        assert_eq!((budget.used(), pages.wait(1, SHORT)), (20, Waited::InVain));
        assert_eq!(outgoing.next().await.unwrap().unwrap(), page(1));
        assert_eq!(
            (budget.used(), pages.wait(1, SHORT), pages.wait(0, SHORT)),
            (10, Waited::Taken, Waited::InVain)
        );
        // A thread that waits hears of it, and so does a connection.
        let reader = tokio::task::spawn_blocking(move || {
            let waited = pages.wait(0, LONG);
            pages.push(page(3), budget.charge(10));
            (waited, pages.wait(0, LONG))
        });
        assert_eq!(outgoing.next().await.unwrap().unwrap(), page(2));
        assert_eq!(outgoing.next().await.unwrap().unwrap(), page(3));
        assert!(outgoing.next().await.is_none());
        assert_eq!(reader.await.unwrap(), (Waited::Taken, Waited::Taken));
    }

    #[tokio::test]
    async fn a_failure_takes_the_place_of_what_was_not_read() {
        let (budget, (pages, mut outgoing)) = (Budget::new(100), new());
        pages.push(page(1), budget.charge(10));
        pages.fail(Status::aborted("why"));
        assert_eq!(budget.used(), 0);
        drop(pages);
        assert_eq!(outgoing.next().await.unwrap().unwrap_err().message(), "why");
        assert!(outgoing.next().await.is_none());
    }

    #[test]
    fn a_client_that_has_gone_is_noticed_and_leaves_nothing() {
        let (budget, (pages, outgoing)) = (Budget::new(100), new());
        pages.push(page(1), budget.charge(10));
        let waits = std::thread::spawn(move || {
            let waited = pages.wait(0, LONG);
            (waited, pages)
        });
        drop(outgoing);
        let (waited, pages) = waits.join().unwrap();
        assert_eq!((waited, budget.used()), (Waited::Gone, 0));
        pages.push(page(2), budget.charge(10));
        assert_eq!(budget.used(), 0, "nobody would take it");
    }
}

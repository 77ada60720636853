//! Queues between a node's threads.
//!
//! A receiver that finds nothing sleeps at once. The usual channels first look again and again for some microseconds, and then
//! have others go first a few times, since what they wait for may be about to come. A node has more threads that hand work to each other than
//! a small machine has processors: there whoever looks in vain takes the processor from the very thread that it waits for.
//!
//! Whoever sends takes a lock for as long as it takes to put one thing down, and wakes the receiver only if that sleeps. There is
//! one receiver, so that what comes is taken in the order in which it was sent.

use parking_lot::{Condvar, Mutex};
use std::cell::Cell;
use std::collections::VecDeque;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Instant;

/// What an empty queue keeps room for.
const KEPT_MAX: usize = 1024;

/// A queue without a bound: whoever sends has one.
pub fn unbounded<T>() -> (Sender<T>, Receiver<T>) {
    bounded(usize::MAX)
}

/// A queue for at most `most` things. With 0 there is never room.
pub fn bounded<T>(most: usize) -> (Sender<T>, Receiver<T>) {
    let state = State { things: VecDeque::new(), senders: 1, receives: true, sleeps: false, blocked: 0 };
    let shared =
        Arc::new(Shared { most, state: Mutex::new(state), something: Condvar::new(), room: Condvar::new() });
    (Sender(shared.clone()), Receiver(shared, PhantomData))
}

struct Shared<T> {
    most: usize,
    state: Mutex<State<T>>,
    /// For the receiver.
    something: Condvar,
    /// For senders that wait.
    room: Condvar,
}

struct State<T> {
    things: VecDeque<T>,
    senders: usize,
    /// Whether there is still a receiver.
    receives: bool,
    /// Whether the receiver sleeps and was not yet woken.
    sleeps: bool,
    /// Senders that wait for room.
    blocked: usize,
}

/// Why something was not taken. It comes back.
#[derive(Debug, PartialEq, Eq)]
pub enum Unsent<T> {
    /// There is no room.
    Full(T),
    /// The receiver is gone.
    Closed(T),
}

/// Why nothing was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nothing {
    /// Nothing is there now, or came in time.
    Yet,
    /// All senders are gone, and what they had sent was received.
    Ever,
}

/// The end that sends. All clones are ends of one queue.
pub struct Sender<T>(Arc<Shared<T>>);

/// The end that receives. One thread's at a time: who sends wakes one.
pub struct Receiver<T>(Arc<Shared<T>>, PhantomData<Cell<()>>);

impl<T> Sender<T> {
    /// Sends if there is room.
    ///
    /// # Errors
    /// There is none, or no receiver any more.
    pub fn try_send(&self, thing: T) -> Result<(), Unsent<T>> {
        let mut state = self.0.state.lock();
        if !state.receives {
            return Err(Unsent::Closed(thing));
        }
        if self.0.most <= state.things.len() {
            return Err(Unsent::Full(thing));
        }
        state.things.push_back(thing);
        let sleeps = std::mem::take(&mut state.sleeps);
        // Woken under the lock, the receiver would have to wait for it at once.
        drop(state);
        if sleeps {
            self.0.something.notify_one();
        }
        Ok(())
    }

    /// Sends, and waits for room if there is none.
    ///
    /// # Errors
    /// There is no receiver any more: the thing comes back.
    pub fn send(&self, thing: T) -> Result<(), T> {
        let mut thing = thing;
        loop {
            match self.try_send(thing) {
                Ok(()) => return Ok(()),
                Err(Unsent::Closed(back)) => return Err(back),
                Err(Unsent::Full(back)) => thing = back,
            }
            let mut state = self.0.state.lock();
            if state.receives && self.0.most <= state.things.len() {
                state.blocked += 1;
                self.0.room.wait(&mut state);
                state.blocked -= 1;
            }
        }
    }

    /// Things that wait.
    pub fn len(&self) -> usize {
        self.0.state.lock().things.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many may wait.
    pub fn capacity(&self) -> usize {
        self.0.most
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.state.lock().senders += 1;
        Self(self.0.clone())
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.senders -= 1;
        if state.senders == 0 {
            drop(state);
            self.0.something.notify_one();
        }
    }
}

impl<T> Receiver<T> {
    /// The next thing; waits for it.
    ///
    /// # Errors
    /// [`Nothing::Ever`].
    pub fn recv(&self) -> Result<T, Nothing> {
        self.next(|state| {
            self.0.something.wait(state);
            true
        })
    }

    /// The next thing, if it comes by `deadline`.
    ///
    /// # Errors
    /// It does not, or never will.
    pub fn recv_deadline(&self, deadline: Instant) -> Result<T, Nothing> {
        self.next(|state| !self.0.something.wait_until(state, deadline).timed_out())
    }

    /// The next thing, if there is one.
    ///
    /// # Errors
    /// There is none, or never will be.
    pub fn try_recv(&self) -> Result<T, Nothing> {
        self.next(|_| false)
    }

    /// What is there, until there is nothing.
    pub fn try_iter(&self) -> impl Iterator<Item = T> + '_ {
        std::iter::from_fn(|| self.try_recv().ok())
    }

    /// Things that wait.
    pub fn len(&self) -> usize {
        self.0.state.lock().things.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// `wait` sleeps, and says whether to look again however that ended.
    fn next(
        &self,
        mut wait: impl FnMut(&mut parking_lot::MutexGuard<'_, State<T>>) -> bool,
    ) -> Result<T, Nothing> {
        let mut state = self.0.state.lock();
        let mut goes_on = true;
        loop {
            if let Some(thing) = state.things.pop_front() {
                if state.things.is_empty() && KEPT_MAX < state.things.capacity() {
                    state.things.shrink_to(KEPT_MAX);
                }
                let blocked = 0 < state.blocked;
                drop(state);
                if blocked {
                    self.0.room.notify_one();
                }
                return Ok(thing);
            }
            if state.senders == 0 {
                return Err(Nothing::Ever);
            }
            if !goes_on {
                return Err(Nothing::Yet);
            }
            state.sleeps = true;
            goes_on = wait(&mut state);
            state.sleeps = false;
        }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let things = {
            let mut state = self.0.state.lock();
            state.receives = false;
            std::mem::take(&mut state.things)
        };
        self.0.room.notify_all();
        // Behind the lock: what a thing does as it goes may send again.
        drop(things);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;
    use std::time::Duration;

    #[test]
    fn what_each_sender_sends_is_received_once_and_in_its_order() {
        const EACH: u64 = 20_000;
        for most in [1, 7, usize::MAX] {
            let (sender, receiver) = bounded(most);
            let senders: Vec<_> = (0..4_usize)
                .map(|who| {
                    let sender = sender.clone();
                    thread::spawn(move || (0..EACH).for_each(|what| sender.send((who, what)).unwrap()))
                })
                .collect();
            drop(sender);
            let mut next = [0; 4];
            while let Ok((who, what)) = receiver.recv() {
                assert!(receiver.len() <= most);
                assert_eq!(what, std::mem::replace(&mut next[who], what + 1));
            }
            assert_eq!(next, [EACH; 4]);
            senders.into_iter().for_each(|sender| sender.join().unwrap());
        }
    }

    #[test]
    fn a_full_queue_gives_back_what_it_does_not_take() {
        let (sender, receiver) = bounded(2);
        assert_eq!((sender.try_send(1), sender.try_send(2)), (Ok(()), Ok(())));
        assert_eq!(sender.try_send(3), Err(Unsent::Full(3)));
        assert_eq!((sender.len(), sender.capacity()), (2, 2));
        assert_eq!(receiver.try_recv(), Ok(1));
        assert_eq!(sender.try_send(3), Ok(()));
        assert_eq!(receiver.try_iter().collect::<Vec<_>>(), [2, 3]);
    }

    #[test]
    fn whoever_waits_is_told_that_the_other_end_is_gone() {
        let (sender, receiver) = unbounded::<u8>();
        let other = sender.clone();
        let waits = thread::spawn(move || receiver.recv());
        thread::sleep(Duration::from_millis(20));
        drop(sender);
        drop(other);
        assert_eq!(waits.join().unwrap(), Err(Nothing::Ever));
        let (sender, receiver) = bounded(1);
        sender.send(1).unwrap();
        let waits = thread::spawn(move || sender.send(2));
        thread::sleep(Duration::from_millis(20));
        drop(receiver);
        assert_eq!(waits.join().unwrap(), Err(2));
    }

    #[test]
    fn what_was_sent_is_received_after_its_senders_are_gone() {
        let (sender, receiver) = unbounded();
        sender.send(1).unwrap();
        drop(sender);
        assert_eq!((receiver.recv(), receiver.recv()), (Ok(1), Err(Nothing::Ever)));
        assert_eq!(receiver.try_recv(), Err(Nothing::Ever));
    }

    #[test]
    fn a_wait_ends_at_its_deadline_or_with_what_comes() {
        let (sender, receiver) = unbounded();
        let soon = || Instant::now() + Duration::from_millis(10);
        assert_eq!(receiver.recv_deadline(soon()), Err(Nothing::Yet));
        assert_eq!(receiver.try_recv(), Err(Nothing::Yet));
        let sends = thread::spawn(move || {
            thread::sleep(Duration::from_millis(20));
            sender.send(1).unwrap();
        });
        assert_eq!(receiver.recv_deadline(Instant::now() + Duration::from_secs(60)), Ok(1));
        sends.join().unwrap();
        assert_eq!(receiver.recv_deadline(soon()), Err(Nothing::Ever));
    }
}

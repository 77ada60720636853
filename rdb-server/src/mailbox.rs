//! The raft loop's mailbox: one channel, since the order of what it carries matters. The log writer reports a write
//! before it sends the messages that the write held back, so an answer to them can only come behind the report.
//!
//! What the loop does in most turns never waits, so any thread may take them. Where there is little to do, whoever has something for the loop
//! takes its turn at once: to wake another thread and have it do so costs more than most turns, and on a machine with few
//! processors that thread waits for one. Where there is much, the loop's own thread takes the turns, so that more comes together for each, and the
//! others go on with what is theirs; and so it does where time has come, or something for which a turn may have to read the disk. Only one takes turns at a time, and events are taken in as they were posted.
//!
//! The mailbox has no bound of its own: what posts to it has. Requests take their bytes from the node's budget, each peer has
//! one of its own, entries that were read wait until earlier ones are taken in, and the node's other threads answer only
//! what the loop gave them.

use crate::applier;
use crate::budget::Share;
use crate::eventual;
use crate::snapshots::Arrived;
use crate::waiter::{ReadWaiter, WriteWaiter};
use parking_lot::Mutex;
use rdb_core::apply::State;
use rdb_core::command::Encoded;
use rdb_core::ids::{Index, NodeId, RegionId, Term};
use rdb_core::raft::{Entry, GetEntriesContext, Message, MessageType, Sleep};
use rdb_core::switch;
use rdb_pd::Catalog;
use std::collections::VecDeque;
use std::collections::vec_deque::Drain;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::Thread;
use std::time::{Duration, Instant};

/// Events taken in one turn: enough to batch, few enough to keep the ticks.
const EVENTS_PER_TURN_MAX: usize = 4096;
/// A loop whose turns take in no more events, and are no longer, has little to do.
const EVENTS_HERE_MAX: usize = 8;
const TURN_HERE_MAX: Duration = Duration::from_micros(50);
/// Turns that a thread takes which has other things to do.
const TURNS_HERE_MAX: usize = 4;
/// Events past which requests do not wait for the task that gathers them: the loop's thread is woken.
const REQUESTS_GATHERED_MAX: usize = 64;

/// Everything that can happen to the raft loop.
pub(crate) enum Event {
    /// Commands to propose.
    Write { region: RegionId, commands: Encoded, waiter: WriteWaiter },
    /// A read that wants to know when it may be served.
    Read { region: RegionId, waiter: ReadWaiter },
    /// Messages from another node, and the share of its budget that they take.
    Messages { from: NodeId, messages: Vec<(RegionId, Message)>, share: Share },
    /// Regions that another node leads have fallen asleep; with the share of its budget that this takes.
    Sleep { from: NodeId, regions: Vec<(RegionId, Sleep)>, share: Share },
    /// A node is not the process any more that it was: what it led has no leader.
    Restarted { node: NodeId },
    /// Messages to a node were lost, or its connection was.
    Unreachable { peer: NodeId },
    /// The log write of this number is on disk.
    Persisted { region: RegionId, number: u64 },
    /// Entries up to this one are applied; the log may be dropped up to the other once that is durable. One of them, or one
    /// before them, may have closed the region.
    Applied { region: RegionId, index: Index, truncate_to: Index, closed: bool },
    /// The entry at this place is applied, and has put the region into another era. [`Event::Applied`] follows.
    Entered { region: RegionId, mode: switch::Region, index: Index, term: Term },
    /// A snapshot of this mode is about to replace the region's data; see [`eventual::Event::Leave`].
    Leave { region: RegionId, offered: switch::Region, left: eventual::Left },
    /// The region's next era began without this node: it needs a snapshot of it.
    Replace { region: RegionId },
    /// Entries that were read for a follower that lags.
    Fetched {
        region: RegionId,
        /// In which they were asked for.
        term: Term,
        low: Index,
        entries: Result<Vec<Entry>, String>,
        /// What they take of the memory for such entries.
        share: Share,
        context: GetEntriesContext,
    },
    /// A snapshot has come from a region's leader, with the message that stands for it.
    Snapshot { from: NodeId, region: RegionId, message: Box<Message>, arrived: Arrived },
    /// A region's data is a snapshot's now; the write that follows it is on its way.
    Installed { region: RegionId, number: u64, machine: Box<applier::Machine>, state: State },
    /// The write that followed a snapshot is on disk.
    InstallWritten { region: RegionId, number: u64 },
    /// A snapshot that this node was to send was taken in, or came to nothing.
    SnapshotSent { region: RegionId, peer: NodeId, term: Term, taken: bool },
    /// The catalog has changed: regions may have come or gone.
    Catalog(Arc<Catalog>),
    /// A new region's log is on disk.
    RegionCreated { region: RegionId },
    /// Data was flushed: logs may be dropped up to what it holds.
    Flushed,
    /// Give up all leaderships: the node is about to stop.
    HandOver,
    /// End the loop.
    Stop,
}

/// Posts events. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Mailbox(Arc<Shared>);

struct Shared {
    queue: Mutex<Queue>,
    /// Who has it takes the turns.
    turns: Mutex<Taker>,
    /// Turns have much to do, or long: the loop's own thread takes them, and more comes together for each.
    is_loaded: AtomicBool,
    /// Reads wait for what [`Event::Applied`] says.
    awaits_applied: AtomicBool,
    /// A task is about to take turns for requests.
    gathers: AtomicBool,
    /// The loop's own thread, once it runs.
    thread: OnceLock<Thread>,
}

impl Event {
    /// Whether it is of everyday work, for which nothing is read from the disk and no region is looked at but its own. Right after a
    /// start it may be: a log's first entries then have yet to be read.
    fn is_light(&self) -> bool {
        match self {
            Event::Write { .. }
            | Event::Read { .. }
            | Event::Persisted { .. }
            | Event::Applied { closed: false, .. } => true,
            // Who is to lead at once first looks through what it has committed and not applied.
            Event::Messages { messages, .. } => {
                messages.iter().all(|(_, message)| message.msg_type != MessageType::MsgTimeoutNow as i32)
            }
            _ => false,
        }
    }
}

#[derive(Default)]
struct Queue {
    events: VecDeque<Event>,
    /// Some of them are for the loop's own thread.
    has_heavy: bool,
    /// Nobody takes events any more.
    has_ended: bool,
}

/// What takes turns.
enum Taker {
    /// Events wait.
    NotYet,
    Here {
        turns: Box<dyn Turns>,
        /// Empty between turns: where the next ones' events are taken out.
        taken: VecDeque<Event>,
    },
    Ended,
}

/// The loop, as the mailbox sees it.
pub(crate) trait Turns: Send {
    /// Takes in these events, and does what follows; what is due by the clock, only with `by_clock`.
    fn turn(&mut self, events: Drain<'_, Event>, by_clock: bool) -> Turn;
}

/// What a turn has come to.
pub(crate) enum Turn {
    Next {
        /// When there is something to do without any event.
        at: Instant,
        /// Whether reads wait for what [`Event::Applied`] says.
        awaits_applied: bool,
    },
    /// There are no more.
    End,
}

impl Mailbox {
    pub(crate) fn new() -> (Self, Events) {
        let mailbox = Self(Arc::new(Shared {
            queue: Mutex::default(),
            turns: Mutex::new(Taker::NotYet),
            is_loaded: AtomicBool::new(false),
            awaits_applied: AtomicBool::new(false),
            gathers: AtomicBool::new(false),
            thread: OnceLock::new(),
        }));
        let events = Events(mailbox.clone());
        (mailbox, events)
    }

    /// Posts `event` for the loop's thread. A loop that has ended drops it, and what waits for it is told so.
    pub(crate) fn post(&self, event: Event) {
        self.push(event);
        self.wake();
    }

    /// Posts `event`, and takes the loop's turn for it right here if there is little to do: another thread's waking would cost
    /// more. Nothing that a turn does waits.
    pub(crate) fn post_here(&self, event: Event) {
        self.push(event);
        self.take_turns_here();
    }

    /// Posts one of many requests that come each by itself, from a task. Turns are taken once for all that the tasks which are
    /// ready by now have to post: one by one they would find places in as many entries, and in as many rounds.
    pub(crate) fn post_request(&self, event: Event) {
        let waiting = self.push(event);
        if !self.0.gathers.swap(true, Ordering::SeqCst) {
            let gathering = Gathering(self.clone());
            tokio::spawn(async move {
                tokio::task::yield_now().await;
                drop(gathering);
            });
        } else if REQUESTS_GATHERED_MAX <= waiting {
            // The task that gathers may be behind a long one on its own thread; if fewer wait, they do so for a tick at most.
            self.wake();
        }
    }

    /// Posts `event`, and leaves it until something else happens, or the next tick: [`Self::take_turns_here`] follows, or nobody minds.
    pub(crate) fn post_quietly(&self, event: Event) {
        self.push(event);
    }

    /// The same; but at once if reads wait for it.
    pub(crate) fn post_applied(&self, event: Event) {
        self.push(event);
        // Behind the push: a turn that sees reads begin to wait looks at the queue once more, and finds the event there.
        if self.0.awaits_applied.load(Ordering::SeqCst) {
            self.wake();
        }
    }

    /// Takes turns for what was posted quietly, if there is little to do; otherwise the loop's thread does.
    pub(crate) fn take_turns_here(&self) {
        for _ in 0..TURNS_HERE_MAX {
            match self.0.queue.lock().waiting() {
                Waiting::Nothing => return,
                Waiting::Little if !self.0.is_loaded.load(Ordering::Relaxed) => {}
                Waiting::Little | Waiting::Much => break,
            }
            // Whoever has it looks at the queue once more when it is free again, and so does not miss what was pushed before this.
            let Some(mut turns) = self.0.turns.try_lock() else { return };
            self.take_turn(&mut turns, false);
        }
        self.wake();
    }

    /// Events that wait.
    pub(crate) fn len(&self) -> usize {
        self.0.queue.lock().events.len()
    }

    /// Returns how many wait now.
    fn push(&self, event: Event) -> usize {
        let is_heavy = !event.is_light();
        let mut queue = self.0.queue.lock();
        if !queue.has_ended {
            queue.has_heavy |= is_heavy;
            queue.events.push_back(event);
        }
        // Otherwise it is dropped, behind the lock: who waits for it may post again.
        queue.events.len()
    }

    fn wake(&self) {
        if let Some(thread) = self.0.thread.get() {
            thread.unpark();
        }
    }

    /// One turn. Returns when the next one is due without any event; `None` if there is none.
    fn take_turn(&self, taker: &mut Taker, by_clock: bool) -> Option<Instant> {
        let Taker::Here { turns, taken } = taker else {
            return None;
        };
        {
            let mut queue = self.0.queue.lock();
            // What has come since this thread looked may be too much for it; it looks again.
            if !by_clock && !matches!(queue.waiting(), Waiting::Little) {
                return None;
            }
            queue.take(taken);
        }
        let (began, count) = (Instant::now(), taken.len());
        let whole = Whole;
        let turn = turns.turn(taken.drain(..), by_clock);
        std::mem::forget(whole);
        // One for the clock alone says nothing of how much comes.
        if 0 < count {
            let is_loaded = EVENTS_HERE_MAX < count || TURN_HERE_MAX < began.elapsed();
            self.0.is_loaded.store(is_loaded, Ordering::Relaxed);
        }
        match turn {
            Turn::Next { at, awaits_applied } => {
                self.0.awaits_applied.store(awaits_applied, Ordering::SeqCst);
                Some(at)
            }
            Turn::End => {
                *taker = Taker::Ended;
                self.end();
                None
            }
        }
    }

    fn end(&self) {
        let rest = {
            let mut queue = self.0.queue.lock();
            queue.has_ended = true;
            std::mem::take(&mut queue.events)
        };
        drop(rest);
    }
}

/// What waits, as far as it matters to who might take the turn.
enum Waiting {
    Nothing,
    Little,
    Much,
}

impl Queue {
    fn waiting(&self) -> Waiting {
        match self.events.len() {
            0 => Waiting::Nothing,
            count if count <= EVENTS_HERE_MAX && !self.has_heavy => Waiting::Little,
            _ => Waiting::Much,
        }
    }

    /// Moves a turn's worth of events to `taken`, which is empty.
    fn take(&mut self, taken: &mut VecDeque<Event>) {
        if self.events.len() <= EVENTS_PER_TURN_MAX {
            std::mem::swap(&mut self.events, taken);
            self.events.shrink_to(EVENTS_PER_TURN_MAX);
            self.has_heavy = false;
        } else {
            taken.extend(self.events.drain(..EVENTS_PER_TURN_MAX));
        }
    }
}

/// The task that takes turns for requests; also where its runtime ends before it has run.
struct Gathering(Mailbox);

impl Drop for Gathering {
    fn drop(&mut self) {
        // Before the turn: who posts from now on has another one taken.
        self.0.0.gathers.store(false, Ordering::SeqCst);
        self.0.take_turns_here();
    }
}

/// The loop's own thread's end.
pub(crate) struct Events(Mailbox);

impl Events {
    /// Takes turns until one is the last: those for which something is due, and those of a loaded loop.
    pub(crate) fn run(self, turns: Box<dyn Turns>) {
        let shared = &*self.0.0;
        let _ = shared.thread.set(std::thread::current());
        let mut taker = shared.turns.lock();
        *taker = Taker::Here { turns, taken: VecDeque::new() };
        loop {
            // The first turn is this thread's in any case: logs are read in it.
            let Some(next) = self.0.take_turn(&mut taker, true) else { return };
            drop(taker);
            // It may be woken for what another thread has taken in by now.
            while self.0.len() == 0 {
                let Some(left) = next.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
                else {
                    break;
                };
                std::thread::park_timeout(left);
            }
            taker = shared.turns.lock();
        }
    }

    /// The next event, where nothing takes turns.
    pub(crate) fn next(&self) -> Option<Event> {
        self.0.0.queue.lock().events.pop_front()
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// A turn that a panic cuts short leaves the loop's groups half changed, and on a thread that may survive it.
struct Whole;

impl Drop for Whole {
    fn drop(&mut self) {
        std::process::abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdb_core::raft::Failure;
    use std::sync::Barrier;
    use std::thread::{self, JoinHandle};

    /// What was taken in, and by which thread.
    type Seen = Arc<Mutex<Vec<(u64, Option<String>)>>>;

    /// Has nothing to do by itself for an hour.
    struct Notes {
        seen: Seen,
        awaits_applied: bool,
        pause: Duration,
    }

    impl Turns for Notes {
        fn turn(&mut self, events: Drain<'_, Event>, _: bool) -> Turn {
            thread::sleep(self.pause);
            for event in events {
                match event {
                    Event::Persisted { number, .. } | Event::RegionCreated { region: RegionId(number) } => {
                        self.seen.lock().push((number, thread::current().name().map(str::to_owned)));
                    }
                    Event::Stop => return Turn::End,
                    _ => {}
                }
            }
            let at = Instant::now() + Duration::from_secs(3600);
            Turn::Next { at, awaits_applied: self.awaits_applied }
        }
    }

    fn start(awaits_applied: bool, pause: Duration) -> (Mailbox, Seen, JoinHandle<()>) {
        let (mailbox, events) = Mailbox::new();
        let seen = Seen::default();
        let notes = Notes { seen: seen.clone(), awaits_applied, pause };
        let raft = thread::Builder::new().name("raft".to_owned());
        let raft = raft.spawn(move || events.run(Box::new(notes))).unwrap();
        while !matches!(*mailbox.0.turns.lock(), Taker::Here { .. }) {
            thread::yield_now();
        }
        (mailbox, seen, raft)
    }

    fn stop(mailbox: &Mailbox, raft: JoinHandle<()>) {
        mailbox.post(Event::Stop);
        raft.join().unwrap();
    }

    fn event(number: u64) -> Event {
        Event::Persisted { region: RegionId::META, number }
    }

    fn until(what: &str, is_so: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !is_so() {
            assert!(Instant::now() < deadline, "never: {what}");
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Nothing ticks here: what is missed once is missed for good.
    #[test]
    fn whatever_is_posted_is_taken_in_once_and_in_its_order() {
        const EACH: u64 = 20_000;
        let (mailbox, seen, raft) = start(true, Duration::ZERO);
        let senders: Vec<_> = (0..4)
            .map(|who: u64| {
                let mailbox = mailbox.clone();
                thread::spawn(move || {
                    for number in 0..EACH {
                        match (who + number) % 3 {
                            0 => mailbox.post(event(who * EACH + number)),
                            1 => mailbox.post_here(event(who * EACH + number)),
                            _ => mailbox.post_applied(event(who * EACH + number)),
                        }
                    }
                })
            })
            .collect();
        senders.into_iter().for_each(|sender| sender.join().unwrap());
        until("all are seen", || seen.lock().len() as u64 == 4 * EACH);
        let mut next = [0; 4];
        for (number, _) in seen.lock().iter() {
            let (who, number) = ((number / EACH) as usize, number % EACH);
            assert_eq!(number, std::mem::replace(&mut next[who], number + 1));
        }
        stop(&mailbox, raft);
    }

    /// Whoever finds that another one has the turn leaves it to that one, which may be just about to give it back.
    #[test]
    fn what_comes_as_a_turn_ends_is_not_left() {
        const ROUNDS: usize = 5_000;
        let (mailbox, seen, raft) = start(false, Duration::ZERO);
        let together = Arc::new(Barrier::new(3));
        let senders: Vec<_> = (0..2)
            .map(|who| {
                let (mailbox, together) = (mailbox.clone(), together.clone());
                thread::spawn(move || {
                    for _ in 0..ROUNDS {
                        together.wait();
                        mailbox.post_here(event(who));
                        together.wait();
                    }
                })
            })
            .collect();
        for round in 1..=ROUNDS {
            together.wait();
            together.wait();
            until("both are seen", || seen.lock().len() == 2 * round);
        }
        senders.into_iter().for_each(|sender| sender.join().unwrap());
        stop(&mailbox, raft);
    }

    /// The same of requests, whose turns are taken behind the tasks that post them.
    #[test]
    fn requests_of_tasks_that_are_ready_share_a_turn_and_none_is_forgotten() {
        let (mailbox, seen, raft) = start(false, Duration::ZERO);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
        runtime.block_on(async {
            for round in 0..2_000 {
                let mailbox = mailbox.clone();
                tokio::spawn(async move { mailbox.post_request(event(round)) });
                if round % 7 == 0 {
                    tokio::task::yield_now().await;
                }
            }
        });
        until("all are seen", || seen.lock().len() == 2_000);
        stop(&mailbox, raft);
    }

    #[test]
    fn what_is_posted_quietly_waits_for_company() {
        let (mailbox, seen, raft) = start(false, Duration::ZERO);
        mailbox.post_quietly(event(1));
        mailbox.post_applied(event(2));
        thread::sleep(Duration::from_millis(50));
        assert_eq!(seen.lock().len(), 0);
        mailbox.post_here(event(3));
        let numbers: Vec<u64> = seen.lock().iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, [1, 2, 3], "and it was taken in before the call returned");
        stop(&mailbox, raft);
    }

    #[test]
    fn reads_that_wait_for_what_is_applied_are_not_left_waiting() {
        let (mailbox, seen, raft) = start(true, Duration::ZERO);
        mailbox.post_here(event(1));
        mailbox.post_applied(event(2));
        until("it is seen", || seen.lock().len() == 2);
        stop(&mailbox, raft);
    }

    #[test]
    fn a_loaded_loop_is_left_to_its_thread() {
        let (mailbox, seen, raft) = start(false, 2 * TURN_HERE_MAX);
        mailbox.post_here(event(1));
        until("it is seen", || seen.lock().len() == 1);
        mailbox.post_here(event(2));
        until("it is seen", || seen.lock().len() == 2);
        assert_eq!(seen.lock()[1].1.as_deref(), Some("raft"));
        stop(&mailbox, raft);
    }

    /// It may read the disk, and the thread that posts it may be one that others wait for.
    #[test]
    fn what_is_heavy_is_left_to_the_loops_thread() {
        let (mailbox, seen, raft) = start(false, Duration::ZERO);
        mailbox.post_quietly(Event::RegionCreated { region: RegionId(1) });
        mailbox.post_here(event(2));
        until("both are seen", || seen.lock().len() == 2);
        assert!(seen.lock().iter().all(|(_, thread)| thread.as_deref() == Some("raft")));
        stop(&mailbox, raft);
    }

    /// So many that they come in more than a turn, some of them heavy.
    #[test]
    fn a_long_queue_is_taken_in_turn_by_turn() {
        let (mailbox, events) = Mailbox::new();
        let many = 3 * EVENTS_PER_TURN_MAX as u64 + 5;
        for number in 0..many {
            let heavy = number % 1000 == 0;
            mailbox.post(if heavy {
                Event::RegionCreated { region: RegionId(number) }
            } else {
                event(number)
            });
        }
        let seen = Seen::default();
        let notes = Notes { seen: seen.clone(), awaits_applied: false, pause: Duration::ZERO };
        mailbox.post(Event::Stop);
        events.run(Box::new(notes));
        assert!(seen.lock().iter().map(|(number, _)| *number).eq(0..many));
    }

    /// Whoever waits for something that nobody will take in is told so.
    #[test]
    fn an_ended_loop_drops_what_is_posted() {
        let read = || {
            let (waiter, answer) = ReadWaiter::channel();
            (Event::Read { region: RegionId::META, waiter }, answer)
        };
        let (mailbox, _, raft) = start(false, Duration::ZERO);
        stop(&mailbox, raft);
        let (event, mut answer) = read();
        mailbox.post_here(event);
        assert_eq!(answer.try_recv(), Ok(Err(Failure::LeaderLost)));
        let (mailbox, events) = Mailbox::new();
        let (event, mut answer) = read();
        mailbox.post(event);
        assert!(answer.try_recv().is_err(), "the loop may yet begin");
        drop(events);
        assert_eq!(answer.try_recv(), Ok(Err(Failure::LeaderLost)));
    }
}

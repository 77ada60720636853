//! The one thread that writes the log, for all regions of a node.
//!
//! It takes one change from its queue, then all that wait behind it, writes them as one batch, syncs once if any of them
//! asks for it, and reports. While the sync runs, the next batch gathers: the slower the disk, the more share a sync.
//!
//! The order of a batch's end is a promise that the Raft groups rely on:
//!
//! 1. the batch is on disk;
//! 2. if a vote changed, the watermark is on disk too;
//! 3. for each write, in the order in which they were handed in: it is reported ([`LogSink::persisted`]), and then its
//!    messages go ([`LogSink::send`]). An answer to them finds the report already there.
//!
//! A write of origins' logs for which somebody waits, and that finds this thread idle, is not handed to it but done where it comes
//! from, in the same way and with the same promise: two threads' waking costs as much as the sync.
//!
//! After a write or sync that failed nothing is reported any more, and nothing is tried again: the kernel may have
//! dropped the very pages that it could not write, so that a second sync would succeed and mean nothing. The sink hears
//! of it once and must stop the process; a restart finds out what is on disk.

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::keys::{self, Position};
use crate::log_ahead::LogAhead;
use crate::log_batch::{Batch, Change, Done, OriginWrite, Report};
use crate::metrics::LogMetrics;
use crate::rocks::Databases;
use crate::snapshot::Note;
use crate::watermark::Keeper;
use fail::fail_point;
use parking_lot::Mutex;
use rdb_core::ids::{Index, NodeId, RegionId};
use rdb_core::raft::disk::decode_hard_state;
use rdb_core::raft::{LogWrite, Message};
use rdb_queue::{Receiver, Sender, Unsent, bounded};
use rocksdb::WriteOptions;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

/// Writes that one region may have handed in and not yet had reported. The raft loop keeps to it by not taking effects
/// from a group with this many outstanding; then [`LogWriterHandle::append`] never finds the queue full.
pub const WRITES_PER_REGION_MAX: usize = 64;

/// What the log writer can be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogWriterOptions {
    /// Changes that wait in the queue, at most. Enough for [`WRITES_PER_REGION_MAX`] of each region on a node, so that
    /// the raft loop never waits for the disk.
    pub queue_changes_max: usize,
    /// Changes in one batch, at most.
    pub batch_changes_max: usize,
    /// Bytes in one batch after which no more are taken in.
    pub batch_bytes_max: usize,
    /// By how many bytes the newest write-ahead log is kept longer than what is in it, so that a sync need not lengthen it. With 0
    /// it is as long as what is in it.
    pub ahead_bytes: u64,
}

impl Default for LogWriterOptions {
    fn default() -> Self {
        // 1,024 regions' worth. A batch of 4 MiB takes a few milliseconds on the slowest disks that are in use.
        Self {
            queue_changes_max: 1024 * WRITES_PER_REGION_MAX,
            batch_changes_max: 4096,
            batch_bytes_max: 4 << 20,
            ahead_bytes: 16 << 20,
        }
    }
}

/// Who hears what came of the writes. Called on the log thread: it must hand on and return, never wait.
pub trait LogSink: Send {
    /// The write `number` of `region` is on disk, and all before it.
    fn persisted(&mut self, region: RegionId, number: u64);
    /// These messages may leave. The report of their write came before.
    fn send(&mut self, region: RegionId, messages: Vec<Message>);
    /// All that came of one batch was said.
    fn reported(&mut self) {}
    /// Writing failed. This is the last call; the process must stop.
    fn failed(&mut self, error: Error);
}

/// Why a write was not taken. It comes back.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// More than [`WRITES_PER_REGION_MAX`] are outstanding per region. Hand it in again, before any later one of its
    /// region, when earlier ones are reported.
    #[error("the log writer's queue is full")]
    Full(Box<LogWrite>),
    /// The writer failed, which it said to its sink, or was shut down.
    #[error("the log writer has stopped")]
    Stopped(Box<LogWrite>),
}

enum Command {
    Change(Change),
    /// The watermark could not be written.
    Fail(Error),
    Shutdown,
}

/// Hands changes to the log writer. Cheap to clone; none of its calls waits for the disk, but for
/// [`LogWriterHandle::write_origins_here`].
#[derive(Clone)]
pub struct LogWriterHandle {
    queue: Sender<Command>,
    metrics: Arc<LogMetrics>,
    committer: Arc<dyn CommitHere>,
    /// Writes of origins' logs that were queued and not reported yet.
    origins_waiting: Arc<AtomicUsize>,
}

impl LogWriterHandle {
    /// Queues one write of a region's group. Those of a group are done and reported in the order of these calls.
    ///
    /// # Errors
    /// It was not taken, and comes back.
    pub fn append(&self, region: RegionId, write: LogWrite) -> std::result::Result<(), AppendError> {
        let command = Command::Change(Change::Append { region, write: Box::new(write) });
        self.queue.try_send(command).map_err(|error| match error {
            Unsent::Full(Command::Change(Change::Append { write, .. })) => AppendError::Full(write),
            Unsent::Closed(Command::Change(Change::Append { write, .. })) => AppendError::Stopped(write),
            _ => unreachable!("the channel gives back what it was given"),
        })
    }

    /// Queues one write of a region's origins' logs. `done` is called on the log thread once it is on disk, and synced if it
    /// asks for that. Those of all regions are done and reported in the order of these calls.
    ///
    /// # Errors
    /// It was not taken: [`Error::LogQueueFull`] or [`Error::LogWriterStopped`].
    pub fn write_origins(
        &self,
        region: RegionId,
        write: OriginWrite,
        done: impl FnOnce() + Send + 'static,
    ) -> Result<()> {
        self.queue_origins(region, Box::new(write), Box::new(done))
    }

    fn queue_origins(&self, region: RegionId, write: Box<OriginWrite>, done: Done) -> Result<()> {
        let waiting = self.origins_waiting.clone();
        let done = Box::new(move || {
            waiting.fetch_sub(1, Ordering::AcqRel);
            done();
        });
        self.origins_waiting.fetch_add(1, Ordering::AcqRel);
        self.change(Change::Origins { region, write, done })
    }

    /// The same, but done and reported before this returns, if the log's thread is idle. For a thread that has nothing better to do
    /// than to wait for it.
    ///
    /// # Errors
    /// It was not taken: [`Error::LogQueueFull`] or [`Error::LogWriterStopped`].
    pub fn write_origins_here(
        &self,
        region: RegionId,
        write: OriginWrite,
        done: impl FnOnce() + Send + 'static,
    ) -> Result<()> {
        let (mut write, mut done): (_, Done) = (Box::new(write), Box::new(done));
        // What the origins' logs were given before comes before; and where anything waits, a sync is about to begin anyway.
        if self.origins_waiting.load(Ordering::Acquire) == 0 && self.queue.is_empty() {
            (write, done) = match self.committer.commit_here(region, write, done) {
                Ok(committed) => return committed,
                Err(given_back) => given_back,
            };
        }
        self.queue_origins(region, write, done)
    }

    /// Queues the removal of `region`'s entries up to `to`, with the table of terms that says so. Not synced: after a
    /// crash the entries may be back, together with the old table.
    ///
    /// # Errors
    /// It was not taken: [`Error::LogQueueFull`] or [`Error::LogWriterStopped`].
    pub fn truncate(&self, region: RegionId, to: Index, terms: Vec<u8>) -> Result<()> {
        fail_point!("log-before-truncate");
        self.change(Change::Truncate { region, to, terms })
    }

    /// Queues the note that `region`'s data is about to be replaced by a snapshot, of which `write` is the write that is to
    /// follow. `done` is called on the log thread once the note is synced; then comes [`Data::install`], then `write`.
    ///
    /// # Errors
    /// It was not taken: [`Error::LogQueueFull`] or [`Error::LogWriterStopped`]; or `write` carries no snapshot.
    ///
    /// [`Data::install`]: crate::Data::install
    pub fn note_snapshot(
        &self,
        region: RegionId,
        write: &LogWrite,
        done: impl FnOnce() + Send + 'static,
    ) -> Result<()> {
        let (Some(place), Some(hard_state)) = (write.snapshot, &write.hard_state) else {
            return Err(Error::damaged_region(region, "a write without a snapshot was to follow one"));
        };
        let hard_state = decode_hard_state(hard_state).map_err(Error::corrupt_region(region))?;
        let note = Note { place, hard_state };
        self.change(Change::NoteSnapshot { region, note, done: Box::new(done) })
    }

    /// Queues the creation of a region with these voters. `done` is called on the log thread once that is synced.
    /// Repeating it with the same voters is harmless.
    ///
    /// # Errors
    /// It was not taken: [`Error::LogQueueFull`] or [`Error::LogWriterStopped`].
    pub fn create_region(
        &self,
        region: RegionId,
        members: Vec<NodeId>,
        done: impl FnOnce() + Send + 'static,
    ) -> Result<()> {
        self.change(Change::Create { region, members, done: Box::new(done) })
    }

    /// Queues the removal of all that the log has of a region. `done` is called on the log thread once that is synced.
    ///
    /// [`Data::destroy`](crate::Data::destroy) goes first and the log follows: what a crash in between leaves is a log
    /// that no namespace of the flushed catalog names. The other way round it could leave data whose log is lost.
    ///
    /// # Errors
    /// It was not taken: [`Error::LogQueueFull`] or [`Error::LogWriterStopped`].
    pub fn destroy_region(&self, region: RegionId, done: impl FnOnce() + Send + 'static) -> Result<()> {
        self.change(Change::Destroy { region, done: Box::new(done) })
    }

    /// Whether what can wait is to wait: half of the queue is taken, and the rest is for what cannot.
    pub fn is_crowded(&self) -> bool {
        self.queue.capacity() <= 2 * self.queue.len()
    }

    /// Changes that wait in the queue.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Batches that the log has synced since it was made. It never goes back: a peer that sees it smaller than before
    /// sees a log that lost something.
    pub fn synced_position(&self) -> u64 {
        self.metrics.synced_position.load(Ordering::Relaxed)
    }

    /// What the writer has counted.
    pub fn metrics(&self) -> &LogMetrics {
        &self.metrics
    }

    fn change(&self, change: Change) -> Result<()> {
        self.queue.try_send(Command::Change(change)).map_err(|error| match error {
            Unsent::Full(_) => Error::LogQueueFull,
            Unsent::Closed(_) => Error::LogWriterStopped,
        })
    }
}

/// The running log writer. Dropping it shuts it down.
pub struct LogWriter {
    handle: LogWriterHandle,
    thread: Option<JoinHandle<bool>>,
}

impl LogWriter {
    /// Starts the thread. There must be only one for an engine.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn spawn(engine: &Engine, options: &LogWriterOptions, sink: impl LogSink + 'static) -> Result<Self> {
        let (queue, commands) = bounded(options.queue_changes_max);
        let keeper = {
            let queue = queue.clone();
            // If the log thread has failed by itself there is nobody to tell, and no need to.
            Keeper::spawn(engine.watermark(), move |error| drop(queue.send(Command::Fail(error))))?
        };
        let metrics = Arc::<LogMetrics>::default();
        metrics.synced_position.store(engine.position(), Ordering::Relaxed);
        let committer = Arc::new(Mutex::new(Some(Committer {
            databases: engine.databases(),
            sink,
            keeper,
            ahead: LogAhead::spawn(engine.databases().log.path(), options.ahead_bytes)?,
            metrics: metrics.clone(),
            position: engine.position(),
            unsynced: false,
        })));
        let handle =
            LogWriterHandle { queue, metrics, committer: committer.clone(), origins_waiting: Arc::default() };
        let writer = Writer { databases: engine.databases(), options: options.clone(), commands, committer };
        let thread = std::thread::Builder::new().name("log-writer".into()).spawn(move || writer.run());
        let thread = thread.map_err(|source| Error::Io {
            doing: "start the log writer's thread for",
            path: "log".into(),
            source,
        })?;
        Ok(Self { handle, thread: Some(thread) })
    }

    /// Hands changes to this writer.
    pub fn handle(&self) -> LogWriterHandle {
        self.handle.clone()
    }

    /// Writes, syncs and reports all that was queued before this call, then ends the thread.
    ///
    /// # Errors
    /// [`Error::LogWriterStopped`]: it had failed or did so now, which the sink has heard.
    pub fn shutdown(mut self) -> Result<()> {
        if self.stop() { Ok(()) } else { Err(Error::LogWriterStopped) }
    }

    fn stop(&mut self) -> bool {
        let Some(thread) = self.thread.take() else { return true };
        // Waits for a place in the queue. If the thread is gone, joining says how it went.
        let _ = self.handle.queue.send(Command::Shutdown);
        thread.join().unwrap_or(false)
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What follows a batch.
#[derive(PartialEq, Eq)]
enum Next {
    Batch,
    Shutdown,
}

/// The thread.
struct Writer<S> {
    databases: Arc<Databases>,
    options: LogWriterOptions,
    commands: Receiver<Command>,
    committer: Shared<S>,
}

/// Held by whichever thread commits. `None` after a failure, which the sink has heard, and at the end.
type Shared<S> = Arc<Mutex<Option<Committer<S>>>>;

impl<S: LogSink> Writer<S> {
    /// Runs until told to stop. Returns whether all went well.
    fn run(self) -> bool {
        let worked = self.work();
        let Some(committer) = self.committer.lock().take() else { return false };
        match worked {
            Ok(()) => committer.finish(),
            Err(error) => committer.fail(error),
        }
    }

    fn work(&self) -> Result<()> {
        loop {
            // This thread's owner keeps a handle until it has joined it: the queue is never without a sender.
            let first = self.commands.recv().ok();
            // What is being committed elsewhere comes before, and more may come in the meantime.
            let mut committer = self.committer.lock();
            let Some(committer) = committer.as_mut() else { return Ok(()) };
            let mut batch = Batch::new(&self.databases)?;
            let next = self.gather(first, &mut batch)?;
            // The last batch leaves nothing unsynced behind.
            batch.sync |= next == Next::Shutdown;
            committer.commit(batch)?;
            if next == Next::Shutdown {
                return Ok(());
            }
        }
    }

    /// Takes the first change and those that wait behind it.
    fn gather(&self, first: Option<Command>, batch: &mut Batch<'_>) -> Result<Next> {
        let mut waiting = first;
        while let Some(command) = waiting {
            match command {
                Command::Change(change) => batch.add(change)?,
                Command::Fail(error) => return Err(error),
                Command::Shutdown => return Ok(Next::Shutdown),
            }
            let room = batch.changes < self.options.batch_changes_max
                && batch.bytes() < self.options.batch_bytes_max;
            waiting = if room { self.commands.try_recv().ok() } else { None };
        }
        Ok(Next::Batch)
    }
}

/// What commits batches, one at a time.
struct Committer<S> {
    databases: Arc<Databases>,
    sink: S,
    keeper: Keeper,
    ahead: LogAhead,
    metrics: Arc<LogMetrics>,
    /// Of the last batch written.
    position: u64,
    /// Whether batches were written since the last sync.
    unsynced: bool,
}

/// Whether a write was committed; or the write, which was not.
type Here = std::result::Result<Result<()>, (Box<OriginWrite>, Done)>;

/// What a handle knows of it.
trait CommitHere: Send + Sync {
    /// Makes the write durable and reports it, unless another thread commits: then it comes back.
    fn commit_here(&self, region: RegionId, write: Box<OriginWrite>, done: Done) -> Here;
}

impl<S: LogSink> CommitHere for Mutex<Option<Committer<S>>> {
    fn commit_here(&self, region: RegionId, write: Box<OriginWrite>, done: Done) -> Here {
        let Some(mut place) = self.try_lock() else { return Err((write, done)) };
        let Some(committer) = place.as_mut() else { return Ok(Err(Error::LogWriterStopped)) };
        let change = Change::Origins { region, write, done };
        let Err(error) = committer.commit_one(change) else { return Ok(Ok(())) };
        if let Some(committer) = place.take() {
            committer.fail(error);
        }
        Ok(Err(Error::LogWriterStopped))
    }
}

impl<S: LogSink> Committer<S> {
    fn commit_one(&mut self, change: Change) -> Result<()> {
        let databases = self.databases.clone();
        let mut batch = Batch::new(&databases)?;
        batch.add(change)?;
        self.commit(batch)
    }

    /// Ends it. Returns whether all went well.
    fn finish(self) -> bool {
        let Self { mut sink, keeper, .. } = self;
        keeper.finish().map_err(|error| report_failure(&mut sink, error)).is_ok()
    }

    fn fail(self, error: Error) -> bool {
        let Self { mut sink, .. } = self;
        report_failure(&mut sink, error);
        false
    }

    /// Makes the batch durable as far as it asks, then reports it.
    fn commit(&mut self, mut batch: Batch<'_>) -> Result<()> {
        let reports = std::mem::take(&mut batch.reports);
        // PLANTED BUG: promises are made before they are true. A power cut then loses what others count on.
        #[cfg(feature = "bug-persisted-before-sync")]
        {
            self.report(reports);
            self.store(batch)
        }
        #[cfg(not(feature = "bug-persisted-before-sync"))]
        {
            fail_point!("log-before-write");
            self.store(batch)?;
            fail_point!("log-after-sync");
            self.report(reports);
            fail_point!("log-after-report");
            Ok(())
        }
    }

    fn store(&mut self, batch: Batch<'_>) -> Result<()> {
        let Batch { mut writes, sync, promise, changes, .. } = batch;
        self.metrics.commands.fetch_add(changes as u64, Ordering::Relaxed);
        let began = Instant::now();
        self.metrics.begin_batch();
        if !writes.is_empty() {
            self.position += 1;
            let synced = self.metrics.synced_position.load(Ordering::Relaxed);
            writes.put(keys::LOG_POSITION, Position { at: self.position, synced }.encode());
            self.metrics.batches.fetch_add(1, Ordering::Relaxed);
            let bytes = writes.size_in_bytes() as u64;
            self.metrics.bytes.fetch_add(bytes, Ordering::Relaxed);
            let mut options = WriteOptions::default();
            options.set_sync(sync);
            self.databases.log.write_opt(writes, &options).map_err(Error::rocks("write to the log"))?;
            self.ahead.wrote(bytes);
            self.unsynced = true;
        } else if sync && self.unsynced {
            // Nothing new, but what was written before is to be synced by the time this is reported.
            self.databases.log.flush_wal(true).map_err(Error::rocks("sync the log"))?;
        }
        if sync && self.unsynced {
            self.unsynced = false;
            self.metrics.sync.observe(began.elapsed());
            self.metrics.synced_position.store(self.position, Ordering::Relaxed);
            self.keeper.synced(self.position);
        }
        self.metrics.end_batch();
        if promise { self.keeper.promise(self.position) } else { Ok(()) }
    }

    fn report(&mut self, reports: Vec<Report>) {
        for report in reports {
            match report {
                Report::Persisted { region, number, then_send } => {
                    self.sink.persisted(region, number);
                    if !then_send.is_empty() {
                        self.sink.send(region, then_send);
                    }
                }
                Report::Done(done) => done(),
            }
        }
        self.sink.reported();
    }
}

fn report_failure(sink: &mut impl LogSink, error: Error) {
    tracing::error!(%error, "the log cannot be written; this process must stop");
    sink.failed(error);
}

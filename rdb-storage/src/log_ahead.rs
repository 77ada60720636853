//! The newest write-ahead log is made longer than what is in it, ahead of what will be written.
//!
//! A write that lengthens a file changes the file's length, and the sync behind it has to make the new length durable too: the
//! file system's journal takes a turn of its own for that. Where the file is long enough already, a sync writes the bytes and
//! little else: on ext4 it takes about two thirds of the time. RocksDB reserves the space ahead, but does not lengthen the file.
//!
//! What is not written yet reads as zeroes. A start takes zeroes up to a file's end for the end of what was written, see
//! `wal.rs`, and so does RocksDB, which cuts a file to what is in it when it is done with it.
//!
//! Nothing is promised by this, and where it fails, for want of space or since the file system has no such call, syncs take
//! longer.

use crate::directory;
use crate::error::{Error, Result};
use crate::wal;
use crossbeam_channel::{Receiver, Sender, bounded};
use rustix::fs::FallocateFlags;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

/// After how much of what it is made longer by it is looked at again. Logs change in between, and what is written to the next one
/// until then lengthens it.
const LOOKS: u64 = 4;

/// The thread that does it, and its owner's end of it.
pub(crate) struct LogAhead {
    /// Bytes that the log has taken since this began, at most.
    written: Arc<AtomicU64>,
    /// How many of them are looked for next.
    next_look: u64,
    step: u64,
    /// Tells the thread to look. Dropped to tell it to end.
    look: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl LogAhead {
    /// Starts the thread. The newest log in `database` is kept `ahead` bytes longer than what is in it, or a little less; with 0
    /// nothing is done.
    pub(crate) fn spawn(database: &Path, ahead: u64) -> Result<Self> {
        let written = Arc::new(AtomicU64::new(0));
        let step = ahead / LOOKS;
        let mut started = Self { written: written.clone(), next_look: 1, step, look: None, thread: None };
        if step == 0 {
            return Ok(started);
        }
        let (look, asked) = bounded(1);
        let newest = Newest { database: database.to_path_buf(), ahead, log: None };
        let thread = std::thread::Builder::new()
            .name("log-ahead".into())
            .spawn(move || run(newest, &written, &asked))
            .map_err(Error::io("start the thread that lengthens the log in", database))?;
        (started.look, started.thread) = (Some(look), Some(thread));
        Ok(started)
    }

    /// A batch of so many bytes is in the log.
    pub(crate) fn wrote(&mut self, bytes: u64) {
        let Some(look) = &self.look else { return };
        let bytes = bytes + wal::overhead_bytes_max(bytes);
        let written = self.written.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if self.next_look <= written {
            self.next_look = written + self.step;
            // If the channel is full the thread is yet to look.
            let _ = look.try_send(());
        }
    }
}

impl Drop for LogAhead {
    fn drop(&mut self) {
        self.look = None;
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported by the panic hook, and nothing rests on what it did.
            let _ = thread.join();
        }
    }
}

fn run(mut newest: Newest, written: &AtomicU64, asked: &Receiver<()>) {
    while asked.recv().is_ok() {
        if let Err(error) = newest.lengthen(written.load(Ordering::Relaxed)) {
            tracing::warn!(%error, "the log is not made longer ahead of what is written; syncs may take longer");
            return;
        }
    }
}

/// The newest log.
struct Newest {
    database: PathBuf,
    ahead: u64,
    log: Option<Log>,
}

/// What is known of it.
struct Log {
    path: PathBuf,
    /// Its length when it was first seen: so much was in it.
    had: u64,
    /// How much all logs had been given by then.
    written_then: u64,
}

impl Newest {
    /// Makes it longer, if that is due; of all logs, `written` bytes were written.
    fn lengthen(&mut self, written: u64) -> Result<()> {
        let Some(path) = directory::logs(&self.database)?.pop() else { return Ok(()) };
        // RocksDB may have put it aside by now.
        let Ok(file) = OpenOptions::new().write(true).open(&path) else { return Ok(()) };
        let len = file.metadata().map_err(Error::io("look at", &path))?.len();
        let log = match self.log.take().filter(|log| log.path == path) {
            Some(log) => log,
            None => Log { path: path.clone(), had: len, written_then: written },
        };
        let end = log.had + (written - log.written_then);
        self.log = Some(log);
        if len < end + self.ahead - self.ahead / LOOKS {
            rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, end + self.ahead)
                .map_err(|error| Error::io("lengthen", &path)(error.into()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AHEAD: u64 = 64 << 10;

    fn length(path: &Path) -> u64 {
        path.metadata().unwrap().len()
    }

    #[test]
    fn the_newest_log_stays_ahead_of_what_is_written() {
        let directory = tempfile::tempdir().unwrap();
        let (older, newer) = (directory.path().join("000004.log"), directory.path().join("000010.log"));
        std::fs::write(&older, [1; 100]).unwrap();
        std::fs::write(&newer, [2; 1000]).unwrap();
        let mut newest = Newest { database: directory.path().to_path_buf(), ahead: AHEAD, log: None };
        newest.lengthen(5000).unwrap();
        assert_eq!((length(&older), length(&newer)), (100, 1000 + AHEAD));
        assert_eq!(std::fs::read(&newer).unwrap()[..1000], [2; 1000]);
        newest.lengthen(5000 + AHEAD / LOOKS - 1).unwrap();
        assert_eq!(length(&newer), 1000 + AHEAD, "not yet");
        newest.lengthen(5000 + AHEAD / LOOKS + 1).unwrap();
        assert_eq!(length(&newer), 1001 + AHEAD + AHEAD / LOOKS);

        let next = directory.path().join("000011.log");
        std::fs::write(&next, [3; 10]).unwrap();
        newest.lengthen(5000 + AHEAD).unwrap();
        assert_eq!(length(&next), 10 + AHEAD);
        assert_eq!(length(&newer), 1001 + AHEAD + AHEAD / LOOKS, "it is left alone");
    }

    #[test]
    fn it_is_looked_at_after_the_first_write_and_then_now_and_then() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("000001.log");
        std::fs::write(&log, []).unwrap();
        let mut ahead = LogAhead::spawn(directory.path(), AHEAD).unwrap();
        ahead.wrote(1);
        let next_look = ahead.next_look;
        ahead.wrote(1);
        assert_eq!(ahead.next_look, next_look, "not yet");
        ahead.wrote(AHEAD / LOOKS);
        assert!(next_look + AHEAD / LOOKS <= ahead.next_look);
        drop(ahead);
        assert!(AHEAD <= length(&log));
    }

    #[test]
    fn without_a_log_or_a_length_nothing_is_done() {
        let directory = tempfile::tempdir().unwrap();
        let mut ahead = LogAhead::spawn(directory.path(), AHEAD).unwrap();
        ahead.wrote(1);
        drop(ahead);
        let log = directory.path().join("000001.log");
        std::fs::write(&log, []).unwrap();
        let mut ahead = LogAhead::spawn(directory.path(), 0).unwrap();
        ahead.wrote(1);
        drop(ahead);
        assert_eq!(length(&log), 0);
    }
}

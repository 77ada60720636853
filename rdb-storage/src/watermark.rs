//! How far the log was synced when this node last promised something: a second memory, beside the log.
//!
//! A log that lost its end, or a whole file of it, opens as if nothing had happened. Its node would vote again in a
//! term in which it has voted, and would have fewer entries than it confirmed. So every batch that goes to the log
//! carries the next `position`, and the last synced one is noted here: in a file of its own, which a fault of the log
//! does not touch. At start, a log that is behind its watermark is refused.
//!
//! A note costs a sync of its own. A vote is rare and two votes in a term break everything, so a batch with a changed
//! vote is noted before its messages leave. All else is noted by a thread of its own at most [`INTERVAL`] later: an end
//! of the log that is lost within that time is not noticed here.
//!
//! ```text
//! two slots, each 4 KiB, written in turn: a torn write leaves the other one
//! slot: "FDBWATER" | format 1 | store id 8 | incarnation 8 | position 8 | crc32 of all before 4
//! ```

use crate::directory::{self, WATERMARK};
use crate::error::{Error, Result};
use crate::identity::Identity;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use rdb_core::codec::{Corrupt, Reader};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// What is synced is noted at most this much later.
pub(crate) const INTERVAL: Duration = Duration::from_millis(100);

/// No disk tears a write within a sector, and no sector is larger.
const SLOT_BYTES: usize = 4096;
const MAGIC: &[u8; 8] = b"FDBWATER";
const FORMAT: u8 = 1;
/// The bytes of a slot that are used, without the checksum.
const BODY_BYTES: usize = 8 + 1 + 3 * 8;

/// What one slot says. The larger one of two is the newer one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Note {
    pub(crate) incarnation: u64,
    pub(crate) position: u64,
    pub(crate) store_id: u64,
}

impl Note {
    pub(crate) fn encode(self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.push(FORMAT);
        for number in [self.store_id, self.incarnation, self.position] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        let crc = crc32fast::hash(&out);
        out.extend_from_slice(&crc.to_be_bytes());
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> std::result::Result<Self, Corrupt> {
        let mut reader = Reader::new("a slot", bytes);
        let body = reader.take(BODY_BYTES)?;
        if reader.take(4)? != crc32fast::hash(body).to_be_bytes() {
            return Err(reader.corrupt("its checksum does not match"));
        }
        let mut reader = Reader::new("a slot", body);
        if reader.take(MAGIC.len())? != MAGIC || reader.u8()? != FORMAT {
            return Err(reader.corrupt("its format is not known to this version of FlareDB"));
        }
        Ok(Self { store_id: reader.u64()?, incarnation: reader.u64()?, position: reader.u64()? })
    }
}

#[derive(Debug)]
struct Slots {
    newest: Note,
    /// Which slot is written next: the one that is not the newest.
    next: u64,
}

/// The watermark file.
#[derive(Debug)]
pub(crate) struct Watermark {
    path: PathBuf,
    file: File,
    slots: Mutex<Slots>,
}

impl Watermark {
    /// Makes the file of a new data directory and syncs it; its name is not synced yet.
    pub(crate) fn create(directory: &Path, identity: &Identity) -> Result<()> {
        let note = Note { incarnation: identity.incarnation, position: 0, store_id: identity.store_id };
        let mut bytes = note.encode();
        bytes.resize(2 * SLOT_BYTES, 0);
        directory::write_synced(&directory.join(WATERMARK), &bytes)
    }

    /// Opens the file. A slot that is damaged was being written when the power went: the other one counts.
    pub(crate) fn open(directory: &Path, identity: &Identity) -> Result<Self> {
        let path = directory.join(WATERMARK);
        let damaged = |problem: String| Error::WatermarkDamaged { path: path.clone(), problem };
        let file =
            OpenOptions::new().read(true).write(true).open(&path).map_err(|e| damaged(e.to_string()))?;
        let read = |slot: u64| {
            let mut bytes = [0; BODY_BYTES + 4];
            file.read_exact_at(&mut bytes, slot * SLOT_BYTES as u64).map_err(|e| e.to_string())?;
            Note::decode(&bytes).map_err(|corrupt| corrupt.to_string())
        };
        let (newest, next) = match (read(0), read(1)) {
            (Ok(first), Ok(second)) if first < second => (second, 0),
            (Ok(first), _) => (first, 1),
            (Err(_), Ok(second)) => (second, 0),
            (Err(first), Err(second)) => return Err(damaged(format!("both slots: {first}; {second}"))),
        };
        if newest.store_id != identity.store_id {
            let found = format!("store {:016x}", newest.store_id);
            return Err(Error::Foreign { path, found, expected: Box::new(identity.clone()) });
        }
        Ok(Self { path, file, slots: Mutex::new(Slots { newest, next }) })
    }

    /// The last start that is noted.
    pub(crate) fn incarnation(&self) -> u64 {
        self.slots().newest.incarnation
    }

    /// The position that is noted.
    pub(crate) fn position(&self) -> u64 {
        self.slots().newest.position
    }

    /// Notes that a start has begun, with the log at `position`.
    pub(crate) fn begin(&self, incarnation: u64, position: u64) -> Result<()> {
        self.note(|newest| Note { incarnation, position, ..newest })
    }

    /// Notes that the log is synced up to `position`. Costs nothing if more than that is noted already.
    pub(crate) fn advance(&self, position: u64) -> Result<()> {
        self.note(|newest| Note { position: position.max(newest.position), ..newest })
    }

    fn note(&self, change: impl FnOnce(Note) -> Note) -> Result<()> {
        let mut slots = self.slots();
        let note = change(slots.newest);
        if note == slots.newest {
            return Ok(());
        }
        let written = self.file.write_all_at(&note.encode(), slots.next * SLOT_BYTES as u64);
        written.and_then(|()| self.file.sync_data()).map_err(Error::io("write and sync", &self.path))?;
        *slots = Slots { newest: note, next: 1 - slots.next };
        Ok(())
    }

    /// A panic while the lock was held left a note that is the old one or the new one: both are true.
    fn slots(&self) -> std::sync::MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread that notes what is synced, and its owner's end of it.
pub(crate) struct Keeper {
    watermark: Arc<Watermark>,
    synced: Arc<AtomicU64>,
    /// Tells the thread that there is something to note.
    wake: Sender<()>,
    /// Dropped to tell the thread to end.
    _running: Sender<()>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Starts the thread. `failed` is called there if a note cannot be written; then the thread ends.
    pub(crate) fn spawn(
        watermark: Arc<Watermark>,
        failed: impl FnOnce(Error) + Send + 'static,
    ) -> Result<Self> {
        let synced = Arc::new(AtomicU64::new(0));
        let (wake, woken) = bounded(1);
        let (running, stop) = bounded(0);
        let keep = {
            let (watermark, synced) = (watermark.clone(), synced.clone());
            move || {
                if let Err(error) = keep(&watermark, &synced, &woken, &stop) {
                    failed(error);
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("watermark".into())
            .spawn(keep)
            .map_err(Error::io("start the thread for", &watermark.path))?;
        Ok(Self { watermark, synced, wake, _running: running, thread: Some(thread) })
    }

    /// The log is synced up to `position`: note it soon.
    pub(crate) fn synced(&self, position: u64) {
        self.synced.store(position, Ordering::Release);
        // If the channel is full the thread is yet to look, and will find this position.
        let _ = self.wake.try_send(());
    }

    /// The log is synced up to `position`: note it before this returns.
    pub(crate) fn promise(&self, position: u64) -> Result<()> {
        self.synced.store(position, Ordering::Release);
        self.watermark.advance(position)
    }

    /// Ends the thread and notes all that is synced.
    pub(crate) fn finish(mut self) -> Result<()> {
        let thread = self.thread.take();
        let (watermark, synced) = (self.watermark.clone(), self.synced.load(Ordering::Acquire));
        drop(self);
        if let Some(thread) = thread {
            // A panic there has been reported by the panic hook; the note below is made all the same.
            let _ = thread.join();
        }
        watermark.advance(synced)
    }
}

/// Notes what is synced, then rests for [`INTERVAL`], until told to stop.
fn keep(watermark: &Watermark, synced: &AtomicU64, woken: &Receiver<()>, stop: &Receiver<()>) -> Result<()> {
    while woken.recv().is_ok() {
        watermark.advance(synced.load(Ordering::Acquire))?;
        if stop.recv_timeout(INTERVAL) != Err(RecvTimeoutError::Timeout) {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdb_core::ids::NodeId;

    fn identity() -> Identity {
        Identity { cluster_id: "test".into(), node_id: NodeId(1), store_id: 77, incarnation: 0 }
    }

    /// A directory with a watermark that went 0, 5, 9: slot 0 has 9, slot 1 has 5.
    fn written() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        Watermark::create(directory.path(), &identity()).unwrap();
        let watermark = Watermark::open(directory.path(), &identity()).unwrap();
        watermark.advance(5).unwrap();
        watermark.advance(9).unwrap();
        watermark.advance(7).unwrap();
        assert_eq!(watermark.position(), 9, "it never goes back");
        directory
    }

    fn flip(directory: &Path, at: usize) {
        let path = directory.join(WATERMARK);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[at] ^= 0x10;
        std::fs::write(&path, bytes).unwrap();
    }

    #[test]
    fn a_damaged_slot_leaves_the_other() {
        let directory = written();
        assert_eq!(Watermark::open(directory.path(), &identity()).unwrap().position(), 9);
        flip(directory.path(), BODY_BYTES - 1);
        let watermark = Watermark::open(directory.path(), &identity()).unwrap();
        assert_eq!(watermark.position(), 5);
        watermark.advance(6).unwrap();
        assert_eq!(Watermark::open(directory.path(), &identity()).unwrap().position(), 6);
    }

    #[test]
    fn two_damaged_slots_and_no_file_are_refused() {
        let directory = written();
        flip(directory.path(), 0);
        flip(directory.path(), SLOT_BYTES + BODY_BYTES);
        let refused = Watermark::open(directory.path(), &identity());
        assert!(matches!(refused, Err(Error::WatermarkDamaged { .. })), "{refused:?}");
        std::fs::remove_file(directory.path().join(WATERMARK)).unwrap();
        let refused = Watermark::open(directory.path(), &identity());
        assert!(matches!(refused, Err(Error::WatermarkDamaged { .. })), "{refused:?}");
    }

    #[test]
    fn the_watermark_of_another_store_is_refused() {
        let directory = written();
        let other = Identity { store_id: 78, ..identity() };
        let refused = Watermark::open(directory.path(), &other);
        assert!(matches!(refused, Err(Error::Foreign { .. })), "{refused:?}");
    }

    #[test]
    fn the_keeper_notes_soon_and_at_the_end() {
        let directory = written();
        let watermark = Arc::new(Watermark::open(directory.path(), &identity()).unwrap());
        let keeper = Keeper::spawn(watermark.clone(), |error| panic!("{error}")).unwrap();
        keeper.synced(10);
        for _ in 0..1000 {
            if watermark.position() == 10 {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(watermark.position(), 10);
        keeper.synced(11);
        keeper.finish().unwrap();
        assert_eq!(Watermark::open(directory.path(), &identity()).unwrap().position(), 11);
    }
}

//! A node's part of the log disk that belongs to eventual mode: runs, the records about its gate, the clock's mark, the note of
//! the era that it has answered in, and what it has set aside. Written is what the process reads, synced what a crash leaves.

use super::planted::{Shortcut, takes};
use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;
use rdb_core::codec::Corrupt;
use rdb_core::eventual::copy::Note;
use rdb_core::eventual::origin_log::Held;
use rdb_core::eventual::vector::{Origin, Seq};
use rdb_core::ids::{Era, Index};
use rdb_core::switch::Control;
use rdb_core::version::Hlc;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// A run, as it lies on disk.
pub(super) type Bytes = Rc<Vec<u8>>;

/// A step of a batch.
#[derive(Debug, Clone)]
pub(super) enum Op {
    Run(Era, Held, Bytes),
    /// Runs of an origin that end here or before go.
    Drop(Era, Origin, Seq),
    Control(Control),
    /// Stamps below this may be given out.
    Mark(Hlc),
    /// The era that the region is in, and the entry of its log up to which it is so.
    Note(Era, Index),
    /// Writes, by their numbers, that the cluster has gone on without.
    Quarantine(Vec<u64>),
    /// A page of a copy. With the first one go those of an earlier copy.
    Aside(Era, u64, Bytes),
    /// All pages of a copy are there.
    Copied(Rc<Note>),
    /// The copy is merged and flushed.
    CopyDone(Era),
    /// Runs and control records of earlier eras go.
    Forget(Era),
}

#[derive(Debug, Clone, Default)]
pub(super) struct Files {
    runs: BTreeMap<(Era, Origin, Seq), (Held, Bytes)>,
    controls: Vec<Vec<u8>>,
    pub(super) mark: Hlc,
    pub(super) note: (Era, Index),
    pub(super) quarantine: BTreeSet<u64>,
    /// Of each era a copy: its pages, and the note that they are complete.
    copies: BTreeMap<Era, (Vec<Bytes>, Option<Rc<Note>>)>,
}

#[derive(Debug, Default)]
pub(super) struct OriginDisk {
    written: Files,
    synced: Files,
    unsynced: Vec<Vec<Op>>,
}

impl OriginDisk {
    pub(super) fn write(&mut self, batch: Vec<Op>) {
        self.written.write(&batch);
        self.unsynced.push(batch);
    }

    /// All that was written survives from now on.
    pub(super) fn sync(&mut self) {
        for batch in self.unsynced.drain(..) {
            self.synced.write(&batch);
        }
    }

    /// The power fails. Of what was only written, a beginning of random length may have reached the disk.
    pub(super) fn crash(&mut self, rng: &mut ChaCha8Rng) {
        let kept = rng.random_range(0..=self.unsynced.len());
        for batch in self.unsynced.drain(..).take(kept) {
            self.synced.write(&batch);
        }
        self.written = self.synced.clone();
    }

    /// What a crash would leave for certain.
    pub(super) fn synced(&self) -> &Files {
        &self.synced
    }

    /// What the process finds.
    pub(super) fn written(&self) -> &Files {
        &self.written
    }
}

impl Files {
    fn write(&mut self, batch: &[Op]) {
        for op in batch {
            match op {
                Op::Run(era, held, bytes) => {
                    self.runs.insert((*era, held.origin, held.last), (*held, Rc::clone(bytes)));
                }
                Op::Drop(era, origin, to) => {
                    self.runs.retain(|(of, by, last), _| (of, by) != (era, origin) || to < last);
                }
                Op::Control(control) => self.controls.push(control.encode()),
                Op::Mark(mark) => self.mark = self.mark.max(*mark),
                Op::Note(era, index) => self.note = self.note.max((*era, *index)),
                Op::Quarantine(elements) => self.quarantine.extend(elements),
                Op::Aside(era, number, bytes) => {
                    let (pages, _) = self.copies.entry(*era).or_default();
                    pages.truncate(usize::try_from(*number).unwrap_or(usize::MAX));
                    pages.push(Rc::clone(bytes));
                }
                Op::Copied(note) => self.copies.entry(note.era).or_default().1 = Some(Rc::clone(note)),
                Op::CopyDone(era) => drop(self.copies.remove(era)),
                Op::Forget(era) => {
                    self.copies.retain(|of, _| era <= of);
                    self.runs.retain(|(of, ..), _| era <= of);
                    self.controls.retain(|bytes| Control::decode(bytes).is_ok_and(|c| *era <= c.era()));
                }
            }
        }
    }

    /// A page of a copy.
    pub(super) fn aside(&self, era: Era, number: usize) -> Option<Bytes> {
        self.copies.get(&era).and_then(|(pages, _)| pages.get(number)).cloned()
    }

    /// The copy of that era that is complete.
    pub(super) fn copied(&self, era: Era) -> Option<Rc<Note>> {
        let (pages, note) = self.copies.get(&era)?;
        let note = note.clone()?;
        match takes(Shortcut::NotesCopyEarly) {
            true => Some(Rc::new(Note { pages: pages.len() as u64, ..Note::clone(&note) })),
            false => Some(note),
        }
    }

    /// An era's runs, of each origin in order.
    pub(super) fn runs_of(&self, era: Era) -> impl Iterator<Item = &(Held, Bytes)> {
        self.runs.iter().filter(move |((of, ..), _)| *of == era).map(|(_, run)| run)
    }

    /// All runs there are.
    pub(super) fn runs(&self) -> impl Iterator<Item = &Bytes> {
        self.runs.values().map(|(_, bytes)| bytes)
    }

    /// The records about the gate, in order.
    pub(super) fn controls(&self) -> Result<Vec<Control>, Corrupt> {
        self.controls.iter().map(|bytes| Control::decode(bytes)).collect()
    }

    /// The oldest era of which there is anything.
    pub(super) fn oldest(&self) -> Option<Era> {
        let runs = self.runs.keys().map(|(era, ..)| *era).next();
        let controls = self.controls.iter().filter_map(|bytes| Control::decode(bytes).ok());
        controls.map(|control| control.era()).chain(runs).min()
    }
}

//! The state machine of a region in eventual mode: runs of writes in, records and the region's new state out.
//!
//! A write that this node accepts is first *written*: it gets its stamp, its place in the log, and the name of what it
//! replaces, and becomes a run. The run is logged and synced like those that come from other nodes, and only then
//! *applied*, which makes it visible. What is applied comes out as [`Changes`], to be written in one batch: records, notes
//! and state move together, as in strong mode.
//!
//! Nodes apply the runs of one origin in order, and those of different origins in any. At one vector they have the same
//! records, and have lost the same writes: see [`super::merge`].

mod batch;
mod copying;
mod keeping;
mod periodic;

pub use keeping::forget;

use super::buckets::{self, Buckets, Digest};
use super::conflicts::{self, Listed, Lost};
use super::heads::{Heads, TableKey};
use super::merge::{merge, replaced};
use super::run::{Entry, Replaced, Run};
use super::vector::{Origin, Seq, Vector, WriteId};
use crate::apply;
use crate::codec::{Corrupt, Reader, put_varint};
use crate::command::Write;
use crate::coverage::{Branch, reached};
use crate::ids::Era;
use crate::record::{self, Record};
use crate::version::{Hlc, Version};
use ahash::AHashMap;
use batch::Batch;
use std::collections::VecDeque;

const FORMAT: u8 = 1;
/// What a machine remembers of the heads of records, in bytes, unless [`Machine::set_heads_bytes_max`] is called.
const HEADS_BYTES: usize = 4 << 10;

/// So many writes that are not applied yet have a place that is kept.
const PENDING_KEPT: usize = 4096;

/// Notes with their keys.
pub type Notes = Vec<(Vec<u8>, Vec<u8>)>;

/// What the machine reads: records, and the notes beside them, as they are before what is being applied.
pub trait View: apply::View {
    /// The note under this key, if there is one.
    ///
    /// # Errors
    /// The disk could not be read.
    fn note(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Self::Error>;

    /// The notes from `from` up to, and without, `to`, in order of their keys.
    ///
    /// # Errors
    /// The disk could not be read.
    fn notes(&self, from: &[u8], to: &[u8]) -> Result<Notes, Self::Error>;

    /// The first of these: as many as it takes to come to `bytes_max` bytes with their keys, or all of them. What lies on a disk is
    /// read no further than that.
    ///
    /// # Errors
    /// The disk could not be read.
    fn first_notes(&self, from: &[u8], to: &[u8], bytes_max: usize) -> Result<Notes, Self::Error> {
        let mut notes = self.notes(from, to)?;
        let mut bytes = 0;
        let fits = notes.iter().take_while(|(key, note)| {
            let goes_on = bytes < bytes_max;
            bytes += key.len() + note.len();
            goes_on
        });
        let fits = fits.count();
        notes.truncate(fits);
        Ok(notes)
    }
}

/// What is to be written, in one batch with nothing in between.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Keys and their new records; `None` removes.
    pub records: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    /// Notes; `None` removes.
    pub notes: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    /// The region's new state, for [`State::decode`].
    pub state: Vec<u8>,
}

/// Why something could not be done. Nothing was, and nothing may be written; unless it says otherwise, the machine is
/// spent.
#[derive(Debug, thiserror::Error)]
pub enum Error<E> {
    /// What is stored is not what this version of FlareDB writes.
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
    /// A record or a note could not be read.
    #[error("read a record: {0}")]
    View(E),
    /// Writes are missing between what was applied and what comes.
    #[error(
        "the run of {origin:?} begins after its write {after}, but only those up to {applied} are applied"
    )]
    Gap {
        /// Whose run.
        origin: Origin,
        /// Where it begins.
        after: Seq,
        /// What is applied.
        applied: Seq,
    },
    /// The run is of another era than the records.
    #[error("the run is of era {found}, but the records are of era {expected}")]
    Era {
        /// The run's.
        found: Era,
        /// The region's.
        expected: Era,
    },
    /// What should be purged is not everywhere, or no tombstone.
    #[error(
        "a record was given to be purged that is no tombstone, is newer than {to:?}, or has not reached all members"
    )]
    NotPurgeable {
        /// Up to which stamp was to be purged.
        to: Hlc,
    },
}

/// What a region in eventual mode knows of itself. Stored with its records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// The era whose writes it takes.
    pub era: Era,
    /// Which of them the records reflect.
    pub applied: Vector,
    /// The highest stamp that was ever applied. The node's clock must be above it.
    pub highest: Hlc,
    /// Tombstones stamped up to here were purged.
    pub purged: Hlc,
    /// Writes of this era that are lost, as of `applied`. It may fall, when one is found again.
    pub lost: u64,
    /// Those of them that are certain: see [`conflicts::Settling`].
    pub settled: u64,
    /// Writes of earlier eras that were lost.
    pub earlier: u64,
    /// How many writes are awaited: see [`super::conflicts`].
    pub awaited: u64,
    /// How many pages of a copy are merged, while there are more: the records are then ahead of `applied`.
    pub copied_pages: u64,
    /// Up to where that copy goes; nothing, if there is none.
    pub copied_to: Vector,
}

impl State {
    /// At the beginning of `era`, in a region whose highest stamp was `highest`.
    pub fn begin(era: Era, highest: Hlc) -> Self {
        let (applied, purged) = (Vector::default(), Hlc::default());
        Self {
            era,
            applied,
            highest,
            purged,
            lost: 0,
            settled: 0,
            earlier: 0,
            awaited: 0,
            copied_pages: 0,
            copied_to: Vector::default(),
        }
    }

    /// How many writes were lost for certain, in this era and before. It only grows, and comes to the same on every
    /// member.
    pub fn lost_for_certain(&self) -> u64 {
        self.earlier + self.settled
    }

    /// All that a reader may have found in the records. While a copy is merged they are ahead of what is applied.
    pub fn found(&self) -> Vector {
        let mut found = self.applied.clone();
        found.merge(&self.copied_to);
        found
    }

    /// As it goes to disk.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![FORMAT];
        put_varint(&mut out, u64::from(self.era.0));
        self.applied.put(&mut out);
        out.extend_from_slice(&self.highest.0.to_be_bytes());
        out.extend_from_slice(&self.purged.0.to_be_bytes());
        let counts = [self.lost, self.settled, self.earlier, self.awaited];
        counts.iter().for_each(|count| put_varint(&mut out, *count));
        if self.copied_pages != 0 {
            put_varint(&mut out, self.copied_pages);
            self.copied_to.put(&mut out);
        }
        out
    }

    /// As it comes from disk.
    ///
    /// # Errors
    /// The bytes are damaged, or a later FlareDB wrote them.
    pub fn decode(bytes: &[u8]) -> Result<Self, Corrupt> {
        let mut reader = Reader::new("an eventual region's state", bytes);
        if reader.u8()? != FORMAT {
            return Err(reader.corrupt("its format is not known to this version of FlareDB"));
        }
        let mut state = Self {
            era: Era(reader.varint32()?),
            applied: Vector::read(&mut reader)?,
            highest: Hlc(reader.u64()?),
            purged: Hlc(reader.u64()?),
            lost: reader.varint()?,
            settled: reader.varint()?,
            earlier: reader.varint()?,
            awaited: reader.varint()?,
            copied_pages: 0,
            copied_to: Vector::default(),
        };
        if !reader.is_empty() {
            (state.copied_pages, state.copied_to) = (reader.varint()?, Vector::read(&mut reader)?);
            // Written only while there is one, and there is one way to write a state.
            if state.copied_pages == 0 {
                return Err(reader.corrupt("it goes up to somewhere in a copy that has not begun"));
            }
        }
        reader.finish()?;
        Ok(state)
    }
}

/// One region's state machine.
#[derive(Debug)]
pub struct Machine {
    state: State,
    buckets: Buckets,
    /// Whether the values of lost writes are kept.
    keep_lost: bool,
    /// Whether this node's writes are applied before they are synced.
    is_periodic: bool,
    /// The last of this node's own writes to each key that are not applied yet.
    pending: AHashMap<TableKey, (Version, WriteId)>,
    /// What is stored under the keys that were written lately.
    heads: Heads,
    /// This node's writes that are not applied yet, or not synced, those together that were written between two changes of what was
    /// applied: the last of them, the first one's stamp, and what was applied.
    unapplied: VecDeque<(WriteId, Hlc, Vector)>,
    /// Whether what is applied is still what it was when the last write was made.
    same_applied: bool,
    /// The highest stamp written, applied or not.
    written: Hlc,
    /// What time it is, as far as this was told.
    now: Hlc,
}

impl Machine {
    /// A machine that carries on from what was stored. The buckets are those of all stored records, as [`buckets::counted`] has
    /// them, or of none: then [`Machine::add_buckets`] brings them.
    pub fn new(state: State, buckets: Buckets, keep_lost: bool) -> Self {
        if state.copied_pages != 0 {
            reached(Branch::EventualStartInCopy);
        }
        let written = state.highest;
        let mut heads = Heads::default();
        heads.set_bytes_max(HEADS_BYTES);
        Self {
            state,
            buckets,
            keep_lost,
            is_periodic: false,
            pending: AHashMap::new(),
            heads,
            unapplied: VecDeque::new(),
            same_applied: false,
            written,
            now: Hlc::default(),
        }
    }

    /// How many bytes it may take to remember which write lies under which key: what is remembered need not be read.
    pub fn set_heads_bytes_max(&mut self, bytes_max: usize) {
        self.heads.set_bytes_max(bytes_max);
    }

    /// Adds the buckets of the records that were stored when this machine was made without any.
    pub fn add_buckets(&mut self, stored: &Buckets) {
        self.buckets.add(stored);
    }

    /// The hashes of the records, if [`Machine::new`] or [`Machine::add_buckets`] has brought those that were stored.
    pub fn buckets(&self) -> &Buckets {
        &self.buckets
    }

    /// Where it stands.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// What was applied here when the oldest of this node's writes was accepted that is not applied yet: every later
    /// write of this node had at least that in front of it.
    pub fn shown(&self) -> &Vector {
        self.unapplied.front().map_or(&self.state.applied, |(.., shown)| shown)
    }

    /// All writes of this node that are not applied yet, or yet to come, are stamped above this; `clock` is the highest
    /// reading that the node's clock has passed.
    pub fn promise(&self, clock: Hlc) -> Hlc {
        self.oldest_unapplied().map_or(clock, |hlc| Hlc(hlc.0.saturating_sub(1)).min(clock))
    }

    /// The stamp of the oldest of this node's writes that is not applied yet, or, where they are applied first, not synced.
    pub fn oldest_unapplied(&self) -> Option<Hlc> {
        self.unapplied.front().map(|(_, hlc, _)| *hlc)
    }

    /// The hashes of the records, and what they are the hashes of.
    pub fn digest(&self) -> Digest {
        let State { era, applied, purged, .. } = &self.state;
        Digest { era: *era, vector: applied.clone(), purged: *purged, buckets: self.buckets.clone() }
    }

    /// Makes a run of writes that this node accepts together, as `origin`, which has written up to `after`. All get one
    /// version: the stamp, or the next one behind all that this region has, if that is higher; the clock must then be
    /// told. The view must show all that was applied.
    ///
    /// # Errors
    /// A record could not be read. No run was made.
    pub fn write<V: View>(
        &mut self,
        stamp: Hlc,
        origin: Origin,
        after: Seq,
        writes: &[Write<'_>],
        view: &V,
    ) -> Result<Run, Error<V::Error>> {
        let hlc = stamp.max(self.written.next());
        let version = Version { era: self.state.era, hlc, node: origin.node };
        let mut entries: Vec<Entry> = Vec::with_capacity(writes.len());
        for (write, seq) in writes.iter().zip(after + 1..) {
            // What was written just now under the same key is in front, too.
            let replaced = self.in_front(write.key, view)?;
            let value = write.value.map(<[u8]>::to_vec);
            entries.push(Entry { seq, hlc, key: write.key.to_vec(), value, replaced, since: seq });
            self.pending.insert(TableKey::from_slice(write.key), (version, WriteId { origin, seq }));
        }
        let run = Run { era: self.state.era, origin, after, entries };
        if after < run.last() {
            let last = WriteId { origin, seq: run.last() };
            match self.unapplied.back_mut().filter(|_| self.same_applied) {
                Some((up_to, ..)) => *up_to = last,
                None => self.unapplied.push_back((last, hlc, self.state.applied.clone())),
            }
            self.same_applied = true;
            self.written = hlc;
        }
        Ok(run)
    }

    /// What a writer has in front of him: what is stored, or this node's own last write on its way there, if that is
    /// greater.
    fn in_front<V: View>(&mut self, key: &[u8], view: &V) -> Result<Replaced, Error<V::Error>> {
        let stored = self.heads.find(key, || view.get(key).map_err(Error::View))?;
        let stored = stored.filter(|stored| stored.version.era == self.state.era);
        let stored = stored.and_then(|stored| stored.id.map(|id| (stored.version, id)));
        let greatest = stored.max(self.pending.get(key).copied());
        Ok(greatest.map_or(Replaced::Nothing(self.state.purged), |(_, id)| Replaced::Write(id)))
    }

    /// Applies runs that were synced, each following what is applied of its origin. What is applied already is passed
    /// over.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn apply<V: View>(&mut self, runs: &[Run], view: &V) -> Result<Changes, Error<V::Error>> {
        let mut batch = Batch::new(view, &mut self.heads);
        for run in runs {
            self.apply_run(run, &mut batch)?;
        }
        self.same_applied &= runs.is_empty();
        // Much is pending where a disk has stalled. A table keeps its place when it is empty.
        if self.pending.is_empty() && PENDING_KEPT < self.pending.capacity() {
            self.pending = AHashMap::new();
        }
        Ok(batch.finish(&self.state, &mut self.heads))
    }

    fn apply_run<V: View>(&mut self, run: &Run, batch: &mut Batch<'_, V>) -> Result<(), Error<V::Error>> {
        let (origin, applied) = (run.origin, self.state.applied.get(run.origin));
        if run.era != self.state.era {
            return Err(Error::Era { found: run.era, expected: self.state.era });
        }
        if applied < run.after {
            return Err(Error::Gap { origin, after: run.after, applied });
        }
        if run.last() <= applied {
            return Ok(());
        }
        if self.is_copying() {
            reached(Branch::EventualRunBetweenPages);
        }
        for entry in run.entries.iter().filter(|entry| applied < entry.seq) {
            self.apply_entry(entry, origin, batch)?;
        }
        if 0 < self.state.awaited {
            let awaited = |id| conflicts::awaited_key(run.era, id);
            let (from, to) = conflicts::between(awaited, origin, applied, run.last());
            self.state.awaited -= batch.remove_notes(&from, &to)?;
        }
        self.written = self.written.max(self.state.highest);
        // What is applied before it is synced is shown here, and not to the others.
        while !self.is_periodic
            && self.unapplied.front().is_some_and(|(last, ..)| self.state.applied.has(*last))
        {
            self.unapplied.pop_front();
        }
        Ok(())
    }

    fn apply_entry<V: View>(
        &mut self,
        entry: &Entry,
        origin: Origin,
        batch: &mut Batch<'_, V>,
    ) -> Result<(), Error<V::Error>> {
        let read: Option<Vec<u8>>;
        let stored = match batch.head(&entry.key)? {
            // A value is asked for where it is to be kept, and if the disk made two writes one.
            Some(head) if self.keep_lost || head.id == Some(WriteId { origin, seq: entry.seq }) => {
                read = batch.record(&entry.key)?;
                read.as_deref().map(record::decode).transpose()?
            }
            head => head.map(|head| head.as_record()),
        };
        let stored_id =
            stored.filter(|stored| stored.version.era == self.state.era).and_then(|stored| stored.id);
        // Mostly what is stored is what the writer had in front of him, and then there is nothing to look for.
        if !matches!(entry.replaced, Replaced::Write(id) if Some(id) == stored_id) {
            self.find_replaced(entry, batch)?;
        }
        if entry.since < entry.seq {
            let lost = |id| conflicts::lost_key(self.state.era, &entry.key, id);
            let (from, to) = conflicts::between(lost, origin, entry.since - 1, entry.seq - 1);
            self.state.lost -= batch.remove_notes(&from, &to)?;
        }
        self.merge(entry, origin, stored, batch)?;
        let id = WriteId { origin, seq: entry.seq };
        self.state.highest = self.state.highest.max(entry.hlc);
        self.state.applied.raise(origin, entry.seq);
        if self.pending.get(&*entry.key).is_some_and(|(_, pending)| *pending == id) {
            self.pending.remove(&*entry.key);
        }
        Ok(())
    }

    /// What the writer had in front of him is not lost, even if it was taken for lost; nor will it be, if it is yet to
    /// come.
    fn find_replaced<V: View>(
        &mut self,
        entry: &Entry,
        batch: &mut Batch<'_, V>,
    ) -> Result<(), Error<V::Error>> {
        let era = self.state.era;
        match entry.replaced {
            Replaced::Write(id) if self.state.applied.has(id) => {
                let found = batch.remove_note(&conflicts::lost_key(era, &entry.key, id))?;
                if found != 0 {
                    reached(Branch::EventualLostIsFound);
                }
                self.state.lost -= found;
            }
            Replaced::Write(id) => {
                self.state.awaited +=
                    batch.put_note(conflicts::awaited_key(era, id), conflicts::awaited())?;
            }
            // What this node takes for lost for the moment may be what was purged in front of the writer. What is lost for
            // certain is not: it was so before anybody purged what it lost to.
            Replaced::Nothing(purged) if purged != Hlc::default() => {
                self.state.lost -= batch.remove_lost_tombstones(era, &entry.key, purged)?;
            }
            Replaced::Nothing(_) => {}
        }
        Ok(())
    }

    fn merge<V: View>(
        &mut self,
        entry: &Entry,
        origin: Origin,
        stored: Option<Record<'_>>,
        batch: &mut Batch<'_, V>,
    ) -> Result<(), Error<V::Error>> {
        let era = self.state.era;
        let incoming = entry.record(era, origin);
        let Some(stored) = stored else {
            self.buckets.change(&entry.key, None, Some(&incoming));
            batch.put_record(&entry.key, &incoming);
            return Ok(());
        };
        let merged = merge(stored, incoming);
        let Some(goes) = merged.goes else { return Ok(()) };
        let is_lost = if goes == incoming {
            let awaited = conflicts::awaited_key(era, WriteId { origin, seq: entry.seq });
            let replaced_before = batch.remove_note(&awaited)?;
            if replaced_before != 0 {
                reached(Branch::EventualAwaitedComes);
            }
            self.state.awaited -= replaced_before;
            replaced_before == 0
        } else {
            self.buckets.change(&entry.key, buckets::counted(&stored, era), Some(&incoming));
            batch.put_record(&entry.key, &incoming);
            !replaced(entry, era, origin, &goes)
        };
        if let (true, Some(id), Some(by)) = (is_lost, goes.id, merged.stays.id) {
            reached(Branch::EventualWriteLost);
            let note = self.lost(&goes, by, merged.stays.version.hlc);
            self.state.lost += batch.put_note(conflicts::lost_key(era, &entry.key, id), note.encode())?;
        }
        Ok(())
    }

    fn lost(&self, record: &Record<'_>, by: WriteId, by_hlc: Hlc) -> Lost {
        // A write may be lost long after it was accepted, and is kept from when that was found out.
        let noted = self.now.max(self.state.highest).max(record.version.hlc).max(by_hlc);
        Lost {
            hlc: record.version.hlc,
            tombstone: record.value.is_none(),
            kept: record.value.filter(|_| self.keep_lost).map(<[u8]>::to_vec),
            by,
            settled: false,
            listed: self.keep_lost.then_some(Listed { noted, by_hlc }),
        }
    }

    /// Settles the losses that are certain at `settled`, which [`conflicts::Settling`] gave out, among `notes`, some or
    /// all of the era's lost writes. Their notes stay until [`Machine::forget_settled`] takes them away.
    ///
    /// # Errors
    /// A note is damaged.
    pub fn settle<V: View>(
        &mut self,
        settled: &Vector,
        notes: Notes,
        view: &V,
    ) -> Result<Changes, Error<V::Error>> {
        let mut batch = Batch::new(view, &mut self.heads);
        for (key, note) in notes {
            let (era, _, id) = conflicts::parse_lost_key(&key)?;
            let mut lost = Lost::decode(&note)?;
            if era != self.state.era || lost.settled || !lost.is_settled_at(id, settled) {
                continue;
            }
            self.state.settled += 1;
            lost.settled = true;
            batch.set_note(key, Some(lost.encode()));
        }
        Ok(batch.finish(&self.state, &mut self.heads))
    }

    /// Forgets losses that every member has settled, for good, among `notes`: `settled` is a vector that this node has settled up to,
    /// and since then each member has said that what any of them had applied at that time is certain there. Until then the note
    /// tells a member that takes a copy that the write was not replaced. Those that are kept stay until their time has come.
    ///
    /// # Errors
    /// A note is damaged.
    pub fn forget_settled<V: View>(
        &mut self,
        settled: &Vector,
        notes: &Notes,
        view: &V,
    ) -> Result<Changes, Error<V::Error>> {
        let mut batch = Batch::new(view, &mut self.heads);
        for (key, note) in notes {
            let (_, _, id) = conflicts::parse_lost_key(key)?;
            let lost = Lost::decode(note)?;
            if lost.settled && lost.listed.is_none() && lost.is_settled_at(id, settled) {
                batch.set_note(key.clone(), None);
            }
        }
        Ok(batch.finish(&self.state, &mut self.heads))
    }

    /// Purges tombstones: `found` are all of the namespace's that are stamped up to `to`, which must not be past the
    /// frontier, nor past what every member has settled and flushed. All members purge up to the same places, each when
    /// `settled`, which [`conflicts::Settling`] gave out, has all of them. Then they are everywhere: a node to which the deletion is yet to come would bring back what was
    /// deleted. And so are all writes whose writers did not know of them: one that is yet to come would displace the
    /// deletion elsewhere, which would be lost there and not here.
    ///
    /// # Errors
    /// One of them must not be purged; nothing was.
    pub fn purge<V: View>(
        &mut self,
        to: Hlc,
        settled: &Vector,
        found: &[(Vec<u8>, Vec<u8>)],
        view: &V,
    ) -> Result<Changes, Error<V::Error>> {
        for (_, stored) in found {
            let tombstone = record::decode(stored)?;
            let certain =
                tombstone.version.era < self.state.era || tombstone.id.is_some_and(|id| settled.has(id));
            if tombstone.value.is_some() || to < tombstone.version.hlc || !certain {
                reached(Branch::EventualPurgeRefused);
                return Err(Error::NotPurgeable { to });
            }
        }
        let mut batch = Batch::new(view, &mut self.heads);
        for (key, stored) in found {
            let tombstone = record::decode(stored)?;
            self.buckets.change(key, buckets::counted(&tombstone, self.state.era), None);
            batch.remove_record(key);
        }
        self.state.purged = self.state.purged.max(to);
        Ok(batch.finish(&self.state, &mut self.heads))
    }

    /// Begins another era, in which this region is eventual again, or for the first time. What was lost in the one
    /// before is settled: the switch between them had all of its writes on all members. The buckets are those of all
    /// stored records, as they count in this era.
    pub fn begin_era(&mut self, era: Era, highest: Hlc, buckets: Buckets) {
        let earlier = self.state.earlier + self.state.lost;
        let highest = self.state.highest.max(highest);
        self.state = State { earlier, ..State::begin(era, highest) };
        self.buckets = buckets;
        self.written = self.written.max(highest);
        self.pending = AHashMap::new();
        self.heads.clear();
        self.unapplied.clear();
    }
}

//! One batch of the log: what several regions want written, as one write, and whom to tell when it is on disk.

use crate::error::{Error, Result};
use crate::keys::{self, OriginState, RaftState};
use crate::rocks::Databases;
use crate::snapshot::Note;
use bytes::Bytes;
use rdb_core::eventual::vector::{Origin, Seq};
use rdb_core::ids::{Era, Index, NodeId, RegionId};
use rdb_core::raft::disk::{Terms, encode_members};
use rdb_core::raft::{LogWrite, Message};
use rdb_core::version::Hlc;
use rocksdb::{BoundColumnFamily, WriteBatch};
use std::sync::Arc;

/// What is to be written of a region in eventual mode, as one. What it drops goes before what it adds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OriginWrite {
    /// Whose origins' logs `runs` and `drop` are about.
    pub era: Era,
    /// All runs of earlier eras go, but for those of the eras in `quarantined`.
    pub only_from: Option<Era>,
    /// Eras with writes that the cluster went on without, in order.
    pub quarantined: Vec<Era>,
    /// Origins, and the last write of each that is no longer needed. A run that has later ones too stays.
    pub drop: Vec<(Origin, Seq)>,
    /// Origins, the last write of each run, and the encoded run.
    pub runs: Vec<(Origin, Seq, Bytes)>,
    /// What the region must remember besides, encoded.
    pub states: Vec<(OriginState, Vec<u8>)>,
    /// The node gives out no stamp from this on before a later write raises it.
    pub stamps_below: Option<Hlc>,
    /// Whether it is reported only once it is synced.
    pub sync: bool,
}

/// Called on the log thread when something is on disk.
pub(crate) type Done = Box<dyn FnOnce() + Send>;

/// Overruled entries up to this many are deleted one by one. A range tombstone is one write for any number of them, but
/// every later read of the log has to look past it.
const POINT_DELETES_MAX: u64 = 256;

/// What is to be done to the log.
pub(crate) enum Change {
    Append { region: RegionId, write: Box<LogWrite> },
    Truncate { region: RegionId, to: Index, terms: Vec<u8> },
    Origins { region: RegionId, write: Box<OriginWrite>, done: Done },
    NoteSnapshot { region: RegionId, note: Note, done: Done },
    Create { region: RegionId, members: Vec<NodeId>, done: Done },
    Destroy { region: RegionId, done: Done },
}

/// Whom to tell when the batch is on disk.
pub(crate) enum Report {
    Persisted { region: RegionId, number: u64, then_send: Vec<Message> },
    Done(Done),
}

/// Changes that are written as one.
pub(crate) struct Batch<'d> {
    log: Arc<BoundColumnFamily<'d>>,
    state: Arc<BoundColumnFamily<'d>>,
    origin_log: Arc<BoundColumnFamily<'d>>,
    origin_state: Arc<BoundColumnFamily<'d>>,
    /// What to write, the position not included.
    pub(crate) writes: WriteBatch,
    /// Whether to sync it.
    pub(crate) sync: bool,
    /// Whether the watermark must be on disk too before the reports.
    pub(crate) promise: bool,
    /// In the order of the changes.
    pub(crate) reports: Vec<Report>,
    /// How many changes it has.
    pub(crate) changes: usize,
}

impl<'d> Batch<'d> {
    pub(crate) fn new(databases: &'d Databases) -> Result<Self> {
        Ok(Self {
            log: databases.log_family(keys::RAFT_LOG)?,
            state: databases.log_family(keys::RAFT_STATE)?,
            origin_log: databases.log_family(keys::ORIGIN_LOG)?,
            origin_state: databases.log_family(keys::ORIGIN_STATE)?,
            writes: WriteBatch::default(),
            sync: false,
            promise: false,
            reports: Vec::new(),
            changes: 0,
        })
    }

    /// Its size, roughly.
    pub(crate) fn bytes(&self) -> usize {
        self.writes.size_in_bytes()
    }

    /// Takes in one change, after all others: within a batch, later writes overrule earlier ones.
    pub(crate) fn add(&mut self, change: Change) -> Result<()> {
        self.changes += 1;
        match change {
            Change::Append { region, write } => self.append(region, *write),
            Change::Truncate { region, to, terms } => self.truncate(region, to, &terms)?,
            Change::Origins { region, write, done } => self.origins(region, &write, done),
            Change::NoteSnapshot { region, note, done } => {
                self.put(region, RaftState::Snapshot, &note.encode());
                self.sync = true;
                self.reports.push(Report::Done(done));
            }
            Change::Create { region, members, done } => self.create(region, &members, done),
            Change::Destroy { region, done } => self.destroy(region, done),
        }
        Ok(())
    }

    fn append(&mut self, region: RegionId, write: LogWrite) {
        if write.snapshot.is_some() {
            self.remove_all_entries(region);
            self.writes.delete_cf(&self.state, keys::raft_state(region, RaftState::Snapshot));
        }
        if let Some((from, to)) = write.remove_stale {
            self.remove(region, from, to);
        }
        for (index, entry) in &write.entries {
            self.writes.put_cf(&self.log, keys::entry(region, *index), entry);
        }
        if let Some(hard_state) = &write.hard_state {
            self.put(region, RaftState::HardState, hard_state);
        }
        if let Some(terms) = &write.terms {
            self.put(region, RaftState::Terms, terms);
        }
        self.sync |= write.sync || write.vote_changed;
        self.promise |= write.vote_changed;
        self.reports.push(Report::Persisted { region, number: write.number, then_send: write.then_send });
    }

    fn remove(&mut self, region: RegionId, from: Index, to: Index) {
        if to.saturating_sub(from) <= POINT_DELETES_MAX {
            (from..to).for_each(|index| self.writes.delete_cf(&self.log, keys::entry(region, index)));
        } else {
            self.writes.delete_range_cf(&self.log, keys::entry(region, from), keys::entry(region, to));
        }
    }

    /// The table of terms must say that the log begins right after `to`: a restart believes it.
    fn truncate(&mut self, region: RegionId, to: Index, terms: &[u8]) -> Result<()> {
        let first = Terms::decode(terms).map_err(Error::corrupt_region(region))?.first_index();
        if first != to.saturating_add(1) {
            let problem = format!("truncation to {to} came with a table of terms that begins at {first}");
            return Err(Error::damaged_region(region, problem));
        }
        self.writes.delete_range_cf(&self.log, keys::entry(region, 0), keys::entry(region, first));
        self.put(region, RaftState::Terms, terms);
        Ok(())
    }

    fn origins(&mut self, region: RegionId, write: &OriginWrite, done: Done) {
        if let Some(era) = write.only_from {
            let mut from = keys::runs_of_era(region, Era(0)).start;
            for kept in write.quarantined.iter().filter(|kept| **kept < era) {
                let kept = keys::runs_of_era(region, *kept);
                self.writes.delete_range_cf(&self.origin_log, from, kept.start);
                from = kept.end;
            }
            let to = keys::runs_of_era(region, era).start;
            self.writes.delete_range_cf(&self.origin_log, from, to);
        }
        for (origin, to) in &write.drop {
            let from = keys::runs(region, write.era, *origin).start;
            let to = keys::run(region, write.era, *origin, to.saturating_add(1));
            self.writes.delete_range_cf(&self.origin_log, from, to.to_vec());
        }
        for (origin, last, run) in &write.runs {
            self.writes.put_cf(&self.origin_log, keys::run(region, write.era, *origin, *last), run);
        }
        for (kind, bytes) in &write.states {
            self.writes.put_cf(&self.origin_state, keys::origin_state(region, *kind), bytes);
        }
        if let Some(hlc) = write.stamps_below {
            self.writes.put(keys::LOG_HLC, hlc.0.to_be_bytes());
        }
        self.sync |= write.sync;
        self.reports.push(Report::Done(done));
    }

    fn create(&mut self, region: RegionId, members: &[NodeId], done: Done) {
        self.put(region, RaftState::Members, &encode_members(members));
        self.sync = true;
        self.reports.push(Report::Done(done));
    }

    fn remove_all_entries(&mut self, region: RegionId) {
        let entries = keys::entries(region);
        self.writes.delete_range_cf(&self.log, entries.start, entries.end);
    }

    fn destroy(&mut self, region: RegionId, done: Done) {
        self.remove_all_entries(region);
        for kind in RaftState::ALL {
            self.writes.delete_cf(&self.state, keys::raft_state(region, kind));
        }
        let runs = keys::runs_of_region(region);
        self.writes.delete_range_cf(&self.origin_log, runs.start, runs.end);
        for kind in OriginState::ALL {
            self.writes.delete_cf(&self.origin_state, keys::origin_state(region, kind));
        }
        self.sync = true;
        self.reports.push(Report::Done(done));
    }

    fn put(&mut self, region: RegionId, kind: RaftState, bytes: &[u8]) {
        self.writes.put_cf(&self.state, keys::raft_state(region, kind), bytes);
    }
}

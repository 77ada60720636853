//! A replica that a snapshot of a later era is about to replace, since the cluster has gone on without it. What it has beyond the cut
//! stays in its logs; but what a copy had brought never was in them, and is looked for among the records.
//!
//! Of each key a copy brings the write that stays, so no more than that is found, and of lost writes those whose values are kept. Each
//! is written to the log, at its number. A start begins anew, and writes the same.

use super::{Replica, ReplicaError, Tools};
use rdb_core::eventual::conflicts::{Lost, lost_of_era, parse_lost_key};
use rdb_core::eventual::run::{Entry, Replaced, Run};
use rdb_core::eventual::vector::{Seq, WriteId};
use rdb_core::ids::Era;
use rdb_core::record;
use rdb_core::switch::quarantine::{FROM_RECORDS, Tail, are_in, unlogged};
use rdb_core::version::Hlc;
use rdb_storage::OriginWrite;
use std::time::{Duration, Instant};

/// In one step, records are looked at for so long: other regions' writes wait.
const STEP: Duration = Duration::from_millis(4);
/// Bytes after which a step ends.
const STEP_BYTES: usize = 256 << 10;
/// Notes of lost writes in one step; each may have a value of the largest size.
const NOTES_PER_STEP_MAX: usize = 32;

/// Where the search goes on.
#[derive(Debug)]
enum At {
    /// At the record of this key.
    Record(Vec<u8>),
    /// At this note of a lost write.
    Lost(Vec<u8>),
    /// All was looked at.
    End,
}

/// What was found so far.
#[derive(Debug)]
pub(super) struct Leaving {
    at: At,
    found: Seq,
}

impl Default for Leaving {
    fn default() -> Self {
        Self { at: At::Record(Vec::new()), found: 0 }
    }
}

/// What a step has found.
#[derive(Default)]
struct Step {
    runs: Vec<Run>,
    bytes: usize,
}

impl Step {
    fn add(&mut self, era: Era, id: WriteId, hlc: Hlc, (key, value): (&[u8], Option<&[u8]>)) {
        self.bytes += key.len() + value.map_or(0, <[u8]>::len);
        let (key, value) = (key.to_vec(), value.map(<[u8]>::to_vec));
        // What it replaced is not known any more, and nobody will apply it.
        let replaced = Replaced::Nothing(Hlc::default());
        let entries = vec![Entry { seq: id.seq, hlc, key, value, replaced, since: id.seq }];
        self.runs.push(Run { era, origin: id.origin, after: id.seq - 1, entries });
    }
}

impl Replica {
    /// Looks for some of what `tails` name and no log has. What is to be written; `None` when all of it is. Nothing is taken in
    /// meanwhile: a record that it displaced would be found no more.
    pub(in crate::eventual) fn set_aside_some(
        &mut self,
        tails: &[Tail],
        tools: &Tools,
    ) -> Result<Option<OriginWrite>, ReplicaError> {
        let lacking = unlogged(tails, &self.logs.dropped_vector());
        let mut step = Step::default();
        let next = match &self.leaving.at {
            _ if lacking.is_empty() => return Ok(None),
            At::End => return Ok(None),
            At::Record(from) => self.find_records(from, &lacking, &mut step, tools)?,
            At::Lost(from) => self.find_lost(from, &lacking, &mut step)?,
        };
        self.leaving.at = next;
        let first = self.leaving.found + 1;
        self.leaving.found += step.runs.len() as u64;
        let runs = (first..).zip(step.runs).map(|(number, run)| (FROM_RECORDS, number, run.encode().into()));
        Ok(Some(OriginWrite { era: self.logs.era(), runs: runs.collect(), ..OriginWrite::default() }))
    }

    /// How many writes were set aside from the records.
    pub(in crate::eventual) fn set_aside_from_records(&self) -> u64 {
        self.leaving.found
    }

    fn find_records(
        &self,
        from: &[u8],
        lacking: &[Tail],
        step: &mut Step,
        tools: &Tools,
    ) -> Result<At, ReplicaError> {
        let (began, era) = (Instant::now(), self.logs.era());
        let frozen = tools.data.freeze();
        let region = frozen.region(self.region, self.namespace);
        let mut walk = region.walk_from(from);
        while let Some((key, stored)) = walk.record()? {
            if key != from && (STEP <= began.elapsed() || STEP_BYTES <= step.bytes) {
                return Ok(At::Record(key.to_vec()));
            }
            let record = record::decode(stored)?;
            if let Some(id) = record.id.filter(|id| record.version.era == era && are_in(lacking, *id)) {
                step.add(era, id, record.version.hlc, (key, record.value));
            }
            walk.step();
        }
        Ok(At::Lost(lost_of_era(era)))
    }

    fn find_lost(&self, from: &[u8], lacking: &[Tail], step: &mut Step) -> Result<At, ReplicaError> {
        let era = self.logs.era();
        let notes = self.data.some_notes(from, &lost_of_era(Era(era.0 + 1)), NOTES_PER_STEP_MAX)?;
        for (note_key, note) in &notes {
            let (_, key, id) = parse_lost_key(note_key)?;
            let lost = Lost::decode(note)?;
            if are_in(lacking, id) && (lost.tombstone || lost.kept.is_some()) {
                step.add(era, id, lost.hlc, (&key, lost.kept.as_deref()));
            }
        }
        let last = notes.last().filter(|_| notes.len() == NOTES_PER_STEP_MAX);
        // The first key behind the last one.
        Ok(last.map_or(At::End, |(key, _)| At::Lost([&key[..], &[0]].concat())))
    }
}

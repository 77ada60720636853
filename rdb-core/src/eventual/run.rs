//! A run: consecutive writes of one origin. It is what the origin's log consists of, what travels to the other nodes, and
//! what is logged and applied there as one.
//!
//! ```text
//! run      byte 0 format, now 1; varint era; varint node; varint incarnation; varint after; varint count; entries;
//!          8 bytes checksum of all before
//! entry    byte flags: 1 tombstone | 2 it replaced a write | 4 writes before it were left out | 8 tombstones were purged;
//!          varint seq less the one before; 8 bytes hlc; flag 2: node, incarnation, seq of the write; flag 4: varint seq
//!          less that of the first one left out; flag 8: 8 bytes hlc; key; but for a tombstone the value
//! ```
//! Keys and values carry their length in front. The checksum goes with the run from the node that made it to the last
//! disk that it reaches: nodes pass on what others wrote.

use super::vector::{Origin, Seq, WriteId, put_origin, put_write_id, read_origin, read_write_id};
use crate::codec::{Corrupt, Reader, put_bytes, put_varint};
use crate::ids::Era;
use crate::record::Record;
use crate::version::{Hlc, Version};
use std::collections::BTreeMap;
use xxhash_rust::xxh3::xxh3_64;

const FORMAT: u8 = 1;
const CHECKSUM_BYTES: usize = 8;

/// What an entry takes besides its key and its value, at most: flags, places, a stamp or two, the name of a write, two lengths.
const ENTRY_BYTES_MAX: usize = 1 + 3 * 10 + 2 * 8 + 3 * 10 + 2 * 5;

const TOMBSTONE: u8 = 1;
const REPLACED_WRITE: u8 = 2;
const LEFT_OUT: u8 = 4;
const PURGED: u8 = 8;

/// What a writer had in front of it: what its node showed under the key when it accepted the write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replaced {
    /// No write of this era: nothing, or what the era began with. Or a tombstone stamped no later than this, since the
    /// node had purged those.
    Nothing(Hlc),
    /// This write of this era.
    Write(WriteId),
}

/// One write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its place in its origin's log.
    pub seq: Seq,
    /// When it was accepted.
    pub hlc: Hlc,
    /// Which key.
    pub key: Vec<u8>,
    /// What to store there; `None` deletes.
    pub value: Option<Vec<u8>>,
    /// What it, or the first one that was left out for it, replaced.
    pub replaced: Replaced,
    /// The first write of the key that was left out for this one, since each replaced the one before it; its own place if
    /// none was.
    pub since: Seq,
}

/// Consecutive writes of one origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Whose log it is part of, with the origin.
    pub era: Era,
    /// Who accepted the writes.
    pub origin: Origin,
    /// The place before the first.
    pub after: Seq,
    /// The writes, ascending. Those left out between are superseded by one that is here.
    pub entries: Vec<Entry>,
}

impl Entry {
    /// The record that it makes.
    pub fn record(&self, era: Era, origin: Origin) -> Record<'_> {
        Record {
            version: Version { era, hlc: self.hlc, node: origin.node },
            id: Some(WriteId { origin, seq: self.seq }),
            value: self.value.as_deref(),
        }
    }
}

impl Run {
    /// The place of the last write.
    pub fn last(&self) -> Seq {
        self.entries.last().map_or(self.after, |entry| entry.seq)
    }

    /// How long it is encoded, at most.
    fn bytes_max(&self) -> usize {
        let values = self.entries.iter().map(|entry| entry.value.as_ref().map_or(0, Vec::len));
        let keys = self.entries.iter().map(|entry| entry.key.len());
        keys.chain(values).sum::<usize>() + self.entries.len() * ENTRY_BYTES_MAX
    }

    fn is_followed_by(&self, next: &Self) -> bool {
        (self.era, self.origin, self.last()) == (next.era, next.origin, next.after)
    }

    /// As it is logged and sent.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![FORMAT];
        put_varint(&mut out, u64::from(self.era.0));
        put_origin(&mut out, self.origin);
        put_varint(&mut out, self.after);
        put_varint(&mut out, self.entries.len() as u64);
        let mut before = self.after;
        for entry in &self.entries {
            put_entry(&mut out, entry, before);
            before = entry.seq;
        }
        let checksum = xxh3_64(&out);
        out.extend_from_slice(&checksum.to_be_bytes());
        out
    }

    /// Reads a run.
    ///
    /// # Errors
    /// The bytes are damaged, or a later FlareDB wrote them.
    pub fn decode(bytes: &[u8]) -> Result<Self, Corrupt> {
        let mut reader = Reader::new("a run of an origin's log", whole(bytes)?);
        if reader.u8()? != FORMAT {
            return Err(reader.corrupt("its format is not known to this version of FlareDB"));
        }
        let era = Era(reader.varint32()?);
        let origin = read_origin(&mut reader)?;
        let after = reader.varint()?;
        let (mut entries, mut before) = (Vec::new(), after);
        for _ in 0..reader.varint()? {
            let entry = read_entry(&mut reader, before)?;
            before = entry.seq;
            entries.push(entry);
        }
        if entries.is_empty() {
            return Err(reader.corrupt("it is empty"));
        }
        reader.finish()?;
        Ok(Self { era, origin, after, entries })
    }

    /// The run without the writes up to `known`, which the reader has. What was left out for a write that stays is left
    /// out still.
    #[must_use]
    pub fn without(mut self, known: Seq) -> Self {
        self.entries.retain(|entry| known < entry.seq);
        self.after = self.after.max(known);
        self
    }
}

/// Joins runs that follow each other, and leaves out each write that a later one of them replaced, whose reader would
/// never show it: they are applied as one. `None` if there are none, or they do not follow each other.
pub fn join(runs: Vec<Run>) -> Option<Run> {
    let mut joined = join_up_to(runs, RunMax::NONE);
    joined.pop().filter(|_| joined.is_empty())
}

/// What runs may be joined to.
#[derive(Debug, Clone, Copy)]
pub struct RunMax {
    /// Bytes, as they are encoded at most.
    pub bytes: usize,
    /// Writes, those that are left out among them.
    pub writes: usize,
}

impl RunMax {
    const NONE: RunMax = RunMax { bytes: usize::MAX, writes: usize::MAX };
}

/// The same, but of runs that come to so much, or are longer by themselves: what is logged, sent and applied as one must not
/// be as much as happens to wait. Those that do not follow each other stay apart.
pub fn join_up_to(runs: Vec<Run>, most: RunMax) -> Vec<Run> {
    let mut joined: Vec<(Run, usize)> = Vec::new();
    for run in runs {
        let bytes = run.bytes_max();
        let fits = |last: &Run, taken: usize| {
            taken + bytes <= most.bytes && last.entries.len() + run.entries.len() <= most.writes
        };
        match joined.last_mut() {
            Some((last, taken)) if fits(last, *taken) && last.is_followed_by(&run) => {
                last.entries.extend(run.entries);
                *taken += bytes;
            }
            _ => joined.push((run, bytes)),
        }
    }
    let mut joined: Vec<Run> = joined.into_iter().map(|(run, _)| run).collect();
    joined.iter_mut().for_each(leave_out_superseded);
    joined
}

fn leave_out_superseded(run: &mut Run) {
    let is_of_it = |replaced| matches!(replaced, Replaced::Write(write) if write.origin == run.origin && run.after < write.seq);
    if !run.entries.iter().any(|entry| is_of_it(entry.replaced)) {
        return;
    }
    let mut kept: BTreeMap<Seq, Entry> = BTreeMap::new();
    for mut entry in run.entries.drain(..) {
        if let Replaced::Write(write) = entry.replaced
            && write.origin == run.origin
            && let Some(superseded) = kept.remove(&write.seq)
        {
            entry.replaced = superseded.replaced;
            entry.since = superseded.since;
        }
        kept.insert(entry.seq, entry);
    }
    run.entries = kept.into_values().collect();
}

fn put_entry(out: &mut Vec<u8>, entry: &Entry, before: Seq) {
    let at = out.len();
    out.push(0);
    let mut flags = 0;
    put_varint(out, entry.seq - before);
    out.extend_from_slice(&entry.hlc.0.to_be_bytes());
    if let Replaced::Write(write) = entry.replaced {
        flags |= REPLACED_WRITE;
        put_write_id(out, write);
    }
    if entry.since < entry.seq {
        flags |= LEFT_OUT;
        put_varint(out, entry.seq - entry.since);
    }
    if let Replaced::Nothing(purged) = entry.replaced
        && purged != Hlc::default()
    {
        flags |= PURGED;
        out.extend_from_slice(&purged.0.to_be_bytes());
    }
    put_bytes(out, &entry.key);
    match &entry.value {
        Some(value) => put_bytes(out, value),
        None => flags |= TOMBSTONE,
    }
    out[at] = flags;
}

fn read_entry(reader: &mut Reader<'_>, before: Seq) -> Result<Entry, Corrupt> {
    let flags = reader.u8()?;
    if flags & !(TOMBSTONE | REPLACED_WRITE | LEFT_OUT | PURGED) != 0
        || flags & (REPLACED_WRITE | PURGED) == REPLACED_WRITE | PURGED
    {
        return Err(reader.corrupt("it has flags not known to this version of FlareDB"));
    }
    let disorder = reader.corrupt("its writes are not in order");
    let step = reader.varint()?;
    let seq = before.checked_add(step).filter(|_| 0 < step).ok_or_else(|| disorder.clone())?;
    let hlc = Hlc(reader.u64()?);
    let mut replaced = Replaced::Nothing(Hlc::default());
    if flags & REPLACED_WRITE != 0 {
        replaced = Replaced::Write(read_write_id(reader)?);
    }
    let mut since = seq;
    if flags & LEFT_OUT != 0 {
        let left_out = reader.varint()?;
        since = seq.checked_sub(left_out).filter(|since| 0 < *since && 0 < left_out).ok_or(disorder)?;
    }
    if flags & PURGED != 0 {
        replaced = Replaced::Nothing(Hlc(reader.u64()?));
    }
    let key = reader.bytes()?.to_vec();
    let value = if flags & TOMBSTONE == 0 { Some(reader.bytes()?.to_vec()) } else { None };
    Ok(Entry { seq, hlc, key, value, replaced, since })
}

/// What comes before the checksum, if that is right.
fn whole(bytes: &[u8]) -> Result<&[u8], Corrupt> {
    let reader = Reader::new("a run of an origin's log", bytes);
    let split = bytes.len().checked_sub(CHECKSUM_BYTES).map(|at| bytes.split_at(at));
    match split {
        Some((rest, checksum)) if xxh3_64(rest).to_be_bytes() == *checksum => Ok(rest),
        Some(_) => Err(reader.corrupt("its checksum is wrong")),
        None => Err(reader.corrupt("it ends too early")),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::eventual::vector::tests::origin;
    use proptest::prelude::*;

    fn replaced() -> impl Strategy<Value = Replaced> {
        prop_oneof![
            any::<u64>().prop_map(|purged| Replaced::Nothing(Hlc(purged))),
            Just(Replaced::Nothing(Hlc(0))),
            (1u64..9, 1u64..9)
                .prop_map(|(node, seq)| Replaced::Write(WriteId { origin: origin(node, 1), seq })),
        ]
    }

    prop_compose! {
        fn runs()(
            after in 0u64..300,
            entries in prop::collection::vec(
                (1u64..4, 0u64..3, any::<u64>(), any::<Vec<u8>>(), any::<Option<Vec<u8>>>(), replaced()), 1..6),
        ) -> Run {
            let mut seq = after;
            let entries = entries.into_iter().map(|(step, left_out, hlc, key, value, replaced)| {
                seq += step;
                Entry { seq, hlc: Hlc(hlc), key, value, replaced, since: (seq - left_out.min(seq - 1)).max(1) }
            });
            Run { era: Era(3), origin: origin(2, 7), after, entries: entries.collect() }
        }
    }

    proptest! {
        #[test]
        fn runs_come_back_and_damage_is_noticed(run in runs(), at: prop::sample::Index, flip in 1u8..) {
            let mut bytes = run.encode();
            prop_assert_eq!(Run::decode(&bytes).unwrap(), run);
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            prop_assert!(Run::decode(&bytes).is_err());
        }

        #[test]
        fn any_bytes_are_read_or_refused(mut bytes: Vec<u8>) {
            let _ = Run::decode(&bytes);
            bytes.insert(0, FORMAT);
            let checksum = xxh3_64(&bytes);
            bytes.extend_from_slice(&checksum.to_be_bytes());
            if let Ok(run) = Run::decode(&bytes) {
                prop_assert_eq!(Run::decode(&run.encode()).unwrap(), run);
            }
        }
    }

    pub(in crate::eventual) fn put(seq: Seq, key: &[u8], replaced: Replaced) -> Entry {
        let value = Some(seq.to_be_bytes().to_vec());
        Entry { seq, hlc: Hlc(seq), key: key.to_vec(), value, replaced, since: seq }
    }

    #[test]
    fn of_a_hot_key_the_last_write_travels_and_says_what_the_first_one_replaced() {
        let write = |node, seq| Replaced::Write(WriteId { origin: origin(node, 1), seq });
        let run = |after, entries| Run { era: Era(1), origin: origin(1, 1), after, entries };
        let runs = vec![
            run(3, vec![put(4, b"hot", write(2, 9)), put(5, b"cold", Replaced::Nothing(Hlc(0)))]),
            run(5, vec![put(6, b"hot", write(1, 4)), put(7, b"hot", write(1, 6))]),
            // Not 7, but another node's write was in front of this one: 7 may be a loss, and travels.
            run(7, vec![put(8, b"hot", write(3, 1)), put(9, b"hot", write(1, 8))]),
        ];
        let joined = join(runs.clone()).unwrap();
        let told: Vec<_> =
            joined.entries.iter().map(|entry| (entry.seq, entry.since, entry.replaced)).collect();
        assert_eq!(told, [(5, 5, Replaced::Nothing(Hlc(0))), (7, 4, write(2, 9)), (9, 8, write(3, 1))]);
        assert_eq!((joined.after, joined.last()), (3, 9));
        assert_eq!(joined.clone().without(7).entries.len(), 1);
        assert_eq!(join(vec![runs[0].clone(), runs[2].clone()]), None, "between them is one that is missing");
        assert_eq!(join(vec![]), None);
    }

    #[test]
    fn runs_are_joined_up_to_a_length_and_one_that_is_longer_stays_whole() {
        let one = |seq, bytes: usize| {
            let entries = vec![put(seq, &vec![7; bytes], Replaced::Nothing(Hlc(0)))];
            Run { era: Era(1), origin: origin(1, 1), after: seq - 1, entries }
        };
        let runs: Vec<_> =
            [100, 100, 100, 900, 100, 100].into_iter().zip(4..).map(|(bytes, seq)| one(seq, bytes)).collect();
        let places = |joined: &[Run]| joined.iter().map(|run| (run.after, run.last())).collect::<Vec<_>>();
        let each = runs[0].bytes_max();
        let of_bytes = |bytes| RunMax { bytes, ..RunMax::NONE };
        let joined = join_up_to(runs.clone(), of_bytes(2 * each));
        assert_eq!(places(&joined), [(3, 5), (5, 6), (6, 7), (7, 9)]);
        assert!(joined.iter().all(|run| run.encode().len() <= run.bytes_max() + 64));
        assert_eq!(join(joined), join(runs.clone()), "nothing is left out or put elsewhere");
        let of_writes = |writes| RunMax { writes, ..RunMax::NONE };
        let joined = join_up_to(runs.clone(), of_writes(4));
        assert_eq!(places(&joined), [(3, 7), (7, 9)]);
        assert_eq!(join(joined), join(runs.clone()));
        assert_eq!(join_up_to(runs.clone(), RunMax::NONE), [join(runs.clone()).unwrap()]);
        let apart = vec![runs[0].clone(), runs[2].clone()];
        assert_eq!(places(&join_up_to(apart, RunMax::NONE)), [(3, 4), (5, 6)]);
    }
}

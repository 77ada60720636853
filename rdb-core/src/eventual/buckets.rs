//! Hashes of a replica's records, kept as they change: two replicas at one version vector hold the same records if and
//! only if these are equal.
//!
//! Keys fall into buckets, so that a difference is looked for in a few hundredths of the records. A bucket is the sum
//! of the hashes of its (key, version): what goes is subtracted and what comes is added, in any order. A sum and not an
//! exclusive or, under which what is there twice would cancel out. The version stands for the value: no two writes
//! share one.
//!
//! Deletions of earlier eras are not in it: see [`counted`].
//!
//! They verify; replicas converge by their logs. They are rebuilt by a scan at a start.

use super::vector::Vector;
use crate::codec::{Corrupt, Reader, put_bytes, put_varint};
use crate::command::put_version;
use crate::ids::Era;
use crate::record::Record;
use crate::version::{Hlc, Version};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

/// How many there are. 256 take 4 KiB for each region that has records, and leave little to look through.
pub const BUCKETS: usize = 256;

/// The hashes of a replica's records, as they are now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Buckets {
    sums: Box<[u128; BUCKETS]>,
    /// The same over all records that have a value.
    live: u128,
}

impl Default for Buckets {
    fn default() -> Self {
        Self { sums: Box::new([0; BUCKETS]), live: 0 }
    }
}

impl Buckets {
    /// Takes note that `key` has another record: it had the one of version `old`, and has that of version `new`.
    pub fn change(&mut self, key: &[u8], old: Option<&Record<'_>>, new: Option<&Record<'_>>) {
        let sum = &mut self.sums[bucket_of(key)];
        if let Some(record) = old {
            let hash = hash(key, record.version);
            *sum = sum.wrapping_sub(hash);
            self.live = self.live.wrapping_sub(if record.value.is_some() { hash } else { 0 });
        }
        if let Some(record) = new {
            let hash = hash(key, record.version);
            *sum = sum.wrapping_add(hash);
            self.live = self.live.wrapping_add(if record.value.is_some() { hash } else { 0 });
        }
    }

    /// Adds the hashes of other records, or of the same records as they were before all changes that these reflect.
    pub fn add(&mut self, other: &Buckets) {
        for (sum, other) in self.sums.iter_mut().zip(other.sums.iter()) {
            *sum = sum.wrapping_add(*other);
        }
        self.live = self.live.wrapping_add(other.live);
    }

    /// The hash of what a reader can see: of all records but remembered deletions, which members purge in their own time.
    pub fn live(&self) -> u128 {
        self.live
    }
}

/// The record, as far as it counts in `era`. A deletion of an earlier era counts as nothing: members purge those each in
/// its own time, and some had before this era began, so replicas that hold the same may differ in them.
pub fn counted<'r, 'v>(record: &'r Record<'v>, era: Era) -> Option<&'r Record<'v>> {
    let is_nothing = record.value.is_none() && record.version.era < era;
    (!is_nothing).then_some(record)
}

/// Which bucket a key falls into.
pub fn bucket_of(key: &[u8]) -> usize {
    usize::from(xxh3_64(key).to_be_bytes()[0])
}

fn hash(key: &[u8], version: Version) -> u128 {
    let mut bytes = Vec::with_capacity(key.len() + 24);
    put_bytes(&mut bytes, key);
    put_version(&mut bytes, version);
    xxh3_128(&bytes)
}

/// A replica's hashes, and where it stood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digest {
    /// In which era.
    pub era: Era,
    /// What it had applied.
    pub vector: Vector,
    /// Up to which stamp its tombstones were purged.
    pub purged: Hlc,
    /// Its hashes there.
    pub buckets: Buckets,
}

const FORMAT: u8 = 1;

impl Digest {
    /// As it is sent: byte 0 format, now 1; varint era; vector; 8 bytes purged; 16 bytes of each bucket; 16 bytes of what is live.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![FORMAT];
        put_varint(&mut out, u64::from(self.era.0));
        self.vector.put(&mut out);
        out.extend_from_slice(&self.purged.0.to_be_bytes());
        let sums = self.buckets.sums.iter().chain([&self.buckets.live]);
        sums.for_each(|sum| out.extend_from_slice(&sum.to_be_bytes()));
        out
    }

    /// Reads one.
    ///
    /// # Errors
    /// The bytes are damaged, or a later FlareDB wrote them.
    pub fn decode(bytes: &[u8]) -> Result<Self, Corrupt> {
        let mut reader = Reader::new("a replica's hashes", bytes);
        if reader.u8()? != FORMAT {
            return Err(reader.corrupt("their format is not known to this version of FlareDB"));
        }
        let (era, vector) = (Era(reader.varint32()?), Vector::read(&mut reader)?);
        let purged = Hlc(reader.u64()?);
        let mut sum = || Ok::<_, Corrupt>(u128::from(reader.u64()?) << 64 | u128::from(reader.u64()?));
        let mut buckets = Buckets::default();
        for bucket in buckets.sums.iter_mut() {
            *bucket = sum()?;
        }
        buckets.live = sum()?;
        reader.finish()?;
        Ok(Self { era, vector, purged, buckets })
    }
}

/// What two digests say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Comparison {
    /// The replicas hold the same records.
    Equal,
    /// They hold different records in these buckets, although they should not: an alarm.
    Different(Vec<usize>),
    /// They were not taken at the same place, so nothing follows from them.
    Elsewhere,
}

impl Digest {
    /// Compares this replica's digest with another's.
    pub fn compare(&self, other: &Digest) -> Comparison {
        if (self.era, &self.vector, self.purged) != (other.era, &other.vector, other.purged) {
            return Comparison::Elsewhere;
        }
        let sums = self.buckets.sums.iter().zip(other.buckets.sums.iter());
        let different: Vec<usize> =
            sums.enumerate().filter(|(_, (a, b))| a != b).map(|(bucket, _)| bucket).collect();
        if different.is_empty() { Comparison::Equal } else { Comparison::Different(different) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::NodeId;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    type Records = BTreeMap<Vec<u8>, Version>;

    prop_compose! {
        fn changes()(
            changes in prop::collection::vec(
                (prop::collection::vec(0u8..2, 0..3), prop::option::of((1u32..3, 0u64..3, 1u64..3))), 0..20),
        ) -> Vec<(Vec<u8>, Option<Version>)> {
            let version = |(era, hlc, node)| Version { era: Era(era), hlc: Hlc(hlc), node: NodeId(node) };
            changes.into_iter().map(|(key, to)| (key, to.map(version))).collect()
        }
    }

    fn replica(changes: &[(Vec<u8>, Option<Version>)]) -> (Records, Buckets) {
        let (mut records, mut buckets) = (Records::new(), Buckets::default());
        for (key, to) in changes {
            let old = match to {
                Some(version) => records.insert(key.clone(), *version),
                None => records.remove(key),
            };
            buckets.change(key, old.map(record).as_ref(), to.map(record).as_ref());
        }
        (records, buckets)
    }

    fn record(version: Version) -> Record<'static> {
        Record { version, id: None, value: Some(b"") }
    }

    fn digest(buckets: Buckets) -> Digest {
        Digest { era: Era(1), vector: Vector::default(), purged: Hlc(0), buckets }
    }

    proptest! {
        /// Whatever the way there.
        #[test]
        fn hashes_are_equal_if_and_only_if_the_records_are(a in changes(), b in changes()) {
            let ((a, in_a), (b, in_b)) = (replica(&a), replica(&b));
            let differing = a.iter().filter(|(key, version)| b.get(*key) != Some(version)).map(|(key, _)| key);
            let missing = b.keys().filter(|key| !a.contains_key(*key));
            let mut expected: Vec<usize> = differing.chain(missing).map(|key| bucket_of(key)).collect();
            expected.sort_unstable();
            expected.dedup();
            let expected = if expected.is_empty() { Comparison::Equal } else { Comparison::Different(expected) };
            prop_assert_eq!(digest(in_a).compare(&digest(in_b)), expected);
        }

        #[test]
        fn a_scan_at_a_start_finds_what_was_kept(changes in changes()) {
            let (records, kept) = replica(&changes);
            let mut scanned = Buckets::default();
            records.iter().for_each(|(key, version)| scanned.change(key, None, Some(&record(*version))));
            prop_assert_eq!(scanned, kept);
        }

        /// What was stored may be added after it has changed.
        #[test]
        fn what_changed_may_be_counted_before_what_it_changed(first in changes(), then in changes()) {
            let ((records, stored), (_, all)) = (replica(&first), replica(&[&first[..], &then[..]].concat()));
            let (mut records, mut changed) = (records, Buckets::default());
            for (key, to) in &then {
                let old = match to {
                    Some(version) => records.insert(key.clone(), *version),
                    None => records.remove(key),
                };
                changed.change(key, old.map(record).as_ref(), to.map(record).as_ref());
            }
            changed.add(&stored);
            prop_assert_eq!(changed, all);
        }
    }

    /// Members purge deletions that they remember each in its own time.
    #[test]
    fn a_remembered_deletion_is_not_among_what_is_live() {
        let version = Version { era: Era(1), hlc: Hlc(2), node: NodeId(3) };
        let (value, tombstone) = (record(version), Record { value: None, ..record(version) });
        let mut buckets = Buckets::default();
        buckets.change(b"a", None, Some(&value));
        let live = buckets.live();
        buckets.change(b"b", None, Some(&tombstone));
        assert!(live != 0 && buckets.live() == live);
        buckets.change(b"a", Some(&value), Some(&tombstone));
        assert_eq!(buckets.live(), 0);
    }

    #[test]
    fn digests_come_back() {
        let vector = [(crate::eventual::vector::tests::origin(1, 1), 7)].into_iter().collect();
        let mut buckets = Buckets::default();
        buckets.change(b"a", None, Some(&record(Version { era: Era(1), hlc: Hlc(2), node: NodeId(3) })));
        let digest = Digest { vector, purged: Hlc(9), ..digest(buckets) };
        let bytes = digest.encode();
        assert_eq!(Digest::decode(&bytes).unwrap(), digest);
        assert!((0..bytes.len()).all(|len| Digest::decode(&bytes[..len]).is_err()));
    }

    #[test]
    fn replicas_at_different_places_are_not_compared() {
        let here = digest(Buckets::default());
        let vector = [(crate::eventual::vector::tests::origin(1, 1), 1)].into_iter().collect();
        assert_eq!(here.compare(&Digest { vector, ..here.clone() }), Comparison::Elsewhere);
        assert_eq!(here.compare(&Digest { era: Era(2), ..here.clone() }), Comparison::Elsewhere);
        assert_eq!(here.compare(&Digest { purged: Hlc(1), ..here.clone() }), Comparison::Elsewhere);
    }
}

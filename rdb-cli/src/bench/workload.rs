//! The keys, the values, and what is known of each key's writes.
//!
//! A value begins with what it claims to be: the run, its key, its writer, and the writer's count. The rest of it follows
//! from these, so that a value torn in the middle shows. Neighbouring keys lie in one namespace, where there are several.

use super::{BenchArgs, Distribution};
use crate::exit::Failure;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rdb_client::{Bytes, Version};
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

const MAGIC: u32 = u32::from_be_bytes(*b"rdb1");
/// Magic, writer, run, key, sequence.
const CLAIM_BYTES: usize = 4 + 4 + 8 + 8 + 8;
/// Of values that are too short for it: run, key, the lower bytes of writer and sequence.
const SHORT_CLAIM_BYTES: usize = 4 + 4 + 3 + 5;
/// Keys in one batch: below etcd's limit of 128 operations, and whatever the value size below FlareDB's of 4 MiB.
const BATCH_KEYS_MAX: usize = 64;
const BATCH_BYTES_MAX: usize = 1 << 20;
/// YCSB's.
const ZIPFIAN_EXPONENT: f64 = 0.99;

pub(super) struct Workload {
    /// Tells this run's values from those that other runs left. 32 bits, which is what short values have room for.
    run: u64,
    seed: u64,
    keys: Vec<Bytes>,
    /// Of one namespace. The last one may have fewer.
    keys_together: usize,
    value_size: usize,
    chooser: Chooser,
    /// Per key, the highest version that was acknowledged in this run.
    acknowledged: Vec<Mutex<Version>>,
    /// Per writer, how many writes it began.
    begun: Vec<AtomicU64>,
}

/// What a value says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Claim {
    run: u64,
    key: u64,
    writer: u32,
    sequence: u64,
}

impl Workload {
    pub(super) fn new(bench: &BenchArgs) -> Result<Self, Failure> {
        let width = bench.key_size as usize - 1;
        if width < (bench.keys - 1).to_string().len() {
            let message = format!("{} keys need more than {} bytes each", bench.keys, bench.key_size);
            return Err(Failure::usage(message).hint("raise --key-size"));
        }
        if bench.keys < bench.namespaces.into() {
            let message = format!("{} keys are too few for {} namespaces", bench.keys, bench.namespaces);
            return Err(Failure::usage(message).hint("raise --keys"));
        }
        // One buffer for all keys: a clone of any is a count in one place.
        let mut all = String::new();
        for index in 0..bench.keys {
            all += &format!("k{index:0width$}");
        }
        let all = Bytes::from(all);
        let size = bench.key_size as usize;
        let keys: Vec<_> = (0..all.len() / size).map(|i| all.slice(i * size..(i + 1) * size)).collect();
        Ok(Self {
            run: rand::random::<u32>().into(),
            seed: bench.seed,
            value_size: bench.value_size as usize,
            chooser: Chooser::new(bench.keys, bench.distribution),
            acknowledged: keys.iter().map(|_| Mutex::default()).collect(),
            begun: (0..bench.callers).map(|_| AtomicU64::new(0)).collect(),
            keys_together: keys.len().div_ceil(bench.namespaces as usize),
            keys,
        })
    }

    pub(super) fn keys(&self) -> &[Bytes] {
        &self.keys
    }

    /// The number of the namespace in which a key lies.
    pub(super) fn namespace(&self, key: usize) -> usize {
        key / self.keys_together
    }

    /// The first key of each namespace.
    pub(super) fn first_keys(&self) -> impl Iterator<Item = usize> {
        (0..self.keys.len()).step_by(self.keys_together)
    }

    /// How many keys may be written or read as one batch.
    pub(super) fn keys_together_max(&self) -> usize {
        (BATCH_BYTES_MAX / (self.value_size + 1)).clamp(1, BATCH_KEYS_MAX)
    }

    /// All keys in parts of at most so many, each of one namespace.
    pub(super) fn batches(&self, keys_max: usize) -> impl Iterator<Item = Range<usize>> {
        let end = |from: usize| self.keys.len().min(from + self.keys_together);
        self.first_keys().flat_map(move |first| {
            (first..end(first)).step_by(keys_max).map(move |from| from..end(first).min(from + keys_max))
        })
    }

    pub(super) fn random(&self, caller: u32) -> ChaCha8Rng {
        let mut random = ChaCha8Rng::seed_from_u64(self.seed);
        random.set_stream(caller.into());
        random
    }

    pub(super) fn choose(&self, random: &mut impl Rng) -> usize {
        self.chooser.choose(random)
    }

    /// A new value for a key, which from now on may be found there.
    pub(super) fn begin_write(&self, key: usize, writer: u32) -> Bytes {
        let sequence = self.begun[writer as usize].fetch_add(1, Ordering::Relaxed);
        encode(&Claim { run: self.run, key: key as u64, writer, sequence }, self.value_size)
    }

    pub(super) fn acknowledge(&self, key: usize, version: Version) {
        if let Ok(mut acknowledged) = self.acknowledged[key].lock() {
            *acknowledged = version.max(*acknowledged);
        }
    }

    /// What a read that begins now must see, or something newer.
    pub(super) fn acknowledged(&self, key: usize) -> Version {
        self.acknowledged[key].lock().map(|version| *version).unwrap_or_default()
    }

    /// What is wrong with what was found under a key, if a write of version `at_least` was acknowledged before.
    pub(super) fn judge(
        &self,
        key: usize,
        stored: Option<&(Bytes, Version)>,
        at_least: Version,
    ) -> Result<(), String> {
        let name = String::from_utf8_lossy(&self.keys[key]);
        let Some((value, version)) = stored else {
            return match at_least == Version::default() {
                true => Ok(()),
                false => Err(format!("{name} is gone; version {at_least} was acknowledged")),
            };
        };
        if *version < at_least {
            return Err(format!("{name} is of version {version}; {at_least} was acknowledged"));
        }
        let claim = decode(value).ok_or_else(|| format!("{name} holds what nobody wrote"))?;
        if claim.key != key as u64 {
            return Err(format!("{name} holds a value of key {}", claim.key));
        }
        if claim.run != self.run {
            // Left by an earlier run; that no newer one was acknowledged was seen above, unless versions lie.
            return Ok(());
        }
        let begun = self.begun.get(claim.writer as usize).map_or(0, |begun| begun.load(Ordering::Relaxed));
        if begun <= claim.sequence {
            return Err(format!(
                "{name} holds write {} of caller {}, never sent",
                claim.sequence, claim.writer
            ));
        }
        Ok(())
    }
}

fn encode(claim: &Claim, size: usize) -> Bytes {
    let mut value = Vec::with_capacity(size + 8);
    let (writer, run) = (claim.writer.to_le_bytes(), claim.run.to_le_bytes());
    let (key, sequence) = (claim.key.to_le_bytes(), claim.sequence.to_le_bytes());
    if size < CLAIM_BYTES {
        for part in [&run[..4], &key[..4], &writer[..3], &sequence[..5]] {
            value.extend_from_slice(part);
        }
    } else {
        for part in [&MAGIC.to_le_bytes()[..], &writer, &run, &key, &sequence] {
            value.extend_from_slice(part);
        }
    }
    let mut word = filler(claim);
    while value.len() < size {
        value.extend_from_slice(&word.to_le_bytes());
        word = next_filler(word);
    }
    value.truncate(size);
    value.into()
}

/// `None`: this is no value of ours, or not a whole one.
fn decode(value: &[u8]) -> Option<Claim> {
    let is_short = value.len() < CLAIM_BYTES;
    let (head, mut rest) = value.split_at_checked(if is_short { SHORT_CLAIM_BYTES } else { CLAIM_BYTES })?;
    let number = |at: Range<usize>| head[at].iter().rev().fold(0, |high, byte| high << 8 | u64::from(*byte));
    let writer = |at: Range<usize>| u32::try_from(number(at)).ok();
    let claim = if is_short {
        Claim { run: number(0..4), key: number(4..8), writer: writer(8..11)?, sequence: number(11..16) }
    } else if number(0..4) == u64::from(MAGIC) {
        Claim { writer: writer(4..8)?, run: number(8..16), key: number(16..24), sequence: number(24..32) }
    } else {
        return None;
    };
    let mut word = filler(&claim);
    while !rest.is_empty() {
        let (part, more) = rest.split_at(rest.len().min(8));
        if part != &word.to_le_bytes()[..part.len()] {
            return None;
        }
        word = next_filler(word);
        rest = more;
    }
    Some(claim)
}

fn filler(claim: &Claim) -> u64 {
    claim.run ^ claim.key.rotate_left(16) ^ u64::from(claim.writer).rotate_left(40) ^ claim.sequence
}

/// Values must not compress better than real ones: these hardly do.
fn next_filler(word: u64) -> u64 {
    let word = (word ^ (word >> 31)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    word ^ (word >> 29)
}

/// Chooses keys.
enum Chooser {
    Uniform(u64),
    Zipfian(Zipfian),
}

/// Gray et al., "Quickly generating billion-record synthetic databases", as YCSB uses it: ranks are scattered over the
/// keys, so that the popular ones are not neighbours.
struct Zipfian {
    keys: f64,
    count: u64,
    alpha: f64,
    zeta: f64,
    eta: f64,
}

#[allow(clippy::cast_precision_loss, reason = "key counts are far below 2^53")]
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "ranks are from 0 to the key count"
)]
impl Chooser {
    fn new(count: u64, distribution: Distribution) -> Self {
        if distribution == Distribution::Uniform {
            return Chooser::Uniform(count);
        }
        let zeta_of = |n: u64| (1..=n).map(|i| (i as f64).powf(-ZIPFIAN_EXPONENT)).sum::<f64>();
        let zeta = zeta_of(count);
        let keys = count as f64;
        let eta = (1.0 - (2.0 / keys).powf(1.0 - ZIPFIAN_EXPONENT)) / (1.0 - zeta_of(2) / zeta);
        Chooser::Zipfian(Zipfian { keys, count, alpha: 1.0 / (1.0 - ZIPFIAN_EXPONENT), zeta, eta })
    }

    fn choose(&self, random: &mut impl Rng) -> usize {
        match self {
            Chooser::Uniform(count) => random.random_range(0..*count) as usize,
            Chooser::Zipfian(zipfian) => {
                let u: f64 = random.random();
                let uz = u * zipfian.zeta;
                let rank = if uz < 1.0 {
                    0
                } else if uz < 1.0 + 0.5_f64.powf(ZIPFIAN_EXPONENT) {
                    1
                } else {
                    (zipfian.keys * (zipfian.eta * u - zipfian.eta + 1.0).powf(zipfian.alpha)) as u64
                };
                (next_filler(rank.wrapping_add(1)) % zipfian.count) as usize
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_torn_anywhere_shows() {
        let claim = Claim { run: 1, key: 2, writer: 3, sequence: 4 };
        for size in [16, 17, 31, 32, 33, 100, 256] {
            let value = encode(&claim, size);
            assert_eq!((value.len(), decode(&value)), (size, Some(claim)));
            for at in 0..size {
                let mut torn = value.to_vec();
                torn[at] ^= 1;
                assert_ne!(decode(&torn), Some(claim), "size {size}, byte {at}");
            }
        }
        assert_eq!(decode(b"short"), None);
    }

    #[test]
    fn each_key_lies_in_one_batch_and_none_crosses_namespaces() {
        for (keys, namespaces, batch) in [(10, 1, 4), (10, 3, 4), (10, 10, 4), (7, 2, 1), (1000, 7, 64)] {
            let keys_together = usize::div_ceil(keys, namespaces);
            let workload = Workload {
                run: 1,
                seed: 1,
                keys: vec![Bytes::new(); keys],
                keys_together,
                value_size: 16,
                chooser: Chooser::Uniform(1),
                acknowledged: Vec::new(),
                begun: Vec::new(),
            };
            let batches: Vec<_> = workload.batches(batch).collect();
            assert_eq!(batches.iter().cloned().flatten().collect::<Vec<_>>(), (0..keys).collect::<Vec<_>>());
            for keys in batches {
                assert!(keys.len() <= batch);
                assert_eq!(workload.namespace(keys.start), workload.namespace(keys.end - 1));
            }
            assert!(workload.first_keys().all(|key| workload.namespace(key) < namespaces));
        }
    }

    #[test]
    fn zipfian_prefers_few() {
        let chooser = Chooser::new(1000, Distribution::Zipfian);
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let mut counts = vec![0; 1000];
        for _ in 0..100_000 {
            counts[chooser.choose(&mut random)] += 1;
        }
        counts.sort_unstable_by(|a, b| b.cmp(a));
        assert!(8_000 < counts[0] && counts[0] < 20_000, "the first: {}", counts[0]);
        let first_ten: i32 = counts[..10].iter().sum();
        assert!(30_000 < first_ten && first_ten < 60_000, "the first ten: {first_ten}");
    }
}

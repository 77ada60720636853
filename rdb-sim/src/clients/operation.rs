//! What clients do: the operations, and how each is asked for.

use super::{Name, Wish};
use crate::options::Options;
use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;
use rdb_core::command::{Command, Encoded, Expect, Operation, RequestId, Write};
use rdb_core::ids::RegionId;
use rdb_core::version::Version;
use std::collections::BTreeMap;

/// An operation. Values are numbers that are used once in a world.
#[derive(Debug, Clone)]
pub(crate) enum Kind {
    Get {
        key: Vec<u8>,
    },
    Put {
        key: Vec<u8>,
        value: u64,
    },
    /// Deletes; `marker` is a key beside it that is written in the same batch, so that a delete has a name too.
    Delete {
        key: Vec<u8>,
        marker: Option<(Vec<u8>, u64)>,
    },
    Swap {
        key: Vec<u8>,
        expect: Expected,
        value: u64,
    },
    Batch {
        keys: Vec<Vec<u8>>,
        value: u64,
    },
    Open,
}

/// What a swap expects to find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expected {
    Absent,
    Value(u64),
    Version(Version),
}

/// An operation under way.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) region: RegionId,
    pub(crate) kind: Kind,
    pub(crate) name: Option<Name>,
    request: Option<RequestId>,
    pub(crate) moment: u64,
    pub(crate) tries: u32,
    /// Whether an attempt was made whose fate is not known.
    pub(crate) in_doubt: bool,
}

/// Every value is padded to a length that its number decides, so that batches and messages differ in size.
fn bytes_of(value: u64) -> Vec<u8> {
    let mut bytes = value.to_be_bytes().to_vec();
    bytes.resize(8 + usize::try_from(value * 7 % 60).unwrap_or(0), b'.');
    bytes
}

/// The number of a value.
pub(crate) fn value_of(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(0, |number| u64::from_be_bytes(*number))
}

pub(super) fn key(number: u64) -> Vec<u8> {
    format!("key{number}").into_bytes()
}

impl Kind {
    /// Draws an operation; `value` is the number for what it may write.
    pub(crate) fn draw(
        session: bool,
        options: &Options,
        known: &BTreeMap<Vec<u8>, (u64, Version)>,
        value: u64,
        rng: &mut ChaCha8Rng,
    ) -> Self {
        let key = key(rng.random_range(0..options.keys));
        match rng.random_range(0..100) {
            0..35 => Kind::Get { key },
            35..55 => Kind::Put { key, value },
            55..60 => {
                let marker = (!session).then(|| (format!("delete{value}").into_bytes(), value));
                Kind::Delete { key, marker }
            }
            60..80 => {
                let expect = match known.get(&key) {
                    None => Expected::Absent,
                    Some((known, _)) if rng.random_bool(0.5) => Expected::Value(*known),
                    Some((_, version)) => Expected::Version(*version),
                };
                Kind::Swap { key, expect, value }
            }
            80..90 => {
                let keys =
                    (0..options.keys).filter(|_| rng.random_bool(0.6)).map(self::key).collect::<Vec<_>>();
                if keys.is_empty() { Kind::Put { key, value } } else { Kind::Batch { keys, value } }
            }
            // An element of a set: a key of its own that nobody ever deletes.
            _ => Kind::Swap { key: format!("set{value}").into_bytes(), expect: Expected::Absent, value },
        }
    }

    pub(crate) fn is_write(&self) -> bool {
        !matches!(self, Kind::Get { .. })
    }

    /// The one key that it is about.
    pub(crate) fn key(&self) -> Option<&[u8]> {
        match self {
            Kind::Get { key } | Kind::Put { key, .. } | Kind::Delete { key, .. } | Kind::Swap { key, .. } => {
                Some(key)
            }
            Kind::Batch { .. } | Kind::Open => None,
        }
    }

    /// What it writes.
    pub(crate) fn value(&self) -> Option<u64> {
        match self {
            Kind::Put { value, .. } | Kind::Swap { value, .. } | Kind::Batch { value, .. } => Some(*value),
            Kind::Get { .. } | Kind::Delete { .. } | Kind::Open => None,
        }
    }
}

impl Call {
    pub(crate) fn new(client: u64, region: RegionId, kind: Kind, sequence: Option<u64>, moment: u64) -> Self {
        // It waits for one answer at a time, and says so sooner or later: regions keep some answers more.
        let lowest = |sequence: u64| sequence.saturating_sub((client + sequence) % 6);
        let request = sequence.map(|sequence| RequestId { client, sequence, lowest: lowest(sequence) });
        let mut call = Self { region, kind, name: None, request, moment, tries: 0, in_doubt: false };
        call.name = call.with_command(Name::of).flatten();
        call
    }

    /// As it goes to a node.
    pub(crate) fn wish(&self) -> Wish {
        match &self.kind {
            Kind::Get { key } => Wish::Read(key.clone()),
            _ => Wish::Write(self.with_command(|command| Encoded::from(command)).unwrap_or_default()),
        }
    }

    /// Commands borrow what they say, so this one is shown rather than given.
    fn with_command<T>(&self, then: impl FnOnce(&Command<'_>) -> T) -> Option<T> {
        let bytes = self.kind.value().map(bytes_of);
        let value = bytes.as_deref();
        let marked;
        let operation = match &self.kind {
            Kind::Get { .. } => return None,
            Kind::Put { key, .. } => Operation::Write(Write { key, value }),
            Kind::Delete { key, marker: None } => Operation::Write(Write { key, value: None }),
            Kind::Delete { key, marker: Some((marker, number)) } => {
                marked = bytes_of(*number);
                Operation::Batch(vec![
                    Write { key, value: None },
                    Write { key: marker, value: Some(&marked) },
                ])
            }
            Kind::Swap { key, expect: Expected::Value(expected), .. } => {
                marked = bytes_of(*expected);
                Operation::CompareAndSwap { expect: Expect::Value(&marked), then: Write { key, value } }
            }
            Kind::Swap { key, expect, .. } => {
                let expect = match expect {
                    Expected::Version(version) => Expect::Version(*version),
                    _ => Expect::Absent,
                };
                Operation::CompareAndSwap { expect, then: Write { key, value } }
            }
            Kind::Batch { keys, .. } => {
                Operation::Batch(keys.iter().map(|key| Write { key, value }).collect())
            }
            Kind::Open => Operation::OpenSession,
        };
        Some(then(&Command { request: self.request, operation }))
    }
}

//! The clients of a world: what they ask, what they are told, and what each has seen.
//!
//! Every plain write has two parts that are one batch: a key that others write too, and an element of a set, which is a key of
//! its own that nobody ever writes again. Where the winner of a key would hide a loss, the element shows it.

use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;
use rdb_core::command::{Command, Encoded, Expect, Operation, Write};
use rdb_core::eventual::session::SessionToken;
use rdb_core::ids::{Era, NodeId};
use rdb_core::version::{Hlc, Version};
use std::collections::{BTreeMap, BTreeSet};

type Key = Vec<u8>;

/// What a client wants. The number of the operation is the value that it writes.
#[derive(Debug, Clone)]
pub(super) enum Kind {
    /// In whichever mode the namespace is.
    Write(Vec<(Key, Option<u64>)>),
    /// What needs a strong namespace.
    Swap { key: Key, expect: Expected },
    Read {
        key: Key,
        /// Whether the leader may answer without asking the others.
        by_lease: bool,
    },
    /// Whatever a node shows.
    ReadLocal { key: Key },
    /// At least what this client has seen.
    ReadSession { key: Key },
}

/// What a swap expects to find.
#[derive(Debug, Clone, Copy)]
pub(super) enum Expected {
    Absent,
    Version(Version),
}

#[derive(Debug)]
pub(super) struct Request {
    pub(super) client: usize,
    pub(super) attempt: u64,
    pub(super) op: u64,
    pub(super) kind: Kind,
    /// The highest version that the client has seen, if it shows it.
    pub(super) shown: Option<Hlc>,
    pub(super) session: Option<SessionToken>,
}

/// What a client is told.
#[derive(Debug, Clone)]
pub(super) enum Reply {
    Done {
        version: Version,
        seen: Option<SessionToken>,
    },
    Mismatch {
        version: Option<Version>,
        found: Option<Vec<u8>>,
        era: Era,
    },
    /// What a linearizable read found.
    Found {
        found: Option<(Version, u64)>,
        era: Era,
    },
    /// What a local or a session read found.
    Shown {
        found: Option<(Version, u64)>,
        seen: SessionToken,
    },
    NotDone {
        leader: Option<NodeId>,
    },
    /// The namespace is not strong.
    RequiresStrong,
    InDoubt,
}

/// How an operation ended.
#[derive(Debug, Clone)]
pub(super) enum Outcome {
    Done(Version),
    Mismatch { version: Option<Version>, era: Era },
    Found { found: Option<(Version, u64)>, era: Era },
    NotDone,
    InDoubt,
}

/// An operation that ended.
#[derive(Debug, Clone)]
pub(super) struct Recorded {
    pub(super) op: u64,
    pub(super) kind: Kind,
    pub(super) call: u64,
    pub(super) ret: u64,
    pub(super) outcome: Outcome,
}

/// An operation under way.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) op: u64,
    pub(super) kind: Kind,
    pub(super) moment: u64,
    pub(super) tries: u32,
    /// What the client had seen when it asked, if it showed it.
    pub(super) shown: Option<Version>,
}

#[derive(Debug)]
pub(super) struct Client {
    /// Whether it does nothing but read by lease.
    pub(super) reads_only: bool,
    /// Tells answers to the present attempt from late ones.
    pub(super) attempt: u64,
    pub(super) call: Option<Call>,
    pub(super) favourite: NodeId,
    pub(super) session: Option<SessionToken>,
    /// The operations whose effects it has seen or made.
    pub(super) seen: BTreeSet<u64>,
    pub(super) highest: Version,
    known: BTreeMap<Key, Version>,
}

#[derive(Debug)]
pub(super) struct Clients {
    pub(super) pool: Vec<Client>,
    pub(super) history: Vec<Recorded>,
    /// Orders calls and returns. The first moments belong to what an era begins with.
    moments: u64,
    attempts: u64,
    pub(super) ops: u64,
}

pub(super) fn hot(number: u64) -> Key {
    format!("hot{number}").into_bytes()
}

fn element(op: u64) -> Key {
    format!("e{op}").into_bytes()
}

/// Which operation's element a key is.
pub(super) fn element_of(key: &[u8]) -> Option<u64> {
    std::str::from_utf8(key.strip_prefix(b"e")?).ok()?.parse().ok()
}

/// Which operation a command of the region's log was: its number is in all that it writes, but for what it deletes.
pub(super) fn operation_of(command: &Command<'_>) -> Option<u64> {
    let of_write = |write: &Write<'_>| write.value.map(super::data::number_of);
    match &command.operation {
        Operation::Batch(writes) => writes.iter().find_map(of_write),
        Operation::CompareAndSwap { then, .. } => of_write(then),
        _ => None,
    }
}

/// Every value is padded to a length that its number decides, so that runs differ in size.
pub(super) fn bytes_of(value: u64) -> Vec<u8> {
    let mut bytes = value.to_be_bytes().to_vec();
    bytes.resize(8 + usize::try_from(value * 7 % 40).unwrap_or(0), b'.');
    bytes
}

impl Clients {
    pub(super) fn new((count, readers): (usize, usize), nodes: u64, rng: &mut ChaCha8Rng) -> Self {
        let mut clients = Self { pool: Vec::new(), history: Vec::new(), moments: 10, attempts: 0, ops: 0 };
        for slot in 0..count + readers {
            let attempt = clients.next_attempt();
            clients.pool.push(Client {
                reads_only: count <= slot,
                attempt,
                call: None,
                favourite: NodeId(rng.random_range(1..=nodes)),
                session: None,
                seen: BTreeSet::new(),
                highest: Version::default(),
                known: BTreeMap::new(),
            });
        }
        clients
    }

    pub(super) fn next_attempt(&mut self) -> u64 {
        self.attempts += 1;
        self.attempts
    }

    /// The client begins an operation, unless it has one under way.
    pub(super) fn begin(&mut self, slot: usize, keys: u64, rng: &mut ChaCha8Rng) {
        if self.pool[slot].call.is_some() {
            return;
        }
        self.moments += 1;
        self.ops += 1;
        let (op, moment) = (self.ops, self.moments);
        let client = &mut self.pool[slot];
        let kind = client.draw(op, keys, rng);
        let shown = rng.random_bool(0.5).then_some(client.highest);
        client.call = Some(Call { op, kind, moment, tries: 0, shown });
    }

    pub(super) fn end(&mut self, slot: usize, outcome: Outcome) {
        let Some(call) = self.pool[slot].call.take() else { return };
        self.moments += 1;
        self.pool[slot].learn(&call, &outcome);
        let (Call { op, kind, moment: call, .. }, ret) = (call, self.moments);
        self.history.push(Recorded { op, kind, call, ret, outcome });
    }
}

impl Client {
    fn draw(&self, op: u64, keys: u64, rng: &mut ChaCha8Rng) -> Kind {
        let key = hot(rng.random_range(0..keys));
        if self.reads_only {
            return Kind::Read { key, by_lease: true };
        }
        match rng.random_range(0..100) {
            0..45 => {
                let mut writes = vec![(element(op), Some(op))];
                if rng.random_bool(0.8) {
                    writes.insert(0, (key, (!rng.random_bool(0.25)).then_some(op)));
                }
                Kind::Write(writes)
            }
            45..55 => {
                let expect = self.known.get(&key).map_or(Expected::Absent, |v| Expected::Version(*v));
                Kind::Swap { key, expect }
            }
            55..62 => Kind::Swap { key: element(op), expect: Expected::Absent },
            62..75 => Kind::Read { key, by_lease: rng.random_bool(0.6) },
            75..88 => Kind::ReadLocal { key },
            _ => Kind::ReadSession { key },
        }
    }

    /// Takes in that it has seen this, under this key.
    pub(super) fn sees(&mut self, found: Option<(Version, u64)>) {
        if let Some((version, op)) = found {
            self.seen.insert(op);
            self.highest = self.highest.max(version);
        }
    }

    /// Takes in a token. One of an answer in strong mode says no more than the era.
    pub(super) fn merge(&mut self, token: &SessionToken) {
        match &mut self.session {
            Some(session) => session.merge(token),
            None => self.session = Some(token.clone()),
        }
    }

    fn learn(&mut self, call: &Call, outcome: &Outcome) {
        let found = match outcome {
            Outcome::Done(version) => {
                self.seen.insert(call.op);
                self.highest = self.highest.max(*version);
                Some(*version)
            }
            Outcome::Found { found, .. } => {
                self.sees(*found);
                found.map(|(version, _)| version)
            }
            Outcome::Mismatch { version, .. } => *version,
            Outcome::NotDone | Outcome::InDoubt => return,
        };
        for key in call.kind.keys() {
            match found {
                Some(version) => drop(self.known.insert(key.clone(), version)),
                None => drop(self.known.remove(key)),
            }
        }
    }
}

impl Kind {
    pub(super) fn keys(&self) -> Vec<&Key> {
        match self {
            Kind::Write(writes) => writes.iter().map(|(key, _)| key).collect(),
            Kind::Swap { key, .. }
            | Kind::Read { key, .. }
            | Kind::ReadLocal { key }
            | Kind::ReadSession { key } => vec![key],
        }
    }

    /// As a command of the region's log, if it writes.
    pub(super) fn command(&self, op: u64) -> Option<Encoded> {
        let value = bytes_of(op);
        let operation = match self {
            Kind::Write(writes) => {
                let mut batch = Vec::with_capacity(writes.len());
                for (key, to) in writes {
                    batch.push(Write { key, value: to.map(|_| &value[..]) });
                }
                Operation::Batch(batch)
            }
            Kind::Swap { key, expect } => {
                let expect = match expect {
                    Expected::Absent => Expect::Absent,
                    Expected::Version(version) => Expect::Version(*version),
                };
                Operation::CompareAndSwap { expect, then: Write { key, value: Some(&value) } }
            }
            Kind::Read { .. } | Kind::ReadLocal { .. } | Kind::ReadSession { .. } => return None,
        };
        Some(Encoded::from(&Command { request: None, operation }))
    }

    /// What it writes under which keys, if it does.
    pub(super) fn writes(&self, op: u64) -> Vec<(Key, Option<u64>)> {
        match self {
            Kind::Write(writes) => writes.clone(),
            Kind::Swap { key, .. } => vec![(key.clone(), Some(op))],
            _ => Vec::new(),
        }
    }
}

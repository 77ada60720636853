//! The clients of a world. Each has one operation under way, tries again elsewhere when told that nothing was done,
//! and takes silence for what it is: in doubt.
//!
//! A client without a session ends with its first write in doubt and a new one takes its place, as a careful user of
//! the API would do. One with a session repeats the same write under the same name until it is told what came of it.

mod operation;

use operation::key;
pub(crate) use operation::{Call, Expected, Kind, value_of};

use crate::invariants::Name;
use crate::options::Options;
use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;
use rdb_core::apply::Answer;
use rdb_core::command::Encoded;
use rdb_core::ids::{NodeId, RegionId};
use rdb_core::raft::Failure;
use rdb_core::version::Version;
use std::collections::BTreeMap;

/// Who waits for an answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caller {
    pub(crate) client: usize,
    pub(crate) attempt: u64,
}

/// A read that waits for its moment.
#[derive(Debug)]
pub(crate) struct Reading {
    pub(crate) caller: Caller,
    pub(crate) key: Vec<u8>,
}

/// What a client asks a node.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) client: usize,
    pub(crate) attempt: u64,
    pub(crate) region: RegionId,
    pub(crate) wish: Wish,
}

/// The two kinds of requests.
#[derive(Debug)]
pub(crate) enum Wish {
    Write(Encoded),
    Read(Vec<u8>),
}

/// What a client is told.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// The state machine's answer to a write.
    Answer(Answer),
    /// What a read found.
    Read(Option<(Version, Vec<u8>)>),
    /// Why there is no answer.
    Failed(Failure),
    /// The catalog's answer.
    Catalog(rdb_pd::Answer),
    /// A namespace that was to be deleted is gone.
    Gone,
}

/// Under this number whoever creates and deletes namespaces asks.
pub(crate) const GARDENER: usize = usize::MAX;
/// What is asked under this number nobody waits for.
pub(crate) const NOBODY: usize = usize::MAX - 1;
/// The region of a client that has none yet.
pub(crate) const NOWHERE: RegionId = RegionId(0);

/// One client.
#[derive(Debug)]
pub(crate) struct Client {
    /// Never used twice in a world.
    pub(crate) id: u64,
    pub(crate) region: RegionId,
    /// The sequence of the next write; `None` for a client without a session.
    session: Option<u64>,
    /// Tells answers to the present attempt from late ones.
    pub(crate) attempt: u64,
    pub(crate) call: Option<Call>,
    /// Whom it asks first.
    pub(crate) favourite: NodeId,
    /// Whether it does nothing but read, now here, now there: what one replica has shown it, no other may hide.
    pub(crate) only_reads: bool,
    /// What it last knew of each key: its guess for a swap.
    known: BTreeMap<Vec<u8>, (u64, Version)>,
}

/// How an operation ended.
#[derive(Debug, Clone)]
pub(crate) enum Outcome {
    Answered(Answer),
    Found(Option<(Version, u64)>),
    NotDone,
    InDoubt,
}

/// An operation that ended.
#[derive(Debug, Clone)]
pub(crate) struct Recorded {
    pub(crate) region: RegionId,
    pub(crate) name: Option<Name>,
    pub(crate) kind: Kind,
    pub(crate) call: u64,
    pub(crate) ret: u64,
    pub(crate) outcome: Outcome,
}

/// All clients, and what ever happened to them.
#[derive(Debug)]
pub(crate) struct Clients {
    pub(crate) pool: Vec<Client>,
    pub(crate) history: Vec<Recorded>,
    /// Orders calls and returns.
    moments: u64,
    clients: u64,
    attempts: u64,
    values: u64,
}

impl Clients {
    pub(crate) fn new(options: &Options, regions: &[RegionId], rng: &mut ChaCha8Rng) -> Self {
        let mut clients =
            Self { pool: Vec::new(), history: Vec::new(), moments: 0, clients: 0, attempts: 0, values: 0 };
        let home = |slot: usize| *regions.get(slot % regions.len().max(1)).unwrap_or(&NOWHERE);
        for slot in 0..options.clients.max(regions.len()) {
            let client = clients.newcomer(home(slot), rng);
            clients.pool.push(client);
        }
        for slot in 0..options.readers {
            let client = clients.newcomer(home(slot), rng);
            clients.pool.push(Client { only_reads: true, session: None, ..client });
        }
        clients
    }

    fn newcomer(&mut self, region: RegionId, rng: &mut ChaCha8Rng) -> Client {
        self.clients += 1;
        Client {
            id: self.clients,
            region,
            session: rng.random_bool(0.4).then_some(0),
            attempt: self.next_attempt(),
            call: None,
            favourite: NodeId(1),
            only_reads: false,
            known: BTreeMap::new(),
        }
    }

    /// A new client takes the place of an idle one, and uses this region.
    pub(crate) fn move_to(&mut self, slot: usize, region: RegionId, rng: &mut ChaCha8Rng) {
        let Client { only_reads, attempt, .. } = self.pool[slot];
        let newcomer = self.newcomer(region, rng);
        let session = newcomer.session.filter(|_| !only_reads);
        self.pool[slot] = Client { only_reads, session, attempt, ..newcomer };
    }

    /// What happens now comes after all that was called before.
    pub(crate) fn moment(&self) -> u64 {
        self.moments
    }

    pub(crate) fn next_attempt(&mut self) -> u64 {
        self.attempts += 1;
        self.attempts
    }

    /// The client begins an operation, unless it has one under way.
    pub(crate) fn begin(&mut self, slot: usize, options: &Options, rng: &mut ChaCha8Rng) {
        if self.pool[slot].call.is_some() {
            return;
        }
        self.moments += 1;
        self.values += 1;
        let (moment, value) = (self.moments, self.values);
        self.pool[slot].begin(moment, value, options, rng);
    }

    /// Ends the client's operation. A client that is left in doubt makes place for a new one.
    pub(crate) fn end(&mut self, slot: usize, outcome: Outcome, rng: &mut ChaCha8Rng) {
        let Some(call) = self.pool[slot].call.take() else { return };
        self.moments += 1;
        self.pool[slot].learn(&call, &outcome);
        if matches!(outcome, Outcome::InDoubt) {
            let region = self.pool[slot].region;
            self.pool[slot] = self.newcomer(region, rng);
        }
        self.history.push(Recorded {
            region: call.region,
            name: call.name,
            kind: call.kind,
            call: call.moment,
            ret: self.moments,
            outcome,
        });
    }
}

impl Client {
    fn begin(&mut self, moment: u64, value: u64, options: &Options, rng: &mut ChaCha8Rng) {
        let kind = match self.session {
            _ if self.only_reads => Kind::Get { key: key(rng.random_range(0..options.keys)) },
            Some(0) => Kind::Open,
            session => Kind::draw(session.is_some(), options, &self.known, value, rng),
        };
        let sequence = self.session.filter(|_| kind.is_write());
        if let Some(next) = self.session.as_mut().filter(|_| kind.is_write()) {
            *next += 1;
        }
        self.call = Some(Call::new(self.id, self.region, kind, sequence, moment));
    }

    /// Keeps in mind what the last operation told of its key.
    fn learn(&mut self, call: &Call, outcome: &Outcome) {
        if matches!(call.kind, Kind::Open) && !matches!(outcome, Outcome::Answered(Answer::Done(_))) {
            self.session = Some(0);
        }
        let Some(key) = call.kind.key() else { return };
        match (outcome, call.kind.value()) {
            (Outcome::Answered(Answer::Done(version)), Some(value)) => {
                self.known.insert(key.to_vec(), (value, *version));
            }
            (Outcome::Found(Some((version, value))), _) => {
                self.known.insert(key.to_vec(), (*value, *version));
            }
            (Outcome::Answered(Answer::Mismatch { version: Some(version), found: Some(found) }), _) => {
                self.known.insert(key.to_vec(), (value_of(found), *version));
            }
            (Outcome::NotDone | Outcome::InDoubt, _) => {}
            _ => drop(self.known.remove(key)),
        }
    }

    /// Whether the client's writes are recognised when they come again.
    pub(crate) fn has_session(&self) -> bool {
        self.session.is_some()
    }
}

//! The state machine of a strong region: committed entries in, records and answers out.
//!
//! Every replica runs this over the same entries and must come to the same bytes. So there is no clock, no randomness
//! and no order that depends on a hash map here; the leader's stamp is in the entry. Whatever a command can get wrong
//! is an answer. Only bytes that cannot be decoded and a failing disk are errors: then the replica stops, since to
//! skip an entry would make it differ from the others.

mod batch;
mod transact;

pub use batch::ENTRY_READ_BYTES_MAX;
pub use transact::FOUND_BYTES_MAX;

use crate::codec::{Corrupt, Reader, put_varint};
use crate::command::{self, Command, Commands, Expect, Operation, Payload, Stamp};
use crate::coverage::{Branch, reached};
use crate::eventual::machine::State as EventualState;
use crate::ids::{Era, Index, RegionId, Term};
use crate::range::KeyRange;
use crate::sessions::{self, Sessions, Verdict};
use crate::switch::planted::{Wrong, wrong};
use crate::switch::{Marker, Mode, Region};
use crate::transaction::Outcome;
use crate::version::{Hlc, Version};
use batch::{Batch, Found};

/// Format 1 was the same without the last byte.
const FORMAT: u8 = 2;
const FORMAT_WITHOUT_CLOSED: u8 = 1;

/// What the machine reads: the region's records as they are before the batch that is being applied.
pub trait View {
    /// Why a read failed.
    type Error;
    /// The encoded record of `key`, if there is one.
    ///
    /// # Errors
    /// The disk could not be read.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Self::Error>;
}

/// A committed entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// Its place in the log.
    pub index: Index,
    /// The term of the leader that proposed it.
    pub term: Term,
    /// What it says: see [`crate::command`].
    pub data: Vec<u8>,
}

/// The answer to one command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Applied under this version.
    Done(Version),
    /// The comparison failed; nothing was applied.
    Mismatch {
        /// The version of the record that was found; `None` where there is none.
        version: Option<Version>,
        /// Its value.
        found: Option<Vec<u8>>,
    },
    /// A transaction was executed.
    Transaction(Outcome),
    /// Not applied: the transaction's gets found more than [`FOUND_BYTES_MAX`].
    FoundTooMuch,
    /// Not applied: the commands before it in its entry have read [`ENTRY_READ_BYTES_MAX`]. Tried again, it will be in
    /// another entry.
    Crowded,
    /// Not applied: the region has another era than the entry.
    EraMismatch,
    /// Not applied: the region was closed before, since its namespace is being deleted.
    Closed,
    /// A session that an earlier opening with the same token has opened.
    OpenedBefore {
        /// What its client is to call itself.
        client: u64,
    },
    /// Not applied now: nothing is known of this request's session. It may have been applied by an earlier attempt.
    SessionExpired,
}

/// What applying changed; to be written in one batch with nothing in between.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Ranges of keys whose records all go. This comes first, then `records`: one in such a range was written later.
    pub removed: Vec<KeyRange>,
    /// Keys and their new records; `None` removes. Later ones overrule earlier ones.
    pub records: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    /// Clients and their new sessions; `None` removes.
    pub sessions: Vec<(u64, Option<Vec<u8>>)>,
    /// The region's new state, for [`State::decode`].
    pub state: Vec<u8>,
    /// The era that the region has entered, if it has.
    pub entered: Option<Entered>,
}

/// What a region that enters an era stores besides its state.
#[derive(Debug, PartialEq, Eq)]
pub struct Entered {
    /// The region's mode, for [`Region::decode`].
    pub mode: Vec<u8>,
    /// Where its eventual mode begins, if that is the new one; for [`EventualState::decode`].
    pub eventual: Option<Vec<u8>>,
}

/// What came of applying some entries.
#[derive(Debug, PartialEq, Eq)]
pub struct Applied {
    /// What is to be written.
    pub changes: Changes,
    /// For each entry, the answers to its commands, in order.
    pub answers: Vec<Vec<Answer>>,
}

/// What a region knows of itself, besides its records and sessions. Stored with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    /// The last entry that the records reflect.
    pub applied: Index,
    /// Its term.
    pub applied_term: Term,
    /// The era that the region's own log has put it in.
    pub era: Era,
    /// The highest stamp among its versions.
    pub highest: Hlc,
    /// A running hash of all entries applied. Replicas at one index have one hash.
    pub chain: u64,
    /// Entries up to here may be dropped from the log.
    pub truncate_to: Index,
    /// Whether the region's own log has closed it. It stays so: there is no entry that opens a region again.
    pub closed: bool,
}

impl Default for State {
    fn default() -> Self {
        Self {
            applied: 0,
            applied_term: 0,
            era: Era(1),
            highest: Hlc(0),
            chain: 0,
            truncate_to: 0,
            closed: false,
        }
    }
}

impl State {
    /// As it goes to disk.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![FORMAT];
        put_varint(&mut out, self.applied);
        put_varint(&mut out, self.applied_term);
        put_varint(&mut out, u64::from(self.era.0));
        put_varint(&mut out, self.highest.0);
        out.extend_from_slice(&self.chain.to_be_bytes());
        put_varint(&mut out, self.truncate_to);
        out.push(u8::from(self.closed));
        out
    }

    /// As it comes from disk.
    ///
    /// # Errors
    /// The bytes are damaged, or a later FlareDB wrote them.
    pub fn decode(bytes: &[u8]) -> Result<Self, Corrupt> {
        let mut reader = Reader::new("a region's state", bytes);
        let format = reader.u8()?;
        if !matches!(format, FORMAT_WITHOUT_CLOSED | FORMAT) {
            return Err(reader.corrupt("its format is not known to this version of FlareDB"));
        }
        let state = Self {
            applied: reader.varint()?,
            applied_term: reader.varint()?,
            era: Era(reader.varint32()?),
            highest: Hlc(reader.varint()?),
            chain: reader.u64()?,
            truncate_to: reader.varint()?,
            closed: match format {
                FORMAT_WITHOUT_CLOSED => false,
                _ => match reader.u8()? {
                    0 => false,
                    1 => true,
                    _ => return Err(reader.corrupt("it is neither open nor closed")),
                },
            },
        };
        reader.finish()?;
        Ok(state)
    }

    /// Takes note that `entry` is applied.
    ///
    /// # Panics
    /// The entry is not the next one: applying it would lose or repeat writes.
    pub fn advance(&mut self, entry: &Committed) {
        assert_eq!(entry.index, self.applied + 1, "entries are applied in order, each once");
        assert!(self.applied_term <= entry.term, "terms never go back along the log");
        self.applied = entry.index;
        self.applied_term = entry.term;
        let mut head = [0; 24];
        head[..8].copy_from_slice(&self.chain.to_be_bytes());
        head[8..16].copy_from_slice(&entry.index.to_be_bytes());
        head[16..].copy_from_slice(&entry.term.to_be_bytes());
        self.chain = xxhash_rust::xxh3::xxh3_64_with_seed(&entry.data, xxhash_rust::xxh3::xxh3_64(&head));
    }
}

/// Why a batch could not be applied. The replica stops.
#[derive(Debug, thiserror::Error)]
pub enum Error<E> {
    /// An entry's bytes are not what this version of FlareDB writes.
    #[error("entry {index}: {source}")]
    Corrupt {
        /// Which entry.
        index: Index,
        /// What is wrong with it.
        source: Corrupt,
    },
    /// A record could not be read.
    #[error("read a record: {0}")]
    View(E),
}

/// One strong region's state machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    region: RegionId,
    state: State,
    sessions: Sessions,
    mode: Region,
}

impl Machine {
    /// A machine of a strong region that has never switched, carrying on from what was stored.
    pub fn new(region: RegionId, state: State, sessions: Sessions) -> Self {
        Self { region, state, sessions, mode: Region::new(Mode::Strong) }
    }

    /// The same machine, of a region that is in this mode.
    #[must_use]
    pub fn in_mode(self, mode: Region) -> Self {
        Self { mode, ..self }
    }

    /// The region's mode, as its own log has it.
    pub fn mode(&self) -> &Region {
        &self.mode
    }

    /// Where the machine stands.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Which region it is.
    pub fn region(&self) -> RegionId {
        self.region
    }

    /// Applies `entries`, which follow the last one applied.
    ///
    /// # Errors
    /// An entry cannot be decoded or a record cannot be read. Then nothing may be written, and the machine is spent.
    pub fn apply<V: View>(&mut self, entries: &[Committed], view: &V) -> Result<Applied, Error<V::Error>> {
        self.apply_for(entries, view, |_| true)
    }

    /// The same, and keeps the answers of those entries only for which somebody waits: what a long backlog has found may be
    /// more than fits into memory.
    ///
    /// # Errors
    /// As there.
    pub fn apply_for<V: View>(
        &mut self,
        entries: &[Committed],
        view: &V,
        waited_for: impl Fn(Index) -> bool,
    ) -> Result<Applied, Error<V::Error>> {
        let mut batch = Batch::new(view);
        let mut answers = Vec::with_capacity(entries.len());
        for entry in entries {
            self.state.advance(entry);
            batch.begin_entry();
            let answered = self.apply_entry(entry, &mut batch)?;
            answers.push(if waited_for(entry.index) { answered } else { Vec::new() });
        }
        let (removed, records, sessions) = batch.finish();
        let sessions = sessions.into_iter().map(|client| (client, self.sessions.encode(client))).collect();
        let changes = Changes { removed, records, sessions, state: self.state.encode(), entered: None };
        Ok(Applied { changes, answers })
    }

    /// The first of `entries` that puts the region into its next era, and its place among them. Those before it are for
    /// [`Machine::apply`], and then it is for [`Machine::enter`].
    ///
    /// # Errors
    /// A marker cannot be decoded.
    pub fn due_marker(&self, entries: &[Committed]) -> Result<Option<(usize, Marker)>, (Index, Corrupt)> {
        for (place, entry) in entries.iter().enumerate() {
            if command::is_close(&entry.data) {
                // Nothing behind it counts, however the entries are cut.
                return Ok(None);
            }
            if !command::is_marker(&entry.data) {
                continue;
            }
            let payload = Payload::decode(&entry.data).map_err(|source| (entry.index, source))?;
            if let Payload::Marker(marker) = payload
                && self.is_due(&marker)
            {
                return Ok(Some((place, marker)));
            }
        }
        Ok(None)
    }

    fn is_due(&self, marker: &Marker) -> bool {
        let is_next = marker.era.0 == self.mode.era().0 + 1 || wrong(Wrong::MarkerOfAnyEra);
        is_next && !self.state.closed
    }

    /// Puts the region into the era of `marker`, which `entry` holds, which is due, and which [`Region::judge`] allows.
    /// `highest` is the highest stamp of the eventual era that ends, `before` what was stored of the last one.
    pub fn enter(
        &mut self,
        entry: &Committed,
        marker: &Marker,
        highest: Hlc,
        before: Option<&EventualState>,
    ) -> Changes {
        self.state.advance(entry);
        self.mode.enter(marker);
        self.state.era = marker.era;
        self.state.highest = self.state.highest.max(highest);
        // Later versions must lie above all that the region has, and above what it lost: clients have seen them.
        let eventual = (marker.mode == Mode::Eventual).then(|| {
            let earlier = before.map_or(0, |state| state.earlier + state.lost);
            EventualState { earlier, ..EventualState::begin(marker.era, self.state.highest) }.encode()
        });
        let entered = Some(Entered { mode: self.mode.encode(), eventual });
        Changes { state: self.state.encode(), entered, ..Changes::default() }
    }

    fn apply_entry<V: View>(
        &mut self,
        entry: &Committed,
        batch: &mut Batch<'_, V>,
    ) -> Result<Vec<Answer>, Error<V::Error>> {
        let corrupt = |source| Error::Corrupt { index: entry.index, source };
        match Payload::decode(&entry.data).map_err(corrupt)? {
            Payload::Empty => Ok(Vec::new()),
            Payload::Keys { stamp, commands } => self.apply_keys(entry.index, stamp, commands, batch),
            Payload::Truncate(index) => {
                self.state.truncate_to = self.state.truncate_to.max(index.min(entry.index));
                Ok(Vec::new())
            }
            Payload::Close => {
                self.state.closed = true;
                Ok(Vec::new())
            }
            Payload::Marker(marker) if self.is_due(&marker) => Err(corrupt(Corrupt {
                what: "a log entry",
                problem: "the beginning of an era among the entries of the one before",
            })),
            // It was there before, or belongs to an era that never came to be.
            Payload::Marker(_) => {
                reached(Branch::ApplyMarkerOfOtherEra);
                Ok(Vec::new())
            }
            Payload::Catalog(_) => Err(corrupt(Corrupt {
                what: "a log entry",
                problem: "commands on the catalog in a user's region",
            })),
        }
    }

    fn apply_keys<V: View>(
        &mut self,
        index: Index,
        stamp: Stamp,
        commands: Commands<'_>,
        batch: &mut Batch<'_, V>,
    ) -> Result<Vec<Answer>, Error<V::Error>> {
        let mut answers = Vec::new();
        for command in commands {
            let command = command.map_err(|source| Error::Corrupt { index, source })?;
            let answer = if self.state.closed {
                reached(Branch::ApplyToClosed);
                Answer::Closed
            } else if self.mode.admits(stamp.era) {
                self.apply_command(index, stamp, &command, batch)?
            } else {
                reached(Branch::ApplyOfOtherEra);
                Answer::EraMismatch
            };
            answers.push(answer);
        }
        Ok(answers)
    }

    fn apply_command<V: View>(
        &mut self,
        index: Index,
        stamp: Stamp,
        command: &Command<'_>,
        batch: &mut Batch<'_, V>,
    ) -> Result<Answer, Error<V::Error>> {
        let Some(request) = command.request else { return self.execute(stamp, &command.operation, batch) };
        if command.operation == Operation::OpenSession {
            let opened = self.sessions.open(request.client, request.sequence, index);
            batch.sessions.extend(opened.forgotten);
            batch.sessions.insert(opened.client);
            let version = self.next_version(stamp);
            return Ok(match opened.client {
                client if client == request.client => Answer::Done(version),
                client => Answer::OpenedBefore { client },
            });
        }
        match self.sessions.judge(request, index) {
            Verdict::Expired => Ok(Answer::SessionExpired),
            Verdict::Answered(sessions::Answer::Done(version)) => Ok(Answer::Done(version)),
            Verdict::Answered(sessions::Answer::Transaction(outcome)) => Ok(Answer::Transaction(outcome)),
            Verdict::Answered(sessions::Answer::FoundTooMuch) => Ok(Answer::FoundTooMuch),
            Verdict::Answered(sessions::Answer::Mismatch(version)) => {
                // The value that was found then is told again only while it is still there.
                let Operation::CompareAndSwap { then, .. } = &command.operation else {
                    return Ok(Answer::Mismatch { version, found: None });
                };
                if batch.is_spent() {
                    return Ok(Answer::Crowded);
                }
                let current = batch.get(then.key)?;
                let found = current.filter(|(now, _)| Some(*now) == version).and_then(|(_, value)| value);
                if version.is_some() && found.is_none() {
                    reached(Branch::ApplyMismatchMovedOn);
                }
                Ok(Answer::Mismatch { version, found })
            }
            Verdict::Execute => {
                let answer = self.execute(stamp, &command.operation, batch)?;
                let record = match &answer {
                    Answer::Done(version) => Some(sessions::Answer::Done(*version)),
                    Answer::Mismatch { version, .. } => Some(sessions::Answer::Mismatch(*version)),
                    Answer::Transaction(outcome) => Some(sessions::Answer::of_transaction(outcome)),
                    // Recorded, so that "not applied" stays true: a late copy may find less.
                    Answer::FoundTooMuch => Some(sessions::Answer::FoundTooMuch),
                    Answer::Crowded
                    | Answer::EraMismatch
                    | Answer::Closed
                    | Answer::OpenedBefore { .. }
                    | Answer::SessionExpired => None,
                };
                if let Some(record) = record {
                    batch.sessions.extend(self.sessions.record(request, record));
                }
                batch.sessions.insert(request.client);
                Ok(answer)
            }
        }
    }

    fn execute<V: View>(
        &mut self,
        stamp: Stamp,
        operation: &Operation<'_>,
        batch: &mut Batch<'_, V>,
    ) -> Result<Answer, Error<V::Error>> {
        match operation {
            Operation::Write(write) => {
                let version = self.next_version(stamp);
                batch.write(write, version);
                Ok(Answer::Done(version))
            }
            Operation::Batch(writes) => {
                let version = self.next_version(stamp);
                writes.iter().for_each(|write| batch.write(write, version));
                Ok(Answer::Done(version))
            }
            Operation::CompareAndSwap { .. } | Operation::Transaction(_) if batch.is_spent() => {
                Ok(Answer::Crowded)
            }
            Operation::CompareAndSwap { expect, then } => {
                let current = batch.get(then.key)?;
                if !matches(expect, current.as_ref()) {
                    reached(Branch::ApplyCompareFails);
                    let (version, found) = current.map_or((None, None), |(v, found)| (Some(v), found));
                    return Ok(Answer::Mismatch { version, found });
                }
                let version = self.next_version(stamp);
                batch.write(then, version);
                Ok(Answer::Done(version))
            }
            Operation::DeleteRange { from, to } => {
                let version = self.next_version(stamp);
                batch.remove_range(from, to);
                Ok(Answer::Done(version))
            }
            Operation::Transaction(transaction) => self.transact(stamp, transaction, batch),
            // Without a request id there is no session to open; the API refuses it before it gets here.
            Operation::OpenSession => Ok(Answer::SessionExpired),
        }
    }

    /// Versions follow the log even where a new leader's clock lags behind the old one's.
    fn next_version(&mut self, stamp: Stamp) -> Version {
        let version = self.version_after(stamp);
        self.state.highest = version.hlc;
        version
    }

    /// The version that the next write would get.
    fn version_after(&self, stamp: Stamp) -> Version {
        let hlc = stamp.hlc.max(self.state.highest.next());
        Version { era: self.state.era, hlc, node: stamp.node }
    }
}

fn matches(expect: &Expect<'_>, current: Option<&Found>) -> bool {
    let value = current.and_then(|(_, value)| value.as_deref());
    match expect {
        Expect::Absent => value.is_none(),
        Expect::Value(expected) => value == Some(*expected),
        Expect::Version(expected) => current.is_some_and(|(version, _)| version == expected),
        Expect::Present => value.is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Encoded, RequestId, Write, begin_keys};
    use crate::ids::NodeId;
    use crate::record;
    use std::collections::BTreeMap;
    use std::convert::Infallible;

    #[derive(Default)]
    struct Memory(BTreeMap<Vec<u8>, Vec<u8>>);

    impl View for Memory {
        type Error = Infallible;
        fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Infallible> {
            Ok(self.0.get(key).cloned())
        }
    }

    impl Memory {
        fn write(&mut self, changes: Changes) {
            self.0.retain(|key, _| !changes.removed.iter().any(|range| range.contains(key)));
            for (key, record) in changes.records {
                match record {
                    Some(record) => self.0.insert(key, record),
                    None => self.0.remove(&key),
                };
            }
        }
    }

    fn put<'a>(key: &'a [u8], value: &'a [u8]) -> Operation<'a> {
        Operation::Write(Write { key, value: Some(value) })
    }

    fn cas<'a>(key: &'a [u8], expect: Expect<'a>, value: &'a [u8]) -> Operation<'a> {
        Operation::CompareAndSwap { expect, then: Write { key, value: Some(value) } }
    }

    fn entry(index: Index, hlc: u64, commands: &[Command<'_>]) -> Committed {
        let mut encoded = Encoded::default();
        commands.iter().for_each(|command| encoded.push(command));
        let mut data = begin_keys(Stamp { era: Era(1), hlc: Hlc(hlc), node: NodeId(1) });
        data.extend_from_slice(&encoded.bytes);
        Committed { index, term: 1, data }
    }

    fn plain(operation: Operation<'_>) -> Command<'_> {
        Command { request: None, operation }
    }

    fn machine() -> Machine {
        Machine::new(RegionId(16), State::default(), Sessions::default())
    }

    /// A long backlog may have found more than fits into memory, and nobody waits for it.
    #[test]
    fn answers_that_nobody_waits_for_are_not_kept() {
        let memory = Memory(BTreeMap::from([(b"k".to_vec(), vec![0; 40])]));
        let entries = [1, 2, 3].map(|index| entry(index, index, &[plain(put(b"new", b"1"))]));
        let applied = machine().apply_for(&entries, &memory, |index| index == 2).unwrap();
        assert_eq!(applied.answers.iter().map(Vec::len).collect::<Vec<_>>(), [0, 1, 0]);
        let all = machine().apply(&entries, &memory).unwrap();
        assert_eq!((applied.changes, &applied.answers[1]), (all.changes, &all.answers[1]));
    }

    #[test]
    fn a_compare_and_swap_sees_the_writes_before_it_in_its_own_batch() {
        let commands = [
            plain(put(b"k", b"1")),
            plain(cas(b"k", Expect::Value(b"1"), b"2")),
            plain(cas(b"k", Expect::Value(b"1"), b"3")),
            plain(cas(b"new", Expect::Absent, b"x")),
            plain(Operation::Write(Write { key: b"new", value: None })),
            plain(cas(b"new", Expect::Absent, b"y")),
        ];
        let mut memory = Memory::default();
        let Applied { changes, answers } = machine().apply(&[entry(1, 10, &commands)], &memory).unwrap();
        memory.write(changes);
        assert!(matches!(answers[0][1], Answer::Done(_)));
        assert!(matches!(&answers[0][2], Answer::Mismatch { found: Some(found), .. } if found == b"2"));
        assert!(matches!(answers[0][5], Answer::Done(_)));
        assert_eq!(record::decode(&memory.0[&b"k"[..]]).unwrap().value, Some(&b"2"[..]));
        assert_eq!(record::decode(&memory.0[&b"new"[..]]).unwrap().value, Some(&b"y"[..]));
    }

    #[test]
    fn versions_grow_along_the_log_when_a_new_leaders_clock_lags() {
        let mut machine = machine();
        let memory = Memory::default();
        let entries = [entry(1, 1000, &[plain(put(b"a", b"1"))]), entry(2, 5, &[plain(put(b"a", b"2"))])];
        let Applied { answers, .. } = machine.apply(&entries, &memory).unwrap();
        let versions: Vec<_> = answers.iter().flatten().collect();
        let [Answer::Done(first), Answer::Done(second)] = versions[..] else { panic!("{versions:?}") };
        assert!(first < second);
    }

    #[test]
    fn a_retried_write_is_applied_once() {
        let request = |sequence| Some(RequestId { client: 9, sequence, lowest: 1 });
        let open = Command { request: request(0), operation: Operation::OpenSession };
        let swap = Command { request: request(1), operation: cas(b"k", Expect::Absent, b"1") };
        let mut machine = machine();
        let mut memory = Memory::default();
        let Applied { changes, answers: first } =
            machine.apply(&[entry(1, 10, &[open, swap.clone()])], &memory).unwrap();
        memory.write(changes);
        let Applied { changes, answers: again } = machine.apply(&[entry(2, 20, &[swap])], &memory).unwrap();
        assert_eq!(first[0][1], again[0][0]);
        assert!(changes.records.is_empty(), "nothing is written twice");
    }

    /// Clients that let thousands of failed comparisons wait take answers from each other. All that changes so is in the batch:
    /// what a start finds is what the machine had.
    #[test]
    fn sessions_that_make_room_for_others_are_written_too() {
        let request = |client, sequence| Some(RequestId { client, sequence, lowest: 1 });
        let (mut machine, memory, mut stored) = (machine(), Memory::default(), BTreeMap::new());
        for client in 1..=48u64 {
            let open = Command { request: request(client, 0), operation: Operation::OpenSession };
            let fails = |sequence| Command {
                request: request(client, sequence),
                operation: cas(b"k", Expect::Present, b"1"),
            };
            let commands: Vec<_> = std::iter::once(open).chain((1..=4096).map(fails)).collect();
            let applied = machine.apply(&[entry(client, client, &commands)], &memory).unwrap();
            stored.extend(applied.changes.sessions);
        }
        let mut sessions = Sessions::default();
        for (client, session) in &stored {
            sessions.load(*client, session.as_deref().unwrap()).unwrap();
        }
        // Not `assert_eq`, which would show megabytes.
        assert!(machine == Machine::new(RegionId(16), *machine.state(), sessions), "not all was written");
        // The first client's oldest answer made room: a repetition is not executed, though it would succeed now.
        let commands = [
            plain(put(b"k", b"0")),
            Command { request: request(1, 1), operation: cas(b"k", Expect::Present, b"1") },
        ];
        let applied = machine.apply(&[entry(49, 49, &commands)], &memory).unwrap();
        assert_eq!(applied.answers[0][1], Answer::SessionExpired);
    }

    #[test]
    fn replicas_that_batch_differently_come_to_the_same_state() {
        let entries: Vec<_> = (1..=20u8)
            .map(|index| {
                let value = [index];
                entry(
                    index.into(),
                    index.into(),
                    &[plain(put(b"k", &value)), plain(cas(b"j", Expect::Absent, &value))],
                )
            })
            .collect();
        let (mut one, mut all) = (machine(), machine());
        let (mut one_memory, mut all_memory) = (Memory::default(), Memory::default());
        for entry in &entries {
            let Applied { changes, .. } = one.apply(std::slice::from_ref(entry), &one_memory).unwrap();
            one_memory.write(changes);
        }
        let Applied { changes, .. } = all.apply(&entries, &all_memory).unwrap();
        assert_eq!(State::decode(&changes.state).unwrap(), *all.state());
        all_memory.write(changes);
        assert_eq!(one, all);
        assert_eq!(one_memory.0, all_memory.0);
    }

    /// Also where the entries come in one batch, and where the session would know the answer.
    #[test]
    fn nothing_is_executed_after_the_closing_entry() {
        let request = |sequence| Some(RequestId { client: 9, sequence, lowest: 0 });
        let open = Command { request: request(0), operation: Operation::OpenSession };
        let first = Command { request: request(1), operation: put(b"a", b"1") };
        let before = [open.clone(), first.clone()];
        let after = [open, first, plain(put(b"b", b"2")), plain(cas(b"a", Expect::Absent, b"3"))];
        let close = Committed { index: 2, term: 1, data: command::close() };
        let entries = [entry(1, 10, &before), close, entry(3, 20, &after)];
        let (mut machine, mut memory) = (machine(), Memory::default());
        let Applied { changes, answers } = machine.apply(&entries, &memory).unwrap();
        memory.write(changes);
        assert!(matches!(answers[0][..], [Answer::Done(_), Answer::Done(_)]), "{answers:?}");
        assert_eq!(answers[1], []);
        assert_eq!(answers[2], vec![Answer::Closed; after.len()]);
        assert_eq!(memory.0.keys().collect::<Vec<_>>(), [b"a"]);
        // It is in the state, so also in what a start and a snapshot bring back.
        let state = State::decode(&machine.state().encode()).unwrap();
        assert_eq!((state, state.closed), (*machine.state(), true));
        let mut again = Machine::new(RegionId(16), state, Sessions::default());
        let applied = again.apply(&[entry(4, 30, &after[2..])], &memory).unwrap();
        assert_eq!(applied.answers, [vec![Answer::Closed; 2]]);
        assert_eq!(applied.changes.records, []);
    }

    #[test]
    fn a_state_of_the_first_format_is_an_open_regions() {
        let state = State { applied: 7, applied_term: 2, chain: 9, truncate_to: 3, ..State::default() };
        let mut bytes = state.encode();
        bytes.pop();
        bytes[0] = FORMAT_WITHOUT_CLOSED;
        assert_eq!(State::decode(&bytes).unwrap(), state);
        *bytes.first_mut().unwrap() = FORMAT + 1;
        assert!(State::decode(&bytes).is_err());
        let mut bytes = state.encode();
        *bytes.last_mut().unwrap() = 2;
        assert!(State::decode(&bytes).is_err());
    }

    #[test]
    fn a_damaged_entry_is_an_error_and_not_skipped() {
        let mut damaged = entry(1, 10, &[plain(put(b"k", b"v"))]);
        damaged.data.truncate(damaged.data.len() - 1);
        assert!(machine().apply(&[damaged], &Memory::default()).is_err());
    }
}

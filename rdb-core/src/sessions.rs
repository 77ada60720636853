//! Exactly once: what a region remembers of its clients' writes.
//!
//! A client opens a session through the log, then names each write by a sequence number. The answer is kept until the
//! client says, in a later write, that it has seen it. A retry finds the answer and is not applied again; one whose
//! record is gone is refused as [`Verdict::Expired`] and is not applied either. What is forgotten is decided by log
//! positions alone, so that all replicas forget the same. After Ongaro, "Consensus", section 6.3.

mod answers;

use crate::codec::{Corrupt, Reader, put_varint};
use crate::command::RequestId;
use crate::coverage::{Branch, reached};
use crate::ids::Index;
use crate::transaction::Outcome;
use crate::version::Version;
use answers::Answers;
use std::collections::{BTreeMap, BTreeSet};

/// Sessions that one region remembers. Past it the one that wrote longest ago, in log positions, is forgotten.
pub const SESSIONS_MAX: usize = 4096;
/// Answers that one session keeps. A client that waits for the answer to a write and has named this many after it has its
/// oldest forgotten; clients are to open another session before that.
pub const ANSWERS_MAX: usize = 4096;
/// What is kept of what a transaction's gets have found, for one transaction. The session is written anew with every batch
/// that has one of its writes, so what is large is not kept: its retry is told that the transaction was executed and how
/// it went, and not what it found.
pub const RESULTS_BYTES_MAX: usize = 1 << 10;
/// The same for a session as a whole.
pub const SESSION_RESULTS_BYTES_MAX: usize = 64 << 10;
/// What all answers of a region's sessions may count for, on each replica: enough for its share of each session, and for
/// dozens of clients that wait for as many answers as they may. Past it, of the sessions with more than their share the one
/// that wrote longest ago keeps no more than that.
///
/// All replicas must draw this line alike: a change of it is a change of the format of entries.
pub const SESSIONS_BYTES_MAX: usize = 16 << 20;
/// What a session has whatever the others do: some forty answers that are no runs, or forty runs of thousands.
pub const SESSION_SHARE_BYTES: usize = 4 << 10;

/// So there is always a session to cut while the region is past its limit.
const _: () = assert!(SESSIONS_MAX * SESSION_SHARE_BYTES <= SESSIONS_BYTES_MAX);

/// 2: runs of answers. 3: the same with a token.
const FORMAT: u8 = 3;
const FORMAT_WITHOUT_TOKEN: u8 = 2;

/// The answer to a write that was executed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It was applied under this version.
    Done(Version),
    /// Its comparison failed against the record of this version; `None` where there was no record.
    Mismatch(Option<Version>),
    /// The transaction was executed.
    Transaction(Outcome),
    /// The transaction was not applied, since its gets found too much.
    FoundTooMuch,
}

impl Answer {
    /// A transaction's, as it is kept.
    pub(crate) fn of_transaction(outcome: &Outcome) -> Self {
        Answer::Transaction(outcome.within(RESULTS_BYTES_MAX))
    }
}

/// What to do with a named write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It was not seen before: execute it and record the answer.
    Execute,
    /// It was executed: give this answer again.
    Answered(Answer),
    /// Its session or its record is gone. Whether it was executed before cannot be told; it is not now.
    Expired,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Session {
    /// What its opening is known by when it comes again; 0: by nothing.
    token: u64,
    last_used: Index,
    lowest: u64,
    answers: Answers,
}

impl Session {
    /// Forgets the oldest answer. Neither its write nor an earlier one is executed any more.
    fn forget_first(&mut self) {
        if let Some(forgotten) = self.answers.forget_first() {
            self.lowest = self.lowest.max(forgotten.saturating_add(1));
        }
    }

    fn is_large(&self) -> bool {
        SESSION_SHARE_BYTES < self.answers.bytes()
    }
}

/// What came of opening a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// Which one is open.
    pub client: u64,
    /// The session that was forgotten to make room.
    pub forgotten: Option<u64>,
}

/// The sessions of one region.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sessions {
    sessions: BTreeMap<u64, Session>,
    /// By their tokens, those that have one.
    by_token: BTreeMap<u64, u64>,
    /// Orders sessions by last use, to find the one to forget: (last used, client).
    by_use: BTreeSet<(Index, u64)>,
    /// In the same order those of them that have more than their share.
    large: BTreeSet<(Index, u64)>,
    /// What the answers of all sessions count for.
    bytes: usize,
}

impl Sessions {
    /// Opens the session `client` at log position `index`, or keeps an open one open. An opening with a token that is not 0
    /// is known when it comes again: the session that it has opened is told, whatever `client` says now. An outage, in which
    /// clients ask again and again, must not make others' sessions be forgotten.
    pub fn open(&mut self, client: u64, token: u64, index: Index) -> Opened {
        let known = self.by_token.get(&token).copied();
        let client = known.unwrap_or(client);
        if !self.sessions.contains_key(&client) {
            self.insert(client, Session { token, ..Session::default() });
        }
        self.change(client, |session| session.last_used = index);
        let forgotten = if SESSIONS_MAX < self.sessions.len() { self.forget_oldest() } else { None };
        Opened { client, forgotten }
    }

    fn forget_oldest(&mut self) -> Option<u64> {
        let (last_used, oldest) = self.by_use.pop_first()?;
        self.large.remove(&(last_used, oldest));
        if let Some(session) = self.sessions.remove(&oldest) {
            self.bytes -= session.answers.bytes();
            self.by_token.remove(&session.token);
        }
        Some(oldest)
    }

    fn insert(&mut self, client: u64, session: Session) {
        let place = (session.last_used, client);
        self.by_use.insert(place);
        if session.is_large() {
            self.large.insert(place);
        }
        if session.token != 0 {
            self.by_token.insert(session.token, client);
        }
        self.bytes += session.answers.bytes();
        self.sessions.insert(client, session);
    }

    /// Changes a session, and with it what is known of all of them.
    fn change(&mut self, client: u64, change: impl FnOnce(&mut Session)) {
        let Some(session) = self.sessions.get_mut(&client) else { return };
        let (before, was_large) = ((session.last_used, client), session.is_large());
        self.bytes -= session.answers.bytes();
        change(session);
        self.bytes += session.answers.bytes();
        let (after, is_large) = ((session.last_used, client), session.is_large());
        // Of the writes in one entry only the first one is a new use.
        let moved = before != after;
        if moved {
            self.by_use.remove(&before);
            self.by_use.insert(after);
        }
        if was_large && (moved || !is_large) {
            self.large.remove(&before);
        }
        if is_large && (moved || !was_large) {
            self.large.insert(after);
        }
    }

    /// Decides about the write that `request` names, at log position `index`.
    pub fn judge(&mut self, request: RequestId, index: Index) -> Verdict {
        let Some(session) = self.sessions.get(&request.client) else { return Verdict::Expired };
        if let Some(answer) = session.answers.get(request.sequence) {
            reached(Branch::SessionsAnswerAgain);
            return Verdict::Answered(answer);
        }
        if request.sequence < session.lowest {
            reached(Branch::SessionsTooOld);
            return Verdict::Expired;
        }
        self.change(request.client, |session| {
            session.last_used = index;
            if request.lowest > session.lowest {
                session.lowest = request.lowest;
                session.answers.forget(request.lowest);
            }
        });
        Verdict::Execute
    }

    /// Records the answer to a write that [`Sessions::judge`] let through. Returns the sessions whose oldest answers made
    /// room for it, if the region was past its limit.
    pub fn record(&mut self, request: RequestId, answer: Answer) -> Vec<u64> {
        self.change(request.client, |session| {
            session.answers.keep(request.sequence, answer);
            if session.answers.len() > ANSWERS_MAX {
                session.forget_first();
            }
        });
        let mut cut = Vec::new();
        while SESSIONS_BYTES_MAX < self.bytes
            && let Some((_, client)) = self.large.first().copied()
        {
            self.change(client, |session| {
                while session.is_large() {
                    session.forget_first();
                }
            });
            cut.push(client);
        }
        cut
    }

    /// How many sessions are open.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether none is open.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// One session as it goes to disk; `None` if it is not open.
    pub fn encode(&self, client: u64) -> Option<Vec<u8>> {
        let session = self.sessions.get(&client)?;
        let mut out = Vec::new();
        if session.token == 0 {
            out.push(FORMAT_WITHOUT_TOKEN);
        } else {
            out.push(FORMAT);
            out.extend_from_slice(&session.token.to_be_bytes());
        }
        put_varint(&mut out, session.last_used);
        put_varint(&mut out, session.lowest);
        session.answers.put(&mut out);
        Some(out)
    }

    /// Takes in one session that [`Sessions::encode`] wrote.
    ///
    /// # Errors
    /// The bytes are damaged, or a later FlareDB wrote them.
    pub fn load(&mut self, client: u64, bytes: &[u8]) -> Result<(), Corrupt> {
        let mut reader = Reader::new("a client session", bytes);
        let token = match reader.u8()? {
            FORMAT_WITHOUT_TOKEN => 0,
            FORMAT => reader.u64()?,
            _ => return Err(reader.corrupt("its format is not known to this version of FlareDB")),
        };
        let (last_used, lowest) = (reader.varint()?, reader.varint()?);
        self.insert(client, Session { token, last_used, lowest, answers: Answers::read(&mut reader)? });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Era, NodeId};
    use crate::transaction::{Found, OperationResult};
    use crate::version::Hlc;
    use proptest::prelude::*;

    fn request(sequence: u64, lowest: u64) -> RequestId {
        RequestId { client: 1, sequence, lowest }
    }

    fn version(hlc: u64) -> Version {
        Version { era: Era(1), hlc: Hlc(hlc), node: NodeId(1) }
    }

    fn done(hlc: u64) -> Answer {
        Answer::Done(version(hlc))
    }

    #[test]
    fn a_retry_is_answered_and_a_forgotten_one_refused() {
        let mut sessions = Sessions::default();
        assert_eq!(sessions.judge(request(1, 1), 5), Verdict::Expired, "never opened");
        sessions.open(1, 0, 5);
        assert_eq!(sessions.judge(request(1, 1), 6), Verdict::Execute);
        sessions.record(request(1, 1), done(10));
        assert_eq!(sessions.judge(request(1, 1), 7), Verdict::Answered(done(10)));
        assert_eq!(sessions.judge(request(2, 2), 8), Verdict::Execute, "and 1 is no longer waited for");
        sessions.record(request(2, 2), Answer::Mismatch(None));
        assert_eq!(sessions.judge(request(1, 1), 9), Verdict::Expired, "late copy of an answered write");
    }

    #[test]
    fn the_session_that_wrote_longest_ago_is_forgotten() {
        let mut sessions = Sessions::default();
        for client in 0..SESSIONS_MAX as u64 {
            assert_eq!(sessions.open(client, 0, client + 1).forgotten, None);
        }
        let write = RequestId { client: 0, sequence: 1, lowest: 1 };
        assert_eq!(sessions.judge(write, 10_000), Verdict::Execute);
        assert_eq!(sessions.open(999_999, 0, 10_001).forgotten, Some(1));
        assert_eq!(sessions.len(), SESSIONS_MAX);
    }

    /// Its answer was lost: the client asks again, of another node, which draws another id.
    #[test]
    fn an_opening_that_comes_again_finds_its_session() {
        let mut sessions = Sessions::default();
        let opened = |client| Opened { client, forgotten: None };
        assert_eq!(sessions.open(1, 77, 5), opened(1));
        assert_eq!(sessions.judge(request(1, 1), 6), Verdict::Execute);
        sessions.record(request(1, 1), done(10));
        let mut again = loaded(&sessions);
        assert_eq!(again, sessions, "also after a start");
        for sessions in [&mut sessions, &mut again] {
            assert_eq!(sessions.open(2, 77, 7), opened(1));
            assert_eq!(sessions.judge(request(1, 1), 8), Verdict::Answered(done(10)), "it is left as it is");
            assert_eq!(
                (sessions.open(2, 78, 9), sessions.open(3, 0, 9), sessions.open(4, 0, 9)),
                (opened(2), opened(3), opened(4))
            );
            assert_eq!(sessions.len(), 4);
        }
        // One that is forgotten is not opened again under its id: its writes could come again, too.
        for client in 1_000..1_000 + SESSIONS_MAX as u64 {
            sessions.open(client, 0, client);
        }
        assert_eq!(sessions.open(5, 77, 9_999).client, 5);
        assert_eq!((sessions.by_token.len(), sessions.len()), (1, SESSIONS_MAX));
    }

    #[test]
    fn a_session_without_a_token_is_one_of_the_format_before() {
        let mut sessions = Sessions::default();
        sessions.open(1, 0, 5);
        assert_eq!(sessions.encode(1).unwrap(), [FORMAT_WITHOUT_TOKEN, 5, 0]);
        sessions.open(2, 3, 6);
        assert_eq!(sessions.encode(2).unwrap(), [FORMAT, 0, 0, 0, 0, 0, 0, 0, 3, 6, 0]);
        assert_eq!(loaded(&sessions), sessions);
    }

    /// A transaction whose one get has found this many bytes.
    fn transaction(bytes: usize) -> Answer {
        let version = version(9);
        let found = OperationResult::Found(Some(Found { version, value: vec![7; bytes] }));
        let results = Some(vec![OperationResult::Written, OperationResult::Found(None), found]);
        Answer::Transaction(Outcome { held: true, version: Some(version), results })
    }

    fn recorded(sessions: &mut Sessions, sequence: u64, lowest: u64, answer: Answer) -> Answer {
        assert_eq!(sessions.judge(request(sequence, lowest), 6), Verdict::Execute);
        sessions.record(request(sequence, lowest), answer);
        let Verdict::Answered(kept) = sessions.judge(request(sequence, lowest), 7) else { panic!() };
        kept
    }

    #[test]
    fn what_a_transaction_found_is_kept_if_it_is_little() {
        let mut sessions = Sessions::default();
        sessions.open(1, 0, 5);
        let small = transaction(RESULTS_BYTES_MAX - 34);
        assert_eq!(recorded(&mut sessions, 1, 1, small.clone()), small);
        let large = recorded(&mut sessions, 2, 1, transaction(RESULTS_BYTES_MAX - 34 + 1));
        let expected = Outcome { held: true, version: Some(version(9)), results: None };
        assert_eq!(large, Answer::Transaction(expected.clone()), "that it was done is never forgotten");
        // Many small ones are much, too, until the client has seen their answers.
        let most = 1 + SESSION_RESULTS_BYTES_MAX as u64 / RESULTS_BYTES_MAX as u64;
        for sequence in 3..=most {
            assert_eq!(recorded(&mut sessions, sequence, 1, small.clone()), small, "{sequence}");
        }
        assert_eq!(recorded(&mut sessions, most + 1, 1, small.clone()), Answer::Transaction(expected));
        assert_eq!(recorded(&mut sessions, most + 2, most + 2, small.clone()), small, "the others are seen");
    }

    #[test]
    fn sessions_come_back_from_disk() {
        let mut sessions = Sessions::default();
        sessions.open(1, 0, 5);
        let failed = Outcome { held: false, version: None, results: Some(vec![]) };
        let answers = [
            done(1),
            Answer::Mismatch(None),
            Answer::Mismatch(Some(version(3))),
            transaction(10),
            transaction(5000),
            Answer::Transaction(failed),
            Answer::FoundTooMuch,
        ];
        for (sequence, answer) in (1..).zip(answers) {
            sessions.judge(request(sequence, 1), 6);
            sessions.record(request(sequence, 1), answer);
        }
        let mut loaded = Sessions::default();
        let bytes = sessions.encode(1).unwrap();
        loaded.load(1, &bytes).unwrap();
        assert_eq!(loaded, sessions);
        // Whatever a disk returns, it is read or refused.
        for cut in 0..bytes.len() {
            let _ = Sessions::default().load(1, &bytes[..cut]);
        }
    }

    /// The record is written anew with every batch: it must not grow with what the client has on its way.
    #[test]
    fn many_answers_make_a_small_record() {
        let mut sessions = Sessions::default();
        sessions.open(1, 0, 5);
        for sequence in 1..=4000 {
            // A mismatch ends a run, and so does what others have written in between.
            let answer = match sequence % 1000 {
                0 => Answer::Mismatch(None),
                _ => done(sequence + sequence / 500),
            };
            assert_eq!(recorded(&mut sessions, sequence, 1, answer.clone()), answer);
        }
        let bytes = sessions.encode(1).unwrap();
        assert!(bytes.len() < 200, "{} bytes", bytes.len());
        assert_eq!(sessions.sessions[&1].answers.runs(), 12);
        let cut = recorded(&mut sessions, 4001, 1234, done(9999));
        assert_eq!(cut, done(9999));
        assert_eq!(sessions.judge(request(1233, 1), 9), Verdict::Expired);
        assert_eq!(sessions.judge(request(1234, 1), 9), Verdict::Answered(done(1236)), "a run was cut");
    }

    #[test]
    fn the_oldest_answer_makes_room() {
        let mut sessions = Sessions::default();
        sessions.open(1, 0, 5);
        let most = ANSWERS_MAX as u64;
        for sequence in 2..=most + 1 {
            recorded(&mut sessions, sequence, 1, done(sequence));
        }
        assert_eq!(sessions.judge(request(2, 1), 7), Verdict::Answered(done(2)), "so many are kept");
        recorded(&mut sessions, most + 2, 1, done(most + 2));
        assert_eq!(sessions.judge(request(2, 1), 7), Verdict::Expired);
        assert_eq!(sessions.judge(request(3, 1), 7), Verdict::Answered(done(3)));
        assert_eq!(sessions.judge(request(1, 1), 7), Verdict::Expired, "never executed, and not now either");
    }

    /// A client that lets so many failed comparisons wait as it may.
    fn fill(sessions: &mut Sessions, client: u64, index: Index) {
        sessions.open(client, 0, index);
        for sequence in 1..=ANSWERS_MAX as u64 {
            let request = RequestId { client, sequence, lowest: 1 };
            assert_eq!(sessions.judge(request, index), Verdict::Execute);
            sessions.record(request, Answer::Mismatch(Some(version(sequence))));
        }
    }

    fn encoded_bytes(sessions: &Sessions) -> usize {
        sessions.sessions.keys().map(|client| sessions.encode(*client).unwrap().len()).sum()
    }

    fn loaded(sessions: &Sessions) -> Sessions {
        let mut loaded = Sessions::default();
        for client in sessions.sessions.keys() {
            loaded.load(*client, &sessions.encode(*client).unwrap()).unwrap();
        }
        loaded
    }

    #[test]
    fn the_largest_sessions_make_room_for_each_other_and_not_the_small_ones() {
        let mut sessions = Sessions::default();
        let small = RequestId { client: 1_000, sequence: 1, lowest: 1 };
        sessions.open(small.client, 0, 1);
        assert_eq!(sessions.judge(small, 2), Verdict::Execute);
        sessions.record(small, done(7));
        // As many as there is room for, and more.
        let full = SESSIONS_BYTES_MAX / (ANSWERS_MAX * 96);
        for client in 1..=full as u64 {
            fill(&mut sessions, client, 10 + client);
        }
        let oldest = |client| RequestId { client, sequence: 1, lowest: 1 };
        let newest = |client| RequestId { client, sequence: ANSWERS_MAX as u64, lowest: 1 };
        let found = |request: RequestId| Verdict::Answered(Answer::Mismatch(Some(version(request.sequence))));
        for client in 1..=full as u64 {
            assert_eq!(sessions.judge(oldest(client), 100), found(oldest(client)), "{client}: there is room");
        }
        for client in 1_001..1_101 {
            fill(&mut sessions, client, client);
            assert!(sessions.bytes <= SESSIONS_BYTES_MAX, "{} bytes", sessions.bytes);
        }
        assert!(
            encoded_bytes(&sessions) <= sessions.bytes,
            "the record of an answer takes less than it counts for"
        );
        assert_eq!(sessions.judge(small, 9_999), Verdict::Answered(done(7)), "it has less than its share");
        assert_eq!(sessions.judge(oldest(1), 9_999), Verdict::Expired, "not executed a second time");
        assert_eq!(sessions.judge(newest(1), 9_999), found(newest(1)), "each keeps its share");
        assert_eq!(sessions.judge(oldest(1_100), 9_999), found(oldest(1_100)), "it wrote last");
        let next = RequestId { client: 1, sequence: ANSWERS_MAX as u64 + 1, lowest: 1 };
        assert_eq!(sessions.judge(next, 9_999), Verdict::Execute, "its session goes on");
    }

    /// After a start and after a snapshot a replica must forget as the others do.
    #[test]
    fn sessions_from_disk_make_room_as_those_in_memory_do() {
        let mut sessions = Sessions::default();
        for client in 1..=60 {
            fill(&mut sessions, client, 10 + client);
        }
        let mut again = loaded(&sessions);
        let mut cut = 0;
        for step in 0..20_000 {
            let (client, sequence) = (1 + step % 7 * 8, 5_000 + step);
            let request = RequestId { client, sequence, lowest: 1 };
            for sessions in [&mut sessions, &mut again] {
                assert_eq!(sessions.judge(request, 100 + step), Verdict::Execute);
            }
            let made_room = sessions.record(request, Answer::Mismatch(None));
            assert_eq!(again.record(request, Answer::Mismatch(None)), made_room);
            cut += made_room.len();
        }
        assert!(0 < cut, "nothing had to make room");
        // Not `assert_eq`, which would show megabytes.
        assert!(sessions == again, "they differ");
    }

    #[test]
    fn a_forgotten_session_takes_its_bytes_along() {
        let mut sessions = Sessions::default();
        fill(&mut sessions, 1, 1);
        for client in 2..=SESSIONS_MAX as u64 + 1 {
            sessions.open(client, 0, client);
        }
        assert_eq!((sessions.bytes, sessions.large.len(), sessions.len()), (0, 0, SESSIONS_MAX));
    }

    /// What a session is to be, without runs.
    #[derive(Default)]
    struct Model {
        lowest: u64,
        answers: BTreeMap<u64, Answer>,
    }

    impl Model {
        fn judge(&mut self, request: RequestId) -> Verdict {
            if let Some(answer) = self.answers.get(&request.sequence) {
                return Verdict::Answered(answer.clone());
            }
            if request.sequence < self.lowest {
                return Verdict::Expired;
            }
            if self.lowest < request.lowest {
                self.lowest = request.lowest;
                self.answers = self.answers.split_off(&request.lowest);
            }
            Verdict::Execute
        }
    }

    proptest! {
        /// Writes of one client in about the order of their sequences, with versions that grow by one or leave some out.
        #[test]
        fn runs_answer_as_single_answers_do(
            steps in prop::collection::vec((0..6u64, 0..8u64, 1..3u64, 0..8u8), 1..200)
        ) {
            let (mut sessions, mut model) = (Sessions::default(), Model::default());
            sessions.open(1, 0, 1);
            let (mut next, mut hlc) = (1, 100);
            for (index, (back, lag, step, kind)) in (2..).zip(steps) {
                let sequence = next - back.min(next);
                next = next.max(sequence + 1);
                let request = request(sequence, sequence.saturating_sub(lag));
                let verdict = sessions.judge(request, index);
                prop_assert_eq!(&verdict, &model.judge(request));
                if verdict == Verdict::Execute {
                    hlc += step;
                    let answer = match kind {
                        0 => Answer::Mismatch(Some(version(hlc))),
                        1 => transaction(20),
                        _ => done(hlc),
                    };
                    sessions.record(request, answer.clone());
                    model.answers.insert(sequence, answer);
                }
                let mut loaded = Sessions::default();
                loaded.load(1, &sessions.encode(1).unwrap()).unwrap();
                prop_assert_eq!(&loaded, &sessions);
            }
            prop_assert_eq!(sessions.sessions[&1].answers.len(), model.answers.len());
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let bytes = [&[FORMAT][..], &bytes].concat();
            let mut sessions = Sessions::default();
            if sessions.load(1, &bytes).is_ok() {
                let (last, lowest) = (request(u64::MAX, u64::MAX), request(u64::MAX - 1, 3));
                for request in [lowest, last] {
                    if sessions.judge(request, 9) == Verdict::Execute {
                        sessions.record(request, done(1));
                    }
                }
                let again = sessions.encode(1).unwrap();
                Sessions::default().load(1, &again).unwrap();
            }
        }
    }
}

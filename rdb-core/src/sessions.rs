//! Exactly once: what a region remembers of its clients' writes.
//!
//! A client opens a session through the log, then names each write by a sequence number. The answer is kept until the
//! client says, in a later write, that it has seen it. A retry finds the answer and is not applied again; one whose
//! record is gone is refused as [`Verdict::Expired`] and is not applied either. What is forgotten is decided by log
//! positions alone, so that all replicas forget the same. After Ongaro, "Consensus", section 6.3.

mod answers;

use crate::codec::{Corrupt, Reader, put_varint};
use crate::command::RequestId;
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

/// 2: runs of answers.
const FORMAT: u8 = 2;

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

    fn results_bytes(&self) -> usize {
        match self {
            Answer::Transaction(outcome) => outcome.results_bytes(),
            Answer::Done(_) | Answer::Mismatch(_) | Answer::FoundTooMuch => 0,
        }
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
    last_used: Index,
    lowest: u64,
    answers: Answers,
}

/// The sessions of one region.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sessions {
    sessions: BTreeMap<u64, Session>,
    /// Orders sessions by last use, to find the one to forget: (last used, client).
    by_use: BTreeSet<(Index, u64)>,
}

impl Sessions {
    /// Opens a session at log position `index`, or keeps an open one open. Returns the session forgotten to make room.
    pub fn open(&mut self, client: u64, index: Index) -> Option<u64> {
        let session = self.sessions.entry(client).or_default();
        self.by_use.insert((session.last_used, client));
        self.touch(client, index);
        if self.sessions.len() <= SESSIONS_MAX {
            return None;
        }
        let (_, oldest) = self.by_use.pop_first()?;
        self.sessions.remove(&oldest);
        Some(oldest)
    }

    fn touch(&mut self, client: u64, index: Index) {
        // Of the writes in one entry only the first one changes something.
        if let Some(session) = self.sessions.get_mut(&client).filter(|session| session.last_used != index) {
            self.by_use.remove(&(session.last_used, client));
            session.last_used = index;
            self.by_use.insert((index, client));
        }
    }

    /// Decides about the write that `request` names, at log position `index`.
    pub fn judge(&mut self, request: RequestId, index: Index) -> Verdict {
        let Some(session) = self.sessions.get_mut(&request.client) else { return Verdict::Expired };
        if let Some(answer) = session.answers.get(request.sequence) {
            return Verdict::Answered(answer);
        }
        if request.sequence < session.lowest {
            return Verdict::Expired;
        }
        if request.lowest > session.lowest {
            session.lowest = request.lowest;
            session.answers.forget(request.lowest);
        }
        self.touch(request.client, index);
        Verdict::Execute
    }

    /// Records the answer to a write that [`Sessions::judge`] let through.
    pub fn record(&mut self, request: RequestId, answer: Answer) {
        let Some(session) = self.sessions.get_mut(&request.client) else { return };
        session.answers.keep(request.sequence, answer);
        if session.answers.len() > ANSWERS_MAX
            && let Some(forgotten) = session.answers.forget_first()
        {
            session.lowest = session.lowest.max(forgotten.saturating_add(1));
        }
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
        let mut out = vec![FORMAT];
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
        if reader.u8()? != FORMAT {
            return Err(reader.corrupt("its format is not known to this version of FlareDB"));
        }
        let (last_used, lowest) = (reader.varint()?, reader.varint()?);
        let session = Session { last_used, lowest, answers: Answers::read(&mut reader)? };
        self.by_use.insert((session.last_used, client));
        self.sessions.insert(client, session);
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
        sessions.open(1, 5);
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
            assert_eq!(sessions.open(client, client + 1), None);
        }
        let write = RequestId { client: 0, sequence: 1, lowest: 1 };
        assert_eq!(sessions.judge(write, 10_000), Verdict::Execute);
        assert_eq!(sessions.open(999_999, 10_001), Some(1));
        assert_eq!(sessions.len(), SESSIONS_MAX);
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
        sessions.open(1, 5);
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
        sessions.open(1, 5);
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
        sessions.open(1, 5);
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
        sessions.open(1, 5);
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
            sessions.open(1, 1);
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

//! The answers that one session keeps, in runs.
//!
//! A client sends its writes in order and many in one message; they are executed one after the other, so their sequences
//! and their versions both grow by one. Such a run is kept as one: where it begins, under which version, and how long it
//! is. With that a session's record stays small however many writes the client has on their way, and it is this record
//! that is written anew with every batch. Whatever is not such a write is a run of its own.
//!
//! How the answers are cut into runs follows from the order in which they were recorded, which is the log's. So do the bytes
//! that they count for: these say what a replica's memory needs for them, and their record takes less.

use super::{Answer, RESULTS_BYTES_MAX, SESSION_RESULTS_BYTES_MAX};
use crate::codec::{Corrupt, Reader, put_varint};
use crate::command::{put_version, read_version};
use crate::transaction::{KeptOutcome, Outcome};
use crate::version::{Hlc, Version};
use std::collections::BTreeMap;

/// What a run counts for: itself, its sequence, and what a tree's leaves leave free. All replicas must count alike, so this
/// is a number and not a size that a compiler chooses.
const RUN_BYTES: usize = 96;
/// What a transaction's outcome counts for beside that, and beside its results.
const OUTCOME_BYTES: usize = 96;

const TAG_DONE: u8 = 1;
const TAG_MISMATCH_ABSENT: u8 = 2;
const TAG_MISMATCH: u8 = 3;
const TAG_TRANSACTION: u8 = 4;
const TAG_FOUND_TOO_MUCH: u8 = 5;
const TAG_DONE_RUN: u8 = 6;

/// Answers to writes whose sequences follow each other.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Run {
    /// How many; more than one only of [`Kept::Done`], whose versions follow each other too.
    count: u64,
    /// To the first of them.
    first: Kept,
}

/// An [`Answer`] as it is held: thousands of them wait, and few are ever asked for again.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Kept {
    Done(Version),
    Mismatch(Option<Version>),
    Transaction(Box<KeptOutcome>),
    FoundTooMuch,
}

impl Kept {
    fn results_bytes(&self) -> usize {
        match self {
            Kept::Transaction(outcome) => outcome.results_bytes(),
            Kept::Done(_) | Kept::Mismatch(_) | Kept::FoundTooMuch => 0,
        }
    }

    /// What it counts for beside [`RUN_BYTES`].
    fn outcome_bytes(&self) -> usize {
        match self {
            Kept::Transaction(outcome) => OUTCOME_BYTES + outcome.encoded_bytes(),
            Kept::Done(_) | Kept::Mismatch(_) | Kept::FoundTooMuch => 0,
        }
    }
}

impl Run {
    fn answer(&self, place: u64) -> Answer {
        match &self.first {
            Kept::Done(version) => Answer::Done(after(*version, place)),
            Kept::Mismatch(version) => Answer::Mismatch(*version),
            Kept::Transaction(outcome) => Answer::Transaction(outcome.outcome()),
            Kept::FoundTooMuch => Answer::FoundTooMuch,
        }
    }

    /// Takes in the answer to the next sequence, if the run goes on with it.
    fn extend(&mut self, answer: &Kept) -> bool {
        let (Kept::Done(first), Kept::Done(next)) = (&self.first, answer) else { return false };
        let goes_on = *next == after(*first, self.count);
        self.count += u64::from(goes_on);
        goes_on
    }

    /// The same without its first `count` answers.
    fn without(self, count: u64) -> Self {
        let first = match self.first {
            Kept::Done(version) => Kept::Done(after(version, count)),
            other => other,
        };
        Self { first, count: self.count - count }
    }
}

fn after(version: Version, place: u64) -> Version {
    Version { hlc: Hlc(version.hlc.0.saturating_add(place)), ..version }
}

/// The answers of one session, by sequence.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Answers {
    /// By the first sequence of each; none reaches into the next.
    runs: BTreeMap<u64, Run>,
    count: usize,
    /// What the transactions' results take.
    results_bytes: usize,
    /// What the transactions' outcomes count for.
    outcome_bytes: usize,
}

impl Answers {
    /// How many answers there are.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// What they count for: no less than they take, in memory as on disk.
    pub(super) fn bytes(&self) -> usize {
        self.runs.len() * RUN_BYTES + self.outcome_bytes
    }

    pub(super) fn get(&self, sequence: u64) -> Option<Answer> {
        let (first, run) = self.runs.range(..=sequence).next_back()?;
        let place = sequence - first;
        (place < run.count).then(|| run.answer(place))
    }

    /// Keeps the answer to a sequence that has none yet, without what is too large in it.
    pub(super) fn keep(&mut self, sequence: u64, answer: Answer) {
        let answer = match answer {
            Answer::Transaction(outcome) => {
                let room = SESSION_RESULTS_BYTES_MAX.saturating_sub(self.results_bytes);
                Kept::Transaction(Box::new(KeptOutcome::new(&outcome, room.min(RESULTS_BYTES_MAX))))
            }
            Answer::Done(version) => Kept::Done(version),
            Answer::Mismatch(version) => Kept::Mismatch(version),
            Answer::FoundTooMuch => Kept::FoundTooMuch,
        };
        self.count += 1;
        let before = self.runs.range_mut(..sequence).next_back();
        if let Some((first, run)) = before
            && sequence - first == run.count
            && run.extend(&answer)
        {
            return;
        }
        self.insert(sequence, Run { count: 1, first: answer });
    }

    fn insert(&mut self, first: u64, run: Run) {
        self.results_bytes += run.first.results_bytes();
        self.outcome_bytes += run.first.outcome_bytes();
        self.runs.insert(first, run);
    }

    /// Drops the answers below `lowest`.
    pub(super) fn forget(&mut self, lowest: u64) {
        while let Some(run) = self.runs.first_entry()
            && *run.key() < lowest
        {
            let (first, run) = run.remove_entry();
            let forgotten = run.count.min(lowest - first);
            self.drop_first(first, run, forgotten);
        }
    }

    /// Drops the oldest answer. Returns its sequence.
    pub(super) fn forget_first(&mut self) -> Option<u64> {
        let (first, run) = self.runs.pop_first()?;
        self.drop_first(first, run, 1);
        Some(first)
    }

    /// Puts back what a run, which was taken out, has after its first `forgotten` answers.
    fn drop_first(&mut self, first: u64, run: Run, forgotten: u64) {
        self.count -= usize::try_from(forgotten).unwrap_or(self.count);
        if forgotten == run.count {
            self.results_bytes -= run.first.results_bytes();
            self.outcome_bytes -= run.first.outcome_bytes();
        } else {
            self.runs.insert(first + forgotten, run.without(forgotten));
        }
    }

    /// Appends the runs: each as the sequences left out before it, and its answer.
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        let mut next = 0;
        for (first, run) in &self.runs {
            put_varint(out, first - next);
            match &run.first {
                Kept::Done(version) if run.count == 1 => {
                    out.push(TAG_DONE);
                    put_version(out, *version);
                }
                Kept::Done(version) => {
                    out.push(TAG_DONE_RUN);
                    put_version(out, *version);
                    put_varint(out, run.count);
                }
                Kept::Mismatch(None) => out.push(TAG_MISMATCH_ABSENT),
                Kept::Mismatch(Some(version)) => {
                    out.push(TAG_MISMATCH);
                    put_version(out, *version);
                }
                Kept::Transaction(outcome) => {
                    out.push(TAG_TRANSACTION);
                    outcome.put(out);
                }
                Kept::FoundTooMuch => out.push(TAG_FOUND_TOO_MUCH),
            }
            // The last sequence of all has none after it, and no run either.
            next = first.saturating_add(run.count);
        }
    }

    /// Reads what [`Answers::put`] wrote, to the end.
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, Corrupt> {
        let mut answers = Self::default();
        let mut next = Some(0u64);
        while !reader.is_empty() {
            let left_out = reader.varint()?;
            let run = read_run(reader)?;
            let first = next.and_then(|next| next.checked_add(left_out));
            let last = first.and_then(|first| first.checked_add(run.count - 1));
            let count = usize::try_from(run.count).ok().and_then(|count| answers.count.checked_add(count));
            let (Some(first), Some(last), Some(count)) = (first, last, count) else {
                return Err(reader.corrupt("a sequence is too large"));
            };
            answers.count = count;
            answers.insert(first, run);
            next = last.checked_add(1);
        }
        Ok(answers)
    }

    #[cfg(test)]
    pub(super) fn runs(&self) -> usize {
        self.runs.len()
    }
}

fn read_run(reader: &mut Reader<'_>) -> Result<Run, Corrupt> {
    let one = |first| Run { count: 1, first };
    Ok(match reader.u8()? {
        TAG_DONE => one(Kept::Done(read_version(reader)?)),
        TAG_MISMATCH_ABSENT => one(Kept::Mismatch(None)),
        TAG_MISMATCH => one(Kept::Mismatch(Some(read_version(reader)?))),
        TAG_TRANSACTION => {
            one(Kept::Transaction(Box::new(KeptOutcome::new(&Outcome::read(reader)?, usize::MAX))))
        }
        TAG_FOUND_TOO_MUCH => one(Kept::FoundTooMuch),
        TAG_DONE_RUN => {
            let (version, count) = (read_version(reader)?, reader.varint()?);
            if count < 2 || version.hlc.0.checked_add(count).is_none() {
                return Err(reader.corrupt("a run of answers has a length that cannot be"));
            }
            Run { count, first: Kept::Done(version) }
        }
        _ => return Err(reader.corrupt("an answer is not known to this version of FlareDB")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transaction::OperationResult;

    /// The leaves of a tree to which is only ever added at the end are half empty.
    #[test]
    fn an_answer_counts_for_no_less_than_it_takes() {
        assert!(2 * size_of::<(u64, Run)>() <= RUN_BYTES, "{} bytes", size_of::<(u64, Run)>());
        assert!(size_of::<KeptOutcome>() + 2 * size_of::<usize>() <= OUTCOME_BYTES);
        let largest = Version { era: u32::MAX.into(), hlc: Hlc(u64::MAX), node: u64::MAX.into() };
        let results = Some(vec![OperationResult::Written; 128]);
        let outcome = Outcome { held: true, version: Some(largest), results };
        let far_apart =
            [Answer::Mismatch(Some(largest)), Answer::Done(largest), Answer::Transaction(outcome)];
        let (mut answers, mut encoded) = (Answers::default(), Vec::new());
        for (place, answer) in (1..).zip(far_apart) {
            answers.keep(place << 60, answer);
        }
        answers.put(&mut encoded);
        assert!(encoded.len() <= answers.bytes());
        assert_eq!(answers.bytes(), 3 * RUN_BYTES + OUTCOME_BYTES + 130);
        answers.forget(u64::MAX);
        assert_eq!((answers.bytes(), answers.results_bytes), (0, 0));
    }
}

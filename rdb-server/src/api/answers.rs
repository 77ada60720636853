//! The memory that answers take on their way from the applier to the client. What a write has found cannot be refused any
//! more, for the write is over; but where there is no memory for it, the answer can do without.

use crate::budget::{Budget, Share};
use crate::waiter::Answers;
use rdb_core::apply::Answer;
use rdb_core::raft::Failure;
use rdb_core::transaction::{OperationResult, Outcome};

/// What the answers of one proposal may have found for nothing: they live about as long as the proposal itself did.
const FOUND_BYTES_FREE: usize = 1 << 10;

/// Takes memory for what the answers hold. Where there is none, they are made to hold nothing: a comparison that failed
/// becomes one to try again, and a transaction that was executed says that its results are gone.
pub(super) fn hold(answered: &mut Result<Answers, Failure>, budget: &Budget) -> Option<Share> {
    let Ok(Answers::Keys(answers)) = answered else { return None };
    let bytes: usize = answers.iter().map(found_bytes).sum();
    if bytes <= FOUND_BYTES_FREE {
        return None;
    }
    let share = budget.take(bytes).ok();
    if share.is_none() {
        answers.iter_mut().filter(|answer| 0 < found_bytes(answer)).for_each(forget);
    }
    share
}

fn found_bytes(answer: &Answer) -> usize {
    match answer {
        Answer::Mismatch { found, .. } => found.as_ref().map_or(0, Vec::len),
        Answer::Transaction(Outcome { results: Some(results), .. }) => {
            let found = results.iter().map(|result| match result {
                OperationResult::Found(Some(found)) => found.value.len(),
                OperationResult::Found(None) | OperationResult::Written => 0,
            });
            found.sum()
        }
        _ => 0,
    }
}

fn forget(answer: &mut Answer) {
    match answer {
        Answer::Transaction(outcome) => outcome.results = None,
        // Nothing was applied, so it may be tried again.
        answer => *answer = Answer::Crowded,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdb_core::transaction::Found;
    use rdb_core::version::Version;

    fn answers() -> Result<Answers, Failure> {
        let version = Version::default();
        let mismatch = Answer::Mismatch { version: Some(version), found: Some(vec![1; 3000]) };
        let found = OperationResult::Found(Some(Found { version, value: vec![2; 3000] }));
        let results = Some(vec![OperationResult::Written, found]);
        let transaction = Answer::Transaction(Outcome { held: true, version: Some(version), results });
        Ok(Answers::Keys(vec![Answer::Done(version), mismatch, transaction]))
    }

    #[test]
    fn what_was_found_counts_until_it_is_sent() {
        let budget = Budget::new(7000);
        let mut answered = answers();
        let share = hold(&mut answered, &budget).unwrap();
        assert_eq!(budget.used(), 6000);
        assert_eq!(format!("{answered:?}"), format!("{:?}", answers()));
        drop(share);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn without_memory_answers_hold_nothing_and_stay_true() {
        let budget = Budget::new(5000);
        let mut answered = answers();
        assert!(hold(&mut answered, &budget).is_none());
        assert_eq!(budget.used(), 0);
        let Ok(Answers::Keys(answers)) = answered else { panic!("no answers") };
        let gone = Outcome { held: true, version: Some(Version::default()), results: None };
        let expected = [Answer::Done(Version::default()), Answer::Crowded, Answer::Transaction(gone)];
        assert_eq!(answers, expected);
    }
}

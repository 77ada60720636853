//! The fast checker against the slow one, on histories of a register that was right, and of ones that were not.

use super::search::is_linearizable;
use super::{Action, Expect, Operation, Version, check_versioned};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

fn version(number: u64) -> Version {
    Version { era: 1, hlc: number, node: 1 }
}

/// A history of a correct register: each operation takes effect at a moment between its call and its return.
fn history(rng: &mut ChaCha8Rng, operations: u64, clients: u64) -> Vec<Operation> {
    let mut history = Vec::new();
    let mut free_at = vec![0; usize::try_from(clients).unwrap()];
    let mut spans = Vec::new();
    for _ in 0..operations {
        let client = rng.random_range(0..free_at.len());
        let call = free_at[client] + rng.random_range(1..10_u64);
        let effect = call + rng.random_range(1..20);
        let ret = effect + rng.random_range(1..20);
        free_at[client] = ret;
        spans.push((effect, call, ret));
    }
    spans.sort_unstable();
    let mut state: Option<(u64, Version)> = None;
    for (number, (_, call, ret)) in spans.into_iter().enumerate() {
        let number = number as u64 + 1;
        let action = act(rng, number, &mut state);
        // No two moments are the same: the number breaks ties.
        let ret = Some(ret * 1_000 + number).filter(|_| !rng.random_bool(0.1) || action_is_read(&action));
        history.push(Operation { call: call * 1_000 + 500 + number, ret, action });
    }
    let told: Vec<Version> = history.iter().filter_map(|operation| told_version(&operation.action)).collect();
    history.into_iter().map(|operation| forget_version_in_doubt(operation, &told)).collect()
}

/// A version that an operation tells without its value.
fn told_version(action: &Action) -> Option<Version> {
    match action {
        Action::Refused { found, .. } => *found,
        Action::Swap { expect: Expect::Version(version), .. } => Some(*version),
        _ => None,
    }
}

fn action_is_read(action: &Action) -> bool {
    matches!(action, Action::Read { .. } | Action::Refused { .. })
}

fn forget_version_in_doubt(mut operation: Operation, told: &[Version]) -> Operation {
    if operation.ret.is_none()
        && let Action::Write { value: Some(_), version } | Action::Swap { value: Some(_), version, .. } =
            &mut operation.action
        && version.is_some_and(|version| !told.contains(&version))
    {
        *version = None;
    }
    operation
}

fn act(rng: &mut ChaCha8Rng, number: u64, state: &mut Option<(u64, Version)>) -> Action {
    let new = (number, version(number));
    match rng.random_range(0..10) {
        0..4 => Action::Read { found: *state },
        4..6 => {
            *state = Some(new);
            Action::Write { value: Some(new.0), version: Some(new.1) }
        }
        6 => {
            *state = None;
            Action::Write { value: None, version: Some(new.1) }
        }
        _ => {
            let expect = match (rng.random_range(0..4), &state) {
                (0, _) | (_, None) => Expect::Absent,
                (1, _) => Expect::Value(rng.random_range(1..=number)),
                (2, Some((value, _))) => Expect::Value(*value),
                (_, Some((_, version))) => Expect::Version(*version),
            };
            if !expect.is_met_by(state.as_ref()) {
                return Action::Refused { expect, found: state.map(|(_, version)| version) };
            }
            *state = Some(new);
            Action::Swap { expect, value: Some(new.0), version: Some(new.1) }
        }
    }
}

fn same_verdict(history: &[Operation], what: &str) -> bool {
    let (fast, slow) = (check_versioned(history), is_linearizable(history));
    // Versions tell more than values: what no order explains, they never explain either.
    assert!(slow || fast.is_err(), "{what}: the search finds no order, yet {history:#?}");
    fast.is_ok()
}

#[test]
fn histories_of_a_correct_register_are_accepted_by_both() {
    for seed in 0..400 {
        let history = history(&mut ChaCha8Rng::seed_from_u64(seed), 18, 4);
        assert!(is_linearizable(&history), "seed {seed}: the search is wrong: {history:#?}");
        let verdict = check_versioned(&history);
        assert_eq!(verdict, Ok(()), "seed {seed}: {history:#?}");
    }
}

/// Makes one read see what was there some writes earlier.
fn stale_read(rng: &mut ChaCha8Rng, history: &mut [Operation]) -> bool {
    let seen: Vec<_> = history
        .iter()
        .filter_map(|operation| match &operation.action {
            Action::Write { value: Some(value), version: Some(version) } => Some((*value, *version)),
            _ => None,
        })
        .collect();
    let reads: Vec<_> = (0..history.len())
        .filter(|number| matches!(history[*number].action, Action::Read { found: Some(_) }))
        .collect();
    let (Some(read), false) = (reads.last(), seen.len() < 3) else { return false };
    history[*read].action = Action::Read { found: Some(seen[rng.random_range(0..seen.len() - 2)]) };
    true
}

#[test]
fn a_read_of_the_past_is_rejected() {
    let (mut rejected, mut changed) = (0, 0);
    for seed in 0..400 {
        let rng = &mut ChaCha8Rng::seed_from_u64(seed);
        let mut history = history(rng, 20, 3);
        if stale_read(rng, &mut history) {
            changed += 1;
            rejected += u64::from(!same_verdict(&history, "stale read"));
        }
    }
    // Some reads overlap the writes and may rightly see the older one.
    assert!(100 < changed && changed * 3 / 4 < rejected, "{rejected} of {changed} were rejected");
}

#[test]
fn an_acknowledged_write_that_vanished_is_rejected() {
    let (mut rejected, mut changed) = (0, 0);
    for seed in 0..400 {
        let rng = &mut ChaCha8Rng::seed_from_u64(seed);
        let mut history = history(rng, 20, 3);
        let end = history.iter().filter_map(|operation| operation.ret).max().unwrap_or(0);
        let state = history.iter().rev().find_map(|operation| match &operation.action {
            Action::Write { value: Some(value), version: Some(version) } => Some((*value, *version)),
            _ => None,
        });
        let Some(before) = state else { continue };
        // A write that everybody was told of, and which a later read does not see.
        let lost = version(1_000);
        history.push(Operation {
            call: end + 1,
            ret: Some(end + 2),
            action: Action::Write { value: Some(1_000), version: Some(lost) },
        });
        history.push(Operation {
            call: end + 3,
            ret: Some(end + 4),
            action: Action::Read { found: Some(before) },
        });
        changed += 1;
        rejected += u64::from(!same_verdict(&history, "lost write"));
    }
    assert!(100 < changed && rejected == changed, "{rejected} of {changed} were rejected");
}

#[test]
fn what_nobody_wrote_is_rejected() {
    let write = Operation {
        call: 1,
        ret: Some(2),
        action: Action::Write { value: Some(1), version: Some(version(1)) },
    };
    let read = |found| Operation { call: 3, ret: Some(4), action: Action::Read { found } };
    assert!(check_versioned(&[write.clone(), read(Some((1, version(1))))]).is_ok());
    assert!(check_versioned(&[write.clone(), read(Some((2, version(1))))]).is_err(), "another value");
    assert!(check_versioned(&[write.clone(), read(Some((1, version(2))))]).is_err(), "another version");
    assert!(check_versioned(&[write.clone(), read(None)]).is_err(), "nothing");
    assert!(check_versioned(&[write.clone(), write]).is_err(), "one version twice");
}

#[test]
fn a_swap_that_overlooked_a_write_is_rejected() {
    let write = |number: u64, value| Operation {
        call: 10 * number,
        ret: Some(10 * number + 1),
        action: Action::Write { value, version: Some(version(number)) },
    };
    let swap = |expect| Operation {
        call: 30,
        ret: Some(31),
        action: Action::Swap { expect, value: Some(3), version: Some(version(3)) },
    };
    let history = |expect| [write(1, Some(1)), write(2, Some(2)), swap(expect)];
    assert!(check_versioned(&history(Expect::Value(2))).is_ok());
    assert!(check_versioned(&history(Expect::Version(version(2)))).is_ok());
    assert!(check_versioned(&history(Expect::Value(1))).is_err());
    assert!(check_versioned(&history(Expect::Version(version(1)))).is_err());
    assert!(check_versioned(&history(Expect::Absent)).is_err());
}

#[test]
fn a_write_in_doubt_may_have_happened_but_not_only_for_a_while() {
    let doubtful = Operation { call: 5, ret: None, action: Action::Write { value: Some(2), version: None } };
    let first = Operation {
        call: 1,
        ret: Some(2),
        action: Action::Write { value: Some(1), version: Some(version(1)) },
    };
    let read = |at, found| Operation { call: at, ret: Some(at + 1), action: Action::Read { found } };
    let (one, two) = (Some((1, version(1))), Some((2, version(2))));
    assert!(check_versioned(&[first.clone(), doubtful.clone(), read(10, one)]).is_ok());
    assert!(check_versioned(&[first.clone(), doubtful.clone(), read(10, one), read(20, two)]).is_ok());
    assert!(check_versioned(&[first, doubtful, read(10, two), read(20, one)]).is_err());
}

//! Bugs planted on purpose: a simulator that does not find them proves nothing by its silence.
//!
//! Each is a feature of the code and has its test here, which is there only with the feature:
//! `cargo test -p rdb-sim --features bug-ack-before-sync planted`. Those of the worlds that switch modes are in `planted_modes.rs`.
#![cfg(all(feature = "bug-any", not(any(feature = "bug-modes", feature = "bug-merge-ignores-node"))))]
#![allow(
    clippy::print_stdout,
    reason = "how soon a bug was found is what a reader of the test wants to know"
)]

/// Seeds within which a bug must show itself.
const SEEDS_MAX: u64 = 2_000;

/// Runs seeds until one fails, by one of `invariants`.
#[track_caller]
fn planted_is_caught(invariants: &[&str]) {
    for seed in 0..SEEDS_MAX {
        let Some(violation) = rdb_sim::run(seed).violation else { continue };
        println!("caught by seed {seed}, after {} seeds: {violation}", seed + 1);
        assert!(invariants.contains(&violation.invariant), "another bug than the planted one? {violation}");
        return;
    }
    panic!("{SEEDS_MAX} seeds did not find it");
}

#[cfg(feature = "bug-ack-before-sync")]
#[test]
fn planted_acknowledgement_before_sync() {
    planted_is_caught(&["answers are durable", "a node starts from its disks"]);
}

#[cfg(feature = "bug-append-answer-before-sync")]
#[test]
fn planted_append_answer_before_sync() {
    planted_is_caught(&["promises are synced first"]);
}

#[cfg(feature = "bug-state-in-own-batch")]
#[test]
fn planted_state_in_its_own_batch() {
    planted_is_caught(&[
        "replicas apply alike",
        "replicas answer alike",
        "data is of one moment",
        "linearizable",
    ]);
}

#[cfg(feature = "bug-read-without-round")]
#[test]
fn planted_read_that_asks_nobody_whether_its_node_still_leads() {
    planted_is_caught(&["linearizable"]);
}

#[cfg(feature = "bug-read-context-reused")]
#[test]
fn planted_read_round_under_a_name_that_was_used_before() {
    planted_is_caught(&["linearizable", "regions never return"]);
}

#[cfg(feature = "bug-leader-change-is-definite")]
#[test]
fn planted_leader_change_that_is_told_as_a_definite_failure() {
    planted_is_caught(&["not done is not done", "linearizable"]);
}

#[cfg(feature = "bug-client-repeats-unknown")]
#[test]
fn planted_client_that_sends_what_is_in_doubt_again_without_a_name() {
    planted_is_caught(&["linearizable", "exactly once"]);
}

#[cfg(feature = "bug-snapshot-without-sessions")]
#[test]
fn planted_snapshot_without_sessions() {
    planted_is_caught(&["data is of one moment", "exactly once", "replicas answer alike"]);
}

#[cfg(feature = "bug-snapshot-log-first")]
#[test]
fn planted_log_begun_anew_before_the_data_is_replaced() {
    planted_is_caught(&["a node starts from its disks"]);
}

#[cfg(feature = "bug-removal-before-closing")]
#[test]
fn planted_removal_before_the_region_is_closed() {
    planted_is_caught(&["deletions are final"]);
}

#[cfg(feature = "bug-log-destroyed-before-data")]
#[test]
fn planted_log_destroyed_before_the_data() {
    planted_is_caught(&["a node starts from its disks"]);
}

#[cfg(feature = "bug-truncate-past-durable")]
#[test]
fn planted_truncation_past_what_is_durable() {
    planted_is_caught(&["a node starts from its disks"]);
}

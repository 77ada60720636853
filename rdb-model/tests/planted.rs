//! Plants each wrong variant in turn, and sees it caught by the promise and in the configuration that `docs/reliability.md`
//! names: `cargo test -p rdb-model --features planted --test planted`.
#![cfg(feature = "planted")]

use rdb_core::switch::planted::Wrong;
use rdb_model::planted::{self, CATCHES};

/// More than any takes.
const STEPS_MAX: usize = 4_000_000;

#[test]
fn every_variant_is_caught() {
    let mut missed = Vec::new();
    for catch in CATCHES {
        let configuration = planted::configuration(catch.configuration).unwrap();
        let outcome = planted::plant(configuration, catch.variant, STEPS_MAX, Some(catch.promise));
        let steps = outcome.broken.iter().find(|(promise, _)| *promise == catch.promise);
        let steps = steps.map(|(_, steps)| steps.len());
        println!("{catch:?}: {steps:?} steps, {} states, {:?}", outcome.states, outcome.took);
        if steps.is_none() {
            missed.push((catch, outcome.broken));
        }
    }
    assert!(missed.is_empty(), "not caught: {missed:#?}");
}

#[test]
fn every_variant_has_its_place() {
    for variant in Wrong::ALL {
        assert_eq!(CATCHES.iter().filter(|catch| catch.variant == *variant).count(), 1, "{variant:?}");
    }
}

/// The table that people read is the one that is run.
#[test]
fn the_documented_table_is_this_one() {
    let text = include_str!("../../docs/reliability.md");
    for catch in CATCHES {
        let parts = [
            format!("| `{:?}` |", catch.variant),
            format!("| `{}` |", catch.configuration),
            format!("| {} |", catch.promise.number()),
        ];
        // Some variants have a row in the simulator's table, too.
        let has_row = text.lines().any(|line| parts.iter().all(|part| line.contains(part)));
        assert!(has_row, "no row has {parts:?}");
    }
}

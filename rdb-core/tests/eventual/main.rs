//! Several nodes in eventual mode, driven together: the logs, the merge, the clock, what is sent to whom, what is
//! dropped, purged and settled; in memory, from a seed, without time and threads.
//!
//! A world takes random steps: clients write through every node, runs and reports travel and are lost, doubled and
//! overtaken, links are cut in one direction or both, disks sync and flush late, nodes crash and start again with
//! another wall clock. While it goes on, any two nodes at the same vector must hold the same and have lost the same,
//! and a session token that a node takes for satisfied must be. Then all is mended, and the nodes must come to what the
//! truth says: see `truth.rs`.
#![allow(clippy::unwrap_used, reason = "the helpers of a test are not seen as tests")]

mod node;
mod truth;
mod world;

use world::{Options, World};

/// So many worlds that each step meets each other one in several; under a minute on one core.
const SEEDS: u64 = 150;

fn check(seed: u64, options: &Options) {
    let mut world = World::new(seed, options);
    world.run();
    world.mend();
    world.check_converged();
    // The next era begins with what this one came to, and late messages of this one meet it.
    world.begin_next_era();
    world.run();
    world.mend();
    world.check_converged();
}

#[test]
fn three_nodes_come_to_the_truth() {
    for seed in 0..SEEDS {
        check(
            seed,
            &Options {
                nodes: 3,
                steps: 700,
                keeps_lost: true,
                forgets: false,
                crashes: true,
                periodic: false,
                cap: u64::MAX,
            },
        );
    }
}

#[test]
fn five_nodes_that_keep_no_lost_values_come_to_the_truth() {
    for seed in 0..SEEDS / 3 {
        check(
            seed,
            &Options {
                nodes: 5,
                steps: 1200,
                keeps_lost: false,
                forgets: false,
                crashes: true,
                periodic: false,
                cap: u64::MAX,
            },
        );
    }
}

#[test]
fn lost_values_are_kept_for_their_time_and_counted_for_ever() {
    for seed in 0..SEEDS / 2 {
        check(
            seed,
            &Options {
                nodes: 3,
                steps: 700,
                keeps_lost: true,
                forgets: true,
                crashes: true,
                periodic: seed % 2 == 0,
                cap: u64::MAX,
            },
        );
    }
}

/// What is acknowledged before it is synced may be lost by a power cut, and by nothing else; and nobody else has it by then.
#[test]
fn nodes_that_acknowledge_first_come_to_the_truth() {
    for seed in 0..SEEDS {
        let options = Options {
            nodes: 3,
            steps: 700,
            keeps_lost: true,
            forgets: false,
            crashes: true,
            periodic: true,
            cap: u64::MAX,
        };
        check(seed, &options);
    }
}

#[test]
fn without_crashes_every_write_is_there_that_was_accepted() {
    for seed in 0..SEEDS / 3 {
        let options = Options {
            nodes: 3,
            steps: 500,
            keeps_lost: true,
            forgets: false,
            crashes: false,
            periodic: false,
            cap: u64::MAX,
        };
        let mut world = World::new(seed, &options);
        world.run();
        world.mend();
        world.check_converged();
        assert_eq!(world.vanished(), 0);
    }
}

/// Their logs hold a few runs, so that whoever is away for a moment is given up.
#[test]
fn nodes_that_were_given_up_take_copies_and_come_to_the_truth() {
    for seed in 0..SEEDS {
        let keeps_lost = seed % 2 == 0;
        let nodes = if seed % 3 == 2 { 5 } else { 3 };
        let cap = match seed % 9 / 3 {
            0 => 300,
            1 => 1000,
            _ => 4000,
        };
        let (forgets, periodic) = (seed % 4 == 0, seed % 5 == 0);
        check(seed, &Options { nodes, steps: 900, keeps_lost, forgets, crashes: true, periodic, cap });
    }
}

/// A world in which nothing rare happens proves nothing.
#[test]
fn the_worlds_meet_what_they_are_for() {
    let mut met = world::Met::default();
    for seed in 0..20 {
        let cap = if seed % 4 < 2 { 1000 } else { u64::MAX };
        let options = Options {
            nodes: 3,
            steps: 700,
            keeps_lost: true,
            forgets: true,
            crashes: true,
            periodic: seed % 2 == 0,
            cap,
        };
        let mut world = World::new(seed, &options);
        world.run();
        world.mend();
        world.check_converged();
        met.add(&world.met);
    }
    let missed: Vec<_> = world::Met::ALL.iter().filter(|what| met.times(what) < 20).collect();
    assert!(missed.is_empty(), "{missed:?} of {met:?}");
}

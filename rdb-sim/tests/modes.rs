//! Worlds in which a namespace is eventual, strong, and switched between the two: those that once failed, some fresh ones, and one
//! twice.
#![cfg(not(feature = "bug-any"))]

use rdb_sim::modes;

/// Fresh seeds of a test run; `rdb-sim run` does the thousands.
const SEEDS: u64 = 150;

#[track_caller]
fn holds(seed: u64) -> modes::Verdict {
    let verdict = modes::run(seed);
    if let Some(violation) = &verdict.violation {
        let again = format!("cargo run --release -p rdb-sim -- replay --world modes --seed {seed} --trace");
        panic!("seed {seed}: {violation}\n{:#?}\nagain: {again}", modes::Options::draw(seed));
    }
    verdict
}

#[test]
fn seeds_that_once_failed_hold() {
    let lines = include_str!("seeds_modes.txt").lines().filter(|line| !line.starts_with('#'));
    for seed in lines.filter_map(|line| line.split_whitespace().next()) {
        holds(seed.parse().unwrap());
    }
}

#[test]
fn fresh_seeds_hold_and_are_not_idle() {
    let mut totals = modes::Totals::default();
    (0..SEEDS).for_each(|seed| totals.add(&holds(1_000_000 + seed).totals));
    println!("{totals}");
    // Every world makes one switch in peace; these say that many are made in the storm, and meet what can go wrong.
    for (what, count, least) in [
        ("switches to strong", totals.to_strong, SEEDS),
        ("switches to eventual", totals.to_eventual, SEEDS),
        ("switches called off", totals.aborted, SEEDS / 4),
        ("switches without a node", totals.to_strong_without, SEEDS / 10),
        ("eventual writes", totals.eventual_writes, 50 * SEEDS),
        ("strong writes", totals.strong_writes, 20 * SEEDS),
        ("linearizable reads", totals.strong_reads, 5 * SEEDS),
        ("session reads", totals.session_reads, 10 * SEEDS),
        ("unsynced writes that a power cut took", totals.unsynced_lost, SEEDS / 10),
        ("writes held back by a gate", totals.writes_held_back, SEEDS),
        ("operations that need strong and were refused", totals.requires_strong, 10 * SEEDS),
        ("reads that came to another era", totals.reads_refused, SEEDS / 5),
        ("writes in doubt", totals.in_doubt, SEEDS),
        ("operations checked", totals.checked, 20 * SEEDS),
        ("writes set aside", totals.quarantined, SEEDS / 10),
        ("snapshots", totals.snapshots, SEEDS / 10),
        ("runs sent on for others", totals.runs_forwarded, SEEDS),
        ("runs kept out by a fence", totals.runs_fenced, SEEDS / 10),
        ("logs cut", totals.truncations, SEEDS),
        ("tombstones purged", totals.tombstones_purged, SEEDS / 5),
        ("members given up", totals.given_up, SEEDS),
        ("copies taken", totals.copies, SEEDS / 2),
        ("crashes with a copy noted", totals.crashes_copying, SEEDS / 20),
        ("looks at an unknown lag", totals.lags_unknown, SEEDS),
        ("replicas compared", totals.compared, 10 * SEEDS),
        ("crashes during a switch", totals.crashes_switching, SEEDS),
        ("power cuts", totals.power_cuts, SEEDS / 2),
        ("network cuts", totals.cuts, SEEDS),
        ("clock steps", totals.clock_steps, SEEDS / 2),
    ] {
        assert!(least < count, "{what}: only {count} in {SEEDS} worlds");
    }
}

#[test]
fn the_same_seed_is_the_same_world() {
    for seed in [3, 1_000_003] {
        let (one, two) = (modes::run(seed), modes::run(seed));
        assert_eq!((one.trace, one.totals), (two.trace, two.totals), "seed {seed}");
    }
    assert_ne!(modes::run(3).trace, modes::run(5).trace);
}

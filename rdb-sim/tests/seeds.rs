//! Worlds in every test run: those that once failed, some fresh ones, and one twice.
#![cfg(not(feature = "bug-any"))]

/// Fresh seeds of a test run; `rdb-sim run` does the thousands.
const SEEDS: u64 = 200;

#[track_caller]
fn holds(seed: u64) -> rdb_sim::Verdict {
    holds_in(&rdb_sim::Options::draw(seed))
}

#[track_caller]
fn holds_in(options: &rdb_sim::Options) -> rdb_sim::Verdict {
    let verdict = rdb_sim::run_by(options.clone(), None);
    if let Some(violation) = &verdict.violation {
        let (seed, full) = (options.seed, if options.floor.is_some() { " --full" } else { "" });
        let again =
            format!("cargo run --release -p rdb-sim -- replay --world raft{full} --seed {seed} --trace");
        panic!("seed {seed}: {violation}\n{options:#?}\nagain: {again}");
    }
    verdict
}

#[test]
fn seeds_that_once_failed_hold() {
    let lines = include_str!("seeds.txt").lines().filter(|line| !line.starts_with('#'));
    for line in lines {
        let mut words = line.split_whitespace();
        let options = rdb_sim::Options::draw(words.next().unwrap().parse().unwrap());
        let full = words.next() == Some("full");
        holds_in(&if full { options.with_floor(rdb_sim::Floor::FULL) } else { options });
    }
}

#[test]
fn a_full_world_has_what_is_asked_of_it() {
    for seed in 1_000_000..1_000_008 {
        let totals = holds_in(&rdb_sim::Options::draw(seed).with_floor(rdb_sim::Floor::FULL)).totals;
        let floor = rdb_sim::Floor::FULL;
        assert!(
            floor.is_reached(totals.operations(), totals.faults(), totals.crashes),
            "seed {seed}: {totals}"
        );
    }
}

#[test]
fn fresh_seeds_hold_and_are_not_idle() {
    let mut totals = rdb_sim::Totals::default();
    (0..SEEDS).for_each(|seed| totals.add(&holds(1_000_000 + seed).totals));
    println!("{totals}");
    for (what, count) in [
        ("elections", totals.elections),
        ("crashes", totals.crashes),
        ("power cuts", totals.power_cuts),
        ("network cuts", totals.cuts),
        ("pauses", totals.pauses),
        ("disk stalls", totals.stalls),
        ("hand-overs", totals.transfers),
        ("attempts in doubt", totals.in_doubt),
        ("fetches", totals.fetches),
        ("truncations", totals.truncations),
        ("snapshots", totals.snapshots),
        ("namespaces created", totals.created),
        ("namespaces removed", totals.removed),
        ("regions destroyed", totals.destroyed),
        ("operations refused by closed regions", totals.refused),
    ] {
        assert!(SEEDS / 2 < count, "{what}: only {count} in {SEEDS} worlds");
    }
    assert!(
        0 < totals.snapshots_settled,
        "no crash came between a snapshot's note and the log's new beginning"
    );
    assert!(0 < totals.leftovers, "no start found what was left of a region that is gone");
    assert!(20 * SEEDS < totals.checked, "only {} operations were checked", totals.checked);
}

#[test]
fn the_same_seed_is_the_same_world() {
    for seed in [3, 1_000_003] {
        let (one, two) = (rdb_sim::run(seed), rdb_sim::run(seed));
        assert_eq!((one.trace, one.totals), (two.trace, two.totals), "seed {seed}");
    }
    assert_ne!(rdb_sim::run(3).trace, rdb_sim::run(5).trace);
}

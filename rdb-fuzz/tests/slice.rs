//! The slice of the fuzzing that every change must pass, without the engine: each target takes all of its seeds, does not break at
//! the inputs that once broke something, nor at a few thousand that are made from its seeds, or of nothing.

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestRunner};
use rdb_fuzz::{TARGETS, Target};
use std::path::Path;

const CASES: u32 = 2_000;

#[test]
fn seeds_are_accepted() {
    let mut refused = Vec::new();
    for Target { name, run, seeds } in TARGETS {
        let seeds = seeds();
        refused.extend((0..seeds.len()).filter(|number| !run(&seeds[*number])).map(|number| (name, number)));
    }
    assert!(refused.is_empty(), "seeds that are not accepted: {refused:?}");
}

/// Each file in `regressions/TARGET` is an input that the product once broke at.
#[test]
fn what_once_broke_something_does_so_no_more() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("regressions");
    let entries = std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path());
    for folder in entries.filter(|path| path.is_dir()) {
        let name = folder.file_name().unwrap().to_str().unwrap();
        let target = Target::named(name).unwrap_or_else(|| panic!("there is no target '{name}'"));
        for input in std::fs::read_dir(&folder).unwrap() {
            (target.run)(&std::fs::read(input.unwrap().path()).unwrap());
        }
    }
}

/// Replaces, inserts or takes out some bytes of a seed.
fn changed(seed: &[u8], changes: &[(Index, u8, u8)]) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for (at, how, byte) in changes {
        let at = at.index(bytes.len() + 1);
        match how % 4 {
            0 => bytes.insert(at, *byte),
            1 => bytes.truncate(at.max(1)),
            _ => {
                if let Some(place) = bytes.get_mut(at) {
                    *place = if how % 4 == 2 { *byte } else { *place ^ (1 << (byte % 8)) };
                }
            }
        }
    }
    bytes
}

#[test]
fn whatever_comes_is_taken_or_refused() {
    for Target { run, seeds, .. } in TARGETS {
        let seeds = seeds();
        let changes = prop::collection::vec((any::<Index>(), any::<u8>(), any::<u8>()), 1..6);
        let inputs = (any::<Index>(), changes, prop::collection::vec(any::<u8>(), 0..200));
        let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::with_cases(CASES) });
        let outcome = runner.run(&inputs, |(seed, changes, noise)| {
            run(&changed(seed.get::<Vec<u8>>(&seeds), &changes));
            run(&noise);
            Ok(())
        });
        outcome.unwrap();
    }
}

//! Bugs planted in the worlds in which a namespace changes between strong and eventual, one at a time: each must be caught, and by
//! an invariant that stands here.
//! `cargo test -p rdb-sim --features bug-modes --test planted_modes -- --nocapture`
#![cfg(any(feature = "bug-modes", feature = "bug-merge-ignores-node"))]
#![allow(
    clippy::print_stdout,
    reason = "how soon a bug was found is what a reader of the test wants to know"
)]

use rdb_sim::modes;

/// Seeds within which a bug must show itself.
const SEEDS_MAX: u64 = 2_000;

/// Runs seeds until one fails. The violation, and how many it took.
fn first_violation(seeds_max: u64) -> Option<(u64, rdb_sim::Violation)> {
    (0..seeds_max).find_map(|seed| modes::run(seed).violation.map(|violation| (seed + 1, violation)))
}

#[cfg(feature = "bug-merge-ignores-node")]
#[test]
fn planted_merge_that_ignores_the_node() {
    let (seeds, violation) = first_violation(SEEDS_MAX).expect("it is caught");
    println!("caught after {seeds} seeds: {violation}");
}

#[cfg(feature = "bug-modes")]
mod chosen {
    use super::*;
    use modes::{Shortcut, Wrong};

    const ALL: &[Shortcut] = &[
        Shortcut::AppliesBeforeSync,
        Shortcut::PushesUnsynced,
        Shortcut::TruncatesUnstable,
        Shortcut::KeepsNoMark,
        Shortcut::PurgesEarly,
        Shortcut::SkipsGaps,
        Shortcut::WritesNoNote,
        Shortcut::SetsAsideLate,
        Shortcut::WritesModeApart,
        Shortcut::TakesSnapshotEarly,
        Shortcut::ForgetsUnflushed,
    ];

    #[test]
    fn explore() {
        std::panic::set_hook(Box::new(|_| {}));
        let max: u64 = std::env::var("SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(300);
        for shortcut in ALL {
            modes::take_shortcut(Some(*shortcut));
            println!(
                "EXPLORE {shortcut:?}: {:?}",
                first_violation(max).map(|(n, v)| (
                    n,
                    v.invariant,
                    v.what.chars().take(150).collect::<String>()
                ))
            );
        }
        modes::take_shortcut(None);
        for variant in Wrong::ALL {
            modes::plant(Some(*variant));
            println!(
                "EXPLORE {variant:?}: {:?}",
                first_violation(max).map(|(n, v)| (
                    n,
                    v.invariant,
                    v.what.chars().take(150).collect::<String>()
                ))
            );
        }
    }
}

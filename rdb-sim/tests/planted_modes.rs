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
    use super::{SEEDS_MAX, first_violation};
    use rdb_sim::modes::{self, Shortcut, Wrong};

    /// Shortcuts of a node, each with the invariants by which it may be caught: which one shows it first is up to the seeds.
    const SHORTCUTS: &[(Shortcut, &[&str])] = &[
        (Shortcut::AppliesBeforeSync, &["eventual mode goes on", "the frontier is everywhere"]),
        (Shortcut::PushesUnsynced, &["nothing leaves before its sync"]),
        (Shortcut::KeepsNoRun, &["eventual mode goes on", "logs keep what members need"]),
        (Shortcut::TruncatesUnstable, &["logs keep what members need"]),
        (Shortcut::KeepsNoMark, &["the frontier is everywhere", "stamps grow"]),
        (Shortcut::PurgesEarly, &["replicas are alike", "replicas hold what was written", "one base"]),
        (Shortcut::SkipsGaps, &["replicas are alike", "one base"]),
        (Shortcut::WritesNoNote, &["reads never go back", "answers are of what is durable"]),
        (Shortcut::SetsAsideLate, &["what is left behind is kept"]),
        (
            Shortcut::WritesModeApart,
            &[
                "epochs grow",
                "replicas apply alike",
                "one marker for each era",
                "answers are of what is durable",
            ],
        ),
        (
            Shortcut::ForgetsUnflushed,
            &["a switch ends", "eventual mode goes on", "nothing acknowledged is lost", "all hold the base"],
        ),
        (Shortcut::NotesCopyEarly, &["replicas are alike", "sessions see what they saw"]),
        (Shortcut::CopyWipesOwn, &["replicas are alike", "sessions see what they saw"]),
        (Shortcut::ReadsTooSoon, &["a node shows what it has answered", "sessions see what they saw"]),
        (Shortcut::PurgesWithoutGivenUp, &["the frontier is everywhere"]),
        (Shortcut::LeaseByWallClock, &["strong eras are linearizable", "never silently weaker"]),
    ];

    /// Wrong variants of the switch, which the model catches in every order of steps, and the simulator in its own way.
    const VARIANTS: &[(Wrong, &[&str])] = &[
        (Wrong::TimerOpensGate, &[LOST]),
        (Wrong::SealNotLoaded, &[LOST]),
        (Wrong::OpenNotLoaded, &[DURABLE, "epochs grow"]),
        (Wrong::ControlOfAnyEra, &[LOST, ENDS]),
        (Wrong::OpenBeforeSync, &[DURABLE]),
        (Wrong::ReportOfAnySwitch, &[LOST, ENDS]),
        (Wrong::FlipBeforeDrained, &[ENDS, BASE]),
        (Wrong::MarkerBeforeFlipping, &[ENDS, BASE]),
        (Wrong::FinishBeforeMarker, &[ENDS, "a healed namespace switches"]),
        (Wrong::ChangeComparesPhaseOnly, &["a healed namespace switches", ENDS]),
        (Wrong::AbortPastReturn, &[LOST, ENDS]),
        (Wrong::AbortKeepsEpoch, &[ENDS]),
        (Wrong::AbortRaisesEra, &[ENDS]),
        (Wrong::EpochOfAnyEra, &["one base", ENDS, DURABLE, "one era for each epoch"]),
        (Wrong::AnswersInEpochOfAppend, &[DURABLE, "epochs grow", "answers are of the present epoch"]),
        (Wrong::MarkerOfAnyEra, &["one marker for each era", "one base", ENDS]),
        (Wrong::CutWithoutExcluded, &[ENDS, "one base", VANISHES, BEHIND]),
        (
            Wrong::ExcludedDrops,
            &["what is left behind is kept", "what is left behind is set aside where it has come to"],
        ),
        (Wrong::ExcludedApplies, &["one base", BEHIND]),
        (Wrong::NoFence, &[ENDS, "one base", VANISHES, BEHIND]),
        (Wrong::SendsUnsynced, &["nothing leaves before its sync"]),
        (Wrong::ReadNotCheckedAgain, &["one mode for each era", "never silently weaker"]),
        (Wrong::LeaseOutlivesHandOver, STALE),
        (Wrong::LeaseBeforeApplied, STALE),
        (Wrong::StrongServedEventually, &["never silently weaker"]),
    ];

    const STALE: &[&str] = &["never silently weaker", "strong eras are linearizable"];
    const BASE: &str = "all hold the base";
    const LOST: &str = "nothing acknowledged is lost";
    const DURABLE: &str = "answers are of what is durable";
    const ENDS: &str = "a switch ends";
    const VANISHES: &str = "what was read does not vanish";
    const BEHIND: &str = "what is left behind is merged nowhere";

    /// Plants one bug after the other, and says how soon each was caught.
    fn all_are_caught<B: std::fmt::Debug + Copy>(bugs: &[(B, &[&str])], plant: impl Fn(Option<B>)) {
        let mut missed = Vec::new();
        let only = std::env::var("ONLY").unwrap_or_default();
        for (bug, invariants) in bugs {
            if !only.is_empty() && !only.split(",").any(|o| o == format!("{bug:?}")) {
                continue;
            }
            plant(Some(*bug));
            match first_violation(SEEDS_MAX) {
                Some((seeds, violation)) => {
                    println!("{bug:?} is caught after {seeds} seeds: {}", violation.invariant);
                    if !invariants.contains(&violation.invariant) {
                        missed.push(format!("{bug:?} by {:?}, which is another bug", violation.invariant));
                    }
                }
                None => missed.push(format!("{bug:?} not within {SEEDS_MAX} seeds")),
            }
        }
        plant(None);
        assert!(missed.is_empty(), "{missed:#?}");
    }

    #[test]
    fn planted_shortcuts_of_a_node() {
        all_are_caught(SHORTCUTS, modes::take_shortcut);
    }

    #[test]
    fn planted_variants_of_the_switch() {
        all_are_caught(VARIANTS, modes::plant);
    }

    /// With nothing planted, these builds are what all others are.
    #[test]
    fn without_any_of_them_all_is_well() {
        assert_eq!(first_violation(30).map(|(seed, violation)| (seed, violation.to_string())), None);
    }
}

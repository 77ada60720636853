//! Wrong variants of the protocol, each with the configuration and the promise that catch it.

use crate::configuration::Configuration;
use crate::configurations;
use crate::model::Cluster;
use crate::promises::Promise;
use crate::run::{Outcome, explore};
use rdb_core::switch::planted::Wrong;

/// Where a variant is caught.
#[derive(Debug, Clone, Copy)]
pub struct Catch {
    /// The variant.
    pub variant: Wrong,
    /// The configuration that it is planted in.
    pub configuration: &'static str,
    /// The promise that it breaks there.
    pub promise: Promise,
}

/// The table of `docs/reliability.md`.
pub const CATCHES: &[Catch] = &[
    caught(Wrong::SealBeforeAnswers, "strong-crash", Promise::OneBase),
    caught(Wrong::TimerOpensGate, "patience", Promise::NothingLost),
    caught(Wrong::SealNotLoaded, "strong-crash", Promise::NothingLost),
    caught(Wrong::OpenNotLoaded, "strong-abort-crash", Promise::DurablyInstalled),
    caught(Wrong::ControlOfAnyEra, "round-unflushed", Promise::NothingLost),
    caught(Wrong::SealReportedBeforeSync, "strong-crash", Promise::NothingLost),
    caught(Wrong::OpenBeforeSync, "strong-abort-crash", Promise::DurablyInstalled),
    caught(Wrong::ReportOfAnySwitch, "strong-abort", Promise::NothingLost),
    caught(Wrong::DrainedUnsynced, "strong-crash", Promise::OneBase),
    caught(Wrong::FlipBeforeDrained, "strong-abort", Promise::OneBase),
    caught(Wrong::MarkerBeforeFlipping, "strong-abort", Promise::NothingLost),
    caught(Wrong::FinishBeforeMarker, "strong-abort", Promise::Ends),
    caught(Wrong::ChangeComparesPhaseOnly, "strong-late-step", Promise::NothingLost),
    caught(Wrong::AbortPastReturn, "strong-abort", Promise::NothingLost),
    caught(Wrong::AbortKeepsEpoch, "strong-abort", Promise::Ends),
    caught(Wrong::AbortRaisesEra, "strong-abort", Promise::OneMode),
    caught(Wrong::CatalogSetsEra, "strong-abort", Promise::NothingLost),
    caught(Wrong::EpochOfAnyEra, "back", Promise::OneMode),
    caught(Wrong::HearsOldDescriptors, "strong-late-step", Promise::Ends),
    caught(Wrong::NoReviewAfterEra, "round-back", Promise::Ends),
    caught(Wrong::AnswersInEpochOfAppend, "strong-abort-crash", Promise::DurablyInstalled),
    caught(Wrong::MarkerOfAnyEra, "back", Promise::NothingLost),
    caught(Wrong::MarkerEmptiesLogs, "round-unflushed", Promise::NothingLost),
    caught(Wrong::PutByEpoch, "back-abort", Promise::OneBase),
    caught(Wrong::PutOfAnyEra, "round-back", Promise::OneBase),
    caught(Wrong::MergesNewerEra, "round", Promise::OneBase),
    caught(Wrong::MergesOlderEra, "exclude", Promise::LeftBehindIsKept),
    caught(Wrong::CutWithoutExcluded, "exclude", Promise::OneBase),
    caught(Wrong::ExcludedDrops, "exclude", Promise::LeftBehindIsKept),
    caught(Wrong::ExcludedApplies, "exclude", Promise::LeftBehindIsKept),
    caught(Wrong::NoFence, "exclude", Promise::OneBase),
    caught(Wrong::SendsUnsynced, "strong-crash", Promise::OneBase),
    caught(Wrong::ShowsUnsynced, "strong-read", Promise::NothingVanishes),
    caught(Wrong::SnapshotOfUnsynced, "round-back-crash", Promise::OneBase),
    caught(Wrong::SnapshotWithinEra, "exclude", Promise::NothingLost),
    caught(Wrong::LeaseKept, "back-lease", Promise::NeverSilentlyWeaker),
    caught(Wrong::ReadNotCheckedAgain, "never-weaker", Promise::NeverSilentlyWeaker),
    caught(Wrong::StrongServedEventually, "never-weaker", Promise::NeverSilentlyWeaker),
    caught(Wrong::StampsBelowRegion, "clocks", Promise::LaterEraWins),
];

const fn caught(variant: Wrong, configuration: &'static str, promise: Promise) -> Catch {
    Catch { variant, configuration, promise }
}

/// Plants a variant in a configuration, and looks until a promise is broken: any, or the one that is named.
pub fn plant(
    configuration: Configuration,
    variant: Wrong,
    steps_max: usize,
    until: Option<Promise>,
) -> Outcome {
    explore(Cluster::planted(configuration, variant), steps_max, until)
}

/// The small configuration of this name.
pub fn configuration(name: &str) -> Option<Configuration> {
    configurations::small().into_iter().find(|one| one.name == name)
}

//! Wrong variants of the protocol. Each looks reasonable and breaks a promise; `rdb-model` runs one at a time and must see it
//! caught. They are there with the feature `bug-switch` alone, which no release build has: without it, [`wrong`] is `false`
//! and the compiler removes what it guards.

/// A way to get the switch wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Wrong {
    /// A node seals while answers to writes are still under way.
    SealBeforeAnswers,
    /// A sealed node gives the switch up by itself after a while.
    TimerOpensGate,
    /// A restart does not look for a seal.
    SealNotLoaded,
    /// A restart does not look for the epoch that its gate was last opened in.
    OpenNotLoaded,
    /// A restart goes by the last record about its gate, though the region may be in an earlier era than that.
    ControlOfAnyEra,
    /// A seal is reported before it is synced.
    SealReportedBeforeSync,
    /// A gate counts as open in the new epoch before that is synced.
    OpenBeforeSync,
    /// Reports of one switch count for another.
    ReportOfAnySwitch,
    /// A node reports to be drained by what it has appended, synced or not.
    DrainedUnsynced,
    /// The flip waits for no drained replica but the first.
    FlipBeforeDrained,
    /// The marker is proposed when all is drained, before the step to `flipping` is committed.
    MarkerBeforeFlipping,
    /// The catalog declares the switch done before a node has applied the marker.
    FinishBeforeMarker,
    /// The catalog's compare-and-set compares the phase alone.
    ChangeComparesPhaseOnly,
    /// A switch can be called off after the step to `flipping`.
    AbortPastReturn,
    /// An abort leaves the epoch as it is.
    AbortKeepsEpoch,
    /// An abort raises the era.
    AbortRaisesEra,
    /// A node follows the catalog into another era without its region's log.
    CatalogSetsEra,
    /// A node installs an epoch of an era that its region is not in.
    EpochOfAnyEra,
    /// A node follows descriptors that are older than what it knows.
    HearsOldDescriptors,
    /// A descriptor that came early is not looked at again when the region enters its era.
    NoReviewAfterEra,
    /// An answer carries the epoch, and the standing, of the moment when its write was appended.
    AnswersInEpochOfAppend,
    /// A marker is applied whenever it comes, a second time too.
    MarkerOfAnyEra,
    /// A marker that is found again empties the logs of its era, which are in use by then.
    MarkerEmptiesLogs,
    /// A put is applied unless the node knows of a newer epoch.
    PutByEpoch,
    /// A put is applied whenever the region is strong.
    PutOfAnyEra,
    /// Eventual writes of a later era are merged at once.
    MergesNewerEra,
    /// Eventual writes of an earlier era are merged when they arrive.
    MergesOlderEra,
    /// The cut forgets what members hold of an excluded node's writes.
    CutWithoutExcluded,
    /// An excluded node drops its tail when it returns.
    ExcludedDrops,
    /// An excluded node applies the marker like any other.
    ExcludedApplies,
    /// A sealed member goes on taking in an excluded node's writes.
    NoFence,
    /// A member goes on taking in an excluded node's writes until its seal is synced.
    FenceAfterSync,
    /// Writes leave a node before they are synced there.
    SendsUnsynced,
    /// Readers see writes before they are synced.
    ShowsUnsynced,
    /// A snapshot holds entries that its sender has not synced.
    SnapshotOfUnsynced,
    /// A snapshot replaces a replica within one eventual era.
    SnapshotWithinEra,
    /// A leader keeps its lease after it has proposed a marker.
    LeaseKept,
    /// A leader that hands over keeps its lease.
    LeaseOutlivesHandOver,
    /// A region that is strong again forgets that its leader was about to hand over, as it forgets the marker.
    StrongForgetsHandOver,
    /// A read by lease is served while an entry is committed that is not applied here.
    LeaseBeforeApplied,
    /// A linearizable read is answered without a second look at the mode.
    ReadNotCheckedAgain,
    /// A strong-only operation on an eventual namespace is served as well as it can be.
    StrongServedEventually,
    /// A leader with a slow clock stamps below what the region holds.
    StampsBelowRegion,
}

#[cfg(feature = "bug-switch")]
impl Wrong {
    /// All of them.
    pub const ALL: &'static [Wrong] = &[
        Wrong::SealBeforeAnswers,
        Wrong::TimerOpensGate,
        Wrong::SealNotLoaded,
        Wrong::OpenNotLoaded,
        Wrong::ControlOfAnyEra,
        Wrong::SealReportedBeforeSync,
        Wrong::OpenBeforeSync,
        Wrong::ReportOfAnySwitch,
        Wrong::DrainedUnsynced,
        Wrong::FlipBeforeDrained,
        Wrong::MarkerBeforeFlipping,
        Wrong::FinishBeforeMarker,
        Wrong::ChangeComparesPhaseOnly,
        Wrong::AbortPastReturn,
        Wrong::AbortKeepsEpoch,
        Wrong::AbortRaisesEra,
        Wrong::CatalogSetsEra,
        Wrong::EpochOfAnyEra,
        Wrong::HearsOldDescriptors,
        Wrong::NoReviewAfterEra,
        Wrong::AnswersInEpochOfAppend,
        Wrong::MarkerOfAnyEra,
        Wrong::MarkerEmptiesLogs,
        Wrong::PutByEpoch,
        Wrong::PutOfAnyEra,
        Wrong::MergesNewerEra,
        Wrong::MergesOlderEra,
        Wrong::CutWithoutExcluded,
        Wrong::ExcludedDrops,
        Wrong::ExcludedApplies,
        Wrong::NoFence,
        Wrong::SendsUnsynced,
        Wrong::ShowsUnsynced,
        Wrong::SnapshotOfUnsynced,
        Wrong::SnapshotWithinEra,
        Wrong::LeaseKept,
        Wrong::ReadNotCheckedAgain,
        Wrong::StrongServedEventually,
        Wrong::StampsBelowRegion,
    ];
}

#[cfg(feature = "bug-switch")]
mod chosen {
    use super::Wrong;
    use std::cell::Cell;

    thread_local! {
        static PLANTED: Cell<Option<Wrong>> = const { Cell::new(None) };
    }

    /// Plants a variant on this thread, in place of the one before.
    pub fn plant(variant: Option<Wrong>) {
        PLANTED.set(variant);
    }

    /// Whether this variant is the one that is planted.
    pub fn wrong(variant: Wrong) -> bool {
        PLANTED.get() == Some(variant)
    }
}

#[cfg(feature = "bug-switch")]
pub use chosen::{plant, wrong};

/// Whether this variant is the one that is planted: none is.
#[cfg(not(feature = "bug-switch"))]
pub const fn wrong(_variant: Wrong) -> bool {
    false
}

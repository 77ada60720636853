//! Which of the core's rarer branches were taken. With the feature `coverage`, which `rdb-sim` is built with when it is asked what
//! its worlds have come to, each is counted in the thread that took it; without it, [`reached`] is nothing at all.

macro_rules! branches {
    ($($name:ident: $what:literal,)*) => {
        /// A branch that is not taken every day.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Branch {
            $(#[doc = $what] $name,)*
        }

        impl Branch {
            /// Each of them.
            pub const ALL: &[Branch] = &[$(Branch::$name,)*];

            /// In words.
            pub fn what(self) -> &'static str {
                match self {
                    $(Branch::$name => $what,)*
                }
            }
        }
    };
}

branches! {
    RaftStartRaisesCommit: "raft: a start finds more applied than its stored commit index says",
    RaftDoubtfulWritesGivenUp: "raft: writes whose fate nobody tells are given up",
    RaftVoteKeepsLease: "raft: a vote is refused soon after a start, since a lease may hold yet",
    RaftReadsOfClosed: "raft: reads that waited are refused, since the region was closed",
    RaftPersistHeldBack: "raft: a write on disk is not reported, since a later one replaces its entries",
    RaftReadsWaitForFirstEntry: "raft: reads wait until a new leader's first entry is committed",
    RaftLeaderChangeDropsReads: "raft: reads are given back, since the leader or the term has changed",
    RaftEntriesOverruled: "raft: entries of the log are overruled by those of another leader",
    RaftFetchOutdated: "raft: entries were read for a follower, and the log was cut meanwhile",
    RaftWriteSuperseded: "raft: another leader's entry took the place of a write",
    RaftReadRoundAnew: "raft: a follower's round of reads has no answer, and its reads are asked again",
    RaftStaleRejection: "raft: a late rejection is dropped, since its sender has confirmed more",
    RaftLeaseNotGranted: "raft: a confirmed round gives no lease behind a hand-over or a marker",
    RaftLeaseBehindCommit: "raft: a lease serves no read while a committed entry is not applied",
    SessionsAnswerAgain: "sessions: a repeated write is answered from the record",
    SessionsTooOld: "sessions: a late copy of a write comes when its answer is forgotten",
    ApplyToClosed: "apply: a command lies behind the entry that closes its region",
    ApplyOfOtherEra: "apply: a command is of another era than its region",
    ApplyMarkerOfOtherEra: "apply: a marker does nothing, since it is of another era",
    ApplyMismatchMovedOn: "apply: a failed comparison is repeated, and what it found is gone by now",
    ApplyCompareFails: "apply: a comparison fails",
    ApplyFindsTombstone: "apply: a comparison comes upon a deletion that an eventual era left",
    EventualStartInCopy: "eventual: a start finds a copy that is merged in part",
    EventualRunBetweenPages: "eventual: a run is applied between two pages of a copy",
    EventualLostIsFound: "eventual: a write that counted as lost turns out to be replaced",
    EventualAwaitedComes: "eventual: a write comes after the one that replaced it",
    EventualWriteLost: "eventual: of two writes that did not know of each other one is lost",
    EventualPurgeRefused: "eventual: a tombstone is not purged, since it is not certain",
    EventualTieByNode: "eventual: two writes have one stamp, and their nodes decide",
    EventualReplacesPurged: "eventual: a write displaces a tombstone that its writer had purged",
    EventualCopyFindsReplaced: "eventual: a copy tells that what counted as lost was replaced",
    EventualCopyFillsGap: "eventual: a start finds a gap in a log, which a copy fills",
    EventualRunOfOtherEra: "eventual: a run is refused, since it is of another era",
    EventualRunAfterGap: "eventual: a run is refused, since writes before it are missing",
    EventualRunHalfKnown: "eventual: a run comes of which the first part is here",
    EventualRunSentOn: "eventual: a third node's runs are sent on to a peer that lacks them",
    EventualPeerGivenUp: "eventual: a member is given up, since too much is kept for it",
    EventualPeerTakenBack: "eventual: a member that was given up is waited for again",
    CopyFindsRecordPurged: "eventual: a copy brings a tombstone that was had and purged",
    ClockMarkUsedUp: "clock: the mark is used up, and another one must be synced first",
    ClockByCounter: "clock: a reading goes by the counter, since the physical clock is no further",
    ClockSawFarAhead: "clock: another node's stamp is far ahead of this node's clock",
    ClockShownTooFar: "clock: a client shows a version that is too far ahead, and is refused",
    SwitchMarkerWithoutNode: "switch: a replica comes to the marker of a switch that left it out",
    SwitchPromiseOfLaterEra: "switch: a start finds a promise of an era that is to come again",
    SwitchPromiseFound: "switch: a promise made before a crash is found again",
    SwitchHearsOld: "switch: a descriptor is heard that is older than the last one",
    SwitchHearsEarly: "switch: a node hears of an era that its region has not come to",
    SwitchStandsBack: "switch: a gate is shut, since the others have left the era",
    SwitchOpens: "switch: a gate is opened in a new epoch",
    SwitchExcludedShuts: "switch: a node that is left out hears of it, and shuts its gate",
    SwitchSeals: "switch: a gate is sealed",
    SwitchRunFenced: "switch: a left-out node's write is refused, since it is not within the cut",
    SwitchSetsAside: "switch: a replica sets aside what the cluster went on without",
    SwitchSetsAsideCopied: "switch: what is set aside came by a copy, and is in no log here",
    SwitchReadFalls: "switch: a read is refused, since the region left its era while it waited",
    SwitchStepTooLate: "switch: a step does nothing, since the descriptor has changed since",
    SwitchControllerAborts: "switch: the controller calls a switch off",
    SwitchControllerSeals: "switch: the controller has the gates sealed",
    SwitchControllerDrains: "switch: the controller decides the cut, since all are sealed",
    SwitchControllerFlips: "switch: the controller lets a switch pass the point of no return",
    SwitchControllerFinishes: "switch: the controller ends a switch, since its marker is applied",
    CatalogCreatedTwice: "catalog: a namespace is created whose name is taken",
    CatalogDeletedTwice: "catalog: a namespace is deleted that is being deleted already",
    CatalogRemovedTwice: "catalog: a namespace is removed that is gone already",
    CatalogLogLeftOver: "catalog: a start finds the log of a region that is gone",
    CatalogGoneWhileBusy: "catalog: a region is gone while it is being made or replaced",
    CatalogNotYet: "catalog: a node has a region that its catalog has yet to give",
}

/// `branch` was taken.
#[inline]
pub fn reached(branch: Branch) {
    #[cfg(feature = "coverage")]
    counts::add(branch);
    #[cfg(not(feature = "coverage"))]
    let _ = branch;
}

/// How often each branch was taken by this thread since this was last asked.
#[cfg(feature = "coverage")]
pub fn take() -> Vec<(Branch, u64)> {
    counts::take()
}

#[cfg(feature = "coverage")]
mod counts {
    use super::Branch;
    use std::cell::RefCell;

    thread_local! {
        static COUNTS: RefCell<Vec<u64>> = RefCell::new(vec![0; Branch::ALL.len()]);
    }

    pub(super) fn add(branch: Branch) {
        COUNTS.with_borrow_mut(|counts| counts[branch as usize] += 1);
    }

    pub(super) fn take() -> Vec<(Branch, u64)> {
        let counts = COUNTS.replace(vec![0; Branch::ALL.len()]);
        Branch::ALL.iter().copied().zip(counts).collect()
    }
}

//! What must hold in every world, one file each. All are checked all the time.

mod applied_alike;
mod committed_for_ever;
mod deletions_are_final;
mod durable_answers;
mod exactly_once;
mod kept_promises;
mod linearizable;
mod log_matching;
mod nothing_lost;
mod one_leader;
mod one_vote;
mod regions_never_return;
mod versions_grow;

pub(crate) use applied_alike::AppliedAlike;
pub(crate) use committed_for_ever::CommittedForEver;
pub(crate) use deletions_are_final::DeletionsAreFinal;
pub(crate) use durable_answers::answer_is_durable;
pub(crate) use exactly_once::{ExactlyOnce, Name};
pub(crate) use kept_promises::promise_is_kept;
pub(crate) use linearizable::history_is_linearizable;
pub(crate) use log_matching::LogMatching;
pub(crate) use nothing_lost::acknowledged_writes_are_there;
pub(crate) use one_leader::OneLeader;
pub(crate) use one_vote::OneVote;
pub(crate) use regions_never_return::{RegionsNeverReturn, holds_the_catalogs_regions};
pub(crate) use versions_grow::VersionsGrow;

use std::fmt;

/// Something happened that must never happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which rule was broken.
    pub invariant: &'static str,
    /// By what.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.what)
    }
}

/// Holds, or names what does not.
pub(crate) fn holds(
    invariant: &'static str,
    condition: bool,
    what: impl FnOnce() -> String,
) -> Result<(), Violation> {
    if condition { Ok(()) } else { Err(Violation { invariant, what: what() }) }
}

/// All invariants that remember something.
#[derive(Debug, Default)]
pub(crate) struct Invariants {
    pub(crate) one_leader: OneLeader,
    pub(crate) one_vote: OneVote,
    pub(crate) log_matching: LogMatching,
    pub(crate) committed: CommittedForEver,
    pub(crate) applied: AppliedAlike,
    pub(crate) versions: VersionsGrow,
    pub(crate) once: ExactlyOnce,
    pub(crate) deletions: DeletionsAreFinal,
    pub(crate) lives: RegionsNeverReturn,
}

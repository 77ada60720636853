//! What to do after an attempt that failed: try again, where and when; or give up, and with which word.
//!
//! | the attempt | a read | a write |
//! |---|---|---|
//! | never left | again | again |
//! | left, connection lost | again | again if it has a name, else in doubt |
//! | answered *not done*, for a passing reason | again | again |
//! | answered *in doubt*, for a passing reason | again | again if it has a name, else in doubt |
//! | answered *done here* | – | fails with just that |
//! | answered for a lasting reason | fails | fails as the node said |
//! | the caller's time is over | fails | not done if it never left, else in doubt |
//!
//! A write has a name under a session, and calls to the catalog have one of their own (see `client`). A named write whose
//! session or epoch is over takes a new name, if it was certainly not done under the old one. A write that was once in doubt
//! stays so until it is acknowledged: that a repetition was refused says nothing of the attempt before it.

use crate::error::{Attempted, Error, Refusal, WriteError};
use crate::nodes::Address;
use crate::route::Route;
use crate::status::Failed;
use crate::values::Version;
use rdb_proto::v1::{self, Code, Outcome};
use std::time::Duration;
use tokio::time::Instant;

/// Pauses double from the first to the last: short enough not to miss the end of an election by much, long enough that
/// many callers do not add to an overload.
const PAUSE_FIRST: Duration = Duration::from_millis(5);
const PAUSE_LAST: Duration = Duration::from_millis(200);
/// Redirections in a row that are followed at once. Nodes that each name another are in an election: then pause.
const REDIRECTIONS_AT_ONCE: u32 = 2;
/// The same where the rules have changed: the next attempt goes by the new ones. A switch of mode changes them once; then a write
/// learns that its name no longer counts.
const CHANGES_AT_ONCE: u32 = 3;

/// What the call is, as far as repeating it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Safety {
    /// May be repeated at will.
    Read,
    /// May be repeated only if it was certainly not done.
    Write,
    /// Has a name by which the cluster recognises a repetition: it is answered, and not done twice.
    NamedWrite,
}

/// The attempts of one call.
pub(crate) struct Attempts<'a> {
    route: &'a Route,
    safety: Safety,
    started: Instant,
    deadline: Instant,
    /// An attempt that was not answered may have been applied.
    doubt: bool,
    /// The next attempt needs a new name.
    name_is_over: bool,
    tries: u32,
    redirections: u32,
    changes: u32,
    pauses: u32,
    /// Nodes that accepted no connection.
    unreachable: Vec<Address>,
    before: Option<Failed>,
}

impl<'a> Attempts<'a> {
    pub(crate) fn new(route: &'a Route, safety: Safety, started: Instant, deadline: Instant) -> Self {
        Self {
            route,
            safety,
            started,
            deadline,
            doubt: false,
            name_is_over: false,
            tries: 0,
            redirections: 0,
            changes: 0,
            pauses: 0,
            unreachable: Vec::new(),
            before: None,
        }
    }

    pub(crate) fn name_is_over(&self) -> bool {
        self.name_is_over
    }

    /// Returns when the next attempt may start; fails if there is to be none.
    pub(crate) async fn after(&mut self, failed: Failed) -> Result<(), WriteError> {
        self.tries += 1;
        if let Some(version) = done_here(&failed) {
            return Err(WriteError::DoneHere(version, self.explain(failed)));
        }
        self.doubt |= leaves_doubt(&failed);
        let pause = self.change_route(&failed);
        self.name_is_over = self.safety == Safety::NamedWrite && !self.doubt && ends_session(&failed);
        let again = self.name_is_over || is_passing(&failed) && (!self.doubt || self.safety != Safety::Write);
        if !again || self.deadline <= Instant::now() + pause {
            return Err(self.give_up(failed));
        }
        self.before = Some(failed);
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        Ok(())
    }

    /// The failure of a call that may not be repeated, whatever it was.
    pub(crate) fn end(mut self, failed: Failed) -> Error {
        self.tries += 1;
        self.explain(failed)
    }

    /// Decides whom to ask next, and how long to wait before.
    fn change_route(&mut self, failed: &Failed) -> Duration {
        match failed {
            Failed::NotSent(address, _) => {
                if !self.unreachable.contains(address) {
                    self.unreachable.push(address.clone());
                }
                self.route.move_on(address);
                // Once round all nodes at once, then slowly.
                if self.tries <= u32::try_from(self.unreachable.len()).unwrap_or(u32::MAX) {
                    Duration::ZERO
                } else {
                    self.pause(0)
                }
            }
            Failed::Lost(address, _) => {
                self.route.move_on(address);
                self.pause(0)
            }
            Failed::Answered(address, error) => self.change_route_as_told(address, error),
            Failed::Deadline { .. } => Duration::ZERO,
        }
    }

    fn change_route_as_told(&mut self, address: &Address, error: &v1::Error) -> Duration {
        if !error.leader_address.is_empty() && error.leader_address[..] != address[..] {
            self.route.follow(address, &error.leader_address);
            self.redirections += 1;
            return if self.redirections <= REDIRECTIONS_AT_ONCE {
                Duration::ZERO
            } else {
                self.pause(error.retry_after_ms)
            };
        }
        self.redirections = 0;
        let changed = matches!(error.code(), Code::EpochMismatch | Code::SessionExpired);
        if changed && self.changes < CHANGES_AT_ONCE {
            self.changes += 1;
            return Duration::ZERO;
        }
        if matches!(
            error.code(),
            Code::NotLeader
                | Code::NoLeader
                | Code::LeaderLost
                | Code::ShuttingDown
                // Another node may have come further, or be heard by more.
                | Code::Behind
                | Code::NoQuorum
                | Code::ClockAhead
                | Code::ClockOff
        ) {
            self.route.move_on(address);
        }
        self.pause(error.retry_after_ms)
    }

    /// Half of it is chance, so that callers who failed together do not come back together.
    fn pause(&mut self, at_least_ms: u32) -> Duration {
        let pause = PAUSE_FIRST.saturating_mul(1 << self.pauses.min(16)).min(PAUSE_LAST);
        self.pauses += 1;
        let pause = pause.max(Duration::from_millis(at_least_ms.into()));
        pause.mul_f64(rand::random_range(0.5..=1.0))
    }

    fn give_up(&mut self, failed: Failed) -> WriteError {
        let error = self.explain(failed);
        if self.doubt && self.safety != Safety::Read {
            WriteError::InDoubt(error)
        } else {
            WriteError::NotDone(error)
        }
    }

    fn explain(&mut self, failed: Failed) -> Error {
        let attempted = Attempted { tries: self.tries, waited: self.started.elapsed() };
        match failed {
            Failed::NotSent(_, reason) => {
                Error::Unreachable { nodes: self.unreachable.join(", "), reason, attempted }
            }
            Failed::Lost(address, reason) => Error::Lost { node: address.to_string(), reason, attempted },
            Failed::Answered(address, error) => Error::Refused(Box::new(Refusal {
                code: error.code(),
                message: error.message,
                hint: error.hint,
                node: address.to_string(),
                attempted,
            })),
            Failed::Deadline { address, .. } => Error::TimedOut {
                node: address.to_string(),
                before: self.before.take().map(in_short),
                attempted,
            },
        }
    }
}

/// The version of a write that is applied on the node that was asked, and there for sure.
fn done_here(failed: &Failed) -> Option<Version> {
    let Failed::Answered(_, error) = failed else { return None };
    let version = error.done_here.as_ref().and_then(|done| done.version);
    (error.outcome() == Outcome::DoneHere).then(|| version.map(Version::from).unwrap_or_default())
}

/// Whether the attempt may have been applied, if it was a write.
fn leaves_doubt(failed: &Failed) -> bool {
    match failed {
        Failed::NotSent(..) => false,
        Failed::Lost(..) => true,
        // The node did not execute this attempt. It says "in doubt" since it cannot know of an earlier one; we can.
        Failed::Answered(_, error) if error.code() == Code::SessionExpired => false,
        // A node that does not say `not done` leaves it open.
        Failed::Answered(_, error) => error.outcome() != Outcome::NotDone,
        Failed::Deadline { sent, .. } => *sent,
    }
}

/// Whether the same attempt may succeed a little later, or elsewhere.
fn is_passing(failed: &Failed) -> bool {
    match failed {
        Failed::NotSent(..) | Failed::Lost(..) => true,
        Failed::Answered(_, error) => {
            error.retry_after_ms > 0
                || matches!(
                    error.code(),
                    Code::NotLeader
                        | Code::NoLeader
                        | Code::LeaderLost
                        | Code::Superseded
                        | Code::ResourceExhausted
                        | Code::ShuttingDown
                        // The node's own limit may be shorter than the caller's.
                        | Code::DeadlineExceeded
                )
        }
        Failed::Deadline { .. } => false,
    }
}

/// Whether the session is over, for all writes under it: the cluster no longer knows it, or is in another epoch.
pub(crate) fn ends_session(failed: &Failed) -> bool {
    let Failed::Answered(_, error) = failed else { return false };
    matches!(error.code(), Code::SessionExpired | Code::EpochMismatch)
}

fn in_short(failed: Failed) -> String {
    match failed {
        Failed::NotSent(address, reason) => format!("cannot reach {address}, {reason}"),
        Failed::Lost(address, reason) => format!("lost the connection to {address}, {reason}"),
        Failed::Answered(address, error) => format!("{address} said: {}", error.message),
        Failed::Deadline { address, .. } => format!("no answer from {address}"),
    }
}

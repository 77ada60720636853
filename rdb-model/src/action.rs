//! What can happen.

use rdb_core::switch::Origin;

/// One thing that happens. Nodes are numbered from 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// A client's eventual write is accepted.
    Write(usize),
    /// Everything that a node has appended is synced.
    Sync(usize),
    /// A node answers the eventual writes that are synced.
    Answer(usize),
    /// A client reads what a node holds.
    LocalRead(usize),
    /// A client's strong write is proposed.
    StrongWrite(usize),
    /// A client asks for something that only a strong namespace does.
    StrongOnly(usize),
    /// A linearizable read learns its index.
    BeginRead(usize),
    /// It has caught up, and is answered or refused.
    EndRead(usize),
    /// A node takes in the next write of another one's log.
    Push {
        /// Who sends.
        from: usize,
        /// Who takes it in.
        to: usize,
        /// Whose write it is.
        origin: Origin,
    },
    /// The same, but it will arrive later, and besides what arrives in time.
    Delay {
        /// Who sends.
        from: usize,
        /// To whom.
        to: usize,
        /// Whose write it is.
        origin: Origin,
    },
    /// It arrives.
    ArriveLate,
    /// An operator begins a switch.
    Begin,
    /// The controller takes the next step.
    Step,
    /// The switch is called off.
    Abort,
    /// The controller's next step is on its way to the catalog.
    DelayStep,
    /// It arrives.
    ArriveStep,
    /// A node hears of a descriptor: this one of all that the catalog has said.
    Hear(usize, usize),
    /// The controller hears a node's reports.
    Report(usize),
    /// A leader of the region proposes the marker.
    ProposeMarker(usize),
    /// A proposal is committed.
    Commit(usize),
    /// A node applies the next entry of the region's log.
    Apply(usize),
    /// A node takes in another one's snapshot.
    Snapshot {
        /// Whose.
        from: usize,
        /// Who is replaced.
        to: usize,
    },
    /// A node loses what it has not synced, and starts again.
    Crash(usize),
    /// A node is cut off from the others.
    Isolate(usize),
    /// It hears them again.
    Heal,
    /// A sealed node has heard nothing for long.
    Wait(usize),
}

impl Action {
    /// Whether the cluster does this by itself, once nothing disturbs it any more and no client asks for anything.
    pub(crate) fn is_progress(&self) -> bool {
        match self {
            Action::Sync(_)
            | Action::Answer(_)
            | Action::EndRead(_)
            | Action::Push { .. }
            | Action::ArriveLate
            | Action::Step
            | Action::ArriveStep
            | Action::Hear(..)
            | Action::Report(_)
            | Action::ProposeMarker(_)
            | Action::Commit(_)
            | Action::Apply(_)
            | Action::Snapshot { .. }
            | Action::Heal => true,
            Action::Write(_)
            | Action::LocalRead(_)
            | Action::StrongWrite(_)
            | Action::StrongOnly(_)
            | Action::BeginRead(_)
            | Action::Delay { .. }
            | Action::Begin
            | Action::Abort
            | Action::DelayStep
            | Action::Crash(_)
            | Action::Isolate(_)
            | Action::Wait(_) => false,
        }
    }

    /// The nodes without which it cannot happen.
    pub(crate) fn needs(&self) -> [Option<usize>; 2] {
        match self {
            Action::Write(node)
            | Action::Sync(node)
            | Action::Answer(node)
            | Action::LocalRead(node)
            | Action::StrongWrite(node)
            | Action::StrongOnly(node)
            | Action::BeginRead(node)
            | Action::EndRead(node)
            | Action::Hear(node, _)
            | Action::Report(node)
            | Action::ProposeMarker(node)
            | Action::Apply(node)
            | Action::Crash(node)
            | Action::Isolate(node)
            | Action::Wait(node) => [Some(*node), None],
            Action::Push { from, to, .. }
            | Action::Delay { from, to, .. }
            | Action::Snapshot { from, to } => [Some(*from), Some(*to)],
            Action::ArriveLate
            | Action::Begin
            | Action::Step
            | Action::Abort
            | Action::DelayStep
            | Action::ArriveStep
            | Action::Commit(_)
            | Action::Heal => [None, None],
        }
    }
}

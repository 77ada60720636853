//! What the catalog says of a namespace's mode, and which change may follow which.

use super::planted::{Wrong, wrong};
use super::{Mode, Vector};
use crate::coverage::{Branch, reached};
use crate::ids::{Epoch, Era, NodeId};
use std::collections::BTreeSet;

/// Names one attempt to switch. Grows with each, so that what was meant for one is never taken for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SwitchId(pub u64);

/// How far a switch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// None is under way.
    Settled,
    /// Replicas are being brought close to each other. Clients notice nothing.
    Preparing,
    /// To strong: each member shuts its gate, and promises on its disk to keep it shut.
    Sealing,
    /// To strong: what the base will hold is decided; each member gets all of it.
    Draining,
    /// No way back: the region's log is to take the marker.
    Flipping,
}

impl Phase {
    /// Whether eventual writes are held back.
    pub fn shuts_gates(self) -> bool {
        matches!(self, Phase::Sealing | Phase::Draining | Phase::Flipping)
    }

    /// Whether the switch can still be called off.
    pub fn may_abort(self) -> bool {
        let is_flipping = self == Phase::Flipping;
        matches!(self, Phase::Preparing | Phase::Sealing | Phase::Draining)
            || is_flipping && wrong(Wrong::AbortPastReturn)
    }
}

/// What the catalog says of a namespace's mode.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Descriptor {
    /// Grows whenever who may write changes, by an abort too.
    pub epoch: Epoch,
    /// Grows when a switch completes.
    pub era: Era,
    /// The mode of this era.
    pub mode: Mode,
    /// How far the switch is.
    pub phase: Phase,
    /// The newest attempt to switch; 0 before the first.
    pub switch: SwitchId,
    /// The members that take part: each must seal and drain before the flip.
    pub roster: BTreeSet<NodeId>,
    /// The members that the operator goes on without. Fixed as the switch begins.
    pub excluded: BTreeSet<NodeId>,
    /// To strong, from `Draining` on: what the base will hold.
    pub cut: Vector,
    /// When the controller is to give up, in milliseconds of its own clock; 0 is never. It opens no gate by itself. While
    /// preparing, which costs clients nothing, it is the operator's patience; from `Sealing` on, the end of the write pause.
    pub deadline_ms: u64,
    /// To strong: for how long the controller lets writes be held back before it gives up; 0 is for ever.
    pub write_pause_ms_max: u64,
}

/// A change that is proposed to the catalog. It takes effect only if the descriptor is still the one that it was made for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Change {
    /// The descriptor's epoch when the change was proposed.
    pub epoch: Epoch,
    /// Its phase.
    pub phase: Phase,
    /// Its switch.
    pub switch: SwitchId,
    /// What is to change.
    pub step: Step,
}

/// A step of a switch.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// An operator begins a switch to the other mode, without these members.
    Begin {
        /// Whom to go on without. Always empty for a switch to eventual: nothing is lost there by being late.
        excluded: BTreeSet<NodeId>,
        /// See [`Descriptor::deadline_ms`]: that of the preparations.
        deadline_ms: u64,
        /// See [`Descriptor::write_pause_ms_max`].
        write_pause_ms_max: u64,
    },
    /// To strong: the replicas are close enough for writes to be held back.
    Seal {
        /// See [`Descriptor::deadline_ms`]: that of the write pause, which begins now.
        deadline_ms: u64,
    },
    /// Everybody is sealed, so nothing more is acknowledged, and this is what must be kept.
    Drain {
        /// What the base will hold.
        cut: Vector,
    },
    /// Everybody who takes part has all of it. From here on only forward.
    Flip,
    /// A node has applied the marker, so the region's log is in the new era for good.
    Finish,
    /// The switch is called off.
    Abort,
}

/// Why a change did nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It was made for a descriptor that has changed since.
    #[error(
        "the switch has moved on since this step was proposed; nothing was changed: look at its status again"
    )]
    MovedOn,
    /// The step does not follow on this phase.
    #[error("this step does not follow on the phase that the switch is in; nothing was changed")]
    OutOfTurn,
    /// Past `flipping` there is no way back.
    #[error(
        "the switch is past the point of no return and will complete; to undo it, switch back afterwards"
    )]
    PastReturn,
    /// Who takes part is no majority of the members: the strong mode could not serve.
    #[error(
        "the members that are not excluded are no majority, so the strong mode could not serve; nothing was changed"
    )]
    NoMajority,
    /// An exclusion that makes no sense here.
    #[error("only members can be excluded, and only from a switch to strong; nothing was changed")]
    CannotExclude,
}

impl Descriptor {
    /// A namespace that has never switched.
    pub fn new(mode: Mode, members: impl IntoIterator<Item = NodeId>) -> Self {
        Self {
            epoch: Epoch(1),
            era: Era(1),
            mode,
            phase: Phase::Settled,
            switch: SwitchId(0),
            roster: members.into_iter().collect(),
            excluded: BTreeSet::new(),
            cut: Vector::default(),
            deadline_ms: 0,
            write_pause_ms_max: 0,
        }
    }

    /// Its place among all that the catalog ever says of this namespace: whoever hears an earlier one later knows.
    pub fn position(&self) -> (Epoch, SwitchId, Phase) {
        (self.epoch, self.switch, self.phase)
    }

    /// All members, those that the switch goes on without among them.
    pub fn members(&self) -> impl Iterator<Item = NodeId> + '_ {
        let mut members: Vec<NodeId> = self.roster.union(&self.excluded).copied().collect();
        members.sort_unstable();
        members.into_iter()
    }

    /// Whether purges of tombstones and changes of membership must wait.
    pub fn is_switching(&self) -> bool {
        self.phase != Phase::Settled
    }

    /// Whom the switch that is under way goes on without. Nobody once it has ended or was called off, whomever it named.
    pub fn goes_on_without(&self) -> &BTreeSet<NodeId> {
        static NOBODY: BTreeSet<NodeId> = BTreeSet::new();
        if self.is_switching() { &self.excluded } else { &NOBODY }
    }

    /// When a write pause that begins at `now_ms` is to be given up; 0 is never.
    pub fn pause_deadline_ms(&self, now_ms: u64) -> u64 {
        if self.write_pause_ms_max == 0 { 0 } else { now_ms.saturating_add(self.write_pause_ms_max) }
    }

    /// The change that takes `step` from here.
    pub fn change(&self, step: Step) -> Change {
        Change { epoch: self.epoch, phase: self.phase, switch: self.switch, step }
    }

    /// The descriptor after `change`.
    ///
    /// # Errors
    /// Why it does nothing: it comes too late or out of turn.
    pub fn apply(&self, change: &Change) -> Result<Descriptor, Refused> {
        let is_current = (change.epoch, change.switch) == (self.epoch, self.switch);
        if change.phase != self.phase || !(is_current || wrong(Wrong::ChangeComparesPhaseOnly)) {
            reached(Branch::SwitchStepTooLate);
            return Err(Refused::MovedOn);
        }
        self.take(&change.step)
    }

    fn take(&self, step: &Step) -> Result<Descriptor, Refused> {
        let to = |phase| Ok(Descriptor { phase, ..self.clone() });
        match (step, self.phase, self.mode) {
            (Step::Begin { excluded, deadline_ms, write_pause_ms_max }, Phase::Settled, _) => {
                let begun = self.begin(excluded)?;
                Ok(Descriptor { deadline_ms: *deadline_ms, write_pause_ms_max: *write_pause_ms_max, ..begun })
            }
            (Step::Seal { deadline_ms }, Phase::Preparing, Mode::Eventual) => {
                Ok(Descriptor { phase: Phase::Sealing, deadline_ms: *deadline_ms, ..self.clone() })
            }
            (Step::Drain { cut }, Phase::Sealing, _) => {
                Ok(Descriptor { phase: Phase::Draining, cut: cut.clone(), ..self.clone() })
            }
            (Step::Flip, Phase::Preparing, Mode::Strong) | (Step::Flip, Phase::Draining, _) => {
                to(Phase::Flipping)
            }
            (Step::Finish, Phase::Flipping, _) => Ok(self.finish()),
            (Step::Abort, phase, _) if phase.may_abort() => Ok(self.abort()),
            (Step::Abort, Phase::Flipping, _) => Err(Refused::PastReturn),
            _ => Err(Refused::OutOfTurn),
        }
    }

    fn begin(&self, excluded: &BTreeSet<NodeId>) -> Result<Descriptor, Refused> {
        let members: BTreeSet<NodeId> = self.members().collect();
        let may_exclude = self.mode == Mode::Eventual || excluded.is_empty();
        if !may_exclude || !excluded.is_subset(&members) {
            return Err(Refused::CannotExclude);
        }
        let roster: BTreeSet<NodeId> = members.difference(excluded).copied().collect();
        if 2 * roster.len() <= members.len() {
            return Err(Refused::NoMajority);
        }
        Ok(Descriptor {
            phase: Phase::Preparing,
            switch: SwitchId(self.switch.0 + 1),
            roster,
            excluded: excluded.clone(),
            cut: Vector::default(),
            ..self.clone()
        })
    }

    fn abort(&self) -> Descriptor {
        // What was sealed in the old epoch stays sealed in it for ever; gates open in the new one.
        let epoch = Epoch(self.epoch.0 + u64::from(!wrong(Wrong::AbortKeepsEpoch)));
        // Not the era: a node that is cut off goes on writing in it, and its newer writes must win by time.
        let era = Era(self.era.0 + u32::from(wrong(Wrong::AbortRaisesEra)));
        Descriptor { epoch, era, phase: Phase::Settled, ..self.clone() }
    }

    fn finish(&self) -> Descriptor {
        Descriptor {
            epoch: Epoch(self.epoch.0 + 1),
            era: Era(self.era.0 + 1),
            mode: self.mode.other(),
            phase: Phase::Settled,
            ..self.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(count: u64) -> Vec<NodeId> {
        (1..=count).map(NodeId).collect()
    }

    fn begin(excluded: &[u64]) -> Step {
        let excluded = excluded.iter().copied().map(NodeId).collect();
        Step::Begin { excluded, deadline_ms: 7, write_pause_ms_max: 30 }
    }

    fn after(descriptor: &Descriptor, steps: &[Step]) -> Descriptor {
        steps.iter().fold(descriptor.clone(), |now, step| now.apply(&now.change(step.clone())).unwrap())
    }

    fn to_strong() -> [Step; 5] {
        [
            begin(&[]),
            Step::Seal { deadline_ms: 40 },
            Step::Drain { cut: Vector::default() },
            Step::Flip,
            Step::Finish,
        ]
    }

    #[test]
    fn both_ways_go_through_their_phases_and_positions_only_grow() {
        let first = Descriptor::new(Mode::Eventual, members(3));
        let back = [begin(&[]), Step::Flip, Step::Finish];
        let mut now = first.clone();
        let mut seen = Vec::new();
        for step in to_strong().iter().chain(&back) {
            let next = after(&now, std::slice::from_ref(step));
            assert!(now.position() < next.position(), "{step:?}");
            seen.push((next.phase, next.epoch.0, next.era.0, next.mode));
            now = next;
        }
        let (eventual, strong) = (Mode::Eventual, Mode::Strong);
        assert_eq!(
            seen,
            [
                (Phase::Preparing, 1, 1, eventual),
                (Phase::Sealing, 1, 1, eventual),
                (Phase::Draining, 1, 1, eventual),
                (Phase::Flipping, 1, 1, eventual),
                (Phase::Settled, 2, 2, strong),
                (Phase::Preparing, 2, 2, strong),
                (Phase::Flipping, 2, 2, strong),
                (Phase::Settled, 3, 3, eventual),
            ]
        );
        assert_eq!(now.switch, SwitchId(2));
    }

    #[test]
    fn a_change_that_was_made_for_another_descriptor_does_nothing() {
        let now = after(&Descriptor::new(Mode::Eventual, members(3)), &to_strong()[..2]);
        let change = now.change(Step::Drain { cut: Vector::default() });
        assert!(now.apply(&change).is_ok());
        let late = [
            Change { epoch: Epoch(9), ..change.clone() },
            Change { phase: Phase::Draining, ..change.clone() },
            Change { switch: SwitchId(9), ..change },
        ];
        for change in late {
            assert_eq!(now.apply(&change), Err(Refused::MovedOn), "{change:?}");
        }
    }

    #[test]
    fn an_abort_raises_the_epoch_alone_until_there_is_no_way_back() {
        let first = Descriptor::new(Mode::Eventual, members(3));
        for steps in 1..=3 {
            let now = after(&first, &to_strong()[..steps]);
            let aborted = after(&now, &[Step::Abort]);
            assert_eq!((aborted.epoch, aborted.era, aborted.phase), (Epoch(2), Era(1), Phase::Settled));
            assert!(now.position() < aborted.position());
        }
        let flipping = after(&first, &to_strong()[..4]);
        assert_eq!(flipping.apply(&flipping.change(Step::Abort)), Err(Refused::PastReturn));
        assert_eq!(first.apply(&first.change(Step::Abort)), Err(Refused::OutOfTurn));
        assert_eq!(flipping.apply(&flipping.change(begin(&[]))), Err(Refused::OutOfTurn), "one at a time");
        let strong = Descriptor::new(Mode::Strong, members(3));
        let preparing = after(&strong, &[begin(&[])]);
        assert_eq!(after(&preparing, &[Step::Abort]).epoch, Epoch(2));
        assert_eq!(
            preparing.apply(&preparing.change(Step::Seal { deadline_ms: 0 })),
            Err(Refused::OutOfTurn)
        );
    }

    /// To prepare costs clients nothing and may take long; to hold their writes back must not.
    #[test]
    fn preparations_and_the_write_pause_have_a_deadline_each() {
        let first = Descriptor::new(Mode::Eventual, members(3));
        let preparing = after(&first, &to_strong()[..1]);
        assert_eq!((preparing.deadline_ms, preparing.pause_deadline_ms(10)), (7, 40));
        assert_eq!(after(&preparing, &to_strong()[1..3]).deadline_ms, 40);
        assert_eq!(Descriptor { write_pause_ms_max: 0, ..preparing }.pause_deadline_ms(10), 0);
    }

    #[test]
    fn exclusions_leave_a_majority_and_name_members() {
        let eventual = Descriptor::new(Mode::Eventual, members(3));
        let without_2 = after(&eventual, &[begin(&[2])]);
        assert_eq!(without_2.roster, BTreeSet::from([NodeId(1), NodeId(3)]));
        assert!(without_2.members().eq(members(3)));
        let refuse =
            |now: &Descriptor, excluded: &[u64]| now.apply(&now.change(begin(excluded))).unwrap_err();
        assert_eq!(refuse(&eventual, &[1, 2]), Refused::NoMajority);
        assert_eq!(refuse(&eventual, &[4]), Refused::CannotExclude);
        assert_eq!(refuse(&Descriptor::new(Mode::Strong, members(3)), &[2]), Refused::CannotExclude);
        assert_eq!(refuse(&Descriptor::new(Mode::Eventual, members(2)), &[2]), Refused::NoMajority);
        // The next switch is with everybody again, unless it says otherwise.
        let again = after(&after(&without_2, &[Step::Abort]), &[begin(&[])]);
        assert!(again.excluded.is_empty() && again.roster.len() == 3);
    }
}

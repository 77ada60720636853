//! The next change to a descriptor, worked out afresh each time from the descriptor and the nodes' reports. It remembers
//! nothing, so whoever leads the catalog can carry on, and two who believe to lead do no harm: their changes are
//! compare-and-sets, and the same step twice is once too late.

use super::planted::{Wrong, wrong};
use super::{Change, Descriptor, Mode, Origin, Phase, Report, Step, Vector};
use crate::coverage::{Branch, reached};
use crate::ids::NodeId;
use std::collections::BTreeMap;

/// What the controller sees around it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Facts {
    /// All who take part are up, none of them lags much or waits for a full copy, and the region has a leader.
    pub ready: bool,
    /// Some node's region is past the descriptor's era.
    pub marker_applied: bool,
    /// The operator calls it off, or the deadline has passed.
    pub give_up: bool,
    /// The controller's clock, from which the deadline of a write pause that begins now is counted.
    pub now_ms: u64,
}

/// The next change, if there is one to be made now. `reports` may be old, doubled, and from other switches.
pub fn next(descriptor: &Descriptor, reports: &[Report], facts: Facts) -> Option<Change> {
    if facts.give_up && descriptor.phase.may_abort() {
        reached(Branch::SwitchControllerAborts);
        return Some(descriptor.change(Step::Abort));
    }
    let step = match (descriptor.phase, descriptor.mode) {
        (Phase::Settled, _) => None,
        (Phase::Preparing, Mode::Eventual) => {
            let deadline_ms = descriptor.pause_deadline_ms(facts.now_ms);
            facts.ready.then_some(Step::Seal { deadline_ms })
        }
        (Phase::Preparing, Mode::Strong) => facts.ready.then_some(Step::Flip),
        (Phase::Sealing, _) => cut(descriptor, reports).map(|cut| Step::Drain { cut }),
        (Phase::Draining, _) => is_drained(descriptor, reports).then_some(Step::Flip),
        (Phase::Flipping, _) => {
            (facts.marker_applied || wrong(Wrong::FinishBeforeMarker)).then_some(Step::Finish)
        }
    };
    match &step {
        Some(Step::Seal { .. }) => reached(Branch::SwitchControllerSeals),
        Some(Step::Drain { .. }) => reached(Branch::SwitchControllerDrains),
        Some(Step::Flip) => reached(Branch::SwitchControllerFlips),
        Some(Step::Finish) => reached(Branch::SwitchControllerFinishes),
        Some(Step::Begin { .. } | Step::Abort) | None => {}
    }
    step.map(|step| descriptor.change(step))
}

/// What the base must hold, once everybody who takes part is sealed. Of a member's own writes: as many as it has, since
/// only it knows what it acknowledged, and it acknowledges nothing more. Of an excluded one's: as many as reached anybody
/// who takes part; what lies beyond is put into quarantine when that node returns.
fn cut(descriptor: &Descriptor, reports: &[Report]) -> Option<Vector> {
    let mut sealed: BTreeMap<NodeId, &Vector> = BTreeMap::new();
    for report in reports {
        if let Report::Sealed { switch, node, synced } = report
            && (*switch == descriptor.switch || wrong(Wrong::ReportOfAnySwitch))
        {
            sealed.insert(*node, synced);
        }
    }
    let mut cut = Vector::default();
    for node in &descriptor.roster {
        for (origin, seq) in sealed.get(node)?.iter() {
            if counts(descriptor, *node, origin) {
                cut.raise(origin, seq);
            }
        }
    }
    Some(cut)
}

fn counts(descriptor: &Descriptor, reporter: NodeId, origin: Origin) -> bool {
    let is_excluded = descriptor.excluded.contains(&origin.node) && !wrong(Wrong::CutWithoutExcluded);
    origin.node == reporter || is_excluded
}

/// Whether everybody who takes part has synced all up to the cut, and holds the same data.
fn is_drained(descriptor: &Descriptor, reports: &[Report]) -> bool {
    let mut digests: BTreeMap<NodeId, u64> = BTreeMap::new();
    for report in reports {
        if let Report::Drained { switch, node, digest } = report
            && (*switch == descriptor.switch || wrong(Wrong::ReportOfAnySwitch))
        {
            digests.insert(*node, *digest);
        }
    }
    let mut members = descriptor.roster.iter().map(|node| digests.get(node));
    let Some(Some(first)) = members.next() else { return false };
    members.all(|digest| digest == Some(first) || wrong(Wrong::FlipBeforeDrained))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Incarnation;
    use crate::switch::SwitchId;

    fn origin(node: u64, incarnation: u64) -> Origin {
        Origin { node: NodeId(node), incarnation: Incarnation(incarnation) }
    }

    fn sealed(switch: u64, node: u64, synced: &[(Origin, u64)]) -> Report {
        let synced = synced.iter().copied().collect();
        Report::Sealed { switch: SwitchId(switch), node: NodeId(node), synced }
    }

    fn drained(node: u64, digest: u64) -> Report {
        Report::Drained { switch: SwitchId(1), node: NodeId(node), digest }
    }

    fn in_phase(phase: Phase, excluded: &[u64]) -> Descriptor {
        let members = || (1..=3).map(NodeId);
        let excluded = members().filter(|node| excluded.contains(&node.0)).collect();
        let roster =
            members().filter(|node| !std::collections::BTreeSet::contains(&excluded, node)).collect();
        Descriptor {
            phase,
            switch: SwitchId(1),
            roster,
            excluded,
            ..Descriptor::new(Mode::Eventual, members())
        }
    }

    fn step(descriptor: &Descriptor, reports: &[Report]) -> Option<Step> {
        next(descriptor, reports, Facts { ready: true, ..Facts::default() }).map(|change| change.step)
    }

    /// Node 1 wrote in two lives, node 2 knows less of it than node 1 itself, node 3 wrote nothing.
    fn reports() -> Vec<Report> {
        vec![
            sealed(1, 1, &[(origin(1, 1), 4), (origin(1, 2), 2), (origin(2, 1), 1)]),
            sealed(1, 2, &[(origin(1, 1), 3), (origin(2, 1), 7), (origin(3, 1), 5)]),
            sealed(1, 3, &[(origin(3, 1), 6)]),
        ]
    }

    #[test]
    fn the_cut_is_what_each_member_says_of_itself() {
        let sealing = in_phase(Phase::Sealing, &[]);
        let cut =
            Vector::from_iter([(origin(1, 1), 4), (origin(1, 2), 2), (origin(2, 1), 7), (origin(3, 1), 6)]);
        assert_eq!(step(&sealing, &reports()), Some(Step::Drain { cut }));
    }

    #[test]
    fn of_an_excluded_node_the_cut_holds_what_reached_anybody_else() {
        let sealing = in_phase(Phase::Sealing, &[3]);
        let cut =
            Vector::from_iter([(origin(1, 1), 4), (origin(1, 2), 2), (origin(2, 1), 7), (origin(3, 1), 5)]);
        assert_eq!(step(&sealing, &reports()[..2]), Some(Step::Drain { cut: cut.clone() }));
        assert_eq!(step(&sealing, &reports()), Some(Step::Drain { cut }), "its own word does not count");
    }

    #[test]
    fn everybody_must_have_sealed_for_this_very_switch() {
        let sealing = in_phase(Phase::Sealing, &[]);
        assert_eq!(step(&sealing, &reports()[..2]), None);
        let mut mixed = reports();
        mixed[2] = sealed(7, 3, &[]);
        assert_eq!(step(&sealing, &mixed), None);
    }

    #[test]
    fn everybody_must_have_drained_to_the_same_data() {
        let draining = in_phase(Phase::Draining, &[]);
        assert_eq!(step(&draining, &[drained(1, 8), drained(2, 8)]), None);
        assert_eq!(step(&draining, &[drained(1, 8), drained(2, 8), drained(3, 9)]), None, "one is damaged");
        assert_eq!(step(&draining, &[drained(1, 8), drained(2, 8), drained(3, 8)]), Some(Step::Flip));
    }

    #[test]
    fn it_gives_up_only_while_there_is_a_way_back() {
        let give_up = Facts { give_up: true, ..Facts::default() };
        for phase in [Phase::Preparing, Phase::Sealing, Phase::Draining] {
            let change = next(&in_phase(phase, &[]), &[], give_up).unwrap();
            assert_eq!(change.step, Step::Abort);
        }
        assert_eq!(next(&in_phase(Phase::Flipping, &[]), &[], give_up), None);
        assert_eq!(next(&in_phase(Phase::Settled, &[]), &[], give_up), None);
        let applied = Facts { marker_applied: true, ..give_up };
        assert_eq!(next(&in_phase(Phase::Flipping, &[]), &[], applied).unwrap().step, Step::Finish);
    }
}

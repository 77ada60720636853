//! A node's part in a switch: what it hears of the catalog, what it promises, and what it tells whoever is the controller.

use super::event::Parcel;
use super::node::{Input, Job, Process, Then};
use super::origins::Op;
use super::totals::Totals;
use super::world::World;
use crate::invariants::Violation;
use rand::RngExt as _;
use rdb_core::ids::{Era, NodeId};
use rdb_core::switch::{Control, Gate, Report, Vector, Verdict};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Chance, at a tick, that a sealed node thinks that it has waited long.
const WAITED_LONG: f64 = 0.02;

impl World {
    /// A node hears what the catalog said.
    pub(super) fn hear(&mut self, id: NodeId, incarnation: u64, said: usize) -> Result<(), Violation> {
        if !self.hears_a_majority(id) {
            return Ok(());
        }
        let descriptor = std::sync::Arc::clone(&self.catalog[said]);
        let Some(process) = self.node_mut(id).running(incarnation) else { return Ok(()) };
        process.peer.hear(&descriptor);
        self.review(id);
        Ok(())
    }

    /// Looks at what was heard again, and logs the promise that follows from it, if any does.
    pub(super) fn review(&mut self, id: NodeId) {
        let Some(process) = self.process_mut(id) else { return };
        let answering = process.is_answering();
        let Some(control) = process.peer.review(&process.region, answering) else { return };
        let ops = vec![Op::Control(control.clone())];
        self.write_later(id, Job::Origins { ops, then: Then::Control(control) });
        self.aim_at(id, 2 * self.options.sync.1 + self.options.news.1);
    }

    /// What a node does for a switch at each tick.
    pub(super) fn take_part(&mut self, id: NodeId) -> Result<(), Violation> {
        self.report_to_controllers(id);
        self.control(id);
        self.start_apply(id);
        self.ask_for_replacement(id);
        if self.rng.random_bool(WAITED_LONG)
            && let Some(process) = self.process_mut(id)
        {
            process.peer.waited_long();
        }
        Ok(())
    }

    fn report_to_controllers(&mut self, id: NodeId) {
        let Some(process) = self.process(id) else { return };
        let era = process.region.era();
        let mut reports = Vec::new();
        if let Some(eventual) = &process.eventual {
            let node = self.node(id);
            let digest = |_: &Vector| digest(node);
            reports = process.peer.reports(&eventual.progress(), digest);
            // The hash is of what is applied, so that must have come to the cut, too.
            let applied = &eventual.machine.state().applied;
            let cut = process.peer.heard().map(|heard| &heard.cut);
            let has_applied = cut.is_some_and(|cut| applied.covers(cut));
            reports.retain(|report| has_applied || matches!(report, Report::Sealed { .. }));
        }
        if reports.is_empty() && !self.rng.random_bool(0.2) {
            return;
        }
        for to in self.ids() {
            match to == id {
                true => {
                    if let Some(process) = self.process_mut(id) {
                        process.hear_reports(id, reports.clone(), era);
                    }
                }
                false => self.send(id, to, Parcel::Switch(reports.clone(), era)),
            }
        }
    }

    /// A replica that the switch went on without never applies the marker.
    fn ask_for_replacement(&mut self, id: NodeId) {
        if self.verdict(id) == Some(Verdict::Replace) {
            self.input(id, Input::Replace);
        }
    }
}

impl Process {
    /// Takes note of what a node tells its controller. Of one kind and switch, a node's last word counts.
    pub(super) fn hear_reports(&mut self, from: NodeId, reports: Vec<Report>, era: Era) {
        let known = self.eras.entry(from).or_default();
        *known = era.max(*known);
        let about = |report: &Report| match report {
            Report::Sealed { switch, node, .. } => (false, *switch, *node),
            Report::Drained { switch, node, .. } => (true, *switch, *node),
        };
        for report in reports {
            self.reports.retain(|known| about(known) != about(&report));
            self.reports.push(report);
        }
    }
}

/// A hash of all that readers find. Tombstones do not count: members purge them each in its own time.
fn digest(node: &super::node::Node) -> u64 {
    let hash = |(key, (version, value)): (&Vec<u8>, (rdb_core::version::Version, u64))| {
        let place = version.hlc.0 ^ version.node.0.rotate_left(48) ^ u64::from(version.era.0).rotate_left(56);
        xxh3_64_with_seed(key, place ^ value.rotate_left(24))
    };
    node.data.current.living().map(hash).fold(0, u64::wrapping_add)
}

/// Counts what nodes have promised.
pub(super) fn count(totals: &mut Totals, control: &Control) {
    match control {
        Control::Open { .. } => totals.gates_opened += 1,
        Control::Seal(_) => totals.gates_sealed += 1,
    }
}

/// Whether a node's gate is open.
pub(super) fn is_open(process: &Process) -> bool {
    *process.peer.gate() == Gate::Open
}

//! The catalog, as far as a switch has to do with it: its log of descriptors, the controllers that change it, and the operators.

use super::event::Event;
use super::world::World;
use crate::options::{MS, SECOND, Span};
use rand::RngExt as _;
use rdb_core::ids::NodeId;
use rdb_core::switch::controller::{self, Facts};
use rdb_core::switch::{Change, Descriptor, Mode, Phase, Step};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Chance, at a tick, that a node takes itself for the controller, and that it looks at the catalog again.
const CONTROLS: f64 = 0.3;
const LOOKS: f64 = 0.1;
/// How far off a deadline is, at most. Controllers go by their own clocks, which may be an hour apart.
const DEADLINE_MS: u64 = 400;
/// Chance that a node that a switch leaves out has just lost power, and how long it is away.
const EXCLUDED_DIE: f64 = 0.3;
const EXCLUDED_AWAY: Span = (100 * MS, 2 * SECOND);

impl World {
    /// A step is on its way to the catalog. It may take long, or come twice.
    fn change_later(&mut self, change: &Change) {
        let again = !self.calm && self.rng.random_bool(self.options.network.duplicate);
        for _ in 0..=u8::from(again) {
            let late = !self.calm && self.rng.random_bool(self.options.late_news);
            let span = if late { self.options.network.straggler_delay } else { self.options.news };
            self.later(span, Event::Change { change: Box::new(change.clone()) });
        }
    }

    /// A step reaches the catalog, which takes it if nothing has changed since it was made.
    pub(super) fn change(&mut self, change: &Change) {
        let Ok(next) = self.descriptor().apply(change) else {
            self.totals.steps_late += 1;
            return;
        };
        match change.step {
            Step::Begin { .. } => {
                self.totals.switches_begun += 1;
                self.excluded_die(&next);
            }
            Step::Abort => self.totals.aborted += 1,
            Step::Finish if next.mode == Mode::Strong => {
                self.totals.to_strong += 1;
                self.totals.to_strong_without += u64::from(!next.excluded.is_empty());
            }
            Step::Finish => self.totals.to_eventual += 1,
            _ => {}
        }
        self.catalog.push(Arc::new(next));
        self.ids().into_iter().for_each(|id| self.hear_later(id));
    }

    /// Who is left out has often just died, and is away for a while.
    fn excluded_die(&mut self, begun: &Descriptor) {
        for id in &begun.excluded {
            if !self.calm && self.rng.random_bool(EXCLUDED_DIE) {
                self.crash(*id);
                self.later(EXCLUDED_AWAY, Event::Restart { node: *id });
            }
        }
    }

    /// A node will hear what the catalog says now, or what it said a little before.
    pub(super) fn hear_later(&mut self, id: NodeId) {
        let last = self.catalog.len() - 1;
        let (mut said, mut span) = (last, self.options.news);
        if !self.calm && self.rng.random_bool(self.options.late_news) {
            span = self.options.network.straggler_delay;
            said = last.saturating_sub(self.rng.random_range(0..3));
        }
        let (node, incarnation) = (id, self.node(id).incarnation);
        self.later(span, Event::Hear { node, incarnation, said });
    }

    /// A node that hears a majority looks at the catalog, and may take itself for the controller.
    pub(super) fn control(&mut self, id: NodeId) {
        if !self.hears_a_majority(id) {
            return;
        }
        if self.rng.random_bool(LOOKS) {
            self.hear_later(id);
        }
        if !self.rng.random_bool(CONTROLS) {
            return;
        }
        let wall_ms = self.node(id).wall.now_ms(self.now);
        let ready = self.calm || self.rng.random_bool(0.5);
        let Some(process) = self.process(id) else { return };
        let Some(heard) = process.peer.heard().cloned() else { return };
        let newest = process.eras.values().copied().max().unwrap_or_default().max(process.region.era());
        let facts = Facts {
            ready,
            marker_applied: heard.era < newest,
            give_up: heard.deadline_ms != 0 && heard.deadline_ms < wall_ms,
            now_ms: wall_ms,
        };
        if let Some(change) = controller::next(&heard, &process.reports, facts) {
            self.change_later(&change);
        }
    }

    /// An operator looks through some node, and does something.
    pub(super) fn operate(&mut self) {
        if self.operators_rest {
            return;
        }
        self.later(self.options.operate, Event::Operate);
        let id = NodeId(self.rng.random_range(1..=self.options.nodes));
        let heard = self.process(id).and_then(|process| process.peer.heard().cloned());
        let Some(heard) = heard.filter(|_| self.hears_a_majority(id)) else { return };
        if heard.phase == Phase::Settled {
            let wall_ms = self.node(id).wall.now_ms(self.now);
            let deadline = self.rng.random_bool(self.options.deadline);
            let write_pause_ms_max = if deadline { self.rng.random_range(1..DEADLINE_MS) } else { 0 };
            let deadline_ms = if deadline { wall_ms + write_pause_ms_max } else { 0 };
            let excluded = self.whom_to_exclude(&heard);
            self.change_later(&heard.change(Step::Begin { excluded, deadline_ms, write_pause_ms_max }));
        } else if heard.phase.may_abort() && self.rng.random_bool(self.options.abort) {
            self.change_later(&heard.change(Step::Abort));
        }
    }

    /// Begins a switch to the other mode, with everybody.
    pub(super) fn begin_switch(&mut self) {
        let step = Step::Begin { excluded: BTreeSet::new(), deadline_ms: 0, write_pause_ms_max: 0 };
        let change = self.descriptor().change(step);
        self.change_later(&change);
    }

    /// Mostly who is away, as operators do; sometimes whoever, which they should not.
    fn whom_to_exclude(&mut self, heard: &Descriptor) -> BTreeSet<NodeId> {
        let mut excluded = BTreeSet::new();
        if heard.mode == Mode::Strong || !self.rng.random_bool(self.options.exclude) {
            return excluded;
        }
        let members: Vec<NodeId> = heard.members().collect();
        for id in &members {
            let is_away = !self.hears_a_majority(*id);
            if self.rng.random_bool(if is_away { 0.9 } else { 0.15 }) {
                excluded.insert(*id);
            }
        }
        while members.len() <= 2 * excluded.len() {
            excluded.pop_last();
        }
        excluded
    }
}

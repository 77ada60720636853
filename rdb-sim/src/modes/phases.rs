//! The life of a world: a storm; then all is healed, and whatever switch is under way must end; then one more is made in peace,
//! with clients served before and after; then nobody asks any more, and all replicas must become equal.

use super::switching::is_open;
use super::world::World;
use crate::floor::{EASES_AFTER, EASES_MAX};
use crate::invariants::{Violation, holds};
use crate::options::{Micros, Snapshots};
use rand::RngExt as _;
use rdb_core::ids::Era;
use rdb_core::switch::{Mode, Phase};

/// Election timeouts within which each step of the story must be done.
const PATIENCE_TIMEOUTS: u64 = 60;

impl World {
    /// Lives through all phases.
    pub(super) fn live(&mut self) -> Result<(), Violation> {
        self.boot_all()?;
        self.run_until(self.options.storm, |_| false)?;
        self.reaches_its_floor()?;
        self.heal()?;
        self.the_switch_ends()?;
        self.is_served()?;
        self.one_more_switch()?;
        self.is_served()?;
        self.converges()?;
        self.judge()
    }

    /// The storm goes on until there was enough of everything, where that is asked for.
    fn reaches_its_floor(&mut self) -> Result<(), Violation> {
        let Some(floor) = self.options.floor else { return Ok(()) };
        let is_reached = move |world: &World| {
            let totals = world.totals();
            floor.is_reached(totals.operations(), totals.faults(), totals.crashes)
        };
        for _ in 0..EASES_MAX {
            if !is_reached(self) {
                self.run_until(self.now + EASES_AFTER, is_reached)?;
                self.options.ease();
            }
        }
        holds("a storm reaches its floor", is_reached(self), || format!("{floor:?}: {}", self.totals()))
    }

    fn patience(&self) -> Micros {
        let election = 2 * self.options.raft.election_ticks as u64 * self.options.tick;
        let options = &self.options;
        // A slow world needs longer for each step.
        let slowness =
            options.sync.1 + options.apply.1 + options.merge.1 + options.network.delay.1 + options.news.1;
        let Snapshots { read, travel, give_up, replace, .. } = &options.snapshots;
        let snapshot = read.1 + travel.1 + give_up.1 + replace.1;
        let backlog = self.clients.ops * (2 * options.network.delay.1 + options.fetch.1 + options.sync.1);
        PATIENCE_TIMEOUTS * (election + 10 * slowness) + 4 * options.patience + backlog + 10 * snapshot
    }

    fn heal(&mut self) -> Result<(), Violation> {
        if self.rng.random_bool(0.4) {
            self.power_cut();
        }
        self.network.repair();
        self.calm = true;
        self.operators_rest = true;
        for id in self.ids() {
            self.node_mut(id).stalled_until = 0;
            self.restart(id)?;
        }
        Ok(())
    }

    fn the_switch_ends(&mut self) -> Result<(), Violation> {
        // What is still on its way may begin another one.
        let late = self.options.network.straggler_delay.1.max(self.options.news.1);
        self.run_until(self.now + late, |_| false)?;
        self.run_until(self.now + self.patience(), World::is_settled)?;
        holds("a switch ends", self.is_settled(), || format!("{:?}; {}", self.descriptor(), self.standing()))
    }

    /// Whether no switch is under way, and all replicas are where the catalog is.
    fn is_settled(&self) -> bool {
        let descriptor = self.descriptor();
        descriptor.phase == Phase::Settled
            && self.nodes.iter().flat_map(|node| &node.process).count() == self.nodes.len()
            && self.nodes.iter().flat_map(|node| &node.process).all(|process| {
                let place = (process.region.era(), process.region.mode(), process.peer.epoch());
                let serves = process.region.mode() == Mode::Strong || is_open(process);
                place == (descriptor.era, descriptor.mode, descriptor.epoch) && serves && process.answers()
            })
    }

    /// Clients are answered in the mode that the namespace is in.
    fn is_served(&mut self) -> Result<(), Violation> {
        let mode = self.descriptor().mode;
        let served = move |world: &World| match mode {
            Mode::Strong => (world.totals.strong_writes, world.totals.strong_reads),
            Mode::Eventual => (world.totals.eventual_writes, world.totals.local_reads),
        };
        let (writes, reads) = served(self);
        let done = move |world: &World| writes < served(world).0 && reads < served(world).1;
        self.run_until(self.now + self.patience() + 100 * self.options.think.1, done)?;
        holds("a settled namespace serves", done(self), || {
            format!("{:?}; {}", self.descriptor(), self.standing())
        })
    }

    fn one_more_switch(&mut self) -> Result<(), Violation> {
        let before: Era = self.descriptor().era;
        self.begin_switch();
        let done = move |world: &World| before < world.descriptor().era && world.is_settled();
        self.run_until(self.now + self.patience(), done)?;
        holds("a healed namespace switches", done(self), || {
            format!("{:?}; {}", self.descriptor(), self.standing())
        })
    }

    /// Clients fall silent; whatever is under way ends, and all replicas become equal.
    fn converges(&mut self) -> Result<(), Violation> {
        self.clients_rest = true;
        let settle = self.options.patience + self.options.network.straggler_delay.1;
        self.run_until(self.now + settle, |_| false)?;
        for slot in 0..self.clients.pool.len() {
            self.clients.end(slot, super::clients::Outcome::InDoubt);
        }
        self.run_until(self.now + self.patience(), World::is_converged)?;
        holds("replicas converge", self.is_converged(), || self.standing())
    }

    fn is_converged(&self) -> bool {
        let Some(first) = self.nodes.first().and_then(|node| node.process.as_ref()) else { return false };
        let shown = first.shown();
        self.is_settled()
            && self.nodes.iter().flat_map(|node| &node.process).all(|process| {
                let is_quiet = process.eventual.as_ref().is_none_or(|eventual| {
                    let state = eventual.machine.state();
                    let synced = eventual.logs.synced_vector();
                    synced == eventual.logs.logged_vector()
                        && synced == state.applied
                        && state.lost == state.settled
                });
                is_quiet
                    && process.committed.is_empty()
                    && process.shown() == shown
                    && process.strong.state().applied == first.strong.state().applied
            })
    }

    fn judge(&mut self) -> Result<(), Violation> {
        self.ids().into_iter().try_for_each(|id| self.look_at_others(id))?;
        self.all_are_what_was_written()?;
        self.truth.not_done_is_not_done(&self.clients.history)?;
        self.totals.checked = self.truth.strong_eras_are_linearizable(&self.clients.history)?;
        let totals = &self.totals;
        let is_idle =
            0 == totals.eventual_writes * totals.strong_writes * (totals.to_strong + totals.to_eventual);
        holds("a world is not idle", !is_idle, || format!("{totals}"))
    }

    /// Where each node stands, for whoever reads a failure.
    fn standing(&self) -> String {
        let mut lines = String::new();
        for node in &self.nodes {
            let Some(process) = &node.process else { continue };
            let eventual = process.eventual.as_ref().map(|eventual| {
                let state = eventual.machine.state();
                format!(
                    "logged {:?} synced {:?} applied {:?} lost {} settled {} unanswered {}",
                    eventual.logs.logged_vector(),
                    eventual.logs.synced_vector(),
                    state.applied,
                    state.lost,
                    state.settled,
                    eventual.unanswered
                )
            });
            lines += &format!(
                "\nnode {}: {:?} era {} epoch {} gate {:?} noted {} replay to {} applied {} committed {} verdict {:?} installing {} \
                 leads {} heard {:?}; {eventual:?}",
                node.id,
                process.region.mode(),
                process.region.era(),
                process.peer.epoch(),
                process.peer.gate(),
                process.noted,
                process.replay_to,
                process.strong.state().applied,
                process.committed.len(),
                self.verdict(node.id),
                process.installing.is_some(),
                process.group.is_leader(),
                process.peer.heard().map(|heard| heard.position()),
            );
        }
        lines
    }
}

//! Worlds whose namespace acknowledges eventual writes before they are synced: what a power cut may take, and what a start finds.

use super::data::Batch;
use super::eventual::{Eventual, broken};
use super::node::{Node, Waiter};
use super::origins::{Bytes, Op};
use super::planted::{Shortcut, takes};
use super::world::{World, place};
use crate::invariants::{Violation, holds};
use rdb_core::eventual::machine::{Changes, View as _};
use rdb_core::eventual::origin_log::Held;
use rdb_core::eventual::run::Run;
use rdb_core::eventual::unsynced;
use rdb_core::eventual::vector::{Origin, Seq, Vector};
use rdb_core::ids::{Era, Incarnation, NodeId};
use rdb_core::version::Hlc;
use std::rc::Rc;

impl World {
    /// A run of this node's, on its way to the log, is applied and answered.
    pub(super) fn acknowledge_first(
        &mut self,
        id: NodeId,
        run: &Run,
        bytes: &Bytes,
        waiter: Waiter,
    ) -> Result<(), Violation> {
        let node = self.node_mut(id);
        let Some(eventual) = node.process.as_mut().and_then(|process| process.eventual.as_mut()) else {
            return Ok(());
        };
        eventual.unsynced += 1;
        let changes = eventual.machine.apply_first(run, bytes, &node.data.current);
        let mut changes = changes.map_err(|error| broken(id, error))?;
        if takes(Shortcut::KeepsNoRun) {
            changes = Changes {
                notes: changes.notes.into_iter().filter(|(key, _)| !is_run(key)).collect(),
                ..changes
            };
        }
        node.data.write(changes.into());
        self.answer_write(id, waiter, run)
    }

    /// Its log has it now.
    pub(super) fn own_is_synced(&mut self, id: NodeId, run: &Run) {
        let node = self.node_mut(id);
        let Some(eventual) = node.process.as_mut().and_then(|process| process.eventual.as_mut()) else {
            return;
        };
        eventual.unsynced = eventual.unsynced.saturating_sub(1);
        eventual.machine.synced(run.last());
        node.data.write(Batch { notes: vec![(unsynced::key(run), None)], ..Batch::default() });
        self.review(id);
    }

    /// What the power cut has taken of what this node had acknowledged is no longer promised to anybody.
    pub(super) fn undo_unsynced(&mut self, id: NodeId) {
        let node = &self.nodes[place(id)];
        let origin = Origin { node: id, incarnation: Incarnation(node.incarnation) };
        let lasts = |era: Era| node.durable(era, origin);
        let gone = self.truth.undo(origin, lasts);
        self.totals.unsynced_lost += gone;
        for client in &mut self.clients.pool {
            let Some(session) = &client.session else { continue };
            // Told so, a client goes on without its token.
            if lasts(session.era) < session.vector.get(origin) {
                client.session = None;
                client.seen.clear();
            }
        }
    }

    /// Nothing leaves a node before it is synced there.
    pub(super) fn has_not_left_early(&self, run: &Run) -> Result<(), Violation> {
        let node = self.node(run.origin.node);
        let is_of_era = |eventual: &Eventual| eventual.logs.era() == run.era;
        let runs = node.process.as_ref().and_then(|process| process.eventual.as_ref()).is_some_and(is_of_era);
        if !runs || run.origin.incarnation.0 != node.incarnation {
            return Ok(());
        }
        let durable = node.durable(run.era, run.origin);
        holds("nothing leaves before its sync", run.last() <= durable, || {
            format!("write {} of {:?} is under way, and {durable} is synced", run.last(), run.origin)
        })
    }
}

fn is_run(key: &[u8]) -> bool {
    let (from, to) = unsynced::all();
    from.as_slice() <= key && key < to.as_slice()
}

impl Node {
    /// Up to where an origin's writes of an era survive a power cut here: by the log, or by the data, which then has what the log lacks.
    fn durable(&self, era: Era, origin: Origin) -> Seq {
        let runs = self.origins.synced().runs_of(era).filter(|(held, _)| held.origin == origin);
        let logged = runs.map(|(held, _)| held.last).max().unwrap_or_default();
        let flushed = self.data.flushed.eventual_of(era).map_or(0, |state| state.applied.get(origin));
        logged.max(flushed)
    }

    /// What a start finds applied in the data and not in the log goes to the log, before anything else.
    pub(super) fn rescue(&mut self, era: Era) -> Result<(), Violation> {
        let (from, to) = unsynced::all();
        let kept = self.data.current.notes(&from, &to).unwrap_or_default();
        if kept.is_empty() {
            return Ok(());
        }
        let applied = self.data.current.eventual_of(era).map(|state| state.applied).unwrap_or_default();
        let mut ops = Vec::new();
        for (_, bytes) in &kept {
            let run = Run::decode(bytes).map_err(|error| broken(self.id, error))?;
            let logged = self.origins.written().runs_of(era).filter(|(held, _)| held.origin == run.origin);
            let has = logged.map(|(held, _)| held.last).max().unwrap_or_default();
            if run.era == era && has < run.last() && run.last() <= applied.get(run.origin) {
                ops.push(Op::Run(era, Held::of(&run, bytes.len()), Rc::new(bytes.clone())));
            }
        }
        if !ops.is_empty() {
            self.origins.write(ops);
            self.origins.sync();
        }
        let notes = kept.into_iter().map(|(key, _)| (key, None)).collect();
        self.data.write(Batch { notes, ..Batch::default() });
        Ok(())
    }
}

impl Eventual {
    /// What it says that it has applied: of its own writes, no more than is synced.
    pub(super) fn claimed(&self) -> Vector {
        let applied = self.machine.state().applied.clone();
        let me = self.logs.me();
        let synced = self.logs.synced_vector().get(me);
        if applied.get(me) <= synced {
            return applied;
        }
        let capped = applied.iter().map(|(origin, seq)| (origin, if origin == me { synced } else { seq }));
        capped.filter(|(_, seq)| *seq != 0).collect()
    }
}

impl super::truth::Truth {
    /// Takes back what an origin had acknowledged behind `last`, by era. How many writes that were.
    fn undo(&mut self, origin: Origin, last: impl Fn(Era) -> Seq) -> u64 {
        let of = |written: &super::truth::Written| written.id.filter(|id| id.origin == origin);
        let gone = self.writes.iter().filter(|(_, written)| {
            written.acknowledged && of(written).is_some_and(|id| last(written.version.era) < id.seq)
        });
        let gone: Vec<u64> = gone.map(|(op, _)| *op).collect();
        for op in &gone {
            if let Some(written) = self.writes.get_mut(op) {
                written.acknowledged = false;
            }
        }
        self.undone.extend(&gone);
        if let Some((era, shown)) = self.shown.get_mut(&origin.node) {
            let last = last(*era);
            *shown =
                shown.iter().map(|(of, seq)| (of, if of == origin { seq.min(last) } else { seq })).collect();
        }
        if !gone.is_empty() {
            // A stamp that nobody else has seen may be given out again.
            let left = self
                .writes
                .values()
                .filter(|w| w.acknowledged && w.version.node == origin.node && w.id.is_some());
            let highest = left.map(|written| written.version.hlc).max().unwrap_or(Hlc(0));
            self.stamps.insert(origin.node, highest);
        }
        gone.len() as u64
    }
}

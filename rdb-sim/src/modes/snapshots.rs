//! A replica's data for one that cannot go on by the region's log alone: a switch went on without it, or it lags.
//!
//! The receiver sets aside what the cluster went on without, and only when that is synced does the snapshot replace its data. In
//! between nothing else may change the region. It is taken in only up to an entry that the receiver's own log has delivered.

use super::clients::Reply;
use super::data::Stored;
use super::event::Parcel;
use super::eventual::broken;
use super::node::{Input, Job, Then};
use super::origins::{Bytes, Op};
use super::planted::{Shortcut, takes};
use super::world::World;
use crate::invariants::{Violation, holds};
use rdb_core::apply;
use rdb_core::eventual::origin_log::Held;
use rdb_core::eventual::run::Run;
use rdb_core::ids::{Era, Index, NodeId, RegionId};
use rdb_core::sessions::Sessions;
use rdb_core::switch::{Region, quarantine};
use std::rc::Rc;

#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) region: Region,
    applied: Index,
    data: Stored,
    /// The origin logs of the region's era, as far as they are synced, if that is eventual.
    runs: Vec<(Held, Bytes)>,
}

impl World {
    /// A replica asks for a snapshot.
    pub(super) fn offer_snapshot(
        &mut self,
        id: NodeId,
        to: NodeId,
        era: Era,
        delivered: Index,
    ) -> Result<(), Violation> {
        let node = self.node(id);
        let Some(process) = node.process.as_ref().filter(|process| !process.installing) else {
            return Ok(());
        };
        let applied = process.strong.state().applied;
        let is_of_use = era <= process.region.era() && applied <= delivered;
        if !is_of_use {
            return Ok(());
        }
        let mut runs = Vec::new();
        if let Some(eventual) = &process.eventual {
            let synced = rdb_core::switch::stream::snapshotable(&eventual.progress()).clone();
            if eventual.copying.is_noted() {
                return Ok(());
            }
            // Runs before a gap that a copy has filled are of no use.
            let dropped = |origin| eventual.logs.dropped(origin);
            let is_synced =
                |held: &Held| held.last <= synced.get(held.origin) && dropped(held.origin) < held.last;
            runs = eventual.kept.values().filter(|(held, _)| is_synced(held)).cloned().collect();
            let cut = synced.iter().find(|(origin, _)| eventual.logs.dropped(*origin) != 0);
            // Nothing is stable that not all members have, so logs are whole until all are in their era. Who is there by now
            // refuses the snapshot. A member for which logs would pass their cap gets those that there are.
            let is_capped = self.options.log_cap != u64::MAX;
            let is_there =
                is_capped || self.process(to).is_none_or(|other| process.region.era() <= other.region.era());
            holds("logs are whole for a snapshot", cut.is_none() || is_there, || {
                format!("node {id} has dropped runs that {to}, which is in era {era}, needs: {cut:?}")
            })?;
        }
        let data = node.data.current.clone();
        let snapshot = Snapshot { region: process.region.clone(), applied, data, runs };
        self.send(id, to, Parcel::Snapshot(Rc::new(snapshot)));
        Ok(())
    }

    pub(super) fn snapshot_came(&mut self, id: NodeId, snapshot: &Rc<Snapshot>) -> Result<(), Violation> {
        let Some(process) = self.process(id).filter(|process| !process.installing) else { return Ok(()) };
        // A node that starts with old data has the logs of a later era, with writes in them that it alone may have: first it
        // must find that era again, or it would take them for another one's and drop them.
        let is_back = process.is_back() || takes(Shortcut::TakesSnapshotEarly);
        let reaches = process.strong.state().applied < snapshot.applied && is_back;
        if !process.region.takes(&snapshot.region) || !reaches || process.delivered() < snapshot.applied {
            return Ok(());
        }
        let tail = self.tail(id, &snapshot.region)?;
        self.totals.quarantined += tail.len() as u64;
        let era = snapshot.region.era();
        let mut ops = vec![Op::Clear(era)];
        ops.extend(snapshot.runs.iter().map(|(held, bytes)| Op::Run(era, *held, Rc::clone(bytes))));
        if takes(Shortcut::SetsAsideLate) {
            self.replace(id, snapshot)?;
            self.write_later(id, Job::Origins { ops: vec![Op::Quarantine(tail)], then: Then::Nothing });
            return Ok(());
        }
        ops.insert(0, Op::Quarantine(tail));
        if let Some(process) = self.process_mut(id) {
            process.installing = true;
        }
        self.write_later(id, Job::Origins { ops, then: Then::Replace(Rc::clone(snapshot)) });
        self.aim_at(id, 2 * self.options.sync.1);
        Ok(())
    }

    /// The writes, by their numbers, that the cluster has gone on without and this node has, synced or not.
    fn tail(&self, id: NodeId, offered: &Region) -> Result<Vec<u64>, Violation> {
        let Some(process) = self.process(id) else { return Ok(Vec::new()) };
        let Some(eventual) = &process.eventual else { return Ok(Vec::new()) };
        let mut elements = Vec::new();
        for tail in quarantine::tails(&process.region, &eventual.logs.logged_vector(), offered) {
            for (_, bytes) in
                eventual.kept.range((tail.origin, 0)..=(tail.origin, u64::MAX)).map(|(_, run)| run)
            {
                let run = Run::decode(bytes).map_err(|error| broken(id, error))?;
                let beyond = run.entries.iter().filter(|entry| tail.after < entry.seq);
                elements.extend(beyond.filter_map(|entry| super::clients::element_of(&entry.key)));
            }
        }
        Ok(elements)
    }

    /// What had to be set aside is synced: the snapshot replaces all there is.
    pub(super) fn replace(&mut self, id: NodeId, snapshot: &Snapshot) -> Result<(), Violation> {
        let unreadable = |error: rdb_core::codec::Corrupt| broken(id, error);
        let node = self.node_mut(id);
        let Some(process) = &mut node.process else { return Ok(()) };
        let from = process.region.era();
        process.installing = false;
        node.data.replace(snapshot.data.clone());
        let state = node.data.current.strong().map_err(unreadable)?;
        process.region = snapshot.region.clone();
        let machine = apply::Machine::new(RegionId::FIRST_USER, state, Sessions::default());
        process.strong = machine.in_mode(process.region.clone());
        process.clock.saw(state.highest);
        let mut passed_over = Vec::new();
        while process.tasks.front().is_some_and(|task| task.entry.index <= state.applied) {
            passed_over.extend(process.tasks.pop_front().into_iter().flat_map(|task| task.waiters));
        }
        self.totals.snapshots += 1;
        self.totals.snapshots_over_eras += u64::from(from.0 + 1 < snapshot.region.era().0);
        // Nobody will apply them here.
        passed_over.into_iter().for_each(|caller| self.reply(caller, Reply::InDoubt));
        self.input(id, Input::Applied(state.applied));
        if from != snapshot.region.era() {
            self.entered(id)?;
        }
        self.start_apply(id);
        Ok(())
    }
}

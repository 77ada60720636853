//! The threads beside the raft loop: the log writer and the appliers.

use super::World;
use super::node::{Input, Job, Report};
use crate::clients::{Caller, Reply};
use crate::event::Event;
use crate::invariants::{Violation, answer_is_durable};
use crate::machine::Answer;
use rand::RngExt as _;
use rdb_core::apply::Committed;
use rdb_core::ids::{Index, NodeId, RegionId};
use rdb_core::raft::Apply;
use std::sync::Arc;

impl World {
    /// The log writer takes all that waits, unless it is busy.
    pub(super) fn start_sync(&mut self, id: NodeId) {
        let (least, most) = self.options.sync;
        let node = self.node_mut(id);
        let incarnation = node.incarnation;
        let Some(process) = &mut node.process else { return };
        if !process.writer.syncing.is_empty() || process.writer.waiting.is_empty() {
            return;
        }
        process.writer.syncing = std::mem::take(&mut process.writer.waiting);
        for job in &process.writer.syncing {
            node.log.write(job.batch.clone());
        }
        let at = self.now + self.rng.random_range(least..most);
        self.queue.push(at, Event::Synced { node: id, incarnation });
    }

    /// The sync is done. The order is a promise: first the report, then the messages that stand on it.
    pub(super) fn synced(&mut self, id: NodeId, incarnation: u64) -> Result<(), Violation> {
        let now = self.now;
        let node = self.node_mut(id);
        let stalled_until = node.stalled_until;
        let Some(process) = node.process.as_mut().filter(|_| node.incarnation == incarnation) else {
            return Ok(());
        };
        if now < stalled_until {
            self.queue.push(stalled_until, Event::Synced { node: id, incarnation });
            return Ok(());
        }
        let jobs = std::mem::take(&mut process.writer.syncing);
        if jobs.iter().any(|job| job.sync) {
            node.log.sync();
        }
        for Job { region, report, then_send, .. } in jobs {
            match report {
                Report::Persisted(number) => self.input(id, Input::Persisted(region, number)),
                Report::Shortened => self.totals.truncations += 1,
                Report::Noted => self.replace_later(id, region),
                Report::Made => self.input(id, Input::Created(region)),
                Report::Destroyed => self.log_is_destroyed(id, region),
            }
            self.send(id, region, then_send)?;
        }
        self.start_sync(id);
        Ok(())
    }

    /// The region's applier takes up work, unless it is busy.
    pub(super) fn start_apply(&mut self, id: NodeId, region: RegionId) {
        let replica = self.replica_mut(id, region);
        if replica.tasks.is_empty() || std::mem::replace(&mut replica.applying, true) {
            return;
        }
        let (least, most) = self.options.apply;
        let at = self.now + self.rng.random_range(least..most);
        let incarnation = self.node(id).incarnation;
        self.queue.push(at, Event::Applied { node: id, incarnation, region });
    }

    /// The applier is done with some of its tasks, which it has merged into one batch.
    pub(super) fn applied(
        &mut self,
        id: NodeId,
        incarnation: u64,
        region: RegionId,
    ) -> Result<(), Violation> {
        let Some(process) = self.node_mut(id).running(incarnation) else { return Ok(()) };
        // Ended meanwhile.
        let Some(replica) = process.replicas.get_mut(&region) else { return Ok(()) };
        let waiting = replica.tasks.len();
        if waiting == 0 {
            // A snapshot has made them needless.
            replica.applying = false;
            return Ok(());
        }
        let count = self.rng.random_range(1..=waiting);
        let replica = self.replica_mut(id, region);
        replica.applying = false;
        let batch = merge(replica.tasks.drain(..count));
        self.apply_batch(id, region, batch)?;
        self.start_apply(id, region);
        Ok(())
    }

    pub(super) fn apply_batch(
        &mut self,
        id: NodeId,
        region: RegionId,
        batch: Apply<Caller>,
    ) -> Result<(), Violation> {
        let Apply { entries, waiters } = batch;
        let Some(last) = entries.last().map(|entry| entry.index) else { return Ok(()) };
        let node = self.node_mut(id);
        let (data, Some(process)) = (&mut node.data, &mut node.process) else { return Ok(()) };
        let Some(machine) = process.machine_mut(region) else { return Ok(()) };
        let applied = machine.apply(&entries, data.of(region));
        let cannot = |what| Violation { invariant: "every entry can be applied", what };
        let (changes, answered) = applied.map_err(cannot)?;
        let (closed, catalog) = (machine.state().closed, machine.catalog().cloned().map(Arc::new));
        data.write(region, changes);
        if let Some(replica) = process.replicas.get_mut(&region) {
            // What is applied is never overruled: only the terms of later entries are asked for again.
            replica.terms = replica.terms.split_off(&last);
        }
        self.invariants.applied.applied(region, id, last, &self.nodes[Self::place(id)].data)?;
        for (entry, answers) in entries.iter().zip(&answered) {
            self.invariants.applied.answers(region, id, entry.index, answers)?;
        }
        if let Some(catalog) = catalog {
            self.catalog_applied(id, catalog);
        }
        self.answer(id, region, &entries, &answered, waiters)?;
        self.input(id, Input::Applied(region, last, closed));
        Ok(())
    }

    /// Tells the callers of each entry what became of their commands.
    fn answer(
        &mut self,
        id: NodeId,
        region: RegionId,
        entries: &[Committed],
        answers: &[Vec<Answer>],
        waiters: Vec<(Index, Vec<(Caller, usize)>)>,
    ) -> Result<(), Violation> {
        for (index, callers) in waiters {
            let place = usize::try_from(index - entries[0].index).unwrap_or(usize::MAX);
            let disks = self.nodes.iter().map(|node| &node.log);
            answer_is_durable(disks, region, index, entries[place].term)?;
            let mut answers = answers[place].iter();
            for (caller, count) in callers {
                // Clients here send one command at a time.
                for answer in answers.by_ref().take(count) {
                    match answer {
                        Answer::Keys(answer) => self.reply(caller, Reply::Answer(answer.clone())),
                        Answer::Catalog(answer) => self.answer_gardener(id, caller, answer.clone()),
                    }
                }
            }
        }
        Ok(())
    }
}

/// One batch of several tasks.
pub(super) fn merge(tasks: impl Iterator<Item = Apply<Caller>>) -> Apply<Caller> {
    let mut batch = Apply { entries: Vec::new(), waiters: Vec::new() };
    for mut task in tasks {
        batch.entries.append(&mut task.entries);
        batch.waiters.append(&mut task.waiters);
    }
    batch
}

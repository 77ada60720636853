//! The applier: committed entries in, records and answers out. One thread, the only writer of the data.
//!
//! It drains all that waits, applies each region's entries as one batch, answers the callers, and tells the raft loop.
//! An entry that cannot be applied stops the node: to go on without it would make this replica differ from the others.

use crate::mailbox::{Event, Mailbox};
use crate::metrics::Metrics;
use crate::shared::CatalogCell;
use crate::waiter::{Answers, WriteWaiter};
use crossbeam_channel::{Receiver, Sender};
use rdb_core::apply::{self, Committed, State};
use rdb_core::ids::{Index, NamespaceId, RegionId};
use rdb_core::raft::Apply;
use rdb_storage::Data;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

/// Entries that are applied at a time where callers wait for answers.
const ENTRIES_ANSWERED_MAX: usize = 16;
/// Tasks that are merged into one turn.
const TASKS_PER_TURN_MAX: usize = 64;

/// What the applier is asked to do.
pub(crate) enum Task {
    /// A region is here: its machine, as stored.
    Open { region: RegionId, namespace: NamespaceId, machine: Box<Machine> },
    /// Committed entries that follow those of the region's last task.
    Apply { region: RegionId, apply: Apply<WriteWaiter> },
    /// The region's data is about to be replaced: nothing of it is applied any more until it is opened again.
    Release { region: RegionId, done: Box<dyn FnOnce() + Send> },
    /// The region is gone; its records are to be removed.
    Close { region: RegionId, done: Box<dyn FnOnce() + Send> },
    /// No more tasks.
    Stop,
}

/// A region's state machine.
pub(crate) enum Machine {
    /// Of a user's namespace.
    Keys(apply::Machine),
    /// Of the catalog.
    Catalog(rdb_pd::Machine),
}

struct Open {
    namespace: NamespaceId,
    machine: Machine,
}

/// The applier's state.
pub(crate) struct Applier {
    pub(crate) data: Data,
    pub(crate) mailbox: Mailbox,
    pub(crate) catalog: CatalogCell,
    pub(crate) metrics: Arc<Metrics>,
}

/// Why the applier stopped.
#[derive(Debug, thiserror::Error)]
#[error("region {region}: cannot apply: {message}")]
pub(crate) struct ApplyError {
    region: RegionId,
    message: String,
}

impl Applier {
    /// Runs until it is told to stop.
    ///
    /// # Errors
    /// An entry cannot be applied. The node must stop.
    pub(crate) fn run(self, tasks: &Receiver<Task>) -> Result<(), ApplyError> {
        let mut regions: BTreeMap<RegionId, Open> = BTreeMap::new();
        while let Ok(first) = tasks.recv() {
            let mut work: BTreeMap<RegionId, Apply<WriteWaiter>> = BTreeMap::new();
            let more = tasks.try_iter().take(TASKS_PER_TURN_MAX);
            for task in std::iter::once(first).chain(more) {
                match task {
                    Task::Apply { region, apply } => merge(&mut work, region, apply),
                    Task::Open { region, namespace, machine } => {
                        regions.insert(region, Open { namespace, machine: *machine });
                    }
                    Task::Release { region, done } => {
                        // Who waits for these entries is told that their fate is not known: see `Waiter`.
                        work.remove(&region);
                        regions.remove(&region);
                        done();
                    }
                    Task::Close { region, done } => {
                        let mut open = regions.remove(&region);
                        // What was committed before is answered: its callers need not stay in doubt.
                        if let (Some(open), Some(apply)) = (&mut open, work.remove(&region)) {
                            self.apply(region, open, apply)?;
                        }
                        self.close(open, region)?;
                        done();
                    }
                    Task::Stop => return self.apply_all(&mut regions, work),
                }
            }
            self.apply_all(&mut regions, work)?;
        }
        Ok(())
    }

    fn close(&self, open: Option<Open>, region: RegionId) -> Result<(), ApplyError> {
        let Some(open) = open else { return Ok(()) };
        self.data
            .destroy(region, open.namespace)
            .map_err(|error| ApplyError { region, message: error.to_string() })
    }

    fn apply_all(
        &self,
        regions: &mut BTreeMap<RegionId, Open>,
        work: BTreeMap<RegionId, Apply<WriteWaiter>>,
    ) -> Result<(), ApplyError> {
        for (region, apply) in work {
            // A region that is closed has no callers left that could expect more than "in doubt".
            let Some(open) = regions.get_mut(&region) else { continue };
            self.apply(region, open, apply)?;
        }
        Ok(())
    }

    fn apply(&self, region: RegionId, open: &mut Open, apply: Apply<WriteWaiter>) -> Result<(), ApplyError> {
        let started = Instant::now();
        let error = |message: String| ApplyError { region, message };
        let Apply { entries, waiters } = apply;
        let Some(index) = entries.last().map(|entry| entry.index) else { return Ok(()) };
        let state = match &mut open.machine {
            Machine::Keys(machine) => {
                let view = self.data.region(region, open.namespace);
                let waited: BTreeSet<Index> = waiters.iter().map(|(index, _)| *index).collect();
                let mut waiters = waiters;
                // Answers hold what was found, and are many bytes at worst: so not all of a long run's at a time.
                let run = if waited.is_empty() { entries.len() } else { ENTRIES_ANSWERED_MAX };
                for entries in entries.chunks(run) {
                    let applied = machine.apply_for(entries, &view, |index| waited.contains(&index));
                    let applied = applied.map_err(|e| error(e.to_string()))?;
                    self.write(region, open.namespace, &applied.changes)?;
                    let last = entries.last().map_or(0, |entry| entry.index);
                    let later = waiters.partition_point(|(index, _)| *index <= last);
                    let later = waiters.split_off(later);
                    answer(entries, applied.answers, std::mem::replace(&mut waiters, later), Answers::Keys);
                }
                *machine.state()
            }
            Machine::Catalog(machine) => {
                let applied = machine.apply(&entries).map_err(|e| error(e.to_string()))?;
                self.write(region, open.namespace, &applied.changes)?;
                if applied.answers.iter().flatten().any(|answer| *answer == rdb_pd::Answer::Registered) {
                    // Once in a node's life. Durable now, so that a restart knows at once which directory is whose, and
                    // not only when the log is replayed: a wiped node could be let in until then.
                    self.data.flush().map_err(|e| error(e.to_string()))?;
                }
                // The catalog is seen before the answer is given: who was told that a namespace exists finds it here.
                let catalog = Arc::new(machine.catalog().clone());
                self.catalog.store(catalog.clone());
                self.mailbox.post(Event::Catalog(catalog));
                answer(&entries, applied.answers, waiters, Answers::Catalog);
                *machine.state()
            }
        };
        self.metrics.applied(entries.len(), started.elapsed());
        let State { truncate_to, closed, .. } = state;
        self.mailbox.post(Event::Applied { region, index, truncate_to, closed });
        Ok(())
    }

    fn write(
        &self,
        region: RegionId,
        namespace: NamespaceId,
        changes: &apply::Changes,
    ) -> Result<(), ApplyError> {
        self.data
            .apply(region, namespace, changes)
            .map_err(|error| ApplyError { region, message: error.to_string() })
    }
}

fn merge(work: &mut BTreeMap<RegionId, Apply<WriteWaiter>>, region: RegionId, apply: Apply<WriteWaiter>) {
    match work.get_mut(&region) {
        None => {
            work.insert(region, apply);
        }
        Some(merged) => {
            merged.entries.extend(apply.entries);
            merged.waiters.extend(apply.waiters);
        }
    }
}

/// Gives each caller the answers to its own commands: an entry's answers, cut by the callers' numbers of commands.
fn answer<A>(
    entries: &[Committed],
    answers: Vec<Vec<A>>,
    waiters: Vec<(Index, Vec<(WriteWaiter, usize)>)>,
    wrap: fn(Vec<A>) -> Answers,
) {
    let Some(first) = entries.first().map(|entry| entry.index) else { return };
    let mut waiters = waiters.into_iter().peekable();
    for (offset, answers) in answers.into_iter().enumerate() {
        let index = first + offset as Index;
        let Some((_, callers)) = waiters.next_if(|(waited, _)| *waited == index) else { continue };
        let mut answers = answers.into_iter();
        for (waiter, count) in callers {
            waiter.answer(Ok(wrap(answers.by_ref().take(count).collect())));
        }
    }
}

/// Hands tasks to the applier. Cheap to clone.
#[derive(Clone)]
pub(crate) struct ApplierHandle(pub(crate) Sender<Task>);

impl ApplierHandle {
    /// Hands over a task. An applier that has stopped takes the node down with it, so a lost task is no surprise.
    pub(crate) fn post(&self, task: Task) {
        drop(self.0.send(task));
    }
}

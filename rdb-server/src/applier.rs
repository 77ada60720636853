//! The applier: committed entries in, records and answers out. One thread, the only writer of the data.
//!
//! It drains all that waits, decides what each region's entries do, answers the callers, writes the records as one batch, and
//! tells the raft loop. An answer says that the entry is on a majority's synced logs and what became of its commands; both
//! are certain before the records are written, and the callers' next requests come while they are. Whoever reads what was
//! answered finds it: a read waits for the raft loop to hear that its index is written. Reads by lease wait for nothing, so
//! a node that serves them answers last.
//!
//! An entry that cannot be applied stops the node: to go on without it would make this replica differ from the others.

use crate::eventual::{self, Eventual};
use crate::mailbox::{Event, Mailbox};
use crate::metrics::Metrics;
use crate::shared::CatalogCell;
use crate::waiter::{Answers, WriteWaiter};
use fail::fail_point;
use rdb_core::apply::{self, Committed, State};
use rdb_core::ids::{Index, NamespaceId, RegionId};
use rdb_core::raft::Apply;
use rdb_core::switch::{Marker, Mode};
use rdb_core::version::Hlc;
use rdb_queue::{Receiver, Sender};
use rdb_storage::Data;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

/// Entries that are applied at a time where callers wait for answers.
const ENTRIES_ANSWERED_MAX: usize = 16;
/// Tasks that are merged into one turn.
const TASKS_PER_TURN_MAX: usize = 64;

/// How much the applier yields to others where processors are scarce: to the threads on whose way an answer is. Nobody waits
/// for its writing but reads, and what it may fall behind is bounded (`backlog.rs`).
const NICENESS: i32 = 5;

/// What the applier is asked to do.
pub(crate) enum Task {
    /// A region is here: its machine, as stored.
    Open { region: RegionId, namespace: NamespaceId, machine: Box<Machine> },
    /// Committed entries that follow those of the region's last task.
    Apply { region: RegionId, apply: Apply<WriteWaiter> },
    /// An eventual era has ended as far as this node has it: the marker that waits for this can be applied. With the highest
    /// stamp of the era.
    Reached { region: RegionId, highest: Hlc },
    /// The region's data is about to be replaced: nothing of it is applied any more until it is opened again.
    Release { region: RegionId, done: Box<dyn FnOnce() + Send> },
    /// The region is gone; its records are to be removed. When that is durable, and with it the catalog that says so, `done` is told.
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
    /// Entries that wait for the end of an eventual era: the first of them is the marker.
    parked: Option<(Marker, Apply<WriteWaiter>)>,
}

/// Regions whose data is to be destroyed, where there is any, and whom to tell that it is.
#[derive(Default)]
struct Gone {
    regions: Vec<(RegionId, NamespaceId)>,
    done: Vec<(RegionId, Box<dyn FnOnce() + Send>)>,
}

/// The applier's state.
pub(crate) struct Applier {
    pub(crate) data: Data,
    pub(crate) mailbox: Mailbox,
    pub(crate) eventual: Eventual,
    /// The way to this thread.
    pub(crate) handle: ApplierHandle,
    pub(crate) catalog: CatalogCell,
    pub(crate) metrics: Arc<Metrics>,
    /// Whether callers are answered before the records are written, which is as soon as the answers are certain.
    pub(crate) answer_first: bool,
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
        // On Linux this is of the thread. A system that will not have it so loses nothing but a little speed.
        let _ = rustix::process::nice(NICENESS);
        let mut regions: BTreeMap<RegionId, Open> = BTreeMap::new();
        while let Ok(first) = tasks.recv() {
            let mut work: BTreeMap<RegionId, Apply<WriteWaiter>> = BTreeMap::new();
            let (mut gone, mut stops) = (Gone::default(), false);
            let more = tasks.try_iter().take(TASKS_PER_TURN_MAX);
            for task in std::iter::once(first).chain(more) {
                match task {
                    Task::Apply { region, apply } => merge(&mut work, region, apply),
                    Task::Open { region, namespace, machine } => {
                        regions.insert(region, Open { namespace, machine: *machine, parked: None });
                    }
                    Task::Reached { region, highest } => {
                        if let Some(open) = regions.get_mut(&region) {
                            self.unpark(region, open, highest)?;
                        }
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
                        gone.regions.extend(open.map(|open| (region, open.namespace)));
                        gone.done.push((region, done));
                    }
                    Task::Stop => {
                        stops = true;
                        break;
                    }
                }
            }
            self.destroy(gone)?;
            self.apply_all(&mut regions, work)?;
            if stops {
                break;
            }
        }
        Ok(())
    }

    /// One flush for all of a turn's: with one for each, whoever deletes many namespaces would hold up all others. It is there too
    /// where there is no data: a node whose log of a region is gone, and that forgot in a crash that the region is, would make it anew.
    fn destroy(&self, gone: Gone) -> Result<(), ApplyError> {
        if let Some((region, _)) = gone.done.first() {
            let failed =
                |error: rdb_storage::Error| ApplyError { region: *region, message: error.to_string() };
            self.data.destroy(&gone.regions).map_err(failed)?;
        }
        gone.done.into_iter().for_each(|(_, done)| done());
        Ok(())
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

    /// Applies entries, those that put the region into another era among them.
    fn apply(
        &self,
        region: RegionId,
        open: &mut Open,
        mut apply: Apply<WriteWaiter>,
    ) -> Result<(), ApplyError> {
        loop {
            if let Some((_, parked)) = &mut open.parked {
                parked.entries.extend(apply.entries);
                parked.waiters.extend(apply.waiters);
                return Ok(());
            }
            let Machine::Keys(machine) = &open.machine else { break };
            let marker = machine.due_marker(&apply.entries).map_err(|(index, error)| ApplyError {
                region,
                message: format!("entry {index}: {error}"),
            })?;
            let Some((place, marker)) = marker else { break };
            let rest = split_off(&mut apply, place);
            self.apply_entries(region, open, std::mem::replace(&mut apply, rest))?;
            match marker.mode {
                Mode::Eventual => self.enter(region, open, &marker, Hlc(0), &mut apply)?,
                Mode::Strong => self.park(region, open, marker, std::mem::take(&mut apply)),
            }
        }
        self.apply_entries(region, open, apply)
    }

    /// The thread of eventual mode has to end the era first.
    fn park(&self, region: RegionId, open: &mut Open, marker: Marker, apply: Apply<WriteWaiter>) {
        let Some(index) = apply.entries.first().map(|entry| entry.index) else { return };
        let handle = self.handle.clone();
        let reached = Box::new(move |highest| handle.post(Task::Reached { region, highest }));
        self.eventual.post(eventual::Event::Marker { region, marker: marker.clone(), index, reached });
        open.parked = Some((marker, apply));
    }

    fn unpark(&self, region: RegionId, open: &mut Open, highest: Hlc) -> Result<(), ApplyError> {
        let Some((marker, mut apply)) = open.parked.take() else { return Ok(()) };
        self.enter(region, open, &marker, highest, &mut apply)?;
        self.apply(region, open, apply)
    }

    /// Puts the region into its next era, by the first of the entries.
    fn enter(
        &self,
        region: RegionId,
        open: &mut Open,
        marker: &Marker,
        highest: Hlc,
        apply: &mut Apply<WriteWaiter>,
    ) -> Result<(), ApplyError> {
        let rest = split_off(apply, 1);
        let Apply { entries, .. } = std::mem::replace(apply, rest);
        let (Machine::Keys(machine), [entry]) = (&mut open.machine, &entries[..]) else { return Ok(()) };
        let before = self.data.eventual_state(region);
        let before = before.map_err(|error| ApplyError { region, message: error.to_string() })?;
        let changes = machine.enter(entry, marker, highest, before.as_ref());
        fail_point!("era-before-write");
        self.write(region, open.namespace, &changes)?;
        fail_point!("era-after-write");
        tracing::info!(
            %region, switch = marker.switch.0, era = marker.era.0, epoch = marker.epoch.0, mode = ?marker.mode,
            "the region's log has put it into another era"
        );
        let (mode, state) = (machine.mode().clone(), *machine.state());
        let (index, term) = (entry.index, entry.term);
        self.mailbox.post(Event::Entered { region, mode, index, term });
        let State { truncate_to, closed, .. } = state;
        self.mailbox.post(Event::Applied { region, index, truncate_to, closed });
        Ok(())
    }

    /// Applies entries that leave the region in its era.
    fn apply_entries(
        &self,
        region: RegionId,
        open: &mut Open,
        apply: Apply<WriteWaiter>,
    ) -> Result<(), ApplyError> {
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
                    if !self.answer_first {
                        self.write(region, open.namespace, &applied.changes)?;
                    }
                    let last = entries.last().map_or(0, |entry| entry.index);
                    let later = waiters.partition_point(|(index, _)| *index <= last);
                    let later = waiters.split_off(later);
                    answer(entries, applied.answers, std::mem::replace(&mut waiters, later), Answers::Keys);
                    if self.answer_first {
                        self.write(region, open.namespace, &applied.changes)?;
                    }
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
        let applied = Event::Applied { region, index, truncate_to, closed };
        if self.answer_first && !closed && region != RegionId::META {
            // Nobody but a read waits for this.
            self.mailbox.post_applied(applied);
        } else {
            self.mailbox.post(applied);
        }
        Ok(())
    }

    fn write(
        &self,
        region: RegionId,
        namespace: NamespaceId,
        changes: &apply::Changes,
    ) -> Result<(), ApplyError> {
        fail_point!("apply-before-write");
        let written = self.data.apply(region, namespace, changes);
        fail_point!("apply-after-write");
        written.map_err(|error| ApplyError { region, message: error.to_string() })
    }
}

/// Leaves the first `place` entries, and those who wait for them, and gives back the others.
fn split_off(apply: &mut Apply<WriteWaiter>, place: usize) -> Apply<WriteWaiter> {
    let entries = apply.entries.split_off(place.min(apply.entries.len()));
    let first = entries.first().map_or(Index::MAX, |entry| entry.index);
    let later = apply.waiters.partition_point(|(index, _)| *index < first);
    Apply { entries, waiters: apply.waiters.split_off(later) }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::tests::engine;
    use rdb_core::apply::{Answer, State};
    use rdb_core::command::{Command, Encoded, Operation, Stamp, Write, begin_keys};
    use rdb_core::ids::{Era, NodeId};
    use rdb_core::sessions::Sessions;
    use rdb_core::version::Hlc;
    use std::sync::Mutex;

    const REGION: RegionId = RegionId::FIRST_USER;
    const NAMESPACE: NamespaceId = NamespaceId(7);

    fn put(index: Index) -> Committed {
        let (key, value) = (index.to_be_bytes(), [1; 8]);
        let operation = Operation::Write(Write { key: &key, value: Some(&value) });
        let mut data = begin_keys(Stamp { era: Era(1), hlc: Hlc(index), node: NodeId(1) });
        data.extend_from_slice(&Encoded::from(&Command { request: None, operation }).bytes);
        Committed { index, term: 1, data }
    }

    /// What a caller found when it was answered.
    #[derive(Debug)]
    struct Heard {
        index: Index,
        /// The stamp of the answer: of the caller's own entry.
        stamp: u64,
        /// Whether the caller's own record was written, and that of the last entry.
        own: bool,
        all: bool,
    }

    /// Applies entries up to `last`, for four out of five of which somebody waits.
    fn apply(last: Index, answer_first: bool) -> Vec<Heard> {
        let (_directory, engine) = engine();
        let data = engine.data();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let waiters = (1..=last).filter(|index| index % 5 != 0).map(|index| {
            let (heard, data) = (heard.clone(), data.clone());
            let waiter = WriteWaiter::new(move |answered| {
                let Ok(Answers::Keys(answers)) = answered else { panic!("no answer: {answered:?}") };
                let [Answer::Done(version)] = answers[..] else { panic!("{answers:?}") };
                let written = |index: Index| data.get(NAMESPACE, &index.to_be_bytes()).unwrap().is_some();
                let (own, all) = (written(index), written(last));
                heard.lock().unwrap().push(Heard { index, stamp: version.hlc.0, own, all });
            });
            (index, vec![(waiter, 1)])
        });
        let apply = Apply { entries: (1..=last).map(put).collect(), waiters: waiters.collect() };
        let machine = apply::Machine::new(REGION, State::default(), Sessions::default());
        let mut open = Open { namespace: NAMESPACE, machine: Machine::Keys(machine), parked: None };
        let (mailbox, events) = Mailbox::new();
        let (catalog, metrics) = (CatalogCell::default(), Arc::new(Metrics::new()));
        let ((eventual, _), (tasks, _)) = (Eventual::new(), rdb_queue::unbounded());
        let handle = ApplierHandle(tasks);
        let applier =
            Applier { data: data.clone(), mailbox, eventual, handle, catalog, metrics, answer_first };
        applier.apply(REGION, &mut open, apply).unwrap();
        // Reads are released by this report: all is there by now.
        assert!(matches!(events.next(), Some(Event::Applied { index, .. }) if index == last));
        assert!(data.get(NAMESPACE, &last.to_be_bytes()).unwrap().is_some());
        Arc::try_unwrap(heard).ok().unwrap().into_inner().unwrap()
    }

    /// Entries that callers wait for are applied a few at a time, and answered, before the next ones are: what all of them
    /// have found together may be more than fits into memory. Each caller gets the answer to its own.
    #[test]
    fn a_long_run_is_answered_in_parts() {
        let last = 3 * ENTRIES_ANSWERED_MAX as Index;
        for answer_first in [false, true] {
            let heard = apply(last, answer_first);
            assert_eq!(heard.len() as Index, last - last / 5);
            assert!(heard.iter().all(|heard| heard.index == heard.stamp), "{heard:?}");
            assert!(heard.iter().any(|heard| !heard.all), "{heard:?}");
        }
    }

    /// A read by lease follows an answer at once: where there are such reads, what was answered is written.
    #[test]
    fn what_was_answered_is_written_already_where_reads_wait_for_nothing() {
        let last = 3 * ENTRIES_ANSWERED_MAX as Index;
        assert!(apply(last, false).iter().all(|heard| heard.own));
        assert!(apply(last, true).iter().any(|heard| !heard.own), "nobody is answered first");
    }
}

//! A node in eventual mode: it accepts writes, logs, syncs and merges them, and looks after its logs.

use super::clients::Reply;
use super::copies::Copying;
use super::event::Event;
use super::node::{Job, Merge, Node, Process, Then, Waiter};
use super::origins::{Bytes, Op};
use super::planted::{Shortcut, takes};
use super::truth::Answered;
use super::world::{World, place};
use crate::clients::Caller;
use crate::invariants::{Violation, holds};
use rand::RngExt as _;
use rdb_core::command::Write;
use rdb_core::eventual::conflicts::{Lost, Settling, lost_of_era};
use rdb_core::eventual::hlc::NoStamp;
use rdb_core::eventual::lag::{self, Now};
use rdb_core::eventual::machine::{Machine, State, View as _};
use rdb_core::eventual::origin_log::{Held, OriginLogs};
use rdb_core::eventual::peers::{Peers, Report};
use rdb_core::eventual::run::Run;
use rdb_core::eventual::session::SessionToken;
use rdb_core::eventual::stamps::Stamps;
use rdb_core::eventual::vector::{Origin, Seq, Vector, WriteId};
use rdb_core::ids::{Era, Incarnation, NamespaceId, NodeId};
use rdb_core::record;
use rdb_core::switch::planted::{Wrong, wrong};
use rdb_core::switch::{Mode, service};
use rdb_core::version::Hlc;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

pub(super) const NAMESPACE: NamespaceId = NamespaceId(9);

/// A region in an eventual era.
pub(super) struct Eventual {
    pub(super) machine: Machine,
    pub(super) logs: OriginLogs,
    pub(super) peers: Peers,
    settling: Settling,
    /// Up to where losses and deletions are certain.
    settled: Vector,
    /// Synced, not yet applied.
    pub(super) to_merge: VecDeque<Merge>,
    merging: bool,
    /// The runs of its logs, synced or not.
    pub(super) kept: BTreeMap<(Origin, Seq), (Held, Bytes)>,
    pub(super) stamps: Stamps,
    /// Its own writes that are not answered yet.
    pub(super) unanswered: usize,
    /// Those that are answered and not synced.
    pub(super) unsynced: usize,
    /// The last of them that was answered: whoever reads here waits until it is merged.
    pub(super) answered: Seq,
    pub(super) told: Option<Report>,
    /// What each peer had synced when it last came forward, and since when it stays there.
    pub(super) stood: BTreeMap<NodeId, (Vector, u64)>,
    pub(super) copying: Copying,
    /// The frontiers that it has told, each with what it had applied then.
    frontiers: Vec<(Hlc, Vector)>,
}

impl Eventual {
    fn log(&mut self, run: &Run) -> (Held, Bytes) {
        let bytes: Bytes = Rc::new(run.encode());
        let held = Held::of(run, bytes.len());
        self.logs.log(&held);
        self.keep(run, held, &bytes);
        (held, bytes)
    }

    fn keep(&mut self, run: &Run, held: Held, bytes: &Bytes) {
        self.kept.insert((held.origin, held.last), (held, Rc::clone(bytes)));
        self.stamps.add(run);
    }
}

/// What cannot be.
pub(super) fn broken(id: NodeId, why: impl std::fmt::Display) -> Violation {
    Violation { invariant: "eventual mode goes on", what: format!("node {id}: {why}") }
}

impl World {
    /// Takes up the logs of the era that the region is in, if that is eventual: new ones, unless a start finds it again.
    pub(super) fn open_eventual(&mut self, id: NodeId) -> Result<(), Violation> {
        let others: Vec<NodeId> = self.ids().into_iter().filter(|other| *other != id).collect();
        let (now_ms, is_periodic) = (self.node(id).monotonic_ms(self.now), self.options.periodic);
        let node = self.node_mut(id);
        let me = Origin { node: id, incarnation: Incarnation(node.incarnation) };
        let Some(process) = node.process.as_mut().filter(|p| p.region.mode() == Mode::Eventual) else {
            return Ok(());
        };
        let era = process.region.era();
        node.rescue(era)?;
        let Some(process) = node.process.as_mut() else { return Ok(()) };
        let state = node.data.current.eventual_of(era);
        let state = state.unwrap_or_else(|| State::begin(era, Hlc(0)));
        let synced = node.origins.synced();
        let runs: Vec<(Held, Bytes)> = match wrong(Wrong::MarkerEmptiesLogs) && state.applied.is_empty() {
            true => Vec::new(),
            false => synced.runs_of(era).cloned().collect(),
        };
        let copied = synced.copied(era);
        let vector = copied.as_ref().map(|note| note.vector.clone()).unwrap_or_default();
        let held = runs.iter().map(|(held, _)| *held);
        let logs = OriginLogs::restore_behind(era, me, &state.applied, &vector, held);
        let logs = logs.map_err(|hole| broken(id, hole))?;
        let mut eventual = Eventual {
            stamps: Stamps::of(&logs),
            logs,
            machine: Machine::new(state, node.data.current.buckets(era), false).periodic(is_periodic),
            peers: Peers::new(others, now_ms),
            settling: Settling::default(),
            settled: Vector::default(),
            to_merge: VecDeque::new(),
            merging: false,
            kept: BTreeMap::new(),
            unanswered: 0,
            answered: 0,
            unsynced: 0,
            told: None,
            stood: BTreeMap::new(),
            copying: Copying::None,
            frontiers: Vec::new(),
        };
        if let Some(note) = copied {
            let State { applied, copied_pages, .. } = eventual.machine.state();
            let is_merged = *copied_pages == 0 && applied.covers(&note.vector);
            process.durable.saw(note.highest, now_ms);
            eventual.copying = if is_merged { Copying::Merged(note) } else { Copying::Merging(note) };
        }
        for (held, bytes) in runs {
            let run = Run::decode(&bytes).map_err(|error| broken(id, error))?;
            eventual.keep(&run, held, &bytes);
            eventual.to_merge.push_back(Merge { run: Rc::new(run), waiter: None });
        }
        process.durable.saw(process.strong.state().highest, now_ms);
        process.durable.saw(eventual.machine.state().highest, now_ms);
        process.eventual = Some(eventual);
        self.merge_pages(id)?;
        self.merge_all(id)
    }

    /// Accepts a client's write.
    pub(super) fn accept(
        &mut self,
        id: NodeId,
        caller: Caller,
        op: u64,
        writes: &[(Vec<u8>, Option<u64>)],
    ) -> Result<(), Violation> {
        let (now_ms, is_periodic) = (self.node(id).monotonic_ms(self.now), self.options.periodic);
        let node = self.node_mut(id);
        let Some(process) = &mut node.process else { return Ok(()) };
        let (stamp, mark) = take_stamp(process, now_ms).map_err(|error| broken(id, error))?;
        let Process { eventual: Some(eventual), peer, durable, .. } = process else { return Ok(()) };
        let values: Vec<_> = writes.iter().map(|(_, value)| value.map(super::clients::bytes_of)).collect();
        let commands: Vec<Write<'_>> = writes
            .iter()
            .zip(&values)
            .map(|((key, _), value)| Write { key, value: value.as_deref() })
            .collect();
        let (me, after) = (eventual.logs.me(), eventual.logs.written());
        let run = eventual.machine.write(stamp, me, after, &commands, &node.data.current);
        let run = Rc::new(run.map_err(|error| broken(id, error))?);
        let hlc = run.entries.first().map_or(stamp, |entry| entry.hlc);
        durable.saw(hlc, now_ms);
        let (held, bytes) = eventual.log(&run);
        eventual.unanswered += 1;
        let waiter = Waiter { caller, epoch: peer.epoch(), op };
        let first = is_periodic.then(|| (Rc::clone(&run), Rc::clone(&bytes)));
        let merge = Merge { run: Rc::clone(&run), waiter: Some(waiter).filter(|_| !is_periodic) };
        let write = WriteId { origin: me, seq: run.last() };
        let era = run.era;
        self.truth.accepted(op, era, write, hlc, writes)?;
        let mut ops = vec![Op::Run(era, held, bytes)];
        if let Some(mark) = mark.filter(|_| !takes(Shortcut::KeepsNoMark)) {
            ops.insert(0, Op::Mark(mark));
        }
        if takes(Shortcut::AppliesBeforeSync) {
            self.merge_later(id, merge.clone());
        }
        self.write_later(id, Job::Origins { ops, then: Then::Merge(merge) });
        match first {
            Some((run, bytes)) => self.acknowledge_first(id, &run, &bytes, waiter),
            None => Ok(()),
        }
    }

    /// Logs a run of another node's.
    pub(super) fn log_received(&mut self, id: NodeId, run: Run) {
        let now_ms = self.node(id).monotonic_ms(self.now);
        let Some(process) = self.process_mut(id) else { return };
        let Process { eventual: Some(eventual), durable, .. } = process else { return };
        for entry in &run.entries {
            // Whatever it says: it was acknowledged.
            let _ = durable.saw(entry.hlc, now_ms);
        }
        let (held, bytes) = eventual.log(&run);
        let (era, run) = (run.era, Rc::new(run));
        let then = Then::Merge(Merge { run, waiter: None });
        self.write_later(id, Job::Origins { ops: vec![Op::Run(era, held, bytes)], then });
    }

    /// A run is synced: it may be sent, answered and applied.
    pub(super) fn run_is_synced(&mut self, id: NodeId, mut merge: Merge) -> Result<(), Violation> {
        let (era, is_periodic) = (merge.run.era, self.options.periodic);
        let Some(process) = self.process_mut(id) else { return Ok(()) };
        let is_of_era = |eventual: &&mut Eventual| eventual.logs.era() == era;
        let Some(eventual) = process.eventual.as_mut().filter(is_of_era) else {
            if let Some(waiter) = merge.waiter {
                self.reply(waiter.caller, Reply::InDoubt);
            }
            return Ok(());
        };
        eventual.logs.synced(merge.run.origin, merge.run.last());
        let me = eventual.logs.me();
        if is_periodic && merge.run.origin.node == id && merge.run.origin == me {
            self.own_is_synced(id, &merge.run);
            self.start_apply(id);
            return Ok(());
        }
        let is_own = merge.waiter.is_some();
        if !(takes(Shortcut::AppliesBeforeSync) && is_own) {
            if let Some(waiter) = merge.waiter.take() {
                eventual.answered = merge.run.last();
                self.answer_write(id, waiter, &merge.run)?;
            }
            self.merge_later(id, merge);
        }
        // It may be all that a marker waits for.
        self.start_apply(id);
        Ok(())
    }

    fn merge_later(&mut self, id: NodeId, merge: Merge) {
        let incarnation = self.node(id).incarnation;
        let Some(eventual) = self.process_mut(id).and_then(|process| process.eventual.as_mut()) else {
            return;
        };
        eventual.to_merge.push_back(merge);
        if !std::mem::replace(&mut eventual.merging, true) {
            self.later(self.options.merge, Event::Merged { node: id, incarnation });
        }
    }

    pub(super) fn merged(&mut self, id: NodeId, incarnation: u64) -> Result<(), Violation> {
        let Some(process) = self.node_mut(id).running(incarnation) else { return Ok(()) };
        let Some(eventual) = &mut process.eventual else { return Ok(()) };
        eventual.merging = false;
        let waiting = eventual.to_merge.len();
        if waiting == 0 {
            return Ok(());
        }
        let count = self.rng.random_range(1..=waiting);
        self.merge(id, count)?;
        let Some(eventual) = self.process_mut(id).and_then(|process| process.eventual.as_mut()) else {
            return Ok(());
        };
        if !eventual.to_merge.is_empty() && !std::mem::replace(&mut eventual.merging, true) {
            self.later(self.options.merge, Event::Merged { node: id, incarnation });
        }
        Ok(())
    }

    pub(super) fn merge_all(&mut self, id: NodeId) -> Result<(), Violation> {
        let Some(eventual) = self.process(id).and_then(|process| process.eventual.as_ref()) else {
            return Ok(());
        };
        self.merge(id, eventual.to_merge.len())
    }

    /// Applies the first `count` runs that are synced.
    fn merge(&mut self, id: NodeId, count: usize) -> Result<(), Violation> {
        let node = self.node_mut(id);
        let Some(eventual) = node.process.as_mut().and_then(|process| process.eventual.as_mut()) else {
            return Ok(());
        };
        if count == 0 {
            return Ok(());
        }
        let merges: Vec<Merge> = eventual.to_merge.drain(..count).collect();
        let runs: Vec<Run> = merges.iter().map(|merge| Run::clone(&merge.run)).collect();
        let changes = eventual.machine.apply(&runs, &node.data.current);
        node.data.write(changes.map_err(|error| broken(id, error))?.into());
        for merge in merges {
            if let Some(waiter) = merge.waiter {
                self.answer_write(id, waiter, &merge.run)?;
            }
        }
        self.review(id);
        Ok(())
    }

    pub(super) fn answer_write(&mut self, id: NodeId, waiter: Waiter, run: &Run) -> Result<(), Violation> {
        let Some(process) = self.process_mut(id) else { return Ok(()) };
        let Process { eventual: Some(eventual), peer, region, .. } = process else { return Ok(()) };
        eventual.unanswered = eventual.unanswered.saturating_sub(1);
        let Some(epoch) = service::answer(peer, region, run.era, waiter.epoch) else {
            self.reply(waiter.caller, Reply::InDoubt);
            return Ok(());
        };
        let mut vector = eventual.machine.state().applied.clone();
        vector.raise(run.origin, run.last());
        let seen = Some(SessionToken { namespace: NAMESPACE, era: run.era, vector });
        let hlc = run.entries.first().map(|entry| entry.hlc).unwrap_or_default();
        let version = rdb_core::version::Version { era: run.era, hlc, node: id };
        self.truth.answers(&self.nodes[place(id)], Answered { epoch, era: run.era, mode: Mode::Eventual })?;
        self.truth.acknowledge(waiter.op)?;
        self.totals.eventual_writes += 1;
        self.reply(waiter.caller, Reply::Done { version, seen });
        Ok(())
    }

    /// What a node says of itself to the others.
    pub(super) fn report(&self, id: NodeId) -> Option<Report> {
        let process = self.process(id)?;
        let eventual = process.eventual.as_ref()?;
        let passed = process.durable.passed();
        let passed = if takes(Shortcut::KeepsNoMark) { passed } else { passed.min(process.mark_synced) };
        Some(Report {
            era: eventual.logs.era(),
            synced: eventual.logs.synced_vector(),
            applied: eventual.claimed(),
            shown: eventual.machine.shown().clone(),
            promise: eventual.machine.promise(passed),
        })
    }

    /// Looks after what no event does: the clock, what can be settled, purged and dropped, and how far the others are.
    pub(super) fn upkeep(&mut self, id: NodeId, incarnation: u64) -> Result<(), Violation> {
        if self.node_mut(id).running(incarnation).is_none() {
            return Ok(());
        }
        self.advance_clock(id);
        self.look_at_frontier(id)?;
        self.settle_and_purge(id)?;
        self.give_up(id);
        self.truncate(id);
        self.clean_up_copy(id);
        self.look_at_lag(id)?;
        self.look_at_others(id)?;
        self.later(self.options.upkeep, Event::Upkeep { node: id, incarnation });
        Ok(())
    }

    /// So that an idle node's promise grows.
    fn advance_clock(&mut self, id: NodeId) {
        let now_ms = self.node(id).monotonic_ms(self.now);
        let Some(process) = self.process_mut(id).filter(|process| process.eventual.is_some()) else { return };
        if let Err(NoStamp::PersistFirst(mark)) = process.durable.stamp(now_ms) {
            let ops = if takes(Shortcut::KeepsNoMark) { Vec::new() } else { vec![Op::Mark(mark)] };
            self.write_later(id, Job::Origins { ops, then: Then::Mark(mark) });
        }
    }

    /// Tells how far all writes are everywhere.
    fn look_at_frontier(&mut self, id: NodeId) -> Result<(), Violation> {
        let Some(mine) = self.report(id) else { return Ok(()) };
        let Some(process) = self.process_mut(id) else { return Ok(()) };
        let Some(eventual) = &mut process.eventual else { return Ok(()) };
        // Of writes that are in no log any more the stamps are not known.
        let need_copy = eventual.peers.need_copy(&eventual.logs);
        let without_them = takes(Shortcut::PurgesWithoutGivenUp);
        if !need_copy.is_empty() && !without_them {
            return Ok(());
        }
        let peers = eventual.peers.reports().filter(|(node, ..)| !need_copy.contains(node));
        let peers = peers.map(|(_, report, _)| report);
        let told = lag::frontier(mine.era, std::iter::once(Some(&mine)).chain(peers), &eventual.stamps);
        let told = told.unwrap_or_default();
        if told <= eventual.frontiers.last().map(|(told, _)| *told).unwrap_or_default() {
            return Ok(());
        }
        eventual.frontiers.push((told, mine.applied));
        self.truth.frontier_told(mine.era, told, &self.nodes)
    }

    /// Up to where all may purge: no member objects. Nowhere while a switch is under way, as far as this node knows.
    fn purge_to(&self, id: NodeId) -> Hlc {
        let Some(process) = self.process(id) else { return Hlc(0) };
        let is_switching = process.peer.heard().is_none_or(|heard| heard.is_switching());
        let era = process.region.era();
        let need_copy = process.eventual.as_ref().map(|eventual| eventual.peers.need_copy(&eventual.logs));
        let need_copy = need_copy.unwrap_or_default();
        let without_them = takes(Shortcut::PurgesWithoutGivenUp);
        if !need_copy.is_empty() && !without_them {
            return Hlc(0);
        }
        let nodes = self.nodes.iter().filter(|node| !need_copy.contains(&node.id));
        let agreed = nodes.map(|node| if node.purgeable.0 == era { node.purgeable.1 } else { Hlc(0) });
        agreed.min().filter(|_| !is_switching).unwrap_or_default()
    }

    fn settle_and_purge(&mut self, id: NodeId) -> Result<(), Violation> {
        let purge_to = self.purge_to(id);
        let node = self.node_mut(id);
        let Some(eventual) = node.process.as_mut().and_then(|process| process.eventual.as_mut()) else {
            return Ok(());
        };
        let (era, applied) = (eventual.machine.state().era, eventual.claimed());
        let shown = eventual.machine.shown().clone();
        let mut need_copy = eventual.peers.need_copy(&eventual.logs);
        need_copy.retain(|_| takes(Shortcut::PurgesWithoutGivenUp));
        let members = eventual.peers.reports().filter(|(node, ..)| !need_copy.contains(node));
        let reports: Option<Vec<Report>> = members.map(|(_, report, _)| report.cloned()).collect();
        let reports = reports.filter(|reports| reports.iter().all(|report| report.era == era));
        let settled = reports.and_then(|reports| {
            let others = reports.iter().map(|report| (&report.shown, &report.applied));
            eventual.settling.look(std::iter::once((&shown, &applied)).chain(others))
        });
        if let Some(settled) = settled {
            let view = &node.data.current;
            let notes = view.notes(&lost_of_era(era), &lost_of_era(Era(era.0 + 1))).unwrap_or_default();
            let changes = eventual.machine.settle(&settled, notes, view);
            node.data.write(changes.map_err(|error| broken(id, error))?.into());
            eventual.settled = settled;
        }
        let (to, settled) = match takes(Shortcut::PurgesEarly) {
            true => (eventual.machine.state().highest, applied),
            false => (purge_to, eventual.settled.clone()),
        };
        let is_due = |stored: &[u8]| {
            record::decode(stored).is_ok_and(|record| record.value.is_none() && record.version.hlc <= to)
        };
        let found = node.data.current.records.iter().filter(|(_, stored)| is_due(stored));
        let found: Vec<_> = found.map(|(key, stored)| (key.clone(), stored.clone())).collect();
        if eventual.machine.state().purged < to
            && let Ok(changes) = eventual.machine.purge(to, &settled, &found, &node.data.current)
        {
            node.data.write(changes.into());
            self.totals.tombstones_purged += found.len() as u64;
        }
        Ok(())
    }

    fn truncate(&mut self, id: NodeId) {
        let node = self.node_mut(id);
        let flushed = node.data.flushed.clone();
        let Some(eventual) = node.process.as_mut().and_then(|process| process.eventual.as_mut()) else {
            return;
        };
        let era = eventual.logs.era();
        let flushed = flushed.eventual_of(era).map(|state| state.applied).unwrap_or_default();
        let stable = match takes(Shortcut::TruncatesUnstable) {
            true => eventual.logs.synced_vector(),
            false => eventual.peers.stable_for_truncation(&eventual.logs),
        };
        let dropped = eventual.logs.truncate(&stable, &flushed);
        if dropped.is_empty() {
            return;
        }
        let mut ops = Vec::new();
        for (origin, to) in dropped {
            eventual.kept.retain(|(of, last), _| *of != origin || to < *last);
            ops.push(Op::Drop(era, origin, to));
        }
        self.totals.truncations += 1;
        self.write_later(id, Job::Origins { ops, then: Then::Nothing });
    }

    /// What a node tells of the lag, against the truth.
    fn look_at_lag(&mut self, id: NodeId) -> Result<(), Violation> {
        let now_ms = self.node(id).monotonic_ms(self.now);
        if let Some(eventual) = self.process_mut(id).and_then(|process| process.eventual.as_mut()) {
            let (claimed, era) = (eventual.claimed(), eventual.logs.era());
            eventual.stamps.forget(&eventual.peers.applied_everywhere(&claimed, era));
        }
        let Some(process) = self.process(id) else { return Ok(()) };
        let Some(eventual) = &process.eventual else { return Ok(()) };
        let synced = eventual.logs.synced_vector();
        let now = Now {
            era: eventual.logs.era(),
            synced: &synced,
            monotonic_ms: now_ms,
            physical_ms: process.durable.physical_ms(now_ms),
        };
        let told = lag::lag(now, eventual.peers.reports(), &eventual.stamps);
        let is_known = eventual.peers.need_copy(&eventual.logs).is_empty();
        let told = lag::Lag { known: told.known && is_known, ..told };
        super::invariants::lag_is_honest(self, id, now, told)?;
        let others = self.nodes.iter().flat_map(|node| &node.process).flat_map(|process| &process.eventual);
        let others = others.filter(|other| other.logs.era() == eventual.logs.era());
        let has_dropped = |lacks: &(Origin, Seq, Seq)| lacks.1 < eventual.logs.dropped(lacks.0);
        // Whom the switch out of the era went on without gets no runs any more, but a snapshot: the members that are in the next
        // one have forgotten this one's logs (seed 956).
        let others = others.filter(|other| !self.truth.is_excluded(other.logs.me().node, now.era));
        // Where there is a cap, some are given up, and who that was is forgotten at a crash.
        let others = others.filter(|_| self.options.log_cap == u64::MAX);
        // Who came into the era by a snapshot has never had the runs: then another one must.
        let is_gone = |(origin, has, _): &(Origin, Seq, Seq)| {
            let keeps =
                |(held, _): &(Held, Bytes)| held.origin == *origin && held.after <= *has && *has < held.last;
            !self.nodes.iter().any(|node| node.origins.synced().runs_of(now.era).any(keeps))
        };
        let lacking = others
            .map(|other| {
                other.logs.synced_vector().behind(&synced).filter(has_dropped).find(|lacks| is_gone(lacks))
            })
            .find_map(|lacks| lacks);
        self.totals.lags_known += u64::from(told.known);
        self.totals.lags_unknown += u64::from(!told.known);
        holds("logs keep what members need", lacking.is_none(), || {
            format!("node {id} has dropped what another has not got, and nobody has it: {lacking:?}")
        })
    }
}

impl Node {
    /// Its data was flushed: what it has brought to safety by that needs no tombstone here any more.
    pub(super) fn note_purgeable(&mut self) {
        let Some(eventual) = self.process.as_mut().and_then(|process| process.eventual.as_mut()) else {
            return;
        };
        let era = eventual.logs.era();
        let Some(flushed) = self.data.flushed.eventual_of(era) else { return };
        let notes = self.data.flushed.notes(&lost_of_era(era), &lost_of_era(Era(era.0 + 1)));
        let notes = notes.unwrap_or_default().into_iter().filter_map(|(_, note)| Lost::decode(&note).ok());
        let unsettled = notes.filter(|lost| !lost.settled).map(|lost| Hlc(lost.hlc.0 - 1)).min();
        let covered = eventual.frontiers.iter().filter(|(_, applied)| flushed.applied.covers(applied));
        let covered = covered.map(|(told, _)| *told).max().unwrap_or_default();
        self.purgeable = self.purgeable.max((era, covered.min(unsettled.unwrap_or(Hlc(u64::MAX)))));
    }
}

/// A stamp above all that this node has given out or seen, and the mark that must go to disk with the write.
fn take_stamp(process: &mut Process, now_ms: u64) -> Result<(Hlc, Option<Hlc>), NoStamp> {
    let mut mark = process.durable.mark_to_persist(now_ms);
    mark.iter().for_each(|mark| process.durable.persisted(*mark));
    loop {
        match process.durable.stamp(now_ms) {
            Err(NoStamp::PersistFirst(wanted)) => {
                process.durable.persisted(wanted);
                mark = Some(wanted);
            }
            other => return other.map(|stamp| (stamp, mark)),
        }
    }
}

//! A turn of a node's raft loop: what came in goes to the groups, and what they want is done.

use super::World;
use super::node::{Input, Job, Process, Replica, Report};
use super::snapshots::{data_replaced, finish_install, snapshot_arrived};
use super::truncate::{propose_truncation, shorten};
use crate::clients::{Caller, Reading, Reply};
use crate::disks::data::DataDisk;
use crate::disks::log::Batch;
use crate::event::Event;
use crate::invariants::{Violation, holds};
use crate::options::{Micros, Snapshots};
use crate::snapshot::Sender;
use rand::RngExt as _;
use rdb_core::apply::Committed;
use rdb_core::ids::{NodeId, RegionId};
use rdb_core::raft::disk::decode_entry;
use rdb_core::raft::{Apply, Effects, Failure, LogWrite, Rejected};
use rdb_core::version::Hlc;
use rdb_pd::Catalog;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What came of a turn's inputs.
#[derive(Default)]
struct Heard {
    /// Regions whose groups may have something to do.
    touched: BTreeSet<RegionId>,
    /// Writes and reads that a group refused at once.
    refused: Vec<(Caller, Failure)>,
    /// What became of snapshots that others sent.
    outcomes: Vec<(Sender, bool)>,
    /// Regions whose logs are made, and the catalog that came last.
    created: Vec<RegionId>,
    catalog: Option<Arc<Catalog>>,
    /// Whether a snapshot is taken in. Should its namespace be gone by now, the region was kept until here.
    installed: bool,
    /// Whether this is the time to look what deletions still need.
    looks: bool,
}

impl World {
    /// Tells a node's raft loop of something, and wakes it.
    pub(super) fn input(&mut self, node: NodeId, input: Input) {
        let (least, most) = self.options.turn;
        let incarnation = self.node(node).incarnation;
        let Some(process) = self.node_mut(node).process.as_mut() else { return };
        process.inbox.push_back(input);
        if !std::mem::replace(&mut process.turn_due, true) {
            let at = self.now + self.rng.random_range(least..most);
            self.queue.push(at, Event::Turn { node, incarnation });
        }
    }

    pub(super) fn turn(&mut self, id: NodeId, incarnation: u64) -> Result<(), Violation> {
        let now = self.now;
        let limits = self.options.snapshots.clone();
        let node = self.node_mut(id);
        let wall_ms = node.wall.now_ms(now);
        let (data, Some(process)) = (&node.data, &mut node.process) else { return Ok(()) };
        if node.incarnation != incarnation {
            return Ok(());
        }
        process.turn_due = false;
        let stamp = process.clock.stamp(wall_ms);
        let heard = listen(process, data, &limits, now)?;
        let Heard { mut touched, refused, outcomes, created, catalog, installed, looks } = heard;
        let known = process.lives.as_ref().filter(|_| installed).map(|lives| lives.catalog.clone());
        for (caller, failure) in refused {
            self.reply(caller, Reply::Failed(failure));
        }
        for (sender, taken) in outcomes {
            self.snapshot_outcome_later(id, sender, taken);
        }
        touched.extend(self.live_on(id, &created, catalog.or(known), looks)?);
        for region in touched {
            if !self.has_replica(id, region) {
                continue;
            }
            self.close_here(id, region);
            self.take_effects(id, region, stamp)?;
            self.look_at_leader(id, region)?;
        }
        self.start_sync(id);
        Ok(())
    }

    fn take_effects(&mut self, id: NodeId, region: RegionId, stamp: Hlc) -> Result<(), Violation> {
        // While a snapshot is taken in, later writes must not overtake the one that starts the log anew.
        while !self.replica_mut(id, region).group.is_installing() {
            let Some(effects) = self.replica_mut(id, region).group.take_effects(stamp) else {
                if let Some(useless) = self.replica_mut(id, region).arrived.take() {
                    self.snapshot_outcome_later(id, useless.sender, false);
                }
                break;
            };
            self.handle(id, region, effects)?;
        }
        Ok(())
    }

    fn look_at_leader(&mut self, id: NodeId, region: RegionId) -> Result<(), Violation> {
        let group = &self.replica_mut(id, region).group;
        if !group.is_leader() {
            return Ok(());
        }
        let term = group.status().term;
        self.invariants.one_leader.leads(region, term, id)
    }

    /// Does what a group wants, in the order of its fields.
    fn handle(
        &mut self,
        id: NodeId,
        region: RegionId,
        effects: Effects<Caller, Reading>,
    ) -> Result<(), Violation> {
        let Effects { send, write, apply, reads, fetch, snapshots, failed_writes, failed_reads } = effects;
        self.send(id, region, send)?;
        if let Some(write) = write {
            self.write_later(id, region, write)?;
        }
        if let Some(apply) = apply {
            self.apply_later(id, region, apply)?;
        }
        for reading in reads {
            let found = self.node(id).data.of(region).read(&reading.key);
            let found = found.map_err(|what| Violation { invariant: "records can be read", what })?;
            self.reply(reading.caller, Reply::Read(found));
        }
        for fetch in fetch {
            self.totals.fetches += 1;
            let (least, most) = self.options.fetch;
            let at = self.now + self.rng.random_range(least..most);
            let incarnation = self.node(id).incarnation;
            self.queue.push(at, Event::Fetched { node: id, incarnation, region, fetch: Box::new(fetch) });
        }
        for wanted in snapshots {
            self.send_snapshot(id, region, wanted);
        }
        for (caller, failure) in failed_writes {
            self.reply(caller, Reply::Failed(failure));
        }
        for (reading, failure) in failed_reads {
            self.reply(reading.caller, Reply::Failed(failure));
        }
        Ok(())
    }

    fn write_later(&mut self, id: NodeId, region: RegionId, write: LogWrite) -> Result<(), Violation> {
        self.matches_other_logs(id, region, &write)?;
        if write.snapshot.is_some() {
            return self.begin_install(id, region, write);
        }
        let report = Report::Persisted(write.number);
        self.hand_to_writer(id, region, write, report);
        Ok(())
    }

    pub(super) fn hand_to_writer(
        &mut self,
        id: NodeId,
        region: RegionId,
        mut write: LogWrite,
        report: Report,
    ) {
        let batch = Batch::of_write(region, &mut write);
        let LogWrite { sync, then_send, .. } = write;
        let job = Job { region, batch, sync, report, then_send };
        if let Some(process) = &mut self.node_mut(id).process {
            process.writer.waiting.push(job);
        }
    }

    fn matches_other_logs(
        &mut self,
        id: NodeId,
        region: RegionId,
        write: &LogWrite,
    ) -> Result<(), Violation> {
        if let Some(place) = write.snapshot {
            self.replica_mut(id, region).terms = BTreeMap::from([(place.index, place.term)]);
        }
        let Some((first, _)) = write.entries.first() else { return Ok(()) };
        // A lone node tells nobody of its term before that is synced: after a crash it may begin the same term again.
        if self.options.nodes == 1 {
            return Ok(());
        }
        let mut terms = std::mem::take(&mut self.replica_mut(id, region).terms);
        terms.split_off(first);
        for (index, encoded) in &write.entries {
            let decoded = decode_entry(*index, encoded);
            let term = decoded
                .map_err(|error| Violation { invariant: "entries can be read", what: error.to_string() })?;
            if let Some(before) = terms.get(&(index - 1)) {
                self.invariants.log_matching.appended(region, *index, term.term, *before, encoded)?;
            }
            terms.insert(*index, term.term);
        }
        self.replica_mut(id, region).terms = terms;
        Ok(())
    }

    fn apply_later(&mut self, id: NodeId, region: RegionId, apply: Apply<Caller>) -> Result<(), Violation> {
        for entry in &apply.entries {
            if self.invariants.committed.delivered(region, id, entry)? {
                self.first_commit(region, entry)?;
            }
        }
        self.replica_mut(id, region).tasks.push_back(apply);
        self.start_apply(id, region);
        Ok(())
    }

    /// An entry is known to be committed for the first time: the model applies it.
    fn first_commit(&mut self, region: RegionId, entry: &Committed) -> Result<(), Violation> {
        self.totals.entries += 1;
        let (changes, answers) = self.invariants.applied.model(region, entry)?;
        self.first_commit_of_lives(region, entry, &answers)?;
        if region == RegionId::META {
            return Ok(());
        }
        self.invariants.versions.changed(region, entry.index, &changes)?;
        self.invariants.once.executed(region, entry, &answers)
    }
}

/// Gives all that came in to the groups.
fn listen(
    process: &mut Process,
    data: &DataDisk,
    limits: &Snapshots,
    now: Micros,
) -> Result<Heard, Violation> {
    let mut heard = Heard::default();
    for input in std::mem::take(&mut process.inbox) {
        let region = match &input {
            Input::Tick => {
                process.replicas.values_mut().for_each(|replica| replica.group.tick());
                heard.touched.extend(process.replicas.keys());
                continue;
            }
            Input::Catalog(catalog) => {
                heard.catalog = Some(catalog.clone());
                continue;
            }
            Input::Created(region) => {
                heard.created.push(*region);
                continue;
            }
            Input::Message(region, _)
            | Input::Persisted(region, _)
            | Input::Applied(region, _, _)
            | Input::Fetched(region, _, _)
            | Input::Propose(region, _, _)
            | Input::Read(region, _)
            | Input::Unreachable(region, _)
            | Input::Transfer(region, _)
            | Input::Replaced(region, ..)
            | Input::SnapshotSent(region, ..)
            | Input::Shorten(region) => *region,
            Input::Snapshot(parcel) => parcel.region,
        };
        heard.touched.insert(region);
        let Some(replica) = process.replicas.get_mut(&region) else {
            refuse(input, &mut heard);
            continue;
        };
        match input {
            Input::Shorten(_) => {
                let silence = |node| match process.heard.get(&node) {
                    _ if node == process.node => Some(0),
                    heard => heard.map(|heard| now - heard),
                };
                propose_truncation(replica, limits, silence);
                process.writer.waiting.extend(shorten(replica, data));
                heard.looks = true;
            }
            input => tell(replica, input, &mut heard)?,
        }
    }
    Ok(heard)
}

fn tell(replica: &mut Replica, input: Input, heard: &mut Heard) -> Result<(), Violation> {
    let group = &mut replica.group;
    let Heard { refused, outcomes, catalog, looks, installed, .. } = heard;
    match input {
        Input::Message(_, message) => honest(group.step(*message))?,
        Input::Persisted(_, number) => {
            group.persisted(number);
            if let Some(taken) = finish_install(replica, number, catalog)? {
                outcomes.push(taken);
                *installed = true;
            }
        }
        Input::Applied(_, index, closed) => {
            if closed {
                group.close();
                *looks = true;
            }
            group.applied(index);
        }
        Input::Fetched(_, fetch, entries) => {
            let fetch = *fetch;
            group.fetched(fetch.low, entries, fetch.context);
        }
        Input::Propose(_, commands, caller) => refused.extend(group.propose(commands, caller).err()),
        Input::Read(_, reading) => {
            refused.extend(group.read(reading).err().map(|(reading, failure)| (reading.caller, failure)));
        }
        Input::Unreachable(_, peer) => group.unreachable(peer),
        Input::Transfer(_, peer) => group.transfer_leader(peer),
        Input::Snapshot(parcel) => outcomes.extend(snapshot_arrived(replica, parcel)?),
        Input::Replaced(_, number, machine) => data_replaced(replica, number, machine),
        Input::SnapshotSent(_, peer, taken) => {
            replica.sending.remove(&peer);
            group.snapshot_sent(peer, taken);
        }
        Input::Tick | Input::Shorten(_) | Input::Catalog(_) | Input::Created(_) => {}
    }
    Ok(())
}

/// The region is not here: not yet, or no longer. Who waits is told so; all else comes again, or is of no use.
fn refuse(input: Input, heard: &mut Heard) {
    let failure = Failure::NotLeader { leader: None };
    match input {
        Input::Propose(_, _, caller) => heard.refused.push((caller, failure)),
        Input::Read(_, reading) => heard.refused.push((reading.caller, failure)),
        Input::Snapshot(parcel) => heard.outcomes.push((parcel.sender, false)),
        _ => {}
    }
}

/// All peers here are honest: a message that cannot come from an honest one is refused wrongly, or shows lost data.
pub(super) fn honest(stepped: Result<(), Rejected>) -> Result<(), Violation> {
    match stepped {
        Ok(()) | Err(Rejected::Stale | Rejected::Raft(_)) => Ok(()),
        Err(rejected) => holds("honest messages are accepted", false, || rejected.to_string()),
    }
}

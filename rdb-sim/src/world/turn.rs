//! A turn of a node's raft loop: what came in goes to the groups, and what they want is done.

use super::World;
use super::node::{Input, Installing, Job, Process, Replica, Report};
use crate::clients::{Caller, Reading, Reply};
use crate::disks::data::DataDisk;
use crate::disks::log::Batch;
use crate::event::Event;
use crate::invariants::{Violation, holds};
use crate::options::{Micros, Snapshots};
use crate::snapshot::Sender;
use rand::RngExt as _;
use rdb_core::apply::Committed;
use rdb_core::ids::{Index, NodeId, RegionId};
use rdb_core::raft::disk::decode_entry;
use rdb_core::raft::{Apply, Effects, Failure, LogWrite, Rejected, truncation_target};
use rdb_core::version::Hlc;
use std::collections::{BTreeMap, BTreeSet};

/// What came of a turn's inputs.
#[derive(Default)]
struct Heard {
    /// Regions whose groups may have something to do.
    touched: BTreeSet<RegionId>,
    /// Writes and reads that a group refused at once.
    refused: Vec<(Caller, Failure)>,
    /// What became of snapshots that others sent.
    outcomes: Vec<(Sender, bool)>,
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
        let Heard { touched, refused, outcomes } = listen(process, data, &limits, now)?;
        for (caller, failure) in refused {
            self.reply(caller, Reply::Failed(failure));
        }
        for (sender, taken) in outcomes {
            self.snapshot_outcome_later(id, sender, taken);
        }
        for region in touched {
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
            let found = self.node(id).data[&region].current().read(&reading.key);
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
        self.invariants.versions.changed(region, entry.index, &changes)?;
        self.invariants.once.executed(region, entry, &answers)
    }
}

/// Gives all that came in to the groups.
fn listen(
    process: &mut Process,
    data: &BTreeMap<RegionId, DataDisk>,
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
            Input::Message(region, _)
            | Input::Persisted(region, _)
            | Input::Applied(region, _)
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
        let Some(replica) = process.replicas.get_mut(&region) else { continue };
        match input {
            Input::Shorten(_) => {
                let silence = |node| match process.heard.get(&node) {
                    _ if node == process.node => Some(0),
                    heard => heard.map(|heard| now - heard),
                };
                propose_truncation(replica, limits, silence);
                process.writer.waiting.extend(shorten(replica, &data[&region]));
            }
            input => tell(replica, input, &mut heard)?,
        }
    }
    Ok(heard)
}

fn tell(replica: &mut Replica, input: Input, heard: &mut Heard) -> Result<(), Violation> {
    let group = &mut replica.group;
    let Heard { refused, outcomes, .. } = heard;
    match input {
        Input::Message(_, message) => honest(group.step(*message))?,
        Input::Persisted(_, number) => {
            group.persisted(number);
            outcomes.extend(finish_install(replica, number)?.map(|sender| (sender, true)));
        }
        Input::Applied(_, index) => group.applied(index),
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
        Input::Snapshot(parcel) => match group.step_snapshot(parcel.message.clone()) {
            // The next effects say whether it is wanted.
            Ok(()) => {
                let before = replica.arrived.replace(parcel);
                outcomes.extend(before.map(|before| (before.sender, false)));
            }
            Err(rejected) => {
                outcomes.push((parcel.sender, false));
                honest(Err(rejected))?;
            }
        },
        Input::Replaced(_, number, machine) => {
            if let Some(installing) = replica.installing.as_mut().filter(|now| now.number == number) {
                installing.machine = Some(machine);
            }
        }
        Input::SnapshotSent(_, peer, taken) => {
            replica.sending.remove(&peer);
            group.snapshot_sent(peer, taken);
        }
        Input::Tick | Input::Shorten(_) => {}
    }
    Ok(())
}

/// All peers here are honest: a message that cannot come from an honest one is refused wrongly, or shows lost data.
fn honest(stepped: Result<(), Rejected>) -> Result<(), Violation> {
    match stepped {
        Ok(()) | Err(Rejected::Stale | Rejected::Raft(_)) => Ok(()),
        Err(rejected) => holds("honest messages are accepted", false, || rejected.to_string()),
    }
}

/// The log has followed a snapshot: the replica goes on from there. Returns who waits for the news.
fn finish_install(replica: &mut Replica, number: u64) -> Result<Option<Sender>, Violation> {
    let Some(done) = replica.installing.take_if(|now| now.number == number) else { return Ok(None) };
    let Installing { sender, machine: Some(machine), .. } = done else {
        return Err(Violation {
            invariant: "the log follows the data",
            what: format!("region {}: it has begun anew before", replica.group.region()),
        });
    };
    replica.machine = *machine;
    replica.group.installed();
    Ok(Some(sender))
}

/// A leader lets everyone drop what nobody is likely to need.
fn propose_truncation(replica: &mut Replica, limits: &Snapshots, silence: impl Fn(NodeId) -> Option<Micros>) {
    if !replica.group.is_leader() {
        return;
    }
    let target = droppable(replica, limits, silence).saturating_sub(limits.keep_entries);
    if replica.machine.state().truncate_to + limits.keep_entries / 4 < target {
        replica.group.propose_truncation(target);
    }
}

/// A member that answers may catch up from a log so many times as long as one that does not.
const LOG_BYTES_FACTOR_ACTIVE: u64 = 4;

/// What all members have confirmed, unless that is too far back for one that is away. Never past what the receiver of a
/// snapshot will need. As a node has it.
fn droppable(replica: &Replica, limits: &Snapshots, silence: impl Fn(NodeId) -> Option<Micros>) -> Index {
    let status = replica.group.status();
    let bytes = replica.group.log_bytes();
    let needed = status.members.iter().filter_map(|(node, confirmed, active)| {
        let too_long = |absence_max| silence(*node).is_none_or(|silence| absence_max < silence);
        let away = limits.absence_max.is_some_and(too_long);
        let factor = if *active { LOG_BYTES_FACTOR_ACTIVE } else { 1 };
        let bytes_max = limits.log_bytes_max.saturating_mul(factor);
        let kept_for = !away && bytes <= bytes_max || *confirmed == status.applied;
        kept_for.then_some(*confirmed)
    });
    let needed = needed.chain(replica.sending.values().copied());
    needed.min().unwrap_or(status.applied).min(status.applied)
}

/// Drops what the region's state allows and this replica has brought to safety.
fn shorten(replica: &mut Replica, data: &DataDisk) -> Option<Job> {
    let state = data.current().state().ok()?;
    let group = &mut replica.group;
    let (_, terms) = group.truncate(truncation_target(state.truncate_to, data.durable_applied()))?;
    let region = group.region();
    let batch = Batch::of_truncation(region, group.first_index(), terms);
    Some(Job { region, batch, sync: false, report: Report::Shortened, then_send: Vec::new() })
}

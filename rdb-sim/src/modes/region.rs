//! The region's log on one node: its group's turns, the puts and markers in it, and how a marker puts the region into another
//! era.

use super::clients::{Reply, operation_of};
use super::data::Batch as Data;
use super::event::Event;
use super::node::{After, Asked, Heard, Input, Job, Reading, Then};
use super::origins::Op;
use super::planted::{Shortcut, takes};
use super::truth::Answered;
use super::world::{LOG, World, place};
use crate::clients::{Caller, NOBODY};
use crate::disks::log::Batch;
use crate::invariants::Violation;
use rand::RngExt as _;
use rdb_core::apply::{self, Answer, Committed};
use rdb_core::codec::Corrupt;
use rdb_core::command::Payload;
use rdb_core::ids::{Epoch, Era, NodeId};
use rdb_core::raft::{Apply, Effects, Failure, LogWrite};
use rdb_core::switch::service::read_stands;
use rdb_core::switch::{Marker, Mode, Verdict};
use rdb_core::version::Hlc;

impl World {
    /// Tells a node's raft loop of something, and wakes it.
    pub(super) fn input(&mut self, id: NodeId, input: Input) {
        let incarnation = self.node(id).incarnation;
        let Some(process) = self.process_mut(id) else { return };
        process.inbox.push_back(input);
        if !std::mem::replace(&mut process.turn_due, true) {
            self.later(self.options.turn, Event::Turn { node: id, incarnation });
        }
    }

    pub(super) fn turn(&mut self, id: NodeId, incarnation: u64) -> Result<(), Violation> {
        let wall_ms = self.node(id).wall.now_ms(self.now);
        let Some(process) = self.node_mut(id).running(incarnation) else { return Ok(()) };
        process.turn_due = false;
        let stamp = process.clock.stamp(wall_ms);
        let Heard { refused, useless, installed, shortens } = process.listen();
        for (caller, failure) in refused {
            self.fail(caller, failure);
        }
        useless.iter().for_each(|snapshot| self.tell_sender(id, snapshot, false));
        installed.into_iter().try_for_each(|installed| self.installed(id, installed))?;
        if shortens {
            self.shorten(id);
        }
        self.propose_marker(id);
        self.take_effects(id, stamp)
    }

    fn take_effects(&mut self, id: NodeId, stamp: Hlc) -> Result<(), Violation> {
        let writes_max = self.options.writes_in_flight_max;
        while let Some(process) = self.process_mut(id) {
            // While a snapshot is taken in, later writes must not overtake the one that begins the log anew.
            if writes_max <= process.writer.raft_writes() || process.group.is_installing() {
                self.tell_who_waits_in_vain(id);
                break;
            }
            let Some(effects) = process.group.take_effects(stamp) else {
                if let Some(useless) = process.arrived.take() {
                    self.tell_sender(id, &useless, false);
                }
                break;
            };
            self.handle(id, effects)?;
        }
        Ok(())
    }

    fn propose_marker(&mut self, id: NodeId) {
        let Some(process) = self.process_mut(id) else { return };
        let Some(marker) = process.due_marker() else { return };
        process.lease.marks(process.group.status().term);
        process.group.propose_marker(&marker);
        self.aim_at(id, self.options.sync.1 + self.options.network.delay.1);
    }

    /// The group can hand out nothing that adds a write.
    fn tell_who_waits_in_vain(&mut self, id: NodeId) {
        let Some(process) = self.process_mut(id) else { return };
        let (writes, reads) = process.group.take_failures();
        writes.into_iter().for_each(|(asked, failure)| self.fail(asked.caller, failure));
        reads.into_iter().for_each(|(reading, failure)| self.fail(reading.caller, failure));
    }

    /// Does what the group wants, in the order of its fields.
    fn handle(&mut self, id: NodeId, effects: Effects<Asked, Reading>) -> Result<(), Violation> {
        let Effects { send, write, apply, reads, fetch, snapshots, failed_writes, failed_reads } = effects;
        self.send_raft(id, send);
        if let Some(mut write) = write {
            if write.snapshot.is_some() {
                self.begin_install(id, write)?;
            } else {
                let batch = Batch::of_write(LOG, &mut write);
                let LogWrite { number, then_send, .. } = write;
                self.write_later(id, Job::Raft { batch, after: After::Persisted(number), then_send });
            }
        }
        if let Some(Apply { entries, waiters }) = apply
            && let Some(process) = self.process_mut(id)
        {
            process.committed.extend(entries);
            process.waiters.extend(waiters);
            self.start_apply(id);
        }
        for reading in reads {
            self.round_confirmed(id, &reading);
            if reading.caller.client != NOBODY {
                self.answer_read(id, &reading)?;
            }
        }
        for fetch in fetch {
            let (node, incarnation) = (id, self.node(id).incarnation);
            self.later(self.options.fetch, Event::Fetched { node, incarnation, fetch: Box::new(fetch) });
        }
        for wanted in snapshots {
            self.send_snapshot(id, wanted);
        }
        for (asked, failure) in failed_writes {
            self.fail(asked.caller, failure);
        }
        for (reading, failure) in failed_reads {
            self.fail(reading.caller, failure);
        }
        Ok(())
    }

    /// Tells a caller that its write or read failed, and whether it may have happened.
    fn fail(&mut self, caller: Caller, failure: Failure) {
        let reply = match failure {
            Failure::LeaderLost => Reply::InDoubt,
            Failure::NotLeader { leader } => Reply::NotDone { leader },
            _ => Reply::NotDone { leader: None },
        };
        self.reply(caller, reply);
    }

    pub(super) fn answer_read(&mut self, id: NodeId, reading: &Reading) -> Result<(), Violation> {
        let Some(process) = self.process(id) else { return Ok(()) };
        // What it waited for may have been the marker.
        if !process.answers() || !read_stands(&process.region, reading.era) {
            self.totals.reads_refused += 1;
            self.reply(reading.caller, Reply::NotDone { leader: None });
            return Ok(());
        }
        let (epoch, era, mode) = (process.peer.epoch(), process.region.era(), process.region.mode());
        self.answers_strongly(id, epoch, era)?;
        self.truth.strong_read(&self.nodes[place(id)], reading, (era, mode))?;
        let found = self.node(id).data.current.read(&reading.key);
        self.totals.strong_reads += 1;
        self.reply(reading.caller, Reply::Found { found, era });
        Ok(())
    }

    /// A node answers something strong.
    fn answers_strongly(&mut self, id: NodeId, epoch: Epoch, era: Era) -> Result<(), Violation> {
        if self.truth.strong_served < Some(era) {
            self.all_hold_the_base(era)?;
        }
        self.truth.answers(&self.nodes[place(id)], Answered { epoch, era, mode: Mode::Strong })
    }

    /// The applier takes up work, unless it is busy, or has come to a marker that this replica cannot apply yet, or never.
    pub(super) fn start_apply(&mut self, id: NodeId) {
        let incarnation = self.node(id).incarnation;
        if self.is_stuck(id) {
            return;
        }
        let Some(process) = self.process_mut(id) else { return };
        if process.committed.is_empty()
            || process.installing.is_some()
            || std::mem::replace(&mut process.applying, true)
        {
            return;
        }
        self.later(self.options.apply, Event::Applied { node: id, incarnation });
    }

    pub(super) fn applied(&mut self, id: NodeId, incarnation: u64) -> Result<(), Violation> {
        let Some(process) = self.node_mut(id).running(incarnation) else { return Ok(()) };
        process.applying = false;
        if process.installing.is_some() || process.committed.is_empty() {
            return Ok(());
        }
        let waiting = process.committed.len();
        let count = self.rng.random_range(1..=waiting);
        self.apply_next(id, count)?;
        let index = self.process(id).map_or(0, |process| process.strong.state().applied);
        self.input(id, Input::Applied(index));
        self.start_apply(id);
        Ok(())
    }

    /// What the marker that this replica has come to does to it; `None` if it has come to something else.
    pub(super) fn verdict(&self, id: NodeId) -> Option<Verdict> {
        let process = self.process(id)?;
        let first = process.committed.front().map(std::slice::from_ref)?;
        let (_, marker) = process.strong.due_marker(first).ok()??;
        let synced = process.eventual.as_ref().map(|eventual| eventual.logs.synced_vector());
        Some(process.region.judge(id, &marker, &synced.unwrap_or_default()))
    }

    fn is_stuck(&self, id: NodeId) -> bool {
        matches!(self.verdict(id), Some(Verdict::Await | Verdict::Replace))
    }

    /// Applies the next `count` entries, or as many as can be: those in front of a marker as one, then the marker.
    fn apply_next(&mut self, id: NodeId, mut count: usize) -> Result<(), Violation> {
        let cannot = |what| Violation { invariant: "every entry can be applied", what };
        while 0 < count {
            let Some(process) = self.process_mut(id) else { return Ok(()) };
            let next = &process.committed.make_contiguous()[..count];
            let due = process.strong.due_marker(next);
            let due = due.map_err(|(index, error)| cannot(format!("entry {index}: {error}")))?;
            match due {
                Some((0, marker)) => {
                    let verdict = self.verdict(id);
                    if !matches!(verdict, Some(Verdict::ToStrong | Verdict::ToEventual)) {
                        return Ok(());
                    }
                    self.enter(id, &marker)?;
                    count -= 1;
                }
                due => {
                    let run = due.map_or(count, |(place, _)| place);
                    self.apply_run(id, run)?;
                    count -= run;
                }
            }
        }
        Ok(())
    }

    /// Applies entries that leave the region in its era, and answers those who wait for them.
    fn apply_run(&mut self, id: NodeId, count: usize) -> Result<(), Violation> {
        let cannot = |what: String| Violation { invariant: "every entry can be applied", what };
        let node = self.node_mut(id);
        let Some(process) = &mut node.process else { return Ok(()) };
        let entries: Vec<Committed> = process.committed.drain(..count).collect();
        let applied = process.strong.apply(&entries, &node.data.current);
        let apply::Applied { changes, answers } = applied.map_err(|error| cannot(error.to_string()))?;
        node.data.write(changes.into());
        for (entry, answers) in entries.iter().zip(&answers) {
            let ops = operations(entry).map_err(|error| cannot(error.to_string()))?;
            for (place, (op, answer)) in ops.iter().zip(answers).enumerate() {
                self.truth.put_applied(id, (entry.index, place), *op, answer)?;
            }
            let process = self.process_mut(id);
            let waiters = process.and_then(|process| process.waiters.remove(&entry.index));
            // Clients here send one command at a time.
            let waiters = waiters.into_iter().flatten().map(|(asked, _)| asked);
            for (asked, (op, answer)) in waiters.zip(ops.iter().zip(answers)) {
                self.answer_put(id, asked, *op, answer)?;
            }
        }
        Ok(())
    }

    fn answer_put(&mut self, id: NodeId, asked: Asked, op: u64, answer: &Answer) -> Result<(), Violation> {
        let Some(process) = self.process(id) else { return Ok(()) };
        let (epoch, era) = (process.peer.epoch(), process.region.era());
        let reply = match answer {
            Answer::Done(version) => {
                self.totals.strong_writes += 1;
                self.answers_strongly(id, epoch, era)?;
                self.truth.done_where_asked(op, *version, asked.era)?;
                self.truth.acknowledge(op)?;
                Reply::Done { version: *version, seen: None }
            }
            Answer::Mismatch { version, found } => {
                Reply::Mismatch { version: *version, found: found.clone(), era }
            }
            _ => Reply::NotDone { leader: None },
        };
        self.reply(asked.caller, reply);
        Ok(())
    }

    /// The marker at the head of what is committed puts the region into the next era.
    fn enter(&mut self, id: NodeId, marker: &Marker) -> Result<(), Violation> {
        // All that is synced is within the cut, and belongs to the base.
        self.merge_all(id)?;
        let node = self.node_mut(id);
        let Some(process) = &mut node.process else { return Ok(()) };
        let Some(entry) = process.committed.pop_front() else { return Ok(()) };
        let before = node.data.current.eventual().ok().flatten();
        let ends = process.eventual.as_ref().map(|eventual| eventual.machine.state().highest);
        let changes = process.strong.enter(&entry, marker, ends.unwrap_or_default(), before.as_ref());
        process.region = process.strong.mode().clone();
        process.clock.saw(process.strong.state().highest);
        let region = process.region.clone();
        let mut batch = Data::from(changes);
        // Its mode, and that the marker is applied, are written at once: a start must not find one without the other.
        if takes(Shortcut::WritesModeApart) {
            node.data.write(Data { strong: batch.strong.take(), ..Data::default() });
        }
        node.data.write(batch);
        self.truth.marker_applied(marker, entry.index)?;
        self.truth.begins_with_the_base(&self.nodes[place(id)], marker.era)?;
        self.input(id, Input::Entered(region));
        self.entered(id)
    }

    /// The region is in another era, by a marker or a snapshot: what belonged to the one before is over.
    pub(super) fn entered(&mut self, id: NodeId) -> Result<(), Violation> {
        let node = self.node_mut(id);
        let Some(process) = &mut node.process else { return Ok(()) };
        let (era, index) = (process.region.era(), process.strong.state().applied);
        let left = process.eventual.take();
        process.peer.era_changed(&process.region);
        let waiters = left.into_iter().flat_map(|left| left.to_merge).filter_map(|merge| merge.waiter);
        for waiter in waiters {
            self.reply(waiter.caller, Reply::InDoubt);
        }
        self.open_eventual(id)?;
        self.truth.entered(&self.nodes[place(id)], era)?;
        self.totals.eras_entered += 1;
        let ops = vec![Op::Note(era, index)];
        self.write_later(id, Job::Origins { ops, then: Then::Note(era) });
        self.aim_at(id, 2 * self.options.sync.1 + self.options.apply.1);
        self.review(id);
        Ok(())
    }
}

/// Which operation each command of an entry is.
fn operations(entry: &Committed) -> Result<Vec<u64>, Corrupt> {
    let Payload::Keys { commands, .. } = Payload::decode(&entry.data)? else { return Ok(Vec::new()) };
    commands.map(|command| Ok(operation_of(&command?).unwrap_or_default())).collect()
}

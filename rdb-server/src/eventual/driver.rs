//! The thread. A turn: wait for one event or the next tick, take what else has come, then hand the writes of every region that
//! was touched to the log writer, send what the others lack, and apply a step of what is synced.

mod copying;
#[cfg(test)]
mod tests;
mod upkeep;

use super::copy::Fetcher;
use super::gatekeeper::Gatekeeper;
use super::guard::Guard;
use super::replica::{Limits, Replica, ReplicaError, Tools, WRITES_UNDER_WAY_MAX};
use super::switching::Telling;
use super::waiting::Unmet;
use super::{Entry, Event, Eventual, Opening};
use crate::clocks::{Clocks, millis};
use crate::mailbox::Mailbox;
use crate::regions::Regions;
use crate::switch::Standings;
use crate::transport::{Peers as Health, SILENCE_MAX, Transport};
use crate::waiter::{Answers, WriteWaiter};
use fail::fail_point;
use rdb_core::command::Encoded;
use rdb_core::eventual::hlc::{DurableClock, NoStamp, Start};
use rdb_core::eventual::vector::Origin;
use rdb_core::ids::{Incarnation, NamespaceId, NodeId, RegionId};
use rdb_core::raft::Failure;
use rdb_core::switch::{Control, Mode};
use rdb_core::version::Hlc;
use rdb_proto::internal::v1::OriginReport;
use rdb_queue::{Nothing, Receiver};
use rdb_storage::{Data, Engine, LogWriterHandle, OriginWrite};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use upkeep::Bygone;

/// Events taken in one turn: enough to batch, few enough that none waits long.
const EVENTS_PER_TURN_MAX: usize = 4096;
/// For so few messages of callers this thread waits for the disk itself. With more of them it gathers writes in the meantime.
const CALLERS_HERE_MAX: usize = 4;
/// Between steps of applying what nobody waits for: it comes in bursts, and where processors are scarce those would hold up all else.
const STEP_INTERVAL: Duration = Duration::from_micros(250);
/// Work waits for what is to be applied for so many ticks.
const TICKS_WITHOUT_WORK_MAX: u32 = 5;
/// Between looks at what each peer has been told.
const TICK: Duration = Duration::from_millis(10);
/// The same where no region is eventual.
const IDLE_TICK: Duration = Duration::from_millis(200);
/// Between looks at what can be dropped from the logs.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(1);
/// Reports in one frame.
const REPORTS_PER_FRAME_MAX: usize = 256;

/// What a [`Driver`] is made of.
pub(crate) struct Parts {
    pub(crate) node: NodeId,
    pub(crate) eventual: Eventual,
    pub(crate) transport: Transport,
    pub(crate) log: LogWriterHandle,
    pub(crate) health: Health,
    pub(crate) mailbox: Mailbox,
    pub(crate) regions: Regions,
    pub(crate) standings: Standings,
    pub(crate) clocks: Clocks,
    /// How long deletions are remembered at least.
    pub(crate) tombstone_grace: Duration,
    /// Bytes of a region's writes that are kept for members that lack them.
    pub(crate) log_bytes_max: u64,
    /// Between two comparisons with a member.
    pub(crate) compare_interval: Duration,
    pub(crate) fetcher: Fetcher,
}

/// The thread's state.
pub(crate) struct Driver {
    pub(super) node: NodeId,
    pub(super) eventual: Eventual,
    pub(super) tools: Tools,
    pub(super) log: LogWriterHandle,
    pub(super) health: Health,
    pub(super) mailbox: Mailbox,
    pub(super) regions: Regions,
    pub(super) standings: Standings,
    /// Of every region that is here.
    pub(super) gates: BTreeMap<RegionId, Gatekeeper>,
    /// Of those in eventual mode.
    pub(super) replicas: BTreeMap<RegionId, Replica>,
    pub(super) touched: BTreeSet<RegionId>,
    /// Regions that have something to apply.
    applying: BTreeSet<RegionId>,
    /// When the next step is due of what nobody waits for.
    next_step: Instant,
    ticks_without_work: u32,
    /// Regions in which something goes on: the others are looked at now and then.
    pub(super) restless: BTreeSet<RegionId>,
    /// Whom this node heard when it last looked.
    heard: Vec<NodeId>,
    /// Regions whose gates are to be looked at.
    pub(super) moved: BTreeSet<RegionId>,
    pub(super) telling: Telling,
    /// Of each region that is here, for how many seconds its lost writes are kept.
    pub(super) keeps: BTreeMap<RegionId, (NamespaceId, u64)>,
    /// Regions that may have notes of eras that are over.
    bygone: BTreeMap<RegionId, Bygone>,
    clock: DurableClock,
    guard: Guard,
    started: Instant,
    /// The clock's mark that the next log write is to carry.
    mark: Option<Hlc>,
    /// The highest mark that is synced: what is promised to others must not rest on more.
    mark_synced: Hlc,
    next_upkeep: Instant,
    /// Regions whose next push is to come then.
    deferred: BTreeSet<RegionId>,
    next_push: Option<Instant>,
    /// When what is acknowledged and not synced is synced.
    next_sync: Option<Instant>,
    /// Regions that have something of it.
    unsynced: BTreeSet<RegionId>,
    /// Which region's turn it is to have something done for it.
    works_at: RegionId,
}

impl Driver {
    /// Reads what the clock must not fall behind.
    ///
    /// # Errors
    /// The log could not be read.
    pub(crate) fn new(parts: Parts, engine: &Engine) -> Result<Self, rdb_storage::Error> {
        let Parts { node, eventual, transport, log, health, mailbox, regions, standings, fetcher, .. } =
            parts;
        let Parts { clocks, .. } = parts;
        let limits = Limits {
            tombstone_grace_ms: millis(parts.tombstone_grace),
            log_bytes_max: parts.log_bytes_max,
            compare_interval: parts.compare_interval,
        };
        let (started, wall_ms) = clocks.started();
        let mark = engine.origins().stamps_below()?.unwrap_or_default();
        let clock = DurableClock::start(Start { wall_ms, monotonic_ms: 0, mark });
        let me = Origin { node, incarnation: Incarnation(engine.identity().incarnation) };
        let (data, logs): (Data, _) = (engine.data(), engine.origins());
        Ok(Self {
            node,
            eventual,
            tools: Tools { data, logs, log: log.clone(), transport, fetcher, me, limits },
            log,
            health,
            mailbox,
            regions,
            standings,
            gates: BTreeMap::new(),
            replicas: BTreeMap::new(),
            touched: BTreeSet::new(),
            applying: BTreeSet::new(),
            next_step: Instant::now(),
            ticks_without_work: 0,
            restless: BTreeSet::new(),
            heard: Vec::new(),
            moved: BTreeSet::new(),
            telling: Telling::default(),
            keeps: BTreeMap::new(),
            bygone: BTreeMap::new(),
            clock,
            guard: Guard::new(clocks),
            started,
            mark: None,
            mark_synced: mark,
            next_upkeep: Instant::now() + UPKEEP_INTERVAL,
            deferred: BTreeSet::new(),
            next_push: None,
            next_sync: None,
            unsynced: BTreeSet::new(),
            works_at: RegionId(0),
        })
    }

    /// Runs until it is told to stop.
    pub(crate) fn run(mut self, events: &Receiver<Event>) {
        let mut next_tick = Instant::now() + TICK;
        loop {
            // With no region there is nothing to look after.
            let first = if !self.touched.is_empty() || self.hurries_to_apply() {
                events.try_recv()
            } else if self.gates.is_empty() {
                events.recv()
            } else {
                let step = (!self.applying.is_empty()).then_some(self.next_step);
                let next = self.next_push.into_iter().chain(step).fold(next_tick, Instant::min);
                events.recv_deadline(next)
            };
            match first {
                Ok(first) => {
                    let more = events.try_iter().take(EVENTS_PER_TURN_MAX);
                    for event in std::iter::once(first).chain(more) {
                        if matches!(event, Event::Stop) {
                            return;
                        }
                        self.handle(event).unwrap_or_else(|error| fail(&error));
                    }
                }
                Err(Nothing::Yet) => {}
                Err(Nothing::Ever) => return,
            }
            let now = Instant::now();
            if next_tick <= now {
                next_tick = now + if self.replicas.is_empty() { IDLE_TICK } else { TICK };
                self.tick();
                self.ticks_without_work += 1;
                let waits = !self.applying.is_empty() && !self.replicas.values().any(Replica::is_merging);
                if !waits || TICKS_WITHOUT_WORK_MAX <= self.ticks_without_work {
                    self.ticks_without_work = 0;
                    self.finish_applying().unwrap_or_else(|error| fail(&error));
                    self.work().unwrap_or_else(|error| fail(&error));
                    self.note_copies();
                }
            }
            if self.next_upkeep <= now {
                self.finish_applying().unwrap_or_else(|error| fail(&error));
                self.next_upkeep = now + UPKEEP_INTERVAL;
                self.truncate();
                self.share_memory();
                self.restless.extend(self.replicas.keys());
                self.guard.look_at_wall_clock(&self.clock, millis(self.started.elapsed()));
                self.look_after().unwrap_or_else(|error| fail(&error));
                self.look_after_copies();
                self.forget_older();
                self.gates.values_mut().for_each(|gate| gate.let_go_of_old(now));
            }
            if self.next_push.take_if(|at| *at <= now).is_some() {
                self.touched.append(&mut self.deferred);
            }
            self.hand_out(now).unwrap_or_else(|error| fail(&error));
            if self.moved.is_empty() {
                self.apply_some(now).unwrap_or_else(|error| fail(&error));
            } else {
                self.finish_applying().unwrap_or_else(|error| fail(&error));
            }
            self.take_steps();
            self.tell_standings(now);
        }
    }

    fn handle(&mut self, event: Event) -> Result<(), ReplicaError> {
        if !comes_between_steps(&event) {
            self.finish_applying()?;
        }
        match event {
            Event::Open { opening, entered } => self.open(opening, entered)?,
            Event::Heard { descriptors } => self.hear(&descriptors),
            Event::Marker { region, marker, index, reached } => {
                if let Some(gate) = self.gates.get_mut(&region) {
                    gate.await_end(marker, index, reached);
                    self.moved.insert(region);
                }
            }
            Event::Leave { region, offered, left } => match self.gates.get_mut(&region) {
                Some(gate) => {
                    // The snapshot may bring a note again that was just read.
                    self.bygone.remove(&region);
                    gate.await_leave(offered, left);
                    self.moved.insert(region);
                }
                None => left(),
            },
            Event::Hashed { region, era, stored } => {
                if let Some(replica) = self.replicas.get_mut(&region) {
                    replica.add_hashes(era, &stored);
                    self.moved.insert(region);
                }
            }
            Event::Copy { region, era, arrived } => self.arrived(region, era, arrived)?,
            Event::Close { region, done } => {
                // Callers hear that the fate of their writes is not known.
                self.gates.remove(&region);
                self.replicas.remove(&region);
                self.keeps.remove(&region);
                self.bygone.remove(&region);
                self.eventual.show(|all| drop(all.remove(&region)));
                done();
            }
            Event::Write { region, commands, waiter } => self.write(region, commands, waiter)?,
            Event::Runs { from, region, runs, awaited, share } => {
                // What is set aside is read by and by: what came now could displace it before.
                let is_leaving = self.gates.get(&region).is_some_and(Gatekeeper::is_leaving);
                let Some(replica) = self.replicas.get_mut(&region).filter(|_| !is_leaving) else {
                    return Ok(());
                };
                replica.receive(from, runs, awaited, share);
                if let Some(highest) = replica.received_highest()
                    && let Some(ahead_ms) = self.clock.saw(highest, millis(self.started.elapsed()))
                {
                    tracing::warn!(%region, ahead_ms, "a peer's write is stamped ahead of this node's clock");
                }
                self.touched.insert(region);
            }
            Event::Reports { from, reports } => {
                let now_ms = millis(self.started.elapsed());
                for said in reports {
                    if let Some(replica) = self.replicas.get_mut(&said.region) {
                        replica.heard(from, &said, now_ms);
                        self.touched.insert(said.region);
                    }
                }
            }
            Event::Lost { peer } => {
                self.replicas.values_mut().for_each(|replica| replica.lost(peer));
                self.restless.extend(self.replicas.keys());
            }
            Event::Synced { region, era, mark, control } => {
                if mark.is_some() {
                    fail_point!("clock-mark-synced");
                }
                self.mark_synced = self.mark_synced.max(mark.unwrap_or_default());
                if let Some(replica) = self.replicas.get_mut(&region).filter(|replica| replica.era() == era) {
                    replica.synced(&self.tools)?;
                    self.applying.extend(replica.is_applying().then_some(region));
                    self.touched.insert(region);
                }
                self.control_synced(region, control.as_ref());
            }
            Event::Stop => {}
        }
        Ok(())
    }

    /// Takes in a region that is in eventual mode.
    pub(super) fn open_replica(
        &mut self,
        opening: Opening,
        entered: Option<Entry>,
    ) -> Result<(), ReplicaError> {
        let Opening { region, namespace, members, settings, mode } = opening;
        let now_ms = millis(self.started.elapsed());
        let others = members.into_iter().filter(|member| *member != self.node).collect();
        let tools = (&self.tools, &self.eventual);
        let mut replica = Replica::open((region, namespace, settings), mode.era(), others, now_ms, tools)?;
        // Its own writes among them, of before this start, and what a copy has brought that a start has merged.
        self.clock.saw(replica.highest(), now_ms);
        let shown = replica.shown();
        // The others give up some of theirs with the next upkeep.
        replica.share_memory(self.replicas.len() + 1);
        self.replicas.insert(region, replica);
        self.restless.insert(region);
        self.eventual.show(|all| drop(all.insert(region, shown.clone())));
        if let Some(Entry { place, is_new: true }) = entered {
            self.note_entry(region, mode.era(), place);
        }
        Ok(())
    }

    fn write(
        &mut self,
        region: RegionId,
        commands: Encoded,
        waiter: WriteWaiter,
    ) -> Result<(), ReplicaError> {
        let (Some(gate), replica) = (self.gates.get_mut(&region), self.replicas.get_mut(&region)) else {
            waiter.answer(Err(Failure::ModeChanged));
            return Ok(());
        };
        match replica {
            // It was on its way here when the mode changed, or waited here for longer than its era.
            _ if !waiter.terms().are_of(gate.mode().era()) => waiter.answer(Err(Failure::ModeChanged)),
            // The mode has no such writes.
            _ if commands.strong_only || commands.named => waiter.answer(Err(Failure::ModeChanged)),
            Some(replica) if gate.is_open() => {
                self.guard.look_if_measured();
                if let Some(off) = self.guard.refuses() {
                    waiter.answer(Ok(Answers::Unmet(Unmet::ClockOff(off.clone()))));
                    return Ok(());
                }
                let now_ms = millis(self.started.elapsed());
                let (clock, mark) = (&mut self.clock, &mut self.mark);
                if let Err(unmet) = waiter.terms().meet(replica.era(), clock, now_ms) {
                    waiter.answer(Ok(Answers::Unmet(unmet)));
                    return Ok(());
                }
                replica.accept(&commands, waiter, || stamp(clock, mark, now_ms))?;
                self.touched.insert(region);
            }
            _ if gate.mode().mode() == Mode::Strong && is_shown_strong(&self.regions, region) => {
                // Asked for in an era that is over: its answer would say so.
                waiter.answer(Err(Failure::ModeChanged));
            }
            _ => gate.hold(commands, waiter),
        }
        Ok(())
    }

    /// Whether what there is to apply is to be applied without a pause.
    fn hurries_to_apply(&self) -> bool {
        let hurries = |region| self.replicas.get(region).is_some_and(Replica::hurries_to_apply);
        self.applying.iter().any(hurries)
    }

    /// Applies one step of each region that has something to apply, if it is time.
    fn apply_some(&mut self, now: Instant) -> Result<(), ReplicaError> {
        let is_due = self.next_step <= now;
        for region in std::mem::take(&mut self.applying) {
            let Some(replica) = self.replicas.get_mut(&region) else { continue };
            if is_due || replica.hurries_to_apply() {
                replica.apply_step(&self.tools)?;
                self.touched.insert(region);
            }
            self.applying.extend(replica.is_applying().then_some(region));
        }
        if is_due {
            self.next_step = now + STEP_INTERVAL;
        }
        Ok(())
    }

    /// Applies all that there is to apply.
    fn finish_applying(&mut self) -> Result<(), ReplicaError> {
        for region in std::mem::take(&mut self.applying) {
            if let Some(replica) = self.replicas.get_mut(&region) {
                replica.finish_applying(&self.tools)?;
                self.touched.insert(region);
            }
        }
        Ok(())
    }

    fn hand_out(&mut self, now: Instant) -> Result<(), ReplicaError> {
        let sync_is_due = self.sync_is_due(now);
        let touched = std::mem::take(&mut self.touched);
        self.restless.extend(&touched);
        let now_ms = millis(self.started.elapsed());
        let passed = self.clock.passed().min(self.mark_synced);
        for region in touched {
            let write = match self.replicas.get_mut(&region) {
                Some(replica) if replica.is_periodic() => self.hand_out_first(region, now, sync_is_due)?,
                Some(replica) => replica.hand_out(),
                None => continue,
            };
            let Some(replica) = self.replicas.get_mut(&region) else { continue };
            replica.moves();
            if let Some(write) = write {
                fail_point!("origin-before-log");
                if self.mark.is_some() {
                    fail_point!("clock-before-mark");
                }
                // Whatever was stamped below the mark comes with it or behind it, and is seen by nobody before it is synced.
                let write = OriginWrite { stamps_below: self.mark.take(), ..write };
                let synced = synced(&self.eventual, region, &write, None);
                // This thread has nothing better to do for so few than to sync their writes itself, if there is nothing to apply.
                let here =
                    self.applying.is_empty() && (1..=CALLERS_HERE_MAX).contains(&replica.callers_under_way());
                check(if here {
                    self.log.write_origins_here(region, write, synced)
                } else {
                    self.log.write_origins(region, write, synced)
                });
            }
            let health = &self.health;
            // A switch waits for all that goes on.
            let hurries =
                self.gates.get(&region).is_some_and(|gate| !gate.is_open()) || replica.awaits_others();
            let due = replica.push_due();
            if hurries || due <= now {
                replica.push(&self.tools, (now, now_ms), |node| hears(health, node))?;
            } else {
                self.deferred.insert(region);
                self.next_push = Some(self.next_push.map_or(due, |at| at.min(due)));
            }
            for (node, report) in replica.prompt_reports(passed) {
                self.tools.transport.send_reports(node, vec![report]);
            }
            // The last of a closing gate's writes may have been answered, or the cut reached.
            self.moved.extend(self.gates.get(&region).filter(|gate| !gate.is_open()).map(|_| region));
        }
        Ok(())
    }

    fn tick(&mut self) {
        self.guard.look();
        let now_ms = millis(self.started.elapsed());
        let physical_ms = self.clock.physical_ms(now_ms);
        let passed = self.clock.passed().min(self.mark_synced);
        let mut due: BTreeMap<NodeId, Vec<OriginReport>> = BTreeMap::new();
        let health = &self.health;
        let heard: Vec<NodeId> = self.tools.transport.nodes().filter(|node| hears(health, *node)).collect();
        if self.heard != heard {
            self.heard = heard;
            self.restless.extend(self.replicas.keys());
        }
        for region in std::mem::take(&mut self.restless) {
            let Some(replica) = self.replicas.get_mut(&region) else { continue };
            note_alive(health, replica, now_ms);
            for (node, report) in replica.tick(now_ms, physical_ms, passed, |node| hears(health, node)) {
                due.entry(node).or_default().push(report);
            }
            if replica.has_more() {
                self.touched.insert(region);
            }
            if !replica.rests(|node| hears(health, node)) {
                self.restless.insert(region);
            }
        }
        for (node, reports) in due {
            for reports in reports.chunks(REPORTS_PER_FRAME_MAX) {
                // One that finds no room comes again with the next change, or when the peer stands still.
                self.tools.transport.send_reports(node, reports.to_vec());
            }
        }
    }

    /// What one region has is what there is for all, by their number.
    fn share_memory(&mut self) {
        let regions = self.replicas.len().max(1);
        self.replicas.values_mut().for_each(|replica| replica.share_memory(regions));
    }

    fn truncate(&mut self) {
        for (region, replica) in &mut self.replicas {
            let is_open = self.gates.get(region).is_some_and(Gatekeeper::is_open);
            if let Some(write) = replica.truncate(is_open, &self.tools) {
                replica.hand_out_nothing();
                post(&self.log, &self.eventual, *region, write, None);
            }
        }
    }
}

/// Whether nothing that an event asks for depends on what is synced and not applied yet.
fn comes_between_steps(event: &Event) -> bool {
    match event {
        Event::Write { .. } | Event::Runs { .. } | Event::Reports { .. } | Event::Lost { .. } => true,
        Event::Synced { control, .. } => control.is_none(),
        _ => false,
    }
}

/// A stamp above all that this node has given out or seen. Where the clock's mark is used up, the next log write carries a new one.
fn stamp(clock: &mut DurableClock, mark: &mut Option<Hlc>, now_ms: u64) -> Hlc {
    if let Some(new) = clock.mark_to_persist(now_ms) {
        clock.persisted(new);
        *mark = Some(new);
    }
    loop {
        match clock.stamp(now_ms) {
            Ok(hlc) => return hlc,
            Err(NoStamp::PersistFirst(new)) => {
                clock.persisted(new);
                *mark = Some(new);
            }
            Err(NoStamp::Exhausted) => crate::node::die("the clock's readings are used up"),
        }
    }
}

/// Hands a write to the log writer, of a region in the write's era. `control` is the gate's record that it carries.
pub(super) fn post(
    log: &LogWriterHandle,
    eventual: &Eventual,
    region: RegionId,
    write: OriginWrite,
    control: Option<Control>,
) {
    let synced = synced(eventual, region, &write, control);
    check(log.write_origins(region, write, synced));
}

/// Lets the thread know that a write is synced.
fn synced(
    eventual: &Eventual,
    region: RegionId,
    write: &OriginWrite,
    control: Option<Control>,
) -> impl FnOnce() + Send + 'static {
    let (eventual, mark, era) = (eventual.clone(), write.stamps_below, write.era);
    move || eventual.post(Event::Synced { region, era, mark, control })
}

/// The same, and `done` is called on the log's thread.
pub(super) fn post_then(
    log: &LogWriterHandle,
    region: RegionId,
    write: OriginWrite,
    done: impl FnOnce() + Send + 'static,
) {
    check(log.write_origins(region, write, done));
}

fn check(posted: Result<(), rdb_storage::Error>) {
    match posted {
        // It has said why, and the process is on its way out.
        Ok(()) | Err(rdb_storage::Error::LogWriterStopped) => {}
        // Its queue has room for what `WRITES_UNDER_WAY_MAX` allows on a node with a thousand regions.
        Err(error) => {
            crate::node::die(&format!("more than {WRITES_UNDER_WAY_MAX} writes of a region: {error}"))
        }
    }
}

/// Whether the raft loop has shown that a region is strong: before that, who asks again comes here again.
pub(super) fn is_shown_strong(regions: &Regions, region: RegionId) -> bool {
    regions.get(region).is_some_and(|view| !view.is_eventual())
}

pub(super) fn hears(health: &Health, node: NodeId) -> bool {
    health.silence(node).is_some_and(|silence| silence <= SILENCE_MAX)
}

/// Members that are heard have nothing to say of a region in which nothing happens: what they said last holds.
pub(super) fn note_alive(health: &Health, replica: &mut Replica, now_ms: u64) {
    for node in replica.others() {
        // As of when it was heard, not of now: its silence counts from there.
        if let Some(silence) = health.silence(node) {
            replica.alive(node, now_ms.saturating_sub(millis(silence)));
        }
    }
}

pub(super) fn fail(error: &ReplicaError) {
    crate::node::die(&format!("a region in eventual mode cannot go on: {error}"));
}

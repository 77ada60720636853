//! The world: its nodes, links, disks, clocks and clients, and what happens to them, one event after the other.

use super::clients::Clients;
use super::data::DataDisk;
use super::event::Event;
use super::network::Network;
use super::node::{After, Input, Job, Node, Process, Then, Writer};
use super::options::Options;
use super::origins::{Op, OriginDisk};
use super::planted::{Shortcut, takes};
use super::switching;
use super::totals::Totals;
use super::truth::Truth;
use crate::disks::log::LogDisk;
use crate::event::{Fault, Queue};
use crate::invariants::Violation;
use crate::options::{Micros, Span};
use crate::snapshot::Sender;
use crate::trace::Trace;
use crate::world::Wall;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use rdb_core::apply;
use rdb_core::eventual::hlc::{DurableClock, Start};
use rdb_core::eventual::run::Run;
use rdb_core::hlc::Clock;
use rdb_core::ids::{Era, NodeId, RegionId};
use rdb_core::raft::{Boot, Group, Lease, LogRead as _};
use rdb_core::sessions::Sessions;
use rdb_core::switch::{Descriptor, Peer};
use rdb_core::version::Hlc;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// The region.
pub(super) const LOG: RegionId = RegionId::FIRST_USER;

pub(super) struct World {
    pub(super) options: Options,
    pub(super) totals: Totals,
    pub(super) trace: Trace,
    pub(super) now: Micros,
    pub(super) queue: Queue<Event>,
    pub(super) rng: ChaCha8Rng,
    pub(super) nodes: Vec<Node>,
    pub(super) network: Network,
    /// All that the catalog has said, in order.
    pub(super) catalog: Vec<Arc<Descriptor>>,
    pub(super) clients: Clients,
    pub(super) truth: Truth,
    /// Snapshots wanted so far.
    pub(super) snapshots: u64,
    /// Whether nothing fails any more.
    pub(super) calm: bool,
    pub(super) clients_rest: bool,
    pub(super) operators_rest: bool,
    logger: slog::Logger,
}

impl World {
    pub(super) fn new(options: Options, trace: Trace) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(!options.seed);
        let nodes: Vec<Node> =
            (1..=options.nodes).map(|id| new_node(NodeId(id), &options, &mut rng)).collect();
        let members = nodes.iter().map(|node| node.id);
        Self {
            totals: Totals::default(),
            trace,
            now: 0,
            queue: Queue::default(),
            catalog: vec![Arc::new(Descriptor::new(options.start, members))],
            clients: Clients::new((options.clients, options.readers), options.nodes, &mut rng),
            truth: Truth::new(options.start),
            network: Network::default(),
            snapshots: 0,
            calm: false,
            clients_rest: false,
            operators_rest: false,
            logger: slog::Logger::root(slog::Discard, slog::o!()),
            nodes,
            rng,
            options,
        }
    }

    pub(super) fn totals(&self) -> Totals {
        Totals { micros: self.now, ..self.totals }
    }

    pub(super) fn ids(&self) -> Vec<NodeId> {
        self.nodes.iter().map(|node| node.id).collect()
    }

    pub(super) fn node(&self, id: NodeId) -> &Node {
        &self.nodes[place(id)]
    }

    pub(super) fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[place(id)]
    }

    pub(super) fn process(&self, id: NodeId) -> Option<&Process> {
        self.node(id).process.as_ref()
    }

    pub(super) fn process_mut(&mut self, id: NodeId) -> Option<&mut Process> {
        self.node_mut(id).process.as_mut()
    }

    pub(super) fn draw(&mut self, span: Span) -> Micros {
        self.rng.random_range(span.0..span.1)
    }

    pub(super) fn later(&mut self, span: Span, event: Event) {
        let at = self.now + self.draw(span);
        self.queue.push(at, event);
    }

    /// What the catalog says now.
    pub(super) fn descriptor(&self) -> &Arc<Descriptor> {
        &self.catalog[self.catalog.len() - 1]
    }

    /// First light.
    pub(super) fn boot_all(&mut self) -> Result<(), Violation> {
        self.ids().into_iter().try_for_each(|id| self.boot(id))?;
        for slot in 0..self.clients.pool.len() {
            let attempt = self.clients.pool[slot].attempt;
            self.wake_later(slot, attempt);
        }
        Fault::ALL.into_iter().for_each(|fault| self.fault_later(fault));
        self.later(self.options.operate, Event::Operate);
        Ok(())
    }

    /// Starts a node from its disks.
    pub(super) fn boot(&mut self, id: NodeId) -> Result<(), Violation> {
        let process = self.start_process(id).map_err(|what| Violation {
            invariant: "a node starts from its disks",
            what: format!("node {id}: {what}"),
        })?;
        self.node_mut(id).process = Some(process);
        self.open_eventual(id)?;
        let (node, incarnation) = (id, self.node(id).incarnation);
        self.later((0, self.options.tick), Event::Tick { node, incarnation });
        self.later(self.options.flush, Event::Flush { node, incarnation });
        self.later(self.options.upkeep, Event::Upkeep { node, incarnation });
        self.hear_later(id);
        Ok(())
    }

    fn start_process(&mut self, id: NodeId) -> Result<Process, String> {
        let (members, seed, start, now) = (self.ids(), self.rng.random(), self.options.start, self.now);
        let node = &mut self.nodes[place(id)];
        node.incarnation += 1;
        let files = node.origins.synced();
        let stored = &node.data.current;
        let text = |error: rdb_core::codec::Corrupt| error.to_string();
        let region = stored.region(start).map_err(text)?;
        let state = stored.strong().map_err(text)?;
        let peer = Peer::start(id, &region, &files.controls().map_err(text)?);
        let (noted, replay_to) = if takes(Shortcut::WritesNoNote) { (Era(1), 0) } else { files.note };
        self.totals.snapshots_settled += u64::from(node.raft.settle(LOG, state.applied)?);
        let found = node.raft.boot(LOG)?;
        let mut hard_state = found.hard_state;
        // It answered in that era, so the entry that led there is committed, whatever else it has forgotten.
        hard_state.commit = hard_state.commit.max(replay_to);
        let boot = Boot {
            region: LOG,
            node: id,
            members,
            hard_state,
            terms: found.terms,
            last: found.last,
            applied: state.applied,
            incarnation: node.incarnation,
            seed,
        };
        let group = Group::new(self.options.raft.clone(), boot, node.raft.reader(LOG), &self.logger);
        let mut group = group.map_err(|error| error.to_string())?;
        group.enter(region.era());
        let wall_ms = node.wall.now_ms(now);
        let mark = if takes(Shortcut::KeepsNoMark) { Hlc(0) } else { highest_stamp(node, &state) };
        let mut clock = Clock::default();
        clock.saw(state.highest);
        Ok(Process {
            group,
            mode: region.clone(),
            lease: Lease::default(),
            strong: apply::Machine::new(LOG, state, Sessions::default()).in_mode(region.clone()),
            // What is flushed needs no note.
            noted: if takes(Shortcut::WritesNoNote) { Era(u32::MAX) } else { noted.max(region.era()) },
            region,
            peer,
            eventual: None,
            clock,
            durable: DurableClock::start(Start { wall_ms, monotonic_ms: node.monotonic_ms(now), mark }),
            mark_synced: mark,
            inbox: VecDeque::new(),
            turn_due: false,
            committed: VecDeque::new(),
            waiters: BTreeMap::new(),
            applying: false,
            writer: Writer::default(),
            reports: Vec::new(),
            eras: BTreeMap::new(),
            replay_to,
            outgoing: BTreeMap::new(),
            sending: BTreeMap::new(),
            arrived: None,
            installing: None,
            gives: BTreeMap::new(),
            replace: false,
            hand_overs: 0,
            set_aside_late: Vec::new(),
            stopped: None,
        })
    }

    /// Runs until `end`, or until `done` says so; it is asked between events, now and then.
    pub(super) fn run_until(&mut self, end: Micros, done: impl Fn(&World) -> bool) -> Result<(), Violation> {
        let mut events = 0_u64;
        while let Some((at, event)) = self.queue.pop_before(end) {
            self.now = at;
            self.totals.events += 1;
            self.trace.record(at, &event);
            self.happen(event)?;
            events += 1;
            if events.is_multiple_of(16) && done(self) {
                return Ok(());
            }
        }
        self.now = end;
        Ok(())
    }

    fn happen(&mut self, event: Event) -> Result<(), Violation> {
        let Some(event) = self.postpone(event) else { return Ok(()) };
        match event {
            Event::Deliver { from, to, parcel } => self.delivered(from, to, parcel)?,
            Event::Turn { node, incarnation } => self.turn(node, incarnation)?,
            Event::Tick { node, incarnation } => self.tick(node, incarnation)?,
            Event::Synced { node, incarnation } => self.synced(node, incarnation)?,
            Event::Applied { node, incarnation } => self.applied(node, incarnation)?,
            Event::Merged { node, incarnation } => self.merged(node, incarnation)?,
            Event::PageMerged { node, incarnation } => self.page_merged(node, incarnation)?,
            Event::Fetched { node, incarnation, fetch } => {
                if self.node_mut(node).running(incarnation).is_some() {
                    let reader = self.node(node).raft.reader(LOG);
                    let entries = reader.read(fetch.low, fetch.high, fetch.bytes_max).unwrap_or_default();
                    self.input(node, Input::Fetched(fetch, entries));
                }
            }
            Event::Flush { node, incarnation } => self.flush(node, incarnation),
            Event::SnapshotRead { node, incarnation, number, wanted } => {
                self.snapshot_read(node, incarnation, number, *wanted)?;
            }
            Event::SnapshotGivenUp { node, incarnation, number } => {
                self.snapshot_outcome(Sender { node, incarnation, number }, false);
            }
            Event::Replace { node, incarnation } => self.replace(node, incarnation),
            Event::Upkeep { node, incarnation } => self.upkeep(node, incarnation)?,
            Event::Request { node, request } => self.request(node, *request)?,
            Event::Reply { client, attempt, reply } => self.replied(client, attempt, *reply)?,
            Event::Impatient { client, attempt } => self.impatient(client, attempt),
            Event::Wake { client, attempt } => self.wake(client, attempt),
            Event::Change { change } => self.change(&change),
            Event::Hear { node, incarnation, said } => self.hear(node, incarnation, said)?,
            Event::Operate => self.operate(),
            Event::Fault(fault) => self.strike(fault),
            Event::Crash { node, incarnation, all } => self.aimed_crash(node, incarnation, all),
            Event::Heal { from, to, cut } => self.network.heal(from, to, cut),
            Event::Restart { node } => self.restart(node)?,
            Event::Resume { node, incarnation } => self.resume(node, incarnation),
        }
        Ok(())
    }

    /// Puts aside what comes for a stopped process; gives back what may happen.
    fn postpone(&mut self, event: Event) -> Option<Event> {
        let Some(node) = event.waits_for() else { return Some(event) };
        let stopped = self.process_mut(node).and_then(|process| process.stopped.as_mut());
        let Some(stopped) = stopped else { return Some(event) };
        stopped.push(event);
        None
    }

    fn tick(&mut self, id: NodeId, incarnation: u64) -> Result<(), Violation> {
        let Some(process) = self.node_mut(id).running(incarnation) else { return Ok(()) };
        if process.stopped.is_none() {
            self.input(id, Input::Tick);
            self.push(id)?;
            self.tell(id);
            self.look_after_copies(id);
            self.take_part(id)?;
        }
        let tick = self.options.tick;
        self.later((tick * 9 / 10, tick * 11 / 10), Event::Tick { node: id, incarnation });
        Ok(())
    }

    /// Hands a job to the log writer.
    pub(super) fn write_later(&mut self, id: NodeId, job: Job) {
        if let Some(process) = self.process_mut(id) {
            process.writer.waiting.push(job);
        }
        self.start_sync(id);
    }

    /// The log writer takes all that waits, unless it is busy.
    fn start_sync(&mut self, id: NodeId) {
        let node = self.node_mut(id);
        let incarnation = node.incarnation;
        let Some(process) = &mut node.process else { return };
        if !process.writer.syncing.is_empty() || process.writer.waiting.is_empty() {
            return;
        }
        process.writer.syncing = std::mem::take(&mut process.writer.waiting);
        for job in &process.writer.syncing {
            match job {
                Job::Raft { batch, .. } => node.raft.write(batch.clone()),
                Job::Origins { ops, .. } => node.origins.write(ops.clone()),
            }
        }
        self.later(self.options.sync, Event::Synced { node: id, incarnation });
    }

    /// The sync is done: first the report, then the messages that stand on it.
    fn synced(&mut self, id: NodeId, incarnation: u64) -> Result<(), Violation> {
        let now = self.now;
        let node = self.node_mut(id);
        let stalled_until = node.stalled_until;
        let Some(process) = node.running(incarnation) else { return Ok(()) };
        if now < stalled_until {
            self.queue.push(stalled_until, Event::Synced { node: id, incarnation });
            return Ok(());
        }
        let jobs = std::mem::take(&mut process.writer.syncing);
        node.raft.sync();
        node.origins.sync();
        for job in jobs {
            match job {
                Job::Raft { after, then_send, .. } => {
                    match after {
                        After::Persisted(number) => self.input(id, Input::Persisted(number)),
                        After::Shortened => self.totals.logs_shortened += 1,
                        After::Noted => self.replace_later(id),
                    }
                    self.send_raft(id, then_send);
                }
                Job::Origins { then, .. } => self.follow(id, then)?,
            }
        }
        self.start_sync(id);
        Ok(())
    }

    fn follow(&mut self, id: NodeId, then: Then) -> Result<(), Violation> {
        match then {
            Then::Nothing => {}
            Then::Merge(merge) => self.run_is_synced(id, merge)?,
            Then::Control(control) => {
                if let Some(process) = self.process_mut(id) {
                    process.peer.synced(&control);
                }
                switching::count(&mut self.totals, &control);
                self.review(id);
            }
            Then::Mark(mark) => {
                if let Some(process) = self.process_mut(id) {
                    process.durable.persisted(mark);
                    process.mark_synced = process.mark_synced.max(mark);
                }
            }
            Then::Note(era) => {
                if let Some(process) = self.process_mut(id) {
                    process.noted = process.noted.max(era);
                }
            }
            Then::SetAside => self.note_snapshot(id),
            Then::Copied(note) => self.copy_is_noted(id, note),
        }
        Ok(())
    }

    fn flush(&mut self, id: NodeId, incarnation: u64) {
        if self.node_mut(id).running(incarnation).is_none() {
            return;
        }
        let (place, start) = (place(id), self.options.start);
        self.nodes[place].data.flush(&mut self.rng);
        self.nodes[place].note_purgeable();
        // What belongs to an era goes when a later one is durable: until then a start may begin there.
        let node = &self.nodes[place];
        let of = if takes(Shortcut::ForgetsUnflushed) { &node.data.current } else { &node.data.flushed };
        let durable = of.region(start).map(|region| region.era()).unwrap_or_default();
        if node.origins.written().oldest().is_some_and(|oldest| oldest < durable) {
            let ops = vec![Op::Forget(durable)];
            self.write_later(id, Job::Origins { ops, then: Then::Nothing });
        }
        self.later(self.options.flush, Event::Flush { node: id, incarnation });
        self.input(id, Input::Shorten);
    }
}

pub(super) fn place(id: NodeId) -> usize {
    usize::try_from(id.0 - 1).unwrap_or(usize::MAX)
}

/// A stamp that no version in the node's logs and data is above, and nothing that it has ever given out.
fn highest_stamp(node: &Node, state: &apply::State) -> Hlc {
    let files = node.origins.synced();
    let runs = files.runs().filter_map(|bytes| Run::decode(bytes).ok());
    let logged = runs.flat_map(|run| run.entries.into_iter().map(|entry| entry.hlc)).max();
    let stored = node.data.current.eventual().ok().flatten().map(|state| state.highest);
    files.mark.max(state.highest).max(logged.unwrap_or_default()).max(stored.unwrap_or_default())
}

fn new_node(id: NodeId, options: &Options, rng: &mut ChaCha8Rng) -> Node {
    let signed = |limit: u64, rng: &mut ChaCha8Rng| {
        let limit = i64::try_from(limit).unwrap_or(0);
        rng.random_range(-limit..=limit)
    };
    let clocks = &options.clocks;
    Node {
        id,
        incarnation: 0,
        raft: LogDisk::new(&[LOG]),
        origins: OriginDisk::default(),
        data: DataDisk::default(),
        wall: Wall { offset_ms: signed(clocks.offset_ms, rng), drift_ppm: signed(clocks.drift_ppm, rng) },
        purgeable: (Era(0), Hlc(0)),
        stalled_until: 0,
        process: None,
    }
}

//! A cluster, its clients and its faults, made from a seed. The core in it is the real one.
//!
//! One request's way: `talk` brings it to a node, `turn` gives it to the region's group and does what the group wants,
//! `threads` syncs and applies, and every step is an event in one queue. Where namespaces come and go, `lifetimes` makes
//! and destroys their regions. `faults` strikes between the events, and
//! `phases` tells the whole story from the storm to the last comparison.

mod faults;
mod lifetimes;
mod network;
mod node;
mod phases;
mod snapshots;
mod talk;
mod threads;
mod truncate;
mod turn;

use crate::clients::Clients;
use crate::disks::data::DataDisk;
use crate::disks::log::LogDisk;
use crate::event::{Event, Fault, Queue};
use crate::invariants::{Invariants, Violation};
use crate::machine::Machine;
use crate::options::{Micros, Options};
use crate::totals::Totals;
use crate::trace::Trace;
use lifetimes::Gardener;
use network::Network;
pub(crate) use node::Wall;
use node::{Input, Node, Process, Replica, Writer};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use rdb_core::hlc::Clock;
use rdb_core::ids::{NodeId, RegionId};
use rdb_core::raft::{Boot, Fetch, Group, LogRead as _};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
pub(crate) use truncate::{droppable, truncation};

/// The world.
pub(crate) struct World {
    pub(crate) options: Options,
    pub(crate) totals: Totals,
    pub(crate) trace: Trace,
    now: Micros,
    queue: Queue<Event>,
    rng: ChaCha8Rng,
    /// Regions that are there from the beginning; none where namespaces come and go.
    regions: Vec<RegionId>,
    gardener: Gardener,
    nodes: Vec<Node>,
    network: Network,
    clients: Clients,
    invariants: Invariants,
    /// Once faults have ended: the nodes that stay dark.
    calm: Option<BTreeSet<NodeId>>,
    /// Whether clients begin nothing more.
    clients_rest: bool,
    /// Writes and reads answered since the quorum was healed.
    progress: BTreeMap<RegionId, (u64, u64)>,
    /// Snapshots wanted so far.
    snapshots: u64,
    logger: slog::Logger,
}

impl World {
    pub(crate) fn new(options: Options, trace: Trace) -> Self {
        // Not the stream that the options were drawn from.
        let mut rng = ChaCha8Rng::seed_from_u64(!options.seed);
        let fixed = if options.lifetimes.is_some() { 0 } else { options.regions };
        let regions: Vec<_> = (0..fixed).map(|n| RegionId(RegionId::FIRST_USER.0 + n)).collect();
        let nodes =
            (1..=options.nodes).map(|id| new_node(NodeId(id), &regions, &options, &mut rng)).collect();
        let clients = Clients::new(&options, &regions, &mut rng);
        Self {
            totals: Totals::default(),
            trace,
            now: 0,
            queue: Queue::default(),
            regions,
            gardener: Gardener::default(),
            nodes,
            network: Network::default(),
            clients,
            invariants: Invariants::default(),
            calm: None,
            clients_rest: false,
            progress: BTreeMap::new(),
            snapshots: 0,
            logger: slog::Logger::root(slog::Discard, slog::o!()),
            rng,
            options,
        }
    }

    /// Sums up.
    pub(crate) fn totals(&self) -> Totals {
        Totals { micros: self.now, elections: self.invariants.one_leader.elections(), ..self.totals }
    }

    fn ids(&self) -> Vec<NodeId> {
        self.nodes.iter().map(|node| node.id).collect()
    }

    fn place(id: NodeId) -> usize {
        usize::try_from(id.0 - 1).unwrap_or(usize::MAX)
    }

    fn node(&self, id: NodeId) -> &Node {
        &self.nodes[Self::place(id)]
    }

    fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[Self::place(id)]
    }

    /// A replica of a node that has power.
    fn replica_mut(&mut self, id: NodeId, region: RegionId) -> &mut Replica {
        let process = self.node_mut(id).process.as_mut().expect("only nodes with power are asked");
        process.replicas.get_mut(&region).expect("who asks has looked")
    }

    fn has_replica(&self, id: NodeId, region: RegionId) -> bool {
        self.node(id).process.as_ref().is_some_and(|process| process.replicas.contains_key(&region))
    }

    fn stays_down(&self, id: NodeId) -> bool {
        self.calm.as_ref().is_some_and(|dark| dark.contains(&id))
    }

    /// First light: all nodes start, clients wake, and each kind of fault gets its first appointment.
    fn boot_all(&mut self) -> Result<(), Violation> {
        self.ids().into_iter().try_for_each(|id| self.boot(id))?;
        for slot in 0..self.clients.pool.len() {
            let attempt = self.clients.pool[slot].attempt;
            self.wake_later(slot, attempt);
        }
        Fault::ALL.into_iter().for_each(|fault| self.fault_later(fault));
        if self.options.lifetimes.is_some() {
            self.garden_later();
        }
        Ok(())
    }

    /// Starts a node from its disks.
    fn boot(&mut self, id: NodeId) -> Result<(), Violation> {
        self.node_mut(id).incarnation += 1;
        let (regions, lives) = self.look_at_disks(id)?;
        let mut replicas = BTreeMap::new();
        let mut clock = Clock::default();
        for region in regions {
            let replica = self.boot_replica(id, region)?;
            clock.saw(replica.machine.state().highest);
            replicas.insert(region, replica);
        }
        let incarnation = self.node(id).incarnation;
        self.node_mut(id).process = Some(Process {
            node: id,
            replicas,
            clock,
            inbox: VecDeque::new(),
            turn_due: false,
            writer: Writer::default(),
            outgoing: BTreeMap::new(),
            heard: BTreeMap::new(),
            stopped: None,
            lives,
        });
        let catalog = self.node(id).process.as_ref().and_then(|process| process.lives.as_ref());
        if let Some(catalog) = catalog.map(|lives| lives.catalog.clone()) {
            self.live_on(id, &[], Some(catalog), false)?;
            self.start_sync(id);
        }
        let node = id;
        for (span, event) in [
            ((0, self.options.tick), Event::Tick { node, incarnation }),
            (self.options.flush, Event::Flush { node, incarnation }),
            (self.options.truncate, Event::Shorten { node, incarnation }),
        ] {
            let at = self.now + self.draw(span);
            self.queue.push(at, event);
        }
        Ok(())
    }

    fn boot_replica(&mut self, id: NodeId, region: RegionId) -> Result<Replica, Violation> {
        let members = self.ids();
        let seed = self.rng.random();
        let node = &mut self.nodes[Self::place(id)];
        let lost = |what: String| Violation {
            invariant: "a node starts from its disks",
            what: format!("region {region} node {id}: {what}"),
        };
        let stored = node.data.of(region);
        let state = stored.state().map_err(lost)?;
        self.invariants.applied.is_whole(region, id, stored)?;
        let settled = node.log.settle(region, state.applied).map_err(lost)?;
        self.totals.snapshots_settled += u64::from(settled);
        let found = node.log.boot(region).map_err(lost)?;
        self.invariants.lives.starts(region, id)?;
        self.invariants.one_vote.starts(region, id, &found.hard_state)?;
        let terms = (found.terms.first_index() - 1..=found.last)
            .filter_map(|index| found.terms.term(index).map(|term| (index, term)))
            .collect();
        let boot = Boot {
            region,
            node: id,
            members,
            hard_state: found.hard_state,
            terms: found.terms,
            last: found.last,
            applied: state.applied,
            incarnation: node.incarnation,
            seed,
        };
        let group = Group::new(self.options.raft.clone(), boot, node.log.reader(region), &self.logger);
        let mut group = group.map_err(|error| lost(error.to_string()))?;
        if state.closed {
            group.close();
        }
        Ok(Replica {
            group,
            machine: Machine::load(region, stored).map_err(lost)?,
            tasks: VecDeque::new(),
            applying: false,
            terms,
            sending: BTreeMap::new(),
            arrived: None,
            installing: None,
        })
    }

    /// Puts aside what comes for a stopped process; gives back what may happen.
    fn postpone(&mut self, event: Event) -> Option<Event> {
        let node = match &event {
            Event::Deliver { to: node, .. } | Event::Request { node, .. } => *node,
            Event::SnapshotCame { parcel } => parcel.to,
            Event::SnapshotOutcome { sender, .. } => sender.node,
            Event::Turn { node, .. }
            | Event::Synced { node, .. }
            | Event::Applied { node, .. }
            | Event::Fetched { node, .. }
            | Event::Flush { node, .. }
            | Event::SnapshotRead { node, .. }
            | Event::SnapshotLook { node, .. }
            | Event::Install { node, .. }
            | Event::End { node, .. }
            | Event::Shorten { node, .. } => *node,
            _ => return Some(event),
        };
        let stopped = self.node_mut(node).process.as_mut().and_then(|process| process.stopped.as_mut());
        let Some(stopped) = stopped else { return Some(event) };
        stopped.push(event);
        None
    }

    fn tick(&mut self, node: NodeId, incarnation: u64) {
        let Some(process) = self.node_mut(node).running(incarnation) else { return };
        if process.stopped.is_none() {
            self.input(node, Input::Tick);
        }
        let tick = self.options.tick;
        let at = self.now + self.draw((tick * 9 / 10, tick * 11 / 10));
        self.queue.push(at, Event::Tick { node, incarnation });
    }

    fn fetched(&mut self, node: NodeId, incarnation: u64, region: RegionId, fetch: Box<Fetch>) {
        if self.node_mut(node).running(incarnation).is_none() {
            return;
        }
        // Entries that were dropped meanwhile are missing: then there is nothing to give.
        let reader = self.node(node).log.reader(region);
        let entries = reader.read(fetch.low, fetch.high, fetch.bytes_max).unwrap_or_default();
        self.input(node, Input::Fetched(region, fetch, entries));
    }

    fn flush(&mut self, id: NodeId, incarnation: u64) {
        if self.node_mut(id).running(incarnation).is_none() {
            return;
        }
        let place = Self::place(id);
        self.nodes[place].data.flush(&mut self.rng);
        let at = self.now + self.draw(self.options.flush);
        self.queue.push(at, Event::Flush { node: id, incarnation });
    }

    fn shorten(&mut self, node: NodeId, incarnation: u64) {
        let Some(process) = self.node_mut(node).running(incarnation) else { return };
        for region in process.replicas.keys().copied().collect::<Vec<_>>() {
            self.input(node, Input::Shorten(region));
        }
        let at = self.now + self.draw(self.options.truncate);
        self.queue.push(at, Event::Shorten { node, incarnation });
    }
}

fn new_node(id: NodeId, regions: &[RegionId], options: &Options, rng: &mut ChaCha8Rng) -> Node {
    let clocks = &options.clocks;
    let signed = |limit: u64, rng: &mut ChaCha8Rng| {
        let limit = i64::try_from(limit).unwrap_or(0);
        rng.random_range(-limit..=limit)
    };
    Node {
        id,
        incarnation: 0,
        log: LogDisk::new(regions),
        data: DataDisk::new(regions),
        wall: Wall { offset_ms: signed(clocks.offset_ms, rng), drift_ppm: signed(clocks.drift_ppm, rng) },
        stalled_until: 0,
        process: None,
    }
}

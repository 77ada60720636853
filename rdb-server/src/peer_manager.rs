//! The raft loop, which owns all groups. It writes nothing to disk and never waits; the little that it has to read, after a start and as
//! regions come, its own thread reads. Which thread takes a turn, `mailbox.rs` decides.
//!
//! A turn: take what has come, step each into its group, tick if it is time, then hand out the effects of every group that was touched. So a turn's proposals of a region share an entry, its
//! reads share a round, and its messages to a node leave together.

use crate::applier::{self, ApplierHandle, Task};
use crate::backlog::Backlogs;
use crate::clocks::Clocks;
use crate::config::Config;
use crate::disk::{Disk, Room};
use crate::eventual::{self, Eventual};
use crate::mailbox::{Event, Events, Mailbox, Turn, Turns};
use crate::metrics::Metrics;
use crate::peer::Peer;
use crate::regions::{Before, Regions};
use crate::snapshots::{Arrived, Installer, Outbound, Sending};
use crate::transport::{Peers, SILENCE_MAX, Transport};
use crate::upkeep::Fetcher;
use crate::waiter::{ReadWaiter, Released, WriteWaiter};
use fail::fail_point;
use rdb_core::apply::State;
use rdb_core::hlc::Clock;
use rdb_core::ids::{Index, NamespaceId, NodeId, RegionId, Term};
use rdb_core::raft::{Boot, Effects, Failure, Group, LogWrite, Message, MessageType, Options, Rejected};
use rdb_core::sessions::Sessions;
use rdb_core::switch::{self, Descriptor, Marker};
use rdb_pd::{Catalog, Command, Holding, Mode, Namespace, Stage, Standing, Step};
use rdb_storage::{
    AppendError, Data, Engine, LogStore, LogWriterHandle, OriginLogs, RegionLog, StoredLog,
    WRITES_PER_REGION_MAX,
};
use std::collections::vec_deque::Drain;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes of entries in one append that are taken in on a full disk: a new leader's first entry, and what shortens logs.
const FULL_APPEND_BYTES_MAX: usize = 256;
/// How long a node must have been heard without a pause before leaderships go back to it.
const STEADY_MIN: Duration = Duration::from_secs(10);
/// Leaderships that are handed over at a time, for the sake of an even spread.
const HAND_OVERS_PER_UPKEEP_MAX: usize = 16;
/// Between looks at the logs' lengths.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(1);
/// A leader with a slow disk has led for so long before it hands over: it may just have been asked to lead, or have tried in vain.
const SLOW_LED_MIN: Duration = Duration::from_secs(5);

/// The raft loop's state.
pub(crate) struct PeerManager {
    pub(crate) config: Arc<Config>,
    pub(crate) incarnation: u64,
    pub(crate) mailbox: Mailbox,
    pub(crate) eventual: Eventual,
    pub(crate) transport: Transport,
    pub(crate) log: LogWriterHandle,
    pub(crate) logs: LogStore,
    pub(crate) data: Data,
    origins: OriginLogs,
    pub(crate) applier: ApplierHandle,
    pub(crate) fetcher: Fetcher,
    pub(crate) outbound: Outbound,
    pub(crate) installer: Installer,
    pub(crate) health: Peers,
    pub(crate) disk: Disk,
    pub(crate) regions: Regions,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) logger: slog::Logger,
    backlogs: Backlogs,
    /// The catalog as it was last heard of.
    catalog: Arc<Catalog>,
    peers: BTreeMap<RegionId, Peer>,
    /// Regions whose log is being made.
    creating: BTreeSet<RegionId>,
    /// There are regions whose log is yet to be made, since the log writer had too much to do.
    creations_wait: bool,
    /// Logs that this start has found and nobody uses. After the start these are regions that the catalog does not name yet,
    /// since it was not flushed after it took them up: what the meta group's log applies again names them, and they go on
    /// from their own logs.
    stored: BTreeMap<RegionId, StoredLog>,
    /// Regions whose namespaces the catalog is deleting.
    deleting: BTreeSet<RegionId>,
    /// The markers that regions' logs are to take, as the catalog stands.
    markers: BTreeMap<RegionId, Marker>,
    /// What the gates were told last.
    told: BTreeMap<RegionId, Arc<Descriptor>>,
    /// Regions of which the data had something at the start. It is not asked again: this loop does not wait for a disk.
    with_data: BTreeSet<RegionId>,
    touched: BTreeSet<RegionId>,
    /// Where reads wait for entries to be applied.
    reading: BTreeSet<RegionId>,
    clock: Clock,
    physical: Clocks,
    /// This and the next one count from when the loop begins to run.
    next_tick: Instant,
    next_upkeep: Instant,
}

/// What a [`PeerManager`] is made of.
pub(crate) struct Parts {
    pub(crate) config: Arc<Config>,
    pub(crate) mailbox: Mailbox,
    pub(crate) eventual: Eventual,
    pub(crate) transport: Transport,
    pub(crate) log: LogWriterHandle,
    pub(crate) applier: ApplierHandle,
    pub(crate) fetcher: Fetcher,
    pub(crate) outbound: Outbound,
    pub(crate) installer: Installer,
    pub(crate) health: Peers,
    pub(crate) disk: Disk,
    pub(crate) clocks: Clocks,
    pub(crate) regions: Regions,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) logger: slog::Logger,
}

/// Why the regions on disk cannot be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BootError {
    /// The disk could not be read, or contradicts itself.
    #[error(transparent)]
    Storage(#[from] rdb_storage::Error),
    /// A region's data and log do not fit together.
    #[error(
        "{0}. This node lost data that it had promised to keep: do not start it; see docs/data-on-disk.md"
    )]
    Region(#[from] rdb_core::raft::BootError),
    /// The log has records of a region's gate that are none.
    #[error(
        "region {region}: {source}. The log is damaged: do not start this node; see docs/data-on-disk.md"
    )]
    Gate {
        /// Which region.
        region: RegionId,
        /// What is wrong with them.
        source: rdb_core::codec::Corrupt,
    },
    /// The data has a region whose log is gone.
    #[error(
        "region {region} has data but no log: the log was lost. Do not start this node; see docs/data-on-disk.md"
    )]
    LogLost {
        /// Which region.
        region: RegionId,
    },
}

impl Turns for PeerManager {
    fn turn(&mut self, events: Drain<'_, Event>, by_clock: bool) -> Turn {
        for event in events {
            if matches!(event, Event::Stop) {
                return Turn::End;
            }
            self.handle(event);
        }
        if by_clock {
            self.go_on_by_clock();
        } else {
            self.hand_out();
        }
        Turn::Next { at: self.next_tick, awaits_applied: !self.reading.is_empty() }
    }
}

impl PeerManager {
    /// Starts all regions that the log holds and the catalog names.
    pub(crate) fn boot(parts: Parts, engine: &Engine, catalog: &rdb_pd::Machine) -> Result<Self, BootError> {
        let Parts { config, mailbox, eventual, transport, log, applier, fetcher, .. } = parts;
        let Parts { outbound, installer, health, disk, clocks, regions, metrics, logger, .. } = parts;
        let mut manager = Self {
            incarnation: engine.identity().incarnation,
            logs: engine.log(),
            data: engine.data(),
            config,
            mailbox,
            eventual,
            transport,
            log,
            applier,
            fetcher,
            outbound,
            installer,
            health,
            disk,
            regions,
            metrics,
            logger,
            backlogs: Backlogs::new(),
            catalog: Arc::new(catalog.catalog().clone()),
            peers: BTreeMap::new(),
            creating: BTreeSet::new(),
            creations_wait: false,
            stored: BTreeMap::new(),
            deleting: BTreeSet::new(),
            markers: BTreeMap::new(),
            told: BTreeMap::new(),
            origins: engine.origins(),
            with_data: BTreeSet::new(),
            touched: BTreeSet::new(),
            reading: BTreeSet::new(),
            clock: Clock::default(),
            physical: clocks,
            next_tick: Instant::now(),
            next_upkeep: Instant::now(),
        };
        manager.remove_leftovers(catalog.catalog())?;
        manager.boot_stored(catalog)?;
        manager.reconcile()?;
        Ok(manager)
    }

    /// Removes the data of namespaces whose deletion this node had flushed, but not yet carried out.
    fn remove_leftovers(&mut self, catalog: &Catalog) -> Result<(), BootError> {
        let (regions, namespaces) = self.data.present()?;
        for region in regions {
            if catalog.standing(region) == Standing::Gone {
                self.data.destroy_region(region)?;
            } else {
                self.with_data.insert(region);
            }
        }
        for namespace in namespaces {
            if catalog.is_gone(namespace) {
                self.data.destroy_records(namespace)?;
            }
        }
        Ok(())
    }

    /// Starts the meta region; what the catalog says of the others decides about their logs.
    fn boot_stored(&mut self, catalog: &rdb_pd::Machine) -> Result<(), BootError> {
        for stored in self.logs.regions()? {
            let region = stored.region();
            if region == RegionId::META {
                let machine = applier::Machine::Catalog(catalog.clone());
                let boot = stored.into_boot(catalog.state().applied, rand::random());
                let mode = switch::Region::new(Mode::Strong);
                let first = (Before::default(), None);
                self.start(boot, NamespaceId::META, machine, (*catalog.state(), mode), first)?;
            } else {
                self.stored.insert(region, stored);
            }
        }
        Ok(())
    }

    /// Starts a region from its log, and from its data as far as that was flushed.
    fn start_stored(&mut self, stored: StoredLog, namespace: &Namespace) -> Result<(), BootError> {
        let region = stored.region();
        let (state, sessions) = self.data.load(region)?.unwrap_or_default();
        let mode = self.data.load_mode(region)?;
        let mode = mode.unwrap_or_else(|| switch::Region::new(namespace.first_mode));
        let machine = rdb_core::apply::Machine::new(region, state, sessions).in_mode(mode.clone());
        let mut boot = stored.into_boot(state.applied, rand::random());
        let mut found_at = 0;
        if let Some((index, term)) = self.origins.entered(region)?
            && index <= boot.last
            && boot.terms.term(index) == Some(term)
        {
            // This node has answered in the era that begins there.
            boot.hard_state.commit = boot.hard_state.commit.max(index);
            found_at = index;
        }
        let controls = self.origins.gate(region)?;
        let epochs = eventual::epochs_in(controls.as_deref());
        let epochs = epochs.map_err(|source| BootError::Gate { region, source })?;
        let preferred = Some(namespace.preferred_leader);
        let before = Before { found_at, epochs };
        self.start(boot, namespace.id, applier::Machine::Keys(machine), (state, mode), (before, preferred))?;
        self.open_gate(namespace, None);
        Ok(())
    }

    /// Opens the region's gate, or tells it of the era that the region's log has entered.
    fn open_gate(&mut self, namespace: &Namespace, entered: Option<eventual::Entry>) {
        let Some(peer) = self.peers.get(&namespace.region) else { return };
        let (region, members) = (namespace.region, namespace.members.clone());
        let (id, settings, mode) = (namespace.id, namespace.settings, peer.mode.clone());
        let opening = eventual::Opening { region, namespace: id, members, settings, mode };
        // Whatever is sent to that thread because of an eventual mode must come behind this in its mailbox; and what it has held for
        // a strong one goes back to this loop, which must be known to take it.
        let is_strong = peer.mode.mode() == Mode::Strong;
        if is_strong {
            peer.view.set_mode(&peer.mode);
        }
        self.eventual.post(eventual::Event::Open { opening, entered });
        if !is_strong {
            peer.view.set_mode(&peer.mode);
        }
        self.told.remove(&region);
    }

    /// A region's log has put it into another era.
    fn entered(&mut self, region: RegionId, mode: switch::Region, place: (Index, Term)) {
        let Some(peer) = self.peers.get_mut(&region) else { return };
        self.touched.insert(region);
        let (is_eventual, era) = (mode.mode() == Mode::Eventual, mode.era());
        // At a start eras begin that this node was in before: its records are behind its logs, and the note of the newest one stays.
        let is_new = peer.view.found_at() < place.0;
        peer.entered(mode);
        let catalog = self.catalog.clone();
        // One that is being deleted needs no gate any more.
        let Standing::Named(namespace) = catalog.standing(region) else { return };
        if is_eventual && is_new {
            self.eventual.announce(region, era);
        }
        self.open_gate(namespace, Some(eventual::Entry { place, is_new }));
        self.tell_descriptors();
    }

    /// Tells the gates what the catalog says, where that is new.
    fn tell_descriptors(&mut self) {
        let mut descriptors = Vec::new();
        for namespace in self.catalog.namespaces().filter(|namespace| namespace.stage == Stage::Open) {
            let region = namespace.region;
            let known = self.told.get(&region).is_some_and(|told| Arc::ptr_eq(told, &namespace.descriptor));
            if !known && self.peers.contains_key(&region) {
                self.told.insert(region, namespace.descriptor.clone());
                descriptors.push((region, namespace.descriptor.clone()));
            }
        }
        if !descriptors.is_empty() {
            self.eventual.post(eventual::Event::Heard { descriptors });
        }
    }

    fn start(
        &mut self,
        boot: Boot,
        namespace: NamespaceId,
        machine: applier::Machine,
        (state, mode): (State, switch::Region),
        (before, preferred): (Before, Option<NodeId>),
    ) -> Result<(), BootError> {
        let region = boot.region;
        let mut options = self.config.raft();
        if region == RegionId::META {
            // The catalog is one group, and what the nodes' health is read from.
            options = Options { eager_commits: true, sleep_after_ticks: None, ..options };
        }
        let group = Group::new(options, boot, self.logs.region(region), &self.logger)?;
        self.applier.post(Task::Open { region, namespace, machine: Box::new(machine) });
        let view = self.regions.insert(region, &before);
        let who = (self.config.node(), preferred);
        let peer = Peer::new(group, namespace, view, self.backlogs.region(), (&state, mode), who);
        peer.publish();
        self.peers.insert(region, peer);
        self.touched.insert(region);
        Ok(())
    }

    /// Runs until it is told to stop.
    pub(crate) fn run(mut self, events: Events) {
        let now = Instant::now();
        (self.next_tick, self.next_upkeep) = (now + self.config.tick(), now + UPKEEP_INTERVAL);
        events.run(Box::new(self));
    }

    /// Ticks and upkeep, as far as they are due, and what all of that and the events have led to.
    fn go_on_by_clock(&mut self) {
        let now = Instant::now();
        if self.next_tick <= now {
            // However late this is, it is one tick: a burst would make every follower stand for election after
            // a pause of the process, when its leader's messages are still in the mailbox.
            self.next_tick = now + self.config.tick();
            self.tick();
        }
        let upkeep = self.next_upkeep <= now;
        if upkeep {
            self.next_upkeep = now + UPKEEP_INTERVAL;
            self.shorten_logs();
            self.spread_leaders();
            self.go_on_deleting();
            self.go_on_creating();
            self.go_on_replacing();
        }
        self.hand_out();
        if upkeep {
            self.fall_asleep();
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Write { region, commands, waiter } => self.write(region, commands, waiter),
            Event::Read { region, waiter } => self.read(region, waiter),
            Event::Messages { from, messages, share } => {
                for (region, message) in messages {
                    self.step(from, region, message);
                }
                drop(share);
            }
            Event::Unreachable { peer } => self.unreachable(peer),
            Event::Sleep { from, regions, share } => {
                drop(share);
                for (region, sleep) in regions {
                    if let Some(peer) = self.peers.get_mut(&region) {
                        peer.group.fall_asleep_with(from, sleep);
                        peer.publish();
                    }
                }
            }
            Event::Restarted { node } => self.wake_followers_of(node),
            Event::Persisted { region, number } => {
                let mut ends_install = false;
                self.with(region, |peer| {
                    ends_install = peer.installing.as_ref().is_some_and(|(awaited, _)| *awaited == number);
                    peer.writes_in_flight = peer.writes_in_flight.saturating_sub(1);
                    peer.backlog.written(number);
                    peer.group.persisted(number);
                });
                if ends_install {
                    // Until then nothing is handed out of this group. What follows may start other regions, and read the disk for it.
                    self.mailbox.post(Event::InstallWritten { region, number });
                }
            }
            Event::InstallWritten { region, number } => {
                self.touched.insert(region);
                self.finish_install(region, number);
            }
            Event::Applied { region, index, truncate_to, closed } => {
                let mut may_drop = false;
                self.with(region, |peer| {
                    peer.applied(index, closed);
                    may_drop = peer.truncate_to < truncate_to;
                    peer.truncate_to = truncate_to;
                });
                if may_drop {
                    // At once: what is dropped before the log's memtable is full never comes to a table file.
                    self.drop_entries_of(region);
                }
                if closed {
                    self.remove_closed(|closed| closed == region);
                }
            }
            Event::Leave { region, offered, left } => {
                self.eventual.post(eventual::Event::Leave { region, offered, left });
            }
            Event::Replace { region } => self.with(region, |peer| {
                peer.replace = true;
                peer.group.let_lead(false);
                peer.group.request_snapshot();
            }),
            Event::Entered { region, mode, index, term } => self.entered(region, mode, (index, term)),
            Event::Fetched { region, term, low, entries, share, context } => {
                drop(share);
                self.with(region, |peer| {
                    let entries = entries.unwrap_or_else(|error| {
                        // Dropped in the meantime, since all have it; or overruled by a leader that came since, even if
                        // this node leads again. Whoever asked no longer needs it.
                        let asked = peer.group.is_leader() && peer.group.status().term == term;
                        if asked && peer.group.first_index() <= low {
                            crate::node::die(&format!("region {region}: the log cannot be read: {error}"));
                        }
                        Vec::new()
                    });
                    peer.group.fetched(low, entries, context);
                });
            }
            Event::Snapshot { from, region, message, arrived } => {
                self.snapshot_arrived(from, region, *message, arrived);
            }
            Event::Installed { region, number, machine, state } => self.with(region, |peer| {
                if peer.installing.as_ref().is_some_and(|(awaited, _)| *awaited == number) {
                    peer.installed = Some((machine, state));
                }
            }),
            Event::SnapshotSent { region, peer: node, term, taken } => {
                self.with(region, |peer| peer.snapshot_sent(node, term, taken));
            }
            Event::Catalog(catalog) => self.adopt(catalog),
            Event::RegionCreated { region } => self.created(region),
            Event::Flushed => self.drop_entries(),
            Event::HandOver => self.hand_over(),
            Event::Stop => {}
        }
    }

    fn adopt(&mut self, catalog: Arc<Catalog>) {
        self.catalog = catalog;
        if let Err(error) = self.reconcile() {
            crate::node::die(&format!("a region cannot be started: {error}"));
        }
    }

    fn snapshot_arrived(&mut self, from: NodeId, region: RegionId, message: Message, arrived: Arrived) {
        // Dropped, `arrived` tells its sender that the region is gone.
        let Some(peer) = self.peers.get_mut(&region) else { return };
        self.touched.insert(region);
        let claimed = NodeId(message.from);
        let stepped = if !stands_for(&message, arrived.staged.state()) {
            Err(Rejected::Contradiction("a snapshot's data and its message stand at different places"))
        } else if peer.group.status().applied < peer.view.found_at() {
            // It has yet to come to the era again that it has answered in, and then to see what it alone has of that.
            Err(Rejected::Stale)
        } else if !takes(&peer.mode, arrived.staged.mode()) {
            Err(Rejected::Contradiction(
                "it would replace writes of an eventual era, which this node alone may have",
            ))
        } else if claimed == from {
            peer.group.step_snapshot(message)
        } else {
            Err(Rejected::Route { from: claimed, to: NodeId(message.to) })
        };
        match stepped {
            // The next effects say whether it is wanted.
            Ok(()) => peer.arrived = Some(arrived),
            Err(reason) => {
                tracing::warn!(%region, %from, %reason, "a snapshot was refused");
                let _ = arrived.answer.send(Err(reason.to_string()));
            }
        }
    }

    /// The log has followed a snapshot: the region goes on from there.
    fn finish_install(&mut self, region: RegionId, number: u64) {
        let Some(peer) = self.peers.get_mut(&region) else { return };
        let Some((_, answer)) = peer.installing.take_if(|(awaited, _)| *awaited == number) else { return };
        let Some((machine, state)) = peer.installed.take() else {
            crate::node::die(&format!(
                "region {region}: its log has begun anew before its data was replaced"
            ));
        };
        peer.backlog.replaced();
        peer.replace = false;
        peer.group.let_lead(true);
        peer.truncate_to = state.truncate_to;
        if state.closed {
            peer.group.close();
        }
        peer.group.installed();
        let namespace = peer.namespace;
        let entered = match &*machine {
            applier::Machine::Keys(machine) if *machine.mode() != peer.mode => Some(machine.mode().clone()),
            _ => None,
        };
        let catalog = match &*machine {
            applier::Machine::Catalog(machine) => Arc::new(machine.catalog().clone()),
            // Should the namespace be gone by now, the region was kept until here.
            applier::Machine::Keys(_) => self.catalog.clone(),
        };
        self.applier.post(Task::Open { region, namespace, machine });
        let _ = answer.send(Ok(()));
        self.adopt(catalog);
        if let Some(mode) = entered {
            self.entered(region, mode, (state.applied, state.applied_term));
        } else if let Standing::Named(namespace) = self.catalog.clone().standing(region) {
            // Of the same era: its gate looks again at what it has read of the data.
            self.open_gate(namespace, None);
        }
    }

    fn with(&mut self, region: RegionId, act: impl FnOnce(&mut Peer)) {
        if let Some(peer) = self.peers.get_mut(&region) {
            act(peer);
            self.touched.insert(region);
        }
    }

    fn write(&mut self, region: RegionId, commands: rdb_core::command::Encoded, waiter: WriteWaiter) {
        let Some(peer) = self.peers.get_mut(&region) else {
            return waiter.answer(Err(Failure::NotLeader { leader: None }));
        };
        if peer.mode.mode() == Mode::Eventual || !waiter.terms().are_of(peer.mode.era()) {
            // It was on its way here when the mode changed.
            return waiter.answer(Err(Failure::ModeChanged));
        }
        self.touched.insert(region);
        if peer.backlog.is_full() {
            return waiter.answer(Err(Failure::Busy));
        }
        if let Err((waiter, failure)) = peer.group.propose(commands, waiter) {
            waiter.answer(Err(failure));
        }
    }

    fn read(&mut self, region: RegionId, waiter: ReadWaiter) {
        let Some(peer) = self.peers.get_mut(&region) else {
            return waiter.answer(Err(Failure::NotLeader { leader: None }));
        };
        self.touched.insert(region);
        if let Err((waiter, failure)) = peer.group.read(waiter) {
            waiter.answer(Err(failure));
        }
    }

    fn step(&mut self, from: NodeId, region: RegionId, message: Message) {
        // A region that is not here yet, or no longer: its messages come again, or are of no use.
        let Some(peer) = self.peers.get_mut(&region) else { return };
        let append = message.msg_type == MessageType::MsgAppend as i32;
        let full = || self.disk.room() == Room::Gone && FULL_APPEND_BYTES_MAX < bytes(&message);
        if append && (peer.backlog.is_full() || full()) {
            return;
        }
        self.touched.insert(region);
        let claimed = NodeId(message.from);
        let stepped = if claimed == from {
            peer.group.step(message)
        } else {
            Err(Rejected::Route { from: claimed, to: NodeId(message.to) })
        };
        if let Err(reason) = stepped {
            self.metrics.message_rejected();
            if matches!(reason, Rejected::Log { .. }) {
                tracing::error!(%region, %from, %reason, "a peer's message contradicts this node's log");
            } else {
                tracing::debug!(%region, %from, %reason, "a peer's message was dropped");
            }
        }
    }

    fn unreachable(&mut self, node: NodeId) {
        for (region, peer) in &mut self.peers {
            if !peer.group.is_asleep() {
                peer.group.unreachable(node);
                self.touched.insert(*region);
            }
        }
    }

    fn tick(&mut self) {
        for member in self.config.members() {
            let silent = self.health.silence(member).is_none_or(|silence| SILENCE_MAX < silence);
            if member != self.config.node() && silent {
                self.wake_followers_of(member);
            }
        }
        for (region, peer) in &mut self.peers {
            if !peer.group.is_asleep() {
                peer.tick();
                self.touched.insert(*region);
            }
        }
    }

    /// What `node` led has no leader any more, and nobody but this node's watch over the others to say so.
    fn wake_followers_of(&mut self, node: NodeId) {
        for (region, peer) in &mut self.peers {
            if peer.group.is_asleep() && peer.group.leader() == Some(node) {
                peer.group.wake(true);
                self.touched.insert(*region);
            }
        }
    }

    /// Lets idle regions sleep that this node leads, and tells their followers.
    fn fall_asleep(&mut self) {
        let this = self.config.node();
        let heard = |node: &NodeId| self.health.silence(*node).is_some_and(|silence| silence <= SILENCE_MAX);
        if !self.config.members().iter().all(|node| *node == this || heard(node)) {
            return;
        }
        let mut sleepers = Vec::new();
        for (region, peer) in &mut self.peers {
            if peer.better_leader().is_none()
                && let Some(sleep) = peer.group.fall_asleep()
            {
                sleepers.push((*region, sleep));
                peer.publish();
            }
        }
        if sleepers.is_empty() {
            return;
        }
        tracing::debug!(regions = sleepers.len(), "idle regions have fallen asleep");
        for member in self.config.members() {
            self.transport.sleep(member, &sleepers);
        }
    }

    /// Hands out what the touched groups want done.
    fn hand_out(&mut self) {
        let stamp = self.clock.stamp(self.now_ms());
        while let Some(region) = self.touched.pop_first() {
            let Some(peer) = self.peers.get_mut(&region) else { continue };
            if self.deleting.contains(&region) {
                peer.close();
            } else if let Some(marker) = self.markers.get(&region) {
                peer.mark(marker);
            }
            if WRITES_PER_REGION_MAX <= peer.writes_in_flight {
                // Nothing that adds a write; but who waits in vain is told.
                fail(&mut peer.group);
            }
            let hands = Hands {
                transport: &self.transport,
                log: &self.log,
                applier: &self.applier,
                fetcher: &self.fetcher,
                outbound: &self.outbound,
                installer: &self.installer,
            };
            // While a snapshot is taken in, later writes must not overtake the one that starts the log anew.
            while peer.writes_in_flight < WRITES_PER_REGION_MAX && !peer.group.is_installing() {
                let Some(effects) = peer.group.take_effects(stamp) else {
                    if let Some(arrived) = peer.arrived.take() {
                        let reason = "it is of no use: the receiver is further, or follows another leader";
                        let _ = arrived.answer.send(Err(reason.to_owned()));
                    }
                    break;
                };
                peer.publish_commit();
                hands.carry_out(region, peer, effects);
            }
            peer.publish();
            if peer.group.has_reads() {
                self.reading.insert(region);
            } else {
                self.reading.remove(&region);
            }
        }
    }

    /// The wall clock at start, carried on by the monotonic clock: a step of the wall clock is not followed.
    fn now_ms(&self) -> u64 {
        self.physical.physical_ms()
    }

    /// Starts the regions that the catalog has and this node has not, and ends those that it no longer has.
    fn reconcile(&mut self) -> Result<(), BootError> {
        let catalog = self.catalog.clone();
        for (region, step) in catalog.steps(&self.holdings()) {
            match step {
                Step::Create(namespace) => self.create(&namespace)?,
                Step::Start(namespace) => {
                    if let Some(stored) = self.stored.remove(&region) {
                        self.start_stored(stored, &namespace)?;
                    }
                }
                Step::End => self.end(region),
                Step::DestroyLog => {
                    self.stored.remove(&region);
                    self.destroy_log(region);
                }
            }
        }
        for namespace in catalog.namespaces() {
            if let Some(peer) = self.peers.get_mut(&namespace.region) {
                let preferred = Some(namespace.preferred_leader);
                peer.move_asked |= peer.preferred != preferred;
                peer.preferred = preferred;
            }
        }
        self.deleting = catalog.deleting().map(|namespace| namespace.region).collect();
        let due = catalog
            .namespaces()
            .filter_map(|namespace| Some((namespace.region, Marker::due(&namespace.descriptor)?)));
        self.markers = due.collect();
        self.touched.extend(self.markers.keys());
        self.tell_descriptors();
        // Each turn with one of them looks whether it is to be closed here.
        self.touched.extend(&self.deleting);
        Ok(())
    }

    /// What this node has of users' regions.
    fn holdings(&self) -> BTreeMap<RegionId, Holding> {
        let mut holdings = BTreeMap::new();
        for (region, peer) in self.peers.range(RegionId::FIRST_USER..) {
            let installing = peer.group.is_installing();
            holdings.insert(*region, if installing { Holding::Installing } else { Holding::Running });
        }
        holdings.extend(self.creating.iter().map(|region| (*region, Holding::Creating)));
        holdings.extend(self.stored.keys().map(|region| (*region, Holding::Stored)));
        holdings
    }

    fn create(&mut self, namespace: &Namespace) -> Result<(), BootError> {
        let region = namespace.region;
        if self.with_data.contains(&region) {
            return Err(BootError::LogLost { region });
        }
        let mailbox = self.mailbox.clone();
        let done = move || mailbox.post(Event::RegionCreated { region });
        if ask_for_log(&self.log, region, &namespace.members, done)? {
            self.creating.insert(region);
        } else {
            self.creations_wait = true;
        }
        Ok(())
    }

    /// The catalog names what is missing here; it is looked at again.
    fn go_on_creating(&mut self) {
        if std::mem::take(&mut self.creations_wait) {
            self.adopt(self.catalog.clone());
        }
    }

    /// Whoever leads now may not have been asked for the snapshot that a replica needs.
    fn go_on_replacing(&mut self) {
        for (region, peer) in self.peers.iter_mut().filter(|(_, peer)| peer.replace) {
            // One that was left out too would not take it, and this node, which has not come to the end of its era, knows none of
            // them: in time it is another one's turn.
            if let Some(successor) = peer.ready_successor(|_| rand::random()) {
                peer.hand_over(successor);
            }
            peer.group.request_snapshot();
            self.touched.insert(*region);
        }
    }

    /// What a deletion still needs may have been lost on its way, with a leadership or by a full queue: it is asked for again.
    fn go_on_deleting(&mut self) {
        self.touched.extend(&self.deleting);
        self.touched.extend(self.markers.keys());
        self.remove_closed(|_| true);
    }

    /// The catalog's leader lets those namespaces go whose regions its own replicas have seen closed.
    fn remove_closed(&mut self, which: impl Fn(RegionId) -> bool) {
        if !self.peers.get(&RegionId::META).is_some_and(|meta| meta.group.is_leader()) {
            return;
        }
        let closed =
            |region| which(region) && self.peers.get(&region).is_some_and(|peer| peer.group.is_closed());
        let removable: Vec<NamespaceId> = self.catalog.removable(closed).collect();
        for id in removable {
            // Whether it was taken in shows in the catalog.
            let waiter = WriteWaiter::new(|_| ());
            self.write(RegionId::META, Command::RemoveNamespace { id }.encode(), waiter);
        }
    }

    fn created(&mut self, region: RegionId) {
        self.creating.remove(&region);
        let catalog = self.catalog.clone();
        // Deleted before its log was made.
        let Standing::Named(namespace) = catalog.standing(region) else { return self.destroy_log(region) };
        let boot = Boot {
            incarnation: self.incarnation,
            seed: rand::random(),
            ..Boot::fresh(region, self.config.node(), namespace.members.clone())
        };
        let mode = switch::Region::new(namespace.first_mode);
        let machine = rdb_core::apply::Machine::new(region, State::default(), Sessions::default());
        let machine = applier::Machine::Keys(machine.in_mode(mode.clone()));
        let first = (Before::default(), Some(namespace.preferred_leader));
        let started = self.start(boot, namespace.id, machine, (State::default(), mode), first);
        if let Err(error) = started {
            crate::node::die(&format!("a new region cannot be started: {error}"));
        }
        self.open_gate(namespace, None);
        self.tell_descriptors();
        tracing::info!(%region, namespace = namespace.name, "region created");
    }

    /// Ends a region whose namespace was deleted. Its data goes first, and durably, together with the catalog that no
    /// longer names it; then its log. Who reads the data looks afterwards whether the region is still in `regions`.
    fn end(&mut self, region: RegionId) {
        let Some(peer) = self.peers.remove(&region) else { return };
        self.regions.remove(region);
        self.told.remove(&region);
        self.reading.remove(&region);
        let (writes, reads) = peer.group.end();
        fail_all(writes, reads);
        let log = self.log.clone();
        let done = move || destroy_log(&log, region);
        let (applier, close) = (self.applier.clone(), Task::Close { region, done: Box::new(done) });
        // Not before the last of its writes: the data is destroyed once.
        let done = move || applier.post(close);
        self.eventual.post(eventual::Event::Close { region, done: Box::new(done) });
        tracing::info!(%region, "region removed");
    }

    /// Ends a region of which this node has a log and no replica. The log goes when the catalog that no longer names the region is
    /// durable: else a crash could make this node take the region up again, and vote twice.
    fn destroy_log(&self, region: RegionId) {
        let log = self.log.clone();
        let done = move || destroy_log(&log, region);
        self.applier.post(Task::Close { region, done: Box::new(done) });
    }

    /// Leaders let everyone drop what nobody is likely to need, less what is kept for short absences.
    fn shorten_logs(&mut self) {
        let limits = self.config.log_limits();
        for (region, peer) in &mut self.peers {
            // In eventual mode the region's own log is short. A snapshot for who lacks its beginning would replace writes that only
            // its receiver has.
            if !peer.group.is_leader() || peer.view.is_eventual() {
                continue;
            }
            let droppable = peer.droppable(&limits, |node| self.health.absence(node));
            let keep = peer.keep_entries(&limits);
            let target: Index = droppable.saturating_sub(keep);
            // Not for a handful: each costs an entry of its own.
            if peer.truncate_to + (keep / 4).max(1) < target {
                peer.group.propose_truncation(target);
                self.touched.insert(*region);
            }
        }
        self.drop_entries();
    }

    /// Drops what the state machines allow, as far as the data is durable.
    fn drop_entries(&mut self) {
        let regions: Vec<RegionId> = self.peers.keys().copied().collect();
        for region in regions {
            self.drop_entries_of(region);
        }
    }

    fn drop_entries_of(&mut self, region: RegionId) {
        // It comes to this again within a second, and the queue must have room for what cannot wait.
        if self.log.is_crowded() {
            return;
        }
        let target = self.data.truncation_target(region);
        let Some(peer) = self.peers.get_mut(&region) else { return };
        if let Some((dropped, terms)) = peer.group.truncate(target)
            && let Err(error) = self.log.truncate(region, dropped, terms)
        {
            // The group has forgotten the entries: a table of terms stored later would not fit what is on disk.
            crate::node::die(&format!("region {region}: the log cannot be shortened: {error}"));
        }
    }

    /// Hands regions to the nodes that should lead them, once those have been there for a while; and to one whose disk has room,
    /// or is quick, where this one's is not. A few at a time: writes to a region wait while it changes hands.
    fn spread_leaders(&mut self) {
        let here = Fitness::of(self.disk.room(), self.disk.slow_sync_ms());
        let fitness = |node| Fitness::of(self.health.room(node), self.health.slow_sync_ms(node));
        let mut moved = 0;
        for (region, peer) in &mut self.peers {
            if HAND_OVERS_PER_UPKEEP_MAX <= moved {
                return;
            }
            peer.move_asked &= peer.group.is_leader();
            let preferred = peer.better_leader().filter(|successor| {
                let both_fit = here == Fitness::Fit && fitness(*successor) == Fitness::Fit;
                hands_over(self.health.steady(*successor), peer.has_led(), peer.move_asked)
                    && (peer.move_asked || both_fit)
            });
            // Each write waits for a slow disk, but none is lost by it: nobody is woken for that, nor asked again and again.
            let waits = here == Fitness::Slow && (peer.has_led() < SLOW_LED_MIN || peer.group.is_asleep());
            let better = preferred.or_else(|| {
                if here == Fitness::Fit || waits {
                    return None;
                }
                // Who has just come says that its disk is quick until it has been seen to be slow.
                let steady_min = if here == Fitness::Slow { SLOW_LED_MIN } else { Duration::ZERO };
                let is_steady = |node| self.health.steady(node).is_some_and(|steady| steady_min <= steady);
                let ready = peer.ready_successors(is_steady);
                let ready: Vec<_> = ready.into_iter().map(|node| (node, fitness(node))).collect();
                let members = peer.group.status().members.len();
                replacement(here, &ready, members, peer.preferred, region.0)
            });
            let Some(successor) = better else { continue };
            moved += 1;
            tracing::info!(%region, %successor, "handing the leadership to a node that should rather have it");
            peer.hand_over(successor);
            self.touched.insert(*region);
        }
    }

    fn hand_over(&mut self) {
        let this = self.config.node();
        for (region, peer) in &mut self.peers {
            if peer.group.is_leader()
                && let Some(successor) = peer.successor(this)
            {
                tracing::info!(%region, %successor, "handing over the leadership");
                peer.hand_over(successor);
                self.touched.insert(*region);
            }
        }
    }
}

/// How well a node leads, as far as its disk is concerned; the best comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fitness {
    Fit,
    /// Each write would wait for its slow syncs.
    Slow,
    /// It must refuse writes, where another one need not.
    Full,
}

impl Fitness {
    fn of(room: Room, slow_sync_ms: u32) -> Self {
        match (room, slow_sync_ms) {
            (Room::Little | Room::Gone, _) => Fitness::Full,
            (Room::Enough, 1..) => Fitness::Slow,
            (Room::Enough, 0) => Fitness::Fit,
        }
    }
}

/// Who is to lead in place of a node whose disk is not fit, among those that could at once: whoever should lead anyway, else one
/// of the best, another one for each `region`.
fn replacement(
    here: Fitness,
    ready: &[(NodeId, Fitness)],
    members: usize,
    preferred: Option<NodeId>,
    region: u64,
) -> Option<NodeId> {
    let best = ready.iter().map(|(_, fitness)| *fitness).min().filter(|best| *best < here)?;
    let best: Vec<NodeId> = ready.iter().filter(|(_, it)| *it == best).map(|(node, _)| *node).collect();
    // A majority that needs the slow disk is no faster for another leader; and an election waits for two syncs of it.
    if here == Fitness::Slow && best.len() <= members / 2 {
        return None;
    }
    let turn = usize::try_from(region).unwrap_or_default() % best.len();
    preferred.filter(|preferred| best.contains(preferred)).or_else(|| best.get(turn).copied())
}

/// Whether a leader that has led for so long hands over to the member that should lead, which is heard without a pause for
/// so long: at once if somebody asked for it, else when both have settled.
fn hands_over(steady: Option<Duration>, has_led: Duration, asked: bool) -> bool {
    steady.is_some_and(|steady| asked || STEADY_MIN < steady && STEADY_MIN < has_led)
}

/// Whether a replica in `mode` may become what is offered: one that has never switched, where nothing is.
fn takes(mode: &switch::Region, offered: Option<&switch::Region>) -> bool {
    offered.map_or_else(|| mode.takes(&switch::Region::new(mode.mode())), |offered| mode.takes(offered))
}

/// Whether a message stands for a snapshot of this state.
fn stands_for(message: &Message, state: Option<&State>) -> bool {
    let place = message.get_snapshot().get_metadata();
    state.is_some_and(|state| (place.index, place.term) == (state.applied, state.applied_term))
}

/// Bytes of entries in a message.
fn bytes(message: &Message) -> usize {
    message.entries.iter().map(|entry| entry.data.len()).sum()
}

/// Who carries out what groups want done.
struct Hands<'m> {
    transport: &'m Transport,
    log: &'m LogWriterHandle,
    applier: &'m ApplierHandle,
    fetcher: &'m Fetcher,
    outbound: &'m Outbound,
    installer: &'m Installer,
}

impl Hands<'_> {
    fn carry_out(&self, region: RegionId, peer: &mut Peer, effects: Effects<WriteWaiter, ReadWaiter>) {
        self.transport.send(region, effects.send);
        if let Some(write) = effects.write {
            peer.writes_in_flight += 1;
            let bytes = write.entries.iter().map(|(_, entry)| entry.len()).sum();
            peer.backlog.write(write.number, bytes);
            self.write(region, peer, write);
        }
        if let Some(apply) = effects.apply {
            let bytes = apply.entries.iter().map(|entry| entry.data.len()).sum();
            peer.backlog.apply(apply.entries.last().map_or(0, |entry| entry.index), bytes);
            self.applier.post(Task::Apply { region, apply });
        }
        let led_in = peer.group.is_leader().then(|| peer.group.status().term);
        if !effects.reads.is_empty() {
            fail_point!("reads-before-answer");
        }
        for waiter in effects.reads {
            waiter.answer(Ok(Released { led_in }));
        }
        for fetch in effects.fetch {
            self.fetcher.fetch(region, peer.group.status().term, fetch);
        }
        for snapshot in effects.snapshots {
            peer.sending.insert(snapshot.to, (snapshot.message.term, snapshot.index));
            let (namespace, view, term) = (peer.namespace, peer.view.clone(), snapshot.message.term);
            self.outbound.send(Sending { region, namespace, snapshot, view, term });
        }
        fail_all(effects.failed_writes, effects.failed_reads);
    }

    fn write(&self, region: RegionId, peer: &mut Peer, write: LogWrite) {
        if write.snapshot.is_some() {
            let Some(Arrived { staged, answer }) = peer.arrived.take() else {
                crate::node::die(&format!("region {region}: a snapshot without its data was accepted"));
            };
            peer.installing = Some((write.number, answer));
            return self.installer.install(region, staged, write);
        }
        match self.log.append(region, write) {
            Ok(()) => {}
            // The queue has room for what `WRITES_PER_REGION_MAX` allows on a node with a thousand regions.
            Err(AppendError::Full(_)) => crate::node::die("the log writer's queue is full"),
            // It has said why, and the process is on its way out.
            Err(AppendError::Stopped(_)) => {}
        }
    }
}

fn fail(group: &mut Group<RegionLog, WriteWaiter, ReadWaiter>) {
    let (writes, reads) = group.take_failures();
    fail_all(writes, reads);
}

fn fail_all(writes: Vec<(WriteWaiter, Failure)>, reads: Vec<(ReadWaiter, Failure)>) {
    for (waiter, failure) in writes {
        waiter.answer(Err(failure));
    }
    for (waiter, failure) in reads {
        waiter.answer(Err(failure));
    }
}

/// Has a region's log made, unless the log writer has too much to do: many namespaces may be created, or learned of, at a
/// time, while the disk stands still.
fn ask_for_log(
    log: &LogWriterHandle,
    region: RegionId,
    members: &[NodeId],
    done: impl FnOnce() + Send + 'static,
) -> Result<bool, rdb_storage::Error> {
    if log.is_crowded() {
        return Ok(false);
    }
    match log.create_region(region, members.to_vec(), done) {
        Ok(()) => Ok(true),
        // Nothing was taken, so nothing is lost.
        Err(rdb_storage::Error::LogQueueFull) => Ok(false),
        Err(error) => Err(error),
    }
}

fn destroy_log(log: &LogWriterHandle, region: RegionId) {
    if let Err(error) = log.destroy_region(region, || {}) {
        // The next start finds a log that no namespace names, and removes it.
        tracing::warn!(%region, %error, "a removed region's log stays until the next start");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam_channel::bounded;
    use rdb_storage::{LogSink, LogWriter, LogWriterOptions};

    /// Nobody's sink: what is made here has no writes to report.
    struct Silent;

    impl LogSink for Silent {
        fn persisted(&mut self, _: RegionId, _: u64) {}
        fn send(&mut self, _: RegionId, _: Vec<Message>) {}
        fn failed(&mut self, error: rdb_storage::Error) {
            panic!("{error}");
        }
    }

    /// More regions than a log writer that stands still can be told of: none of them is a failure, the queue keeps room for
    /// others, and all are made in the end.
    #[test]
    fn regions_whose_log_finds_no_place_are_asked_for_again() {
        let (_directory, engine) = crate::peer::tests::engine();
        let options = LogWriterOptions { queue_changes_max: 8, ..LogWriterOptions::default() };
        let writer = LogWriter::spawn(&engine, &options, Silent).unwrap();
        let log = writer.handle();
        let ((entered, enters), (release, released)) = (bounded(0), bounded::<()>(0));
        let stand_still = move || {
            let _ = entered.send(());
            let _ = released.recv();
        };
        let mut missing: BTreeSet<_> =
            (0..20).map(|offset| RegionId(RegionId::FIRST_USER.0 + offset)).collect();
        let first = missing.pop_first().unwrap();
        assert!(ask_for_log(&log, first, &[NodeId(1)], stand_still).unwrap());
        enters.recv().unwrap();
        missing.retain(|region| !ask_for_log(&log, *region, &[NodeId(1)], || ()).unwrap());
        assert!(!missing.is_empty() && log.queued() <= 4, "{} wait, {missing:?}", log.queued());
        drop(release);
        while !missing.is_empty() {
            missing.retain(|region| !ask_for_log(&log, *region, &[NodeId(1)], || ()).unwrap());
        }
        writer.shutdown().unwrap();
        assert_eq!(engine.log().regions().unwrap().len(), 20);
    }

    #[test]
    fn a_slow_leader_is_replaced_where_the_others_are_fast_without_it() {
        use Fitness::{Fit, Full, Slow};
        let node = NodeId;
        let both = [(node(2), Fit), (node(3), Fit)];
        assert_eq!(replacement(Fit, &both, 3, Some(node(3)), 7), None);
        assert_eq!(replacement(Slow, &both, 3, Some(node(3)), 7), Some(node(3)), "it should lead anyway");
        assert_eq!(replacement(Slow, &both, 3, Some(node(1)), 6), Some(node(2)));
        assert_eq!(replacement(Slow, &both, 3, Some(node(1)), 7), Some(node(3)), "the next region's");
        let one = [(node(2), Fit), (node(3), Slow)];
        assert_eq!(replacement(Slow, &one, 3, None, 7), None, "a majority needs a slow disk either way");
        assert_eq!(replacement(Slow, &one[..1], 3, None, 7), None, "the other one is away");
        assert_eq!(replacement(Full, &one, 3, Some(node(3)), 7), Some(node(2)), "a full one must go");
        assert_eq!(replacement(Full, &one[1..], 3, None, 7), Some(node(3)));
        assert_eq!(replacement(Slow, &[(node(2), Slow), (node(3), Full)], 3, None, 7), None);
        assert_eq!(replacement(Slow, &[], 1, None, 7), None);
        assert_eq!(Fitness::of(Room::Little, 500), Full);
        assert_eq!((Fitness::of(Room::Enough, 120), Fitness::of(Room::Enough, 0)), (Slow, Fit));
    }

    #[test]
    fn leaderships_go_to_a_node_that_is_there_and_not_right_after_a_change() {
        let (long, short) = (2 * STEADY_MIN, STEADY_MIN / 2);
        assert!(hands_over(Some(long), long, false));
        assert!(!hands_over(Some(short), long, false), "it has only just come");
        assert!(!hands_over(Some(long), short, false), "it may just have given the leadership away");
        assert!(!hands_over(None, long, false) && !hands_over(None, long, true), "nobody hears it");
        assert!(hands_over(Some(short), short, true), "somebody waits for it");
    }

    #[test]
    fn a_snapshot_and_its_message_stand_at_the_same_place() {
        let mut message = Message::default();
        message.mut_snapshot().mut_metadata().index = 7;
        message.mut_snapshot().mut_metadata().term = 2;
        let state = |applied, applied_term| State { applied, applied_term, ..State::default() };
        assert!(stands_for(&message, Some(&state(7, 2))));
        assert!(!stands_for(&message, Some(&state(8, 2))) && !stands_for(&message, Some(&state(7, 3))));
        assert!(!stands_for(&message, None));
    }
}

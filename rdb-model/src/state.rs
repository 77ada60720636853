//! The world: three nodes, the catalog, the region's log, what is on its way, and what clients were told.

use crate::configuration::Configuration;
use crate::promises::Broken;
use rdb_core::ids::{Epoch, Era, Incarnation, NodeId};
use rdb_core::switch::planted::{Wrong, wrong};
use rdb_core::switch::{
    Change, Control, Descriptor, Marker, Mode, Origin, Peer, Progress, Region, Report, Vector, stream,
};
use rdb_core::version::{Hlc, Version};
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

/// How many nodes there are.
pub(crate) const NODES: usize = 3;

/// The id of the node with this number.
pub(crate) fn node_id(node: usize) -> NodeId {
    NodeId(node as u64 + 1)
}

/// The number of the node with this id.
pub(crate) fn node_of(id: NodeId) -> usize {
    usize::try_from(id.0 - 1).unwrap_or(usize::MAX)
}

/// A set of writes, by their ids. A key that is a set of unique elements: where the winner of a key would hide a loss, it
/// shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Ids(u16);

impl Ids {
    pub(crate) fn one(id: u8) -> Self {
        Ids(1 << id)
    }

    pub(crate) fn contains(self, id: u8) -> bool {
        self.0 & (1 << id) != 0
    }

    pub(crate) fn with(self, other: Ids) -> Self {
        Ids(self.0 | other.0)
    }

    pub(crate) fn without(self, other: Ids) -> Self {
        Ids(self.0 & !other.0)
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = u8> {
        (0..16).filter(move |id| self.contains(*id))
    }
}

impl FromIterator<u8> for Ids {
    fn from_iter<I: IntoIterator<Item = u8>>(ids: I) -> Self {
        ids.into_iter().fold(Ids::default(), |set, id| set.with(Ids::one(id)))
    }
}

/// A value that many states share and that is hashed once.
#[derive(Debug, Clone)]
pub(crate) struct Shared<T> {
    value: Arc<T>,
    hash: u64,
}

impl<T: Hash> Shared<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { hash: fingerprint(&value), value: Arc::new(value) }
    }

    pub(crate) fn arc(&self) -> &Arc<T> {
        &self.value
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: PartialEq> PartialEq for Shared<T> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.value, &other.value) || self.hash == other.hash && self.value == other.value
    }
}

impl<T: Eq> Eq for Shared<T> {}

impl<T> Hash for Shared<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.hash.hash(state);
    }
}

impl<T: PartialOrd> PartialOrd for Shared<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        self.value.partial_cmp(&other.value)
    }
}

impl<T: Ord> Ord for Shared<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.value.cmp(&other.value)
    }
}

/// A number that tells values apart, the same in every run.
pub(crate) fn fingerprint(value: &impl Hash) -> u64 {
    ahash::RandomState::with_seeds(1, 2, 3, 4).hash_one(value)
}

/// A write, as an onlooker knows it who sees everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Write {
    pub(crate) key: u8,
    pub(crate) node: u8,
    /// In whose mode it was accepted.
    pub(crate) mode: Mode,
    /// The era of the region of the node that accepted it.
    pub(crate) era: Era,
    /// The epoch of that node then.
    pub(crate) epoch: Epoch,
    /// Its number in its origin log, for eventual ones.
    pub(crate) origin: Option<(Origin, u64)>,
    /// Of a strong one, from when it is applied on.
    pub(crate) version: Version,
    /// Its place among the strong ones that were applied; 0 before.
    pub(crate) place: u8,
    /// The epoch that the client was told.
    pub(crate) acknowledged: Option<Epoch>,
}

/// One origin's log at one node.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct OriginLog {
    pub(crate) ids: Vec<u8>,
    pub(crate) synced: usize,
}

/// All origins' logs at one node, by origin.
pub(crate) type OriginLogs = Vec<(Origin, OriginLog)>;

/// An entry of the region's log.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Entry {
    Marker(Shared<Marker>),
    Put { era: Era, epoch: Epoch, id: u8 },
}

/// An entry on its way to the region's log.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Proposal {
    pub(crate) entry: Entry,
    pub(crate) by: usize,
}

/// A write between nodes, on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Delivery {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) era: Era,
    pub(crate) origin: Origin,
    pub(crate) seq: u64,
    pub(crate) id: u8,
}

/// A linearizable read that waits for its index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Reading {
    pub(crate) era: Era,
    pub(crate) index: usize,
    /// What was acknowledged before it began.
    pub(crate) must_see: Ids,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) peer: Peer,
    pub(crate) region: Region,
    /// The control records that are synced.
    pub(crate) controls: Vec<Control>,
    pub(crate) incarnation: u64,
    /// By origin. Of this node's era alone.
    pub(crate) logs: OriginLogs,
    /// Those of other eras, where a crash may take the region back to one of them.
    pub(crate) shelf: Vec<(Era, OriginLogs)>,
    /// What the region held as its era began, and the strong writes since.
    pub(crate) base: Ids,
    /// What it shows to readers: follows from the two before, and is worked out once.
    pub(crate) visible: Ids,
    pub(crate) quarantine: Ids,
    /// Entries of the region's log that are applied.
    pub(crate) applied: usize,
    /// Descriptors of the catalog that it has heard of since it started; it may have missed some of them.
    pub(crate) known: usize,
    /// Its own writes whose clients wait.
    pub(crate) waiting: Ids,
    /// The era of the newest marker that it has proposed, as leader.
    pub(crate) proposed: Option<Era>,
    pub(crate) reading: Option<Reading>,
    /// For the onlooker: the newest epoch that it has told a client.
    pub(crate) told: Epoch,
    /// For the onlooker: what eventual reads have shown.
    pub(crate) shown: Ids,
}

/// What may still happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Budget {
    pub(crate) eventual_writes: u8,
    pub(crate) strong_writes: u8,
    pub(crate) switches: u8,
    pub(crate) aborts: u8,
    pub(crate) crashes: u8,
    pub(crate) partitions: u8,
    pub(crate) late_deliveries: u8,
    pub(crate) late_changes: u8,
    pub(crate) local_reads: u8,
    pub(crate) strong_reads: u8,
    pub(crate) strong_only: u8,
    pub(crate) timers: u8,
}

/// The world. Most of it is the same before and after a step, so it is shared.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct State {
    pub(crate) nodes: [Arc<Node>; NODES],
    /// All that the catalog has said, in order.
    pub(crate) catalog: Arc<Vec<Shared<Descriptor>>>,
    /// What has reached the controller; sorted.
    pub(crate) reports: Arc<Vec<Report>>,
    /// A change on its way to the catalog.
    pub(crate) late_change: Option<Change>,
    /// The region's committed log.
    pub(crate) log: Arc<Vec<Entry>>,
    /// What may be committed later; sorted.
    pub(crate) proposals: Vec<Proposal>,
    pub(crate) late_delivery: Option<Delivery>,
    pub(crate) isolated: Option<usize>,
    pub(crate) writes: Arc<Vec<Write>>,
    pub(crate) budget: Budget,
    /// For the onlooker: the newest era in which something strong was answered.
    pub(crate) strong_served: Option<Era>,
    /// For the onlooker: a strong-only operation was refused.
    pub(crate) strong_refused: bool,
    /// For the onlooker: what was broken by an answer, and shows in no later state.
    pub(crate) broken: Broken,
}

impl State {
    pub(crate) fn first(configuration: &Configuration) -> Self {
        let members = (0..NODES).map(node_id);
        let descriptor = Shared::new(Descriptor::new(configuration.start, members));
        let node = |node| Arc::new(Node::first(node, configuration.start, descriptor.arc()));
        Self {
            nodes: std::array::from_fn(node),
            catalog: Arc::new(vec![descriptor.clone()]),
            reports: Arc::default(),
            late_change: None,
            log: Arc::default(),
            proposals: Vec::new(),
            late_delivery: None,
            isolated: None,
            writes: Arc::default(),
            budget: Budget::of(configuration),
            strong_served: None,
            strong_refused: false,
            broken: Broken::default(),
        }
    }

    /// What the catalog says now.
    pub(crate) fn descriptor(&self) -> &Descriptor {
        &self.catalog[self.catalog.len() - 1]
    }

    pub(crate) fn node_mut(&mut self, node: usize) -> &mut Node {
        Arc::make_mut(&mut self.nodes[node])
    }

    pub(crate) fn write_mut(&mut self, id: u8) -> &mut Write {
        &mut Arc::make_mut(&mut self.writes)[usize::from(id)]
    }

    pub(crate) fn write(&self, id: u8) -> &Write {
        &self.writes[usize::from(id)]
    }

    /// Whether two nodes hear each other.
    pub(crate) fn are_connected(&self, a: usize, b: usize) -> bool {
        self.isolated.is_none_or(|node| node != a && node != b)
    }

    /// Whether a node hears the majority, on whose side the leaders of both logs are.
    pub(crate) fn is_connected(&self, node: usize) -> bool {
        self.isolated != Some(node)
    }

    /// What a node shows to readers.
    pub(crate) fn visible(&self, node: usize) -> Ids {
        self.nodes[node].visible
    }

    /// All writes that their clients were told to be done.
    pub(crate) fn acknowledged(&self) -> Ids {
        self.ids(|write| write.acknowledged.is_some())
    }

    pub(crate) fn ids(&self, is_one: impl Fn(&Write) -> bool) -> Ids {
        let numbered = (0u8..).zip(self.writes.iter());
        numbered.filter(|(_, write)| is_one(write)).map(|(id, _)| id).collect()
    }

    /// The first marker to this era in the region's log, whoever has applied it.
    pub(crate) fn marker(&self, era: Era) -> Option<&Marker> {
        self.log.iter().find_map(|entry| match entry {
            Entry::Marker(marker) if marker.era == era => Some(&**marker),
            Entry::Marker(_) | Entry::Put { .. } => None,
        })
    }

    /// Writes that a switch has gone on without: of an excluded node, beyond the cut.
    pub(crate) fn left_behind(&self) -> Ids {
        self.ids(|write| {
            let Some((origin, seq)) = write.origin else { return false };
            let marker = self.marker(Era(write.era.0 + 1));
            marker.is_some_and(|marker| {
                let boundary = &marker.boundary;
                boundary.excluded.contains(&origin.node) && boundary.cut.get(origin) < seq
            })
        })
    }

    /// A clock's reading above all that this node has seen.
    pub(crate) fn stamp(&self, node: usize, wall_ms: u64) -> Hlc {
        let seen = self.nodes[node].appended().with(self.nodes[node].base);
        let highest = seen.iter().map(|id| self.write(id).version.hlc).max().unwrap_or_default();
        rdb_core::hlc::Clock::above(highest).stamp(wall_ms)
    }
}

/// Leaves out what follows from the rest: the descriptor that was heard is one of the catalog's, and its position tells which.
impl Hash for Node {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let peer = &self.peer;
        (peer.epoch(), peer.gate(), peer.writing(), peer.heard().map(|heard| heard.position())).hash(state);
        (&self.region, &self.controls, self.incarnation, &self.logs, &self.shelf).hash(state);
        (self.base, self.quarantine, self.applied, self.known, self.waiting, self.proposed).hash(state);
        (self.reading, self.told, self.shown).hash(state);
    }
}

impl Node {
    fn first(node: usize, mode: Mode, descriptor: &Arc<Descriptor>) -> Self {
        let region = Region::new(mode);
        let mut peer = Peer::start(node_id(node), &region, &[]);
        peer.hear(descriptor);
        Self {
            peer,
            region,
            controls: Vec::new(),
            incarnation: 1,
            logs: Vec::new(),
            shelf: Vec::new(),
            base: Ids::default(),
            visible: Ids::default(),
            quarantine: Ids::default(),
            applied: 0,
            known: 1,
            waiting: Ids::default(),
            proposed: None,
            reading: None,
            told: Epoch(0),
            shown: Ids::default(),
        }
    }

    /// What it shows to readers.
    pub(crate) fn shows(&self) -> Ids {
        self.base.with(self.held(stream::visible(&self.progress())))
    }

    /// How far its origin logs go.
    pub(crate) fn progress(&self) -> Progress {
        let of = |len: fn(&OriginLog) -> usize| {
            self.logs.iter().map(|(origin, log)| (*origin, len(log) as u64)).collect()
        };
        Progress { appended: of(|log| log.ids.len()), synced: of(|log| log.synced) }
    }

    /// The writes of its origin logs up to a vector.
    pub(crate) fn held(&self, vector: &Vector) -> Ids {
        let within = |(origin, log): &(Origin, OriginLog)| {
            let upto = usize::try_from(vector.get(*origin)).unwrap_or(usize::MAX).min(log.ids.len());
            log.ids[..upto].iter().copied().collect()
        };
        self.logs.iter().map(within).fold(Ids::default(), Ids::with)
    }

    /// The writes of its origin logs.
    pub(crate) fn appended(&self) -> Ids {
        self.logs.iter().flat_map(|(_, log)| &log.ids).copied().collect()
    }

    pub(crate) fn is_all_synced(&self) -> bool {
        self.peer.writing().is_none() && self.logs.iter().all(|(_, log)| log.synced == log.ids.len())
    }

    pub(crate) fn log_mut(&mut self, origin: Origin) -> &mut OriginLog {
        let at = self.logs.partition_point(|(other, _)| *other < origin);
        if self.logs.get(at).is_none_or(|(other, _)| *other != origin) {
            self.logs.insert(at, (origin, OriginLog::default()));
        }
        &mut self.logs[at].1
    }

    pub(crate) fn log(&self, origin: Origin) -> Option<&OriginLog> {
        self.logs.iter().find(|(other, _)| *other == origin).map(|(_, log)| log)
    }

    /// Takes up the logs of the era that the region has entered, which are new unless it was there before.
    pub(crate) fn change_logs(&mut self, from: Era, keeps: bool) {
        let old = std::mem::take(&mut self.logs);
        if keeps && !old.is_empty() {
            self.shelf.push((from, old));
            self.shelf.sort_by_key(|(era, _)| *era);
        }
        if let Some(at) = self.shelf.iter().position(|(era, _)| *era == self.region.era()) {
            let (_, logs) = self.shelf.remove(at);
            self.logs = if wrong(Wrong::MarkerEmptiesLogs) { OriginLogs::new() } else { logs };
        }
    }

    /// Who numbers what this node accepts now.
    pub(crate) fn origin(&self) -> Origin {
        Origin { node: self.peer.node(), incarnation: Incarnation(self.incarnation) }
    }
}

impl Budget {
    fn of(configuration: &Configuration) -> Self {
        Self {
            eventual_writes: configuration.eventual_writes,
            strong_writes: configuration.strong_writes,
            switches: u8::try_from(configuration.switches.len()).unwrap_or(u8::MAX),
            aborts: configuration.aborts,
            crashes: configuration.crashes,
            partitions: configuration.partitions,
            late_deliveries: configuration.late_deliveries,
            late_changes: configuration.late_changes,
            local_reads: configuration.local_reads,
            strong_reads: configuration.strong_reads,
            strong_only: configuration.strong_only,
            timers: configuration.timers,
        }
    }
}

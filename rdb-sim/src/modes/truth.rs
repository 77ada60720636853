//! What really happened, as an onlooker knows it who sees every node and every client: the writes and what became of them, the
//! markers, and what was told to whom. `invariants/` holds the worlds to it.

use super::node::Node;
use crate::invariants::{Violation, holds};
use rdb_core::apply::Answer;
use rdb_core::eventual::vector::{Origin, Seq, Vector, WriteId};
use rdb_core::ids::{Epoch, Era, Index, NodeId};
use rdb_core::switch::{Marker, Mode};
use rdb_core::version::{Hlc, Version};
use std::collections::{BTreeMap, BTreeSet};

pub(super) type Key = Vec<u8>;
/// What readers find: of each key the version and the number that is its value. Deletions are not in it.
pub(super) type Found = BTreeMap<Key, (Version, u64)>;

/// A write that a node has accepted, or the region's log has executed.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) writes: Vec<(Key, Option<u64>)>,
    pub(super) version: Version,
    /// Of an eventual one.
    pub(super) id: Option<WriteId>,
    pub(super) acknowledged: bool,
}

/// An answer that says "done" to a client, or shows what a linearizable read found.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answered {
    pub(super) epoch: Epoch,
    pub(super) era: Era,
    pub(super) mode: Mode,
}

#[derive(Debug)]
pub(super) struct Truth {
    pub(super) start: Mode,
    /// By the number of the operation.
    pub(super) writes: BTreeMap<u64, Written>,
    /// What operations would write that were proposed to the region's log.
    proposed: BTreeMap<u64, Vec<(Key, Option<u64>)>>,
    /// Operations in the order in which they were acknowledged.
    pub(super) acknowledged: Vec<u64>,
    /// Those that were acknowledged, and that a power cut has taken.
    pub(super) undone: BTreeSet<u64>,
    /// The marker to each era, and its place in the region's log.
    pub(super) markers: BTreeMap<Era, (Marker, Index)>,
    /// Which operation each command of an entry was, and what it came to at the first replica that applied it.
    puts: BTreeMap<(Index, usize), (u64, Option<Version>)>,
    /// What each era began with.
    pub(super) bases: BTreeMap<Era, Found>,
    /// The highest frontier that was told, by era.
    pub(super) frontier: BTreeMap<Era, Hlc>,
    /// The last write of each origin that was acknowledged, by era.
    pub(super) answered: BTreeMap<(Era, Origin), Seq>,
    /// The highest stamp that each node has acknowledged.
    pub(super) stamps: BTreeMap<NodeId, Hlc>,
    /// The newest epoch that each node has told.
    pub(super) told: BTreeMap<NodeId, Epoch>,
    pub(super) epochs: BTreeMap<Epoch, (Era, Mode)>,
    /// The newest era in which something strong was answered.
    pub(super) strong_served: Option<Era>,
    /// What each node has shown to local readers.
    pub(super) shown: BTreeMap<NodeId, (Era, Vector)>,
    /// When each node last heard each other.
    pub(super) heard: BTreeMap<(NodeId, NodeId), u64>,
}

impl Truth {
    pub(super) fn new(start: Mode) -> Self {
        Self {
            start,
            writes: BTreeMap::new(),
            proposed: BTreeMap::new(),
            acknowledged: Vec::new(),
            undone: BTreeSet::new(),
            markers: BTreeMap::new(),
            puts: BTreeMap::new(),
            bases: BTreeMap::from([(Era(1), Found::new())]),
            frontier: BTreeMap::new(),
            answered: BTreeMap::new(),
            stamps: BTreeMap::new(),
            told: BTreeMap::new(),
            epochs: BTreeMap::new(),
            strong_served: None,
            shown: BTreeMap::new(),
            heard: BTreeMap::new(),
        }
    }

    /// Eras take turns, so the era alone tells the mode.
    pub(super) fn mode_of(&self, era: Era) -> Mode {
        if era.0 % 2 == 1 { self.start } else { self.start.other() }
    }

    pub(super) fn acknowledged(&self) -> usize {
        self.acknowledged.len()
    }

    /// A node accepts an eventual write.
    pub(super) fn accepted(
        &mut self,
        op: u64,
        era: Era,
        id: WriteId,
        hlc: Hlc,
        writes: &[(Key, Option<u64>)],
    ) -> Result<(), Violation> {
        let version = Version { era, hlc, node: id.origin.node };
        let written = Written { writes: writes.to_vec(), version, id: Some(id), acknowledged: false };
        self.stamp_is_new(&written)?;
        let before = self.writes.insert(op, written);
        holds("a write is done once", before.is_none(), || format!("operation {op} was {before:?} before"))
    }

    /// A write is on its way to the region's log.
    pub(super) fn proposed(&mut self, op: u64, writes: Vec<(Key, Option<u64>)>) {
        self.proposed.insert(op, writes);
    }

    /// A replica has applied a command, which stands at this place in this entry. All replicas come to the same.
    pub(super) fn put_applied(
        &mut self,
        node: NodeId,
        (index, place): (Index, usize),
        op: u64,
        answer: &Answer,
    ) -> Result<(), Violation> {
        let version = match answer {
            Answer::Done(version) => Some(*version),
            _ => None,
        };
        let first = !self.puts.contains_key(&(index, place));
        let known = *self.puts.entry((index, place)).or_insert((op, version));
        holds("replicas apply alike", known == (op, version), || {
            format!("node {node}, entry {index}: operation {op} as {version:?}, elsewhere {known:?}")
        })?;
        if let Some(version) = version.filter(|_| first) {
            let writes = self.proposed.get(&op).cloned().unwrap_or_default();
            let written = Written { writes, version, id: None, acknowledged: false };
            let before = self.writes.insert(op, written);
            holds("a write is done once", before.is_none(), || {
                format!("operation {op}, entry {index}: it was {before:?} before")
            })?;
        }
        Ok(())
    }

    /// A client is told that its write is done.
    pub(super) fn acknowledge(&mut self, op: u64) -> Result<(), Violation> {
        let Some(written) = self.writes.get_mut(&op) else { return Ok(()) };
        if !std::mem::replace(&mut written.acknowledged, true) {
            self.acknowledged.push(op);
        }
        let Version { hlc, node, .. } = written.version;
        if let Some(WriteId { origin, seq }) = written.id {
            let answered = self.answered.entry((written.version.era, origin)).or_default();
            *answered = seq.max(*answered);
            let highest = self.stamps.entry(node).or_default();
            *highest = hlc.max(*highest);
        }
        self.is_not_lost(op)
    }

    /// Whether a switch went on without this write: of an excluded node, beyond the cut.
    pub(super) fn is_left_behind(&self, op: u64) -> bool {
        let Some(Written { id: Some(id), version, .. }) = self.writes.get(&op) else { return false };
        let Some((marker, _)) = self.markers.get(&Era(version.era.0 + 1)) else { return false };
        let boundary = &marker.boundary;
        boundary.excluded.contains(&id.origin.node) && !boundary.cut.has(*id)
    }

    /// Whether the switch that ended an era went on without this node.
    pub(super) fn is_excluded(&self, node: NodeId, era: Era) -> bool {
        let marker = self.markers.get(&Era(era.0 + 1));
        marker.is_some_and(|(marker, _)| marker.boundary.excluded.contains(&node))
    }

    /// Whether a write counts, if the era that nobody has left yet stands at `now`.
    fn counts(&self, written: &Written, now: &Vector) -> bool {
        let Some(id) = written.id else { return true };
        match self.markers.get(&Era(written.version.era.0 + 1)) {
            Some((marker, _)) => marker.boundary.cut.has(id),
            None => now.has(id),
        }
    }

    /// What readers must find of the writes of all eras before `era`: of each key the greatest version, and nothing where that
    /// is a deletion.
    pub(super) fn expected(&self, era: Era, now: &Vector) -> Found {
        let mut winners: BTreeMap<&Key, (Version, Option<u64>)> = BTreeMap::new();
        for written in self.writes.values() {
            if era <= written.version.era || !self.counts(written, now) {
                continue;
            }
            for (key, value) in &written.writes {
                let winner = winners.entry(key).or_insert((written.version, *value));
                if winner.0 < written.version {
                    *winner = (written.version, *value);
                }
            }
        }
        let found = winners.into_iter().filter_map(|(key, (v, value))| Some((key.clone(), (v, value?))));
        found.collect()
    }
}

/// What readers find at a node.
pub(super) fn found_at(node: &Node) -> Found {
    node.data.current.living().map(|(key, found)| (key.clone(), found)).collect()
}

/// Where two sets of findings differ first.
pub(super) fn difference(expected: &Found, found: &Found) -> String {
    let missing = expected.iter().find(|(key, value)| found.get(*key) != Some(value));
    let extra = found.iter().find(|(key, value)| expected.get(*key) != Some(value));
    let show = |one: Option<(&Key, &(Version, u64))>| {
        one.map(|(key, value)| format!("{} {value:?}", String::from_utf8_lossy(key)))
    };
    format!("expected {:?}, found {:?}", show(missing), show(extra))
}

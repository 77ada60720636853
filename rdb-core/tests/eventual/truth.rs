//! What really happened: every write, and what its node had applied when it accepted it.
//!
//! From that alone follows what the replicas must come to. Of a key, the greatest write stays. A write was replaced if
//! some write's node had it applied, and nothing greater of that key; all that neither stay nor were replaced are lost.

use rdb_core::eventual::vector::{Origin, Seq, Vector, WriteId};
use rdb_core::ids::Era;
use rdb_core::version::{Hlc, Version};
use std::collections::{BTreeMap, BTreeSet};

pub(crate) type Key = Vec<u8>;
pub(crate) type Value = Option<Vec<u8>>;

struct Written {
    key: Key,
    version: Version,
    value: Value,
    seen: Vector,
}

/// Of one era, and of what it began with.
pub(crate) struct Truth {
    pub(crate) era: Era,
    base: BTreeMap<Key, (Version, Value)>,
    writes: BTreeMap<WriteId, Written>,
    acknowledged: BTreeSet<WriteId>,
}

impl Truth {
    pub(crate) fn begin(era: Era, base: BTreeMap<Key, (Version, Value)>) -> Self {
        Self { era, base, writes: BTreeMap::new(), acknowledged: BTreeSet::new() }
    }

    /// A node that has applied `seen` accepts a write. Its own earlier ones are before it, applied or not.
    pub(crate) fn write(&mut self, id: WriteId, key: &[u8], hlc: Hlc, value: Value, mut seen: Vector) {
        let version = Version { era: self.era, hlc, node: id.origin.node };
        seen.raise(id.origin, id.seq - 1);
        let written = Written { key: key.to_vec(), version, value, seen };
        assert!(self.writes.insert(id, written).is_none(), "{id:?} was given twice");
    }

    pub(crate) fn acknowledge(&mut self, id: WriteId) {
        assert!(self.writes.contains_key(&id), "{id:?} was never written");
        self.acknowledged.insert(id);
    }

    /// A power cut has undone what an origin had acknowledged behind `last`. How many writes that were.
    pub(crate) fn undo(&mut self, origin: Origin, last: Seq) -> usize {
        let before = self.acknowledged.len();
        self.acknowledged.retain(|id| id.origin != origin || id.seq <= last);
        before - self.acknowledged.len()
    }

    /// How many writes a crash has undone before anybody was told of them.
    pub(crate) fn vanished(&self, all: &Vector) -> usize {
        self.writes.keys().filter(|id| !all.has(**id)).count()
    }

    /// That no acknowledged write is missing where `all` is everywhere.
    pub(crate) fn check_acknowledged(&self, all: &Vector) {
        let missing: Vec<_> = self.acknowledged.iter().filter(|id| !all.has(**id)).collect();
        assert!(missing.is_empty(), "acknowledged and nowhere: {missing:?}");
    }

    /// When a write was accepted, and what it wrote.
    pub(crate) fn written(&self, id: WriteId) -> (Hlc, Value) {
        let written = &self.writes[&id];
        (written.version.hlc, written.value.clone())
    }

    /// What stays of each key, tombstones included.
    pub(crate) fn stays(&self, all: &Vector) -> BTreeMap<Key, (Version, Value)> {
        let mut writes: Vec<_> = self.writes.iter().filter(|(id, _)| all.has(**id)).collect();
        // Writes that were accepted together share a version; of one key's the last one stays.
        writes.sort_by_key(|(id, written)| (written.version, **id));
        let mut stays = self.base.clone();
        stays.extend(
            writes.iter().map(|(_, written)| (written.key.clone(), (written.version, written.value.clone()))),
        );
        stays
    }

    /// What is lost.
    pub(crate) fn lost(&self, all: &Vector) -> BTreeSet<(Key, WriteId)> {
        let mut by_key: BTreeMap<&Key, Vec<(&WriteId, &Written)>> = BTreeMap::new();
        for (id, written) in self.writes.iter().filter(|(id, _)| all.has(**id)) {
            by_key.entry(&written.key).or_default().push((id, written));
        }
        let mut lost = BTreeSet::new();
        for (key, writes) in by_key {
            let greatest = |of: &dyn Fn(&WriteId) -> bool| {
                let seen = writes.iter().filter(|(id, _)| of(id));
                seen.max_by_key(|(id, written)| (written.version, **id)).map(|(id, _)| **id)
            };
            let mut kept: BTreeSet<WriteId> = greatest(&|_| true).into_iter().collect();
            kept.extend(writes.iter().filter_map(|(_, written)| greatest(&|id| written.seen.has(*id))));
            lost.extend(
                writes.iter().filter(|(id, _)| !kept.contains(id)).map(|(id, _)| (key.clone(), **id)),
            );
        }
        lost
    }
}

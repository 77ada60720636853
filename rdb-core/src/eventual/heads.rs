//! What is stored under the keys that were written lately, without the values: who accepts or applies a write must know which
//! write lies there, and to look for it in the records costs more than all else that is done for the write.
//!
//! Bounded in bytes. There are two generations: what is found or put goes into the younger one, and when that is full the older
//! one is forgotten. It takes no note of each use, as a list of the least recently used would, and keeps what is used all the
//! same.

use super::vector::WriteId;
use crate::codec::Corrupt;
use crate::record::{self, Record};
use crate::version::Version;
use ahash::AHashMap;
use smallvec::SmallVec;

/// A key in a table that is looked into for every write. Few are longer than what lies in the table itself: to look for one that lies
/// elsewhere is to wait for memory a second time.
pub(super) type TableKey = SmallVec<[u8; 32]>;

/// What an entry takes besides its key's bytes: the key's place, the head, and the table's slack.
const OVERHEAD_BYTES: usize = 184;

/// A record without its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) version: Version,
    pub(super) id: Option<WriteId>,
    pub(super) is_tombstone: bool,
}

impl Head {
    pub(super) fn of(record: &Record<'_>) -> Self {
        Self { version: record.version, id: record.id, is_tombstone: record.value.is_none() }
    }

    /// The record, with nothing for its value. It will do where only is asked whether there is one.
    pub(super) fn as_record(&self) -> Record<'static> {
        let value: Option<&[u8]> = if self.is_tombstone { None } else { Some(&[]) };
        Record { version: self.version, id: self.id, value }
    }
}

/// Keys, and what is stored under them, which may be nothing.
#[derive(Debug, Default)]
pub(super) struct Heads {
    young: AHashMap<TableKey, Option<Head>>,
    old: AHashMap<TableKey, Option<Head>>,
    young_bytes: usize,
    bytes_max: usize,
}

impl Heads {
    /// Keeps about so many bytes from now on. With 0 it keeps nothing.
    pub(super) fn set_bytes_max(&mut self, bytes_max: usize) {
        self.bytes_max = bytes_max;
        self.make_room();
    }

    /// Gives all of it out for a while.
    pub(super) fn lend(&mut self) -> Self {
        let bytes_max = self.bytes_max;
        std::mem::replace(self, Self { bytes_max, ..Self::default() })
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        self.lend();
    }

    /// What is stored under the key: it is read if that is not known here.
    pub(super) fn find<E: From<Corrupt>>(
        &mut self,
        key: &[u8],
        read: impl FnOnce() -> Result<Option<Vec<u8>>, E>,
    ) -> Result<Option<Head>, E> {
        if let Some(head) = self.get(key) {
            return Ok(head);
        }
        let stored = read()?;
        let head = stored.as_deref().map(record::decode).transpose()?.map(|record| Head::of(&record));
        self.put(key, head);
        Ok(head)
    }

    /// What is stored under the key; `None` if that is not known here.
    fn get(&mut self, key: &[u8]) -> Option<Option<Head>> {
        if let Some(head) = self.young.get(key) {
            return Some(*head);
        }
        let (key, head) = self.old.remove_entry(key)?;
        self.insert(key, head);
        Some(head)
    }

    /// Takes note of what is stored under the key by now.
    pub(super) fn put(&mut self, key: &[u8], head: Option<Head>) {
        if let Some(known) = self.young.get_mut(key) {
            *known = head;
            return;
        }
        let key = self.old.remove_entry(key).map_or_else(|| TableKey::from_slice(key), |(key, _)| key);
        self.insert(key, head);
    }

    fn insert(&mut self, key: TableKey, head: Option<Head>) {
        self.young_bytes += key.len() + OVERHEAD_BYTES;
        self.young.insert(key, head);
        self.make_room();
    }

    fn make_room(&mut self) {
        if self.bytes_max < 2 * self.young_bytes {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        if self.bytes_max == 0 {
            self.old.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Era, NodeId};
    use crate::version::Hlc;

    fn head(hlc: u64) -> Option<Head> {
        let version = Version { era: Era(1), hlc: Hlc(hlc), node: NodeId(1) };
        Some(Head { version, id: None, is_tombstone: false })
    }

    fn heads(entries: usize) -> Heads {
        let mut heads = Heads::default();
        heads.set_bytes_max(2 * entries * (OVERHEAD_BYTES + 1));
        heads
    }

    #[test]
    fn the_last_word_on_a_key_is_what_is_found() {
        let mut heads = heads(2);
        assert_eq!(heads.get(b"a"), None);
        heads.put(b"a", None);
        assert_eq!(heads.get(b"a"), Some(None), "it is known that there is nothing");
        heads.put(b"a", head(1));
        assert_eq!(heads.get(b"a"), Some(head(1)));
        // The generations change, and the key is in the older one when it is put again.
        heads.put(b"b", head(2));
        heads.put(b"c", head(3));
        heads.put(b"a", head(4));
        assert_eq!(heads.get(b"a"), Some(head(4)));
    }

    #[test]
    fn what_is_used_stays_and_the_rest_is_forgotten() {
        let mut heads = heads(4);
        for n in 0..100u8 {
            heads.put(&[n], head(u64::from(n)));
            assert_eq!(heads.get(&[0]), Some(head(0)));
            assert!(heads.young.len() + heads.old.len() <= 9);
        }
        assert_eq!(heads.get(&[50]), None);
    }

    #[test]
    fn without_room_nothing_is_kept() {
        let mut heads = Heads::default();
        heads.put(b"a", head(1));
        assert_eq!(heads.get(b"a"), None);
    }
}

//! Merging a copy of another member's part of the era, and single records of it.
//!
//! The sender stands at one vector, this node at another one; each knows of a key the greatest write that it has, and those
//! of its writes that are lost. From the two follows what all of their writes together come to. A write is a leaf of the key's tree if
//! nobody who has it knows of one that replaced it: where both have it, both must take it for a leaf; where one has it, the other must
//! not await it as one that was replaced. Of the leaves the greatest stays, and the others are lost.

use super::{Batch, Changes, Error, Machine, View};
use crate::coverage::{Branch, reached};
use crate::eventual::buckets;
use crate::eventual::conflicts::{self, Lost};
use crate::eventual::copy::{Copied, Note, Page, Part};
use crate::eventual::merge::merge;
use crate::eventual::vector::{Vector, WriteId};
use crate::ids::Era;
use crate::record::{self, Record};
use std::collections::BTreeMap;

impl Machine {
    /// Whether a copy is merged in part: the records are then ahead of the vector.
    pub fn is_copying(&self) -> bool {
        self.state.copied_pages != 0
    }

    /// Merges the next page of a copy. With the last one this node stands where both stood together. Until then nothing but
    /// writes of this node's own may be applied in between.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn copy_page<V: View>(
        &mut self,
        note: &Note,
        page: &Page,
        view: &V,
    ) -> Result<Changes, Error<V::Error>> {
        if note.era != self.state.era {
            return Err(Error::Era { found: note.era, expected: self.state.era });
        }
        // Whoever writes over what a page has brought must be above it.
        self.state.highest = self.state.highest.max(note.highest);
        self.written = self.written.max(note.highest);
        let mut batch = Batch::new(view, &mut self.heads);
        match page {
            Page::Awaited(ids) => {
                for id in ids {
                    let key = conflicts::awaited_key(note.era, *id);
                    self.state.awaited += batch.put_note(key, conflicts::awaited())?;
                }
            }
            Page::Records(records) => {
                for copied in records {
                    self.copy_key(copied, &note.vector, &mut batch)?;
                }
            }
        }
        self.state.copied_pages += 1;
        self.state.copied_to.clone_from(&note.vector);
        if note.pages <= self.state.copied_pages {
            self.end_copy(note, &mut batch)?;
        }
        Ok(batch.finish(&self.state, &mut self.heads))
    }

    fn end_copy<V: View>(&mut self, note: &Note, batch: &mut Batch<'_, V>) -> Result<(), Error<V::Error>> {
        self.state.applied.merge(&note.vector);
        self.state.copied_pages = 0;
        self.state.copied_to = Vector::default();
        self.same_applied = false;
        if self.state.awaited == 0 {
            return Ok(());
        }
        let (from, to) =
            (conflicts::awaited_of_era(note.era), conflicts::awaited_of_era(Era(note.era.0 + 1)));
        for (key, _) in batch.notes(&from, &to)? {
            let (_, id) = conflicts::parse_awaited_key(&key)?;
            if self.state.applied.has(id) {
                self.state.awaited -= batch.remove_note(&key)?;
            }
        }
        Ok(())
    }

    /// Merges a part of a key. Lost writes are looked at where the part tells of them; the record comes with the first one, and is
    /// merged just once: this node may have written over it before the next one comes.
    fn copy_key<V: View>(
        &mut self,
        copied: &Copied,
        has: &Vector,
        batch: &mut Batch<'_, V>,
    ) -> Result<(), Error<V::Error>> {
        let mut lost = BTreeMap::new();
        for (id, note) in &copied.lost {
            lost.insert(*id, Lost::decode(note)?);
        }
        match &copied.part {
            Part::First(record) => {
                let theirs = record::decode(record)?;
                let stored = batch.record(&copied.key)?;
                let mine = stored.as_deref().map(record::decode).transpose()?;
                if mine.is_none() && self.has_purged(&theirs) {
                    reached(Branch::CopyFindsRecordPurged);
                    return Ok(());
                }
                self.copy_lost(copied, (theirs.id, &lost), has, batch)?;
                self.copy_record(copied, mine, theirs, (&lost, has), batch)
            }
            // Where the tombstone of the first part was purged here, all of this is known here, too.
            Part::Rest { record, .. } => self.copy_lost(copied, (Some(*record), &lost), has, batch),
        }
    }

    fn copy_lost<V: View>(
        &mut self,
        copied: &Copied,
        (record, lost): (Option<WriteId>, &BTreeMap<WriteId, Lost>),
        has: &Vector,
        batch: &mut Batch<'_, V>,
    ) -> Result<(), Error<V::Error>> {
        self.find_replaced_there(copied, (record, lost), has, batch)?;
        for (id, note) in lost {
            // Of what this node has, it knows itself what became of it; or it has replaced it before it came.
            let is_known = self.state.applied.has(*id) || self.is_awaited(*id, batch)?;
            if !is_known {
                let kept = note.kept.clone().filter(|_| self.keep_lost);
                let listed = note.listed.filter(|_| self.keep_lost);
                let note = Lost { settled: false, kept, listed, ..note.clone() };
                let key = conflicts::lost_key(self.state.era, &copied.key, *id);
                self.state.lost += batch.put_note(key, note.encode())?;
            }
        }
        Ok(())
    }

    /// Whether this node had that tombstone and purged it.
    fn has_purged(&self, theirs: &Record<'_>) -> bool {
        let had =
            theirs.version.era < self.state.era || theirs.id.is_some_and(|id| self.state.applied.has(id));
        theirs.value.is_none() && theirs.version.hlc <= self.state.purged && had
    }

    fn is_awaited<V: View>(&self, id: WriteId, batch: &Batch<'_, V>) -> Result<bool, Error<V::Error>> {
        if self.state.awaited == 0 {
            return Ok(false);
        }
        Ok(batch.note(&conflicts::awaited_key(self.state.era, id))?.is_some())
    }

    /// What this node takes for lost is not, if the sender has it and knows better, or awaits it as replaced.
    fn find_replaced_there<V: View>(
        &mut self,
        copied: &Copied,
        (record, lost): (Option<WriteId>, &BTreeMap<WriteId, Lost>),
        has: &Vector,
        batch: &mut Batch<'_, V>,
    ) -> Result<(), Error<V::Error>> {
        if self.state.lost == 0 {
            return Ok(());
        }
        let (from, to) = copied.tells_of(self.state.era);
        for (key, note) in batch.notes(&from, &to)? {
            let (_, _, id) = conflicts::parse_lost_key(&key)?;
            let is_replaced = if has.has(id) {
                !lost.contains_key(&id) && record != Some(id)
            } else {
                self.is_awaited(id, batch)?
            };
            if is_replaced && !Lost::decode(&note)?.settled {
                reached(Branch::EventualCopyFindsReplaced);
                self.state.lost -= batch.remove_note(&key)?;
            }
        }
        Ok(())
    }

    fn copy_record<V: View>(
        &mut self,
        copied: &Copied,
        mine: Option<Record<'_>>,
        theirs: Record<'_>,
        (lost, has): (&BTreeMap<WriteId, Lost>, &Vector),
        batch: &mut Batch<'_, V>,
    ) -> Result<(), Error<V::Error>> {
        let (era, key) = (self.state.era, &copied.key[..]);
        let Some(mine) = mine else {
            self.buckets.change(key, None, buckets::counted(&theirs, era));
            batch.put_record(key, &theirs);
            return Ok(());
        };
        let merged = merge(mine, theirs);
        let Some(goes) = merged.goes else { return Ok(()) };
        let id = goes.id.filter(|_| goes.version.era == era);
        let mine_goes = merged.stays == theirs;
        if mine_goes {
            self.buckets.change(key, buckets::counted(&mine, era), buckets::counted(&theirs, era));
            batch.put_record(key, &theirs);
        }
        let (Some(id), Some(by)) = (id, merged.stays.id) else { return Ok(()) };
        let is_lost = match mine_goes {
            // The sender has it, and knows whether it was replaced. A later part may tell: until then it counts as lost, and is found
            // again there.
            true if has.has(id) => {
                lost.contains_key(&id) || copied.goes_on_after().is_some_and(|last| last < id)
            }
            // This node has it, and knew already what became of it.
            false if self.state.applied.has(id) => return Ok(()),
            _ => !self.is_awaited(id, batch)?,
        };
        if is_lost {
            let note = self.lost(&goes, by, merged.stays.version.hlc).encode();
            self.state.lost += batch.put_note(conflicts::lost_key(era, key, id), note)?;
        }
        Ok(())
    }

    /// Takes over records of another replica that stood at the same vector and held different ones: of each key the greater one
    /// stays. Records that this node could not have are passed over; how many were taken over, and what is to be written.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn repair<V: View>(
        &mut self,
        records: &[(Vec<u8>, Vec<u8>)],
        view: &V,
    ) -> Result<(u64, Changes), Error<V::Error>> {
        let era = self.state.era;
        let mut batch = Batch::new(view, &mut self.heads);
        let mut taken = 0;
        for (key, stored) in records {
            let theirs = record::decode(stored)?;
            let is_of_here = match theirs.version.era {
                earlier if earlier < era => theirs.value.is_some(),
                same if same == era => theirs.id.is_some_and(|id| self.state.applied.has(id)),
                _ => false,
            };
            if !is_of_here || self.has_purged(&theirs) {
                continue;
            }
            let mine = batch.record(key)?;
            let mine = mine.as_deref().map(record::decode).transpose()?;
            let stays = mine.map_or(theirs, |mine| merge(mine, theirs).stays);
            if mine != Some(stays) {
                let counted_mine = mine.as_ref().and_then(|mine| buckets::counted(mine, era));
                self.buckets.change(key, counted_mine, buckets::counted(&stays, era));
                batch.put_record(key, &stays);
                taken += 1;
            }
        }
        Ok((taken, batch.finish(&self.state, &mut self.heads)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply;
    use crate::command::Write;
    use crate::eventual::buckets::{Buckets, Comparison};
    use crate::eventual::copy;
    use crate::eventual::machine::{Changes, Notes, State};
    use crate::eventual::run::Run;
    use crate::eventual::vector::tests::origin;
    use crate::version::Hlc;
    use std::convert::Infallible;

    const ERA: Era = Era(2);

    #[derive(Default)]
    struct Data {
        records: BTreeMap<Vec<u8>, Vec<u8>>,
        notes: BTreeMap<Vec<u8>, Vec<u8>>,
    }

    impl apply::View for Data {
        type Error = Infallible;
        fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Infallible> {
            Ok(self.records.get(key).cloned())
        }
    }

    impl View for Data {
        fn note(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Infallible> {
            Ok(self.notes.get(key).cloned())
        }

        fn notes(&self, from: &[u8], to: &[u8]) -> Result<Notes, Infallible> {
            let range = self.notes.range(from.to_vec()..to.to_vec());
            Ok(range.map(|(key, note)| (key.clone(), note.clone())).collect())
        }
    }

    impl Data {
        fn write(&mut self, changes: Changes) {
            for (map, changes) in [(&mut self.records, changes.records), (&mut self.notes, changes.notes)] {
                for (key, value) in changes {
                    match value {
                        Some(value) => map.insert(key, value),
                        None => map.remove(&key),
                    };
                }
            }
        }

        fn buckets(&self) -> Buckets {
            let mut buckets = Buckets::default();
            for (key, stored) in &self.records {
                buckets.change(key, None, Some(&record::decode(stored).unwrap()));
            }
            buckets
        }
    }

    struct Replica {
        machine: Machine,
        data: Data,
    }

    fn replica() -> Replica {
        let machine = Machine::new(State::begin(ERA, Hlc(0)), Buckets::default(), false);
        Replica { machine, data: Data::default() }
    }

    impl Replica {
        fn write(&mut self, node: u64, key: &[u8], value: Option<&[u8]>) -> Run {
            let me = origin(node, 1);
            let after = self.machine.state().applied.get(me);
            let stamp = self.machine.state().highest.next();
            let run = self.machine.write(stamp, me, after, &[Write { key, value }], &self.data).unwrap();
            self.apply(&run);
            run
        }

        fn apply(&mut self, run: &Run) {
            let changes = self.machine.apply(std::slice::from_ref(run), &self.data).unwrap();
            self.data.write(changes);
        }

        fn records(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
            self.data.records.clone().into_iter().collect()
        }

        fn repair(&mut self, records: &[(Vec<u8>, Vec<u8>)]) -> u64 {
            let (taken, changes) = self.machine.repair(records, &self.data).unwrap();
            self.data.write(changes);
            taken
        }

        fn differs(&self, other: &Replica) -> bool {
            let compared = self.machine.digest().compare(&other.machine.digest());
            matches!(compared, Comparison::Different(_))
        }
    }

    #[test]
    fn replicas_that_lost_something_take_it_over_from_each_other_and_nothing_else() {
        let (mut one, mut two) = (replica(), replica());
        for (key, value) in [(b"a", Some(&b"1"[..])), (b"b", Some(b"2")), (b"c", None), (b"a", Some(b"3"))] {
            let run = one.write(1, key, value);
            two.apply(&run);
        }
        let first = one.records();
        // One has lost a record, the other one an update, and both start again.
        one.data.records.remove(&b"b"[..]);
        let mut stale = replica();
        let old = stale.write(1, b"a", Some(b"1"));
        assert_eq!(old.last(), 1);
        two.data.records.insert(b"a".to_vec(), stale.data.records[&b"a"[..]].clone());
        for replica in [&mut one, &mut two] {
            replica.machine = Machine::new(replica.machine.state().clone(), replica.data.buckets(), false);
        }
        assert!(one.differs(&two));
        assert_eq!(one.repair(&two.records()), 1);
        assert_eq!(two.repair(&one.records()), 1);
        assert!(!one.differs(&two));
        assert_eq!((one.records(), two.records()), (first.clone(), first));
        assert_eq!(one.repair(&two.records()), 0, "all is there");
    }

    #[test]
    fn what_this_replica_could_not_have_is_not_taken_over() {
        let (mut one, mut two) = (replica(), replica());
        let run = one.write(1, b"a", Some(b"1"));
        two.apply(&run);
        two.write(2, b"b", Some(b"of a write that has not come yet"));
        assert_eq!(one.repair(&two.records()), 0);
        // A tombstone that this replica has purged, and the other one has not.
        let run = one.write(1, b"a", None);
        two.apply(&run);
        let found: Vec<_> = one.records();
        let to = one.machine.state().highest;
        let settled = one.machine.state().applied.clone();
        let purged = one.machine.purge(to, &settled, &found, &one.data).unwrap();
        one.data.write(purged);
        assert_eq!((one.repair(&two.records()), one.records().len()), (0, 0));
    }

    impl Replica {
        /// The pages of a copy of it, a part of a key each.
        fn pages(&self) -> Vec<Page> {
            let (from, to) = (conflicts::awaited_of_era(ERA), conflicts::awaited_of_era(Era(ERA.0 + 1)));
            let mut pages = vec![copy::awaited(&self.data.notes(&from, &to).unwrap()).unwrap()];
            for (key, stored) in &self.data.records {
                // As small as they can be.
                let max = (0 < self.machine.state().lost, 1);
                let parts = copy::parts(ERA, (key, stored), max, &self.data).unwrap();
                pages.extend(parts.into_iter().map(|part| Page::Records(vec![part])));
            }
            pages
        }

        /// Merges pages of a copy of another one.
        fn merge(&mut self, other: &Replica, pages: &[Page], all: usize) {
            let note = Note::of(crate::ids::NodeId(9), other.machine.state(), all as u64);
            for page in pages {
                let changes = self.machine.copy_page(&note, page, &self.data).unwrap();
                self.data.write(changes);
            }
        }

        fn copy(&mut self, other: &Replica) {
            let pages = other.pages();
            self.merge(other, &pages, pages.len());
            assert!(!self.machine.is_copying());
            assert!(self.machine.state().applied.covers(&other.machine.state().applied));
        }
        fn lost_notes(&self) -> Notes {
            let to = conflicts::lost_of_era(Era(ERA.0 + 1));
            self.data.notes(&conflicts::lost_of_era(ERA), &to).unwrap()
        }
    }

    /// Two nodes write the same key, each without having seen the other one's last word.
    fn write_over_each_other(one: &mut Replica, two: &mut Replica, times: usize) -> Vec<(Run, Run)> {
        let mut runs = Vec::new();
        for _ in 0..times {
            let (first, second) = (one.write(1, b"k", Some(b"1")), two.write(2, b"k", Some(b"2")));
            one.apply(&second);
            two.apply(&first);
            runs.push((first, second));
        }
        runs
    }

    #[test]
    fn the_lost_writes_of_a_key_come_in_parts_and_each_counts_once() {
        let (mut one, mut two) = (replica(), replica());
        write_over_each_other(&mut one, &mut two, 20);
        let mut three = replica();
        three.copy(&one);
        assert_eq!((three.machine.state().lost, one.machine.state().lost), (20, 20));
        assert_eq!((three.lost_notes(), &three.data.records), (one.lost_notes(), &one.data.records));
        assert_eq!(one.pages().len(), 1 + 20 + 1, "the last part has nothing");
    }

    /// What it has under the key goes when the first part comes, and whether that was lost only a later one tells: what the first node
    /// wrote was, and what the second one wrote was written over.
    #[test]
    fn a_later_part_tells_whether_a_write_was_lost_that_went_with_the_first_one() {
        for (is_lost, writes_between) in [(true, false), (true, true), (false, false), (false, true)] {
            let (mut one, mut two, mut three) = (replica(), replica(), replica());
            for (first, second) in write_over_each_other(&mut one, &mut two, 3) {
                three.apply(if is_lost { &first } else { &second });
            }
            one.write(1, b"k", Some(b"over all"));
            let pages = one.pages();
            for (at, page) in pages.iter().enumerate() {
                three.merge(&one, std::slice::from_ref(page), pages.len());
                if writes_between && at == 1 {
                    let run = three.write(3, b"k", Some(b"own"));
                    one.apply(&run);
                }
            }
            assert_eq!(three.machine.state().lost, 3, "{is_lost} {writes_between}");
            assert_eq!((three.lost_notes().len(), &three.data.records), (3, &one.data.records));
        }
    }

    /// The other one has settled it, and this one has not come to that.
    #[test]
    fn a_loss_that_is_certain_at_the_sender_stays_one() {
        let (mut one, mut two) = (replica(), replica());
        let (first, second) = (one.write(1, b"k", Some(b"1")), two.write(2, b"k", Some(b"2")));
        one.apply(&second);
        two.apply(&first);
        let settled = one.machine.state().applied.clone();
        let changes = one.machine.settle(&settled, one.lost_notes(), &one.data).unwrap();
        one.data.write(changes);
        one.write(1, b"x", Some(b"what the other one lacks"));
        two.copy(&one);
        assert_eq!((one.machine.state().lost, two.machine.state().lost), (1, 1));
        assert_eq!(two.data.records, one.data.records);
        // Once it is certain everywhere, nobody needs the note any more.
        let changes = one.machine.forget_settled(&settled, &one.lost_notes(), &one.data).unwrap();
        one.data.write(changes);
        assert_eq!((one.lost_notes().len(), one.machine.state().lost), (0, 1));
    }

    #[test]
    fn a_loss_that_the_sender_knows_to_be_replaced_is_taken_back_and_the_own_writes_stay() {
        let (mut one, mut two) = (replica(), replica());
        let first = one.write(1, b"k", Some(b"1"));
        let second = two.write(2, b"k", Some(b"2"));
        two.apply(&first);
        assert_eq!(two.machine.state().lost, 1);
        one.write(1, b"k", Some(b"3, over 1"));
        two.write(2, b"own", Some(b"unseen"));
        two.copy(&one);
        assert_eq!(two.machine.state().lost, 1, "not 1, but what was written second");
        assert!(two.data.records.contains_key(&b"own"[..]));
        one.apply(&second);
        assert_eq!(one.machine.state().lost, 1);
        assert_eq!(one.lost_notes(), two.lost_notes());
    }

    #[test]
    fn a_tombstone_that_was_purged_here_does_not_come_back_with_a_copy() {
        let (mut one, mut two) = (replica(), replica());
        let run = one.write(1, b"k", None);
        two.apply(&run);
        let (to, settled) = (two.machine.state().highest, two.machine.state().applied.clone());
        let changes = two.machine.purge(to, &settled, &two.records(), &two.data).unwrap();
        two.data.write(changes);
        one.write(1, b"x", Some(b"what the other one lacks"));
        two.copy(&one);
        assert!(!two.data.records.contains_key(&b"k"[..]) && two.data.records.contains_key(&b"x"[..]));
    }

    /// A member that sends such a part is not right, and must not end this node: the copy is noted by then.
    #[test]
    fn a_part_that_goes_on_behind_all_that_there_can_be_tells_of_nothing() {
        let (mut one, mut two, mut three) = (replica(), replica(), replica());
        write_over_each_other(&mut one, &mut two, 1);
        let last = WriteId { origin: origin(u64::MAX, u64::MAX), seq: u64::MAX };
        let part = Part::Rest { record: last, after: last };
        let rest = Copied { key: b"other".to_vec(), part, lost: Vec::new(), more: false };
        let Some(Page::Records(mut records)) = one.pages().into_iter().nth(1) else { panic!("no records") };
        records.push(rest);
        three.merge(&one, &[Page::Records(records)], 1);
        assert_eq!(three.machine.state().lost, 1);
    }
}

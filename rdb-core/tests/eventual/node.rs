//! One node: its disk, which outlives a crash, and what it does with the core.

use crate::truth::{Key, Value};
use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;
use rdb_core::apply;
use rdb_core::command::Write;
use rdb_core::eventual::buckets::{Buckets, counted};
use rdb_core::eventual::conflicts::{
    Kept, Listed, Lost, Settling, all_kept, all_lost, awaited_of_era, lost_of_era, parse_lost_key,
};
use rdb_core::eventual::copy::{self, Note, Page};
use rdb_core::eventual::hlc::{DurableClock, NoStamp, Start};
use rdb_core::eventual::lag::frontier;
use rdb_core::eventual::machine::{Changes, Machine, Notes, State, View, forget};
use rdb_core::eventual::origin_log::{Held, OriginLogs};
use rdb_core::eventual::peers::{Peers, Report};
use rdb_core::eventual::run::{Run, join};
use rdb_core::eventual::stamps::Stamps;
use rdb_core::eventual::unsynced;
use rdb_core::eventual::vector::{Origin, Seq, Vector, WriteId};
use rdb_core::ids::{Era, Incarnation, NodeId};
use rdb_core::record;
use rdb_core::version::{Hlc, Version};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::convert::Infallible;

/// Runs up to so many bytes travel as one. Small, so that some must be split.
const MESSAGE_BYTES_MAX: usize = 300;
/// Few, so that copies are cut off in the middle.
const RECORDS_PER_PAGE: usize = 3;
/// So few that a key's lost writes come in several parts.
const NOTES_BYTES: usize = 100;

/// A copy of a node's part, with where it stood.
#[derive(Clone)]
pub(crate) struct Copy {
    pub(crate) from: NodeId,
    pub(crate) state: State,
    pub(crate) pages: Vec<Vec<u8>>,
}

/// The data: what one column family holds.
#[derive(Clone, Default)]
pub(crate) struct Data {
    records: BTreeMap<Key, Vec<u8>>,
    notes: BTreeMap<Vec<u8>, Vec<u8>>,
    state: Option<Vec<u8>>,
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
        put(&mut self.records, changes.records);
        put(&mut self.notes, changes.notes);
        self.state = Some(changes.state);
    }

    fn buckets(&self, era: Era) -> Buckets {
        let mut buckets = Buckets::default();
        for (key, stored) in &self.records {
            buckets.change(key, None, counted(&record::decode(stored).unwrap(), era));
        }
        buckets
    }
}

fn put(map: &mut BTreeMap<Vec<u8>, Vec<u8>>, changes: Vec<(Vec<u8>, Option<Vec<u8>>)>) {
    for (key, value) in changes {
        match value {
            Some(value) => map.insert(key, value),
            None => map.remove(&key),
        };
    }
}

struct Logged {
    held: Held,
    bytes: Vec<u8>,
    synced: bool,
}

#[derive(Default)]
struct Disk {
    log: Vec<Logged>,
    /// A copy that is complete, and not yet merged and flushed.
    copy: Option<(Note, Vec<Vec<u8>>)>,
    flushed: Data,
    mark: Hlc,
}

pub(crate) struct Node {
    pub(crate) id: NodeId,
    incarnation: Incarnation,
    disk: Disk,
    keeps_lost: bool,
    /// Whether it applies its writes before it has synced them.
    periodic: bool,
    pub(crate) live: Option<Live>,
}

/// What a crash ends.
pub(crate) struct Live {
    pub(crate) machine: Machine,
    pub(crate) logs: OriginLogs,
    pub(crate) peers: Peers,
    pub(crate) data: Data,
    clock: DurableClock,
    settling: Settling,
    /// Up to where losses and deletions are certain.
    settled: Vector,
    /// The same, flushed; and what the others have said of theirs.
    pub(crate) certain: Vector,
    others_certain: BTreeMap<NodeId, Vector>,
    /// What is forgotten once all have settled all up to the second.
    forgetting: Option<(Vector, Vector)>,
    to_apply: VecDeque<Run>,
    /// Of all that was applied, as a node would look it up in its log.
    stamps: Stamps,
    frontier: Hlc,
}

impl Node {
    pub(crate) fn new(id: NodeId, keeps_lost: bool, periodic: bool) -> Self {
        Self { id, incarnation: Incarnation(0), disk: Disk::default(), keeps_lost, periodic, live: None }
    }

    /// Starts, with what the disk has. The log's synced runs are applied again from where the data was flushed.
    pub(crate) fn start(&mut self, era: Era, nodes: u64, now_ms: u64, wall_ms: u64) {
        self.incarnation.0 += 1;
        let me = Origin { node: self.id, incarnation: self.incarnation };
        self.disk.rescue();
        let data = self.disk.flushed.clone();
        let begun = State::begin(era, Hlc(0));
        let state = data.state.as_deref().map_or(begun, |bytes| State::decode(bytes).unwrap());
        let held = self.disk.log.iter().map(|logged| logged.held);
        let copied = self.disk.copy.as_ref().map(|(note, _)| note.vector.clone()).unwrap_or_default();
        let logs = OriginLogs::restore_behind(state.era, me, &state.applied, &copied, held).unwrap();
        let to_apply: VecDeque<Run> =
            self.disk.log.iter().map(|logged| Run::decode(&logged.bytes).unwrap()).collect();
        let stamps = to_apply.iter().flat_map(|run| &run.entries).map(|entry| entry.hlc);
        let mark = stamps.max().unwrap_or_default().max(state.highest).max(self.disk.mark);
        let others = (1..=nodes).map(NodeId).filter(|node| *node != self.id);
        let buckets = data.buckets(state.era);
        let mut known = Stamps::of(&logs);
        to_apply.iter().for_each(|run| known.add(run));
        let mut live = Live {
            machine: Machine::new(state, buckets, self.keeps_lost).periodic(self.periodic),
            logs,
            peers: Peers::new(others, now_ms),
            data,
            clock: DurableClock::start(Start { wall_ms, monotonic_ms: now_ms, mark }),
            settling: Settling::default(),
            settled: Vector::default(),
            certain: Vector::default(),
            others_certain: BTreeMap::new(),
            forgetting: None,
            to_apply,
            stamps: known,
            frontier: Hlc(0),
        };
        if let Some((note, pages)) = &self.disk.copy {
            live.clock.saw(note.highest, now_ms);
            while live.copy_page(note, pages) {}
        }
        live.apply(usize::MAX, now_ms);
        self.live = Some(live);
    }

    /// All that it has of the era, unless it is itself in between.
    pub(crate) fn offer(&mut self, to: NodeId) -> Option<Copy> {
        let live = self.live.as_mut().filter(|live| !live.machine.is_copying())?;
        let state = live.machine.state().clone();
        // What a power cut may take back must not be anywhere else.
        if !live.logs.synced_vector().covers(&state.applied) {
            return None;
        }
        live.peers.copies(to, &state.applied);
        let (from, to) = (awaited_of_era(state.era), awaited_of_era(Era(state.era.0 + 1)));
        let mut pages = vec![copy::awaited(&live.data.notes(&from, &to).unwrap()).unwrap().encode()];
        let max = (0 < state.lost, NOTES_BYTES);
        let parts = |(key, stored): (&Vec<u8>, &Vec<u8>)| {
            copy::parts(state.era, (key, stored), max, &live.data).unwrap()
        };
        let records: Vec<_> = live.data.records.iter().flat_map(parts).collect();
        pages.extend(records.chunks(RECORDS_PER_PAGE).map(|chunk| Page::Records(chunk.to_vec()).encode()));
        Some(Copy { from: self.id, state, pages })
    }

    /// Takes in a copy, if that is of use. What was logged before it is applied before it.
    pub(crate) fn take_copy(&mut self, copy: Copy, now_ms: u64) -> bool {
        let is_merging = self.is_merging();
        let Some(live) = self.live.as_ref().filter(|_| !is_merging && self.disk.copy.is_none()) else {
            return false;
        };
        let Copy { from, state, pages } = copy;
        let is_of_use = copy::is_of_use(&state.applied, &live.logs.logged_vector(), live.logs.me());
        if state.era != live.logs.era() || !is_of_use {
            return false;
        }
        self.sync(usize::MAX);
        let Some(live) = &mut self.live else { return false };
        live.clock.saw(state.highest, now_ms);
        let note = Note::of(from, &state, pages.len() as u64);
        self.disk.copy = Some((Note::decode(&note.encode()).unwrap(), pages));
        true
    }

    /// Whether a copy is to be merged. Meanwhile no runs are taken in.
    pub(crate) fn is_merging(&self) -> bool {
        let (Some(live), Some((note, _))) = (&self.live, &self.disk.copy) else { return false };
        live.machine.is_copying() || !live.machine.state().applied.covers(&note.vector)
    }

    /// Merges the next page of the copy.
    pub(crate) fn merge_page(&mut self) {
        if let (Some(live), Some((note, pages))) = (&mut self.live, &self.disk.copy)
            && !live.copy_page(note, pages)
        {
            for (origin, seq) in live.logs.copied(&note.vector) {
                live.stamps.skip(origin, seq);
            }
        }
    }

    /// Loses what was not synced, but for as much of it as the disk happened to have written.
    pub(crate) fn crash(&mut self, rng: &mut ChaCha8Rng) {
        self.live = None;
        let synced = self.disk.log.iter().take_while(|logged| logged.synced).count();
        self.disk.log.truncate(rng.random_range(synced..=self.disk.log.len()));
        self.disk.log.iter_mut().for_each(|logged| logged.synced = true);
    }

    /// Accepts writes, and says what the node had applied then.
    pub(crate) fn write(&mut self, now_ms: u64, writes: &[(Key, Value)]) -> Option<(Run, Vector)> {
        let live = self.live.as_mut()?;
        let stamp = stamp(&mut live.clock, &mut self.disk.mark, now_ms);
        let shown = live.machine.state().applied.clone();
        let writes: Vec<_> =
            writes.iter().map(|(key, value)| Write { key, value: value.as_deref() }).collect();
        let (me, after) = (live.logs.me(), live.logs.written());
        let run = live.machine.write(stamp, me, after, &writes, &live.data).unwrap();
        live.clock.saw(run.entries[0].hlc, now_ms);
        log(&mut self.disk, live, &run);
        if self.periodic {
            let changes = live.machine.apply_first(&run, &run.encode(), &live.data).unwrap();
            live.data.write(changes);
        }
        Some((run, shown))
    }

    /// Up to where an origin's log is sure to outlive a power cut; of the node's own, also what the data has of it.
    pub(crate) fn durable(&self, origin: Origin) -> Seq {
        let of = self.disk.log.iter().filter(|logged| logged.synced && logged.held.origin == origin);
        let logged = of.map(|logged| logged.held.last).max().unwrap_or_default();
        let flushed = self.disk.flushed.state.as_deref().map(|bytes| State::decode(bytes).unwrap());
        logged.max(flushed.map_or(0, |state| state.applied.get(origin)))
    }

    /// This node, as one who writes.
    pub(crate) fn origin(&self) -> Origin {
        Origin { node: self.id, incarnation: self.incarnation }
    }

    /// Takes in a run; `false` if it was refused.
    pub(crate) fn receive(&mut self, bytes: &[u8]) -> bool {
        if self.is_merging() {
            return false;
        }
        let Some(live) = &mut self.live else { return true };
        match live.logs.receive(Run::decode(bytes).unwrap()) {
            Ok(new) => {
                new.iter().for_each(|run| log(&mut self.disk, live, run));
                true
            }
            Err(_) => false,
        }
    }

    /// Syncs the first `count` of what is not synced.
    pub(crate) fn sync(&mut self, count: usize) {
        let Some(live) = &mut self.live else { return };
        for logged in self.disk.log.iter_mut().filter(|logged| !logged.synced).take(count) {
            logged.synced = true;
            live.logs.synced(logged.held.origin, logged.held.last);
            let run = Run::decode(&logged.bytes).unwrap();
            if self.periodic && run.origin == live.logs.me() {
                live.machine.synced(run.last());
                live.data.notes.remove(&unsynced::key(&run));
            } else {
                live.to_apply.push_back(run);
            }
        }
    }

    /// What is to be sent to a peer next.
    pub(crate) fn push(
        &mut self,
        to: NodeId,
        now_ms: u64,
        is_heard: impl Fn(NodeId) -> bool,
    ) -> Option<Vec<u8>> {
        let live = self.live.as_mut()?;
        let push = live.peers.next_push(to, &live.logs, now_ms, is_heard)?;
        let of = self.disk.log.iter().filter(|logged| logged.held.origin == push.origin && logged.synced);
        let (mut runs, mut bytes) = (Vec::new(), 0);
        for logged in of.filter(|logged| push.after < logged.held.last) {
            if 0 < bytes && MESSAGE_BYTES_MAX < bytes + logged.bytes.len() {
                break;
            }
            bytes += logged.bytes.len();
            runs.push(Run::decode(&logged.bytes).unwrap());
        }
        let run = join(runs).expect("what is to be pushed is in the log");
        assert!(run.after <= push.after, "nothing is left out between {push:?} and the first run");
        live.peers.pushed(to, run.origin, run.last(), bytes);
        Some(run.encode())
    }

    pub(crate) fn report(&mut self, now_ms: u64) -> Option<Report> {
        let live = self.live.as_mut()?;
        stamp(&mut live.clock, &mut self.disk.mark, now_ms);
        let state = live.machine.state();
        Some(Report {
            era: state.era,
            synced: live.logs.synced_vector(),
            applied: claimed(live),
            shown: live.machine.shown().clone(),
            promise: live.machine.promise(live.clock.passed()),
        })
    }

    pub(crate) fn flush(&mut self) {
        let is_merging = self.is_merging();
        let Some(live) = &mut self.live else { return };
        self.disk.flushed = live.data.clone();
        live.certain = live.settled.clone();
        // No start needs the copy again, nor runs that lie within it.
        if let Some((note, _)) = self.disk.copy.take_if(|_| !is_merging) {
            let is_behind_gap = |held: &Held| {
                let copied = note.vector.get(held.origin);
                held.last <= copied && copied <= live.logs.dropped(held.origin)
            };
            self.disk.log.retain(|logged| !is_behind_gap(&logged.held));
        }
    }

    /// Drops what nobody needs, and what nobody is to wait for. How many runs were dropped, and how many nodes given up.
    pub(crate) fn truncate(&mut self, cap: u64) -> (usize, usize) {
        let Some(live) = &mut self.live else { return (0, 0) };
        live.peers.take_back(cap, &live.logs);
        let given_up = live.peers.keep_below(cap, &live.logs).len();
        let flushed = self.disk.flushed.state.as_deref().map(|bytes| State::decode(bytes).unwrap());
        let flushed = flushed.map_or(Vector::default(), |state| state.applied);
        let before = self.disk.log.len();
        for (origin, to) in live.logs.truncate(&live.peers.stable_for_truncation(&live.logs), &flushed) {
            self.disk.log.retain(|logged| logged.held.origin != origin || to < logged.held.last);
        }
        (before - self.disk.log.len(), given_up)
    }

    /// Those whom it cannot serve from its logs.
    pub(crate) fn need_copy(&self) -> Vec<NodeId> {
        self.live.as_ref().map(|live| live.peers.need_copy(&live.logs)).unwrap_or_default()
    }

    /// What it can tell of the frontier.
    pub(crate) fn frontier(&mut self, now_ms: u64) -> Option<Hlc> {
        let mine = self.report(now_ms)?;
        let live = self.live.as_mut()?;
        // Of writes that are in no log any more the stamps are not known.
        if !live.peers.need_copy(&live.logs).is_empty() {
            return None;
        }
        let peers = live.peers.reports().map(|(_, report, _)| report);
        let told = frontier(mine.era, std::iter::once(Some(&mine)).chain(peers), &live.stamps);
        live.frontier = live.frontier.max(told.unwrap_or_default());
        Some(live.frontier)
    }

    /// Begins another era: the logs are new, and what the data has is flushed before the old ones go.
    pub(crate) fn begin_era(&mut self, era: Era, highest: Hlc, nodes: u64, now_ms: u64) {
        let Some(live) = &mut self.live else { return };
        let others = (1..=nodes).map(NodeId).filter(|node| *node != self.id);
        live.logs = OriginLogs::begin(era, live.logs.me());
        live.peers = Peers::new(others, now_ms);
        live.machine.begin_era(era, highest, live.data.buckets(era));
        live.clock.saw(highest, now_ms);
        live.settling = Settling::default();
        live.settled = Vector::default();
        live.others_certain.clear();
        live.forgetting = None;
        live.stamps = Stamps::default();
        live.data.state = Some(live.machine.state().encode());
        self.flush();
        self.disk.log.clear();
    }

    pub(crate) fn log_is_empty(&self) -> bool {
        self.disk.log.is_empty()
    }
}

impl Disk {
    /// What the data has applied and the log has not synced is written to the log again.
    fn rescue(&mut self) {
        let (from, to) = unsynced::all();
        for (key, bytes) in self.flushed.notes(&from, &to).unwrap() {
            let run = Run::decode(&bytes).unwrap();
            let of = self.log.iter().filter(|logged| logged.held.origin == run.origin);
            let has = of.map(|logged| logged.held.last).max().unwrap_or_default();
            let era = self.flushed.state.as_deref().map(|bytes| State::decode(bytes).unwrap().era);
            if has < run.last() && era == Some(run.era) {
                self.log.push(Logged { held: Held::of(&run, bytes.len()), bytes, synced: true });
            }
            self.flushed.notes.remove(&key);
        }
    }
}

/// What is applied, and of its own writes no more than what is synced.
fn claimed(live: &Live) -> Vector {
    let (synced, me) = (live.logs.synced_vector(), live.logs.me());
    let applied = live.machine.state().applied.iter();
    applied.map(|(origin, seq)| (origin, if origin == me { seq.min(synced.get(me)) } else { seq })).collect()
}

fn log(disk: &mut Disk, live: &mut Live, run: &Run) {
    let bytes = run.encode();
    let held = Held::of(run, bytes.len());
    live.logs.log(&held);
    disk.log.push(Logged { held, bytes, synced: false });
}

fn stamp(clock: &mut DurableClock, mark: &mut Hlc, now_ms: u64) -> Hlc {
    match clock.stamp(now_ms) {
        Ok(stamp) => stamp,
        Err(NoStamp::PersistFirst(wanted)) => {
            *mark = wanted;
            clock.persisted(wanted);
            clock.stamp(now_ms).unwrap()
        }
        Err(error) => panic!("{error}"),
    }
}

impl Live {
    /// Applies the first `count` of what is synced. The writes that it made visible, by id.
    pub(crate) fn apply(&mut self, count: usize, now_ms: u64) -> Vec<WriteId> {
        let count = count.min(self.to_apply.len());
        let runs: Vec<Run> = self.to_apply.drain(..count).collect();
        self.machine.look_at_clock(Hlc::from_millis(self.clock.physical_ms(now_ms)));
        let changes = self.machine.apply(&runs, &self.data).unwrap();
        self.data.write(changes);
        let mut visible = Vec::new();
        runs.iter().for_each(|run| self.stamps.add(run));
        for (run, entry) in runs.iter().flat_map(|run| run.entries.iter().map(move |entry| (run, entry))) {
            self.clock.saw(entry.hlc, now_ms);
            visible.push(WriteId { origin: run.origin, seq: entry.seq });
        }
        visible
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.to_apply.is_empty()
    }

    pub(crate) fn settle(&mut self) -> bool {
        let (era, applied) = (self.machine.state().era, claimed(self));
        let shown = self.machine.shown().clone();
        let reports: Option<Vec<_>> = self.peers.reports().map(|(_, report, _)| report.cloned()).collect();
        let Some(reports) = reports.filter(|reports| reports.iter().all(|report| report.era == era)) else {
            return false;
        };
        let others = reports.iter().map(|report| (&report.shown, &report.applied));
        let Some(settled) = self.settling.look(std::iter::once((&shown, &applied)).chain(others)) else {
            return false;
        };
        let notes = self.data.notes(&lost_of_era(era), &lost_of_era(Era(era.0 + 1))).unwrap();
        let changes = self.machine.settle(&settled, notes, &self.data).unwrap();
        self.data.write(changes);
        if self.forgetting.is_none() {
            let mut all = applied;
            reports.iter().for_each(|report| all.merge(&report.applied));
            self.forgetting = Some((settled.clone(), all));
        }
        self.settled = settled;
        true
    }

    /// A member says up to where all is certain there.
    pub(crate) fn hear_certain(&mut self, node: NodeId, certain: Vector) {
        self.others_certain.insert(node, certain);
    }

    /// Forgets what is settled everywhere.
    pub(crate) fn forget_settled(&mut self) {
        let others = self.peers.reports().map(|(node, ..)| self.others_certain.get(&node));
        let certain: Option<Vec<_>> = others.chain([Some(&self.certain)]).collect();
        let Some(certain) = certain.map(Vector::common) else { return };
        if let Some((settled, _)) = self.forgetting.take_if(|(_, all)| certain.covers(all)) {
            let era = self.machine.state().era;
            let notes = self.data.notes(&lost_of_era(era), &lost_of_era(Era(era.0 + 1))).unwrap();
            let changes = self.machine.forget_settled(&settled, &notes, &self.data).unwrap();
            self.data.write(changes);
        }
    }

    /// Merges the next page of a copy, if there is one.
    fn copy_page(&mut self, note: &Note, pages: &[Vec<u8>]) -> bool {
        let State { applied, copied_pages, .. } = self.machine.state();
        if *copied_pages == 0 && applied.covers(&note.vector) {
            return false;
        }
        let page = Page::decode(&pages[usize::try_from(*copied_pages).unwrap()]).unwrap();
        let changes = self.machine.copy_page(note, &page, &self.data).unwrap();
        self.data.write(changes);
        self.machine.is_copying()
    }

    /// Purges the tombstones up to `to`, if it knows already that they are certain. Whether there were any.
    pub(crate) fn purge(&mut self, to: Hlc) -> bool {
        if !self.peers.need_copy(&self.logs).is_empty() {
            return false;
        }
        let stamped = |stored: &[u8]| {
            let record = record::decode(stored).unwrap();
            record.value.is_none() && record.version.hlc <= to
        };
        let found = self.data.records.iter().filter(|(_, stored)| stamped(stored));
        let found: Vec<_> = found.map(|(key, stored)| (key.clone(), stored.clone())).collect();
        let Ok(changes) = self.machine.purge(to, &self.settled, &found, &self.data) else { return false };
        self.data.write(changes);
        !found.is_empty()
    }

    /// What it shows under a key: version, and value unless it is a tombstone.
    pub(crate) fn get(&self, key: &[u8]) -> Option<(Version, Value)> {
        let record = record::decode(self.data.records.get(key)?).unwrap();
        Some((record.version, record.value.map(<[u8]>::to_vec)))
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.data.records.keys()
    }

    /// The lost writes of this era that it has notes of.
    pub(crate) fn lost(&self) -> BTreeMap<(Key, WriteId), Lost> {
        let era = self.machine.state().era;
        let notes = self.data.notes(&lost_of_era(era), &lost_of_era(Era(era.0 + 1))).unwrap();
        let read = |(key, note): (Vec<u8>, Vec<u8>)| {
            let (_, key, id) = parse_lost_key(&key).unwrap();
            ((key, id), Lost::decode(&note).unwrap())
        };
        notes.into_iter().map(read).collect()
    }

    /// Ends the time of the oldest lost writes that are kept, of whichever era. Those that were of this one.
    pub(crate) fn forget(&mut self, count: usize) -> Vec<(Key, WriteId)> {
        let era = self.machine.state().era;
        let kept = self.kept().into_iter().map(|(key, _)| key).take(count).collect::<Vec<_>>();
        let forgotten =
            kept.iter().map(|key| parse_lost_key(Kept::parse(key).unwrap().unwrap().note).unwrap());
        let forgotten = forgotten.filter(|(of, ..)| *of == era).map(|(_, key, id)| (key, id)).collect();
        let changed = forget(Some(era), &kept, &self.data).unwrap();
        put(&mut self.data.notes, changed);
        forgotten
    }

    fn kept(&self) -> Notes {
        let (from, to) = all_kept();
        self.data.notes(&from, &to).unwrap()
    }

    /// That the notes that are kept are found by their age, each once, and no others are.
    pub(crate) fn check_kept(&self) {
        let (from, to) = all_lost();
        let mut listed = BTreeSet::new();
        for (key, note) in self.data.notes(&from, &to).unwrap() {
            let lost = Lost::decode(&note).unwrap();
            assert!(lost.listed.is_some() || lost.kept.is_none(), "a value without an end: {lost:?}");
            if let Some(Listed { noted, by_hlc }) = lost.listed {
                assert!(lost.hlc.max(by_hlc) <= noted, "{lost:?}");
                listed.insert((noted, u32::try_from(key.len() + note.len()).unwrap(), key));
            }
        }
        let kept = self.kept();
        let kept = kept.iter().map(|(key, _)| Kept::parse(key).unwrap().unwrap());
        let kept: BTreeSet<_> = kept.map(|kept| (kept.noted, kept.bytes, kept.note.to_vec())).collect();
        assert_eq!(kept, listed);
    }
}

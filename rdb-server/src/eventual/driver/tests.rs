//! The thread without a thread: a node's disk, and events that are handed to the driver one by one.

use super::*;
use crate::api::{Lookups, Scans};
use crate::budget::Budget;
use crate::clocks::WallClock;
use crate::config::Config;
use crate::connections::Doors;
use crate::disk::Disk;
use crate::eventual::copy::{Arrived, Piece};
use crate::eventual::records::Finders;
use crate::eventual::set_aside::{self, PageMax};
use crate::eventual::waiting::{Acks, Terms};
use crate::eventual::wire::{Besides, Said};
use crate::faults::Cuts;
use crate::metrics::Metrics;
use crate::peer::tests::engine;
use crate::shared::{CatalogCell, Shared, Stopping};
use crate::switch::{Alarm, History};
use rdb_core::codec::put_bytes;
use rdb_core::command::{Command, Operation, Write};
use rdb_core::eventual::buckets::{Buckets, Comparison, Digest};
use rdb_core::eventual::conflicts::{self, Listed, Lost};
use rdb_core::eventual::copy::{Copied, Page};
use rdb_core::eventual::machine::{Changes, State};
use rdb_core::eventual::peers::Report;
use rdb_core::eventual::run::{Entry as Written, Replaced, Run};
use rdb_core::eventual::vector::{Seq, Vector, WriteId};
use rdb_core::ids::{Epoch, Era};
use rdb_core::raft::Message;
use rdb_core::record::Record;
use rdb_core::switch::{Boundary, Marker, Region, Seal, SwitchId};
use rdb_core::version::Version;
use rdb_pd::{Durability, Settings};
use rdb_storage::{LogSink, LogWriter, LogWriterOptions, OriginState};
use std::sync::Arc;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

const REGION: RegionId = RegionId::FIRST_USER;
const NAMESPACE: NamespaceId = NamespaceId(7);
const ERA: Era = Era(1);
const ONE: NodeId = NodeId(1);
const TWO: NodeId = NodeId(2);
const THREE: NodeId = NodeId(3);

struct NoSink;

impl LogSink for NoSink {
    fn persisted(&mut self, _: RegionId, _: u64) {}
    fn send(&mut self, _: RegionId, _: Vec<Message>) {}
    fn failed(&mut self, error: rdb_storage::Error) {
        panic!("{error}");
    }
}

/// Node 1 of three, with one eventual namespace.
struct Thread {
    driver: Driver,
    events: Receiver<Event>,
    engine: Engine,
    _log: LogWriter,
    _runtime: Runtime,
    _directory: tempfile::TempDir,
}

/// What every part of a node shares, for one that has no sockets.
fn shared(engine: &Engine, eventual: Eventual, mailbox: Mailbox) -> Shared {
    let (alarm, _) = Alarm::new();
    let budget = Budget::new(1 << 20);
    Shared {
        config: Arc::new(Config { node_id: ONE.0, ..Config::default() }),
        identity: Arc::new(engine.identity().clone()),
        catalog: CatalogCell::default(),
        standings: Standings::new(alarm),
        switches: History::default(),
        regions: Regions::new(budget.clone(), 1 << 20),
        data: engine.data(),
        logs: engine.origins(),
        budget,
        arriving: Budget::new(1 << 20),
        scans: Scans::new(1),
        lookups: Lookups::new(),
        doors: Doors::within(1, 1024),
        disk: Disk::default(),
        peers: Health::new([TWO, THREE].into_iter(), &BTreeMap::new()),
        clocks: Clocks::start(WallClock::default(), [TWO, THREE].into_iter()),
        finders: Finders::new(std::iter::empty(), Cuts::new(false)),
        stopping: Stopping::default(),
        metrics: Arc::new(Metrics::new()),
        mailbox,
        eventual,
    }
}

impl Thread {
    /// With what `prepare` writes to the disk before.
    fn start(prepare: impl FnOnce(&Engine, &LogWriterHandle)) -> Self {
        Self::start_with(Settings::default(), prepare)
    }

    fn start_with(settings: Settings, prepare: impl FnOnce(&Engine, &LogWriterHandle)) -> Self {
        let (directory, engine) = engine();
        let log = LogWriter::spawn(&engine, &LogWriterOptions::default(), NoSink).unwrap();
        prepare(&engine, &log.handle());
        let (eventual, events) = Eventual::new();
        let (mailbox, _) = Mailbox::new();
        let shared = shared(&engine, eventual.clone(), mailbox.clone());
        let others = [TWO, THREE].map(|node| (node, "127.0.0.1:1".to_owned()));
        let (transport, _) = Transport::new(others.into_iter(), mailbox.clone(), shared.metrics.clone());
        let runtime = Runtime::new().unwrap();
        let parts = Parts {
            node: ONE,
            eventual,
            transport,
            log: log.handle(),
            health: shared.peers.clone(),
            mailbox,
            regions: shared.regions.clone(),
            standings: shared.standings.clone(),
            clocks: shared.clocks.clone(),
            tombstone_grace: Duration::from_secs(3600),
            log_bytes_max: 1 << 30,
            compare_interval: Duration::from_secs(3600),
            fetcher: Fetcher::new(shared, runtime.handle().clone()),
        };
        let mut driver = Driver::new(parts, &engine).unwrap();
        let members = vec![ONE, TWO, THREE];
        let mode = Region::new(Mode::Eventual);
        let opening = Opening { region: REGION, namespace: NAMESPACE, members, settings, mode };
        driver.handle(Event::Open { opening, entered: None }).unwrap();
        Self { driver, events, engine, _log: log, _runtime: runtime, _directory: directory }
    }

    fn replica(&mut self) -> &mut Replica {
        self.driver.replicas.get_mut(&REGION).unwrap()
    }

    /// A caller writes a key.
    fn put(&mut self, key: &[u8], value: &[u8]) {
        self.write(key, value, WriteWaiter::new(|answer| assert!(answer.is_ok())));
    }

    fn write(&mut self, key: &[u8], value: &[u8], waiter: WriteWaiter) {
        let mut commands = Encoded::default();
        let operation = Operation::Write(Write { key, value: Some(value) });
        commands.push(&Command { request: None, operation });
        self.driver.handle(Event::Write { region: REGION, commands, waiter }).unwrap();
    }

    fn hear(&mut self, node: NodeId, synced: &Vector, copy: bool) {
        self.hear_besides(node, synced, copy, Besides::default());
    }

    fn hear_besides(&mut self, node: NodeId, synced: &Vector, copy: bool, besides: Besides) {
        self.driver.health.heard(node);
        let synced = synced.clone();
        let report =
            Report { era: ERA, applied: synced.clone(), shown: synced.clone(), synced, promise: Hlc(0) };
        let incarnation = Incarnation(1);
        let said = Said { region: REGION, report, ask: false, besides, copy, incarnation };
        self.driver.handle(Event::Reports { from: node, reports: vec![said] }).unwrap();
    }

    /// Whom it tells where it stands, and whether each needs a copy.
    fn told(&mut self) -> BTreeMap<NodeId, bool> {
        let reports = self.replica().tick(0, 0, Hlc(0), |_| true);
        reports.into_iter().map(|(node, report)| (node, report.copy)).collect()
    }

    /// Takes the next event that is what is waited for; the others are dropped.
    fn take(&mut self, is_it: impl Fn(&Event) -> bool) {
        let next = || self.events.recv_deadline(Instant::now() + Duration::from_secs(10)).unwrap();
        let event = std::iter::repeat_with(next).find(is_it).unwrap();
        self.driver.handle(event).unwrap();
    }

    /// Takes a copy of node 2, which stands at `state`, until its note is on its way to the disk.
    fn take_copy(&mut self, state: &State, pages: Vec<Page>) {
        self.hear(TWO, &state.applied, true);
        self.driver.look_after_copies();
        let last = pages.len() - 1;
        for (number, page) in pages.into_iter().enumerate() {
            let (go_on, _) = oneshot::channel();
            let state = (number == 0).then(|| state.clone());
            let (page, last, number) = (page.encode().into(), number == last, number as u64);
            let arrived = Arrived::Page { attempt: 1, piece: Piece { number, state, page, last, go_on } };
            self.driver.handle(Event::Copy { region: REGION, era: ERA, arrived }).unwrap();
        }
        self.driver.note_copies();
    }

    /// Takes over records of another member's.
    fn repair(&mut self, records: Vec<Copied>) {
        let (go_on, _) = oneshot::channel();
        let page = Page::Records(records).encode().into();
        let arrived = Arrived::Records { piece: Piece { number: 0, state: None, page, last: false, go_on } };
        self.driver.handle(Event::Copy { region: REGION, era: ERA, arrived }).unwrap();
    }

    /// All members have `applied`, are certain of all of it, and purge up to `to`.
    fn purge(&mut self, applied: &Vector, to: Hlc) {
        let besides = Besides { purge_to: to, purge_ready: to, certain: applied.clone() };
        // Two rounds, what the second one finds settled flushed, and a walk.
        for _ in 0..6 {
            for node in [TWO, THREE] {
                self.hear_besides(node, applied, false, besides.clone());
            }
            self.driver.look_after().unwrap();
            self.driver.work().unwrap();
            self.engine.data().flush().unwrap();
        }
    }

    /// The note is synced.
    fn note_copy(&mut self) {
        self.take(|event| matches!(event, Event::Copy { arrived: Arrived::Noted, .. }));
    }
}

fn of(node: NodeId) -> Origin {
    Origin { node, incarnation: Incarnation(1) }
}

fn vector(of_each: &[(Origin, Seq)]) -> Vector {
    of_each.iter().copied().collect()
}

/// A run of the writes of `origin` behind `after`.
fn run(origin: Origin, after: Seq, last: Seq) -> Run {
    let entry = |seq| Written {
        seq,
        hlc: Hlc(seq),
        key: format!("key {seq}").into_bytes(),
        value: Some(b"value".to_vec()),
        replaced: Replaced::Nothing(Hlc(0)),
        since: seq,
    };
    Run { era: ERA, origin, after, entries: (after + 1..=last).map(entry).collect() }
}

fn write_log(log: &LogWriterHandle, write: OriginWrite) {
    let (done, is_done) = crossbeam_channel::bounded(1);
    log.write_origins(REGION, write, move || {
        let _ = done.send(());
    })
    .unwrap();
    is_done.recv().unwrap();
}

/// Node 1 has sealed its gate, and starts again. Of node 2's ten writes it has the last ones in its log: the others were dropped,
/// since node 3 was away for too long.
#[test]
fn a_sealed_node_that_starts_again_tells_who_needs_a_copy() {
    let mut thread = Thread::start(|engine, log| {
        let applied = vector(&[(of(TWO), 10)]);
        let state = State { applied: applied.clone(), ..State::begin(ERA, Hlc(10)) };
        let changes = Changes { state: state.encode(), ..Changes::default() };
        engine.data().apply_eventual(REGION, NAMESPACE, &changes, (ERA, &applied)).unwrap();
        let (epoch, switch, excluded) = (Epoch(1), SwitchId(1), BTreeSet::new());
        let mut gate = Vec::new();
        put_bytes(&mut gate, &Control::Seal(Seal { era: ERA, epoch, switch, excluded }).encode());
        let runs = vec![(of(TWO), 10, run(of(TWO), 5, 10).encode().into())];
        let states = vec![(OriginState::Gate, gate)];
        write_log(log, OriginWrite { era: ERA, runs, states, sync: true, ..OriginWrite::default() });
    });
    assert!(!thread.driver.gates[&REGION].is_open());
    thread.hear(TWO, &vector(&[(of(TWO), 10)]), false);
    thread.hear(THREE, &vector(&[(of(TWO), 2)]), false);
    assert_eq!(thread.told(), [(TWO, false), (THREE, true)].into());
    thread.driver.truncate();
    assert_eq!(thread.told(), BTreeMap::new(), "nothing has changed");
    // Its copy is merged.
    thread.hear(THREE, &vector(&[(of(TWO), 10)]), false);
    thread.driver.truncate();
    assert_eq!(thread.told(), [(TWO, false), (THREE, false)].into());
}

/// What this node writes from then on is above what the copy has brought. Whoever shows it that is not ahead of its clock.
#[test]
fn the_clock_has_seen_what_a_copy_brings() {
    let mut thread = Thread::start(|_, _| ());
    let now_ms = millis(thread.driver.started.elapsed());
    let ahead = Hlc::from_millis(thread.driver.clock.physical_ms(now_ms) + 5_000);
    assert!(thread.driver.clock.shown(ahead, now_ms).is_err());
    let state = State { applied: vector(&[(of(TWO), 3)]), ..State::begin(ERA, ahead) };
    thread.take_copy(&state, vec![Page::Awaited(Vec::new())]);
    thread.note_copy();
    assert!(thread.driver.clock.shown(ahead, now_ms).is_ok());
}

/// A key of node 2's, which wrote what stays there as its write `seq`.
fn copied(key: &str, seq: Seq, value: &str) -> Copied {
    let version = Version { era: ERA, hlc: Hlc(seq), node: TWO };
    let id = Some(WriteId { origin: of(TWO), seq });
    Copied::record(key.as_bytes(), &Record { version, id, value: Some(value.as_bytes()) }.encode())
}

/// As a start finds it, with `state` and nothing else.
fn stand_at(engine: &Engine, state: &State) {
    let changes = Changes { state: state.encode(), ..Changes::default() };
    engine.data().apply_eventual(REGION, NAMESPACE, &changes, (ERA, &state.applied)).unwrap();
}

/// Whatever it says that it has.
#[test]
fn a_copy_is_asked_for_of_whoever_has_most() {
    let mut thread = Thread::start(|_, _| ());
    let again = Origin { incarnation: Incarnation(2), ..of(TWO) };
    thread.hear(TWO, &vector(&[(of(TWO), Seq::MAX), (again, Seq::MAX)]), true);
    thread.driver.look_after_copies();
    thread.take(|event| matches!(event, Event::Copy { arrived: Arrived::Failed { .. }, .. }));
}

/// What is noted has to be merged, by this start or the next one, and what cannot be read stops every one of them.
#[test]
fn a_copy_that_cannot_be_read_is_dropped_before_it_is_noted() {
    let state = State { applied: vector(&[(of(TWO), 4)]), ..State::begin(ERA, Hlc(4)) };
    let whole = copied("key", 4, "value");
    let no_record = Copied::record(b"key", b"no record");
    let lost = vec![(WriteId { origin: of(TWO), seq: 3 }, b"no note".to_vec())];
    let no_note = Copied { lost, ..whole.clone() };
    for (copied, is_noted) in [(whole, true), (no_record, false), (no_note, false)] {
        let mut thread = Thread::start(|_, _| ());
        thread.take_copy(&state, vec![Page::Awaited(Vec::new()), Page::Records(vec![copied])]);
        assert_eq!(thread.replica().is_merging(), is_noted);
    }
}

/// It is the other node that is damaged, and not this one.
#[test]
fn records_that_cannot_be_read_are_not_taken_over() {
    let state = State { applied: vector(&[(of(TWO), 4)]), ..State::begin(ERA, Hlc(4)) };
    let mut thread = Thread::start(|engine, _| stand_at(engine, &state));
    thread.repair(vec![copied("a", 1, "one"), Copied::record(b"b", b"no record")]);
    thread.repair(vec![copied("c", 3, "three")]);
    let data = thread.engine.data();
    let has = |key: &[u8]| data.get(NAMESPACE, key).unwrap().is_some();
    assert_eq!((has(b"b"), has(b"c")), (false, true));
}

/// This node had lost it. The others remove it, and this one must not keep it: they stand at one place then, and differ.
#[test]
fn a_tombstone_that_was_taken_over_is_purged_like_any_other() {
    let applied = vector(&[(of(TWO), 4)]);
    let state = State { applied: applied.clone(), ..State::begin(ERA, Hlc(4)) };
    let mut thread = Thread::start(|engine, _| stand_at(engine, &state));
    // A start looks once which tombstones there are.
    thread.purge(&applied, Hlc(1));
    let version = Version { era: ERA, hlc: Hlc(3), node: TWO };
    let id = Some(WriteId { origin: of(TWO), seq: 3 });
    thread.repair(vec![Copied::record(b"key", &Record { version, id, value: None }.encode())]);
    let data = thread.engine.data();
    assert!(data.get(NAMESPACE, b"key").unwrap().is_some());
    thread.purge(&applied, Hlc(4));
    let theirs = Digest { era: ERA, vector: applied, purged: Hlc(4), buckets: Buckets::default() };
    assert_eq!(thread.replica().whole_digest().unwrap().compare(&theirs), Comparison::Equal);
}

/// A switch goes on without nodes 1 and 2, and holds one of node 2's writes; node 1 has three more, by a copy, of which one had lost
/// to another. The snapshot of the next era comes while the copy's note is on its way to the disk.
#[test]
fn what_a_copy_has_brought_is_set_aside_before_the_replica_is_replaced() {
    let mut thread = Thread::start(|_, _| ());
    let state = State { applied: vector(&[(of(TWO), 4)]), ..State::begin(ERA, Hlc(4)) };
    let by = WriteId { origin: of(TWO), seq: 4 };
    let lost = Lost { hlc: Hlc(3), tombstone: true, kept: None, by, settled: false, listed: None };
    let third = Copied { lost: vec![(WriteId { seq: 3, ..by }, lost.encode())], ..copied("c", 4, "three") };
    let records = vec![copied("a", 1, "one"), copied("b", 2, "two"), third];
    thread.take_copy(&state, vec![Page::Awaited(Vec::new()), Page::Records(records)]);

    let (epoch, era, mode) = (Epoch(2), Era(2), Mode::Strong);
    let boundary = Boundary { cut: vector(&[(of(TWO), 1)]), excluded: [ONE, TWO].into() };
    let mut offered = Region::new(Mode::Eventual);
    offered.enter(&Marker { switch: SwitchId(1), epoch, era, mode, boundary });
    let (has_left, leaves) = crossbeam_channel::bounded(1);
    let left = Box::new(move || {
        let _ = has_left.send(());
    });
    thread.driver.handle(Event::Leave { region: REGION, offered, left }).unwrap();
    thread.driver.take_steps();
    assert!(leaves.is_empty(), "the note may be synced, and then the copy counts");
    thread.note_copy();
    thread.driver.take_steps();
    assert!(leaves.is_empty(), "nothing of it is merged");
    thread.driver.work().unwrap();
    thread.driver.take_steps();
    while thread.driver.replicas.contains_key(&REGION) {
        thread.take(|_| true);
        thread.driver.hand_out(Instant::now()).unwrap();
        thread.driver.take_steps();
    }
    leaves.recv_timeout(Duration::from_secs(10)).unwrap();

    let logs = thread.engine.origins();
    let found = set_aside::list(&logs, REGION, None, PageMax { writes: 10, bytes: 1 << 20 }).unwrap();
    let listed =
        found.writes.iter().map(|write| (write.entry.seq, &write.entry.key[..], write.entry.value.is_some()));
    assert_eq!(listed.collect::<Vec<_>>(), [(2, &b"b"[..], true), (4, b"c", true), (3, b"c", false)]);
    assert!(found.writes.iter().all(|write| write.origin == of(TWO)));
    assert_eq!((found.total, found.next), (3, None));
    assert_eq!(logs.load(REGION, ERA).unwrap().runs, [], "a start takes them for no runs");
}

/// While nothing happens, members say nothing of the region; that they are there is heard all the same, and then there is time to
/// compare and to purge.
#[test]
fn members_that_have_nothing_to_say_are_compared_with() {
    let mut thread = Thread::start(|_, _| ());
    for node in [TWO, THREE] {
        thread.hear(node, &Vector::default(), false);
    }
    thread.driver.tick();
    // A while goes by, in which there is no reason to look at the region.
    thread.driver.started -= Duration::from_secs(60);
    for node in [TWO, THREE] {
        thread.driver.health.heard(node);
    }
    thread.driver.look_after().unwrap();
    thread.driver.look_after_copies();
    thread.take(|event| matches!(event, Event::Copy { arrived: Arrived::Digest { .. }, .. }));
}

/// Though nothing is lost any more that would have them looked for.
#[test]
fn what_a_start_finds_settled_is_forgotten() {
    let applied = vector(&[(of(TWO), 4)]);
    let mut thread = Thread::start(|engine, _| {
        let state = State { applied: applied.clone(), lost: 1, settled: 1, ..State::begin(ERA, Hlc(4)) };
        let by = WriteId { origin: of(TWO), seq: 4 };
        let lost = Lost { hlc: Hlc(3), tombstone: false, kept: None, by, settled: true, listed: None };
        let note = (conflicts::lost_key(ERA, b"key", WriteId { seq: 3, ..by }), Some(lost.encode()));
        let changes = Changes { state: state.encode(), notes: vec![note], ..Changes::default() };
        engine.data().apply_eventual(REGION, NAMESPACE, &changes, (ERA, &applied)).unwrap();
        engine.data().flush().unwrap();
    });
    for node in [TWO, THREE] {
        let besides = Besides { certain: applied.clone(), ..Besides::default() };
        thread.hear_besides(node, &applied, false, besides);
    }
    let data = thread.engine.data().region(REGION, NAMESPACE);
    let (from, to) = conflicts::all_lost();
    assert_eq!(data.some_notes(&from, &to, 10).unwrap().len(), 1);
    // Two rounds, what the second one finds settled flushed, and a walk.
    for _ in 0..5 {
        thread.driver.look_after().unwrap();
        thread.driver.work().unwrap();
        thread.engine.data().flush().unwrap();
    }
    assert_eq!(data.some_notes(&from, &to, 10).unwrap(), []);
}

/// The disk stalls, and callers go on until there may be no more on its way.
#[test]
fn what_gathers_while_the_disk_stalls_becomes_runs_that_fit_a_message() {
    const WRITES: u64 = 40;
    const VALUE_BYTES: usize = 300 << 10;
    let mut thread = Thread::start(|_, _| ());
    (0..WRITES_UNDER_WAY_MAX).for_each(|_| thread.replica().hand_out_nothing());
    for number in 0..WRITES {
        thread.put(format!("key {number}").as_bytes(), &[7; VALUE_BYTES]);
    }
    thread.driver.hand_out(Instant::now()).unwrap();
    assert_eq!(thread.replica().logs_bytes(), 0, "nothing is on its way");
    for _ in 0..WRITES_UNDER_WAY_MAX {
        let synced = Event::Synced { region: REGION, era: ERA, mark: None, control: None };
        thread.driver.handle(synced).unwrap();
    }
    thread.driver.hand_out(Instant::now()).unwrap();
    thread.take(|event| matches!(event, Event::Synced { .. }));
    let runs = thread.engine.origins().load(REGION, ERA).unwrap().runs;
    assert_eq!(runs.iter().map(|run| run.last).max(), Some(WRITES));
    let longest = runs.iter().map(|run| run.bytes).max().unwrap();
    assert!(longest <= 2 << 20, "{} runs of at most {longest} bytes", runs.len());
    assert!(
        thread.replica().is_applying(),
        "no more than a few are answered, and their memory given back, before they are applied"
    );
    thread.driver.finish_applying().unwrap();
}

/// The disk hangs: no other node has what was acknowledged since.
#[test]
fn what_is_acknowledged_and_not_synced_lags() {
    let settings = Settings { durability: Durability::Periodic, ..Settings::default() };
    let mut thread = Thread::start_with(settings, |_, _| ());
    thread.put(b"key", b"value");
    thread.driver.hand_out(Instant::now()).unwrap();
    assert_eq!(thread.replica().progress().synced, Vector::default());
    thread.driver.started -= Duration::from_secs(5);
    for node in [TWO, THREE] {
        thread.hear(node, &Vector::default(), false);
    }
    thread.driver.tick();
    let shown = thread.replica().shown();
    assert!(5000 <= shown.lag().at_least_ms, "{:?}", shown.lag());
    assert_eq!(shown.behind(), 2);
}

/// What there was of them is counted, and carried on; and a switch begins with one base on all members.
#[test]
fn losses_of_an_era_that_is_over_leave_no_notes_but_those_that_are_kept() {
    let by = WriteId { origin: of(TWO), seq: 4 };
    let bare = Lost { hlc: Hlc(3), tombstone: false, kept: None, by, settled: false, listed: None };
    let kept = Lost { listed: Some(Listed { noted: Hlc(5), by_hlc: Hlc(4) }), ..bare.clone() };
    let key = |era, seq| conflicts::lost_key(Era(era), b"key", WriteId { seq, ..by });
    let mut thread = Thread::start(|engine, _| {
        // More than are looked at in one step.
        let mut notes: Vec<_> = (1..=600).map(|seq| (key(1, seq), Some(bare.encode()))).collect();
        notes.extend([(key(1, 2), Some(kept.encode())), (key(2, 1), Some(bare.encode()))]);
        let state = State::begin(ERA, Hlc(4));
        let changes = Changes { state: state.encode(), notes, ..Changes::default() };
        engine.data().apply_eventual(REGION, NAMESPACE, &changes, (ERA, &state.applied)).unwrap();
    });
    let data = thread.engine.data().region(REGION, NAMESPACE);
    let (from, to) = conflicts::all_lost();
    let noted = || {
        let notes = data.some_notes(&from, &to, 1000).unwrap();
        let parsed = notes.iter().map(|(key, _)| conflicts::parse_lost_key(key).unwrap());
        parsed.map(|(era, _, id)| (era.0, id.seq)).collect::<Vec<_>>()
    };
    thread.driver.work().unwrap();
    assert_eq!(noted().len(), 601, "its era goes on");
    let mut mode = Region::new(Mode::Eventual);
    let (epoch, boundary) = (Epoch(2), Boundary::default());
    mode.enter(&Marker { switch: SwitchId(1), epoch, era: Era(2), mode: Mode::Strong, boundary });
    let (members, settings) = (vec![ONE, TWO, THREE], Settings::default());
    let opening = Opening { region: REGION, namespace: NAMESPACE, members, settings, mode };
    thread.driver.handle(Event::Open { opening, entered: None }).unwrap();
    for _ in 0..3 {
        thread.driver.work().unwrap();
    }
    assert_eq!(noted(), [(1, 2), (2, 1)]);
    assert!(thread.driver.bygone.is_empty());
}

/// Whoever has the answer and reads here waits until the write is applied. One that waits for other members does so from then on.
#[test]
fn a_write_is_answered_once_it_is_synced_and_readers_wait_until_it_is_applied() {
    let mut thread = Thread::start(|_, _| ());
    let (told, answers) = std::sync::mpsc::channel();
    for acks in [Acks::One, Acks::Quorum] {
        let (shown, data, told) = (thread.replica().shown(), thread.engine.data(), told.clone());
        let waiter = WriteWaiter::new(move |answer| {
            assert!(matches!(answer, Ok(Answers::Eventual(..))));
            let is_stored = data.get(NAMESPACE, b"key").unwrap().is_some();
            told.send((acks, shown.progress().answered_first(), is_stored)).unwrap();
        });
        thread.write(b"key", b"value", waiter.with_terms(Terms { acks, ..Terms::in_era(ERA) }));
    }
    thread.driver.hand_out(Instant::now()).unwrap();
    thread.take(|event| matches!(event, Event::Synced { .. }));
    let answers: Vec<_> = answers.try_iter().collect();
    assert_eq!(answers, [(Acks::One, Some((ERA, 2)), false), (Acks::Quorum, None, true)]);
}

/// What members send, and what callers write, may come in between; all else finds applied what is synced.
#[test]
fn what_is_synced_is_applied_in_steps_and_before_anything_else_goes_on() {
    let mut thread = Thread::start(|_, _| ());
    let runs = (0..10).map(|at| run(of(TWO), 20 * at, 20 * (at + 1)));
    let runs = runs.map(|run| (run.clone(), run.encode().into())).collect();
    let share = Budget::new(1 << 20).take(1).unwrap();
    thread.driver.handle(Event::Runs { from: TWO, region: REGION, runs, awaited: false, share }).unwrap();
    let (waiter, mut answer) = WriteWaiter::channel();
    thread.write(b"own", b"value", waiter.with_terms(Terms { acks: Acks::Quorum, ..Terms::in_era(ERA) }));
    thread.driver.hand_out(Instant::now()).unwrap();
    thread.take(|event| matches!(event, Event::Synced { .. }));
    assert!(answer.try_recv().is_ok(), "its own come first");
    assert_eq!(thread.replica().claimed_own(), 1);
    let now = thread.driver.next_step;
    thread.driver.apply_some(now).unwrap();
    let applied = |thread: &mut Thread| thread.replica().claimed().get(of(TWO));
    assert_eq!((applied(&mut thread), thread.replica().progress().synced.get(of(TWO))), (20, 200));
    assert!(!thread.replica().is_quiet() && !thread.replica().hurries_to_apply());
    let reader = thread.replica().shown().progress().follow_applied();
    assert!(thread.replica().hurries_to_apply(), "somebody waits for it");
    drop(reader);
    let now = thread.driver.next_step;
    thread.driver.apply_some(now).unwrap();
    assert_eq!(applied(&mut thread), 40);
    thread.driver.apply_some(now).unwrap();
    assert_eq!(applied(&mut thread), 40, "the next step is not due yet");
    thread.hear(TWO, &vector(&[(of(TWO), 200)]), false);
    assert_eq!(applied(&mut thread), 40);
    thread.driver.handle(Event::Heard { descriptors: Vec::new() }).unwrap();
    assert_eq!(applied(&mut thread), 200);
    assert!(thread.replica().is_quiet());
}

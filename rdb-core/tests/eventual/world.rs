//! Nodes, what travels between them, and what befalls them.

use crate::node::{Copy, Live, Node};
use crate::truth::{Key, Truth, Value};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use rdb_core::eventual::buckets::Comparison;
use rdb_core::eventual::copy::is_needed;
use rdb_core::eventual::peers::Report;
use rdb_core::eventual::run::Run;
use rdb_core::eventual::session::{Seen, SessionToken};
use rdb_core::eventual::vector::{Vector, WriteId};
use rdb_core::ids::{Era, NamespaceId, NodeId};
use rdb_core::version::{Hlc, Version};
use std::collections::{BTreeMap, BTreeSet};

const NAMESPACE: NamespaceId = NamespaceId(9);
const HOT_KEYS: u64 = 4;
const HOUR_MS: u64 = 3_600_000;
/// How long it may take until all have all, once nothing is in the way any more.
const ROUNDS_MAX: usize = 400;

#[derive(Clone, Copy)]
pub(crate) struct Options {
    pub(crate) nodes: u64,
    pub(crate) steps: u64,
    pub(crate) keeps_lost: bool,
    /// Whether the time of what is kept ends now and then.
    pub(crate) forgets: bool,
    pub(crate) crashes: bool,
    /// Bytes that a node keeps for others.
    pub(crate) cap: u64,
    /// Whether writes are applied and acknowledged before they are synced.
    pub(crate) periodic: bool,
}

#[derive(Clone)]
enum Message {
    Run(Vec<u8>),
    /// With what is certain there.
    Report(Report, Vector),
    Refused,
    /// The receiver cannot be served from logs any more.
    GivenUp(Vector),
    WantsCopy,
    Copy(Box<Copy>),
}

/// How often what is rare has happened.
#[derive(Debug, Default)]
pub(crate) struct Met(BTreeMap<&'static str, u64>);

impl Met {
    /// What must happen for the worlds to prove anything.
    pub(crate) const ALL: [&'static str; 17] = [
        "a run was refused",
        "a write was lost",
        "a lost write was found again",
        "a superseded write was left out",
        "another node's run was sent on",
        "a run was dropped from a log",
        "a tombstone was purged",
        "losses were settled",
        "two nodes were at one vector",
        "a token was satisfied",
        "a node crashed",
        "a write vanished in a crash",
        "a node was given up",
        "a node took a copy",
        "a node crashed with half a copy merged",
        "the time of a kept write ended",
        "an acknowledged write vanished in a power cut",
    ];

    fn count(&mut self, what: &'static str, times: u64) {
        assert!(Self::ALL.contains(&what), "{what}");
        *self.0.entry(what).or_default() += times;
    }

    pub(crate) fn add(&mut self, other: &Met) {
        other.0.iter().for_each(|(what, times)| self.count(what, *times));
    }

    pub(crate) fn times(&self, what: &str) -> u64 {
        self.0.get(what).copied().unwrap_or(0)
    }
}

pub(crate) struct World {
    seed: u64,
    rng: ChaCha8Rng,
    now_ms: u64,
    nodes: Vec<Node>,
    network: Vec<(NodeId, NodeId, Message)>,
    /// Links that carry nothing, by direction.
    cut: BTreeSet<(NodeId, NodeId)>,
    truth: Truth,
    /// What clients were told: the token of an answer, and what it had written.
    tokens: Vec<(SessionToken, Key, Version)>,
    /// The stamp up to which all may purge.
    purge_to: Hlc,
    /// And in earlier eras.
    purged_before: Hlc,
    /// Lost writes of this era whose time has ended somewhere.
    forgotten: BTreeSet<(Key, WriteId)>,
    element: u64,
    options: Options,
    pub(crate) met: Met,
}

impl World {
    pub(crate) fn new(seed: u64, options: &Options) -> Self {
        let nodes =
            (1..=options.nodes).map(|node| Node::new(NodeId(node), options.keeps_lost, options.periodic));
        let nodes = nodes.collect();
        let mut world = Self {
            seed,
            rng: ChaCha8Rng::seed_from_u64(seed),
            now_ms: 1000,
            nodes,
            network: Vec::new(),
            cut: BTreeSet::new(),
            truth: Truth::begin(Era(1), BTreeMap::new()),
            tokens: Vec::new(),
            purge_to: Hlc(0),
            purged_before: Hlc(0),
            forgotten: BTreeSet::new(),
            element: 0,
            options: *options,
            met: Met::default(),
        };
        (0..world.nodes.len()).for_each(|at| world.start(at));
        world
    }

    pub(crate) fn run(&mut self) {
        for _ in 0..self.options.steps {
            let at = self.any();
            match self.rng.random_range(0..100) {
                0..18 => self.write(at),
                18..32 => self.work(at),
                32..50 => self.push(at),
                50..62 => self.send_report(at),
                62..85 => self.deliver(),
                85..88 => self.cut_or_mend(),
                88..90 if self.options.crashes => self.crash(self.half_copied().unwrap_or(at)),
                90..92 => self.revive(),
                92..94 => self.nodes[at].flush(),
                94..96 => self.truncate(at),
                96..98 => {
                    self.look_at_frontier(at);
                    self.settle_and_purge(at);
                    self.forget(at);
                }
                98 => self.send_again(at),
                99 if self.nodes[at].is_merging() => self.nodes[at].merge_page(),
                _ => self.now_ms += self.rng.random_range(1..400),
            }
            self.check_alike();
            self.check_nothing_left_early();
        }
    }

    fn any(&mut self) -> usize {
        self.rng.random_range(0..self.nodes.len())
    }

    fn start(&mut self, at: usize) {
        // Mostly right, now and then an hour off: an hour that no clock goes back over.
        let off_ms = match self.rng.random_range(0..10) {
            0 => HOUR_MS,
            1 => 0,
            _ => HOUR_MS / 2 + self.rng.random_range(0..300),
        };
        let wall_ms = 10 * HOUR_MS + off_ms + self.now_ms;
        self.nodes[at].start(self.truth.era, self.options.nodes, self.now_ms, wall_ms);
    }

    /// Some writes together: to hot keys, and one that nobody else ever writes.
    fn write(&mut self, at: usize) {
        let mut writes: Vec<(Key, Value)> = Vec::new();
        for _ in 0..self.rng.random_range(0..4) {
            let key = format!("hot {}", self.rng.random_range(0..HOT_KEYS));
            let value = (!self.rng.random_bool(0.3))
                .then(|| self.rng.random_range(0..1000u64).to_be_bytes().to_vec());
            writes.push((key.into_bytes(), value));
        }
        self.element += 1;
        writes.push((format!("element {}", self.element).into_bytes(), Some(b"here".to_vec())));
        let Some((run, shown)) = self.nodes[at].write(self.now_ms, &writes) else { return };
        for (entry, (key, value)) in run.entries.iter().zip(writes) {
            let id = WriteId { origin: run.origin, seq: entry.seq };
            self.truth.write(id, &key, entry.hlc, value, shown.clone());
            if self.options.periodic {
                self.truth.acknowledge(id);
            }
        }
    }

    /// Syncs something, and applies something that is synced.
    fn work(&mut self, at: usize) {
        let (synced, applied) = (self.rng.random_range(0..6), self.rng.random_range(0..6));
        self.nodes[at].sync(synced);
        self.apply(at, applied);
    }

    /// What becomes visible of a node's own writes is acknowledged.
    fn apply(&mut self, at: usize, count: usize) {
        let Some(live) = &mut self.nodes[at].live else { return };
        let lost = live.machine.state().lost;
        let visible = live.apply(count, self.now_ms);
        let state = live.machine.state();
        self.met.count("a write was lost", u64::from(lost < state.lost));
        self.met.count("a lost write was found again", u64::from(state.lost < lost));
        let token = SessionToken { namespace: NAMESPACE, era: state.era, vector: state.applied.clone() };
        for id in visible.into_iter().filter(|id| id.origin == live.logs.me()) {
            self.truth.acknowledge(id);
        }
        if let Some(key) = live.keys().nth(self.rng.random_range(0..50)).cloned() {
            let shown = live.get(&key).map(|(version, _)| version);
            self.tokens.extend(shown.map(|version| (token, key, version)));
        }
    }

    fn push(&mut self, at: usize) {
        let to = NodeId(self.rng.random_range(1..=self.options.nodes));
        let from = self.nodes[at].id;
        let heard: BTreeSet<NodeId> =
            (1..=self.options.nodes).map(NodeId).filter(|node| self.hears(from, *node)).collect();
        let Some(bytes) = self.nodes[at].push(to, self.now_ms, |node| heard.contains(&node)) else { return };
        let run = Run::decode(&bytes).unwrap();
        self.met.count(
            "a superseded write was left out",
            u64::from((run.entries.len() as u64) < run.last() - run.after),
        );
        self.met.count("another node's run was sent on", u64::from(run.origin.node != from));
        self.send(from, to, Message::Run(bytes));
    }

    fn hears(&self, one: NodeId, other: NodeId) -> bool {
        let is_up = self.nodes.iter().any(|node| node.id == other && node.live.is_some());
        is_up && !self.cut.contains(&(other, one))
    }

    fn send(&mut self, from: NodeId, to: NodeId, message: Message) {
        if from != to {
            self.network.push((from, to, message));
        }
    }

    fn send_report(&mut self, at: usize) {
        let from = self.nodes[at].id;
        let to = NodeId(self.rng.random_range(1..=self.options.nodes));
        self.tell(at, from, to);
    }

    /// What it has, and whether it cannot serve the other one.
    fn tell(&mut self, at: usize, from: NodeId, to: NodeId) {
        let Some(report) = self.nodes[at].report(self.now_ms) else { return };
        let certain = self.nodes[at].live.as_ref().map(|live| live.certain.clone()).unwrap_or_default();
        if self.nodes[at].need_copy().contains(&to) {
            self.send(from, to, Message::GivenUp(report.synced.clone()));
        }
        self.send(from, to, Message::Report(report, certain));
    }

    /// Any message, not the first; some are lost, and some come twice.
    fn deliver(&mut self) {
        if self.network.is_empty() {
            return;
        }
        let at = self.rng.random_range(0..self.network.len());
        let (from, to, message) = self.network.swap_remove(at);
        if self.cut.contains(&(from, to)) || self.rng.random_bool(0.05) {
            return;
        }
        if self.rng.random_bool(0.1) {
            self.network.push((from, to, message.clone()));
        }
        self.take(from, to, message);
    }

    fn take(&mut self, from: NodeId, to: NodeId, message: Message) {
        let Some(node) = self.nodes.iter_mut().find(|node| node.id == to) else { return };
        match message {
            Message::Run(bytes) => {
                if !node.receive(&bytes) {
                    self.met.count("a run was refused", 1);
                    self.send(to, from, Message::Refused);
                }
            }
            Message::Report(report, certain) => {
                if let Some(live) = &mut node.live {
                    live.peers.heard(from, &report, self.now_ms);
                    if report.era == live.logs.era() {
                        live.hear_certain(from, certain);
                    }
                }
            }
            Message::GivenUp(theirs) => {
                let lacks = |live: &Live| is_needed(&theirs, &live.logs.synced_vector());
                if node.live.as_ref().is_some_and(lacks) && !node.is_merging() {
                    self.send(to, from, Message::WantsCopy);
                }
            }
            Message::WantsCopy => {
                if let Some(copy) = node.offer(from) {
                    self.send(to, from, Message::Copy(Box::new(copy)));
                }
            }
            Message::Copy(copy) => {
                let taken = node.take_copy(*copy, self.now_ms);
                self.met.count("a node took a copy", u64::from(taken));
                if taken {
                    // What was logged before it is applied before it.
                    let at = self.nodes.iter().position(|node| node.id == to).unwrap();
                    self.apply(at, usize::MAX);
                }
            }
            Message::Refused => {
                if let Some(live) = &mut node.live {
                    live.peers.send_again(from);
                }
            }
        }
    }

    fn cut_or_mend(&mut self) {
        let (one, other) = (self.any() as u64 + 1, self.any() as u64 + 1);
        if self.rng.random_bool(0.4) {
            self.cut.clear();
        } else {
            self.cut.insert((NodeId(one), NodeId(other)));
            if self.rng.random_bool(0.7) {
                self.cut.insert((NodeId(other), NodeId(one)));
            }
        }
    }

    /// A node that has merged half a copy: few moments are as good for a crash.
    fn half_copied(&self) -> Option<usize> {
        let is_copying = |node: &Node| node.live.as_ref().is_some_and(|live| live.machine.is_copying());
        self.nodes.iter().position(is_copying)
    }

    fn crash(&mut self, at: usize) {
        if self.nodes[at].live.is_some() {
            self.met.count("a node crashed", 1);
            let is_copying = self.nodes[at].live.as_ref().is_some_and(|live| live.machine.is_copying());
            self.met.count("a node crashed with half a copy merged", u64::from(is_copying));
            let origin = self.nodes[at].origin();
            self.nodes[at].crash(&mut self.rng);
            let undone = self.truth.undo(origin, self.nodes[at].durable(origin));
            self.met.count("an acknowledged write vanished in a power cut", undone as u64);
            assert!(self.options.periodic || undone == 0, "seed {}: {undone} writes are gone", self.seed);
        }
    }

    fn revive(&mut self) {
        if let Some(at) = self.nodes.iter().position(|node| node.live.is_none()) {
            self.start(at);
        }
    }

    fn truncate(&mut self, at: usize) {
        let (dropped, given_up) = self.nodes[at].truncate(self.options.cap);
        self.met.count("a run was dropped from a log", dropped as u64);
        self.met.count("a node was given up", given_up as u64);
    }

    /// Whoever looks says how far all may purge; and each node does so when it comes to it.
    fn look_at_frontier(&mut self, at: usize) {
        if let Some(frontier) = self.nodes[at].frontier(self.now_ms) {
            self.purge_to = self.purge_to.max(frontier);
        }
    }

    fn settle_and_purge(&mut self, at: usize) {
        let Some(live) = &mut self.nodes[at].live else { return };
        self.met.count("losses were settled", u64::from(live.settle()));
        live.forget_settled();
        self.met.count("a tombstone was purged", u64::from(live.purge(self.purge_to)));
    }

    fn forget(&mut self, at: usize) {
        let count = self.rng.random_range(0..8);
        let Some(live) = self.nodes[at].live.as_mut().filter(|_| self.options.forgets) else { return };
        let lost = live.machine.state().lost;
        let forgotten = live.forget(count);
        live.check_kept();
        assert_eq!(live.machine.state().lost, lost, "seed {}: it counts all the same", self.seed);
        self.met.count("the time of a kept write ended", forgotten.len() as u64);
        self.forgotten.extend(forgotten);
    }

    fn send_again(&mut self, at: usize) {
        let Some(live) = &mut self.nodes[at].live else { return };
        (1..=self.options.nodes).for_each(|node| live.peers.send_again(NodeId(node)));
    }

    /// Nothing is in the way any more, and everybody does what there is to do, until nothing is left.
    pub(crate) fn mend(&mut self) {
        self.cut.clear();
        (0..self.nodes.len())
            .filter(|at| self.nodes[*at].live.is_none())
            .collect::<Vec<_>>()
            .into_iter()
            .for_each(|at| self.start(at));
        for _ in 0..ROUNDS_MAX {
            self.now_ms += 100;
            for at in 0..self.nodes.len() {
                self.round(at);
            }
            for (from, to, message) in std::mem::take(&mut self.network) {
                self.take(from, to, message);
            }
            self.check_alike();
            if self.is_quiet() {
                return;
            }
        }
        panic!("seed {}: {} rounds were not enough", self.seed, ROUNDS_MAX);
    }

    fn round(&mut self, at: usize) {
        self.nodes[at].sync(usize::MAX);
        self.apply(at, usize::MAX);
        while self.nodes[at].is_merging() {
            self.nodes[at].merge_page();
            // Most copies are taken now, and some of them are cut off.
            if self.options.crashes && self.half_copied() == Some(at) && self.rng.random_bool(0.1) {
                self.nodes[at].flush();
                self.crash(at);
                self.start(at);
            }
        }
        self.send_again(at);
        self.push(at);
        for to in (1..=self.options.nodes).map(NodeId) {
            let from = self.nodes[at].id;
            self.tell(at, from, to);
        }
        if at == 0 {
            self.look_at_frontier(at);
        }
        self.settle_and_purge(at);
        self.nodes[at].flush();
        self.truncate(at);
    }

    /// All have all, all know it, nothing is kept for anybody, and every loss is settled.
    fn is_quiet(&self) -> bool {
        let all = self.all();
        self.nodes.iter().all(|node| {
            let live = node.live.as_ref().unwrap();
            let state = live.machine.state();
            let done =
                state.applied == all && live.is_idle() && node.log_is_empty() && live.logs.bytes() == 0;
            let forgot = live.lost().values().all(|lost| lost.listed.is_some());
            done && forgot && state.lost == state.settled && state.purged == self.purge_to
        })
    }

    /// Everything that anybody has.
    fn all(&self) -> Vector {
        let mut all = Vector::default();
        self.nodes.iter().flat_map(|node| &node.live).for_each(|live| all.merge(&live.logs.logged_vector()));
        all
    }

    /// Nobody has a write of a node that the node itself could lose.
    fn check_nothing_left_early(&self) {
        for node in &self.nodes {
            let durable = node.durable(node.origin());
            for other in self.nodes.iter().filter(|other| other.id != node.id) {
                let Some(live) = &other.live else { continue };
                let (logged, told) = (live.logs.logged_vector(), live.peers.reports());
                let told = told.filter(|(of, ..)| *of == node.id);
                let told = told.filter_map(|(_, report, _)| Some(report?.applied.get(node.origin()))).max();
                let has = logged.get(node.origin()).max(told.unwrap_or_default());
                let fits = has <= durable || live.machine.state().era != self.truth.era;
                assert!(
                    fits,
                    "seed {}: {has} of {:?}, which may lose what is behind {durable}",
                    self.seed, node.id
                );
            }
        }
    }

    /// Of nodes at one vector: whatever their way there, they hold the same and have lost the same.
    fn check_alike(&mut self) {
        // Half a copy is ahead of its node's vector.
        let lives = self.nodes.iter().flat_map(|node| &node.live).filter(|live| !live.machine.is_copying());
        let lives: Vec<_> = lives.collect();
        for (at, one) in lives.iter().enumerate() {
            for other in &lives[at + 1..] {
                let (mine, theirs) = (one.machine.state(), other.machine.state());
                if (mine.era, &mine.applied) != (theirs.era, &theirs.applied) || mine.applied.is_empty() {
                    continue;
                }
                self.met.count("two nodes were at one vector", 1);
                assert_eq!(mine.lost, theirs.lost, "seed {}", self.seed);
                assert_eq!(mine.awaited, theirs.awaited, "seed {}", self.seed);
                let compared = one.machine.digest().compare(&other.machine.digest());
                let differ = matches!(compared, Comparison::Different(_));
                assert!(
                    !differ && (compared == Comparison::Equal) == (mine.purged == theirs.purged),
                    "seed {}: {compared:?}",
                    self.seed
                );
            }
        }
        if self.tokens.is_empty() {
            return;
        }
        let at = self.rng.random_range(0..self.tokens.len());
        let (token, key, version) = &self.tokens[at];
        for live in lives {
            let state = live.machine.state();
            if token.seen_at(state.era, &state.applied) == Seen::Satisfied {
                self.met.count("a token was satisfied", 1);
                let shown = live.get(key).map(|(version, _)| version);
                let purged = shown.is_none() && version.hlc <= self.purge_to.max(self.purged_before);
                assert!(purged || Some(*version) <= shown, "seed {}: {version:?} {shown:?}", self.seed);
            }
        }
    }

    /// What the nodes came to is the truth.
    pub(crate) fn check_converged(&mut self) {
        let all = self.all();
        self.truth.check_acknowledged(&all);
        self.met.count("a write vanished in a crash", self.truth.vanished(&all) as u64);
        let (stays, lost) = (self.truth.stays(&all), self.truth.lost(&all));
        for node in &self.nodes {
            let live = node.live.as_ref().unwrap();
            let state = live.machine.state();
            for (key, (version, value)) in &stays {
                let purged = value.is_none() && version.hlc <= state.purged;
                let expected = (!purged).then(|| (*version, value.clone()));
                assert_eq!(live.get(key), expected, "seed {}: {}", self.seed, String::from_utf8_lossy(key));
            }
            assert!(
                live.keys().all(|key| stays.contains_key(key)),
                "seed {}: a key out of thin air",
                self.seed
            );
            assert_eq!((state.lost, state.awaited), (lost.len() as u64, 0), "seed {}", self.seed);
            self.check_listed(live, &lost);
        }
    }

    /// What is listed in the end is just what is lost, with the values that were lost; less what it was time to forget, which a
    /// crash may have brought back.
    fn check_listed(&self, live: &Live, lost: &BTreeSet<(Key, WriteId)>) {
        live.check_kept();
        let noted = live.lost();
        for ((_, id), note) in &noted {
            assert!(note.settled && note.listed.is_some(), "seed {}: {note:?}", self.seed);
            let written = (note.hlc, note.kept.clone());
            assert_eq!(written, self.truth.written(*id), "seed {}", self.seed);
            assert_eq!(note.tombstone, note.kept.is_none(), "seed {}", self.seed);
            let by = self.truth.written(note.by).0;
            assert_eq!(note.listed.map(|listed| listed.by_hlc), Some(by), "seed {}", self.seed);
        }
        let noted: BTreeSet<_> = noted.into_keys().collect();
        let expected = if self.options.keeps_lost { lost.clone() } else { BTreeSet::new() };
        assert!(noted.is_subset(&expected), "seed {}", self.seed);
        let missing: BTreeSet<_> = expected.difference(&noted).cloned().collect();
        assert!(missing.is_subset(&self.forgotten), "seed {}: {missing:?}", self.seed);
    }

    /// How many writes a crash has undone.
    pub(crate) fn vanished(&self) -> usize {
        self.truth.vanished(&self.all())
    }

    /// All stand at one base. What is still under way belongs to the era that ends.
    pub(crate) fn begin_next_era(&mut self) {
        let base = self.truth.stays(&self.all()).into_iter();
        let base =
            base.filter(|(_, (version, value))| value.is_some() || self.purge_to < version.hlc).collect();
        self.forgotten.clear();
        self.truth = Truth::begin(Era(self.truth.era.0 + 1), base);
        let highest =
            self.nodes.iter().flat_map(|node| &node.live).map(|live| live.machine.state().highest).max();
        for node in &mut self.nodes {
            node.begin_era(self.truth.era, highest.unwrap_or_default(), self.options.nodes, self.now_ms);
        }
        self.purged_before = self.purged_before.max(self.purge_to);
        self.purge_to = Hlc(0);
    }
}

//! What a world is like: every number here is drawn from the seed.

use crate::floor::Floor;
use crate::options::{
    Clocks, Faults, MS, Micros, Network, SECOND, Snapshots, Span, draw_faults, draw_network, draw_raft,
    draw_snapshots, pick, span,
};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use rdb_core::raft;
use rdb_core::switch::Mode;

/// One world.
#[derive(Debug, Clone)]
pub struct Options {
    /// What all else here was drawn from.
    pub seed: u64,
    /// Nodes of the cluster.
    pub nodes: u64,
    /// The mode that the namespace begins in.
    pub start: Mode,
    /// Clients at a time.
    pub clients: usize,
    /// Clients besides, which do nothing but read by lease, where there are leases.
    pub readers: usize,
    /// Keys that clients contend for. Beside them each write has an element of a set, which is a key of its own.
    pub keys: u64,
    /// How long everything may fail.
    pub storm: Micros,
    /// Time between two ticks of a node.
    pub tick: Micros,
    /// Time between a turn's first event and the turn.
    pub turn: Span,
    /// Between two operations of a client.
    pub think: Span,
    /// After which a client gives up on an answer.
    pub patience: Micros,
    /// From the start of a sync to its end.
    pub sync: Span,
    /// From the start of an apply of the region's log to its end.
    pub apply: Span,
    /// From the sync of an eventual write to its merge.
    pub merge: Span,
    /// A read of old entries from the region's log.
    pub fetch: Span,
    /// Between two flushes of a node's data.
    pub flush: Span,
    /// Between two looks of a node at what can be settled, purged and dropped.
    pub upkeep: Span,
    /// Bytes of runs in one message.
    pub message_bytes: usize,
    /// The links between nodes.
    pub network: Network,
    /// What happens to nodes and links, and how often.
    pub faults: Faults,
    /// How the clocks of nodes differ.
    pub clocks: Clocks,
    /// Between two acts of an operator.
    pub operate: Span,
    /// Chance that an operator who finds a switch under way calls it off.
    pub abort: f64,
    /// Chance that a switch to strong goes on without somebody.
    pub exclude: f64,
    /// Chance that a switch has a deadline.
    pub deadline: f64,
    /// How long a step takes to the catalog, or what it says to a node.
    pub news: Span,
    /// Chance that this takes the long way.
    pub late_news: f64,
    /// When the region's log leaves members behind, and how these get the data instead.
    pub snapshots: Snapshots,
    /// Chance that a node loses power around a step of a switch.
    pub aim: f64,
    /// Whether eventual writes are acknowledged before they are synced.
    pub periodic: bool,
    /// Log writes of a node under way, while its group hands out nothing more.
    pub writes_in_flight_max: usize,
    /// The options of the region's group.
    pub raft: raft::Options,
    /// Bytes of runs that a node keeps for members that lack them.
    pub log_cap: u64,
    /// What the storm goes on for, when its time is over; not drawn.
    pub floor: Option<Floor>,
}

impl Options {
    /// The same world, whose storm goes on until the floor is reached, and in which nodes crash.
    #[must_use]
    pub fn with_floor(mut self, floor: Floor) -> Self {
        self.faults.crash.get_or_insert(self.storm / 2);
        Self { floor: Some(floor), ..self }
    }

    /// The weather gets better.
    pub(crate) fn ease(&mut self) {
        self.faults.ease();
        self.network.ease();
    }

    /// Draws a world.
    pub fn draw(seed: u64) -> Self {
        // Not the stream of the other kind of world.
        let rng = &mut ChaCha8Rng::seed_from_u64(seed ^ 0x6d6f_6465_7300_0000);
        let tick = rng.random_range(10..=30) * MS;
        let raft = raft::Options { leases: rng.random_bool(0.5), ..draw_raft(rng) };
        let network = draw_network(rng);
        let sync = span(rng, 100, &[500, 5 * MS, 30 * MS]);
        let apply = span(rng, 10, &[200, 2 * MS, 20 * MS]);
        let clients = rng.random_range(3..=6);
        let service = clients as u64 * 3 * (2 * network.delay.1 + 2 * sync.1 + apply.1);
        Self {
            seed,
            nodes: *pick(rng, &[3, 3, 3, 3, 5]),
            start: *pick(rng, &[Mode::Strong, Mode::Eventual]),
            clients,
            readers: if raft.leases { rng.random_range(1..=2) } else { 0 },
            keys: rng.random_range(1..=4),
            storm: rng.random_range(3..=7) * SECOND,
            tick,
            turn: span(rng, 1, &[1, 200, 2 * MS]),
            think: span(rng, MS, &[20 * MS, 80 * MS, 200 * MS]),
            patience: service + tick * raft.election_ticks as u64 * rng.random_range(1..=3),
            sync,
            apply,
            merge: span(rng, 10, &[200, 2 * MS, 20 * MS]),
            fetch: span(rng, 50, &[MS, 20 * MS]),
            flush: span(rng, 20 * MS, &[100 * MS, 500 * MS, 3 * SECOND]),
            upkeep: span(rng, 20 * MS, &[50 * MS, 300 * MS]),
            message_bytes: *pick(rng, &[1, 300, 256 << 10]),
            network,
            faults: draw_faults(rng),
            clocks: Clocks {
                offset_ms: *pick(rng, &[0, 10, 3_600_000]),
                drift_ppm: *pick(rng, &[0, 100, 50_000]),
                step_ms: *pick(rng, &[500, 60_000, 3_600_000]),
            },
            operate: span(rng, 50 * MS, &[300 * MS, SECOND, 2 * SECOND]),
            abort: *pick(rng, &[0.0, 0.1, 0.5]),
            exclude: *pick(rng, &[0.0, 0.3, 0.8]),
            deadline: *pick(rng, &[0.0, 0.3]),
            news: span(rng, 200, &[2 * MS, 30 * MS, 200 * MS]),
            late_news: *pick(rng, &[0.0, 0.05, 0.3]),
            snapshots: draw_snapshots(rng),
            aim: *pick(rng, &[0.0, 0.02, 0.1]),
            periodic: *pick(rng, &[false, false, true]),
            writes_in_flight_max: *pick(rng, &[1, 4, 64]),
            raft,
            // Runs have about 100 bytes.
            log_cap: *pick(rng, &[u64::MAX, u64::MAX, 800, 4_000, 20_000]),
            floor: None,
        }
    }
}

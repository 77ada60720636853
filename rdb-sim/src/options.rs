//! What a world is like: every number here is drawn from the seed.
//!
//! Each fault is first switched on or off and then given a rate of its own, so that some seeds have a calm network and
//! a murderous power supply, and others the reverse. A world in which everything fails at once explores less: its
//! cluster never gets far enough for the interesting states.

use crate::floor::Floor;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use rdb_core::raft;

/// Microseconds of simulated time.
pub type Micros = u64;

/// A range that a duration is drawn from each time.
pub type Span = (Micros, Micros);

/// One world.
#[derive(Debug, Clone)]
pub struct Options {
    /// What all else here was drawn from.
    pub seed: u64,
    /// Nodes of the cluster.
    pub nodes: u64,
    /// Regions, each with a replica on every node.
    pub regions: u64,
    /// Clients at a time.
    pub clients: usize,
    /// Plain keys of each region; few, so that clients meet.
    pub keys: u64,
    /// How long everything may fail.
    pub storm: Micros,
    /// Time between two ticks of a node.
    pub tick: Micros,
    /// Time between a turn's first event and the turn: events in between are handled as one batch.
    pub turn: Span,
    /// Between two operations of a client.
    pub think: Span,
    /// After which a client gives up on an answer.
    pub patience: Micros,
    /// From the start of a sync to its end.
    pub sync: Span,
    /// From the start of an apply to its end.
    pub apply: Span,
    /// A read of old entries from the log.
    pub fetch: Span,
    /// Between two flushes of a node's data.
    pub flush: Span,
    /// Between two looks of a node at the length of its logs.
    pub truncate: Span,
    /// The links between nodes.
    pub network: Network,
    /// What happens to nodes and links, and how often.
    pub faults: Faults,
    /// When logs leave members behind, and how these get the data instead.
    pub snapshots: Snapshots,
    /// How links fill up before they are cut.
    pub congestion: Congestion,
    /// Chance that a request goes to any node, and not to the one that its client believes to lead.
    pub stray: f64,
    /// Clients besides, which do nothing but read, at any node.
    pub readers: usize,
    /// Chance that a client waits only a short time for an answer, and then asks elsewhere.
    pub hurry: f64,
    /// How the clocks of nodes differ.
    pub clocks: Clocks,
    /// The options of every group.
    pub raft: raft::Options,
    /// How namespaces come and go; `None` where the regions are there from the beginning, and no catalog.
    pub lifetimes: Option<Lifetimes>,
    /// What the storm goes on for, when its time is over; not drawn.
    pub floor: Option<Floor>,
}

/// How namespaces come and go: one at a time, as a catalog in a meta region has it.
#[derive(Debug, Clone)]
pub struct Lifetimes {
    /// Namespaces that are there, if all goes well.
    pub namespaces: usize,
    /// Until the next one is created or deleted.
    pub interval: Span,
    /// To destroy a region's data, and to make that durable.
    pub destroy: Span,
    /// Chance that a node loses power while it makes or destroys a region.
    pub crash: f64,
}

/// How messages travel.
#[derive(Debug, Clone)]
pub struct Network {
    /// The usual delay.
    pub delay: Span,
    /// Chance that a message is lost.
    pub loss: f64,
    /// Chance that it arrives twice.
    pub duplicate: f64,
    /// Chance that it takes the long way.
    pub straggler: f64,
    /// How long that is.
    pub straggler_delay: Span,
    /// Whether a link keeps the order of its messages, as one stream does.
    pub ordered: bool,
    /// Chance that a node notices that a message to a dead or cut-off peer was lost.
    pub notices_loss: f64,
}

/// The mean time between two faults of a kind; `None` where it does not happen.
#[derive(Debug, Clone)]
pub struct Faults {
    /// One node loses power.
    pub crash: Option<Micros>,
    /// All nodes lose power at once.
    pub power_cut: Option<Micros>,
    /// Until a node that lost power starts again.
    pub restart: Span,
    /// The network falls in two.
    pub partition: Option<Micros>,
    /// A leader is cut off from all others.
    pub isolate_leader: Option<Micros>,
    /// One direction of one link is cut.
    pub one_way: Option<Micros>,
    /// Until a cut heals.
    pub heal: Span,
    /// A process is stopped and goes on later.
    pub pause: Option<Micros>,
    /// For how long.
    pub pause_length: Span,
    /// A log disk hangs.
    pub stall: Option<Micros>,
    /// For how long.
    pub stall_length: Span,
    /// A wall clock steps forward or back.
    pub clock_step: Option<Micros>,
    /// A leader hands over.
    pub transfer: Option<Micros>,
}

/// A link into a queue that grows: each message takes longer than the one before it, and none is lost. So a leader hears
/// for a long time what others said before they left it, and a round of heartbeats is answered long after it started.
#[derive(Debug, Clone)]
pub struct Congestion {
    /// The mean time until the links to a leader fill up, and then nobody hears it; `None` where that does not happen.
    pub rate: Option<Micros>,
    /// Microseconds by which the delay grows in each microsecond.
    pub growth: f64,
}

/// When leaders let logs be dropped past members that lag, and how snapshots travel.
#[derive(Debug, Clone)]
pub struct Snapshots {
    /// Silence after which no log waits for a member; `None` if all logs wait for ever.
    pub absence_max: Option<Micros>,
    /// Bytes of a log past which it waits for nobody who is silent; for those who are heard, four times as many.
    pub log_bytes_max: u64,
    /// Entries that are kept in any case.
    pub keep_entries: u64,
    /// Until a snapshot that is wanted is read.
    pub read: Span,
    /// From there until it has come and its files are synced.
    pub travel: Span,
    /// Its arrival falls on a multiple of this, as of a disk that syncs in bursts: so some come together.
    pub bursts: Micros,
    /// Chance that it comes when its sender has long given it up.
    pub late: f64,
    /// Chance that it, or the word of what became of it, is lost.
    pub loss: f64,
    /// Chance that it comes twice.
    pub duplicate: f64,
    /// After which its sender gives it up.
    pub give_up: Span,
    /// To replace the data.
    pub replace: Span,
    /// Chance that a node loses power while it sends or takes in one; at times all nodes do.
    pub crash: f64,
}

/// How far wall clocks are off.
#[derive(Debug, Clone)]
pub struct Clocks {
    /// Milliseconds that a clock is off at the start, either way.
    pub offset_ms: u64,
    /// Parts per million that it runs too fast or too slow.
    pub drift_ppm: u64,
    /// Milliseconds of a step, either way.
    pub step_ms: u64,
}

pub(crate) const MS: Micros = 1_000;
/// A second.
pub const SECOND: Micros = 1_000 * MS;

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
        self.congestion.rate.iter_mut().for_each(|mean| *mean *= 2);
        if let Some(lifetimes) = &mut self.lifetimes {
            lifetimes.interval = (2 * lifetimes.interval.0, 2 * lifetimes.interval.1);
            lifetimes.crash /= 2.0;
        }
    }

    /// Draws a world.
    pub fn draw(seed: u64) -> Self {
        let rng = &mut ChaCha8Rng::seed_from_u64(seed);
        let tick = rng.random_range(10..=30) * MS;
        let raft = draw_raft(rng);
        let clients = rng.random_range(3..=6);
        let network = draw_network(rng);
        let sync = span(rng, 100, &[500, 5 * MS, 30 * MS]);
        let apply = span(rng, 10, &[200, 2 * MS, 20 * MS]);
        // Clients that give up sooner than a busy cluster can answer would only ever ask anew.
        let service = clients as u64 * 3 * (2 * network.delay.1 + 2 * sync.1 + apply.1);
        let patience = service + tick * raft.election_ticks as u64 * rng.random_range(1..=4);
        let mut options = Self {
            seed,
            nodes: *pick(rng, &[1, 3, 3, 3, 3, 3, 3, 3, 5, 5, 5]),
            regions: rng.random_range(1..=2),
            clients,
            keys: rng.random_range(1..=4),
            storm: rng.random_range(4..=10) * SECOND,
            tick,
            turn: span(rng, 1, &[1, 200, 2 * MS]),
            think: span(rng, MS, &[20 * MS, 80 * MS, 200 * MS]),
            patience,
            sync,
            apply,
            fetch: span(rng, 50, &[MS, 20 * MS]),
            flush: span(rng, 20 * MS, &[100 * MS, 500 * MS, 3 * SECOND]),
            truncate: span(rng, 20 * MS, &[100 * MS, 500 * MS, 3 * SECOND]),
            network,
            faults: draw_faults(rng),
            clocks: Clocks {
                offset_ms: *pick(rng, &[0, 10, 1_000]),
                drift_ppm: *pick(rng, &[0, 100, 50_000]),
                step_ms: *pick(rng, &[10, 500, 60_000]),
            },
            raft,
            // Drawn last: so all that stands above is what it was before there were these.
            snapshots: draw_snapshots(rng),
            congestion: Congestion {
                rate: rng.random_bool(0.75).then_some(rng.random_range(300 * MS..2 * SECOND)),
                growth: *pick(rng, &[0.5, 1.0, 2.0]),
            },
            stray: *pick(rng, &[0.05, 0.3, 0.6]),
            hurry: *pick(rng, &[0.0, 0.1, 0.3]),
            readers: *pick(rng, &[0, 1, 2, 4]),
            lifetimes: None,
            floor: None,
        };
        // Only logs that are shortened often leave behind who is away for a moment.
        if options.snapshots.absence_max.is_some() && rng.random_bool(0.7) {
            options.flush = span(rng, 20 * MS, &[20 * MS, 100 * MS]);
            // Not sooner than the entry that allows it is applied: else a slow world would do nothing but that.
            let entry = 4 * options.network.delay.1 + 2 * options.sync.1 + 2 * options.apply.1;
            options.truncate = span(rng, 20 * MS + entry, &[20 * MS, 100 * MS]);
        }
        // By the number of the seed, so that all other worlds are what they were before there were these.
        options.lifetimes = matches!(seed % 5, 0 | 3).then(|| draw_lifetimes(rng));
        options
    }
}

impl Faults {
    /// All of them half as often.
    pub(crate) fn ease(&mut self) {
        let Self {
            crash,
            power_cut,
            partition,
            isolate_leader,
            one_way,
            pause,
            stall,
            clock_step,
            transfer,
            ..
        } = self;
        let rates =
            [crash, power_cut, partition, isolate_leader, one_way, pause, stall, clock_step, transfer];
        rates.into_iter().flatten().for_each(|mean| *mean *= 2);
    }
}

impl Network {
    /// All that goes wrong half as often.
    pub(crate) fn ease(&mut self) {
        self.loss /= 2.0;
        self.straggler /= 2.0;
        self.duplicate /= 2.0;
    }
}

pub(crate) fn draw_raft(rng: &mut ChaCha8Rng) -> raft::Options {
    let append_bytes_max = *pick(rng, &[0, 200, 1 << 20]);
    raft::Options {
        election_ticks: rng.random_range(6..=16),
        heartbeat_ticks: rng.random_range(1..=3),
        append_bytes_max,
        appends_in_flight_max: *pick(rng, &[1, 4, 64]),
        entries_in_flight_max: *pick(rng, &[1, 2, 8]),
        entry_bytes_max: *pick(rng, &[1, 100, 1 << 20]),
        // The longest command of a client has less than 400 bytes: one that never fits would be tried for ever.
        queue_bytes_max: *pick(rng, &[400, 64 << 20]),
        reads_max: *pick(rng, &[2, 65_536]),
        uncommitted_bytes_max: append_bytes_max.max(*pick(rng, &[500, 1 << 20, 64 << 20])),
        eager_commits: rng.random_bool(0.5),
        apply_bytes_max: *pick(rng, &[1, 500, 8 << 20]),
        tail_bytes_max: *pick(rng, &[0, 500, 8 << 20]),
        // Both rest on what lies outside the core: a clock, and somebody who watches the nodes.
        leases: false,
        sleep_after_ticks: None,
    }
}

pub(crate) fn draw_network(rng: &mut ChaCha8Rng) -> Network {
    Network {
        delay: span(rng, 50, &[500, 5 * MS, 30 * MS]),
        loss: *pick(rng, &[0.0, 0.0, 0.01, 0.1]),
        duplicate: *pick(rng, &[0.0, 0.0, 0.02, 0.2]),
        straggler: *pick(rng, &[0.0, 0.0, 0.01, 0.05]),
        straggler_delay: span(rng, 20 * MS, &[200 * MS, 2 * SECOND]),
        ordered: rng.random_bool(0.5),
        notices_loss: *pick(rng, &[0.0, 0.1, 1.0]),
    }
}

pub(crate) fn draw_faults(rng: &mut ChaCha8Rng) -> Faults {
    Faults {
        crash: rate(rng),
        power_cut: rate(rng).map(|mean| 2 * mean),
        restart: span(rng, 10 * MS, &[300 * MS, 2 * SECOND]),
        partition: rate(rng),
        isolate_leader: rate(rng),
        one_way: rate(rng),
        heal: span(rng, 50 * MS, &[500 * MS, 2 * SECOND]),
        pause: rate(rng),
        pause_length: span(rng, 20 * MS, &[300 * MS, 2 * SECOND]),
        stall: rate(rng),
        stall_length: span(rng, 50 * MS, &[500 * MS, 2 * SECOND]),
        clock_step: rate(rng),
        transfer: rate(rng),
    }
}

pub(crate) fn draw_snapshots(rng: &mut ChaCha8Rng) -> Snapshots {
    let left_behind = rng.random_bool(0.8);
    Snapshots {
        absence_max: left_behind.then_some(*pick(rng, &[0, 20 * MS, 100 * MS, 500 * MS])),
        log_bytes_max: if left_behind { *pick(rng, &[500, 5_000, u64::MAX]) } else { u64::MAX },
        keep_entries: *pick(rng, &[0, 1, 5, 20]),
        read: span(rng, 100, &[MS, 50 * MS]),
        travel: span(rng, MS, &[5 * MS, 50 * MS, 300 * MS]),
        bursts: *pick(rng, &[1, 1, 100 * MS, 400 * MS]),
        late: *pick(rng, &[0.0, 0.1, 0.4]),
        loss: *pick(rng, &[0.0, 0.1, 0.4]),
        duplicate: *pick(rng, &[0.0, 0.1, 0.4]),
        give_up: span(rng, 100 * MS, &[200 * MS, SECOND]),
        replace: span(rng, 100, &[MS, 20 * MS, 100 * MS]),
        crash: *pick(rng, &[0.0, 0.1, 0.3]),
    }
}

fn draw_lifetimes(rng: &mut ChaCha8Rng) -> Lifetimes {
    Lifetimes {
        namespaces: rng.random_range(1..=3),
        interval: span(rng, 10 * MS, &[50 * MS, 300 * MS, SECOND]),
        destroy: span(rng, 100, &[MS, 20 * MS, 100 * MS]),
        crash: *pick(rng, &[0.0, 0.05, 0.2]),
    }
}

pub(crate) fn rate(rng: &mut ChaCha8Rng) -> Option<Micros> {
    let mean = rng.random_range(400 * MS..4 * SECOND);
    rng.random_bool(0.5).then_some(mean)
}

pub(crate) fn pick<'a, T>(rng: &mut ChaCha8Rng, choices: &'a [T]) -> &'a T {
    &choices[rng.random_range(0..choices.len())]
}

pub(crate) fn span(rng: &mut ChaCha8Rng, least: Micros, most: &[Micros]) -> Span {
    (least, least + pick(rng, most))
}

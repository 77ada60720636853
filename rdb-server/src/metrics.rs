//! What `/metrics` shows. Counters are touched where things happen; gauges of regions and of the log are read when
//! somebody looks.

use crate::switch::SwitchMetrics;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use std::time::Duration;

/// What kind of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Operation {
    Read,
    Write,
    Scan,
    Namespace,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Result {
    Done,
    NotDone,
    InDoubt,
    /// On this node, and not known to be on as many as was asked.
    DoneHere,
}

impl Result {
    /// What became of a request that was answered with an error.
    pub(crate) fn of(error: &rdb_proto::v1::Error) -> Self {
        match error.outcome() {
            rdb_proto::v1::Outcome::InDoubt => Self::InDoubt,
            rdb_proto::v1::Outcome::DoneHere => Self::DoneHere,
            _ => Self::NotDone,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    operation: Operation,
    result: Result,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RegionLabels {
    region: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PortLabels {
    port: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PeerLabels {
    peer: u64,
}

/// All of a node's metrics.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    latency_read: Histogram,
    latency_write: Histogram,
    applied_entries: Counter,
    apply_seconds: Histogram,
    messages_rejected: Counter,
    messages_dropped: Counter,
    pub(crate) switches: SwitchMetrics,
    gauges: Gauges,
}

/// What is read when somebody looks.
#[derive(Default)]
struct Gauges {
    leader: Family<RegionLabels, Gauge>,
    term: Family<RegionLabels, Gauge>,
    applied_index: Family<RegionLabels, Gauge>,
    apply_lag: Family<RegionLabels, Gauge>,
    log_entries: Family<RegionLabels, Gauge>,
    quorum_margin: Family<RegionLabels, Gauge>,
    regions_asleep: Gauge,
    request_bytes: Gauge,
    scans: Gauge,
    requests_refused: Gauge,
    arriving_bytes: Gauge,
    arriving_refused: Gauge,
    connections: Family<PortLabels, Gauge>,
    connections_refused: Family<PortLabels, Gauge>,
    connections_silent: Family<PortLabels, Gauge>,
    region_request_bytes: Family<RegionLabels, Gauge>,
    region_requests_refused: Family<RegionLabels, Gauge>,
    eventual_lag_ms: Family<RegionLabels, Gauge>,
    eventual_lag_known: Family<RegionLabels, Gauge>,
    eventual_peers_behind: Family<RegionLabels, Gauge>,
    eventual_log_bytes: Family<RegionLabels, Gauge>,
    eventual_peers_given_up: Family<RegionLabels, Gauge>,
    eventual_divergent_buckets: Family<RegionLabels, Gauge>,
    eventual_records_repaired: Family<RegionLabels, Gauge>,
    lww_conflicts: Family<RegionLabels, Gauge>,
    lww_conflicts_certain: Family<RegionLabels, Gauge>,
    tombstones_purged: Family<RegionLabels, Gauge>,
    lost_kept_bytes: Family<RegionLabels, Gauge>,
    lost_crowded_out: Family<RegionLabels, Gauge>,
    clock_offset_ms: Family<PeerLabels, Gauge>,
    clock_untrusted: Gauge,
    disk_available_bytes: Gauge,
    disk_room: Gauge,
    disk_slow_sync_ms: Gauge,
    mailbox_events: Gauge,
    log_batches: Gauge,
    log_syncs: Gauge,
    log_sync_micros: Gauge,
}

fn latency() -> Histogram {
    Histogram::new([
        0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0,
    ])
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("flaredb"),
            requests: Family::default(),
            latency_read: latency(),
            latency_write: latency(),
            applied_entries: Counter::default(),
            apply_seconds: latency(),
            messages_rejected: Counter::default(),
            messages_dropped: Counter::default(),
            switches: SwitchMetrics::default(),
            gauges: Gauges::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        self.switches.register(registry);
        registry.register("requests", "Operations by kind and outcome", self.requests.clone());
        let seconds = Unit::Seconds;
        registry.register_with_unit(
            "read_duration",
            "From a read's arrival to its answer",
            seconds.clone(),
            self.latency_read.clone(),
        );
        registry.register_with_unit(
            "write_duration",
            "From a write's arrival to its answer",
            seconds.clone(),
            self.latency_write.clone(),
        );
        registry.register("applied_entries", "Log entries applied", self.applied_entries.clone());
        registry.register_with_unit(
            "apply_duration",
            "Applying one batch of entries",
            seconds,
            self.apply_seconds.clone(),
        );
        registry.register(
            "peer_messages_rejected",
            "Messages no correct peer sends",
            self.messages_rejected.clone(),
        );
        registry.register(
            "peer_messages_dropped",
            "Messages that found a full queue",
            self.messages_dropped.clone(),
        );
        let gauges = &self.gauges;
        registry.register("region_leader", "1 where this node leads the region", gauges.leader.clone());
        registry.register("region_term", "The region's Raft term", gauges.term.clone());
        registry.register("region_applied_index", "The last log entry applied", gauges.applied_index.clone());
        registry.register("region_apply_lag_entries", "Committed but not applied", gauges.apply_lag.clone());
        registry.register("region_log_entries", "Entries in the region's log", gauges.log_entries.clone());
        registry.register(
            "region_quorum_margin",
            "On the leader: voters heard from, less those that a majority needs",
            gauges.quorum_margin.clone(),
        );
        registry.register(
            "regions_asleep",
            "Idle regions whose replica here sends and expects no heartbeats",
            gauges.regions_asleep.clone(),
        );
        registry.register("request_bytes", "Bytes of requests under way", gauges.request_bytes.clone());
        registry.register("scans", "Scans under way", gauges.scans.clone());
        registry.register(
            "requests_refused",
            "Requests since the start that found the node's memory for requests used up",
            gauges.requests_refused.clone(),
        );
        registry.register(
            "arriving_bytes",
            "Bytes that have come of messages which are not whole yet",
            gauges.arriving_bytes.clone(),
        );
        registry.register(
            "arriving_refused",
            "Messages since the start that found the memory for those used up before they were whole",
            gauges.arriving_refused.clone(),
        );
        registry.register("connections", "Connections to the port now", gauges.connections.clone());
        registry.register(
            "connections_refused",
            "Connections since the start that were closed at once, since there were as many as may be",
            gauges.connections_refused.clone(),
        );
        registry.register(
            "connections_silent",
            "Connections since the start that were closed for having said nothing, at first or for long",
            gauges.connections_silent.clone(),
        );
        registry.register(
            "region_request_bytes",
            "Bytes of requests under way to the region's namespace",
            gauges.region_request_bytes.clone(),
        );
        registry.register(
            "region_requests_refused",
            "Requests since the start that found the namespace's part of it, or the node's, used up",
            gauges.region_requests_refused.clone(),
        );
        registry.register(
            "eventual_lag_ms",
            "Age of the oldest write here that a peer has not applied; at least so much where it is not known",
            gauges.eventual_lag_ms.clone(),
        );
        registry.register(
            "eventual_lag_known",
            "1 where all peers were heard within the last second, so that the lag is known",
            gauges.eventual_lag_known.clone(),
        );
        registry.register(
            "eventual_peers_behind",
            "Peers that have not applied all that is synced here",
            gauges.eventual_peers_behind.clone(),
        );
        registry.register(
            "eventual_log_bytes",
            "Bytes of eventual writes kept for peers that lack them, or until they are flushed",
            gauges.eventual_log_bytes.clone(),
        );
        registry.register(
            "eventual_peers_given_up",
            "Peers for which the logs reached their cap: they take a copy of the data when they are back",
            gauges.eventual_peers_given_up.clone(),
        );
        registry.register(
            "eventual_divergent_buckets",
            "Of 256 buckets of keys, those in which a peer with the same writes held other records when last compared: damage",
            gauges.eventual_divergent_buckets.clone(),
        );
        registry.register(
            "eventual_records_repaired",
            "Records taken over from peers since the start, since replicas differed",
            gauges.eventual_records_repaired.clone(),
        );
        registry.register(
            "lww_conflicts",
            "Eventual writes that lost against a concurrent one, by what is applied here; one may yet be found to be none",
            gauges.lww_conflicts.clone(),
        );
        registry.register(
            "lww_conflicts_certain",
            "Those of them of which it is certain; only grows, and comes to the same on every node",
            gauges.lww_conflicts_certain.clone(),
        );
        registry.register(
            "tombstones_purged",
            "Deletions of an eventual namespace that were forgotten here since the start",
            gauges.tombstones_purged.clone(),
        );
        registry.register(
            "lost_kept_bytes",
            "Bytes of lost eventual writes that are kept here, as their namespace asks",
            gauges.lost_kept_bytes.clone(),
        );
        registry.register(
            "lost_crowded_out",
            "Lost eventual writes that had to go before their time since the start, for want of room",
            gauges.lost_crowded_out.clone(),
        );
        registry.register(
            "clock_offset_ms",
            "How far the peer's clock is ahead of this node's, as measured within the last two seconds",
            gauges.clock_offset_ms.clone(),
        );
        registry.register(
            "clock_untrusted",
            "1 where this node's clock is off from those of a majority, so that it takes no eventual writes",
            gauges.clock_untrusted.clone(),
        );
        registry.register(
            "disk_available_bytes",
            "Bytes free on the disk of the data",
            gauges.disk_available_bytes.clone(),
        );
        registry.register(
            "disk_room",
            "0: enough; 1: nothing is stored any more; 2: nothing is removed either",
            gauges.disk_room.clone(),
        );
        registry.register(
            "disk_slow_sync_milliseconds",
            "What a sync of the log takes of late, where the disk is slow; 0: it is not",
            gauges.disk_slow_sync_ms.clone(),
        );
        registry.register(
            "mailbox_events",
            "Events that wait for the raft loop",
            gauges.mailbox_events.clone(),
        );
        registry.register(
            "log_batches",
            "Batches written to the log since the start",
            gauges.log_batches.clone(),
        );
        registry.register("log_syncs", "Syncs of the log since the start", gauges.log_syncs.clone());
        registry.register("log_sync_micros", "Microseconds spent in them", gauges.log_sync_micros.clone());
    }

    /// Operations of one kind have ended, all with the same result and after the same time.
    pub(crate) fn requests(&self, operation: Operation, result: Result, count: u64, took: Duration) {
        if count == 0 {
            return;
        }
        self.requests.get_or_create(&RequestLabels { operation, result }).inc_by(count);
        match operation {
            Operation::Read => self.latency_read.observe(took.as_secs_f64()),
            Operation::Write => self.latency_write.observe(took.as_secs_f64()),
            // A scan takes as long as its client reads.
            Operation::Scan | Operation::Namespace => {}
        }
    }

    pub(crate) fn applied(&self, entries: usize, took: Duration) {
        self.applied_entries.inc_by(entries as u64);
        self.apply_seconds.observe(took.as_secs_f64());
    }

    pub(crate) fn message_rejected(&self) {
        self.messages_rejected.inc();
    }

    pub(crate) fn messages_dropped(&self, count: usize) {
        self.messages_dropped.inc_by(count as u64);
    }

    /// Everything, in OpenMetrics text.
    pub(crate) fn render(&self, shared: &crate::shared::Shared, log: &rdb_storage::LogMetrics) -> String {
        self.look(shared, log);
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }

    fn look(&self, shared: &crate::shared::Shared, log: &rdb_storage::LogMetrics) {
        let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let gauges = &self.gauges;
        for (region, view) in shared.regions.all().iter() {
            let labels = RegionLabels { region: region.0 };
            gauges.leader.get_or_create(&labels).set(i64::from(view.leads()));
            gauges.term.get_or_create(&labels).set(signed(view.term()));
            gauges.apply_lag.get_or_create(&labels).set(signed(view.commit().saturating_sub(view.applied())));
            gauges.applied_index.get_or_create(&labels).set(signed(view.applied()));
            gauges.log_entries.get_or_create(&labels).set(signed(view.log_entries()));
            gauges.region_request_bytes.get_or_create(&labels).set(signed(view.budget().used() as u64));
            gauges.region_requests_refused.get_or_create(&labels).set(signed(view.budget().refused()));
            if view.leads() {
                let majority = shared.config.nodes.len() as u64 / 2 + 1;
                let margin = signed(view.voters_active()) - signed(majority);
                gauges.quorum_margin.get_or_create(&labels).set(margin);
            } else {
                gauges.quorum_margin.remove(&labels);
            }
        }
        for (region, shown) in shared.eventual.all().iter() {
            let labels = RegionLabels { region: region.0 };
            let lag = shown.lag();
            gauges.eventual_lag_ms.get_or_create(&labels).set(signed(lag.at_least_ms));
            gauges.eventual_lag_known.get_or_create(&labels).set(i64::from(lag.known));
            gauges.eventual_peers_behind.get_or_create(&labels).set(signed(shown.behind()));
            gauges.eventual_log_bytes.get_or_create(&labels).set(signed(shown.log_bytes()));
            gauges.eventual_peers_given_up.get_or_create(&labels).set(signed(shown.given_up()));
            gauges.eventual_divergent_buckets.get_or_create(&labels).set(signed(shown.divergent()));
            gauges.eventual_records_repaired.get_or_create(&labels).set(signed(shown.repaired()));
            gauges.lww_conflicts.get_or_create(&labels).set(signed(shown.lost()));
            gauges.lww_conflicts_certain.get_or_create(&labels).set(signed(shown.lost_for_certain()));
            gauges.tombstones_purged.get_or_create(&labels).set(signed(shown.purged()));
            gauges.lost_kept_bytes.get_or_create(&labels).set(signed(shown.kept_bytes()));
            gauges.lost_crowded_out.get_or_create(&labels).set(signed(shown.crowded_out()));
        }
        self.switches.look(shared);
        self.look_at_clocks(shared);
        self.look_at_doors(shared);
        let asleep = shared.regions.all().values().filter(|view| view.asleep()).count();
        gauges.regions_asleep.set(signed(asleep as u64));
        gauges.request_bytes.set(signed(shared.budget.used() as u64));
        gauges.arriving_bytes.set(signed(shared.arriving.used() as u64));
        gauges.arriving_refused.set(signed(shared.arriving.refused()));
        gauges.scans.set(signed(shared.scans.under_way() as u64));
        gauges.requests_refused.set(signed(shared.budget.refused()));
        gauges.disk_available_bytes.set(signed(shared.disk.available_bytes()));
        gauges.disk_room.set(shared.disk.room() as i64);
        gauges.disk_slow_sync_ms.set(shared.disk.slow_sync_ms().into());
        gauges.mailbox_events.set(signed(shared.mailbox.len() as u64));
        let syncs = log.sync().read();
        gauges.log_batches.set(signed(log.batches()));
        gauges.log_syncs.set(signed(syncs.count));
        gauges.log_sync_micros.set(signed(syncs.sum_micros));
    }

    fn look_at_doors(&self, shared: &crate::shared::Shared) {
        let signed = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        for door in shared.doors.all() {
            let labels = PortLabels { port: door.port() };
            self.gauges.connections.get_or_create(&labels).set(signed(door.open() as u64));
            self.gauges.connections_refused.get_or_create(&labels).set(signed(door.refused()));
            self.gauges.connections_silent.get_or_create(&labels).set(signed(door.silent()));
        }
    }

    fn look_at_clocks(&self, shared: &crate::shared::Shared) {
        let ahead_ms = shared.clocks.ahead_ms();
        for node in shared.config.members() {
            let labels = PeerLabels { peer: node.0 };
            match ahead_ms.get(&node) {
                Some(ahead_ms) => drop(self.gauges.clock_offset_ms.get_or_create(&labels).set(*ahead_ms)),
                // What is not known is not shown as what it was.
                None => drop(self.gauges.clock_offset_ms.remove(&labels)),
            }
        }
        self.gauges.clock_untrusted.set(i64::from(shared.clocks.trust().is_err()));
    }
}

//! What is compared with what, and how far FlareDB must be ahead.

use crate::limits::Limits;
use crate::stores::Store;
use anyhow::{Result, bail};

/// Two sides that do the same work.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) work: &'static str,
    pub(crate) ours: Side,
    pub(crate) theirs: Side,
    pub(crate) bars: &'static [Bar],
    pub(crate) limit: Limit,
}

/// Who does it.
#[derive(Debug, Clone)]
pub(crate) enum Side {
    /// A store, under a load that `rdb bench` makes with these words.
    Store { store: Store, load: &'static str },
    /// The same store at a share of the most that it did under this load: an open loop.
    AtShare { store: Store, load: &'static str, share: f64 },
    /// RocksDB's own iterator, in one process.
    Iterator,
    /// Nobody: a figure of our side is held against another one of it.
    Nobody,
}

/// What is compared of a row, and the ratio of ours to theirs that there must be, and that we aim for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bar {
    pub(crate) figure: Figure,
    pub(crate) must: f64,
    pub(crate) aim: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Figure {
    /// Operations a second. More is better.
    Throughput,
    /// Processor time of all servers for an operation. This and what follows: less is better.
    ServerCpu,
    P50,
    P99,
    /// The p99 over the p50 of our side alone.
    Tail,
}

/// What our throughput is told as a share of.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Limit {
    /// RocksDB's writes by all processors, each of them made once on each of so many nodes.
    Puts { nodes: f64 },
    /// One sync of a small write after the other.
    Syncs,
    /// RocksDB's point gets by all processors.
    Gets,
    /// Calls of their own.
    Calls,
    /// RocksDB's iterator.
    Iterator,
}

impl Limit {
    /// Its name and how many operations a second it allows.
    pub(crate) fn of(self, limits: &Limits) -> (String, f64) {
        let processors = limits.processors;
        match self {
            Limit::Puts { nodes } => (
                format!("RocksDB's puts by {processors} processors, made {nodes} times"),
                limits.puts_per_second * processors / nodes,
            ),
            Limit::Syncs => ("one sync after the other".to_owned(), limits.syncs_per_second),
            Limit::Gets => (format!("RocksDB's gets by {processors} processors"), limits.gets_per_second),
            Limit::Calls => ("gRPC's calls that do nothing".to_owned(), limits.calls_per_second),
            Limit::Iterator => ("RocksDB's iterator".to_owned(), limits.iterated_per_second),
        }
    }
}

impl Figure {
    /// Whether more of it is better.
    pub(crate) fn more_is_better(self) -> bool {
        self == Figure::Throughput
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Figure::Throughput => "throughput",
            Figure::ServerCpu => "server CPU",
            Figure::P50 => "p50",
            Figure::P99 => "p99",
            Figure::Tail => "p99 / p50",
        }
    }
}

impl Bar {
    const fn at_least(figure: Figure, must: f64, aim: f64) -> Self {
        Self { figure, must, aim }
    }

    /// At most one part of so many.
    const fn part(figure: Figure, must: f64, aim: f64) -> Self {
        Self { figure, must: 1.0 / must, aim: 1.0 / aim }
    }

    pub(crate) fn is_met(&self, ratio: f64) -> bool {
        Self::holds(self.figure, ratio, self.must)
    }

    pub(crate) fn is_aim_met(&self, ratio: f64) -> bool {
        Self::holds(self.figure, ratio, self.aim)
    }

    fn holds(figure: Figure, ratio: f64, bar: f64) -> bool {
        if figure.more_is_better() { bar <= ratio } else { ratio <= bar }
    }
}

const THREE: Store = Store::FlareDb { nodes: 3 };
const ONE: Store = Store::FlareDb { nodes: 1 };
const ALWAYS: Store = Store::Redis { fsync: "always" };
const EVERYSEC: Store = Store::Redis { fsync: "everysec" };

const fn store(store: Store, load: &'static str) -> Side {
    Side::Store { store, load }
}

/// All rows, or those of these names.
pub(crate) fn named(names: &[String]) -> Result<Vec<Row>> {
    let all = all();
    if let Some(unknown) = names.iter().find(|name| all.iter().all(|row| row.name != **name)) {
        let known: Vec<_> = all.iter().map(|row| row.name).collect();
        bail!("there is no row '{unknown}': {}", known.join(", "));
    }
    Ok(all.into_iter().filter(|row| names.is_empty() || names.iter().any(|name| name == row.name)).collect())
}

fn all() -> Vec<Row> {
    let mut rows = beside_etcd();
    rows.extend(beside_redis());
    rows.extend(beside_itself());
    rows
}

fn beside_etcd() -> Vec<Row> {
    use Figure::{P50, P99, ServerCpu, Throughput};
    let row = |name, work, ours, theirs, limit, bars| Row {
        name,
        work,
        ours: store(THREE, ours),
        theirs: store(Store::Etcd, theirs),
        bars,
        limit,
    };
    let puts = Limit::Puts { nodes: 3.0 };
    vec![
        row(
            "put-1024",
            "strong put, 1,024 callers",
            "--read-share 0 --callers 1024",
            "--read-share 0 --callers 1024",
            puts,
            const { &[Bar::at_least(Throughput, 8.0, 12.0), Bar::part(ServerCpu, 8.0, 12.0)] },
        ),
        row(
            "put-64",
            "strong put, 64 callers",
            "--read-share 0 --callers 64",
            "--read-share 0 --callers 64",
            puts,
            const { &[Bar::at_least(Throughput, 5.0, 10.0), Bar::part(P99, 5.0, 10.0)] },
        ),
        row(
            "put-64-calls",
            "strong put, 64 callers, unary calls",
            "--read-share 0 --callers 64 --transport unary",
            "--read-share 0 --callers 64",
            Limit::Calls,
            const { &[Bar::at_least(Throughput, 3.0, 4.0)] },
        ),
        row(
            "put-1",
            "strong put, 1 caller",
            "--read-share 0 --callers 1",
            "--read-share 0 --callers 1",
            Limit::Syncs,
            const { &[Bar::part(P50, 2.0, 3.0)] },
        ),
        row(
            "get-1024",
            "linearizable get, 1,024 callers",
            "--read-share 1 --callers 1024",
            "--read-share 1 --callers 1024",
            Limit::Gets,
            const { &[Bar::at_least(Throughput, 10.0, 16.0)] },
        ),
        row(
            "get-64",
            "linearizable get, 64 callers",
            "--read-share 1 --callers 64",
            "--read-share 1 --callers 64",
            Limit::Gets,
            const { &[Bar::at_least(Throughput, 10.0, 20.0), Bar::part(P99, 5.0, 10.0)] },
        ),
        row(
            "local-get-1024",
            "local get, 1,024 callers; etcd's serializable",
            "--read-share 1 --callers 1024 --consistency local",
            "--read-share 1 --callers 1024 --consistency local",
            Limit::Gets,
            const { &[Bar::at_least(Throughput, 12.0, 20.0)] },
        ),
    ]
}

fn beside_redis() -> Vec<Row> {
    use Figure::Throughput;
    let row = |name, work, ours, theirs, limit, bars| Row { name, work, ours, theirs, bars, limit };
    vec![
        row(
            "one-put-64",
            "eventual put, one node, 64 callers, every write synced; one Redis",
            store(ONE, "--read-share 0 --callers 64 --mode eventual"),
            store(ALWAYS, "--read-share 0 --callers 64"),
            Limit::Puts { nodes: 1.0 },
            const { &[Bar::at_least(Throughput, 1.0, 1.5)] },
        ),
        row(
            "one-put-64x16",
            "eventual put, one node, 64 callers with 16 each, synced now and then; one Redis",
            store(ONE, "--read-share 0 --callers 64 --in-flight 16 --mode eventual --durability periodic"),
            store(EVERYSEC, "--read-share 0 --callers 64 --in-flight 16"),
            Limit::Puts { nodes: 1.0 },
            const { &[Bar::at_least(Throughput, 0.5, 1.0)] },
        ),
        row(
            "one-get-64x16",
            "local get, one node, 64 callers with 16 each; one Redis",
            store(ONE, "--read-share 1 --callers 64 --in-flight 16 --mode eventual --consistency local"),
            store(EVERYSEC, "--read-share 1 --callers 64 --in-flight 16"),
            Limit::Gets,
            const { &[Bar::at_least(Throughput, 0.5, 1.0)] },
        ),
    ]
}

fn beside_itself() -> Vec<Row> {
    use Figure::{Tail, Throughput};
    let row = |name, work, ours, theirs, limit, bars| Row { name, work, ours, theirs, bars, limit };
    let growth = |name, work, ours, theirs, limit| {
        row(name, work, ours, theirs, limit, const { &[Bar::at_least(Throughput, 0.6, 0.8)] })
    };
    vec![
        row(
            "eventual-put-64",
            "eventual put, 64 callers, every write synced; our strong put",
            store(THREE, "--read-share 0 --callers 64 --mode eventual"),
            store(THREE, "--read-share 0 --callers 64"),
            Limit::Puts { nodes: 3.0 },
            const { &[Bar::at_least(Throughput, 1.3, 1.6)] },
        ),
        row(
            "scan",
            "scan of 1,000,000 records; RocksDB's own iterator",
            store(THREE, "--scan --callers 1 --keys 1000000"),
            Side::Iterator,
            Limit::Iterator,
            const { &[Bar::at_least(Throughput, 0.5, 0.8)] },
        ),
        row(
            "put-half",
            "strong put at half of the maximum, open loop",
            Side::AtShare { store: THREE, load: "--read-share 0 --callers 1024", share: 0.5 },
            Side::Nobody,
            Limit::Puts { nodes: 3.0 },
            const { &[Bar { figure: Tail, must: 5.0, aim: 3.0 }] },
        ),
        row(
            "get-half",
            "linearizable get at half of the maximum, open loop",
            Side::AtShare { store: THREE, load: "--read-share 1 --callers 1024", share: 0.5 },
            Side::Nobody,
            Limit::Gets,
            const { &[Bar { figure: Tail, must: 5.0, aim: 3.0 }] },
        ),
        growth(
            "one-put-10gb",
            "strong put, one node, 10 GB of data; 100 MB",
            store(ONE, "--read-share 0 --callers 1024 --keys 36000000"),
            store(ONE, "--read-share 0 --callers 1024 --keys 360000"),
            Limit::Puts { nodes: 1.0 },
        ),
        growth(
            "one-get-10gb",
            "linearizable get, one node, 10 GB of data; 100 MB",
            store(ONE, "--read-share 1 --callers 1024 --keys 36000000"),
            store(ONE, "--read-share 1 --callers 1024 --keys 360000"),
            Limit::Gets,
        ),
        growth(
            "put-3gb",
            "strong put, three nodes, 3 GB of data; 100 MB",
            store(THREE, "--read-share 0 --callers 1024 --keys 11000000"),
            store(THREE, "--read-share 0 --callers 1024 --keys 360000"),
            Limit::Puts { nodes: 3.0 },
        ),
        growth(
            "get-3gb",
            "linearizable get, three nodes, 3 GB of data; 100 MB",
            store(THREE, "--read-share 1 --callers 1024 --keys 11000000"),
            store(THREE, "--read-share 1 --callers 1024 --keys 360000"),
            Limit::Gets,
        ),
    ]
}

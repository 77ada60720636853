//! What many idle namespaces cost each node, and how soon those that a dead node led serve writes again.
//!
//! Nothing is judged here: whoever asks compares the figures with what he wants.

use crate::cluster::{Cluster, Settings, Usage};
use crate::run::{Place, connect};
use anyhow::{Context as _, Result, bail};
use rdb_client::{Client, Mode, Options, Transport};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

const NODES: u64 = 3;
/// Namespaces that are made at a time. More would not be faster: one group decides.
const CREATORS: usize = 16;
/// For anything that should happen at all.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// After all are asleep, and after the start: what is still to be flushed and given back has time for it.
const SETTLE: Duration = Duration::from_secs(10);

/// What was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Idle {
    /// How many there were.
    pub namespaces: usize,
    /// Over how many seconds processors were watched.
    pub seconds: u64,
    /// The highest of all nodes' shares of one processor without namespaces, in percent.
    pub processor_percent_before: f64,
    /// The same with all of them, asleep.
    pub processor_percent: f64,
    /// The highest of all nodes' growths, in mebibytes.
    pub memory_growth_mib: f64,
    /// How many of them the node led that was killed: no other leads more.
    pub lost: usize,
    /// How many of these have served a write afterwards.
    pub served: usize,
    /// When the first of them had.
    pub first_ms: u64,
    /// When half of them had.
    pub half_ms: u64,
    /// When the last of them had.
    pub last_ms: u64,
    /// How many of all namespaces have served a write in the end.
    pub served_of_all: usize,
    /// Node by node.
    pub nodes: Vec<NodeCost>,
}

/// What one node used.
#[derive(Debug, Clone, Serialize)]
pub struct NodeCost {
    /// Which.
    pub node: u64,
    /// How many namespaces it led.
    pub led: usize,
    /// Its share of one processor without namespaces, in percent.
    pub processor_percent_before: f64,
    /// The same with them.
    pub processor_percent: f64,
    /// What it held without namespaces, in mebibytes.
    pub memory_mib_before: f64,
    /// The same with them.
    pub memory_mib: f64,
}

/// Starts three nodes, makes so many namespaces with a record each, lets them fall asleep, watches the nodes for so long, and
/// kills the node that leads the most.
///
/// # Errors
/// Something else went wrong than what is measured. The nodes' folder is kept then.
pub async fn idle(place: &Place, namespaces: usize, seconds: u64) -> Result<Idle> {
    let folder = place.folder.join("idle");
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let measured = measure(place, &folder, namespaces, Duration::from_secs(seconds)).await;
    let measured = measured.with_context(|| format!("the nodes' logs and data: {}", folder.display()))?;
    let _ = std::fs::remove_dir_all(&folder);
    Ok(measured)
}

async fn measure(place: &Place, folder: &std::path::Path, count: usize, watch: Duration) -> Result<Idle> {
    let settings = Settings { size: NODES, ..Settings::default() };
    let mut cluster = Cluster::start(&place.server, folder, &settings).await?;
    let client = one_by_one(&cluster).await?;
    sleep(SETTLE).await;
    let before = watched(&mut cluster, watch).await?;
    let names: Vec<String> = (0..count).map(|number| format!("idle-{number:05}")).collect();
    create(&client, &names).await?;
    fall_asleep(&cluster, count as u64).await?;
    sleep(SETTLE).await;
    let after = watched(&mut cluster, watch).await?;
    let leaders = cluster.leaders(1).await?;
    let nodes = costs(&before, &after, &leaders);
    let Some(dead) = nodes.iter().max_by_key(|node| node.led).map(|node| node.node) else {
        bail!("there are no nodes");
    };
    let (lost, rest): (Vec<String>, Vec<String>) =
        names.into_iter().partition(|name| leaders.get(name) == Some(&dead));
    let killed = Instant::now();
    cluster.kill(dead)?;
    let times = write_to_each(&client, &lost, killed).await;
    let others = write_to_each(&client, &rest, killed).await;
    cluster.heal().await?;
    cluster.is_sound()?;
    let at =
        |index: usize| times.get(index).map_or(0, |time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    Ok(Idle {
        namespaces: count,
        seconds: watch.as_secs(),
        processor_percent_before: most(&nodes, |node| node.processor_percent_before),
        processor_percent: most(&nodes, |node| node.processor_percent),
        memory_growth_mib: most(&nodes, |node| node.memory_mib - node.memory_mib_before),
        lost: lost.len(),
        served: times.len(),
        first_ms: at(0),
        // Half of those that were lost, and not of those that came back.
        half_ms: at(lost.len().div_ceil(2).saturating_sub(1)),
        last_ms: at(times.len().saturating_sub(1)),
        served_of_all: times.len() + others.len(),
        nodes,
    })
}

/// A client whose calls travel alone: a stream that is kept open for each of a thousand namespaces would be no idleness.
async fn one_by_one(cluster: &Cluster) -> Result<Client> {
    connect(cluster, Options { request_timeout: PATIENCE, transport: Transport::Unary, ..Options::default() })
        .await
}

/// Makes the namespaces, and writes a record into each, so that nobody can have forgotten to make it.
async fn create(client: &Client, names: &[String]) -> Result<()> {
    let mut creators = JoinSet::new();
    for names in names.chunks(names.len().div_ceil(CREATORS).max(1)) {
        let (client, names) = (client.clone(), names.to_vec());
        creators.spawn(async move {
            for name in names {
                client
                    .create_namespace(&name, Mode::Strong)
                    .await
                    .with_context(|| format!("making {name}"))?;
                client
                    .namespace(&name)
                    .put("key", "before")
                    .await
                    .with_context(|| format!("writing to {name}"))?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(ended) = creators.join_next().await {
        ended??;
    }
    Ok(())
}

async fn fall_asleep(cluster: &Cluster, wanted: u64) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    for id in cluster.ids() {
        loop {
            let asleep = cluster.metric(id, "flaredb_regions_asleep").await?;
            if wanted <= asleep {
                break;
            }
            if deadline < Instant::now() {
                bail!("of {wanted} idle namespaces only {asleep} sleep at node {id} after {PATIENCE:?}");
            }
            sleep(LOOK_INTERVAL).await;
        }
    }
    Ok(())
}

/// What each node uses: its share of a processor in percent, and its memory in the end.
type Watched = BTreeMap<u64, (f64, Usage)>;

async fn watched(cluster: &mut Cluster, watch: Duration) -> Result<Watched> {
    let began = Instant::now();
    let mut first = BTreeMap::new();
    for id in cluster.ids() {
        first.insert(id, cluster.usage(id)?);
    }
    sleep(watch).await;
    let mut watched = Watched::new();
    for (id, first) in first {
        let usage = cluster.usage(id)?;
        let used = usage.processor.saturating_sub(first.processor);
        watched.insert(id, (100.0 * used.as_secs_f64() / began.elapsed().as_secs_f64(), usage));
    }
    Ok(watched)
}

fn costs(before: &Watched, after: &Watched, leaders: &BTreeMap<String, u64>) -> Vec<NodeCost> {
    let both = before.iter().filter_map(|(node, before)| Some((*node, before, after.get(node)?)));
    both.map(|(node, before, after)| NodeCost {
        node,
        led: leaders.values().filter(|leader| **leader == node).count(),
        processor_percent_before: rounded(before.0),
        processor_percent: rounded(after.0),
        memory_mib_before: mebibytes(before.1),
        memory_mib: mebibytes(after.1),
    })
    .collect()
}

fn mebibytes(usage: Usage) -> f64 {
    rounded(usage.resident_bytes as f64 / f64::from(1 << 20))
}

/// To two decimals: more are noise.
fn rounded(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}

fn most(nodes: &[NodeCost], of: fn(&NodeCost) -> f64) -> f64 {
    rounded(nodes.iter().map(of).fold(f64::MIN, f64::max))
}

/// Writes once to each at the same moment. Returns when they were answered, since `from`, the soonest first; what was not
/// answered in time is not among them.
async fn write_to_each(client: &Client, names: &[String], from: Instant) -> Vec<Duration> {
    let mut writers = JoinSet::new();
    for name in names {
        let namespace = client.namespace(name);
        writers.spawn(async move { namespace.put("key", "after").await.ok().map(|_| from.elapsed()) });
    }
    let mut times: Vec<Duration> = writers.join_all().await.into_iter().flatten().collect();
    times.sort_unstable();
    times
}

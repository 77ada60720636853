//! Switches back and forth on a healthy cluster under load: how long writes wait, as clients see it, and that local reads do not.
//!
//! Every write is an element of a set under a key of its own, and is tried until it is acknowledged. Before each switch to strong
//! the writers connect anew, each to its own node, so that all nodes take eventual writes up to the switch.

use super::findings::Findings;
use super::load::VALUE_BYTES;
use super::pauses::{Window, Work, outside, pause};
use super::replicas::{alike, keys, sums};
use super::stage::{Nodes, Stage, until};
use super::stats::{Times, millis};
use crate::cluster::{NAMESPACE, PATIENCE};
use crate::switching::{begin, end_of, settled};
use anyhow::{Context as _, Result};
use rdb_client::{Client, Consistency, Mode, Namespace, Options, SwitchOptions};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

const TO_STRONG_P99_MAX: Duration = Duration::from_millis(100);
const TO_EVENTUAL_P99_MAX: Duration = Duration::from_millis(20);
/// No local read may take longer during a switch: what a busy machine does to reads without any switch.
const READ_MAX: Duration = Duration::from_millis(50);
const WRITERS_PER_NODE: u64 = 2;
/// Between a writer's writes. It is no part of any time that is measured.
const PACE: Duration = Duration::from_millis(2);
const RETRY_PAUSE: Duration = Duration::from_millis(1);
/// Before, between and after switches.
const QUIET: Duration = Duration::from_millis(300);
/// Of one call. A switch on a healthy cluster is over long before.
const CALL_LIMIT: Duration = Duration::from_secs(5);
const MARK: &str = "read-me";

/// What all clients share.
struct Clients {
    stop: AtomicBool,
    /// Grows when writers are to connect anew.
    turn: AtomicU64,
    /// Writers that have done so and written since, over all turns.
    turned: AtomicU64,
}

/// What a writer has done: its work, and the elements that were acknowledged.
type Wrote = (Vec<Work>, Vec<String>);

pub(super) async fn run(stage: &Stage, findings: &mut Findings) -> Result<()> {
    let mut cluster = stage.start().await?;
    let nodes = Nodes::create(&cluster, NAMESPACE, Mode::Eventual).await?;
    nodes.at[&1].put(MARK, "here").await.context("the first write failed")?;
    for (node, namespace) in &nodes.at {
        let shows = async || namespace.get(MARK).await.is_ok_and(|record| record.is_some());
        until(&format!("node {node} shows the first write"), PATIENCE, shows).await?;
    }
    let clients = Arc::new(Clients {
        stop: AtomicBool::new(false),
        turn: AtomicU64::new(0),
        turned: AtomicU64::new(0),
    });
    let (mut writers, mut readers) = (Vec::<JoinHandle<Result<Wrote>>>::new(), Vec::new());
    for (node, address) in cluster.addresses() {
        readers.push(tokio::spawn(read(nodes.at[&node].clone(), clients.clone())));
        for number in 0..WRITERS_PER_NODE {
            let who = format!("{node}.{number}");
            writers.push(tokio::spawn(write(address.clone(), who, clients.clone())));
        }
    }
    let windows = switches(stage, &nodes.client, &clients, writers.len() as u64, findings).await;
    clients.stop.store(true, Ordering::Relaxed);
    let (mut writes, mut elements, mut reads) = (Vec::new(), BTreeSet::new(), Vec::new());
    for writer in writers {
        let (work, acknowledged) = writer.await??;
        writes.push(work);
        elements.extend(acknowledged);
    }
    for reader in readers {
        reads.push(reader.await??);
    }
    judge(&windows?, &writes, &reads, findings);
    complete(&nodes, &elements, findings).await?;
    cluster.is_sound()
}

/// Switches in turn. Returns each one's direction and window.
async fn switches(
    stage: &Stage,
    client: &Client,
    clients: &Clients,
    writers: u64,
    findings: &mut Findings,
) -> Result<Vec<(Mode, Window)>> {
    let mut windows = Vec::new();
    for number in 1..=stage.sizes.switches {
        let now = settled(client, NAMESPACE, PATIENCE).await?;
        if now.mode == Mode::Eventual {
            let turn = clients.turn.fetch_add(1, Ordering::Relaxed) + 1;
            let turned = async || turn * writers <= clients.turned.load(Ordering::Relaxed);
            until("every writer writes at its own node", PATIENCE, turned).await?;
        }
        sleep(QUIET).await;
        let from = Instant::now();
        let begun = begin(client, NAMESPACE, &SwitchOptions::default(), PATIENCE).await?;
        let end = end_of(client, &begun, PATIENCE).await?;
        let to = begun.to.unwrap_or(now.mode);
        findings.require(end.completed, || {
            format!("switch {number} to {to} was called off on a healthy cluster: {}", end.reason)
        });
        windows.push((to, Window { from, to: Instant::now() }));
        if number.is_multiple_of(10) || number == stage.sizes.switches {
            stage.say(&format!(
                "{number} switches, the last one to {to} held writes back for {:?}",
                end.write_pause
            ));
        }
    }
    sleep(QUIET).await;
    Ok(windows)
}

fn judge(windows: &[(Mode, Window)], writes: &[Vec<Work>], reads: &[Vec<Work>], findings: &mut Findings) {
    let all: Vec<Window> = windows.iter().map(|(_, window)| *window).collect();
    let (writes_outside, reads_outside) = (outside(writes, &all), outside(reads, &all));
    findings.tell("without a switch: writes p99", millis(writes_outside.percentile(99)), "ms");
    findings.tell("local reads p99", millis(reads_outside.percentile(99)), "ms");
    findings.tell("their longest", millis(reads_outside.longest()), "ms");
    for (to, most) in [(Mode::Strong, TO_STRONG_P99_MAX), (Mode::Eventual, TO_EVENTUAL_P99_MAX)] {
        let those = || windows.iter().filter(|(mode, _)| *mode == to).map(|(_, window)| *window);
        let pauses = Times::of(those().map(|window| pause(writes, window).0).collect());
        findings.require(0 < pauses.count(), || format!("vacuous: no switch to {to} was completed"));
        findings.tell(
            format!("{} switches to {to}: longest write, median", pauses.count()),
            millis(pauses.median()),
            "ms",
        );
        findings.hold("p99", pauses.percentile(99), most);
        findings.tell("longest", millis(pauses.longest()), "ms");
        let idle = those().filter(|window| pause(writes, *window).1 < writes.len()).count();
        findings
            .require(idle == 0, || format!("vacuous: during {idle} switches to {to} not every writer wrote"));
        let unread = those().filter(|window| pause(reads, *window).1 < reads.len()).count();
        findings.require(unread == 0, || {
            format!("vacuous: during {unread} switches to {to} not every node was read")
        });
    }
    let longest = all.iter().map(|window| pause(reads, *window).0).max().unwrap_or_default();
    findings.hold("local reads during switches: longest", longest, READ_MAX.max(2 * reads_outside.longest()));
}

/// In the end all nodes are alike, and have every element that was acknowledged.
async fn complete(nodes: &Nodes, elements: &BTreeSet<String>, findings: &mut Findings) -> Result<()> {
    let same = async || sums(nodes).await.is_ok_and(|sums| alike(&sums).is_ok());
    until("all nodes have the same records", PATIENCE, same).await?;
    let found = keys(&nodes.at[&1]).await?;
    let lost: Vec<&String> = elements.difference(&found).collect();
    findings.count("elements acknowledged", elements.len() as u64);
    findings
        .require(lost.is_empty(), || format!("lost: {} elements, among them {:?}", lost.len(), lost.first()));
    Ok(())
}

async fn write(address: String, who: String, clients: Arc<Clients>) -> Result<Wrote> {
    let (mut work, mut acknowledged) = (Vec::new(), Vec::new());
    let mut turn = 0;
    let mut namespace = connect(&address).await?;
    for number in 0_u64.. {
        if clients.stop.load(Ordering::Relaxed) {
            break;
        }
        let now = clients.turn.load(Ordering::Relaxed);
        if turn < now {
            namespace = connect(&address).await?;
        }
        let element = format!("set/{who}.{number}");
        let value = format!("{element:.<VALUE_BYTES$}");
        let asked = Instant::now();
        while namespace.put(element.clone(), value.clone()).await.is_err() {
            if CALL_LIMIT * 4 < asked.elapsed() {
                anyhow::bail!("nobody acknowledges {element} for {:?}", asked.elapsed());
            }
            sleep(RETRY_PAUSE).await;
        }
        work.push(Work { asked, done: Instant::now() });
        acknowledged.push(element);
        if turn < now {
            turn = now;
            clients.turned.fetch_add(1, Ordering::Relaxed);
        }
        sleep(PACE).await;
    }
    Ok((work, acknowledged))
}

/// A client that asks this node first, and follows whoever leads.
async fn connect(address: &str) -> Result<Namespace> {
    let options = Options { request_timeout: CALL_LIMIT, ..Options::new([address]) };
    Ok(Client::connect(options).await?.namespace(NAMESPACE))
}

/// Reads what its node has, again and again. What was there from the beginning must be there whenever it is read.
async fn read(namespace: Namespace, clients: Arc<Clients>) -> Result<Vec<Work>> {
    let namespace = namespace.with_consistency(Consistency::Stale { max_age: None });
    let mut work = Vec::new();
    while !clients.stop.load(Ordering::Relaxed) {
        let asked = Instant::now();
        loop {
            match namespace.get(MARK).await {
                Ok(Some(_)) => break,
                Ok(None) => anyhow::bail!("what was read before is gone"),
                Err(_) => sleep(RETRY_PAUSE).await,
            }
        }
        work.push(Work { asked, done: Instant::now() });
        sleep(PACE).await;
    }
    Ok(work)
}

//! Nodes that crash in the middle of what they do: all of them, or one, are told to crash at a point. Those that do are started again,
//! and nothing that was acknowledged is lost. Each point must be come to.
//!
//! `cargo test -p rdb-server --features failpoints --test test_crashes`
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "clippy takes only functions marked as tests for tests"
)]

mod support;

use rdb_client::{Client, Mode, Options, SwitchOptions, SwitchPhase};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use support::elements::{at, everywhere, stop, writers};
use support::proxy::Wire;
use support::{Cluster, PATIENCE, Settings, until};

const NAMESPACE: &str = "carts";

/// Points that a namespace comes to which is written to and switched, and the time at which a node crashes there.
const UNDER_LOAD: &[(&str, u64)] = &[
    ("log-before-write", 150),
    ("log-after-sync", 150),
    ("log-after-report", 150),
    ("apply-before-write", 40),
    ("apply-after-write", 40),
    ("reads-before-answer", 3),
    ("origin-before-log", 30),
    ("clock-before-mark", 1),
    ("clock-mark-synced", 1),
    ("origin-synced", 30),
    ("origin-answered", 30),
    ("origin-applied", 30),
    ("runs-before-push", 10),
    ("runs-received", 10),
    ("seal-before-sync", 1),
    ("seal-after-sync", 1),
    ("open-before-sync", 1),
    ("open-after-sync", 1),
    ("era-ended", 1),
    ("era-before-write", 1),
    ("era-after-write", 1),
    ("marker-before-propose", 1),
    ("switch-before-step", 2),
];

/// Those that a node comes to which takes a snapshot in.
const IN_A_SNAPSHOT: &[&str] =
    &["snapshot-before-finish", "snapshot-staged", "snapshot-noted", "snapshot-installed"];

/// Starts those again that have crashed, as they were told, and says which.
fn start_again(cluster: &mut Cluster, point: &str) -> Vec<u64> {
    let crashed: Vec<u64> =
        cluster.ids().into_iter().filter(|node| cluster.has_crashed(*node, point)).collect();
    crashed.iter().for_each(|node| cluster.launch(*node));
    crashed
}

/// A client that waits for as long as it takes a node to start again, and others to elect a leader.
async fn patient(cluster: &Cluster) -> Client {
    cluster.client_with(Options { request_timeout: PATIENCE / 2, ..Options::default() }).await
}

/// What a namespace goes through: a switch to the other mode, which every other time is called off.
async fn switch(client: &Client, calls_off: bool) -> Result<(), Box<dyn std::error::Error>> {
    let limit = Some(Duration::from_secs(3));
    let options = SwitchOptions { max_write_pause: limit, max_preparing: limit, ..SwitchOptions::default() };
    let status = client.switch_status(NAMESPACE).await?;
    let to = if status.mode == Mode::Strong { Mode::Eventual } else { Mode::Strong };
    let begun = client.switch_mode(NAMESPACE, to, &options).await?;
    if calls_off {
        client.abort_switch(NAMESPACE).await?;
    }
    client.wait_for_switch(&begun, |_| ()).await?;
    client.namespace(NAMESPACE).get("nothing").await?;
    Ok(())
}

async fn settled(cluster: &Cluster, client: &Client) {
    until("the namespace has settled, and takes writes", async || {
        let status = client.switch_status(NAMESPACE).await.ok()?;
        let told = status.phase == SwitchPhase::Settled;
        let taken = client.namespace(NAMESPACE).put("settled", "x").await.is_ok();
        (told && taken).then_some(())
    })
    .await;
    for node in cluster.ids() {
        until("every node serves", async || at(cluster, node, NAMESPACE).await.get("settled").await.ok())
            .await;
    }
}

async fn crash_under_load(
    cluster: &mut Cluster,
    client: &Client,
    point: &str,
    number: u64,
) -> BTreeSet<String> {
    let load = writers(cluster, NAMESPACE, &format!("{point}-"), &cluster.ids()).await;
    for node in cluster.ids() {
        cluster.kill(node);
    }
    for node in cluster.ids() {
        cluster.launch_to_crash(node, &format!("{point}:{number}"));
    }
    let deadline = Instant::now() + PATIENCE;
    let mut crashed = Vec::new();
    for round in 0.. {
        let switched = tokio::time::timeout(Duration::from_secs(5), switch(client, round % 2 == 1)).await;
        eprintln!("{point}: round {round}: {switched:?}");
        crashed.extend(start_again(cluster, point));
        if !crashed.is_empty() {
            break;
        }
        tokio::time::sleep(support::LOOK_INTERVAL).await;
        assert!(Instant::now() < deadline, "no node came to '{point}' for the {number}th time");
    }
    println!("{point}: {crashed:?} crashed");
    // The others go down, too, and all start as what they are.
    for node in cluster.ids() {
        if !crashed.contains(&node) {
            if !cluster.has_crashed(node, point) {
                cluster.kill(node);
            }
            cluster.launch(node);
        }
    }
    for node in cluster.ids() {
        cluster.ready(node).await;
    }
    settled(cluster, client).await;
    let acknowledged = stop(load).await;
    assert!(!acknowledged.is_empty(), "nothing was acknowledged around '{point}'");
    acknowledged
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_crashes_under_load_and_switches_nothing_is_lost() {
    come_to_each(UNDER_LOAD, "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_crashes_before_a_lease_is_renewed_loses_nothing() {
    come_to_each(&[("lease-before-renewal", 3)], "leader_lease = true").await;
}

async fn come_to_each(points: &[(&str, u64)], options: &str) {
    let mut cluster = Cluster::start(Settings { options: options.to_owned(), ..Settings::default() }).await;
    let client = patient(&cluster).await;
    client.create_namespace(NAMESPACE, Mode::Eventual).await.unwrap();
    settled(&cluster, &client).await;
    let mut acknowledged = BTreeSet::new();
    for (point, number) in points {
        acknowledged.extend(crash_under_load(&mut cluster, &client, point, *number).await);
        everywhere(&cluster, NAMESPACE, &acknowledged).await;
    }
}

/// Writes values that are long together.
async fn fill(client: &Client, name: &str, (writes, bytes): (u64, usize)) -> BTreeSet<String> {
    let mut acknowledged = BTreeSet::new();
    for number in 0..writes {
        let key = format!("{name}-{number:04}");
        client.namespace(NAMESPACE).put(key.clone(), vec![b'x'; bytes]).await.unwrap();
        acknowledged.insert(key);
    }
    acknowledged
}

/// Waits until a node has crashed at this point. It is down then.
async fn comes_to(cluster: &mut Cluster, node: u64, point: &str) {
    let what = format!("node {node} comes to '{point}'");
    until(&what, async || cluster.has_crashed(node, point).then_some(())).await;
    println!("{point}: [{node}] crashed");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_crashes_while_a_snapshot_comes_has_the_old_data_or_the_new() {
    // A memtable is flushed meanwhile, and the log dropped up to there.
    const BIG: (u64, usize) = (300, 256 << 10);
    const CUT: &str = "log-before-truncate";
    let options = "log_keep_entries = 8\nlog_bytes_max = 0".to_owned();
    let mut cluster = Cluster::start(Settings { options, ..Settings::default() }).await;
    let client = patient(&cluster).await;
    let region = cluster.create(&client, NAMESPACE).await;
    let mut acknowledged = fill(&client, "before", (100, 100)).await;
    everywhere(&cluster, NAMESPACE, &acknowledged).await;
    cluster.kill(3);
    cluster.kill(2);
    cluster.launch_to_crash(2, &format!("{CUT}:1"));
    let filling = tokio::spawn({
        let client = patient(&cluster).await;
        async move { fill(&client, "big", BIG).await }
    });
    comes_to(&mut cluster, 2, CUT).await;
    cluster.restart(2).await;
    acknowledged.extend(filling.await.unwrap());
    for node in [1, 2] {
        until("a node has dropped what node 3 needs", async || {
            let entries = cluster.node(node).metric("flaredb_region_log_entries", region).await?;
            (entries < BIG.0 / 2).then_some(())
        })
        .await;
    }
    for point in IN_A_SNAPSHOT {
        cluster.launch_to_crash(3, &format!("{point}:1"));
        comes_to(&mut cluster, 3, point).await;
    }
    cluster.restart(3).await;
    everywhere(&cluster, NAMESPACE, &acknowledged).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_crashes_while_it_catches_up_or_cleans_up_loses_nothing() {
    const CAP_BYTES: u64 = 256 << 10;
    let options = format!("tombstone_grace_seconds = 0\neventual_log_bytes_max = {CAP_BYTES}");
    let mut cluster = Cluster::start(Settings { options, ..Settings::default() }).await;
    let client = patient(&cluster).await;
    client.create_namespace(NAMESPACE, Mode::Eventual).await.unwrap();
    settled(&cluster, &client).await;
    cluster.kill(3);
    // More than the cap of a log: node 3 is given up, and takes a copy.
    let acknowledged = fill(&client, "away", (150, 4 << 10)).await;
    let region = until("the region is known", async || Some(cluster.region(1, NAMESPACE).await?.id)).await;
    for node in [1, 2] {
        until("node 3 is given up, and what it lacks is in no log", async || {
            let given_up = cluster.node(node).metric("flaredb_eventual_peers_given_up", region).await?;
            let kept = cluster.node(node).metric("flaredb_eventual_log_bytes", region).await?;
            (given_up == 1 && kept < 2 * CAP_BYTES).then_some(())
        })
        .await;
    }
    cluster.launch_to_crash(3, "copy-before-note:1");
    comes_to(&mut cluster, 3, "copy-before-note").await;
    cluster.restart(3).await;
    everywhere(&cluster, NAMESPACE, &acknowledged).await;
    for point in ["tombstones-before-purge", "origin-log-before-drop"] {
        for node in cluster.ids() {
            cluster.kill(node);
            cluster.launch_to_crash(node, &format!("{point}:1"));
        }
        let mut number = 0;
        until(&format!("a node comes to '{point}'"), async || {
            // A key that is not written again.
            let (namespace, gone) = (client.namespace(NAMESPACE), format!("gone-{point}-{number}"));
            number += 1;
            let _ = namespace.put(gone.clone(), vec![b'x'; 64 << 10]).await;
            let _ = namespace.delete(gone).await;
            (!start_again(&mut cluster, point).is_empty()).then_some(())
        })
        .await;
        for node in cluster.ids() {
            if !cluster.has_crashed(node, point) {
                cluster.kill(node);
            }
            cluster.launch(node);
        }
        for node in cluster.ids() {
            cluster.ready(node).await;
        }
        settled(&cluster, &client).await;
        everywhere(&cluster, NAMESPACE, &acknowledged).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_crashes_while_it_sets_writes_aside_has_them_in_quarantine() {
    const POINT: &str = "quarantine-before-sync";
    let mut cluster = Cluster::start(Settings { wires: true, ..Settings::default() }).await;
    let client = patient(&cluster).await;
    client.create_namespace(NAMESPACE, Mode::Eventual).await.unwrap();
    settled(&cluster, &client).await;
    cluster.isolate(3, Wire::Silent);
    for number in 0..5 {
        at(&cluster, 3, NAMESPACE).await.put(format!("apart-{number}"), "x").await.unwrap();
    }
    let others = Options::new([cluster.node(1).address(), cluster.node(2).address()]);
    let others = cluster.client_with(others).await;
    let options = SwitchOptions { excluded: vec![3], ..SwitchOptions::default() };
    let begun =
        until("the switch begins", async || others.switch_mode(NAMESPACE, Mode::Strong, &options).await.ok())
            .await;
    assert!(others.wait_for_switch(&begun, |_| ()).await.unwrap().completed);
    cluster.kill(3);
    cluster.launch_to_crash(3, &format!("{POINT}:1"));
    cluster.isolate(3, Wire::Whole);
    comes_to(&mut cluster, 3, POINT).await;
    cluster.restart(3).await;
    let page = until("what was set aside is listed", async || {
        let page = client.quarantine_at(&cluster.node(3).address(), NAMESPACE, None, 0).await.ok()?;
        (0 < page.total).then_some(page)
    })
    .await;
    let listed: BTreeSet<_> = page.writes.iter().map(|write| write.key.clone()).collect();
    let expected = (0..5).map(|number| format!("apart-{number}").into()).collect();
    assert_eq!((page.total, listed), (5, expected));
    everywhere(&cluster, NAMESPACE, &["settled".to_owned()].into()).await;
}

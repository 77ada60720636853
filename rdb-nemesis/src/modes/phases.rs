//! A node killed in each phase of a switch, in both directions: whoever drives the switch, whoever leads the region, and another.
//!
//! On a healthy cluster phases are over in milliseconds. So the wires between the nodes are slow while a switch runs, and the node
//! that drives it is asked for its phase until it tells the wanted one; a switch that is over before is begun again.

use super::aftermath;
use super::findings::Findings;
use super::stage::{Nodes, Stage};
use crate::cluster::{Cluster, NAMESPACE, Wire};
use crate::switching::{END_LIMIT, begin, end_of, settled};
use crate::workloads::switched::{self, FIRST};
use anyhow::{Context as _, Result, bail};
use rdb_client::{Client, Mode, SwitchOptions, SwitchPhase, SwitchStatus};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

/// Each way between two nodes takes so long while a switch runs: a step of the catalog, some of these.
const SLOW: Duration = Duration::from_millis(25);
/// A killed node stays away for so long: longer than an election takes.
const AWAY: Duration = Duration::from_millis(2_500);
/// How often a phase may be missed.
const TRIES_MAX: u32 = 8;
/// Between looks at a phase.
const LOOK_INTERVAL: Duration = Duration::from_millis(1);
/// How long a switch may take to come to the phase.
const PHASE_LIMIT: Duration = Duration::from_secs(20);
const CALL_LIMIT: Duration = Duration::from_secs(5);
/// Between kills.
const QUIET: Duration = Duration::from_millis(500);

const TO_STRONG: [SwitchPhase; 4] =
    [SwitchPhase::Preparing, SwitchPhase::Sealing, SwitchPhase::Draining, SwitchPhase::Flipping];
const TO_EVENTUAL: [SwitchPhase; 2] = [SwitchPhase::Preparing, SwitchPhase::Flipping];

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    /// Whoever leads the catalog, and drives the switch.
    Controller,
    /// Whoever leads the region, where that is another.
    Leader,
    /// One that is neither.
    Other,
}

/// What came of one kill.
struct Killed {
    completed: bool,
    misses: u32,
}

pub(super) async fn run(stage: &Stage, findings: &mut Findings) -> Result<()> {
    let mut cluster = stage.start().await?;
    Nodes::create(&cluster, NAMESPACE, FIRST).await?;
    let client = Nodes::of(&cluster, NAMESPACE, CALL_LIMIT).await?.client;
    let scene = stage.scene(&cluster);
    let mut clients = JoinSet::new();
    switched::start_clients(&scene, &mut clients);
    sleep(QUIET).await;
    let (mut kills, mut completed, mut misses) = (0_u64, 0_u64, 0_u64);
    for (to, phases) in [(Mode::Strong, &TO_STRONG[..]), (Mode::Eventual, &TO_EVENTUAL)] {
        for phase in phases {
            for victim in [Victim::Controller, Victim::Leader, Victim::Other] {
                let killed = one(stage, &mut cluster, &client, (to, *phase), victim).await;
                let killed = killed.with_context(|| format!("{victim:?} killed while {phase} to {to}"))?;
                kills += 1;
                completed += u64::from(killed.completed);
                misses += u64::from(killed.misses);
                cluster.is_sound()?;
                sleep(QUIET).await;
            }
        }
    }
    findings.count("kills, each in a phase of a switch", kills);
    findings.count("of these switches were completed", completed);
    findings.count("called off", kills - completed);
    findings.count("switches that were over before the kill", misses);
    findings.require(0 < completed, || "vacuous: no switch was completed".to_owned());
    aftermath::judge(stage, &mut cluster, &client, &scene, clients, findings).await
}

/// Switches until a victim is killed in that phase, on the way to that mode.
async fn one(
    stage: &Stage,
    cluster: &mut Cluster,
    client: &Client,
    (to, phase): (Mode, SwitchPhase),
    victim: Victim,
) -> Result<Killed> {
    for misses in 0..TRIES_MAX {
        come_from(client, to).await?;
        let node = choose(cluster, client, victim).await?;
        set_wires(cluster, Wire::Slow(SLOW));
        let begun = begin(client, NAMESPACE, &SwitchOptions::default(), END_LIMIT).await?;
        let hit = reaches(cluster, client, &begun, phase).await?;
        if hit {
            cluster.kill(node)?;
        }
        set_wires(cluster, Wire::Whole);
        if hit {
            sleep(AWAY).await;
            cluster.heal().await?;
        }
        let end = end_of(client, &begun, END_LIMIT).await?;
        let status = settled(client, NAMESPACE, END_LIMIT).await?;
        if hit {
            stage.say(&format!(
                "to {to}, {phase}: node {node} ({victim:?}) killed, the switch {}: {}, epoch {}, era {}",
                if end.completed {
                    "completed".to_owned()
                } else {
                    format!("was called off ({})", end.reason)
                },
                status.mode,
                status.epoch,
                status.era
            ));
            return Ok(Killed { completed: end.completed, misses });
        }
    }
    bail!("vacuous: in {TRIES_MAX} switches to {to} none was seen {phase}")
}

/// Sees to it that the namespace is in the other mode.
async fn come_from(client: &Client, to: Mode) -> Result<()> {
    for _ in 0..TRIES_MAX {
        if settled(client, NAMESPACE, END_LIMIT).await?.mode != to {
            return Ok(());
        }
        let begun = begin(client, NAMESPACE, &SwitchOptions::default(), END_LIMIT).await?;
        end_of(client, &begun, END_LIMIT).await?;
    }
    bail!("{TRIES_MAX} switches from {to} on a healthy cluster were called off")
}

async fn choose(cluster: &Cluster, client: &Client, victim: Victim) -> Result<u64> {
    let (controller, leader) = (controller(cluster, client).await?, cluster.leader().await?.node);
    let neither = cluster.others(&[controller, leader]);
    let other = neither.first().copied().context("there are three nodes")?;
    Ok(match victim {
        Victim::Controller => controller,
        // Where the controller leads the region too, one that follows both is as good.
        Victim::Leader if leader == controller => neither.last().copied().unwrap_or(other),
        Victim::Leader => leader,
        Victim::Other => other,
    })
}

/// The node that drives switches.
async fn controller(cluster: &Cluster, client: &Client) -> Result<u64> {
    let deadline = Instant::now() + END_LIMIT;
    loop {
        for (node, address) in cluster.addresses() {
            let status = client.switch_status_at(&address, NAMESPACE).await;
            if status.is_ok_and(|status| status.controls) {
                return Ok(node);
            }
        }
        if deadline < Instant::now() {
            bail!("no node says that it drives switches");
        }
        sleep(QUIET / 10).await;
    }
}

/// Waits until the switch is in that phase. False: it was past it before that was seen.
async fn reaches(
    cluster: &Cluster,
    client: &Client,
    begun: &SwitchStatus,
    phase: SwitchPhase,
) -> Result<bool> {
    if begun.phase == phase {
        return Ok(true);
    }
    let controller = controller(cluster, client).await?;
    let address = cluster.addresses().remove(&controller).context("a node has no address")?;
    let deadline = Instant::now() + PHASE_LIMIT;
    loop {
        let status = client.switch_status_at(&address, NAMESPACE).await?;
        let is_it = status.switch == begun.switch && status.epoch == begun.epoch;
        if is_it && status.phase == phase {
            return Ok(true);
        }
        if !is_it || phase < status.phase {
            return Ok(false);
        }
        if deadline < Instant::now() {
            bail!("the switch does not come past {}: {:?}", status.phase, status.blockers);
        }
        sleep(LOOK_INTERVAL).await;
    }
}

fn set_wires(cluster: &Cluster, wire: Wire) {
    for (from, to) in cluster.all_wires() {
        cluster.wire(from, to, wire);
    }
}

//! A follower that is away for so long that nobody has the log that it misses: it must be brought back by a snapshot of
//! the data.

use super::{Fault, Need, Striking};
use crate::cluster::{NAMESPACE, PATIENCE, Wire};
use crate::dice::Dice;
use crate::lab::{Bar, Evidence, Lab, seconds};
use anyhow::{Context as _, Result};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// What the follower misses: enough for the leader to flush its data, before which no log is dropped.
const BALLAST_WRITES: usize = 250;
const BALLAST_BYTES: usize = 256 << 10;
/// The ballast's keys are few and written again, so that snapshots stay small.
const BALLAST_KEYS: usize = 8;
/// Over a thin link the snapshot holds so many: 6 MiB, which take 12 s or more.
const THIN_BALLAST_KEYS: usize = 24;
/// A snapshot over a thin link that came sooner has not shared it: some longest times to an election.
const THIN_MIN: Duration = Duration::from_secs(10);
/// When the snapshot is disturbed, at one of these moments.
const DISTURBED_AFTER_MS: std::ops::Range<u64> = 100..1_500;

/// A link of four megabits.
const THIN_BYTES_PER_SECOND: u64 = 500_000;
/// Over it a snapshot that has to begin anew, beside all that is written meanwhile, takes its time.
const THIN_PATIENCE: Duration = Duration::from_secs(120);

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        name: "snapshot",
        about: "a follower misses so much that it needs a snapshot, and at times is killed while it comes",
        needs: &[Need::ShortLogs],
        strike: |lab, dice| -> Striking<'_> { Box::pin(snapshot(lab, dice)) },
    },
    Fault {
        name: "thin-snapshot",
        about: "the same with more data, over links of 4 Mbit/s each way between the two: the leader must keep its lead",
        needs: &[Need::ShortLogs, Need::Wires],
        strike: |lab, dice| -> Striking<'_> { Box::pin(thin_snapshot(lab, dice)) },
    },
];

async fn snapshot(lab: &mut Lab, dice: &mut Dice) -> Result<Evidence> {
    let leader = lab.leader().await?;
    let away = dice.pick(&lab.cluster.others(&[leader.node]));
    let before = lab.cluster.snapshots_taken_in(away);
    lab.cluster.kill(away)?;
    let what = format!("kill -9 of node {away} until it needs a snapshot");
    let mut strike = lab.struck(leader, Bar::None, what);
    write_ballast(lab, BALLAST_KEYS).await?;
    until_dropped(lab).await?;
    come_back(lab, dice, away).await?;
    let seen = wait_for_snapshot(lab, away, before, PATIENCE).await;
    strike.during = lab.cluster.leader_now().await;
    lab.undo(strike, seen).await
}

async fn thin_snapshot(lab: &mut Lab, dice: &mut Dice) -> Result<Evidence> {
    let leader = lab.leader().await?;
    let away = dice.pick(&lab.cluster.others(&[leader.node]));
    let before = lab.cluster.snapshots_taken_in(away);
    lab.cluster.kill(away)?;
    let what = format!("kill -9 of node {away} until it needs a snapshot over a thin link");
    let mut strike = lab.struck(leader, Bar::LeaderKept, what);
    write_ballast(lab, THIN_BALLAST_KEYS).await?;
    until_dropped(lab).await?;
    // Whoever leads is named as the one that should, so that it does not hand over to another one meanwhile. What a busy machine has
    // done to it while the ballast was written is no matter of the link.
    let leads = lab.leader().await?.node;
    lab.client.move_leader(NAMESPACE, leads).await.context("the leader cannot be named")?;
    strike.led_by(lab.leader().await?);
    for other in lab.cluster.others(&[away]) {
        lab.cluster.wire(other, away, Wire::Thin(THIN_BYTES_PER_SECOND));
        lab.cluster.wire(away, other, Wire::Thin(THIN_BYTES_PER_SECOND));
    }
    let began = Instant::now();
    come_back(lab, dice, away).await?;
    let taken_in = wait_for_snapshot(lab, away, before, THIN_PATIENCE).await;
    let took = began.elapsed();
    lab.hold(&mut strike, Duration::ZERO).await;
    let seen = match taken_in {
        Ok(_) if took < THIN_MIN => Err(format!("the snapshot came in {}", seconds(took))),
        Ok(what) => Ok(format!("{what}, in {}", seconds(took))),
        Err(why) => Err(why),
    };
    lab.undo(strike, seen).await
}

/// Starts a node again, and at times kills it once more while what it missed is on its way.
async fn come_back(lab: &mut Lab, dice: &mut Dice, away: u64) -> Result<()> {
    lab.cluster.launch(away)?;
    if dice.percent(50) {
        sleep(dice.millis(DISTURBED_AFTER_MS)).await;
        lab.cluster.kill(away)?;
        lab.cluster.launch(away)?;
    }
    lab.cluster.ready(away).await
}

async fn write_ballast(lab: &Lab, keys: usize) -> Result<()> {
    let namespace = lab.client.namespace(NAMESPACE).with_timeout(Duration::from_secs(20));
    for number in 0..BALLAST_WRITES {
        let key = format!("ballast/{}", number % keys);
        namespace.put(key, ballast()).await.context("the ballast cannot be written")?;
    }
    Ok(())
}

/// What cannot be compressed, so that a link has as much to carry as was written.
fn ballast() -> Vec<u8> {
    let mut bytes = vec![0; BALLAST_BYTES];
    rand::fill(&mut bytes[..]);
    bytes
}

/// Waits until the leader's log is shorter than what was written meanwhile: it drops only what it has flushed.
async fn until_dropped(lab: &Lab) -> Result<()> {
    let deadline = Instant::now() + PATIENCE / 3;
    while Instant::now() < deadline {
        let leader = lab.leader().await?.node;
        if lab.cluster.log_entries(leader).await.is_some_and(|entries| entries < BALLAST_WRITES as u64) {
            break;
        }
        sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// Waits for one more snapshot than before; says whether it came.
async fn wait_for_snapshot(
    lab: &Lab,
    node: u64,
    before: usize,
    patience: Duration,
) -> Result<String, String> {
    let deadline = Instant::now() + patience;
    while Instant::now() < deadline {
        let taken_in = lab.cluster.snapshots_taken_in(node);
        if before < taken_in {
            return Ok(format!("node {node} took in {} snapshots", taken_in - before));
        }
        sleep(Duration::from_millis(50)).await;
    }
    Err(format!("node {node} took in no snapshot"))
}

//! A follower that is away for so long that nobody has the log that it misses: it must be brought back by a snapshot of
//! the data.

use super::{Fault, Need, Striking};
use crate::cluster::{NAMESPACE, PATIENCE, Wire};
use crate::dice::Dice;
use crate::lab::{Bar, Evidence, Lab};
use anyhow::{Context as _, Result};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// What the follower misses: enough for the leader to flush its data, before which no log is dropped.
const BALLAST_WRITES: usize = 250;
const BALLAST_BYTES: usize = 256 << 10;
/// The ballast's keys are few and written again, so that snapshots stay small.
const BALLAST_KEYS: usize = 8;
/// When the snapshot is disturbed, at one of these moments.
const DISTURBED_AFTER_MS: std::ops::Range<u64> = 100..1_500;

/// A link of four megabits.
const THIN_BYTES_PER_SECOND: u64 = 500_000;

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        name: "snapshot",
        about: "a follower misses so much that it needs a snapshot, and at times is killed while it comes",
        needs: &[Need::ShortLogs],
        strike: |lab, dice| -> Striking<'_> { Box::pin(snapshot(lab, dice, Wire::Whole)) },
    },
    Fault {
        name: "thin-snapshot",
        about: "the same, over connections of 4 Mbit/s each: the leader must keep its lead",
        needs: &[Need::ShortLogs],
        strike: |lab, dice| -> Striking<'_> {
            Box::pin(snapshot(lab, dice, Wire::Thin(THIN_BYTES_PER_SECOND)))
        },
    },
];

async fn snapshot(lab: &mut Lab, dice: &mut Dice, link: Wire) -> Result<Evidence> {
    let leader = lab.leader().await?;
    let away = dice.pick(&lab.cluster.others(&[leader.node]));
    let before = lab.cluster.snapshots_taken_in(away);
    lab.cluster.kill(away)?;
    let (bar, over) = match link {
        Wire::Thin(_) => (Bar::LeaderStays, " over a thin link"),
        _ => (Bar::None, ""),
    };
    let what = format!("kill -9 of node {away} until it needs a snapshot{over}");
    let mut strike = lab.struck(leader, bar, what);
    write_ballast(lab).await?;
    until_dropped(lab).await?;
    for other in lab.cluster.others(&[away]) {
        lab.cluster.wire(other, away, link);
        lab.cluster.wire(away, other, link);
    }
    lab.cluster.launch(away)?;
    if dice.percent(50) {
        sleep(dice.millis(DISTURBED_AFTER_MS)).await;
        lab.cluster.kill(away)?;
        lab.cluster.launch(away)?;
    }
    lab.cluster.ready(away).await?;
    let taken_in = wait_for_snapshot(lab, away, before).await;
    strike.during = lab.cluster.leader_now().await;
    let seen = if before < taken_in {
        Ok(format!("node {away} took in {} snapshots", taken_in - before))
    } else {
        Err(format!("node {away} took in no snapshot"))
    };
    lab.undo(strike, seen).await
}

async fn write_ballast(lab: &Lab) -> Result<()> {
    let namespace = lab.client.namespace(NAMESPACE).with_timeout(Duration::from_secs(20));
    for number in 0..BALLAST_WRITES {
        let key = format!("ballast/{}", number % BALLAST_KEYS);
        namespace.put(key, vec![b'.'; BALLAST_BYTES]).await.context("the ballast cannot be written")?;
    }
    Ok(())
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

/// Waits for one more snapshot than before; returns how many there are in the end.
async fn wait_for_snapshot(lab: &Lab, node: u64, before: usize) -> usize {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let now = lab.cluster.snapshots_taken_in(node);
        if before < now || deadline < Instant::now() {
            return now;
        }
        sleep(Duration::from_millis(50)).await;
    }
}

//! Disks that fill up, stand still, are slow, or fail.

use super::kill::named;
use super::{Fault, Need, Striking, leader_or_any};
use crate::cluster::Leader;
use crate::dice::Dice;
use crate::lab::{Bar, Evidence, Lab, seconds};
use anyhow::{Result, bail};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// What is left of a disk: less than a node wants to keep free, and less than it needs to take anything in.
const LEFT_BYTES: [u64; 2] = [800 << 20, 160 << 20];
/// A node looks at its disk every second or so.
const NOTICE_LIMIT: Duration = Duration::from_secs(5);
/// A node whose sync has failed ends in this time.
const END_LIMIT: Duration = Duration::from_secs(10);
/// A leader with a slow disk hands over in this time: after a second and a half at the soonest, and when it has led for five.
const HAND_OVER_LIMIT: Duration = Duration::from_secs(20);
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        name: "disk-full-leader",
        about: "the leader's disk fills up, to below one of its marks, 4 to 8 s (root only)",
        needs: &[Need::Disks],
        strike: |lab, dice| -> Striking<'_> { Box::pin(full_leader(lab, dice)) },
    },
    Fault {
        name: "disk-full-any",
        about: "any node's disk fills up likewise (root only)",
        needs: &[Need::Disks],
        strike: |lab, dice| -> Striking<'_> { Box::pin(full_any(lab, dice)) },
    },
    Fault {
        name: "disk-stall",
        about: "the leader's disk, or another one, stands still, 3 to 7 s (root only)",
        needs: &[Need::Disks],
        strike: |lab, dice| -> Striking<'_> { Box::pin(stall(lab, dice)) },
    },
    Fault {
        name: "slow-disk",
        about: "each sync of the leader, or of another node, takes 0.1 to 1 s longer, 3 to 7 s; the leader must hand over",
        needs: &[Need::Syncs],
        strike: |lab, dice| -> Striking<'_> { Box::pin(slow(lab, dice)) },
    },
    Fault {
        name: "sync-error",
        about: "a sync of the leader, or of another node, fails: it must end at once",
        needs: &[Need::Syncs],
        strike: |lab, dice| -> Striking<'_> { Box::pin(sync_error(lab, dice)) },
    },
    Fault {
        name: "sync-errors",
        about: "all syncs of the leader, or of another node, fail, and it is started again and again: it must end each time, 3 to 6 s",
        needs: &[Need::Syncs],
        strike: |lab, dice| -> Striking<'_> { Box::pin(sync_errors(lab, dice)) },
    },
    Fault {
        name: "write-error",
        about: "a write to the log of the leader, or of another node, fails: it must end at once; or 3 to 30 of them are short: it goes on",
        needs: &[Need::Syncs],
        strike: |lab, dice| -> Striking<'_> { Box::pin(write_error(lab, dice)) },
    },
];

async fn full_leader(lab: &mut Lab, dice: &mut Dice) -> Result<Evidence> {
    let leader = lab.leader().await?;
    full(lab, dice, leader.node).await
}

async fn full_any(lab: &mut Lab, dice: &mut Dice) -> Result<Evidence> {
    let node = dice.pick(&lab.cluster.ids());
    full(lab, dice, node).await
}

async fn full(lab: &mut Lab, dice: &mut Dice, node: u64) -> Result<Evidence> {
    let leader = lab.leader().await?;
    let (left, lasts) = (dice.pick(&LEFT_BYTES), dice.millis(4_000..8_000));
    let was_full = lab.cluster.says_full(node).await;
    lab.cluster.fill_disk(node, left)?;
    let bar = if node == leader.node { Bar::HandedOver } else { Bar::LeaderStays };
    let what = format!("disk full but for {} MiB at {}", left >> 20, named(&[node], leader.node));
    let mut strike = lab.struck(leader, bar, format!("{what} for {}", seconds(lasts)));
    let seen = if was_full {
        Err("the node said before that its disk is full".to_owned())
    } else if until_full(lab, node).await {
        Ok("the node says that its disk is full".to_owned())
    } else {
        Err("the node does not say that its disk is full".to_owned())
    };
    lab.hold(&mut strike, lasts).await;
    lab.undo(strike, seen).await
}

async fn until_full(lab: &Lab, node: u64) -> bool {
    let deadline = Instant::now() + NOTICE_LIMIT;
    while Instant::now() < deadline {
        if lab.cluster.says_full(node).await {
            return true;
        }
        sleep(LOOK_INTERVAL).await;
    }
    false
}

async fn stall(lab: &mut Lab, dice: &mut Dice) -> Result<Evidence> {
    let leader = lab.leader().await?;
    let (node, lasts) = (leader_or_any(lab, leader, dice), dice.millis(3_000..7_000));
    lab.cluster.freeze_disk(node)?;
    let bar = if node == leader.node { Bar::LeaderLost } else { Bar::LeaderStays };
    let what = format!("disk stands still at {} for {}", named(&[node], leader.node), seconds(lasts));
    let mut strike = lab.struck(leader, bar, what);
    lab.hold(&mut strike, lasts).await;
    // The file system itself says that it is frozen, or it would not have been frozen.
    lab.undo(strike, Ok("the file system was frozen and thawed".to_owned())).await
}

async fn slow(lab: &mut Lab, dice: &mut Dice) -> Result<Evidence> {
    let leader = lab.leader().await?;
    let node = leader_or_any(lab, leader, dice);
    let (lasts, by) = (dice.millis(3_000..7_000), dice.millis_of_any_size(100..1_000));
    let before = lab.cluster.bad_syncs(node)?;
    lab.cluster.slow_syncs(node, by)?;
    let what = format!("syncs take {} ms longer at {}", by.as_millis(), named(&[node], leader.node));
    // A leader applies, and answers, what its own disk has: a write takes up to two of its syncs.
    let bar = if node == leader.node { Bar::None } else { Bar::LeaderStays };
    let mut strike = lab.struck(leader, bar, format!("{what} for {}", seconds(lasts)));
    lab.hold(&mut strike, lasts).await;
    let handed_over = node != leader.node || hands_over(lab, node).await;
    let seen = match lab.cluster.bad_syncs(node)? - before {
        0 => Err("the node made no sync".to_owned()),
        count if handed_over => Ok(format!("{count} syncs were slow")),
        count => Err(format!("{count} syncs were slow, and the leader has not handed over")),
    };
    lab.undo(strike, seen).await
}

/// Whether a leader gives up its lead in time.
async fn hands_over(lab: &Lab, node: u64) -> bool {
    let deadline = Instant::now() + HAND_OVER_LIMIT;
    while Instant::now() < deadline {
        if lab.cluster.leader_now().await.is_some_and(|leader| leader.node != node) {
            return true;
        }
        sleep(LOOK_INTERVAL).await;
    }
    false
}

async fn sync_error(lab: &mut Lab, dice: &mut Dice) -> Result<Evidence> {
    let leader = lab.leader().await?;
    let (node, lasts) = (leader_or_any(lab, leader, dice), dice.millis(1_000..4_000));
    let before = lab.cluster.bad_syncs(node)?;
    lab.cluster.fail_sync(node)?;
    let what = format!("a sync of {} fails", named(&[node], leader.node));
    must_end(lab, leader, node, (before, lasts), what).await
}

async fn write_error(lab: &mut Lab, dice: &mut Dice) -> Result<Evidence> {
    let leader = lab.leader().await?;
    let (node, lasts) = (leader_or_any(lab, leader, dice), dice.millis(1_000..4_000));
    let before = lab.cluster.bad_syncs(node)?;
    if dice.percent(50) {
        lab.cluster.fail_write(node)?;
        let what = format!("a write to the log of {} fails", named(&[node], leader.node));
        return must_end(lab, leader, node, (before, lasts), what).await;
    }
    let count = i64::try_from(dice.below(28))? + 3;
    lab.cluster.shorten_writes(node, count)?;
    let what = format!("{count} writes to the log of {} are short", named(&[node], leader.node));
    let mut strike = lab.struck(leader, Bar::LeaderStays, what);
    lab.hold(&mut strike, lasts).await;
    let seen = match lab.cluster.bad_syncs(node)? - before {
        0 => Err("the node wrote nothing to its log".to_owned()),
        met => Ok(format!("{met} writes were short")),
    };
    lab.undo(strike, seen).await
}

/// A node's disk has failed once: it must end, and is away for a while. `before`: what was wrong with its disk so far.
async fn must_end(
    lab: &mut Lab,
    leader: Leader,
    node: u64,
    (before, lasts): (i64, Duration),
    what: String,
) -> Result<Evidence> {
    let bar = if node == leader.node { Bar::LeaderLost } else { Bar::LeaderStays };
    let mut strike = lab.struck(leader, bar, format!("{what}, and it is away for {}", seconds(lasts)));
    let ended = lab.cluster.ends(node, END_LIMIT).await;
    lab.hold(&mut strike, lasts).await;
    let seen = match (lab.cluster.bad_syncs(node)? - before, ended) {
        (0, _) => Err("the node asked nothing of its disk".to_owned()),
        (_, Ok(said)) => Ok(format!("it failed, and the node ended: {said}")),
        (_, Err(error)) => Err(format!("it failed, and {error:#}")),
    };
    lab.undo(strike, seen).await
}

async fn sync_errors(lab: &mut Lab, dice: &mut Dice) -> Result<Evidence> {
    let leader = lab.leader().await?;
    let (node, lasts) = (leader_or_any(lab, leader, dice), dice.millis(3_000..6_000));
    let before = lab.cluster.bad_syncs(node)?;
    lab.cluster.fail_all_syncs(node)?;
    let bar = if node == leader.node { Bar::LeaderLost } else { Bar::LeaderStays };
    let what = format!("all syncs of {} fail for {}", named(&[node], leader.node), seconds(lasts));
    let mut strike = lab.struck(leader, bar, what);
    let end = Instant::now() + lasts;
    let mut ended = match lab.cluster.ends(node, END_LIMIT).await {
        Ok(_) => by_a_sync(lab, node, before).map(|()| 1),
        Err(error) => Err(error),
    };
    while let Ok(times) = ended
        && Instant::now() < end
    {
        ended = starts_and_ends(lab, node).await.map(|()| times + 1);
    }
    lab.hold(&mut strike, Duration::ZERO).await;
    let seen = match ended {
        Ok(1) => Err("it was not started again".to_owned()),
        Ok(times) => Ok(format!("the node ended {times} times, each time after a sync that failed")),
        Err(error) => Err(format!("{error:#}")),
    };
    lab.undo(strike, seen).await
}

/// Starts a node whose syncs fail, and waits until one has ended it.
async fn starts_and_ends(lab: &mut Lab, node: u64) -> Result<()> {
    let before = lab.cluster.bad_syncs(node)?;
    lab.cluster.starts_and_ends(node, END_LIMIT).await?;
    by_a_sync(lab, node, before)
}

/// A node that has ended may have done so for another reason, such as a port that is taken. `before`: the bad syncs before its start.
fn by_a_sync(lab: &Lab, node: u64, before: i64) -> Result<()> {
    if lab.cluster.bad_syncs(node)? <= before {
        bail!("node {node} ended though no sync of it had failed");
    }
    Ok(())
}

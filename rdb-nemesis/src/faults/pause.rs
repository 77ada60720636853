//! SIGSTOP: a node that notices nothing, and goes on later as if no time had passed. What a stalled virtual machine does.

use super::kill::named;
use super::{Fault, Striking, leader_or_any};
use crate::dice::Dice;
use crate::lab::{Bar, Evidence, Lab, seconds};
use anyhow::Result;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Past it followers have certainly begun to look for another leader: twice the longest time to an election, and a round.
const NOTICED: Duration = Duration::from_millis(3_500);

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        name: "pause-leader",
        about: "SIGSTOP of the leader for 0.1 to 10 s",
        needs: &[],
        strike: |lab, dice| -> Striking<'_> { Box::pin(pause_leader(lab, dice)) },
    },
    Fault {
        name: "pause-follower",
        about: "SIGSTOP of a follower for 0.1 to 10 s",
        needs: &[],
        strike: |lab, dice| -> Striking<'_> { Box::pin(pause_follower(lab, dice)) },
    },
    Fault {
        name: "pause-majority",
        about: "SIGSTOP of all nodes but one for 1 to 5 s",
        needs: &[],
        strike: |lab, dice| -> Striking<'_> { Box::pin(pause_majority(lab, dice)) },
    },
    Fault {
        name: "starve",
        about: "the leader, or another node, runs for a tenth of the time, some milliseconds at a time, 3 to 7 s",
        needs: &[],
        strike: |lab, dice| -> Striking<'_> { Box::pin(starve(lab, dice)) },
    },
];

async fn pause_leader(lab: &mut Lab, dice: &mut Dice) -> Result<Evidence> {
    let leader = lab.leader().await?;
    pause(lab, &[leader.node], dice.millis_of_any_size(100..10_000)).await
}

async fn pause_follower(lab: &mut Lab, dice: &mut Dice) -> Result<Evidence> {
    let leader = lab.leader().await?;
    let follower = dice.pick(&lab.cluster.others(&[leader.node]));
    pause(lab, &[follower], dice.millis_of_any_size(100..10_000)).await
}

async fn pause_majority(lab: &mut Lab, dice: &mut Dice) -> Result<Evidence> {
    let spared = dice.pick(&lab.cluster.ids());
    pause(lab, &lab.cluster.others(&[spared]), dice.millis(1_000..5_000)).await
}

async fn pause(lab: &mut Lab, nodes: &[u64], lasts: Duration) -> Result<Evidence> {
    let leader = lab.leader().await?;
    for node in nodes {
        lab.cluster.pause(*node)?;
    }
    let majority_lost = lab.cluster.ids().len() / 2 < nodes.len();
    let bar = match (majority_lost, nodes.contains(&leader.node)) {
        (true, _) => Bar::AllLost,
        (false, true) if NOTICED < lasts => Bar::LeaderLost,
        (false, false) if NOTICED < lasts => Bar::LeaderStays,
        (false, _) => Bar::None,
    };
    let what = format!("SIGSTOP of {} for {}", named(nodes, leader.node), seconds(lasts));
    let mut strike = lab.struck(leader, bar, what);
    lab.hold(&mut strike, lasts).await;
    let mut stopped = Vec::new();
    for node in nodes {
        stopped.push(lab.cluster.is_stopped(*node)?);
    }
    let seen = if stopped.iter().all(|stopped| *stopped) {
        Ok("the kernel says that they were stopped".to_owned())
    } else {
        Err("the kernel says that a process was not stopped".to_owned())
    };
    lab.undo(strike, seen).await
}

/// By turns of SIGSTOP and SIGCONT, as where too many share a processor.
async fn starve(lab: &mut Lab, dice: &mut Dice) -> Result<Evidence> {
    let leader = lab.leader().await?;
    let (node, lasts) = (leader_or_any(lab, leader, dice), dice.millis(3_000..7_000));
    let runs = dice.millis(2..12);
    // A leader that is starved may keep its lead, or lose it at any moment.
    let bar = if node == leader.node { Bar::None } else { Bar::LeaderStays };
    let what = format!(
        "{} runs for {} ms in {}",
        named(&[node], leader.node),
        runs.as_millis(),
        10 * runs.as_millis()
    );
    let mut strike = lab.struck(leader, bar, format!("{what} for {}", seconds(lasts)));
    let starved = by_turns(lab, node, runs, lasts).await;
    // Whatever went wrong with a turn: a node that stays stopped would be another fault, which nobody undoes.
    let resumed = lab.cluster.resume(node);
    let (turns, stopped) = starved?;
    resumed?;
    lab.hold(&mut strike, Duration::ZERO).await;
    let seen = if turns / 2 < stopped {
        Ok(format!("the kernel says that it was stopped {stopped} times"))
    } else {
        Err(format!("the kernel says that it was stopped in {stopped} of {turns} turns"))
    };
    lab.undo(strike, seen).await
}

/// Stops a node for nine tenths of the time. Returns how many turns there were, and in how many it was seen to be stopped. After
/// an error it may be stopped still.
async fn by_turns(lab: &mut Lab, node: u64, runs: Duration, lasts: Duration) -> Result<(u64, u64)> {
    let (end, mut turns, mut stopped) = (Instant::now() + lasts, 0, 0);
    while Instant::now() < end {
        lab.cluster.pause(node)?;
        sleep(9 * runs).await;
        stopped += u64::from(lab.cluster.is_stopped(node)?);
        lab.cluster.resume(node)?;
        sleep(runs).await;
        turns += 1;
    }
    Ok((turns, stopped))
}

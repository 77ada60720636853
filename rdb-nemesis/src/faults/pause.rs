//! SIGSTOP: a node that notices nothing, and goes on later as if no time had passed. What a stalled virtual machine does.

use super::kill::named;
use super::{Fault, Striking};
use crate::dice::Dice;
use crate::lab::{Bar, Evidence, Lab, seconds};
use anyhow::Result;
use std::time::Duration;

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

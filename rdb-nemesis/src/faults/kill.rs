//! kill -9: what a crash of the process does. What it has written and not synced survives, since the kernel lives.

use super::{Fault, Striking};
use crate::dice::Dice;
use crate::lab::{Bar, Evidence, Lab, seconds};
use anyhow::Result;

/// How often a node is back before the others can have noticed, so that it meets its own past. Nobody need be answered then.
const BRIEF_PERCENT: u32 = 40;

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        name: "kill-leader",
        about: "kill -9 of the leader, started again at once, or after 1 to 4 s when clients have been answered",
        needs: &[],
        strike: |lab, dice| -> Striking<'_> { Box::pin(kill_leader(lab, dice)) },
    },
    Fault {
        name: "kill-any",
        about: "kill -9 of any node, started again likewise",
        needs: &[],
        strike: |lab, dice| -> Striking<'_> { Box::pin(kill_any(lab, dice)) },
    },
    Fault {
        name: "kill-all",
        about: "kill -9 of all nodes at once, started again after 0 to 2 s",
        needs: &[],
        strike: |lab, dice| -> Striking<'_> { Box::pin(kill_all(lab, dice)) },
    },
];

async fn kill_leader(lab: &mut Lab, dice: &mut Dice) -> Result<Evidence> {
    let leader = lab.leader().await?;
    kill(lab, dice, &[leader.node]).await
}

async fn kill_any(lab: &mut Lab, dice: &mut Dice) -> Result<Evidence> {
    let node = dice.pick(&lab.cluster.ids());
    kill(lab, dice, &[node]).await
}

async fn kill_all(lab: &mut Lab, dice: &mut Dice) -> Result<Evidence> {
    kill(lab, dice, &lab.cluster.ids()).await
}

async fn kill(lab: &mut Lab, dice: &mut Dice, nodes: &[u64]) -> Result<Evidence> {
    let leader = lab.leader().await?;
    let all = nodes.len() == lab.cluster.ids().len();
    let brief = dice.percent(BRIEF_PERCENT);
    let lasts = match (all, brief) {
        (true, _) => dice.millis(0..2_000),
        (false, true) => dice.millis(0..1_000),
        (false, false) => dice.millis(1_000..4_000),
    };
    // It returns only when the process is gone, which is all the evidence there is to have.
    for node in nodes {
        lab.cluster.kill(*node)?;
    }
    let bar = match (all, nodes.contains(&leader.node)) {
        (true, _) => Bar::AllLost,
        (false, _) if brief => Bar::None,
        (false, true) => Bar::LeaderLost,
        (false, false) => Bar::LeaderStays,
    };
    let what = format!("kill -9 of {} for {}", named(nodes, leader.node), seconds(lasts));
    let mut strike = lab.struck(leader, bar, what);
    lab.hold(&mut strike, lasts).await;
    lab.undo(strike, Ok("the processes were gone".to_owned())).await
}

/// Nodes as people speak of them.
pub(super) fn named(nodes: &[u64], leader: u64) -> String {
    let name = |node: &u64| {
        if *node == leader { format!("node {node}, the leader,") } else { format!("node {node}") }
    };
    nodes.iter().map(name).collect::<Vec<_>>().join(" and ")
}

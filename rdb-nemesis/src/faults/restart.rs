//! SIGTERM: a node that hands over what it leads and stops in good order, as in an upgrade.

use super::{Fault, Striking};
use crate::dice::Dice;
use crate::lab::{Bar, Evidence, Lab, seconds};
use anyhow::Result;
use tokio::time::sleep;

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        name: "restart",
        about: "SIGTERM of the leader or another node, which must end well, started again after 0 to 2 s, when clients have been answered",
        needs: &[],
        strike: |lab, dice| -> Striking<'_> { Box::pin(restart(lab, dice)) },
    },
    Fault {
        name: "rolling-restart",
        about: "SIGTERM and start of each node in turn",
        needs: &[],
        strike: |lab, dice| -> Striking<'_> { Box::pin(rolling(lab, dice)) },
    },
];

async fn restart(lab: &mut Lab, dice: &mut Dice) -> Result<Evidence> {
    let leader = lab.leader().await?;
    let node = if dice.percent(60) { leader.node } else { dice.pick(&lab.cluster.ids()) };
    let lasts = dice.millis(0..2_000);
    let bar = if node == leader.node { Bar::HandedOver } else { Bar::LeaderStays };
    lab.history.note(format!("node {node} is asked to stop"));
    lab.cluster.stop(node).await?;
    let role = if node == leader.node { ", the leader," } else { "" };
    let mut strike = lab.struck(leader, bar, format!("restart of node {node}{role} for {}", seconds(lasts)));
    lab.hold(&mut strike, lasts).await;
    lab.undo(strike, Ok("it ended with status 0".to_owned())).await
}

async fn rolling(lab: &mut Lab, dice: &mut Dice) -> Result<Evidence> {
    let leader = lab.leader().await?;
    let strike = lab.struck(leader, Bar::None, "restart of each node in turn".to_owned());
    for node in lab.cluster.ids() {
        lab.cluster.stop(node).await?;
        lab.cluster.launch(node)?;
        lab.cluster.ready(node).await?;
        sleep(dice.millis(300..1_500)).await;
    }
    lab.undo(strike, Ok("each ended with status 0".to_owned())).await
}

//! Wall clocks that step. Strong namespaces must not care at all; in eventual ones a node whose clock is far off takes no writes.

use super::kill::named;
use super::{Fault, Need, Striking, leader_or_any};
use crate::dice::Dice;
use crate::lab::{Bar, Evidence, Lab, seconds};
use anyhow::Result;
use std::time::Duration;
use tokio::time::sleep;

/// By which one node's clock is off.
const FAR_SECONDS: [i64; 4] = [-3_600, -60, 60, 3_600];
/// By which every node's may be: less than what keeps it from taking eventual writes, so that some takes them.
const NEAR_SECONDS: [i64; 4] = [-4, -1, 1, 4];
const STROBE: Duration = Duration::from_millis(100);

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        name: "clock-step",
        about: "a node's wall clock is off by a minute or an hour, either way, 2 to 5 s",
        needs: &[Need::Clocks],
        strike: |lab, dice| -> Striking<'_> { Box::pin(step(lab, dice)) },
    },
    Fault {
        name: "clock-strobe",
        about: "every node's wall clock steps by up to 4 s, back and forth, ten times a second, 2 to 5 s",
        needs: &[Need::Clocks],
        strike: |lab, dice| -> Striking<'_> { Box::pin(strobe(lab, dice)) },
    },
];

async fn step(lab: &mut Lab, dice: &mut Dice) -> Result<Evidence> {
    let leader = lab.leader().await?;
    let node = leader_or_any(lab, leader, dice);
    let (by, lasts) = (dice.pick(&FAR_SECONDS), dice.millis(2_000..5_000));
    lab.cluster.step_clock(node, by)?;
    let what = format!("clock off by {by} s at {} for {}", named(&[node], leader.node), seconds(lasts));
    let mut strike = lab.struck(leader, Bar::LeaderStays, what);
    lab.hold(&mut strike, lasts).await;
    let seen = live_by_their_clocks(lab, &[node])?;
    lab.cluster.step_clock(node, 0)?;
    lab.undo(strike, seen).await
}

async fn strobe(lab: &mut Lab, dice: &mut Dice) -> Result<Evidence> {
    let (leader, lasts, ids) = (lab.leader().await?, dice.millis(2_000..5_000), lab.cluster.ids());
    let what = format!("all clocks step every {} ms for {}", STROBE.as_millis(), seconds(lasts));
    let mut strike = lab.struck(leader, Bar::LeaderStays, what);
    let mut left = lasts;
    while !left.is_zero() {
        for node in &ids {
            lab.cluster.step_clock(*node, dice.pick(&NEAR_SECONDS))?;
        }
        sleep(STROBE).await;
        left = left.saturating_sub(STROBE);
    }
    lab.hold(&mut strike, STROBE).await;
    let seen = live_by_their_clocks(lab, &ids)?;
    for node in ids {
        lab.cluster.step_clock(node, 0)?;
    }
    lab.undo(strike, seen).await
}

fn live_by_their_clocks(lab: &mut Lab, nodes: &[u64]) -> Result<Result<String, String>> {
    for node in nodes {
        if !lab.cluster.has_clock(*node)? {
            return Ok(Err(format!("node {node} does not live by the clock that was stepped")));
        }
    }
    Ok(Ok("the nodes live by these clocks".to_owned()))
}

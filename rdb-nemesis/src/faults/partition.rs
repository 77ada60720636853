//! Wires that are cut: nodes that live and cannot hear, or cannot be heard.

use super::kill::named;
use super::{Fault, Need, Striking};
use crate::cluster::{Leader, Wire};
use crate::dice::Dice;
use crate::lab::{Bar, Evidence, Lab, seconds};
use anyhow::Result;
use std::time::Duration;
use tokio::time::sleep;

/// How long connections are refused before new ones lead nowhere, so that none is left from before the cut.
const RECONNECT: Duration = Duration::from_millis(300);
/// How long a flapping wire stays as it is.
const FLAP: Duration = Duration::from_millis(200);

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        name: "partition-halves",
        about: "a minority, with or without the leader, and the others do not hear each other, 3 to 7 s",
        needs: &[],
        strike: |lab, dice| -> Striking<'_> { Box::pin(halves(lab, dice)) },
    },
    Fault {
        name: "partition-leader",
        about: "the leader and the others do not hear each other, 3 to 7 s",
        needs: &[],
        strike: |lab, dice| -> Striking<'_> { Box::pin(leader_alone(lab, dice)) },
    },
    Fault {
        name: "leader-unheard",
        about: "one way: the others do not hear the leader, which hears them, 3 to 7 s, cut before or after connecting",
        needs: &[],
        strike: |lab, dice| -> Striking<'_> { Box::pin(leader_unheard(lab, dice)) },
    },
    Fault {
        name: "leader-deaf",
        about: "one way: the leader does not hear the others, which hear it, 3 to 7 s, cut before or after connecting",
        needs: &[],
        strike: |lab, dice| -> Striking<'_> { Box::pin(leader_deaf(lab, dice)) },
    },
    Fault {
        name: "ring",
        about: "five nodes in a ring: each hears its two neighbours alone, a majority that is like no other one's, 3 to 7 s",
        needs: &[Need::Five],
        strike: |lab, dice| -> Striking<'_> { Box::pin(ring(lab, dice)) },
    },
    Fault {
        name: "bridge",
        about: "two halves of five nodes do not hear each other, and the fifth hears both, 3 to 7 s",
        needs: &[Need::Five],
        strike: |lab, dice| -> Striking<'_> { Box::pin(bridge(lab, dice)) },
    },
    Fault {
        name: "flapping",
        about: "the leader is cut off and comes back every 200 ms, 2 to 5 s",
        needs: &[],
        strike: |lab, dice| -> Striking<'_> { Box::pin(flapping(lab, dice)) },
    },
];

/// Between these numbers of places on a ring of five, nobody hears anybody.
const APART: u64 = 2;
const FIVE: u64 = 5;

/// Wires: from whom, and to whom.
type Wires = Vec<(u64, u64)>;

async fn halves(lab: &mut Lab, dice: &mut Dice) -> Result<Evidence> {
    let (leader, ids) = (lab.leader().await?, lab.cluster.ids());
    // Any minority: its first node is drawn, the others follow it.
    let (first, size) = (dice.below(ids.len()), (ids.len() - 1) / 2);
    let minority: Vec<u64> = (0..size).map(|step| ids[(first + step) % ids.len()]).collect();
    let what = format!("{} cut off from the others", named(&minority, leader.node));
    let bar = if minority.contains(&leader.node) { Bar::LeaderLost } else { Bar::LeaderStays };
    cut(lab, dice, leader, around(lab, &minority), bar, what).await
}

async fn leader_alone(lab: &mut Lab, dice: &mut Dice) -> Result<Evidence> {
    let leader = lab.leader().await?;
    let what = format!("node {}, the leader, cut off from the others", leader.node);
    cut(lab, dice, leader, around(lab, &[leader.node]), Bar::LeaderLost, what).await
}

async fn leader_unheard(lab: &mut Lab, dice: &mut Dice) -> Result<Evidence> {
    let leader = lab.leader().await?;
    let wires = around(lab, &[leader.node]).into_iter().filter(|(from, _)| *from == leader.node).collect();
    let what = format!("node {}, the leader, not heard by the others", leader.node);
    cut(lab, dice, leader, wires, Bar::LeaderLost, what).await
}

async fn leader_deaf(lab: &mut Lab, dice: &mut Dice) -> Result<Evidence> {
    let leader = lab.leader().await?;
    let wires = around(lab, &[leader.node]).into_iter().filter(|(_, to)| *to == leader.node).collect();
    let what = format!("node {}, the leader, deaf to the others", leader.node);
    cut(lab, dice, leader, wires, Bar::LeaderLost, what).await
}

async fn ring(lab: &mut Lab, dice: &mut Dice) -> Result<Evidence> {
    let leader = lab.leader().await?;
    let mut wires = lab.cluster.all_wires();
    wires.retain(|(from, to)| [APART, FIVE - APART].contains(&from.abs_diff(*to)));
    let what = format!("each hears its neighbours alone, node {} leads", leader.node);
    cut(lab, dice, leader, wires, Bar::LeaderStays, what).await
}

async fn bridge(lab: &mut Lab, dice: &mut Dice) -> Result<Evidence> {
    let (leader, ids) = (lab.leader().await?, lab.cluster.ids());
    let between = dice.pick(&ids);
    let half: Vec<u64> = lab.cluster.others(&[between]).into_iter().take(ids.len() / 2).collect();
    let mut wires = around(lab, &half);
    wires.retain(|(from, to)| *from != between && *to != between);
    let what = format!("{} and the others hear node {between} alone", named(&half, leader.node));
    cut(lab, dice, leader, wires, Bar::LeaderStays, what).await
}

/// The wires between these nodes and the others.
fn around(lab: &Lab, nodes: &[u64]) -> Wires {
    let mut wires = lab.cluster.all_wires();
    wires.retain(|(from, to)| nodes.contains(from) != nodes.contains(to));
    wires
}

async fn cut(
    lab: &mut Lab,
    dice: &mut Dice,
    leader: Leader,
    wires: Wires,
    bar: Bar,
    what: String,
) -> Result<Evidence> {
    let (lasts, how) = (dice.millis(3_000..7_000), dice.pick(&["closed", "silent", "silent from the start"]));
    let before = kept_back(lab, &wires);
    let first = if how == "silent" { Wire::Silent } else { Wire::Closed };
    set(lab, &wires, first);
    let mut strike = lab.struck(leader, bar, format!("{what}, {how}, for {}", seconds(lasts)));
    if how == "silent from the start" {
        sleep(RECONNECT).await;
        set(lab, &wires, Wire::Silent);
    }
    lab.hold(&mut strike, lasts).await;
    let seen = all_kept_back(&before, &kept_back(lab, &wires));
    lab.undo(strike, seen).await
}

async fn flapping(lab: &mut Lab, dice: &mut Dice) -> Result<Evidence> {
    let leader = lab.leader().await?;
    let wires = around(lab, &[leader.node]);
    let (lasts, wire) = (dice.millis(2_000..5_000), dice.pick(&[Wire::Closed, Wire::Silent]));
    let before = kept_back(lab, &wires);
    let what = format!("node {}, the leader, cut off every other {} ms", leader.node, FLAP.as_millis());
    let mut strike = lab.struck(leader, Bar::None, format!("{what} for {}", seconds(lasts)));
    let mut left = lasts;
    while !left.is_zero() {
        set(lab, &wires, wire);
        sleep(FLAP).await;
        set(lab, &wires, Wire::Whole);
        sleep(FLAP).await;
        left = left.saturating_sub(2 * FLAP);
    }
    lab.hold(&mut strike, FLAP).await;
    let seen = most_kept_back(&before, &kept_back(lab, &wires));
    lab.undo(strike, seen).await
}

fn set(lab: &Lab, wires: &Wires, wire: Wire) {
    for (from, to) in wires {
        lab.cluster.wire(*from, *to, wire);
    }
}

fn kept_back(lab: &Lab, wires: &Wires) -> Vec<u64> {
    wires.iter().map(|(from, to)| lab.cluster.kept_back(*from, *to)).collect()
}

/// A cut has happened if every wire had something to keep back.
fn all_kept_back(before: &[u64], after: &[u64]) -> Result<String, String> {
    kept_back_but(0, before, after)
}

/// Short cuts have happened if half of the wires had something to keep back: of pings that come as often as the cuts, one wire's
/// may come in between them each time.
fn most_kept_back(before: &[u64], after: &[u64]) -> Result<String, String> {
    kept_back_but(before.len() / 2, before, after)
}

fn kept_back_but(idle_max: usize, before: &[u64], after: &[u64]) -> Result<String, String> {
    let idle = before.iter().zip(after).filter(|(before, after)| before == after).count();
    if idle <= idle_max {
        let kept: u64 = before.iter().zip(after).map(|(before, after)| after - before).sum();
        Ok(format!("the wires kept something back {kept} times"))
    } else {
        Err(format!("{idle} of {} wires had nothing to keep back", before.len()))
    }
}

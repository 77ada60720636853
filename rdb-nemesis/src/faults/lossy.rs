//! Wires that are slow, or whose connections break again and again.

use super::{Fault, Need, Striking};
use crate::cluster::Wire;
use crate::dice::Dice;
use crate::lab::{Bar, Evidence, Lab, seconds};
use anyhow::Result;
use tokio::time::{Instant, sleep};

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        name: "broken-connections",
        about: "every 20 to 200 ms some wire's connections break, 2 to 5 s",
        needs: &[Need::Wires],
        strike: |lab, dice| -> Striking<'_> { Box::pin(broken(lab, dice)) },
    },
    Fault {
        name: "slow-wires",
        about: "all that nodes say to each other comes 10 to 100 ms later, 2 to 5 s",
        needs: &[Need::Wires],
        strike: |lab, dice| -> Striking<'_> { Box::pin(slow(lab, dice)) },
    },
    Fault {
        name: "lossy-wires",
        about: "5 to 50 % of all that nodes say to each other is lost and sent again, as TCP does, 2 to 5 s",
        needs: &[Need::Wires],
        strike: |lab, dice| -> Striking<'_> { Box::pin(lossy(lab, dice)) },
    },
];

async fn broken(lab: &mut Lab, dice: &mut Dice) -> Result<Evidence> {
    let (leader, lasts, wires) = (lab.leader().await?, dice.millis(2_000..5_000), lab.cluster.all_wires());
    let what = format!("connections between nodes break again and again for {}", seconds(lasts));
    let before = lab.cluster.kept_back_by_all();
    let mut strike = lab.struck(leader, Bar::None, what);
    let (end, mut breaks) = (Instant::now() + lasts, 0);
    while Instant::now() < end {
        let (from, to) = dice.pick(&wires);
        let wire = dice.pick(&[Wire::Closed, Wire::Mute, Wire::Deaf]);
        lab.cluster.wire(from, to, wire);
        sleep(dice.millis(10..100)).await;
        lab.cluster.wire(from, to, Wire::Whole);
        sleep(dice.millis(10..100)).await;
        breaks += 1;
    }
    strike.during = lab.cluster.leader_now().await;
    let seen = match lab.cluster.kept_back_by_all() - before {
        0 => Err(format!("{breaks} breaks met no connection")),
        count => Ok(format!("{breaks} breaks kept something back {count} times")),
    };
    lab.undo(strike, seen).await
}

async fn slow(lab: &mut Lab, dice: &mut Dice) -> Result<Evidence> {
    let (leader, lasts) = (lab.leader().await?, dice.millis(2_000..5_000));
    let delay = dice.millis(10..100);
    for (from, to) in lab.cluster.all_wires() {
        lab.cluster.wire(from, to, Wire::Slow(delay));
    }
    let what = format!("{} ms between the nodes for {}", delay.as_millis(), seconds(lasts));
    let mut strike = lab.struck(leader, Bar::None, what);
    // A write takes a message to a follower and its answer, so it cannot be faster than that any more.
    let key = "slow-wires/probe";
    let started = Instant::now();
    let written = lab.client.namespace(crate::cluster::NAMESPACE).put(key, "written").await;
    let took = started.elapsed();
    lab.hold(&mut strike, lasts).await;
    let seen = match written {
        Ok(_) if delay <= took => Ok(format!("a write took {} ms", took.as_millis())),
        Ok(_) => Err(format!("a write took {} ms and was not slowed down", took.as_millis())),
        Err(error) => Ok(format!("a write failed: {error}")),
    };
    lab.undo(strike, seen).await
}

async fn lossy(lab: &mut Lab, dice: &mut Dice) -> Result<Evidence> {
    let (leader, lasts) = (lab.leader().await?, dice.millis(2_000..5_000));
    let percent = dice.pick(&[5, 20, 50]);
    let before = lab.cluster.kept_back_by_all();
    for (from, to) in lab.cluster.all_wires() {
        lab.cluster.wire(from, to, Wire::Lossy(percent));
    }
    let what = format!("{percent} % of what nodes say is lost and sent again for {}", seconds(lasts));
    let mut strike = lab.struck(leader, Bar::None, what);
    lab.hold(&mut strike, lasts).await;
    let seen = match lab.cluster.kept_back_by_all() - before {
        0 => Err("nothing was lost".to_owned()),
        count => Ok(format!("{count} pieces were sent again")),
    };
    lab.undo(strike, seen).await
}

//! Nodes of two versions that work together: each is stopped in good order and started with the server that is tried, one after the
//! other, as an operator does it.
//!
//! There is no way back: no version promises that an older one can go on from its files. So it is done once a run.

use super::{Fault, Need, Striking};
use crate::cluster::NAMESPACE;
use crate::dice::Dice;
use crate::lab::{Bar, Evidence, Lab};
use anyhow::{Context as _, Result, bail};
use std::time::Duration;
use tokio::time::sleep;

/// How soon all that clients do must succeed between two nodes: twice the longest that writes may take.
const SERVED_LIMIT: Duration = Duration::from_secs(10);
/// How long each leads after that.
const MIXED_MS: std::ops::Range<u64> = 1_000..3_000;
/// Refusals that are told.
const TOLD_MAX: usize = 3;

pub(super) const FAULTS: &[Fault] = &[Fault {
    name: "rolling-upgrade",
    about: "nodes begin with the older server of --server-before, and each in turn is stopped and started with the other; once a run",
    needs: &[Need::Before],
    strike: |lab, dice| -> Striking<'_> { Box::pin(upgrade(lab, dice)) },
}];

async fn upgrade(lab: &mut Lab, dice: &mut Dice) -> Result<Evidence> {
    let leader = lab.leader().await?;
    let strike = lab.struck(leader, Bar::None, "upgrade of each node in turn".to_owned());
    let (mut older, mut newer) = (lab.cluster.ids(), Vec::new());
    while !older.is_empty() {
        let node = older.remove(dice.below(older.len()));
        lab.cluster.upgrade(node).await.with_context(|| format!("upgrade of node {node}"))?;
        lab.history.note(format!("node {node} is upgraded"));
        newer.push(node);
        // One of each version leads those of the other.
        for version in [&newer, &older] {
            if !version.is_empty() {
                let leads = dice.pick(version);
                serves_all(lab, dice, leads).await?;
            }
        }
    }
    let order: Vec<String> = newer.iter().map(ToString::to_string).collect();
    let seen =
        format!("the processes run the other file, in the order {}; each version led", order.join(", "));
    lab.undo(strike, Ok(seen)).await
}

/// With this leader clients must be served, and once they are, nothing may be refused.
async fn serves_all(lab: &Lab, dice: &mut Dice, leader: u64) -> Result<()> {
    lab.client.move_leader(NAMESPACE, leader).await.with_context(|| format!("node {leader} cannot lead"))?;
    let served = lab.all_succeed(lab.history.now_ns(), SERVED_LIMIT).await;
    if let Err(missing) = served {
        bail!(
            "while node {leader} leads, for {} s none of these succeeded: {missing}",
            SERVED_LIMIT.as_secs()
        );
    }
    let served_ns = lab.history.now_ns();
    sleep(dice.millis(MIXED_MS)).await;
    let refused = lab.history.refused_since(served_ns);
    if !refused.is_empty() {
        let told = &refused[..refused.len().min(TOLD_MAX)];
        bail!("while node {leader} leads, {} calls were refused, among them {told:?}", refused.len());
    }
    Ok(())
}

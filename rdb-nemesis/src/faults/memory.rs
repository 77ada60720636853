//! A node that is killed by the kernel, for want of memory, in the middle of the work that needs it.

use super::kill::named;
use super::{Fault, Need, Striking, leader_or_any};
use crate::cluster::{Leader, NAMESPACE};
use crate::dice::Dice;
use crate::lab::{Bar, Evidence, Lab, seconds};
use anyhow::Result;
use rdb_client::Client;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// What the node may take beyond what it has: less than it keeps unflushed.
const MORE_BYTES: [u64; 3] = [8 << 20, 16 << 20, 32 << 20];
/// Past it the node was not killed.
const KILL_LIMIT: Duration = Duration::from_secs(30);
const LOOK_INTERVAL: Duration = Duration::from_millis(10);
/// What fills its memory: values of a few keys, so that disks do not fill up as well.
const LOAD_BYTES: usize = 256 << 10;
const LOAD_KEYS: usize = 8;
const LOAD_WRITERS: usize = 2;

pub(super) const FAULTS: &[Fault] = &[Fault {
    name: "out-of-memory",
    about: "the leader, or another node, may take 8 to 32 MiB more, under load, until the kernel kills it; started again after 1 to 4 s (root only)",
    needs: &[Need::Memory],
    strike: |lab, dice| -> Striking<'_> { Box::pin(out_of_memory(lab, dice)) },
}];

async fn out_of_memory(lab: &mut Lab, dice: &mut Dice) -> Result<Evidence> {
    let leader = lab.leader().await?;
    let (node, more) = (leader_or_any(lab, leader, dice), dice.pick(&MORE_BYTES));
    lab.history.note(format!("node {node} may take {} MiB more", more >> 20));
    lab.cluster.cap_memory(node, more)?;
    // Ends with this fault, whatever comes of it.
    let mut load = tokio::task::JoinSet::new();
    for writer in 0..LOAD_WRITERS {
        load.spawn(fill(lab.client.clone(), writer));
    }
    let (leader, killed) = until_killed(lab, node, leader).await?;
    load.shutdown().await;
    let lasts = dice.millis(1_000..4_000);
    let bar = match (killed, node == leader.node) {
        (false, _) => Bar::None,
        (true, true) => Bar::LeaderLost,
        (true, false) => Bar::LeaderStays,
    };
    let what = format!("want of memory at {} ends it for {}", named(&[node], leader.node), seconds(lasts));
    let mut strike = lab.struck(leader, bar, what);
    lab.hold(&mut strike, lasts).await;
    let seen = match lab.cluster.killed_for_memory(node)? {
        0 => Err(format!("the kernel killed nobody within {}", seconds(KILL_LIMIT))),
        count => Ok(format!("the kernel killed {count} process, which had {} MiB to take", more >> 20)),
    };
    lab.undo(strike, seen).await
}

/// Waits for the node's end. Returns who led until then, and whether it came.
async fn until_killed(lab: &mut Lab, node: u64, mut leader: Leader) -> Result<(Leader, bool)> {
    let deadline = Instant::now() + KILL_LIMIT;
    while Instant::now() < deadline {
        let now = lab.cluster.leader_now().await;
        // Whoever leads by now may have been elected since the node's end.
        if lab.cluster.was_killed(node)? {
            return Ok((leader, true));
        }
        leader = now.unwrap_or(leader);
        sleep(LOOK_INTERVAL).await;
    }
    Ok((leader, false))
}

/// Writes without end. What fails is no matter: the node's end is what this is for.
async fn fill(client: Client, writer: usize) {
    let namespace = client.namespace(NAMESPACE);
    for number in (0..LOAD_KEYS).cycle() {
        let mut value = vec![0; LOAD_BYTES];
        rand::fill(&mut value[..]);
        let _ = namespace.put(format!("ballast/memory/{writer}/{number}"), value).await;
    }
}

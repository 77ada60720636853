//! Clients that go on over switches and faults: elements of a set, each written once, and registers.
//!
//! Last-writer-wins would hide that a write is lost, so each element has a key of its own. It is tried once: whether it is there in
//! the end is held against what its writer was told.

use super::eras::REGISTER;
use crate::history::{Expect, History, Stamp};
use crate::workloads::{Caller, Scene, Where};
use anyhow::Result;
use rdb_client::Consistency;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::task::JoinSet;
use tokio::time::sleep;

/// The workload of elements, whose check has the same name.
pub(super) const SET: &str = "set";
/// Writers that ask one node, whoever leads, for each node.
const AT_EACH_NODE: u64 = 2;
/// Writers that follow whoever leads.
const FOLLOWING: u64 = 2;
const REGISTER_CLIENTS: u64 = 4;
const SLOTS: usize = 2;
/// A key's history stays short enough to be looked at.
const OPERATIONS_PER_KEY: u64 = 200;

/// What clients of a run share.
pub(super) fn scene(seed: u64, addresses: BTreeMap<u64, String>) -> Arc<Scene> {
    Arc::new(Scene {
        history: Arc::new(History::begin(seed)),
        addresses,
        lease: false,
        seed,
        tries: 0,
        tried: AtomicU64::new(0),
        leader_changes: AtomicU64::new(0),
        stop: AtomicBool::new(false),
    })
}

/// Starts all of them.
pub(super) fn start(scene: &Arc<Scene>, clients: &mut JoinSet<Result<()>>) {
    for node in scene.addresses.keys() {
        for number in 0..AT_EACH_NODE {
            clients.spawn(add(scene.clone(), Where::Node(*node), node * 10 + number));
        }
    }
    for number in 0..FOLLOWING {
        clients.spawn(add(scene.clone(), Where::Leader, number));
    }
    let operations = Arc::<[AtomicU64; SLOTS]>::default();
    for number in 0..REGISTER_CLIENTS {
        clients.spawn(register(scene.clone(), operations.clone(), number));
    }
}

async fn add(scene: Arc<Scene>, place: Where, number: u64) -> Result<()> {
    let mut caller = Caller::connect(&scene, SET).await?;
    let mut dice = scene.dice(SET, number);
    for count in 0_u64.. {
        if scene.is_over() {
            break;
        }
        let element = format!("{number}.{count}");
        caller.put_at(&format!("{SET}/{element}"), &element, place).await;
        sleep(dice.millis(5..30)).await;
    }
    Ok(())
}

async fn register(scene: Arc<Scene>, operations: Arc<[AtomicU64; SLOTS]>, number: u64) -> Result<()> {
    let mut caller = Caller::connect(&scene, REGISTER).await?;
    let mut dice = scene.dice(REGISTER, number);
    let nodes = caller.nodes();
    let mut seen: BTreeMap<String, Stamp> = BTreeMap::new();
    for count in 0_u64.. {
        if scene.is_over() {
            break;
        }
        let slot = dice.below(SLOTS);
        let generation = operations[slot].fetch_add(1, Ordering::Relaxed) / OPERATIONS_PER_KEY;
        let key = format!("{REGISTER}/{slot}/{generation}");
        let value = format!("{number}.{count}");
        let place = if dice.percent(50) { Where::Leader } else { Where::Node(dice.pick(&nodes)) };
        match dice.below(10) {
            0..4 => {
                let found = caller.get(&key, place, Consistency::Linearizable).await.flatten();
                seen.extend(found.map(|record| (key, record.version.into())));
            }
            4..7 => {
                let written = caller.put_at(&key, &value, place).await;
                seen.extend(written.map(|version| (key, version.into())));
            }
            _ => {
                let expect = seen.get(&key).map_or(Expect::Absent, |version| Expect::Version(*version));
                caller.compare_and_swap(&key, expect, &value).await;
            }
        }
        sleep(dice.millis(0..20)).await;
    }
    Ok(())
}

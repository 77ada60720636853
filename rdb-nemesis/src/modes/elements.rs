//! Clients that go on over switches and faults: elements of a set, each written once, and registers.
//!
//! Last-writer-wins would hide that a write is lost, so each element has a key of its own. It is tried once: whether it is there in
//! the end is held against what its writer was told.

use super::eras::REGISTER;
use crate::history::{Entry, Expect, History, Outcome, Stamp};
use crate::workloads::{Caller, Scene, Where};
use anyhow::{Result, bail};
use rdb_client::Consistency;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// The workload of elements.
pub(super) const SET: &str = "set";
/// Writers that ask one node, whoever leads, for each node.
const AT_EACH_NODE: u64 = 2;
/// Writers that follow whoever leads.
const FOLLOWING: u64 = 2;
const REGISTER_CLIENTS: u64 = 4;
const SLOTS: usize = 2;
/// A key's history stays short enough to be looked at.
const OPERATIONS_PER_KEY: u64 = 200;
/// A read in the end may be refused for a while; by then somebody leads.
const READ_TRIES_MAX: u32 = 60;
const READ_PAUSE: Duration = Duration::from_millis(100);
/// How many elements a finding names.
const NAMED_MAX: usize = 5;

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

/// Reads every register at every node, for the last time.
pub(super) async fn read_registers(scene: &Arc<Scene>) -> Result<()> {
    let mut caller = Caller::connect(scene, REGISTER).await?;
    let keys = scene.history.keys().remove(REGISTER).unwrap_or_default();
    for key in &keys {
        for node in caller.nodes() {
            let mut tries = 0;
            while caller.get(key, Where::Node(node), Consistency::Linearizable).await.is_none() {
                tries += 1;
                if READ_TRIES_MAX < tries {
                    bail!("node {node} does not answer a read of {key} though all is healed");
                }
                sleep(READ_PAUSE).await;
            }
        }
    }
    Ok(())
}

/// Every element that was acknowledged is there, and none that was refused as not done.
pub(super) fn check(history: &[Entry], found: &BTreeSet<String>) -> Result<String, String> {
    let adds = || history.iter().filter(|entry| entry.workload == SET);
    let acknowledged = adds().filter(|entry| entry.is_acknowledged_write());
    let count = acknowledged.clone().count();
    none(acknowledged.filter(|entry| !found.contains(&entry.key)), "lost: acknowledged, and not there")?;
    let refused = adds().filter(|entry| matches!(entry.outcome, Outcome::NotDone { .. }));
    none(refused.filter(|entry| found.contains(&entry.key)), "refused as not done, and yet there")?;
    Ok(format!("{count} acknowledged elements are there"))
}

fn none<'a>(wrong: impl Iterator<Item = &'a Entry>, what: &str) -> Result<(), String> {
    let told = |entry: &Entry| format!("{} ({:?}, epoch {:?})", entry.key, entry.outcome, entry.epoch);
    let wrong: Vec<&Entry> = wrong.collect();
    if wrong.is_empty() {
        return Ok(());
    }
    let named: Vec<String> = wrong.iter().take(NAMED_MAX).map(|entry| told(entry)).collect();
    Err(format!("{what}: {} elements, among them {}", wrong.len(), named.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Call, Request};
    use rdb_check::Version;

    fn add(element: &str, outcome: Outcome) -> Entry {
        Entry {
            client: 1,
            workload: SET.to_owned(),
            key: element.to_owned(),
            request: Some(Request::Put),
            call: Call::Put(element.to_owned()),
            call_ns: 1,
            return_ns: Some(2),
            outcome,
            epoch: None,
            node: None,
            served: None,
            name: None,
        }
    }

    #[test]
    fn an_acknowledged_element_must_be_there_and_a_refused_one_must_not() {
        let why = String::new;
        let history = [
            add("done", Outcome::Done { version: Stamp(Version::default()) }),
            add("refused", Outcome::NotDone { why: why() }),
            add("doubtful", Outcome::Unknown { why: why() }),
        ];
        let looked = |found: &[&str]| check(&history, &found.iter().map(|key| (*key).to_owned()).collect());
        assert!(looked(&["done"]).is_ok() && looked(&["done", "doubtful"]).is_ok());
        assert!(looked(&["doubtful"]).is_err_and(|why| why.contains("lost") && why.contains("done")));
        assert!(looked(&["done", "refused"]).is_err_and(|why| why.contains("yet there")));
    }
}

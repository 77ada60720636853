//! Clients of a namespace that is switched between the modes all the time, whatever else goes on: elements of a set, each written
//! once, and registers.
//!
//! Last-writer-wins would hide that a write is lost, so each element has a key of its own. It is tried once: whether it is there in
//! the end is held against what its writer was told.

use super::{Caller, Scene, Where};
use crate::history::{Expect, Stamp};
use crate::switching::{self, END_LIMIT, end_of, try_to_begin};
use anyhow::{Result, bail};
use rdb_client::{Client, Consistency, Mode, SwitchOptions};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// Its name.
pub(crate) const NAME: &str = "switched";
/// The namespace of its own that it has where others have theirs.
pub(crate) const NAMESPACE: &str = "switched";
/// The mode that the namespace begins in.
pub(crate) const FIRST: Mode = Mode::Eventual;
/// What elements' keys begin with.
pub(crate) const ELEMENTS: &str = "switched/element/";
/// What registers' keys begin with.
pub(crate) const REGISTERS: &str = "switched/register/";

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

/// Short, so that a switch that cannot go on is called off before faults have to wait.
pub(crate) const SWITCH_OPTIONS: SwitchOptions = SwitchOptions {
    excluded: Vec::new(),
    max_write_pause: Some(Duration::from_secs(3)),
    max_preparing: Some(Duration::from_secs(5)),
};
/// One switch in so many percent is called off by the operator.
pub(crate) const ABORT_PERCENT: u32 = 10;
/// Of what the operator asks.
const CALL_LIMIT: Duration = Duration::from_secs(2);

/// All of it: the clients, and an operator who switches. In the end the namespace is strong.
pub(super) fn start(scene: &Arc<Scene>, clients: &mut JoinSet<Result<()>>) {
    start_clients(scene, clients);
    clients.spawn(switch_all_the_time(scene.clone()));
}

/// The clients alone.
pub(crate) fn start_clients(scene: &Arc<Scene>, clients: &mut JoinSet<Result<()>>) {
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
    let mut caller = Caller::connect_to(&scene, NAME, scene.switched).await?;
    let mut dice = scene.dice(ELEMENTS, number);
    for count in 0_u64.. {
        if scene.is_over() {
            break;
        }
        let element = format!("{number}.{count}");
        caller.put_at(&format!("{ELEMENTS}{element}"), &element, place).await;
        sleep(dice.millis(5..30)).await;
    }
    Ok(())
}

async fn register(scene: Arc<Scene>, operations: Arc<[AtomicU64; SLOTS]>, number: u64) -> Result<()> {
    let mut caller = Caller::connect_to(&scene, NAME, scene.switched).await?;
    let mut dice = scene.dice(REGISTERS, number);
    let nodes = caller.nodes();
    let mut seen: BTreeMap<String, Stamp> = BTreeMap::new();
    for count in 0_u64.. {
        if scene.is_over() {
            break;
        }
        let slot = dice.below(SLOTS);
        let generation = operations[slot].fetch_add(1, Ordering::Relaxed) / OPERATIONS_PER_KEY;
        let key = format!("{REGISTERS}{slot}/{generation}");
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
pub(crate) async fn read_registers(scene: &Arc<Scene>) -> Result<()> {
    let mut caller = Caller::connect_to(scene, NAME, scene.switched).await?;
    let keys = scene.history.keys().remove(NAME).unwrap_or_default();
    for key in keys.iter().filter(|key| key.starts_with(REGISTERS)) {
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

/// Switches one way and back, over whatever happens, until clients end; then waits until the namespace is strong.
async fn switch_all_the_time(scene: Arc<Scene>) -> Result<()> {
    let client = Client::connect(scene.options(CALL_LIMIT, false)).await?;
    let mut dice = scene.dice("switches", 0);
    while !scene.is_over() {
        // Any of them may find nobody who could be asked.
        if let Ok(begun) = try_to_begin(&client, scene.switched, &SWITCH_OPTIONS).await {
            let to = begun.to.map_or_else(String::new, |to| format!(" to {to}"));
            scene.history.note(format!("switch {} begun{to}", begun.switch));
            if dice.percent(ABORT_PERCENT) {
                sleep(dice.millis(0..300)).await;
                // Too late it is refused: that is as good.
                let _ = client.abort_switch(scene.switched).await;
            }
            let end = end_of(&client, &begun, END_LIMIT).await?;
            let how =
                if end.completed { "completed".to_owned() } else { format!("called off: {}", end.reason) };
            scene.history.note(format!("switch {} {how}", begun.switch));
        }
        sleep(dice.millis(200..1_500)).await;
    }
    switching::make_strong(&client, scene.switched).await
}

//! A few keys that everybody reads and writes.
//!
//! Half of the reads go to any node, whoever leads; all must be linearizable. A key is given up after some operations and
//! another takes its place, so that histories stay short enough to be looked at.

use super::caller::{Caller, JoinSet, Scene, Where, resolve};
use crate::dice::Dice;
use crate::history::{Expect, Stamp};
use anyhow::Result;
use rdb_client::Consistency;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const NAME: &str = "register";
/// At most ten, so that a key never has more: the time to judge a history without versions grows with it.
const CLIENTS: u64 = 8;
const SLOTS: usize = 3;
const OPERATIONS_PER_KEY: u64 = 200;

/// For each slot, the operations so far on all its keys.
type Slots = Arc<[AtomicU64; SLOTS]>;

pub(super) fn start(scene: &Arc<Scene>, clients: &mut tokio::task::JoinSet<Result<()>>) {
    let slots = Slots::default();
    for number in 0..CLIENTS {
        clients.spawn(work(scene.clone(), slots.clone(), number));
    }
}

async fn work(scene: Arc<Scene>, slots: Slots, number: u64) -> Result<()> {
    let mut caller = Caller::connect(&scene, NAME).await?;
    let mut dice = scene.dice(NAME, number);
    let mut seen: HashMap<String, (String, Stamp)> = HashMap::new();
    let mut resolving = JoinSet::new();
    let mut count = 0;
    while !scene.is_over() {
        let slot = dice.below(SLOTS);
        let generation = slots[slot].fetch_add(1, Ordering::Relaxed) / OPERATIONS_PER_KEY;
        let key = format!("{NAME}/{slot}/{generation}");
        count += 1;
        let value = format!("{number}.{count}");
        match dice.below(10) {
            0..4 => {
                let (place, consistency) = reading(&caller, &mut dice);
                if let Some(found) = caller.get(&key, place, consistency).await {
                    match found {
                        Some(record) => {
                            let value = super::caller::text(&record.value);
                            seen.insert(key, (value, record.version.into()))
                        }
                        None => seen.remove(&key),
                    };
                }
            }
            4..7 => {
                if let Some(version) = caller.put(&key, &value).await {
                    seen.insert(key, (value, version.into()));
                }
            }
            7..9 => {
                let expect = match (seen.get(&key), dice.percent(50)) {
                    (None, _) => Expect::Absent,
                    (Some((value, _)), true) => Expect::Value(value.clone()),
                    (Some((_, version)), false) => Expect::Version(*version),
                };
                caller.compare_and_swap(&key, expect, &value).await;
            }
            _ => {
                caller.delete(&key, &mut resolving).await;
                seen.remove(&key);
            }
        }
        scene.pause(dice.millis(0..20)).await;
    }
    resolve(resolving).await
}

/// Where a read goes, and what it asks for.
fn reading(caller: &Caller, dice: &mut Dice) -> (Where, Consistency) {
    if caller.scene.lease && dice.percent(40) {
        // At any node: one that has no lease serves it by a round.
        return (Where::Node(dice.pick(&caller.nodes())), Consistency::Lease);
    }
    let place = if dice.percent(50) { Where::Leader } else { Where::Node(dice.pick(&caller.nodes())) };
    (place, Consistency::Linearizable)
}

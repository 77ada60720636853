//! Keys that are scanned at any node while they are written and removed, alone and together.
//!
//! Every fourth key has a value that fills a page, and scanners take their time between two pages: so much is on its way
//! that the server has to wait, and what is written meanwhile must not show in the pages that come later.

use super::caller::{Caller, JoinSet, Scene, Where, padded, resolve};
use super::extent::Extent;
use crate::dice::Dice;
use crate::history::{Call, Request};
use anyhow::Result;
use rdb_client::{Consistency, ScanOptions, Write};
use std::sync::Arc;
use tokio::time::sleep;

const NAME: &str = "scans";
const WRITERS: u64 = 2;
const SCANNERS: u64 = 2;
const KEYS: usize = 32;
/// The first of them, and each one so far behind another, has a large value.
const LARGE_EVERY: usize = 4;
/// Keys that a batch writes, far apart so that they are on different pages.
const BATCH_KEYS: usize = 4;
const BATCH_STEP: usize = KEYS / BATCH_KEYS;

pub(super) fn start(scene: &Arc<Scene>, clients: &mut tokio::task::JoinSet<Result<()>>) {
    for number in 0..WRITERS {
        clients.spawn(write(scene.clone(), number));
    }
    for number in WRITERS..WRITERS + SCANNERS {
        clients.spawn(scan(scene.clone(), number));
    }
}

/// All keys, in order.
fn keys() -> Vec<String> {
    (0..KEYS).map(|number| format!("{NAME}/{number:02}")).collect()
}

async fn write(scene: Arc<Scene>, number: u64) -> Result<()> {
    let mut caller = Caller::connect(&scene, NAME).await?;
    let mut dice = scene.dice(NAME, number);
    let (keys, mut resolving, mut count) = (keys(), JoinSet::new(), 0);
    while !scene.is_over() {
        count += 1;
        let value = format!("{number}.{count}");
        match dice.below(20) {
            0..10 => {
                let at = dice.below(KEYS);
                put(&mut caller, &keys[at], value, at.is_multiple_of(LARGE_EVERY)).await;
            }
            10..16 => {
                let first = 1 + dice.below(LARGE_EVERY - 1);
                put_together(&mut caller, keys[first..].iter().step_by(BATCH_STEP), value).await;
            }
            16..19 => caller.delete(&keys[dice.below(KEYS)], &mut resolving).await,
            _ => {
                let (from, to) = some_of(&mut dice);
                caller.delete_range(&keys, from, to, &mut resolving).await;
            }
        }
        sleep(dice.millis(0..20)).await;
    }
    resolve(resolving).await
}

async fn put(caller: &mut Caller, key: &str, value: String, large: bool) {
    let stored = if large { padded(&value) } else { value.clone() };
    let call_ns = caller.scene.history.now_ns();
    let answer = caller.namespace().put(key.to_owned(), stored).await;
    caller.wrote(&[key], Request::Put, &Call::Put(value), call_ns, answer);
}

/// Writes one value to some keys at one moment.
async fn put_together(caller: &mut Caller, keys: impl Iterator<Item = &String>, value: String) {
    let keys: Vec<&str> = keys.map(String::as_str).collect();
    let put = |key: &&str| Write::Put((*key).to_owned().into(), value.clone().into());
    let writes = keys.iter().map(put).collect();
    let call_ns = caller.scene.history.now_ns();
    let answer = caller.namespace().batch_write(writes).await;
    caller.wrote(&keys, Request::BatchWrite, &Call::Put(value), call_ns, answer);
}

/// A few keys in a row, of which the last is not the last of all.
fn some_of(dice: &mut Dice) -> (usize, usize) {
    let from = dice.below(KEYS - 1);
    (from, from + 1 + dice.below((KEYS - 1 - from).min(BATCH_KEYS)))
}

async fn scan(scene: Arc<Scene>, number: u64) -> Result<()> {
    let mut caller = Caller::connect(&scene, NAME).await?;
    let mut dice = scene.dice(NAME, number);
    while !scene.is_over() {
        let place = if dice.percent(30) { Where::Leader } else { Where::Node(dice.pick(&caller.nodes())) };
        // What a node has may be old, and must be of one moment as well.
        let stale = dice.percent(25);
        let consistency =
            if stale { Consistency::Stale { max_age: None } } else { Consistency::Linearizable };
        caller.scan(&draw(&mut dice), place, consistency).await?;
        sleep(dice.millis(0..40)).await;
    }
    Ok(())
}

/// Draws what to scan: all keys, or those of a range, or up to a limit; forward or in reverse.
fn draw(dice: &mut Dice) -> Extent {
    let mut extent = Extent::prefix(format!("{NAME}/"), keys());
    if dice.percent(25) {
        let from = dice.below(KEYS - 1);
        let to = from + 1 + dice.below(KEYS - 1 - from);
        extent.options = ScanOptions::range(extent.keys[from].clone(), extent.keys[to].clone());
        extent.keys = extent.keys[from..to].to_vec();
    }
    if dice.percent(50) {
        extent.options = extent.options.reverse();
        extent.keys.reverse();
    }
    if dice.percent(25) {
        extent.limit = 1 + dice.below(KEYS);
        extent.options = extent.options.limit(extent.limit as u64);
    }
    if dice.percent(50) {
        extent.pause = dice.millis(1..60);
    }
    extent
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn large_values_fill_pages_and_ranges_are_within_the_keys() {
        const PAGE_BYTES: usize = 256 << 10;
        assert!(PAGE_BYTES <= padded("0.1").len());
        assert!(keys()[1..].iter().step_by(BATCH_STEP).count() == BATCH_KEYS);
        let mut dice = Dice::new(1, 1);
        for _ in 0..1_000 {
            let (from, to) = some_of(&mut dice);
            assert!(from < to && to < KEYS, "{from} to {to}");
            let extent = draw(&mut dice);
            assert!(!extent.keys.is_empty() && extent.pause < Duration::from_millis(60));
        }
    }
}

//! Pairs of keys that are always written alike, by a batch or by a transaction, and read together at any node.

use super::caller::{Caller, Scene, Where};
use crate::history::{Call, Request};
use anyhow::Result;
use rdb_client::{Consistency, Transaction, Write, WriteError, Written};
use std::sync::Arc;

const NAME: &str = "pairs";
const WRITERS: u64 = 2;
const READERS: u64 = 2;
const PAIRS: usize = 3;

pub(super) fn start(scene: &Arc<Scene>, clients: &mut tokio::task::JoinSet<Result<()>>) {
    for number in 0..WRITERS {
        clients.spawn(write(scene.clone(), number));
    }
    for number in WRITERS..WRITERS + READERS {
        clients.spawn(read(scene.clone(), number));
    }
}

fn keys(pair: usize) -> [String; 2] {
    [format!("{NAME}/{pair}/a"), format!("{NAME}/{pair}/b")]
}

async fn write(scene: Arc<Scene>, number: u64) -> Result<()> {
    let mut caller = Caller::connect(&scene, NAME).await?;
    let mut dice = scene.dice(NAME, number);
    let mut count = 0;
    while !scene.is_over() {
        count += 1;
        let ([a, b], value) = (keys(dice.below(PAIRS)), format!("{number}.{count}"));
        let call_ns = scene.history.now_ns();
        let (request, answer) = if dice.percent(50) {
            let put = |key: &str| Write::Put(key.to_owned().into(), value.clone().into());
            (Request::BatchWrite, caller.namespace().batch_write(vec![put(&a), put(&b)]).await)
        } else {
            (Request::Transaction, put_by_transaction(&caller, &a, &b, &value).await)
        };
        caller.wrote(&[&a, &b], request, &Call::Put(value), call_ns, answer);
        scene.pause(dice.millis(0..20)).await;
    }
    Ok(())
}

async fn put_by_transaction(caller: &Caller, a: &str, b: &str, value: &str) -> Result<Written, WriteError> {
    let transaction =
        Transaction::new().then_put(a.to_owned(), value.to_owned()).then_put(b.to_owned(), value.to_owned());
    let outcome = caller.namespace().transaction(transaction).await?;
    // Without a version it was not acknowledged as a write, and no check can place it: version 0 fails them all.
    Ok(Written { version: outcome.version.unwrap_or_default(), epoch: outcome.epoch })
}

async fn read(scene: Arc<Scene>, number: u64) -> Result<()> {
    let mut caller = Caller::connect(&scene, NAME).await?;
    let mut dice = scene.dice(NAME, number);
    while !scene.is_over() {
        let place = Where::Node(dice.pick(&caller.nodes()));
        caller.batch_get(&keys(dice.below(PAIRS)), place, Consistency::Linearizable).await;
        scene.pause(dice.millis(0..20)).await;
    }
    Ok(())
}

//! Numbers that are counted up by transactions: read it and its version, and write the next one if the version is still
//! the same.
//!
//! The value is the number and who wrote it, `7 of 2.31`, so that no two writes share one.

use super::caller::{Caller, Scene, Where, text, write_failed};
use crate::history::{Expect, Outcome, Request, Stamp, Swap};
use anyhow::Result;
use rdb_client::{Consistency, Record, Transaction, TransactionOutcome, WriteError};
use std::sync::Arc;

const NAME: &str = "counter";
const CLIENTS: u64 = 3;
const COUNTERS: usize = 2;

pub(super) fn start(scene: &Arc<Scene>, clients: &mut tokio::task::JoinSet<Result<()>>) {
    for number in 0..CLIENTS {
        clients.spawn(work(scene.clone(), number));
    }
}

async fn work(scene: Arc<Scene>, number: u64) -> Result<()> {
    let mut caller = Caller::connect(&scene, NAME).await?;
    let mut dice = scene.dice(NAME, number);
    let mut count = 0;
    while !scene.is_over() {
        let key = format!("{NAME}/{}", dice.below(COUNTERS));
        let place = Where::Node(dice.pick(&caller.nodes()));
        if let Some(found) = caller.get(&key, place, Consistency::Linearizable).await {
            count += 1;
            count_up(&mut caller, &key, found, &format!("{number}.{count}")).await;
        }
        scene.pause(dice.millis(0..20)).await;
    }
    Ok(())
}

async fn count_up(caller: &mut Caller, key: &str, found: Option<Record>, who: &str) {
    let before = found.as_ref().map_or(0, |record| number_in(&text(&record.value)).unwrap_or(0));
    let then = format!("{} of {who}", before + 1);
    let (expect, compared) = match &found {
        None => (Expect::Absent, Transaction::new().when_absent(key.to_owned())),
        Some(record) => {
            let compared = Transaction::new().when_version(key.to_owned(), record.version);
            (Expect::Version(record.version.into()), compared)
        }
    };
    let transaction = compared.then_put(key.to_owned(), then.clone()).else_get(key.to_owned());
    let call_ns = caller.scene.history.now_ns();
    let outcome = outcome(caller.namespace().transaction(transaction).await);
    caller.swapped(key, Request::Transaction, Swap { expect, then }, call_ns, outcome);
}

fn outcome(answer: Result<TransactionOutcome, WriteError>) -> Outcome {
    match answer {
        Ok(TransactionOutcome { held: true, version: Some(version), .. }) => {
            Outcome::Done { version: version.into() }
        }
        Ok(outcome) => {
            let found = outcome.gets().next().flatten();
            Outcome::Mismatch {
                version: found.map(|record| Stamp::from(record.version)),
                value: found.map(|record| text(&record.value)),
            }
        }
        Err(error) => write_failed(&error),
    }
}

/// The number in a counter's value.
pub(crate) fn number_in(value: &str) -> Option<u64> {
    value.split_once(' ')?.0.parse().ok()
}

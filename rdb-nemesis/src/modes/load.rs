//! A steady load: so many writes a second at each node, whatever the answers.

use super::stage::Nodes;
use super::tally::{Counts, Fate, Tally};
use anyhow::Result;
use rdb_client::{Namespace, WriteError};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

/// What each record holds.
pub(super) const VALUE_BYTES: usize = 256;
/// Keys that each node's writers have for themselves.
const KEYS: u64 = 6_000;
/// Keys that all write.
const CONTENDED_KEYS: u64 = 1_000;
/// One write in so many goes to a contended key.
const CONTENDED_EVERY: u64 = 10;
/// Writes under way at a node; fewer than keys, so that no key has two.
const UNDER_WAY_MAX: usize = 1_000;
/// Between looks at the clock: writes leave in small groups, as those of many clients do.
const PACE: Duration = Duration::from_millis(2);

/// A load under way.
pub(super) struct Load {
    writers: JoinSet<()>,
    stop: Arc<AtomicBool>,
    tallies: BTreeMap<u64, Arc<Tally>>,
    before: BTreeMap<u64, Counts>,
    began: Instant,
}

/// What a load came to, by node.
pub(super) struct Done {
    pub(super) counts: BTreeMap<u64, Counts>,
    pub(super) lasted: Duration,
}

impl Done {
    /// Acknowledged writes a second, at all nodes.
    pub(super) fn rate(&self) -> f64 {
        let all: u64 = self.counts.values().map(|counts| counts.acknowledged).sum();
        all as f64 / self.lasted.as_secs_f64().max(1e-3)
    }

    /// Whether each node has acknowledged so many percent of its share of the load: less would be another load.
    ///
    /// # Errors
    /// Names a node that has not.
    pub(super) fn kept(&self, rate: u64, percent: u64, what: &str) -> Result<(), String> {
        let share = rate as f64 * self.lasted.as_secs_f64() / self.counts.len().max(1) as f64;
        let enough = share * percent as f64 / 100.0;
        match self.counts.iter().find(|(_, counts)| (counts.acknowledged as f64) < enough) {
            None => Ok(()),
            Some((node, counts)) => {
                Err(format!("vacuous: of {share:.0} writes of {what}, node {node} has had {counts:?}"))
            }
        }
    }
}

/// One tally for each node, for all loads of a case.
pub(super) fn tallies(nodes: &Nodes) -> BTreeMap<u64, Arc<Tally>> {
    nodes.at.keys().map(|node| (*node, Arc::default())).collect()
}

impl Load {
    /// Begins, at so many writes a second over all nodes.
    pub(super) fn begin(nodes: &Nodes, tallies: &BTreeMap<u64, Arc<Tally>>, rate: u64) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let mut writers = JoinSet::new();
        let each = rate as f64 / nodes.at.len() as f64;
        for (node, namespace) in &nodes.at {
            let tally = tallies.get(node).cloned().unwrap_or_default();
            writers.spawn(write(namespace.clone(), *node, each, tally, stop.clone()));
        }
        let before = tallies.iter().map(|(node, tally)| (*node, tally.counts())).collect();
        Self { writers, stop, tallies: tallies.clone(), before, began: Instant::now() }
    }

    /// What it has come to so far.
    pub(super) fn so_far(&self) -> Done {
        let since = |(node, tally): (&u64, &Arc<Tally>)| {
            (*node, tally.counts().since(self.before.get(node).copied().unwrap_or_default()))
        };
        Done { counts: self.tallies.iter().map(since).collect(), lasted: self.began.elapsed() }
    }

    /// Ends it and waits for what is under way.
    pub(super) async fn end(mut self) -> Result<Done> {
        let lasted = self.began.elapsed();
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.writers.join_next().await {
            ended?;
        }
        Ok(Done { lasted, ..self.so_far() })
    }
}

async fn write(namespace: Namespace, node: u64, rate: f64, tally: Arc<Tally>, stop: Arc<AtomicBool>) {
    let room = Arc::new(Semaphore::new(UNDER_WAY_MAX));
    let mut calls = JoinSet::new();
    // Keys go on where an earlier load of this node has ended, as do their numbers.
    let first = tally.counts();
    let first = first.acknowledged + first.not_done + first.in_doubt + first.skipped;
    let (began, mut count) = (Instant::now(), 0_u64);
    while !stop.load(Ordering::Relaxed) {
        while (count as f64) < began.elapsed().as_secs_f64() * rate {
            count += 1;
            match room.clone().try_acquire_owned() {
                Ok(place) => {
                    let (namespace, tally) = (namespace.clone(), tally.clone());
                    calls.spawn(async move {
                        one(&namespace, node, first + count, &tally).await;
                        drop(place);
                    });
                }
                Err(_) => tally.skipped(),
            }
        }
        while calls.try_join_next().is_some() {}
        sleep(PACE).await;
    }
    while calls.join_next().await.is_some() {}
}

async fn one(namespace: &Namespace, node: u64, number: u64, tally: &Tally) {
    if number.is_multiple_of(CONTENDED_EVERY) {
        let key = format!("all/{}", number / CONTENDED_EVERY % CONTENDED_KEYS);
        tally.contended(fate(&namespace.put(key, value(number)).await));
    } else {
        let key = own_key(node, number);
        let fate = fate(&namespace.put(key.clone(), value(number)).await);
        tally.wrote(&key, number, fate);
    }
}

fn own_key(node: u64, number: u64) -> String {
    format!("own/{node}/{}", number % KEYS)
}

/// A number, as long as a record is to be.
pub(super) fn value(number: u64) -> String {
    let mut value = format!("{number} ");
    value.extend(std::iter::repeat_n('.', VALUE_BYTES - value.len()));
    value
}

/// The number in a value.
pub(super) fn number_in(value: &[u8]) -> Option<u64> {
    std::str::from_utf8(value).ok()?.split(' ').next()?.parse().ok()
}

/// What became of a write.
pub(super) fn fate<T>(answer: &Result<T, WriteError>) -> Fate {
    match answer {
        // Applied where it was asked for, whatever it waited for besides.
        Ok(_) | Err(WriteError::DoneHere(..)) => Fate::Acknowledged,
        Err(WriteError::NotDone(_)) => Fate::NotDone,
        Err(WriteError::InDoubt(_)) => Fate::InDoubt,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_took_too_little_of_the_load_is_named() {
        let counts = |acknowledged| Counts { acknowledged, ..Counts::default() };
        let done = |third| Done {
            counts: BTreeMap::from([(1, counts(100)), (2, counts(98)), (3, counts(third))]),
            lasted: Duration::from_secs(10),
        };
        assert_eq!(done(95).kept(30, 95, "it"), Ok(()));
        assert!(done(94).kept(30, 95, "it").is_err_and(|why| why.contains("node 3")));
    }

    #[test]
    fn a_value_is_as_long_as_asked_and_gives_its_number_back() {
        for number in [0, 7, u64::MAX] {
            assert_eq!(value(number).len(), VALUE_BYTES);
            assert_eq!(number_in(value(number).as_bytes()), Some(number));
        }
        assert_eq!(number_in(b"something else"), None);
    }
}

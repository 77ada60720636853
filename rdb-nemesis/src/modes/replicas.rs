//! Whether all nodes have the same records, as each has them without asking another.

use super::load::number_in;
use super::stage::Nodes;
use super::tally::Tally;
use anyhow::{Context as _, Result, bail};
use rdb_client::{Consistency, Namespace, Record, ScanOptions, Version};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

const LOOK_INTERVAL: Duration = Duration::from_millis(10);
/// How many keys a finding names.
const NAMED_MAX: usize = 6;

/// What a node has, in short: how many records, and a hash over keys, values and versions in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sum {
    pub(super) records: u64,
    pub(super) hash: u64,
}

/// All that a node has, one record after the other.
async fn each(namespace: &Namespace, mut take: impl FnMut(&Record)) -> Result<()> {
    let as_it_is = namespace.clone().with_consistency(Consistency::Stale { max_age: None });
    let mut scan = as_it_is.scan(ScanOptions::default());
    while let Some(page) = scan.next_page().await? {
        page.iter().for_each(&mut take);
    }
    Ok(())
}

/// What a node has, in short.
pub(super) async fn sum(namespace: &Namespace) -> Result<Sum> {
    let (mut hasher, mut records) = (DefaultHasher::new(), 0);
    each(namespace, |record| {
        records += 1;
        (&record.key, &record.value, record.version).hash(&mut hasher);
    })
    .await?;
    Ok(Sum { records, hash: hasher.finish() })
}

/// The keys that a node has.
pub(super) async fn keys(namespace: &Namespace) -> Result<BTreeSet<String>> {
    let mut keys = BTreeSet::new();
    each(namespace, |record| keys.extend([String::from_utf8_lossy(&record.key).into_owned()])).await?;
    Ok(keys)
}

/// What each node has, in short, all asked at once.
pub(super) async fn sums(nodes: &Nodes) -> Result<BTreeMap<u64, Sum>> {
    let mut asked = JoinSet::new();
    for (node, namespace) in nodes.at.clone() {
        asked.spawn(async move { (node, sum(&namespace).await) });
    }
    let mut sums = BTreeMap::new();
    while let Some(answer) = asked.join_next().await {
        let (node, sum) = answer?;
        sums.insert(node, sum.with_context(|| format!("cannot read all of node {node}"))?);
    }
    Ok(sums)
}

/// Whether all are the same.
///
/// # Errors
/// Names them.
pub(super) fn alike(sums: &BTreeMap<u64, Sum>) -> Result<Sum, String> {
    let Some(first) = sums.values().next() else { return Err("no node was asked".to_owned()) };
    if sums.values().all(|sum| sum == first) { Ok(*first) } else { Err(format!("nodes differ: {sums:?}")) }
}

/// In which records nodes differ, some of them by name.
pub(super) async fn differences(nodes: &Nodes) -> Result<String> {
    let mut all: BTreeMap<String, BTreeMap<u64, Version>> = BTreeMap::new();
    for (node, namespace) in &nodes.at {
        each(namespace, |record| {
            let key = String::from_utf8_lossy(&record.key).into_owned();
            all.entry(key).or_default().insert(*node, record.version);
        })
        .await?;
    }
    Ok(differing(&all, nodes.at.len()))
}

fn differing(all: &BTreeMap<String, BTreeMap<u64, Version>>, nodes: usize) -> String {
    let same = |versions: &BTreeMap<u64, Version>| {
        versions.len() == nodes && versions.values().min() == versions.values().max()
    };
    let differ: Vec<String> = all
        .iter()
        .filter(|(_, versions)| !same(versions))
        .map(|(key, versions)| {
            let told: Vec<String> =
                versions.iter().map(|(node, version)| format!("{version} at node {node}")).collect();
            format!("{key}: {}", told.join(", "))
        })
        .collect();
    let named = &differ[..differ.len().min(NAMED_MAX)];
    format!("{} of {} keys differ: {}", differ.len(), all.len(), named.join("; "))
}

/// Waits until every node shows what was acknowledged last at each, and then until all records are the same. The comparison
/// is within the time: when it ends all have been equal.
///
/// # Errors
/// They are not equal in time.
pub(super) async fn until_alike(
    nodes: &Nodes,
    tallies: &BTreeMap<u64, Arc<Tally>>,
    limit: Duration,
) -> Result<Sum> {
    let began = Instant::now();
    let left = || limit.saturating_sub(began.elapsed());
    for (key, number) in tallies.values().filter_map(|tally| tally.last()) {
        for (node, namespace) in &nodes.at {
            while !shows(namespace, &key, number).await {
                if left().is_zero() {
                    bail!("after {limit:?} node {node} does not show write {number} of {key}");
                }
                sleep(LOOK_INTERVAL).await;
            }
        }
    }
    loop {
        match alike(&sums(nodes).await?) {
            Ok(sum) => return Ok(sum),
            Err(why) if left().is_zero() => bail!("after {limit:?}: {why}"),
            Err(_) => sleep(LOOK_INTERVAL).await,
        }
    }
}

/// Whether a node has a write, or a later one of its key.
pub(super) async fn shows(namespace: &Namespace, key: &str, number: u64) -> bool {
    let as_it_is = namespace.clone().with_consistency(Consistency::Stale { max_age: None });
    let found = as_it_is.get(key.to_owned()).await.ok().flatten();
    found.and_then(|record| number_in(&record.value)).is_some_and(|found| number <= found)
}

/// Whether a node has all that was acknowledged. Where all nodes are alike, one says it for all.
///
/// # Errors
/// Names what is lost.
pub(super) async fn has_all(
    namespace: &Namespace,
    tallies: &BTreeMap<u64, Arc<Tally>>,
) -> Result<Result<String, String>> {
    let mut found: BTreeMap<String, u64> = BTreeMap::new();
    each(namespace, |record| {
        let key = String::from_utf8_lossy(&record.key).into_owned();
        found.extend(number_in(&record.value).map(|number| (key, number)));
    })
    .await?;
    let looked: Result<Vec<String>, String> =
        tallies.values().map(|tally| tally.check(|key| found.get(key).copied())).collect();
    Ok(looked.map(|looked| looked.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_that_differ_in_anything_are_not_alike() {
        let same = Sum { records: 3, hash: 7 };
        assert_eq!(alike(&BTreeMap::from([(1, same), (2, same)])), Ok(same));
        for other in [Sum { records: 2, ..same }, Sum { hash: 8, ..same }] {
            assert!(alike(&BTreeMap::from([(1, same), (2, other)])).is_err());
        }
        assert!(alike(&BTreeMap::new()).is_err());
    }

    #[test]
    fn what_differs_is_named() {
        let version = |hlc| Version { era: 1, hlc, node: 1 };
        let all = BTreeMap::from([
            ("same".to_owned(), BTreeMap::from([(1, version(5)), (2, version(5))])),
            ("older".to_owned(), BTreeMap::from([(1, version(5)), (2, version(6))])),
            ("missing".to_owned(), BTreeMap::from([(2, version(7))])),
        ]);
        let told = differing(&all, 2);
        assert!(told.starts_with("2 of 3 keys differ: missing: 1.7.1 at node 2; older: "), "{told}");
    }
}

//! Who hears whom, from every node's own words. The word of one alone is not enough: what reaches one node need not reach
//! another.

use rdb_client::{ClusterStatus, NodeStatus};
use std::collections::{BTreeMap, BTreeSet};

/// Each node's own words, or why it did not answer.
pub(super) type Words = BTreeMap<u64, Result<ClusterStatus, String>>;

/// Two nodes that both answer, one of which at least does not hear the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Apart {
    /// The one that surely does not hear.
    pub(crate) deaf: u64,
    /// The one that it does not hear.
    pub(crate) unheard: u64,
    /// Whether the same holds the other way round.
    pub(crate) mutual: bool,
    /// For how long at least; 0: since one of them started.
    pub(crate) silence_ms: u64,
}

/// What node `by` says of node `of`.
pub(super) fn word(words: &Words, by: u64, of: u64) -> Option<&NodeStatus> {
    words.get(&by)?.as_ref().ok()?.nodes.iter().find(|node| node.id == of)
}

/// Whether two nodes hear each other: one says so, and the other does not deny it.
pub(super) fn linked(words: &Words, one: u64, other: u64) -> bool {
    let said: Vec<_> = [word(words, one, other), word(words, other, one)].into_iter().flatten().collect();
    one == other || !said.is_empty() && said.iter().all(|node| node.reachable)
}

/// The nodes that `from` hears, and those that they hear, and so on.
pub(super) fn reached(words: &Words, from: u64) -> BTreeSet<u64> {
    let mut reached = BTreeSet::from([from]);
    let mut next = vec![from];
    while let Some(node) = next.pop() {
        let heard = words.keys().filter(|other| linked(words, node, **other));
        next.extend(heard.filter(|other| reached.insert(**other)));
    }
    reached
}

/// The pairs among `nodes` that do not hear each other. Of a node that did not answer it is not known what it hears.
pub(super) fn apart(words: &Words, nodes: &BTreeSet<u64>) -> Vec<Apart> {
    let pairs = nodes.iter().flat_map(|one| nodes.range(one + 1..).map(|other| (*one, *other)));
    pairs.filter_map(|(one, other)| pair(words, one, other)).collect()
}

fn pair(words: &Words, one: u64, other: u64) -> Option<Apart> {
    let (by_one, by_other) = (word(words, one, other)?, word(words, other, one)?);
    let (deaf, unheard) = match (by_one.reachable, by_other.reachable) {
        (true, true) => return None,
        (true, false) => (other, one),
        (false, _) => (one, other),
    };
    let silences = [by_one, by_other].into_iter().filter(|said| !said.reachable).map(|said| said.silence_ms);
    Some(Apart {
        deaf,
        unheard,
        mutual: !by_one.reachable && !by_other.reachable,
        silence_ms: silences.min().unwrap_or_default(),
    })
}

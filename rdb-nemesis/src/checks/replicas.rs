//! When all is quiet and every node has caught up, all have the same data: the same values of the same versions, as each
//! node has them without asking another.

use super::{Finding, is_final_read};
use crate::history::{Call, Entry, Outcome};
use std::collections::BTreeMap;

pub(super) fn check(history: &[Entry]) -> Finding {
    let mut nodes: BTreeMap<u64, BTreeMap<&str, &Outcome>> = BTreeMap::new();
    for entry in history.iter().filter(|entry| is_final_read(entry) && entry.call == Call::Stale) {
        let node = entry.node.ok_or_else(|| format!("nobody knows who answered a read of {}", entry.key))?;
        let at_node = nodes.entry(node).or_default();
        // A read that failed was made again; if it was not, the key is missing.
        if matches!(entry.outcome, Outcome::Found { .. }) {
            at_node.insert(&entry.key, &entry.outcome);
        }
    }
    let Some((first, theirs)) = nodes.first_key_value() else { return Ok("no final reads".to_owned()) };
    for (node, ours) in &nodes {
        for key in theirs.keys().chain(ours.keys()) {
            if theirs.get(key) != ours.get(key) {
                return Err(format!(
                    "nodes {first} and {node} differ in {key}: {:?} and {:?}",
                    theirs.get(key),
                    ours.get(key)
                ));
            }
        }
    }
    Ok(format!("{} keys alike at {} nodes", theirs.len(), nodes.len()))
}

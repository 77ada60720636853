//! Two keys that are only ever written together, at one moment, are never seen to differ, in value or in version.

use super::Finding;
use crate::history::{Call, Entry, Outcome};
use std::collections::BTreeMap;

const PREFIX: &str = "pairs/";

pub(super) fn check(history: &[Entry]) -> Finding {
    // What was read at one moment has the same reader and the same call.
    let mut reads: BTreeMap<(u64, u64, &str), Vec<&Entry>> = BTreeMap::new();
    for entry in history.iter().filter(|entry| entry.call == Call::Get) {
        if let Some(pair) = entry.key.strip_prefix(PREFIX).and_then(|rest| rest.split('/').next())
            && matches!(entry.outcome, Outcome::Found { .. })
        {
            reads.entry((entry.client, entry.call_ns, pair)).or_default().push(entry);
        }
    }
    let mut seen = 0;
    for ((_, at_ns, pair), both) in &reads {
        let [a, b] = both[..] else {
            return Err(format!("a read of pair {pair} at {at_ns} ns has {} parts", both.len()));
        };
        if a.outcome != b.outcome {
            return Err(format!(
                "pair {pair} was seen half written at node {} at {at_ns} ns: {:?} and {:?}",
                a.node.unwrap_or(0),
                a.outcome,
                b.outcome
            ));
        }
        seen += 1;
    }
    Ok(format!("{seen} reads of pairs"))
}

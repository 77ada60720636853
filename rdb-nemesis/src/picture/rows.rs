//! Which row of the scorecard in docs/reliability.md a fault is about, by the words that faults are told in.

use super::moments::Span;
use std::collections::BTreeMap;

/// A part of a fault's words, the row, and what the row says.
const ROWS: [(&str, u32, &str); 29] = [
    ("over a thin link", 26, "a thin link under a snapshot"),
    ("until it needs a snapshot", 27, "a follower that needs a snapshot"),
    ("kill -9 of all", 2, "all nodes killed at once"),
    ("kill -9", 1, "a node killed under load"),
    ("power cut", 4, "power cut of all nodes"),
    ("the leader, cut off from", 6, "the leader alone"),
    ("cut off from the others", 5, "a minority and a majority"),
    ("not heard by the others", 7, "one-way cut"),
    ("deaf to the others", 7, "one-way cut"),
    ("hears its neighbours alone", 8, "majorities in a ring of five"),
    ("hear node", 8, "a bridge between two halves"),
    ("cut off every other", 9, "a flapping partition"),
    ("SIGSTOP", 10, "nodes paused (row 11 where it is no leader)"),
    ("clock off by", 12, "a clock that steps"),
    ("all clocks step", 12, "clocks that strobe"),
    ("disk full", 15, "a full disk"),
    ("a sync of", 16, "a sync that fails"),
    ("all syncs of", 16, "syncs that fail again and again"),
    ("a write to the log", 17, "a write that fails"),
    ("writes to the log", 17, "writes that are short"),
    ("syncs take", 18, "a slow disk"),
    ("disk stands still", 19, "a disk that stands still"),
    ("lost and sent again", 25, "messages that are lost on the way"),
    ("between the nodes", 25, "delayed messages"),
    ("want of memory", 40, "a node that is killed for want of memory"),
    ("runs for", 40, "a node that hardly runs"),
    ("upgrade of", 28, "nodes of two versions, upgraded one by one"),
    ("restart of", 28, "restarts, one and rolling"),
    ("another leader", 30, "a storm of transfers"),
];

/// The rows that these faults are about, with what each says and how often it was struck.
pub(super) fn of(faults: &[Span]) -> Vec<(u32, &'static str, String)> {
    let mut rows: BTreeMap<(u32, &str), u64> = BTreeMap::new();
    for fault in faults {
        let row = ROWS.iter().find(|(words, _, _)| fault.what.contains(words));
        if let Some((_, row, what)) = row {
            *rows.entry((*row, what)).or_default() += 1;
        }
    }
    rows.into_iter().map(|((row, what), count)| (row, what, format!("struck {count} times"))).collect()
}

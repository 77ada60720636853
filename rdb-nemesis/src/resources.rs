//! Whether nodes stay within what they may use: memory and open files. What they use is measured while a run lasts, by `watch`.

use crate::history::{Line, Used};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// What a process may open by default on most systems.
const OPEN_FILES_MAX: u64 = 1_024;
/// What a node may hold beyond its budget: what the log and the data keep unflushed (128 MiB each), queues to and from other
/// nodes, code, threads, and what the allocator has not given back.
const MEMORY_ALLOWANCE_BYTES: u64 = 384 << 20;
const MIB: u64 = 1 << 20;

/// The most that a node has used in a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Peak {
    /// Which.
    pub node: u64,
    /// How many processes it has been.
    pub processes: u64,
    /// How often it was looked at.
    pub samples: u64,
    /// Memory.
    pub resident_mib_max: u64,
    /// Files, connections among them.
    pub open_files_max: u64,
    /// On its disk.
    pub data_mib_max: u64,
}

/// Each node's peaks. A node that never ran is among them, without samples.
pub(crate) fn peaks(lines: &[Line], nodes: u64) -> Vec<Peak> {
    let mut used: BTreeMap<u64, Vec<Used>> = (1..=nodes).map(|node| (node, Vec::new())).collect();
    for line in lines {
        if let Line::Seen { seen, .. } = line {
            used.entry(seen.node).or_default().extend(seen.used);
        }
    }
    used.into_iter().map(|(node, used)| peak(node, &used)).collect()
}

fn peak(node: u64, used: &[Used]) -> Peak {
    let processes: BTreeSet<u32> = used.iter().map(|used| used.process).collect();
    let most = |of: fn(&Used) -> u64| used.iter().map(of).max().unwrap_or(0);
    Peak {
        node,
        processes: processes.len() as u64,
        samples: used.len() as u64,
        resident_mib_max: most(|used| used.resident_bytes) / MIB,
        open_files_max: most(|used| used.open_files),
        data_mib_max: most(|used| used.data_bytes) / MIB,
    }
}

/// What was used beyond its bound, and who was not looked at. `budget_bytes`: of memory, as configured.
pub(crate) fn over(peaks: &[Peak], budget_bytes: u64) -> Vec<String> {
    let memory_mib_max = (budget_bytes + MEMORY_ALLOWANCE_BYTES) / MIB;
    let mut problems = Vec::new();
    for peak in peaks {
        let node = peak.node;
        if peak.samples == 0 {
            problems.push(format!("vacuous: nobody has measured what node {node} uses"));
        }
        if memory_mib_max < peak.resident_mib_max {
            let held = peak.resident_mib_max;
            problems.push(format!(
                "resources: node {node} held {held} MiB of memory, of {memory_mib_max} at most"
            ));
        }
        if OPEN_FILES_MAX < peak.open_files_max {
            let held = peak.open_files_max;
            problems
                .push(format!("resources: node {node} had {held} files open, of {OPEN_FILES_MAX} at most"));
        }
    }
    problems
}

/// The most of all nodes, in words.
pub(crate) fn in_words(peaks: &[Peak]) -> String {
    let most = |of: fn(&Peak) -> u64| peaks.iter().map(of).max().unwrap_or(0);
    let (memory, files) = (most(|peak| peak.resident_mib_max), most(|peak| peak.open_files_max));
    let data = most(|peak| peak.data_mib_max);
    format!("{memory} MiB, {files} files and {data} MiB of disk at most a node")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Seen;

    fn line(node: u64, process: u32, resident_mib: u64, open_files: u64) -> Line {
        let used = Used { process, resident_bytes: resident_mib * MIB, open_files, data_bytes: 5 * MIB };
        Line::Seen { seen: Seen { used: Some(used), ..Seen::away(node) }, at_ns: 1 }
    }

    #[test]
    fn what_a_node_uses_has_a_bound() {
        let budget_bytes = 100 * MIB;
        let fine = [line(1, 7, 484, 1_024), line(1, 8, 90, 20)];
        let found = peaks(&fine, 1);
        assert_eq!((found[0].processes, found[0].samples, found[0].resident_mib_max), (2, 2, 484));
        assert_eq!(over(&found, budget_bytes), Vec::<String>::new());
        let fails = |lines: &[Line], nodes, why: &str| {
            let problems = over(&peaks(lines, nodes), budget_bytes);
            assert!(problems.len() == 1 && problems[0].contains(why), "{why}: {problems:?}");
        };
        fails(&[line(1, 7, 485, 20)], 1, "485 MiB of memory");
        fails(&[line(1, 7, 90, 1_025)], 1, "1025 files");
        fails(&fine, 2, "what node 2 uses");
    }
}

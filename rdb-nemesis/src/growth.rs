//! Whether what nodes use grows with time, as what is never given back does.

use crate::history::{Line, Used};
use serde::Serialize;
use std::collections::BTreeMap;

/// What a process takes in its first minute it takes once.
const WARM_UP_NS: u64 = 60_000_000_000;
/// A slope of fewer samples, one a second, is chance.
const SAMPLES_MIN: usize = 60;
/// An hour. What is lost at these rates fills no machine within days; what nodes use goes up and down by less within minutes.
const MEMORY_MIB_PER_HOUR_MAX: f64 = 128.0;
const FILES_PER_HOUR_MAX: f64 = 120.0;
const DISK_MIB_PER_HOUR_MAX: f64 = 128.0;
const NS_PER_HOUR: f64 = 3_600e9;
const MIB: f64 = 1_048_576.0;

/// How what a node uses has grown: the slope of the straight line that lies closest to the measurements.
#[derive(Debug, Clone, Serialize)]
pub struct Growth {
    /// Which.
    pub node: u64,
    /// So many were looked at.
    pub samples: usize,
    /// Of resident memory.
    pub memory_mib_per_hour: f64,
    /// Of open files.
    pub files_per_hour: f64,
    /// Of the data folder.
    pub disk_mib_per_hour: f64,
}

/// Each node's, over the last three quarters of the measurements, without the first minute of each process.
pub(crate) fn of(lines: &[Line], nodes: u64) -> Vec<Growth> {
    let mut used: BTreeMap<u64, Vec<(u64, Used)>> = (1..=nodes).map(|node| (node, Vec::new())).collect();
    for line in lines {
        if let Line::Seen { seen, at_ns } = line {
            used.entry(seen.node).or_default().extend(seen.used.map(|used| (*at_ns, used)));
        }
    }
    let last_ns = used.values().flatten().map(|(at_ns, _)| *at_ns).max().unwrap_or(0);
    used.into_iter().map(|(node, used)| growth(node, &warm(&used, last_ns / 4))).collect()
}

fn warm(used: &[(u64, Used)], from_ns: u64) -> Vec<(u64, Used)> {
    let mut began: BTreeMap<u32, u64> = BTreeMap::new();
    let mut warm = Vec::new();
    for (at_ns, used) in used {
        let began_ns = *began.entry(used.process).or_insert(*at_ns);
        if from_ns <= *at_ns && began_ns + WARM_UP_NS <= *at_ns {
            warm.push((*at_ns, *used));
        }
    }
    warm
}

#[expect(clippy::cast_precision_loss, reason = "nothing that is measured here needs more than 52 bits")]
fn growth(node: u64, used: &[(u64, Used)]) -> Growth {
    let slope = |of: fn(&Used) -> u64| {
        let points: Vec<_> =
            used.iter().map(|(at_ns, used)| (*at_ns as f64 / NS_PER_HOUR, of(used) as f64)).collect();
        slope(&points)
    };
    Growth {
        node,
        samples: used.len(),
        memory_mib_per_hour: slope(|used| used.resident_bytes) / MIB,
        files_per_hour: slope(|used| used.open_files),
        disk_mib_per_hour: slope(|used| used.data_bytes) / MIB,
    }
}

/// By least squares. 0 where the points are at one time.
#[expect(clippy::cast_precision_loss, reason = "there are no more samples than seconds in a run")]
fn slope(points: &[(f64, f64)]) -> f64 {
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (middle, height) = (mean(|point| point.0), mean(|point| point.1));
    let together: f64 = points.iter().map(|(at, value)| (at - middle) * (value - height)).sum();
    let spread: f64 = points.iter().map(|(at, _)| (at - middle).powi(2)).sum();
    if 0.0 < spread { together / spread } else { 0.0 }
}

/// What grows too fast, and whose growth nobody knows.
pub(crate) fn over(growths: &[Growth]) -> Vec<String> {
    let mut problems = Vec::new();
    for growth in growths {
        let (node, samples) = (growth.node, growth.samples);
        if samples < SAMPLES_MIN {
            problems.push(format!(
                "vacuous: node {node} was measured {samples} times, of {SAMPLES_MIN}, a minute after a start or later"
            ));
            continue;
        }
        for (what, slope, most) in [
            ("MiB of memory", growth.memory_mib_per_hour, MEMORY_MIB_PER_HOUR_MAX),
            ("open files", growth.files_per_hour, FILES_PER_HOUR_MAX),
            ("MiB of disk", growth.disk_mib_per_hour, DISK_MIB_PER_HOUR_MAX),
        ] {
            if most < slope {
                problems.push(format!(
                    "growth: node {node} took {slope:.0} {what} more an hour, of {most:.0} at most"
                ));
            }
        }
    }
    problems
}

/// The fastest of all nodes, in words; nothing where nothing was asked.
pub(crate) fn in_words(growths: &[Growth]) -> String {
    if growths.is_empty() {
        return String::new();
    }
    let most = |of: fn(&Growth) -> f64| growths.iter().map(of).fold(f64::MIN, f64::max);
    let (memory, files) = (most(|growth| growth.memory_mib_per_hour), most(|growth| growth.files_per_hour));
    let disk = most(|growth| growth.disk_mib_per_hour);
    format!(", growing by {memory:.1} MiB, {files:.1} files and {disk:.1} MiB of disk an hour at most")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Seen;

    /// A node, measured each second for an hour, which was started again after half of it.
    fn measured(mib_at: impl Fn(u64) -> u64) -> Vec<Line> {
        let at = |second: u64| {
            let process = if second < 1_800 { 7 } else { 8 };
            let used = Used { process, resident_bytes: mib_at(second) << 20, open_files: 9, data_bytes: 5 };
            let seen = Seen { used: Some(used), ..Seen::away(1) };
            Line::Seen { seen, at_ns: second * 1_000_000_000 }
        };
        (0..3_600).map(at).collect()
    }

    #[test]
    fn what_is_lost_bit_by_bit_is_seen() {
        // 600 MiB in the hour.
        let found = of(&measured(|second| 100 + second / 6), 1);
        assert!((found[0].memory_mib_per_hour - 600.0).abs() < 1.0, "{found:?}");
        assert!(found[0].files_per_hour.abs() < 0.001);
        let problems = over(&found);
        assert!(problems.len() == 1 && problems[0].contains("600 MiB of memory"), "{problems:?}");
    }

    #[test]
    fn what_is_taken_once_is_no_growth() {
        let begun = |second: u64| (second % 1_800).min(50);
        assert_eq!(over(&of(&measured(|second| 100 + begun(second)), 1)), Vec::<String>::new());
        // In the first quarter.
        assert_eq!(over(&of(&measured(|second| 500 + second.min(890)), 1)), Vec::<String>::new());
    }

    #[test]
    fn a_node_that_never_lived_for_long_shows_nothing() {
        let problems = over(&of(&measured(|_| 100)[..110], 2));
        assert!(problems.iter().all(|problem| problem.contains("vacuous")) && problems.len() == 2);
    }
}

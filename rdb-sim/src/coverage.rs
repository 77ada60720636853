//! What a run has come to: for each count, in how many worlds it was more than nothing, and how often in all; and, in a build with the
//! feature `coverage`, the same of the branches of the core.

use std::collections::BTreeMap;
use std::fmt;

/// Counts, by their names.
#[derive(Debug, Clone, Default)]
pub struct Coverage {
    worlds: u64,
    rows: BTreeMap<&'static str, Row>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Row {
    worlds: u64,
    times: u64,
}

impl Coverage {
    /// Adds one world's counts. What it did not come to is named, too.
    pub fn add(&mut self, counts: impl IntoIterator<Item = (&'static str, u64)>) {
        self.worlds += 1;
        for (name, times) in counts {
            let row = self.rows.entry(name).or_default();
            row.worlds += u64::from(0 < times);
            row.times += times;
        }
    }

    /// What no world has come to.
    pub fn missed(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.rows.iter().filter(|(_, row)| row.times == 0).map(|(name, _)| *name)
    }

    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { worlds, rows } = self;
        write!(f, "{:>14} {:>8}  of {worlds} worlds", "times", "worlds")?;
        for (name, row) in rows {
            write!(f, "\n{:>14} {:>8}  {}", row.times, row.worlds, name.replace('_', " "))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_world_came_to_is_told() {
        let mut coverage = Coverage::default();
        coverage.add([("cuts", 2), ("stalls", 0)]);
        coverage.add([("cuts", 0), ("stalls", 0)]);
        coverage.add([("cuts", 5), ("stalls", 0)]);
        assert_eq!(coverage.missed().collect::<Vec<_>>(), ["stalls"]);
        let shown = coverage.to_string();
        assert!(shown.contains("7        2  cuts"), "{shown}");
        assert!(shown.contains("0        0  stalls"), "{shown}");
    }
}

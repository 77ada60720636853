//! Which nodes can no longer speak to which.

use crate::exit::Failure;
use std::collections::BTreeSet;
use std::fmt;

/// A way to cut the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Partition {
    /// `1|2,3`: nodes reach those of their own group alone.
    Groups(Vec<BTreeSet<u64>>),
    /// `1>2,3`: what the left ones say does not reach the right ones.
    OneWay(BTreeSet<u64>, BTreeSet<u64>),
}

/// What one node's side of it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Side {
    pub(super) to: Vec<u64>,
    pub(super) from: Vec<u64>,
}

impl Partition {
    /// Nodes that are not named are a group of their own.
    pub(super) fn parse(text: &str, nodes: &[u64]) -> Result<Self, Failure> {
        let wrong = |why: String| {
            Failure::usage(why).hint("as in  \\partition 1|2,3  or, one way alone,  \\partition 1>2")
        };
        if text.is_empty() {
            return Err(wrong("\\partition takes groups of nodes".into()));
        }
        let mut seen = BTreeSet::new();
        let mut group = |text: &str| {
            let mut group = BTreeSet::new();
            for name in text.split(',') {
                let node = name.parse().ok().filter(|node| nodes.contains(node));
                let node = node.ok_or_else(|| wrong(format!("there is no node '{name}'")))?;
                if !seen.insert(node) {
                    return Err(wrong(format!("node {node} is named twice")));
                }
                group.insert(node);
            }
            Ok(group)
        };
        if let Some((left, right)) = text.split_once('>') {
            return Ok(Partition::OneWay(group(left)?, group(right)?));
        }
        let mut groups = text.split('|').map(&mut group).collect::<Result<Vec<_>, _>>()?;
        let rest: BTreeSet<u64> = nodes.iter().copied().filter(|node| !seen.contains(node)).collect();
        if !rest.is_empty() {
            groups.push(rest);
        }
        if groups.len() < 2 {
            return Err(wrong("all nodes are in one group, so nothing would be cut".into()));
        }
        Ok(Partition::Groups(groups))
    }

    /// What `node` is to be told.
    pub(super) fn of(&self, node: u64, nodes: &[u64]) -> Side {
        match self {
            Partition::Groups(groups) => {
                let own = groups.iter().find(|group| group.contains(&node));
                let apart = |other: &&u64| **other != node && !own.is_some_and(|own| own.contains(other));
                let apart: Vec<u64> = nodes.iter().filter(apart).copied().collect();
                Side { to: apart.clone(), from: apart }
            }
            Partition::OneWay(left, right) => {
                let side = |here: &BTreeSet<u64>, there: &BTreeSet<u64>| {
                    if here.contains(&node) { there.iter().copied().collect() } else { Vec::new() }
                };
                Side { to: side(left, right), from: side(right, left) }
            }
        }
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names =
            |group: &BTreeSet<u64>| group.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        match self {
            Partition::Groups(groups) => {
                f.write_str(&groups.iter().map(names).collect::<Vec<_>>().join(" | "))
            }
            Partition::OneWay(left, right) => write!(f, "{} > {}, one way", names(left), names(right)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODES: [u64; 3] = [1, 2, 3];

    fn side(to: &[u64], from: &[u64]) -> Side {
        Side { to: to.to_vec(), from: from.to_vec() }
    }

    #[test]
    fn groups() {
        let cut = Partition::parse("1|2,3", &NODES).unwrap();
        assert_eq!(cut.to_string(), "1 | 2,3");
        assert_eq!(cut.of(1, &NODES), side(&[2, 3], &[2, 3]));
        assert_eq!(cut.of(2, &NODES), side(&[1], &[1]));
        assert_eq!(Partition::parse("1", &NODES).unwrap(), cut, "the others are a group");
        assert_eq!(Partition::parse("1|2", &NODES).unwrap().to_string(), "1 | 2 | 3");
        assert_eq!(Partition::parse("1|2|3", &NODES).unwrap().of(3, &NODES), side(&[1, 2], &[1, 2]));
    }

    #[test]
    fn one_way() {
        let cut = Partition::parse("1>2,3", &NODES).unwrap();
        assert_eq!(cut.to_string(), "1 > 2,3, one way");
        assert_eq!(cut.of(1, &NODES), side(&[2, 3], &[]));
        assert_eq!(cut.of(3, &NODES), side(&[], &[1]));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for wrong in ["", "1|4", "1|1,2", "1,2,3", "x", "1>", "1>1", "1|", "1>2>3"] {
            assert!(Partition::parse(wrong, &NODES).is_err(), "{wrong}");
        }
    }
}

//! How many nodes may be lost. A Raft group serves while one of its replicas, which can then lead it, hears a majority of
//! them: that all nodes are up is not enough where some do not hear each other.

use std::collections::BTreeSet;

/// A Raft group, and who of its members can be counted on now.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Group {
    /// Members, whether they run or not.
    pub(super) members: usize,
    /// Those that run and have a replica.
    pub(super) holders: BTreeSet<u64>,
}

/// What the cluster survives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Survives {
    /// So many nodes may be lost, whichever they are.
    pub(super) may_lose: usize,
    /// The nodes without which it would not serve.
    pub(super) critical: BTreeSet<u64>,
}

/// Tries out every loss of nodes. With the five nodes that a cluster has at most, and a majority needed, these are few.
pub(super) fn survives(
    groups: &BTreeSet<Group>,
    up: &BTreeSet<u64>,
    linked: &impl Fn(u64, u64) -> bool,
) -> Survives {
    let serves = |left: &BTreeSet<u64>| groups.iter().all(|group| serves(group, left, linked));
    let critical = up.iter().filter(|node| !serves(&without(up, **node))).copied().collect();
    Survives { may_lose: may_lose(up, &serves).unwrap_or_default(), critical }
}

/// `None`: it does not even serve with all of these.
fn may_lose(up: &BTreeSet<u64>, serves: &impl Fn(&BTreeSet<u64>) -> bool) -> Option<usize> {
    let fewest =
        || up.iter().map(|node| may_lose(&without(up, *node), serves).map_or(0, |more| more + 1)).min();
    serves(up).then(fewest).flatten()
}

fn serves(group: &Group, left: &BTreeSet<u64>, linked: &impl Fn(u64, u64) -> bool) -> bool {
    let holders = || group.holders.intersection(left);
    let heard = |leader: &u64| holders().filter(|other| linked(*leader, **other)).count();
    holders().any(|leader| group.members / 2 < heard(leader))
}

fn without(nodes: &BTreeSet<u64>, node: u64) -> BTreeSet<u64> {
    nodes.iter().copied().filter(|other| *other != node).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A cluster of `size` nodes, all of which run, and these pairs of which do not hear each other.
    fn of(size: u64, apart: &[(u64, u64)]) -> (usize, Vec<u64>) {
        let up: BTreeSet<u64> = (1..=size).collect();
        let group = Group { members: up.len(), holders: up.clone() };
        let linked = |a, b| !apart.contains(&(a, b)) && !apart.contains(&(b, a));
        let survives = survives(&BTreeSet::from([group]), &up, &linked);
        (survives.may_lose, survives.critical.into_iter().collect())
    }

    #[test]
    fn all_hear_each_other() {
        assert_eq!(of(1, &[]), (0, vec![1]));
        assert_eq!(of(3, &[]), (1, vec![]));
        assert_eq!(of(5, &[]), (2, vec![]));
    }

    #[test]
    fn who_is_apart_cannot_be_a_majority_together() {
        assert_eq!(of(3, &[(1, 2)]), (0, vec![3]));
        assert_eq!(of(3, &[(1, 2), (2, 3)]), (0, vec![1, 3]), "node 2 is cut off");
        assert_eq!(of(5, &[(1, 2)]), (2, vec![]), "any three of them have one that hears the other two");
        assert_eq!(of(5, &[(1, 2), (2, 3)]), (1, vec![]), "without 4 and 5 nobody would hear two others");
    }

    #[test]
    fn a_node_without_a_replica_does_not_count_for_its_group() {
        let up = BTreeSet::from([1, 2, 3]);
        let all = Group { members: 3, holders: up.clone() };
        let missing = Group { members: 3, holders: BTreeSet::from([1, 2]) };
        let survives = survives(&BTreeSet::from([all, missing]), &up, &|_, _| true);
        assert_eq!(survives, Survives { may_lose: 0, critical: BTreeSet::from([1, 2]) });
    }
}

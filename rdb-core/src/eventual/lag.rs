//! How far replicas are behind each other: the convergence lag and the convergence frontier, as one node can tell.
//!
//! The lag is the largest, over each peer and each origin, age of the oldest write that the peer has not applied. A
//! node tells it for the writes that it has itself; the largest of what all nodes tell is the lag of the namespace. It
//! is honest rather than small: reports are a little old, and a peer may have come further since; the stamps of what it lacks may be
//! remembered as a little older than they are ([`super::stamps`]); and a peer that is silent counts as *unknown, at least its
//! silence*, never as 0.
//!
//! The frontier is a stamp: every write stamped up to it is on every node.

use super::peers::Report;
use super::vector::{Origin, Seq, Vector};
use crate::ids::{Era, NodeId};
use crate::version::Hlc;

/// After how long without a word a peer's lag is unknown. Connections are dead after as long, so a peer that is there is
/// never silent so long.
pub const SILENCE_MS_MAX: u64 = 1000;

/// What a node has of the origins' writes.
pub trait Writes {
    /// The stamps of the writes of `origin` up to this one may be unknown here.
    fn unknown_to(&self, origin: Origin) -> Seq;

    /// The stamp of the first write of `origin` behind `after` that is known here.
    fn stamp_after(&self, origin: Origin, after: Seq) -> Option<Hlc>;

    /// The stamp of the last write of `origin` that was applied here, if that is known.
    fn last_stamp(&self, origin: Origin) -> Option<Hlc>;
}

/// What a node knows when it looks.
#[derive(Debug, Clone, Copy)]
pub struct Now<'a> {
    /// Its era.
    pub era: Era,
    /// What it has synced.
    pub synced: &'a Vector,
    /// Its monotonic clock.
    pub monotonic_ms: u64,
    /// The physical part of its hybrid clock at that moment.
    pub physical_ms: u64,
}

/// How far the peers are behind, as one node can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lag {
    /// By so much; by at least so much, if it is not known.
    pub at_least_ms: u64,
    /// Whether every peer was heard of late, and what each lacks is known here.
    pub known: bool,
    /// Who is furthest behind, and with whose writes; no origin, where a peer was not heard.
    pub furthest: Option<(NodeId, Option<Origin>)>,
}

/// The lag of the peers, of each its node, its last report and when it was heard.
pub fn lag<'a>(
    now: Now<'_>,
    peers: impl IntoIterator<Item = (NodeId, Option<&'a Report>, u64)>,
    writes: &impl Writes,
) -> Lag {
    let mut lag = Lag { at_least_ms: 0, known: true, furthest: None };
    let mut look = |node, origin, behind_ms| {
        if lag.at_least_ms < behind_ms {
            (lag.at_least_ms, lag.furthest) = (behind_ms, Some((node, origin)));
        }
    };
    let mut known = true;
    for (node, report, heard_ms) in peers {
        let silence_ms = now.monotonic_ms.saturating_sub(heard_ms);
        let report = report.filter(|report| report.era == now.era);
        if report.is_none() || SILENCE_MS_MAX < silence_ms {
            known = false;
            look(node, None, silence_ms);
        }
        let nothing = Vector::default();
        let applied = report.map_or(&nothing, |report| &report.applied);
        for (origin, has, _) in applied.behind(now.synced) {
            let stamp = writes.stamp_after(origin, has);
            // Else what it lacks first is older than what is known.
            known &= writes.unknown_to(origin) <= has && stamp.is_some();
            let age_ms = stamp.map_or(0, |stamp| now.physical_ms.saturating_sub(stamp.millis()));
            look(node, Some(origin), age_ms);
        }
    }
    Lag { known, ..lag }
}

/// The frontier, from what all members last said, this node included; `None` where nothing new can be told. It never
/// goes back, so the caller keeps the highest.
pub fn frontier<'a>(
    era: Era,
    members: impl Iterator<Item = Option<&'a Report>> + Clone,
    writes: &impl Writes,
) -> Option<Hlc> {
    let reports: Option<Vec<&Report>> =
        members.map(|report| report.filter(|report| report.era == era)).collect();
    let reports = reports?;
    // What is not in anybody's report was written after them.
    let promised = reports.iter().map(|report| report.promise).min()?;
    let everywhere = Vector::common(reports.iter().map(|report| &report.applied));
    let mut somewhere = Vector::default();
    reports.iter().for_each(|report| somewhere.merge(&report.synced));
    let mut frontier = promised;
    for (origin, has, _) in everywhere.behind(&somewhere) {
        if has < writes.unknown_to(origin) {
            return None;
        }
        // Where this node has not got it: an origin's stamps never go back, so it lies no lower than the last one that
        // is here.
        let missing = writes.stamp_after(origin, has).or_else(|| writes.last_stamp(origin))?;
        frontier = frontier.min(Hlc(missing.0.saturating_sub(1)));
    }
    Some(frontier)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eventual::vector::tests::origin;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const NODES: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];
    const ERA: Era = Era(1);
    const TICK_MS: u64 = 100;

    /// One of three nodes. The world's clock is everybody's, so that ages are true.
    #[derive(Debug, Clone, Default)]
    struct Node {
        applied: Vector,
        /// What it knows of the others, and since when.
        reports: BTreeMap<NodeId, (Report, u64)>,
        frontier: Hlc,
    }

    /// All writes, with their stamps.
    type World = BTreeMap<(Origin, Seq), Hlc>;

    struct Here<'a>(&'a World, &'a Vector);

    impl Writes for Here<'_> {
        fn unknown_to(&self, _: Origin) -> Seq {
            0
        }

        fn stamp_after(&self, origin: Origin, after: Seq) -> Option<Hlc> {
            (after < self.1.get(origin)).then(|| self.0[&(origin, after + 1)])
        }

        fn last_stamp(&self, origin: Origin) -> Option<Hlc> {
            self.0.get(&(origin, self.1.get(origin))).copied()
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Write(usize),
        Send { from: usize, to: usize, of: usize },
        Report { from: usize, to: usize },
        Wait,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0usize..3).prop_map(Step::Write),
            (0usize..3, 0usize..3, 0usize..3).prop_map(|(from, to, of)| Step::Send { from, to, of }),
            (0usize..3, 0usize..3).prop_map(|(from, to)| Step::Report { from, to }),
            Just(Step::Wait),
        ]
    }

    fn own(node: usize) -> Origin {
        origin(NODES[node].0, 1)
    }

    fn report(node: &Node, now_ms: u64) -> Report {
        let applied = node.applied.clone();
        // The stamps of a millisecond are below the first of the next one.
        let promise = Hlc(Hlc::from_millis(now_ms).0 - 1);
        Report { era: ERA, synced: applied.clone(), shown: applied.clone(), applied, promise }
    }

    fn hear(nodes: &mut [Node], from: usize, to: usize, now_ms: u64) {
        let report = report(&nodes[from], now_ms);
        nodes[to].reports.insert(NODES[from], (report, now_ms));
    }

    fn told(nodes: &[Node], node: usize, world: &World, now_ms: u64) -> Lag {
        let me = &nodes[node];
        let now = Now { era: ERA, synced: &me.applied, monotonic_ms: now_ms, physical_ms: now_ms };
        let peers =
            NODES.iter().filter(|peer| **peer != NODES[node]).map(|peer| match me.reports.get(peer) {
                Some((report, heard_ms)) => (*peer, Some(report), *heard_ms),
                None => (*peer, None, 0),
            });
        lag(now, peers, &Here(world, &me.applied))
    }

    /// The oldest write that is anywhere and not everywhere.
    fn true_lag_ms(nodes: &[Node], world: &World, now_ms: u64) -> u64 {
        let everywhere = Vector::common(nodes.iter().map(|node| &node.applied));
        let missing = world.iter().filter(|((origin, seq), _)| everywhere.get(*origin) < *seq);
        missing.map(|(_, stamp)| now_ms - stamp.millis()).max().unwrap_or(0)
    }

    fn take(nodes: &mut [Node], world: &mut World, step: &Step, now_ms: &mut u64) {
        match *step {
            Step::Write(node) => {
                let seq = nodes[node].applied.get(own(node)) + 1;
                nodes[node].applied.raise(own(node), seq);
                world.insert((own(node), seq), Hlc::from_millis(*now_ms));
            }
            Step::Send { from, to, of } => {
                let next = nodes[to].applied.get(own(of)) + 1;
                if next <= nodes[from].applied.get(own(of)) {
                    nodes[to].applied.raise(own(of), next);
                }
            }
            Step::Report { from, to } if from != to => hear(nodes, from, to, *now_ms),
            Step::Report { .. } => {}
            Step::Wait => *now_ms += TICK_MS,
        }
    }

    proptest! {
        #[test]
        fn the_lag_is_never_told_too_small_and_is_the_true_one_when_all_are_heard(
            steps in prop::collection::vec(step(), 1..120),
        ) {
            let (mut nodes, mut world, mut now_ms) = (vec![Node::default(); 3], World::new(), 10_000);
            for step in &steps {
                take(&mut nodes, &mut world, step, &mut now_ms);
                let told: Vec<Lag> = (0..3).map(|node| told(&nodes, node, &world, now_ms)).collect();
                let largest = told.iter().map(|lag| lag.at_least_ms).max().unwrap_or(0);
                prop_assert!(true_lag_ms(&nodes, &world, now_ms) <= largest, "{told:?}");
                for (node, lag) in nodes.iter().zip(&told) {
                    let heard = |peer: &NodeId| node.reports.get(peer).map_or(0, |(_, heard_ms)| *heard_ms);
                    let me = NODES[told.iter().position(|other| std::ptr::eq(other, lag)).unwrap()];
                    let silent = NODES.iter().filter(|peer| **peer != me).map(|peer| now_ms - heard(peer)).max().unwrap();
                    prop_assert_eq!(lag.known, silent <= SILENCE_MS_MAX);
                    prop_assert!(lag.known || silent <= lag.at_least_ms, "{silent} {lag:?}");
                }
            }
            for (from, to) in [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)] {
                hear(&mut nodes, from, to, now_ms);
            }
            let told = (0..3).map(|node| told(&nodes, node, &world, now_ms));
            let largest = told.inspect(|lag| assert!(lag.known)).map(|lag| lag.at_least_ms).max();
            prop_assert_eq!(largest, Some(true_lag_ms(&nodes, &world, now_ms)));
        }

        #[test]
        fn every_write_up_to_the_frontier_is_on_every_node(steps in prop::collection::vec(step(), 1..120)) {
            let (mut nodes, mut world, mut now_ms) = (vec![Node::default(); 3], World::new(), 10_000);
            let check = |nodes: &mut [Node], world: &World, now_ms| {
                let everywhere = Vector::common(nodes.iter().map(|node| &node.applied));
                for me in 0..3 {
                    let mine = report(&nodes[me], now_ms);
                    let of = |node: &NodeId| nodes[me].reports.get(node).map(|(report, _)| report);
                    let reports: Vec<_> = NODES.iter().map(|node| if *node == NODES[me] { Some(&mine) } else { of(node) }).collect();
                    let frontier = frontier(ERA, reports.into_iter(), &Here(world, &nodes[me].applied));
                    let frontier = frontier.unwrap_or_default().max(nodes[me].frontier);
                    nodes[me].frontier = frontier;
                    let below = world.iter().filter(|(_, stamp)| **stamp <= frontier);
                    for ((origin, seq), _) in below {
                        assert!(*seq <= everywhere.get(*origin), "{origin:?}:{seq} is not everywhere, {frontier:?}");
                    }
                }
            };
            for step in &steps {
                take(&mut nodes, &mut world, step, &mut now_ms);
                check(&mut nodes, &world, now_ms);
            }
            // When all have all and say so, the frontier is as far as their promises.
            now_ms += TICK_MS;
            let mut all = Vector::default();
            nodes.iter().for_each(|node| all.merge(&node.applied));
            nodes.iter_mut().for_each(|node| node.applied = all.clone());
            for (from, to) in [(1, 0), (2, 0)] {
                hear(&mut nodes, from, to, now_ms);
            }
            check(&mut nodes, &world, now_ms);
            prop_assert_eq!(nodes[0].frontier, Hlc(Hlc::from_millis(now_ms).0 - 1));
        }
    }
}

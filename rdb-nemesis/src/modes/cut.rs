//! A partition: the wires between some nodes and the others, cut until healed.

use crate::cluster::{Cluster, Wire};

/// Wires that are cut, and how often each had kept something back before.
pub(super) struct Cut(Vec<((u64, u64), u64)>);

impl Cut {
    /// Cuts these nodes off from the others.
    pub(super) fn around(cluster: &Cluster, nodes: &[u64], wire: Wire) -> Self {
        let crossing = |(from, to): &(u64, u64)| nodes.contains(from) != nodes.contains(to);
        let wires: Vec<(u64, u64)> = cluster.all_wires().into_iter().filter(crossing).collect();
        let before = wires.iter().map(|(from, to)| ((*from, *to), cluster.kept_back(*from, *to))).collect();
        for (from, to) in wires {
            cluster.wire(from, to, wire);
        }
        Self(before)
    }

    /// Whether it has happened: every wire had something to keep back.
    ///
    /// # Errors
    /// Some had not.
    pub(super) fn seen(&self, cluster: &Cluster) -> Result<String, String> {
        let idle = self.0.iter().filter(|((from, to), before)| cluster.kept_back(*from, *to) == *before);
        match idle.count() {
            0 => Ok(format!("{} wires kept something back", self.0.len())),
            idle => Err(format!("vacuous: {idle} of {} cut wires had nothing to keep back", self.0.len())),
        }
    }

    /// Mends the wires.
    pub(super) fn heal(self, cluster: &Cluster) {
        for ((from, to), _) in self.0 {
            cluster.wire(from, to, Wire::Whole);
        }
    }
}

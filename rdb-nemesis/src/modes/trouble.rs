//! What is done to the nodes while they switch. It lasts, and then the cluster is healed as a whole.

use crate::cluster::{Cluster, Wire};
use crate::dice::Dice;
use anyhow::Result;
use std::fmt;
use std::time::Duration;

/// All kinds.
pub(super) const KINDS: [&str; 7] = [QUIET, KILL, KILL_ALL, PAUSE, CUT, STEP, STEP_AND_KILL];
const QUIET: &str = "quiet";
const KILL: &str = "kill";
const KILL_ALL: &str = "kill of all";
const PAUSE: &str = "pause";
const CUT: &str = "partition";
const STEP: &str = "clock step";
const STEP_AND_KILL: &str = "clock step and kill";

/// What clocks may differ by, in seconds. Those of most nodes by less than keeps a node from taking writes: with all clocks far
/// apart nobody would. The last node's may be an hour off: it then takes none while it is eventual, and leads while it is strong.
const OFFSETS: [i64; 3] = [-4, 0, 4];
const OFFSETS_OF_LAST: [i64; 3] = [-3_600, 0, 3_600];

/// One trouble.
#[derive(Debug, Clone)]
pub(super) struct Trouble {
    pub(super) kind: &'static str,
    nodes: Vec<u64>,
    wire: Wire,
    offset_seconds: i64,
    lasts: Duration,
    /// How often each wire that is to be cut had kept something back before.
    before: Vec<((u64, u64), u64)>,
}

impl Trouble {
    /// One of this kind.
    pub(super) fn draw(kind: &'static str, cluster: &Cluster, dice: &mut Dice) -> Self {
        let node = dice.pick(&cluster.ids());
        let nodes = if kind == KILL_ALL { cluster.ids() } else { vec![node] };
        let lasts = match kind {
            QUIET | STEP => dice.millis(0..300),
            // A ping at least has to be kept back.
            CUT => dice.millis(1_000..2_500),
            _ => dice.millis_of_any_size(50..2_500),
        };
        let wire = dice.pick(&[Wire::Silent, Wire::Closed]);
        let crossing = |(from, to): &(u64, u64)| nodes.contains(from) != nodes.contains(to);
        let wires = cluster.all_wires().into_iter().filter(|wire| kind == CUT && crossing(wire));
        let before = wires.map(|(from, to)| ((from, to), cluster.kept_back(from, to))).collect();
        let is_last = cluster.ids().last() == Some(&node);
        let offset_seconds = dice.pick(if is_last { &OFFSETS_OF_LAST } else { &OFFSETS });
        Self { kind, wire, offset_seconds, lasts, before, nodes }
    }

    /// For how long.
    pub(super) fn lasts(&self) -> Duration {
        self.lasts
    }

    /// Does it.
    pub(super) fn strike(&self, cluster: &mut Cluster) -> Result<()> {
        for node in &self.nodes {
            if self.steps() {
                cluster.step_clock(*node, self.offset_seconds)?;
            }
            match self.kind {
                KILL | KILL_ALL | STEP_AND_KILL => cluster.kill(*node)?,
                PAUSE => cluster.pause(*node)?,
                _ => {}
            }
        }
        for ((from, to), _) in &self.before {
            cluster.wire(*from, *to, self.wire);
        }
        Ok(())
    }

    fn steps(&self) -> bool {
        [STEP, STEP_AND_KILL].contains(&self.kind)
    }

    /// Whether it has really happened, asked before it is healed.
    ///
    /// # Errors
    /// It has not.
    pub(super) fn seen(&self, cluster: &mut Cluster) -> Result<(), String> {
        let why = |error: anyhow::Error| format!("{error:#}");
        for node in &self.nodes {
            let is_so = match self.kind {
                PAUSE => cluster.is_stopped(*node).map_err(why)?,
                STEP => cluster.has_clock(*node).map_err(why)?,
                // A kill returns when the process is gone.
                _ => true,
            };
            if !is_so {
                return Err(format!("node {node} is as it was"));
            }
        }
        let idle = self.before.iter().filter(|((from, to), before)| cluster.kept_back(*from, *to) == *before);
        match idle.count() {
            0 => Ok(()),
            idle => Err(format!("{idle} of {} cut wires had nothing to keep back", self.before.len())),
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, nodes, lasts, .. } = self;
        write!(f, "{kind} of {nodes:?} for {lasts:?}")?;
        if self.steps() {
            write!(f, ", clock off by {} s", self.offset_seconds)?;
        }
        Ok(())
    }
}

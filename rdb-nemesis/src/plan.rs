//! What a seed stands for.

use crate::dice::Dice;
use crate::faults::{self, Fault, Need};
use crate::soak;
use crate::workloads::{self, WORKLOADS, Workload, switched};
use anyhow::{Result, bail};
use std::path::PathBuf;

/// The stream of chance that draws plans.
const STREAM: u64 = 1;
const SECOND_FAULT_PERCENT: u32 = 35;
const LEASE_PERCENT: u32 = 30;
/// With which a namespace is switched, too, while faults strike.
const SWITCHED_PERCENT: u32 = 40;
/// With which a follower that was away for a moment needs a snapshot.
const SHORT_LOGS: &str = "log_keep_entries = 8\nlog_bytes_max = 0\nsnapshot_bytes_per_second = 33554432\n";

/// Of a node's memory: for its cache, which is small so that nodes have room beside each other, and for requests under way, which
/// is the server's default (`request_bytes_max`).
const CACHE_BYTES: u64 = 16 << 20;
const REQUEST_BYTES: u64 = 256 << 20;

const THREE: u64 = 3;
const FIVE: u64 = 5;

/// What was asked for.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Faults by name; none: any.
    pub faults: Vec<String>,
    /// Workloads by name; none: any.
    pub workloads: Vec<String>,
    /// How long clients work, faults included.
    pub seconds: u64,
    /// Nodes; none: as many as the faults need.
    pub nodes: Option<u64>,
    /// Named compare-and-swaps to make at least; 0: as many as there is time for.
    pub tries: u64,
    /// Whether this is one long run, whose faults are drawn all the time, and whose load is steady.
    pub soak: bool,
    /// An older server that nodes begin with, for faults that upgrade them.
    pub server_before: Option<PathBuf>,
    /// Whether each node has a host of its own.
    pub hosts: bool,
    /// Whether the memory of nodes can be capped here.
    pub memory_caps: bool,
    /// Whether writes must be acknowledged again within a set time after a fault.
    pub bars: bool,
}

impl Default for Wanted {
    fn default() -> Self {
        Self {
            server_before: None,
            hosts: false,
            memory_caps: false,
            faults: Vec::new(),
            workloads: Vec::new(),
            seconds: 20,
            nodes: None,
            tries: 0,
            soak: false,
            bars: true,
        }
    }
}

/// One run.
#[derive(Clone)]
pub struct Plan {
    /// What it is drawn from.
    pub seed: u64,
    /// What is done to the nodes, in turn.
    pub faults: Vec<&'static Fault>,
    /// What clients do.
    pub workloads: Vec<&'static Workload>,
    /// Whether leaders serve reads by their lease.
    pub lease: bool,
    /// The rest.
    pub wanted: Wanted,
}

impl Plan {
    /// Draws a run. Consecutive seeds take the faults in turn, so that as many runs as there are faults meet all of them; a
    /// run that is as long as its tries take meets all by itself.
    /// `power` says whether disks can be cut off here.
    ///
    /// # Errors
    /// There is no such fault or workload, or it cannot be done here.
    pub fn draw(seed: u64, wanted: &Wanted, power: Result<(), &str>) -> Result<Self> {
        let possible = possible(wanted, power)?;
        let mut dice = Dice::new(seed, STREAM);
        let all = wanted.soak || wanted.tries != 0;
        let faults = if all { possible } else { draw_faults(seed, &possible, &mut dice)? };
        let mut workloads = Vec::new();
        for name in &wanted.workloads {
            match workloads::named(name) {
                Some(workload) => workloads.push(workload),
                None => bail!("there is no workload '{name}'; rdb-nemesis list names all"),
            }
        }
        if wanted.soak {
            workloads = soak::workloads(&workloads)?;
        } else if workloads.is_empty() {
            workloads = vec![&WORKLOADS[0], &WORKLOADS[1 + dice.below(WORKLOADS.len() - 1)]];
            let switched = workloads::named(switched::NAME).filter(|_| dice.percent(SWITCHED_PERCENT));
            workloads.extend(switched.filter(|_| workloads[1].name != switched::NAME));
        }
        let lease = dice.percent(LEASE_PERCENT);
        Ok(Self { seed, faults, workloads, lease, wanted: wanted.clone() })
    }

    /// Lines for every node's configuration.
    pub(crate) fn configuration(&self) -> String {
        let mut lines = format!("cache_bytes = {CACHE_BYTES}\nrequest_bytes_max = {REQUEST_BYTES}\n");
        if self.lease {
            lines += "leader_lease = true\n";
        }
        if self.needs(Need::ShortLogs) {
            lines += SHORT_LOGS;
        }
        lines
    }

    /// How much memory each node is configured to use for what grows with its work.
    pub(crate) fn memory_budget_bytes(&self) -> u64 {
        CACHE_BYTES + REQUEST_BYTES
    }

    /// How many nodes.
    pub(crate) fn nodes(&self) -> u64 {
        self.wanted.nodes.unwrap_or(if self.needs(Need::Five) { FIVE } else { THREE })
    }

    /// Whether a namespace is switched between the modes.
    pub(crate) fn switches(&self) -> bool {
        self.workloads.iter().any(|workload| workload.name == switched::NAME)
    }

    /// Whether one of its faults needs this.
    pub(crate) fn needs(&self, need: Need) -> bool {
        self.faults.iter().any(|fault| fault.needs(need))
    }

    /// The faults and workloads in words.
    #[must_use]
    pub fn in_words(&self) -> String {
        let faults: Vec<_> = self.faults.iter().map(|fault| fault.name).collect();
        let workloads: Vec<_> = self.workloads.iter().map(|workload| workload.name).collect();
        let lease = if self.lease { ", leases" } else { "" };
        let nodes = format!("{} {}", self.nodes(), if self.wanted.hosts { "hosts" } else { "nodes" });
        let faults = match faults.len() {
            many if self.wanted.soak => format!("a soak under {many} kinds of faults"),
            _ => faults.join(" and "),
        };
        format!("{faults} on {}{lease}, {nodes}", workloads.join(", "))
    }

    /// The command that does this again.
    #[must_use]
    pub fn again(&self) -> String {
        let one = if self.wanted.soak { "--soak" } else { "--runs 1" };
        let mut command = format!("./x nemesis {one} --seed {} --seconds {}", self.seed, self.wanted.seconds);
        for fault in &self.wanted.faults {
            command += &format!(" --fault {fault}");
        }
        for workload in &self.wanted.workloads {
            command += &format!(" --workload {workload}");
        }
        if let Some(nodes) = self.wanted.nodes {
            command += &format!(" --nodes {nodes}");
        }
        if self.wanted.hosts {
            command += " --hosts";
        }
        if let Some(server) = &self.wanted.server_before {
            command += &format!(" --server-before {}", server.display());
        }
        if self.wanted.tries != 0 {
            command += &format!(" --tries {}", self.wanted.tries);
        }
        command
    }
}

/// One fault, and at times another with which it takes turns.
fn draw_faults(seed: u64, possible: &[&'static Fault], dice: &mut Dice) -> Result<Vec<&'static Fault>> {
    let first = possible[usize::try_from(seed % possible.len() as u64)?];
    let second = dice.percent(SECOND_FAULT_PERCENT).then(|| dice.pick(possible));
    let second = second.filter(|second| second.name != first.name);
    Ok(std::iter::once(first).chain(second).collect())
}

fn possible(wanted: &Wanted, power: Result<(), &str>) -> Result<Vec<&'static Fault>> {
    let mut chosen: Vec<&Fault> = Vec::new();
    for name in &wanted.faults {
        match faults::all().find(|fault| fault.name == *name) {
            Some(fault) => chosen.push(fault),
            None => bail!("there is no fault '{name}'; rdb-nemesis list names all"),
        }
    }
    for fault in &chosen {
        if let Some(why) = hindrance(fault, wanted, power) {
            bail!("{} {why}", fault.name);
        }
    }
    if chosen.is_empty() {
        chosen = faults::all().filter(|fault| hindrance(fault, wanted, power).is_none()).collect();
    }
    if wanted.soak && wanted.faults.is_empty() {
        chosen.retain(|fault| !soak::FILL_MEMORY.iter().any(|need| fault.needs(*need)));
        // A soak's faults are all there are, so it has as many nodes as were asked for.
        chosen.retain(|fault| wanted.nodes == Some(FIVE) || !fault.needs(Need::Five));
    }
    Ok(chosen)
}

/// Why a fault cannot be done as things are, if so.
fn hindrance(fault: &Fault, wanted: &Wanted, power: Result<(), &str>) -> Option<String> {
    let needs = |need, lacks: bool| lacks && fault.needs(need);
    if let Err(why) = power
        && fault.needs(Need::Disks)
    {
        return Some(format!("cannot be done here: {why}"));
    }
    if needs(Need::Before, wanted.server_before.is_none()) {
        return Some("needs an older server: say --server-before PATH".to_owned());
    }
    if needs(Need::Memory, !wanted.memory_caps) {
        return Some("cannot be done here: memory cannot be capped".to_owned());
    }
    if needs(Need::Wires, wanted.hosts) {
        return Some("needs wires that can be slow, which there are none of between --hosts".to_owned());
    }
    let few = wanted.nodes.filter(|nodes| *nodes < FIVE && fault.needs(Need::Five))?;
    Some(format!("needs {FIVE} nodes, and {few} were asked for"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_stands_for_one_plan_and_consecutive_seeds_meet_every_fault() {
        let mut met = std::collections::BTreeSet::new();
        let wanted = Wanted { server_before: Some("before".into()), memory_caps: true, ..Wanted::default() };
        for seed in 0..faults::all().count() as u64 {
            let plan = Plan::draw(seed, &wanted, Ok(())).unwrap();
            let again = Plan::draw(seed, &wanted, Ok(())).unwrap();
            assert_eq!((plan.in_words(), plan.lease), (again.in_words(), again.lease));
            met.insert(plan.faults[0].name);
        }
        assert_eq!(met.len(), faults::all().count());
    }

    #[test]
    fn what_cannot_be_done_is_refused_or_left_out() {
        let with = |fault: &str| Wanted { faults: vec![fault.to_owned()], ..Wanted::default() };
        assert!(Plan::draw(0, &with("flood"), Ok(())).is_err());
        assert!(Plan::draw(0, &with("power-cut"), Err("no root")).is_err());
        assert!(Plan::draw(0, &with("rolling-upgrade"), Ok(())).is_err());
        assert!(Plan::draw(0, &with("out-of-memory"), Ok(())).is_err());
        let few = |nodes| Wanted { nodes: Some(nodes), ..with("ring") };
        assert!(Plan::draw(0, &few(3), Ok(())).is_err());
        assert_eq!(Plan::draw(0, &few(5), Ok(())).unwrap().nodes(), 5);
        assert_eq!(Plan::draw(0, &with("ring"), Ok(())).unwrap().nodes(), 5);
        let workloads = vec!["gardening".to_owned()];
        assert!(Plan::draw(0, &Wanted { workloads, ..Wanted::default() }, Ok(())).is_err());
        for seed in 0..40 {
            let plan = Plan::draw(seed, &Wanted::default(), Err("no root")).unwrap();
            assert!(!plan.needs(Need::Disks) && !plan.needs(Need::Before), "seed {seed}");
        }
    }
}

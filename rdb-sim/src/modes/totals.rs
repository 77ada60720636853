//! What worlds went through, so that nobody mistakes an idle run for a clean one.

use crate::totals::totals;

totals! {
    /// Events that happened.
    events,
    /// Messages between nodes.
    messages,
    /// Writes that were acknowledged in eventual mode.
    eventual_writes,
    /// Those of them that were lost before they were synced, as their namespace allows.
    unsynced_lost,
    /// Writes that were acknowledged in strong mode.
    strong_writes,
    /// Linearizable reads that were answered.
    strong_reads,
    /// Those of them that a lease served.
    lease_reads,
    /// Reads that waited for their index and found the region in another era.
    reads_refused,
    /// Local reads.
    local_reads,
    /// Session reads that were answered.
    session_reads,
    /// Session reads of what a node had not got yet.
    sessions_behind,
    /// Reads that came between the answer to a write and its merge, and had to wait.
    waited_for_merge,
    /// Operations that need a strong namespace and were refused.
    requires_strong,
    /// Writes that were refused since a gate was shut.
    writes_held_back,
    /// Writes that were refused since their client showed a version too far in the future.
    ahead_refused,
    /// Attempts in doubt.
    in_doubt,
    /// Operations that the linearizability checker looked at.
    checked,
    /// Switches that operators began.
    switches_begun,
    /// Switches to strong that were completed.
    to_strong,
    /// Those of them that went on without a node.
    to_strong_without,
    /// Switches to eventual that were completed.
    to_eventual,
    /// Switches that were called off.
    aborted,
    /// Steps that came to the catalog too late, or twice.
    steps_late,
    /// Times that a gate was sealed.
    gates_sealed,
    /// Times that a gate was opened in a new epoch.
    gates_opened,
    /// Times that a replica entered an era.
    eras_entered,
    /// Snapshots that replaced a replica.
    snapshots,
    /// Those of them that brought a replica over more than one era.
    snapshots_over_eras,
    /// Starts that found the note of a snapshot that was being taken in.
    snapshots_settled,
    /// Times that a region's log was shortened.
    logs_shortened,
    /// Writes that were set aside.
    quarantined,
    /// Those of them that a copy had brought.
    quarantined_from_copies,
    /// Runs that were sent on for another node.
    runs_forwarded,
    /// Runs that were refused.
    runs_refused,
    /// Those of them that a fence kept out.
    runs_fenced,
    /// Times that a log dropped runs.
    truncations,
    /// Tombstones that were purged.
    tombstones_purged,
    /// Times that a member was given up.
    given_up,
    /// Copies that were taken.
    copies,
    /// Nodes that lost power with a copy noted and not yet merged.
    crashes_copying,
    /// Looks at the lag that knew it, and that did not.
    lags_known,
    /// Looks at the lag that told that it was not known.
    lags_unknown,
    /// Nodes at one vector that were compared.
    compared,
    /// Nodes that lost power.
    crashes,
    /// Those of them that did during a switch.
    crashes_switching,
    /// Times that all nodes did at once.
    power_cuts,
    /// Cuts in the network.
    cuts,
    /// Processes stopped for a while.
    pauses,
    /// Log disks that hung.
    stalls,
    /// Wall clocks that stepped.
    clock_steps,
}

impl Totals {
    /// Operations that clients were answered.
    pub fn operations(&self) -> u64 {
        let writes = self.eventual_writes + self.strong_writes;
        writes + self.strong_reads + self.local_reads + self.session_reads
    }

    /// What was done to nodes, their disks and clocks, and the network.
    pub fn faults(&self) -> u64 {
        self.crashes + self.power_cuts + self.cuts + self.pauses + self.stalls + self.clock_steps
    }
}

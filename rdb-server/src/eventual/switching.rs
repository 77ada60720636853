//! A node's steps in a switch of modes. Each follows from what the node has heard, from what is synced and from what its region's
//! log says, and may be taken again: nothing here remembers that a step was taken.

use super::Entry;
use super::Opening;
use super::driver::{Driver, fail, hears, is_shown_strong, post, post_then};
use super::gatekeeper::Gatekeeper;
use super::replica::{Replica, ReplicaError};
use crate::mailbox;
use crate::switch::{GateState, Standing};
use fail::fail_point;
use rdb_core::ids::{Era, Index, NodeId, RegionId, Term};
use rdb_core::raft::Failure;
use rdb_core::switch::{Control, Descriptor, Gate, Mode, Progress, Report, Vector, Verdict};
use rdb_core::version::Hlc;
use rdb_storage::{OriginState, OriginWrite};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Between two words about a region that switches, if nothing changes.
const SWITCHING_INTERVAL: Duration = Duration::from_millis(200);
/// The same of a region that is eventual, or was, and does not switch: who starts again has heard nothing.
const SETTLED_INTERVAL: Duration = Duration::from_millis(500);

/// When this node last told how its part of regions stands.
#[derive(Default)]
pub(super) struct Telling {
    /// Regions of which something has changed that the controller waits for.
    due: BTreeSet<RegionId>,
    switching_at: Option<Instant>,
    settled_at: Option<Instant>,
}

impl Driver {
    /// A region is here, or has entered an era.
    pub(super) fn open(&mut self, opening: Opening, entered: Option<Entry>) -> Result<(), ReplicaError> {
        let (region, mode) = (opening.region, opening.mode.clone());
        self.keeps.insert(region, (opening.namespace, opening.settings.keep_lost_seconds));
        self.forget_before(mode.era(), region, opening.namespace);
        let index = entered.map_or(0, |Entry { place: (index, _), .. }| index);
        match self.gates.get_mut(&region) {
            // This thread has ended the era itself; what it has held may go on now.
            Some(gate) if mode.era() <= gate.mode().era() => {
                self.moved.insert(region);
                // From here on nobody asks for the eventual era any more; until here readers went on.
                if mode.mode() == Mode::Strong {
                    self.eventual.hide_before(region, mode.era());
                }
                return Ok(());
            }
            Some(gate) => {
                gate.enter(mode.clone(), index);
                // By a snapshot, past the end of an eventual era.
                self.replicas.remove(&region);
            }
            None => {
                let logs = &self.tools.logs;
                let (controls, set_aside) = (logs.gate(region)?, logs.quarantine(region)?);
                let stored = (controls.as_deref(), set_aside.as_deref());
                let gate = Gatekeeper::open(self.node, mode.clone(), stored)?;
                self.gates.insert(region, gate);
            }
        }
        // Before anybody can read what the replica holds: this node may have answered in a later epoch of the era before it started.
        self.show_epoch(region);
        if mode.mode() == Mode::Eventual {
            self.open_replica(opening, entered)?;
        }
        // Before whatever comes next, in this turn too: the gate may be sealed, and what the cluster counts on holds from here.
        if let (Some(gate), Some(replica)) = (self.gates.get(&region), self.replicas.get_mut(&region)) {
            fence(gate, replica);
        }
        self.moved.insert(region);
        self.telling.due.insert(region);
        Ok(())
    }

    /// The node is about to answer in an era that its log's commit index need not show yet: it was committed, and a restart must
    /// find it again, also without the others.
    pub(super) fn note_entry(&mut self, region: RegionId, era: Era, (index, term): (Index, Term)) {
        let place = [index.to_be_bytes(), term.to_be_bytes()].concat();
        let write = OriginWrite {
            era,
            states: vec![(OriginState::Entered, place)],
            sync: true,
            ..OriginWrite::default()
        };
        if let Some(replica) = self.replicas.get_mut(&region) {
            replica.enter();
        }
        post(&self.log, &self.eventual, region, write, None);
    }

    pub(super) fn hear(&mut self, descriptors: &[(RegionId, Arc<Descriptor>)]) {
        for (region, descriptor) in descriptors {
            if let Some(gate) = self.gates.get_mut(region) {
                gate.hear(descriptor);
                self.moved.insert(*region);
                self.telling.due.insert(*region);
            }
        }
    }

    pub(super) fn control_synced(&mut self, region: RegionId, control: Option<&Control>) {
        let (Some(control), Some(gate)) = (control, self.gates.get_mut(&region)) else { return };
        after_sync(control);
        gate.synced(control);
        self.moved.insert(region);
        self.telling.due.insert(region);
    }

    /// Looks at the gates of which something has changed, until nothing follows from it any more.
    pub(super) fn take_steps(&mut self) {
        while let Some(region) = self.moved.pop_first() {
            self.review(region);
            self.end_era(region);
            self.leave(region).unwrap_or_else(|error| fail(&error));
            self.release(region);
        }
    }

    /// Answers of the era that the region's gate is in are of the gate's epoch, or of a later one.
    fn show_epoch(&self, region: RegionId) {
        if let (Some(gate), Some(view)) = (self.gates.get(&region), self.regions.get(region)) {
            view.raise_epoch(gate.mode().era(), gate.peer().epoch());
        }
    }

    fn review(&mut self, region: RegionId) {
        let Some(gate) = self.gates.get_mut(&region) else { return };
        let replica = self.replicas.get_mut(&region);
        let excluded = gate.goes_on_without().clone();
        // A copy that is noted counts as synced once it is merged, and a seal comes behind the note.
        let busy = |replica: &Replica| {
            replica.is_answering() || replica.is_merging() || replica.takes_in_from(&excluded)
        };
        let control = gate.review(replica.as_ref().is_some_and(|replica| busy(replica)));
        if let Some(view) = self.regions.get(region) {
            view.raise_epoch(gate.mode().era(), gate.peer().epoch());
        }
        if let Some(replica) = replica {
            fence(gate, replica);
            if control.is_some() {
                replica.hand_out_nothing();
            }
        }
        if let Some((control, all)) = control {
            before_sync(&control);
            tracing::info!(%region, ?control, "the gate's record is being synced");
            let era = gate.mode().era();
            let states = vec![(OriginState::Gate, all)];
            let write = OriginWrite { era, states, sync: true, ..OriginWrite::default() };
            post(&self.log, &self.eventual, region, write, Some(control));
        }
        self.telling.due.insert(region);
    }

    /// The region's log has come to the end of an eventual era: once all that goes on is synced here, and so applied.
    fn end_era(&mut self, region: RegionId) {
        let Some(gate) = self.gates.get_mut(&region) else { return };
        let progress = self.replicas.get(&region).map(Replica::progress).unwrap_or_default();
        let verdict = gate.judge(&progress.synced);
        let first = verdict.is_some() && gate.is_first_look();
        match verdict {
            None => {}
            Some(Verdict::Await | Verdict::Replace) if !first => {}
            Some(Verdict::Await) => {
                tracing::info!(%region, synced = ?progress.synced, "the region's log waits for writes that its base holds");
            }
            Some(Verdict::Replace) => {
                tracing::warn!(%region, "the cluster went on without this node; it needs a snapshot of the next era");
                self.mailbox.post(mailbox::Event::Replace { region });
            }
            Some(Verdict::ToStrong | Verdict::ToEventual | Verdict::Ignore) => {
                let Some(reached) = gate.end_era() else { return };
                fail_point!("era-ended");
                let highest = self.replicas.remove(&region).map_or(Hlc(0), |replica| replica.highest());
                // Before the raft loop can show the era that begins.
                self.show_epoch(region);
                reached(highest);
                self.moved.insert(region);
            }
        }
    }

    /// A snapshot of a later era is to replace the region's data: once nothing is on its way to this node's logs any more, what it
    /// has that the era does not hold is set aside, synced; then the replica goes. What is in no log is looked for among the
    /// records, some of them at a time.
    fn leave(&mut self, region: RegionId) -> Result<(), ReplicaError> {
        let Some(gate) = self.gates.get_mut(&region).filter(|gate| gate.is_leaving()) else { return Ok(()) };
        let (mut tails, mut from_records) = (Vec::new(), 0);
        if let Some(replica) = self.replicas.get_mut(&region) {
            // A copy that is noted counts like what is logged, and what it brings shows once it is merged.
            if !replica.is_quiet() || replica.is_merging() {
                return Ok(());
            }
            tails = gate.tails(&replica.progress().appended);
            if let Some(write) = replica.set_aside_some(&tails, &self.tools)? {
                replica.hand_out_nothing();
                post(&self.log, &self.eventual, region, write, None);
                return Ok(());
            }
            from_records = replica.set_aside_from_records();
        }
        let Some((set_aside, left)) = gate.leave(&tails, from_records) else { return Ok(()) };
        let era = gate.mode().era();
        self.replicas.remove(&region);
        self.eventual.show(|all| drop(all.remove(&region)));
        let Some(set_aside) = set_aside else {
            left();
            return Ok(());
        };
        tracing::warn!(%region, era = era.0, writes = gate.quarantine().writes(), "writes that the cluster went on without are set aside");
        fail_point!("quarantine-before-sync");
        let states = vec![(OriginState::Quarantine, set_aside)];
        let write = OriginWrite { era, states, sync: true, ..OriginWrite::default() };
        post_then(&self.log, region, write, left);
        Ok(())
    }

    /// Lets go what was held while the gate was not open: to this node's own log; or to ask again, in the era that has begun.
    fn release(&mut self, region: RegionId) {
        let Some(gate) = self.gates.get_mut(&region) else { return };
        let is_strong = gate.mode().mode() == Mode::Strong;
        for (_, commands, waiter) in gate.release(is_shown_strong(&self.regions, region)) {
            if is_strong {
                waiter.answer(Err(Failure::ModeChanged));
            } else {
                self.eventual.post(super::Event::Write { region, commands, waiter });
            }
        }
    }

    /// What belongs to eras that no restart can begin in goes.
    pub(super) fn forget_older(&mut self) {
        for (region, gate) in &mut self.gates {
            let Some((era, all)) = gate.forget_older(self.tools.data.durable(*region)) else { continue };
            let states = vec![(OriginState::Gate, all)];
            let quarantined = gate.quarantine().eras();
            let write =
                OriginWrite { era, only_from: Some(era), quarantined, states, ..OriginWrite::default() };
            if let Some(replica) = self.replicas.get_mut(region) {
                replica.hand_out_nothing();
            }
            post(&self.log, &self.eventual, *region, write, None);
        }
    }

    /// Tells everyone how this node's part of regions stands: at once where something has changed in a switch, else from time to
    /// time.
    pub(super) fn tell_standings(&mut self, now: Instant) {
        let past = |at: Option<Instant>, interval| at.is_none_or(|at| interval <= now.duration_since(at));
        let switching = past(self.telling.switching_at, SWITCHING_INTERVAL);
        let settled = past(self.telling.settled_at, SETTLED_INTERVAL);
        let due = std::mem::take(&mut self.telling.due);
        if due.is_empty() && !switching && !settled {
            return;
        }
        if switching {
            self.telling.switching_at = Some(now);
        }
        if settled {
            self.telling.settled_at = Some(now);
        }
        let mut standings = Vec::new();
        for (region, gate) in &self.gates {
            let switches = gate.heard().is_some_and(|heard| heard.is_switching());
            let is_eventual = gate.mode().mode() == Mode::Eventual;
            // Of one that has never switched there is nothing that its mode does not say.
            let has_more = is_eventual || Era(1) < gate.mode().era();
            let tells = due.contains(region) || switches && switching || has_more && settled;
            if tells {
                standings.push(self.standing(*region, gate));
            }
        }
        if standings.is_empty() {
            return;
        }
        for node in self.tools.transport.nodes() {
            if hears(&self.health, node) {
                self.tools.transport.send_standings(node, standings.clone());
            }
        }
        for standing in standings {
            self.standings.put(self.node, standing);
        }
    }

    fn standing(&self, region: RegionId, gate: &Gatekeeper) -> Standing {
        let replica = self.replicas.get(&region);
        let view = self.regions.get(region);
        let progress = replica.map(Replica::progress).unwrap_or_default();
        let lag = replica.map(|replica| replica.shown().lag_of_the_look());
        let behind = view.as_ref().map_or(0, |view| view.commit().saturating_sub(view.applied()));
        Standing {
            region,
            era: gate.mode().era(),
            epoch: gate.peer().epoch(),
            mode: gate.mode().mode(),
            gate: match gate.peer().gate() {
                Gate::Open => GateState::Open,
                Gate::Shut => GateState::Shut,
                Gate::Sealed(_) => GateState::Sealed,
            },
            leads: view.is_some_and(|view| view.leads()),
            answering: replica.is_some_and(Replica::is_answering),
            lag_ms: lag.map_or(0, |lag| lag.at_least_ms),
            lag_known: lag.is_none_or(|lag| lag.known)
                && replica.is_none_or(|replica| replica.digest().is_some()),
            behind_writes: replica.map_or(behind, |replica| replica.shown().behind()),
            needs_full_copy: replica.is_some_and(|replica| replica.needs_copy(gate.goes_on_without())),
            applied: replica.map(Replica::claimed).unwrap_or_default(),
            quarantined: gate.quarantine().writes(),
            reports: reports(gate, &progress, replica),
        }
    }
}

fn before_sync(control: &Control) {
    match control {
        Control::Seal(_) => fail_point!("seal-before-sync"),
        Control::Open { .. } => fail_point!("open-before-sync"),
    }
}

fn after_sync(control: &Control) {
    match control {
        Control::Seal(_) => fail_point!("seal-after-sync"),
        Control::Open { .. } => fail_point!("open-after-sync"),
    }
}

/// What this node promises. That it has drained it says only with the hash of what it then has.
fn reports(gate: &Gatekeeper, progress: &Progress, replica: Option<&Replica>) -> Vec<Report> {
    let digest = replica.and_then(Replica::digest);
    let mut reports = gate.peer().reports(progress, |_| digest.unwrap_or_default());
    reports.retain(|report| digest.is_some() || !matches!(report, Report::Drained { .. }));
    reports
}

/// Whose writes are no longer taken in, or only up to the cut. Not from the seal on, but from when the gate shuts: what came in
/// between would lie behind the seal, and be neither told of nor in the cut.
fn fence(gate: &Gatekeeper, replica: &mut Replica) {
    let nobody = BTreeSet::<NodeId>::new();
    let heard = gate.heard();
    let (excluded, cut): (&BTreeSet<NodeId>, Option<&Vector>) = match (gate.peer().gate(), heard) {
        (Gate::Sealed(seal), _) => (&seal.excluded, heard.and_then(|heard| seal.cut(heard))),
        (Gate::Shut, Some(heard)) if heard.phase.shuts_gates() => (&heard.excluded, None),
        (Gate::Open | Gate::Shut, _) => (&nobody, None),
    };
    replica.fence(excluded, cut);
}

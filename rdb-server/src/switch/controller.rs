//! The thread `switch`: drives every switch of a namespace's mode, on whichever node leads the catalog. On the others it only
//! watches.
//!
//! It is woken by what members say of themselves, by changes of the catalog, and by a tick for deadlines and silence; then
//! it looks at everything afresh. It remembers nothing that matters: another node that comes to lead the catalog goes on from
//! the descriptor and the members' reports, and two who both believe to lead do no harm, since each step is taken at most
//! once.

use super::facts::{self, Blocker, Look, When};
use crate::mailbox::Event;
use crate::shared::Shared;
use crate::waiter::{Answers, WriteWaiter};
use crossbeam_channel::{Receiver, RecvTimeoutError};
use fail::fail_point;
use rdb_core::ids::{NamespaceId, RegionId};
use rdb_core::switch::controller::next;
use rdb_core::switch::{Change, Descriptor, Mode, Phase, Step};
use rdb_pd::{Answer, Catalog, Command, Namespace};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Between two looks when nothing happens: deadlines and silence are noticed within this.
const TICK: Duration = Duration::from_millis(100);

/// The thread's state.
pub(crate) struct Controller {
    shared: Shared,
    catalog_seen: u64,
    /// The step of each namespace that was proposed last, and whether it was answered. Until then it is not proposed again:
    /// to do so would be in vain, and members speak up many times while it is on its way.
    proposed: BTreeMap<NamespaceId, (Change, Arc<AtomicBool>)>,
}

impl Controller {
    pub(crate) fn new(shared: Shared) -> Self {
        Self { shared, catalog_seen: 0, proposed: BTreeMap::new() }
    }

    /// Runs until the node stops.
    pub(crate) fn run(mut self, rings: &Receiver<()>) {
        while !self.shared.stopping.is_set() {
            self.look();
            match rings.recv_timeout(TICK) {
                Ok(()) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn look(&mut self) {
        // This first: a catalog that comes in between is looked at again.
        let changes = self.shared.catalog.changes();
        let catalog = self.shared.catalog.load();
        if changes != self.catalog_seen {
            self.catalog_seen = changes;
            self.watch(&catalog);
        }
        let leads = self.shared.regions.get(RegionId::META).is_some_and(|view| view.leads());
        if !leads {
            self.proposed.clear();
            return;
        }
        for namespace in catalog.switching() {
            self.drive(namespace);
        }
    }

    /// Takes note of what has changed.
    fn watch(&mut self, catalog: &Catalog) {
        let named: BTreeSet<RegionId> = catalog.namespaces().map(|namespace| namespace.region).collect();
        self.shared.standings.retain(|region| named.contains(&region));
        self.proposed.retain(|id, _| catalog.namespace_of(*id).is_some());
        for moved in self.shared.switches.observe(catalog, Instant::now()) {
            let (now, before) = (&moved.namespace.descriptor, &moved.before);
            tracing::info!(
                namespace = moved.namespace.name,
                region = %moved.namespace.region,
                switch = now.switch.0,
                from = ?before.phase,
                to = ?now.phase,
                epoch = now.epoch.0,
                era = now.era.0,
                mode = ?now.mode,
                completed = moved.completed,
                called_off = moved.aborted,
                pause_ms = moved.pause.map(|pause| u64::try_from(pause.as_millis()).unwrap_or(u64::MAX)),
                "a namespace's switch has come to another phase"
            );
            self.shared.metrics.switches.moved(&moved);
        }
    }

    /// Proposes the next step of a switch, if there is one to be taken now.
    fn drive(&mut self, namespace: &Namespace) {
        let descriptor = &namespace.descriptor;
        // One that has just changed is taken note of first: there will be another look at once.
        let seen = self.shared.switches.of(namespace.id).filter(|seen| seen.is_of(descriptor));
        let Some(seen) = seen else { return };
        let heard = self.shared.standings.of(namespace.region);
        let when = When { now: Instant::now(), since: seen.since };
        let Look { mut facts, reports, blockers } = facts::look(descriptor, &heard, when, wall_ms());
        facts.give_up |= seen.is_late(when.now);
        self.shared.metrics.switches.blocked(namespace.region, blockers.len());
        let Some(change) = next(descriptor, &reports, facts) else { return };
        if let Some((before, answered)) = self.proposed.get(&namespace.id)
            && is_same_step(before, &change)
            && !answered.load(Ordering::Acquire)
        {
            return;
        }
        let reason = reason(descriptor, &change.step, &blockers);
        if change.step == Step::Abort {
            self.shared.switches.explain(namespace.id, descriptor.switch, &reason);
        }
        let answered = Arc::new(AtomicBool::new(false));
        self.proposed.insert(namespace.id, (change.clone(), answered.clone()));
        self.propose(namespace, change, reason, answered);
    }

    fn propose(&self, namespace: &Namespace, change: Change, reason: String, answered: Arc<AtomicBool>) {
        let (id, from, standings) = (namespace.id, change.phase, self.shared.standings.clone());
        let waiter = WriteWaiter::new(move |answer| {
            // Whatever else it is, it shows in the catalog.
            if let Ok(Answers::Catalog(answers)) = answer
                && let [Answer::Changed(now)] = &answers[..]
            {
                tell(from, now, &reason);
            }
            answered.store(true, Ordering::Release);
            standings.ring();
        });
        fail_point!("switch-before-step");
        let commands = Command::ChangeMode { id, change }.encode();
        self.shared.mailbox.post(Event::Write { region: RegionId::META, commands, waiter });
    }
}

/// Logs a step that was taken because this node proposed it.
pub(crate) fn tell(from: Phase, now: &Namespace, reason: &str) {
    let descriptor = &now.descriptor;
    tracing::info!(
        namespace = now.name,
        region = %now.region,
        switch = descriptor.switch.0,
        from = ?from,
        to = ?descriptor.phase,
        epoch = descriptor.epoch.0,
        era = descriptor.era.0,
        reason,
        "a step of a switch was taken"
    );
}

/// Two looks at the same descriptor may differ in a deadline.
fn is_same_step(one: &Change, other: &Change) -> bool {
    let step = |change: &Change| std::mem::discriminant(&change.step);
    (one.epoch, one.phase, one.switch, step(one)) == (other.epoch, other.phase, other.switch, step(other))
}

/// Why the step is taken.
fn reason(descriptor: &Descriptor, step: &Step, blockers: &[Blocker]) -> String {
    let reason = match step {
        Step::Begin { .. } => "it was asked for",
        Step::Seal { .. } => "all who take part are heard and close to each other",
        Step::Drain { .. } => "all who take part have sealed their gates",
        Step::Flip if descriptor.mode == Mode::Strong => "all who take part are heard",
        Step::Flip => "all who take part hold what is kept, and the same data",
        Step::Finish => "a member's log has taken the new mode",
        Step::Abort if descriptor.phase == Phase::Preparing => {
            return gave_up("the preparations took longer than they may", blockers);
        }
        Step::Abort => return gave_up("writes were held back for as long as they may be", blockers),
    };
    reason.to_owned()
}

fn gave_up(what: &str, blockers: &[Blocker]) -> String {
    let mut reason = what.to_owned();
    for (place, blocker) in blockers.iter().enumerate() {
        let mark = if place == 0 { ":" } else { ";" };
        // Writing to a string cannot fail.
        let _ = write!(reason, "{mark} {blocker}");
    }
    reason
}

/// Milliseconds of the wall clock: the clock of deadlines, which outlive this process and this node's leadership.
pub(crate) fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdb_core::ids::NodeId;

    #[test]
    fn a_step_is_the_same_though_its_deadline_moves() {
        let descriptor = Descriptor::new(Mode::Eventual, [NodeId(1)]);
        let seal = |deadline_ms| descriptor.change(Step::Seal { deadline_ms });
        assert!(is_same_step(&seal(1), &seal(2)));
        assert!(!is_same_step(&seal(1), &descriptor.change(Step::Abort)));
        let later = Descriptor { phase: Phase::Preparing, ..descriptor.clone() };
        assert!(!is_same_step(&descriptor.change(Step::Abort), &later.change(Step::Abort)));
    }

    #[test]
    fn who_gives_up_says_what_was_missing() {
        let node = NodeId(3);
        let blockers = [Blocker::Silent { node, age: None }, Blocker::NoLeader];
        let begin = Step::Begin { excluded: [].into(), deadline_ms: 0, write_pause_ms_max: 0 };
        let settled = Descriptor::new(Mode::Eventual, [NodeId(1)]);
        let preparing = settled.apply(&settled.change(begin)).unwrap();
        let why = reason(&preparing, &Step::Abort, &blockers);
        assert_eq!(
            why,
            "the preparations took longer than they may: node 3 has not told how it stands yet; no member that takes part \
             leads the region"
        );
        let sealing = preparing.apply(&preparing.change(Step::Seal { deadline_ms: 0 })).unwrap();
        assert!(reason(&sealing, &Step::Abort, &[]).starts_with("writes were held back"));
    }
}

//! What this node has seen of switches since it started: since when each is where it is, how long writes were held back, and
//! how the last one ended. It decides nothing.

use parking_lot::Mutex;
use rdb_core::ids::NamespaceId;
use rdb_core::switch::{Descriptor, SwitchId};
use rdb_pd::{Catalog, Namespace};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How a switch ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) switch: SwitchId,
    /// Else it was called off.
    pub(crate) completed: bool,
    /// Why it was called off, where this node knows.
    pub(crate) reason: String,
    /// For how long writes were held back.
    pub(crate) pause: Duration,
    pub(crate) at: Instant,
}

/// A namespace whose descriptor has changed.
#[derive(Debug)]
pub(crate) struct Moved {
    pub(crate) namespace: Namespace,
    pub(crate) before: Arc<Descriptor>,
    /// Switches that were begun, completed and called off since then: one step mostly, more after a snapshot of the catalog.
    pub(crate) begun: u64,
    pub(crate) completed: u64,
    pub(crate) aborted: u64,
    /// For how long writes were held back, if that is over now.
    pub(crate) pause: Option<Duration>,
}

/// Of one namespace.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    descriptor: Arc<Descriptor>,
    /// Since when it is so.
    pub(crate) since: Instant,
    /// Since when writes are held back.
    pub(crate) paused_since: Option<Instant>,
    /// How the newest switch that has ended did so; not known where several ended between two looks.
    pub(crate) last: Option<End>,
    /// Why a step is about to be taken that ends a switch.
    why: Option<(SwitchId, String)>,
}

/// What was seen of all namespaces. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct History(Arc<Mutex<BTreeMap<NamespaceId, Seen>>>);

impl History {
    /// What was seen of a namespace.
    pub(crate) fn of(&self, namespace: NamespaceId) -> Option<Seen> {
        self.0.lock().get(&namespace).cloned()
    }

    /// Whether a namespace was seen as far as this.
    pub(crate) fn has_seen(&self, namespace: &Namespace) -> bool {
        let all = self.0.lock();
        let seen = all.get(&namespace.id);
        seen.is_some_and(|seen| namespace.descriptor.position() <= seen.descriptor.position())
    }

    /// Why a switch is about to be called off.
    pub(crate) fn explain(&self, namespace: NamespaceId, switch: SwitchId, why: &str) {
        if let Some(seen) = self.0.lock().get_mut(&namespace) {
            seen.why = Some((switch, why.to_owned()));
        }
    }

    /// Looks at the catalog as it is at `now`. Returns what has changed since the last look.
    pub(crate) fn observe(&self, catalog: &Catalog, now: Instant) -> Vec<Moved> {
        let mut all = self.0.lock();
        all.retain(|id, _| catalog.namespace_of(*id).is_some());
        let mut moved = Vec::new();
        for namespace in catalog.namespaces() {
            match all.get_mut(&namespace.id) {
                None => drop(all.insert(namespace.id, Seen::new(&namespace.descriptor, now))),
                Some(seen) if seen.descriptor.position() < namespace.descriptor.position() => {
                    moved.push(seen.follow(namespace, now));
                }
                Some(_) => {}
            }
        }
        moved
    }
}

impl Seen {
    /// Whether this is what was seen last.
    pub(crate) fn is_of(&self, descriptor: &Descriptor) -> bool {
        self.descriptor.position() == descriptor.position()
    }

    /// Whether writes have been held back for as long as they may be, by this node's monotonic clock. The deadline in the catalog
    /// is by a wall clock, and whoever leads the catalog next, or whose clock is set back, may have it hours away.
    pub(crate) fn is_late(&self, now: Instant) -> bool {
        let limit = Duration::from_millis(self.descriptor.write_pause_ms_max);
        let held = self.paused_since.map(|since| now.saturating_duration_since(since));
        !limit.is_zero() && held.is_some_and(|held| limit < held)
    }

    fn new(descriptor: &Arc<Descriptor>, now: Instant) -> Self {
        let paused_since = holds_writes_back(descriptor).then_some(now);
        Self { descriptor: descriptor.clone(), since: now, paused_since, last: None, why: None }
    }

    fn follow(&mut self, namespace: &Namespace, now: Instant) -> Moved {
        let before = std::mem::replace(&mut self.descriptor, namespace.descriptor.clone());
        let after = &self.descriptor;
        // The era grows with each that completes, the epoch with each that ends.
        let completed = u64::from(after.era.0.saturating_sub(before.era.0));
        let aborted = after.epoch.0.saturating_sub(before.epoch.0).saturating_sub(completed);
        let begun = after.switch.0.saturating_sub(before.switch.0);
        self.since = now;
        let paused_since = self.paused_since.take().or_else(|| holds_writes_back(after).then_some(now));
        let pause = paused_since.map(|since| now.saturating_duration_since(since));
        let has_ended = 0 < completed + aborted;
        if !has_ended {
            self.paused_since = paused_since;
        } else {
            // A later one may be under way already.
            let switch = SwitchId(after.switch.0 - u64::from(after.is_switching()));
            let why = self.why.take().filter(|(of, _)| *of == switch && completed == 0);
            let reason = why.map(|(_, why)| why).unwrap_or_default();
            let pause = pause.unwrap_or_default();
            let end = End { switch, completed: 0 < completed, reason, pause, at: now };
            self.last = (completed + aborted == 1).then_some(end);
            self.paused_since = holds_writes_back(after).then_some(now);
        }
        Moved {
            namespace: namespace.clone(),
            before,
            begun,
            completed,
            aborted,
            pause: pause.filter(|_| has_ended),
        }
    }
}

/// Whether eventual writes wait. To eventual, none are held back: strong ones go on until the region's log says otherwise.
fn holds_writes_back(descriptor: &Descriptor) -> bool {
    descriptor.mode == rdb_core::switch::Mode::Eventual && descriptor.phase.shuts_gates()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdb_core::apply::{Committed, State};
    use rdb_core::command::begin_catalog;
    use rdb_core::ids::NodeId;
    use rdb_core::switch::{Mode, Step, Vector};
    use rdb_pd::{Command, Machine};

    struct World {
        machine: Machine,
        index: u64,
        history: History,
        now: Instant,
    }

    impl World {
        fn new(mode: Mode) -> Self {
            let machine = Machine::new(State::default(), Catalog::default());
            let mut world = Self { machine, index: 0, history: History::default(), now: Instant::now() };
            let members = (1..=3).map(NodeId).collect();
            world.apply(&Command::CreateNamespace {
                name: "a".to_owned(),
                mode,
                members,
                token: 0,
                settings: rdb_pd::Settings::default(),
            });
            assert!(world.look().is_empty());
            world
        }

        fn apply(&mut self, command: &Command) {
            self.index += 1;
            let mut data = begin_catalog();
            data.extend_from_slice(&command.encode().bytes);
            self.machine.apply(&[Committed { index: self.index, term: 1, data }]).unwrap();
        }

        fn step(&mut self, step: Step) {
            let namespace = self.machine.catalog().namespace("a").unwrap();
            let (id, change) = (namespace.id, namespace.descriptor.change(step));
            self.apply(&Command::ChangeMode { id, change });
        }

        fn look(&mut self) -> Vec<Moved> {
            self.now += Duration::from_secs(1);
            self.history.observe(self.machine.catalog(), self.now)
        }

        fn is_seen(&self) -> bool {
            self.history.has_seen(self.machine.catalog().namespace("a").unwrap())
        }

        fn seen(&self) -> Seen {
            self.history.of(NamespaceId(1)).unwrap()
        }
    }

    fn to_strong() -> [Step; 5] {
        let begin = Step::Begin { excluded: [].into(), deadline_ms: 0, write_pause_ms_max: 0 };
        let drain = Step::Drain { cut: Vector::default() };
        [begin, Step::Seal { deadline_ms: 0 }, drain, Step::Flip, Step::Finish]
    }

    #[test]
    fn a_switch_is_followed_step_by_step_and_its_pause_measured() {
        let mut world = World::new(Mode::Eventual);
        let mut sums = [0; 3];
        for step in to_strong() {
            world.step(step.clone());
            assert!(!world.is_seen());
            let moved = world.look();
            let [Moved { begun, completed, aborted, .. }] = moved[..] else { panic!("{moved:?}") };
            [begun, completed, aborted].iter().zip(&mut sums).for_each(|(one, sum)| *sum += one);
            let is_held = matches!(step, Step::Seal { .. } | Step::Drain { .. } | Step::Flip);
            assert_eq!(world.seen().paused_since.is_some(), is_held, "{step:?}");
            assert!(world.is_seen());
            let pause = (step == Step::Finish).then_some(Duration::from_secs(3));
            assert_eq!(moved[0].pause, pause, "{step:?}");
        }
        assert_eq!(sums, [1, 1, 0]);
        let last = world.seen().last.unwrap();
        assert_eq!((last.switch, last.completed, last.pause), (SwitchId(1), true, Duration::from_secs(3)));
        assert!(world.look().is_empty(), "nothing has changed");
    }

    #[test]
    fn a_switch_that_is_called_off_has_a_reason() {
        let mut world = World::new(Mode::Eventual);
        let [begin, ..] = to_strong();
        world.step(begin.clone());
        world.look();
        world.history.explain(NamespaceId(1), SwitchId(1), "it took too long");
        world.step(Step::Abort);
        let moved = world.look();
        assert_eq!((moved[0].aborted, moved[0].completed, moved[0].pause), (1, 0, None));
        let last = world.seen().last.unwrap();
        assert_eq!((last.completed, last.reason.as_str()), (false, "it took too long"));
        // The reason of one is not that of the next.
        world.step(begin);
        world.step(Step::Abort);
        world.look();
        assert_eq!(world.seen().last.unwrap().reason, "");
    }

    /// Whatever the wall clock says.
    #[test]
    fn writes_that_are_held_back_for_too_long_are_late() {
        let mut world = World::new(Mode::Eventual);
        world.step(Step::Begin { excluded: [].into(), deadline_ms: 0, write_pause_ms_max: 1500 });
        world.look();
        world.now += Duration::from_secs(9);
        assert!(!world.seen().is_late(world.now), "preparing costs nothing");
        world.step(Step::Seal { deadline_ms: u64::MAX });
        world.look();
        let late = [1500, 1501].map(|ms| world.seen().is_late(world.now + Duration::from_millis(ms)));
        assert_eq!(late, [false, true]);
    }

    /// A node that takes in a snapshot of the catalog sees many steps as one.
    #[test]
    fn what_was_not_seen_step_by_step_is_counted_all_the_same() {
        let mut world = World::new(Mode::Eventual);
        let steps = to_strong();
        steps.iter().for_each(|step| world.step(step.clone()));
        for step in [&steps[0], &Step::Abort, &steps[0]] {
            world.step(step.clone());
        }
        let moved = world.look();
        let [Moved { begun: 3, completed: 1, aborted: 1, .. }] = moved[..] else { panic!("{moved:?}") };
        assert_eq!(world.seen().last, None, "which of them ended how is not known here");
        world.step(Step::Abort);
        world.look();
        assert_eq!(world.seen().last.unwrap().switch, SwitchId(3));
    }

    #[test]
    fn to_eventual_nothing_is_held_back_and_what_is_gone_is_forgotten() {
        let mut world = World::new(Mode::Strong);
        let [begin, .., flip, _] = to_strong();
        for step in [begin, flip] {
            world.step(step);
            world.look();
            assert_eq!(world.seen().paused_since, None);
        }
        world.apply(&Command::DeleteNamespace { name: "a".to_owned(), id: NamespaceId(1) });
        world.apply(&Command::RemoveNamespace { id: NamespaceId(1) });
        assert!(world.look().is_empty());
        assert!(world.history.of(NamespaceId(1)).is_none());
    }
}

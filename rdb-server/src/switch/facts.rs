//! What the controller sees around it: worked out from the descriptor and the last word of each member, as facts for
//! [`rdb_core::switch::controller::next`] and as sentences for people. Nothing here looks at a clock.

use super::Standing;
use rdb_core::ids::{Era, NodeId};
use rdb_core::switch::controller::Facts;
use rdb_core::switch::{Descriptor, Mode, Phase, Report, Vector};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, Instant};

/// A member tells how it stands five times a second while its namespace switches: one that was not heard for so long is
/// down, cut off, or stands still. Connections are dead after as long.
pub(crate) const HEARD_MAX: Duration = Duration::from_secs(1);
/// A switch to strong holds writes back for about as long as its members lag when it begins to: a tenth of the pause that is
/// allowed unless somebody says otherwise.
const READY_LAG_MS_MAX: u64 = 1000;
/// The same in writes, for a switch without some members: what a node tells of its lag is measured against all the others, the
/// missing ones among them. So many are sent, synced and applied within about a second.
const READY_BEHIND_WRITES_MAX: u64 = 10_000;

/// What each member said last, and when.
pub(crate) type Heard = BTreeMap<NodeId, (Standing, Instant)>;

/// When a look is taken.
#[derive(Debug, Clone, Copy)]
pub(crate) struct When {
    /// This moment, in the clock by which members were heard.
    pub(crate) now: Instant,
    /// Since when the switch is in its phase, as far as is known here.
    pub(crate) since: Instant,
}

/// Something that a phase waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Blocker {
    /// The member has not told how it stands, for so long or ever.
    Silent { node: NodeId, age: Option<Duration> },
    /// The member has not told how it stands since the switch began: it may have gone just before.
    Unaware { node: NodeId },
    /// The member is still in an era before, or already in one after.
    OtherEra { node: NodeId, era: Era },
    /// The member is too far behind for anything but a copy of all the data.
    FullCopy { node: NodeId },
    /// The member lags so much, or at least so much.
    Lags { node: NodeId, lag_ms: u64, known: bool },
    /// The member lacks so many writes.
    Behind { node: NodeId, writes: u64 },
    /// No member that takes part leads the region.
    NoLeader,
    /// The member has not promised yet to take no more writes.
    Unsealed { node: NodeId, answering: bool },
    /// The member does not hold yet all that is kept.
    Undrained { node: NodeId, writes: u64 },
    /// Members that hold the same writes hold different data.
    Damaged { digests: BTreeMap<NodeId, u64> },
    /// The region's log has not taken the new mode yet.
    NoMarker,
}

impl fmt::Display for Blocker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Blocker::Silent { node, age: Some(age) } => {
                write!(f, "node {node} has not told how it stands for {:.1} s", age.as_secs_f64())
            }
            Blocker::Silent { node, age: None } => write!(f, "node {node} has not told how it stands yet"),
            Blocker::Unaware { node } => {
                write!(f, "node {node} has not told how it stands since the switch began")
            }
            Blocker::OtherEra { node, era } => {
                write!(f, "node {node} is in era {era}, not in the one that the switch began in")
            }
            Blocker::FullCopy { node } => {
                write!(f, "node {node} is so far behind that it needs a copy of all the data")
            }
            Blocker::Lags { node, lag_ms, known: true } => {
                write!(f, "writes that node {node} has are {lag_ms} ms old and not everywhere")
            }
            Blocker::Lags { node, lag_ms, known: false } => {
                write!(
                    f,
                    "node {node} does not hear all the others: its lag is unknown, at least {lag_ms} ms"
                )
            }
            Blocker::Behind { node, writes } => {
                write!(f, "node {node} lacks {writes} writes that others have")
            }
            Blocker::NoLeader => f.write_str("no member that takes part leads the region"),
            Blocker::Unsealed { node, answering: true } => {
                write!(f, "node {node} has writes under way that are not answered yet")
            }
            Blocker::Unsealed { node, answering: false } => {
                write!(f, "node {node} has not sealed its gate yet")
            }
            Blocker::Undrained { node, writes: 0 } => {
                write!(f, "node {node} has not confirmed yet that it holds all that is kept")
            }
            Blocker::Undrained { node, writes } => {
                write!(f, "node {node} lacks {writes} writes that are kept")
            }
            Blocker::Damaged { digests } => {
                f.write_str("members hold the same writes and different data (")?;
                for (place, (node, digest)) in digests.iter().enumerate() {
                    let comma = if place == 0 { "" } else { ", " };
                    write!(f, "{comma}node {node}: {digest:016x}")?;
                }
                f.write_str("): one of them is damaged")
            }
            Blocker::NoMarker => f.write_str("the region's log has not taken the new mode yet"),
        }
    }
}

/// What is to be seen of a switch.
#[derive(Debug)]
pub(crate) struct Look {
    /// For the controller.
    pub(crate) facts: Facts,
    /// All that members promise, old and new.
    pub(crate) reports: Vec<Report>,
    /// What its phase waits for.
    pub(crate) blockers: Vec<Blocker>,
}

/// Looks at a switch. `now_ms` is this moment in the clock of the deadline.
pub(crate) fn look(descriptor: &Descriptor, heard: &Heard, when: When, now_ms: u64) -> Look {
    let blockers = blockers(descriptor, heard, when);
    let facts = Facts {
        ready: descriptor.phase == Phase::Preparing && blockers.is_empty(),
        marker_applied: is_applied(descriptor, heard),
        give_up: descriptor.deadline_ms != 0 && descriptor.deadline_ms <= now_ms,
        now_ms,
    };
    let reports = heard.values().flat_map(|(standing, _)| standing.reports.iter().cloned()).collect();
    Look { facts, reports, blockers }
}

/// Whether a member is past the descriptor's era. Eras never go back, so a word of whatever age will do.
fn is_applied(descriptor: &Descriptor, heard: &Heard) -> bool {
    heard.values().any(|(standing, _)| descriptor.era < standing.era)
}

/// What the phase waits for.
pub(crate) fn blockers(descriptor: &Descriptor, heard: &Heard, when: When) -> Vec<Blocker> {
    let now = when.now;
    let roster = descriptor.roster.iter().copied();
    match descriptor.phase {
        Phase::Settled => Vec::new(),
        Phase::Preparing => {
            let mut blockers: Vec<_> =
                roster.filter_map(|node| unready(descriptor, heard, node, when)).collect();
            blockers.extend(leaderless(descriptor, heard, now));
            // Who is silent may be why the others do not know their lag.
            let is_silence =
                |blocker: &Blocker| matches!(blocker, Blocker::Silent { .. } | Blocker::Unaware { .. });
            blockers.sort_by_key(|blocker| !is_silence(blocker));
            blockers
        }
        Phase::Sealing => {
            let sealed = sealed(descriptor, heard);
            roster
                .filter(|node| !sealed.contains(node))
                .map(|node| {
                    let answering = heard.get(&node).is_some_and(|(standing, _)| standing.answering);
                    silent(heard.get(&node), node, now).unwrap_or(Blocker::Unsealed { node, answering })
                })
                .collect()
        }
        Phase::Draining => undrained(descriptor, heard, now),
        Phase::Flipping if is_applied(descriptor, heard) => Vec::new(),
        Phase::Flipping => {
            leaderless(descriptor, heard, now).into_iter().chain([Blocker::NoMarker]).collect()
        }
    }
}

fn silent(said: Option<&(Standing, Instant)>, node: NodeId, now: Instant) -> Option<Blocker> {
    let age = said.map(|(_, at)| now.saturating_duration_since(*at));
    age.is_none_or(|age| HEARD_MAX < age).then_some(Blocker::Silent { node, age })
}

/// Why a member is not ready for the switch to go beyond its preparations.
fn unready(descriptor: &Descriptor, heard: &Heard, node: NodeId, when: When) -> Option<Blocker> {
    let said = heard.get(&node);
    let silent = silent(said, node, when.now);
    let (None, Some((standing, at))) = (&silent, said) else { return silent };
    if *at < when.since {
        return Some(Blocker::Unaware { node });
    }
    if standing.era != descriptor.era {
        return Some(Blocker::OtherEra { node, era: standing.era });
    }
    lagging(descriptor, heard, node)
}

/// How a member lags too much.
pub(crate) fn lagging(descriptor: &Descriptor, heard: &Heard, node: NodeId) -> Option<Blocker> {
    let Standing { lag_ms, lag_known: known, needs_full_copy, .. } = heard.get(&node)?.0;
    if needs_full_copy {
        return Some(Blocker::FullCopy { node });
    }
    // To eventual nothing is held back: who lags comes to the marker later, and is as strong as before until then.
    let must_know = descriptor.mode == Mode::Eventual;
    if !descriptor.excluded.is_empty() {
        let writes = behind_writes(heard, node, &descriptor.excluded);
        return (READY_BEHIND_WRITES_MAX < writes).then_some(Blocker::Behind { node, writes });
    }
    let lags = known && READY_LAG_MS_MAX < lag_ms || !known && must_know;
    lags.then_some(Blocker::Lags { node, lag_ms, known })
}

/// Writes that a member lacks and another one has, other than those of `without`: the last word of one that has died may tell of
/// writes that nobody can bring. In a strong region, entries, by its own word.
pub(crate) fn behind_writes(heard: &Heard, node: NodeId, without: &BTreeSet<NodeId>) -> u64 {
    let Some((own, _)) = heard.get(&node) else { return 0 };
    if own.mode == Mode::Strong {
        return own.behind_writes;
    }
    let mut anybody = Vector::default();
    for (said, (standing, _)) in heard {
        if standing.era == own.era && !without.contains(said) {
            anybody.merge(&standing.applied);
        }
    }
    own.applied.lacks(&anybody)
}

fn leaderless(descriptor: &Descriptor, heard: &Heard, now: Instant) -> Option<Blocker> {
    let leads = |node: &NodeId| {
        let said = heard.get(node);
        silent(said, *node, now).is_none() && said.is_some_and(|(standing, _)| standing.leads)
    };
    (!descriptor.roster.iter().any(leads)).then_some(Blocker::NoLeader)
}

/// The members that have promised, for this switch, to take no more writes.
pub(crate) fn sealed(descriptor: &Descriptor, heard: &Heard) -> BTreeSet<NodeId> {
    let reports = heard.values().flat_map(|(standing, _)| &standing.reports);
    let sealed = reports.filter_map(|report| match report {
        Report::Sealed { switch, node, .. } if *switch == descriptor.switch => Some(*node),
        Report::Sealed { .. } | Report::Drained { .. } => None,
    });
    sealed.collect()
}

/// The members that hold, for this switch, all that is kept, and the hash of what they hold.
pub(crate) fn drained(descriptor: &Descriptor, heard: &Heard) -> BTreeMap<NodeId, u64> {
    let reports = heard.values().flat_map(|(standing, _)| &standing.reports);
    let drained = reports.filter_map(|report| match report {
        Report::Drained { switch, node, digest } if *switch == descriptor.switch => Some((*node, *digest)),
        Report::Sealed { .. } | Report::Drained { .. } => None,
    });
    drained.collect()
}

fn undrained(descriptor: &Descriptor, heard: &Heard, now: Instant) -> Vec<Blocker> {
    let drained = drained(descriptor, heard);
    let missing = descriptor.roster.iter().copied().filter(|node| !drained.contains_key(node));
    let mut blockers: Vec<_> = missing
        .map(|node| {
            let said = heard.get(&node);
            let lacks = |(standing, _): &(Standing, Instant)| standing.applied.lacks(&descriptor.cut);
            let writes = said.map_or(0, lacks);
            silent(said, node, now).unwrap_or(Blocker::Undrained { node, writes })
        })
        .collect();
    let digests: BTreeMap<_, _> =
        drained.into_iter().filter(|(node, _)| descriptor.roster.contains(node)).collect();
    if 1 < digests.values().collect::<BTreeSet<_>>().len() {
        blockers.push(Blocker::Damaged { digests });
    }
    blockers
}

#[cfg(test)]
mod tests {
    use super::super::standing::tests::standing;
    use super::*;
    use rdb_core::ids::Incarnation;
    use rdb_core::switch::controller::next;
    use rdb_core::switch::{Origin, Step, SwitchId};

    const NODES: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];

    fn begin(excluded: &[NodeId]) -> Step {
        let excluded = excluded.iter().copied().collect();
        Step::Begin { excluded, deadline_ms: 1_000, write_pause_ms_max: 10_000 }
    }

    fn after(mode: Mode, steps: &[Step]) -> Descriptor {
        let first = Descriptor::new(mode, NODES);
        steps.iter().fold(first, |now, step| now.apply(&now.change(step.clone())).unwrap())
    }

    fn to_strong(steps: usize) -> Descriptor {
        let origin = Origin { node: NODES[0], incarnation: Incarnation(1) };
        let cut = Vector::from_iter([(origin, 7)]);
        let all = [begin(&[]), Step::Seal { deadline_ms: 20_000 }, Step::Drain { cut }, Step::Flip];
        after(Mode::Eventual, &all[..steps])
    }

    /// All three were heard just now, node 1 leads, nothing lags.
    fn heard(mode: Mode, now: Instant) -> Heard {
        let said = |node: NodeId| {
            let standing = Standing { leads: node == NODES[0], ..standing(16, mode) };
            (node, (standing, now))
        };
        NODES.into_iter().map(said).collect()
    }

    fn change(heard: &Heard, node: NodeId, change: impl FnOnce(&mut Standing)) -> Heard {
        let mut heard = heard.clone();
        heard.get_mut(&node).map(|(standing, _)| change(standing)).unwrap();
        heard
    }

    /// Of a phase that began before anything was heard.
    fn blockers(descriptor: &Descriptor, heard: &Heard, now: Instant) -> Vec<Blocker> {
        let since = heard.values().map(|(_, at)| *at).min().unwrap_or(now);
        super::blockers(descriptor, heard, When { now, since })
    }

    fn step(descriptor: &Descriptor, heard: &Heard, now: Instant, now_ms: u64) -> Option<Step> {
        let since = heard.values().map(|(_, at)| *at).min().unwrap_or(now);
        let Look { facts, reports, .. } = look(descriptor, heard, When { now, since }, now_ms);
        next(descriptor, &reports, facts).map(|change| change.step)
    }

    #[test]
    fn the_preparations_end_when_all_are_there_and_close() {
        let now = Instant::now();
        let preparing = to_strong(1);
        let fine = heard(Mode::Eventual, now);
        let seal = Some(Step::Seal { deadline_ms: 10_500 });
        assert_eq!(step(&preparing, &fine, now, 500), seal, "the pause is counted from here on");
        let (two, three) = (NODES[1], NODES[2]);
        let later = now + HEARD_MAX + Duration::from_millis(1);
        let missing: Heard = fine.clone().into_iter().filter(|(node, _)| *node != three).collect();
        let blocked = [
            (missing, Blocker::Silent { node: three, age: None }),
            (change(&fine, two, |said| said.era = Era(2)), Blocker::OtherEra { node: two, era: Era(2) }),
            (change(&fine, two, |said| said.needs_full_copy = true), Blocker::FullCopy { node: two }),
            (
                change(&fine, two, |said| said.lag_ms = 1001),
                Blocker::Lags { node: two, lag_ms: 1001, known: true },
            ),
            (
                change(&fine, two, |said| said.lag_known = false),
                Blocker::Lags { node: two, lag_ms: 0, known: false },
            ),
            (change(&fine, NODES[0], |said| said.leads = false), Blocker::NoLeader),
        ];
        for (heard, blocker) in blocked {
            assert_eq!(blockers(&preparing, &heard, now), std::slice::from_ref(&blocker));
            assert_eq!(step(&preparing, &heard, now, 500), None, "{blocker}");
        }
        // The cause comes before what follows from it.
        let mut gone = change(&fine, NODES[0], |said| said.lag_known = false);
        gone.remove(&three);
        let silence = Blocker::Silent { node: three, age: None };
        assert_eq!(blockers(&preparing, &gone, now)[0], silence);
        let silent = blockers(&preparing, &fine, later);
        assert_eq!(silent.len(), 4, "three that are silent, and so nobody who leads: {silent:?}");
    }

    /// It may have been heard within the second, and be gone since.
    #[test]
    fn who_has_not_spoken_since_the_switch_began_is_waited_for() {
        let since = Instant::now();
        let preparing = to_strong(1);
        let mut all = heard(Mode::Eventual, since);
        let before = since.checked_sub(HEARD_MAX / 2).unwrap();
        all.get_mut(&NODES[1]).map(|(_, at)| *at = before).unwrap();
        let when = When { now: since, since };
        assert_eq!(super::blockers(&preparing, &all, when), [Blocker::Unaware { node: NODES[1] }]);
        assert!(!look(&preparing, &all, when, 500).facts.ready);
        // Promises are of a switch, whenever they were heard.
        let flipping = to_strong(4);
        let applied = change(&all, NODES[1], |said| said.era = Era(2));
        assert_eq!(super::blockers(&flipping, &applied, when), []);
    }

    #[test]
    fn to_eventual_nobody_is_waited_for_but_those_who_are_silent() {
        let now = Instant::now();
        let preparing = after(Mode::Strong, &[begin(&[])]);
        let fine = heard(Mode::Strong, now);
        assert_eq!(step(&preparing, &fine, now, 500), Some(Step::Flip));
        let unknown = change(&fine, NODES[1], |said| said.lag_known = false);
        assert_eq!(step(&preparing, &unknown, now, 500), Some(Step::Flip));
        let lags = change(&fine, NODES[1], |said| said.lag_ms = 5000);
        assert_eq!(step(&preparing, &lags, now, 500), None);
        let silent: Heard = fine.into_iter().filter(|(node, _)| *node != NODES[1]).collect();
        assert_eq!(step(&preparing, &silent, now, 500), None);
    }

    /// A member may say anything of what it has.
    #[test]
    fn counts_of_what_is_missing_go_no_higher_than_numbers_do() {
        let now = Instant::now();
        let origins = [1, 2].map(|start| Origin { node: NODES[0], incarnation: Incarnation(start) });
        let huge: Vector = origins.map(|origin| (origin, u64::MAX)).into_iter().collect();
        let heard = change(&heard(Mode::Eventual, now), NODES[0], |said| said.applied = huge.clone());
        assert_eq!(behind_writes(&heard, NODES[1], &BTreeSet::new()), u64::MAX);
        let mut draining = to_strong(3);
        draining.cut = huge;
        let undrained = Blocker::Undrained { node: NODES[1], writes: u64::MAX };
        assert!(blockers(&draining, &heard, now).contains(&undrained));
    }

    /// Its lag is measured against the one that is missing, and so says nothing.
    #[test]
    fn without_a_member_the_others_are_measured_in_writes() {
        let now = Instant::now();
        let preparing = after(Mode::Eventual, &[begin(&[NODES[2]])]);
        let mut there = heard(Mode::Eventual, now);
        there.remove(&NODES[2]);
        there.values_mut().for_each(|(said, _)| (said.lag_known, said.lag_ms) = (false, 9_000));
        assert_eq!(blockers(&preparing, &there, now), []);
        let origin = Origin { node: NODES[0], incarnation: Incarnation(1) };
        let ahead =
            |writes| change(&there, NODES[0], |said| said.applied = Vector::from_iter([(origin, writes)]));
        assert_eq!(blockers(&preparing, &ahead(10_000), now), []);
        let behind = Blocker::Behind { node: NODES[1], writes: 10_001 };
        assert_eq!(blockers(&preparing, &ahead(10_001), now), [behind]);
        let mut last_word = ahead(0);
        last_word.insert(NODES[2], heard(Mode::Eventual, now)[&NODES[2]].clone());
        let gone = Origin { node: NODES[2], incarnation: Incarnation(1) };
        let last_word =
            change(&last_word, NODES[2], |said| said.applied = Vector::from_iter([(gone, 1_000_000)]));
        assert_eq!(blockers(&preparing, &last_word, now), [], "nobody can bring what it had");
        let next_era = change(&ahead(10_001), NODES[1], |said| said.era = Era(2));
        assert_eq!(behind_writes(&next_era, NODES[1], &BTreeSet::new()), 0, "each era counts anew");
        // One that is not to take part must not lead: it would have to propose a marker that it never applies.
        let mut led_by_it = heard(Mode::Eventual, now);
        led_by_it.values_mut().for_each(|(said, _)| said.leads = false);
        led_by_it.get_mut(&NODES[2]).map(|(said, _)| said.leads = true).unwrap();
        assert_eq!(blockers(&preparing, &led_by_it, now), [Blocker::NoLeader]);
    }

    #[test]
    fn sealing_waits_for_each_promise_of_this_very_switch() {
        let now = Instant::now();
        let sealing = to_strong(2);
        let seals = |node: NodeId, switch| Report::Sealed {
            switch: SwitchId(switch),
            node,
            synced: Vector::default(),
        };
        let mut all = heard(Mode::Eventual, now);
        all = change(&all, NODES[0], |said| said.reports = vec![seals(NODES[0], 1)]);
        all = change(&all, NODES[1], |said| said.answering = true);
        all = change(&all, NODES[2], |said| said.reports = vec![seals(NODES[2], 9)]);
        let waits = [
            Blocker::Unsealed { node: NODES[1], answering: true },
            Blocker::Unsealed { node: NODES[2], answering: false },
        ];
        assert_eq!(blockers(&sealing, &all, now), waits);
        assert_eq!(step(&sealing, &all, now, 500), None);
        for node in [NODES[1], NODES[2]] {
            all = change(&all, node, |said| said.reports = vec![seals(node, 1)]);
        }
        assert_eq!(blockers(&sealing, &all, now), []);
        let later = now + 10 * HEARD_MAX;
        assert_eq!(
            step(&sealing, &all, later, 500),
            Some(Step::Drain { cut: Vector::default() }),
            "promises do not age"
        );
    }

    #[test]
    fn draining_tells_who_lacks_how_much_and_who_differs() {
        let now = Instant::now();
        let draining = to_strong(3);
        let drains = |node, digest| Report::Drained { switch: SwitchId(1), node, digest };
        let mut all = heard(Mode::Eventual, now);
        all = change(&all, NODES[0], |said| said.applied = draining.cut.clone());
        all = change(&all, NODES[1], |said| said.reports = vec![drains(NODES[1], 5)]);
        let waits = [
            Blocker::Undrained { node: NODES[0], writes: 0 },
            Blocker::Undrained { node: NODES[2], writes: 7 },
        ];
        assert_eq!(blockers(&draining, &all, now), waits);
        all = change(&all, NODES[0], |said| said.reports = vec![drains(NODES[0], 5)]);
        let differs = change(&all, NODES[2], |said| said.reports = vec![drains(NODES[2], 6)]);
        let found = blockers(&draining, &differs, now);
        assert!(matches!(&found[..], [Blocker::Damaged { digests }] if digests.len() == 3), "{found:?}");
        assert!(found[0].to_string().contains("node 3: 0000000000000006"), "{}", found[0]);
        assert_eq!(step(&draining, &differs, now, 500), None);
        all = change(&all, NODES[2], |said| said.reports = vec![drains(NODES[2], 5)]);
        assert_eq!(step(&draining, &all, now, 500), Some(Step::Flip));
    }

    #[test]
    fn the_flip_is_over_when_one_has_applied_the_marker() {
        let now = Instant::now();
        let flipping = to_strong(4);
        let fine = heard(Mode::Eventual, now);
        assert_eq!(blockers(&flipping, &fine, now), [Blocker::NoMarker]);
        assert_eq!(
            step(&flipping, &fine, now, u64::MAX),
            None,
            "there is no way back, whatever the deadline"
        );
        let applied = change(&fine, NODES[1], |said| said.era = Era(2));
        assert_eq!(blockers(&flipping, &applied, now), []);
        let later = now + 10 * HEARD_MAX;
        assert_eq!(step(&flipping, &applied, later, 500), Some(Step::Finish));
    }

    #[test]
    fn the_deadline_calls_it_off_while_that_is_possible() {
        let now = Instant::now();
        let fine = heard(Mode::Eventual, now);
        for (steps, deadline_ms) in [(1, 1_000), (2, 20_000), (3, 20_000)] {
            let descriptor = to_strong(steps);
            assert_ne!(step(&descriptor, &fine, now, deadline_ms - 1), Some(Step::Abort), "{steps}");
            assert_eq!(step(&descriptor, &fine, now, deadline_ms), Some(Step::Abort), "{steps}");
        }
        let for_ever = Descriptor { deadline_ms: 0, ..to_strong(2) };
        assert_eq!(step(&for_ever, &fine, now, u64::MAX), None);
    }

    #[test]
    fn a_settled_namespace_waits_for_nothing() {
        let now = Instant::now();
        let settled = to_strong(0);
        assert_eq!(blockers(&settled, &Heard::new(), now), []);
        assert_eq!(step(&settled, &heard(Mode::Eventual, now), now, u64::MAX), None);
    }
}

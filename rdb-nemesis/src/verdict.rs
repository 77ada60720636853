//! Judges a run: by the checks, by how soon writes were acknowledged again, and by whether anything has happened at all.

use crate::checks::{CHECKS, FINAL};
use crate::history::{Call, Entry, Outcome};
use crate::lab::{Bar, Evidence};
use crate::probe;
use crate::workloads::switched;
use std::collections::BTreeSet;
use std::time::Duration;

/// Answered operations before the first fault: fewer show nothing.
pub(crate) const OPERATIONS_BEFORE_MIN: u64 = 100;
/// Without a leader on the majority's side.
const LEADER_LOST_MAX: Duration = Duration::from_secs(5);
/// After all nodes have come back.
const ALL_LOST_MAX: Duration = Duration::from_secs(10);
/// After a fault was undone, its trouble counts as the fault's for so long.
const AFTERMATH_NS: u64 = 2_000_000_000;

/// What the checks say to a history: what each has looked at, and what is wrong.
#[must_use]
pub fn judge(history: &[Entry]) -> (Vec<String>, Vec<String>) {
    let (mut looked, mut problems) = (Vec::new(), Vec::new());
    for check in CHECKS {
        match (check.check)(history) {
            Ok(what) => looked.push(format!("{}: {what}", check.name)),
            Err(why) => problems.push(format!("{}: {why}", check.name)),
        }
    }
    (looked, problems)
}

/// After which time a write was acknowledged that was made after a fault; `None` for faults that are not judged by it.
pub(crate) fn resumed_after(history: &[Entry], evidence: &Evidence) -> Option<Result<Duration, String>> {
    let from = match evidence.bar {
        Bar::None | Bar::LeaderStays | Bar::LeaderKept => return None,
        Bar::LeaderLost | Bar::HandedOver => evidence.began_ns,
        Bar::AllLost => evidence.ended_ns,
    };
    // In eventual mode there is nothing to resume.
    let strong = history.iter().filter(|entry| entry.workload != switched::NAME);
    let acknowledged = strong.filter(|entry| entry.is_acknowledged_write() && from <= entry.call_ns);
    let first = acknowledged.filter_map(|entry| entry.return_ns).min();
    Some(match first {
        Some(at) => Ok(Duration::from_nanos(at - from)),
        None => Err(format!("no write was acknowledged any more after {}", evidence.what)),
    })
}

/// Whether a fault took too long to be overcome, or was not overcome but healed.
pub(crate) fn over_the_bar(evidence: &Evidence, after: Duration) -> Option<String> {
    let most = if evidence.bar == Bar::AllLost { ALL_LOST_MAX } else { LEADER_LOST_MAX };
    let lasted = Duration::from_nanos(evidence.healing_ns - evidence.began_ns);
    let healed = evidence.bar.leaves_a_majority() && lasted < after;
    (most < after || healed).then(|| {
        let healed = if healed { ", when it had been healed" } else { "" };
        format!(
            "availability: writes resumed {:.1} s after {}{healed}, and must within {} s, while it lasts",
            after.as_secs_f64(),
            evidence.what,
            most.as_secs()
        )
    })
}

/// Whether a leader has lost its lead that must keep it.
pub(crate) fn lost_the_lead(evidence: &Evidence) -> Option<String> {
    (evidence.bar == Bar::LeaderKept && evidence.leader_changed)
        .then(|| format!("the leader did not keep its lead while {} lasted", evidence.what))
}

/// What has not happened though it should have.
pub(crate) fn vacuous(history: &[Entry], faults: &[Evidence]) -> Vec<String> {
    let mut missing = Vec::new();
    let Some(first) = faults.first() else {
        return vec!["vacuous: there was no fault".to_owned()];
    };
    let work = || history.iter().filter(|entry| entry.workload != FINAL && entry.workload != probe::NAME);
    let before = work().filter(|entry| entry.is_answered() && entry.call_ns < first.began_ns).count() as u64;
    if before < OPERATIONS_BEFORE_MIN {
        missing
            .push(format!("vacuous: {before} operations before the first fault, of {OPERATIONS_BEFORE_MIN}"));
    }
    for fault in faults {
        if let Err(why) = &fault.seen {
            missing.push(format!("vacuous: {} was not seen: {why}", fault.what));
        }
        let during = |entry: &&Entry| {
            fault.began_ns <= entry.return_ns.unwrap_or(entry.call_ns)
                && entry.call_ns <= fault.ended_ns + AFTERMATH_NS
        };
        // What is switched is refused at times whatever happens: it asks for what its mode does not do.
        let strong = || work().filter(|entry| entry.workload != switched::NAME);
        let disturbed = || strong().filter(during).any(|entry| !entry.is_answered());
        if fault.bar.disturbs() && !fault.leader_changed && !disturbed() {
            missing.push(format!("vacuous: {} disturbed nobody, and the leader is the same", fault.what));
        }
    }
    missing.extend(reads_everywhere(history));
    let healed = faults.last().map_or(0, |fault| fault.ended_ns);
    let last = history.iter().filter(|entry| entry.workload != FINAL && healed <= entry.call_ns);
    if !last.clone().any(Entry::is_acknowledged_write) {
        missing.push("vacuous: no write was acknowledged after the last fault".to_owned());
    }
    missing
}

/// The register asks every node for linearizable reads, not the leader alone.
fn reads_everywhere(history: &[Entry]) -> Option<String> {
    let register = || history.iter().filter(|entry| entry.workload == "register" && entry.call == Call::Get);
    let read = register().filter(|entry| matches!(entry.outcome, Outcome::Found { .. }));
    let nodes: BTreeSet<u64> = read.filter_map(|entry| entry.node).collect();
    let wanted = register().next().is_some();
    (wanted && nodes.len() < 2)
        .then(|| format!("vacuous: reads of the register were answered by these nodes alone: {nodes:?}"))
}

/// Where leaders serve reads by lease, some of the register's were served so.
pub(crate) fn reads_by_lease(history: &[Entry]) -> Option<String> {
    let register = || history.iter().filter(|entry| entry.workload == "register" && entry.call == Call::Get);
    let by_lease = |entry: &Entry| entry.served.as_deref() == Some("lease");
    (register().next().is_some() && !register().any(by_lease))
        .then(|| "vacuous: no read of the register was served by a lease".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Stamp;
    use rdb_check::Version;

    fn write(workload: &str, call_ns: u64, outcome: Outcome) -> Entry {
        Entry {
            client: call_ns,
            workload: workload.to_owned(),
            key: "key".to_owned(),
            request: None,
            call: Call::Put(call_ns.to_string()),
            call_ns,
            return_ns: Some(call_ns + 5),
            outcome,
            epoch: None,
            node: None,
            served: None,
            name: None,
        }
    }

    fn done(at: u64) -> Entry {
        write("set", at, Outcome::Done { version: Stamp(Version { era: 1, hlc: at, node: 1 }) })
    }

    fn failed(at: u64) -> Entry {
        write("set", at, Outcome::NotDone { why: String::new() })
    }

    fn fault() -> Evidence {
        Evidence {
            what: "a fault".to_owned(),
            began_ns: 1_000_000,
            healing_ns: 1_900_000,
            ended_ns: 2_000_000,
            seen: Ok(String::new()),
            leader_changed: false,
            bar: Bar::LeaderLost,
        }
    }

    fn busy() -> Vec<Entry> {
        let mut history: Vec<Entry> = (0..OPERATIONS_BEFORE_MIN).map(|number| done(number * 10)).collect();
        history.extend([failed(1_500_000), done(1_800_000), done(3_000_000)]);
        history
    }

    #[test]
    fn a_run_in_which_nothing_happened_fails() {
        assert_eq!(vacuous(&busy(), &[fault()]), Vec::<String>::new());
        let fails = |history: &[Entry], faults: &[Evidence], why: &str| {
            let missing = vacuous(history, faults);
            assert!(missing.iter().any(|missing| missing.contains(why)), "{why}: {missing:?}");
        };
        fails(&busy(), &[], "no fault");
        fails(&busy()[1..], &[fault()], "before the first fault");
        fails(&busy(), &[Evidence { seen: Err("idle".to_owned()), ..fault() }], "not seen");
        let undisturbed: Vec<Entry> = busy().into_iter().filter(Entry::is_answered).collect();
        fails(&undisturbed, &[fault()], "disturbed nobody");
        let mut elsewhere = undisturbed.clone();
        elsewhere.push(Entry { workload: switched::NAME.to_owned(), ..failed(1_500_000) });
        fails(&elsewhere, &[fault()], "disturbed nobody");
        assert!(vacuous(&undisturbed, &[Evidence { leader_changed: true, ..fault() }]).is_empty());
        assert!(vacuous(&undisturbed, &[Evidence { bar: Bar::LeaderStays, ..fault() }]).is_empty());
        let last = busy().len() - 1;
        fails(&busy()[..last], &[fault()], "after the last fault");
    }

    #[test]
    fn reads_of_one_node_alone_are_not_enough() {
        let read = |node| Entry {
            call: Call::Get,
            node: Some(node),
            ..write("register", 5, Outcome::Found { value: None, version: None })
        };
        assert!(reads_everywhere(&[]).is_none());
        assert!(reads_everywhere(&[read(1), read(1)]).is_some());
        assert!(reads_everywhere(&[read(1), read(2)]).is_none());
        assert!(reads_by_lease(&[]).is_none());
        assert!(reads_by_lease(&[read(1)]).is_some());
        assert!(reads_by_lease(&[read(1), Entry { served: Some("lease".to_owned()), ..read(2) }]).is_none());
    }

    #[test]
    fn writes_resume_with_the_first_that_was_made_after_the_fault() {
        let resumed =
            |fault: &Evidence| resumed_after(&busy(), fault).and_then(Result::ok).map(|time| time.as_nanos());
        assert_eq!(resumed(&fault()), Some(800_005));
        assert_eq!(resumed(&Evidence { bar: Bar::AllLost, ..fault() }), Some(1_000_005));
        assert_eq!(resumed(&Evidence { bar: Bar::None, ..fault() }), None);
        let never = Evidence { began_ns: 9_000_000, ..fault() };
        assert!(resumed_after(&busy(), &never).is_some_and(|resumed| resumed.is_err()));
        let long = Evidence { healing_ns: u64::MAX, ended_ns: u64::MAX, ..fault() };
        assert!(over_the_bar(&long, Duration::from_millis(5_001)).is_some());
        assert!(over_the_bar(&long, Duration::from_millis(4_999)).is_none());
    }

    #[test]
    fn what_the_healing_brought_back_has_not_resumed() {
        let lasted = Duration::from_nanos(fault().healing_ns - fault().began_ns);
        let later = lasted + Duration::from_nanos(1);
        assert!(over_the_bar(&fault(), lasted).is_none());
        assert!(over_the_bar(&fault(), later).is_some_and(|why| why.contains("healed")));
        assert!(over_the_bar(&Evidence { bar: Bar::AllLost, ..fault() }, later).is_none());
    }

    #[test]
    fn a_leader_that_must_keep_its_lead_has_to() {
        let changed = |bar| Evidence { leader_changed: true, bar, ..fault() };
        assert!(lost_the_lead(&changed(Bar::LeaderKept)).is_some());
        assert!(lost_the_lead(&changed(Bar::LeaderStays)).is_none());
        assert!(lost_the_lead(&Evidence { bar: Bar::LeaderKept, ..fault() }).is_none());
    }
}

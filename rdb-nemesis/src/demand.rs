//! What must have succeeded for a run to show anything: every request that its workloads make.
//!
//! A request that is always refused leaves a history in which nothing is wrong. So each must have succeeded before the
//! first fault, while each fault lasts that leaves a majority, and after the last one.

use crate::history::{Entry, History, Request};
use crate::lab::Evidence;
use crate::workloads::Workload;
use std::collections::BTreeSet;

/// A workload, and a request that it makes.
type Demanded = (&'static str, Request);

/// What must have succeeded.
#[derive(Debug, Clone, Default)]
pub(crate) struct Demand(Vec<Demanded>);

impl Demand {
    /// Of these workloads.
    pub(crate) fn of(workloads: &[&'static Workload]) -> Self {
        let demanded = |workload: &&'static Workload| {
            let name = workload.name;
            workload.requests.iter().map(move |request| (name, *request))
        };
        Self(workloads.iter().flat_map(demanded).collect())
    }

    /// What was not made since then, or has not succeeded yet; `None`: all has.
    pub(crate) fn missing_since(&self, history: &History, at_ns: u64) -> Option<String> {
        told(
            self.0
                .iter()
                .filter(|(workload, request)| !history.has_succeeded_since(at_ns, workload, *request)),
        )
    }

    /// Says of each part of a run what never succeeded in it.
    pub(crate) fn vacuous(&self, history: &[Entry], faults: &[Evidence]) -> Vec<String> {
        let (Some(first), Some(last)) = (faults.first(), faults.last()) else { return Vec::new() };
        let mut missing = Vec::new();
        let mut demand = |when: &str, from_ns: u64, to_ns: u64| {
            if let Some(what) = self.missing_within(history, from_ns, to_ns) {
                missing.push(format!("vacuous: {when} none of these succeeded: {what}"));
            }
        };
        demand("before the first fault", 0, first.began_ns);
        for fault in faults.iter().filter(|fault| fault.bar.leaves_a_majority()) {
            demand(&format!("during {}", fault.what), fault.began_ns, fault.healing_ns);
        }
        demand("after the last fault", last.ended_ns, u64::MAX);
        missing
    }

    /// What was not both asked and answered within these times.
    fn missing_within(&self, history: &[Entry], from_ns: u64, to_ns: u64) -> Option<String> {
        let within =
            |entry: &&Entry| from_ns <= entry.call_ns && entry.return_ns.is_some_and(|at_ns| at_ns <= to_ns);
        let succeeded: BTreeSet<(&str, Request)> = history
            .iter()
            .filter(|entry| entry.has_succeeded())
            .filter(within)
            .filter_map(|entry| Some((entry.workload.as_str(), entry.request?)))
            .collect();
        told(self.0.iter().filter(|demanded| !succeeded.contains(*demanded)))
    }
}

fn told<'a>(demanded: impl Iterator<Item = &'a Demanded>) -> Option<String> {
    let names: Vec<_> = demanded.map(|(workload, request)| format!("{request:?} of {workload}")).collect();
    (!names.is_empty()).then(|| names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Call, Outcome};
    use crate::lab::Bar;

    fn demand() -> Demand {
        Demand(vec![("set", Request::Put), ("register", Request::Get)])
    }

    fn entry(workload: &str, request: Request, call_ns: u64, outcome: Outcome) -> Entry {
        Entry {
            client: call_ns,
            workload: workload.to_owned(),
            key: "key".to_owned(),
            request: Some(request),
            call: Call::Get,
            call_ns,
            return_ns: Some(call_ns + 5),
            outcome,
            epoch: None,
            node: None,
            served: None,
            name: None,
        }
    }

    fn found(workload: &str, request: Request, call_ns: u64) -> Entry {
        entry(workload, request, call_ns, Outcome::Found { value: None, version: None })
    }

    fn refused(workload: &str, request: Request, call_ns: u64) -> Entry {
        entry(workload, request, call_ns, Outcome::NotDone { why: String::new() })
    }

    fn fault(bar: Bar) -> Evidence {
        Evidence {
            what: "a fault".to_owned(),
            began_ns: 100,
            healing_ns: 190,
            ended_ns: 200,
            seen: Ok(String::new()),
            leader_changed: true,
            bar,
        }
    }

    /// Both requests, at three times: before the fault, while it lasts, and after it.
    fn busy() -> Vec<Entry> {
        let at = |at_ns| [found("set", Request::Put, at_ns), found("register", Request::Get, at_ns)];
        [10, 150, 300].into_iter().flat_map(at).collect()
    }

    #[test]
    fn a_request_that_never_succeeded_is_missed_wherever_it_should_have() {
        let faults = [fault(Bar::LeaderLost)];
        assert_eq!(demand().vacuous(&busy(), &faults), Vec::<String>::new());
        for (lost, when) in [(0, "before the first"), (2, "during a fault"), (4, "after the last")] {
            let mut history = busy();
            history[lost] = refused("set", Request::Put, history[lost].call_ns);
            let missing = demand().vacuous(&history, &faults);
            assert_eq!(missing.len(), 1, "{missing:?}");
            assert!(missing[0].contains(when) && missing[0].contains("Put of set"), "{missing:?}");
        }
        // Another workload's success is not this one's.
        let others: Vec<_> =
            busy().into_iter().map(|entry| Entry { workload: "counter".into(), ..entry }).collect();
        assert_eq!(demand().vacuous(&others, &faults).len(), 3);
    }

    #[test]
    fn what_is_answered_by_the_healing_was_not_answered_during_the_fault() {
        let mut history = busy();
        history[2].return_ns = Some(191);
        assert_eq!(demand().vacuous(&history, &[fault(Bar::LeaderStays)]).len(), 1);
        // Nobody could have answered.
        assert_eq!(demand().vacuous(&history, &[fault(Bar::AllLost)]).len(), 0);
    }

    #[test]
    fn a_history_that_grows_tells_what_is_missing_yet() {
        let history = History::begin(1);
        history.record(found("set", Request::Put, 50));
        history.record(refused("register", Request::Get, 60));
        let missing = |at_ns| demand().missing_since(&history, at_ns);
        assert_eq!(missing(0).as_deref(), Some("Get of register"));
        history.record(found("register", Request::Get, 70));
        assert_eq!(missing(50), None);
        assert_eq!(missing(51).as_deref(), Some("Put of set"));
    }
}

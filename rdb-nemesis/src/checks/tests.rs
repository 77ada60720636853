//! Each check against a history that is right, and against the same one with one thing wrong: every wrong one must fail, by
//! the check that is there for it.

use super::{CHECKS, FINAL};
use crate::history::{Call, Entry, Expect, Name, Outcome, Request, Stamp, Swap};
use rdb_check::Version;

fn stamp(hlc: u64) -> Stamp {
    Stamp(Version { era: 1, hlc, node: 1 })
}

fn entry(workload: &str, key: &str, call: Call, at: u64, outcome: Outcome) -> Entry {
    let known = !matches!(outcome, Outcome::Unknown { .. });
    Entry {
        client: at,
        workload: workload.to_owned(),
        key: key.to_owned(),
        request: None,
        call,
        call_ns: at * 10,
        return_ns: known.then_some(at * 10 + 5),
        outcome,
        epoch: Some(1),
        node: Some(1),
        served: None,
        name: None,
    }
}

fn found(value: &str, hlc: u64) -> Outcome {
    Outcome::Found { value: Some(value.to_owned()), version: Some(stamp(hlc)) }
}

fn nothing() -> Outcome {
    Outcome::Found { value: None, version: None }
}

fn done(hlc: u64) -> Outcome {
    Outcome::Done { version: stamp(hlc) }
}

fn put(workload: &str, key: &str, value: &str, at: u64) -> Entry {
    entry(workload, key, Call::Put(value.to_owned()), at, done(at))
}

fn swap(workload: &str, key: &str, expect: Option<&str>, then: &str, at: u64) -> Entry {
    let expect = expect.map_or(Expect::Absent, |value| Expect::Value(value.to_owned()));
    entry(workload, key, Call::Cas(Swap { expect, then: then.to_owned() }), at, done(at))
}

fn named(mut entry: Entry, sequence: u64) -> Entry {
    entry.name = Some(Name { session: 7, sequence });
    entry
}

/// The final reads of a key at three nodes, by its name and by a scan: through the leader, and of what each has.
fn finals(history: &mut Vec<Entry>, key: &str, at: u64, outcome: &Outcome) {
    for (request, at) in [(Request::BatchGet, at), (Request::Scan, at + 5)] {
        for node in 1..=3 {
            for call in [Call::Get, Call::Stale] {
                let mut read = entry(FINAL, key, call, at + node, outcome.clone());
                read.node = Some(node);
                read.request = Some(request);
                history.push(read);
            }
        }
    }
}

/// A scan of three keys.
fn scan(call: &Call, at: u64, outcomes: [Outcome; 3]) -> impl Iterator<Item = Entry> {
    let keys = ["scans/0", "scans/1", "scans/2"].into_iter();
    keys.zip(outcomes).map(move |(key, outcome)| {
        let mut read = entry("scans", key, call.clone(), at, outcome);
        read.request = Some(Request::Scan);
        read
    })
}

/// A history of all workloads in which nothing is wrong.
fn sound() -> Vec<Entry> {
    let mut history = vec![
        put("register", "register/0/0", "one", 10),
        entry("register", "register/0/0", Call::Get, 11, found("one", 10)),
        entry(
            "register",
            "register/0/0",
            Call::Put("two".to_owned()),
            12,
            Outcome::Unknown { why: String::new() },
        ),
        entry("register", "register/0/0", Call::Get, 13, found("two", 12)),
        put("set", "set/1", "1", 20),
        put("set", "set/2", "2", 21),
        entry("set", "set/3", Call::Put("3".to_owned()), 22, Outcome::NotDone { why: String::new() }),
        swap("counter", "counter/0", None, "1 of a", 30),
        swap("counter", "counter/0", Some("1 of a"), "2 of b", 31),
        named(swap("retries", "retries/wheel/0", None, "0", 50), 1),
        named(entry("retries", "retries/wheel/0", swap("", "", None, "0", 0).call, 51, done(50)), 1),
        named(swap("retries", "retries/wheel/0", Some("0"), "1", 52), 2),
        named(entry("retries", "retries/wheel/0", swap("", "", Some("0"), "1", 0).call, 53, done(52)), 2),
        named(swap("retries", "retries/shared", None, "1", 54), 3),
        named(entry("retries", "retries/shared", swap("", "", None, "1", 0).call, 55, done(54)), 3),
    ];
    for key in ["pairs/0/a", "pairs/0/b"] {
        history.push(put("pairs", key, "x", 40));
        history.push(entry("pairs", key, Call::Get, 41, found("x", 40)));
    }
    history.extend([
        put("scans", "scans/0", "a", 60),
        put("scans", "scans/1", "b", 61),
        put("scans", "scans/2", "c", 62),
        put("scans", "scans/0", "d", 64),
        entry("scans", "scans/1", Call::Delete, 66, done(66)),
        put("scans", "scans/1", "e", 68),
    ]);
    history.extend(scan(&Call::Get, 63, [found("a", 60), found("b", 61), found("c", 62)]));
    history.extend(scan(&Call::Get, 67, [found("d", 64), nothing(), found("c", 62)]));
    // Of an older moment than it might be, but of one.
    history.extend(scan(&Call::Stale, 69, [found("a", 60), found("b", 61), nothing()]));
    finals(&mut history, "register/0/0", 100, &found("two", 12));
    finals(&mut history, "set/1", 110, &found("1", 20));
    finals(&mut history, "set/2", 120, &found("2", 21));
    finals(&mut history, "set/3", 130, &nothing());
    finals(&mut history, "counter/0", 140, &found("2 of b", 31));
    finals(&mut history, "retries/wheel/0", 150, &found("1", 52));
    finals(&mut history, "retries/shared", 160, &found("1", 54));
    finals(&mut history, "pairs/0/a", 170, &found("x", 40));
    finals(&mut history, "pairs/0/b", 170, &found("x", 40));
    finals(&mut history, "scans/0", 180, &found("d", 64));
    finals(&mut history, "scans/1", 180, &found("e", 68));
    finals(&mut history, "scans/2", 180, &found("c", 62));
    history
}

fn failing(history: &[Entry]) -> Vec<&'static str> {
    CHECKS.iter().filter(|check| (check.check)(history).is_err()).map(|check| check.name).collect()
}

#[track_caller]
fn is_caught(by: &str, what: &str, change: impl FnOnce(&mut Vec<Entry>)) {
    let mut history = sound();
    change(&mut history);
    let failing = failing(&history);
    assert!(failing.contains(&by), "{what}: {by} does not see it, these do: {failing:?}");
}

fn find<'a>(history: &'a mut [Entry], workload: &str, key: &str, nth: usize) -> &'a mut Entry {
    let mut these = history.iter_mut().filter(|entry| entry.workload == workload && entry.key == key);
    these.nth(nth).unwrap()
}

#[test]
fn a_history_that_is_right_passes() {
    for check in CHECKS {
        assert_eq!((check.check)(&sound()).err(), None, "{}", check.name);
        assert_eq!((check.check)(&[]).err(), None, "{} of nothing", check.name);
    }
}

#[test]
fn stale_reads_are_caught() {
    is_caught("linearizable", "a read of what was overwritten", |history| {
        history.push(entry("register", "register/0/0", Call::Get, 90, found("one", 10)));
    });
    is_caught("linearizable", "a read of nothing", |history| {
        history.push(entry("register", "register/0/0", Call::Get, 90, nothing()));
    });
    is_caught("linearizable", "a read of what nobody wrote", |history| {
        find(history, "register", "register/0/0", 1).outcome = found("three", 10);
    });
    is_caught("linearizable", "a write that was refused and seen", |history| {
        find(history, "register", "register/0/0", 2).outcome = Outcome::NotDone { why: String::new() };
    });
}

#[test]
fn lost_elements_are_caught() {
    for by in ["set", "linearizable"] {
        is_caught(by, "an element is lost at one node", |history| {
            find(history, FINAL, "set/2", 2).outcome = nothing();
        });
    }
    is_caught("set", "an element that was refused is there", |history| {
        find(history, FINAL, "set/3", 0).outcome = found("3", 22);
    });
    is_caught("set", "nobody has looked", |history| history.retain(|entry| entry.workload != FINAL));
}

#[test]
fn counts_that_are_wrong_are_caught() {
    is_caught("counter", "an increment is lost", |history| {
        find(history, FINAL, "counter/0", 0).outcome = found("1 of a", 30);
    });
    is_caught("counter", "an increment is done twice", |history| {
        find(history, FINAL, "counter/0", 0).outcome = found("3 of b", 32);
    });
    is_caught("linearizable", "two increments from one number", |history| {
        history.push(swap("counter", "counter/0", Some("1 of a"), "2 of c", 33));
    });
    is_caught("counter", "nobody has looked", |history| history.retain(|entry| entry.workload != FINAL));
}

#[test]
fn pairs_that_differ_are_caught() {
    is_caught("pairs", "half of a batch is seen", |history| {
        find(history, "pairs", "pairs/0/b", 1).outcome = nothing();
    });
    is_caught("pairs", "half of a batch is missing in the end", |history| {
        find(history, FINAL, "pairs/0/b", 0).outcome = nothing();
    });
}

#[test]
fn retries_that_are_applied_twice_are_caught() {
    is_caught("retries", "copies have two answers", |history| {
        find(history, "retries", "retries/wheel/0", 1).outcome = done(51);
    });
    is_caught("retries", "a copy was refused", |history| {
        find(history, "retries", "retries/wheel/0", 1).outcome =
            Outcome::Mismatch { version: Some(stamp(50)), value: None };
    });
    is_caught("retries", "a wheel was turned once more", |history| {
        find(history, FINAL, "retries/wheel/0", 0).outcome = found("2", 60);
    });
    is_caught("retries", "a swap of the shared number is lost", |history| {
        find(history, FINAL, "retries/shared", 0).outcome = nothing();
    });
    is_caught("retries", "a write stays in doubt", |history| {
        for nth in [0, 1] {
            find(history, "retries", "retries/shared", nth).outcome = Outcome::Unknown { why: String::new() };
        }
    });
    is_caught("retries", "a write is sent once", |history| {
        let last = history.iter().position(|entry| entry.key == "retries/shared").unwrap();
        history.remove(last);
    });
    is_caught("retries", "all copies but one have reached nobody", |history| {
        find(history, "retries", "retries/shared", 1).outcome = Outcome::Unknown { why: String::new() };
    });
    is_caught("retries", "a late copy finds its session forgotten", |history| {
        let mut late = find(history, "retries", "retries/shared", 1).clone();
        late.outcome = Outcome::Expired { why: String::new() };
        history.push(late);
    });
}

#[test]
fn scans_that_show_no_moment_are_caught() {
    for call in [Call::Get, Call::Stale] {
        let wrong = |what: &str, outcomes: [Outcome; 3]| {
            is_caught("scans", what, |history| history.extend(scan(&call, 90, outcomes)));
        };
        wrong("two records are left out", [found("d", 64), nothing(), nothing()]);
        wrong("a record in the middle is left out", [found("a", 60), nothing(), found("c", 62)]);
        wrong("a record from before a removal that shows", [found("a", 60), found("e", 68), found("c", 62)]);
        wrong("the last record is left out", [found("d", 64), found("e", 68), nothing()]);
        wrong("another value", [found("a", 60), found("x", 61), found("c", 62)]);
    }
    // What a scan shows may be of any of the moments that it does not contradict.
    let mut history = sound();
    history.extend(scan(&Call::Stale, 91, [nothing(), nothing(), nothing()]));
    history.extend(scan(&Call::Stale, 92, [found("d", 64), found("b", 61), found("c", 62)]));
    assert_eq!(failing(&history), Vec::<&str>::new());
}

#[test]
fn final_scans_that_differ_from_final_reads_are_caught() {
    let last = |history: &mut [Entry], request| {
        let these = history.iter().rposition(|entry| entry.key == "set/2" && entry.request == Some(request));
        these.unwrap()
    };
    is_caught("scans", "a scan leaves a key out", |history| {
        let scanned = last(history, Request::Scan);
        history[scanned].outcome = nothing();
    });
    is_caught("scans", "a scan brings what no read finds", |history| {
        let read = last(history, Request::BatchGet);
        history[read].outcome = nothing();
    });
    is_caught("scans", "nobody has scanned", |history| {
        history.retain(|entry| entry.request != Some(Request::Scan) || entry.workload != FINAL);
    });
    is_caught("scans", "a scan is of another version", |history| {
        let scanned = last(history, Request::Scan);
        history[scanned].outcome = found("2", 20);
    });
}

#[test]
fn replicas_that_differ_are_caught() {
    is_caught("replicas", "another value", |history| {
        find(history, FINAL, "set/1", 3).outcome = found("9", 20);
    });
    is_caught("replicas", "another version", |history| {
        find(history, FINAL, "set/1", 3).outcome = found("1", 19);
    });
    is_caught("replicas", "a key that one does not have", |history| {
        find(history, FINAL, "set/1", 3).outcome = nothing();
    });
    is_caught("replicas", "a node that was not read", |history| {
        let read = find(history, FINAL, "set/1", 3);
        read.outcome = Outcome::NotDone { why: String::new() };
    });
}

#[test]
fn histories_are_read_as_they_were_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("history.jsonl");
    let history = crate::history::History::begin(5);
    history.note("a fault");
    for entry in sound() {
        history.record(entry);
    }
    history.write(&path).unwrap();
    let read = crate::history::History::read(&path).unwrap();
    assert_eq!(crate::history::History::operations(&read), sound());
    std::fs::write(&path, "{\"format\":9,\"seed\":1}\n").unwrap();
    let refused = crate::history::History::read(&path).unwrap_err().to_string();
    assert!(refused.contains("format 9"), "{refused}");
}

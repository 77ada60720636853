//! A scan shows one moment: there is a point in the order of the versions at which each key was as the scan says. And the
//! scans that end a run bring what the reads that end it find, neither more nor less.
//!
//! That a linearizable scan is not of an older moment than it may be is for `linearizable` to see, key by key. Here stale
//! scans are judged as well.

use super::{FINAL, Finding};
use crate::history::{Call, Entry, Outcome, Request, Stamp};
use rdb_check::Version;
use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};

const NAME: &str = "scans";

pub(super) fn check(history: &[Entry]) -> Finding {
    let timelines = timelines(history)?;
    let mut scans: BTreeMap<(u64, u64), Vec<&Entry>> = BTreeMap::new();
    for entry in history.iter().filter(|entry| entry.workload == NAME && entry.request == Some(Request::Scan))
    {
        if matches!(entry.outcome, Outcome::Found { .. }) {
            scans.entry((entry.client, entry.call_ns)).or_default().push(entry);
        }
    }
    for ((_, at_ns), scan) in &scans {
        is_of_one_moment(&timelines, scan).map_err(|why| {
            format!("a scan at node {} at {at_ns} ns shows no moment: {why}", scan[0].node.unwrap_or(0))
        })?;
    }
    let finals = finals_agree(history)?;
    Ok(format!("{} scans of one moment, {finals} keys alike in final scans and reads", scans.len()))
}

/// What is known of a key.
#[derive(Default)]
struct Timeline<'a> {
    /// What it was from each version on; without a value where it was removed.
    writes: BTreeMap<Stamp, Option<&'a str>>,
    /// Somebody may have removed it, nobody knows when.
    may_be_gone: bool,
}

impl Timeline<'_> {
    fn is_absent_at(&self, moment: Stamp) -> bool {
        self.may_be_gone || self.writes.range(..=moment).next_back().is_none_or(|(_, value)| value.is_none())
    }

    fn next_after(&self, version: Stamp) -> Option<Stamp> {
        self.writes.range((Excluded(version), Unbounded)).next().map(|(next, _)| *next)
    }
}

type Timelines<'a> = BTreeMap<&'a str, Timeline<'a>>;

fn timelines(history: &[Entry]) -> Result<Timelines<'_>, String> {
    let mut timelines = Timelines::new();
    for entry in history.iter().filter(|entry| entry.workload == NAME) {
        let timeline = timelines.entry(&entry.key).or_default();
        let (version, value) = match (&entry.outcome, &entry.call) {
            (Outcome::Done { version }, Call::Put(value)) => (*version, Some(value.as_str())),
            (Outcome::Done { version }, Call::Delete) => (*version, None),
            // A write in doubt is known by its version once it was seen.
            (Outcome::Found { value: Some(value), version: Some(version) }, _) => {
                (*version, Some(value.as_str()))
            }
            (Outcome::Unknown { .. }, Call::Delete) => {
                timeline.may_be_gone = true;
                continue;
            }
            _ => continue,
        };
        if let Some(other) = timeline.writes.insert(version, value).filter(|other| *other != value) {
            return Err(format!("{} of {version:?} is both {other:?} and {value:?}", entry.key));
        }
    }
    Ok(timelines)
}

/// All that the scan brought was there from one moment on, which came before the first of it was overwritten. At some such
/// moment all that it did not bring was absent.
fn is_of_one_moment(timelines: &Timelines<'_>, scan: &[&Entry]) -> Result<(), String> {
    let mut from = (Stamp(Version::default()), "nothing");
    let mut until: Option<(Stamp, &str)> = None;
    let mut absent = Vec::new();
    for entry in scan {
        let Some(timeline) = timelines.get(entry.key.as_str()) else { continue };
        let Outcome::Found { version: Some(version), .. } = &entry.outcome else {
            absent.push((entry.key.as_str(), timeline));
            continue;
        };
        from = from.max((*version, &entry.key));
        let next = timeline.next_after(*version).map(|next| (next, entry.key.as_str()));
        until = until.into_iter().chain(next).min();
    }
    if let Some((next, key)) = until.filter(|(next, _)| *next <= from.0) {
        return Err(format!("it has {} of {:?}, but {key} of before {next:?}", from.1, from.0));
    }
    // What was absent at no moment between is absent where it was removed, if anywhere.
    let within = |moment: &Stamp| from.0 <= *moment && until.is_none_or(|(until, _)| *moment < until);
    let removals = absent.iter().flat_map(|(_, timeline)| timeline.writes.keys()).copied().filter(within);
    let possible = |moment: Stamp| absent.iter().all(|(_, timeline)| timeline.is_absent_at(moment));
    if std::iter::once(from.0).chain(removals).any(possible) {
        return Ok(());
    }
    let (key, _) = absent.iter().find(|(_, timeline)| !timeline.is_absent_at(from.0)).unwrap_or(&absent[0]);
    Err(format!("it has {} of {:?}, but not {key}, which was there then", from.1, from.0))
}

/// A key at a node, by a read that saw all or by what the node had.
type Place<'a> = (u64, bool, &'a str);

fn finals_agree(history: &[Entry]) -> Result<usize, String> {
    let (mut reads, mut scans) = (BTreeMap::new(), BTreeMap::new());
    for entry in history.iter().filter(|entry| entry.workload == FINAL) {
        if matches!(entry.outcome, Outcome::Found { .. }) {
            let place: Place<'_> = (entry.node.unwrap_or(0), entry.call == Call::Stale, &entry.key);
            let found = if entry.request == Some(Request::Scan) { &mut scans } else { &mut reads };
            found.insert(place, &entry.outcome);
        }
    }
    for place in reads.keys().chain(scans.keys()) {
        let (read, scanned) = (reads.get(place), scans.get(place));
        if read != scanned {
            let (node, _, key) = place;
            return Err(format!(
                "in the end {key} is {read:?} at node {node}, and {scanned:?} in a scan there"
            ));
        }
    }
    Ok(reads.len())
}

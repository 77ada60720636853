//! A history by moments: what is drawn of it.

use crate::checks::FINAL;
use crate::history::{Entry, Line, Outcome, Seen, Used};
use std::collections::BTreeMap;

/// The picture is about so many moments wide.
const MOMENTS: u64 = 200;
/// A moment is not shorter than this.
const MOMENT_NS_MIN: u64 = 200_000_000;
const NS_PER_SECOND: f64 = 1e9;
const NS_PER_MS: f64 = 1e6;

/// What clients were told in one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Moment {
    pub(super) at: f64,
    /// Operations a second.
    pub(super) answered: f64,
    pub(super) refused: f64,
    pub(super) unknown: f64,
    /// Of those answered, in milliseconds; none, where nothing was answered.
    pub(super) latency: Option<Latency>,
}

/// Milliseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Latency {
    pub(super) median: f64,
    pub(super) p99: f64,
    pub(super) longest: f64,
}

/// Something that lasted, in seconds of the run.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Span {
    pub(super) from: f64,
    pub(super) to: f64,
    pub(super) what: String,
}

/// What a picture shows.
#[derive(Debug, Default)]
pub(super) struct Moments {
    /// Seconds.
    pub(super) end: f64,
    pub(super) clients: Vec<Moment>,
    pub(super) faults: Vec<Span>,
    pub(super) switches: Vec<Span>,
    pub(super) leads: BTreeMap<u64, Vec<Span>>,
    pub(super) away: BTreeMap<u64, Vec<Span>>,
    pub(super) modes: BTreeMap<u64, Vec<Span>>,
    /// Seconds, and milliseconds.
    pub(super) lags: BTreeMap<u64, Vec<(f64, f64)>>,
    /// What each node used, a series for each of its processes.
    pub(super) used: BTreeMap<u64, Vec<Series>>,
}

/// What a process used, and when, in seconds of the run.
pub(super) type Series = Vec<(f64, Used)>;

impl Moments {
    pub(super) fn of(lines: &[Line]) -> Self {
        let entries = || lines.iter().filter_map(work);
        let last_ns = entries().map(|entry| entry.return_ns.unwrap_or(entry.call_ns)).max().unwrap_or(0);
        let end = seconds(last_ns);
        let seen = || lines.iter().filter_map(seen);
        Self {
            end,
            clients: clients(entries(), last_ns),
            faults: spans(
                lines,
                end,
                |note| note.strip_prefix("fault: "),
                |note| note.strip_prefix("healed: "),
            ),
            switches: switches(lines, end),
            leads: states(seen(), |seen| seen.leads_in_term.map(|term| format!("term {term}"))),
            away: states(seen(), |seen| (!seen.answers).then(String::new)),
            modes: states(seen(), |seen| seen.mode.clone()),
            lags: lags(seen()),
            used: used(seen()),
        }
    }
}

/// What clients did while the run lasted.
fn work(line: &Line) -> Option<&Entry> {
    match line {
        Line::Entry(entry) if entry.workload != FINAL => Some(entry),
        _ => None,
    }
}

fn seen(line: &Line) -> Option<(f64, &Seen)> {
    match line {
        Line::Seen { seen, at_ns } => Some((seconds(*at_ns), seen)),
        _ => None,
    }
}

#[expect(clippy::cast_precision_loss, reason = "a picture is no more precise")]
fn seconds(ns: u64) -> f64 {
    ns as f64 / NS_PER_SECOND
}

#[expect(clippy::cast_precision_loss, reason = "a picture is no more precise")]
fn clients<'a>(entries: impl Iterator<Item = &'a Entry>, last_ns: u64) -> Vec<Moment> {
    let moment_ns = (last_ns / MOMENTS).max(MOMENT_NS_MIN);
    let mut moments: BTreeMap<u64, (Vec<u64>, u64, u64)> = BTreeMap::new();
    for entry in entries {
        let at_ns = entry.return_ns.unwrap_or(entry.call_ns);
        let (answered, refused, unknown) = moments.entry(at_ns / moment_ns).or_default();
        match entry.outcome {
            Outcome::Found { .. } | Outcome::Done { .. } | Outcome::Mismatch { .. } => {
                answered.push(at_ns - entry.call_ns);
            }
            Outcome::NotDone { .. } | Outcome::Expired { .. } => *refused += 1,
            Outcome::Unknown { .. } => *unknown += 1,
        }
    }
    let a_second = |count: u64| count as f64 / seconds(moment_ns);
    (0..=last_ns / moment_ns)
        .map(|number| {
            let (mut took, refused, unknown) = moments.remove(&number).unwrap_or_default();
            took.sort_unstable();
            Moment {
                at: seconds(number * moment_ns + moment_ns / 2),
                answered: a_second(took.len() as u64),
                refused: a_second(refused),
                unknown: a_second(unknown),
                latency: latency(&took),
            }
        })
        .collect()
}

#[expect(clippy::cast_precision_loss, reason = "a picture is no more precise")]
fn latency(sorted: &[u64]) -> Option<Latency> {
    let last = sorted.len().checked_sub(1)?;
    let at = |percent: usize| sorted[last * percent / 100] as f64 / NS_PER_MS;
    Some(Latency { median: at(50), p99: at(99), longest: at(100) })
}

/// What begins and ends by notes that name it alike.
fn spans(
    lines: &[Line],
    end: f64,
    begins: fn(&str) -> Option<&str>,
    ends: fn(&str) -> Option<&str>,
) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    for line in lines {
        let Line::Note { note, at_ns } = line else { continue };
        if let Some(what) = begins(note) {
            spans.push(Span { from: seconds(*at_ns), to: end, what: what.to_owned() });
        } else if let Some(what) = ends(note)
            && let Some(span) = spans.iter_mut().rfind(|span| span.what == what)
        {
            span.to = seconds(*at_ns);
        }
    }
    spans
}

/// Switches are named by their number; how each ended is part of what is told.
fn switches(lines: &[Line], end: f64) -> Vec<Span> {
    let mut open: BTreeMap<&str, usize> = BTreeMap::new();
    let mut spans: Vec<Span> = Vec::new();
    for line in lines {
        let Line::Note { note, at_ns } = line else { continue };
        let Some((number, how)) = note.strip_prefix("switch ").and_then(|rest| rest.split_once(' ')) else {
            continue;
        };
        if let Some(span) = open.remove(number).and_then(|place| spans.get_mut(place)) {
            span.to = seconds(*at_ns);
            span.what = format!("{}, {how}", span.what);
        } else {
            open.insert(number, spans.len());
            spans.push(Span { from: seconds(*at_ns), to: end, what: format!("{number} {how}") });
        }
    }
    spans
}

/// How long each node was in a state, as far as it was looked at.
fn states<'a>(
    seen: impl Iterator<Item = (f64, &'a Seen)>,
    state: impl Fn(&Seen) -> Option<String>,
) -> BTreeMap<u64, Vec<Span>> {
    let mut spans: BTreeMap<u64, Vec<Span>> = BTreeMap::new();
    let mut goes_on: BTreeMap<u64, bool> = BTreeMap::new();
    for (at, seen) in seen {
        let ours = spans.entry(seen.node).or_default();
        let goes_on = goes_on.entry(seen.node).or_default();
        let now = state(seen);
        if let Some(last) = ours.last_mut().filter(|_| *goes_on) {
            last.to = at;
        }
        *goes_on = now.is_some();
        if let Some(now) = now
            && ours.last().is_none_or(|last| last.what != now || last.to < at)
        {
            ours.push(Span { from: at, to: at, what: now });
        }
    }
    spans
}

#[expect(clippy::cast_precision_loss, reason = "a picture is no more precise")]
fn lags<'a>(seen: impl Iterator<Item = (f64, &'a Seen)>) -> BTreeMap<u64, Vec<(f64, f64)>> {
    let mut lags: BTreeMap<u64, Vec<(f64, f64)>> = BTreeMap::new();
    for (at, seen) in seen {
        if let Some(lag) = seen.lag_ms {
            lags.entry(seen.node).or_default().push((at, lag as f64));
        }
    }
    lags
}

/// A process that is started anew begins a new series.
fn used<'a>(seen: impl Iterator<Item = (f64, &'a Seen)>) -> BTreeMap<u64, Vec<Series>> {
    let mut all: BTreeMap<u64, Vec<Series>> = BTreeMap::new();
    for (at, seen) in seen {
        let Some(used) = seen.used else { continue };
        let ours = all.entry(seen.node).or_default();
        match ours.last_mut().filter(|series| series.iter().all(|(_, last)| last.process == used.process)) {
            Some(series) => series.push((at, used)),
            None => ours.push(vec![(at, used)]),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(note: &str, at: u64) -> Line {
        Line::Note { note: note.to_owned(), at_ns: at * 1_000_000_000 }
    }

    fn leads(term: Option<u64>, at: u64) -> Line {
        Line::Seen { seen: Seen { leads_in_term: term, ..Seen::away(1) }, at_ns: at * 1_000_000_000 }
    }

    fn span(from: f64, to: f64, what: &str) -> Span {
        Span { from, to, what: what.to_owned() }
    }

    #[test]
    fn what_began_lasts_until_it_is_healed_or_to_the_end() {
        let lines = [note("fault: a", 1), note("healed: a", 3), note("fault: a", 5)];
        let faults =
            spans(&lines, 9.0, |note| note.strip_prefix("fault: "), |note| note.strip_prefix("healed: "));
        assert_eq!(faults, [span(1.0, 3.0, "a"), span(5.0, 9.0, "a")]);
        let lines = [note("switch 7 begun to strong", 1), note("switch 7 called off: too long", 2)];
        assert_eq!(switches(&lines, 9.0), [span(1.0, 2.0, "7 begun to strong, called off: too long")]);
    }

    #[test]
    fn a_state_lasts_from_look_to_look() {
        let lines =
            [leads(Some(1), 1), leads(Some(1), 2), leads(None, 3), leads(Some(4), 5), leads(Some(5), 6)];
        let leads =
            states(lines.iter().filter_map(seen), |seen| seen.leads_in_term.map(|term| term.to_string()));
        assert_eq!(leads[&1], [span(1.0, 3.0, "1"), span(5.0, 6.0, "4"), span(6.0, 6.0, "5")]);
    }

    #[test]
    fn a_process_that_is_started_anew_begins_a_new_series() {
        let at = |process, second: u64| {
            let used = Some(Used { process, resident_bytes: 1, open_files: 2, data_bytes: 3 });
            let seen = Seen { used, ..Seen::away(1) };
            Line::Seen { seen, at_ns: second * 1_000_000_000 }
        };
        let lines = [at(7, 1), leads(None, 2), at(7, 3), at(8, 4)];
        let used = used(lines.iter().filter_map(seen));
        let lengths: Vec<usize> = used[&1].iter().map(Vec::len).collect();
        assert_eq!(lengths, [2, 1]);
    }

    #[test]
    fn the_slowest_of_a_few_is_their_p99_only_where_it_is() {
        assert_eq!(latency(&[]), None);
        let all: Vec<u64> = (1..=101).map(|ms| ms * 1_000_000).collect();
        assert_eq!(latency(&all), Some(Latency { median: 51.0, p99: 100.0, longest: 101.0 }));
    }
}

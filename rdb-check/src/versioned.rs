//! Is a history of one key linearizable?
//!
//! Every completed operation tells a version, so there is nothing to search: the versions are the order, and it remains
//! to see whether it is a legal one. That takes O(n log n), against the exponential time of a search without versions.
//! The conditions are exact:
//!
//! 1. Each version has one writer, and whoever saw it saw that writer's value.
//! 2. A swap that succeeded found, in the write just before it, what it expected; one that was refused did not.
//! 3. In real time: once an operation has returned, no operation that starts later stands before it in the order, and
//!    no write stands at its place.
//!
//! Absence has no version of its own. An operation that found nothing stands at the earliest place that real time
//! allows and at which there is nothing: any later place could only forbid more.
//!
//! A write in doubt counts as done if its version is known, or if somebody saw its value; else as never done, which is
//! as good as done after everything else. (Seen by its version alone, without a value, it must come with that version:
//! nobody could tell which write was seen.)

#[cfg(test)]
mod search;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;

/// A value, by a number that only one write has.
pub type Value = u64;

/// The place of a write among all writes: compared from first to last.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Version {
    /// Switches of mode that the namespace had completed, plus one.
    pub era: u32,
    /// The hybrid clock's reading.
    pub hlc: u64,
    /// The node that stamped it.
    pub node: u64,
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.era, self.hlc, self.node)
    }
}

/// One operation on one key.
#[derive(Debug, Clone)]
pub struct Operation {
    /// When it was called. No two calls or returns share a moment.
    pub call: u64,
    /// When it returned; `None` if nobody knows.
    pub ret: Option<u64>,
    /// What it did.
    pub action: Action,
}

/// What an operation did, and what it was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// A write; `None` deletes. Its version is `None` where it is in doubt and was never seen.
    Write {
        /// What was written.
        value: Option<Value>,
        /// As which version.
        version: Option<Version>,
    },
    /// A write that happened because the key held what was expected.
    Swap {
        /// What was expected.
        expect: Expect,
        /// What was written.
        value: Option<Value>,
        /// As which version.
        version: Option<Version>,
    },
    /// A read, and what it found.
    Read {
        /// Value and version; `None` where there was nothing.
        found: Option<(Value, Version)>,
    },
    /// A swap that did not happen.
    Refused {
        /// What was expected.
        expect: Expect,
        /// The version that was found; `None` where there was nothing.
        found: Option<Version>,
    },
}

/// What a swap expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// Nothing there.
    Absent,
    /// This value.
    Value(Value),
    /// This version.
    Version(Version),
}

/// A write's place in the order: its version. A write in doubt that only a swap has seen stands just before that swap,
/// which the second number says: as many steps back as swaps in doubt had to be followed.
type Rank = (Version, i64);

/// The writes in order; place 0 is before all of them.
struct Order {
    /// Value and version after each place.
    states: Vec<Option<(Value, Version)>>,
    /// By version.
    places: BTreeMap<Version, usize>,
    /// By operation.
    place_of: BTreeMap<usize, usize>,
    /// For each place, the first place from there on where there is nothing.
    absent: Vec<Option<usize>>,
}

/// Looks at the whole history of one key, from when it did not exist.
///
/// # Errors
/// The history is not linearizable; says which operation cannot be placed.
pub fn check_versioned(history: &[Operation]) -> Result<(), String> {
    let order = order(history)?;
    swaps_found_what_they_expected(history, &order)?;
    real_time(history, &order)
}

fn order(history: &[Operation]) -> Result<Order, String> {
    let mut writes: BTreeMap<Rank, usize> = BTreeMap::new();
    for (number, operation) in history.iter().enumerate() {
        let Some(rank) = rank(history, operation, history.len()) else { continue };
        if let Some(other) = writes.insert(rank, number) {
            return Err(format!("two writes of one version: {:?} and {operation:?}", history[other]));
        }
    }
    let mut order =
        Order { states: vec![None], places: BTreeMap::new(), place_of: BTreeMap::new(), absent: Vec::new() };
    for ((version, _), number) in writes {
        order.place_of.insert(number, order.states.len());
        order.places.insert(version, order.states.len());
        order.states.push(written(&history[number].action).flatten().map(|value| (value, version)));
    }
    order.absent = vec![None; order.states.len()];
    let mut next = None;
    for place in (0..order.states.len()).rev() {
        next = if order.states[place].is_none() { Some(place) } else { next };
        order.absent[place] = next;
    }
    Ok(order)
}

/// What a write wrote.
fn written(action: &Action) -> Option<Option<Value>> {
    match action {
        Action::Write { value, .. } | Action::Swap { value, .. } => Some(*value),
        Action::Read { .. } | Action::Refused { .. } => None,
    }
}

/// Where a write stands, if it was done at all. At most `depth` swaps in doubt are followed: each is a write of its own.
fn rank(history: &[Operation], operation: &Operation, depth: usize) -> Option<Rank> {
    let (Action::Write { value, version } | Action::Swap { value, version, .. }) = &operation.action else {
        return None;
    };
    if let Some(version) = version {
        return Some((*version, 0));
    }
    // In doubt, which is rare: look for somebody who saw it.
    let (value, depth) = ((*value)?, depth.checked_sub(1)?);
    let read = history.iter().find_map(|other| match &other.action {
        Action::Read { found: Some((seen, version)) } if *seen == value => Some((*version, 0)),
        _ => None,
    });
    let swapped = |other: &Operation| match &other.action {
        Action::Swap { expect: Expect::Value(seen), .. } if *seen == value => {
            rank(history, other, depth).map(|(version, steps)| (version, steps - 1))
        }
        _ => None,
    };
    read.or_else(|| history.iter().find_map(swapped))
}

fn swaps_found_what_they_expected(history: &[Operation], order: &Order) -> Result<(), String> {
    for (number, operation) in history.iter().enumerate() {
        let fits = match &operation.action {
            Action::Swap { expect, .. } => order
                .place_of
                .get(&number)
                .is_none_or(|place| expect.is_met_by(order.states[place - 1].as_ref())),
            Action::Refused { expect, found: None } => *expect != Expect::Absent,
            Action::Refused { expect, found: Some(version) } => match order.places.get(version) {
                Some(place) => !expect.is_met_by(order.states[*place].as_ref()),
                None => false,
            },
            Action::Read { found: Some((value, version)) } => order
                .places
                .get(version)
                .is_some_and(|place| order.states[*place] == Some((*value, *version))),
            Action::Write { .. } | Action::Read { found: None } => true,
        };
        if !fits {
            return Err(format!("no write explains what it found: {operation:?}"));
        }
    }
    Ok(())
}

impl Expect {
    fn is_met_by(&self, state: Option<&(Value, Version)>) -> bool {
        match self {
            Expect::Absent => state.is_none(),
            Expect::Value(value) => state.is_some_and(|(found, _)| found == value),
            Expect::Version(version) => state.is_some_and(|(_, found)| found == version),
        }
    }
}

/// Goes through calls and returns in time, and keeps the latest place of all that has returned.
fn real_time(history: &[Operation], order: &Order) -> Result<(), String> {
    let mut moments: Vec<(u64, bool, usize)> = Vec::with_capacity(2 * history.len());
    for (number, operation) in history.iter().enumerate() {
        moments.push((operation.call, false, number));
        moments.extend(operation.ret.map(|ret| (ret, true, number)));
    }
    moments.sort_unstable();
    let mut places: Vec<Option<usize>> = vec![None; history.len()];
    let mut latest = 0;
    for (_, returned, number) in moments {
        if returned {
            latest = latest.max(places[number].unwrap_or(0));
        } else {
            places[number] = place(&history[number], number, latest, order)?;
        }
    }
    Ok(())
}

/// The place of an operation that is called when `latest` is the latest place that has returned.
fn place(
    operation: &Operation,
    number: usize,
    latest: usize,
    order: &Order,
) -> Result<Option<usize>, String> {
    let impossible = |why: &str| Err(format!("{why}: {operation:?}"));
    match &operation.action {
        Action::Write { .. } | Action::Swap { .. } => match order.place_of.get(&number) {
            Some(place) if *place <= latest => impossible("its version lies before what had returned"),
            place => Ok(place.copied()),
        },
        Action::Read { found: Some((_, version)) } | Action::Refused { found: Some(version), .. } => {
            match order.places.get(version) {
                Some(place) if latest <= *place => Ok(Some(*place)),
                _ => impossible("it saw the past"),
            }
        }
        Action::Read { found: None } | Action::Refused { found: None, .. } => match order.absent[latest] {
            Some(place) => Ok(Some(place)),
            None => impossible("it found nothing where something had been written and not deleted"),
        },
    }
}

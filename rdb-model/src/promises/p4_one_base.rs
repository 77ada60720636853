//! Promise 4: Nothing strong is served before all remaining voters hold the same base, synced; and no member's eventual
//! acknowledgement of an era follows a strong one of the next. Besides, every replica is exactly what the region's log makes
//! of the base.

use super::{Answered, Promise};
use crate::state::{Entry, Ids, State, node_id};
use rdb_core::ids::Era;
use rdb_core::switch::{Boundary, Mode};

pub(super) fn look(state: &mut State, answer: Answered, mode: Mode) {
    let next = Era(answer.era.0 + 1);
    let is_excluded =
        state.marker(next).is_some_and(|marker| marker.boundary.excluded.contains(&node_id(answer.node)));
    if mode == Mode::Eventual && Some(answer.era) < state.strong_served && !is_excluded {
        state.broken.note(Promise::OneBase);
    }
}

pub(super) fn holds(state: &State) -> bool {
    !state.broken.has(Promise::OneBase) && voters_hold_the_base(state) && replicas_follow_the_log(state)
}

/// Once the marker is in the log, whoever is still in the era before it has synced exactly what the base holds.
fn voters_hold_the_base(state: &State) -> bool {
    state.nodes.iter().all(|node| {
        let era = node.region.era();
        let marker = state.marker(Era(era.0 + 1)).filter(|marker| marker.mode == Mode::Strong);
        let member = marker.filter(|marker| !marker.boundary.excluded.contains(&node.peer.node()));
        member.is_none_or(|marker| {
            let (progress, boundary) = (node.progress(), &marker.boundary);
            let has_base = progress.synced.covers(&boundary.cut) && boundary.cut.covers(&progress.appended);
            has_base && node.held(&boundary.cut) == within(state, era, boundary)
        })
    })
}

/// The eventual writes of an era that a boundary lets through.
fn within(state: &State, era: Era, boundary: &Boundary) -> Ids {
    state.ids(|write| {
        let is_within = |(origin, seq)| seq <= boundary.cut.get(origin);
        write.era == era && write.mode == Mode::Eventual && write.origin.is_some_and(is_within)
    })
}

fn replicas_follow_the_log(state: &State) -> bool {
    state.nodes.iter().all(|node| node.base == folded(state, node.applied))
}

/// What the region's log makes of its beginning, entry by entry, for whoever has applied so many.
fn folded(state: &State, applied: usize) -> Ids {
    let first = &state.catalog[0];
    let (mut era, mut mode, mut base) = (first.era, first.mode, Ids::default());
    for entry in &state.log[..applied] {
        match entry {
            Entry::Marker(marker) if marker.era.0 == era.0 + 1 => {
                if marker.mode == Mode::Strong {
                    base = base.with(within(state, era, &marker.boundary));
                }
                (era, mode) = (marker.era, marker.mode);
            }
            Entry::Put { era: put, id, .. } if mode == Mode::Strong && *put == era => {
                base = base.with(Ids::one(*id));
            }
            Entry::Marker(_) | Entry::Put { .. } => {}
        }
    }
    base
}

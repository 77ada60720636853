//! What clients ask, and what they are told.

use super::region;
use crate::action::Action;
use crate::configuration::Configuration;
use crate::promises::{Answered, Promise, note_answer};
use crate::state::{Entry, Ids, Reading, State, Write, node_id};
use rdb_core::switch::planted::{Wrong, wrong};
use rdb_core::switch::service::{self, Need, Way};
use rdb_core::switch::{Mode, Origin};
use rdb_core::version::Version;
use std::sync::Arc;

pub(super) fn offer(configuration: &Configuration, state: &State, actions: &mut Vec<Action>) {
    let budget = &state.budget;
    for (node, at) in state.nodes.iter().enumerate() {
        if !answerable(state, node).is_empty() {
            actions.push(Action::Answer(node));
        }
        if at.reading.is_some_and(|reading| reading.index <= at.applied) {
            actions.push(Action::EndRead(node));
        }
        let way = service::admit(Need::Write, &at.peer, &at.region);
        let writes = budget.eventual_writes > 0 && configuration.eventual_writers.contains(&node);
        if writes && way == Ok(Way::OriginLog) {
            actions.push(Action::Write(node));
        }
        let puts = budget.strong_writes > 0 && configuration.strong_writers.contains(&node);
        if puts && matches!(way, Ok(Way::RaftLog(_))) {
            actions.push(Action::StrongWrite(node));
        }
        if budget.strong_only > 0 {
            actions.push(Action::StrongOnly(node));
        }
        let is_unread = !state.visible(node).without(at.shown).is_empty();
        if budget.local_reads > 0 && at.region.mode() == Mode::Eventual && is_unread {
            actions.push(Action::LocalRead(node));
        }
        // A read's index comes from a leader that a majority still follows.
        let may_read = at.region.mode() == Mode::Strong && state.is_connected(node) && at.reading.is_none();
        if budget.strong_reads > 0 && may_read {
            actions.push(Action::BeginRead(node));
        }
    }
}

/// Accepts an eventual write.
pub(super) fn write(configuration: &Configuration, state: &mut State, node: usize) {
    state.budget.eventual_writes -= 1;
    append(configuration, state, node);
}

fn append(configuration: &Configuration, state: &mut State, node: usize) {
    let origin = state.nodes[node].origin();
    let seq = state.nodes[node].log(origin).map_or(0, |log| log.ids.len() as u64) + 1;
    let id = new_write(configuration, state, node, Some((origin, seq)));
    state.node_mut(node).log_mut(origin).ids.push(id);
    let at = state.node_mut(node);
    at.waiting = at.waiting.with(Ids::one(id));
}

fn new_write(
    configuration: &Configuration,
    state: &mut State,
    node: usize,
    origin: Option<(Origin, u64)>,
) -> u8 {
    let at = &state.nodes[node];
    let number = state.writes.len();
    let hlc = state.stamp(node, configuration.walls_ms[node]);
    let write = Write {
        key: configuration.keys[number % configuration.keys.len()],
        node: u8::try_from(node).unwrap_or(u8::MAX),
        mode: at.region.mode(),
        era: at.region.era(),
        epoch: at.peer.epoch(),
        origin,
        version: Version { era: at.region.era(), hlc, node: node_id(node) },
        place: 0,
        acknowledged: None,
    };
    Arc::make_mut(&mut state.writes).push(write);
    u8::try_from(number).unwrap_or(u8::MAX)
}

/// Eventual writes that are synced and wait for their answer.
fn answerable(state: &State, node: usize) -> Ids {
    let at = &state.nodes[node];
    if at.waiting.is_empty() {
        return at.waiting;
    }
    let synced = at.held(&at.progress().synced);
    at.waiting.iter().filter(|id| state.write(*id).origin.is_some() && synced.contains(*id)).collect()
}

/// Answers what is synced.
pub(super) fn answer(state: &mut State, node: usize) {
    for id in answerable(state, node).iter() {
        let write = *state.write(id);
        let at = state.node_mut(node);
        at.waiting = at.waiting.without(Ids::one(id));
        if let Some(epoch) = service::answer(&at.peer, &at.region, write.era, write.epoch) {
            note_answer(state, Answered { node, epoch, era: write.era, id: Some(id) });
        }
    }
}

/// Answers those whose writes lie in an era that the node has left: not done, or in doubt. The onlooker holds nobody to such
/// an answer.
pub(super) fn release(state: &mut State, node: usize) {
    let at = &state.nodes[node];
    let era = at.region.era();
    let over: Ids = at.waiting.iter().filter(|id| state.write(*id).era != era).collect();
    if wrong(Wrong::AnswersInEpochOfAppend) {
        // The variant tells them that all went well.
        for id in over.iter().filter(|id| state.write(*id).origin.is_some()).collect::<Vec<_>>() {
            let Write { epoch, era, .. } = *state.write(id);
            note_answer(state, Answered { node, epoch, era, id: Some(id) });
        }
    }
    if !over.is_empty() {
        let at = state.node_mut(node);
        at.waiting = at.waiting.without(over);
    }
}

pub(super) fn read_locally(state: &mut State, node: usize) {
    state.budget.local_reads -= 1;
    let visible = state.visible(node);
    let at = state.node_mut(node);
    at.shown = at.shown.with(visible);
}

/// Proposes a strong write.
pub(super) fn write_strongly(configuration: &Configuration, state: &mut State, node: usize) {
    state.budget.strong_writes -= 1;
    propose(configuration, state, node);
}

fn propose(configuration: &Configuration, state: &mut State, node: usize) {
    let id = new_write(configuration, state, node, None);
    let at = state.node_mut(node);
    at.waiting = at.waiting.with(Ids::one(id));
    let entry = Entry::Put { era: at.region.era(), epoch: at.peer.epoch(), id };
    region::propose(state, entry, node);
}

/// A comparison, or anything else that only one order of writes can give.
pub(super) fn ask_strongly(configuration: &Configuration, state: &mut State, node: usize) {
    state.budget.strong_only -= 1;
    let at = &state.nodes[node];
    match service::admit(Need::Strong, &at.peer, &at.region) {
        Ok(Way::RaftLog(_)) => propose(configuration, state, node),
        Ok(Way::OriginLog) => {
            state.broken.note(Promise::NeverSilentlyWeaker);
            append(configuration, state, node);
        }
        Err(_) => state.strong_refused = true,
    }
}

pub(super) fn begin_read(state: &mut State, node: usize) {
    state.budget.strong_reads -= 1;
    let must_see = state.acknowledged();
    let (era, index) = (state.nodes[node].region.era(), state.log.len());
    state.node_mut(node).reading = Some(Reading { era, index, must_see });
}

pub(super) fn end_read(state: &mut State, node: usize) {
    let at = state.node_mut(node);
    let Some(reading) = at.reading.take() else { return };
    if !service::read_stands(&at.region, reading.era) {
        return;
    }
    let (epoch, era) = (at.peer.epoch(), at.region.era());
    let is_strong = at.region.mode() == Mode::Strong && era == reading.era;
    let missed = reading.must_see.without(state.visible(node)).without(state.left_behind());
    if !is_strong || !missed.is_empty() {
        state.broken.note(Promise::NeverSilentlyWeaker);
    }
    note_answer(state, Answered { node, epoch, era, id: None });
}

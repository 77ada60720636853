//! Members for which logs would grow past their cap: they are given up, and take a copy of another member's part, page by page.
//!
//! Pages are put aside in the receiver's log as they come; the note that they are complete is synced, and from then on the copy is
//! merged, a page at a time, whatever happens in between. Meanwhile no runs are taken in.

use super::event::{Event, Parcel};
use super::eventual::{Eventual, broken};
use super::node::{Job, Process, Then};
use super::origins::{Bytes, Op};
use super::planted::{Shortcut, takes};
use super::switching::is_open;
use super::world::World;
use crate::invariants::Violation;
use crate::options::{Micros, SECOND};
use rand::RngExt as _;
use rdb_core::eventual::conflicts::awaited_of_era;
use rdb_core::eventual::copy::{self, Note, Page};
use rdb_core::eventual::machine::{State, View as _};
use rdb_core::ids::{Era, NodeId};
use rdb_core::record;
use rdb_core::switch::{Gate, Vector};
use std::rc::Rc;

/// Few, so that copies have many pages.
const RECORDS_PER_PAGE: usize = 8;
/// So few that a key's lost writes come in several parts.
const NOTES_BYTES: usize = 200;
/// Ticks after which a member is told again that it is given up, and a page is asked for again.
const REPEATS_TICKS: u64 = 3;
/// Chance that a node loses power around the merging of a copy.
const CRASHES: f64 = 0.3;
/// After so long without a page a copy is dropped.
const FETCH_PATIENCE: Micros = 2 * SECOND;

/// How far the copy is that a node takes.
#[derive(Debug)]
pub(super) enum Copying {
    None,
    /// So many pages are here. With the first one, where their sender stood.
    Fetching {
        from: NodeId,
        name: u64,
        pages: u64,
        state: Option<State>,
        /// When that was.
        opened: Micros,
        at: Micros,
    },
    /// All are here, and the note of that is on its way to the disk.
    Noting,
    /// It is merged.
    Merging(Rc<Note>),
    /// It is merged, and not yet flushed.
    Merged(Rc<Note>),
}

impl Copying {
    /// Whether a copy is complete and not merged: no runs are taken in, and no gate is sealed.
    pub(super) fn is_noted(&self) -> bool {
        matches!(self, Copying::Noting | Copying::Merging(_))
    }
}

/// A copy that a node gives: all of one moment.
pub(super) struct Open {
    name: u64,
    era: Era,
    state: State,
    pages: Vec<Bytes>,
    opened: Micros,
}

/// A page on its way.
#[derive(Debug)]
pub(super) struct Sent {
    name: u64,
    era: Era,
    number: u64,
    state: Option<State>,
    bytes: Bytes,
    last: bool,
    /// When its sender opened the copy: one that starts again knows nothing of it, and pages of two moments are no copy.
    opened: Micros,
}

impl Sent {
    pub(super) fn number(&self) -> u64 {
        self.number
    }
}

impl World {
    /// Gives up members for which too much is kept, and takes back those that have caught up. Nobody while writes are held back.
    pub(super) fn give_up(&mut self, id: NodeId) {
        let cap = self.options.log_cap;
        let Some(process) = self.process_mut(id).filter(|process| is_open(process)) else { return };
        let Some(eventual) = &mut process.eventual else { return };
        eventual.peers.take_back(cap, &eventual.logs);
        let given_up = eventual.peers.keep_below(cap, &eventual.logs).len();
        self.totals.given_up += given_up as u64;
    }

    /// What a node does for copies at each tick.
    pub(super) fn look_after_copies(&mut self, id: NodeId) {
        let now = self.now;
        let again = (now / self.options.tick + id.0).is_multiple_of(REPEATS_TICKS);
        let Some(eventual) = self.process_mut(id).and_then(|process| process.eventual.as_mut()) else {
            return;
        };
        let era = eventual.logs.era();
        let mut parcels = Vec::new();
        if let Copying::Fetching { from, name, pages, at, .. } = &eventual.copying {
            parcels.extend(again.then_some((*from, Parcel::WantsPage(era, *name, *pages))));
            if *at + FETCH_PATIENCE < now {
                eventual.copying = Copying::None;
            }
        }
        if again {
            let synced = eventual.logs.synced_vector();
            let given_up = eventual.peers.need_copy(&eventual.logs).into_iter();
            parcels.extend(given_up.map(|node| (node, Parcel::GivenUp(era, Box::new(synced.clone())))));
        }
        parcels.into_iter().for_each(|(to, parcel)| self.send(id, to, parcel));
    }

    /// A member says that it cannot serve this one from its logs.
    pub(super) fn is_given_up(&mut self, id: NodeId, from: NodeId, era: Era, theirs: &Vector) {
        let (name, at) = (self.rng.random(), self.now);
        let Some(process) = self.process_mut(id) else { return };
        let admits = process.admits_copy(&Vector::default());
        let Some(eventual) = process.eventual.as_mut().filter(|eventual| eventual.logs.era() == era) else {
            return;
        };
        let lacks = copy::is_needed(theirs, &eventual.logs.synced_vector());
        if lacks && admits && matches!(eventual.copying, Copying::None) {
            eventual.copying = Copying::Fetching { from, name, pages: 0, state: None, opened: 0, at };
            self.send(id, from, Parcel::WantsPage(era, name, 0));
        }
    }

    /// A member wants a page of a copy of this one.
    pub(super) fn give_page(
        &mut self,
        id: NodeId,
        to: NodeId,
        (era, name, number): (Era, u64, u64),
    ) -> Result<(), Violation> {
        let now = self.now;
        let node = self.node_mut(id);
        let Some(process) = &mut node.process else { return Ok(()) };
        let is_of_era =
            |eventual: &&mut Eventual| eventual.logs.era() == era && !eventual.machine.is_copying();
        let Some(eventual) = process.eventual.as_mut().filter(is_of_era) else { return Ok(()) };
        let is_open = process.gives.get(&to).is_some_and(|open| (open.name, open.era) == (name, era));
        if !is_open && number != 0 {
            return Ok(());
        }
        if !is_open {
            let state = eventual.machine.state().clone();
            eventual.peers.copies(to, &state.applied);
            let read = pages(&state, &node.data.current).map_err(|error| broken(id, error))?;
            process.gives.insert(to, Open { name, era, state, pages: read, opened: now });
        }
        let Some(open) = process.gives.get(&to) else { return Ok(()) };
        let Open { state, pages, opened, .. } = open;
        let place = usize::try_from(number).unwrap_or(usize::MAX);
        let Some(bytes) = pages.get(place).cloned() else { return Ok(()) };
        let state = (number == 0).then(|| state.clone());
        let (last, opened) = (place + 1 == pages.len(), *opened);
        // What a power cut may take back must not be anywhere else: the last page waits until all is synced.
        if last && !eventual.logs.synced_vector().covers(&open.state.applied) {
            return Ok(());
        }
        self.send(id, to, Parcel::Page(Rc::new(Sent { name, era, number, state, bytes, last, opened })));
        Ok(())
    }

    /// A page has come.
    pub(super) fn page_came(&mut self, id: NodeId, from: NodeId, sent: &Sent) {
        let now = self.now;
        let Some(process) = self.process_mut(id) else { return };
        let Some(eventual) = process.eventual.as_mut().filter(|eventual| eventual.logs.era() == sent.era)
        else {
            return;
        };
        let (me, logged) = (eventual.logs.me(), eventual.logs.logged_vector());
        let Copying::Fetching { from: of, name, pages, state, opened, at } = &mut eventual.copying else {
            return;
        };
        if (*of, *name, *pages) != (from, sent.name, sent.number) {
            return;
        }
        if sent.state.is_some() {
            (*state, *opened) = (sent.state.clone(), sent.opened);
        }
        if *opened != sent.opened {
            return;
        }
        (*pages, *at) = (*pages + 1, now);
        let (name, pages) = (*name, *pages);
        let offered = state.as_ref().filter(|state| copy::is_of_use(&state.applied, &logged, me));
        let Some(note) = offered.map(|state| Rc::new(Note::of(from, state, pages))) else {
            eventual.copying = Copying::None;
            return;
        };
        let mut jobs = vec![Job::Origins {
            ops: vec![Op::Aside(sent.era, sent.number, Rc::clone(&sent.bytes))],
            then: Then::Nothing,
        }];
        if takes(Shortcut::NotesCopyEarly) && sent.number == 0 {
            let ops = vec![Op::Copied(Rc::clone(&note))];
            jobs.push(Job::Origins { ops, then: Then::Nothing });
        }
        if !sent.last {
            self.send(id, from, Parcel::WantsPage(sent.era, name, pages));
        } else if process.admits_copy(&note.vector) {
            self.complete(id, &mut jobs, note);
        } else if let Some(eventual) = &mut process.eventual {
            eventual.copying = Copying::None;
        }
        jobs.into_iter().for_each(|job| self.write_later(id, job));
    }

    fn complete(&mut self, id: NodeId, jobs: &mut Vec<Job>, note: Rc<Note>) {
        if let Some(eventual) = self.process_mut(id).and_then(|process| process.eventual.as_mut()) {
            eventual.copying = Copying::Noting;
            jobs.push(Job::Origins { ops: vec![Op::Copied(Rc::clone(&note))], then: Then::Copied(note) });
            let incarnation = self.node(id).incarnation;
            if !self.calm && self.rng.random_bool(CRASHES) {
                let within = (0, 2 * self.options.sync.1 + 8 * self.options.merge.1);
                self.later(within, Event::Crash { node: id, incarnation, all: false });
            }
        }
    }

    /// The note is synced: the copy is merged from now on.
    pub(super) fn copy_is_noted(&mut self, id: NodeId, note: Rc<Note>) {
        let incarnation = self.node(id).incarnation;
        let is_noting = |eventual: &Eventual| {
            matches!(eventual.copying, Copying::Noting) && eventual.logs.era() == note.era
        };
        let eventual = self.process(id).and_then(|process| process.eventual.as_ref());
        if !eventual.is_some_and(is_noting) {
            return;
        }
        let now_ms = self.node(id).monotonic_ms(self.now);
        let Some(process) = self.process_mut(id) else { return };
        process.durable.saw(note.highest, now_ms);
        if let Some(eventual) = &mut process.eventual {
            eventual.copying = Copying::Merging(note);
        }
        self.later(self.options.merge, Event::PageMerged { node: id, incarnation });
    }

    /// Merges a page.
    pub(super) fn page_merged(&mut self, id: NodeId, incarnation: u64) -> Result<(), Violation> {
        if self.node_mut(id).running(incarnation).is_none() {
            return Ok(());
        }
        // What was logged before the note is applied before the copy.
        self.merge_all(id)?;
        if self.merge_page(id)? {
            self.later(self.options.merge, Event::PageMerged { node: id, incarnation });
        }
        self.look_at_others(id)?;
        self.review(id);
        Ok(())
    }

    /// Merges the rest of a copy that was noted before a start.
    pub(super) fn merge_pages(&mut self, id: NodeId) -> Result<(), Violation> {
        while self.merge_page(id)? {}
        Ok(())
    }

    /// The replica is about to be replaced. A copy that is noted counts like what is logged; one whose note is on its way does not yet.
    pub(super) fn end_copy(&mut self, id: NodeId) -> Result<(), Violation> {
        let eventual = self.process(id).and_then(|process| process.eventual.as_ref());
        if eventual.is_some_and(|eventual| matches!(eventual.copying, Copying::Merging(_))) {
            self.merge_all(id)?;
            self.merge_pages(id)?;
        }
        Ok(())
    }

    /// Merges the next page, if there is one. Whether there are more.
    fn merge_page(&mut self, id: NodeId) -> Result<bool, Violation> {
        let node = self.node_mut(id);
        let Some(eventual) = node.process.as_mut().and_then(|process| process.eventual.as_mut()) else {
            return Ok(false);
        };
        let Copying::Merging(note) = &eventual.copying else { return Ok(false) };
        let note = Rc::clone(note);
        let number = eventual.machine.state().copied_pages;
        let page =
            usize::try_from(number).ok().and_then(|number| node.origins.written().aside(note.era, number));
        let page = page.ok_or_else(|| broken(id, format!("page {number} of {note:?} is not there")))?;
        let page = Page::decode(&page).map_err(|error| broken(id, error))?;
        let changes = eventual.machine.copy_page(&note, &page, &node.data.current);
        node.data.write(changes.map_err(|error| broken(id, error))?.into());
        if takes(Shortcut::CopyWipesOwn) && number == 0 {
            let of_era =
                |stored: &[u8]| record::decode(stored).is_ok_and(|record| record.version.era == note.era);
            let records = node.data.current.records.iter().filter(|(_, stored)| of_era(stored));
            let records = records.map(|(key, _)| (key.clone(), None)).collect();
            node.data.write(super::data::Batch { records, ..super::data::Batch::default() });
        }
        if eventual.machine.is_copying() {
            return Ok(true);
        }
        for (origin, seq) in eventual.logs.copied(&note.vector) {
            eventual.stamps.skip(origin, seq);
        }
        eventual.copying = Copying::Merged(note);
        self.totals.copies += 1;
        Ok(false)
    }

    /// What was put aside goes once all of it is flushed, and with it the runs before a gap that it has filled.
    pub(super) fn clean_up_copy(&mut self, id: NodeId) {
        let node = self.node_mut(id);
        let Some(eventual) = node.process.as_mut().and_then(|process| process.eventual.as_mut()) else {
            return;
        };
        let Copying::Merged(note) = &eventual.copying else { return };
        let flushed = node.data.flushed.eventual_of(note.era);
        let is_flushed = |state: State| state.copied_pages == 0 && state.applied.covers(&note.vector);
        if !flushed.is_some_and(is_flushed) {
            return;
        }
        let logs = &eventual.logs;
        let dropped = note.vector.iter().filter(|(origin, seq)| *seq <= logs.dropped(*origin));
        let mut ops: Vec<Op> = dropped.map(|(origin, seq)| Op::Drop(note.era, origin, seq)).collect();
        ops.push(Op::CopyDone(note.era));
        eventual.copying = Copying::None;
        self.write_later(id, Job::Origins { ops, then: Then::Nothing });
    }
}

impl Process {
    /// Whether a copy of all up to `vector` may count from now on: the gate is open, or this node is sealed and lacks part of the
    /// cut, and all of it lies within.
    fn admits_copy(&self, vector: &Vector) -> bool {
        if self.installing.is_some() {
            return false;
        }
        match (self.peer.gate(), self.peer.heard()) {
            (Gate::Sealed(seal), Some(heard)) => seal.cut(heard).is_some_and(|cut| cut.covers(vector)),
            (gate, _) => *gate == Gate::Open,
        }
    }
}

/// All pages of a node that stands at `state`.
fn pages(
    state: &State,
    data: &super::data::Stored,
) -> Result<Vec<Bytes>, rdb_core::eventual::machine::Error<std::convert::Infallible>> {
    let (from, to) = (awaited_of_era(state.era), awaited_of_era(Era(state.era.0 + 1)));
    let mut pages = vec![copy::awaited(&data.notes(&from, &to).unwrap_or_default())?];
    let mut records = Vec::new();
    for (key, stored) in &data.records {
        records.extend(copy::parts(state.era, (key, stored), (0 < state.lost, NOTES_BYTES), data)?);
    }
    pages.extend(records.chunks(RECORDS_PER_PAGE).map(|chunk| Page::Records(chunk.to_vec())));
    Ok(pages.iter().map(|page| Rc::new(page.encode())).collect())
}

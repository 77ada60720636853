//! Members for which too much would have to be kept are given up; and a member that was given up takes a copy.
//!
//! Who gives a member up says so in its reports. The member then fetches a copy of that one's part, page by page, and puts the pages
//! aside in its log, unsynced. Once all are there it notes that, synced; until then the copy is dropped, whatever happens, and leaves
//! no trace. From then on it is merged, a few pages in each tick, also after a restart. When the data has flushed all of it, the
//! pages and the note go.
//!
//! From the last page on until all are merged no runs are taken in. Nor does the gate seal meanwhile: what the note brings counts as
//! synced once it is merged, and a seal behind the note must tell of it.

use super::{Replica, ReplicaError, Tools};
use crate::eventual::copy::Piece;
use crate::eventual::records::Place;
use fail::fail_point;
use rdb_core::codec::Corrupt;
use rdb_core::eventual::copy::{self, ASIDE, NOTE_PLACE, Note, Page, Part};
use rdb_core::eventual::machine::State;
use rdb_core::eventual::vector::Vector;
use rdb_core::ids::{NodeId, RegionId};
use rdb_core::record;
use rdb_core::version::Hlc;
use rdb_storage::OriginWrite;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Between two copies: by then the others have heard what the last one has brought, or what kept it from coming has changed.
const COPY_INTERVAL: Duration = Duration::from_secs(3);
/// In one step, pages are merged for so long: less than half of a tick.
const MERGE_STEP: Duration = Duration::from_millis(4);

/// How far the copy is that this node takes.
#[derive(Debug)]
enum Stage {
    /// There is none.
    None,
    /// What was put aside is of no use.
    Litter,
    /// Its pages come; so many are here. With the first one, where their sender stood.
    Fetching { from: NodeId, state: Option<State>, pages: u64 },
    /// All of them are here.
    Complete(Note),
    /// The note of that is on its way to the disk.
    Noting(Note),
    /// It is merged.
    Merging(Note),
    /// It is merged, and what it has brought is durable with the flush of this number.
    Unflushed(Note, u64),
}

/// Copies, as far as this region is concerned.
#[derive(Debug)]
pub(super) struct Copying {
    stage: Stage,
    /// Which attempt this is: what comes of another one is dropped.
    attempt: u64,
    not_before: Option<Instant>,
    /// Members that cannot serve this one from their logs, with what they had synced when they said so.
    given_up_by: BTreeMap<NodeId, Vector>,
    /// Members that this one cannot serve from its logs, as it tells them.
    gives_up: Vec<NodeId>,
}

impl Copying {
    /// As a start finds it, with the state of the region's data.
    ///
    /// # Errors
    /// The note is damaged, or the log could not be read.
    pub(super) fn open(region: RegionId, state: &State, tools: &Tools) -> Result<Self, ReplicaError> {
        let found = tools.logs.runs(region, state.era, ASIDE, NOTE_PLACE - 1, 0)?;
        let note = found.first().map(|note| Note::decode(note)).transpose()?;
        let stage = match note {
            Some(note) if state.copied_pages != 0 || !state.applied.covers(&note.vector) => {
                Stage::Merging(note)
            }
            Some(note) => Stage::Unflushed(note, tools.data.next_flush()),
            None if tools.logs.runs(region, state.era, ASIDE, 0, 0)?.is_empty() => Stage::None,
            None => Stage::Litter,
        };
        let (given_up_by, gives_up) = (BTreeMap::new(), Vec::new());
        Ok(Self { stage, attempt: 0, not_before: None, given_up_by, gives_up })
    }

    /// What a copy that is complete brings, or has brought.
    pub(super) fn vector(&self) -> Vector {
        match &self.stage {
            Stage::Complete(note)
            | Stage::Noting(note)
            | Stage::Merging(note)
            | Stage::Unflushed(note, _) => note.vector.clone(),
            Stage::None | Stage::Litter | Stage::Fetching { .. } => Vector::default(),
        }
    }

    /// Whether no runs are taken in now.
    pub(super) fn takes_no_runs(&self) -> bool {
        matches!(self.stage, Stage::Complete(_) | Stage::Noting(_) | Stage::Merging(_))
    }

    /// Whether a copy comes or is merged.
    pub(super) fn is_under_way(&self) -> bool {
        self.takes_no_runs() || matches!(self.stage, Stage::Fetching { .. })
    }

    /// Whether a member cannot be served from the logs here.
    pub(super) fn gives_up(&self, node: NodeId) -> bool {
        self.gives_up.contains(&node)
    }

    /// Whether any cannot.
    pub(super) fn gives_anybody_up(&self) -> bool {
        !self.gives_up.is_empty()
    }

    /// A member that has synced so much says whether it can serve this one from its logs.
    pub(super) fn hear(&mut self, node: NodeId, cannot: bool, synced: &Vector) {
        if cannot {
            self.given_up_by.insert(node, synced.clone());
        } else {
            self.given_up_by.remove(&node);
        }
    }

    fn end(&mut self, stage: Stage) {
        self.stage = stage;
        self.not_before = Some(Instant::now() + COPY_INTERVAL);
    }
}

impl Replica {
    /// Gives up members for which too much is kept, and takes back those that have taken a copy.
    pub(super) fn give_up(&mut self, tools: &Tools) {
        let cap = tools.limits.log_bytes_max;
        for node in self.peers.take_back(cap, &self.logs) {
            tracing::info!(region = %self.region, %node, "a member that was given up is served from the logs again");
        }
        let before = self.peers.need_copy(&self.logs);
        let kept = self.logs.bytes();
        for node in self.peers.keep_below(cap, &self.logs) {
            // One that began a copy and does not keep up is given up again.
            if !before.contains(&node) {
                tracing::warn!(
                    region = %self.region, %node, kept, cap,
                    "the logs that are kept for a member have reached their cap: it is given up, and has to take a copy of the \
                     data when it is back"
                );
            }
            // Only what is flushed can be dropped.
            tools.data.want_flush(tools.data.next_flush());
        }
    }

    /// Looks which members cannot be served from the logs, and tells all of them if that has changed. Whatever the gate: this node
    /// may have dropped what a member lacks, and have forgotten whom it gave up since it started sealed. Told of nothing, the
    /// member would take no copy, and the switch that has sealed it would wait for what nobody sends.
    pub(super) fn look_who_needs_a_copy(&mut self) {
        let now = self.peers.need_copy(&self.logs);
        if self.copying.gives_up != now {
            self.copying.gives_up = now;
            self.tell_again();
        }
        self.shown.show_given_up(self.copying.gives_up.len() as u64);
    }

    /// Whether this node lacks what some member, not one of `excluded`, can only bring it by a copy.
    pub(in crate::eventual) fn needs_copy(&self, excluded: &BTreeSet<NodeId>) -> bool {
        let synced = self.logs.synced_vector();
        let lacks =
            |(node, theirs): (&NodeId, &Vector)| !excluded.contains(node) && copy::is_needed(theirs, &synced);
        self.is_merging() || self.copying.given_up_by.iter().any(lacks)
    }

    /// Whether a copy that is complete is not merged yet.
    pub(in crate::eventual) fn is_merging(&self) -> bool {
        matches!(self.copying.stage, Stage::Noting(_) | Stage::Merging(_))
    }

    /// Begins a copy, if one is needed: from the member that is heard and has most of what this node lacks.
    pub(in crate::eventual) fn begin_copy(&mut self, hears: impl Fn(NodeId) -> bool, tools: &Tools) {
        let now = Instant::now();
        if !matches!(self.copying.stage, Stage::None) || self.copying.not_before.is_some_and(|at| now < at) {
            return;
        }
        let synced = self.logs.synced_vector();
        let offers = self.copying.given_up_by.iter().filter(|(node, _)| hears(**node));
        let best = offers.map(|(node, theirs)| (synced.lacks(theirs), *node)).max();
        let Some((writes, from)) = best.filter(|(writes, _)| *writes != 0) else { return };
        tracing::info!(region = %self.region, %from, writes, "this node takes a copy: what it lacks is in no log any more");
        self.copying.attempt += 1;
        self.copying.stage = Stage::Fetching { from, state: None, pages: 0 };
        tools.fetcher.copy(from, self.place(), self.copying.attempt);
    }

    pub(super) fn place(&self) -> Place {
        Place { region: self.region, namespace: self.namespace, era: self.logs.era() }
    }

    /// Whether a member can take a copy of this node; what comes behind where it stands now is then kept for it.
    pub(in crate::eventual) fn opens_copy(&mut self, to: NodeId) -> bool {
        if self.machine.is_copying() {
            return false;
        }
        self.peers.copies(to, &self.machine.state().applied);
        true
    }

    /// Whether all of that is synced here. What is acknowledged before its sync is in the data before, and in a copy of it.
    pub(in crate::eventual) fn has_synced(&self, vector: &Vector) -> bool {
        self.logs.synced_vector().covers(vector)
    }

    /// A page has come. What is to be written of it, and whom to tell then.
    pub(in crate::eventual) fn take_page(
        &mut self,
        attempt: u64,
        piece: Piece,
    ) -> Option<(OriginWrite, oneshot::Sender<()>)> {
        let Piece { number, state: stood, page, last, go_on } = piece;
        let Stage::Fetching { from, state, pages } = &mut self.copying.stage else { return None };
        if attempt != self.copying.attempt || number != *pages {
            return None;
        }
        if stood.is_some() {
            *state = stood;
        }
        let (from, first) = (*from, *pages == 0);
        *pages += 1;
        let (me, era) = (self.logs.me(), self.logs.era());
        let offered = state.as_ref().filter(|state| state.era == era && state.copied_pages == 0);
        let logged = self.logs.logged_vector();
        let note = offered.filter(|state| copy::is_of_use(&state.applied, &logged, me));
        let Some(note) = note.map(|state| Note::of(from, state, *pages)) else {
            self.drop_copy("it brings nothing that this node lacks");
            return None;
        };
        if let Err(error) = Page::decode(&page) {
            self.drop_copy(&error.to_string());
            return None;
        }
        if last {
            self.copying.stage = Stage::Complete(note);
        }
        let drop = if first { vec![(ASIDE, u64::MAX)] } else { Vec::new() };
        let runs = vec![(ASIDE, number + 1, page)];
        Some((OriginWrite { era, drop, runs, ..OriginWrite::default() }, go_on))
    }

    /// An attempt to take a copy has failed.
    pub(in crate::eventual) fn copy_failed(&mut self, attempt: u64, reason: &str) {
        if attempt == self.copying.attempt {
            self.drop_copy(reason);
        }
    }

    /// A copy that is not noted yet leaves no trace.
    pub(in crate::eventual) fn drop_copy(&mut self, reason: &str) {
        if let Stage::Fetching { from, .. } | Stage::Complete(Note { from, .. }) = self.copying.stage {
            tracing::warn!(region = %self.region, %from, reason, "the copy that this node takes was dropped; it is taken again if it is still needed");
            self.copying.end(Stage::Litter);
        }
    }

    /// What is to be written of a copy that is complete, if the gate admits it, and once nothing that came before waits to be
    /// logged: from its sync on it counts.
    pub(in crate::eventual) fn note_copy(&mut self, admits: impl Fn(&Vector) -> bool) -> Option<OriginWrite> {
        let Stage::Complete(note) = &self.copying.stage else { return None };
        let note = note.clone();
        if !admits(&note.vector) {
            self.drop_copy("a switch of mode is under way, and it may lie beyond what that keeps");
            return None;
        }
        if !self.received.is_empty() {
            return None;
        }
        fail_point!("copy-before-note");
        let runs = vec![(ASIDE, NOTE_PLACE, note.encode().into())];
        self.copying.stage = Stage::Noting(note);
        Some(OriginWrite { era: self.logs.era(), runs, sync: true, ..OriginWrite::default() })
    }

    /// The note is synced: the copy is merged now, whatever happens. The highest stamp in it.
    pub(in crate::eventual) fn copy_noted(&mut self) -> Option<Hlc> {
        let Stage::Noting(note) = &self.copying.stage else { return None };
        tracing::info!(region = %self.region, from = %note.from, pages = note.pages, "the copy is complete, and is merged");
        let highest = note.highest;
        self.copying.stage = Stage::Merging(note.clone());
        Some(highest)
    }

    /// Merges the rest of a copy that was noted before this start.
    pub(super) fn merge_all(&mut self, tools: &Tools) -> Result<(), ReplicaError> {
        while self.merge_page(tools)? {}
        Ok(())
    }

    /// Merges some pages. Whether there are more.
    pub(super) fn merge_some(&mut self, tools: &Tools) -> Result<bool, ReplicaError> {
        let began = Instant::now();
        while self.merge_page(tools)? {
            if MERGE_STEP <= began.elapsed() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Merges a page. Whether there are more.
    fn merge_page(&mut self, tools: &Tools) -> Result<bool, ReplicaError> {
        let Stage::Merging(note) = &self.copying.stage else { return Ok(false) };
        let note = note.clone();
        let number = self.machine.state().copied_pages;
        let found = tools.logs.runs(self.region, note.era, ASIDE, number, 0)?;
        let page = found.first().ok_or(ReplicaError::NoPage { page: number })?;
        let page = Page::decode(page)?;
        self.see_tombstones(&page)?;
        let changes = self.machine.copy_page(&note, &page, &self.data)?;
        self.write(&changes, tools)?;
        if self.machine.is_copying() {
            return Ok(true);
        }
        self.copy_merged(note, tools);
        Ok(false)
    }

    fn see_tombstones(&mut self, page: &Page) -> Result<(), Corrupt> {
        let Page::Records(records) = page else { return Ok(()) };
        for copied in records {
            if let Part::First(record) = &copied.part {
                self.see_tombstone(record)?;
            }
        }
        Ok(())
    }

    /// A record that comes by another way than a run: if it is a tombstone, it has to be purged in its time.
    pub(super) fn see_tombstone(&mut self, record: &[u8]) -> Result<(), Corrupt> {
        let record = record::decode(record)?;
        if record.value.is_none() {
            self.upkeep.tombstones.saw(record.version.hlc);
        }
        Ok(())
    }

    /// All of a copy is merged: this node stands where both stood together.
    fn copy_merged(&mut self, note: Note, tools: &Tools) {
        tracing::info!(region = %self.region, from = %note.from, "the copy is merged");
        for (origin, seq) in self.logs.copied(&note.vector) {
            self.stamps.skip(origin, seq);
        }
        let flush = tools.data.next_flush();
        tools.data.want_flush(flush);
        self.copying.end(Stage::Unflushed(note, flush));
        self.comparing.want_soon();
        self.upkeep.losses.look_for_settled();
        self.show_applied();
        self.show_acked();
        // What came meanwhile was not taken in, and is to be sent again.
        for told in self.told.values_mut() {
            (told.report, told.asks) = (None, true);
        }
    }

    /// What was put aside goes, if nobody needs it any more: not this node's next start either.
    pub(in crate::eventual) fn clean_up_copy(&mut self, tools: &Tools) -> Option<OriginWrite> {
        let era = self.logs.era();
        let mut drop = vec![(ASIDE, u64::MAX)];
        match &self.copying.stage {
            Stage::Litter => {}
            Stage::Unflushed(note, flush) if *flush <= tools.data.flushed() => {
                // With the note go the runs before a gap that the copy has filled.
                let is_dropped = |(origin, seq): &(_, u64)| *seq <= self.logs.dropped(*origin);
                drop.extend(note.vector.iter().filter(is_dropped));
            }
            _ => return None,
        }
        self.copying.stage = Stage::None;
        Some(OriginWrite { era, drop, ..OriginWrite::default() })
    }
}

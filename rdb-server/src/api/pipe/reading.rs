//! How the pipe's reads are served, once they may be: those of what lies in memory by the pipe's own task, at once. From the first on that
//! may have to wait for the disk, they are looked up by threads that can, a few together, and answered as they are found.

use super::{Gone, Part, Pipe, READ_OVERHEAD_BYTES, RESPONSE_BYTES, Span, UnderWay, Work, result};
use crate::api::kv::records;
use crate::api::reads::Served;
use crate::api::request::{self, error_result, found};
use crate::api::session::Saw;
use crate::api::{Target, admit_read, status};
use crate::budget::{Budget, Share};
use crate::eventual::records::Stored;
use crate::metrics::{Operation, Result as MetricResult};
use crate::shared::Shared;
use bytes::Bytes;
use prost::Message as _;
use rdb_pd::{Mode, Stage};
use rdb_proto::v1;
use rdb_proto::v1::pipe_result::Result as WireResult;
use std::time::Instant;
use std::vec;

/// Keys that one thread looks up before its reads are answered; a read of more is looked up alone.
const KEYS_TOGETHER: usize = 16;
/// Lookups of one pipe at a time. What they find is in memory until the client reads it.
const LOOKUPS_MAX: usize = 8;

/// A read and its id.
pub(super) struct Read {
    pub(super) id: u64,
    pub(super) keys: Keys,
}

pub(super) enum Keys {
    One(Bytes),
    Many(Vec<Bytes>),
}

impl Read {
    /// What it takes until it is served.
    pub(super) fn bytes(&self) -> usize {
        match &self.keys {
            Keys::One(key) => key.len() + READ_OVERHEAD_BYTES,
            Keys::Many(keys) => keys.iter().map(|key| key.len() + READ_OVERHEAD_BYTES).sum(),
        }
    }
}

impl Keys {
    fn count(&self) -> usize {
        match self {
            Keys::One(_) => 1,
            Keys::Many(keys) => keys.len(),
        }
    }
}

pub(super) fn ids(reads: &[Read]) -> Vec<u64> {
    reads.iter().map(|read| read.id).collect()
}

/// Reads that are looked up together, and what they take of the node's memory.
pub(super) struct Batch {
    reads: Vec<Read>,
    share: Share,
}

/// What was found for a read, with what it takes of the node's memory, and what it shows.
pub(super) struct Answered {
    result: v1::PipeResult,
    share: Option<Share>,
    saw: Saw,
}

pub(super) type LookedUp = Vec<Answered>;

impl Answered {
    /// Takes memory for what was found; without it the result is an error.
    fn new(budget: &Budget, id: u64, found: Result<(WireResult, Saw), v1::Error>) -> Self {
        let charged = found.and_then(|(found, saw)| {
            let share = admit_read(budget, found.encoded_len())?;
            Ok(Self { result: result(id, found), share: Some(share), saw })
        });
        charged.unwrap_or_else(|error| Self::failed(id, error))
    }

    fn failed(id: u64, error: v1::Error) -> Self {
        Self { result: result(id, error_result(error)), share: None, saw: Saw::default() }
    }
}

impl Pipe {
    /// Serves reads; `stored` is what was found for them, where that is not here.
    pub(super) async fn read(
        &mut self,
        target: Target,
        how: Served,
        reads: Vec<Read>,
        stored: Option<Stored>,
        span: Span,
    ) -> Result<(), Gone> {
        // The namespace may have been deleted or have changed its rules while the reads waited.
        let catalog = self.shared.catalog.load();
        let error = match catalog.namespace_of(target.namespace) {
            Some(namespace) if namespace.stage == Stage::Open => self.shared.still_here(target).err(),
            Some(_) | None => Some(status::namespace_gone()),
        };
        if let Some(error) = error {
            return self.refuse_reads(target, ids(&reads), &error, span.began).await;
        }
        let budget = self.shared.regions.budget(target.region);
        let mut stored = stored.map(Vec::into_iter);
        let (mut reads, mut count) = (reads.into_iter(), 0);
        while let Some(read) = reads.next() {
            let saw = self.shared.saw(target);
            let found = match &mut stored {
                Some(stored) => take(&read.keys, stored, saw),
                None => match in_memory(&self.shared, target, &read.keys, saw).transpose() {
                    Some(found) => found,
                    None => {
                        let rest = std::iter::once(read).chain(reads).collect();
                        self.count_reads(count, span.began);
                        return self.queue_lookups(target, how, rest, span).await;
                    }
                },
            };
            self.answer_read(target, how, Answered::new(&budget, read.id, found)).await?;
            count += 1;
        }
        self.count_reads(count, span.began);
        Ok(())
    }

    /// Adds one answer. Whatever leaves with it counts, and is named in the session's token: an answer may fill a response, and
    /// then the next one goes into another.
    async fn answer_read(&mut self, target: Target, how: Served, answered: Answered) -> Result<(), Gone> {
        self.out.shares.extend(answered.share);
        if target.mode == Mode::Eventual {
            self.out.saw(target, how).join(&answered.saw);
        }
        self.out.add_read(target, how, answered.result).await
    }

    fn count_reads(&self, count: u64, began: Instant) {
        self.shared.metrics.requests(Operation::Read, MetricResult::Done, count, began.elapsed());
    }

    /// Has reads looked up by threads that may wait for the disk.
    async fn queue_lookups(
        &mut self,
        target: Target,
        how: Served,
        reads: Vec<Read>,
        Span { began, timeout }: Span,
    ) -> Result<(), Gone> {
        let budget = self.shared.regions.budget(target.region);
        for reads in together(reads) {
            match admit_read(&budget, reads.iter().map(Read::bytes).sum()) {
                Ok(share) => {
                    let work = Work::Lookup(ids(&reads), how);
                    let under_way = UnderWay { target, work, began, deadline: began + timeout, timeout };
                    let ticket = self.enter(reads.len(), under_way);
                    self.to_look_up.push_back((ticket, Batch { reads, share }));
                }
                Err(error) => self.refuse_reads(target, ids(&reads), &error, began).await?,
            }
        }
        self.start_lookups();
        Ok(())
    }

    fn start_lookups(&mut self) {
        while self.lookups < LOOKUPS_MAX
            && let Some((ticket, batch)) = self.to_look_up.pop_front()
        {
            // Those of a ticket that is gone are answered: it was too late for them.
            let Some(UnderWay { target, deadline, .. }) = self.under_way.get(&ticket) else { continue };
            let (target, deadline) = (*target, *deadline);
            self.lookups += 1;
            let (shared, parts) = (self.shared.clone(), self.parts.clone());
            tokio::spawn(async move {
                let look = move |shared: &Shared| look_up(shared, target, batch, deadline);
                // Where it takes too long its reads are answered so by `sweep`.
                let looked_up = shared.by_a_thread(deadline, look).await.ok();
                drop(parts.send(Part::LookedUp(ticket, looked_up)));
            });
        }
    }

    /// Answers what was looked up, and has the rest looked up. `None`: it took too long.
    pub(super) async fn looked_up(
        &mut self,
        ticket: u64,
        looked_up: Option<(LookedUp, Batch)>,
    ) -> Result<(), Gone> {
        self.lookups -= 1;
        if let Some((found, rest)) = looked_up
            && let Some(UnderWay { target, work: Work::Lookup(left, how), began, .. }) =
                self.under_way.get_mut(&ticket)
        {
            // A stale read is older by as long as it has waited here.
            let (target, how, began) = (*target, how.after(began.elapsed()), *began);
            self.operations -= left.len() - rest.reads.len();
            *left = ids(&rest.reads);
            if rest.reads.is_empty() {
                self.under_way.remove(&ticket);
            } else {
                self.to_look_up.push_front((ticket, rest));
            }
            self.count_reads(found.len() as u64, began);
            for found in found {
                self.answer_read(target, how, found).await?;
            }
        }
        self.start_lookups();
        Ok(())
    }
}

/// Cuts reads into those that one thread looks up.
fn together(reads: Vec<Read>) -> Vec<Vec<Read>> {
    let mut parts: Vec<Vec<Read>> = Vec::new();
    let mut keys = KEYS_TOGETHER;
    for read in reads {
        keys += read.keys.count();
        match parts.last_mut().filter(|_| keys <= KEYS_TOGETHER) {
            Some(part) => part.push(read),
            None => {
                keys = read.keys.count();
                parts.push(vec![read]);
            }
        }
    }
    parts
}

/// Looks reads up until there is a response's worth of results, or it is too late. Those that are left come back.
fn look_up(shared: &Shared, target: Target, batch: Batch, deadline: Instant) -> (LookedUp, Batch) {
    let budget = shared.regions.budget(target.region);
    let (mut found, mut bytes) = (LookedUp::new(), 0);
    let mut reads = batch.reads.into_iter();
    while bytes < RESPONSE_BYTES
        && Instant::now() < deadline
        && let Some(Read { id, keys }) = reads.next()
    {
        let answered = Answered::new(&budget, id, on_disk(shared, target, &keys, shared.saw(target)));
        bytes += answered.result.encoded_len();
        found.push(answered);
    }
    (found, Batch { reads: reads.collect(), share: batch.share })
}

/// `None`: the disk may have to be read for it.
fn in_memory(
    shared: &Shared,
    target: Target,
    keys: &Keys,
    saw: Saw,
) -> Result<Option<(WireResult, Saw)>, v1::Error> {
    let found = match keys {
        Keys::One(key) => shared.record_in_memory(target, key)?.map(|record| one(record, saw)),
        Keys::Many(keys) => shared.records_in_memory(target, keys)?.map(|stored| many(keys, stored, saw)),
    };
    found.ok().transpose()
}

fn on_disk(shared: &Shared, target: Target, keys: &Keys, saw: Saw) -> Result<(WireResult, Saw), v1::Error> {
    match keys {
        Keys::One(key) => one(shared.record_on_disk(target, key)?, saw),
        Keys::Many(keys) => many(keys, shared.records_on_disk(target, keys)?, saw),
    }
}

/// From what was found for this read and the following ones.
fn take(
    keys: &Keys,
    stored: &mut vec::IntoIter<Option<Bytes>>,
    saw: Saw,
) -> Result<(WireResult, Saw), v1::Error> {
    match keys {
        Keys::One(_) => one(stored.next().flatten(), saw),
        Keys::Many(keys) => many(keys, stored.take(keys.len()).collect(), saw),
    }
}

fn one(record: Option<Bytes>, mut saw: Saw) -> Result<(WireResult, Saw), v1::Error> {
    let found = found(record)?;
    saw.found(&found);
    let request::Found { value, version, deleted, .. } = found;
    Ok((WireResult::Found(v1::Found { value, version, deleted }), saw))
}

fn many(keys: &[Bytes], stored: Stored, mut saw: Saw) -> Result<(WireResult, Saw), v1::Error> {
    let records = records(keys, stored, &mut saw)?;
    Ok((WireResult::Records(v1::Records { records }), saw))
}

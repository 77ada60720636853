//! How the pipe's reads are served, once they may be: those of what lies in memory by the pipe's own task, at once. From the first on that
//! may have to wait for the disk, they are looked up by threads that can, a few together, and answered as they are found.

use super::{Gone, Part, Pipe, READ_OVERHEAD_BYTES, RESPONSE_BYTES, UnderWay, Work, result};
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

/// Reads that one thread looks up before they are answered.
const READS_TOGETHER: usize = 16;
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

pub(super) fn ids(reads: &[Read]) -> Vec<u64> {
    reads.iter().map(|read| read.id).collect()
}

/// What was found for reads.
#[derive(Default)]
pub(super) struct Looked {
    results: Vec<v1::PipeResult>,
    bytes: usize,
    /// What the results take of the node's memory.
    shares: Vec<Share>,
    /// Of a namespace in eventual mode, what they show.
    saw: Option<Saw>,
}

impl Looked {
    /// Takes memory for a read's result; without it the result is an error.
    fn add(&mut self, budget: &Budget, id: u64, found: Result<(WireResult, Saw), v1::Error>) {
        let charged = found.and_then(|(found, saw)| {
            self.shares.push(admit_read(budget, found.encoded_len())?);
            self.saw.get_or_insert_default().join(&saw);
            Ok(found)
        });
        let result = result(id, charged.unwrap_or_else(error_result));
        self.bytes += result.encoded_len();
        self.results.push(result);
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
        began: Instant,
    ) -> Result<(), Gone> {
        // The namespace may have been deleted or have changed its rules while the reads waited.
        let catalog = self.shared.catalog.load();
        let error = match catalog.namespace_of(target.namespace) {
            Some(namespace) if namespace.stage == Stage::Open => self.shared.still_here(target).err(),
            Some(_) | None => Some(status::namespace_gone()),
        };
        if let Some(error) = error {
            return self.refuse_reads(target, ids(&reads), &error, began).await;
        }
        let budget = self.shared.regions.budget(target.region);
        let mut stored = stored.map(Vec::into_iter);
        let mut reads = reads.into_iter();
        let mut looked = Looked::default();
        while let Some(read) = reads.next() {
            let found = match &mut stored {
                Some(stored) => take(&self.shared, target, read.keys, stored),
                None => match in_memory(&self.shared, target, &read.keys).transpose() {
                    Some(found) => found,
                    None => {
                        let rest = std::iter::once(read).chain(reads).collect();
                        self.answer_reads(target, how, looked, began).await?;
                        return self.look_up(target, how, rest, began).await;
                    }
                },
            };
            looked.add(&budget, read.id, found);
            if RESPONSE_BYTES <= looked.bytes {
                self.answer_reads(target, how, std::mem::take(&mut looked), began).await?;
            }
        }
        self.answer_reads(target, how, looked, began).await
    }

    async fn answer_reads(
        &mut self,
        target: Target,
        how: Served,
        looked: Looked,
        began: Instant,
    ) -> Result<(), Gone> {
        let Looked { results, shares, saw, .. } = looked;
        self.shared.metrics.requests(
            Operation::Read,
            MetricResult::Done,
            results.len() as u64,
            began.elapsed(),
        );
        self.out.shares.extend(shares);
        if let Some(saw) = saw.filter(|_| target.mode == Mode::Eventual) {
            self.out.saw(target, how).join(&saw);
        }
        for result in results {
            self.out.add_read(target, how, result).await?;
        }
        Ok(())
    }

    /// Has reads looked up by threads that may wait for the disk.
    async fn look_up(
        &mut self,
        target: Target,
        how: Served,
        reads: Vec<Read>,
        began: Instant,
    ) -> Result<(), Gone> {
        let budget = self.shared.regions.budget(target.region);
        let timeout = self.shared.config.request_timeout();
        let mut reads = reads.into_iter().peekable();
        while reads.peek().is_some() {
            let together: Vec<_> = reads.by_ref().take(READS_TOGETHER).collect();
            match admit_read(&budget, together.iter().map(Read::bytes).sum()) {
                Ok(share) => {
                    let work = Work::Lookup { ids: ids(&together), how, _share: share };
                    let ticket = self.wait(target, together.len(), work, (began, timeout));
                    self.to_look_up.push_back((ticket, together));
                }
                Err(error) => self.refuse_reads(target, ids(&together), &error, began).await?,
            }
        }
        self.start_lookups();
        Ok(())
    }

    fn start_lookups(&mut self) {
        while self.lookups < LOOKUPS_MAX
            && let Some((ticket, reads)) = self.to_look_up.pop_front()
        {
            // Those of a ticket that is gone are answered: it was too late for them.
            let Some(UnderWay { target, .. }) = self.under_way.get(&ticket) else { continue };
            let (target, shared, parts) = (*target, self.shared.clone(), self.parts.clone());
            let budget = shared.regions.budget(target.region);
            self.lookups += 1;
            let all = ids(&reads);
            tokio::spawn(async move {
                let looked = shared.look_up(move |shared| Ok(look_up(shared, target, &budget, reads))).await;
                let (looked, rest) = looked.unwrap_or_else(|error| {
                    let results = all.into_iter().map(|id| result(id, error_result(error.clone()))).collect();
                    (Looked { results, ..Looked::default() }, Vec::new())
                });
                drop(parts.send(Part::Looked(ticket, looked, rest)));
            });
        }
    }

    /// Answers what was looked up, and has the rest looked up.
    pub(super) async fn looked_up(
        &mut self,
        ticket: u64,
        looked: Looked,
        rest: Vec<Read>,
    ) -> Result<(), Gone> {
        self.lookups -= 1;
        if let Some(UnderWay { target, work: Work::Lookup { ids: left, how, .. }, began, .. }) =
            self.under_way.get_mut(&ticket)
        {
            let (target, how, began) = (*target, *how, *began);
            self.operations -= left.len() - rest.len();
            *left = ids(&rest);
            if rest.is_empty() {
                self.under_way.remove(&ticket);
            } else {
                self.to_look_up.push_front((ticket, rest));
            }
            self.answer_reads(target, how, looked, began).await?;
        }
        self.start_lookups();
        Ok(())
    }
}

/// Looks reads up until there is a response's worth of results. Those that are left come back.
fn look_up(shared: &Shared, target: Target, budget: &Budget, reads: Vec<Read>) -> (Looked, Vec<Read>) {
    let mut looked = Looked::default();
    let mut reads = reads.into_iter();
    while looked.bytes < RESPONSE_BYTES
        && let Some(Read { id, keys }) = reads.next()
    {
        let found = match keys {
            Keys::One(key) => {
                let saw = shared.saw(target);
                shared.read_record(target, &key).and_then(|record| one(record.map(Bytes::from), saw))
            }
            Keys::Many(keys) => {
                let saw = shared.saw(target);
                shared.read_records(target, &keys).and_then(|stored| many(keys, stored, saw))
            }
        };
        looked.add(budget, id, found);
    }
    (looked, reads.collect())
}

/// `None`: the disk may have to be read for it.
fn in_memory(shared: &Shared, target: Target, keys: &Keys) -> Result<Option<(WireResult, Saw)>, v1::Error> {
    let Keys::One(key) = keys else { return Ok(None) };
    let saw = shared.saw(target);
    let record = shared.record_in_memory(target, key)?;
    record.map(|record| one(record.map(Bytes::from), saw)).transpose()
}

/// From what was found for this read and the following ones.
fn take(
    shared: &Shared,
    target: Target,
    keys: Keys,
    stored: &mut vec::IntoIter<Option<Bytes>>,
) -> Result<(WireResult, Saw), v1::Error> {
    let saw = shared.saw(target);
    match keys {
        Keys::One(_) => one(stored.next().flatten(), saw),
        Keys::Many(keys) => {
            let stored = stored.take(keys.len()).collect();
            many(keys, stored, saw)
        }
    }
}

fn one(record: Option<Bytes>, mut saw: Saw) -> Result<(WireResult, Saw), v1::Error> {
    let found = found(record)?;
    saw.found(&found);
    let request::Found { value, version, deleted, .. } = found;
    Ok((WireResult::Found(v1::Found { value, version, deleted }), saw))
}

fn many(keys: Vec<Bytes>, stored: Stored, mut saw: Saw) -> Result<(WireResult, Saw), v1::Error> {
    let records = records(keys, stored, &mut saw)?;
    Ok((WireResult::Records(v1::Records { records }), saw))
}

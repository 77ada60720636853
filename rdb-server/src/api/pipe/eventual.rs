//! What the pipe does in eventual mode: writes that wait for other members once they are done here, reads that wait until this
//! node shows what a session has seen, and reads of a majority. Each message's wait is a task of its own, which ends by the
//! message's deadline and says why.

use super::reading::{Keys, Read, ids};
use super::{Gone, Part, Pipe, Span, UnderWay, Work, result};
use crate::api::acks::{Held, answer_by};
use crate::api::eventual_reads::Way;
use crate::api::reads::{Served, Wanted};
use crate::api::request::{error_result, write_result};
use crate::api::{Target, admit_read, status};
use crate::budget::{Budget, Share};
use crate::eventual::records::Stored;
use crate::eventual::waiting;
use crate::metrics::{Operation, Result as MetricResult};
use crate::shared::Shared;
use bytes::Bytes;
use rdb_core::apply::Answer;
use rdb_core::eventual::vector::WriteId;
use rdb_core::version::Version;
use rdb_proto::v1;
use std::time::{Duration, Instant};

/// A wait ends by itself at its deadline, and knows why it was in vain. Only if it is so late is it given up from outside.
const GRACE: Duration = Duration::from_secs(1);

/// Writes that are done here.
pub(super) struct Acks {
    pub(super) ids: Vec<u64>,
    pub(super) answers: Vec<Answer>,
    pub(super) last: WriteId,
}

impl Acks {
    /// The last of them, with the version of it.
    fn held(&self, target: Target) -> Option<Held> {
        Some(Held { namespace: target.namespace, write: self.last, version: version(self.answers.last()?)? })
    }
}

fn version(answer: &Answer) -> Option<Version> {
    if let Answer::Done(version) = answer { Some(*version) } else { None }
}

/// How reads are served now that they can be; with what was found, where that is not here.
pub(super) struct Ready {
    served: Served,
    found: Option<(Stored, Vec<Share>)>,
}

impl Pipe {
    /// Answers writes that are done here, or waits for as many members as was asked.
    pub(super) async fn written_here(
        &mut self,
        target: Target,
        done: Acks,
        acks: waiting::Acks,
        (began, deadline): (Instant, Instant),
    ) -> Result<(), Gone> {
        let held = done.held(target).filter(|held| !self.shared.is_acked(target, *held, acks));
        let Some(held) = held else { return self.acked(target, done, Ok(()), began).await };
        let timeout = deadline.saturating_duration_since(began);
        let ticket = self.wait(target, done.ids.len(), Work::Acks(done), Span { began, timeout });
        let deadline = answer_by(began, timeout);
        let (shared, parts) = (self.shared.clone(), self.parts.clone());
        tokio::spawn(async move {
            let acked = shared.acked(target, held, acks, deadline).await;
            drop(parts.send(Part::Acked(ticket, acked)));
        });
        Ok(())
    }

    /// Answers writes that are done here, and on other members or not.
    pub(super) async fn acked(
        &mut self,
        target: Target,
        done: Acks,
        outcome: Result<(), v1::Error>,
        began: Instant,
    ) -> Result<(), Gone> {
        let held = done.held(target);
        let Acks { ids, answers, .. } = done;
        if ids.len() != answers.len() {
            let error = status::internal(format!("{} answers to {} writes", answers.len(), ids.len()));
            return self.refuse_writes(target, ids, &error, began).await;
        }
        let metric = outcome.as_ref().err().map_or(MetricResult::Done, MetricResult::of);
        self.shared.metrics.requests(Operation::Write, metric, ids.len() as u64, began.elapsed());
        for (id, answer) in ids.into_iter().zip(answers) {
            if let Some(Held { namespace, write, version }) = held {
                self.out
                    .saw(target, Served::NOT_AT_ALL)
                    .era(namespace, version.era)
                    .write(version.era, write);
            }
            let answered = match (&outcome, version(&answer)) {
                (Err(error), Some(version)) => {
                    let mut error = error.clone();
                    if let Some(done) = &mut error.done_here {
                        done.version = Some(crate::api::request::to_wire(version));
                    }
                    error_result(error)
                }
                _ => write_result(answer),
            };
            self.out.add(target, result(id, answered)).await?;
        }
        Ok(())
    }

    /// All members were to acknowledge the writes, and the namespace became strong while they were on their way.
    pub(super) async fn written_strong(
        &mut self,
        target: Target,
        ids: Vec<u64>,
        answers: Vec<Answer>,
        began: Instant,
    ) -> Result<(), Gone> {
        let count = ids.len() as u64;
        self.shared.metrics.requests(Operation::Write, MetricResult::DoneHere, count, began.elapsed());
        let results = ids.into_iter().zip(answers).map(|(id, answer)| {
            let answered = match version(&answer) {
                Some(version) => error_result(status::strong_acks_late(version)),
                None => write_result(answer),
            };
            result(id, answered)
        });
        self.out.add_all(target, results).await
    }

    /// The wait for other members did not end in time, and not by itself either.
    pub(super) async fn acked_late(
        &mut self,
        target: Target,
        done: Acks,
        began: Instant,
    ) -> Result<(), Gone> {
        let late = done.held(target).map(|held| status::acks_unknown(held, began.elapsed()));
        self.acked(target, done, late.map_or(Ok(()), Err), began).await
    }

    /// Serves reads of an eventual namespace, at once if they can be.
    pub(super) async fn read_eventual(
        &mut self,
        target: Target,
        budget: &Budget,
        wanted: &Wanted,
        reads: Vec<Read>,
        timeout: Duration,
    ) -> Result<(), Gone> {
        let began = Instant::now();
        let way = match self.shared.eventual_way(target, wanted) {
            Ok(way) => way,
            Err(error) => return self.refuse_reads(target, ids(&reads), &error, began).await,
        };
        if way.awaits.is_none() && way.served != Served::QUORUM {
            return self.read(target, way.served, reads, None, Span { began, timeout }).await;
        }
        let share = match admit_read(budget, reads.iter().map(Read::bytes).sum()) {
            Ok(share) => share,
            Err(error) => return self.refuse_reads(target, ids(&reads), &error, began).await,
        };
        let deadline = answer_by(began, timeout);
        let keys = if way.served == Served::QUORUM { keys(&reads) } else { Vec::new() };
        let count = reads.len();
        let ticket = self.wait(target, count, Work::Reads(reads, share), Span { began, timeout });
        let (shared, parts) = (self.shared.clone(), self.parts.clone());
        tokio::spawn(async move {
            let ready = get_ready(&shared, target, way, &keys, deadline).await;
            drop(parts.send(Part::Ready(ticket, ready)));
        });
        Ok(())
    }

    pub(super) async fn read_ready(
        &mut self,
        target: Target,
        ready: Result<Ready, v1::Error>,
        reads: Vec<Read>,
        span: Span,
    ) -> Result<(), Gone> {
        match ready {
            Ok(Ready { served, found }) => {
                let (found, _shares) = found.unzip();
                self.read(target, served, reads, found, span).await
            }
            Err(error) => self.refuse_reads(target, ids(&reads), &error, span.began).await,
        }
    }

    /// The same as `start` for what ends in time by itself.
    fn wait(&mut self, target: Target, operations: usize, work: Work, Span { began, timeout }: Span) -> u64 {
        let deadline = began + timeout + GRACE;
        self.enter(operations, UnderWay { target, work, began, deadline, timeout })
    }
}

async fn get_ready(
    shared: &Shared,
    target: Target,
    way: Way,
    keys: &[Bytes],
    deadline: Instant,
) -> Result<Ready, v1::Error> {
    let Way { served, awaits } = way;
    if let Some(token) = awaits {
        shared.until_shown(target, &token, deadline).await?;
        // Whoever waited for what another era has seen must not take it for this one's.
        if shared.regions.get(target.region).is_none_or(|view| view.mode() != (target.mode, target.era)) {
            return Err(status::era_mismatch());
        }
    }
    let found = match served {
        Served::QUORUM => Some(shared.read_quorum_in_parts(target, keys, deadline).await?),
        _ => None,
    };
    Ok(Ready { served, found })
}

/// All keys that are read, in order.
fn keys(reads: &[Read]) -> Vec<Bytes> {
    let mut all = Vec::with_capacity(reads.len());
    for read in reads {
        match &read.keys {
            Keys::One(key) => all.push(key.clone()),
            Keys::Many(keys) => all.extend_from_slice(keys),
        }
    }
    all
}

//! Durability `periodic`: this node's writes are applied and answered as they come, written to the log without waiting for the
//! disk, and synced together with those of all such namespaces a little later. Until then they stay here: they are not sent, not
//! reported, and no gate is sealed over them.
//!
//! What other nodes send is logged, synced and applied as ever, but for that it waits for the same sync, unless somebody waits for it.

use super::{Accepted, RUN_MAX, Replica, ReplicaError, Tools, UnderWay, Waiting};
use crate::eventual::driver::post_then;
use crate::eventual::waiting::Acks;
use crate::waiter::Answers;
use bytes::Bytes;
use rdb_core::eventual::origin_log::Held;
use rdb_core::eventual::run::{Run, join_up_to};
use rdb_core::eventual::unsynced;
use rdb_core::eventual::vector::{Origin, Seq, Vector};
use rdb_core::ids::{Era, RegionId};
use rdb_core::version::Hlc;
use rdb_pd::Durability;
use rdb_storage::{OriginWrite, RegionData};
use std::collections::BTreeMap;
use std::time::Duration;

/// Between two syncs: what a power cut may lose.
pub(in crate::eventual) const SYNC_INTERVAL: Duration = Duration::from_millis(50);

/// Runs of a region that may be acknowledged and not synced, besides those of which a sync is under way. Each is a change in the log
/// writer's queue; where those of all regions crowd that, nothing more is acknowledged before its sync.
const UNSYNCED_RUNS_MAX: usize = 256;
/// The same in bytes: where the disk hangs, writes wait as they do where all are synced.
const UNSYNCED_BYTES_MAX: usize = 8 << 20;

/// What is acknowledged and not synced.
#[derive(Default)]
pub(super) struct Unsynced {
    /// Whether the namespace asks for it.
    is_on: bool,
    /// Written to the log, and applied.
    runs: Vec<(Run, Bytes)>,
    /// Those who want other members to have their writes, so that a sync comes first.
    waiters: Vec<Waiting>,
}

impl Unsynced {
    pub(super) fn of(durability: Durability) -> Self {
        Self { is_on: durability == Durability::Periodic, ..Self::default() }
    }

    fn is_full(&self) -> bool {
        let bytes = || self.runs.iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
        UNSYNCED_RUNS_MAX <= self.runs.len() || UNSYNCED_BYTES_MAX <= bytes()
    }
}

impl Replica {
    /// Whether writes are acknowledged before they are synced.
    pub(in crate::eventual) fn is_periodic(&self) -> bool {
        self.unsynced.is_on
    }

    /// Whether anything waits for the next sync.
    pub(in crate::eventual) fn waits_for_sync(&self) -> bool {
        let waits = !self.unsynced.runs.is_empty() || !self.unsynced.waiters.is_empty();
        waits || !self.received.is_empty()
    }

    /// Whether somebody waits for it, here or at another member, or there is no room for more.
    pub(in crate::eventual) fn hurries_sync(&self) -> bool {
        self.unsynced.is_full() || !self.unsynced.waiters.is_empty() || !self.prompt.asking.is_empty()
    }

    /// Whether writes of this node's callers are not synced yet.
    pub(super) fn has_unsynced(&self) -> bool {
        self.unsynced.is_on && (!self.unsynced.waiters.is_empty() || self.has_own_unsynced())
    }

    /// Whether what was accepted has to wait: there is no room for more that is not synced, or the note of the era is not. A node
    /// that has answered in an era must find it again when it starts.
    pub(in crate::eventual) fn acknowledges_later(&self) -> bool {
        self.unsynced.is_full() || self.enters
    }

    /// Whether anything that was accepted waits.
    pub(in crate::eventual) fn has_accepted(&self) -> bool {
        !self.accepted.runs.is_empty()
    }

    /// Applies what the turn has accepted, and answers whoever asks for nothing more. What is to be written to the log, unsynced.
    pub(in crate::eventual) fn acknowledge_first(
        &mut self,
        tools: &Tools,
    ) -> Result<Option<OriginWrite>, ReplicaError> {
        let Accepted { runs, waiters } = std::mem::take(&mut self.accepted);
        let mut stored = Vec::new();
        for run in join_up_to(runs, RUN_MAX) {
            let bytes = Bytes::from(run.encode());
            self.logs.log(&Held::of(&run, bytes.len()));
            let changes = self.machine.apply_first(&run, &bytes, &self.data)?;
            self.upkeep.tombstones.saw_runs(std::slice::from_ref(&run));
            self.write(&changes, tools)?;
            self.show_applied();
            stored.push((run.origin, run.last(), bytes.clone()));
            self.unsynced.runs.push((run, bytes));
        }
        for (waiter, answers, last) in waiters {
            if waiter.terms().acks == Acks::One {
                waiter.answer(Ok(Answers::Eventual(answers, last)));
            } else {
                self.unsynced.waiters.push((waiter, answers, last));
            }
        }
        let write = OriginWrite { era: self.logs.era(), runs: stored, ..OriginWrite::default() };
        Ok((!write.runs.is_empty()).then_some(write))
    }

    /// Everything that waits for a sync: what is written already, and what has come from other nodes.
    pub(in crate::eventual) fn sync_out(&mut self) -> Option<OriginWrite> {
        if super::WRITES_UNDER_WAY_MAX <= self.under_way.len() || !self.waits_for_sync() {
            return None;
        }
        let received = std::mem::take(&mut self.received);
        let stored = received.iter().map(|(run, bytes)| (run.origin, run.last(), bytes.clone())).collect();
        let mut runs = std::mem::take(&mut self.unsynced.runs);
        runs.extend(received);
        self.under_way.push_back(UnderWay {
            runs,
            waiters: std::mem::take(&mut self.unsynced.waiters),
            asking: std::mem::take(&mut self.prompt.asking),
            _shares: std::mem::take(&mut self.shares),
        });
        Some(OriginWrite { era: self.logs.era(), runs: stored, sync: true, ..OriginWrite::default() })
    }

    /// These runs are synced. Those of this node were applied before, and the data need not keep them any more.
    pub(super) fn tell_synced<'r>(
        &mut self,
        runs: impl Iterator<Item = &'r Run>,
    ) -> Result<(), ReplicaError> {
        if !self.unsynced.is_on {
            return Ok(());
        }
        let me = self.logs.me();
        let own: Vec<&Run> = runs.filter(|run| run.origin == me).collect();
        if let Some(last) = own.last() {
            self.machine.synced(last.last());
            let notes: Vec<_> = own.iter().map(|run| (unsynced::key(run), None)).collect();
            self.data.change_notes(&notes)?;
        }
        Ok(())
    }

    /// What it says that it has applied: nothing that a crash could take back.
    pub(in crate::eventual) fn claimed(&self) -> Vector {
        let mut applied = self.machine.state().applied.clone();
        if self.unsynced.is_on && self.has_own_unsynced() {
            let synced = self.logs.synced_vector();
            let me = self.logs.me();
            let capped = |(origin, seq)| (origin, if origin == me { synced.get(me) } else { seq });
            applied = applied.iter().map(capped).filter(|(_, seq): &(Origin, Seq)| *seq != 0).collect();
        }
        applied
    }

    /// The last of its own writes that it says it has applied.
    pub(in crate::eventual) fn claimed_own(&self) -> Seq {
        let me = self.logs.me();
        let applied = self.machine.state().applied.get(me);
        if self.unsynced.is_on { applied.min(self.logs.synced_vector().get(me)) } else { applied }
    }

    /// The stamp of the oldest write that is acknowledged and not synced, if there is one.
    pub(super) fn oldest_unsynced(&self) -> Option<Hlc> {
        (self.unsynced.is_on && self.has_own_unsynced()).then(|| self.machine.oldest_unapplied()).flatten()
    }

    pub(super) fn has_own_unsynced(&self) -> bool {
        let me = self.logs.me();
        self.logs.synced_vector().get(me) < self.machine.state().applied.get(me)
    }
}

/// What a start finds in the data and not in the log: the power was cut between the sync of the one and of the other. It is written
/// to the log before anything else, so that the others get it: as far as this node's data goes, nothing of it is lost.
pub(super) fn rescue(
    (region, era): (RegionId, Era),
    applied: &Vector,
    data: &RegionData,
    tools: &Tools,
) -> Result<(), ReplicaError> {
    let (from, to) = unsynced::all();
    let kept = data.some_notes(&from, &to, usize::MAX)?;
    if kept.is_empty() {
        return Ok(());
    }
    let mut logged: BTreeMap<Origin, Seq> = BTreeMap::new();
    for held in tools.logs.load(region, era)?.runs {
        logged.insert(held.origin, held.last);
    }
    let mut runs = Vec::new();
    for (_, bytes) in &kept {
        let run = Run::decode(bytes)?;
        let has = logged.get(&run.origin).copied().unwrap_or_default();
        if run.era == era && has < run.last() && run.last() <= applied.get(run.origin) {
            runs.push((run.origin, run.last(), Bytes::from(bytes.clone())));
        }
    }
    if !runs.is_empty() {
        tracing::warn!(%region, runs = runs.len(), "the log has lost its unsynced end, which the data still has: it is written again");
        let write = OriginWrite { era, runs, sync: true, ..OriginWrite::default() };
        let (done, synced) = crossbeam_channel::bounded(1);
        post_then(&tools.log, region, write, move || {
            // Whoever waits is there.
            let _ = done.send(());
        });
        // Where the writer has failed, the process is on its way out.
        let _ = synced.recv();
    }
    let notes: Vec<_> = kept.into_iter().map(|(key, _)| (key, None)).collect();
    Ok(data.change_notes(&notes)?)
}

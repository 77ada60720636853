//! One request of the load: how it is drawn, what it must find, and what is noted when it is answered.

use super::measure::Measure;
use super::target::{Failed, Stored};
use super::workload::Workload;
use rand::{Rng, RngExt};
use rdb_client::{Bytes, Version};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Instant;

/// What becomes of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Phase {
    WarmingUp,
    Measuring,
    Stopping,
}

/// What all callers of a run share.
pub(super) struct Shared {
    pub(super) workload: Arc<Workload>,
    pub(super) measure: Measure,
    pub(super) read_share: f64,
    /// Whether a read must see what was acknowledged before it.
    pub(super) reads_are_current: bool,
    phase: AtomicU8,
    /// All operations that succeeded, for the bar.
    pub(super) completed: AtomicU64,
}

/// A get or a put of one key.
pub(super) struct Request {
    /// The key's number.
    key: usize,
    /// The number of its namespace.
    pub(super) namespace: usize,
    pub(super) name: Bytes,
    /// `None`: it is read.
    pub(super) value: Option<Bytes>,
    /// What a read must see, or something newer.
    at_least: Version,
    /// From when its latency counts.
    due: Instant,
    /// Whether it was due while it is measured: then it counts, however late its answer comes.
    counts: bool,
}

/// What a request was answered.
pub(super) enum Answer {
    Read(Stored),
    Written(Version),
}

impl Shared {
    pub(super) fn new(workload: Arc<Workload>, read_share: f64, reads_are_current: bool) -> Self {
        Self {
            workload,
            measure: Measure::new(),
            read_share,
            reads_are_current,
            phase: AtomicU8::new(Phase::WarmingUp as u8),
            completed: AtomicU64::new(0),
        }
    }

    pub(super) fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    pub(super) fn is(&self, phase: Phase) -> bool {
        self.phase.load(Ordering::Relaxed) == phase as u8
    }

    /// The next request of this caller.
    pub(super) fn draw(&self, random: &mut impl Rng, caller: u32, due: Instant) -> Request {
        let key = self.workload.choose(random);
        let is_read = random.random::<f64>() < self.read_share;
        let (value, at_least) = if is_read {
            (None, self.must_see(key))
        } else {
            (Some(self.workload.begin_write(key, caller)), Version::default())
        };
        Request {
            key,
            namespace: self.workload.namespace(key),
            name: self.workload.keys()[key].clone(),
            value,
            at_least,
            due,
            counts: self.is(Phase::Measuring),
        }
    }

    pub(super) fn must_see(&self, key: usize) -> Version {
        if self.reads_are_current { self.workload.acknowledged(key) } else { Version::default() }
    }

    /// Notes how a request ended, and says whether it succeeded.
    pub(super) fn note(&self, request: &Request, result: Result<Answer, Failed>) -> bool {
        let kind = if request.value.is_none() { &self.measure.reads } else { &self.measure.writes };
        match result {
            Ok(answer) => {
                if request.counts {
                    kind.record(request.due.elapsed());
                }
                self.take(request, answer);
                self.completed.fetch_add(1, Ordering::Relaxed);
                true
            }
            Err(failed) => {
                if request.counts {
                    self.measure.failed(kind, &failed);
                }
                false
            }
        }
    }

    fn take(&self, request: &Request, answer: Answer) {
        match answer {
            Answer::Read(stored) => {
                if let Err(what) = self.workload.judge(request.key, stored.as_ref(), request.at_least) {
                    self.measure.wrong(&what);
                }
            }
            Answer::Written(version) => self.workload.acknowledge(request.key, version),
        }
    }
}

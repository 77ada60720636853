//! The stamps of the runs that a node has and that some member may lack: for the lag and the frontier, which must not be told from
//! what is not known.

use super::lag::Writes;
use super::origin_log::OriginLogs;
use super::run::Run;
use super::vector::{Origin, Seq, Vector};
use crate::version::Hlc;
use std::collections::BTreeMap;

/// The stamps of runs, each by the place of the run's last write: a run is as old as its first one.
#[derive(Debug, Default)]
pub struct Stamps {
    by_last: BTreeMap<(Origin, Seq), Hlc>,
    /// Nothing is known of the writes up to here: their runs had left the log before this node looked, or never were in it.
    unknown: Vector,
}

impl Stamps {
    /// Of logs as they are found. Their runs are yet to be added.
    pub fn of(logs: &OriginLogs) -> Self {
        Self { by_last: BTreeMap::new(), unknown: logs.dropped_vector() }
    }

    /// Takes note of a run that is here.
    pub fn add(&mut self, run: &Run) {
        if let Some(first) = run.entries.first() {
            self.add_first(run.origin, run.last(), first.hlc);
        }
    }

    /// The same of a run that ends at `last` and whose first write has the stamp `hlc`.
    pub fn add_first(&mut self, origin: Origin, last: Seq, hlc: Hlc) {
        self.by_last.insert((origin, last), hlc);
    }

    /// The writes of `origin` up to `seq` have come in another way than by runs.
    pub fn skip(&mut self, origin: Origin, seq: Seq) {
        self.unknown.raise(origin, seq);
    }

    /// Forgets what all members have applied.
    pub fn forget(&mut self, everywhere: &Vector) {
        self.by_last.retain(|(origin, last), _| everywhere.get(*origin) < *last);
    }

    /// Whether all that was added was forgotten.
    pub fn is_empty(&self) -> bool {
        self.by_last.is_empty()
    }
}

impl Writes for Stamps {
    fn unknown_to(&self, origin: Origin) -> Seq {
        self.unknown.get(origin)
    }

    fn stamp_after(&self, origin: Origin, after: Seq) -> Option<Hlc> {
        self.by_last.range((origin, after + 1)..=(origin, Seq::MAX)).next().map(|(_, hlc)| *hlc)
    }

    fn last_stamp(&self, origin: Origin) -> Option<Hlc> {
        self.by_last.range((origin, 0)..=(origin, Seq::MAX)).next_back().map(|(_, hlc)| *hlc)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eventual::lag::{Now, frontier, lag};
    use crate::eventual::peers::Report;
    use crate::eventual::vector::tests::origin;
    use crate::ids::{Era, NodeId};

    const ERA: Era = Era(1);

    fn report(seq: Seq) -> Report {
        let vector: Vector = [(origin(1, 1), seq)].into_iter().filter(|(_, seq)| *seq != 0).collect();
        let promise = Hlc::from_millis(900);
        Report { era: ERA, synced: vector.clone(), applied: vector.clone(), shown: vector, promise }
    }

    /// A member came into the era by a snapshot of its tenth write, and has the runs behind it. Another one has nothing yet: what
    /// it lacks first is older than any stamp that is known here.
    #[test]
    fn nothing_is_told_from_what_is_not_known() {
        let mut stamps = Stamps::default();
        stamps.skip(origin(1, 1), 10);
        stamps.add_first(origin(1, 1), 12, Hlc::from_millis(500));
        let (mine, behind, near) = (report(12), report(0), report(10));
        let tell = |other: &Report| frontier(ERA, [Some(&mine), Some(other)].into_iter(), &stamps);
        assert_eq!(tell(&behind), None);
        assert_eq!(tell(&near), Some(Hlc(Hlc::from_millis(500).0 - 1)));
        let now = Now { era: ERA, synced: &mine.synced, monotonic_ms: 0, physical_ms: 700 };
        let tell = |other: &Report| {
            let lag = lag(now, [(NodeId(2), Some(other), 0)], &stamps);
            (lag.at_least_ms, lag.known)
        };
        assert_eq!(tell(&behind), (200, false), "it is more");
        assert_eq!(tell(&near), (200, true));
    }

    #[test]
    fn what_is_everywhere_is_forgotten() {
        let mut stamps = Stamps::default();
        for (last, ms) in [(3, 100), (7, 200)] {
            stamps.add_first(origin(1, 1), last, Hlc::from_millis(ms));
        }
        assert_eq!(stamps.stamp_after(origin(1, 1), 3), Some(Hlc::from_millis(200)));
        stamps.forget(&report(3).applied);
        assert_eq!(stamps.stamp_after(origin(1, 1), 0), Some(Hlc::from_millis(200)));
        stamps.forget(&report(7).applied);
        assert!(stamps.is_empty());
    }
}

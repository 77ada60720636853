//! What a region's own log says of its mode: the only thing, with a snapshot, that changes it.

use super::planted::{Wrong, wrong};
use super::{Descriptor, Mode, Phase, SwitchId, Vector};
use crate::coverage::{Branch, reached};
use crate::ids::{Epoch, Era, NodeId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// How many of the newest boundaries are remembered. A node that was away for more switches than that cannot tell what the
/// cluster went on without, and sets aside all that it has.
pub const BOUNDARIES_MAX: usize = 64;

/// The entry in a region's log that puts it into another era.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Marker {
    /// Of which switch.
    pub switch: SwitchId,
    /// The first epoch of the new era.
    pub epoch: Epoch,
    /// The new era.
    pub era: Era,
    /// Its mode.
    pub mode: Mode,
    /// To strong: what the base holds, and without whom.
    pub boundary: Boundary,
}

/// Where an eventual era ended.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Boundary {
    /// What of its origin logs went on into the next era.
    pub cut: Vector,
    /// Whom the switch went on without.
    pub excluded: BTreeSet<NodeId>,
}

/// A region's mode, as its own log has it. Stored with the region's applied position, in the same batch.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Region {
    era: Era,
    mode: Mode,
    epoch: Epoch,
    /// For each strong era, where the eventual one before it ended. Shared, since it is as long as the region is old.
    boundaries: Arc<BTreeMap<Era, Boundary>>,
}

/// What a marker does to a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing: it was there before, or belongs to an era that never came to be.
    Ignore,
    /// Nothing yet: this replica lacks writes that the base holds, or has them unsynced.
    Await,
    /// This replica never applies it. It sets aside what the base does not hold, then takes a snapshot.
    Replace,
    /// The region becomes strong; what lies within the cut is its base.
    ToStrong,
    /// The region becomes eventual, with new and empty origin logs, and a clock past every version that it has.
    ToEventual,
}

impl Marker {
    /// The marker that a region's leader is to propose, as the catalog stands; `None` while the switch can still be called
    /// off. Proposed twice, or late, it does nothing more.
    pub fn due(descriptor: &Descriptor) -> Option<Marker> {
        let drained = descriptor.phase == Phase::Draining;
        (descriptor.phase == Phase::Flipping || drained && wrong(Wrong::MarkerBeforeFlipping)).then(|| {
            Marker {
                switch: descriptor.switch,
                epoch: Epoch(descriptor.epoch.0 + 1),
                era: Era(descriptor.era.0 + 1),
                mode: descriptor.mode.other(),
                boundary: Boundary { cut: descriptor.cut.clone(), excluded: descriptor.excluded.clone() },
            }
        })
    }
}

impl Region {
    /// A region as it is made.
    pub fn new(mode: Mode) -> Self {
        Self { era: Era(1), mode, epoch: Epoch(1), boundaries: Arc::default() }
    }

    /// A region as it was stored.
    pub(super) fn restore(era: Era, mode: Mode, epoch: Epoch, boundaries: BTreeMap<Era, Boundary>) -> Self {
        Self { era, mode, epoch, boundaries: Arc::new(boundaries) }
    }

    pub(super) fn boundaries(&self) -> &BTreeMap<Era, Boundary> {
        &self.boundaries
    }

    /// The era that it is in.
    pub fn era(&self) -> Era {
        self.era
    }

    /// The mode of this era.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The first epoch of this era.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Where the eventual era before the strong era `strong` ended.
    pub fn boundary(&self, strong: Era) -> Option<&Boundary> {
        self.boundaries.get(&strong)
    }

    /// What `marker` does to the replica on `node`, which has synced this much. Eras decide and never epochs: an abort that
    /// this replica has not heard of may have raised the epoch.
    pub fn judge(&self, node: NodeId, marker: &Marker, synced: &Vector) -> Verdict {
        if marker.era != Era(self.era.0 + 1) && !wrong(Wrong::MarkerOfAnyEra) {
            return Verdict::Ignore;
        }
        let Boundary { cut, excluded } = &marker.boundary;
        match marker.mode {
            Mode::Eventual => Verdict::ToEventual,
            Mode::Strong if excluded.contains(&node) && !wrong(Wrong::ExcludedApplies) => {
                reached(Branch::SwitchMarkerWithoutNode);
                Verdict::Replace
            }
            Mode::Strong if !synced.covers(cut) && !excluded.contains(&node) => Verdict::Await,
            Mode::Strong => Verdict::ToStrong,
        }
    }

    /// Puts the region into the marker's era. Only after [`Region::judge`] has allowed it.
    pub fn enter(&mut self, marker: &Marker) {
        self.era = marker.era;
        self.mode = marker.mode;
        self.epoch = marker.epoch;
        if marker.mode == Mode::Strong {
            let boundaries = Arc::make_mut(&mut self.boundaries);
            boundaries.insert(marker.era, marker.boundary.clone());
            if BOUNDARIES_MAX < boundaries.len() {
                boundaries.pop_first();
            }
        }
    }

    /// Whether a write that was proposed in `era` may be applied now. This, and nothing that the catalog says, decides it,
    /// so that all replicas decide alike.
    pub fn admits(&self, era: Era) -> bool {
        self.mode == Mode::Strong && (self.era == era || wrong(Wrong::PutOfAnyEra))
    }

    /// Whether a snapshot that brings the state `offered` may replace this replica. Never within an eventual era: it would
    /// wipe writes that this node alone has.
    pub fn takes(&self, offered: &Region) -> bool {
        let is_same_strong = self.era == offered.era && self.mode == Mode::Strong;
        let is_same = self.era == offered.era && wrong(Wrong::SnapshotWithinEra);
        self.era < offered.era || is_same_strong || is_same
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Incarnation;
    use crate::switch::{Origin, Step};

    fn vector(seq: u64) -> Vector {
        Vector::from_iter([(Origin { node: NodeId(1), incarnation: Incarnation(1) }, seq)])
    }

    fn marker(era: u32, mode: Mode, cut: u64, excluded: &[u64]) -> Marker {
        let excluded = excluded.iter().copied().map(NodeId).collect();
        let boundary = Boundary { cut: vector(cut), excluded };
        Marker { switch: SwitchId(1), epoch: Epoch(u64::from(era)), era: Era(era), mode, boundary }
    }

    #[test]
    fn markers_are_judged_by_era_cut_and_exclusion() {
        let region = Region::new(Mode::Eventual);
        let judge = |marker: &Marker, synced| region.judge(NodeId(2), marker, &vector(synced));
        assert_eq!(judge(&marker(2, Mode::Strong, 3, &[]), 3), Verdict::ToStrong);
        assert_eq!(judge(&marker(2, Mode::Strong, 3, &[]), 2), Verdict::Await);
        assert_eq!(judge(&marker(2, Mode::Strong, 3, &[2]), 3), Verdict::Replace);
        assert_eq!(judge(&marker(1, Mode::Strong, 3, &[]), 3), Verdict::Ignore, "it was applied before");
        assert_eq!(judge(&marker(3, Mode::Strong, 3, &[]), 3), Verdict::Ignore);
        let strong = Region::new(Mode::Strong);
        let to_eventual = marker(2, Mode::Eventual, 0, &[]);
        assert_eq!(strong.judge(NodeId(2), &to_eventual, &vector(0)), Verdict::ToEventual);
    }

    #[test]
    fn a_put_counts_in_its_own_strong_era_alone() {
        let mut region = Region::new(Mode::Strong);
        assert!(region.admits(Era(1)) && !region.admits(Era(2)));
        region.enter(&marker(2, Mode::Eventual, 0, &[]));
        assert!(!region.admits(Era(1)) && !region.admits(Era(2)));
        region.enter(&marker(3, Mode::Strong, 0, &[]));
        assert!(!region.admits(Era(1)) && region.admits(Era(3)));
    }

    #[test]
    fn a_snapshot_never_replaces_a_replica_within_an_eventual_era() {
        let eventual = Region::new(Mode::Eventual);
        assert!(!eventual.takes(&eventual));
        let mut strong = eventual.clone();
        strong.enter(&marker(2, Mode::Strong, 3, &[]));
        assert!(eventual.takes(&strong) && strong.takes(&strong) && !strong.takes(&eventual));
    }

    #[test]
    fn boundaries_are_remembered_up_to_a_bound() {
        let mut region = Region::new(Mode::Eventual);
        for era in 2..=2 * u32::try_from(BOUNDARIES_MAX).unwrap() + 3 {
            region.enter(&marker(era, region.mode().other(), u64::from(era), &[]));
        }
        assert_eq!(region.boundaries.len(), BOUNDARIES_MAX);
        assert_eq!(region.boundary(Era(2)), None);
        assert_eq!(region.boundary(Era(4)).map(|boundary| &boundary.cut), Some(&vector(4)));
        assert_eq!(region.boundary(Era(5)), None, "that one is eventual");
    }

    #[test]
    fn a_marker_is_due_from_flipping_on() {
        let mut now = Descriptor::new(Mode::Eventual, [NodeId(1)]);
        let begin = Step::Begin { excluded: BTreeSet::new(), deadline_ms: 0, write_pause_ms_max: 0 };
        for step in [begin, Step::Seal { deadline_ms: 0 }, Step::Drain { cut: vector(3) }, Step::Flip] {
            assert_eq!(Marker::due(&now), None, "{:?}", now.phase);
            now = now.apply(&now.change(step)).unwrap();
        }
        let due = Marker::due(&now).unwrap();
        assert_eq!(due, marker(2, Mode::Strong, 3, &[]));
    }
}

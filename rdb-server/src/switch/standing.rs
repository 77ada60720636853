//! What each node says of its part of each region: the last word of each, and when it came. Nothing here outlives the
//! process, and nothing needs to: reports stay true, and who has something to say says it again and again.

use crossbeam_channel::{Receiver, Sender, TrySendError};
use parking_lot::Mutex;
use rdb_core::ids::{Epoch, Era, NodeId, RegionId};
use rdb_core::switch::{Mode, Report, Vector};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

/// A gate as others hear of it; see [`rdb_core::switch::Gate`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GateState {
    /// The node may acknowledge eventual writes.
    Open,
    /// It does not, and nobody counts on it.
    Shut,
    /// It does not, as it has promised.
    Sealed,
}

/// What a node says of its part of a region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Which region.
    pub(crate) region: RegionId,
    /// The era that its replica is in, by the region's own log.
    pub(crate) era: Era,
    /// The epoch that the node's answers carry.
    pub(crate) epoch: Epoch,
    /// The mode of that era.
    pub(crate) mode: Mode,
    /// Whether it may acknowledge eventual writes.
    pub(crate) gate: GateState,
    /// Whether it leads the region's Raft group.
    pub(crate) leads: bool,
    /// Whether eventual writes are under way there that are not answered yet.
    pub(crate) answering: bool,
    /// How old the oldest write is that it has and a peer has not, or for a strong region how far it is behind; at least so
    /// much, if that is not known.
    pub(crate) lag_ms: u64,
    /// Whether the lag is known.
    pub(crate) lag_known: bool,
    /// In strong mode: entries that are committed and that it has not applied.
    pub(crate) behind_writes: u64,
    /// Whether it is so far behind that only a copy of all the data helps.
    pub(crate) needs_full_copy: bool,
    /// What of the origins' writes it has applied.
    pub(crate) applied: Vector,
    /// Writes that it has set aside, since the cluster went on without them.
    pub(crate) quarantined: u64,
    /// What it promises, for the switch under way.
    pub(crate) reports: Vec<Report>,
}

/// Wakes the controller. Rung many times before it looks, it wakes it once.
#[derive(Debug, Clone)]
pub(crate) struct Alarm(Sender<()>);

impl Alarm {
    /// An alarm, and what it rings.
    pub(crate) fn new() -> (Self, Receiver<()>) {
        let (sender, rings) = crossbeam_channel::bounded(1);
        (Self(sender), rings)
    }

    /// There is something to look at.
    pub(crate) fn ring(&self) {
        match self.0.try_send(()) {
            // It rings already, or nobody is there any more whom it could wake.
            Ok(()) | Err(TrySendError::Full(()) | TrySendError::Disconnected(())) => {}
        }
    }
}

type Heard = BTreeMap<NodeId, (Standing, Instant)>;

/// The last word of each node on each region. Cheap to clone. Bounded by the catalog: the controller forgets regions that
/// it does not name.
#[derive(Debug, Clone)]
pub(crate) struct Standings {
    heard: Arc<Mutex<BTreeMap<RegionId, Heard>>>,
    alarm: Alarm,
}

impl Standings {
    /// None yet; each that comes rings `alarm`.
    pub(crate) fn new(alarm: Alarm) -> Self {
        Self { heard: Arc::default(), alarm }
    }

    /// `node` says this now.
    pub(crate) fn put(&self, node: NodeId, standing: Standing) {
        let mut heard = self.heard.lock();
        heard.entry(standing.region).or_default().insert(node, (standing, Instant::now()));
        drop(heard);
        self.alarm.ring();
    }

    /// Wakes the controller.
    pub(crate) fn ring(&self) {
        self.alarm.ring();
    }

    /// What each node said last of a region, and when.
    pub(crate) fn of(&self, region: RegionId) -> BTreeMap<NodeId, (Standing, Instant)> {
        self.heard.lock().get(&region).cloned().unwrap_or_default()
    }

    /// Forgets all regions but those that `keep` names.
    pub(crate) fn retain(&self, keep: impl Fn(RegionId) -> bool) {
        self.heard.lock().retain(|region, _| keep(*region));
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A node that has nothing to tell but that it is there.
    pub(crate) fn standing(region: u64, mode: Mode) -> Standing {
        Standing {
            region: RegionId(region),
            era: Era(1),
            epoch: Epoch(1),
            mode,
            gate: GateState::Open,
            leads: false,
            answering: false,
            lag_ms: 0,
            lag_known: true,
            behind_writes: 0,
            needs_full_copy: false,
            applied: Vector::default(),
            quarantined: 0,
            reports: Vec::new(),
        }
    }

    #[test]
    fn the_last_word_counts_and_each_wakes_whoever_waits() {
        let (alarm, rings) = Alarm::new();
        let standings = Standings::new(alarm);
        for lag_ms in [7, 3] {
            standings.put(NodeId(1), Standing { lag_ms, ..standing(16, Mode::Eventual) });
        }
        standings.put(NodeId(2), standing(16, Mode::Eventual));
        standings.put(NodeId(2), standing(17, Mode::Strong));
        assert_eq!(rings.try_iter().count(), 1, "one look is enough for all of them");
        let lags: Vec<_> =
            standings.of(RegionId(16)).into_values().map(|(standing, _)| standing.lag_ms).collect();
        assert_eq!(lags, [3, 0]);
        standings.retain(|region| region == RegionId(17));
        assert!(standings.of(RegionId(16)).is_empty());
        assert_eq!(standings.of(RegionId(17)).len(), 1);
        drop(rings);
        standings.put(NodeId(1), standing(16, Mode::Strong));
    }
}

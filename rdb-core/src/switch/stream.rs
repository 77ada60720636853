//! Eventual writes between nodes: what is sent, what is taken in, what is shown.

use super::planted::{Wrong, wrong};
use super::{Control, Gate, Mode, Origin, Peer, Progress, Region, Vector};
use crate::coverage::{Branch, reached};
use crate::ids::Era;

/// A write that another node sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offer {
    /// The era in which it was accepted.
    pub era: Era,
    /// Who accepted it.
    pub origin: Origin,
    /// Its number there.
    pub seq: u64,
}

/// Why a write is not taken in. The vector stays as it is, and the sender begins again where the vector says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// It is of another era. An older one is over: what of it counts is in this era's base. A newer one will come again when
    /// this node's region is there.
    OtherEra,
    /// This node numbered it, so it knows better.
    Own,
    /// It was here before, or one in between is missing.
    NotNext,
    /// It is from a node that the switch goes on without, and not, or not yet, within the cut.
    Fenced,
}

/// Whether a write that another node sends is to be appended here.
///
/// # Errors
/// Why not.
pub fn receive(peer: &Peer, region: &Region, appended: &Vector, offer: Offer) -> Result<(), Refused> {
    let is_other = region.mode() != Mode::Eventual || region.era() != offer.era;
    let merges_newer = wrong(Wrong::MergesNewerEra) && region.era() < offer.era;
    let merges_older = wrong(Wrong::MergesOlderEra) && offer.era < region.era();
    if merges_newer || merges_older {
        return Ok(());
    }
    if is_other {
        return Err(Refused::OtherEra);
    }
    if offer.origin.node == peer.node() {
        return Err(Refused::Own);
    }
    if offer.seq != appended.get(offer.origin) + 1 {
        return Err(Refused::NotNext);
    }
    if is_fenced(peer, offer) {
        reached(Branch::SwitchRunFenced);
        return Err(Refused::Fenced);
    }
    Ok(())
}

/// Once this node is sealed it has told how much it has of an excluded node's writes, and the cut counts on it. The fence stands
/// from when the seal is appended: what came in behind it would be synced later than the seal, and be missing in the report
/// that the seal's sync releases.
fn is_fenced(peer: &Peer, offer: Offer) -> bool {
    let seal = match (peer.gate(), peer.writing()) {
        (Gate::Sealed(seal), _) => seal,
        (_, Some(Control::Seal(seal))) if !wrong(Wrong::FenceAfterSync) => seal,
        _ => return false,
    };
    if !seal.excluded.contains(&offer.origin.node) || wrong(Wrong::NoFence) {
        return false;
    }
    let cut = peer.heard().and_then(|heard| seal.cut(heard));
    cut.is_none_or(|cut| cut.get(offer.origin) < offer.seq)
}

/// How much of its logs a node may send, as deltas or in a snapshot: only what it cannot lose. Otherwise others would hold
/// writes whose origin has numbered other ones, or none, since.
pub fn sendable(progress: &Progress) -> &Vector {
    if wrong(Wrong::SendsUnsynced) { &progress.appended } else { &progress.synced }
}

/// How much a snapshot of a node's eventual era may hold: the same.
pub fn snapshotable(progress: &Progress) -> &Vector {
    if wrong(Wrong::SnapshotOfUnsynced) { &progress.appended } else { &progress.synced }
}

/// How much of its logs a node may show to readers: only what it cannot lose, or what a client has read could vanish.
pub fn visible(progress: &Progress) -> &Vector {
    if wrong(Wrong::ShowsUnsynced) { &progress.appended } else { &progress.synced }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Incarnation, NodeId};
    use crate::switch::{Descriptor, Step};
    use std::sync::Arc;

    fn origin(node: u64) -> Origin {
        Origin { node: NodeId(node), incarnation: Incarnation(1) }
    }

    fn offer(node: u64, seq: u64) -> Offer {
        Offer { era: Era(1), origin: origin(node), seq }
    }

    #[test]
    fn what_is_next_of_this_era_and_of_another_node_is_taken_in() {
        let region = Region::new(Mode::Eventual);
        let peer = Peer::start(NodeId(1), &region, &[]);
        let appended = Vector::from_iter([(origin(2), 3)]);
        let receive = |offer| receive(&peer, &region, &appended, offer);
        assert_eq!(receive(offer(2, 4)), Ok(()));
        assert_eq!(receive(offer(3, 1)), Ok(()));
        assert_eq!(receive(offer(2, 3)), Err(Refused::NotNext));
        assert_eq!(receive(offer(2, 5)), Err(Refused::NotNext));
        assert_eq!(receive(offer(1, 1)), Err(Refused::Own));
        assert_eq!(receive(Offer { era: Era(2), ..offer(2, 4) }), Err(Refused::OtherEra));
        let strong = Region::new(Mode::Strong);
        assert_eq!(super::receive(&peer, &strong, &appended, offer(2, 4)), Err(Refused::OtherEra));
    }

    #[test]
    fn a_sealed_node_takes_an_excluded_ones_writes_up_to_the_cut() {
        let region = Region::new(Mode::Eventual);
        let mut now = Descriptor::new(Mode::Eventual, (1..=3).map(NodeId));
        let begin = Step::Begin { excluded: [NodeId(3)].into(), deadline_ms: 0, write_pause_ms_max: 0 };
        for step in [begin, Step::Seal { deadline_ms: 0 }] {
            now = now.apply(&now.change(step)).unwrap();
        }
        let mut peer = Peer::start(NodeId(1), &region, &[]);
        peer.hear(&Arc::new(now.clone()));
        assert_eq!(
            receive(&peer, &region, &Vector::default(), offer(3, 1)),
            Ok(()),
            "nothing is promised yet"
        );
        let seal = peer.review(&region, false).unwrap();
        let refused = Err(Refused::Fenced);
        // It would be synced behind the seal, and the report that follows the seal's sync would not name it.
        assert_eq!(receive(&peer, &region, &Vector::default(), offer(3, 1)), refused, "the seal is appended");
        peer.synced(&seal);
        assert_eq!(receive(&peer, &region, &Vector::default(), offer(3, 1)), refused, "there is no cut yet");
        assert_eq!(receive(&peer, &region, &Vector::default(), offer(2, 1)), Ok(()), "a member's are");
        let cut = Vector::from_iter([(origin(3), 1)]);
        now = now.apply(&now.change(Step::Drain { cut: cut.clone() })).unwrap();
        peer.hear(&Arc::new(now));
        assert_eq!(receive(&peer, &region, &Vector::default(), offer(3, 1)), Ok(()));
        assert_eq!(receive(&peer, &region, &cut, offer(3, 2)), refused);
        // The seal says it, so a restart does not forget it.
        let restarted = Peer::start(NodeId(1), &region, &[seal]);
        assert_eq!(receive(&restarted, &region, &Vector::default(), offer(3, 1)), refused);
    }

    #[test]
    fn nothing_unsynced_is_sent_or_shown() {
        let vector = |seq| Vector::from_iter([(origin(1), seq)]);
        let progress = Progress { appended: vector(5), synced: vector(3) };
        for upto in [sendable(&progress), snapshotable(&progress), visible(&progress)] {
            assert_eq!(upto, &vector(3));
        }
    }
}

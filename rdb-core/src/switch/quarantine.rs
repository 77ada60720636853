//! What a node sets aside that the cluster has gone on without.

use super::planted::{Wrong, wrong};
use super::{Mode, Origin, Region, Vector};
use crate::coverage::{Branch, reached};
use crate::eventual::vector::WriteId;
use crate::ids::{Era, Incarnation, NodeId};

/// Where writes lie that are set aside and are in no origin's log here: in the log of an origin that no node is, each at its number,
/// from 1, as a run of its own.
pub const FROM_RECORDS: Origin = Origin { node: NodeId(0), incarnation: Incarnation(1) };

/// Writes of one origin: those after `after`, up to and with `last`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tail {
    /// Whose.
    pub origin: Origin,
    /// The last one that the next era holds.
    pub after: u64,
    /// The last one that this node has.
    pub last: u64,
}

/// What a node must write into its quarantine, and sync, before `offered` replaces its region: everything in its eventual
/// logs that the next era does not hold. Such writes may have been acknowledged by this node while the others went on without
/// it. To merge them would change what a strong era has answered; to drop them would lose them in silence.
///
/// `offered` brings the boundaries of all eras that this node has missed. A boundary that is too old to be known counts as one
/// that let nothing through.
pub fn tails(region: &Region, appended: &Vector, offered: &Region) -> Vec<Tail> {
    let leaves_eventual = region.mode() == Mode::Eventual && region.era() < offered.era();
    if !leaves_eventual || wrong(Wrong::ExcludedDrops) {
        return Vec::new();
    }
    let boundary = offered.boundary(Era(region.era().0 + 1));
    let kept = |origin| boundary.map_or(0, |boundary| boundary.cut.get(origin));
    let all = appended.iter().map(|(origin, last)| Tail { origin, after: kept(origin), last });
    let tails: Vec<Tail> = all.filter(|tail| tail.after < tail.last).collect();
    if !tails.is_empty() {
        reached(Branch::SwitchSetsAside);
    }
    tails
}

/// What of these tails is not in the logs of a node that has `dropped` so much. What all members have is dropped, and lies within
/// every cut; but a copy brings what it brings at once, and the logs go on behind it. Of that the node has the records alone.
pub fn unlogged(tails: &[Tail], dropped: &Vector) -> Vec<Tail> {
    let unlogged = |tail: &Tail| Tail { last: tail.last.min(dropped.get(tail.origin)), ..*tail };
    let unlogged: Vec<Tail> = tails.iter().map(unlogged).filter(|tail| tail.after < tail.last).collect();
    if !unlogged.is_empty() {
        reached(Branch::SwitchSetsAsideCopied);
    }
    unlogged
}

/// Whether one of these tails has a write.
pub fn are_in(tails: &[Tail], id: WriteId) -> bool {
    tails.iter().any(|tail| tail.origin == id.origin && tail.after < id.seq && id.seq <= tail.last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Epoch;
    use crate::switch::{Boundary, Marker, SwitchId};

    fn origin(node: u64) -> Origin {
        Origin { node: NodeId(node), incarnation: Incarnation(1) }
    }

    fn enter(region: &mut Region, cut: Vector) {
        let era = Era(region.era().0 + 1);
        let boundary = Boundary { cut, excluded: [NodeId(3)].into() };
        let (switch, epoch, mode) = (SwitchId(1), Epoch(u64::from(era.0)), region.mode().other());
        region.enter(&Marker { switch, epoch, era, mode, boundary });
    }

    #[test]
    fn what_a_copy_has_brought_is_in_no_log() {
        let tails = [3, 4, 5].map(|node| Tail { origin: origin(node), after: 7, last: 9 });
        let dropped = Vector::from_iter([(origin(3), 7), (origin(4), 8), (origin(5), 20)]);
        let expected = [Tail { last: 8, ..tails[1] }, tails[2]];
        assert_eq!(unlogged(&tails, &dropped), expected);
        let has = |node, seq| are_in(&expected, WriteId { origin: origin(node), seq });
        assert!(has(4, 8) && has(5, 8) && has(5, 9));
        assert!(!has(3, 8) && !has(4, 7) && !has(4, 9) && !has(5, 10));
    }

    #[test]
    fn what_lies_beyond_the_cut_is_set_aside_however_many_eras_later() {
        let away = Region::new(Mode::Eventual);
        let has = Vector::from_iter([(origin(1), 4), (origin(3), 9)]);
        let mut offered = away.clone();
        assert_eq!(tails(&away, &has, &offered), [], "it is where the others are");
        enter(&mut offered, Vector::from_iter([(origin(1), 4), (origin(3), 7)]));
        let tail = Tail { origin: origin(3), after: 7, last: 9 };
        assert_eq!(tails(&away, &has, &offered), [tail]);
        for _ in 0..3 {
            enter(&mut offered, Vector::default());
        }
        assert_eq!(tails(&away, &has, &offered), [tail]);
        let strong = Region::new(Mode::Strong);
        assert_eq!(tails(&strong, &Vector::default(), &offered), [], "its log has no origins");
    }

    #[test]
    fn behind_a_boundary_that_is_forgotten_everything_is_set_aside() {
        let away = Region::new(Mode::Eventual);
        let has = Vector::from_iter([(origin(3), 2)]);
        let mut offered = away.clone();
        for _ in 0..2 * crate::switch::BOUNDARIES_MAX + 2 {
            enter(&mut offered, Vector::from_iter([(origin(3), 2)]));
        }
        assert_eq!(tails(&away, &has, &offered), [Tail { origin: origin(3), after: 0, last: 2 }]);
    }
}

//! Which requests a node serves, and how, as its region and its gate stand.

use super::planted::{Wrong, wrong};
use super::{Gate, Mode, Peer, Region};
use crate::coverage::{Branch, reached};
use crate::ids::{Epoch, Era};

/// What a request needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Need {
    /// A plain write, which each mode does in its way.
    Write,
    /// Something that only one order of writes can give: a comparison, a transaction, a linearizable read.
    Strong,
}

/// How a request is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// By this node's own origin log.
    OriginLog,
    /// By the region's Raft log, in this era.
    RaftLog(Era),
}

/// Why a request is refused. Nothing was applied, and nothing will be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It needs the strong mode, and the region is eventual: also while it is on its way to strong.
    #[error("the operation needs a strong namespace, and this one is eventual; nothing was applied")]
    RequiresStrong,
    /// Writes are held back while the namespace becomes strong.
    #[error(
        "the namespace is on its way to strong, and takes no writes for a moment; nothing was applied: try again"
    )]
    Switching,
}

/// How a request that comes now is served.
///
/// # Errors
/// Why it is not.
pub fn admit(need: Need, peer: &Peer, region: &Region) -> Result<Way, Refused> {
    match (region.mode(), need, peer.gate()) {
        (Mode::Strong, _, _) => Ok(Way::RaftLog(region.era())),
        (Mode::Eventual, Need::Strong, Gate::Open) if wrong(Wrong::StrongServedEventually) => {
            Ok(Way::OriginLog)
        }
        (Mode::Eventual, Need::Strong, _) => Err(Refused::RequiresStrong),
        (Mode::Eventual, Need::Write, Gate::Open) => Ok(Way::OriginLog),
        (Mode::Eventual, Need::Write, Gate::Shut | Gate::Sealed(_)) => Err(Refused::Switching),
    }
}

/// The epoch that the answer to an eventual write carries, which was appended in `appended` of `era`; `None` where the
/// region has left that era: then the write is in doubt, or not done. It is the epoch of the answer and not of the
/// write, which may have been appended just before an abort.
pub fn answer(peer: &Peer, region: &Region, era: Era, appended: Epoch) -> Option<Epoch> {
    if wrong(Wrong::AnswersInEpochOfAppend) {
        return Some(appended);
    }
    (region.era() == era && region.mode() == Mode::Eventual).then_some(peer.epoch())
}

/// Whether a linearizable read that began in `era` may be answered now that this replica has caught up with the read's
/// index. What it waited for may have been the marker.
pub fn read_stands(region: &Region, era: Era) -> bool {
    let is_of_era = region.mode() == Mode::Strong && region.era() == era;
    if !is_of_era {
        reached(Branch::SwitchReadFalls);
    }
    wrong(Wrong::ReadNotCheckedAgain) || is_of_era
}

/// Whether the region's leader may still read by its lease, having proposed a marker to `proposed`. Others may apply that
/// marker before it does, and acknowledge what it would not see.
pub fn lease_stands(region: &Region, proposed: Option<Era>) -> bool {
    let next = Era(region.era().0 + 1);
    region.mode() == Mode::Strong && (proposed != Some(next) || wrong(Wrong::LeaseKept))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::NodeId;
    use crate::switch::{Boundary, Control, Marker, Seal, SwitchId};
    use std::collections::BTreeSet;

    fn sealed(region: &Region) -> Peer {
        let (era, epoch, switch) = (region.era(), Epoch(1), SwitchId(1));
        let seal = Seal { era, epoch, switch, excluded: BTreeSet::new() };
        Peer::start(NodeId(1), region, &[Control::Seal(seal)])
    }

    fn to(region: &mut Region, era: u32) {
        let (epoch, mode) = (Epoch(u64::from(era)), region.mode().other());
        let boundary = Boundary::default();
        region.enter(&Marker { switch: SwitchId(1), epoch, era: Era(era), mode, boundary });
    }

    #[test]
    fn each_need_has_its_way_or_a_reason() {
        let (eventual, strong) = (Region::new(Mode::Eventual), Region::new(Mode::Strong));
        let open = Peer::start(NodeId(1), &eventual, &[]);
        assert_eq!(admit(Need::Write, &open, &eventual), Ok(Way::OriginLog));
        assert_eq!(admit(Need::Strong, &open, &eventual), Err(Refused::RequiresStrong));
        assert_eq!(admit(Need::Write, &sealed(&eventual), &eventual), Err(Refused::Switching));
        assert_eq!(admit(Need::Strong, &sealed(&eventual), &eventual), Err(Refused::RequiresStrong));
        for need in [Need::Write, Need::Strong] {
            assert_eq!(admit(need, &open, &strong), Ok(Way::RaftLog(Era(1))));
        }
    }

    #[test]
    fn an_answer_carries_the_epoch_of_its_moment_or_is_none() {
        let mut region = Region::new(Mode::Eventual);
        let open = Control::Open { era: Era(1), epoch: Epoch(2) };
        let reopened = Peer::start(NodeId(1), &region, &[open]);
        assert_eq!(answer(&reopened, &region, Era(1), Epoch(1)), Some(Epoch(2)));
        to(&mut region, 2);
        assert_eq!(answer(&reopened, &region, Era(1), Epoch(1)), None);
        to(&mut region, 3);
        assert_eq!(answer(&reopened, &region, Era(1), Epoch(1)), None);
    }

    #[test]
    fn strong_reads_look_twice_and_leases_end_with_the_proposal() {
        let mut region = Region::new(Mode::Strong);
        assert!(read_stands(&region, Era(1)) && lease_stands(&region, None));
        assert!(!lease_stands(&region, Some(Era(2))));
        to(&mut region, 2);
        assert!(!read_stands(&region, Era(1)) && !lease_stands(&region, Some(Era(2))));
        to(&mut region, 3);
        assert!(!read_stands(&region, Era(1)) && read_stands(&region, Era(3)));
        assert!(lease_stands(&region, Some(Era(2))), "that proposal is behind it");
    }
}

//! Standings between nodes.

use super::{GateState, Standing};
use bytes::Bytes;
use rdb_core::codec::Reader;
use rdb_core::ids::{Epoch, Era, NodeId, RegionId};
use rdb_core::switch::{Mode, Report, SwitchId, Vector};
use rdb_proto::internal::v1 as wire;
use rdb_proto::internal::v1::switch_report::Said;

/// What a node promises in one switch is that it is sealed, and that it is drained.
const REPORTS_MAX: usize = 2;

/// A standing as it leaves its node. Its reports are all its own, so they do not name it.
pub(crate) fn to_wire(standing: &Standing) -> wire::SwitchStanding {
    let report = |report: &Report| {
        let (switch, said) = match report {
            Report::Sealed { switch, synced, .. } => (switch, Said::Sealed(vector_to_wire(synced))),
            Report::Drained { switch, digest, .. } => (switch, Said::Drained(*digest)),
        };
        wire::SwitchReport { switch: switch.0, said: Some(said) }
    };
    wire::SwitchStanding {
        region: standing.region.0,
        era: standing.era.0,
        epoch: standing.epoch.0,
        mode: standing.mode.to_byte().into(),
        gate: match standing.gate {
            GateState::Open => 1,
            GateState::Shut => 2,
            GateState::Sealed => 3,
        },
        leads: standing.leads,
        answering: standing.answering,
        lag_ms: standing.lag_ms,
        lag_known: standing.lag_known,
        behind_writes: standing.behind_writes,
        needs_full_copy: standing.needs_full_copy,
        applied: vector_to_wire(&standing.applied),
        quarantined: standing.quarantined,
        reports: standing.reports.iter().map(report).collect(),
    }
}

/// A standing of `from`, as it came.
///
/// # Errors
/// What is wrong with it, as a sentence.
pub(crate) fn from_wire(from: NodeId, standing: &wire::SwitchStanding) -> Result<Standing, String> {
    let region = RegionId(standing.region);
    let wrong = |what: &str| format!("node {from} says of region {region} what cannot be: {what}");
    if region < RegionId::FIRST_USER {
        return Err(wrong("it is no region of a namespace"));
    }
    if REPORTS_MAX < standing.reports.len() {
        return Err(wrong("it has too many reports"));
    }
    let mode = match standing.mode {
        1 => Mode::Strong,
        2 => Mode::Eventual,
        _ => return Err(wrong("its mode is not known")),
    };
    let gate = match standing.gate {
        1 => GateState::Open,
        2 => GateState::Shut,
        3 => GateState::Sealed,
        _ => return Err(wrong("the state of its gate is not known")),
    };
    let report = |report: &wire::SwitchReport| {
        let switch = SwitchId(report.switch);
        match &report.said {
            Some(Said::Sealed(synced)) => {
                let synced = vector_from_wire(synced).map_err(|problem| wrong(&problem))?;
                Ok(Report::Sealed { switch, node: from, synced })
            }
            Some(Said::Drained(digest)) => Ok(Report::Drained { switch, node: from, digest: *digest }),
            None => Err(wrong("a report says nothing")),
        }
    };
    Ok(Standing {
        region,
        era: Era(standing.era),
        epoch: Epoch(standing.epoch),
        mode,
        gate,
        leads: standing.leads,
        answering: standing.answering,
        lag_ms: standing.lag_ms,
        lag_known: standing.lag_known,
        behind_writes: standing.behind_writes,
        needs_full_copy: standing.needs_full_copy,
        applied: vector_from_wire(&standing.applied).map_err(|problem| wrong(&problem))?,
        quarantined: standing.quarantined,
        reports: standing.reports.iter().map(report).collect::<Result<_, _>>()?,
    })
}

fn vector_to_wire(vector: &Vector) -> Bytes {
    let mut out = Vec::new();
    vector.put(&mut out);
    out.into()
}

fn vector_from_wire(bytes: &[u8]) -> Result<Vector, String> {
    let mut reader = Reader::new("a vector", bytes);
    let vector = Vector::read(&mut reader).map_err(|corrupt| corrupt.to_string())?;
    reader.finish().map_err(|corrupt| corrupt.to_string())?;
    Ok(vector)
}

#[cfg(test)]
mod tests {
    use super::super::standing::tests::standing;
    use super::*;
    use proptest::prelude::*;
    use prost::Message as _;
    use rdb_core::ids::Incarnation;
    use rdb_core::switch::Origin;

    const FROM: NodeId = NodeId(2);

    fn full() -> Standing {
        let synced = Vector::from_iter([(Origin { node: FROM, incarnation: Incarnation(3) }, 300)]);
        let switch = SwitchId(7);
        Standing {
            era: Era(4),
            epoch: Epoch(9),
            gate: GateState::Sealed,
            leads: true,
            answering: true,
            lag_ms: 11,
            lag_known: false,
            behind_writes: 12,
            needs_full_copy: true,
            applied: synced.clone(),
            quarantined: 13,
            reports: vec![
                Report::Sealed { switch, node: FROM, synced },
                Report::Drained { switch, node: FROM, digest: u64::MAX },
            ],
            ..standing(16, Mode::Eventual)
        }
    }

    #[test]
    fn standings_come_over() {
        for standing in [full(), standing(16, Mode::Strong)] {
            assert_eq!(from_wire(FROM, &to_wire(&standing)), Ok(standing));
        }
        let shut = Standing { gate: GateState::Shut, ..full() };
        assert_eq!(from_wire(FROM, &to_wire(&shut)), Ok(shut));
    }

    /// Whoever claims to speak for another node speaks for itself.
    #[test]
    fn what_a_node_reports_is_its_own() {
        let theirs = from_wire(NodeId(3), &to_wire(&full())).unwrap();
        let own = |report: &Report| match report {
            Report::Sealed { node, .. } | Report::Drained { node, .. } => *node == NodeId(3),
        };
        assert!(theirs.reports.iter().all(own));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let wrong: [&dyn Fn(&mut wire::SwitchStanding); 9] = [
            &|standing| standing.region = 1,
            &|standing| standing.mode = 0,
            &|standing| standing.mode = 3,
            &|standing| standing.gate = 0,
            &|standing| standing.gate = 4,
            &|standing| standing.applied = Bytes::from_static(&[9]),
            &|standing| standing.applied = Bytes::new(),
            &|standing| standing.reports[0].said = None,
            &|standing| standing.reports.push(standing.reports[0].clone()),
        ];
        for (number, change) in wrong.iter().enumerate() {
            let mut standing = to_wire(&full());
            change(&mut standing);
            assert!(from_wire(FROM, &standing).is_err(), "{number}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>, applied: Vec<u8>, mode in 0u32..4, gate in 0u32..5) {
            if let Ok(standing) = wire::SwitchStanding::decode(&bytes[..]) {
                let _ = from_wire(FROM, &standing);
            }
            let standing = wire::SwitchStanding { applied: applied.into(), mode, gate, ..to_wire(&full()) };
            let _ = from_wire(FROM, &standing);
        }
    }
}

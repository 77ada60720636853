//! The bytes of what outlives a process: a descriptor in the catalog and a change in its log, a marker in a region's log, a
//! control record among the origin logs, a region's mode in its applied state.
//!
//! ```text
//! descriptor  format 1, epoch, era, mode, phase, switch, roster, excluded, cut, deadline and longest write pause in milliseconds
//! change      format 1, epoch, phase, switch, 1 = begin: excluded, deadline, longest write pause; 2 = seal: deadline;
//!             3 = drain: cut; 4 = flip; 5 = finish; 6 = abort
//! marker      format 1, switch, epoch, era, mode, boundary
//! control     format 1, 1 = open: era, epoch; 2 = seal: era, epoch, switch, excluded
//! region      format 1, era, mode, epoch, how many boundaries, for each its strong era and the boundary
//!
//! boundary    cut, excluded
//! vector      crate::eventual::vector
//! nodes       how many, then each in order
//! mode        1 = strong, 2 = eventual
//! phase       1 = settled, 2 = preparing, 3 = sealing, 4 = draining, 5 = flipping
//! ```
//!
//! Numbers are varints. What is not in order, or names a zero, is refused: equal values have equal bytes.

use super::{
    Boundary, Change, Control, Descriptor, Marker, Mode, Phase, Region, Seal, Step, SwitchId, Vector,
};
use crate::codec::{Corrupt, Reader, put_varint};
use crate::ids::{Epoch, Era, NodeId};
use std::collections::{BTreeMap, BTreeSet};

const FORMAT: u8 = 1;
const OPEN: u8 = 1;
const SEAL: u8 = 2;

impl Descriptor {
    /// As it goes to disk.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![FORMAT];
        put_varint(&mut out, self.epoch.0);
        put_varint(&mut out, u64::from(self.era.0));
        out.push(self.mode.to_byte());
        out.push(phase_byte(self.phase));
        put_varint(&mut out, self.switch.0);
        put_nodes(&mut out, &self.roster);
        put_nodes(&mut out, &self.excluded);
        self.cut.put(&mut out);
        put_varint(&mut out, self.deadline_ms);
        put_varint(&mut out, self.write_pause_ms_max);
        out
    }

    /// As it comes from disk.
    ///
    /// # Errors
    /// The bytes are damaged, or a later FlareDB wrote them.
    pub fn decode(bytes: &[u8]) -> Result<Self, Corrupt> {
        let mut reader = begin("a descriptor", bytes)?;
        let descriptor = Self {
            epoch: Epoch(reader.varint()?),
            era: Era(reader.varint32()?),
            mode: Mode::read(&mut reader)?,
            phase: read_phase(&mut reader)?,
            switch: SwitchId(reader.varint()?),
            roster: read_nodes(&mut reader)?,
            excluded: read_nodes(&mut reader)?,
            cut: Vector::read(&mut reader)?,
            deadline_ms: reader.varint()?,
            write_pause_ms_max: reader.varint()?,
        };
        reader.finish()?;
        Ok(descriptor)
    }
}

impl Change {
    /// As it goes into the catalog's log.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![FORMAT];
        put_varint(&mut out, self.epoch.0);
        out.push(phase_byte(self.phase));
        put_varint(&mut out, self.switch.0);
        match &self.step {
            Step::Begin { excluded, deadline_ms, write_pause_ms_max } => {
                out.push(1);
                put_nodes(&mut out, excluded);
                put_varint(&mut out, *deadline_ms);
                put_varint(&mut out, *write_pause_ms_max);
            }
            Step::Seal { deadline_ms } => {
                out.push(2);
                put_varint(&mut out, *deadline_ms);
            }
            Step::Drain { cut } => {
                out.push(3);
                cut.put(&mut out);
            }
            Step::Flip => out.push(4),
            Step::Finish => out.push(5),
            Step::Abort => out.push(6),
        }
        out
    }

    /// As it comes from there.
    ///
    /// # Errors
    /// The bytes are damaged, or a later FlareDB wrote them.
    pub fn decode(bytes: &[u8]) -> Result<Self, Corrupt> {
        let mut reader = begin("a change of a descriptor", bytes)?;
        let epoch = Epoch(reader.varint()?);
        let phase = read_phase(&mut reader)?;
        let switch = SwitchId(reader.varint()?);
        let step = match reader.u8()? {
            1 => Step::Begin {
                excluded: read_nodes(&mut reader)?,
                deadline_ms: reader.varint()?,
                write_pause_ms_max: reader.varint()?,
            },
            2 => Step::Seal { deadline_ms: reader.varint()? },
            3 => Step::Drain { cut: Vector::read(&mut reader)? },
            4 => Step::Flip,
            5 => Step::Finish,
            6 => Step::Abort,
            _ => return Err(reader.corrupt("a step is not known to this version of FlareDB")),
        };
        reader.finish()?;
        Ok(Self { epoch, phase, switch, step })
    }
}

impl Marker {
    /// As it goes into the region's log.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![FORMAT];
        put_varint(&mut out, self.switch.0);
        put_varint(&mut out, self.epoch.0);
        put_varint(&mut out, u64::from(self.era.0));
        out.push(self.mode.to_byte());
        put_boundary(&mut out, &self.boundary);
        out
    }

    /// As it comes from there.
    ///
    /// # Errors
    /// The bytes are damaged, or a later FlareDB wrote them.
    pub fn decode(bytes: &[u8]) -> Result<Self, Corrupt> {
        let mut reader = begin("a marker", bytes)?;
        let marker = Self {
            switch: SwitchId(reader.varint()?),
            epoch: Epoch(reader.varint()?),
            era: Era(reader.varint32()?),
            mode: Mode::read(&mut reader)?,
            boundary: read_boundary(&mut reader)?,
        };
        reader.finish()?;
        Ok(marker)
    }
}

impl Control {
    /// As it goes to disk.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![FORMAT];
        match self {
            Control::Open { era, epoch } => {
                out.push(OPEN);
                put_varint(&mut out, u64::from(era.0));
                put_varint(&mut out, epoch.0);
            }
            Control::Seal(Seal { era, epoch, switch, excluded }) => {
                out.push(SEAL);
                put_varint(&mut out, u64::from(era.0));
                put_varint(&mut out, epoch.0);
                put_varint(&mut out, switch.0);
                put_nodes(&mut out, excluded);
            }
        }
        out
    }

    /// As it comes from disk.
    ///
    /// # Errors
    /// The bytes are damaged, or a later FlareDB wrote them.
    pub fn decode(bytes: &[u8]) -> Result<Self, Corrupt> {
        let mut reader = begin("a control record", bytes)?;
        let kind = reader.u8()?;
        let (era, epoch) = (Era(reader.varint32()?), Epoch(reader.varint()?));
        let control = match kind {
            OPEN => Control::Open { era, epoch },
            SEAL => {
                let (switch, excluded) = (SwitchId(reader.varint()?), read_nodes(&mut reader)?);
                Control::Seal(Seal { era, epoch, switch, excluded })
            }
            _ => return Err(reader.corrupt("its kind is not known to this version of FlareDB")),
        };
        reader.finish()?;
        Ok(control)
    }
}

impl Region {
    /// As it goes to disk.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![FORMAT];
        put_varint(&mut out, u64::from(self.era().0));
        out.push(self.mode().to_byte());
        put_varint(&mut out, self.epoch().0);
        put_varint(&mut out, self.boundaries().len() as u64);
        for (era, boundary) in self.boundaries() {
            put_varint(&mut out, u64::from(era.0));
            put_boundary(&mut out, boundary);
        }
        out
    }

    /// As it comes from disk.
    ///
    /// # Errors
    /// The bytes are damaged, or a later FlareDB wrote them.
    pub fn decode(bytes: &[u8]) -> Result<Self, Corrupt> {
        let mut reader = begin("a region's mode", bytes)?;
        let era = Era(reader.varint32()?);
        let mode = Mode::read(&mut reader)?;
        let epoch = Epoch(reader.varint()?);
        let mut boundaries = BTreeMap::new();
        for _ in 0..reader.varint()? {
            let strong = Era(reader.varint32()?);
            if boundaries.last_key_value().is_some_and(|(last, _)| strong <= *last) {
                return Err(reader.corrupt("its boundaries are not in order"));
            }
            boundaries.insert(strong, read_boundary(&mut reader)?);
        }
        reader.finish()?;
        Ok(Region::restore(era, mode, epoch, boundaries))
    }
}

fn begin<'b>(what: &'static str, bytes: &'b [u8]) -> Result<Reader<'b>, Corrupt> {
    let mut reader = Reader::new(what, bytes);
    match reader.u8()? {
        FORMAT => Ok(reader),
        _ => Err(reader.corrupt("its format is not known to this version of FlareDB")),
    }
}

impl Mode {
    /// As it goes to disk.
    pub fn to_byte(self) -> u8 {
        match self {
            Mode::Strong => 1,
            Mode::Eventual => 2,
        }
    }

    /// As it comes from disk.
    ///
    /// # Errors
    /// The byte is damaged, or a later FlareDB wrote it.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, Corrupt> {
        match reader.u8()? {
            1 => Ok(Mode::Strong),
            2 => Ok(Mode::Eventual),
            _ => Err(reader.corrupt("a mode is not known to this version of FlareDB")),
        }
    }
}

fn phase_byte(phase: Phase) -> u8 {
    match phase {
        Phase::Settled => 1,
        Phase::Preparing => 2,
        Phase::Sealing => 3,
        Phase::Draining => 4,
        Phase::Flipping => 5,
    }
}

fn read_phase(reader: &mut Reader<'_>) -> Result<Phase, Corrupt> {
    match reader.u8()? {
        1 => Ok(Phase::Settled),
        2 => Ok(Phase::Preparing),
        3 => Ok(Phase::Sealing),
        4 => Ok(Phase::Draining),
        5 => Ok(Phase::Flipping),
        _ => Err(reader.corrupt("a phase is not known to this version of FlareDB")),
    }
}

fn put_nodes(out: &mut Vec<u8>, nodes: &BTreeSet<NodeId>) {
    put_varint(out, nodes.len() as u64);
    nodes.iter().for_each(|node| put_varint(out, node.0));
}

fn read_nodes(reader: &mut Reader<'_>) -> Result<BTreeSet<NodeId>, Corrupt> {
    let mut nodes = BTreeSet::new();
    for _ in 0..reader.varint()? {
        let node = NodeId(reader.varint()?);
        if nodes.last().is_some_and(|last| node <= *last) {
            return Err(reader.corrupt("its nodes are not in order"));
        }
        nodes.insert(node);
    }
    Ok(nodes)
}

fn put_boundary(out: &mut Vec<u8>, boundary: &Boundary) {
    boundary.cut.put(out);
    put_nodes(out, &boundary.excluded);
}

fn read_boundary(reader: &mut Reader<'_>) -> Result<Boundary, Corrupt> {
    Ok(Boundary { cut: Vector::read(reader)?, excluded: read_nodes(reader)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Incarnation;
    use crate::switch::Origin;
    use proptest::prelude::*;

    fn nodes() -> impl Strategy<Value = BTreeSet<NodeId>> {
        proptest::collection::btree_set(any::<u64>().prop_map(NodeId), 0..4)
    }

    fn vectors() -> impl Strategy<Value = Vector> {
        let pair = (any::<u64>(), any::<u64>(), any::<u64>());
        let pair = pair.prop_map(|(node, incarnation, seq)| {
            (Origin { node: NodeId(node), incarnation: Incarnation(incarnation) }, seq)
        });
        proptest::collection::vec(pair, 0..4).prop_map(|pairs| pairs.into_iter().collect())
    }

    fn boundaries() -> impl Strategy<Value = Boundary> {
        (vectors(), nodes()).prop_map(|(cut, excluded)| Boundary { cut, excluded })
    }

    fn modes() -> impl Strategy<Value = Mode> {
        prop_oneof![Just(Mode::Strong), Just(Mode::Eventual)]
    }

    fn phases() -> impl Strategy<Value = Phase> {
        let all = [Phase::Settled, Phase::Preparing, Phase::Sealing, Phase::Draining, Phase::Flipping];
        proptest::sample::select(all.to_vec())
    }

    fn first() -> Descriptor {
        Descriptor::new(Mode::Strong, [NodeId(1)])
    }

    /// An epoch, an era and a switch.
    fn numbers() -> impl Strategy<Value = (Epoch, Era, SwitchId)> {
        (any::<u64>(), any::<u32>(), any::<u64>())
            .prop_map(|(epoch, era, switch)| (Epoch(epoch), Era(era), SwitchId(switch)))
    }

    fn steps() -> impl Strategy<Value = Step> {
        let begin = (nodes(), any::<u64>(), any::<u64>());
        prop_oneof![
            begin.prop_map(|(excluded, deadline_ms, write_pause_ms_max)| {
                Step::Begin { excluded, deadline_ms, write_pause_ms_max }
            }),
            any::<u64>().prop_map(|deadline_ms| Step::Seal { deadline_ms }),
            vectors().prop_map(|cut| Step::Drain { cut }),
            Just(Step::Flip),
            Just(Step::Finish),
            Just(Step::Abort),
        ]
    }

    proptest! {
        #[test]
        fn descriptors_come_back(
            (epoch, era, switch) in numbers(), mode in modes(), phase in phases(),
            roster in nodes(), excluded in nodes(), cut in vectors(), (deadline_ms, write_pause_ms_max) in any::<(u64, u64)>(),
        ) {
            let descriptor = Descriptor {
                epoch, era, mode, phase, switch, roster, excluded, cut, deadline_ms, write_pause_ms_max,
            };
            prop_assert_eq!(Descriptor::decode(&descriptor.encode()).unwrap(), descriptor);
        }

        #[test]
        fn changes_come_back((epoch, _, switch) in numbers(), phase in phases(), step in steps()) {
            let change = Change { epoch, phase, switch, step };
            prop_assert_eq!(Change::decode(&change.encode()).unwrap(), change);
        }

        #[test]
        fn markers_come_back((epoch, era, switch) in numbers(), mode in modes(), boundary in boundaries()) {
            let marker = Marker { switch, epoch, era, mode, boundary };
            prop_assert_eq!(Marker::decode(&marker.encode()).unwrap(), marker);
        }

        #[test]
        fn control_records_come_back((epoch, era, switch) in numbers(), excluded in nodes()) {
            for control in [Control::Open { era, epoch }, Control::Seal(Seal { era, epoch, switch, excluded })] {
                prop_assert_eq!(Control::decode(&control.encode()).unwrap(), control);
            }
        }

        #[test]
        fn regions_come_back(
            (epoch, era, _) in numbers(), mode in modes(),
            boundaries in proptest::collection::btree_map(any::<u32>().prop_map(Era), boundaries(), 0..4),
        ) {
            let region = Region::restore(era, mode, epoch, boundaries);
            prop_assert_eq!(Region::decode(&region.encode()).unwrap(), region);
        }

        #[test]
        fn any_bytes_are_read_or_refused(mut bytes: Vec<u8>) {
            if let Some(format) = bytes.first_mut() {
                *format = FORMAT;
            }
            let _ = Descriptor::decode(&bytes);
            let _ = Change::decode(&bytes);
            let _ = Marker::decode(&bytes);
            let _ = Control::decode(&bytes);
            let _ = Region::decode(&bytes);
        }
    }

    #[test]
    fn what_is_cut_short_too_long_or_out_of_order_is_refused() {
        let region = Region::new(Mode::Eventual).encode();
        assert!(Region::decode(&region[..region.len() - 1]).is_err());
        assert!(Region::decode(&[&region[..], &[0]].concat()).is_err());
        let change = first().change(Step::Flip).encode();
        assert!(Change::decode(&change[..change.len() - 1]).is_err());
        assert!(Change::decode(&[&change[..change.len() - 1], &[7]].concat()).is_err());
        let sealed = |excluded: &[u8]| Control::decode(&[&[FORMAT, SEAL, 1, 1, 1][..], excluded].concat());
        assert!(sealed(&[2, 1, 2]).is_ok());
        assert!(sealed(&[2, 2, 1]).is_err() && sealed(&[2, 1, 1]).is_err());
        assert!(Control::decode(&[FORMAT, 3, 1, 1]).is_err());
        assert!(Control::decode(&[FORMAT + 1, OPEN, 1, 1]).is_err());
    }
}

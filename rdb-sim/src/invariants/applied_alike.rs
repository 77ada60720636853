//! Replicas at one index are equal: records, sessions, state, and the answers on the way there.
//!
//! A machine of the simulator's own applies each entry alone, as soon as any replica has it; all replicas, which apply
//! in batches and start over from their disks, are compared with it after each of their batches.

use super::{Violation, holds};
use crate::disks::data::{DataDisk, Stored};
use crate::machine::{Answer, Machine};
use rdb_core::apply::{Changes, Committed};
use rdb_core::ids::{Index, NodeId, RegionId};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

#[derive(Debug, Default)]
pub(crate) struct AppliedAlike {
    models: BTreeMap<RegionId, Model>,
}

#[derive(Debug)]
struct Model {
    machine: Machine,
    stored: Stored,
    /// What each entry led to: the digest of everything after it, and its answers.
    steps: Vec<(u64, Vec<Answer>)>,
}

impl AppliedAlike {
    /// Applies an entry that is committed for the first time. Returns its changes and answers.
    pub(crate) fn model(
        &mut self,
        region: RegionId,
        entry: &Committed,
    ) -> Result<(Changes, Vec<Answer>), Violation> {
        let cannot = |what| Violation { invariant: "every entry can be applied", what };
        let model = match self.models.entry(region) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(vacant) => {
                let stored = Stored::default();
                let machine = Machine::load(region, &stored).map_err(cannot)?;
                vacant.insert(Model { machine, stored, steps: Vec::new() })
            }
        };
        let applied = model.machine.apply(std::slice::from_ref(entry), &model.stored);
        let (changes, answers) = applied.map_err(cannot)?;
        model.stored.write(&changes);
        let answers = answers.into_iter().flatten().collect::<Vec<_>>();
        model.steps.push((model.stored.digest(), answers.clone()));
        Ok((changes, answers))
    }

    /// A replica has applied up to `index`, and now holds `data`.
    pub(crate) fn applied(
        &self,
        region: RegionId,
        node: NodeId,
        index: Index,
        data: &DataDisk,
    ) -> Result<(), Violation> {
        let expected = self.step(region, index).map(|(digest, _)| *digest);
        holds("replicas apply alike", expected == Some(data.of(region).digest()), || {
            format!("region {region} node {node}: its data after entry {index} differs")
        })
    }

    /// A replica has just started, or taken in a snapshot: nothing that it did before tells what its data is. All of it
    /// must be of the moment that its state names.
    pub(crate) fn is_whole(&self, region: RegionId, node: NodeId, stored: &Stored) -> Result<(), Violation> {
        let invariant = "data is of one moment";
        let state = stored.state().map_err(|what| Violation { invariant, what })?;
        let expected = match state.applied {
            0 => Some(Stored::default().digest()),
            index => self.step(region, index).map(|(digest, _)| *digest),
        };
        holds(invariant, expected == Some(stored.digest_anew()), || {
            format!("region {region} node {node}: its data is not that after entry {}", state.applied)
        })
    }

    /// A replica answers the commands of entry `index`.
    pub(crate) fn answers(
        &self,
        region: RegionId,
        node: NodeId,
        index: Index,
        answers: &[Answer],
    ) -> Result<(), Violation> {
        let expected = self.step(region, index).map(|(_, answers)| answers.as_slice());
        holds("replicas answer alike", expected == Some(answers), || {
            format!("region {region} node {node} entry {index}: {answers:?} where {expected:?} is right")
        })
    }

    fn step(&self, region: RegionId, index: Index) -> Option<&(u64, Vec<Answer>)> {
        self.models.get(&region)?.steps.get(usize::try_from(index).ok()?.checked_sub(1)?)
    }

    /// Whether a replica's machine is where all must arrive.
    pub(crate) fn is_final(&self, region: RegionId, machine: &Machine) -> bool {
        self.models.get(&region).is_none_or(|model| model.machine == *machine)
    }

    /// Entries of the longest log.
    pub(crate) fn longest(&self) -> Index {
        self.models.values().map(|model| model.steps.len() as Index).max().unwrap_or(0)
    }

    /// The value of a key after all that was committed.
    pub(crate) fn stored(&self, region: RegionId) -> Option<&Stored> {
        self.models.get(&region).map(|model| &model.stored)
    }
}

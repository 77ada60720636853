//! An era has one mode, and an epoch one era; the epochs of a node's answers only grow; and a node answers only in the era and
//! epoch that a crash would not take from it. No member acknowledges an eventual write after something strong was answered in a
//! later era.

use crate::invariants::{Violation, holds};
use crate::modes::node::Node;
use crate::modes::truth::{Answered, Truth};
use rdb_core::ids::{Epoch, Era};
use rdb_core::switch::{Control, Mode};

impl Truth {
    /// A node answers.
    pub(in crate::modes) fn answers(&mut self, node: &Node, answer: Answered) -> Result<(), Violation> {
        let Answered { epoch, era, mode } = answer;
        holds("one mode for each era", mode == self.mode_of(era), || {
            format!("node {}: {answer:?}", node.id)
        })?;
        let known = *self.epochs.entry(epoch).or_insert((era, mode));
        holds("one era for each epoch", known == (era, mode), || {
            format!("node {}: {answer:?}, elsewhere {known:?}", node.id)
        })?;
        let told = self.told.entry(node.id).or_default();
        holds("epochs grow", *told <= epoch, || format!("node {}: {answer:?} after epoch {told}", node.id))?;
        *told = epoch;
        self.is_durable(node, answer)?;
        match mode {
            Mode::Strong => self.strong_served = self.strong_served.max(Some(era)),
            Mode::Eventual => self.is_before_anything_strong(node, answer)?,
        }
        Ok(())
    }

    /// What the node would find if it crashed now gives it the same era, and no earlier epoch: a gate may have been opened in a
    /// later one by the very sync that the write waited for.
    fn is_durable(&self, node: &Node, answer: Answered) -> Result<(), Violation> {
        let Some(process) = &node.process else { return Ok(()) };
        let files = node.origins.synced();
        let flushed = node.data.flushed.region(self.start).map(|region| region.era()).unwrap_or_default();
        let era = files.note.0.max(flushed).max(Era(1));
        let controls = files.controls().unwrap_or_default().into_iter();
        let promised = controls.filter(|control| control.era() == era).map(epoch_of).max();
        let epoch = process.region.epoch().max(promised.unwrap_or_default());
        let is_durable = era == answer.era && answer.epoch <= epoch;
        holds("answers are of what is durable", is_durable, || {
            format!("node {}: {answer:?}, but a start would find era {era} and epoch {epoch}", node.id)
        })?;
        let present = process.peer.epoch().max(process.region.epoch());
        holds("answers are of the present epoch", answer.epoch == present, || {
            format!("node {}: {answer:?}, but it is in epoch {present}", node.id)
        })
    }

    fn is_before_anything_strong(&self, node: &Node, answer: Answered) -> Result<(), Violation> {
        let marker = self.markers.get(&Era(answer.era.0 + 1));
        let is_excluded = marker.is_some_and(|(marker, _)| marker.boundary.excluded.contains(&node.id));
        let is_late = Some(answer.era) < self.strong_served && !is_excluded;
        holds("nothing eventual after something strong", !is_late, || {
            format!("node {}: {answer:?}, era {:?} was served", node.id, self.strong_served)
        })
    }
}

fn epoch_of(control: Control) -> Epoch {
    match control {
        Control::Open { epoch, .. } => epoch,
        Control::Seal(seal) => seal.epoch,
    }
}

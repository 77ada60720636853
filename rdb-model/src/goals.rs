//! States that a configuration must reach. Without them a promise could hold because nothing ever happens.

use crate::configuration::Configuration;
use crate::model::Cluster;
use crate::state::State;
use rdb_core::ids::Epoch;
use rdb_core::switch::{Gate, Mode, Phase};
use stateright::Property;

/// A state that is to be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// A strong write is acknowledged in an era that a switch has begun.
    StrongAfterSwitch,
    /// An eventual write is acknowledged in an era that a switch has begun.
    EventualAfterSwitch,
    /// An eventual write is acknowledged in an epoch that an abort has begun.
    EventualAfterAbort,
    /// A strong write is acknowledged in an epoch that an abort has begun.
    StrongAfterAbort,
    /// All nodes are in the third era.
    ThereAndBack,
    /// A node is sealed again after a crash.
    SealedAfterCrash,
    /// A node that is cut off and one that is not have each acknowledged an eventual write in the meantime.
    BothSidesWrite,
    /// A switch waits for a node that is cut off.
    BlockedByPartition,
    /// A switch has completed after a node was cut off.
    DoneAfterPartition,
    /// A write lies in quarantine.
    Quarantined,
    /// A write of an excluded node is in the base all the same, since it was within the cut.
    ExcludedWithinCut,
    /// A write between nodes comes when its era is over.
    LateFromOlderEra,
    /// A change comes to a catalog that has moved on.
    LateChangeMovedOn,
    /// A second marker to an era is in the log.
    MarkerTwice,
    /// A strong-only operation is refused.
    StrongRefused,
    /// A linearizable read waits while its node leaves the strong era.
    ReadOvertaken,
    /// A leader gave up its lease, and another node has acknowledged an eventual write.
    LeaseEnded,
    /// A put was committed behind the marker that ended its era.
    PutTooLate,
    /// A read has shown a write, and the node is strong now.
    ReadThenStrong,
}

impl Goal {
    /// The goal as the checker asks for it.
    pub(crate) fn property(self) -> Property<Cluster> {
        let (name, reached): (&'static str, fn(&Cluster, &State) -> bool) = match self {
            Goal::StrongAfterSwitch => ("a strong answer after a switch", |_, state| {
                acknowledged(state, Mode::Strong, |write| write.era > state.catalog[0].era)
            }),
            Goal::EventualAfterSwitch => ("an eventual answer after a switch", |_, state| {
                acknowledged(state, Mode::Eventual, |write| write.era > state.catalog[0].era)
            }),
            Goal::EventualAfterAbort => ("an eventual answer after an abort", |_, state| {
                acknowledged(state, Mode::Eventual, |write| {
                    write.era == state.catalog[0].era && write.acknowledged > Some(Epoch(1))
                })
            }),
            Goal::StrongAfterAbort => ("a strong answer after an abort", |_, state| {
                acknowledged(state, Mode::Strong, |write| {
                    write.era == state.catalog[0].era && write.acknowledged > Some(Epoch(1))
                })
            }),
            Goal::ThereAndBack => ("all nodes are there and back", |_, state| {
                state.nodes.iter().all(|node| node.region.era().0 == state.catalog[0].era.0 + 2)
            }),
            Goal::SealedAfterCrash => ("sealed after a crash", |_, state| {
                state
                    .nodes
                    .iter()
                    .any(|node| node.incarnation > 1 && matches!(node.peer.gate(), Gate::Sealed(_)))
            }),
            Goal::BothSidesWrite => ("both sides of a cut write", |_, state| both_sides_write(state)),
            Goal::BlockedByPartition => ("a switch waits for a node that is cut off", |_, state| {
                state.isolated.is_some()
                    && state.descriptor().phase == Phase::Sealing
                    && state.reports.len() == 2
            }),
            Goal::DoneAfterPartition => ("a switch is done after a cut", |model, state| {
                state.budget.partitions < model.configuration.partitions
                    && state.descriptor().era > state.catalog[0].era
            }),
            Goal::Quarantined => ("a write is in quarantine", |_, state| {
                state.nodes.iter().any(|node| !node.quarantine.is_empty())
            }),
            Goal::ExcludedWithinCut => ("an excluded node's write is in the base", |_, state| {
                let excluded =
                    |node: u8| state.descriptor().excluded.contains(&crate::state::node_id(node.into()));
                state.nodes[0].base.iter().any(|id| excluded(state.write(id).node))
            }),
            Goal::LateFromOlderEra => ("a write comes after its era", |_, state| {
                let after =
                    |delivery: crate::state::Delivery| delivery.era < state.nodes[delivery.to].region.era();
                state.late_delivery.is_some_and(after)
            }),
            Goal::LateChangeMovedOn => ("a change comes too late", |_, state| {
                state.late_change.as_ref().is_some_and(|late| late.switch < state.descriptor().switch)
            }),
            Goal::MarkerTwice => ("a marker is in the log twice", |_, state| {
                let twice = |entry| state.log.iter().filter(|other| *other == entry).count() == 2;
                state.log.iter().any(twice)
            }),
            Goal::StrongRefused => ("a strong-only operation is refused", |_, state| state.strong_refused),
            Goal::ReadOvertaken => ("a read is overtaken by the marker", |_, state| {
                let overtaken = |reading: crate::state::Reading, era| reading.era < era;
                let era = |node: &crate::state::Node| node.region.era();
                state
                    .nodes
                    .iter()
                    .any(|node| node.reading.is_some_and(|reading| overtaken(reading, era(node))))
            }),
            Goal::LeaseEnded => ("the lease has ended, and others answer", |_, state| {
                let era = state.nodes[0].region.era();
                state.nodes[0].region.mode() == Mode::Strong
                    && acknowledged(state, Mode::Eventual, |write| write.era > era)
            }),
            Goal::PutTooLate => ("a put behind its era's end", |_, state| {
                state.log.windows(2).any(|pair| matches!(pair,
                    [crate::state::Entry::Marker(marker), crate::state::Entry::Put { era, .. }] if *era < marker.era))
            }),
            Goal::ReadThenStrong => ("a reader's node is strong now", |_, state| {
                let is_now_strong = |node: &crate::state::Node| node.region.mode() == Mode::Strong;
                state.nodes.iter().any(|node| !node.shown.is_empty() && is_now_strong(node))
            }),
        };
        Property::sometimes(name, reached)
    }
}

fn acknowledged(state: &State, mode: Mode, is_one: impl Fn(&crate::state::Write) -> bool) -> bool {
    state.writes.iter().any(|write| write.mode == mode && write.acknowledged.is_some() && is_one(write))
}

/// Each side holds an acknowledged eventual write that the other one lacks, and they do not hear each other.
fn both_sides_write(state: &State) -> bool {
    let Some(isolated) = state.isolated else { return false };
    let alone = |id: &u8, node: usize| {
        let others = (0..state.nodes.len()).filter(|other| (*other == isolated) != (node == isolated));
        others.into_iter().all(|other| !state.nodes[other].appended().contains(*id))
    };
    let is_one_sided = |inside: bool| {
        state.acknowledged().iter().any(|id| {
            let node = usize::from(state.write(id).node);
            (node == isolated) == inside && alone(&id, node)
        })
    };
    is_one_sided(true) && is_one_sided(false)
}

/// The goals of a configuration.
pub(crate) fn properties(configuration: &Configuration) -> Vec<Property<Cluster>> {
    configuration.goals.iter().map(|goal| goal.property()).collect()
}

//! What `/metrics` shows of switches.

use super::history::Moved;
use crate::shared::Shared;
use parking_lot::Mutex;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use rdb_core::ids::RegionId;
use rdb_core::switch::{Mode, Phase};
use std::collections::BTreeMap;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
enum Outcome {
    Begun,
    Completed,
    CalledOff,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: Outcome,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RegionLabels {
    region: u64,
}

/// Of all namespaces.
pub(crate) struct SwitchMetrics {
    switches: Family<OutcomeLabels, Counter>,
    write_pause: Histogram,
    mode: Family<RegionLabels, Gauge>,
    epoch: Family<RegionLabels, Gauge>,
    era: Family<RegionLabels, Gauge>,
    phase: Family<RegionLabels, Gauge>,
    blockers: Family<RegionLabels, Gauge>,
    /// By the controller's last look.
    blocked: Mutex<BTreeMap<RegionId, usize>>,
}

impl Default for SwitchMetrics {
    fn default() -> Self {
        Self {
            switches: Family::default(),
            write_pause: Histogram::new([0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0]),
            mode: Family::default(),
            epoch: Family::default(),
            era: Family::default(),
            phase: Family::default(),
            blockers: Family::default(),
            blocked: Mutex::default(),
        }
    }
}

impl SwitchMetrics {
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register(
            "switches",
            "Switches of a namespace's mode that this node has seen begin and end, each node the same ones",
            self.switches.clone(),
        );
        registry.register_with_unit(
            "switch_write_pause",
            "For how long a switch held writes back, as this node's catalog saw it",
            Unit::Seconds,
            self.write_pause.clone(),
        );
        registry.register("namespace_mode", "1: strong; 2: eventual; by the catalog", self.mode.clone());
        registry.register(
            "namespace_epoch",
            "Grows whenever who may write changes; by the catalog",
            self.epoch.clone(),
        );
        registry.register(
            "namespace_era",
            "Grows when a switch of mode completes; by the catalog",
            self.era.clone(),
        );
        registry.register(
            "switch_phase",
            "0: none is under way; 1: preparing; 2: sealing; 3: draining; 4: flipping",
            self.phase.clone(),
        );
        registry.register(
            "switch_blockers",
            "On the catalog's leader: what the switch under way waits for",
            self.blockers.clone(),
        );
    }

    /// A namespace's descriptor has changed.
    pub(crate) fn moved(&self, moved: &Moved) {
        let outcomes = [
            (Outcome::Begun, moved.begun),
            (Outcome::Completed, moved.completed),
            (Outcome::CalledOff, moved.aborted),
        ];
        for (outcome, count) in outcomes {
            self.switches.get_or_create(&OutcomeLabels { outcome }).inc_by(count);
        }
        if let Some(pause) = moved.pause {
            self.write_pause.observe(pause.as_secs_f64());
        }
        self.blocked.lock().remove(&moved.namespace.region);
    }

    /// The controller waits for so many things.
    pub(crate) fn blocked(&self, region: RegionId, blockers: usize) {
        self.blocked.lock().insert(region, blockers);
    }

    /// Somebody looks.
    pub(crate) fn look(&self, shared: &Shared) {
        let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let all = [&self.mode, &self.epoch, &self.era, &self.phase, &self.blockers];
        // What is gone is not shown any more.
        all.iter().for_each(|family| family.clear());
        let leads = shared.regions.get(RegionId::META).is_some_and(|view| view.leads());
        let blocked = self.blocked.lock();
        for namespace in shared.catalog.load().namespaces() {
            let labels = RegionLabels { region: namespace.region.0 };
            let mode = match namespace.mode() {
                Mode::Strong => 1,
                Mode::Eventual => 2,
            };
            self.mode.get_or_create(&labels).set(mode);
            self.epoch.get_or_create(&labels).set(signed(namespace.epoch().0));
            self.era.get_or_create(&labels).set(signed(u64::from(namespace.era().0)));
            self.phase.get_or_create(&labels).set(match namespace.descriptor.phase {
                Phase::Settled => 0,
                Phase::Preparing => 1,
                Phase::Sealing => 2,
                Phase::Draining => 3,
                Phase::Flipping => 4,
            });
            if leads {
                let count = blocked.get(&namespace.region).copied().unwrap_or_default();
                self.blockers.get_or_create(&labels).set(signed(count as u64));
            }
        }
    }
}

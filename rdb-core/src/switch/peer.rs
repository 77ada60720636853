//! A node's part: its gate, its epoch, and the two records by which it keeps its word across a crash. One for each region,
//! owned by whoever drives it.
//!
//! The gate answers one question: may this node acknowledge an eventual write? **Open**: yes. **Shut**: not now; nobody has
//! been told, so a crash may open it. **Sealed**: never again in this epoch. The cluster counts on that, so it is synced
//! before it is reported, and only a later epoch or a new era ends it, never a timer: whoever waits in vain goes on waiting.

use super::planted::{Wrong, wrong};
use super::{Descriptor, Mode, Phase, Progress, Region, SwitchId, Vector};
use crate::coverage::{Branch, reached};
use crate::ids::{Epoch, Era, NodeId};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Whether this node may acknowledge eventual writes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Gate {
    /// It may.
    Open,
    /// It does not, and nobody counts on it.
    Shut,
    /// It does not, as it has promised.
    Sealed(Seal),
}

/// The promise not to acknowledge eventual writes in an epoch.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seal {
    /// The era of the region that gave it.
    pub era: Era,
    /// The epoch for which it holds.
    pub epoch: Epoch,
    /// The switch for which it was given.
    pub switch: SwitchId,
    /// Whose writes are no longer taken in, except as far as the cut says.
    pub excluded: BTreeSet<NodeId>,
}

/// A record about the gate, synced in the same log as the writes, so that it comes behind all that were accepted before. It
/// may go when the region's later era is durable: until then a restart may begin with the era that it belongs to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Control {
    /// This node acknowledges in this epoch now, and in no earlier one.
    Open {
        /// The era of the region that gave it.
        era: Era,
        /// The epoch.
        epoch: Epoch,
    },
    /// The gate is sealed.
    Seal(Seal),
}

/// What a node tells the controller. It may be told again at any time, and is true for ever.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Report {
    /// This node acknowledges nothing more, and has this much of everybody's writes.
    Sealed {
        /// For which switch.
        switch: SwitchId,
        /// Who reports.
        node: NodeId,
        /// All that it has synced.
        synced: Vector,
    },
    /// This node has synced all that the base will hold.
    Drained {
        /// For which switch.
        switch: SwitchId,
        /// Who reports.
        node: NodeId,
        /// A hash of its data at the cut: the same at all who take part, or one of them is damaged.
        digest: u64,
    },
}

/// A node's part in the switches of one region.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Peer {
    node: NodeId,
    epoch: Epoch,
    gate: Gate,
    /// Appended, not yet synced.
    writing: Option<Control>,
    /// Of a restart that begins with a region older than it was: what this node promised in eras that are to come again.
    later: Vec<Control>,
    heard: Option<Arc<Descriptor>>,
}

impl Peer {
    /// A node as it starts: from its region's state, and from all control records in its log, in order. The region may be
    /// older than the records, since its data is flushed later than the log is synced; what it has yet to apply again may
    /// change its era, and each era has records of its own.
    pub fn start(node: NodeId, region: &Region, controls: &[Control]) -> Self {
        let (epoch, later) = (region.epoch(), controls.to_vec());
        let mut peer = Self { node, epoch, gate: Gate::Open, writing: None, later, heard: None };
        peer.install_later(region);
        peer
    }

    /// Takes effect of the records of the era that the region is in now, and forgets those of earlier ones.
    fn install_later(&mut self, region: &Region) {
        let is_due = |control: &Control| control.era() <= region.era() || wrong(Wrong::ControlOfAnyEra);
        let (due, later): (Vec<Control>, _) = std::mem::take(&mut self.later).into_iter().partition(is_due);
        self.later = later;
        if !self.later.is_empty() {
            reached(Branch::SwitchPromiseOfLaterEra);
        }
        for control in due {
            match control {
                Control::Seal(_) if wrong(Wrong::SealNotLoaded) => {}
                Control::Open { .. } if wrong(Wrong::OpenNotLoaded) => {}
                control if control.era() < region.era() => {}
                control => {
                    reached(Branch::SwitchPromiseFound);
                    self.install(control);
                }
            }
        }
    }

    /// Takes effect of a synced record, unless the region has moved on since.
    fn install(&mut self, control: Control) {
        match control {
            Control::Open { epoch, .. } if self.epoch < epoch => {
                self.epoch = epoch;
                self.gate = Gate::Open;
            }
            Control::Seal(seal) if self.epoch <= seal.epoch => {
                self.epoch = seal.epoch;
                self.gate = Gate::Sealed(seal);
            }
            Control::Open { .. } | Control::Seal(_) => {}
        }
    }

    /// Which node this is.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// The epoch that this node's answers carry.
    pub fn epoch(&self) -> Epoch {
        match &self.writing {
            Some(Control::Open { epoch, .. }) if wrong(Wrong::OpenBeforeSync) => *epoch,
            _ => self.epoch,
        }
    }

    /// Whether this node may acknowledge eventual writes.
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// The newest descriptor that it has heard of.
    pub fn heard(&self) -> Option<&Arc<Descriptor>> {
        self.heard.as_ref()
    }

    /// The record that is being synced.
    pub fn writing(&self) -> Option<&Control> {
        self.writing.as_ref()
    }

    /// Hears a descriptor, from whomever; [`Peer::review`] draws the conclusions. What is older than one that was heard
    /// before is not heard.
    pub fn hear(&mut self, descriptor: &Arc<Descriptor>) {
        let is_newer = |heard: &Arc<Descriptor>| heard.position() < descriptor.position();
        if self.heard.as_ref().is_none_or(is_newer) || wrong(Wrong::HearsOldDescriptors) {
            self.heard = Some(Arc::clone(descriptor));
        } else if self.heard.as_ref().is_some_and(|heard| descriptor.position() < heard.position()) {
            reached(Branch::SwitchHearsOld);
        }
    }

    /// Looks at the newest descriptor again, and says what is to be appended and synced, if anything. To be called whenever
    /// something has changed: a descriptor was heard, a control record is synced, the last answer has left, the region is
    /// in another era. `answering` says whether eventual writes are under way that are not answered yet.
    pub fn review(&mut self, region: &Region, answering: bool) -> Option<Control> {
        let heard = Arc::clone(self.heard.as_ref()?);
        if self.writing.is_some() {
            return None;
        }
        let is_of_this_era = (heard.era, heard.mode) == (region.era(), region.mode());
        let is_followed = is_of_this_era || wrong(Wrong::EpochOfAnyEra) && self.epoch < heard.epoch;
        // The region's own log says which era it is in. What the catalog says of another one is remembered for later.
        if !is_followed {
            if region.era() < heard.era {
                reached(Branch::SwitchHearsEarly);
            }
            self.stand_back(&heard, region);
            return None;
        }
        let control = if self.epoch < heard.epoch {
            reached(Branch::SwitchOpens);
            Some(Control::Open { era: region.era(), epoch: heard.epoch })
        } else if self.epoch == heard.epoch || wrong(Wrong::HearsOldDescriptors) {
            self.follow(&heard, region, answering)
        } else {
            None
        };
        self.writing.clone_from(&control);
        control
    }

    /// The others have left the era that this node is still in: what it accepted now would be left behind. Nobody counts on
    /// its silence, so this is not synced; the new era ends it.
    fn stand_back(&mut self, heard: &Descriptor, region: &Region) {
        if region.era() < heard.era && region.mode() == Mode::Eventual && self.gate == Gate::Open {
            reached(Branch::SwitchStandsBack);
            self.gate = Gate::Shut;
        }
    }

    /// What the phase asks of the gate.
    fn follow(&mut self, heard: &Descriptor, region: &Region, answering: bool) -> Option<Control> {
        if region.mode() == Mode::Strong || !heard.phase.shuts_gates() {
            return None;
        }
        if self.gate == Gate::Open {
            self.gate = Gate::Shut;
        }
        // An excluded node holds its peace as soon as it hears, but nobody waits for its word.
        let takes_part = heard.roster.contains(&self.node);
        // An answer that leaves behind the seal would be one that the cut may not know.
        let may_seal = !answering || wrong(Wrong::SealBeforeAnswers);
        if self.gate == Gate::Shut && !takes_part {
            reached(Branch::SwitchExcludedShuts);
        }
        if self.gate != Gate::Shut || !takes_part || !may_seal {
            return None;
        }
        reached(Branch::SwitchSeals);
        let (era, epoch, excluded) = (region.era(), self.epoch, heard.excluded.clone());
        Some(Control::Seal(Seal { era, epoch, switch: heard.switch, excluded }))
    }

    /// Takes note that `control` is synced, and with it all that was appended before. Then [`Peer::review`].
    pub fn synced(&mut self, control: &Control) {
        if self.writing.as_ref() == Some(control) {
            self.writing = None;
            self.install(control.clone());
        }
    }

    /// Takes note that the region is in another era, by a marker or a snapshot. Then [`Peer::review`]: the newest descriptor
    /// may have been waiting for this.
    pub fn era_changed(&mut self, region: &Region) {
        self.epoch = self.epoch.max(region.epoch());
        self.gate = Gate::Open;
        self.writing = None;
        self.install_later(region);
        if wrong(Wrong::NoReviewAfterEra) {
            self.heard = None;
        }
    }

    /// A sealed node has heard nothing for long. It refuses writes for as long as that lasts, the one exception to "always
    /// writable": the others may have gone on without it, and then whatever it acknowledges is lost.
    pub fn waited_long(&mut self) {
        if wrong(Wrong::TimerOpensGate) && matches!(self.gate, Gate::Sealed(_)) {
            self.gate = Gate::Open;
            self.heard = None;
        }
    }

    /// What this node can tell the controller now. `digest` hashes the data at a cut that this node has reached.
    pub fn reports(&self, progress: &Progress, digest: impl Fn(&Vector) -> u64) -> Vec<Report> {
        let Some(seal) = self.reportable_seal() else { return Vec::new() };
        let (node, switch) = (self.node, seal.switch);
        let mut reports = vec![Report::Sealed { switch, node, synced: progress.synced.clone() }];
        if let Some(heard) = &self.heard {
            let has = if wrong(Wrong::DrainedUnsynced) { &progress.appended } else { &progress.synced };
            if seal.cut(heard).is_some_and(|cut| has.covers(cut)) {
                reports.push(Report::Drained { switch, node, digest: digest(&heard.cut) });
            }
        }
        reports
    }

    fn reportable_seal(&self) -> Option<&Seal> {
        match (&self.gate, &self.writing) {
            (Gate::Sealed(seal), _) => Some(seal),
            (_, Some(Control::Seal(seal))) if wrong(Wrong::SealReportedBeforeSync) => Some(seal),
            _ => None,
        }
    }
}

impl Control {
    /// The era of the region that gave it.
    pub fn era(&self) -> Era {
        match self {
            Control::Open { era, .. } | Control::Seal(Seal { era, .. }) => *era,
        }
    }

    /// The epoch that it is about.
    pub fn epoch(&self) -> Epoch {
        match self {
            Control::Open { epoch, .. } | Control::Seal(Seal { epoch, .. }) => *epoch,
        }
    }
}

impl Seal {
    /// The cut of the switch that this seal was given for, if `heard` publishes one.
    pub fn cut<'d>(&self, heard: &'d Descriptor) -> Option<&'d Vector> {
        let is_same = (heard.switch, heard.epoch) == (self.switch, self.epoch);
        let is_published = matches!(heard.phase, Phase::Draining | Phase::Flipping);
        (is_same && is_published).then_some(&heard.cut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Incarnation;
    use crate::switch::{Boundary, Marker, Origin, Step};

    const NODE: NodeId = NodeId(1);

    fn eventual() -> Region {
        Region::new(Mode::Eventual)
    }

    fn first() -> Descriptor {
        Descriptor::new(Mode::Eventual, (1..=3).map(NodeId))
    }

    fn after(descriptor: &Descriptor, steps: &[Step]) -> Arc<Descriptor> {
        let step = |now: Descriptor, step: &Step| now.apply(&now.change(step.clone())).unwrap();
        Arc::new(steps.iter().fold(descriptor.clone(), step))
    }

    fn sealing(excluded: &[u64]) -> Arc<Descriptor> {
        let excluded = excluded.iter().copied().map(NodeId).collect();
        let begin = Step::Begin { excluded, deadline_ms: 0, write_pause_ms_max: 0 };
        after(&first(), &[begin, Step::Seal { deadline_ms: 0 }])
    }

    /// Hears, appends what is asked for, and syncs it.
    fn hear(peer: &mut Peer, region: &Region, descriptor: &Arc<Descriptor>) -> Vec<Control> {
        peer.hear(descriptor);
        let mut synced = Vec::new();
        while let Some(control) = peer.review(region, false) {
            peer.synced(&control);
            synced.push(control);
        }
        synced
    }

    fn progress(seq: u64) -> Progress {
        let vector = Vector::from_iter([(Origin { node: NODE, incarnation: Incarnation(1) }, seq)]);
        Progress { appended: vector.clone(), synced: vector }
    }

    #[test]
    fn a_seal_waits_for_answers_is_synced_and_then_reported() {
        let (region, sealing) = (eventual(), sealing(&[]));
        let mut peer = Peer::start(NODE, &region, &[]);
        peer.hear(&sealing);
        assert_eq!(peer.review(&region, true), None, "an answer is under way");
        assert_eq!(peer.gate(), &Gate::Shut, "and no other one follows");
        let seal = peer.review(&region, false).unwrap();
        assert_eq!(peer.reports(&progress(4), |_| 0), [], "not before it is synced");
        peer.synced(&seal);
        let reports = peer.reports(&progress(4), |_| 0);
        let synced = progress(4).synced;
        assert_eq!(reports, [Report::Sealed { switch: sealing.switch, node: NODE, synced }]);
    }

    #[test]
    fn a_drained_node_has_synced_the_cut() {
        let region = eventual();
        let mut peer = Peer::start(NODE, &region, &[]);
        hear(&mut peer, &region, &sealing(&[]));
        let cut = progress(4).synced;
        hear(&mut peer, &region, &after(&sealing(&[]), &[Step::Drain { cut }]));
        let lagging = Progress { appended: progress(4).appended, ..progress(3) };
        assert_eq!(peer.reports(&lagging, |_| 5).len(), 1);
        let drained = Report::Drained { switch: SwitchId(1), node: NODE, digest: 5 };
        assert_eq!(peer.reports(&progress(4), |_| 5)[1], drained);
    }

    #[test]
    fn a_restart_keeps_what_was_synced_and_forgets_what_was_not() {
        let (region, sealing) = (eventual(), sealing(&[]));
        let mut peer = Peer::start(NODE, &region, &[]);
        let seal = hear(&mut peer, &region, &sealing);
        assert!(matches!(Peer::start(NODE, &region, &seal).gate(), Gate::Sealed(_)));
        assert_eq!(Peer::start(NODE, &region, &[]).gate(), &Gate::Open, "nobody was told");
        let open = Control::Open { era: Era(1), epoch: Epoch(5) };
        let peer = Peer::start(NODE, &region, &[open]);
        assert_eq!((peer.epoch(), peer.gate()), (Epoch(5), &Gate::Open));
    }

    #[test]
    fn only_a_later_epoch_or_a_new_era_opens_a_sealed_gate() {
        let (region, sealing) = (eventual(), sealing(&[]));
        let mut peer = Peer::start(NODE, &region, &[]);
        hear(&mut peer, &region, &sealing);
        peer.waited_long();
        assert!(matches!(peer.gate(), Gate::Sealed(_)), "no timer does");
        let mut aborted = peer.clone();
        aborted.hear(&after(&sealing, &[Step::Abort]));
        let open = aborted.review(&region, false).unwrap();
        assert_eq!((aborted.epoch(), &open), (Epoch(1), &Control::Open { era: Era(1), epoch: Epoch(2) }));
        assert!(matches!(aborted.gate(), Gate::Sealed(_)), "not before that is synced");
        aborted.synced(&open);
        assert_eq!((aborted.epoch(), aborted.gate()), (Epoch(2), &Gate::Open));
        assert_eq!(hear(&mut aborted, &region, &sealing), [], "what is older is not heard");
        // After a restart it does not know what it had heard, but it knows its epoch.
        let mut aborted = Peer::start(NODE, &region, &[open]);
        assert_eq!(hear(&mut aborted, &region, &sealing), []);
        assert_eq!(aborted.gate(), &Gate::Open);
        let mut strong = region;
        let (epoch, era) = (Epoch(2), Era(2));
        let boundary = Boundary::default();
        strong.enter(&Marker { switch: SwitchId(1), epoch, era, mode: Mode::Strong, boundary });
        peer.era_changed(&strong);
        assert_eq!((peer.epoch(), peer.gate()), (Epoch(2), &Gate::Open));
        assert_eq!(Peer::start(NODE, &strong, &[seal(1, 1)]).gate(), &Gate::Open, "that era is over");
    }

    fn seal(era: u32, epoch: u64) -> Control {
        let (era, epoch) = (Era(era), Epoch(epoch));
        Control::Seal(Seal { era, epoch, switch: SwitchId(epoch.0), excluded: BTreeSet::new() })
    }

    /// The data is flushed later than the log is synced, so a restart may find a region of long ago and promises of today.
    #[test]
    fn each_era_that_comes_again_has_its_own_promises() {
        let mut region = eventual();
        let controls = [seal(1, 1), Control::Open { era: Era(3), epoch: Epoch(4) }, seal(3, 4)];
        let mut peer = Peer::start(NODE, &region, &controls);
        assert!(matches!(peer.gate(), Gate::Sealed(seal) if seal.epoch == Epoch(1)));
        assert_eq!(peer.epoch(), Epoch(1));
        for (era, mode) in [(2, Mode::Strong), (3, Mode::Eventual)] {
            let (epoch, boundary) = (Epoch(u64::from(era)), Boundary::default());
            region.enter(&Marker { switch: SwitchId(1), epoch, era: Era(era), mode, boundary });
            peer.era_changed(&region);
        }
        assert!(matches!(peer.gate(), Gate::Sealed(seal) if seal.epoch == Epoch(4)));
        assert_eq!(peer.epoch(), Epoch(4));
    }

    #[test]
    fn an_excluded_node_shuts_its_gate_and_says_nothing() {
        let region = eventual();
        let mut peer = Peer::start(NODE, &region, &[]);
        assert_eq!(hear(&mut peer, &region, &sealing(&[1])), []);
        assert_eq!(peer.gate(), &Gate::Shut);
        assert_eq!(peer.reports(&progress(1), |_| 0), []);
        // After a restart it may find the others in an era that its region will only reach by a snapshot.
        let mut later = first();
        (later.era, later.epoch, later.mode) = (Era(2), Epoch(2), Mode::Strong);
        let mut peer = Peer::start(NODE, &region, &[]);
        assert_eq!(hear(&mut peer, &region, &Arc::new(later)), []);
        assert_eq!((peer.gate(), peer.epoch()), (&Gate::Shut, Epoch(1)));
    }

    #[test]
    fn a_descriptor_of_another_era_waits_until_the_region_is_there() {
        let strong = Region::new(Mode::Strong);
        let mut later = (*sealing(&[])).clone();
        (later.era, later.epoch) = (Era(2), Epoch(2));
        let mut peer = Peer::start(NODE, &strong, &[]);
        assert_eq!(hear(&mut peer, &strong, &Arc::new(later)), []);
        assert_eq!(peer.epoch(), Epoch(1));
        let mut region = strong;
        let boundary = Boundary::default();
        let (switch, epoch, era) = (SwitchId(1), Epoch(2), Era(2));
        region.enter(&Marker { switch, epoch, era, mode: Mode::Eventual, boundary });
        peer.era_changed(&region);
        assert!(matches!(peer.review(&region, false), Some(Control::Seal(_))));
    }
}

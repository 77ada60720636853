//! What the raft loop shows of its regions to everyone else: numbers that are read without asking it.

use crate::budget::Budget;
use crate::clock::Moment;
use crate::waiter::Released;
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rdb_core::ids::{Epoch, Era, Index, NodeId, RegionId, Term};
use rdb_core::raft::{Lease, Role, Standing, Status};
use rdb_core::switch::{Mode, Region};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// One region as it was at the end of the loop's last turn with it. The numbers are each right, not all of one moment.
#[derive(Debug)]
pub(crate) struct RegionView {
    budget: Budget,
    leader: AtomicU64,
    leads: AtomicBool,
    term: AtomicU64,
    commit: AtomicU64,
    applied: AtomicU64,
    last: AtomicU64,
    first: AtomicU64,
    voters_active: AtomicU64,
    asleep: AtomicBool,
    closed: AtomicBool,
    answering: ArcSwap<Answering>,
    /// Up to this entry a start applies what was applied before, and shows nothing.
    found_at: AtomicU64,
    reads: Mutex<ReadState>,
}

/// What this node has shown of a region before it started.
#[derive(Debug, Default)]
pub(crate) struct Before {
    /// Up to this entry the data is behind it.
    pub(crate) found_at: Index,
    /// Epochs in which it may have answered, also of later eras, to which the region's log has yet to come again.
    pub(crate) epochs: Vec<(Era, Epoch)>,
}

/// Under which rules something is asked and answered: all of one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rules {
    pub(crate) era: Era,
    pub(crate) mode: Mode,
    pub(crate) epoch: Epoch,
}

/// The rules under which a region is served, and the epochs of the eras around it.
#[derive(Debug, Clone, Default)]
struct Answering {
    /// Not known before the region's log has told it.
    mode: Option<(Era, Mode)>,
    /// What this node answers in an era is of this epoch, or of a later one. Answers of the era before this one may be on their way,
    /// and a gate is in the next one before that is shown.
    epochs: BTreeMap<Era, Epoch>,
}

/// Answers that are on their way for longer than it takes to enter so many eras carry the epoch that they were asked for in.
const ERAS_KEPT: u32 = 8;

impl Answering {
    fn entered(&self, region: &Region) -> Self {
        let mut next = self.raised(region.era(), region.epoch());
        next.mode = Some((region.era(), region.mode()));
        next.epochs.retain(|era, _| region.era().0 < era.0.saturating_add(ERAS_KEPT));
        next
    }

    fn raised(&self, era: Era, epoch: Epoch) -> Self {
        let mut next = self.clone();
        let known = next.epochs.entry(era).or_default();
        *known = epoch.max(*known);
        next
    }

    fn epoch(&self, era: Era) -> Epoch {
        self.epochs.get(&era).copied().unwrap_or_default()
    }
}

/// What rounds of reads have told of a region.
#[derive(Debug, Clone, Copy, Default)]
struct ReadState {
    /// All that was committed by then is in this node's data.
    fresh_at: Option<Moment>,
    lease: Lease<Moment>,
    /// When a round was last asked for without a read that waits for it.
    asked_at: Option<Moment>,
}

impl RegionView {
    fn new(budget: Budget) -> Self {
        Self {
            budget,
            leader: AtomicU64::default(),
            leads: AtomicBool::default(),
            term: AtomicU64::default(),
            commit: AtomicU64::default(),
            applied: AtomicU64::default(),
            last: AtomicU64::default(),
            first: AtomicU64::default(),
            voters_active: AtomicU64::default(),
            asleep: AtomicBool::default(),
            closed: AtomicBool::default(),
            answering: ArcSwap::default(),
            found_at: AtomicU64::default(),
            reads: Mutex::default(),
        }
    }

    /// What the namespace's requests under way may take of this node's memory. A namespace has one region.
    pub(crate) fn budget(&self) -> &Budget {
        &self.budget
    }

    /// The region's own log has put it into this mode. Whoever serves it must be ready by now.
    pub(crate) fn set_mode(&self, mode: &Region) {
        self.answering.rcu(|now| now.entered(mode));
        if mode.mode() == Mode::Strong {
            self.reads.lock().lease.is_strong();
        }
    }

    /// The region's mode, and its era, which is 0 before they are known.
    pub(crate) fn mode(&self) -> (Mode, Era) {
        let now = self.answering.load();
        now.mode.map_or((Mode::Strong, Era(0)), |(era, mode)| (mode, era))
    }

    /// The rules under which it is served now, once they are known.
    pub(crate) fn rules(&self) -> Option<Rules> {
        let now = self.answering.load();
        now.mode.map(|(era, mode)| Rules { era, mode, epoch: now.epoch(era) })
    }

    /// Whether the region is in eventual mode.
    pub(crate) fn is_eventual(&self) -> bool {
        self.mode().0 == Mode::Eventual
    }

    /// Up to this entry the data is behind what this node has shown in a later era.
    fn find_at(&self, index: Index) {
        self.found_at.store(index, Ordering::Release);
    }

    /// Until this entry is applied, the region is in an older era than before this start.
    pub(crate) fn found_at(&self) -> Index {
        self.found_at.load(Ordering::Acquire)
    }

    /// Whether the data is in the era again that this node was in before it started.
    pub(crate) fn is_found(&self) -> bool {
        self.found_at() <= self.applied.load(Ordering::Acquire)
    }

    /// What this node answers in this era is of this epoch, or of a later one.
    pub(crate) fn raise_epoch(&self, era: Era, epoch: Epoch) {
        if self.answering.load().epoch(era) < epoch {
            self.answering.rcu(|now| now.raised(era, epoch));
        }
    }

    /// The epoch, of this moment, of an answer to what was asked for under these rules.
    pub(crate) fn answers_in(&self, asked: Rules) -> Epoch {
        asked.epoch.max(self.answering.load().epoch(asked.era))
    }

    /// The raft loop publishes.
    pub(crate) fn publish(&self, status: &Status, first: Index, asleep: bool, closed: bool) {
        self.closed.store(closed, Ordering::Release);
        self.asleep.store(asleep, Ordering::Relaxed);
        self.leader.store(status.leader.map_or(0, |leader| leader.0), Ordering::Relaxed);
        self.leads.store(status.role == Role::Leader, Ordering::Relaxed);
        self.term.store(status.term, Ordering::Relaxed);
        self.publish_commit(status.commit);
        self.applied.store(status.applied, Ordering::Release);
        self.last.store(status.last, Ordering::Relaxed);
        self.first.store(first, Ordering::Relaxed);
        let active = status.members.iter().filter(|(_, _, active)| *active).count();
        self.voters_active.store(active as u64, Ordering::Relaxed);
    }

    /// Entries up to this one are committed. It is published on its own before anybody else can be told.
    pub(crate) fn publish_commit(&self, commit: Index) {
        self.commit.store(commit, Ordering::Release);
    }

    /// A round of reads that began at `began` or later has been confirmed.
    pub(crate) fn confirmed(&self, began: Moment, released: Released, lease: Option<Duration>) {
        let mut reads = self.reads.lock();
        reads.fresh_at = reads.fresh_at.max(Some(began));
        if let (Some(term), Some(length)) = (released.led_in, lease) {
            reads.lease.confirmed(term, began + length);
        }
    }

    /// The leadership of this term is about to be handed over, or the region to be closed in it.
    pub(crate) fn bar_lease(&self, term: Term) {
        self.reads.lock().lease.hands_over(term);
    }

    /// In this term an entry is about to be proposed that ends the region's era.
    pub(crate) fn bar_lease_until_next_era(&self, term: Term) {
        self.reads.lock().lease.marks(term);
    }

    /// How much longer this node may serve linearizable reads by itself.
    pub(crate) fn lease(&self, now: Moment) -> Option<Duration> {
        // Taken first: what is published after it can only make the lease void.
        let lease = self.reads.lock().lease;
        let leads_in = (self.leads() && !self.is_closed()).then(|| self.term());
        let commit = self.commit.load(Ordering::Acquire);
        let applied = self.applied.load(Ordering::Acquire);
        lease.until(Standing { leads_in, commit, applied })?.after(now)
    }

    /// What this node's data may miss is no older than this; `None` if that is not known.
    pub(crate) fn age(&self, now: Moment) -> Option<Duration> {
        self.reads.lock().fresh_at.map(|fresh_at| now.after(fresh_at).unwrap_or_default())
    }

    /// Whether to ask for a round now, so that the next read finds this node's data confirmed: not more often than each
    /// `interval`.
    pub(crate) fn asks(&self, now: Moment, interval: Duration) -> bool {
        let mut reads = self.reads.lock();
        let asked = reads.asked_at.is_some_and(|asked| now.after(asked).is_none_or(|ago| ago < interval));
        if !asked {
            reads.asked_at = Some(now);
        }
        !asked
    }

    /// Who leads, as far as is known here.
    pub(crate) fn leader(&self) -> Option<NodeId> {
        Some(self.leader.load(Ordering::Relaxed)).filter(|leader| *leader != 0).map(NodeId)
    }

    /// Whether this node leads.
    pub(crate) fn leads(&self) -> bool {
        self.leads.load(Ordering::Relaxed)
    }

    pub(crate) fn term(&self) -> u64 {
        self.term.load(Ordering::Relaxed)
    }

    pub(crate) fn commit(&self) -> Index {
        self.commit.load(Ordering::Relaxed)
    }

    pub(crate) fn applied(&self) -> Index {
        self.applied.load(Ordering::Relaxed)
    }

    /// Whether this replica sleeps, for want of anything to do.
    pub(crate) fn asleep(&self) -> bool {
        self.asleep.load(Ordering::Relaxed)
    }

    /// Whether the region's own log has closed it: nothing of it is to be served any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Entries in the log.
    pub(crate) fn log_entries(&self) -> u64 {
        (self.last.load(Ordering::Relaxed) + 1).saturating_sub(self.first.load(Ordering::Relaxed))
    }

    /// On the leader: voters heard from lately, itself included.
    pub(crate) fn voters_active(&self) -> u64 {
        self.voters_active.load(Ordering::Relaxed)
    }
}

/// All regions of this node. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Regions {
    views: Arc<ArcSwap<BTreeMap<RegionId, Arc<RegionView>>>>,
    /// The node's memory for requests, and how much of it one namespace may take.
    budget: Budget,
    namespace_bytes_max: usize,
}

impl Regions {
    /// None yet; each that comes may take so much of `budget`.
    pub(crate) fn new(budget: Budget, namespace_bytes_max: usize) -> Self {
        Self { views: Arc::default(), budget, namespace_bytes_max }
    }

    /// What a namespace's requests may take: of one that this node does not hold (yet), what the node has.
    pub(crate) fn budget(&self, region: RegionId) -> Budget {
        self.views.load().get(&region).map_or(&self.budget, |view| &view.budget).clone()
    }

    /// One region, if this node holds it.
    pub(crate) fn get(&self, region: RegionId) -> Option<Arc<RegionView>> {
        self.views.load().get(&region).cloned()
    }

    /// All of them.
    pub(crate) fn all(&self) -> Arc<BTreeMap<RegionId, Arc<RegionView>>> {
        self.views.load_full()
    }

    /// Adds a region; only the raft loop does. From here on it is asked.
    pub(crate) fn insert(&self, region: RegionId, before: &Before) -> Arc<RegionView> {
        let view = Arc::new(RegionView::new(self.budget.part(self.namespace_bytes_max)));
        view.find_at(before.found_at);
        for (era, epoch) in &before.epochs {
            view.raise_epoch(*era, *epoch);
        }
        let mut all = BTreeMap::clone(&self.views.load());
        all.insert(region, view.clone());
        self.views.store(Arc::new(all));
        view
    }

    /// Removes a region; only the raft loop does.
    pub(crate) fn remove(&self, region: RegionId) {
        let mut all = BTreeMap::clone(&self.views.load());
        all.remove(&region);
        self.views.store(Arc::new(all));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERM: Term = 3;

    fn leading(commit: Index, applied: Index) -> Status {
        Status {
            role: Role::Leader,
            term: TERM,
            leader: Some(NodeId(1)),
            commit,
            applied,
            last: commit,
            members: Vec::new(),
        }
    }

    /// A follower that has applied an entry shows it to its readers before the leader need have. Whoever then reads at the
    /// leader must not find what was there before.
    #[test]
    fn a_lease_serves_nothing_while_an_entry_is_committed_and_not_applied() {
        let view = RegionView::new(Budget::new(1 << 20));
        let now = Moment::now();
        let serves = || view.lease(now).is_some();
        view.publish(&leading(5, 5), 1, false, false);
        assert!(!serves(), "nothing was confirmed");
        view.confirmed(now, Released { led_in: Some(TERM) }, Some(Duration::from_secs(10)));
        assert!(serves());
        view.publish_commit(6);
        assert!(!serves(), "known to be committed, and about to be told to others");
        view.publish(&leading(6, 5), 1, false, false);
        assert!(!serves(), "committed and not applied");
        view.publish(&leading(6, 6), 1, false, false);
        assert!(serves());
    }

    /// The successor of a hand-over waits for no lease, whatever eras begin in the meantime.
    #[test]
    fn an_era_brings_the_lease_back_that_its_marker_took_and_no_other() {
        let view = RegionView::new(Budget::new(1 << 20));
        let now = Moment::now();
        view.publish(&leading(5, 5), 1, false, false);
        let leases = || {
            view.confirmed(now, Released { led_in: Some(TERM) }, Some(Duration::from_secs(10)));
            view.lease(now).is_some()
        };
        assert!(leases());
        view.bar_lease_until_next_era(TERM);
        assert!(!leases());
        view.set_mode(&Region::new(Mode::Strong));
        assert!(leases());
        view.bar_lease_until_next_era(TERM);
        view.bar_lease(TERM);
        view.set_mode(&Region::new(Mode::Strong));
        assert!(!leases());
    }

    /// An answer that comes after its era has ended is of the era that it was asked for in.
    #[test]
    fn an_answer_carries_an_epoch_and_a_mode_of_one_era() {
        use rdb_core::switch::{Boundary, Marker, SwitchId};
        let view = RegionView::new(Budget::new(1 << 20));
        let mut region = Region::new(Mode::Strong);
        let strong = |epoch| Rules { era: Era(1), mode: Mode::Strong, epoch: Epoch(epoch) };
        let eventual = |epoch| Rules { era: Era(2), mode: Mode::Eventual, epoch: Epoch(epoch) };
        assert_eq!((view.rules(), view.answers_in(strong(1))), (None, Epoch(1)));
        view.set_mode(&region);
        view.raise_epoch(Era(1), Epoch(2));
        assert_eq!(view.answers_in(strong(1)), Epoch(2), "a switch was called off meanwhile");
        let (switch, boundary) = (SwitchId(2), Boundary::default());
        region.enter(&Marker { switch, epoch: Epoch(3), era: Era(2), mode: Mode::Eventual, boundary });
        // The gate knows of the next era first, and of a switch within it that was called off.
        view.raise_epoch(Era(2), Epoch(4));
        view.raise_epoch(Era(2), Epoch(3));
        assert_eq!(view.rules(), Some(strong(2)));
        view.set_mode(&region);
        assert_eq!(view.rules(), Some(eventual(4)));
        assert_eq!(view.answers_in(eventual(3)), Epoch(4));
        assert_eq!(view.answers_in(strong(1)), Epoch(2), "others were answered in it before the era ended");
        view.set_mode(&region);
        assert_eq!(view.rules(), Some(eventual(4)), "the same mode, shown again");
    }
}

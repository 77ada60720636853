//! One region's replica on this node: its group, and what the raft loop must remember about it between turns.

use crate::applier;
use crate::regions::RegionView;
use crate::snapshots::Arrived;
use crate::waiter::{ReadWaiter, WriteWaiter};
use rdb_core::apply::State;
use rdb_core::ids::{Index, NamespaceId, NodeId, Term};
use rdb_core::raft::{Group, Role, Status};
use rdb_storage::RegionLog;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Ticks between attempts of the preferred leader to lead a region that never had a leader.
const FIRST_CAMPAIGN_TICKS: u64 = 3;

/// Entries that a successor may lack when the leadership is handed to it: while it gets them, writes wait.
const HAND_OVER_LAG_MAX: Index = 64;
/// A member that catches up after a snapshot and confirms nothing for so long is given up.
const STANDSTILL_MAX: Duration = Duration::from_secs(30);
/// A member that answers may catch up from a log so many times as long as one that does not.
const LOG_BYTES_FACTOR_ACTIVE: u64 = 4;

/// How long a region's log may become for the sake of members that lag.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LogLimits {
    /// In bytes, for a member that is away.
    pub(crate) bytes_max: u64,
    /// In time.
    pub(crate) absence_max: Duration,
    /// How far behind a member may be that counts as caught up.
    pub(crate) keep_entries: u64,
}

/// A replica.
pub(crate) struct Peer {
    pub(crate) group: Group<RegionLog, WriteWaiter, ReadWaiter>,
    pub(crate) namespace: NamespaceId,
    pub(crate) view: Arc<RegionView>,
    /// Log writes handed out and not yet reported.
    pub(crate) writes_in_flight: usize,
    /// Committed bytes handed to the applier and not yet applied, by the last index of each task.
    pub(crate) applying: std::collections::VecDeque<(Index, usize)>,
    pub(crate) applying_bytes: usize,
    /// The log may be dropped up to here once the data is durable up to there.
    pub(crate) truncate_to: Index,
    /// The node that should lead the region; `None` for the meta region, which any may lead.
    pub(crate) preferred: Option<NodeId>,
    /// Whether that was changed a moment ago: somebody waits for it.
    pub(crate) move_asked: bool,
    node: NodeId,
    /// Snapshots that are being sent, each of a term, and from where on their receivers will need the log.
    pub(crate) sending: BTreeMap<NodeId, (Term, Index)>,
    /// Members that have taken in a snapshot and catch up from there: how far they were, and since when.
    pub(crate) catching_up: BTreeMap<NodeId, (Index, Instant)>,
    /// Since when this node leads, or has tried in vain to hand the leadership over.
    led_since: Option<Instant>,
    /// A snapshot that has come.
    pub(crate) arrived: Option<Arrived>,
    /// The number of the write that follows a snapshot that is being taken in, and who waits for it.
    pub(crate) installing: Option<(u64, oneshot::Sender<Result<(), String>>)>,
    /// The machine of the data that a snapshot has replaced, until the log follows.
    pub(crate) installed: Option<(Box<applier::Machine>, State)>,
    ticks: u64,
}

impl Peer {
    pub(crate) fn new(
        mut group: Group<RegionLog, WriteWaiter, ReadWaiter>,
        namespace: NamespaceId,
        view: Arc<RegionView>,
        state: &State,
        (node, preferred): (NodeId, Option<NodeId>),
    ) -> Self {
        if state.closed {
            group.close();
        }
        Self {
            group,
            namespace,
            view,
            writes_in_flight: 0,
            applying: std::collections::VecDeque::new(),
            applying_bytes: 0,
            truncate_to: state.truncate_to,
            preferred,
            move_asked: false,
            node,
            sending: BTreeMap::new(),
            catching_up: BTreeMap::new(),
            led_since: None,
            arrived: None,
            installing: None,
            installed: None,
            ticks: 0,
        }
    }

    /// A tick of time has passed. A new region need not wait for an election timeout: the member that should lead it
    /// stands at once, and again while the others have not made the region yet and drop its messages.
    pub(crate) fn tick(&mut self) {
        self.group.tick();
        let status = self.group.status();
        if status.role == Role::Leader {
            self.led_since.get_or_insert_with(Instant::now);
        } else {
            self.led_since = None;
        }
        // A candidate's votes may be on their way, slowly, from slow disks: standing anew would throw them away.
        let never_led = status.role == Role::Follower && status.leader.is_none() && status.last == 0;
        if self.preferred == Some(self.node) && never_led && self.ticks.is_multiple_of(FIRST_CAMPAIGN_TICKS) {
            self.group.campaign();
        }
        self.ticks += 1;
    }

    /// Entries up to `index` are applied, and whether one of them or before them has closed the region.
    pub(crate) fn applied(&mut self, index: Index, closed: bool) {
        if closed {
            self.group.close();
        }
        while let Some((_, bytes)) = self.applying.pop_front_if(|(last, _)| *last <= index) {
            self.applying_bytes -= bytes;
        }
        self.group.applied(index);
    }

    /// The region's namespace is being deleted: if this node leads the region, the region's log is to say so. To be called
    /// again and again, since the entry may be lost with the leadership.
    pub(crate) fn close(&mut self) {
        if self.group.needs_closing() {
            // As soon as the entry is under way others may act on it, before this node has applied it.
            self.view.bar_lease(self.group.status().term);
            self.group.propose_close();
        }
    }

    /// How far the leader may let everyone drop the log: what all members have confirmed, unless that is too far back for
    /// one that is away; its data then comes by a snapshot. Never past what the receiver of a snapshot will need.
    pub(crate) fn droppable(
        &mut self,
        limits: &LogLimits,
        silence: impl Fn(NodeId) -> Option<Duration>,
    ) -> Index {
        let status = self.group.status();
        self.watch_catching_up(&status, limits);
        let bytes = self.group.log_bytes();
        let needed = status.members.iter().filter_map(|(node, confirmed, active)| {
            let away = silence(*node).is_none_or(|silence| limits.absence_max < silence);
            let bytes_max =
                if *active { LOG_BYTES_FACTOR_ACTIVE * limits.bytes_max } else { limits.bytes_max };
            let catches_up = self.catching_up.contains_key(node);
            let kept_for = !away && bytes <= bytes_max || *confirmed == status.applied || catches_up;
            kept_for.then_some(*confirmed)
        });
        let needed = needed.chain(self.sending.values().map(|(_, index)| *index));
        needed.min().unwrap_or(status.applied).min(status.applied)
    }

    /// A member that has just taken in a snapshot has the log since then before it: were that dropped, it would need another
    /// snapshot, and so on for ever. It is given up when it stands still.
    fn watch_catching_up(&mut self, status: &Status, limits: &LogLimits) {
        let confirmed: BTreeMap<NodeId, Index> =
            status.members.iter().map(|(node, confirmed, _)| (*node, *confirmed)).collect();
        self.catching_up.retain(|node, (before, since)| {
            let now = confirmed.get(node).copied().unwrap_or_default();
            if *before < now {
                (*before, *since) = (now, Instant::now());
            }
            now + limits.keep_entries < status.applied && since.elapsed() < STANDSTILL_MAX
        });
    }

    /// What became of a snapshot that was sent in `term`.
    pub(crate) fn snapshot_sent(&mut self, node: NodeId, term: Term, taken: bool) {
        let pinned = self.sending.get(&node).copied().filter(|(of, _)| *of == term);
        if pinned.is_some() {
            self.sending.remove(&node);
        }
        if self.group.status().term != term {
            return;
        }
        if let Some((_, index)) = pinned.filter(|_| taken) {
            self.catching_up.insert(node, (index, Instant::now()));
        }
        self.group.snapshot_sent(node, taken);
    }

    /// The member that should lead instead of this leader, if it could at once: it has all that the leader has, or nearly.
    pub(crate) fn better_leader(&self) -> Option<NodeId> {
        let preferred = self.preferred.filter(|preferred| *preferred != self.node)?;
        let status = self.group.status();
        let ready = |(node, confirmed, _): &(NodeId, Index, bool)| {
            *node == preferred && status.last <= *confirmed + HAND_OVER_LAG_MAX
        };
        (status.role == Role::Leader && status.members.iter().any(ready)).then_some(preferred)
    }

    /// For how long this node leads; less where it has tried in vain to hand over. Nobody hands over right after a change:
    /// the node that should lead may just have given the region away, since it is about to stop.
    pub(crate) fn has_led(&self) -> Duration {
        self.led_since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Hands the leadership over. From now on the lease is void: the successor need not wait for its end.
    pub(crate) fn hand_over(&mut self, successor: NodeId) {
        self.led_since = Some(Instant::now());
        self.move_asked = false;
        self.view.bar_lease(self.group.status().term);
        self.group.transfer_leader(successor);
    }

    /// The member to which the leadership is best handed: heard from lately, and the furthest along.
    pub(crate) fn successor(&self, this: NodeId) -> Option<NodeId> {
        let status = self.group.status();
        let others = status.members.iter().filter(|(node, _, active)| *node != this && *active);
        others.max_by_key(|(_, matched, _)| *matched).map(|(node, ..)| *node)
    }

    /// Shows everyone else where the region stands.
    pub(crate) fn publish(&self) {
        let (asleep, closed) = (self.group.is_asleep(), self.group.is_closed());
        self.view.publish(&self.group.status(), self.group.first_index(), asleep, closed);
    }
}

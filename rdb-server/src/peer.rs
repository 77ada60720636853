//! One region's replica on this node: its group, and what the raft loop must remember about it between turns.

use crate::applier;
use crate::backlog::Backlog;
use crate::regions::RegionView;
use crate::snapshots::Arrived;
use crate::waiter::{ReadWaiter, WriteWaiter};
use fail::fail_point;
use rdb_core::apply::State;
use rdb_core::ids::{Index, NamespaceId, NodeId, Term};
use rdb_core::raft::{Group, Role, Status};
use rdb_core::switch::{self, Marker};
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
/// What a region's log keeps that nobody is known to need: far less than the log's memtable, so that with few busy regions most
/// entries never come to a table file.
const KEPT_BYTES_MAX: u64 = 16 << 20;

/// How long a region's log may become for the sake of members that lag.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LogLimits {
    /// In bytes, for a member that is away.
    pub(crate) bytes_max: u64,
    /// In time.
    pub(crate) absence_max: Duration,
    /// That stay though nobody is known to need them.
    pub(crate) keep_entries: u64,
}

impl LogLimits {
    /// How many entries stay that nobody is known to need, for short absences, of a log of so many: fewer where they are large.
    fn keep(&self, log_bytes: u64, log_entries: u64) -> u64 {
        let mean_bytes = (log_bytes / log_entries.max(1)).max(1);
        self.keep_entries.min(KEPT_BYTES_MAX / mean_bytes)
    }
}

/// A replica.
pub(crate) struct Peer {
    pub(crate) group: Group<RegionLog, WriteWaiter, ReadWaiter>,
    pub(crate) namespace: NamespaceId,
    pub(crate) view: Arc<RegionView>,
    /// Log writes handed out and not yet reported.
    pub(crate) writes_in_flight: usize,
    /// What was handed to the log writer and to the applier and is not done.
    pub(crate) backlog: Backlog,
    /// The log may be dropped up to here once the data is durable up to there.
    pub(crate) truncate_to: Index,
    /// The region's mode, as its own log has it.
    pub(crate) mode: switch::Region,
    /// Whether the region's next era began without this node, so that it waits for a snapshot.
    pub(crate) replace: bool,
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
        backlog: Backlog,
        (state, mode): (&State, switch::Region),
        (node, preferred): (NodeId, Option<NodeId>),
    ) -> Self {
        group.enter(mode.era());
        if state.closed {
            group.close();
        }
        Self {
            group,
            namespace,
            view,
            writes_in_flight: 0,
            backlog,
            truncate_to: state.truncate_to,
            mode,
            replace: false,
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
        self.backlog.applied(index);
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

    /// The catalog wants the region in the era of `marker`: if it is in the one before, and this node leads it, its log is to say
    /// so. To be called again and again, since the entry may be lost with the leadership.
    pub(crate) fn mark(&mut self, marker: &Marker) {
        if marker.era.0 == self.mode.era().0 + 1 && self.group.needs_marker() {
            // As soon as the entry is under way others may apply it, and acknowledge what this node would not see.
            self.view.bar_lease_until_next_era(self.group.status().term);
            fail_point!("marker-before-propose");
            self.group.propose_marker(marker);
        }
    }

    /// The region's log has put it into this mode.
    pub(crate) fn entered(&mut self, mode: switch::Region) {
        self.group.enter(mode.era());
        self.mode = mode;
    }

    /// How far the leader may let everyone drop the log: what all members have confirmed, unless that is too far back for
    /// one that is away; its data then comes by a snapshot. Never past what the receiver of a snapshot will need.
    pub(crate) fn droppable(&mut self, limits: &LogLimits, absence: impl Fn(NodeId) -> Duration) -> Index {
        let status = self.group.status();
        self.watch_catching_up(&status, self.keep_entries(limits));
        let bytes = self.group.log_bytes();
        let needed = status.members.iter().filter_map(|(node, confirmed, active)| {
            let away = limits.absence_max < absence(*node);
            let bytes_max =
                if *active { LOG_BYTES_FACTOR_ACTIVE * limits.bytes_max } else { limits.bytes_max };
            let catches_up = self.catching_up.contains_key(node);
            let kept_for = !away && bytes <= bytes_max || *confirmed == status.applied || catches_up;
            kept_for.then_some(*confirmed)
        });
        let needed = needed.chain(self.sending.values().map(|(_, index)| *index));
        needed.min().unwrap_or(status.applied).min(status.applied)
    }

    /// How many entries stay that nobody is known to need.
    pub(crate) fn keep_entries(&self, limits: &LogLimits) -> u64 {
        let entries = (self.group.status().last + 1).saturating_sub(self.group.first_index());
        limits.keep(self.group.log_bytes(), entries)
    }

    /// A member that has just taken in a snapshot has the log since then before it: were that dropped, it would need another
    /// snapshot, and so on for ever. It is given up when it stands still.
    fn watch_catching_up(&mut self, status: &Status, keep_entries: u64) {
        let confirmed: BTreeMap<NodeId, Index> =
            status.members.iter().map(|(node, confirmed, _)| (*node, *confirmed)).collect();
        self.catching_up.retain(|node, (before, since)| {
            let now = confirmed.get(node).copied().unwrap_or_default();
            if *before < now {
                (*before, *since) = (now, Instant::now());
            }
            now + keep_entries < status.applied && since.elapsed() < STANDSTILL_MAX
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
        let preferred =
            self.preferred.filter(|preferred| *preferred != self.node && !self.is_left_out(*preferred))?;
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

    /// Another member among `nodes` that could lead at once.
    pub(crate) fn ready_successor(&self, nodes: impl Fn(NodeId) -> bool) -> Option<NodeId> {
        self.ready_successors(nodes).first().copied()
    }

    /// All such members; none where this node does not lead.
    pub(crate) fn ready_successors(&self, nodes: impl Fn(NodeId) -> bool) -> Vec<NodeId> {
        let status = self.group.status();
        let ready = |(node, confirmed, active): &&(NodeId, Index, bool)| {
            let close = status.last <= *confirmed + HAND_OVER_LAG_MAX;
            *node != self.node && *active && close && nodes(*node) && !self.is_left_out(*node)
        };
        let leads = status.role == Role::Leader;
        status.members.iter().filter(|_| leads).filter(ready).map(|(node, ..)| *node).collect()
    }

    /// The member to which the leadership is best handed: heard from lately, and the furthest along.
    pub(crate) fn successor(&self, this: NodeId) -> Option<NodeId> {
        let status = self.group.status();
        let others = status.members.iter();
        let others = others.filter(|(node, _, active)| *node != this && *active && !self.is_left_out(*node));
        others.max_by_key(|(_, matched, _)| *matched).map(|(node, ..)| *node)
    }

    /// Whether this era began without a node: it may still wait for the snapshot that makes it one of the members again, and cannot
    /// lead until then.
    fn is_left_out(&self, node: NodeId) -> bool {
        self.mode.boundary(self.mode.era()).is_some_and(|boundary| boundary.excluded.contains(&node))
    }

    /// Shows what is committed, before messages leave by which another node could show it to its readers.
    pub(crate) fn publish_commit(&self) {
        self.view.publish_commit(self.group.commit());
    }

    /// Shows everyone else where the region stands.
    pub(crate) fn publish(&self) {
        let (asleep, closed) = (self.group.is_asleep(), self.group.is_closed());
        self.view.publish(&self.group.status(), self.group.first_index(), asleep, closed);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::backlog::Backlogs;
    use crate::budget::Budget;
    use crate::regions::{Before, Regions};
    use rdb_core::command::Encoded;
    use rdb_core::ids::RegionId;
    use rdb_core::raft::{Boot, Message, MessageType, Options};
    use rdb_core::version::Hlc;
    use rdb_storage::{Engine, EngineOptions, Expected};
    use std::os::unix::fs::PermissionsExt as _;

    const HOUR: Duration = Duration::from_secs(3600);
    const LIMITS: LogLimits = LogLimits { bytes_max: 1000, absence_max: HOUR, keep_entries: 2 };

    /// An empty directory, opened.
    pub(crate) fn engine() -> (tempfile::TempDir, Engine) {
        let private = std::fs::Permissions::from_mode(0o700);
        let directory = tempfile::Builder::new().permissions(private).tempdir().unwrap();
        let expected = Expected { cluster_id: "test".to_owned(), node_id: NodeId(1) };
        let engine = Engine::open(directory.path(), &expected, &EngineOptions::default()).unwrap();
        (directory, engine)
    }

    #[test]
    fn of_large_entries_fewer_are_kept() {
        let limits = LogLimits { keep_entries: 1000, ..LIMITS };
        assert_eq!(limits.keep(0, 0), 1000);
        assert_eq!(limits.keep(1000 * 300, 1000), 1000);
        assert_eq!(limits.keep(2000 * (1 << 20), 2000), 16);
        assert_eq!(limits.keep(64 << 20, 1), 0);
    }

    fn settle(peer: &mut Peer) {
        while let Some(effects) = peer.group.take_effects(Hlc(1)) {
            if let Some(write) = effects.write {
                peer.group.persisted(write.number);
            }
            if let Some(last) = effects.apply.and_then(|apply| apply.entries.last().map(|entry| entry.index))
            {
                peer.applied(last, false);
            }
        }
    }

    fn hear(peer: &mut Peer, kind: MessageType, from: u64, index: Index) {
        let mut message = Message { from, to: 1, term: 1, index, ..Message::default() };
        message.set_msg_type(kind);
        peer.group.step(message).unwrap();
        settle(peer);
    }

    /// Node 1 leads in term 1 and has ten entries of 1,000 bytes. Node 2 has them all, node 3 only the first.
    fn leader(engine: &Engine) -> Peer {
        leader_of(engine, 1000)
    }

    /// The same, with entries of so many bytes.
    fn leader_of(engine: &Engine, entry_bytes: usize) -> Peer {
        let boot = Boot::fresh(RegionId::FIRST_USER, NodeId(1), vec![NodeId(1), NodeId(2), NodeId(3)]);
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let log = engine.log().region(boot.region);
        let group = Group::new(Options::default(), boot, log, &logger).unwrap();
        let view = Regions::new(Budget::new(1), 1).insert(RegionId::FIRST_USER, &Before::default());
        let who = (NodeId(1), Some(NodeId(2)));
        let mode = switch::Region::new(switch::Mode::Strong);
        let mut peer =
            Peer::new(group, NamespaceId(7), view, Backlogs::new().region(), (&State::default(), mode), who);
        peer.group.campaign();
        settle(&mut peer);
        hear(&mut peer, MessageType::MsgRequestPreVoteResponse, 2, 0);
        hear(&mut peer, MessageType::MsgRequestVoteResponse, 2, 0);
        hear(&mut peer, MessageType::MsgAppendResponse, 3, 1);
        for index in 1..=10 {
            hear(&mut peer, MessageType::MsgAppendResponse, 2, index);
            let commands = Encoded {
                bytes: vec![7; entry_bytes],
                count: 1,
                stores: true,
                strong_only: false,
                named: false,
            };
            assert!(peer.group.propose(commands, WriteWaiter::new(drop)).is_ok());
            settle(&mut peer);
        }
        hear(&mut peer, MessageType::MsgAppendResponse, 2, 11);
        let status = peer.group.status();
        assert_eq!((status.role, status.term, status.applied), (Role::Leader, 1, 11));
        assert!(LOG_BYTES_FACTOR_ACTIVE * LIMITS.bytes_max < peer.group.log_bytes());
        peer
    }

    fn present(_: NodeId) -> Duration {
        Duration::ZERO
    }

    #[test]
    fn the_log_is_kept_for_a_member_until_it_is_too_long_or_the_member_was_away_too_long() {
        let (_directory, engine) = engine();
        let mut peer = leader(&engine);
        let wide = LogLimits { bytes_max: 1 << 20, ..LIMITS };
        assert_eq!(peer.droppable(&wide, present), 1);
        assert_eq!(peer.droppable(&wide, |_| HOUR / 2), 1);
        assert_eq!(peer.droppable(&wide, |node| if node == NodeId(3) { 2 * HOUR } else { HOUR / 2 }), 11);
        assert_eq!(peer.droppable(&LIMITS, present), 11);
    }

    /// Were the log after a snapshot dropped while its receiver catches up, it would need another one, and so on.
    #[test]
    fn who_has_taken_a_snapshot_in_finds_the_log_after_it() {
        let (_directory, engine) = engine();
        let mut peer = leader(&engine);
        peer.sending.insert(NodeId(3), (1, 6));
        assert_eq!(peer.droppable(&LIMITS, present), 6);
        peer.snapshot_sent(NodeId(3), 1, true);
        assert_eq!(peer.droppable(&LIMITS, present), 1, "what raft-rs knows it to have");
        hear(&mut peer, MessageType::MsgAppendResponse, 3, 6);
        assert_eq!(peer.droppable(&LIMITS, present), 6);
        hear(&mut peer, MessageType::MsgAppendResponse, 3, 9);
        assert_eq!(peer.droppable(&LIMITS, present), 11, "it has caught up");
    }

    /// Of large entries the log keeps less than `log_keep_entries`: who lacks more than is kept has not caught up.
    #[test]
    fn who_has_taken_a_snapshot_in_finds_large_entries_after_it() {
        let (_directory, engine) = engine();
        let mut peer = leader_of(&engine, 6 << 20);
        let limits = LogLimits { keep_entries: 1000, ..LIMITS };
        assert_eq!(peer.keep_entries(&limits), 2);
        peer.sending.insert(NodeId(3), (1, 6));
        peer.snapshot_sent(NodeId(3), 1, true);
        hear(&mut peer, MessageType::MsgAppendResponse, 3, 6);
        assert_eq!(peer.droppable(&limits, present), 6);
        hear(&mut peer, MessageType::MsgAppendResponse, 3, 9);
        assert_eq!(peer.droppable(&limits, present), 11, "it has caught up");
    }

    #[test]
    fn who_stands_still_after_a_snapshot_is_given_up() {
        let (_directory, engine) = engine();
        let mut peer = leader(&engine);
        peer.sending.insert(NodeId(3), (1, 6));
        peer.snapshot_sent(NodeId(3), 1, true);
        let long_ago = Instant::now().checked_sub(2 * STANDSTILL_MAX).unwrap();
        peer.catching_up.insert(NodeId(3), (6, long_ago));
        assert_eq!(peer.droppable(&LIMITS, present), 11);
        // But not while it moves.
        peer.catching_up.insert(NodeId(3), (6, long_ago));
        hear(&mut peer, MessageType::MsgAppendResponse, 3, 7);
        assert_eq!(peer.droppable(&LIMITS, present), 7);
    }

    #[test]
    fn what_became_of_an_earlier_terms_snapshot_says_nothing_of_this_ones() {
        let (_directory, engine) = engine();
        let mut peer = leader(&engine);
        peer.sending.insert(NodeId(3), (1, 6));
        peer.snapshot_sent(NodeId(3), 0, true);
        assert_eq!((peer.sending.len(), peer.catching_up.len()), (1, 0));
        peer.sending.insert(NodeId(3), (0, 6));
        peer.snapshot_sent(NodeId(3), 0, true);
        assert_eq!((peer.sending.len(), peer.catching_up.len()), (0, 0), "it is over, and of no use");
    }

    /// A successor that does not take over is not asked over and over: writes wait each time.
    #[test]
    fn a_hand_over_counts_as_a_new_beginning() {
        let (_directory, engine) = engine();
        let mut peer = leader(&engine);
        peer.tick();
        assert_eq!(peer.better_leader(), Some(NodeId(2)));
        peer.led_since = Instant::now().checked_sub(HOUR);
        peer.move_asked = true;
        peer.hand_over(NodeId(2));
        assert!(peer.has_led() < HOUR / 2 && !peer.move_asked);
        peer.tick();
        assert!(peer.has_led() < HOUR / 2);
    }

    #[test]
    fn a_successor_has_nearly_all_and_is_among_those_asked_for() {
        let (_directory, engine) = engine();
        let mut peer = leader(&engine);
        assert_eq!(peer.ready_successor(|_| true), Some(NodeId(2)));
        assert_eq!(peer.ready_successor(|node| node == NodeId(1)), None, "not this node itself");
        for index in 12..=12 + HAND_OVER_LAG_MAX {
            peer.group.propose_truncation(0);
            settle(&mut peer);
            hear(&mut peer, MessageType::MsgAppendResponse, 3, index);
        }
        assert_eq!(peer.ready_successor(|_| true), Some(NodeId(3)));
        assert_eq!(peer.ready_successor(|node| node == NodeId(2)), None, "it lacks too much");
    }
}

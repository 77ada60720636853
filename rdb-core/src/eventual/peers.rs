//! What the other members of a region have said that they have, and what is to be sent to them.
//!
//! Each node sends its own writes to each peer, in order. What a peer lacks of a third node's writes is sent on by
//! whoever has it, if that node is not heard, or the peer does not come forward with it: so the survivors have all that
//! one of them has.

use super::origin_log::OriginLogs;
use super::vector::{Origin, Seq, Vector};
use crate::ids::{Era, NodeId};
use crate::version::Hlc;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// How long a peer may stay where it is with a third node's writes before they are sent on to it, although that node is
/// heard.
pub const FORWARD_AFTER_MS: u64 = 500;

/// How much may be under way to a peer: enough for a disk that syncs slowly, and little enough for many peers.
pub const UNDER_WAY_BYTES_MAX: u64 = 4 << 20;

/// What a member says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Its era. Nothing else in a report means anything in another one.
    pub era: Era,
    /// What it has synced.
    pub synced: Vector,
    /// What it has applied.
    pub applied: Vector,
    /// What it showed to the writers of all that it had not applied: see [`super::machine::Machine::shown`].
    pub shown: Vector,
    /// All its writes that are not in `applied` are stamped above this.
    pub promise: Hlc,
}

/// A peer.
#[derive(Debug, Default)]
struct Peer {
    report: Option<Report>,
    /// When it was last heard, by this node's monotonic clock.
    heard_ms: u64,
    /// What was sent.
    sent: Vector,
    /// What was sent and not yet confirmed, with its size.
    under_way: VecDeque<(Origin, Seq, u64)>,
    /// Where it stays with the writes of an origin, and since when.
    stays: BTreeMap<Origin, (Seq, u64)>,
    /// Whose writes are sent on to it although their node is heard.
    forwarded: BTreeSet<Origin>,
    /// Whose writes were sent last.
    last: Option<Origin>,
    /// Whether it was given up, since too much was kept for it.
    given_up: bool,
    /// Whether it lacks what this node's logs have dropped, by its last report: one that came late after a start may say
    /// so, and the next one take it back.
    lacks_dropped: bool,
}

impl Peer {
    fn needs_full_sync(&self) -> bool {
        self.given_up || self.lacks_dropped
    }

    /// What it has synced of this era, if it has said so.
    fn synced_in(&self, era: Era) -> Option<&Vector> {
        self.report.as_ref().filter(|report| report.era == era).map(|report| &report.synced)
    }
}

/// What is to be sent to a peer: the runs of `origin` behind `after`, as many as the message has room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Push {
    /// Whose.
    pub origin: Origin,
    /// Behind which place.
    pub after: Seq,
}

/// The other members of a region.
#[derive(Debug)]
pub struct Peers(BTreeMap<NodeId, Peer>);

impl Peers {
    /// Nobody has said anything yet, and their silence begins now.
    pub fn new(nodes: impl IntoIterator<Item = NodeId>, now_ms: u64) -> Self {
        let silent = |node| (node, Peer { heard_ms: now_ms, ..Peer::default() });
        Self(nodes.into_iter().map(silent).collect())
    }

    /// A peer is there, and has nothing new to say: what it said last still holds.
    pub fn alive(&mut self, node: NodeId, now_ms: u64) {
        if let Some(peer) = self.0.get_mut(&node).filter(|peer| peer.report.is_some()) {
            peer.heard_ms = peer.heard_ms.max(now_ms);
        }
    }

    /// Takes note of what a peer says. Of an earlier report that comes late nothing is lost: what a node has, it keeps.
    pub fn heard(&mut self, node: NodeId, report: &Report, now_ms: u64) {
        let Some(peer) = self.0.get_mut(&node) else { return };
        peer.heard_ms = peer.heard_ms.max(now_ms);
        match &mut peer.report {
            Some(known) if known.era == report.era => {
                known.synced.merge(&report.synced);
                known.applied.merge(&report.applied);
                known.shown.merge(&report.shown);
                known.promise = known.promise.max(report.promise);
            }
            Some(known) if report.era < known.era => return,
            _ => {
                let silent = Peer { heard_ms: peer.heard_ms, ..Peer::default() };
                *peer = Peer { report: Some(report.clone()), ..silent };
            }
        }
        let synced = &report.synced;
        peer.under_way.retain(|(origin, seq, _)| synced.get(*origin) < *seq);
    }

    /// The stream to a peer broke, or it refused something: what was under way is sent again.
    pub fn send_again(&mut self, node: NodeId) {
        let Some(peer) = self.0.get_mut(&node) else { return };
        peer.under_way.clear();
        peer.sent = Vector::default();
    }

    /// What is to be sent to a peer next, if anything. `is_heard` says which nodes this one hears.
    pub fn next_push(
        &mut self,
        node: NodeId,
        logs: &OriginLogs,
        now_ms: u64,
        is_heard: impl Fn(NodeId) -> bool,
    ) -> Option<Push> {
        let peer = self.0.get_mut(&node)?;
        let has = peer.synced_in(logs.era())?.clone();
        let synced = logs.synced_vector();
        peer.stays.retain(|origin, _| has.get(*origin) < synced.get(*origin));
        peer.forwarded.retain(|origin| has.get(*origin) < synced.get(*origin));
        let under_way: u64 = peer.under_way.iter().map(|(_, _, bytes)| bytes).sum();
        peer.lacks_dropped = false;
        let mut wanted = Vec::new();
        for (origin, has, _) in has.behind(&synced) {
            let sent = peer.sent.get(origin);
            let (at, since_ms) = *peer.stays.entry(origin).or_insert((has, now_ms));
            if at < has {
                peer.stays.insert(origin, (has, now_ms));
                // It came further than this node sent it, so somebody else sends.
                if sent < has {
                    peer.forwarded.remove(&origin);
                }
            } else if since_ms.saturating_add(FORWARD_AFTER_MS) <= now_ms {
                peer.forwarded.insert(origin);
            }
            let sends = origin.node == logs.me().node
                || (origin.node != node && !is_heard(origin.node))
                || peer.forwarded.contains(&origin);
            // What is missing in between cannot be sent; what others have written can.
            if has < logs.dropped(origin) {
                peer.lacks_dropped = true;
                continue;
            }
            let after = has.max(sent);
            if sends && after < synced.get(origin) {
                wanted.push(Push { origin, after });
            }
        }
        if peer.given_up || UNDER_WAY_BYTES_MAX <= under_way {
            return None;
        }
        // In turn, so that no origin waits for another one's backlog.
        let next = wanted.iter().find(|push| peer.last < Some(push.origin)).or(wanted.first()).copied();
        peer.last = next.map_or(peer.last, |push| Some(push.origin));
        next
    }

    /// Takes note that runs were sent to a peer, up to `last`.
    pub fn pushed(&mut self, node: NodeId, origin: Origin, last: Seq, bytes: usize) {
        let Some(peer) = self.0.get_mut(&node) else { return };
        peer.sent.raise(origin, last);
        peer.under_way.push_back((origin, last, bytes as u64));
    }

    /// What all members have synced, this node and its `logs` included. Nothing before all of them have said so.
    pub fn stable(&self, logs: &OriginLogs) -> Vector {
        self.common(logs, |_| true)
    }

    /// What all members have synced to which runs are sent. The others will get a full sync.
    pub fn stable_for_truncation(&self, logs: &OriginLogs) -> Vector {
        self.common(logs, |peer| !peer.given_up)
    }

    fn common(&self, logs: &OriginLogs, which: impl Fn(&Peer) -> bool) -> Vector {
        let (mine, nothing) = (logs.synced_vector(), Vector::default());
        let peers = self.0.values().filter(|peer| which(peer));
        Vector::common(
            std::iter::once(&mine).chain(peers.map(|peer| peer.synced_in(logs.era()).unwrap_or(&nothing))),
        )
    }

    /// Makes the logs fit into `cap` bytes again: while what is kept for peers takes more, the one that holds back most
    /// is to get a full sync, and is no longer waited for. Which ones became so now.
    pub fn keep_below(&mut self, cap: u64, logs: &OriginLogs) -> Vec<NodeId> {
        let nothing = Vector::default();
        let mut given_up = Vec::new();
        while cap < logs.bytes_after(&self.stable_for_truncation(logs)) {
            let held_back = |peer: &Peer| logs.bytes_after(peer.synced_in(logs.era()).unwrap_or(&nothing));
            let peers = self.0.iter_mut().filter(|(_, peer)| !peer.given_up);
            let Some((node, peer)) = peers.max_by_key(|(_, peer)| held_back(peer)) else { break };
            peer.given_up = true;
            given_up.push(*node);
        }
        given_up
    }

    /// Which peers need a full sync, ascending. While there are any, no tombstone is purged and no switch begins.
    pub fn need_full_sync(&self) -> Vec<NodeId> {
        self.0.iter().filter(|(_, peer)| peer.needs_full_sync()).map(|(node, _)| *node).collect()
    }

    /// A full sync has brought a peer to `vector`.
    pub fn full_synced(&mut self, node: NodeId, vector: &Vector) {
        let Some(peer) = self.0.get_mut(&node) else { return };
        if let Some(report) = &mut peer.report {
            report.synced.merge(vector);
            (peer.given_up, peer.lacks_dropped) = (false, false);
        }
    }

    /// What each peer last said and when it was last heard, by node.
    pub fn reports(&self) -> impl Iterator<Item = (NodeId, Option<&Report>, u64)> + Clone {
        self.0.iter().map(|(node, peer)| (*node, peer.report.as_ref(), peer.heard_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eventual::origin_log::Held;
    use crate::eventual::vector::tests::origin;

    const ERA: Era = Era(1);
    const TWO: NodeId = NodeId(2);

    fn report(synced: &[(Origin, Seq)]) -> Report {
        let synced: Vector = synced.iter().copied().collect();
        Report { era: ERA, applied: synced.clone(), shown: synced.clone(), synced, promise: Hlc(0) }
    }

    fn logs(held: &[(Origin, Seq, u64)]) -> OriginLogs {
        let mut logs = OriginLogs::begin(ERA, origin(1, 1));
        for (origin, last, bytes) in held {
            for after in 0..*last {
                logs.log(&Held { origin: *origin, after, last: after + 1, bytes: *bytes });
            }
            logs.synced(*origin, *last);
        }
        logs
    }

    #[test]
    fn a_node_sends_its_own_writes_and_a_silent_nodes_in_order_and_in_turn() {
        let (one, three) = (origin(1, 1), origin(3, 1));
        let logs = logs(&[(one, 5, 10), (three, 4, 10)]);
        let mut peers = Peers::new([TWO, NodeId(3)], 0);
        let next =
            |peers: &mut Peers, three_is_heard: bool| peers.next_push(TWO, &logs, 0, |_| three_is_heard);
        assert_eq!(next(&mut peers, false), None, "nothing is known of what it has");
        peers.heard(TWO, &report(&[(one, 2)]), 0);
        assert_eq!(next(&mut peers, true), Some(Push { origin: one, after: 2 }));
        peers.pushed(TWO, one, 4, 10);
        assert_eq!(next(&mut peers, false), Some(Push { origin: three, after: 0 }));
        assert_eq!(next(&mut peers, false), Some(Push { origin: one, after: 4 }));
        peers.pushed(TWO, one, 5, 10);
        assert_eq!(next(&mut peers, true), None, "node 3 sends its writes itself");
        peers.send_again(TWO);
        assert_eq!(next(&mut peers, true), Some(Push { origin: one, after: 2 }));
        peers.heard(TWO, &report(&[(one, 5), (three, 4)]), 0);
        assert_eq!(next(&mut peers, false), None);
    }

    /// As where nodes 2 and 3 do not hear each other, and both hear this one.
    #[test]
    fn what_a_peer_does_not_come_forward_with_is_sent_on_until_somebody_else_sends_it() {
        let three = origin(3, 1);
        let logs = logs(&[(three, 9, 10)]);
        let mut peers = Peers::new([TWO, NodeId(3)], 0);
        peers.heard(TWO, &report(&[(three, 1)]), 0);
        let next =
            |peers: &mut Peers, now_ms| peers.next_push(TWO, &logs, now_ms, |_| true).map(|push| push.after);
        assert_eq!(next(&mut peers, 100), None);
        assert_eq!(next(&mut peers, 599), None);
        assert_eq!(next(&mut peers, 600), Some(1));
        peers.pushed(TWO, three, 4, 10);
        peers.heard(TWO, &report(&[(three, 4)]), 610);
        assert_eq!(
            next(&mut peers, 610),
            Some(4),
            "it came forward with what this node sent, so that goes on"
        );
        peers.heard(TWO, &report(&[(three, 6)]), 620);
        assert_eq!(next(&mut peers, 620), None, "node 3 is there again");
        assert_eq!(next(&mut peers, 1120), Some(6));
    }

    #[test]
    fn only_so_much_is_under_way_to_a_peer() {
        let one = origin(1, 1);
        let logs = logs(&[(one, 9, 10)]);
        let mut peers = Peers::new([TWO], 0);
        peers.heard(TWO, &report(&[]), 0);
        peers.pushed(TWO, one, 4, usize::try_from(UNDER_WAY_BYTES_MAX).unwrap());
        assert_eq!(peers.next_push(TWO, &logs, 0, |_| true), None);
        peers.heard(TWO, &report(&[(one, 4)]), 0);
        assert_eq!(peers.next_push(TWO, &logs, 0, |_| true), Some(Push { origin: one, after: 4 }));
    }

    #[test]
    fn a_log_past_its_cap_gives_up_the_peer_that_holds_back_most() {
        let (one, three) = (origin(1, 1), origin(3, 1));
        let mut logs = logs(&[(one, 10, 1 << 20), (three, 4, 1 << 20)]);
        let mut peers = Peers::new([TWO, NodeId(3)], 0);
        peers.heard(TWO, &report(&[(one, 3), (three, 2)]), 0);
        peers.heard(NodeId(3), &report(&[(one, 8), (three, 4)]), 0);
        assert_eq!(peers.stable(&logs), report(&[(one, 3), (three, 2)]).synced);
        assert_eq!(peers.keep_below(9 << 20, &logs), []);
        assert_eq!(peers.keep_below(8 << 20, &logs), [TWO]);
        assert_eq!(peers.stable_for_truncation(&logs), report(&[(one, 8), (three, 4)]).synced);
        assert_eq!(peers.stable(&logs), report(&[(one, 3), (three, 2)]).synced, "a tombstone waits for it");
        logs.truncate(&peers.stable_for_truncation(&logs), &logs.synced_vector());
        assert!(logs.bytes() <= 8 << 20);
        assert_eq!((peers.next_push(TWO, &logs, 0, |_| true), peers.need_full_sync()), (None, vec![TWO]));
        peers.full_synced(TWO, &report(&[(one, 9), (three, 4)]).synced);
        assert_eq!(peers.next_push(TWO, &logs, 0, |_| true), Some(Push { origin: one, after: 9 }));
        assert_eq!(peers.need_full_sync(), []);
    }

    /// After a restart nobody remembers who was given up. The log does.
    #[test]
    fn a_peer_that_needs_what_was_dropped_needs_a_full_sync() {
        let one = origin(1, 1);
        let mut logs = logs(&[(one, 9, 10)]);
        logs.truncate(&logs.synced_vector(), &[(one, 5)].into_iter().collect());
        let mut peers = Peers::new([TWO], 0);
        peers.heard(TWO, &report(&[(one, 4)]), 0);
        assert_eq!(peers.next_push(TWO, &logs, 0, |_| true), None);
        assert_eq!(peers.need_full_sync(), [TWO]);
    }

    /// This node has started anew, and of its peers' reports an old one comes first.
    #[test]
    fn an_old_report_after_a_start_gives_nobody_up() {
        let one = origin(1, 1);
        let mut logs = logs(&[(one, 9, 10)]);
        logs.truncate(&logs.synced_vector(), &[(one, 5)].into_iter().collect());
        let mut peers = Peers::new([TWO], 0);
        peers.heard(TWO, &report(&[(one, 4)]), 0);
        assert_eq!((peers.next_push(TWO, &logs, 0, |_| true), peers.need_full_sync()), (None, vec![TWO]));
        assert_eq!(peers.stable_for_truncation(&logs), report(&[(one, 4)]).synced, "it is waited for");
        peers.heard(TWO, &report(&[(one, 7)]), 0);
        assert_eq!(peers.next_push(TWO, &logs, 0, |_| true), Some(Push { origin: one, after: 7 }));
        assert_eq!(peers.need_full_sync(), []);
    }

    #[test]
    fn a_report_of_another_era_says_nothing_of_this_one() {
        let one = origin(1, 1);
        let logs = logs(&[(one, 9, 10)]);
        let mut peers = Peers::new([TWO], 0);
        peers.heard(TWO, &Report { era: Era(0), ..report(&[(one, 9)]) }, 0);
        assert_eq!(peers.next_push(TWO, &logs, 0, |_| true), None);
        peers.heard(TWO, &report(&[]), 0);
        assert_eq!(peers.next_push(TWO, &logs, 0, |_| true), Some(Push { origin: one, after: 0 }));
        assert_eq!(peers.stable(&logs), Vector::default());
        peers.heard(TWO, &Report { era: Era(0), ..report(&[(one, 9)]) }, 0);
        assert_eq!(peers.stable(&logs), Vector::default(), "it came late");
    }
}

//! What the other members of a region have said that they have, and what is to be sent to them.
//!
//! Each node sends its own writes to each peer, in order. What a peer lacks of a third node's writes is sent on by
//! whoever has it, if that node is not heard, or the peer does not come forward with it: so the survivors have all that
//! one of them has.

use super::origin_log::OriginLogs;
use super::vector::{Origin, Seq, Vector};
use crate::coverage::{Branch, reached};
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
    /// Where the copy began that it takes, if it does: what is behind that is kept for it.
    copies_from: Option<Vector>,
}

impl Peer {
    /// Whether it lacks what the logs have dropped, by what it last said: a report that came late after a start may say so,
    /// and the next one take it back.
    fn lacks_dropped(&self, logs: &OriginLogs) -> bool {
        let synced = self.synced_in(logs.era());
        synced.is_some_and(|has| has.behind(&logs.synced_vector()).any(|(of, has, _)| has < logs.dropped(of)))
    }

    /// Behind which vector writes are kept for it, if any are.
    fn waits_from<'a>(&'a self, era: Era, nothing: &'a Vector) -> Option<&'a Vector> {
        match self.given_up {
            true => self.copies_from.as_ref(),
            false => Some(self.synced_in(era).unwrap_or(nothing)),
        }
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

    /// Whether a peer has said what it has of this era.
    pub fn has_told(&self, node: NodeId, era: Era) -> bool {
        self.0.get(&node).is_some_and(|peer| peer.synced_in(era).is_some())
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
        if next.is_some_and(|push| push.origin.node != logs.me().node) {
            reached(Branch::EventualRunSentOn);
        }
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
        let (mine, nothing) = (logs.synced_vector(), Vector::default());
        let synced = self.0.values().map(|peer| peer.synced_in(logs.era()).unwrap_or(&nothing));
        Vector::common(std::iter::once(&mine).chain(synced))
    }

    /// What all members have applied of `era`, of which this one says `own` itself: to more the stamps must not be forgotten. A report of an earlier era tells of writes of
    /// that era: their origins and numbers may be the same.
    pub fn applied_everywhere(&self, own: &Vector, era: Era) -> Vector {
        let nothing = Vector::default();
        let reports = self.0.values().map(|peer| peer.report.as_ref().filter(|report| report.era == era));
        let applied = reports.map(|report| report.map_or(&nothing, |report| &report.applied));
        Vector::common(std::iter::once(own).chain(applied))
    }

    /// What all members have synced to which runs are sent, and what a copy has that is being taken; the others will take one. But no
    /// more than a majority has: a switch may go on without this node, and what nobody else has brought into it is set aside out
    /// of this node's logs.
    pub fn stable_for_truncation(&self, logs: &OriginLogs) -> Vector {
        let (majority, nothing) = (self.on_majority(logs), Vector::default());
        let waits_from = self.0.values().filter_map(|peer| peer.waits_from(logs.era(), &nothing));
        Vector::common(std::iter::once(&majority).chain(waits_from))
    }

    /// What a majority of the members has synced, and this node.
    fn on_majority(&self, logs: &OriginLogs) -> Vector {
        let (mine, nothing) = (logs.synced_vector(), Vector::default());
        let others: Vec<_> =
            self.0.values().map(|peer| peer.synced_in(logs.era()).unwrap_or(&nothing)).collect();
        let on_majority = |(origin, seq): (Origin, Seq)| {
            let mut places: Vec<Seq> = others.iter().map(|has| has.get(origin)).collect();
            places.sort_unstable_by(|a, b| b.cmp(a));
            // With this node it is one more.
            let needed = others.len().div_ceil(2);
            (origin, needed.checked_sub(1).map_or(seq, |last| places[last].min(seq)))
        };
        mine.iter().map(on_majority).collect()
    }

    /// Makes the logs fit into `cap` bytes again: while what is kept for peers takes more, the one that holds back most
    /// is to take a copy, and is no longer waited for. Nobody is where that would not help, since no majority has more. Which ones
    /// became so now.
    pub fn keep_below(&mut self, cap: u64, logs: &OriginLogs) -> Vec<NodeId> {
        let (majority, nothing) = (self.on_majority(logs), Vector::default());
        let mut given_up = Vec::new();
        while cap < logs.bytes_after(&self.stable_for_truncation(logs)) {
            let held_back = |peer: &Peer| {
                let from = peer.waits_from(logs.era(), &nothing).filter(|from| !from.covers(&majority));
                from.map(|from| logs.bytes_after(from))
            };
            let peers = self.0.iter_mut().filter(|(_, peer)| held_back(peer).is_some());
            let Some((node, peer)) = peers.max_by_key(|(_, peer)| held_back(peer)) else { break };
            reached(Branch::EventualPeerGivenUp);
            (peer.given_up, peer.copies_from) = (true, None);
            given_up.push(*node);
        }
        given_up
    }

    /// A peer takes a copy that has at least all up to `vector`: what comes behind it is kept, as long as that fits the cap, so that
    /// it can go on from there.
    pub fn copies(&mut self, node: NodeId, vector: &Vector) {
        if let Some(peer) = self.0.get_mut(&node) {
            peer.copies_from = Some(vector.clone());
        }
    }

    /// Waits again for those that were given up and by now have what the logs have dropped, if what they lack takes no more
    /// than half of `cap`: whoever is near it would be given up again at once. Which ones they are.
    pub fn take_back(&mut self, cap: u64, logs: &OriginLogs) -> Vec<NodeId> {
        let mut taken = Vec::new();
        for (node, peer) in self.0.iter_mut().filter(|(_, peer)| peer.given_up) {
            let Some(synced) = peer.synced_in(logs.era()) else { continue };
            if !peer.lacks_dropped(logs) && logs.bytes_after(synced) <= cap / 2 {
                reached(Branch::EventualPeerTakenBack);
                (peer.given_up, peer.copies_from) = (false, None);
                taken.push(*node);
            }
        }
        taken
    }

    /// Which peers need a copy, since they cannot be served from the logs; ascending. While there are any, no tombstone is purged
    /// and no switch begins.
    pub fn need_copy(&self, logs: &OriginLogs) -> Vec<NodeId> {
        let needs = |peer: &Peer| peer.given_up || peer.lacks_dropped(logs);
        self.0.iter().filter(|(_, peer)| needs(peer)).map(|(node, _)| *node).collect()
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

    #[test]
    fn what_was_applied_in_an_earlier_era_is_not_applied_in_this_one() {
        let one = origin(1, 1);
        let own = Vector::from_iter([(one, 9)]);
        let mut peers = Peers::new([TWO, NodeId(3)], 0);
        peers.heard(TWO, &report(&[(one, 7)]), 0);
        peers.heard(NodeId(3), &report(&[(one, 5)]), 0);
        assert_eq!(peers.applied_everywhere(&own, ERA).get(one), 5);
        assert_eq!(peers.applied_everywhere(&own, Era(ERA.0 + 2)), Vector::default());
        peers.heard(NodeId(3), &Report { era: Era(ERA.0 + 2), ..report(&[(one, 2)]) }, 0);
        assert_eq!(peers.applied_everywhere(&own, ERA), Vector::default(), "nothing is known of it any more");
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
        assert_eq!((peers.next_push(TWO, &logs, 0, |_| true), peers.need_copy(&logs)), (None, vec![TWO]));
        peers.heard(TWO, &report(&[(one, 7), (three, 4)]), 0);
        assert_eq!(peers.take_back(8 << 20, &logs), [], "it lacks what is gone");
        peers.heard(TWO, &report(&[(one, 9), (three, 4)]), 0);
        assert_eq!(peers.take_back(1 << 20, &logs), [], "it would be given up again");
        assert_eq!((peers.take_back(4 << 20, &logs), peers.need_copy(&logs)), (vec![TWO], vec![]));
        assert_eq!(peers.next_push(TWO, &logs, 0, |_| true), Some(Push { origin: one, after: 9 }));
    }

    /// As a node that is cut off from all others: it might be left out by a switch, and must then still have what it wrote.
    #[test]
    fn what_no_majority_has_is_kept_whatever_it_takes() {
        let one = origin(1, 1);
        let logs = logs(&[(one, 10, 1 << 20)]);
        let mut peers = Peers::new([2, 3, 4, 5].map(NodeId), 0);
        peers.heard(TWO, &report(&[(one, 9)]), 0);
        peers.heard(NodeId(3), &report(&[(one, 2)]), 0);
        peers.heard(NodeId(4), &report(&[(one, 1)]), 0);
        assert_eq!(peers.keep_below(1 << 20, &logs), [NodeId(5), NodeId(4)]);
        assert_eq!(peers.stable_for_truncation(&logs), report(&[(one, 2)]).synced);
        peers.heard(NodeId(3), &report(&[(one, 8)]), 0);
        assert_eq!(peers.stable_for_truncation(&logs), report(&[(one, 8)]).synced);
    }

    #[test]
    fn what_comes_behind_a_copy_is_kept_until_that_passes_the_cap_too() {
        let one = origin(1, 1);
        let mut logs = logs(&[(one, 10, 1 << 20)]);
        let mut peers = Peers::new([TWO, NodeId(3)], 0);
        peers.heard(TWO, &report(&[(one, 1)]), 0);
        peers.heard(NodeId(3), &report(&[(one, 13)]), 0);
        assert_eq!(peers.keep_below(4 << 20, &logs), [TWO]);
        peers.copies(TWO, &report(&[(one, 7)]).synced);
        assert_eq!(peers.keep_below(4 << 20, &logs), []);
        assert_eq!(peers.stable_for_truncation(&logs), report(&[(one, 7)]).synced);
        assert_eq!(peers.next_push(TWO, &logs, 0, |_| true), None);
        for after in 10..13 {
            logs.log(&Held { origin: one, after, last: after + 1, bytes: 1 << 20 });
        }
        logs.synced(one, 13);
        assert_eq!(peers.keep_below(4 << 20, &logs), [TWO], "it is too slow");
        assert_eq!(peers.stable_for_truncation(&logs), logs.synced_vector());
    }

    /// After a restart nobody remembers who was given up. The log does.
    #[test]
    fn a_peer_that_needs_what_was_dropped_needs_a_copy() {
        let one = origin(1, 1);
        let mut logs = logs(&[(one, 9, 10)]);
        logs.truncate(&logs.synced_vector(), &[(one, 5)].into_iter().collect());
        let mut peers = Peers::new([TWO], 0);
        peers.heard(TWO, &report(&[(one, 4)]), 0);
        assert_eq!(peers.next_push(TWO, &logs, 0, |_| true), None);
        assert_eq!(peers.need_copy(&logs), [TWO]);
    }

    /// This node has started anew, and of its peers' reports an old one comes first.
    #[test]
    fn an_old_report_after_a_start_gives_nobody_up() {
        let one = origin(1, 1);
        let mut logs = logs(&[(one, 9, 10)]);
        logs.truncate(&logs.synced_vector(), &[(one, 5)].into_iter().collect());
        let mut peers = Peers::new([TWO], 0);
        peers.heard(TWO, &report(&[(one, 4)]), 0);
        assert_eq!((peers.next_push(TWO, &logs, 0, |_| true), peers.need_copy(&logs)), (None, vec![TWO]));
        assert_eq!(peers.stable_for_truncation(&logs), report(&[(one, 4)]).synced, "it is waited for");
        peers.heard(TWO, &report(&[(one, 7)]), 0);
        assert_eq!(peers.next_push(TWO, &logs, 0, |_| true), Some(Push { origin: one, after: 7 }));
        assert_eq!(peers.need_copy(&logs), []);
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

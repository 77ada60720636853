//! Messages that no correct peer sends: each kind is refused, and none makes a group panic.
#![allow(clippy::unwrap_used, reason = "the helpers of a test are not seen as tests")]

use proptest::prelude::*;
use rdb_core::ids::{NodeId, RegionId};
use rdb_core::raft::{Boot, Entry, Group, LogRead, Message, MessageType, Options, Rejected, Role};
use rdb_core::version::Hlc;

struct EmptyDisk;

impl LogRead for EmptyDisk {
    fn read(&self, low: u64, _: u64, _: u64) -> Result<Vec<Entry>, String> {
        Err(format!("entry {low} is not on disk"))
    }
}

type Lone = Group<EmptyDisk, (), ()>;

/// Node 1 of three, whose disks are fast: whatever it writes is synced and applied at once.
fn group() -> Lone {
    let boot = Boot::fresh(RegionId::FIRST_USER, NodeId(1), vec![NodeId(1), NodeId(2), NodeId(3)]);
    Group::new(Options::default(), boot, EmptyDisk, &slog::Logger::root(slog::Discard, slog::o!())).unwrap()
}

fn settle(group: &mut Lone) {
    while let Some(effects) = group.take_effects(Hlc(1)) {
        if let Some(write) = effects.write {
            group.persisted(write.number);
        }
        if let Some(last) = effects.apply.and_then(|apply| apply.entries.last().map(|entry| entry.index)) {
            group.applied(last);
        }
    }
}

fn message(kind: MessageType, from: u64, term: u64) -> Message {
    let mut message = Message { from, to: 1, term, ..Message::default() };
    message.set_msg_type(kind);
    message
}

fn entry(index: u64, term: u64) -> Entry {
    Entry { index, term, ..Entry::default() }
}

fn stepped(group: &mut Lone, message: Message) {
    group.step(message).unwrap();
    settle(group);
}

/// Leads in term 1; nodes 2 and 3 have confirmed entries 1 to 3, and entry 4 is its own.
fn leader() -> Lone {
    let mut group = group();
    group.campaign();
    settle(&mut group);
    stepped(&mut group, message(MessageType::MsgRequestPreVoteResponse, 2, 1));
    stepped(&mut group, message(MessageType::MsgRequestVoteResponse, 2, 1));
    for index in 1..=3 {
        for peer in [2, 3] {
            stepped(&mut group, Message { index, ..message(MessageType::MsgAppendResponse, peer, 1) });
        }
        group.propose_truncation(0);
        settle(&mut group);
    }
    let status = group.status();
    assert_eq!((status.role, status.last, status.commit), (Role::Leader, 4, 3));
    group
}

/// Follows node 2 in term 2, with entries 1 to 3 of which two are committed.
fn follower() -> Lone {
    let mut group = group();
    let entries = vec![entry(1, 1), entry(2, 1), entry(3, 2)];
    stepped(&mut group, Message { entries, commit: 2, ..message(MessageType::MsgAppend, 2, 2) });
    assert_eq!((group.status().last, group.status().commit), (3, 2));
    group
}

fn candidate() -> Lone {
    let mut group = follower();
    (0..40).for_each(|_| group.tick());
    group.campaign();
    settle(&mut group);
    stepped(&mut group, message(MessageType::MsgRequestPreVoteResponse, 3, 3));
    assert_eq!(group.status().role, Role::Candidate);
    group
}

#[track_caller]
fn refused(mut group: Lone, message: Message, expected: impl Fn(&Rejected) -> bool) {
    let before = group.status();
    let shown = format!("{message:?}");
    let rejected = group.step(message).expect_err("it should be refused");
    assert!(expected(&rejected), "{rejected:?} for {shown}");
    settle(&mut group);
    assert_eq!(group.status(), before, "a refused message changes nothing");
}

fn is_type(rejected: &Rejected) -> bool {
    matches!(rejected, Rejected::Type(_))
}

fn is_route(rejected: &Rejected) -> bool {
    matches!(rejected, Rejected::Route { .. })
}

fn is_contradiction(rejected: &Rejected) -> bool {
    matches!(rejected, Rejected::Contradiction(_))
}

fn is_log(rejected: &Rejected) -> bool {
    matches!(rejected, Rejected::Log { .. })
}

#[test]
fn types_that_do_not_travel_are_refused() {
    for kind in [
        MessageType::MsgHup,
        MessageType::MsgBeat,
        MessageType::MsgPropose,
        MessageType::MsgSnapshot,
        MessageType::MsgUnreachable,
        MessageType::MsgSnapStatus,
        MessageType::MsgCheckQuorum,
        MessageType::MsgTransferLeader,
    ] {
        refused(leader(), message(kind, 2, 1), is_type);
        refused(follower(), message(kind, 2, 2), is_type);
    }
    refused(follower(), Message { msg_type: 99, ..message(MessageType::MsgHeartbeat, 2, 2) }, is_type);
}

/// raft-rs takes the context of a round out of the first entry, whether or not there is one.
#[test]
fn rounds_of_reads_without_one_context_are_refused() {
    let entry = |bytes: usize| Entry { data: vec![7; bytes], ..Entry::default() };
    for entries in [vec![], vec![entry(31)], vec![entry(33)], vec![entry(32), entry(32)]] {
        // A question is of no term, and an answer of the follower's.
        let asked = Message { entries: entries.clone(), ..message(MessageType::MsgReadIndex, 2, 0) };
        refused(leader(), asked, is_contradiction);
        let answer = Message { entries, ..message(MessageType::MsgReadIndexResp, 2, 2) };
        refused(follower(), answer, is_contradiction);
    }
    let asked = Message { entries: vec![entry(32)], ..message(MessageType::MsgReadIndex, 2, 1) };
    refused(leader(), asked, is_contradiction);
}

#[test]
fn messages_that_went_astray_are_refused() {
    let heartbeat = message(MessageType::MsgHeartbeat, 2, 2);
    refused(follower(), Message { to: 3, ..heartbeat.clone() }, is_route);
    refused(follower(), Message { from: 1, ..heartbeat.clone() }, is_route);
    refused(follower(), Message { from: 9, ..heartbeat.clone() }, is_route);
    refused(follower(), Message { from: 0, ..heartbeat }, is_route);
}

#[test]
fn messages_that_contradict_themselves_are_refused() {
    let append = message(MessageType::MsgAppend, 2, 2);
    let contradictions = [
        message(MessageType::MsgHeartbeat, 2, 0),
        message(MessageType::MsgHeartbeat, 2, u64::MAX),
        Message { index: 4, ..append.clone() },
        Message { request_snapshot: 1, ..message(MessageType::MsgAppendResponse, 2, 2) },
        Message { snapshot: Some(raft_proto::eraftpb::Snapshot::default()), ..append.clone() },
        Message { entries: vec![entry(4, 2)], ..message(MessageType::MsgHeartbeat, 2, 2) },
        Message { entries: vec![entry(4, 2)], ..message(MessageType::MsgRequestVote, 2, 3) },
        Message { log_term: 3, index: 3, ..append.clone() },
        Message { log_term: 2, index: 3, entries: vec![entry(5, 2)], ..append.clone() },
        Message { log_term: 2, index: 3, entries: vec![entry(3, 2)], ..append.clone() },
        Message { log_term: 2, index: 3, entries: vec![entry(4, 2), entry(6, 2)], ..append.clone() },
        Message { log_term: 2, index: 3, entries: vec![entry(4, 1)], ..append.clone() },
        Message { log_term: 2, index: 3, entries: vec![entry(4, 3)], ..append.clone() },
        Message { index: u64::MAX, ..append.clone() },
        Message { index: u64::MAX - 1, entries: vec![entry(u64::MAX, 2)], ..append },
    ];
    for message in contradictions {
        refused(follower(), message, is_contradiction);
    }
    let rejection = message(MessageType::MsgAppendResponse, 2, 1);
    refused(leader(), Message { reject: true, index: 4, reject_hint: 5, ..rejection }, is_contradiction);
}

#[test]
fn entries_that_change_the_membership_are_refused() {
    let change = Entry { entry_type: 1, ..entry(4, 2) };
    let append = message(MessageType::MsgAppend, 2, 2);
    refused(follower(), Message { log_term: 2, index: 3, entries: vec![change], ..append }, is_type);
}

#[test]
fn messages_that_contradict_the_log_are_refused() {
    let other = Message { entries: vec![entry(1, 2)], ..message(MessageType::MsgAppend, 2, 2) };
    refused(follower(), other, is_log);
    refused(follower(), Message { commit: 4, ..message(MessageType::MsgHeartbeat, 2, 2) }, is_log);
    refused(leader(), Message { index: 5, ..message(MessageType::MsgAppendResponse, 2, 1) }, is_log);
}

#[test]
fn only_the_leader_may_ask_for_a_take_over() {
    let stale = |rejected: &Rejected| *rejected == Rejected::Stale;
    refused(follower(), message(MessageType::MsgTimeoutNow, 3, 2), stale);
    refused(follower(), message(MessageType::MsgTimeoutNow, 2, 1), stale);
    follower().step(message(MessageType::MsgTimeoutNow, 2, 2)).unwrap();
}

/// A stale rejection must not pull what is sent next to or below what was confirmed (raft-rs#555, raft-rs#557).
#[test]
fn a_rejection_never_takes_back_what_was_confirmed() {
    for (index, reject_hint) in [(3, 2), (3, 3), (2, 0), (4, 2)] {
        let mut group = leader();
        group.unreachable(NodeId(2)); // it probes from now on
        let answer = message(MessageType::MsgAppendResponse, 2, 1);
        let rejected = group.step(Message { reject: true, index, reject_hint, log_term: 1, ..answer });
        assert_eq!(rejected, Err(Rejected::Stale), "rejects {index}, hints at {reject_hint}");
        // What it sends next begins after the last entry confirmed.
        group.propose_truncation(0);
        let sent = group.take_effects(Hlc(1)).map(|effects| effects.send).unwrap_or_default();
        let to_peer = sent.iter().filter(|message| message.to == 2).map(|message| message.index);
        assert!(to_peer.clone().all(|index| 3 <= index), "{sent:?}");
    }
}

/// Numbers near those that mean something here, and at the far end.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 0..7_u64, 1 => any::<u64>(), 1 => Just(u64::MAX)]
}

fn random_entry() -> impl Strategy<Value = Entry> {
    (number(), number(), prop_oneof![9 => Just(0), 1 => 0..5_i32])
        .prop_map(|(index, term, entry_type)| Entry { entry_type, ..entry(index, term) })
}

/// Mostly entries that follow each other: a random heap of them is refused at once.
fn random_entries() -> impl Strategy<Value = Vec<Entry>> {
    let run = (number(), number(), 0..4_u64).prop_map(|(first, term, count)| {
        (0..count).map(|offset| entry(first.saturating_add(offset), term)).collect()
    });
    prop_oneof![4 => run, 1 => prop::collection::vec(random_entry(), 0..3)]
}

fn random_message() -> impl Strategy<Value = Message> {
    let kind = prop_oneof![20 => 0..19_i32, 1 => any::<i32>()];
    let place = (number(), number(), number(), number());
    let rest = (random_entries(), any::<bool>(), number(), prop_oneof![9 => Just(0), 1 => number()]);
    let head = (kind, prop_oneof![8 => 2..4_u64, 1 => number()], prop_oneof![20 => Just(1), 1 => number()]);
    (head, place, rest).prop_map(|((msg_type, from, to), (term, log_term, index, commit), rest)| {
        let (entries, reject, reject_hint, request_snapshot) = rest;
        let context = vec![0; usize::from(reject)];
        let base = Message { msg_type, from, to, term, log_term, index, commit, ..Message::default() };
        Message { entries, reject, reject_hint, request_snapshot, context, ..base }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Whatever comes, in whatever order, between ticks and turns: no panic, and no election safety given away.
    #[test]
    fn no_message_makes_a_group_panic(
        role in 0..3,
        steps in prop::collection::vec((random_message(), 0..4_u8), 1..20),
    ) {
        let mut group = match role {
            0 => leader(),
            1 => follower(),
            _ => candidate(),
        };
        for (message, then) in steps {
            let _ = group.step(message);
            match then {
                0 => group.tick(),
                1 => settle(&mut group),
                2 => group.propose_truncation(0),
                _ => {}
            }
        }
        settle(&mut group);
    }
}

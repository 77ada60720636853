//! Raft messages of peers, stepped into a group that leads, follows or stands for election, between ticks, writes and elections.

use crate::parts::{Parts, part};
use raft_prost::Message as _;
use rdb_core::ids::{NodeId, RegionId};
use rdb_core::raft::{Boot, Entry, Group, LogRead, Message, MessageType, Options};
use rdb_core::version::Hlc;

/// Past so many steps an input says nothing new.
const STEPS_MAX: usize = 64;

/// Nothing is ever read from it: what a lagging follower lacks is only asked for.
struct EmptyDisk;

impl LogRead for EmptyDisk {
    fn read(&self, low: u64, _: u64, _: u64) -> Result<Vec<Entry>, String> {
        Err(format!("entry {low} is not on disk"))
    }
}

type Lone = Group<EmptyDisk, (), ()>;

pub(super) fn run(input: &[u8]) -> bool {
    let mut parts = Parts::of(input);
    let Some(mut group) = begin(parts.number()) else { return false };
    let mut accepted = false;
    for _ in 0..STEPS_MAX {
        if parts.is_empty() {
            break;
        }
        match parts.number() % 12 {
            0 => group.tick(),
            1 => settle(&mut group),
            2 => group.propose_truncation(0),
            3 => group.campaign(),
            4 => group.unreachable(NodeId(2)),
            5 => drop(group.truncate(u64::from(parts.number()))),
            6 => group.request_snapshot(),
            7 => group.snapshot_sent(NodeId(2), parts.number() % 2 == 1),
            8 => accepted |= read(parts.part()).is_some_and(|message| group.step_snapshot(message).is_ok()),
            9 => accepted |= read(parts.part()).is_some_and(|message| group.step(message).is_ok()),
            // The engine seldom finds a message that is for this node.
            _ => {
                let from = 2 + u64::from(parts.number() % 2);
                let message = read(parts.part()).map(|message| Message { from, to: 1, ..message });
                accepted |= message.is_some_and(|message| group.step(message).is_ok());
            }
        }
    }
    settle(&mut group);
    accepted
}

/// As `rdb-server` reads one.
fn read(bytes: &[u8]) -> Option<Message> {
    Message::decode(bytes).ok()
}

/// Node 1 of three: a leader in term 1 with some entries that all have, a follower of node 2 in term 2, or a candidate.
fn begin(role: u8) -> Option<Lone> {
    let boot = Boot::fresh(RegionId::FIRST_USER, NodeId(1), vec![NodeId(1), NodeId(2), NodeId(3)]);
    let logger = slog::Logger::root(slog::Discard, slog::o!());
    let mut group = Group::new(Options::default(), boot, EmptyDisk, &logger).ok()?;
    match role % 3 {
        0 => {
            group.campaign();
            settle(&mut group);
            step(&mut group, message(MessageType::MsgRequestPreVoteResponse, 2, 1));
            step(&mut group, message(MessageType::MsgRequestVoteResponse, 2, 1));
            for index in 1..=3 {
                step(&mut group, Message { index, ..message(MessageType::MsgAppendResponse, 2, 1) });
                group.propose_truncation(0);
                settle(&mut group);
            }
        }
        1 => step(&mut group, append()),
        _ => {
            step(&mut group, append());
            (0..40).for_each(|_| group.tick());
            group.campaign();
            settle(&mut group);
        }
    }
    Some(group)
}

fn message(kind: MessageType, from: u64, term: u64) -> Message {
    let mut message = Message { from, to: 1, term, ..Message::default() };
    message.set_msg_type(kind);
    message
}

fn append() -> Message {
    let entries = (1..=3).map(|index| Entry { index, term: 1 + index / 3, ..Entry::default() });
    Message { entries: entries.collect(), commit: 2, ..message(MessageType::MsgAppend, 2, 2) }
}

fn step(group: &mut Lone, message: Message) {
    drop(group.step(message));
    settle(group);
}

/// A disk that is fast: whatever is written is synced and applied at once, and a snapshot is taken in.
fn settle(group: &mut Lone) {
    while let Some(effects) = group.take_effects(Hlc(1)) {
        if let Some(write) = effects.write {
            group.persisted(write.number);
            if write.snapshot.is_some() {
                group.installed();
            }
        }
        if let Some(last) = effects.apply.and_then(|apply| apply.entries.last().map(|entry| entry.index)) {
            group.applied(last);
        }
        for fetch in effects.fetch {
            group.fetched(fetch.low, Vec::new(), fetch.context);
        }
        for snapshot in effects.snapshots {
            group.snapshot_sent(snapshot.to, true);
        }
    }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let kinds = [
        (1, MessageType::MsgHeartbeat, 2),
        (1, MessageType::MsgRequestVote, 3),
        (1, MessageType::MsgRequestPreVote, 3),
        (1, MessageType::MsgTimeoutNow, 2),
        (0, MessageType::MsgAppendResponse, 1),
        (0, MessageType::MsgHeartbeatResponse, 1),
        (2, MessageType::MsgRequestPreVoteResponse, 3),
        (2, MessageType::MsgRequestVoteResponse, 2),
    ];
    let mut seeds: Vec<_> = kinds.map(|(role, kind, term)| seed(role, 9, &message(kind, 2, term))).into();
    let context = vec![Entry { data: vec![7; 32], ..Entry::default() }];
    let asked = Message { entries: context.clone(), ..message(MessageType::MsgReadIndex, 2, 0) };
    let told = Message { entries: context, ..message(MessageType::MsgReadIndexResp, 2, 2) };
    let more = Entry { index: 4, term: 2, data: b"data".to_vec(), ..Entry::default() };
    let next =
        Message { log_term: 2, index: 3, entries: vec![more], ..message(MessageType::MsgAppend, 2, 2) };
    let refused = Message {
        reject: true,
        index: 4,
        reject_hint: 3,
        log_term: 1,
        ..message(MessageType::MsgAppendResponse, 3, 1)
    };
    seeds.extend([seed(0, 9, &asked), seed(1, 9, &told), seed(1, 9, &next), seed(0, 9, &refused)]);
    seeds.push(seed(1, 8, &snapshot()));
    seeds
}

fn snapshot() -> Message {
    let mut message = message(MessageType::MsgSnapshot, 2, 2);
    let metadata = message.mut_snapshot().mut_metadata();
    (metadata.index, metadata.term) = (9, 2);
    metadata.mut_conf_state().voters = vec![1, 2, 3];
    message
}

fn seed(role: u8, way: u8, message: &Message) -> Vec<u8> {
    [&[role, way][..], &part(&message.encode_to_vec()), &[1, 0, 1]].concat()
}

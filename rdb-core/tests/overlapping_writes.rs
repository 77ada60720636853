//! Log writes that replace each other while none of them is on disk: what is said to be persisted must be so for good.
//!
//! A follower takes entries of a first leader, then others in their place of a second one, then the first ones again. Its
//! disk reports the writes one by one, and nothing may be applied before the last of them.
#![allow(clippy::unwrap_used, reason = "the helpers of a test are not seen as tests")]

use rdb_core::ids::{NodeId, RegionId};
use rdb_core::raft::{Boot, Entry, Group, LogRead, Message, MessageType, Options};
use rdb_core::version::Hlc;

struct EmptyDisk;

impl LogRead for EmptyDisk {
    fn read(&self, low: u64, _: u64, _: u64) -> Result<Vec<Entry>, String> {
        Err(format!("entry {low} is not on disk"))
    }
}

/// Node 1 of three, whose disk is slow.
struct Follower {
    group: Group<EmptyDisk, (), ()>,
    applied: Vec<u64>,
}

impl Follower {
    fn new() -> Self {
        let boot = Boot::fresh(RegionId::FIRST_USER, NodeId(1), vec![NodeId(1), NodeId(2), NodeId(3)]);
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        Self { group: Group::new(Options::default(), boot, EmptyDisk, &logger).unwrap(), applied: Vec::new() }
    }

    /// The numbers of the writes that follow from `message`.
    fn step(&mut self, message: Message) -> Vec<u64> {
        self.group.step(message).unwrap();
        self.effects()
    }

    fn effects(&mut self) -> Vec<u64> {
        let mut writes = Vec::new();
        while let Some(effects) = self.group.take_effects(Hlc(1)) {
            writes.extend(effects.write.map(|write| write.number));
            self.applied
                .extend(effects.apply.iter().flat_map(|apply| &apply.entries).map(|entry| entry.index));
        }
        writes
    }

    fn persisted(&mut self, writes: &[u64]) {
        for number in writes {
            self.group.persisted(*number);
            self.effects();
        }
    }
}

fn append(from: u64, term: u64, entries: &[(u64, u64)], commit: u64) -> Message {
    let entry = |(index, term): &(u64, u64)| Entry { index: *index, term: *term, ..Entry::default() };
    let entries = entries.iter().map(entry).collect();
    let mut message = Message { from, to: 1, term, entries, commit, ..Message::default() };
    message.set_msg_type(MessageType::MsgAppend);
    message
}

fn heartbeat(from: u64, term: u64) -> Message {
    let mut message = Message { from, to: 1, term, ..Message::default() };
    message.set_msg_type(MessageType::MsgHeartbeat);
    message
}

#[test]
fn entries_that_are_replaced_and_come_back_are_persisted_when_they_are_back() {
    let mut follower = Follower::new();
    let first = follower.step(append(2, 1, &[(1, 1), (2, 1), (3, 1)], 0));
    // A write without entries between the two: when it is reported, the deferred report of the first one must not go along.
    let term = follower.step(heartbeat(3, 2));
    let replaced = follower.step(append(3, 2, &[(1, 2)], 0));
    let back = follower.step(append(2, 3, &[(1, 1), (2, 1), (3, 1), (4, 3)], 4));
    for writes in [&first, &term, &replaced, &back] {
        assert_eq!(writes.len(), 1, "{first:?} {term:?} {replaced:?} {back:?}");
    }
    for writes in [&first, &term, &replaced] {
        follower.persisted(writes);
        assert_eq!(follower.applied, [0; 0], "a crash could still lose these");
    }
    follower.persisted(&back);
    assert_eq!(follower.applied, [1, 2, 3, 4]);
}

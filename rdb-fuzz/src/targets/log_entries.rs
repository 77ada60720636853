//! Entries of a strong region's log, one after the other, applied to its state machine: each is applied, or refused as a whole.

use crate::memory::Memory;
use crate::parts::{Parts, part};
use rdb_core::apply::{Committed, Machine, State};
use rdb_core::command::{
    Command, Encoded, Expect, Operation, RequestId, Stamp, Write, begin_keys, close, marker, truncate,
};
use rdb_core::ids::{Epoch, Era, NodeId, RegionId};
use rdb_core::sessions::Sessions;
use rdb_core::switch::{Boundary, Marker, Mode, SwitchId};
use rdb_core::transaction::{Compare, Transaction, TransactionOperation};
use rdb_core::version::Hlc;

/// Past so many entries an input says nothing new.
const ENTRIES_MAX: u64 = 32;

pub(super) fn run(input: &[u8]) -> bool {
    let mut parts = Parts::of(input);
    let mut machine = Machine::new(RegionId::FIRST_USER, State::default(), Sessions::default());
    let (mut data, mut sessions, mut accepted) = (Memory::default(), Sessions::default(), false);
    for index in 1..=ENTRIES_MAX {
        if parts.is_empty() {
            break;
        }
        let entry = [Committed { index, term: 1, data: parts.part().to_vec() }];
        match machine.due_marker(&entry) {
            Err(_) => break,
            Ok(Some((_, marker))) => {
                data.write(machine.enter(&entry[0], &marker, Hlc(0), None));
                accepted = true;
                continue;
            }
            Ok(None) => {}
        }
        // What cannot be read stops a node.
        let Ok(applied) = machine.apply(&entry, &data) else { break };
        for (client, session) in &applied.changes.sessions {
            if let Some(session) = session {
                assert_eq!(
                    sessions.load(*client, session),
                    Ok(()),
                    "a session is written that cannot be read"
                );
            }
        }
        data.write(applied.changes);
        accepted = true;
    }
    accepted
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let key = b"key";
    let put = || Write { key, value: Some(b"value") };
    let transaction = Transaction {
        compares: vec![Compare { key, expect: Expect::Present }],
        then: vec![TransactionOperation::Write(put()), TransactionOperation::Get(key)],
        otherwise: vec![TransactionOperation::DeleteRange { from: b"a", to: b"z" }],
    };
    let name = |sequence| Some(RequestId { client: 7, sequence, lowest: 1 });
    let commands = [
        Command { request: name(9), operation: Operation::OpenSession },
        Command { request: name(1), operation: Operation::Write(put()) },
        Command {
            request: name(2),
            operation: Operation::CompareAndSwap { expect: Expect::Value(b"other"), then: put() },
        },
        Command { request: None, operation: Operation::Batch(vec![put(), Write { key, value: None }]) },
        Command { request: name(3), operation: Operation::Transaction(transaction) },
        Command { request: None, operation: Operation::DeleteRange { from: b"", to: b"" } },
    ];
    let (epoch, era, boundary) = (Epoch(2), Era(2), Boundary::default());
    let entered = marker(&Marker { switch: SwitchId(1), epoch, era, mode: Mode::Eventual, boundary });
    let mut entries: Vec<_> = commands.iter().map(|command| entry(&Encoded::from(command))).collect();
    entries.extend([truncate(3), entered, close(), Vec::new()]);
    let mut seeds: Vec<_> = entries.iter().map(|entry| part(entry)).collect();
    seeds.push(seeds.concat());
    seeds
}

fn entry(commands: &Encoded) -> Vec<u8> {
    let stamp = Stamp { era: Era(1), hlc: Hlc(5), node: NodeId(1) };
    [begin_keys(stamp), commands.bytes.clone()].concat()
}

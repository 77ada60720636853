//! The catalog: entries of the meta region's log, applied, and the records that come of them, as they are read at a start.

use crate::parts::{Parts, part};
use rdb_core::apply::{Committed, State};
use rdb_core::command::begin_catalog;
use rdb_core::ids::{Epoch, NamespaceId, NodeId};
use rdb_core::switch::{Change, Phase, Step, SwitchId};
use rdb_pd::{Catalog, Command, Durability, Machine, Mode, Settings};

/// Past so many entries an input says nothing new.
const ENTRIES_MAX: u64 = 32;

pub(super) fn run(input: &[u8]) -> bool {
    let mut parts = Parts::of(input);
    match parts.number() % 2 {
        0 => entries(parts),
        _ => Catalog::default().load(parts.part(), parts.rest()).is_ok(),
    }
}

/// What is written is read at the next start, and is then what it was.
fn entries(mut parts: Parts<'_>) -> bool {
    let mut machine = Machine::new(State::default(), Catalog::default());
    let (mut stored, mut accepted) = (Catalog::default(), false);
    for index in 1..=ENTRIES_MAX {
        if parts.is_empty() {
            break;
        }
        let entry = Committed { index, term: 1, data: parts.part().to_vec() };
        // What cannot be read stops a node, and the machine is spent.
        let Ok(applied) = machine.apply(&[entry]) else { return accepted };
        for (key, value) in &applied.changes.records {
            if let Some(value) = value {
                assert_eq!(stored.load(key, value), Ok(()), "a record is written that cannot be read");
            }
        }
        accepted = true;
    }
    for namespace in machine.catalog().namespaces() {
        assert_eq!(stored.namespace_of(namespace.id), Some(namespace));
    }
    accepted
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let (name, members) = (|| "space".to_owned(), [1, 2, 3].map(NodeId).to_vec());
    let settings = Settings { durability: Durability::Periodic, keep_lost_seconds: 60 };
    let begin = Step::Begin { excluded: [].into(), deadline_ms: 9, write_pause_ms_max: 9 };
    let change = Change { epoch: Epoch(1), phase: Phase::Settled, switch: SwitchId(0), step: begin };
    let id = NamespaceId(1);
    let commands = [
        Command::CreateNamespace { name: name(), mode: Mode::Eventual, members, token: 7, settings },
        Command::RegisterNode { node: NodeId(2), store_id: 9 },
        Command::PreferLeader { name: name(), node: NodeId(2) },
        Command::ChangeMode { id, change },
        Command::DeleteNamespace { name: name(), id: NamespaceId(0) },
        Command::RemoveNamespace { id },
    ];
    let entry = |command: &Command| part(&[begin_catalog(), command.encode().bytes].concat());
    let entries: Vec<_> = commands.iter().map(entry).collect();
    let mut seeds = vec![[vec![0], entries.concat()].concat()];
    seeds.extend(entries.iter().map(|entry| [&[0][..], entry].concat()));
    seeds.extend(records(&commands));
    seeds
}

/// The records that these commands make.
fn records(commands: &[Command]) -> Vec<Vec<u8>> {
    let mut machine = Machine::new(State::default(), Catalog::default());
    let mut seeds = Vec::new();
    for (index, command) in (1..).zip(commands) {
        let data = [begin_catalog(), command.encode().bytes].concat();
        let Ok(applied) = machine.apply(&[Committed { index, term: 1, data }]) else { break };
        for (key, value) in applied.changes.records {
            seeds.extend(value.map(|value| [&[1][..], &part(&key), &value].concat()));
        }
    }
    seeds
}

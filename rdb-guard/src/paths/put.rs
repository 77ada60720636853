//! Puts go through Raft, and are applied.

use super::stored::Stored;
use super::{BATCH, VALUE, key};
use anyhow::{Context as _, Result, bail, ensure};
use rdb_core::apply::{Answer, Committed, Machine, State};
use rdb_core::command::{Command, Encoded, Operation, RequestId, Write};
use rdb_core::ids::{NodeId, RegionId};
use rdb_core::raft::{Boot, Entry, Group, LogRead, Options};
use rdb_core::sessions::Sessions;
use rdb_core::version::Hlc;

const REGION: RegionId = RegionId::FIRST_USER;
const CLIENT: u64 = 7;

/// The session that names them is opened.
fn opening() -> Encoded {
    let request = RequestId { client: CLIENT, sequence: 0, lowest: 0 };
    let mut encoded = Encoded::default();
    encoded.push(&Command { request: Some(request), operation: Operation::OpenSession });
    encoded
}

/// The puts of one message.
fn puts(number: u64) -> Encoded {
    let mut encoded = Encoded::default();
    for place in 0..BATCH {
        let sequence = number * BATCH + place;
        let write = Write { key: &key(sequence), value: Some(&VALUE) };
        let request = RequestId { client: CLIENT, sequence: sequence + 1, lowest: number * BATCH + 1 };
        encoded.push(&Command { request: Some(request), operation: Operation::Write(write) });
    }
    encoded
}

/// What a leader that applies at once is never asked for.
struct NoDisk;

impl LogRead for NoDisk {
    fn read(&self, low: u64, _: u64, _: u64) -> Result<Vec<Entry>, String> {
        Err(format!("entry {low} is not on disk"))
    }
}

type Alone = Group<NoDisk, u64, ()>;

/// A group whose only member leads it, and what its election has committed.
fn alone() -> Result<(Alone, Vec<Committed>)> {
    let boot = Boot::fresh(REGION, NodeId(1), vec![NodeId(1)]);
    let logger = slog::Logger::root(slog::Discard, slog::o!());
    let mut group = Group::new(Options::default(), boot, NoDisk, &logger)?;
    group.campaign();
    let committed = settle(&mut group);
    ensure!(group.is_leader(), "a group of one has no leader");
    Ok((group, committed))
}

/// Does all that the group asks for, as if a disk had done it; what is committed is returned.
fn settle(group: &mut Alone) -> Vec<Committed> {
    let mut committed = Vec::new();
    while let Some(effects) = group.take_effects(Hlc::from_millis(1)) {
        if let Some(write) = effects.write {
            group.persisted(write.number);
        }
        for entry in effects.apply.into_iter().flat_map(|apply| apply.entries) {
            group.applied(entry.index);
            committed.push(entry);
        }
    }
    committed
}

pub(super) fn propose(times: u64) -> Result<()> {
    let (mut group, _) = alone()?;
    let mut committed = 0;
    for number in 0..times {
        if let Err((_, failure)) = group.propose(puts(number), number) {
            bail!("a put was refused: {failure:?}");
        }
        committed += settle(&mut group).len() as u64;
    }
    ensure!(times <= committed, "{committed} of {times} entries were committed");
    Ok(())
}

pub(super) fn apply(times: u64) -> Result<()> {
    stored(times).map(drop)
}

/// So many messages of puts, proposed, applied and stored.
pub(super) fn stored(messages: u64) -> Result<Stored> {
    let (mut group, mut entries) = alone()?;
    let stored = Stored::open()?;
    let mut machine = Machine::new(REGION, State::default(), Sessions::default());
    let proposals = std::iter::once(opening()).chain((0..messages).map(puts));
    for (number, commands) in proposals.enumerate() {
        group.propose(commands, number as u64).ok().context("a put was refused")?;
        entries.extend(settle(&mut group));
        let applied = machine.apply(&entries, &stored.region(REGION))?;
        let is_done = |answer: &Answer| matches!(answer, Answer::Done(_));
        ensure!(applied.answers.iter().flatten().all(is_done), "a put was not done");
        stored.apply(REGION, &applied.changes)?;
        entries.clear();
    }
    Ok(stored)
}

//! Effects as a reader of a script wants them.

use rdb_core::apply::Committed;
use rdb_core::command::{Operation, Payload};
use rdb_core::raft::disk::{decode_entry, decode_hard_state};
use rdb_core::raft::{Failure, LogWrite, Message, MessageType};

/// `index@term what`
fn entry(index: u64, term: u64, data: &[u8]) -> String {
    let what = match Payload::decode(data).unwrap() {
        Payload::Empty => "noop".to_owned(),
        Payload::Truncate(index) => format!("truncate {index}"),
        Payload::Close => "close".to_owned(),
        Payload::Marker(marker) => format!("marker to era {}", marker.era),
        Payload::Catalog(_) => "catalog".to_owned(),
        Payload::Keys { commands, .. } => {
            let puts = commands.map(|command| match command.unwrap().operation {
                Operation::Write(write) => {
                    format!("{}={}", text(write.key), write.value.map_or_else(String::new, text))
                }
                other => format!("{other:?}"),
            });
            puts.collect::<Vec<_>>().join(" ")
        }
    };
    format!("{index}@{term} {what}")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn list(entries: impl Iterator<Item = String>) -> String {
    format!("[{}]", entries.collect::<Vec<_>>().join(", "))
}

pub(crate) fn committed(entries: &[Committed]) -> String {
    list(entries.iter().map(|committed| entry(committed.index, committed.term, &committed.data)))
}

pub(crate) fn write(write: &LogWrite) -> String {
    let mut parts = vec![write.number.to_string()];
    if !write.entries.is_empty() {
        parts.push(list(write.entries.iter().map(|(index, bytes)| {
            let decoded = decode_entry(*index, bytes).unwrap();
            entry(decoded.index, decoded.term, &decoded.data)
        })));
    }
    if let Some((from, to)) = write.remove_stale {
        parts.push(format!("removing {from}..{to}"));
    }
    if let Some(state) = &write.hard_state {
        let state = decode_hard_state(state).unwrap();
        parts.push(format!("term {} vote {} commit {}", state.term, state.vote, state.commit));
    }
    let kind = if write.sync { "with a sync" } else { "without a sync" };
    parts.push(kind.to_owned());
    if !write.then_send.is_empty() {
        parts.push(format!("holding {} messages", write.then_send.len()));
    }
    parts.join(", ")
}

pub(crate) fn failure(failure: Failure) -> String {
    match failure {
        Failure::NotLeader { leader: Some(leader) } => format!("not leader, n{leader} is"),
        Failure::NotLeader { leader: None } => "not leader".to_owned(),
        Failure::Busy => "busy".to_owned(),
        Failure::Superseded => "superseded, not done".to_owned(),
        Failure::LeaderLost => "leader lost, in doubt".to_owned(),
        Failure::Closed => "closed, not done".to_owned(),
        Failure::ModeChanged => "another mode, not done".to_owned(),
    }
}

pub(crate) fn message(m: &Message) -> String {
    let what = match m.msg_type() {
        MessageType::MsgAppend => {
            let entries = list(m.entries.iter().map(|e| entry(e.index, e.term, &e.data)));
            format!("append {entries} after {}@{}, commit {}", m.index, m.log_term, m.commit)
        }
        MessageType::MsgAppendResponse if m.reject => format!("no entry {}, try {}", m.index, m.reject_hint),
        MessageType::MsgAppendResponse => format!("appended up to {}", m.index),
        MessageType::MsgHeartbeat => format!("heartbeat, commit {}{}", m.commit, round(m)),
        MessageType::MsgHeartbeatResponse => format!("heard{}", round(m)),
        MessageType::MsgRequestPreVote => {
            format!("would you vote for me? my log ends at {}@{}", m.index, m.log_term)
        }
        MessageType::MsgRequestVote => format!("vote for me, my log ends at {}@{}", m.index, m.log_term),
        MessageType::MsgRequestPreVoteResponse if m.reject => "I would not".to_owned(),
        MessageType::MsgRequestPreVoteResponse => "I would".to_owned(),
        MessageType::MsgRequestVoteResponse if m.reject => "no vote".to_owned(),
        MessageType::MsgRequestVoteResponse => "my vote".to_owned(),
        MessageType::MsgTimeoutNow => "take over".to_owned(),
        other => format!("{other:?}"),
    };
    format!("n{} -> n{} term {}: {what}", m.from, m.to, m.term)
}

/// Which round of reads a heartbeat carries.
fn round(message: &Message) -> String {
    let counter = message.context.last_chunk::<8>().map(|bytes| u64::from_be_bytes(*bytes));
    counter.map_or_else(String::new, |counter| format!(", read round {counter}"))
}

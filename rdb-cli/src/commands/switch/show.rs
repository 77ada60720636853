//! `rdb ns status`: how a namespace's mode stands, and how each of its nodes does.

use super::{Lag, in_short, look};
use crate::args::Args;
use crate::exit::Failure;
use crate::output::{Answer, Paint, table};
use rdb_client::{Client, MemberStanding, Mode, SwitchEnd, SwitchStatus};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

#[derive(Serialize)]
pub(super) struct StatusJson {
    name: String,
    id: u32,
    mode: String,
    epoch: u64,
    era: u32,
    phase: String,
    /// Null: no switch is under way.
    to: Option<String>,
    switch: u64,
    roster: Vec<u64>,
    excluded: Vec<u64>,
    phase_age_ms: u64,
    write_pause_ms: u64,
    /// Until the switch is called off by itself. Null: that will not happen.
    remaining_ms: Option<u64>,
    blockers: Vec<String>,
    /// Of all nodes that take part. Null: it is strong, where there is none.
    lag: Option<Lag>,
    nodes: Vec<NodeJson>,
    /// Null: the answering node has seen none.
    last: Option<EndJson>,
    answered_by: u64,
    /// Whether the answering node drives switches, and knows them first.
    controls: bool,
}

#[derive(Serialize)]
struct NodeJson {
    node: u64,
    excluded: bool,
    reachable: bool,
    /// Null: it has not told how it stands.
    told_ms_ago: Option<u64>,
    gate: Option<String>,
    mode: Option<String>,
    era: Option<u32>,
    epoch: Option<u64>,
    leads: Option<bool>,
    answering: Option<bool>,
    lag: Option<Lag>,
    behind_writes: Option<u64>,
    needs_full_copy: Option<bool>,
    /// Writes of this era that it has applied, by the node that accepted them.
    applied: Option<BTreeMap<u64, u64>>,
    quarantined: Option<u64>,
    sealed: bool,
    drained: bool,
    /// Writes that lost against a concurrent one, by what the node has applied. Null: it was not asked, or did not answer.
    conflicts: Option<u64>,
    /// Whether it takes no eventual writes, since its clock is off from those of a majority. Null: the same.
    clock_untrusted: Option<bool>,
}

#[derive(Serialize)]
pub(super) struct EndJson {
    switch: u64,
    completed: bool,
    reason: String,
    write_pause_ms: u64,
    ago_ms: u64,
}

pub(crate) async fn run(args: &Args, name: &str) -> Result<Answer, Failure> {
    let client = args.connect().await?;
    let status = look(&client, name).await?;
    let own = own_words(&client, name).await;
    let mut json = StatusJson::from(&status);
    for node in &mut json.nodes {
        node.conflicts = own.get(&node.node).map(|own| own.conflicts);
        node.clock_untrusted = own.get(&node.node).map(|own| own.clock_untrusted);
    }
    Ok(Answer::new(describe(&status, &own, Paint::for_stdout()), &json))
}

/// What a node alone can say of itself.
struct Own {
    conflicts: u64,
    clock_untrusted: bool,
}

/// Asks each node. Who does not answer is left out.
async fn own_words(client: &Client, name: &str) -> BTreeMap<u64, Own> {
    let mut asked = tokio::task::JoinSet::new();
    for address in client.nodes() {
        let (client, name) = (client.clone(), name.to_owned());
        asked.spawn(async move { client.switch_status_at(&address, &name).await });
    }
    let answers = asked.join_all().await.into_iter().flatten();
    let own =
        |status: &SwitchStatus| Own { conflicts: status.conflicts, clock_untrusted: status.clock_untrusted };
    answers.map(|status| (status.answered_by, own(&status))).collect()
}

fn describe(status: &SwitchStatus, own: &BTreeMap<u64, Own>, paint: Paint) -> String {
    let mut text = headline(status, paint);
    text += &format!("epoch {}, era {}", status.epoch, status.era);
    if status.mode == Mode::Eventual {
        text += &format!("; lag {}", Lag::largest(status));
    }
    text.push('\n');
    if !status.excluded.is_empty() {
        let nodes: Vec<_> = status.excluded.iter().map(ToString::to_string).collect();
        text += &format!("without node {}\n", nodes.join(", "));
    }
    if !status.write_pause.is_zero() {
        text += &format!("writes are held back for {}\n", in_short(status.write_pause));
    }
    if let Some(remaining) = status.remaining {
        text += &format!("called off by itself in {}\n", in_short(remaining));
    }
    for blocker in &status.blockers {
        text += &format!("  {} {blocker}\n", paint.yellow("waits:"));
    }
    for (node, _) in own.iter().filter(|(_, own)| own.clock_untrusted) {
        let off = paint.yellow("clock off:");
        text += &format!("  {off} node {node} takes no eventual writes, see rdb status\n");
    }
    if let Some(last) = &status.last {
        text += &format!("the last switch {}\n", ended(last));
    }
    text + "\n" + &nodes(status, own)
}

fn headline(status: &SwitchStatus, paint: Paint) -> String {
    let SwitchStatus { name, mode, phase, switch, .. } = status;
    match status.to {
        None => format!("{name}  {mode}, no switch is under way\n"),
        Some(to) => format!(
            "{name}  {mode}, becomes {to}: {} for {} (switch {switch})\n",
            paint.cyan(&phase.to_string()),
            in_short(status.phase_age)
        ),
    }
}

/// How a switch ended, in words that follow on "the switch".
pub(super) fn ended(end: &SwitchEnd) -> String {
    let mut text = if end.completed { "completed".to_owned() } else { "was called off".to_owned() };
    if !end.ago.is_zero() {
        text += &format!(" {} ago", in_short(end.ago));
    }
    if !end.write_pause.is_zero() {
        text += &format!(", having held writes back for {}", in_short(end.write_pause));
    }
    if !end.reason.is_empty() {
        text += &format!(": {}", end.reason);
    }
    text
}

fn nodes(status: &SwitchStatus, own: &BTreeMap<u64, Own>) -> String {
    let rows = status.members.iter().map(|member| {
        let said = member.said.as_ref();
        let or = |text: Option<String>| text.unwrap_or_else(|| "?".into());
        [
            format!("{}{}", member.node, if said.is_some_and(|said| said.leads) { " (leads)" } else { "" }),
            or(said.map(|said| format!("{}, era {}", said.mode, said.era))),
            or(said.map(|said| said.epoch.to_string())),
            gate(member),
            or(said.map(|said| match said.mode {
                Mode::Strong => "-".into(),
                Mode::Eventual => Lag::of(member).map_or_else(String::new, |lag| lag.to_string()),
            })),
            or(said.map(|said| match said.needs_full_copy {
                true => "needs a full copy".into(),
                false => said.behind_writes.to_string(),
            })),
            or(said.map(|said| applied(&said.applied))),
            or(own.get(&member.node).map(|own| own.conflicts.to_string())),
            or(said.map(|said| said.quarantined.to_string())),
            told(member),
        ]
    });
    table(
        ["node", "mode", "epoch", "gate", "lag", "behind", "applied", "conflicts", "quarantine", "told"],
        rows,
    )
}

/// For eventual writes: a strong replica has none.
fn gate(member: &MemberStanding) -> String {
    let Some(said) = &member.said else { return "?".into() };
    let gate =
        said.gate.filter(|_| said.mode == Mode::Eventual).map_or_else(|| "-".into(), |gate| gate.to_string());
    match (member.excluded, member.drained) {
        (true, _) => format!("{gate} (left out)"),
        (false, true) => format!("{gate}, drained"),
        (false, false) => gate,
    }
}

/// `1:120 2:98`: of node 1's writes 120, of node 2's 98.
fn applied(applied: &[(u64, u64)]) -> String {
    let parts: Vec<_> = applied.iter().map(|(node, writes)| format!("{node}:{writes}")).collect();
    if parts.is_empty() { "-".into() } else { parts.join(" ") }
}

fn told(member: &MemberStanding) -> String {
    match (&member.said, member.reachable) {
        (Some(said), true) => format!("{} ago", in_short(said.age)),
        (Some(said), false) => format!("{} ago, not heard", in_short(said.age)),
        (None, true) => "nothing yet".into(),
        (None, false) => "not heard".into(),
    }
}

fn millis(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}

impl From<&SwitchStatus> for StatusJson {
    fn from(status: &SwitchStatus) -> Self {
        Self {
            name: status.name.clone(),
            id: status.id,
            mode: status.mode.to_string(),
            epoch: status.epoch,
            era: status.era,
            phase: status.phase.to_string(),
            to: status.to.map(|to| to.to_string()),
            switch: status.switch,
            roster: status.roster.clone(),
            excluded: status.excluded.clone(),
            phase_age_ms: millis(status.phase_age),
            write_pause_ms: millis(status.write_pause),
            remaining_ms: status.remaining.map(millis),
            blockers: status.blockers.clone(),
            lag: (status.mode == Mode::Eventual).then(|| Lag::largest(status)),
            nodes: status.members.iter().map(NodeJson::from).collect(),
            last: status.last.as_ref().map(EndJson::from),
            answered_by: status.answered_by,
            controls: status.controls,
        }
    }
}

impl From<&MemberStanding> for NodeJson {
    fn from(member: &MemberStanding) -> Self {
        let said = member.said.as_ref();
        Self {
            node: member.node,
            excluded: member.excluded,
            reachable: member.reachable,
            told_ms_ago: said.map(|said| millis(said.age)),
            gate: said.and_then(|said| said.gate).map(|gate| gate.to_string()),
            mode: said.map(|said| said.mode.to_string()),
            era: said.map(|said| said.era),
            epoch: said.map(|said| said.epoch),
            leads: said.map(|said| said.leads),
            answering: said.map(|said| said.answering),
            lag: Lag::of(member).filter(|_| said.is_some_and(|said| said.mode == Mode::Eventual)),
            behind_writes: said.map(|said| said.behind_writes),
            needs_full_copy: said.map(|said| said.needs_full_copy),
            applied: said.map(|said| said.applied.iter().copied().collect()),
            quarantined: said.map(|said| said.quarantined),
            sealed: member.sealed,
            drained: member.drained,
            conflicts: None,
            clock_untrusted: None,
        }
    }
}

impl From<&SwitchEnd> for EndJson {
    fn from(end: &SwitchEnd) -> Self {
        Self {
            switch: end.switch,
            completed: end.completed,
            reason: end.reason.clone(),
            write_pause_ms: millis(end.write_pause),
            ago_ms: millis(end.ago),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::status;
    use super::*;
    use rdb_client::SwitchPhase;

    #[test]
    fn a_switch_under_way_is_described_with_what_it_waits_for() {
        let own = [(1, Own { conflicts: 5, clock_untrusted: true })].into();
        let text = describe(&status(), &own, Paint::for_stream(false));
        let expected = "\
things  eventual, becomes strong: sealing for 1.2 s (switch 3)
epoch 4, era 2; lag unknown, at least 12 ms
writes are held back for 400 ms
called off by itself in 9.0 s
  waits: node 2 has not sealed its gate yet
  clock off: node 1 takes no eventual writes, see rdb status
";
        let (head, nodes) = text.split_once("\n\n").unwrap();
        assert_eq!(format!("{head}\n"), expected);
        let rows: Vec<Vec<&str>> = nodes.lines().map(|line| line.split_whitespace().collect()).collect();
        let row = |node: &str| rows.iter().find(|row| row.first() == Some(&node)).unwrap().join(" ");
        assert_eq!(row("1"), "1 (leads) eventual, era 2 4 shut 12 ms 0 1:120 2:98 5 0 100 ms ago");
        assert_eq!(row("2"), "2 ? ? ? ? ? ? ? ? not heard", "nothing is made up");
    }

    /// Its replicas tell how they stand while it switches, and then no more: what they said gets old, and nothing lags.
    #[test]
    fn a_strong_namespace_has_no_lag() {
        let mut strong =
            SwitchStatus { mode: Mode::Strong, phase: SwitchPhase::Settled, to: None, ..status() };
        let said = strong.members[0].said.as_mut().unwrap();
        (said.mode, said.age) = (Mode::Strong, Duration::from_secs(100));
        let text = describe(&strong, &BTreeMap::new(), Paint::for_stream(false));
        assert!(text.contains("epoch 4, era 2\n") && !text.contains("unknown"), "{text}");
        let json = serde_json::to_value(StatusJson::from(&strong)).unwrap();
        assert!(json["lag"].is_null() && json["nodes"][0]["lag"].is_null(), "{json}");
    }

    #[test]
    fn how_the_last_one_ended_is_told() {
        let last = SwitchEnd {
            switch: 2,
            completed: false,
            reason: "node 3 was silent".into(),
            write_pause: Duration::from_secs(10),
            ago: Duration::from_secs(90),
        };
        let settled =
            SwitchStatus { phase: SwitchPhase::Settled, to: None, last: Some(last.clone()), ..status() };
        let text = describe(&settled, &BTreeMap::new(), Paint::for_stream(false));
        assert!(text.starts_with("things  eventual, no switch is under way\n"), "{text}");
        let how = "was called off 90 s ago, having held writes back for 10.0 s: node 3 was silent";
        assert!(text.contains(how), "{text}");
        let completed = SwitchEnd { completed: true, reason: String::new(), ..last };
        assert!(ended(&completed).starts_with("completed 90 s ago"));
    }
}

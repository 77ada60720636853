//! `rdb ns watch-lag`: how far a namespace's nodes are behind, a line each time.

use super::{Lag, in_short, look};
use crate::args::{Args, Format, parse_duration};
use crate::exit::{Class, Failure};
use crate::output::{Answer, say, to_json_line};
use rdb_client::{Mode, SwitchStatus};
use serde::Serialize;
use std::time::Duration;
use tokio::time::Instant;

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct LagArgs {
    /// The namespace
    name: String,
    /// Between two lines
    #[arg(long, default_value = "1s", value_parser = parse_duration, value_name = "TIME")]
    interval: Duration,
    /// End after so many lines; else Ctrl-C ends it
    #[arg(long, value_name = "N")]
    count: Option<u64>,
}

#[derive(Serialize)]
struct LineJson<'a> {
    name: &'a str,
    after_ms: u64,
    /// The largest, which is the namespace's.
    lag: Lag,
    nodes: Vec<NodeJson>,
}

#[derive(Serialize)]
struct NodeJson {
    node: u64,
    /// Null: it has not told.
    lag: Option<Lag>,
    behind_writes: Option<u64>,
}

pub(crate) async fn run(args: &Args, watch: &LagArgs) -> Result<Answer, Failure> {
    if watch.interval.is_zero() {
        return Err(Failure::usage("--interval 0s would ask without a pause").hint("say for example 500ms"));
    }
    let client = args.connect().await?;
    let began = Instant::now();
    let mut ticks = tokio::time::interval(watch.interval);
    let mut lines = 0;
    while watch.count.is_none_or(|count| lines < count) {
        ticks.tick().await;
        let status = look(&client, &watch.name).await?;
        check_eventual(&status)?;
        let after = began.elapsed();
        let text = match args.output {
            Format::Table => line(&status, after),
            Format::Json => to_json_line(&json(&status, after)),
        };
        say(text.as_bytes());
        lines += 1;
    }
    Ok(Answer::raw(Vec::new()))
}

fn check_eventual(status: &SwitchStatus) -> Result<(), Failure> {
    if status.mode == Mode::Eventual || status.is_switching() {
        return Ok(());
    }
    let message = format!(
        "'{}' is strong: a write is on a majority before it is answered, and there is no lag of this kind",
        status.name
    );
    Err(Failure::new(Class::NotDone, message).hint("rdb status  says how many entries each node is behind"))
}

fn line(status: &SwitchStatus, after: Duration) -> String {
    let mut line = format!("{:>8}  {}", format!("{:.1} s", after.as_secs_f64()), status.name);
    for member in &status.members {
        let lag = match Lag::of(member) {
            Some(lag) => lag.to_string(),
            None if member.reachable => "not told yet".into(),
            None => format!("unknown, not heard for {}", in_short(member.silence)),
        };
        line += &format!("  node {}: {lag}", member.node);
    }
    line.push('\n');
    line
}

fn json(status: &SwitchStatus, after: Duration) -> LineJson<'_> {
    let node = |member: &rdb_client::MemberStanding| NodeJson {
        node: member.node,
        lag: Lag::of(member),
        behind_writes: member.said.as_ref().map(|said| said.behind_writes),
    };
    LineJson {
        name: &status.name,
        after_ms: u64::try_from(after.as_millis()).unwrap_or(u64::MAX),
        lag: Lag::largest(status),
        nodes: status.members.iter().map(node).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{member, said, status};
    use super::*;
    use rdb_client::SwitchPhase;

    #[test]
    fn each_node_has_its_lag_or_says_that_it_is_not_known() {
        let mut now = status();
        now.members.push(member(3, Some(said(0, false))));
        now.members[1].silence = Duration::from_secs(3);
        assert_eq!(
            line(&now, Duration::from_millis(2040)),
            "   2.0 s  things  node 1: 12 ms  node 2: unknown, not heard for 3.0 s  node 3: unknown, at least 100 ms\n"
        );
        let json = serde_json::to_value(json(&now, Duration::from_secs(1))).unwrap();
        assert_eq!(json["lag"], serde_json::json!({"lag_ms": 100, "known": false}));
        assert_eq!(json["nodes"][1], serde_json::json!({"node": 2, "lag": null, "behind_writes": null}));
    }

    #[test]
    fn a_strong_namespace_has_no_such_lag() {
        let strong = SwitchStatus { mode: Mode::Strong, ..status() };
        assert!(check_eventual(&strong).is_ok(), "it switches, and its nodes tell");
        let settled = SwitchStatus { phase: SwitchPhase::Settled, to: None, ..strong };
        assert!(check_eventual(&settled).is_err());
        assert!(check_eventual(&SwitchStatus { mode: Mode::Eventual, ..settled }).is_ok());
    }
}

//! `rdb status`: first in words what the cluster may still lose and what to do, then the tables.
//!
//! `survey` asks all nodes and puts together what they say, of whom they hear (`links`) and of their data (`replicas`).
//! `problems` are what may be wrong, `quorum` finds what may be lost, `verdict` says it in a line, and here all is printed.

mod links;
mod problems;
mod quorum;
mod replicas;
mod survey;
#[cfg(test)]
mod tests;
mod verdict;

pub(crate) use survey::{Node, Survey, ask};

use super::ns::{NamespaceJson, namespace_table};
use crate::args::Args;
use crate::exit::Failure;
use crate::output::{Answer, Paint, table};
use problems::{Problem, duration};
use rdb_client::NodeStatus;
use serde::Serialize;
use std::collections::BTreeSet;
use std::time::Duration;
use verdict::{Health, Verdict, judge};

pub(crate) const EXIT_CODES: &str = "Exit status:
  0  healthy
  1  degraded: it serves, and less than usual may go wrong
  3  unavailable: no majority, or something has no leader
  5  no node answers";

/// What was created or started a moment ago is on its way to all nodes, and there at a second look.
const SECOND_LOOK: Duration = Duration::from_millis(500);

const EXIT_DEGRADED: u8 = 1;
const EXIT_UNAVAILABLE: u8 = 3;

#[derive(Serialize)]
struct Json {
    health: Health,
    summary: String,
    /// What to do first.
    action: Option<String>,
    may_lose: usize,
    /// The nodes without any one of which it would not serve.
    must_not_lose: BTreeSet<u64>,
    problems: Vec<Problem>,
    cluster_id: String,
    answered_by: u64,
    version: String,
    meta_leader: Option<u64>,
    nodes: Vec<NodeJson>,
    namespaces: Vec<NamespaceJson>,
}

#[derive(Serialize)]
struct NodeJson {
    id: u64,
    client_address: String,
    peer_address: String,
    /// For some of the other nodes.
    reachable: bool,
    /// Since any of them heard it.
    silence_ms: u64,
    /// Nodes that answer, and that this one does not hear or that do not hear it.
    apart_from: Vec<u64>,
    regions_led: u64,
    state: &'static str,
    /// In the namespace or the catalog where it is worst. Null: the node did not answer.
    entries_behind: Option<u64>,
    catalog_entries_behind: Option<u64>,
    /// Namespaces of which it has no replica, or does not know yet. Null: the node did not answer.
    replicas_absent: Option<Vec<String>>,
    /// Namespaces of which it has applied nothing.
    replicas_empty: Option<Vec<String>>,
    disk_available_bytes: Option<u64>,
    /// What a sync of its log takes of late, where its disk is slow; 0: it is not. Null: the node did not answer.
    slow_sync_ms: Option<u32>,
    /// Whether its clock is off from those of a majority, so that it takes no eventual writes. Null: the node did not answer.
    clock_untrusted: Option<bool>,
    /// How far it is ahead of the clock of the node that answered. Null: not measured, or it is that node.
    clock_ahead_ms: Option<i64>,
}

pub(crate) async fn run(args: &Args) -> Result<Answer, Failure> {
    let client = args.connect().await?;
    let mut survey = ask(&client).await?;
    let mut verdict = judge(&survey);
    if verdict.may_pass() {
        tokio::time::sleep(SECOND_LOOK).await;
        survey = ask(&client).await?;
        verdict = judge(&survey);
    }
    let text = describe(&survey, &verdict, Paint::for_stdout());
    let code = match verdict.health {
        Health::Healthy => 0,
        Health::Degraded => EXIT_DEGRADED,
        Health::Unavailable => EXIT_UNAVAILABLE,
    };
    Ok(Answer::new(text, &to_json(&survey, verdict)).with_exit_code(code))
}

fn describe(survey: &Survey, verdict: &Verdict, paint: Paint) -> String {
    let cluster = &survey.cluster;
    let mut text = in_words(verdict, paint);
    let nodes = cluster.nodes.iter().map(|node| {
        let behind = survey.behind(node.id).map_or_else(|| "?".into(), |(entries, _)| entries.to_string());
        let role = if node.id == cluster.meta_leader { "catalog" } else { "" };
        let state = match survey.node(node) {
            Node::Up => "up".into(),
            Node::Unseen(why) => format!("not seen from here: {why}"),
            Node::CutOff => format!("cut off for {}", duration(node.silence_ms)),
            Node::Down => format!("unreachable for {}", duration(node.silence_ms)),
        };
        [
            node.id.to_string(),
            node.client_address.clone(),
            state,
            node.regions_led.to_string(),
            behind,
            role.into(),
        ]
    });
    text += &format!("\n{}", table(["node", "address", "state", "leads", "behind", ""], nodes));
    if cluster.namespaces.is_empty() {
        text += "\nno namespaces; rdb ns create NAME  makes one\n";
    } else {
        text += &format!("\n{}", namespace_table(&cluster.namespaces));
    }
    text += &format!(
        "\ncluster {}, version {}, as node {} sees it\n",
        cluster.cluster_id, cluster.version, cluster.answered_by
    );
    text
}

/// The first line says it all; what else is wrong, and what to do, follows.
fn in_words(verdict: &Verdict, paint: Paint) -> String {
    let label = format!("{}:", verdict.label);
    let label = match verdict.health {
        Health::Healthy => paint.green(&label),
        Health::Degraded => paint.yellow(&label),
        Health::Unavailable => paint.red(&label),
    };
    let mut text = format!("{label} {}\n", verdict.summary);
    for (number, problem) in verdict.problems.iter().enumerate() {
        if number != 0 {
            text += &format!("also: {}\n", problem.what);
        }
        if let Some(next) = &problem.next {
            text += &format!("{} {next}\n", paint.cyan("next:"));
        }
    }
    text
}

fn to_json(survey: &Survey, verdict: Verdict) -> Json {
    let cluster = &survey.cluster;
    Json {
        health: verdict.health,
        summary: verdict.summary,
        action: verdict.problems.first().and_then(|problem| problem.next.clone()),
        may_lose: verdict.may_lose,
        must_not_lose: verdict.must_not_lose,
        problems: verdict.problems,
        cluster_id: cluster.cluster_id.clone(),
        answered_by: cluster.answered_by,
        version: cluster.version.clone(),
        meta_leader: Some(cluster.meta_leader).filter(|leader| *leader != 0),
        nodes: cluster.nodes.iter().map(|node| node_json(survey, node)).collect(),
        namespaces: cluster.namespaces.iter().map(NamespaceJson::from).collect(),
    }
}

fn node_json(survey: &Survey, node: &NodeStatus) -> NodeJson {
    let lacks = survey.lacks(node.id);
    let apart = survey.apart();
    let pairs = apart.iter().map(|pair| (pair.deaf, pair.unheard));
    let other = |(one, other)| [(one, other), (other, one)].into_iter().find(|(this, _)| *this == node.id);
    NodeJson {
        id: node.id,
        client_address: node.client_address.clone(),
        peer_address: node.peer_address.clone(),
        reachable: node.reachable,
        silence_ms: node.silence_ms,
        apart_from: pairs.filter_map(other).map(|(_, other)| other).collect(),
        regions_led: node.regions_led,
        state: match survey.node(node) {
            Node::Up => "up",
            Node::Unseen(_) => "unseen",
            Node::CutOff => "cut_off",
            Node::Down => "down",
        },
        entries_behind: survey.behind(node.id).map(|(entries, _)| entries),
        catalog_entries_behind: survey.behind_in_catalog(node.id),
        replicas_absent: lacks.as_ref().map(|lacks| [&lacks.absent[..], &lacks.unknown[..]].concat()),
        replicas_empty: lacks.map(|lacks| lacks.empty),
        disk_available_bytes: survey.disk_available_bytes(node.id),
        slow_sync_ms: survey.slow_sync_ms(node.id),
        clock_untrusted: survey.own(node.id).map(|own| own.clock_untrusted),
        clock_ahead_ms: node.clock_ahead_ms,
    }
}

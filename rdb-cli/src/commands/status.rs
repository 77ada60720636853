//! `rdb status`: first in words what the cluster may still lose and what to do, then the tables.

use super::ns::{NamespaceJson, namespace_table};
use crate::args::Args;
use crate::exit::Failure;
use crate::output::{Answer, Paint, table};
use rdb_client::ClusterStatus;
use serde::Serialize;

/// How the cluster is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Health {
    /// All is well.
    Healthy,
    /// It serves, and less than usual may go wrong.
    Degraded,
    /// Some of it does not serve.
    Unavailable,
}

/// In words.
#[derive(Debug)]
struct Verdict {
    health: Health,
    summary: String,
    /// What to do next.
    action: Option<String>,
    may_lose: usize,
}

#[derive(Serialize)]
struct Json {
    health: Health,
    summary: String,
    action: Option<String>,
    may_lose: usize,
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
    reachable: bool,
    silence_ms: u64,
    regions_led: u64,
}

pub(crate) async fn run(args: &Args) -> Result<Answer, Failure> {
    let status = args.connect().await?.status().await?;
    let verdict = judge(&status);
    let text = describe(&status, &verdict);
    let code = if verdict.health == Health::Unavailable { 3 } else { 0 };
    Ok(Answer::new(text, &to_json(&status, verdict)).with_exit_code(code))
}

fn judge(status: &ClusterStatus) -> Verdict {
    let total = status.nodes.len();
    let silent: Vec<_> = status.nodes.iter().filter(|node| !node.reachable).collect();
    let majority = total / 2 + 1;
    let reachable = total - silent.len();
    let may_lose = reachable.saturating_sub(majority);
    let names = silent
        .iter()
        .map(|node| {
            // A node that was never heard from has been silent for as long as the other one runs.
            format!(
                "node {} ({}, silent for {:.1} s)",
                node.id,
                node.client_address,
                seconds(node.silence_ms)
            )
        })
        .collect::<Vec<_>>()
        .join(", ");
    if reachable < majority {
        return Verdict {
            health: Health::Unavailable,
            summary: format!("{} of {total} nodes cannot be reached, a majority: {names}", silent.len()),
            action: Some(format!(
                "start {} of them; until then nothing can be written",
                majority - reachable
            )),
            may_lose,
        };
    }
    let leaderless: Vec<_> = status
        .namespaces
        .iter()
        .filter(|namespace| namespace.regions.iter().any(|region| region.leader == 0))
        .map(|namespace| namespace.name.as_str())
        .collect();
    if status.meta_leader == 0 || !leaderless.is_empty() {
        let mut what = leaderless;
        if status.meta_leader == 0 {
            what.insert(0, "the catalog");
        }
        return Verdict {
            health: Health::Unavailable,
            summary: format!("no leader is known for {}", what.join(", ")),
            action: Some("an election takes about a second; if this lasts, look at the nodes' logs".into()),
            may_lose,
        };
    }
    if !silent.is_empty() {
        let more = if may_lose == 0 { "no more node".into() } else { format!("{may_lose} more") };
        return Verdict {
            health: Health::Degraded,
            summary: format!("cannot be reached: {names}; may lose {more}"),
            action: Some("start it, or look at its log".into()),
            may_lose,
        };
    }
    let summary = match total {
        0 | 1 => "one node, which must not be lost".into(),
        _ => format!("may lose {may_lose} of {total} nodes"),
    };
    Verdict { health: Health::Healthy, summary, action: None, may_lose }
}

fn describe(status: &ClusterStatus, verdict: &Verdict) -> String {
    let paint = Paint::for_stdout();
    let word = match verdict.health {
        Health::Healthy => paint.green("healthy:"),
        Health::Degraded => paint.yellow("degraded:"),
        Health::Unavailable => paint.red("unavailable:"),
    };
    let mut text = format!("{word} {}\n", verdict.summary);
    if let Some(action) = &verdict.action {
        text += &format!("next: {action}\n");
    }
    let nodes = status.nodes.iter().map(|node| {
        let state = if node.reachable {
            "up".into()
        } else {
            format!("silent for {:.1} s", seconds(node.silence_ms))
        };
        let role = if node.id == status.meta_leader { "catalog" } else { "" };
        [
            node.id.to_string(),
            node.client_address.clone(),
            state,
            node.regions_led.to_string(),
            role.to_string(),
        ]
    });
    text += &format!("\n{}", table(["node", "address", "state", "leads", ""], nodes));
    if status.namespaces.is_empty() {
        text += "\nno namespaces; rdb ns create NAME  makes one\n";
    } else {
        text += &format!("\n{}", namespace_table(&status.namespaces));
    }
    text += &format!(
        "\ncluster {}, version {}, as node {} sees it\n",
        status.cluster_id, status.version, status.answered_by
    );
    text
}

fn to_json(status: &ClusterStatus, verdict: Verdict) -> Json {
    Json {
        health: verdict.health,
        summary: verdict.summary,
        action: verdict.action,
        may_lose: verdict.may_lose,
        cluster_id: status.cluster_id.clone(),
        answered_by: status.answered_by,
        version: status.version.clone(),
        meta_leader: Some(status.meta_leader).filter(|leader| *leader != 0),
        nodes: status
            .nodes
            .iter()
            .map(|node| NodeJson {
                id: node.id,
                client_address: node.client_address.clone(),
                peer_address: node.peer_address.clone(),
                reachable: node.reachable,
                silence_ms: node.silence_ms,
                regions_led: node.regions_led,
            })
            .collect(),
        namespaces: status.namespaces.iter().map(NamespaceJson::from).collect(),
    }
}

#[allow(clippy::cast_precision_loss, reason = "for people, in tenths of a second")]
fn seconds(milliseconds: u64) -> f64 {
    milliseconds as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdb_client::{Mode, NamespaceStatus, NodeStatus, RegionStatus};

    /// A cluster of `reachable.len()` nodes with one namespace, led by `leader`.
    fn cluster(reachable: &[bool], leader: u64) -> ClusterStatus {
        let region = RegionStatus {
            id: 1,
            leader,
            term: 1,
            commit_index: 1,
            applied_index: 1,
            members: vec![1, 2, 3],
        };
        ClusterStatus {
            cluster_id: "c".into(),
            answered_by: 1,
            version: "0".into(),
            meta_leader: 1,
            nodes: (1..)
                .zip(reachable)
                .map(|(id, reachable)| NodeStatus {
                    id,
                    client_address: format!("host:{id}"),
                    peer_address: String::new(),
                    reachable: *reachable,
                    silence_ms: 1500,
                    regions_led: 0,
                })
                .collect(),
            namespaces: vec![NamespaceStatus {
                preferred_leader: 1,
                deleting: false,
                name: "fruit".into(),
                id: 1,
                mode: Mode::Strong,
                epoch: 1,
                era: 1,
                regions: vec![region],
            }],
        }
    }

    #[test]
    fn says_what_may_be_lost_and_what_to_do() {
        let check = |reachable: &[bool], leader, health, summary: &str| {
            let verdict = judge(&cluster(reachable, leader));
            assert_eq!((verdict.health, verdict.summary.as_str()), (health, summary));
            assert_eq!(verdict.action.is_some(), health != Health::Healthy);
        };
        check(&[true; 3], 1, Health::Healthy, "may lose 1 of 3 nodes");
        check(&[true; 5], 1, Health::Healthy, "may lose 2 of 5 nodes");
        check(&[true], 1, Health::Healthy, "one node, which must not be lost");
        let silent = "node 2 (host:2, silent for 1.5 s)";
        check(
            &[true, false, true],
            1,
            Health::Degraded,
            &format!("cannot be reached: {silent}; may lose no more node"),
        );
        check(&[true; 3], 0, Health::Unavailable, "no leader is known for fruit");
        check(
            &[true, false, false],
            1,
            Health::Unavailable,
            &format!(
                "2 of 3 nodes cannot be reached, a majority: {silent}, node 3 (host:3, silent for 1.5 s)"
            ),
        );
    }
}

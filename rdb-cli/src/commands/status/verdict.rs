//! What the answers mean: what the cluster survives, what is wrong, and what to do about it.

use super::survey::{Node, Survey};
use rdb_client::NodeStatus;
use serde::Serialize;

/// Entries behind which a node is said to lag. Fewer come and go: the nodes are not asked at one moment.
const LAG_ENTRIES: u64 = 1000;
/// `./x demo` gives its cluster this name. Its nodes are started and mended in other ways.
const DEMO_CLUSTER: &str = "demo";

/// How the cluster is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Health {
    /// All is well.
    Healthy,
    /// It serves, and less than usual may go wrong.
    Degraded,
    /// Some of it does not serve.
    Unavailable,
}

/// What may be wrong, the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    NoQuorum,
    NoLeader,
    NodeDown,
    NodeCutOff,
    NodeUnseen,
    DiskFull,
    Lag,
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Problem {
    pub(super) kind: Kind,
    pub(super) what: String,
    /// What to do about it; null: what another problem says.
    pub(super) next: Option<String>,
    pub(super) nodes: Vec<u64>,
    pub(super) namespaces: Vec<String>,
}

/// All of it, the worst first.
#[derive(Debug)]
pub(super) struct Verdict {
    pub(super) health: Health,
    /// In a word or two.
    pub(super) label: &'static str,
    pub(super) summary: String,
    /// Nodes that may be lost, besides those that are.
    pub(super) may_lose: usize,
    pub(super) problems: Vec<Problem>,
}

pub(super) fn judge(survey: &Survey) -> Verdict {
    let total = survey.cluster.nodes.len();
    let heard = survey.cluster.nodes.iter().filter(|node| node.reachable).count();
    let majority = total / 2 + 1;
    // One that we alone do not reach may have died a moment ago: it is not counted on.
    let up = survey.cluster.nodes.iter().filter(|node| survey.node(node) == Node::Up).count();
    let may_lose = up.saturating_sub(majority);
    let mut problems = Vec::new();
    if heard < majority {
        problems.push(no_quorum(survey, heard, majority));
    } else {
        problems.extend(no_leader(survey));
    }
    let unavailable = !problems.is_empty();
    let has_quorum = majority <= heard;
    for node in &survey.cluster.nodes {
        problems.extend(node_problem(survey, node, has_quorum));
        problems.extend(disk_problem(survey, node));
        problems.extend(lag_problem(survey, node));
    }
    problems.sort_by_key(|problem| problem.kind);
    let (health, label) = match problems.first() {
        None => (Health::Healthy, "healthy"),
        Some(Problem { kind: Kind::NoQuorum, .. }) => (Health::Unavailable, "no quorum"),
        Some(Problem { kind: Kind::NoLeader, .. }) => (Health::Unavailable, "no leader"),
        Some(_) => (Health::Degraded, "degraded"),
    };
    let summary = match problems.first() {
        None if total <= 1 => "one node, which must not be lost".into(),
        None => format!("may lose {may_lose} of {total} nodes"),
        Some(problem) if unavailable => problem.what.clone(),
        Some(problem) => format!("{}; {}", problem.what, what_is_left(may_lose, total, up)),
    };
    Verdict { health, label, summary, may_lose, problems }
}

/// What a cluster still serves and may lose where something is wrong.
fn what_is_left(may_lose: usize, total: usize, up: usize) -> String {
    match may_lose {
        _ if total <= 1 => "it is the only node, and must not be lost".into(),
        0 => "serves, but may lose no more nodes".into(),
        _ if up == total => format!("serves, and may lose {may_lose} of {total} nodes"),
        1 => "serves, and may lose 1 more node".into(),
        _ => format!("serves, and may lose {may_lose} more nodes"),
    }
}

fn no_quorum(survey: &Survey, heard: usize, majority: usize) -> Problem {
    let total = survey.cluster.nodes.len();
    let missing: Vec<_> = survey.cluster.nodes.iter().filter(|node| !node.reachable).collect();
    let cut_off = missing.iter().all(|node| survey.node(node) == Node::CutOff);
    let ids: Vec<u64> = missing.iter().map(|node| node.id).collect();
    let next = if cut_off {
        mend(survey)
    } else {
        format!("start {} of them again: {}", majority - heard, start(survey, &ids))
    };
    Problem {
        kind: Kind::NoQuorum,
        what: format!(
            "no more than {heard} of {total} nodes hear each other, and it takes {majority}; nothing can be written, and \
             only stale reads are served"
        ),
        next: Some(next),
        nodes: ids,
        namespaces: Vec::new(),
    }
}

fn no_leader(survey: &Survey) -> Option<Problem> {
    let leaderless = survey
        .cluster
        .namespaces
        .iter()
        .filter(|namespace| namespace.regions.iter().any(|region| region.leader == 0));
    let namespaces: Vec<String> = leaderless.map(|namespace| namespace.name.clone()).collect();
    let mut what: Vec<String> = namespaces.iter().map(|name| format!("'{name}'")).collect();
    if survey.cluster.meta_leader == 0 {
        what.insert(0, "the catalog".into());
    }
    let has = if what.len() == 1 { "has" } else { "have" };
    (!what.is_empty()).then(|| Problem {
        kind: Kind::NoLeader,
        what: format!("{} {has} no leader, and takes no writes until one is elected", in_words(&what)),
        next: Some(
            "an election takes about a second: ask again; if this lasts, look at the nodes' logs".into(),
        ),
        nodes: Vec::new(),
        namespaces,
    })
}

/// Up to three by name.
fn in_words(what: &[String]) -> String {
    match what {
        [only] => only.clone(),
        [first, second] => format!("{first} and {second}"),
        [first, second, rest @ ..] => format!("{first}, {second} and {} more", rest.len()),
        [] => String::new(),
    }
}

fn node_problem(survey: &Survey, node: &NodeStatus, has_quorum: bool) -> Option<Problem> {
    let name = format!("node {} ({})", node.id, node.client_address);
    let (kind, what, next) = match survey.node(node) {
        Node::Up => return None,
        Node::Unseen(why) => (
            Kind::NodeUnseen,
            format!(
                "{name} cannot be reached from here ({why}), though the others have heard it within the last second"
            ),
            format!(
                "ask again in a second, if it may have stopped just now; else look at what lies between this machine and {}",
                node.client_address
            ),
        ),
        Node::CutOff => (
            Kind::NodeCutOff,
            format!("{name} runs, but the others have not heard it {}", silence(survey, node)),
            mend(survey),
        ),
        Node::Down => (
            Kind::NodeDown,
            format!("{name} has been unreachable {}", silence(survey, node)),
            if survey.is_mute(node.id) {
                wake(survey, node.id)
            } else {
                format!("start it again: {}", start(survey, &[node.id]))
            },
        ),
    };
    // Without a quorum, that problem says what to do.
    let next = Some(next).filter(|_| has_quorum || kind == Kind::NodeUnseen);
    Some(Problem { kind, what, next, nodes: vec![node.id], namespaces: Vec::new() })
}

/// Nodes count from when they start: they cannot tell how long a node is away that they never heard.
fn silence(survey: &Survey, node: &NodeStatus) -> String {
    match node.silence_ms {
        0 => format!("since node {} started", survey.cluster.answered_by),
        silence_ms => format!("for {}", duration(silence_ms)),
    }
}

/// In tenths where that matters.
pub(super) fn duration(milliseconds: u64) -> String {
    match milliseconds / 1000 {
        seconds @ 0..10 => format!("{seconds}.{} s", milliseconds % 1000 / 100),
        seconds @ 10..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    }
}

fn start(survey: &Survey, nodes: &[u64]) -> String {
    if survey.cluster.cluster_id != DEMO_CLUSTER {
        return "its log says why it stopped".into();
    }
    match nodes {
        [node] => format!("./x demo, or \\start {node} at its prompt"),
        _ => "./x demo, or \\start N at its prompt".into(),
    }
}

fn wake(survey: &Survey, node: u64) -> String {
    let paused = format!("; \\resume {node} at the demo's prompt, if it was paused there");
    let how = if survey.cluster.cluster_id == DEMO_CLUSTER { paused.as_str() } else { "" };
    format!("it does not even refuse to answer: see whether it hangs, or its machine is gone{how}")
}

fn mend(survey: &Survey) -> String {
    let how = if survey.cluster.cluster_id == DEMO_CLUSTER {
        "; \\heal at the demo's prompt mends its cuts"
    } else {
        ""
    };
    format!("look at the network between the nodes' peer addresses{how}")
}

fn disk_problem(survey: &Survey, node: &NodeStatus) -> Option<Problem> {
    survey.disk_is_full(node.id).then(|| {
        let left = survey.disk_available_bytes(node.id).unwrap_or_default() >> 20;
        Problem {
            kind: Kind::DiskFull,
            what: format!(
                "the disk of node {} ({}) is full: {left} MiB are left, less than its reserve, and it takes no writes",
                node.id, node.client_address
            ),
            next: Some("make room on that disk; it takes writes again by itself".into()),
            nodes: vec![node.id],
            namespaces: Vec::new(),
        }
    })
}

fn lag_problem(survey: &Survey, node: &NodeStatus) -> Option<Problem> {
    let (entries, namespace) = survey.behind(node.id)?;
    (LAG_ENTRIES < entries).then(|| Problem {
        kind: Kind::Lag,
        what: format!(
            "node {} ({}) is {entries} entries behind in '{namespace}'",
            node.id, node.client_address
        ),
        next: Some(
            "it catches up by itself: ask again; if the number does not shrink, look at its log and disk"
                .into(),
        ),
        nodes: vec![node.id],
        namespaces: vec![namespace.into()],
    })
}

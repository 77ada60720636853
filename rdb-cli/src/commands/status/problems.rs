//! What may be wrong: each in words that say what it costs, and what to do about it.

use super::links::Apart;
use super::survey::{Node, Survey};
use rdb_client::NodeStatus;
use serde::Serialize;

/// Entries behind which a node is said to lag. Fewer come and go: the nodes are not asked at one moment.
const LAG_ENTRIES: u64 = 1000;
/// The same in the catalog, where each entry is a command of a person or a node that joins.
const CATALOG_LAG_ENTRIES: u64 = 10;
/// What to do about a node that is behind.
const CATCHES_UP: &str =
    "it catches up by itself: ask again; if the number does not shrink, look at its log and disk";
/// A node that is off from a majority may agree with some: how far it is off is told by the others.
const CLOCK_DIFFERS_MS_MIN: u64 = 5_000;
/// `./x demo` gives its cluster this name. Its nodes are started and mended in other ways.
const DEMO_CLUSTER: &str = "demo";

/// What may be wrong, the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    NoQuorum,
    NoLeader,
    NodeDown,
    NodeCutOff,
    NodesApart,
    NodeUnseen,
    ReplicaAbsent,
    ClockOff,
    DiskFull,
    DiskSlow,
    ReplicaEmpty,
    CatalogLag,
    Lag,
}

impl Kind {
    /// Whether it is there for a moment after something was created or started, and no trouble unless it lasts.
    pub(super) fn may_pass(self) -> bool {
        matches!(self, Kind::NodesApart | Kind::ReplicaAbsent | Kind::ReplicaEmpty | Kind::CatalogLag)
    }
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

/// All that is wrong, the worst first.
pub(super) fn find(survey: &Survey) -> Vec<Problem> {
    let total = survey.cluster.nodes.len();
    let (heard, majority) = (survey.heard(), total / 2 + 1);
    let has_quorum = majority <= heard;
    let mut problems = Vec::new();
    if has_quorum {
        problems.extend(no_leader(survey));
    } else {
        problems.push(no_quorum(survey, heard, majority));
    }
    for node in &survey.cluster.nodes {
        problems.extend(node_problem(survey, node, has_quorum));
        problems.extend(disk_problem(survey, node));
        problems.extend(slow_disk_problem(survey, node));
        problems.extend(clock_problem(survey, node));
        problems.extend(replica_problems(survey, node));
        problems.extend(catalog_problem(survey, node));
        problems.extend(lag_problem(survey, node));
    }
    problems.extend(survey.apart().iter().map(|pair| apart_problem(survey, pair, has_quorum)));
    problems.sort_by_key(|problem| problem.kind);
    problems
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
    let mut what = quoted(&namespaces);
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

fn named(node: &NodeStatus) -> String {
    format!("node {} ({})", node.id, node.client_address)
}

fn node_problem(survey: &Survey, node: &NodeStatus, has_quorum: bool) -> Option<Problem> {
    let name = named(node);
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
            if survey.is_deaf(node.id) {
                format!("{name} runs, but does not hear the others, though they hear it")
            } else {
                format!("{name} runs, but the others have not heard it {}", silence(survey, node))
            },
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
    format!("look at the network between the nodes' peer addresses{}", heal(survey))
}

fn heal(survey: &Survey) -> &'static str {
    if survey.cluster.cluster_id == DEMO_CLUSTER {
        "; \\heal at the demo's prompt mends its cuts"
    } else {
        ""
    }
}

/// By its own measure: who hears nobody has none, and goes on.
fn clock_problem(survey: &Survey, node: &NodeStatus) -> Option<Problem> {
    let own = survey.own(node.id).filter(|own| own.clock_untrusted)?;
    let ahead = own.nodes.iter().filter_map(|other| other.clock_ahead_ms);
    let off = ahead.filter(|ahead_ms| CLOCK_DIFFERS_MS_MIN <= ahead_ms.unsigned_abs());
    let nearest = off.min_by_key(|ahead_ms| ahead_ms.unsigned_abs()).unwrap_or_default();
    let side = if nearest < 0 { "ahead" } else { "behind" };
    Some(Problem {
        kind: Kind::ClockOff,
        what: format!(
            "the clock of {} is {} {side} of the others', and it takes no writes of eventual namespaces",
            named(node),
            duration(nearest.unsigned_abs())
        ),
        next: Some(
            "set the clock of that machine, then start the node again: a running node does not follow its wall clock"
                .into(),
        ),
        nodes: vec![node.id],
        namespaces: Vec::new(),
    })
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

fn slow_disk_problem(survey: &Survey, node: &NodeStatus) -> Option<Problem> {
    let slow_sync_ms = survey.slow_sync_ms(node.id).filter(|ms| *ms != 0)?;
    Some(Problem {
        kind: Kind::DiskSlow,
        what: format!(
            "the disk of node {} ({}) is slow: a sync of its log takes {slow_sync_ms} ms; it hands over what others could lead",
            node.id, node.client_address
        ),
        next: Some(
            "look at what else uses that disk, and at the disk itself; leaderships return by themselves"
                .into(),
        ),
        nodes: vec![node.id],
        namespaces: Vec::new(),
    })
}

/// Of the replica that is worst. One that is empty or not there is told of as what it is.
fn lag_problem(survey: &Survey, node: &NodeStatus) -> Option<Problem> {
    let (entries, namespace) = survey.behind(node.id)?;
    let namespace = namespace.filter(|_| LAG_ENTRIES < entries)?;
    let lacks = survey.lacks(node.id)?;
    let lacks = [lacks.absent, lacks.empty, lacks.unknown].concat();
    (!lacks.iter().any(|name| name == namespace)).then(|| Problem {
        kind: Kind::Lag,
        what: format!("{} is {entries} entries behind in '{namespace}'", named(node)),
        next: Some(CATCHES_UP.into()),
        nodes: vec![node.id],
        namespaces: vec![namespace.into()],
    })
}

/// Replicas that are not there, and those that are there and empty.
fn replica_problems(survey: &Survey, node: &NodeStatus) -> Vec<Problem> {
    let Some(lacks) = survey.lacks(node.id) else { return Vec::new() };
    let problem = |kind, names: Vec<String>, what: &str, next: &str| {
        (!names.is_empty()).then(|| Problem {
            kind,
            what: format!("{} has {what} of {}", named(node), in_words(&quoted(&names))),
            next: Some(next.into()),
            nodes: vec![node.id],
            namespaces: names,
        })
    };
    let absent = problem(
        Kind::ReplicaAbsent,
        lacks.absent,
        "no replica",
        "it makes one by itself, as its catalog says: ask again; if this lasts, its log says what is in the way",
    );
    let empty = problem(
        Kind::ReplicaEmpty,
        lacks.empty,
        "an empty replica",
        "the leader fills it, with its log or a snapshot: ask again; if this lasts, look at both nodes' logs and disks",
    );
    absent.into_iter().chain(empty).collect()
}

/// A node whose catalog is old does not know what it should hold, nor whom to refuse.
fn catalog_problem(survey: &Survey, node: &NodeStatus) -> Option<Problem> {
    let entries = survey.behind_in_catalog(node.id)?;
    let unknown = survey.lacks(node.id)?.unknown;
    (CATALOG_LAG_ENTRIES < entries || !unknown.is_empty()).then(|| {
        let (name, unit) = (named(node), if entries == 1 { "entry" } else { "entries" });
        let misses = match &unknown[..] {
            [] => String::new(),
            unknown => format!(", and does not know of {}", in_words(&quoted(unknown))),
        };
        Problem {
            kind: Kind::CatalogLag,
            what: format!("{name} is {entries} {unit} behind in the catalog{misses}"),
            next: Some(CATCHES_UP.into()),
            nodes: vec![node.id],
            namespaces: unknown,
        }
    })
}

/// Two nodes that do not hear each other, and what does not pass between them.
fn apart_problem(survey: &Survey, pair: &Apart, has_quorum: bool) -> Problem {
    let node = |id| survey.cluster.nodes.iter().find(|node| node.id == id);
    let name = |id: u64| node(id).map_or_else(|| format!("node {id}"), named);
    let peer = |id: u64| node(id).map_or("?", |node| node.peer_address.as_str());
    let (deaf, unheard) = (name(pair.deaf), name(pair.unheard));
    let since = match pair.silence_ms {
        0 => "since one of them started".into(),
        silence_ms => format!("for {}", duration(silence_ms)),
    };
    let hears = match pair.mutual {
        true => format!("{deaf} and {unheard} have not heard each other {since}"),
        false => format!("{deaf} has not heard {unheard} {since}"),
    };
    let leads = |node| node == pair.deaf || node == pair.unheard;
    let led =
        survey.cluster.namespaces.iter().filter(|of| of.regions.iter().any(|region| leads(region.leader)));
    let namespaces: Vec<String> = led.map(|namespace| namespace.name.clone()).collect();
    let mut led = quoted(&namespaces);
    if leads(survey.cluster.meta_leader) {
        led.insert(0, "the catalog".into());
    }
    let costs = match &led[..] {
        [] => "what one of them comes to lead will not be copied to the other".into(),
        led => format!("what one of them leads is not copied to the other: {}", in_words(led)),
    };
    let next =
        format!("look at the network between {} and {}{}", peer(pair.deaf), peer(pair.unheard), heal(survey));
    Problem {
        kind: Kind::NodesApart,
        what: format!("{hears}, and {costs}"),
        next: Some(next).filter(|_| has_quorum),
        nodes: vec![pair.deaf, pair.unheard],
        namespaces,
    }
}

fn quoted(names: &[String]) -> Vec<String> {
    names.iter().map(|name| format!("'{name}'")).collect()
}

//! Asks every node how the cluster is. One node's word is not enough: a node that is cut off believes the others dead, and
//! only a node itself knows how far its data is and how full its disk.

use super::links::{self, Apart, Words};
use super::replicas::find;
use crate::exit::Failure;
use rdb_client::{Client, ClusterStatus, NodeStatus};
use std::cmp::Reverse;
use std::collections::BTreeSet;
use tokio::task::JoinSet;

/// How the client says that a node did not answer in time.
const TIMED_OUT: &str = "timed out";

/// What the nodes answered.
#[derive(Debug)]
pub(crate) struct Survey {
    /// The cluster, as that part of it sees it whose word counts most: where the most nodes hear each other. What is
    /// reachable there is what any of that part hears.
    pub(crate) cluster: ClusterStatus,
    own: Words,
}

/// How a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Node {
    /// It answers, and others hear it, though perhaps not all of them.
    Up,
    /// The others hear it, and it cannot be reached from here.
    Unseen(String),
    /// It answers, and it and the others do not hear each other.
    CutOff,
    /// Nobody reaches it.
    Down,
}

/// Asks all nodes at once, for a second at most.
pub(crate) async fn ask(client: &Client) -> Result<Survey, Failure> {
    let mut asked = JoinSet::new();
    for address in client.nodes() {
        let client = client.clone();
        asked.spawn(async move {
            let answer = client.status_at(&address).await;
            (address, answer)
        });
    }
    let mut answers = Vec::new();
    let mut silent = Vec::new();
    let mut failure = None;
    while let Some(joined) = asked.join_next().await {
        match joined {
            Ok((_, Ok(status))) => answers.push(status),
            Ok((address, Err(error))) => {
                silent.push((address, reason(&error)));
                failure = Some(error);
            }
            Err(_) => {}
        }
    }
    match (merge(answers, &silent), failure) {
        (Some(survey), _) => Ok(survey),
        (None, Some(rdb_client::Error::Unreachable { reason, attempted, .. })) => {
            let mut nodes: Vec<_> = silent.into_iter().map(|(address, _)| address).collect();
            nodes.sort_unstable();
            Err(rdb_client::Error::Unreachable { nodes: nodes.join(", "), reason, attempted }.into())
        }
        (None, Some(error)) => Err(error.into()),
        (None, None) => Err(Failure::usage("no nodes are known")),
    }
}

fn reason(error: &rdb_client::Error) -> String {
    match error {
        rdb_client::Error::Unreachable { reason, .. } => reason.clone(),
        error => error.to_string(),
    }
}

/// Puts the answers together; `None` if there are none. `silent` are addresses, and why they did not answer.
pub(super) fn merge(answers: Vec<ClusterStatus>, silent: &[(String, String)]) -> Option<Survey> {
    let mut own: Words = answers.into_iter().map(|answer| (answer.answered_by, Ok(answer))).collect();
    let mut cluster = own.values().flatten().max_by_key(|answer| weight(&own, answer))?.clone();
    for node in &cluster.nodes {
        let why = silent.iter().find(|(address, _)| *address == node.client_address);
        let why = why.map_or("it was not asked", |(_, why)| why);
        own.entry(node.id).or_insert_with(|| Err(why.to_owned()));
    }
    let reached = links::reached(&own, cluster.answered_by);
    for node in &mut cluster.nodes {
        take_in_silence(node, &own, &reached);
    }
    let counting: Vec<_> = reached.iter().filter_map(|node| own.get(node)?.as_ref().ok()).collect();
    take_in_catalog(&mut cluster, &counting);
    for region in cluster.namespaces.iter_mut().flat_map(|namespace| &mut namespace.regions) {
        let views = || counting.iter().filter_map(|answer| find(answer, region.id));
        // Of one term, a node that has not heard of its leader knows less than one that has.
        let Some(newest) = views().max_by_key(|view| (view.term, view.leader != 0)) else { continue };
        let commit_index = views().map(|view| view.commit_index).max().unwrap_or_default();
        (region.leader, region.term, region.commit_index) = (newest.leader, newest.term, commit_index);
    }
    Some(Survey { cluster, own })
}

/// Whose word counts: the one who hears and is heard by the most nodes, and of those the catalog's leader.
fn weight(own: &Words, answer: &ClusterStatus) -> (usize, bool, Reverse<u64>) {
    let by = answer.answered_by;
    let linked = answer.nodes.iter().filter(|node| links::linked(own, by, node.id)).count();
    (linked, answer.meta_leader == by, Reverse(by))
}

/// A node is reached if one of those who count hears it, and silent since the last of them heard it.
fn take_in_silence(node: &mut NodeStatus, own: &Words, reached: &BTreeSet<u64>) {
    node.reachable = reached.contains(&node.id);
    let others = reached.iter().filter(|by| **by != node.id);
    let said = others.filter_map(|by| links::word(own, *by, node.id)).map(|said| said.silence_ms);
    // 0: it never heard it.
    node.silence_ms = said.filter(|silence_ms| *silence_ms != 0).min().unwrap_or(node.silence_ms);
}

/// The namespaces as the node knows them whose catalog is the newest: another one may not have heard of one yet.
fn take_in_catalog(cluster: &mut ClusterStatus, counting: &[&ClusterStatus]) {
    let catalogs = || counting.iter().filter_map(|answer| Some((*answer, answer.catalog.as_ref()?)));
    let Some(own) = cluster.catalog.clone() else { return };
    let newest = catalogs().max_by_key(|(_, catalog)| catalog.applied_index);
    if let Some((newest, catalog)) = newest.filter(|(_, catalog)| own.applied_index < catalog.applied_index) {
        cluster.namespaces.clone_from(&newest.namespaces);
        cluster.catalog = Some(catalog.clone());
    }
    if let Some((_, catalog)) = catalogs().max_by_key(|(_, catalog)| (catalog.term, catalog.leader != 0)) {
        cluster.meta_leader = catalog.leader;
    }
    let committed = catalogs().map(|(_, catalog)| catalog.commit_index).max();
    if let (Some(catalog), Some(committed)) = (&mut cluster.catalog, committed) {
        catalog.commit_index = committed;
    }
}

impl Survey {
    pub(crate) fn node(&self, node: &NodeStatus) -> Node {
        match (node.reachable, self.own.get(&node.id)) {
            (true, Some(Err(why))) => Node::Unseen(why.clone()),
            (true, _) => Node::Up,
            (false, Some(Ok(_))) => Node::CutOff,
            (false, _) => Node::Down,
        }
    }

    /// Whether the node takes connections and says nothing, so that it hangs, or its machine is gone.
    pub(super) fn is_mute(&self, node: u64) -> bool {
        matches!(self.own.get(&node), Some(Err(why)) if why == TIMED_OUT)
    }

    /// A node's own words, where it answered.
    pub(super) fn own(&self, node: u64) -> Option<&ClusterStatus> {
        self.own.get(&node)?.as_ref().ok()
    }

    /// How many nodes the one hears whose word counts, itself included: more than any other one.
    pub(super) fn heard(&self) -> usize {
        let by = self.cluster.answered_by;
        self.cluster.nodes.iter().filter(|node| self.linked(by, node.id)).count()
    }

    /// The nodes that answer, and that the others hear.
    pub(super) fn up(&self) -> BTreeSet<u64> {
        let up = self.cluster.nodes.iter().filter(|node| self.node(node) == Node::Up);
        up.map(|node| node.id).collect()
    }

    pub(super) fn linked(&self, one: u64, other: u64) -> bool {
        links::linked(&self.own, one, other)
    }

    /// The pairs of nodes that are up and do not hear each other.
    pub(crate) fn apart(&self) -> Vec<Apart> {
        links::apart(&self.own, &self.up())
    }

    /// Whether some of the others hear a node that is cut off, which then does not hear them.
    pub(super) fn is_deaf(&self, node: u64) -> bool {
        self.up().iter().any(|by| links::word(&self.own, *by, node).is_some_and(|said| said.reachable))
    }

    pub(super) fn disk_is_full(&self, node: u64) -> bool {
        self.own(node).is_some_and(|own| own.disk_full)
    }

    /// By the node's own word. `None`: it did not answer.
    pub(super) fn slow_sync_ms(&self, node: u64) -> Option<u32> {
        let own = self.own(node)?.nodes.iter().find(|known| known.id == node);
        own.map(|known| known.slow_sync_ms)
    }

    pub(super) fn disk_available_bytes(&self, node: u64) -> Option<u64> {
        self.own(node).map(|own| own.disk_available_bytes).filter(|bytes| *bytes != 0)
    }
}

//! Asks every node how the cluster is. One node's word is not enough: a node that is cut off believes the others dead, and
//! only a node itself knows how far its data is and how full its disk.

use crate::exit::Failure;
use rdb_client::{Client, ClusterStatus, NodeStatus, RegionStatus};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use tokio::task::JoinSet;

/// How the client says that a node did not answer in time.
const TIMED_OUT: &str = "timed out";

/// What the nodes answered.
#[derive(Debug)]
pub(crate) struct Survey {
    /// The cluster, as that part of it sees it whose word counts most: where the most nodes hear each other.
    pub(crate) cluster: ClusterStatus,
    /// Each node's own words, or why it was not reached from here.
    own: BTreeMap<u64, Result<ClusterStatus, String>>,
}

/// How a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Node {
    /// It answers, and the others hear it.
    Up,
    /// The others hear it, and it cannot be reached from here.
    Unseen(String),
    /// It answers, and the others do not hear it.
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
    let mut own: BTreeMap<u64, Result<ClusterStatus, String>> =
        answers.into_iter().map(|answer| (answer.answered_by, Ok(answer))).collect();
    let mut cluster = own.values().flatten().max_by_key(|answer| weight(answer))?.clone();
    for node in &cluster.nodes {
        let why = silent.iter().find(|(address, _)| *address == node.client_address);
        let why = why.map_or("it was not asked", |(_, why)| why);
        own.entry(node.id).or_insert_with(|| Err(why.to_owned()));
    }
    let heard: Vec<u64> = cluster.nodes.iter().filter(|node| node.reachable).map(|node| node.id).collect();
    let counting =
        || own.iter().filter(|(id, _)| heard.contains(id)).filter_map(|(_, own)| own.as_ref().ok());
    for namespace in &mut cluster.namespaces {
        for region in &mut namespace.regions {
            let views = counting().filter_map(|answer| find(answer, region.id));
            // Of one term, a node that has not heard of its leader knows less than one that has.
            let newest = views.max_by_key(|view| (view.term, view.leader != 0));
            let Some(newest) = newest else { continue };
            (region.leader, region.term) = (newest.leader, newest.term);
            region.commit_index = region.commit_index.max(newest.commit_index);
        }
    }
    Some(Survey { cluster, own })
}

/// Whose word counts: the one who hears the most nodes, and of those the catalog's leader.
fn weight(answer: &ClusterStatus) -> (usize, bool, Reverse<u64>) {
    let hears = answer.nodes.iter().filter(|node| node.reachable).count();
    (hears, answer.meta_leader == answer.answered_by, Reverse(answer.answered_by))
}

fn find(answer: &ClusterStatus, region: u64) -> Option<&RegionStatus> {
    answer.namespaces.iter().flat_map(|namespace| &namespace.regions).find(|view| view.id == region)
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
    fn own(&self, node: u64) -> Option<&ClusterStatus> {
        self.own.get(&node)?.as_ref().ok()
    }

    pub(super) fn disk_is_full(&self, node: u64) -> bool {
        self.own(node).is_some_and(|own| own.disk_full)
    }

    pub(super) fn disk_available_bytes(&self, node: u64) -> Option<u64> {
        self.own(node).map(|own| own.disk_available_bytes).filter(|bytes| *bytes != 0)
    }

    /// Entries that the node has yet to apply of what is committed, and in which namespace it is worst.
    pub(super) fn behind(&self, node: u64) -> Option<(u64, &str)> {
        let own = self.own(node)?;
        let lags = self.cluster.namespaces.iter().flat_map(|namespace| {
            namespace.regions.iter().filter_map(|region| {
                let applied = find(own, region.id)?.applied_index;
                Some((region.commit_index.saturating_sub(applied), namespace.name.as_str()))
            })
        });
        lags.max_by_key(|(entries, _)| *entries)
    }
}

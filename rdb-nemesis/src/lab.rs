//! What a fault has in its hands: the nodes, a client, and the history in which it leaves notes.

use crate::cluster::{Cluster, Leader};
use crate::history::History;
use anyhow::Result;
use rdb_client::Client;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// After a fault, so that what it has caused is seen: more than an election takes.
const LOOK_AFTER: Duration = Duration::from_millis(200);

/// What a fault has in its hands.
pub(crate) struct Lab {
    pub(crate) cluster: Cluster,
    pub(crate) client: Client,
    pub(crate) history: Arc<History>,
}

/// How soon writes must be acknowledged again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bar {
    /// A majority with a leader was there all the time, or the fault is none of those that are judged by it.
    None,
    /// A majority has lost its leader: counted from the fault's beginning.
    LeaderLost,
    /// A leader has handed over in good order and gone: counted from then. It says nothing about elections.
    HandedOver,
    /// No majority was left: counted from the fault's end.
    AllLost,
}

/// What a fault did, and how that shows.
#[derive(Debug, Clone)]
pub(crate) struct Evidence {
    /// What was done, to whom, for how long.
    pub(crate) what: String,
    /// When it was done.
    pub(crate) began_ns: u64,
    /// When it was undone.
    pub(crate) ended_ns: u64,
    /// Whether it has really happened, and how that shows.
    pub(crate) seen: Result<String, String>,
    /// Whether it cannot have passed without a failed operation or another leader.
    pub(crate) disturbs: bool,
    /// Whether the leader, or its term, was another one afterwards.
    pub(crate) leader_changed: bool,
    /// How soon writes must be acknowledged again.
    pub(crate) bar: Bar,
}

/// A fault under way.
pub(crate) struct Strike {
    what: String,
    began_ns: u64,
    before: Leader,
    /// Who leads when the fault is about to be undone, where somebody does.
    pub(crate) during: Option<Leader>,
    disturbs: bool,
    bar: Bar,
}

impl Lab {
    /// Somebody who leads, now.
    pub(crate) async fn leader(&self) -> Result<Leader> {
        self.cluster.leader().await
    }

    /// To be called when the fault has just been done; `leader` led before.
    pub(crate) fn struck(&self, leader: Leader, bar: Bar, what: String) -> Strike {
        self.history.note(format!("fault: {what}"));
        let began_ns = self.history.now_ns();
        Strike { what, began_ns, before: leader, during: None, disturbs: bar != Bar::None, bar }
    }

    /// Lets a fault last.
    pub(crate) async fn hold(&self, strike: &mut Strike, lasts: Duration) {
        sleep(lasts.saturating_sub(LOOK_AFTER)).await;
        strike.during = self.cluster.leader_now().await;
        sleep(LOOK_AFTER.min(lasts)).await;
    }

    /// Undoes a fault and says how it went.
    pub(crate) async fn undo(&mut self, strike: Strike, seen: Result<String, String>) -> Result<Evidence> {
        self.cluster.heal().await?;
        let ended_ns = self.history.now_ns();
        self.history.note(format!("healed: {}", strike.what));
        let after = self.cluster.leader().await?;
        let leader_changed =
            after != strike.before || strike.during.is_some_and(|during| during != strike.before);
        let Strike { what, began_ns, disturbs, bar, .. } = strike;
        Ok(Evidence { what, began_ns, ended_ns, seen, disturbs, leader_changed, bar })
    }
}

/// A length of time as people say it.
pub(crate) fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

//! What a fault has in its hands: the nodes, a client, and the history in which it leaves notes.

use crate::cluster::{Cluster, Leader};
use crate::demand::Demand;
use crate::history::History;
use anyhow::Result;
use rdb_client::Client;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// After a fault, so that what it has caused is seen: more than an election takes.
const LOOK_AFTER: Duration = Duration::from_millis(200);
/// Between looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// What a fault has in its hands.
pub(crate) struct Lab {
    pub(crate) cluster: Cluster,
    pub(crate) client: Client,
    pub(crate) history: Arc<History>,
    /// What clients must be able to do while a fault lasts that leaves a majority.
    pub(crate) demand: Demand,
    /// For how long a fault waits for that before it goes on.
    pub(crate) answers_limit: Duration,
}

/// How soon writes must be acknowledged again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bar {
    /// The fault is none of those that are judged by it.
    None,
    /// A majority with its leader was there all the time.
    LeaderStays,
    /// The same, and it is the leader in the same term all the time.
    LeaderKept,
    /// A majority has lost its leader: counted from the fault's beginning, and to be met before its end.
    LeaderLost,
    /// A leader has handed over in good order and gone: counted and to be met likewise. It says nothing about elections.
    HandedOver,
    /// No majority was left: counted from the fault's end.
    AllLost,
}

impl Bar {
    /// Whether some must be able to serve while the fault lasts.
    pub(crate) fn leaves_a_majority(self) -> bool {
        matches!(self, Self::LeaderStays | Self::LeaderKept | Self::LeaderLost | Self::HandedOver)
    }

    /// Whether the fault cannot have passed without a failed operation or another leader.
    pub(crate) fn disturbs(self) -> bool {
        matches!(self, Self::LeaderLost | Self::HandedOver | Self::AllLost)
    }
}

/// What a fault did, and how that shows.
#[derive(Debug, Clone)]
pub(crate) struct Evidence {
    /// What was done, to whom, for how long.
    pub(crate) what: String,
    /// When it was done.
    pub(crate) began_ns: u64,
    /// When somebody began to undo it.
    pub(crate) healing_ns: u64,
    /// When it was undone.
    pub(crate) ended_ns: u64,
    /// Whether it has really happened, and how that shows.
    pub(crate) seen: Result<String, String>,
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
    bar: Bar,
}

impl Strike {
    /// For a fault whose beginning is no matter: who leads is to be compared with this.
    pub(crate) fn led_by(&mut self, leader: Leader) {
        self.before = leader;
    }
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
        Strike { what, began_ns, before: leader, during: None, bar }
    }

    /// Lets a fault last: so long, and if it leaves a majority, until all that clients do has succeeded under it, so that
    /// it is not the healing that answers them.
    pub(crate) async fn hold(&self, strike: &mut Strike, lasts: Duration) {
        sleep(lasts.saturating_sub(LOOK_AFTER)).await;
        if strike.bar.leaves_a_majority() {
            // What did not succeed is judged by the history.
            let _ = self.all_succeed(strike.began_ns, self.answers_limit).await;
        }
        strike.during = self.cluster.leader_now().await;
        sleep(LOOK_AFTER.min(lasts)).await;
    }

    /// Waits until all that clients do has succeeded since then, and for no longer than that. Gives what has not.
    pub(crate) async fn all_succeed(&self, since_ns: u64, limit: Duration) -> Result<(), String> {
        let deadline = Instant::now() + limit;
        while let Some(missing) = self.demand.missing_since(&self.history, since_ns) {
            if deadline < Instant::now() {
                return Err(missing);
            }
            sleep(LOOK_INTERVAL).await;
        }
        Ok(())
    }

    /// Undoes a fault and says how it went.
    pub(crate) async fn undo(&mut self, strike: Strike, seen: Result<String, String>) -> Result<Evidence> {
        let healing_ns = self.history.now_ns();
        self.cluster.heal().await?;
        let ended_ns = self.history.now_ns();
        self.history.note(format!("healed: {}", strike.what));
        let after = self.cluster.leader().await?;
        let leader_changed =
            after != strike.before || strike.during.is_some_and(|during| during != strike.before);
        let Strike { what, began_ns, bar, .. } = strike;
        Ok(Evidence { what, began_ns, healing_ns, ended_ns, seen, leader_changed, bar })
    }
}

/// A length of time as people say it.
pub(crate) fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

//! Are the replicas equal? From time to time, when something has changed and all is everywhere, each member asks the others for their
//! hashes. Where two that stand at the same place differ, there is an alarm, and each takes over from the other what is greater in the
//! buckets in question. It verifies, and is not how replicas converge: what it finds is damage.

use super::{Replica, ReplicaError, Tools};
use rdb_core::eventual::buckets::{Comparison, Digest};
use rdb_core::eventual::copy::{Copied, Page, Part};
use rdb_core::eventual::vector::Vector;
use rdb_core::ids::NodeId;
use rdb_core::version::Hlc;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// After a comparison that has told nothing, or a repair.
const AGAIN: Duration = Duration::from_secs(5);

/// What is known of the others' records.
#[derive(Debug, Default)]
pub(super) struct Comparing {
    /// Where this node and another one were last found to hold the same.
    equal_at: BTreeMap<NodeId, (Vector, Hlc)>,
    /// In how many buckets each differed when it was last looked at.
    differ: BTreeMap<NodeId, usize>,
    /// With whom a comparison or a repair is under way.
    with: Option<NodeId>,
    next_at: BTreeMap<NodeId, Instant>,
    repaired: u64,
}

impl Comparing {
    /// All are to be compared as soon as that can be done.
    pub(super) fn want_soon(&mut self) {
        self.next_at.clear();
        self.equal_at.clear();
    }

    fn end(&mut self, node: NodeId, again: Duration) {
        self.with = None;
        self.next_at.insert(node, Instant::now() + again);
    }
}

impl Replica {
    /// Compares with some member, if it is time to. It costs a look at what is known where nothing has changed.
    pub(in crate::eventual) fn compare(&mut self, now_ms: u64, tools: &Tools) {
        let now = Instant::now();
        if self.comparing.with.is_some() || self.copying.is_under_way() || !self.has_whole_digest() {
            return;
        }
        let state = self.machine.state();
        let is_new = |node: &NodeId| {
            let compared = self.comparing.equal_at.get(node);
            compared.is_none_or(|(at, purged)| (at, *purged) != (&state.applied, state.purged))
        };
        let is_due = |node: &NodeId| self.comparing.next_at.get(node).is_none_or(|at| *at <= now);
        let has_all = |node: NodeId| {
            let mut reports = self.peers.reports();
            reports.any(|(of, report, heard_ms)| {
                let same =
                    report.is_some_and(|report| report.era == state.era && report.applied == state.applied);
                of == node
                    && same
                    && now_ms.saturating_sub(heard_ms) <= rdb_core::eventual::lag::SILENCE_MS_MAX
            })
        };
        let due = self.told.keys().copied().find(|node| is_new(node) && is_due(node) && has_all(*node));
        if let Some(node) = due {
            self.comparing.with = Some(node);
            tools.fetcher.digest(node, self.place());
        }
    }

    /// The hashes of the records, for a member that asks; `None` while they are not those of the vector and of what is purged.
    pub(in crate::eventual) fn whole_digest(&self) -> Option<Digest> {
        self.has_whole_digest().then(|| self.machine.digest())
    }

    fn has_whole_digest(&self) -> bool {
        let is_purged = self.upkeep.tombstones.are_gone_to(self.machine.state().purged);
        self.hashed && !self.machine.is_copying() && is_purged
    }

    /// A member's hashes have come.
    pub(in crate::eventual) fn compare_with(&mut self, node: NodeId, theirs: Option<&Digest>, tools: &Tools) {
        let mine = self.whole_digest();
        let compared = mine.as_ref().zip(theirs).map(|(mine, theirs)| mine.compare(theirs));
        let interval = tools.limits.compare_interval;
        match (compared, mine) {
            (Some(Comparison::Equal), Some(mine)) => {
                if self.comparing.differ.insert(node, 0).is_some_and(|buckets| buckets != 0) {
                    tracing::info!(region = %self.region, %node, "a member's records are the same as this node's again");
                }
                self.comparing.equal_at.insert(node, (mine.vector, mine.purged));
                self.comparing.end(node, interval);
            }
            (Some(Comparison::Different(buckets)), _) => {
                tracing::error!(
                    region = %self.region, %node, buckets = buckets.len(),
                    "this node and another one have the same writes and hold different records: one of them is damaged. Of each \
                     key the greater version is taken over; look at the disks of both"
                );
                self.comparing.differ.insert(node, buckets.len());
                let buckets = buckets.into_iter().filter_map(|bucket| u32::try_from(bucket).ok()).collect();
                tools.fetcher.records(node, self.place(), buckets);
            }
            // One of them has gone on.
            _ => self.comparing.end(node, AGAIN.min(interval)),
        }
        self.show_comparison();
    }

    /// Records of another member's in buckets that differ.
    pub(in crate::eventual) fn repair(&mut self, page: &[u8], tools: &Tools) -> Result<(), ReplicaError> {
        let page = match Page::decode(page) {
            Ok(page) => page,
            Err(error) => {
                tracing::warn!(region = %self.region, %error, "records of another node are not taken over");
                return Ok(());
            }
        };
        let Page::Records(records) = page else { return Ok(()) };
        let record = |copied: Copied| match copied.part {
            Part::First(record) => Some((copied.key, record)),
            Part::Rest { .. } => None,
        };
        let records: Vec<_> = records.into_iter().filter_map(record).collect();
        let (taken, changes) = self.machine.repair(&records, &self.data)?;
        if taken != 0 {
            for record in changes.records.iter().filter_map(|(_, record)| record.as_ref()) {
                self.see_tombstone(record)?;
            }
            self.write(&changes, tools)?;
            self.comparing.repaired += taken;
            self.comparing.equal_at.clear();
            self.show_comparison();
        }
        Ok(())
    }

    /// No more of them come.
    pub(in crate::eventual) fn repair_ends(&mut self, node: NodeId, failed: Option<&str>, tools: &Tools) {
        match failed {
            None => {
                tracing::info!(region = %self.region, %node, "a member's records were taken over where they are greater");
            }
            Some(reason) => {
                tracing::warn!(region = %self.region, %node, reason, "a member's records could not be fetched");
            }
        }
        self.comparing.end(node, AGAIN.min(tools.limits.compare_interval));
    }

    fn show_comparison(&self) {
        let differ = self.comparing.differ.values().copied().max().unwrap_or(0);
        self.shown.show_comparison(differ as u64, self.comparing.repaired);
    }
}

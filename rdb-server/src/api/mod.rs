//! What clients reach: one file per service, the limits, and the one table from failures to errors.

mod acks;
mod answers;
mod arriving;
mod cluster;
mod conflicts;
mod eventual_reads;
pub(crate) mod fuzzed;
mod held;
mod kv;
mod limits;
mod lookups;
mod namespaces;
mod pages;
mod pipe;
mod quarantine;
mod reads;
mod request;
mod scan;
mod session;
mod status;
mod switch;
mod transaction;

pub(crate) use arriving::{Arriving, arriving_budget};
pub(crate) use cluster::ClusterService;
pub(crate) use held::Holding;
pub(crate) use kv::KvService;
pub(crate) use limits::MESSAGE_BYTES_MAX;
pub(crate) use lookups::Lookups;
pub(crate) use namespaces::NamespaceService;
pub(crate) use scan::Scans;

use crate::budget::{Budget, Share};
use crate::eventual;
use crate::eventual::waiting::Terms;
use crate::mailbox::{Event, Mailbox};
use crate::metrics::{Operation, Result as MetricResult};
use crate::regions::Rules;
use crate::shared::Shared;
use crate::waiter::{Answers, WriteWaiter};
use rdb_core::command::Encoded;
use rdb_core::ids::{Epoch, Era, NamespaceId, RegionId};
use rdb_core::raft::Failure;
use rdb_pd::{Mode, Namespace, Stage};
use rdb_proto::v1;
use status::{fail, not_done};
use std::time::{Duration, Instant};

/// Where the requests of one namespace go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target {
    namespace: NamespaceId,
    region: RegionId,
    epoch: Epoch,
    mode: Mode,
    /// The era of that mode.
    era: Era,
}

impl Target {
    /// The rules under which it was asked for.
    fn rules(&self) -> Rules {
        Rules { era: self.era, mode: self.mode, epoch: self.epoch }
    }

    /// Refuses what a namespace in eventual mode cannot do: to do something weaker instead would be to lie.
    fn check_mode(&self, (what, why): (&str, &str)) -> Result<(), v1::Error> {
        if self.mode == Mode::Eventual { Err(status::requires_strong(what, why)) } else { Ok(()) }
    }
}

impl Target {
    /// Refuses writes with names, which strong mode alone does once and no more: one may be a repetition of one that was done
    /// before the mode changed. Whoever has sent it for the first time opens a session, and learns that there are none.
    fn check_names(&self, named: bool) -> Result<(), v1::Error> {
        if named && self.mode == Mode::Eventual { Err(status::session_expired()) } else { Ok(()) }
    }
}

/// The rules of a namespace, as the catalog has them.
fn rules_of(namespace: &Namespace) -> Rules {
    Rules { era: namespace.era(), mode: namespace.mode(), epoch: namespace.epoch() }
}

impl Shared {
    /// The namespace of this name, if it is in the epoch that the client expects (0: any).
    async fn target(&self, name: &str, epoch: u64) -> Result<Target, v1::Error> {
        if self.stopping.is_set() {
            return Err(status::shutting_down());
        }
        let target = match self.find(name) {
            Some(target) => target,
            // Only the catalog's leader, once it has applied all that is committed, can say that there is none.
            None => {
                self.read_barrier(RegionId::META, self.config.request_timeout()).await?;
                self.find(name).ok_or_else(|| status::namespace_not_found(name))?
            }
        };
        if epoch != 0 && epoch != target.epoch.0 {
            return Err(status::epoch_mismatch(name, epoch, target.epoch));
        }
        Ok(target)
    }

    /// What the requests to a namespace may take of this node's memory.
    fn budget_of(&self, name: &str) -> Budget {
        self.find(name).map_or_else(|| self.budget.clone(), |target| self.regions.budget(target.region))
    }

    fn find(&self, name: &str) -> Option<Target> {
        let catalog = self.catalog.load();
        // One that is being deleted is gone for who asks now; its name may soon be another one's.
        let namespace = catalog.namespace(name).filter(|namespace| namespace.stage == Stage::Open)?;
        let region = namespace.region;
        // What mode a region is in, its own log says; the catalog may be ahead of it, or behind.
        let rules = self.regions.get(region).and_then(|view| view.rules());
        let Rules { era, mode, epoch } = rules.unwrap_or_else(|| rules_of(namespace));
        Some(Target { namespace: namespace.id, region, epoch, mode, era })
    }

    /// Whether this node's data of the namespace may be shown, after it was read: a region that has left in the meantime takes
    /// its data with it, and what was read may be half of it.
    fn still_here(&self, target: Target) -> Result<(), v1::Error> {
        let view = self.regions.get(target.region).filter(|view| !view.is_closed());
        let view = view.ok_or_else(status::namespace_gone)?;
        // What a strong era shows must be that era's. In an eventual one a later value is as good.
        let same = target.mode == Mode::Eventual || view.mode() == (target.mode, target.era);
        if same || target.region == RegionId::META { Ok(()) } else { Err(status::era_mismatch()) }
    }

    /// Who answers what was asked for under these rules.
    fn header(&self, region: RegionId, asked: Rules) -> v1::Header {
        let view = self.regions.get(region);
        let epoch = view.as_ref().map_or(asked.epoch, |view| view.answers_in(asked));
        let mode = match asked.mode {
            Mode::Eventual => v1::Mode::Eventual,
            Mode::Strong => v1::Mode::Strong,
        };
        // In eventual mode every node takes writes, so there is nobody to be sent to.
        let leader = view.as_ref().filter(|_| mode == v1::Mode::Strong).and_then(|view| view.leader());
        let address =
            leader.and_then(|leader| self.config.member(leader)).map(|member| member.client.clone());
        v1::Header {
            node: self.config.node_id,
            mode: mode.into(),
            epoch: epoch.0,
            leader: leader.map_or(0, |leader| leader.0),
            leader_address: address.unwrap_or_default(),
            served: v1::Consistency::Unspecified.into(),
            age_ms: None,
            session: bytes::Bytes::new(),
        }
    }

    /// Who answers what was asked about a namespace. The catalog may be ahead of how this node serves it, and says so in the answer.
    fn header_of(&self, namespace: &Namespace) -> v1::Header {
        let rules = self.regions.get(namespace.region).and_then(|view| view.rules());
        self.header(namespace.region, rules.unwrap_or_else(|| rules_of(namespace)))
    }

    /// Proposes commands, waits for what the state machine says to them, and counts it as one operation.
    async fn write(
        &self,
        operation: Operation,
        region: RegionId,
        (commands, terms): (Encoded, Terms),
        timeout: Duration,
    ) -> Result<Answers, v1::Error> {
        let began = Instant::now();
        let answered = self.propose(region, (commands, terms), timeout).await;
        let result = answered.as_ref().err().map_or(MetricResult::Done, MetricResult::of);
        self.metrics.requests(operation, result, 1, began.elapsed());
        answered
    }

    async fn propose(
        &self,
        region: RegionId,
        (commands, terms): (Encoded, Terms),
        timeout: Duration,
    ) -> Result<Answers, v1::Error> {
        let budget = self.regions.budget(region);
        let share = self.admit(region, &budget, &commands)?;
        let (sender, answer) = tokio::sync::oneshot::channel();
        // The share goes with the write, wherever it is, and not with the caller, who may give up on it.
        let waiter = WriteWaiter::new(move |mut answer| {
            drop(share);
            // Until the caller has it; from then on it is one of few.
            let _held = answers::hold(&mut answer, &budget);
            drop(sender.send(answer));
        });
        self.post_write(region, commands, waiter.with_terms(terms), Mailbox::post_request);
        match tokio::time::timeout(timeout, answer).await {
            Ok(Ok(Ok(Answers::Unmet(unmet)))) => Err(status::unmet(unmet, self.config.node_id)),
            Ok(Ok(Ok(answers))) => Ok(answers),
            Ok(Ok(Err(failure))) => Err(self.failed_write(region, failure)),
            Ok(Err(_)) => Err(self.failed_write(region, Failure::LeaderLost)),
            Err(_) => Err(status::write_timed_out(timeout)),
        }
    }

    /// Hands a write to the thread that the region's mode wants; to the raft loop by `post`.
    fn post_write(
        &self,
        region: RegionId,
        commands: Encoded,
        waiter: WriteWaiter,
        post: impl FnOnce(&Mailbox, Event),
    ) {
        if self.regions.get(region).is_some_and(|view| view.is_eventual()) {
            self.eventual.post(eventual::Event::Write { region, commands, waiter });
        } else {
            post(&self.mailbox, Event::Write { region, commands, waiter });
        }
    }

    /// Waits until this node's data holds all that was committed when the wait began.
    async fn read_barrier(&self, region: RegionId, timeout: Duration) -> Result<(), v1::Error> {
        let (sender, released) = tokio::sync::oneshot::channel();
        let answered = move |answer| {
            let _ = sender.send(answer);
        };
        self.post_read(region, answered, Mailbox::post_request);
        match tokio::time::timeout(timeout, released).await {
            Ok(Ok(Ok(_))) => Ok(()),
            Ok(Ok(Err(failure))) => Err(self.failed_read(region, failure)),
            Ok(Err(_)) => Err(self.failed_read(region, Failure::LeaderLost)),
            Err(_) => Err(status::read_timed_out(timeout)),
        }
    }

    /// Takes memory for a write, if there is some, and if the disks have room. Nothing is proposed before.
    fn admit(&self, region: RegionId, budget: &Budget, commands: &Encoded) -> Result<Share, v1::Error> {
        self.check_disk(region, commands.stores)?;
        admit_read(budget, commands.bytes.len() + status::REQUEST_OVERHEAD_BYTES)
    }

    /// Whether the disks have room for a write that stores something, or that removes only: this node's alone in eventual mode,
    /// where it needs nobody else. Where this node does not lead, its disk is no concern of the caller, who is to be sent to the
    /// leader.
    fn check_disk(&self, region: RegionId, stores: bool) -> Result<(), v1::Error> {
        let lack = match self.regions.get(region) {
            Some(view) if view.is_eventual() => self.disk.lack_here(&self.config, stores),
            Some(view) if view.leads() => self.disk.lack(&self.config, stores),
            _ => None,
        };
        lack.map_or(Ok(()), |lack| Err(status::disk_full(lack)))
    }

    fn failed_write(&self, region: RegionId, failure: Failure) -> v1::Error {
        match failure {
            Failure::NotLeader { leader } => self.not_leader(region, leader),
            Failure::Busy => {
                status::overloaded("bytes of one namespace's writes that wait to be stored", 64 << 20)
            }
            Failure::Closed => status::namespace_gone(),
            Failure::ModeChanged => status::era_mismatch(),
            Failure::Superseded => fail(
                v1::Code::Superseded,
                v1::Outcome::NotDone,
                "another leader's entry took this write's place in the log".to_owned(),
                "try again; it was not applied and will not be",
            ),
            Failure::LeaderLost => fail(
                v1::Code::LeaderLost,
                v1::Outcome::InDoubt,
                "this node lost the leadership while the write was on its way".to_owned(),
                "read the key to see whether the write was applied before writing again",
            ),
        }
    }

    /// A read has no effect, so whatever happened to it, it is not done and can be tried again.
    fn failed_read(&self, region: RegionId, failure: Failure) -> v1::Error {
        match failure {
            Failure::NotLeader { leader } => self.not_leader(region, leader),
            Failure::Busy => {
                status::overloaded("waiting reads", rdb_core::raft::Options::default().reads_max)
            }
            Failure::Closed => status::namespace_gone(),
            Failure::ModeChanged => status::era_mismatch(),
            Failure::Superseded | Failure::LeaderLost => not_done(
                v1::Code::NoLeader,
                "this node lost the leadership while the read waited".to_owned(),
                "try again",
            ),
        }
    }

    fn not_leader(&self, region: RegionId, leader: Option<rdb_core::ids::NodeId>) -> v1::Error {
        let leader = leader.or_else(|| self.regions.get(region).and_then(|view| view.leader()));
        let known = leader.filter(|leader| *leader != self.config.node());
        match known.and_then(|leader| self.config.member(leader)) {
            Some(member) => status::not_leader(self.config.node_id, member),
            None => status::no_leader(self.config.node_id),
        }
    }
}

/// Takes memory for reads that wait, or for what they have found. They are served from a full disk too.
fn admit_read(budget: &Budget, bytes: usize) -> Result<Share, v1::Error> {
    budget.take(bytes).map_err(status::no_memory)
}

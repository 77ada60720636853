//! How namespaces come and go, and their regions with them: what `peer_manager` does on a node, on the simulated disks and
//! with crashes between any two steps. What is to be done, `rdb-pd` says.
//!
//! A gardener creates and deletes namespaces through the catalog, as a client would. Each has a name of its own, so that who
//! uses one knows which; clients go on for a while to use one that is gone.

use super::World;
use super::node::{Ending, Input, Job, Lives, Process, Replica, Report};
use super::threads::merge;
use crate::clients::{Caller, GARDENER, NOBODY, NOWHERE, Reply, Request, Wish};
use crate::disks::log::Batch;
use crate::event::{EndStep, Event};
use crate::invariants::{Violation, holds, holds_the_catalogs_regions};
use crate::machine::{Answer, Machine};
use crate::options::{Lifetimes, Micros, Span};
use rand::RngExt as _;
use rdb_core::apply::Committed;
use rdb_core::command::Payload;
use rdb_core::ids::{NamespaceId, NodeId, RegionId};
use rdb_core::raft::Failure;
use rdb_pd::{Catalog, Command, Holding, Mode, Settings, Stage, Standing, Step};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// How long a wish travels to a node.
const WAY: Span = (50, 2_000);
/// Chance that a client whose namespace is gone asks for it once more.
const LINGER: f64 = 0.3;

/// A bug that the simulator must catch: the log goes first, and a crash leaves data whose log is lost.
const LOG_FIRST: bool = cfg!(feature = "bug-log-destroyed-before-data");

/// Who creates and deletes namespaces.
#[derive(Debug, Default)]
pub(crate) struct Gardener {
    /// Namespaces asked for so far.
    asked: u64,
    attempt: u64,
    favourite: NodeId,
    /// What is asked for until it is answered.
    garden: Option<Garden>,
    /// The namespaces that are known to be there and that nobody has asked to delete.
    open: BTreeMap<RegionId, String>,
}

#[derive(Debug, Clone)]
enum Garden {
    Create(String),
    Delete(String),
}

impl World {
    /// The regions that are to be there and to be served.
    pub(super) fn open_regions(&self) -> Vec<RegionId> {
        match self.options.lifetimes {
            None => self.regions.clone(),
            Some(_) => self.gardener.open.keys().copied().collect(),
        }
    }

    pub(super) fn patience_of_deletions(&self) -> Micros {
        let Some(lifetimes) = &self.options.lifetimes else { return 0 };
        let step = self.options.sync.1 + self.options.apply.1 + self.options.network.delay.1;
        4 * lifetimes.destroy.1 + 40 * step + 2 * self.options.truncate.1
    }

    pub(super) fn lives_of_all(&self) -> Vec<String> {
        let lives = |process: &Process| {
            let lives = process.lives.as_ref()?;
            let ending: Vec<_> = lives.ending.keys().collect();
            let deleting: Vec<_> = lives.catalog.deleting().map(|namespace| namespace.region).collect();
            let (creating, stored) = (&lives.creating, &lives.stored);
            Some(format!(
                "node {}: creating {creating:?}, stored {stored:?}, ending {ending:?}, deleting {deleting:?}",
                process.node
            ))
        };
        self.nodes.iter().filter_map(|node| node.process.as_ref()).filter_map(lives).collect()
    }

    /// What a start finds: the regions that it starts at once, and what it knows of the others.
    pub(super) fn look_at_disks(&mut self, id: NodeId) -> Result<(Vec<RegionId>, Option<Lives>), Violation> {
        if self.options.lifetimes.is_none() {
            return Ok((self.regions.clone(), None));
        }
        let lost = |what: String| Violation {
            invariant: "a node starts from its disks",
            what: format!("node {id}: {what}"),
        };
        let node = &mut self.nodes[Self::place(id)];
        if !node.log.regions().contains(&RegionId::META) {
            node.log.write(Batch::of_creation(RegionId::META));
            node.log.sync();
        }
        for region in node.log.regions() {
            let state = node.data.of(region).state().map_err(lost)?;
            self.totals.snapshots_settled += u64::from(node.log.settle(region, state.applied).map_err(lost)?);
        }
        let machine = Machine::load(RegionId::META, node.data.of(RegionId::META)).map_err(lost)?;
        let catalog = Arc::new(machine.catalog().cloned().unwrap_or_default());
        for region in node.data.present().collect::<Vec<_>>() {
            if catalog.standing(region) == Standing::Gone {
                node.data.destroy(region);
                self.totals.leftovers += 1;
            }
        }
        let stored = node.log.regions().into_iter().filter(|region| *region != RegionId::META).collect();
        let lives = Lives { applied: catalog.clone(), catalog, stored, ..Lives::default() };
        Ok((vec![RegionId::META], Some(lives)))
    }

    fn lives_mut(&mut self, id: NodeId) -> Option<&mut Lives> {
        self.node_mut(id).process.as_mut()?.lives.as_mut()
    }

    /// The raft loop has heard of regions whose logs are made, or of another catalog, or it is time to look what deletions
    /// still need. Returns the regions whose groups may have something to do by that.
    pub(super) fn live_on(
        &mut self,
        id: NodeId,
        created: &[RegionId],
        catalog: Option<Arc<Catalog>>,
        looks: bool,
    ) -> Result<Vec<RegionId>, Violation> {
        for region in created {
            let Some(lives) = self.lives_mut(id) else { break };
            lives.creating.remove(region);
            match lives.catalog.standing(*region) {
                Standing::Named(_) => self.start_replica(id, *region)?,
                Standing::Gone | Standing::NotYet => self.end_later(id, *region, EndStep::Flush),
            }
        }
        let mut touched = created.to_vec();
        let changed = catalog.is_some();
        if let (Some(catalog), Some(lives)) = (catalog, self.lives_mut(id)) {
            lives.catalog = catalog;
            self.reconcile(id)?;
        }
        if (changed || looks)
            && let Some(lives) = self.lives_mut(id)
        {
            touched.extend(lives.catalog.deleting().map(|namespace| namespace.region));
            touched.push(RegionId::META);
            self.remove_closed(id);
        }
        Ok(touched)
    }

    fn start_replica(&mut self, id: NodeId, region: RegionId) -> Result<(), Violation> {
        let replica = self.boot_replica(id, region)?;
        if let Some(process) = &mut self.node_mut(id).process {
            process.clock.saw(replica.machine.state().highest);
            process.replicas.insert(region, replica);
        }
        Ok(())
    }

    fn reconcile(&mut self, id: NodeId) -> Result<(), Violation> {
        let Some(process) = &self.node(id).process else { return Ok(()) };
        let Some(lives) = &process.lives else { return Ok(()) };
        for (region, step) in lives.catalog.clone().steps(&holdings(process, lives)) {
            match step {
                Step::Create(_) => self.create(id, region)?,
                Step::Start(_) => {
                    self.forget_stored(id, region);
                    self.start_replica(id, region)?;
                }
                Step::End => self.begin_end(id, region),
                Step::DestroyLog => {
                    self.forget_stored(id, region);
                    self.end_later(id, region, EndStep::Flush);
                    self.aim_at_life(id);
                }
            }
        }
        Ok(())
    }

    fn forget_stored(&mut self, id: NodeId, region: RegionId) {
        if let Some(lives) = self.lives_mut(id) {
            lives.stored.remove(&region);
        }
    }

    fn create(&mut self, id: NodeId, region: RegionId) -> Result<(), Violation> {
        let data = self.node(id).data.present().any(|present| present == region);
        holds("a node starts from its disks", !data, || {
            format!("region {region} node {id}: it has data, and its log is lost")
        })?;
        if let Some(lives) = self.lives_mut(id) {
            lives.creating.insert(region);
        }
        self.write_life(id, region, Batch::of_creation(region), Report::Made);
        self.aim_at_life(id);
        Ok(())
    }

    fn write_life(&mut self, id: NodeId, region: RegionId, batch: Batch, report: Report) {
        let job = Job { region, batch, sync: true, report, then_send: Vec::new() };
        if let Some(process) = &mut self.node_mut(id).process {
            process.writer.waiting.push(job);
        }
    }

    fn destroy_log(&mut self, id: NodeId, region: RegionId) {
        self.write_life(id, region, Batch::of_destruction(region), Report::Destroyed);
        self.start_sync(id);
    }

    pub(super) fn log_is_destroyed(&mut self, id: NodeId, region: RegionId) {
        self.invariants.lives.destroyed(region, id);
    }

    fn aim_at_life(&mut self, id: NodeId) {
        let Some(Lifetimes { crash, destroy, .. }) = self.options.lifetimes.clone() else { return };
        self.aim_with(crash, id, 2 * destroy.1 + 2 * self.options.sync.1);
    }

    /// The region is gone: its replica ends at once. What was committed before is applied yet, by the applier in its turn.
    fn begin_end(&mut self, id: NodeId, region: RegionId) {
        let Some(process) = self.node_mut(id).process.as_mut() else { return };
        let Some(replica) = process.replicas.remove(&region) else { return };
        let Replica { group, machine, tasks, arrived, .. } = replica;
        if let Some(lives) = &mut process.lives {
            lives.ending.insert(region, Ending { machine, tasks });
        }
        let (writes, reads) = group.end();
        for (caller, failure) in writes {
            self.reply(caller, Reply::Failed(failure));
        }
        for (reading, failure) in reads {
            self.reply(reading.caller, Reply::Failed(failure));
        }
        if let Some(useless) = arrived {
            self.snapshot_outcome_later(id, useless.sender, false);
        }
        self.end_later(id, region, EndStep::Remove);
        self.aim_at_life(id);
    }

    fn end_later(&mut self, node: NodeId, region: RegionId, step: EndStep) {
        let Some(lifetimes) = self.options.lifetimes.clone() else { return };
        let at = self.now + self.draw(lifetimes.destroy);
        let incarnation = self.node(node).incarnation;
        self.queue.push(at, Event::End { node, incarnation, region, step });
    }

    pub(super) fn go_on_ending(
        &mut self,
        id: NodeId,
        incarnation: u64,
        region: RegionId,
        step: EndStep,
    ) -> Result<(), Violation> {
        if self.node_mut(id).running(incarnation).is_none() {
            return Ok(());
        }
        match step {
            EndStep::Remove => {
                let Some(ending) = self.lives_mut(id).and_then(|lives| lives.ending.get_mut(&region)) else {
                    return Ok(());
                };
                let batch = merge(ending.tasks.drain(..));
                self.apply_batch(id, region, batch)?;
                if LOG_FIRST {
                    self.destroy_log(id, region);
                } else {
                    self.node_mut(id).data.destroy(region);
                }
                self.end_later(id, region, EndStep::Flush);
            }
            EndStep::Flush => {
                if LOG_FIRST {
                    self.node_mut(id).data.destroy(region);
                }
                self.node_mut(id).data.flush_all();
                let had_replica =
                    self.lives_mut(id).is_some_and(|lives| lives.ending.remove(&region).is_some());
                self.totals.destroyed += u64::from(had_replica);
                if !(LOG_FIRST && had_replica) {
                    self.destroy_log(id, region);
                }
            }
        }
        Ok(())
    }

    /// The catalog is deleting the region's namespace: who leads the region closes it.
    pub(super) fn close_here(&mut self, id: NodeId, region: RegionId) {
        let deleting =
            self.lives_mut(id).is_some_and(|lives| lives.catalog.deleting().any(|one| one.region == region));
        if deleting {
            self.replica_mut(id, region).group.propose_close();
        }
    }

    /// The catalog's leader lets those namespaces go whose regions its own replicas have seen closed.
    fn remove_closed(&mut self, id: NodeId) {
        let Some(Process { replicas, lives: Some(lives), .. }) = &mut self.node_mut(id).process else {
            return;
        };
        let closed = |region| replicas.get(&region).is_some_and(|replica| replica.group.is_closed());
        let removable: Vec<_> = lives.catalog.removable(closed).collect();
        let Some(meta) = replicas.get_mut(&RegionId::META).filter(|meta| meta.group.is_leader()) else {
            return;
        };
        for id in removable {
            let nobody = Caller { client: NOBODY, attempt: 0 };
            // What is lost is asked for again.
            let _ = meta.group.propose(Command::RemoveNamespace { id }.encode(), nobody);
        }
    }

    /// The applier has another catalog: requests are looked up in it, and the raft loop hears of it.
    pub(super) fn catalog_applied(&mut self, id: NodeId, catalog: Arc<Catalog>) {
        self.see_catalog(id, &catalog);
        self.input(id, Input::Catalog(catalog));
    }

    pub(super) fn see_catalog(&mut self, id: NodeId, catalog: &Arc<Catalog>) {
        let Some(lives) = self.lives_mut(id) else { return };
        lives.applied = catalog.clone();
        let gone = lives.waiting.extract_if(.., |(namespace, _)| catalog.namespace_of(*namespace).is_none());
        for (_, caller) in gone.collect::<Vec<_>>() {
            self.reply(caller, Reply::Gone);
        }
    }

    /// A deletion is answered when this node sees the namespace gone, and all else at once.
    pub(super) fn answer_gardener(&mut self, id: NodeId, caller: Caller, answer: rdb_pd::Answer) {
        let (Some(lives), rdb_pd::Answer::Deleting(namespace)) = (self.lives_mut(id), &answer) else {
            return self.reply(caller, Reply::Catalog(answer));
        };
        if lives.applied.namespace_of(namespace.id).is_some() {
            lives.waiting.push((namespace.id, caller));
        } else {
            self.reply(caller, Reply::Gone);
        }
    }

    /// Why a node does not even ask the region's group.
    pub(super) fn is_unknown(&self, node: NodeId, region: RegionId) -> Option<Failure> {
        let lives = self.node(node).process.as_ref()?.lives.as_ref()?;
        if region == RegionId::META {
            return None;
        }
        match lives.applied.standing(region) {
            Standing::Named(namespace) if namespace.stage == Stage::Open => None,
            Standing::Named(_) | Standing::Gone => Some(Failure::Closed),
            Standing::NotYet => Some(Failure::NotLeader { leader: None }),
        }
    }

    /// An entry is known to be committed for the first time.
    pub(super) fn first_commit_of_lives(
        &mut self,
        region: RegionId,
        entry: &Committed,
        answers: &[Answer],
    ) -> Result<(), Violation> {
        let moment = self.clients.moment();
        if matches!(Payload::decode(&entry.data), Ok(Payload::Close)) {
            self.invariants.deletions.is_over(region, moment);
        }
        for answer in answers {
            match answer {
                Answer::Catalog(rdb_pd::Answer::Created(namespace)) => {
                    self.totals.created += 1;
                    self.invariants.lives.given(namespace.region)?;
                }
                Answer::Catalog(rdb_pd::Answer::Removed(namespace)) => {
                    self.totals.removed += 1;
                    self.invariants.deletions.is_over(namespace.region, moment);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// An idle client whose namespace is gone turns to another one, sooner or later; when all must make progress, each
    /// namespace gets clients.
    pub(super) fn move_client(&mut self, slot: usize) {
        if self.options.lifetimes.is_none() || self.clients.pool[slot].call.is_some() {
            return;
        }
        let open = self.open_regions();
        let region = self.clients.pool[slot].region;
        if open.is_empty() {
            return;
        }
        let calm = self.calm.is_some();
        if !calm && (open.contains(&region) || region != NOWHERE && self.rng.random_bool(LINGER)) {
            return;
        }
        let place = if calm { slot % open.len() } else { self.rng.random_range(0..open.len()) };
        if open[place] != region {
            self.clients.move_to(slot, open[place], &mut self.rng);
        }
    }

    pub(super) fn garden_later(&mut self) {
        let Some(lifetimes) = self.options.lifetimes.clone() else { return };
        self.garden_after(lifetimes.interval);
    }

    fn garden_after(&mut self, span: Span) {
        let attempt = self.clients.next_attempt();
        self.gardener.attempt = attempt;
        let at = self.now + self.draw(span);
        self.queue.push(at, Event::Garden { attempt });
    }

    /// The gardener asks for something, or asks again.
    pub(super) fn garden(&mut self, attempt: u64) {
        if self.gardener.attempt != attempt || self.clients_rest {
            return;
        }
        // A deletion may have to wait until all is repaired: its region's leader and the catalog's must hear each other, which
        // leaders that are half cut off need not. It goes on without being asked again.
        let waits = self.calm.is_some() && matches!(self.gardener.garden, Some(Garden::Delete(_)));
        if self.gardener.garden.is_none() || waits {
            self.gardener.garden = self.wish();
        }
        let command = match self.gardener.garden.clone() {
            None => return self.garden_later(),
            Some(Garden::Create(name)) => {
                let (members, settings) = (self.ids(), Settings::default());
                Command::CreateNamespace { name, mode: Mode::Strong, members, token: 0, settings }
            }
            Some(Garden::Delete(name)) => Command::DeleteNamespace { name, id: NamespaceId::META },
        };
        let attempt = self.clients.next_attempt();
        self.gardener.attempt = attempt;
        let wish = Wish::Write(command.encode());
        let request = Box::new(Request { client: GARDENER, attempt, region: RegionId::META, wish });
        let node = self.gardener.favourite.max(NodeId(1));
        let at = self.now + self.draw(WAY);
        self.queue.push(at, Event::Request { node, request });
        self.queue.push(self.now + self.options.patience, Event::Impatient { client: GARDENER, attempt });
    }

    /// What to ask for next. When the faults have ended, nothing but the one namespace that there must be.
    fn wish(&mut self) -> Option<Garden> {
        let wanted = self.options.lifetimes.as_ref().map_or(0, |lifetimes| lifetimes.namespaces);
        let open = self.gardener.open.len();
        let calm = self.calm.is_some();
        if open < wanted && (!calm || open == 0) {
            self.gardener.asked += 1;
            return Some(Garden::Create(format!("n{}", self.gardener.asked)));
        }
        if calm {
            return None;
        }
        let place = self.rng.random_range(0..open);
        let region = self.gardener.open.keys().copied().nth(place)?;
        self.gardener.open.remove(&region).map(Garden::Delete)
    }

    pub(super) fn gardener_replied(&mut self, attempt: u64, reply: Reply) {
        if self.gardener.attempt != attempt {
            return;
        }
        use rdb_pd::Answer::{Created, Exists, NotFound};
        match (self.gardener.garden.clone(), reply) {
            (Some(Garden::Create(name)), Reply::Catalog(Created(namespace) | Exists(namespace))) => {
                self.gardener.open.insert(namespace.region, name);
                self.gardener.garden = None;
                self.garden_later();
            }
            (Some(Garden::Delete(_)), Reply::Gone | Reply::Catalog(NotFound)) => {
                self.gardener.garden = None;
                self.garden_later();
            }
            (_, Reply::Failed(Failure::NotLeader { leader: Some(leader) })) => {
                self.gardener.favourite = leader;
                self.garden_after(self.options.think);
            }
            _ => self.gardener_turns(),
        }
    }

    pub(super) fn gardener_is_impatient(&mut self, attempt: u64) {
        if self.gardener.attempt == attempt {
            self.gardener_turns();
        }
    }

    /// Another node may know more.
    fn gardener_turns(&mut self) {
        self.gardener.favourite = NodeId(self.rng.random_range(1..=self.options.nodes));
        self.garden_after(self.options.think);
    }

    /// In the end all nodes hold exactly what the catalog names.
    pub(super) fn holds_exactly_the_catalog(&self) -> Result<(), Violation> {
        for node in &self.nodes {
            let Some(process) = &node.process else { continue };
            let Some(lives) = &process.lives else { continue };
            let named = lives.catalog.namespaces().map(|namespace| namespace.region);
            let named: BTreeSet<_> = named.chain([RegionId::META]).collect();
            let replicas = process.replicas.keys().copied().collect();
            let logs = node.log.regions().into_iter().collect();
            holds_the_catalogs_regions(node.id, &named, &replicas, &logs, &node.data.present().collect())?;
        }
        Ok(())
    }
}

/// What a node has of users' regions.
fn holdings(process: &Process, lives: &Lives) -> BTreeMap<RegionId, Holding> {
    let mut holdings = BTreeMap::new();
    for (region, replica) in process.replicas.range(RegionId::FIRST_USER..) {
        let installing = replica.group.is_installing();
        holdings.insert(*region, if installing { Holding::Installing } else { Holding::Running });
    }
    holdings.extend(lives.creating.iter().map(|region| (*region, Holding::Creating)));
    holdings.extend(lives.stored.iter().map(|region| (*region, Holding::Stored)));
    holdings
}

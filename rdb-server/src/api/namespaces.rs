//! The namespace service: the catalog's commands, and what is known of each namespace's region.

use super::status::{self, Answered, answered, responded};
use crate::eventual::waiting::Terms;
use crate::metrics::Operation;
use crate::regions::{Regions, Rules};
use crate::shared::Shared;
use crate::transport::SILENCE_MAX;
use crate::waiter::Answers;
use rdb_core::ids::{Epoch, Era, NamespaceId, NodeId, RegionId};
use rdb_pd::{Answer, Command, Durability, Mode, Namespace, Settings, Stage, check_name};
use rdb_proto::v1;
use rdb_proto::v1::namespaces_server::Namespaces;
use std::time::{Duration, Instant};
use tonic::Request;

/// How long a new namespace is waited for until its first leader is elected. It exists either way.
const LEADER_WAIT: Duration = Duration::from_secs(2);
/// A caller whose time runs out hears what goes on without it: the answer leaves so much earlier, so that it still comes.
const ANSWER_MARGIN: Duration = Duration::from_millis(100);
/// Between looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// Serves namespaces.
pub(crate) struct NamespaceService(pub(crate) Shared);

impl NamespaceService {
    pub(super) async fn propose(&self, command: &Command, timeout: Duration) -> Result<Answer, v1::Error> {
        if self.0.stopping.is_set() {
            return Err(status::shutting_down());
        }
        let write = (command.encode(), Terms::default());
        match self.0.write(Operation::Namespace, RegionId::META, write, timeout).await? {
            Answers::Catalog(mut answers) if answers.len() == 1 => Ok(answers.remove(0)),
            other => Err(status::internal(format!("unexpected answers: {other:?}"))),
        }
    }

    async fn create(
        &self,
        create: v1::CreateNamespaceRequest,
        timeout: Duration,
    ) -> Result<v1::CreateNamespaceResponse, v1::Error> {
        let deadline = answer_by(timeout);
        check_name(&create.name).map_err(status::invalid)?;
        let mode = match v1::Mode::try_from(create.mode) {
            Ok(v1::Mode::Unspecified | v1::Mode::Strong) => Mode::Strong,
            Ok(v1::Mode::Eventual) => Mode::Eventual,
            Err(_) => {
                let message = format!("mode {} is not known to this node; nothing was created", create.mode);
                return Err(status::unsupported(message, "create a strong or an eventual namespace"));
            }
        };
        let members = self.0.config.members();
        let settings = settings(&create)?;
        let v1::CreateNamespaceRequest { name, token, .. } = create;
        let command = Command::CreateNamespace { name, mode, members, token, settings };
        match self.propose(&command, timeout).await? {
            Answer::Created(namespace) => {
                self.await_leader(&namespace, deadline).await;
                let header = Some(self.0.header_of(&namespace));
                Ok(v1::CreateNamespaceResponse { header, namespace: Some(describe(&self.0, &namespace)) })
            }
            Answer::Exists(namespace) if namespace.stage == Stage::Deleting => {
                Err(status::namespace_being_deleted(&namespace.name))
            }
            Answer::Exists(namespace) => Err(status::namespace_exists(&namespace.name)),
            other => Err(status::internal(format!("unexpected answer: {other:?}"))),
        }
    }

    /// Who has created a namespace will use it at once. But before that it is to hear that it is created.
    async fn await_leader(&self, namespace: &Namespace, deadline: Instant) {
        let deadline = deadline.min(Instant::now() + LEADER_WAIT);
        while Instant::now() < deadline {
            let is_ready = match namespace.mode() {
                Mode::Strong => {
                    self.0.regions.get(namespace.region).is_some_and(|view| view.leader().is_some())
                }
                Mode::Eventual => self.0.eventual.shown(namespace.region).is_some(),
            };
            if is_ready {
                return;
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    async fn remove(
        &self,
        delete: v1::DeleteNamespaceRequest,
        timeout: Duration,
    ) -> Result<v1::DeleteNamespaceResponse, v1::Error> {
        let deadline = answer_by(timeout);
        let command = Command::DeleteNamespace { name: delete.name.clone(), id: NamespaceId(delete.id) };
        let namespace = match self.propose(&command, timeout).await? {
            Answer::Deleting(namespace) => namespace,
            Answer::NotFound => return Err(status::namespace_not_found(&delete.name)),
            other => return Err(status::internal(format!("unexpected answer: {other:?}"))),
        };
        // From here on it goes on without this call, and whichever node leads the catalog; this node hears of its end.
        while self.0.catalog.load().namespace_of(namespace.id).is_some() {
            if self.0.stopping.is_set() || deadline <= Instant::now() {
                return Err(status::deletion_goes_on(&delete.name, timeout));
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        Ok(v1::DeleteNamespaceResponse { header: Some(catalog_header(&self.0)) })
    }

    async fn move_leader(
        &self,
        moved: v1::MoveLeaderRequest,
        timeout: Duration,
    ) -> Result<v1::MoveLeaderResponse, v1::Error> {
        let deadline = Instant::now() + timeout;
        let to = NodeId(moved.to);
        self.check_reachable(to)?;
        let command = Command::PreferLeader { name: moved.name.clone(), node: to };
        let namespace = match self.propose(&command, timeout).await? {
            Answer::Preferred(namespace) => namespace,
            Answer::NotFound => return Err(status::namespace_not_found(&moved.name)),
            Answer::NotAMember(members) => return Err(status::not_a_member(to, &members)),
            other => return Err(status::internal(format!("unexpected answer: {other:?}"))),
        };
        let leads = || self.0.regions.get(namespace.region).and_then(|view| view.leader()) == Some(to);
        while !leads() {
            if deadline <= Instant::now() + LOOK_INTERVAL {
                return Err(status::leader_not_moved(&moved.name, to, timeout));
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        let header = Some(self.0.header_of(&namespace));
        Ok(v1::MoveLeaderResponse { header, namespace: Some(describe(&self.0, &namespace)) })
    }

    /// A node that is not heard cannot take over: to prefer it would change nothing now, and surprise later.
    fn check_reachable(&self, node: NodeId) -> Result<(), v1::Error> {
        let this = node == self.0.config.node();
        if self.0.config.member(node).is_none() {
            return Err(status::not_a_member(node, &self.0.config.members()));
        }
        match self.0.peers.silence(node) {
            Some(silence) if silence <= SILENCE_MAX => Ok(()),
            _ if this => Ok(()),
            silence => Err(status::unreachable(node, silence)),
        }
    }

    async fn listed(&self, timeout: Duration) -> Result<v1::ListNamespacesResponse, v1::Error> {
        self.0.read_barrier(RegionId::META, timeout).await?;
        let namespaces = describe_all(&self.0);
        Ok(v1::ListNamespacesResponse { header: Some(catalog_header(&self.0)), namespaces })
    }

    async fn described(
        &self,
        name: &str,
        timeout: Duration,
    ) -> Result<v1::DescribeNamespaceResponse, v1::Error> {
        self.0.read_barrier(RegionId::META, timeout).await?;
        let catalog = self.0.catalog.load();
        let namespace = catalog.namespace(name).ok_or_else(|| status::namespace_not_found(name))?;
        let header = Some(self.0.header_of(namespace));
        Ok(v1::DescribeNamespaceResponse { header, namespace: Some(describe(&self.0, namespace)) })
    }
}

#[tonic::async_trait]
impl Namespaces for NamespaceService {
    async fn create(
        &self,
        request: Request<v1::CreateNamespaceRequest>,
    ) -> Answered<v1::CreateNamespaceResponse> {
        let timeout = self.0.timeout(&request);
        answered(NamespaceService::create(self, request.into_inner(), timeout).await)
    }

    async fn list(
        &self,
        request: Request<v1::ListNamespacesRequest>,
    ) -> Answered<v1::ListNamespacesResponse> {
        let timeout = self.0.timeout(&request);
        answered(self.listed(timeout).await)
    }

    async fn describe(
        &self,
        request: Request<v1::DescribeNamespaceRequest>,
    ) -> Answered<v1::DescribeNamespaceResponse> {
        let timeout = self.0.timeout(&request);
        answered(self.described(&request.into_inner().name, timeout).await)
    }

    async fn delete(
        &self,
        request: Request<v1::DeleteNamespaceRequest>,
    ) -> Answered<v1::DeleteNamespaceResponse> {
        let timeout = self.0.timeout(&request);
        answered(self.remove(request.into_inner(), timeout).await)
    }

    async fn move_leader(&self, request: Request<v1::MoveLeaderRequest>) -> Answered<v1::MoveLeaderResponse> {
        let timeout = self.0.timeout(&request);
        answered(NamespaceService::move_leader(self, request.into_inner(), timeout).await)
    }

    async fn switch_mode(&self, request: Request<v1::SwitchModeRequest>) -> Answered<v1::SwitchModeResponse> {
        let timeout = self.0.timeout(&request);
        answered(self.begin_switch(request.into_inner(), timeout).await)
    }

    async fn abort_switch(
        &self,
        request: Request<v1::AbortSwitchRequest>,
    ) -> Answered<v1::AbortSwitchResponse> {
        let timeout = self.0.timeout(&request);
        answered(self.call_off(request.into_inner(), timeout).await)
    }

    async fn get_switch(&self, request: Request<v1::GetSwitchRequest>) -> Answered<v1::GetSwitchResponse> {
        answered(self.look_at_switch(&request.into_inner().name).await)
    }

    async fn list_quarantine(
        &self,
        request: Request<v1::ListQuarantineRequest>,
    ) -> Answered<v1::ListQuarantineResponse> {
        responded(self.list_set_aside(request.into_inner()).await)
    }

    async fn list_conflicts(
        &self,
        request: Request<v1::ListConflictsRequest>,
    ) -> Answered<v1::ListConflictsResponse> {
        responded(self.list_lost(request.into_inner()).await)
    }
}

/// What a namespace is to be created with.
pub(super) fn settings(create: &v1::CreateNamespaceRequest) -> Result<Settings, v1::Error> {
    let durability = match v1::Durability::try_from(create.durability) {
        Ok(v1::Durability::Unspecified | v1::Durability::Sync) => Durability::Sync,
        Ok(v1::Durability::Periodic) => Durability::Periodic,
        Err(_) => {
            let message =
                format!("durability {} is not known to this node; nothing was created", create.durability);
            return Err(status::unsupported(message, "ask for sync or periodic, or upgrade the node"));
        }
    };
    let settings = Settings { durability, keep_lost_seconds: create.keep_lost_seconds };
    settings.check().map_err(status::invalid)?;
    Ok(settings)
}

/// When a call that begins now and may take so long is to be answered, so that the answer still comes.
fn answer_by(timeout: Duration) -> Instant {
    Instant::now() + timeout - ANSWER_MARGIN.min(timeout / 4)
}

/// The header of what the catalog itself answers. Its epoch is its own: there is no switch of its mode.
pub(super) fn catalog_header(shared: &Shared) -> v1::Header {
    shared.header(RegionId::META, Rules { era: Era(1), mode: Mode::Strong, epoch: Epoch(1) })
}

/// All namespaces, as this node knows them.
pub(super) fn describe_all(shared: &Shared) -> Vec<v1::Namespace> {
    shared.catalog.load().namespaces().map(|namespace| describe(shared, namespace)).collect()
}

fn describe(shared: &Shared, namespace: &Namespace) -> v1::Namespace {
    let region = describe_region(&shared.regions, namespace.region, &namespace.members);
    v1::Namespace {
        name: namespace.name.clone(),
        id: namespace.id.0,
        mode: match namespace.mode() {
            Mode::Strong => v1::Mode::Strong.into(),
            Mode::Eventual => v1::Mode::Eventual.into(),
        },
        epoch: namespace.epoch().0,
        era: namespace.era().0,
        regions: vec![region],
        preferred_leader: namespace.preferred_leader.0,
        deleting: namespace.stage == Stage::Deleting,
        keep_lost_seconds: namespace.settings.keep_lost_seconds,
        durability: match namespace.settings.durability {
            Durability::Sync => v1::Durability::Sync.into(),
            Durability::Periodic => v1::Durability::Periodic.into(),
        },
    }
}

/// A region, as this node knows it. Where it has no replica it says so: to have applied nothing is another thing.
pub(super) fn describe_region(regions: &Regions, region: RegionId, members: &[NodeId]) -> v1::Region {
    let members = members.iter().map(|member| member.0).collect();
    let Some(view) = regions.get(region) else {
        return v1::Region { id: region.0, members, absent: true, ..v1::Region::default() };
    };
    v1::Region {
        id: region.0,
        leader: view.leader().map_or(0, |leader| leader.0),
        term: view.term(),
        commit_index: view.commit(),
        applied_index: view.applied(),
        members,
        absent: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Budget;

    #[test]
    fn a_replica_that_is_not_there_is_not_an_empty_one() {
        let regions = Regions::new(Budget::new(1 << 20), 1 << 20);
        let members = [NodeId(1), NodeId(2)];
        let missing = describe_region(&regions, RegionId(7), &members);
        assert_eq!((missing.id, missing.absent, &missing.members[..]), (7, true, &[1, 2][..]));
        regions.insert(RegionId(7), &crate::regions::Before::default());
        let empty = describe_region(&regions, RegionId(7), &members);
        assert_eq!((empty.id, empty.absent, empty.applied_index), (7, false, 0));
    }
}

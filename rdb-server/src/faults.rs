//! Cuts between this node and others, on demand: a demonstration on one machine pulls a cable without being root.
//!
//! A cut is what TCP makes of one: what cannot pass waits and comes when the cut is mended, in order and without a gap,
//! unless the silence has ended its connection before; and new connections do not come up. Whatever the two ends of the
//! peers' streams do about it, they do for a real one.
//!
//! Without `fault_calls` there is nothing here to ask: [`Cuts`] is then empty for the life of the process.

use crate::config::Config;
use rdb_core::ids::NodeId;
use rdb_proto::internal::v1::{CutRequest, CutResponse, faults_server};
use std::collections::BTreeSet;
use tokio::sync::watch;
use tonic::{Request, Response, Status};

/// What is cut now.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Cut {
    to: BTreeSet<NodeId>,
    from: BTreeSet<NodeId>,
}

/// Where the two ends of the peers' streams look before anything passes. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Cuts(Option<watch::Sender<Cut>>);

impl Cuts {
    /// Nothing is cut; and nothing ever will be, unless calls are served.
    pub(crate) fn new(served: bool) -> Self {
        Self(served.then(|| watch::Sender::new(Cut::default())))
    }

    /// Whether what this node says to `node` does not arrive.
    pub(crate) fn is_cut_to(&self, node: NodeId) -> bool {
        self.0.as_ref().is_some_and(|cut| cut.borrow().to.contains(&node))
    }

    /// Waits until this node can say something to `node`.
    pub(crate) async fn until_open_to(&self, node: NodeId) {
        self.until(|cut| !cut.to.contains(&node)).await;
    }

    /// Waits until what `node` says arrives here.
    pub(crate) async fn until_open_from(&self, node: NodeId) {
        self.until(|cut| !cut.from.contains(&node)).await;
    }

    /// Waits until the two can speak to each other.
    pub(crate) async fn until_whole(&self, node: NodeId) {
        self.until(|cut| !cut.to.contains(&node) && !cut.from.contains(&node)).await;
    }

    async fn until(&self, wanted: impl Fn(&Cut) -> bool) {
        if let Some(cut) = &self.0 {
            // Fails only without a sender, and `self` is one.
            let _ = cut.subscribe().wait_for(wanted).await;
        }
    }
}

/// Serves the calls that cut and mend.
pub(crate) struct FaultService {
    cut: watch::Sender<Cut>,
    others: BTreeSet<NodeId>,
}

impl FaultService {
    /// Nothing, where calls are not to be served.
    pub(crate) fn new(cuts: &Cuts, config: &Config) -> Option<Self> {
        let cut = cuts.0.clone()?;
        let others = config.members().into_iter().filter(|member| *member != config.node()).collect();
        Some(Self { cut, others })
    }

    fn known(&self, nodes: Vec<u64>) -> Result<BTreeSet<NodeId>, Status> {
        let nodes: BTreeSet<NodeId> = nodes.into_iter().map(NodeId).collect();
        match nodes.difference(&self.others).next() {
            None => Ok(nodes),
            Some(node) => Err(Status::invalid_argument(format!(
                "node {node} is not another node of this cluster; nothing was changed"
            ))),
        }
    }
}

#[tonic::async_trait]
impl faults_server::Faults for FaultService {
    async fn cut(&self, request: Request<CutRequest>) -> Result<Response<CutResponse>, Status> {
        let CutRequest { to, from } = request.into_inner();
        let cut = Cut { to: self.known(to)?, from: self.known(from)? };
        let before = self.cut.send_replace(cut.clone());
        if before != cut {
            tracing::warn!(to = ?cut.to, from = ?cut.from, "cut off from other nodes by a fault call");
        }
        Ok(Response::new(CutResponse {}))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_now::now;
    use rdb_proto::internal::v1::faults_server::Faults as _;

    /// Whether a future is done when it is first looked at.
    mod futures_now {
        use std::pin::pin;
        use std::task::{Context, Waker};

        pub(super) fn now<T>(future: impl Future<Output = T>) -> Option<T> {
            match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
                std::task::Poll::Ready(done) => Some(done),
                std::task::Poll::Pending => None,
            }
        }
    }

    fn service(cuts: &Cuts) -> FaultService {
        FaultService { cut: cuts.0.clone().unwrap(), others: [NodeId(2), NodeId(3)].into() }
    }

    fn cut(service: &FaultService, to: &[u64], from: &[u64]) -> Result<Response<CutResponse>, Status> {
        now(service.cut(Request::new(CutRequest { to: to.to_vec(), from: from.to_vec() }))).unwrap()
    }

    #[test]
    fn each_direction_is_cut_and_mended_by_itself() {
        let cuts = Cuts::new(true);
        let service = service(&cuts);
        assert!(now(cuts.until_whole(NodeId(2))).is_some());
        cut(&service, &[2], &[]).unwrap();
        assert!(cuts.is_cut_to(NodeId(2)) && now(cuts.until_open_to(NodeId(2))).is_none());
        assert!(now(cuts.until_open_from(NodeId(2))).is_some());
        assert!(now(cuts.until_whole(NodeId(2))).is_none());
        assert!(!cuts.is_cut_to(NodeId(3)) && now(cuts.until_whole(NodeId(3))).is_some());
        cut(&service, &[], &[3]).unwrap();
        assert!(now(cuts.until_whole(NodeId(2))).is_some(), "a call replaces the one before");
        assert!(
            now(cuts.until_open_from(NodeId(3))).is_none() && now(cuts.until_open_to(NodeId(3))).is_some()
        );
        let stranger = cut(&service, &[9], &[]).unwrap_err();
        assert_eq!(stranger.code(), tonic::Code::InvalidArgument);
        assert!(now(cuts.until_whole(NodeId(3))).is_none(), "a call that is refused changes nothing");
        cut(&service, &[], &[]).unwrap();
        assert!(now(cuts.until_whole(NodeId(3))).is_some());
    }

    #[test]
    fn without_the_option_nothing_can_be_cut() {
        let cuts = Cuts::new(false);
        assert!(FaultService::new(&cuts, &Config::default()).is_none());
        assert!(!cuts.is_cut_to(NodeId(2)) && now(cuts.until_whole(NodeId(2))).is_some());
    }
}

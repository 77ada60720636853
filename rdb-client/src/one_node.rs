//! A question to one node, which answers for itself.

use crate::client::Client;
use crate::error::{Attempted, Error, Refusal};
use crate::nodes::Address;
use crate::status::Failed;
use rdb_proto::v1::namespaces_client::NamespacesClient;
use tokio::time::{Instant, timeout};
use tonic::transport::Channel;
use tonic::{Response, Status};

impl Client {
    /// Asks the node at `address`, once, within the time for a request.
    ///
    /// # Errors
    /// It does not answer in time, or it refuses.
    pub(crate) async fn ask_at<A, F>(
        &self,
        address: &str,
        ask: impl FnOnce(NamespacesClient<Channel>) -> F,
    ) -> Result<A, Error>
    where
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let started = Instant::now();
        let nodes = self.nodes_known();
        let unknown = || Error::Options(format!("'{address}' is not an address like 127.0.0.1:7101"));
        let node = nodes.learn(address).ok_or_else(unknown)?;
        let channel = nodes.channel(&node).ok_or_else(unknown)?;
        let limit = self.deadline().saturating_duration_since(started);
        let failed = match timeout(limit, ask(NamespacesClient::new(channel))).await {
            Ok(Ok(answer)) => return Ok(answer.into_inner()),
            Ok(Err(status)) => Failed::from_status(&node, &status),
            Err(_) => Failed::Deadline { address: node, sent: true },
        };
        Err(explain(failed, Attempted { tries: 1, waited: started.elapsed() }))
    }
}

fn explain(failed: Failed, attempted: Attempted) -> Error {
    let text = |address: Address| address.to_string();
    match failed {
        Failed::NotSent(address, reason) => Error::Unreachable { nodes: text(address), reason, attempted },
        Failed::Lost(address, reason) => Error::Lost { node: text(address), reason, attempted },
        Failed::Deadline { address, .. } => Error::TimedOut { node: text(address), before: None, attempted },
        Failed::Answered(address, error) => Error::Refused(Box::new(Refusal {
            code: error.code(),
            message: error.message,
            hint: error.hint,
            node: text(address),
            attempted,
        })),
    }
}

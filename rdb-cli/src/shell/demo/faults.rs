//! The nodes' fault calls, which only the demo's nodes serve.

use super::partition::Side;
use rdb_proto::internal::v1::CutRequest;
use rdb_proto::internal::v1::faults_client::FaultsClient;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};
use tonic::Code;
use tonic::transport::Endpoint;

/// For a node that runs.
const CALL_TIMEOUT: Duration = Duration::from_secs(1);
/// For a node that is being started.
const START_WAIT: Duration = Duration::from_secs(5);
const RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// How long to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    Once,
    /// The node was started a moment ago.
    UntilServed,
}

/// Why a node was not told.
#[derive(Debug)]
pub(super) enum Refused {
    /// It does not run, or hangs.
    Unreached(String),
    /// It serves no such calls.
    Unsupported,
    Other(String),
}

/// Tells a node what it is cut off from, in place of what it was told before.
pub(super) async fn cut(address: &str, side: Side, patience: Patience) -> Result<(), Refused> {
    let deadline = Instant::now() + START_WAIT;
    loop {
        match timeout(CALL_TIMEOUT, call(address, &side))
            .await
            .unwrap_or_else(|_| Err(unreached("it does not answer")))
        {
            Err(Refused::Unreached(_)) if patience == Patience::UntilServed && Instant::now() < deadline => {
                sleep(RETRY_INTERVAL).await;
            }
            told => return told,
        }
    }
}

async fn call(address: &str, side: &Side) -> Result<(), Refused> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|error| Refused::Other(error.to_string()))?;
    let channel = endpoint.connect().await.map_err(|_| unreached("it is down"))?;
    let request = CutRequest { to: side.to.clone(), from: side.from.clone() };
    match FaultsClient::new(channel).cut(request).await {
        Ok(_) => Ok(()),
        Err(status) if status.code() == Code::Unimplemented => Err(Refused::Unsupported),
        Err(status) if status.code() == Code::InvalidArgument => {
            Err(Refused::Other(status.message().to_owned()))
        }
        Err(status) => Err(unreached(status.message())),
    }
}

fn unreached(why: &str) -> Refused {
    Refused::Unreached(why.to_owned())
}

//! How one attempt failed, told from what gRPC says.

use crate::nodes::Address;
use prost::Message;
use rdb_proto::v1::{self, Code, Outcome};
use std::error::Error as _;

/// How one attempt failed.
#[derive(Debug, Clone)]
pub(crate) enum Failed {
    /// It never left: the node cannot have seen it.
    NotSent(Address, String),
    /// It left, and the connection broke.
    Lost(Address, String),
    /// The node answered, with an error.
    Answered(Address, Box<v1::Error>),
    /// The caller's time was over; `sent` says whether the node can have seen it.
    Deadline { address: Address, sent: bool },
}

impl Failed {
    /// Reads a failed call's status.
    pub(crate) fn from_status(address: &Address, status: &tonic::Status) -> Failed {
        let address = address.clone();
        if let Some(reason) = connect_failure(status) {
            return Failed::NotSent(address, reason);
        }
        if let Some(error) = carried(status) {
            return Failed::Answered(address, Box::new(error));
        }
        match status.code() {
            // The client's own timer ends a call so.
            tonic::Code::Cancelled | tonic::Code::DeadlineExceeded => {
                Failed::Deadline { address, sent: true }
            }
            // Nothing but the router, before any handler, answers so.
            tonic::Code::Unimplemented => Failed::Answered(
                address,
                Box::new(v1::Error {
                    code: Code::Unsupported.into(),
                    outcome: Outcome::NotDone.into(),
                    message: format!("the node does not know this call ({})", status.message()),
                    hint: "the node's version is older than this client's".into(),
                    ..v1::Error::default()
                }),
            ),
            _ => Failed::Lost(address, describe(status)),
        }
    }
}

/// The cluster's own error, which a failed call carries beside its status.
fn carried(status: &tonic::Status) -> Option<v1::Error> {
    let value = status.metadata().get_bin(rdb_proto::ERROR_METADATA_KEY)?;
    v1::Error::decode(value.to_bytes().ok()?).ok()
}

/// Why no connection came about, if that is what failed.
fn connect_failure(status: &tonic::Status) -> Option<String> {
    let mut source = status.source();
    while let Some(error) = source {
        if error.is::<tonic::ConnectError>() {
            return Some(root_cause(error));
        }
        source = error.source();
    }
    None
}

pub(crate) fn describe(status: &tonic::Status) -> String {
    match status.source() {
        Some(source) => root_cause(source),
        None if status.message().is_empty() => status.code().description().to_lowercase(),
        None => status.message().to_string(),
    }
}

/// The innermost reason, in words without numbers of the operating system.
fn root_cause(mut error: &(dyn std::error::Error + 'static)) -> String {
    loop {
        if let Some(io) = error.downcast_ref::<std::io::Error>()
            && io.get_ref().is_none()
            && io.kind() != std::io::ErrorKind::Other
        {
            return io.kind().to_string();
        }
        match error.source() {
            Some(source) => error = source,
            None => return error.to_string(),
        }
    }
}

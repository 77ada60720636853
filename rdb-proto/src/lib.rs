//! FlareDB's wire: the messages and services that clients and nodes speak, generated from `proto/`.
//!
//! - [`v1`] is for clients and stays compatible: fields are added, numbers never reused.
//! - [`internal`] is spoken between nodes of one cluster, under the protocol number of its handshake.
//!
//! Nothing here knows how a request is carried out. The types stay at the edges: `rdb-core` has its own.

pub mod session;

/// What clients speak.
#[allow(missing_docs, clippy::all)]
pub mod v1 {
    tonic::include_proto!("flaredb.v1");
}

/// What nodes speak among themselves.
pub mod internal {
    /// Protocol 1.
    #[allow(missing_docs, clippy::all)]
    pub mod v1 {
        tonic::include_proto!("flaredb.internal.v1");
    }
}

/// The compiled description of both packages, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("flaredb");

/// The key under which a failed unary call carries the encoded [`v1::Error`] in its trailing metadata.
pub const ERROR_METADATA_KEY: &str = "flaredb-error-bin";

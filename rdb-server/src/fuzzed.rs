//! What reads bytes from outside, as plain functions: `rdb-fuzz` calls them without a node around. A node calls none of them.

pub use crate::api::fuzzed::{Call, client_request};
pub use crate::config::fuzzed::config;
pub use crate::eventual::fuzzed::{gate_records, quarantine, quarantine_token};
pub use crate::raft_service::fuzzed::{peer_frames, snapshot_frame};

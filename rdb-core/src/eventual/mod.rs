//! Eventual mode: any node takes writes, always, and all come to the same records.
pub mod buckets;
pub mod conflicts;
pub mod hlc;
pub mod lag;
pub mod machine;
pub mod merge;
pub mod origin_log;
pub mod peers;
pub mod run;
pub mod session;
pub mod vector;

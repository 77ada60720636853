//! The disks of a node. What was written and what survives a crash are kept apart.

pub(crate) mod data;
pub(crate) mod log;

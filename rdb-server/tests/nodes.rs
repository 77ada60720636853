//! Real nodes, tried from outside: each module starts its own, does something to them, and looks what their clients see.
//!
//! One program, since each would link RocksDB and all of the server anew. What limits its own process, needs a feature, or needs the
//! machine for itself is a program of its own beside it.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "clippy takes only functions marked as tests for tests"
)]

mod support;

mod test_admission;
mod test_bad_input;
mod test_clocks;
mod test_conflicts;
mod test_disk;
mod test_eventual;
mod test_eventual_copies;
mod test_eventual_reads;
mod test_eventual_upkeep;
mod test_faults;
mod test_idle;
mod test_namespaces;
mod test_periodic;
mod test_reads;
mod test_replication;
mod test_retries;
mod test_scans;
mod test_sizes;
mod test_stale_clients;
mod test_switch;
mod test_switch_api;
mod test_transactions;

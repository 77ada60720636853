//! The configuration file: as text, which is seldom one, and put together from options and numbers, which it often is.

use crate::parts::Parts;
use rdb_server::fuzzed;
use std::collections::BTreeMap;

/// What an input begins with that is no text.
const ASSEMBLED: u8 = 0xff;

const LEAST: &str = "cluster_id = \"c\"\nnode_id = 1\ndata_dir = \"d\"\n";
const MEMBER: &str = "[[nodes]]\nid = 1\nclient = \"localhost:7101\"\npeer = \"127.0.0.1:7201\"\n";

/// The options that are numbers.
const NUMBERS: [&str; 16] = [
    "tick_ms",
    "election_ticks",
    "heartbeat_ticks",
    "sleep_after_ms",
    "request_timeout_ms",
    "request_bytes_max",
    "scans_max",
    "namespace_request_bytes_max",
    "cache_bytes",
    "log_keep_entries",
    "log_bytes_max",
    "log_keep_seconds",
    "tombstone_grace_seconds",
    "eventual_log_bytes_max",
    "eventual_compare_seconds",
    "snapshot_bytes_per_second",
];

pub(super) fn run(input: &[u8]) -> bool {
    match input.split_first() {
        Some((&ASSEMBLED, rest)) => fuzzed::config(&assembled(Parts::of(rest))),
        _ => std::str::from_utf8(input).is_ok_and(fuzzed::config),
    }
}

/// A lease or none, then numbers of all sizes.
fn assembled(mut parts: Parts<'_>) -> String {
    let lease = parts.number().is_multiple_of(2);
    let mut options = BTreeMap::new();
    while !parts.is_empty() {
        let option = NUMBERS[usize::from(parts.number()) % NUMBERS.len()];
        // What TOML has room for.
        let shift = 1 + parts.number() % 63;
        options.insert(option, parts.long() >> shift);
    }
    let options = options.iter().map(|(option, number)| format!("{option} = {number}\n"));
    format!("{LEAST}leader_lease = {lease}\n{}{MEMBER}", options.collect::<String>())
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let all = "listen_client = \"127.0.0.1:7101\"\nlisten_peer = \"[::1]:7201\"\nlisten_http = \"127.0.0.1:7301\"\n\
               tick_ms = 50\nelection_ticks = 16\nheartbeat_ticks = 2\nsleep_after_ms = 5000\nleader_lease = true\n\
               request_timeout_ms = 5000\nrequest_bytes_max = 268435456\nscans_max = 64\n\
               namespace_request_bytes_max = 67108864\ncache_bytes = 268435456\nlog_keep_entries = 1000\n\
               log_bytes_max = 268435456\nlog_keep_seconds = 3600\ntombstone_grace_seconds = 3600\n\
               eventual_log_bytes_max = 2147483648\neventual_compare_seconds = 60\n\
               snapshot_bytes_per_second = 67108864\ndisk_reserve_bytes = 1342177280\nfault_calls = false\n\
               log = \"info\"\nlog_format = \"text\"\n";
    let ticks = [&[ASSEMBLED, 0, 0, 50][..], &[0x40; 8], &[1, 50], &[0x7f; 8]].concat();
    vec![format!("{LEAST}{MEMBER}").into_bytes(), format!("{LEAST}{all}{MEMBER}").into_bytes(), ticks]
}

//! The configuration file.

use rdb_server::fuzzed;

pub(super) fn run(input: &[u8]) -> bool {
    std::str::from_utf8(input).is_ok_and(fuzzed::config)
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let least = "cluster_id = \"c\"\nnode_id = 1\ndata_dir = \"d\"\n";
    let member = "[[nodes]]\nid = 1\nclient = \"localhost:7101\"\npeer = \"127.0.0.1:7201\"\n";
    let all = "listen_client = \"127.0.0.1:7101\"\nlisten_peer = \"[::1]:7201\"\nlisten_http = \"127.0.0.1:7301\"\n\
               tick_ms = 50\nelection_ticks = 16\nheartbeat_ticks = 2\nsleep_after_ms = 5000\nleader_lease = true\n\
               request_timeout_ms = 5000\nrequest_bytes_max = 268435456\nscans_max = 64\n\
               namespace_request_bytes_max = 67108864\ncache_bytes = 268435456\nlog_keep_entries = 1000\n\
               log_bytes_max = 268435456\nlog_keep_seconds = 3600\ntombstone_grace_seconds = 3600\n\
               eventual_log_bytes_max = 2147483648\neventual_compare_seconds = 60\n\
               snapshot_bytes_per_second = 67108864\ndisk_reserve_bytes = 1342177280\nfault_calls = false\n\
               log = \"info\"\nlog_format = \"text\"\n";
    vec![format!("{least}{member}").into_bytes(), format!("{least}{all}{member}").into_bytes()]
}

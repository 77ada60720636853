//! The configuration file, for `rdb-fuzz`.

use super::Config;

/// Reads a file and checks it; then asks it for all that a node derives from it. Whether a node would start with it.
pub fn config(text: &str) -> bool {
    let Ok(config) = toml::from_str::<Config>(text) else { return false };
    if config.check().is_err() {
        return false;
    }
    let _ = (config.node(), config.members(), config.tick(), config.request_timeout(), config.lease());
    let _ = (config.raft(), config.log_limits(), config.namespace_bytes_max());
    true
}

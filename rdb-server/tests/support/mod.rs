//! A cluster of real processes for black-box tests.
//!
//! Each test starts its own nodes, in directories and on ports of its own, and speaks to them as clients do: through
//! `rdb-client`, or through the plain gRPC where a test must choose the node. Nothing waits for a fixed time where a
//! condition can be waited for; deadlines are generous, so that a slow machine makes tests slow and not red.
//!
//! When a test ends, its processes are killed. Their logs are searched for panics; if the test failed, the logs' ends
//! are printed.

#![allow(dead_code, unreachable_pub, reason = "each test program uses a part of this")]
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "clippy takes only functions marked as tests for tests"
)]

pub mod cluster;
pub mod disk;
pub mod elements;
pub mod hostile;
pub mod load;
pub mod ports;
pub mod process;
pub mod proxy;
pub mod raw;

pub use cluster::{Cluster, Settings};

use std::time::{Duration, Instant};

/// For anything that should happen at all.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Between looks.
pub const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// Waits until `look` finds something.
pub async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {} s in vain: {what}", PATIENCE.as_secs());
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// Whether an error's words hold all of `wanted`.
#[track_caller]
pub fn assert_words(text: &str, wanted: &[&str]) {
    for word in wanted {
        assert!(text.contains(word), "'{word}' is missing in: {text}");
    }
}

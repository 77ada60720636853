//! Where a test has this process end in the middle of what it does. Only builds with the feature `failpoints` have it.

use std::sync::atomic::{AtomicU64, Ordering};

/// Which point, and which time that the process comes to it: `POINT:NUMBER`.
const VARIABLE: &str = "FLAREDB_CRASH_AT";

/// Has this process abort when it comes to a point, as the environment says.
///
/// # Errors
/// What the environment says is not `POINT:NUMBER`.
pub fn crash_as_told() -> anyhow::Result<()> {
    let Ok(told) = std::env::var(VARIABLE) else { return Ok(()) };
    let wrong = || anyhow::anyhow!("{VARIABLE} must be POINT:NUMBER, and is '{told}'");
    let (point, number) = told.split_once(':').ok_or_else(wrong)?;
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let (name, times) = (point.to_owned(), AtomicU64::new(0));
    let crash = move || {
        if times.fetch_add(1, Ordering::Relaxed) + 1 == number {
            tracing::warn!(point = name, number, "this process crashes, as it was told");
            std::process::abort();
        }
    };
    fail::cfg_callback(point, crash).map_err(anyhow::Error::msg)
}

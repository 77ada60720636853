//! A key is read.

use super::put;
use super::{BATCH, KEYS, key};
use anyhow::{Result, ensure};

pub(super) fn run(times: u64) -> Result<()> {
    let stored = put::stored(KEYS.div_ceil(BATCH))?;
    stored.flush()?;
    let mut found = 0;
    for number in 0..times * BATCH {
        found += u64::from(stored.get(&key(number))?.is_some());
    }
    ensure!(found == times * BATCH, "{found} of {} keys were found", times * BATCH);
    Ok(())
}

//! How often the disk makes a small write durable.

use super::{DURATION, rate};
use anyhow::Result;
use hdrhistogram::Histogram;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

const WRITE_BYTES: usize = 4096;
/// The file is as long as a write-ahead log that is written over: each sync then writes data and no length.
const FILE_BYTES: usize = 64 << 20;

pub(super) struct Syncs {
    pub(super) per_second: f64,
    pub(super) p50_us: f64,
}

#[allow(clippy::cast_precision_loss, reason = "microseconds of a sync")]
pub(super) fn measure(folder: &Path) -> Result<Syncs> {
    let mut file = File::create(folder.join("syncs"))?;
    file.write_all(&vec![0; FILE_BYTES])?;
    file.sync_all()?;
    let mut took_us: Histogram<u64> = Histogram::new(3)?;
    let began = Instant::now();
    let mut at = 0;
    while began.elapsed() < DURATION {
        let one = Instant::now();
        rustix::io::pwrite(&file, &[7; WRITE_BYTES], at)?;
        rustix::fs::fdatasync(&file)?;
        took_us.record(u64::try_from(one.elapsed().as_micros())?)?;
        at = (at + WRITE_BYTES as u64) % FILE_BYTES as u64;
    }
    Ok(Syncs {
        per_second: rate(took_us.len(), began.elapsed()),
        p50_us: took_us.value_at_quantile(0.5) as f64,
    })
}

//! Reads every key after a run, and judges what is stored.

use super::load::progress;
use super::target::{Failed, Target};
use super::workload::Workload;
use std::sync::Arc;

/// Below etcd's limit of 128 operations.
const BATCH_KEYS: usize = 64;
/// Wrong keys that are named; the rest are counted.
const SHOWN_MAX: usize = 5;
/// A cluster that just lost a leader may need a moment.
const TRIES: usize = 5;

/// What the check found.
pub(super) struct Checked {
    pub(super) keys: u64,
    pub(super) wrong: u64,
    /// The first wrong ones.
    pub(super) shown: Vec<String>,
}

pub(super) async fn run(target: &Target, workload: &Arc<Workload>) -> Result<Checked, Failed> {
    let bar = progress(workload.keys().len() as u64, "checking");
    let mut checked = Checked { keys: 0, wrong: 0, shown: Vec::new() };
    let mut key = 0;
    for keys in workload.keys().chunks(BATCH_KEYS) {
        for stored in get(target, keys).await? {
            if let Err(what) = workload.judge(key, stored.as_ref(), workload.acknowledged(key)) {
                checked.wrong += 1;
                if checked.shown.len() < SHOWN_MAX {
                    checked.shown.push(what);
                }
            }
            key += 1;
        }
        bar.inc(keys.len() as u64);
    }
    bar.finish_and_clear();
    checked.keys = key as u64;
    Ok(checked)
}

async fn get(target: &Target, keys: &[rdb_client::Bytes]) -> Result<Vec<super::target::Stored>, Failed> {
    let mut result = target.get_many(keys).await;
    for _ in 1..TRIES {
        if result.is_ok() {
            break;
        }
        result = target.get_many(keys).await;
    }
    result
}

//! Reads every key after a run, and judges what is stored.

use super::load::progress;
use super::target::{Failed, Target, tried};
use super::workload::Workload;
use futures_util::stream::{self, StreamExt as _};
use std::sync::Arc;

/// Batches that are asked for at a time.
const BATCHES_TOGETHER: usize = 8;
/// Wrong keys that are named; the rest are counted.
const SHOWN_MAX: usize = 5;

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
    let batches = workload.batches(workload.keys_together_max());
    let mut read = stream::iter(batches)
        .map(async |keys| {
            let (namespace, names) = (workload.namespace(keys.start), &workload.keys()[keys.clone()]);
            (keys, tried(|| target.get_many(namespace, names)).await)
        })
        .buffer_unordered(BATCHES_TOGETHER);
    while let Some((keys, stored)) = read.next().await {
        let stored = stored?;
        checked.keys += keys.len() as u64;
        bar.inc(keys.len() as u64);
        for (key, stored) in keys.zip(stored) {
            if let Err(what) = workload.judge(key, stored.as_ref(), workload.acknowledged(key)) {
                checked.wrong += 1;
                if checked.shown.len() < SHOWN_MAX {
                    checked.shown.push(what);
                }
            }
        }
    }
    bar.finish_and_clear();
    Ok(checked)
}

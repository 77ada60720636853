//! Writes the data set.

use super::BenchArgs;
use super::target::{Failed, Target};
use super::workload::Workload;
use crate::exit::{Class, Failure};
use crate::output::Answer;
use indicatif::{ProgressBar, ProgressStyle};
use rdb_client::Bytes;
use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;
use tokio::task::JoinSet;

/// Keys in one batch: below etcd's limit of 128 operations, and whatever the value size below FlareDB's of 4 MiB.
const BATCH_KEYS_MAX: usize = 64;
const BATCH_BYTES_MAX: usize = 1 << 20;
const CALLERS: u32 = 16;
/// A batch that was not done, or is in doubt, is written again: the same value twice harms nobody.
const TRIES: usize = 5;

/// Whether the first and the last key are there.
pub(super) async fn is_loaded(target: &Target, workload: &Workload) -> Result<bool, Failure> {
    let ends: Vec<_> =
        [workload.keys().first(), workload.keys().last()].into_iter().flatten().cloned().collect();
    match target.get_many(&ends).await {
        Ok(stored) => Ok(stored.iter().all(Option::is_some)),
        Err(failed) => Err(Failure::new(Class::Unreachable, failed.message)),
    }
}

pub(super) async fn run(
    target: &Target,
    workload: &Arc<Workload>,
    bench: &BenchArgs,
) -> Result<Answer, Failure> {
    let started = Instant::now();
    let bar = progress(bench.keys, "loading");
    let next = Arc::new(AtomicUsize::new(0));
    let batch = (BATCH_BYTES_MAX / (bench.value_size as usize + 1)).clamp(1, BATCH_KEYS_MAX);
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS.min(bench.callers) {
        let (target, workload, next, bar) = (target.clone(), workload.clone(), next.clone(), bar.clone());
        callers.spawn(async move {
            loop {
                let from = next.fetch_add(batch, Ordering::Relaxed);
                let to = workload.keys().len().min(from + batch);
                if to <= from {
                    return Ok(());
                }
                let records: Vec<_> = (from..to)
                    .map(|key| (workload.keys()[key].clone(), workload.begin_write(key, caller)))
                    .collect();
                let version = put(&target, records).await?;
                (from..to).for_each(|key| workload.acknowledge(key, version));
                bar.inc((to - from) as u64);
            }
        });
    }
    while let Some(result) = callers.join_next().await {
        if let Ok(Err(Failed { in_doubt, message })) = result {
            let class = if in_doubt { Class::InDoubt } else { Class::NotDone };
            return Err(Failure::new(class, format!("the data set could not be written: {message}")));
        }
    }
    bar.finish_and_clear();
    Ok(answer(bench, started.elapsed().as_secs_f64()))
}

async fn put(target: &Target, records: Vec<(Bytes, Bytes)>) -> Result<rdb_client::Version, Failed> {
    let mut result = target.put_many(records.clone()).await;
    for _ in 1..TRIES {
        if result.is_ok() {
            break;
        }
        result = target.put_many(records.clone()).await;
    }
    result
}

#[derive(Serialize)]
struct Loaded {
    loaded: u64,
    seconds: f64,
}

fn answer(bench: &BenchArgs, seconds: f64) -> Answer {
    let text = format!("loaded {} keys in {seconds:.1} s\n", bench.keys);
    Answer::new(text, &Loaded { loaded: bench.keys, seconds })
}

/// A bar on stderr, if that is a terminal.
pub(super) fn progress(length: u64, what: &'static str) -> ProgressBar {
    let bar = ProgressBar::new(length);
    if let Ok(style) =
        ProgressStyle::with_template("{msg:12} {bar:32} {percent:>3} %  {per_sec} {elapsed_precise}")
    {
        bar.set_style(style);
    }
    bar.set_message(what);
    bar
}

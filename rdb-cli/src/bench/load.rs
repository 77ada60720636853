//! Writes the data set.

use super::BenchArgs;
use super::target::{Failed, Target, tried};
use super::workload::Workload;
use crate::exit::{Class, Failure};
use crate::output::Answer;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;
use tokio::task::JoinSet;

const CALLERS: u32 = 16;

/// Whether the first and the last key are there.
pub(super) async fn is_loaded(target: &Target, workload: &Workload) -> Result<bool, Failure> {
    for end in [0, workload.keys().len() - 1] {
        let stored = target.get_many(workload.namespace(end), &workload.keys()[end..=end]).await;
        match stored {
            Ok(stored) if stored.iter().all(Option::is_some) => {}
            Ok(_) => return Ok(false),
            Err(failed) => return Err(Failure::new(Class::Unreachable, failed.message)),
        }
    }
    Ok(true)
}

pub(super) async fn run(
    target: &Target,
    workload: &Arc<Workload>,
    bench: &BenchArgs,
) -> Result<Answer, Failure> {
    let started = Instant::now();
    let bar = progress(bench.keys, "loading");
    let next = Arc::new(AtomicUsize::new(0));
    let batches: Arc<Vec<_>> = Arc::new(workload.batches(workload.keys_together_max()).collect());
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS.min(bench.callers) {
        let (target, workload, next, bar) = (target.clone(), workload.clone(), next.clone(), bar.clone());
        let batches = batches.clone();
        callers.spawn(async move {
            while let Some(batch) = batches.get(next.fetch_add(1, Ordering::Relaxed)) {
                let records: Vec<_> = batch
                    .clone()
                    .map(|key| (workload.keys()[key].clone(), workload.begin_write(key, caller)))
                    .collect();
                let namespace = workload.namespace(batch.start);
                // One that is in doubt is written again, too: the same value twice harms nobody.
                let version = tried(|| target.put_many(namespace, records.clone())).await?;
                batch.clone().for_each(|key| workload.acknowledge(key, version));
                bar.inc(batch.len() as u64);
            }
            Ok(())
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

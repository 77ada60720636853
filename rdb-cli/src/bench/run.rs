//! The closed loop.

use super::BenchArgs;
use super::cpu;
use super::measure::Measure;
use super::target::Target;
use super::workload::Workload;
use indicatif::{ProgressBar, ProgressStyle};
use rand::RngExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// How often the bar shows a new rate.
const BAR_INTERVAL: Duration = Duration::from_millis(500);
/// A caller whose request failed waits so long: a dead cluster must not be asked as fast as the loop can.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(10);

/// What the callers share.
struct Shared {
    target: Target,
    workload: Arc<Workload>,
    measure: Arc<Measure>,
    read_share: f64,
    phase: AtomicU8,
    /// All requests that succeeded, for the bar.
    completed: AtomicU64,
}

const WARMING_UP: u8 = 0;
const MEASURING: u8 = 1;
const STOPPING: u8 = 2;

/// What a run measured.
pub(super) struct Measured {
    pub(super) measure: Arc<Measure>,
    pub(super) elapsed: Duration,
    /// Per process, its processor time; `None`: it is gone, or was never there.
    pub(super) server_cpu: Vec<(u32, Option<Duration>)>,
    pub(super) client_cpu: Option<Duration>,
}

pub(super) async fn run(
    target: &Target,
    workload: &Arc<Workload>,
    bench: &BenchArgs,
    pids: &[u32],
) -> Measured {
    let shared = Arc::new(Shared {
        target: target.clone(),
        workload: workload.clone(),
        measure: Arc::new(Measure::new()),
        read_share: bench.read_share,
        phase: AtomicU8::new(WARMING_UP),
        completed: AtomicU64::new(0),
    });
    let mut callers = JoinSet::new();
    for caller in 0..bench.callers {
        callers.spawn(call(shared.clone(), caller));
    }
    let bar = bar(bench.warmup + bench.duration);
    wait(&shared, &bar, "warm-up", bench.warmup).await;
    let cpu_before: Vec<_> = pids.iter().map(|pid| cpu::used(*pid)).collect();
    let own_before = cpu::used_here();
    let started = Instant::now();
    shared.phase.store(MEASURING, Ordering::Relaxed);
    wait(&shared, &bar, "measuring", bench.duration).await;
    shared.phase.store(STOPPING, Ordering::Relaxed);
    let elapsed = started.elapsed();
    let client_cpu = difference(own_before, cpu::used_here());
    let server_cpu = pids
        .iter()
        .zip(cpu_before)
        .map(|(pid, before)| (*pid, difference(before, cpu::used(*pid))))
        .collect();
    bar.finish_and_clear();
    while callers.join_next().await.is_some() {}
    Measured { measure: shared.measure.clone(), elapsed, server_cpu, client_cpu }
}

/// One caller: one request on its way, until the run is over.
async fn call(shared: Arc<Shared>, caller: u32) {
    let mut random = shared.workload.random(caller);
    while shared.phase.load(Ordering::Relaxed) != STOPPING {
        let key = shared.workload.choose(&mut random);
        let is_read = random.random::<f64>() < shared.read_share;
        let succeeded = if is_read { read(&shared, key).await } else { write(&shared, key, caller).await };
        if succeeded {
            shared.completed.fetch_add(1, Ordering::Relaxed);
        } else {
            tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
        }
    }
}

async fn read(shared: &Shared, key: usize) -> bool {
    let (workload, measure) = (&shared.workload, &shared.measure);
    let at_least = workload.acknowledged(key);
    let started = Instant::now();
    let result = shared.target.get(&workload.keys()[key]).await;
    let measuring = shared.phase.load(Ordering::Relaxed) == MEASURING;
    match result {
        Ok(stored) => {
            if measuring {
                measure.reads.record(started.elapsed());
            }
            if let Err(what) = workload.judge(key, stored.as_ref(), at_least) {
                measure.wrong(&what);
            }
            true
        }
        Err(failed) => {
            if measuring {
                measure.failed(&measure.reads, &failed);
            }
            false
        }
    }
}

async fn write(shared: &Shared, key: usize, caller: u32) -> bool {
    let (workload, measure) = (&shared.workload, &shared.measure);
    let value = workload.begin_write(key, caller);
    let started = Instant::now();
    let result = shared.target.put(&workload.keys()[key], value).await;
    let measuring = shared.phase.load(Ordering::Relaxed) == MEASURING;
    match result {
        Ok(version) => {
            if measuring {
                measure.writes.record(started.elapsed());
            }
            workload.acknowledge(key, version);
            true
        }
        Err(failed) => {
            if measuring {
                measure.failed(&measure.writes, &failed);
            }
            false
        }
    }
}

async fn wait(shared: &Shared, bar: &ProgressBar, phase: &'static str, duration: Duration) {
    let started = Instant::now();
    let mut shown = (started, shared.completed.load(Ordering::Relaxed));
    while let Some(remaining) = duration.checked_sub(started.elapsed()).filter(|d| !d.is_zero()) {
        tokio::time::sleep(remaining.min(BAR_INTERVAL)).await;
        let (now, completed) = (Instant::now(), shared.completed.load(Ordering::Relaxed));
        let milliseconds = u64::try_from((now - shown.0).as_millis()).unwrap_or(u64::MAX).max(1);
        bar.set_message(format!("{phase:10} {:>8} op/s", (completed - shown.1) * 1000 / milliseconds));
        bar.inc(milliseconds);
        shown = (now, completed);
    }
}

fn bar(duration: Duration) -> ProgressBar {
    let bar = ProgressBar::new(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX));
    if let Ok(style) = ProgressStyle::with_template("{msg} {bar:32} {percent:>3} %") {
        bar.set_style(style);
    }
    bar
}

fn difference(before: Option<Duration>, after: Option<Duration>) -> Option<Duration> {
    after?.checked_sub(before?)
}

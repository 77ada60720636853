//! Starts the callers, lets them warm up, and measures them.

use super::BenchArgs;
use super::closed;
use super::cpu;
use super::measure::Measure;
use super::open;
use super::request::{Phase, Shared};
use super::scans;
use super::target::Target;
use super::workload::Workload;
use crate::exit::Failure;
use indicatif::{ProgressBar, ProgressStyle};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// How often the bar shows a new rate.
const BAR_INTERVAL: Duration = Duration::from_millis(500);

/// What a run measured.
pub(super) struct Measured {
    shared: Arc<Shared>,
    pub(super) elapsed: Duration,
    /// Per process, its processor time; `None`: it is gone, or was never there.
    pub(super) server_cpu: Vec<(u32, Option<Duration>)>,
    pub(super) client_cpu: Option<Duration>,
}

impl Measured {
    pub(super) fn measure(&self) -> &Measure {
        &self.shared.measure
    }
}

pub(super) async fn run(
    target: &Target,
    workload: &Arc<Workload>,
    bench: &BenchArgs,
    pids: &[u32],
) -> Result<Measured, Failure> {
    let shared = Arc::new(Shared::new(workload.clone(), bench.read_share, target.reads_are_current()));
    let mut callers = start(&shared, target, bench).await?;
    let bar = bar(bench.warmup + bench.duration);
    wait(&shared, &bar, "warm-up", bench.warmup).await;
    let cpu_before: Vec<_> = pids.iter().map(|pid| cpu::used(*pid)).collect();
    let own_before = cpu::used_here();
    let started = Instant::now();
    shared.enter(Phase::Measuring);
    wait(&shared, &bar, "measuring", bench.duration).await;
    shared.enter(Phase::Stopping);
    let elapsed = started.elapsed();
    let client_cpu = difference(own_before, cpu::used_here());
    let server_cpu = pids
        .iter()
        .zip(cpu_before)
        .map(|(pid, before)| (*pid, difference(before, cpu::used(*pid))))
        .collect();
    bar.finish_and_clear();
    while callers.join_next().await.is_some() {}
    Ok(Measured { shared, elapsed, server_cpu, client_cpu })
}

async fn start(shared: &Arc<Shared>, target: &Target, bench: &BenchArgs) -> Result<JoinSet<()>, Failure> {
    let mut callers = JoinSet::new();
    if let Some(rate) = bench.rate {
        callers.spawn(open::drive(shared.clone(), target.shareable()?, bench.callers, rate));
    } else if bench.scan {
        let namespace = target.namespace()?;
        for _ in 0..bench.callers {
            callers.spawn(scans::call(shared.clone(), namespace.clone()));
        }
    } else {
        for caller in 0..bench.callers {
            let line = target.line(caller).await?;
            callers.spawn(closed::call(shared.clone(), line, caller, bench.in_flight));
        }
    }
    Ok(callers)
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

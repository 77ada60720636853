//! The open loop: requests are sent when they are due, whether the ones before are answered or not, as those of many users are.
//!
//! A loop that waits for answers asks a store less just when it is slow, and so hides how long its users would have waited.
//! Here a request's latency counts from the time at which it was due, also where it was sent late.

use super::request::{Phase, Request, Shared};
use super::target::{Failed, Line, Target};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;

/// How often it is looked which requests are due. Tokio's timers are no finer than a millisecond, which is longer than most
/// requests take, so a thread does it.
const LOOK_INTERVAL: Duration = Duration::from_micros(100);
/// With more requests under way than this, the store does not keep up, and more would only fill this program's memory.
const UNDER_WAY_MAX: usize = 50_000;

/// Requests that are handed over together, so that a clock that was held up does not hold up what is due.
const TOGETHER_MAX: usize = 1024;

/// Requests that are due and not answered.
type UnderWay = Arc<AtomicUsize>;

/// One of them: also one whose task is gone is under way no more.
struct One(UnderWay);

impl Drop for One {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Sends `rate` requests a second until the run is over. The callers are the writers that requests name in turn.
pub(super) async fn drive(shared: Arc<Shared>, target: Target, callers: u32, rate: u32) {
    let (due, requests) = unbounded_channel();
    let under_way = UnderWay::default();
    let clock: JoinHandle<()> = {
        let (shared, under_way) = (shared.clone(), under_way.clone());
        tokio::task::spawn_blocking(move || tell_due(&shared, &due, &under_way, callers, rate))
    };
    send(&shared, &target, requests, &under_way).await;
    // It has ended: its end of the channel is gone.
    let _ = clock.await;
    while 0 < under_way.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Draws requests as they become due, and hands them over together: one wake-up for all that a look has found.
fn tell_due(
    shared: &Shared,
    due: &UnboundedSender<Vec<Request>>,
    under_way: &UnderWay,
    callers: u32,
    rate: u32,
) {
    let mut random = shared.workload.random(0);
    let interval = Duration::from_secs(1) / rate;
    let mut next = Instant::now();
    let mut caller = 0;
    while !shared.is(Phase::Stopping) {
        let mut requests = Vec::new();
        while next <= Instant::now() && requests.len() < TOGETHER_MAX && !shared.is(Phase::Stopping) {
            let request = shared.draw(&mut random, caller, next);
            if UNDER_WAY_MAX < under_way.fetch_add(1, Ordering::Relaxed) {
                under_way.fetch_sub(1, Ordering::Relaxed);
                let failed = Failed::not_sent("more requests are due than are answered: --rate is too high");
                shared.note(&request, Err(failed));
            } else {
                requests.push(request);
            }
            next += interval;
            caller = (caller + 1) % callers;
        }
        if !requests.is_empty() && due.send(requests).is_err() {
            return;
        }
        std::thread::sleep(LOOK_INTERVAL);
    }
}

async fn send(
    shared: &Arc<Shared>,
    target: &Target,
    mut due: UnboundedReceiver<Vec<Request>>,
    under_way: &UnderWay,
) {
    while let Some(requests) = due.recv().await {
        for request in requests {
            let (shared, target, one) = (shared.clone(), target.clone(), One(under_way.clone()));
            tokio::spawn(async move {
                let _one = one;
                let note = |request: &Request, result| {
                    shared.note(request, result);
                };
                Line::Shared(target).ask(vec![request], note).await;
            });
        }
    }
}

//! The open loop: requests are sent when they are due, whether the ones before are answered or not, as those of many users are.
//!
//! A loop that waits for answers asks a store less just when it is slow, and so hides how long its users would have waited.
//! Here a request's latency counts from the time at which it was due, also where it was sent late.

use super::request::{Phase, Shared};
use super::target::{Failed, Line, Target};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;

/// How often it is looked which requests are due. Tokio's timers are no finer than a millisecond, which is longer than most
/// requests take, so a thread does it.
const LOOK_INTERVAL: Duration = Duration::from_micros(100);
/// With more requests under way than this, the store does not keep up, and more would only fill this program's memory.
const UNDER_WAY_MAX: usize = 50_000;

/// Sends `rate` requests a second until the run is over. Blocks its thread. The callers are the writers that requests name in turn.
pub(super) fn drive(shared: &Arc<Shared>, target: &Target, runtime: &Handle, callers: u32, rate: u32) {
    let under_way = Arc::new(AtomicUsize::new(0));
    let mut random = shared.workload.random(0);
    let interval = Duration::from_secs(1) / rate;
    let mut due = Instant::now();
    let mut caller = 0;
    while !shared.is(Phase::Stopping) {
        while due <= Instant::now() {
            let request = shared.draw(&mut random, caller, due);
            if UNDER_WAY_MAX < under_way.load(Ordering::Relaxed) {
                shared.note(
                    &request,
                    Err(Failed::not_sent("more requests are due than are answered: --rate is too high")),
                );
            } else {
                under_way.fetch_add(1, Ordering::Relaxed);
                let (shared, target, under_way) = (shared.clone(), target.clone(), under_way.clone());
                runtime.spawn(async move {
                    Line::Shared(target)
                        .ask(vec![request], |request, result| {
                            shared.note(request, result);
                        })
                        .await;
                    under_way.fetch_sub(1, Ordering::Relaxed);
                });
            }
            due += interval;
            caller = (caller + 1) % callers;
        }
        std::thread::sleep(LOOK_INTERVAL);
    }
    while 0 < under_way.load(Ordering::Relaxed) {
        std::thread::sleep(LOOK_INTERVAL);
    }
}

//! The closed loop: a caller sends its next requests when the last ones are answered.

use super::request::{Phase, Shared};
use super::target::Line;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A caller whose request failed waits so long: a dead cluster must not be asked as fast as the loop can.
pub(super) const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(10);

/// One caller, with `in_flight` requests on its way until the run is over.
pub(super) async fn call(shared: Arc<Shared>, mut line: Line, caller: u32, in_flight: u32) {
    let mut random = shared.workload.random(caller);
    while !shared.is(Phase::Stopping) {
        let due = Instant::now();
        let requests = (0..in_flight).map(|_| shared.draw(&mut random, caller, due)).collect();
        let mut all_done = true;
        line.ask(requests, |request, result| all_done &= shared.note(request, result)).await;
        if !all_done {
            tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
        }
    }
}

//! Callers that read the whole data set from end to end.

use super::closed::PAUSE_AFTER_FAILURE;
use super::request::{Phase, Shared};
use super::target::Failed;
use rdb_client::{Error, Namespace, ScanOptions};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// One caller, which begins anew at each end until the run is over.
pub(super) async fn call(shared: Arc<Shared>, namespace: Namespace) {
    while !shared.is(Phase::Stopping) {
        let began = Instant::now();
        match scan(&shared, &namespace).await {
            Ok(true) if shared.is(Phase::Measuring) => shared.measure.reads.record(began.elapsed()),
            Ok(_) => {}
            Err(error) => {
                shared.measure.failed(&shared.measure.reads, &Failed::from(error));
                tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
            }
        }
    }
}

/// Whether it came to the end before the run did.
async fn scan(shared: &Shared, namespace: &Namespace) -> Result<bool, Error> {
    let workload = &shared.workload;
    let mut scan = namespace.scan(ScanOptions::all());
    let mut next = 0;
    while let Some(page) = scan.next_page().await? {
        if shared.is(Phase::Stopping) {
            return Ok(false);
        }
        let records = page.len() as u64;
        for record in page {
            let missed = workload.keys().get(next) != Some(&record.key);
            let stored = (record.value, record.version);
            let judged = if missed {
                Err("a scan missed a key, or found one too many".to_owned())
            } else {
                workload.judge(next, Some(&stored), shared.must_see(next))
            };
            if let Err(what) = judged {
                shared.measure.wrong(&what);
            }
            next += 1;
        }
        shared.completed.fetch_add(records, Ordering::Relaxed);
        if shared.is(Phase::Measuring) {
            shared.measure.scanned.fetch_add(records, Ordering::Relaxed);
        }
    }
    if next != workload.keys().len() {
        shared.measure.wrong(&format!("a scan found {next} of {} keys", workload.keys().len()));
    }
    Ok(true)
}

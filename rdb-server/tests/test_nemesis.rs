//! The nemesis against the server of this build, briefly: a run with each kind of trouble that needs nothing but
//! processes. What it is after is that the nemesis works; `./x nemesis` is what finds faults in the server.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "clippy takes only functions marked as tests for tests"
)]

use rdb_nemesis::{Place, Plan, Report, Wanted, run};
use tempfile::TempDir;
use tokio::sync::Semaphore;

/// A run counts only where its clients have done enough; two of them at a time leave each enough of the machine.
static PLACES: Semaphore = Semaphore::const_new(2);

/// Does one run. How fast an unoptimised server recovers on a busy machine is no matter here, so no bar is held.
async fn passes(seed: u64, faults: &[&str], workloads: &[&str]) -> Report {
    let _place = PLACES.acquire().await.unwrap();
    let names = |names: &[&str]| names.iter().map(ToString::to_string).collect();
    let wanted = Wanted {
        faults: names(faults),
        workloads: names(workloads),
        seconds: 6,
        bars: false,
        ..Wanted::default()
    };
    let folder = TempDir::with_prefix("flaredb-nemesis-").unwrap();
    let place = Place {
        server: env!("CARGO_BIN_EXE_rdb-server").into(),
        folder: folder.path().to_owned(),
        pages: None,
    };
    let plan = Plan::draw(seed, &wanted, Err("not in this test")).unwrap();
    let report = run(&plan, &place).await;
    assert!(report.passed(), "{report:#?}");
    println!("{}", report.in_a_line());
    report
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_see_nothing_wrong_while_the_leader_is_killed() {
    passes(1, &["kill-leader"], &["register", "set", "scans", "retries"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_see_nothing_wrong_while_the_leader_is_cut_off() {
    passes(2, &["partition-leader"], &["register", "counter", "pairs"]).await;
}

/// The seed strikes the leader, with syncs that are slow and not so slow that it would step down by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_disk_is_slow_hands_over() {
    let report = passes(17, &["slow-disk"], &["register", "set"]).await;
    assert!(report.faults.iter().any(|fault| fault.what.contains("the leader")), "{:?}", report.faults);
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_see_nothing_wrong_while_a_namespace_is_switched_and_a_sync_fails() {
    passes(3, &["sync-error"], &["register", "switched"]).await;
}

//! Metrics and health over HTTP.
//!
//! - `/metrics` in OpenMetrics text.
//! - `/healthz`: the process answers.
//! - `/readyz`: the node can serve: it knows a leader for the catalog and each of its regions, has caught up, its disk
//!   has room, and it is not stopping. The reason is in the body where it is not ready.

use crate::disk::Room;
use crate::shared::Shared;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use rdb_storage::LogWriterHandle;

/// Committed entries that a region may be behind and still count as caught up.
const APPLY_LAG_MAX: u64 = 10_000;

/// What the pages need.
#[derive(Clone)]
pub(crate) struct Pages {
    pub(crate) shared: Shared,
    pub(crate) log: LogWriterHandle,
}

/// The pages.
pub(crate) fn router(pages: Pages) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .with_state(pages)
}

async fn metrics(State(pages): State<Pages>) -> impl IntoResponse {
    let text = pages.shared.metrics.render(&pages.shared, pages.log.metrics());
    ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text)
}

async fn ready(State(pages): State<Pages>) -> impl IntoResponse {
    match not_ready(&pages.shared) {
        None => (StatusCode::OK, "ready\n".to_owned()),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")),
    }
}

fn not_ready(shared: &Shared) -> Option<String> {
    if shared.stopping.is_set() {
        return Some("the node is stopping".to_owned());
    }
    match shared.disk.room() {
        Room::Enough => {}
        Room::Little => {
            return Some("the disk is nearly full: writes are refused, but for deletes".to_owned());
        }
        Room::Gone => return Some("the disk is full: all writes are refused".to_owned()),
    }
    for (region, view) in shared.regions.all().iter() {
        if view.leader().is_none() {
            return Some(format!("region {region} has no known leader"));
        }
        let lag = view.commit().saturating_sub(view.applied());
        if APPLY_LAG_MAX < lag {
            return Some(format!("region {region} has {lag} committed entries to apply"));
        }
    }
    None
}

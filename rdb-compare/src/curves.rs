//! Curves: how throughput, latency and processor time go with the number of callers, and latency with the load.

use crate::points::{Album, Place, Point, measure, write_json};
use crate::sample::{Bench, Report};
use crate::stores::Store;
use anyhow::{Context as _, Result};
use std::path::Path;

const CALLERS: [u32; 7] = [1, 4, 16, 64, 256, 1024, 4096];
/// Of the most that the closed loop with 1,024 callers did.
const SHARES: [f64; 7] = [0.1, 0.25, 0.4, 0.55, 0.7, 0.8, 0.9];
const MOST_CALLERS: u32 = 1024;
const THREE: Store = Store::FlareDb { nodes: 3 };

/// What is drawn: its name, and who does what.
const LOADS: [(&str, Store, &str); 4] = [
    ("FlareDB put", THREE, "--read-share 0"),
    ("FlareDB linearizable get", THREE, "--read-share 1"),
    ("etcd put", Store::Etcd, "--read-share 0"),
    ("etcd linearizable get", Store::Etcd, "--read-share 1"),
];

/// Measures and draws into this folder; the figures go beside the pictures, as JSON.
pub(crate) fn draw(bench: &Bench, folder: &Path) -> Result<()> {
    let by_callers = measure(bench, places_by_callers());
    let album = Album { folder, x: "callers", points: &by_callers };
    album.draw("throughput", "operations a second", |sample| sample.report.throughput())?;
    album.draw("cpu", "server processor time of an operation, µs", |sample| sample.report.server_us())?;
    album.draw("latency-by-callers", "p99, ms", |sample| p99_ms(&sample.report))?;
    let by_load = measure(bench, places_by_load(&by_callers)?);
    let x = "operations a second, sent whether answers come or not";
    let album = Album { folder, x, points: &by_load };
    album.draw("latency-by-load", "p99, ms", |sample| p99_ms(&sample.report))?;
    write_json(folder, "curves", &serde_json::json!({ "by_callers": by_callers, "by_load": by_load }))
}

fn places_by_callers() -> Vec<Place> {
    let place = |callers: u32, (curve, store, load): (&'static str, Store, &str)| {
        let words = format!("{load} --callers {callers}");
        Place { curve, x: callers.into(), store, words }
    };
    CALLERS.iter().flat_map(|callers| LOADS.map(|load| place(*callers, load))).collect()
}

fn places_by_load(by_callers: &[Point]) -> Result<Vec<Place>> {
    let mut places = Vec::new();
    for share in SHARES {
        for (curve, store, load) in LOADS {
            let is_most = |point: &&Point| point.curve == curve && point.x == f64::from(MOST_CALLERS);
            let most = by_callers.iter().find(is_most);
            let most = most.with_context(|| format!("{curve}: {MOST_CALLERS} callers were not measured"))?;
            let rate = (most.sample.report.throughput() * share).round();
            let words = format!("{load} --callers {MOST_CALLERS} --rate {rate:.0}");
            places.push(Place { curve, x: rate, store, words });
        }
    }
    Ok(places)
}

fn p99_ms(report: &Report) -> f64 {
    report.p99_us() / 1000.0
}

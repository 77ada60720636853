//! Curves: how throughput, latency and processor time go with the number of callers, and latency with the load.
#![allow(clippy::print_stdout, reason = "this is what the program is for")]

use crate::plot::{Curve, Picture};
use crate::sample::{Bench, Report};
use crate::stores::Store;
use anyhow::{Context as _, Result};
use serde::Serialize;
use std::path::Path;

const CALLERS: [u32; 7] = [1, 4, 16, 64, 256, 1024, 4096];
/// Of the most that the closed loop with 1,024 callers did.
const SHARES: [f64; 7] = [0.1, 0.25, 0.4, 0.55, 0.7, 0.8, 0.9];
const THREE: Store = Store::FlareDb { nodes: 3 };

/// What is drawn: its name, and who does what.
const LOADS: [(&str, Store, &str); 4] = [
    ("FlareDB put", THREE, "--read-share 0"),
    ("FlareDB linearizable get", THREE, "--read-share 1"),
    ("etcd put", Store::Etcd, "--read-share 0"),
    ("etcd linearizable get", Store::Etcd, "--read-share 1"),
];

#[derive(Serialize)]
struct Point {
    load: &'static str,
    callers: u32,
    /// Null: a closed loop.
    rate: Option<f64>,
    report: Report,
}

/// Measures and draws into this folder; the figures go beside the pictures, as JSON.
pub(crate) fn draw(bench: &Bench, folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let by_callers = by_callers(bench);
    let by_load = by_load(bench, &by_callers)?;
    picture("throughput", "callers", "operations a second", &by_callers, |point| {
        (point.callers.into(), point.report.throughput())
    })
    .write(folder)?;
    picture("cpu", "callers", "server processor time of an operation, µs", &by_callers, |point| {
        (point.callers.into(), point.report.cpu.server_us_per_operation.unwrap_or(0.0))
    })
    .write(folder)?;
    picture("latency-by-callers", "callers", "p99, ms", &by_callers, |point| {
        (point.callers.into(), point.report.p99_us() / 1000.0)
    })
    .write(folder)?;
    picture(
        "latency-by-load",
        "operations a second, sent whether answers come or not",
        "p99, ms",
        &by_load,
        |point| (point.rate.unwrap_or(0.0), point.report.p99_us() / 1000.0),
    )
    .write(folder)?;
    let figures = serde_json::json!({ "by_callers": by_callers, "by_load": by_load });
    std::fs::write(folder.join("curves.json"), serde_json::to_vec_pretty(&figures)?)?;
    Ok(())
}

fn by_callers(bench: &Bench) -> Vec<Point> {
    let mut points = Vec::new();
    for callers in CALLERS {
        for (load, store, words) in LOADS {
            points.extend(point(bench, load, store, words, callers, None));
        }
    }
    points
}

fn by_load(bench: &Bench, by_callers: &[Point]) -> Result<Vec<Point>> {
    let mut points = Vec::new();
    for share in SHARES {
        for (load, store, words) in LOADS {
            let most = by_callers.iter().find(|point| point.load == load && point.callers == 1024);
            let most = most.context("1,024 callers were not measured")?.report.throughput();
            points.extend(point(bench, load, store, words, 1024, Some((most * share).round())));
        }
    }
    Ok(points)
}

fn point(
    bench: &Bench,
    load: &'static str,
    store: Store,
    words: &str,
    callers: u32,
    rate: Option<f64>,
) -> Option<Point> {
    let rate_words = rate.map(|rate| format!(" --rate {rate:.0}")).unwrap_or_default();
    let report = match bench.sample(store, &format!("{words} --callers {callers}{rate_words}")) {
        Ok(sample) => sample.report,
        Err(error) => {
            // One that cannot be measured, such as a load that is too much, is left out: the others took long.
            println!("{load:26} {callers:>5} callers{rate_words:15} left out: {error:#}");
            return None;
        }
    };
    println!(
        "{load:26} {callers:>5} callers{rate_words:15} {:>9.0}/s  p50 {:>8.2} ms  p99 {:>8.2} ms",
        report.throughput(),
        report.p50_us() / 1000.0,
        report.p99_us() / 1000.0
    );
    Some(Point { load, callers, rate, report })
}

fn picture(
    name: &'static str,
    x: &'static str,
    y: &'static str,
    points: &[Point],
    place: impl Fn(&Point) -> (f64, f64),
) -> Picture {
    let curves = LOADS.map(|(load, _, _)| Curve {
        name: load,
        points: points.iter().filter(|point| point.load == load).map(&place).collect(),
    });
    Picture { name, x, y, curves: curves.into() }
}

//! What is drawn: measurements along one axis.
#![allow(clippy::print_stdout, reason = "this is what the program is for")]

use crate::plot::{Curve, Picture};
use crate::sample::{Bench, Sample};
use crate::stores::Store;
use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// A place of a curve, and who does what there.
pub(crate) struct Place {
    pub(crate) curve: &'static str,
    pub(crate) x: f64,
    pub(crate) store: Store,
    /// For `rdb bench`.
    pub(crate) words: String,
}

/// What was measured at a place.
#[derive(Serialize, Deserialize)]
pub(crate) struct Point {
    pub(crate) curve: String,
    pub(crate) x: f64,
    words: String,
    pub(crate) sample: Sample,
}

/// One that cannot be measured, such as a load that is too much, is left out: the others took long.
pub(crate) fn measure(bench: &Bench, places: Vec<Place>) -> Vec<Point> {
    places.into_iter().filter_map(|place| point(bench, place)).collect()
}

fn point(bench: &Bench, Place { curve, x, store, words }: Place) -> Option<Point> {
    match bench.sample(store, &words) {
        Ok(sample) => {
            let report = &sample.report;
            println!(
                "{curve:26} {words:60} {:>9.0}/s  p50 {:>8.2} ms  p99 {:>8.2} ms  {:>7.1} us CPU  {:>5} MiB",
                report.throughput(),
                report.p50_us() / 1000.0,
                report.p99_us() / 1000.0,
                report.server_us(),
                sample.memory_mib_max
            );
            Some(Point { curve: curve.to_owned(), x, words, sample })
        }
        Err(error) => {
            println!("{curve:26} {words:60} left out: {error:#}");
            None
        }
    }
}

/// Pictures of the same points.
pub(crate) struct Album<'a> {
    pub(crate) folder: &'a Path,
    pub(crate) x: &'static str,
    pub(crate) points: &'a [Point],
}

impl Album<'_> {
    /// Draws one figure of all points.
    pub(crate) fn draw(&self, name: &str, y: &'static str, figure: impl Fn(&Sample) -> f64) -> Result<()> {
        let mut curves: Vec<Curve> = Vec::new();
        for point in self.points {
            let place = (point.x, figure(&point.sample));
            match curves.iter_mut().find(|curve| curve.name == point.curve) {
                Some(curve) => curve.points.push(place),
                None => curves.push(Curve { name: point.curve.clone(), points: vec![place] }),
            }
        }
        Picture { name: name.to_owned(), x: self.x, y, curves }.write(self.folder)
    }
}

/// What was measured and written before.
pub(crate) fn read_json(folder: &Path, name: &str) -> Result<Vec<Point>> {
    let file = folder.join(format!("{name}.json"));
    let bytes = std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
    serde_json::from_slice(&bytes).with_context(|| format!("{} has no points", file.display()))
}

/// Writes the figures beside their pictures.
pub(crate) fn write_json(folder: &Path, name: &str, figures: &impl Serialize) -> Result<()> {
    let file = folder.join(format!("{name}.json"));
    std::fs::write(&file, serde_json::to_vec_pretty(figures)?)
        .with_context(|| format!("cannot write {}", file.display()))
}

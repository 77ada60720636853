//! Curves as SVG, with both axes logarithmic: what is compared differs by factors.

use anyhow::{Context as _, Result, anyhow};
use plotters::prelude::*;
use std::path::Path;

const SIZE: (u32, u32) = (900, 480);
const LABELS: u32 = 80;
const TEXT: (&str, i32) = ("sans-serif", 15);
/// Around the curves, as a factor.
const MARGIN: f64 = 1.3;
const COLOURS: [RGBColor; 4] =
    [RGBColor(32, 107, 196), RGBColor(47, 179, 68), RGBColor(214, 57, 57), RGBColor(247, 103, 7)];

pub(crate) struct Picture {
    /// Of its file.
    pub(crate) name: String,
    pub(crate) x: &'static str,
    pub(crate) y: &'static str,
    pub(crate) curves: Vec<Curve>,
}

pub(crate) struct Curve {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

impl Picture {
    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        let file = folder.join(format!("{}.svg", self.name));
        std::fs::write(&file, self.svg()?).with_context(|| format!("cannot write {}", file.display()))
    }

    fn svg(&self) -> Result<String> {
        let mut svg = String::new();
        self.draw(&mut svg).map_err(|error| anyhow!("cannot draw {}: {error}", self.name))?;
        Ok(svg)
    }

    fn draw(&self, svg: &mut String) -> Result<(), Box<dyn std::error::Error>> {
        let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        let (xs, ys) = (self.extent(|point| point.0), self.extent(|point| point.1));
        let mut chart = ChartBuilder::on(&root)
            .margin(12)
            .x_label_area_size(48)
            .y_label_area_size(LABELS)
            .build_cartesian_2d((xs.0..xs.1).log_scale(), (ys.0..ys.1).log_scale())?;
        chart
            .configure_mesh()
            .x_desc(self.x)
            .y_desc(self.y)
            .label_style(TEXT)
            .x_label_formatter(&short)
            .y_label_formatter(&short)
            .draw()?;
        for (curve, colour) in self.curves.iter().zip(COLOURS.iter().cycle()) {
            let line = LineSeries::new(curve.points.iter().copied(), colour.stroke_width(2)).point_size(3);
            let key = move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2));
            chart.draw_series(line)?.label(&curve.name).legend(key);
        }
        chart
            .configure_series_labels()
            .position(self.names())
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK.mix(0.2))
            .label_font(TEXT)
            .draw()?;
        root.present()?;
        drop(chart);
        drop(root);
        Ok(())
    }

    /// Where the curves are not: they begin above, or below.
    fn names(&self) -> SeriesLabelPosition {
        let (least, most) = self.extent(|point| point.1);
        let begins_above =
            |curve: &Curve| curve.points.first().is_some_and(|first| (least * most).sqrt() < first.1);
        match self.curves.iter().any(begins_above) {
            true => SeriesLabelPosition::LowerLeft,
            false => SeriesLabelPosition::UpperLeft,
        }
    }

    /// The least and the most of a coordinate, with room around.
    fn extent(&self, coordinate: impl Fn(&(f64, f64)) -> f64) -> (f64, f64) {
        let values = || {
            self.curves.iter().flat_map(|curve| &curve.points).map(&coordinate).filter(|value| 0.0 < *value)
        };
        let (min, max) = (values().fold(f64::INFINITY, f64::min), values().fold(0.0, f64::max));
        if min < max { (min / MARGIN, max * MARGIN) } else { (0.1, 10.0) }
    }
}

/// A number beside an axis.
fn short(value: &f64) -> String {
    match *value {
        value if 1e9 <= value => format!("{} G", value / 1e9),
        value if 1e6 <= value => format!("{} M", value / 1e6),
        value if 1e3 <= value => format!("{} k", value / 1e3),
        value => format!("{value}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_beside_an_axis_are_short() {
        let all = [0.5, 20.0, 1_000.0, 2_500_000.0, 1e10].map(|value| short(&value));
        assert_eq!(all, ["0.5", "20", "1 k", "2.5 M", "10 G"]);
    }

    #[test]
    fn each_curve_is_in_the_picture() {
        let curves = vec![
            Curve { name: "one".to_owned(), points: vec![(1.0, 10.0), (1000.0, 20_000.0)] },
            Curve { name: "other".to_owned(), points: vec![(1.0, 0.5)] },
        ];
        let svg = Picture { name: "test".to_owned(), x: "callers", y: "each", curves }.svg().unwrap();
        for word in ["<svg", "one", "other", "callers", "each"] {
            assert!(svg.contains(word), "'{word}' is missing");
        }
        let empty = Picture { name: "empty".to_owned(), x: "x", y: "y", curves: Vec::new() };
        assert!(empty.svg().is_ok());
    }
}

//! Pictures over time, one below the other: what clients were told and how soon, who led, what nodes used, and how the switched
//! namespace stood. Faults lie behind all of them.

use super::moments::{Latency, Moment, Moments, Span};
use crate::history::Used;
use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use std::collections::BTreeMap;

const WIDTH: u32 = 1_180;
const PANEL: u32 = 190;
/// Of a panel with a row for each node, beyond them.
const ROWS_MARGIN: u32 = 70;
const ROW: u32 = 26;
const LABELS: u32 = 70;
const TEXT: (&str, i32) = ("sans-serif", 15);
const SMALL: (&str, i32) = ("sans-serif", 12);
/// Milliseconds: latencies below are drawn as this.
const LATENCY_MIN: f64 = 0.1;

const FAULT: RGBColor = RGBColor(214, 57, 57);
const GOOD: RGBColor = RGBColor(32, 107, 196);
const BAD: RGBColor = RGBColor(214, 57, 57);
const DOUBT: RGBColor = RGBColor(247, 103, 7);
const STRONG: RGBColor = RGBColor(74, 99, 231);
const EVENTUAL: RGBColor = RGBColor(47, 179, 68);
const AWAY: RGBColor = RGBColor(150, 150, 150);
const NODES: [RGBColor; 5] = [
    RGBColor(32, 107, 196),
    RGBColor(47, 179, 68),
    RGBColor(174, 62, 201),
    RGBColor(247, 103, 7),
    RGBColor(12, 166, 120),
];

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;
/// Each with its name, its colour, and what it shows.
type Lines<T> = [(&'static str, RGBColor, fn(&T) -> f64); 3];
/// Of what a node uses, as a number.
type Use = fn(&Used) -> f64;

/// The picture of a run, as SVG.
pub(super) fn draw(moments: &Moments) -> Result<String> {
    let nodes = u32::try_from(moments.leads.len())?;
    let rows = ROWS_MARGIN + ROW * nodes;
    let switched = !moments.modes.values().all(Vec::is_empty);
    let mut heights = vec![PANEL, PANEL, rows, PANEL];
    if switched {
        heights.extend([rows, PANEL]);
    }
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (WIDTH, heights.iter().sum())).into_drawing_area();
        root.fill(&WHITE).map_err(failed)?;
        let mut rest = root;
        let mut panels = Vec::new();
        for height in heights {
            let (panel, below) = rest.split_vertically(height);
            panels.push(panel);
            rest = below;
        }
        told(&panels[0], moments)?;
        latencies(&panels[1], moments)?;
        let led: Vec<_> = [(&moments.leads, GOOD), (&moments.away, AWAY)].into();
        of_nodes(
            &panels[2],
            "who leads the strong namespace (grey: does not answer)",
            moments,
            &led,
            |_| None,
        )?;
        uses(&panels[3], moments)?;
        if let [_, _, _, _, modes, lags] = panels.as_slice() {
            let shown = [(&moments.modes, STRONG), (&moments.away, AWAY)];
            let mode = |span: &Span| (span.what == "eventual").then_some(EVENTUAL);
            of_nodes(
                modes,
                "mode of the switched namespace: green eventual, blue strong",
                moments,
                &shown,
                mode,
            )?;
            of_lags(lags, moments)?;
        }
        rest.present().map_err(failed)?;
    }
    Ok(svg)
}

fn failed<E: std::fmt::Display>(error: E) -> anyhow::Error {
    anyhow!("the picture cannot be drawn: {error}")
}

fn told(panel: &Area<'_>, moments: &Moments) -> Result<()> {
    let lines: Lines<Moment> = [
        ("answered", GOOD, |moment| moment.answered),
        ("refused", BAD, |moment| moment.refused),
        ("in doubt", DOUBT, |moment| moment.unknown),
    ];
    let all = moments.clients.iter().flat_map(|moment| [moment.answered, moment.refused, moment.unknown]);
    let most = all.fold(1.0, f64::max) * 1.1;
    let mut chart = chart(panel, "operations a second", moments.end, 0.0..most)?;
    behind(&mut chart, &moments.faults, 0.0, most)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .y_labels(5)
        .label_style(SMALL)
        .draw()
        .map_err(failed)?;
    for (name, colour, of) in lines {
        let line = moments.clients.iter().map(|moment| (moment.at, of(moment))).collect();
        add_line(&mut chart, name, colour, line)?;
    }
    legend(&mut chart, SeriesLabelPosition::UpperRight)
}

/// On a scale of powers of ten: the labels are milliseconds.
fn latencies(panel: &Area<'_>, moments: &Moments) -> Result<()> {
    let lines: Lines<Latency> = [
        ("median", GOOD, |latency| latency.median),
        ("p99", DOUBT, |latency| latency.p99),
        ("longest", BAD, |latency| latency.longest),
    ];
    let known = || moments.clients.iter().filter_map(|moment| Some((moment.at, moment.latency?)));
    let power = |ms: f64| ms.max(LATENCY_MIN).log10();
    let most = known().map(|(_, latency)| power(latency.longest)).fold(1.0, f64::max).ceil();
    let mut chart = chart(panel, "latency of what was answered, ms", moments.end, power(0.0)..most)?;
    behind(&mut chart, &moments.faults, power(0.0), most)?;
    let label = |power: &f64| format!("{}", 10_f64.powf(*power));
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .y_labels(8)
        .y_label_formatter(&label)
        .label_style(SMALL)
        .draw()
        .map_err(failed)?;
    for (name, colour, of) in lines {
        add_line(&mut chart, name, colour, known().map(|(at, latency)| (at, power(of(&latency)))).collect())?;
    }
    legend(&mut chart, SeriesLabelPosition::UpperRight)
}

fn of_lags(panel: &Area<'_>, moments: &Moments) -> Result<()> {
    let most = moments.lags.values().flatten().map(|(_, lag)| *lag).fold(1.0, f64::max) * 1.1;
    let title = "lag of the switched namespace, ms, as each node tells it (unknown: at least)";
    let mut chart = chart(panel, title, moments.end, 0.0..most)?;
    behind(&mut chart, &moments.faults, 0.0, most)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .y_labels(4)
        .label_style(SMALL)
        .draw()
        .map_err(failed)?;
    for ((node, lags), colour) in moments.lags.iter().zip(NODES) {
        add_line(&mut chart, &format!("node {node}"), colour, lags.clone())?;
    }
    legend(&mut chart, SeriesLabelPosition::UpperRight)
}

/// Three pictures side by side.
fn uses(panel: &Area<'_>, moments: &Moments) -> Result<()> {
    let pictures: [(&str, Use); 3] = [
        ("memory of each node, MiB", |used| mebibytes(used.resident_bytes)),
        ("open files", |used| number(used.open_files)),
        ("room on disk, MiB", |used| mebibytes(used.data_bytes)),
    ];
    for (panel, (title, of)) in panel.split_evenly((1, 3)).iter().zip(pictures) {
        of_use(panel, title, moments, of)?;
    }
    Ok(())
}

fn of_use(panel: &Area<'_>, title: &str, moments: &Moments, of: Use) -> Result<()> {
    let most = moments.used.values().flatten().flatten().map(|(_, used)| of(used)).fold(1.0, f64::max) * 1.1;
    let mut chart = chart(panel, title, moments.end, 0.0..most)?;
    behind(&mut chart, &moments.faults, 0.0, most)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .x_labels(5)
        .y_labels(5)
        .label_style(SMALL)
        .draw()
        .map_err(failed)?;
    for ((node, processes), colour) in moments.used.iter().zip(NODES) {
        for (number, series) in processes.iter().enumerate() {
            let line = series.iter().map(|(at, used)| (*at, of(used))).collect();
            // One of its lines stands for the node.
            let name = if number == 0 { format!("node {node}") } else { String::new() };
            add_line(&mut chart, &name, colour, line)?;
        }
    }
    // What is used hardly falls to the bottom.
    legend(&mut chart, SeriesLabelPosition::LowerRight)
}

fn mebibytes(bytes: u64) -> f64 {
    number(bytes) / number(1 << 20)
}

#[expect(clippy::cast_precision_loss, reason = "a picture is no more precise")]
fn number(count: u64) -> f64 {
    count as f64
}

/// A row for each node, with bars of what it was.
fn of_nodes(
    panel: &Area<'_>,
    title: &str,
    moments: &Moments,
    shown: &[(&BTreeMap<u64, Vec<Span>>, RGBColor)],
    other_colour: impl Fn(&Span) -> Option<RGBColor>,
) -> Result<()> {
    let nodes: Vec<u64> = moments.leads.keys().copied().collect();
    let mut top = 0.0;
    let mut rows: BTreeMap<u64, f64> = BTreeMap::new();
    for node in nodes.iter().rev() {
        rows.insert(*node, top);
        top += 1.0;
    }
    let mut chart = chart(panel, title, moments.end, 0.0..top)?;
    behind(&mut chart, &moments.faults, 0.0, top)?;
    chart.configure_mesh().disable_mesh().disable_y_axis().label_style(SMALL).draw().map_err(failed)?;
    let mut drawn = Vec::new();
    for (node, row) in &rows {
        drawn.push(EmptyElement::at((0.0, row + 0.7)) + Text::new(format!("node {node}"), (-60, 0), SMALL));
        for (spans, colour) in shown {
            for span in spans.get(node).into_iter().flatten() {
                let colour = other_colour(span).unwrap_or(*colour);
                let bar = Rectangle::new([(span.from, row + 0.15), (span.to, row + 0.85)], colour.filled());
                chart.draw_series(std::iter::once(bar)).map_err(failed)?;
            }
        }
    }
    chart.draw_series(drawn).map_err(failed)?;
    Ok(())
}

fn chart<'a, 'b>(
    panel: &'a Area<'b>,
    title: &str,
    end: f64,
    values: std::ops::Range<f64>,
) -> Result<Chart<'a, 'b>> {
    ChartBuilder::on(panel)
        .caption(title, TEXT)
        .margin(6)
        .x_label_area_size(22)
        .y_label_area_size(LABELS)
        .build_cartesian_2d(0.0..end.max(1.0), values)
        .map_err(failed)
}

/// Faults, numbered as in the table.
fn behind(chart: &mut Chart<'_, '_>, faults: &[Span], low: f64, high: f64) -> Result<()> {
    for (number, fault) in (1..).zip(faults) {
        let band = Rectangle::new([(fault.from, low), (fault.to, high)], FAULT.mix(0.13).filled());
        chart.draw_series(std::iter::once(band)).map_err(failed)?;
        let label = Text::new(format!("{number}"), (fault.from, high), SMALL);
        chart.draw_series(std::iter::once(label)).map_err(failed)?;
    }
    Ok(())
}

fn add_line(chart: &mut Chart<'_, '_>, name: &str, colour: RGBColor, line: Vec<(f64, f64)>) -> Result<()> {
    let drawn = chart.draw_series(LineSeries::new(line, colour.stroke_width(2))).map_err(failed)?;
    if name.is_empty() {
        return Ok(());
    }
    drawn.label(name).legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
    Ok(())
}

fn legend<'a, 'b: 'a>(chart: &mut Chart<'a, 'b>, position: SeriesLabelPosition) -> Result<()> {
    chart
        .configure_series_labels()
        .position(position)
        .background_style(WHITE.mix(0.8))
        .label_font(SMALL)
        .draw()
        .map_err(failed)
}

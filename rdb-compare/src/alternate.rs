//! Measures both sides of a row in turn.

use crate::limits::{self, Limits};
use crate::rows::{Bar, Figure, Row, Side};
use crate::sample::{Bench, Report, Sample};
use crate::spread::Spread;
use crate::stores::Upkeep;
use anyhow::{Context as _, Result};
use serde::Serialize;

/// A row, measured.
#[derive(Debug, Serialize)]
pub(crate) struct Compared {
    pub(crate) name: &'static str,
    pub(crate) work: &'static str,
    /// Operations a second.
    pub(crate) throughput: Spread,
    pub(crate) limit: String,
    pub(crate) limit_per_second: f64,
    /// The median over the limit.
    pub(crate) share_of_limit: f64,
    pub(crate) judged: Vec<Judged>,
    pub(crate) ours: Vec<Sample>,
    pub(crate) theirs: Vec<Sample>,
}

/// One figure of it.
#[derive(Debug, Serialize)]
pub(crate) struct Judged {
    pub(crate) figure: Figure,
    pub(crate) ours: Spread,
    pub(crate) theirs: Option<Spread>,
    /// The median of ours over that of theirs; or the figure itself, where it stands alone.
    pub(crate) ratio: f64,
    /// The ratios of neighbours: what changed on the machine meanwhile shows in it.
    pub(crate) pairs: Spread,
    pub(crate) must: f64,
    pub(crate) aim: f64,
    pub(crate) passed: bool,
    pub(crate) aim_reached: bool,
}

pub(crate) fn measure(row: &Row, bench: &Bench, limits: &Limits, alternations: u32) -> Result<Compared> {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 1..=alternations {
        for (who, side, samples) in [("ours", &row.ours, &mut ours), ("theirs", &row.theirs, &mut theirs)] {
            if let Some(sample) = measure_side(side, bench)? {
                crate::report::sample(row, round, who, &sample);
                samples.push(sample);
            }
        }
    }
    let throughput = Spread::of(ours.iter().map(|sample| sample.report.throughput()));
    let throughput = throughput.context("our side was not measured")?;
    let (limit, limit_per_second) = row.limit.of(limits);
    let judged = row.bars.iter().map(|bar| judge(bar, row, &ours, &theirs)).collect::<Result<_>>()?;
    Ok(Compared {
        name: row.name,
        work: row.work,
        throughput,
        limit,
        limit_per_second,
        share_of_limit: throughput.median / limit_per_second,
        judged,
        ours,
        theirs,
    })
}

fn measure_side(side: &Side, bench: &Bench) -> Result<Option<Sample>> {
    match side {
        Side::Store { store, load } => Ok(Some(bench.sample(*store, load)?)),
        Side::AtShare { store, load, share } => {
            let most = bench.sample(*store, load)?.report.throughput();
            // To whole requests.
            Ok(Some(bench.sample(*store, &format!("{load} --rate {:.0}", most * share))?))
        }
        Side::Iterator => {
            let report = Report::of_rate(limits::iterated_per_second(&bench.folder)?);
            Ok(Some(Sample { report, memory_mib_max: 0, upkeep: Upkeep::default() }))
        }
        Side::Nobody => Ok(None),
    }
}

fn judge(bar: &Bar, row: &Row, ours: &[Sample], theirs: &[Sample]) -> Result<Judged> {
    let values = |samples: &[Sample]| -> Result<Vec<f64>> {
        samples.iter().map(|sample| value(bar.figure, &sample.report)).collect()
    };
    let ours = values(ours)?;
    let theirs = match row.theirs {
        Side::Nobody => vec![1.0; ours.len()],
        _ => values(theirs)?,
    };
    let pairs = Spread::of(ours.iter().zip(&theirs).map(|(ours, theirs)| ours / theirs));
    let (ours, theirs) = (Spread::of(ours).context("no samples")?, Spread::of(theirs).context("no samples")?);
    let ratio = ours.median / theirs.median;
    Ok(Judged {
        figure: bar.figure,
        ours,
        theirs: (!matches!(row.theirs, Side::Nobody)).then_some(theirs),
        ratio,
        pairs: pairs.context("no samples")?,
        must: bar.must,
        aim: bar.aim,
        passed: bar.is_met(ratio),
        aim_reached: bar.is_aim_met(ratio),
    })
}

fn value(figure: Figure, report: &Report) -> Result<f64> {
    Ok(match figure {
        Figure::Throughput => report.throughput(),
        Figure::ServerCpu => {
            report.cpu.server_us_per_operation.context("the servers' processor time is not known")?
        }
        Figure::P50 => report.p50_us(),
        Figure::P99 => report.p99_us(),
        Figure::Tail => report.p99_us() / report.p50_us(),
    })
}

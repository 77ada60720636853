//! What was measured, for people and for programs.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is what the program is for")]

use crate::alternate::{Compared, Judged};
use crate::limits::Limits;
use crate::rows::{Figure, Row};
use crate::sample::Sample;
use crate::spread::Spread;
use anyhow::{Context as _, Result};
use std::path::Path;

pub(crate) fn list(rows: &[Row]) {
    for row in rows {
        println!("{:16} {}", row.name, row.work);
    }
}

pub(crate) fn limits(limits: &Limits) {
    println!("limits of this machine, {} processors:", limits.processors);
    println!("  disk      {:>9.0} syncs/s, p50 {:.0} us", limits.syncs_per_second, limits.sync_p50_us);
    println!(
        "  RocksDB   {:>9.0} puts/s of a thread without a log, {:.0} with one that is synced for each 64",
        limits.puts_per_second, limits.synced_puts_per_second
    );
    println!(
        "            {:>9.0} gets/s of all processors, {:.0} records/s iterated",
        limits.gets_per_second, limits.iterated_per_second
    );
    println!(
        "  gRPC      {:>9.0} calls/s, {:.0} operations/s in messages of 64",
        limits.calls_per_second, limits.streamed_per_second
    );
}

/// One line for one measurement, as soon as it is made.
pub(crate) fn sample(row: &Row, round: u32, who: &str, sample: &Sample) {
    let report = &sample.report;
    println!(
        "  {:16} {round} {who:7} {:>9.0}/s  p50 {:>8.2} ms  p99 {:>8.2} ms  {:>7} us CPU  load {:>4} cores  {:>5} MiB  {} flushes, {} compactions{}",
        row.name,
        report.throughput(),
        report.p50_us() / 1000.0,
        report.p99_us() / 1000.0,
        report.cpu.server_us_per_operation.map_or("?".to_owned(), |us| format!("{us:.1}")),
        report.cpu.client_cores.map_or("?".to_owned(), |cores| format!("{cores:.2}")),
        sample.memory_mib_max,
        sample.upkeep.flushes,
        sample.upkeep.compactions,
        report.drain_ms.map(|ms| format!(", drained in {ms} ms")).unwrap_or_default(),
    );
}

pub(crate) fn row(row: &Compared) {
    for judged in &row.judged {
        println!("{:16} {}", row.name, verdict(judged));
    }
}

fn verdict(judged: &Judged) -> String {
    let judgement = match (judged.passed, judged.aim_reached) {
        (true, true) => "aim reached",
        (true, false) => "passed",
        (false, _) => "MISSED",
    };
    format!(
        "{:12} {} (pairs {} to {}), must {}, aim {}: {judgement}",
        judged.figure.name(),
        ratio(judged.ratio),
        ratio(judged.pairs.min),
        ratio(judged.pairs.max),
        ratio(judged.must),
        ratio(judged.aim)
    )
}

fn ratio(ratio: f64) -> String {
    if ratio < 0.995 { format!("{ratio:.3}") } else { format!("{ratio:.2}") }
}

/// All rows as a table in Markdown.
pub(crate) fn table(rows: &[Compared]) {
    println!("\n| work | figure | FlareDB | beside | ratio | must | aim | of its limit |");
    println!("|---|---|---|---|---|---|---|---|");
    for row in rows {
        for judged in &row.judged {
            let share = format!("{:.0} % of {}", row.share_of_limit * 100.0, row.limit);
            let mark = if judged.passed { "" } else { " **missed**" };
            println!(
                "| {} | {} | {} | {} | {}{mark} | {} | {} | {share} |",
                row.work,
                judged.figure.name(),
                value(judged.figure, &judged.ours),
                judged.theirs.map_or("-".to_owned(), |theirs| value(judged.figure, &theirs)),
                ratio(judged.ratio),
                ratio(judged.must),
                ratio(judged.aim),
            );
        }
    }
}

fn value(figure: Figure, spread: &Spread) -> String {
    match figure {
        Figure::Throughput => format!("{:.0}/s", spread.median),
        Figure::ServerCpu => format!("{:.1} µs", spread.median),
        Figure::P50 | Figure::P99 => format!("{:.2} ms", spread.median / 1000.0),
        Figure::Tail => format!("{:.1}", spread.median),
    }
}

pub(crate) fn write_json(
    file: &Path,
    settings: &serde_json::Value,
    limits: &Limits,
    rows: &[Compared],
) -> Result<()> {
    let all = serde_json::json!({ "settings": settings, "limits": limits, "rows": rows });
    std::fs::write(file, serde_json::to_vec_pretty(&all)?)
        .with_context(|| format!("cannot write {}", file.display()))
}

//! What a run has shown, for people and for programs.

use super::check::Checked;
use super::measure::{Kind, Latency};
use super::run::Measured;
use super::{BenchArgs, Distribution, TargetArg, TransportArg};
use crate::commands::ns::{DurabilityArg, ModeArg};
use crate::commands::put::AcksArg;
use crate::commands::read::ConsistencyArg;
use crate::output::{Answer, Paint, table};
use serde::Serialize;
use std::sync::atomic::Ordering;
use std::time::Duration;

#[derive(Serialize)]
struct Report {
    settings: Settings,
    seconds: f64,
    /// Requests that were done; of a scan, records.
    operations: u64,
    operations_per_second: f64,
    /// The same, the time added that all nodes needed to have everything; null: of FlareDB, they did not have it in time.
    drained_operations_per_second: Option<f64>,
    reads: KindReport,
    writes: KindReport,
    /// Microseconds of processor time per operation; null where it could not be measured.
    cpu: Cpu,
    /// From the end of the run until all nodes have all that was written; null: that was not seen.
    drain_ms: Option<u128>,
    check: Check,
    /// The first failures' messages.
    messages: Vec<String>,
}

#[derive(Serialize)]
struct Settings {
    target: TargetArg,
    /// Null: not FlareDB's.
    transport: Option<TransportArg>,
    /// Null: not FlareDB's.
    sessions: Option<bool>,
    mode: Option<ModeArg>,
    durability: Option<DurabilityArg>,
    acks: Option<AcksArg>,
    consistency: Option<ConsistencyArg>,
    callers: u32,
    in_flight: u32,
    /// Requests a second; null: callers wait for answers.
    rate: Option<u32>,
    scan: bool,
    threads: usize,
    keys: u64,
    namespaces: u32,
    key_size: u32,
    value_size: u32,
    read_share: f64,
    distribution: Distribution,
    seed: u64,
}

#[derive(Serialize)]
struct KindReport {
    #[serde(flatten)]
    latency: Latency,
    not_done: u64,
    in_doubt: u64,
}

#[derive(Serialize)]
struct Cpu {
    server_us_per_operation: Option<f64>,
    client_us_per_operation: Option<f64>,
    /// Processors in use, on average.
    server_cores: Option<f64>,
    client_cores: Option<f64>,
    servers: Vec<ServerCpu>,
}

#[derive(Serialize)]
struct ServerCpu {
    pid: u32,
    us_per_operation: Option<f64>,
}

#[derive(Serialize)]
struct Check {
    passed: bool,
    keys: u64,
    wrong_keys: u64,
    /// During the run.
    wrong_reads: u64,
    shown: Vec<String>,
}

pub(super) fn answer(
    bench: &BenchArgs,
    measured: &Measured,
    checked: &Checked,
    drained: Option<Duration>,
) -> Answer {
    let report = report(bench, measured, checked, drained);
    let code = u8::from(!report.check.passed);
    Answer::new(text(&report), &report).with_exit_code(code)
}

#[allow(clippy::cast_precision_loss, reason = "rates, for people")]
fn report(bench: &BenchArgs, measured: &Measured, checked: &Checked, drained: Option<Duration>) -> Report {
    let measure = measured.measure();
    let (reads, writes) = (kind(&measure.reads), kind(&measure.writes));
    let operations = match bench.scan {
        true => measure.scanned.load(Ordering::Relaxed),
        false => reads.latency.count + writes.latency.count,
    };
    let seconds = measured.elapsed.as_secs_f64();
    let drained = match bench.target {
        TargetArg::Flaredb => drained,
        // They are read where they are written.
        _ => Some(Duration::ZERO),
    };
    let wrong_reads = measure.wrong_reads.load(Ordering::Relaxed);
    let wrong = measure.wrong.lock().map(|wrong| wrong.clone()).unwrap_or_default();
    Report {
        settings: Settings {
            target: bench.target,
            transport: (bench.target == TargetArg::Flaredb).then_some(bench.transport),
            sessions: (bench.target == TargetArg::Flaredb).then_some(!bench.no_sessions),
            mode: (bench.target == TargetArg::Flaredb).then_some(bench.mode),
            durability: (bench.target == TargetArg::Flaredb).then_some(bench.durability),
            acks: bench.acks.typed(),
            consistency: bench.consistency,
            callers: bench.callers,
            in_flight: bench.in_flight,
            rate: bench.rate,
            scan: bench.scan,
            threads: bench.threads,
            keys: bench.keys,
            namespaces: bench.namespaces,
            key_size: bench.key_size,
            value_size: bench.value_size,
            read_share: bench.read_share,
            distribution: bench.distribution,
            seed: bench.seed,
        },
        seconds,
        operations,
        operations_per_second: operations as f64 / seconds,
        drained_operations_per_second: drained
            .map(|drained| operations as f64 / (seconds + drained.as_secs_f64())),
        reads,
        writes,
        drain_ms: drained.map(|drained| drained.as_millis()),
        cpu: cpu(measured, operations as f64, seconds),
        check: Check {
            passed: checked.wrong == 0 && wrong_reads == 0,
            keys: checked.keys,
            wrong_keys: checked.wrong,
            wrong_reads,
            shown: [checked.shown.clone(), wrong].concat(),
        },
        messages: measure.messages.lock().map(|messages| messages.clone()).unwrap_or_default(),
    }
}

fn kind(kind: &Kind) -> KindReport {
    KindReport {
        latency: kind.latency(),
        not_done: kind.not_done.load(Ordering::Relaxed),
        in_doubt: kind.in_doubt.load(Ordering::Relaxed),
    }
}

fn cpu(measured: &Measured, operations: f64, seconds: f64) -> Cpu {
    let per_operation =
        |used: Duration| (0.0 < operations).then(|| used.as_secs_f64() * 1_000_000.0 / operations);
    // One process that cannot be read makes the sum worthless.
    let all: Option<Duration> = measured.server_cpu.iter().map(|(_, used)| *used).sum();
    let server = all.filter(|_| !measured.server_cpu.is_empty());
    Cpu {
        server_us_per_operation: server.and_then(per_operation),
        client_us_per_operation: measured.client_cpu.and_then(per_operation),
        server_cores: server.map(|used| used.as_secs_f64() / seconds),
        client_cores: measured.client_cpu.map(|used| used.as_secs_f64() / seconds),
        servers: measured
            .server_cpu
            .iter()
            .map(|(pid, used)| ServerCpu { pid: *pid, us_per_operation: used.and_then(per_operation) })
            .collect(),
    }
}

fn text(report: &Report) -> String {
    let settings = &report.settings;
    let mut text = format!(
        "{:.0} op/s  ({} operations in {:.1} s, {} callers, {} keys, {}-byte values, {:.0} % reads)\n\n",
        report.operations_per_second,
        report.operations,
        report.seconds,
        settings.callers,
        settings.keys,
        settings.value_size,
        settings.read_share * 100.0
    );
    let rows = [("read", &report.reads), ("write", &report.writes)].map(|(name, kind)| {
        let latency = &kind.latency;
        [
            name.to_string(),
            latency.count.to_string(),
            milliseconds(latency.p50_us),
            milliseconds(latency.p95_us),
            milliseconds(latency.p99_us),
            milliseconds(latency.max_us),
            kind.not_done.to_string(),
            kind.in_doubt.to_string(),
        ]
    });
    text += &table(["", "count", "p50 ms", "p95 ms", "p99 ms", "max ms", "not done", "in doubt"], rows);
    text += &format!("\n{}\n", cpu_text(&report.cpu));
    if let Some(drain_ms) = report.drain_ms {
        text += &format!("all nodes had everything {drain_ms} ms after the end\n");
    }
    for message in &report.messages {
        text += &format!("  {message}\n");
    }
    text += &check_text(&report.check);
    text
}

fn cpu_text(cpu: &Cpu) -> String {
    let show = |who: &str, per_operation: Option<f64>, cores: Option<f64>| match (per_operation, cores) {
        (Some(us), Some(cores)) => format!("{who} {us:.1} us per operation ({cores:.2} cores)"),
        _ => format!("{who} not measured"),
    };
    let servers = match cpu.servers.len() {
        0 => "servers".into(),
        1 => "1 server".into(),
        count => format!("{count} servers"),
    };
    format!(
        "processor time: {}, {}",
        show(&servers, cpu.server_us_per_operation, cpu.server_cores),
        show("this program", cpu.client_us_per_operation, cpu.client_cores)
    )
}

fn check_text(check: &Check) -> String {
    let paint = Paint::for_stdout();
    if check.passed {
        return format!(
            "data: {}, each of {} keys holds its last acknowledged value or a newer one\n",
            paint.green("ok"),
            check.keys
        );
    }
    let mut text = format!(
        "data: {}, {} of {} keys and {} reads\n",
        paint.red("WRONG"),
        check.wrong_keys,
        check.keys,
        check.wrong_reads
    );
    for what in &check.shown {
        text += &format!("  {what}\n");
    }
    text
}

#[allow(clippy::cast_precision_loss, reason = "for people")]
fn milliseconds(microseconds: u64) -> String {
    format!("{:.2}", microseconds as f64 / 1000.0)
}

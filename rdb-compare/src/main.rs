//! `rdb-compare`: FlareDB beside etcd and Redis, and beside what the machine allows, in one run.
//!
//! A row (`rows`) has two sides. Each is measured in turn, several times (`alternate`), by `rdb bench` (`sample`) against servers
//! that are started for that measurement alone (`stores`), with nothing else running. What is compared are the medians. In the same
//! run the machine's limits are measured (`limits`): how often its disk syncs, what RocksDB does in one process, what gRPC carries;
//! each figure of FlareDB is also told as a share of what limits it. `report` says it for people and programs; `curves` and `growth` draw
//! what no bar is set for (`points`).

mod alternate;
mod curves;
mod growth;
mod limits;
mod plot;
mod points;
mod report;
mod rows;
mod sample;
mod spread;
mod stores;

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use limits::Limits;
use sample::Bench;
use std::path::PathBuf;

/// FlareDB beside etcd and Redis, and beside what the machine allows.
#[derive(Debug, Parser)]
#[command(name = "rdb-compare", max_term_width = 110)]
struct Args {
    /// The rows to measure; all of them without it
    #[arg(long, value_delimiter = ',', value_name = "NAME,...")]
    rows: Vec<String>,
    /// Name the rows, and exit
    #[arg(long)]
    list: bool,
    /// How often each side of a row is measured
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=99))]
    alternations: u32,
    /// How long each measurement takes
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// How long the load runs before
    #[arg(long, default_value_t = 10)]
    warmup_seconds: u64,
    /// Draw curves instead, as SVG into this folder: throughput and processor time by callers, latency by load
    #[arg(long, value_name = "FOLDER")]
    curves: Option<PathBuf>,
    /// Draw growth instead, as SVG into this folder: by data, keys, the size of values, callers, namespaces and
    /// nodes
    #[arg(long, value_name = "FOLDER", conflicts_with = "curves")]
    growth: Option<PathBuf>,
    /// The axes of growth to measure; all of them without it
    #[arg(long, value_delimiter = ',', value_name = "NAME,...", requires = "growth")]
    axes: Vec<String>,
    /// Draw them from the figures that lie in the folder
    #[arg(long, requires = "growth")]
    redraw: bool,
    /// Write all that was measured here, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// The folder with `rdb-server` and `rdb`; without it, that of this program
    #[arg(long, value_name = "FOLDER")]
    programs: Option<PathBuf>,
    /// Where the servers keep their data; what is compared is this disk
    #[arg(long, value_name = "FOLDER", default_value_os_t = std::env::temp_dir())]
    folder: PathBuf,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let rows = rows::named(&args.rows)?;
    if args.list {
        report::list(&rows);
        return Ok(());
    }
    let folder = tempfile::Builder::new().prefix("flaredb-compare-").tempdir_in(&args.folder)?;
    let bench = Bench {
        programs: programs(&args)?,
        folder: folder.path().to_owned(),
        seconds: args.seconds,
        warmup_seconds: args.warmup_seconds,
    };
    if let Some(pictures) = args.curves.as_ref().or(args.growth.as_ref()) {
        std::fs::create_dir_all(pictures).with_context(|| format!("cannot make {}", pictures.display()))?;
    }
    if let Some(pictures) = &args.curves {
        return curves::draw(&bench, pictures);
    }
    if let Some(pictures) = &args.growth {
        return growth::draw((!args.redraw).then_some(&bench), pictures, &args.axes);
    }
    let limits = Limits::measure(folder.path())?;
    report::limits(&limits);
    let mut compared = Vec::new();
    for row in rows {
        match alternate::measure(&row, &bench, &limits, args.alternations) {
            Ok(result) => {
                report::row(&result);
                compared.push(result);
            }
            Err(error) => bail!("{}: {error:#}", row.name),
        }
        // After each, so that a run that is ended early has told what it knows.
        if let Some(file) = &args.json {
            report::write_json(file, &args_json(&args), &limits, &compared)?;
        }
    }
    report::table(&compared);
    Ok(())
}

fn args_json(args: &Args) -> serde_json::Value {
    serde_json::json!({
        "alternations": args.alternations,
        "seconds": args.seconds,
        "warmup_seconds": args.warmup_seconds,
    })
}

fn programs(args: &Args) -> Result<PathBuf> {
    let folder = match &args.programs {
        Some(folder) => folder.clone(),
        None => std::env::current_exe()?.parent().context("this program has no folder")?.to_owned(),
    };
    for program in ["rdb-server", "rdb"] {
        if !folder.join(program).exists() {
            bail!("there is no {program} in {}; --programs names the folder that has it", folder.display());
        }
    }
    Ok(folder)
}

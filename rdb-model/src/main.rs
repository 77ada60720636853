//! Explores configurations and prints what was seen: `rdb-model [--small | --large] [--steps N] [NAME]...`; all of them
//! without a name.
#![allow(clippy::print_stdout)] // It is what the program is for.

use rdb_model::{Cluster, Outcome, configurations, explore};
use std::process::ExitCode;

/// Past that an exploration is given up: some tens of minutes.
const STEPS_MAX: usize = 500_000_000;

/// What is to be explored.
#[derive(Default)]
struct Wanted {
    small: bool,
    large: bool,
    names: Vec<String>,
    steps_max: Option<usize>,
}

fn main() -> ExitCode {
    match wanted() {
        Ok(wanted) => run(&wanted),
        Err(problem) => {
            println!("{problem}\nusage: rdb-model [--small | --large] [--steps N] [NAME]...");
            ExitCode::from(2)
        }
    }
}

fn wanted() -> Result<Wanted, String> {
    let mut wanted = Wanted::default();
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--small" => wanted.small = true,
            "--large" => wanted.large = true,
            "--steps" => {
                let steps = words.next().and_then(|number| number.parse().ok());
                wanted.steps_max = Some(steps.ok_or("--steps needs a whole number")?);
            }
            option if option.starts_with('-') => return Err(format!("no such option: {option}")),
            name => wanted.names.push(name.to_owned()),
        }
    }
    Ok(wanted)
}

fn run(wanted: &Wanted) -> ExitCode {
    let all = !wanted.small && !wanted.large;
    let mut chosen = Vec::new();
    chosen.extend(if all || wanted.small { configurations::small() } else { Vec::new() });
    chosen.extend(if all || wanted.large { configurations::large() } else { Vec::new() });
    chosen.retain(|one| wanted.names.is_empty() || wanted.names.iter().any(|name| name == one.name));
    if chosen.is_empty() {
        println!("there is no configuration of that name");
        return ExitCode::from(2);
    }
    println!("{:<20} {:>10} {:>6} {:>8}  result", "configuration", "states", "depth", "seconds");
    let mut failed = 0;
    for configuration in chosen {
        let (name, about) = (configuration.name, configuration.about);
        let outcome = explore(Cluster::new(configuration), wanted.steps_max.unwrap_or(STEPS_MAX), None);
        let seconds = outcome.took.as_secs_f64();
        let Outcome { states, depth, .. } = outcome;
        println!("{name:<20} {states:>10} {depth:>6} {seconds:>8.1}  {}: {about}", verdict(&outcome));
        for (promise, steps) in &outcome.broken {
            println!("    broken: {}", promise.name());
            steps.iter().for_each(|step| println!("        {step}"));
        }
        failed += u32::from(!outcome.is_good());
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn verdict(outcome: &Outcome) -> String {
    match (&outcome.broken[..], &outcome.missed[..]) {
        ([], []) if outcome.is_complete => "holds".to_owned(),
        ([], []) => "not finished".to_owned(),
        ([], missed) => format!("never reached: {}", missed.join(", ")),
        _ => "BROKEN".to_owned(),
    }
}

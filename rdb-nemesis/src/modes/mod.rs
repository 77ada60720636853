//! Eventual namespaces and the switch between the modes, on real nodes, with figures held against bars.
//!
//! A *case* starts nodes of its own, does what it measures, and says what it found: figures, each with its bar where it has
//! one, and problems. Whatever would make a figure mean nothing (no load, a cut that kept nothing back) is a problem too.
//!
//! `scripts/verify-modes.sh` runs all of them. `stats`, `tally` and `findings` are pure; the rest is real nodes.

mod aftermath;
mod away;
mod converge;
mod cut;
mod findings;
mod honest;
mod load;
mod marks;
mod options;
mod pauses;
mod phases;
mod replicas;
mod sides;
mod stage;
mod stats;
mod storm;
mod switch;
mod tally;
mod trouble;

pub use findings::{Figure, Outcome};
pub use options::{Case, ModesArgs};

use crate::run::Place;
use anyhow::{Context as _, Result};
use findings::Findings;
use options::Sizes;
use stage::Stage;
use std::time::Instant;

/// Runs the cases that were asked for, one after the other. `progress` is told what goes on, `ended` what each has found.
///
/// # Errors
/// A case cannot even begin.
pub async fn modes(
    place: &Place,
    args: &ModesArgs,
    progress: fn(&str),
    mut ended: impl FnMut(&Outcome) -> Result<()>,
) -> Result<bool> {
    let sizes = args.sizes();
    let seed = args.seed.unwrap_or_else(|| u64::from(rand::random::<u32>()));
    let mut passed = true;
    for case in args.cases() {
        let outcome = run(place, case, seed, &sizes, args, progress).await?;
        passed &= outcome.passed();
        ended(&outcome)?;
    }
    Ok(passed)
}

async fn run(
    place: &Place,
    case: Case,
    seed: u64,
    sizes: &Sizes,
    args: &ModesArgs,
    progress: fn(&str),
) -> Result<Outcome> {
    let began = Instant::now();
    let folder = place.folder.join(format!("{}-{seed}", case.name()));
    // Of another run of this seed.
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let stage = Stage { server: place.server.clone(), folder, seed, sizes: *sizes, case, progress };
    let mut findings = Findings::default();
    if let Err(error) = act(&stage, &mut findings).await {
        findings.problem(format!("{error:#}"));
    }
    let mut outcome = Outcome {
        case: case.name(),
        seed,
        seconds: began.elapsed().as_secs_f64(),
        figures: findings.figures,
        problems: findings.problems,
        again: args.again(case, seed),
        folder: None,
    };
    if outcome.passed() {
        let _ = std::fs::remove_dir_all(&stage.folder);
    } else {
        outcome.folder = Some(stage.folder);
    }
    Ok(outcome)
}

async fn act(stage: &Stage, findings: &mut Findings) -> Result<()> {
    match stage.case {
        Case::Converge => converge::run(stage, findings).await,
        Case::Away => away::run(stage, findings).await,
        Case::Honest => honest::run(stage, findings).await,
        Case::Sides => sides::run(stage, findings).await,
        Case::Switch => switch::run(stage, findings).await,
        Case::Phases => phases::run(stage, findings).await,
        Case::Storm => storm::run(stage, findings).await,
    }
}

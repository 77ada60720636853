//! Switches under trouble: each is begun while something is done to the nodes, at a moment that is drawn, and whatever becomes of the
//! switch, no acknowledged element may be lost, strong eras are linearizable, and in the end all replicas are equal.

use super::aftermath;
use super::findings::Findings;
use super::stage::{Nodes, Stage};
use super::trouble::{KINDS, Trouble};
use crate::cluster::{Cluster, NAMESPACE};
use crate::dice::Dice;
use crate::switching::{END_LIMIT, end_of, settled, try_to_begin};
use crate::workloads::Scene;
use crate::workloads::switched::{self, ABORT_PERCENT, FIRST, SWITCH_OPTIONS};
use anyhow::{Context as _, Result, bail};
use rdb_client::{Client, Mode, SwitchEnd, SwitchStatus};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

const CALL_LIMIT: Duration = Duration::from_secs(2);
/// The trouble comes so long after the switch was asked for, at most.
const OFFSET_MS_MAX: u64 = 150;
/// Without clients' success after a round, for so long, there is nobody to lose anything.
const SERVED_LIMIT: Duration = Duration::from_secs(30);
/// Of all switches in each direction, so many percent must have been completed.
const COMPLETED_PERCENT_MIN: u64 = 10;
const TELL_EVERY: u64 = 10;
const RETRY_PAUSE: Duration = Duration::from_millis(30);

/// What came of the switches.
#[derive(Debug, Default)]
struct Tale {
    to_strong: u64,
    to_eventual: u64,
    called_off: u64,
    not_begun: u64,
    /// How often each kind of trouble was seen to happen.
    troubles: BTreeMap<&'static str, u64>,
}

pub(super) async fn run(stage: &Stage, findings: &mut Findings) -> Result<()> {
    let mut cluster = stage.start_with_clocks().await?;
    Nodes::create(&cluster, NAMESPACE, FIRST).await?;
    let client = Nodes::of(&cluster, NAMESPACE, CALL_LIMIT).await?.client;
    let scene = stage.scene(&cluster);
    let mut clients = JoinSet::new();
    switched::start_clients(&scene, &mut clients);
    served(&scene, 0).await?;
    let mut tale = Tale::default();
    let ended = rounds(stage, &mut cluster, &client, &scene, &mut tale, findings).await;
    tell(&tale, stage.sizes.storm_switches, findings);
    // Whatever was acknowledged up to then is judged all the same.
    if let Err(error) = ended {
        findings.problem(format!("{error:#}"));
    }
    aftermath::judge(stage, &mut cluster, &client, &scene, clients, findings).await
}

async fn rounds(
    stage: &Stage,
    cluster: &mut Cluster,
    client: &Client,
    scene: &Scene,
    tale: &mut Tale,
    findings: &mut Findings,
) -> Result<()> {
    let mut dice = stage.dice(1);
    for round in 1..=stage.sizes.storm_switches {
        // All kinds take turns, so that each is met.
        let kind = KINDS[usize::try_from(round)? % KINDS.len()];
        let trouble = Trouble::draw(kind, cluster, &mut dice);
        let what = format!("round {round}, {trouble}");
        let began_ns = scene.history.now_ns();
        let (begun, end) =
            one(cluster, client, scene, &trouble, &mut dice, tale, findings).await.context(what.clone())?;
        match (&begun, &end) {
            (None, _) => tale.not_begun += 1,
            (Some(_), Some(end)) if !end.completed => tale.called_off += 1,
            (Some(begun), _) if begun.to == Some(Mode::Eventual) => tale.to_eventual += 1,
            (Some(_), _) => tale.to_strong += 1,
        }
        served(scene, began_ns).await.context(what.clone())?;
        cluster.is_sound().context(what.clone())?;
        if round.is_multiple_of(TELL_EVERY) || round == stage.sizes.storm_switches {
            stage.say(&format!("{what}: {}; so far {tale:?}", said(end.as_ref())));
        }
    }
    Ok(())
}

fn said(end: Option<&SwitchEnd>) -> String {
    match end {
        None => "no switch was begun".to_owned(),
        Some(end) if end.completed => format!("completed, writes held back for {:?}", end.write_pause),
        Some(end) => format!("called off: {}", end.reason),
    }
}

/// One switch with its trouble. `None`: it was not begun, since nobody could be asked.
async fn one(
    cluster: &mut Cluster,
    client: &Client,
    scene: &Scene,
    trouble: &Trouble,
    dice: &mut Dice,
    tale: &mut Tale,
    findings: &mut Findings,
) -> Result<(Option<SwitchStatus>, Option<SwitchEnd>)> {
    settled(client, NAMESPACE, END_LIMIT).await?;
    let (offset, lasts) = (dice.millis(0..OFFSET_MS_MAX), trouble.lasts());
    let first = dice.percent(50);
    let abort = dice.percent(ABORT_PERCENT).then(|| dice.millis(0..2 * OFFSET_MS_MAX));
    let asking =
        tokio::spawn(ask(client.clone(), if first { Duration::ZERO } else { offset }, offset + lasts));
    if first {
        sleep(offset).await;
    }
    scene.history.note(format!("fault: {trouble}"));
    trouble.strike(cluster)?;
    let calling_off = abort.map(|after| tokio::spawn(call_off(client.clone(), after)));
    sleep(lasts).await;
    match trouble.seen(cluster) {
        Ok(_) => *tale.troubles.entry(trouble.kind).or_default() += 1,
        Err(why) => findings.problem(format!("vacuous: {trouble} was not seen: {why}")),
    }
    cluster.heal().await?;
    scene.history.note(format!("healed: {trouble}"));
    let begun = asking.await?;
    if let Some(calling_off) = calling_off {
        calling_off.await?;
    }
    let Some(begun) = begun else { return Ok((None, None)) };
    let end = end_of(client, &begun, END_LIMIT).await?;
    Ok((Some(begun), Some(end)))
}

/// Asks for a switch until it is begun, for so long.
async fn ask(client: Client, after: Duration, limit: Duration) -> Option<SwitchStatus> {
    sleep(after).await;
    let deadline = Instant::now() + limit + CALL_LIMIT;
    loop {
        match try_to_begin(&client, NAMESPACE, &SWITCH_OPTIONS).await {
            Ok(begun) => return Some(begun),
            Err(_) if deadline < Instant::now() => return None,
            Err(_) => sleep(RETRY_PAUSE).await,
        }
    }
}

/// Too late, or too early, it is refused: that is as good.
async fn call_off(client: Client, after: Duration) {
    sleep(after).await;
    let _ = client.abort_switch(NAMESPACE).await;
}

/// Waits until an element was written that was asked for since then.
async fn served(scene: &Scene, since_ns: u64) -> Result<()> {
    let deadline = Instant::now() + SERVED_LIMIT;
    while !scene.history.has_succeeded_since(since_ns, switched::NAME, crate::history::Request::Put) {
        if deadline < Instant::now() {
            bail!("for {SERVED_LIMIT:?} no element was acknowledged");
        }
        sleep(RETRY_PAUSE).await;
    }
    Ok(())
}

fn tell(tale: &Tale, asked: u64, findings: &mut Findings) {
    findings.count("switches to strong completed", tale.to_strong);
    findings.count("to eventual", tale.to_eventual);
    findings.count("called off", tale.called_off);
    findings.count("never begun", tale.not_begun);
    findings.count("troubles", tale.troubles.values().sum());
    findings.expect(is_tale(tale, asked));
}

/// Whether enough has happened.
fn is_tale(tale: &Tale, asked: u64) -> Result<(), String> {
    let least = (asked / 2 * COMPLETED_PERCENT_MIN / 100).max(1);
    if tale.to_strong < least || tale.to_eventual < least {
        return Err(format!(
            "vacuous: of {asked} switches too few were completed in a direction, of {least}: {tale:?}"
        ));
    }
    let missing: Vec<_> = KINDS.iter().filter(|kind| !tale.troubles.contains_key(*kind)).collect();
    if KINDS.len() as u64 <= asked && !missing.is_empty() {
        return Err(format!("vacuous: no {missing:?}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_without_switches_in_both_directions_or_without_some_trouble_shows_nothing() {
        let tale = |to_strong, to_eventual, kinds: &[&'static str]| Tale {
            to_strong,
            to_eventual,
            troubles: kinds.iter().map(|kind| (*kind, 1)).collect(),
            ..Tale::default()
        };
        assert_eq!(is_tale(&tale(20, 10, &KINDS), 200), Ok(()));
        assert!(is_tale(&tale(20, 9, &KINDS), 200).is_err());
        assert!(is_tale(&tale(0, 10, &KINDS), 200).is_err());
        assert!(is_tale(&tale(20, 20, &KINDS[1..]), 200).is_err());
        // Too few rounds to meet all.
        assert_eq!(is_tale(&tale(1, 1, &KINDS[1..]), 2), Ok(()));
    }
}

//! The requests about a namespace's switch of mode: begin one, call it off, look at it. The first two are served by whoever
//! leads the catalog, and so drives the switch: what stands in its way is judged by who would have to wait for it.

use super::namespaces::NamespaceService;
use super::status;
use crate::clocks::millis;
use crate::shared::Shared;
use crate::switch::facts::{self, When};
use crate::switch::{GateState, Standing, tell, wall_ms};
use crate::transport::SILENCE_MAX;
use rdb_core::ids::{NodeId, RegionId};
use rdb_core::switch::{Descriptor, Mode, Phase, Refused, Step};
use rdb_pd::{Answer, Command, Namespace, Stage};
use rdb_proto::v1;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// How long writes are held back at most, unless the caller says otherwise: several times what draining takes when members are
/// close, and no longer than many clients wait for a write.
const WRITE_PAUSE_MS_MAX: u64 = 10_000;
/// How long the preparations may take, unless the caller says otherwise. They cost clients nothing.
const PREPARING_MS_MAX: u64 = 60_000;
/// What a member of a namespace that does not switch said so long ago still counts, as far as it tells of its lag: it is told
/// once a second.
const LAG_TOLD_MAX: Duration = Duration::from_secs(3);
/// A change of the catalog that was not taken note of in so long will not be: the node is stopping.
const SEEN_WAIT: Duration = Duration::from_millis(500);
/// Between looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(2);
/// A switch goes through fewer phases than this, so that one of so many attempts to call it off meets it as it is.
const ABORT_ATTEMPTS_MAX: usize = 5;

impl NamespaceService {
    pub(super) async fn begin_switch(
        &self,
        asked: v1::SwitchModeRequest,
        timeout: Duration,
    ) -> Result<v1::SwitchModeResponse, v1::Error> {
        let to = mode(asked.to)?;
        let namespace = self.lead(&asked.name, asked.id, timeout).await?;
        let descriptor = &namespace.descriptor;
        if asked.epoch != 0 && asked.epoch != descriptor.epoch.0 {
            return Err(status::epoch_mismatch(&namespace.name, asked.epoch, descriptor.epoch));
        }
        let excluded: BTreeSet<NodeId> = asked.excluded.iter().copied().map(NodeId).collect();
        check_excluded(descriptor, to, &excluded)?;
        if !asked.dry_run && is_begun(descriptor, &asked, to, &excluded) {
            return Ok(self.begun(&namespace, Vec::new()).await);
        }
        let hindrances = hindrances(&self.0, &namespace, &asked, to, &excluded);
        if asked.dry_run {
            return Ok(self.begun(&namespace, hindrances).await);
        }
        refuse(&hindrances, &namespace.name)?;
        let or = |asked: u64, otherwise| if asked == 0 { otherwise } else { asked };
        let begin = Step::Begin {
            excluded: excluded.clone(),
            deadline_ms: wall_ms().saturating_add(or(asked.preparing_ms_max, PREPARING_MS_MAX)),
            write_pause_ms_max: or(asked.write_pause_ms_max, WRITE_PAUSE_MS_MAX),
        };
        match self.take_step(&namespace, begin, "it was asked for", timeout).await? {
            Ok(now) => Ok(self.begun(&now, Vec::new()).await),
            Err((now, _)) if is_begun(&now.descriptor, &asked, to, &excluded) => {
                Ok(self.begun(&now, Vec::new()).await)
            }
            Err((now, refused)) => Err(moved_on(&now.name, refused)),
        }
    }

    async fn begun(&self, namespace: &Namespace, hindrances: Vec<v1::Hindrance>) -> v1::SwitchModeResponse {
        let header = Some(self.0.header_of(namespace));
        v1::SwitchModeResponse { header, status: Some(self.switch_status(namespace).await), hindrances }
    }

    pub(super) async fn call_off(
        &self,
        asked: v1::AbortSwitchRequest,
        timeout: Duration,
    ) -> Result<v1::AbortSwitchResponse, v1::Error> {
        let mut namespace = self.lead(&asked.name, asked.id, timeout).await?;
        for _ in 0..ABORT_ATTEMPTS_MAX {
            if is_called_off(&namespace.descriptor, &asked) {
                break;
            }
            check_abort(&namespace, &asked)?;
            let why = "an operator called it off";
            self.0.switches.explain(namespace.id, namespace.descriptor.switch, why);
            namespace = match self.take_step(&namespace, Step::Abort, why, timeout).await? {
                Ok(now) => {
                    namespace = now;
                    break;
                }
                // It has come to another phase meanwhile, from which it may be called off as well.
                Err((now, Refused::MovedOn)) => now,
                Err((now, refused)) => return Err(moved_on(&now.name, refused)),
            };
        }
        let header = Some(self.0.header_of(&namespace));
        Ok(v1::AbortSwitchResponse { header, status: Some(self.switch_status(&namespace).await) })
    }

    /// One node's view, as it is: that is asked for when there is no majority, too.
    pub(super) async fn look_at_switch(&self, name: &str) -> Result<v1::GetSwitchResponse, v1::Error> {
        // Only who has applied all that is committed can say that there is none: after a start the catalog is behind.
        if self.0.catalog.load().namespace(name).is_none() {
            self.0.read_barrier(RegionId::META, self.0.config.request_timeout()).await?;
        }
        let catalog = self.0.catalog.load();
        let namespace = catalog.namespace(name).ok_or_else(|| status::namespace_not_found(name))?;
        let header = Some(self.0.header_of(namespace));
        Ok(v1::GetSwitchResponse { header, status: Some(self.switch_status(namespace).await) })
    }

    /// The thread that takes note of changes hears of them at the same moment: who asks how a switch has ended is to hear it from
    /// the first answer that says that it has.
    async fn switch_status(&self, namespace: &Namespace) -> v1::SwitchStatus {
        let patience = Instant::now() + SEEN_WAIT;
        while !self.0.switches.has_seen(namespace) && Instant::now() < patience {
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        describe(&self.0, namespace)
    }

    /// The namespace as the catalog has it now, if this node leads the catalog.
    async fn lead(&self, name: &str, id: u32, timeout: Duration) -> Result<Namespace, v1::Error> {
        if self.0.stopping.is_set() {
            return Err(status::shutting_down());
        }
        if !self.0.regions.get(RegionId::META).is_some_and(|view| view.leads()) {
            return Err(self.0.not_leader(RegionId::META, None));
        }
        self.0.read_barrier(RegionId::META, timeout).await?;
        let catalog = self.0.catalog.load();
        let namespace = catalog.namespace(name).filter(|namespace| namespace.stage == Stage::Open);
        let namespace = namespace.filter(|namespace| id == 0 || namespace.id.0 == id);
        namespace.cloned().ok_or_else(|| status::namespace_not_found(name))
    }

    /// Takes a step, if the namespace is still as it was. Returns it as it is now, and why not.
    async fn take_step(
        &self,
        namespace: &Namespace,
        step: Step,
        why: &str,
        timeout: Duration,
    ) -> Result<Result<Namespace, (Namespace, Refused)>, v1::Error> {
        let from = namespace.descriptor.phase;
        let change = namespace.descriptor.change(step);
        let command = Command::ChangeMode { id: namespace.id, change };
        match self.propose(&command, timeout).await.map_err(|error| in_doubt(error, &namespace.name))? {
            Answer::Changed(now) => {
                tell(from, &now, why);
                Ok(Ok(now))
            }
            Answer::NotChanged(now, refused) => Ok(Err((now, refused))),
            Answer::NotFound | Answer::Deleting(_) => Err(status::namespace_not_found(&namespace.name)),
            other => Err(status::internal(format!("unexpected answer: {other:?}"))),
        }
    }
}

fn mode(asked: i32) -> Result<Mode, v1::Error> {
    match v1::Mode::try_from(asked) {
        Ok(v1::Mode::Strong) => Ok(Mode::Strong),
        Ok(v1::Mode::Eventual) => Ok(Mode::Eventual),
        Ok(v1::Mode::Unspecified) => Err(status::invalid(
            "the request does not say which mode to switch to: strong or eventual".into(),
        )),
        Err(_) => Err(status::invalid(format!(
            "mode {asked} is not known to this node; a namespace is strong or eventual"
        ))),
    }
}

/// Whether whom to go on without makes sense at all.
fn check_excluded(descriptor: &Descriptor, to: Mode, excluded: &BTreeSet<NodeId>) -> Result<(), v1::Error> {
    if excluded.is_empty() {
        return Ok(());
    }
    let members: Vec<NodeId> = descriptor.members().collect();
    if let Some(stranger) = excluded.iter().find(|node| !members.contains(node)) {
        return Err(status::not_a_member(*stranger, &members));
    }
    if to == Mode::Eventual {
        let message =
            "only a switch to strong can go on without members: to eventual, who comes late loses nothing";
        return Err(status::invalid(message.into()));
    }
    if members.len() - excluded.len() <= members.len() / 2 {
        return Err(status::invalid(format!(
            "without {} of {} members there is no majority, so the strong mode could not serve",
            excluded.len(),
            members.len()
        )));
    }
    Ok(())
}

/// Whether the switch that is asked for is the one that has begun: by an attempt of the same request, whose answer was lost,
/// or by somebody who wants just the same.
fn is_begun(
    descriptor: &Descriptor,
    asked: &v1::SwitchModeRequest,
    to: Mode,
    excluded: &BTreeSet<NodeId>,
) -> bool {
    let is_next = asked.after_switch.is_some_and(|after| descriptor.switch.0 == after.saturating_add(1));
    let leads_there = !descriptor.is_switching() || descriptor.mode.other() == to;
    is_next && leads_there && descriptor.excluded == *excluded
}

/// What stands in the way of a switch.
fn hindrances(
    shared: &Shared,
    namespace: &Namespace,
    asked: &v1::SwitchModeRequest,
    to: Mode,
    excluded: &BTreeSet<NodeId>,
) -> Vec<v1::Hindrance> {
    let (name, descriptor) = (&namespace.name, &namespace.descriptor);
    if descriptor.is_switching() {
        return vec![under_way(name, descriptor)];
    }
    if asked.after_switch.is_some_and(|after| after != descriptor.switch.0) {
        let text = "another switch has begun and ended since it was looked at";
        return vec![refused(text, format!("look at it again: rdb ns status {name}"))];
    }
    if descriptor.mode == to {
        let text = format!("it is {} already", word(to));
        return vec![refused(text, format!("nothing is to be done; see rdb ns status {name}"))];
    }
    let mut found: Vec<_> =
        descriptor.members().filter_map(|node| absent(shared, descriptor, node, excluded)).collect();
    if shared.regions.get(namespace.region).and_then(|view| view.leader()).is_none() {
        let hint = "an election is under way or a majority of the nodes is out of reach: try again shortly, then see rdb status";
        found.push(refused("no leader of its region is known", hint.into()));
    }
    // As it would be once it has begun.
    let begun = Descriptor { excluded: excluded.clone(), ..Descriptor::clone(descriptor) };
    let heard = shared.standings.of(namespace.region);
    let lag = heard.iter().filter(|(node, (_, at))| {
        !excluded.contains(*node) && Instant::now().saturating_duration_since(*at) <= LAG_TOLD_MAX
    });
    let lag = lag.filter_map(|(node, _)| facts::lagging(&begun, &heard, *node));
    found.extend(lag.map(|blocker| v1::Hindrance {
        text: blocker.to_string(),
        hint: "the switch waits for this while it prepares, which clients do not notice".into(),
        refused: false,
    }));
    found
}

fn under_way(name: &str, descriptor: &Descriptor) -> v1::Hindrance {
    let text = format!(
        "a switch to {} is under way, and {}",
        word(descriptor.mode.other()),
        match descriptor.phase {
            Phase::Flipping => "past the point of no return",
            _ => "not finished",
        }
    );
    let hint = match descriptor.phase.may_abort() {
        true => {
            format!("wait for it, see rdb ns status {name}, or call it off: rdb ns abort {name}")
        }
        false => format!("wait for it: rdb ns status {name}"),
    };
    refused(text, hint)
}

/// A member that is to take part and is not heard, or the other way round.
fn absent(
    shared: &Shared,
    descriptor: &Descriptor,
    node: NodeId,
    excluded: &BTreeSet<NodeId>,
) -> Option<v1::Hindrance> {
    let silence = shared.peers.silence(node);
    let is_heard = node == shared.config.node() || silence.is_some_and(|silence| silence <= SILENCE_MAX);
    if excluded.contains(&node) {
        let text = format!("node {node} is to be left out, and runs");
        let hint =
            format!("stop node {node} first: what it still accepts would be set aside; or leave it in");
        return is_heard.then(|| refused(text, hint));
    }
    let text = match silence {
        Some(silence) => format!("node {node} was not heard for {:.1} s", silence.as_secs_f64()),
        None => format!("node {node} was never heard"),
    };
    let hint = match descriptor.mode {
        Mode::Eventual => format!(
            "bring it back, since writes may lie there alone; or go on without it, which sets them aside: --exclude {node}"
        ),
        Mode::Strong => "bring it back".into(),
    };
    (!is_heard).then(|| refused(text, hint))
}

fn refused(text: impl Into<String>, hint: String) -> v1::Hindrance {
    v1::Hindrance { text: text.into(), hint, refused: true }
}

/// An error of all that a switch is refused for.
fn refuse(hindrances: &[v1::Hindrance], name: &str) -> Result<(), v1::Error> {
    let refused: Vec<_> = hindrances.iter().filter(|hindrance| hindrance.refused).collect();
    let Some(first) = refused.first() else { return Ok(()) };
    let texts: Vec<_> = refused.iter().map(|hindrance| hindrance.text.as_str()).collect();
    let message =
        format!("the namespace '{name}' cannot be switched: {}; nothing was changed", texts.join("; "));
    Err(status::switch_refused(message, &first.hint))
}

/// Whether the switch that is meant was called off already: by an attempt of the same request, or by somebody else.
fn is_called_off(descriptor: &Descriptor, asked: &v1::AbortSwitchRequest) -> bool {
    let is_over = descriptor.switch.0 == asked.switch && !descriptor.is_switching();
    asked.switch != 0 && is_over && descriptor.era.0 == asked.era
}

fn check_abort(namespace: &Namespace, asked: &v1::AbortSwitchRequest) -> Result<(), v1::Error> {
    let (name, descriptor) = (&namespace.name, &namespace.descriptor);
    if !descriptor.is_switching() {
        let completed = asked.switch != 0 && descriptor.switch.0 == asked.switch && asked.era != 0;
        let what = if completed { "the switch has completed" } else { "no switch is under way" };
        let message =
            format!("{what}: the namespace '{name}' is {}; nothing was changed", word(descriptor.mode));
        let back = word(descriptor.mode.other());
        return Err(status::switch_refused(
            message,
            &format!("to switch it: rdb ns switch {name} --to {back}"),
        ));
    }
    if asked.switch != 0 && asked.switch != descriptor.switch.0 {
        let message = format!(
            "the switch {} of '{name}' is over, and {} is under way; nothing was changed",
            asked.switch, descriptor.switch.0
        );
        return Err(status::switch_refused(message, &format!("look at it first: rdb ns status {name}")));
    }
    if !descriptor.phase.may_abort() {
        return Err(moved_on(name, Refused::PastReturn));
    }
    Ok(())
}

/// A step that was refused since things are otherwise than the caller thought.
fn moved_on(name: &str, refused: Refused) -> v1::Error {
    let message = format!("the switch of '{name}' is further than was thought: {refused}");
    status::switch_refused(message, &format!("see rdb ns status {name}"))
}

/// Nobody knows yet whether the step is taken.
fn in_doubt(error: v1::Error, name: &str) -> v1::Error {
    match error.outcome() {
        v1::Outcome::InDoubt => v1::Error {
            message: format!(
                "it is not known whether the step of the switch of '{name}' was taken: {}",
                error.message
            ),
            hint: format!("look at it before asking again: rdb ns status {name}"),
            ..error
        },
        _ => error,
    }
}

fn word(mode: Mode) -> &'static str {
    match mode {
        Mode::Strong => "strong",
        Mode::Eventual => "eventual",
    }
}

pub(super) fn to_wire(mode: Mode) -> v1::Mode {
    match mode {
        Mode::Strong => v1::Mode::Strong,
        Mode::Eventual => v1::Mode::Eventual,
    }
}

/// A namespace's mode, as this node knows it.
fn describe(shared: &Shared, namespace: &Namespace) -> v1::SwitchStatus {
    let (descriptor, now) = (&namespace.descriptor, Instant::now());
    let heard = shared.standings.of(namespace.region);
    let seen = shared.switches.of(namespace.id);
    let age_ms = |since: Instant| millis(now.saturating_duration_since(since));
    let to = descriptor.is_switching().then(|| to_wire(descriptor.mode.other()));
    let has_deadline = descriptor.phase.may_abort() && descriptor.deadline_ms != 0;
    let remaining_ms = descriptor.deadline_ms.saturating_sub(wall_ms()).max(1);
    let when = When { now, since: seen.as_ref().map_or(now, |seen| seen.since) };
    let blockers = facts::blockers(descriptor, &heard, when);
    let last = seen.as_ref().and_then(|seen| seen.last.as_ref());
    let conflicts = shared.eventual.shown(namespace.region).map_or(0, |shown| shown.lost());
    v1::SwitchStatus {
        name: namespace.name.clone(),
        id: namespace.id.0,
        mode: to_wire(descriptor.mode).into(),
        epoch: descriptor.epoch.0,
        era: descriptor.era.0,
        phase: phase(descriptor.phase).into(),
        to: to.unwrap_or_default().into(),
        switch: descriptor.switch.0,
        roster: descriptor.roster.iter().map(|node| node.0).collect(),
        excluded: descriptor.excluded.iter().map(|node| node.0).collect(),
        phase_age_ms: seen.as_ref().map_or(0, |seen| age_ms(seen.since)),
        write_pause_ms: seen.as_ref().and_then(|seen| seen.paused_since).map_or(0, age_ms),
        remaining_ms: if has_deadline { remaining_ms } else { 0 },
        blockers: blockers.iter().map(ToString::to_string).collect(),
        members: members(shared, descriptor, &heard, now),
        controls: shared.regions.get(RegionId::META).is_some_and(|view| view.leads()),
        last: last.map(|end| v1::SwitchEnd {
            switch: end.switch.0,
            completed: end.completed,
            reason: end.reason.clone(),
            write_pause_ms: millis(end.pause),
            ago_ms: age_ms(end.at),
        }),
        conflicts,
        clock_untrusted: shared.clocks.trust().is_err(),
    }
}

fn phase(phase: Phase) -> v1::SwitchPhase {
    match phase {
        Phase::Settled => v1::SwitchPhase::Settled,
        Phase::Preparing => v1::SwitchPhase::Preparing,
        Phase::Sealing => v1::SwitchPhase::Sealing,
        Phase::Draining => v1::SwitchPhase::Draining,
        Phase::Flipping => v1::SwitchPhase::Flipping,
    }
}

fn members(
    shared: &Shared,
    descriptor: &Descriptor,
    heard: &facts::Heard,
    now: Instant,
) -> Vec<v1::MemberStanding> {
    let (sealed, drained) = (facts::sealed(descriptor, heard), facts::drained(descriptor, heard));
    let member = |node: NodeId| {
        let silence = shared.peers.silence(node);
        let this = node == shared.config.node();
        let said = heard.get(&node);
        let standing =
            said.map_or_else(v1::MemberStanding::default, |(standing, _)| standing_to_wire(standing));
        v1::MemberStanding {
            node: node.0,
            excluded: descriptor.excluded.contains(&node),
            reachable: this || silence.is_some_and(|silence| silence <= SILENCE_MAX),
            silence_ms: silence.map_or(0, millis),
            known: said.is_some(),
            age_ms: said.map_or(0, |(_, at)| millis(now.saturating_duration_since(*at))),
            sealed: sealed.contains(&node),
            drained: drained.contains_key(&node),
            behind_writes: facts::behind_writes(heard, node, &BTreeSet::new()),
            ..standing
        }
    };
    descriptor.members().map(member).collect()
}

fn standing_to_wire(standing: &Standing) -> v1::MemberStanding {
    let mut writes: BTreeMap<NodeId, u64> = BTreeMap::new();
    for (origin, seq) in standing.applied.iter() {
        let sum = writes.entry(origin.node).or_default();
        *sum = sum.saturating_add(seq);
    }
    v1::MemberStanding {
        mode: to_wire(standing.mode).into(),
        era: standing.era.0,
        epoch: standing.epoch.0,
        gate: match standing.gate {
            GateState::Open => v1::Gate::Open.into(),
            GateState::Shut => v1::Gate::Shut.into(),
            GateState::Sealed => v1::Gate::Sealed.into(),
        },
        leads: standing.leads,
        answering: standing.answering,
        lag_ms: standing.lag_ms,
        lag_known: standing.lag_known,
        needs_full_copy: standing.needs_full_copy,
        applied: writes.into_iter().map(|(node, writes)| v1::OriginWrites { node: node.0, writes }).collect(),
        quarantined: standing.quarantined,
        ..v1::MemberStanding::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(nodes: &[u64]) -> BTreeSet<NodeId> {
        nodes.iter().copied().map(NodeId).collect()
    }

    fn eventual() -> Descriptor {
        Descriptor::new(Mode::Eventual, (1..=3).map(NodeId))
    }

    fn after(descriptor: &Descriptor, step: Step) -> Descriptor {
        descriptor.apply(&descriptor.change(step)).unwrap()
    }

    fn begin(excluded: &[u64]) -> Step {
        Step::Begin { excluded: nodes(excluded), deadline_ms: 0, write_pause_ms_max: 0 }
    }

    #[test]
    fn a_request_that_comes_again_knows_its_own_switch() {
        let asked = |after_switch| v1::SwitchModeRequest { after_switch, ..v1::SwitchModeRequest::default() };
        let (first, none) = (eventual(), nodes(&[]));
        assert!(!is_begun(&first, &asked(Some(0)), Mode::Strong, &none), "it is still to come");
        let begun = after(&first, begin(&[]));
        assert!(is_begun(&begun, &asked(Some(0)), Mode::Strong, &none));
        assert!(
            !is_begun(&begun, &asked(None), Mode::Strong, &none),
            "who does not say which means a new one"
        );
        assert!(!is_begun(&begun, &asked(Some(1)), Mode::Strong, &none), "this would be the next one");
        assert!(!is_begun(&begun, &asked(Some(0)), Mode::Eventual, &none));
        assert!(!is_begun(&begun, &asked(Some(0)), Mode::Strong, &nodes(&[3])));
        let aborted = after(&begun, Step::Abort);
        assert!(is_begun(&aborted, &asked(Some(0)), Mode::Strong, &none), "it has begun, and ended since");
    }

    #[test]
    fn an_abort_that_comes_again_finds_it_done_and_not_a_completed_switch() {
        let asked = v1::AbortSwitchRequest { switch: 1, era: 1, ..v1::AbortSwitchRequest::default() };
        let begun = after(&eventual(), begin(&[]));
        assert!(!is_called_off(&begun, &asked));
        assert!(is_called_off(&after(&begun, Step::Abort), &asked));
        let sealing = after(&begun, Step::Seal { deadline_ms: 0 });
        let draining = after(&sealing, Step::Drain { cut: rdb_core::switch::Vector::default() });
        let completed = after(&after(&draining, Step::Flip), Step::Finish);
        assert!(!is_called_off(&completed, &asked));
        let any = v1::AbortSwitchRequest::default();
        assert!(!is_called_off(&eventual(), &any), "there was none");
    }

    #[test]
    fn only_a_minority_of_members_can_be_left_out() {
        let refused = |to, excluded: &[u64]| check_excluded(&eventual(), to, &nodes(excluded)).unwrap_err();
        assert!(check_excluded(&eventual(), Mode::Strong, &nodes(&[])).is_ok());
        assert!(refused(Mode::Strong, &[4]).message.contains("no node 4"));
        assert!(refused(Mode::Strong, &[1, 2]).message.contains("no majority"));
        assert!(refused(Mode::Eventual, &[3]).message.contains("only a switch to strong"));
        assert!(check_excluded(&eventual(), Mode::Strong, &nodes(&[3])).is_ok());
    }

    #[test]
    fn all_that_a_switch_is_refused_for_is_named_and_what_it_waits_for_is_not() {
        let waits = v1::Hindrance { text: "it lags".into(), ..v1::Hindrance::default() };
        assert!(refuse(std::slice::from_ref(&waits), "a").is_ok());
        let found =
            [waits, refused("node 2 is down", "bring it back".into()), refused("no leader", "wait".into())];
        let error = refuse(&found, "a").unwrap_err();
        assert!(
            error.message.contains("node 2 is down; no leader; nothing was changed"),
            "{}",
            error.message
        );
        assert_eq!((error.hint.as_str(), error.code()), ("bring it back", v1::Code::SwitchRefused));
    }
}

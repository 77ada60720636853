//! The switch of a namespace's mode: begin one, look at it, wait for it, call it off.

use crate::attempts::Safety;
use crate::client::Client;
use crate::error::{Attempted, Error, WriteError};
use crate::values::Mode;
use rdb_proto::v1;
use rdb_proto::v1::namespaces_client::NamespacesClient;
use std::fmt;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};
use tonic::Request;

/// Between two looks at a switch that is waited for.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// How a switch is to be done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SwitchOptions {
    /// To strong: members to go on without. What only they have is set aside when they return.
    pub excluded: Vec<u64>,
    /// To strong: the switch is called off when writes were held back for so long. `None`: what the cluster thinks right.
    pub max_write_pause: Option<Duration>,
    /// The switch is called off when the members were not close enough to each other by then. `None`: what the cluster thinks
    /// right.
    pub max_preparing: Option<Duration>,
}

/// How far a switch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SwitchPhase {
    /// No switch is under way.
    Settled,
    /// The members are brought close to each other; clients notice nothing.
    Preparing,
    /// To strong: writes are held back, and each member promises to take no more.
    Sealing,
    /// To strong: each member gets all that is kept.
    Draining,
    /// The region's log takes the new mode. There is no way back.
    Flipping,
}

impl fmt::Display for SwitchPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SwitchPhase::Settled => "settled",
            SwitchPhase::Preparing => "preparing",
            SwitchPhase::Sealing => "sealing",
            SwitchPhase::Draining => "draining",
            SwitchPhase::Flipping => "flipping",
        })
    }
}

/// Whether a member may acknowledge eventual writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// It may.
    Open,
    /// Not now.
    Shut,
    /// Not before the switch has ended, as it has promised.
    Sealed,
}

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Gate::Open => "open",
            Gate::Shut => "shut",
            Gate::Sealed => "sealed",
        })
    }
}

/// How a namespace's mode stands, as one node knows it.
#[derive(Debug, Clone)]
pub struct SwitchStatus {
    /// The node that answered.
    pub answered_by: u64,
    /// Whether it leads the catalog, and so drives the switch and knows it first.
    pub controls: bool,
    /// The namespace.
    pub name: String,
    /// Its number, never used twice.
    pub id: u32,
    /// Its mode.
    pub mode: Mode,
    /// Grows whenever who may write changes.
    pub epoch: u64,
    /// Grows when a switch completes.
    pub era: u32,
    /// How far the switch is.
    pub phase: SwitchPhase,
    /// Where the switch under way leads to.
    pub to: Option<Mode>,
    /// The newest attempt to switch; 0 before the first.
    pub switch: u64,
    /// The members that take part.
    pub roster: Vec<u64>,
    /// Those that the newest switch goes on without.
    pub excluded: Vec<u64>,
    /// For how long it is so, as the answering node saw it.
    pub phase_age: Duration,
    /// For how long writes are held back, as the answering node saw it.
    pub write_pause: Duration,
    /// Until the switch is called off by itself, where that may happen.
    pub remaining: Option<Duration>,
    /// What the phase waits for, in words.
    pub blockers: Vec<String>,
    /// The members, as they described themselves last.
    pub members: Vec<MemberStanding>,
    /// How the newest switch that has ended did so, where the answering node has seen it.
    pub last: Option<SwitchEnd>,
    /// Eventual writes that lost against a concurrent one, by what the answering node has applied.
    pub conflicts: u64,
    /// Whether the answering node takes no eventual writes, since its clock is off from those of a majority.
    pub clock_untrusted: bool,
}

impl SwitchStatus {
    /// Whether a switch is under way.
    #[must_use]
    pub fn is_switching(&self) -> bool {
        self.phase != SwitchPhase::Settled
    }

    /// Its place among all that the catalog ever says of the namespace.
    fn position(&self) -> (u64, u64, SwitchPhase) {
        (self.epoch, self.switch, self.phase)
    }
}

/// How a switch ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SwitchEnd {
    /// Which one.
    pub switch: u64,
    /// Else it was called off.
    pub completed: bool,
    /// Why it was called off; empty where that is not known.
    pub reason: String,
    /// For how long writes were held back.
    pub write_pause: Duration,
    /// Since then.
    pub ago: Duration,
}

/// A member of a namespace, as it described itself last.
#[derive(Debug, Clone)]
pub struct MemberStanding {
    /// Its number.
    pub node: u64,
    /// Whether the newest switch goes on without it.
    pub excluded: bool,
    /// Whether the answering node has heard it within the last second.
    pub reachable: bool,
    /// Since it was heard.
    pub silence: Duration,
    /// What it said of itself; `None`: nothing yet.
    pub said: Option<Said>,
    /// Whether it has promised, for this switch, to acknowledge nothing more.
    pub sealed: bool,
    /// Whether it holds, for this switch, all that is kept.
    pub drained: bool,
}

/// What a member said of itself.
#[derive(Debug, Clone)]
pub struct Said {
    /// Since it did.
    pub age: Duration,
    /// The mode that its replica is in.
    pub mode: Mode,
    /// Its era.
    pub era: u32,
    /// The epoch of its answers.
    pub epoch: u64,
    /// Whether it may acknowledge eventual writes; `None`: it does not say.
    pub gate: Option<Gate>,
    /// Whether it leads the region.
    pub leads: bool,
    /// Whether eventual writes are under way there that are not answered yet.
    pub answering: bool,
    /// The age of its oldest write that is not everywhere; at least so much, where it is not known.
    pub lag: Duration,
    /// Whether the lag is known.
    pub lag_known: bool,
    /// Writes that others have and it has not.
    pub behind_writes: u64,
    /// Whether only a copy of all the data helps it.
    pub needs_full_copy: bool,
    /// Of each node that accepted eventual writes in this era, how many of them it has applied.
    pub applied: Vec<(u64, u64)>,
    /// Writes that it has set aside, since the others went on without them.
    pub quarantined: u64,
}

/// What stands in a switch's way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hindrance {
    /// What it is.
    pub text: String,
    /// What to do about it.
    pub hint: String,
    /// Whether the switch is not even begun for it; else it begins, and waits for this while clients notice nothing.
    pub refused: bool,
}

/// A look at a switch that was not begun.
#[derive(Debug, Clone)]
pub struct SwitchCheck {
    /// The namespace as it is.
    pub status: SwitchStatus,
    /// What the switch would be refused for, or wait for.
    pub hindrances: Vec<Hindrance>,
}

impl Client {
    /// Begins to switch a namespace's mode, and returns once that is decided: the cluster then carries the switch through, or
    /// calls it off, by itself. [`Client::wait_for_switch`] waits for that.
    ///
    /// It is tried again until it is answered or the time is over: what is begun is the one switch that follows on what was
    /// there at first.
    pub async fn switch_mode(
        &self,
        name: &str,
        to: Mode,
        options: &SwitchOptions,
    ) -> Result<SwitchStatus, WriteError> {
        let deadline = self.deadline();
        let looked = self.ask_switch(deadline, Safety::Read, request(name, to, options, true)).await;
        let looked = looked.map_err(|error| WriteError::NotDone(error.into_error()))?.0;
        let named = v1::SwitchModeRequest {
            id: looked.id,
            after_switch: Some(looked.switch),
            ..request(name, to, options, false)
        };
        Ok(self.ask_switch(deadline, Safety::NamedWrite, named).await?.0)
    }

    /// Says what would stand in the way of a switch, and changes nothing.
    pub async fn check_switch(
        &self,
        name: &str,
        to: Mode,
        options: &SwitchOptions,
    ) -> Result<SwitchCheck, Error> {
        let asked = self.ask_switch(self.deadline(), Safety::Read, request(name, to, options, true));
        let (status, hindrances) = asked.await.map_err(WriteError::into_error)?;
        Ok(SwitchCheck { status, hindrances })
    }

    async fn ask_switch(
        &self,
        deadline: Instant,
        safety: Safety,
        request: v1::SwitchModeRequest,
    ) -> Result<(SwitchStatus, Vec<Hindrance>), WriteError> {
        let answer = self.call_until(deadline, safety, request, async |channel, request| {
            NamespacesClient::new(channel).switch_mode(request).await
        });
        let v1::SwitchModeResponse { header, status, hindrances } = answer.await?;
        let hindrances = hindrances.into_iter().map(Hindrance::from).collect();
        Ok((from_wire(header.as_ref(), status.unwrap_or_default()), hindrances))
    }

    /// Calls the switch off that is under way. Refused once there is no way back.
    pub async fn abort_switch(&self, name: &str) -> Result<SwitchStatus, WriteError> {
        let looked = self.switch_status(name).await.map_err(WriteError::NotDone)?;
        let (safety, switch) = match looked.is_switching() {
            true => (Safety::NamedWrite, looked.switch),
            // The node that was asked may lag: whoever drives switches says whether there is one.
            false => (Safety::Write, 0),
        };
        let request = v1::AbortSwitchRequest { name: name.into(), id: looked.id, switch, era: looked.era };
        let answer = self.call(safety, request, async |channel, request| {
            NamespacesClient::new(channel).abort_switch(request).await
        });
        let answer = answer.await?;
        Ok(from_wire(answer.header.as_ref(), answer.status.unwrap_or_default()))
    }

    /// How a namespace's mode stands, as some node knows it: the one that leads the catalog, if it can be asked.
    pub async fn switch_status(&self, name: &str) -> Result<SwitchStatus, Error> {
        let request = v1::GetSwitchRequest { name: name.into() };
        let answer = self.call(Safety::Read, request, async |channel, request| {
            NamespacesClient::new(channel).get_switch(request).await
        });
        let answer = answer.await.map_err(WriteError::into_error)?;
        Ok(from_wire(answer.header.as_ref(), answer.status.unwrap_or_default()))
    }

    /// The same as one node knows it. It is asked once, and has a second to answer.
    pub async fn switch_status_at(&self, address: &str, name: &str) -> Result<SwitchStatus, Error> {
        let started = Instant::now();
        let nodes = self.nodes_known();
        let unknown = || Error::Options(format!("'{address}' is not an address like 127.0.0.1:7101"));
        let channel = nodes.learn(address).and_then(|node| nodes.channel(&node)).ok_or_else(unknown)?;
        let request = Request::new(v1::GetSwitchRequest { name: name.into() });
        let limit = 2 * nodes.options().connect_timeout;
        let reason = match timeout(limit, NamespacesClient::new(channel).get_switch(request)).await {
            Ok(Ok(answer)) => {
                let answer = answer.into_inner();
                return Ok(from_wire(answer.header.as_ref(), answer.status.unwrap_or_default()));
            }
            Ok(Err(status)) => status.message().to_owned(),
            Err(_) => "timed out".to_owned(),
        };
        let attempted = Attempted { tries: 1, waited: started.elapsed() };
        Err(Error::Unreachable { nodes: address.to_owned(), reason, attempted })
    }

    /// Waits until a switch that has `begun` has ended, and shows each look at it on the way. To stop waiting changes nothing: the
    /// switch goes on.
    ///
    /// # Errors
    /// No node could tell, for as long as a request may take. The switch goes on.
    pub async fn wait_for_switch(
        &self,
        begun: &SwitchStatus,
        mut show: impl FnMut(&SwitchStatus),
    ) -> Result<SwitchEnd, Error> {
        let mut newest = begun.position();
        loop {
            let status = self.switch_status(&begun.name).await?;
            // Not every node that may be asked has heard of the newest step.
            if newest <= status.position() {
                newest = status.position();
                show(&status);
                if let Some(end) = end_of(begun, &status) {
                    return Ok(end);
                }
            }
            sleep(LOOK_INTERVAL).await;
        }
    }
}

/// Why it is not known how a switch ended.
const ENDED_UNSEEN: &str = "it had ended before it was looked at, and the node that answered does not know how: see which mode the namespace is in";

/// How the switch that has begun ended, if it has.
fn end_of(begun: &SwitchStatus, now: &SwitchStatus) -> Option<SwitchEnd> {
    // One whose beginning was asked for again may have ended by the time that it was answered.
    let had_ended = !begun.is_switching();
    let has_ended = had_ended || begun.epoch < now.epoch || begun.switch < now.switch;
    if !has_ended {
        return None;
    }
    let seen = now.last.clone().filter(|last| last.switch == begun.switch);
    // The era grows when a switch completes; were it a later one, this one would have been seen to end before.
    Some(seen.unwrap_or_else(|| SwitchEnd {
        switch: begun.switch,
        completed: begun.era < now.era,
        reason: if had_ended { ENDED_UNSEEN.to_owned() } else { String::new() },
        write_pause: Duration::ZERO,
        ago: Duration::ZERO,
    }))
}

fn request(name: &str, to: Mode, options: &SwitchOptions, dry_run: bool) -> v1::SwitchModeRequest {
    // Zero is none of one's own.
    let millis = |limit: Option<Duration>| {
        limit.map_or(0, |limit| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX).max(1))
    };
    v1::SwitchModeRequest {
        name: name.into(),
        to: v1::Mode::from(to).into(),
        dry_run,
        excluded: options.excluded.clone(),
        write_pause_ms_max: millis(options.max_write_pause),
        preparing_ms_max: millis(options.max_preparing),
        ..v1::SwitchModeRequest::default()
    }
}

fn from_wire(header: Option<&v1::Header>, status: v1::SwitchStatus) -> SwitchStatus {
    let to = Some(status.to()).filter(|to| *to != v1::Mode::Unspecified).map(Mode::from);
    SwitchStatus {
        answered_by: header.map_or(0, |header| header.node),
        controls: status.controls,
        mode: status.mode().into(),
        phase: match status.phase() {
            v1::SwitchPhase::Unspecified | v1::SwitchPhase::Settled => SwitchPhase::Settled,
            v1::SwitchPhase::Preparing => SwitchPhase::Preparing,
            v1::SwitchPhase::Sealing => SwitchPhase::Sealing,
            v1::SwitchPhase::Draining => SwitchPhase::Draining,
            v1::SwitchPhase::Flipping => SwitchPhase::Flipping,
        },
        to,
        name: status.name,
        id: status.id,
        epoch: status.epoch,
        era: status.era,
        switch: status.switch,
        roster: status.roster,
        excluded: status.excluded,
        phase_age: Duration::from_millis(status.phase_age_ms),
        write_pause: Duration::from_millis(status.write_pause_ms),
        remaining: Some(status.remaining_ms).filter(|left| *left != 0).map(Duration::from_millis),
        blockers: status.blockers,
        members: status.members.into_iter().map(MemberStanding::from).collect(),
        last: status.last.map(SwitchEnd::from),
        conflicts: status.conflicts,
        clock_untrusted: status.clock_untrusted,
    }
}

impl From<v1::SwitchEnd> for SwitchEnd {
    fn from(end: v1::SwitchEnd) -> Self {
        Self {
            switch: end.switch,
            completed: end.completed,
            reason: end.reason,
            write_pause: Duration::from_millis(end.write_pause_ms),
            ago: Duration::from_millis(end.ago_ms),
        }
    }
}

impl From<v1::Hindrance> for Hindrance {
    fn from(hindrance: v1::Hindrance) -> Self {
        Self { text: hindrance.text, hint: hindrance.hint, refused: hindrance.refused }
    }
}

impl From<v1::MemberStanding> for MemberStanding {
    fn from(member: v1::MemberStanding) -> Self {
        Self {
            node: member.node,
            excluded: member.excluded,
            reachable: member.reachable,
            silence: Duration::from_millis(member.silence_ms),
            sealed: member.sealed,
            drained: member.drained,
            said: member.known.then(|| Said::from(member)),
        }
    }
}

impl From<v1::MemberStanding> for Said {
    fn from(member: v1::MemberStanding) -> Self {
        Self {
            age: Duration::from_millis(member.age_ms),
            mode: member.mode().into(),
            era: member.era,
            epoch: member.epoch,
            gate: match member.gate() {
                v1::Gate::Unspecified => None,
                v1::Gate::Open => Some(Gate::Open),
                v1::Gate::Shut => Some(Gate::Shut),
                v1::Gate::Sealed => Some(Gate::Sealed),
            },
            leads: member.leads,
            answering: member.answering,
            lag: Duration::from_millis(member.lag_ms),
            lag_known: member.lag_known,
            behind_writes: member.behind_writes,
            needs_full_copy: member.needs_full_copy,
            applied: member.applied.into_iter().map(|applied| (applied.node, applied.writes)).collect(),
            quarantined: member.quarantined,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(epoch: u64, era: u32, switch: u64, phase: v1::SwitchPhase) -> SwitchStatus {
        let phase = phase.into();
        from_wire(None, v1::SwitchStatus { epoch, era, switch, phase, ..v1::SwitchStatus::default() })
    }

    #[test]
    fn a_switch_has_ended_when_its_epoch_has() {
        use v1::SwitchPhase::{Flipping, Preparing, Settled};
        let begun = status(1, 1, 1, Preparing);
        assert_eq!(end_of(&begun, &begun), None);
        assert_eq!(end_of(&begun, &status(1, 1, 1, Flipping)), None);
        let completed = |now: SwitchStatus| end_of(&begun, &now).map(|end| end.completed);
        assert_eq!(completed(status(2, 2, 1, Settled)), Some(true));
        assert_eq!(completed(status(2, 1, 1, Settled)), Some(false), "an abort raises the epoch alone");
        assert_eq!(completed(status(2, 1, 2, Preparing)), Some(false), "the next one is under way");
        let last = |switch, completed| SwitchEnd {
            switch,
            completed,
            reason: "too long".into(),
            write_pause: Duration::ZERO,
            ago: Duration::ZERO,
        };
        let of = |last| SwitchStatus { last: Some(last), ..status(2, 1, 1, Settled) };
        assert_eq!(end_of(&begun, &of(last(1, false))), Some(last(1, false)));
        assert_eq!(end_of(&begun, &of(last(7, true))).map(|end| end.completed), Some(false));
    }
}
